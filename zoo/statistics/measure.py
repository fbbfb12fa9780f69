"""All numbers of a table of test predictions, as a record holds them."""

from __future__ import annotations

from typing import Any

from .stats import bootstrap


def measure(test: Any, temperature: float = 1.0) -> dict[str, Any]:
    """All numbers of a table of test predictions, as the record holds them."""
    interval = bootstrap(test, "uar")
    corpora = test.by_corpus()
    return {
        "metrics": {
            **test.metrics(),
            "uar_interval": [interval.low, interval.high],
            "nll": test.nll(),
            "nll_calibrated": test.nll(temperature),
            "ece": test.ece(),
            "ece_calibrated": test.ece(temperature),
            "temperature": temperature,
        },
        "by_speaker": test.by_speaker(),
        "by_corpus": {
            name: {**table.metrics(), "uar_interval": list(bootstrap(table, "uar")[1:3])}
            for name, table in corpora.items()
            if len(corpora) > 1 and table.labelled.any()
        },
    }
