"""Two states of a training, compared leaf by leaf."""

from __future__ import annotations

from typing import Any

import torch


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested containers, by path."""
    if isinstance(value, dict):
        value = value.items()
    elif isinstance(value, (list, tuple)):
        value = enumerate(value)
    else:
        return {prefix: value}
    return {k: v for key, inner in value for k, v in flat(inner, f"{prefix}/{key}").items()}


def equal(a: Any, b: Any) -> bool:
    """Whether two leaves are the same; tensors are compared by their values."""
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """Fail with the path of the first leaf that differs, or if one of them has others."""
    a, b = flat(ours), flat(theirs)
    assert a.keys() == b.keys(), where
    for key, value in a.items():
        assert equal(value, b[key]), f"{where}{key}"
