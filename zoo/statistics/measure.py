"""All numbers of a table of test predictions, as a record holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .jackknife import jackknife
from .metrics import PredictionTable


def measure(test: PredictionTable, temperature: float = 1.0) -> dict[str, Any]:
    """All numbers of a table of test predictions, as the record holds them."""
    corpora = test.by_corpus()
    return {
        "metrics": {
            **test.metrics(),
            **uar_interval(test),
            "nll": test.nll(),
            "nll_calibrated": test.nll(temperature),
            "ece": test.ece(),
            "ece_calibrated": test.ece(temperature),
            "temperature": temperature,
        },
        "by_speaker": test.by_speaker(),
        "by_corpus": {
            name: {**table.metrics(), **uar_interval(table)}
            for name, table in corpora.items()
            if len(corpora) > 1 and table.labelled.any()
        },
    }


def uar_interval(table: PredictionTable) -> dict[str, Any]:
    """``uar_interval``, two bounds or None, and ``uar_interval_by``: how it was made, or why not.

    Records without the second key are older: their interval is a percentile bootstrap, which is
    too narrow with few speakers (:mod:`.jackknife`), and is not shown.
    """
    found = jackknife(table)
    if found.note:
        return {"uar_interval": None, "uar_interval_by": found.note}
    by = f"jackknife over {found.n_speakers} speakers"
    return {"uar_interval": [found.low, found.high], "uar_interval_by": by}


def interval_text(metrics: Mapping[str, Any]) -> str:
    """What stands behind a UAR, in brackets: its interval, or why there is none."""
    by = metrics.get("uar_interval_by")
    if by is None:
        return "(no interval: the record is older than the jackknife)"
    if metrics["uar_interval"] is None:
        return f"({by})"
    low, high = metrics["uar_interval"]
    if low == high:  # it looks like certainty, and is the lack of a spread to judge by
        return f"(95 % interval of no width: all speakers scored alike; {by})"
    return f"(95 % interval {low:.3f} to {high:.3f}, {by})"
