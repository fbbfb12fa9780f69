"""The contract kit: it checks that a head or an encoder keeps its contract.

It works for your own classes as for those of this package, and needs no test framework::

    from serzoo.zoo.testing import check_encoder, check_head

    def test_mine():
        check_head(MyHead, hidden=16)
        check_encoder(lambda: MyEncoder(dim=16))

Every check is a function of a :class:`Case` (``checks.py``) or of an :class:`EncoderCase`
(``encoders.py``). It can also run alone: ``CHECKS["padding"](Case(MyHead))``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..core.encoder import Encoder
from ..core.errors import ContractError
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from . import checks
from .checks import Case, check_utterance, check_widen
from .encoders import ENCODER_CHECKS, EncoderCase

__all__ = [
    "CHECKS",
    "ENCODER_CHECKS",
    "SLOW_CHECKS",
    "Case",
    "ContractError",
    "EncoderCase",
    "check_encoder",
    "check_head",
]

_Case = TypeVar("_Case", Case, EncoderCase)

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
    "utterance": check_utterance,
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
        dim: ``D``, width of the frames.
        taxonomy: at least three classes; five common ones by default.
        slow: also overfit 32 utterances, which may take minutes.
        knobs: arguments of the constructor, to make a large head small.

    Raises:
        ContractError: if a check fails; the message lists all failed checks, and what to do.
    """
    case = Case(cls, dim, knobs=knobs) if taxonomy is None else Case(cls, dim, taxonomy, knobs)
    _run(cls.__name__, case, CHECKS | (SLOW_CHECKS if slow else {}))


def check_encoder(make: Callable[[], Encoder]) -> None:
    """Run every check of the contract on an encoder.

    Args:
        make: returns a new encoder: its class, or for example ``lambda: MyEncoder(dim=16)``, with
            options that make a large encoder small.

    Raises:
        ContractError: if a check fails; the message lists all failed checks, and what to do.
    """
    _run(getattr(make, "__name__", "the encoder"), EncoderCase(make), ENCODER_CHECKS)


def _run(name: str, case: _Case, wanted: dict[str, Callable[[_Case], None]]) -> None:
    failures: dict[str, str] = {}
    cause: Exception | None = None
    for key, check in wanted.items():
        try:
            check(case)
        except ContractError as error:
            failures[key] = str(error)
        except Exception as error:  # an error of the head or encoder: report it with the others
            failures[key] = f"{type(error).__name__}: {error}"
            cause = cause or error
    if failures:
        name = name if name != "<lambda>" else "the encoder"
        lines = "\n".join(f"  {key}: {message}" for key, message in failures.items())
        raise ContractError(f"{name} breaks its contract:\n{lines}", failures) from cause
