"""Options of parts as earlier versions wrote them, in records, checkpoints and saved models.

:func:`upgraded` reads such options as today's. :func:`as_first_written` does the reverse for the
fingerprint of a run. So a run keeps its fingerprint if an option is added or renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATER: dict[str, dict[str, Any]] = {
    "selm": {"constants": "added"},
    "gen_ser": {"text_model": None, "text_revision": None},
    "hf": {"join": "mix"},
    "serzoo-small": {"join": "mix"},
}
"""Type of a head or an encoder to options that its first records lack, with the values there."""


def upgraded(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return a head's options under today's names.

    SELM had ``calibrated``: true is now ``lm_weight: 0``, and false is ``lm_weight: 1``.

    Args:
        head: options of a head, with its ``type``.
    """
    found = dict(head)
    if found.get("type") == "selm" and "calibrated" in found and "lm_weight" not in found:
        found["lm_weight"] = 0.0 if found.pop("calibrated") else 1.0
    return found


def as_first_written(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide a run's fingerprint, as their first version wrote them.

    An option of :data:`LATER` is left out at the value that held before it existed.

    Args:
        part: options of a head or an encoder, with its ``type``.
    """
    usual = LATER.get(str(part.get("type")), {})
    found = {k: v for k, v in part.items() if k not in usual or v != usual[k]}
    if found.get("type") == "selm" and found.get("lm_weight") in (0, 1):
        found["calibrated"] = found.pop("lm_weight") == 0
    return found
