"""UAR, WA and macro-F1 as functions of confusion matrices.

Which classes a mean runs over decides the number (three libraries give 0.5, 0.375 and 0.75 for the
same predictions), so it is fixed here: **UAR and macro-F1 are means over the classes present in
the reference**. A class that no labelled utterance has is listed as absent and not averaged; a
prediction of it is an error of the class that it should have been. WA is plain accuracy.

All take leading dimensions, so that a bootstrap scores its resamples at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def recalls_of(confusion: NDArray[Any]) -> FloatArray:
    """``[..., C]`` recall per class of ``[..., C, C]`` confusions; NaN where a class is absent."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hits, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
    return np.divide(hits, support, out=np.full_like(support, np.nan), where=support > 0)


def uar_of(confusion: NDArray[Any]) -> FloatArray:
    """``[...]`` unweighted average recall over the classes present in the reference."""
    return _mean_present(recalls_of(confusion))


def wa_of(confusion: NDArray[Any]) -> FloatArray:
    """``[...]`` weighted accuracy, the field's name for plain accuracy."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hits, n = np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1))
    return np.divide(hits, n, out=np.full_like(n, np.nan), where=n > 0)


def f1_of(confusion: NDArray[Any]) -> FloatArray:
    """``[...]`` macro-F1 over the classes present in the reference."""
    confusion = np.asarray(confusion, dtype=np.float64)
    hits, support = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1)
    both = support + confusion.sum(-2)
    f1 = np.divide(2 * hits, both, out=np.full_like(support, np.nan), where=support > 0)
    return _mean_present(f1)


def _mean_present(values: FloatArray) -> FloatArray:
    n = np.isfinite(values).sum(-1)
    total = np.nansum(values, -1)
    return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)


METRICS = {"uar": uar_of, "wa": wa_of, "f1": f1_of}
