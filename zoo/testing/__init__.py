"""The contract kit: does a head keep what :class:`serzoo.zoo.Head` promises?

For the heads of this package and for third parties alike; needs no test framework::

    from serzoo.zoo.testing import check_head

    def test_my_head():
        check_head(MyHead, hidden=16)

Every check is a function of a :class:`Case` (``checks.py``) and can be run by itself, as
``CHECKS["padding"](Case(MyHead))``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.head import Head
from ..core.taxonomy import Taxonomy
from . import checks
from .checks import Case, ContractError, check_widen

__all__ = ["CHECKS", "SLOW_CHECKS", "Case", "ContractError", "check_head"]

CHECKS: dict[str, Callable[[Case], None]] = {
    "constructor": checks.check_constructor,
    "shape": checks.check_shape,
    "extras": checks.check_extras,
    "padding": checks.check_padding,
    "batch": checks.check_batch,
    "repeat": checks.check_repeat,
    "taxonomy": checks.check_taxonomy,
    "unlabelled": checks.check_unlabelled,
    "gradients": checks.check_gradients,
    "weights": checks.check_weights,
    "soft_targets": checks.check_soft_targets,
    "state": checks.check_state,
    "autocast": checks.check_autocast,
    "param_groups": checks.check_param_groups,
    "widen": check_widen,
}
SLOW_CHECKS: dict[str, Callable[[Case], None]] = {"overfits": checks.check_overfits}


def check_head(
    cls: type[Head],
    *,
    dim: int = 24,
    taxonomy: Taxonomy | None = None,
    slow: bool = False,
    **knobs: Any,
) -> None:
    """Run every check of the contract on a head.

    Args:
        cls: the head's class.
        dim: ``D``, width of the frames that it is tested with.
        taxonomy: at least three classes; five common ones by default.
        slow: also overfit 32 utterances, which may take minutes.
        knobs: arguments of the constructor, to make a large head small.

    Raises:
        ContractError: naming every failed check, each with what to do.
    """
    case = Case(cls, dim, knobs=knobs) if taxonomy is None else Case(cls, dim, taxonomy, knobs)
    failures: dict[str, str] = {}
    cause: Exception | None = None
    for name, check in (CHECKS | (SLOW_CHECKS if slow else {})).items():
        try:
            check(case)
        except ContractError as error:
            failures[name] = str(error)
        except Exception as error:  # the head itself broke: report it beside the others
            failures[name] = f"{type(error).__name__}: {error}"
            cause = cause or error
    if failures:
        lines = "\n".join(f"  {name}: {message}" for name, message in failures.items())
        raise ContractError(f"{cls.__name__} breaks its contract:\n{lines}", failures) from cause
