"""Numbers that two kernels, batch sizes or processors may round in different ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def assert_like(actual: Any, expected: Any, digits: int = 4) -> None:
    """Assert that two tensors agree to ``digits`` digits of the largest number in either.

    A processor rounds each sum relative to its largest terms, not relative to its result. A bound
    per element is therefore too narrow for a small number that stands beside large ones, and an
    absolute bound is too narrow for scores of 50 and too wide for scores of 0.01.

    Args:
        actual: tensor, array, numbers.
        expected: the same; numbers that have no type of their own take that of ``actual``.
        digits: the largest difference is ``10 ** -digits`` times the largest finite number.

    Raises:
        AssertionError: if they differ by more, in shape or type, or if there is nothing to
            compare. Infinite numbers must stand at the same places; NaN is like nothing.
    """
    __tracebackhide__ = True
    a = _tensor(actual)
    b = _tensor(expected, None if isinstance(expected, Tensor | np.ndarray) else a.dtype)
    assert a.shape == b.shape, f"shape is {tuple(a.shape)}, expected {tuple(b.shape)}"
    assert a.dtype == b.dtype, f"type is {a.dtype}, expected {b.dtype}"
    assert a.numel(), "there is nothing to compare"
    a, b = a.double(), b.double()
    finite = a.isfinite() & b.isfinite()
    assert not (a.isnan() | b.isnan()).any(), f"NaN in {_where(a.isnan() | b.isnan())}"
    assert torch.equal(a[~finite], b[~finite]), f"infinite numbers differ in {_where(~finite)}"
    scale = torch.stack([a, b])[finite.expand(2, *a.shape)].abs().amax() if finite.any() else 0.0
    gap = torch.where(finite, (a - b).abs(), 0.0)
    bound = 10.0**-digits * float(scale)
    assert gap.max() <= bound, (
        f"{(gap > bound).sum()} of {gap.numel()} numbers differ by more than {bound:.3g}, which is "
        f"{digits} digits of {scale:.4g}; the largest gap is {gap.max():.3g}, in "
        f"{_where(gap == gap.max())}: {a[gap == gap.max()][0]:.8g}, "
        f"expected {b[gap == gap.max()][0]:.8g}"
    )


def _tensor(x: Any, dtype: torch.dtype | None = None) -> Tensor:
    if isinstance(x, Tensor):
        return x.detach().cpu()
    if isinstance(x, list) and any(isinstance(item, Tensor) for item in x):
        return torch.stack(x).detach()
    return torch.as_tensor(np.asarray(x), dtype=dtype)


def _where(at: Tensor) -> tuple[int, ...]:
    return tuple(at.nonzero()[0].tolist())


def decided(scores: Tensor, digits: int = 4) -> Tensor:
    """``[N]`` bool: rows of ``scores [N, C]`` whose best is clear: rounding cannot change it."""
    best = scores.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] > 10.0**-digits * scores.abs().max()


def assert_ranked_alike(actual: Tensor, expected: Tensor, digits: int = 4) -> None:
    """Assert that each row of ``actual [N, C]`` has the order of ``expected``.

    What is nearly tied in ``expected`` may stand either way; more than a tenth of near ties is
    refused, because little would be tested.
    """
    __tracebackhide__ = True
    assert actual.shape == expected.shape, f"{tuple(actual.shape)}, {tuple(expected.shape)}"
    order = expected.argsort(1)
    clear = expected.gather(1, order).diff(dim=1) > 10.0**-digits * expected.abs().max()
    assert clear.float().mean() > 0.9, f"{(~clear).sum()} of {clear.numel()} are near ties"
    wrong = clear & (actual.gather(1, order).diff(dim=1) <= 0)
    assert not wrong.any(), f"{wrong.any(1).sum()} of {len(wrong)} rows are in another order"
