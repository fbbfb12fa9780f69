"""Sweeps whose rare members are left to the slow tier, so that the default tests stay fast."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def often(values: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return the parameters of a sweep: the chosen ones in every tier, the others if slow.

    Raises:
        ValueError: if a chosen value is not swept.
    """
    known = list(values)
    if unknown := [value for value in chosen if value not in known]:
        raise ValueError(f"not swept: {unknown}")
    return [v if v in chosen else pytest.param(v, marks=pytest.mark.slow) for v in known]
