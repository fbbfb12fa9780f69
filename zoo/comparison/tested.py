"""One cell of a suite of conditions: a trained cell, tested on corrupted audio."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..config import RunConfig
from ..errors import DataError
from ..evaluate import evaluate
from ..record import RECORD, environment, peak_memory_mb, read_record, write_json
from ..reporting.cells import PREDICTIONS
from ..statistics.measure import measure
from ..statistics.metrics import PredictionTable

# what a record has in common with that of the trained cell
KEPT = (
    *("format", "fingerprint", "config", "classes", "data", "speakers", "selection", "axes"),
    *("parameters", "encoder", "features", "search"),
)


def evaluate_cell(
    cfg: RunConfig,
    out: Path,
    *,
    source: str,
    facts: dict[str, Any],
    noise: str | None = None,
    rir: str | None = None,
) -> dict[str, Any]:
    """Test a trained cell under a condition and write its predictions and record.

    Args:
        cfg: of the trained cell; its threads.
        out: folder of the result.
        source: folder of the trained cell.
        facts: for the record: ``condition``, and what was tested.
        noise: folder of recorded noises.
        rir: folder of room impulse responses.

    Raises:
        DataError: when the test part is not that of the trained cell any more.
    """
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    began = time.perf_counter()
    trained = read_record(Path(source)) or {}
    table, numbers = evaluate(source, condition=facts["condition"], noise=noise, rir=rir)
    clean = PredictionTable.read_jsonl(Path(source) / PREDICTIONS)
    if numbers["data"]["manifest"] != trained["data"]["manifest"] or set(table.ids) != set(
        clean.ids
    ):
        raise DataError(
            f"{source} was tested on {len(clean)} utterances, and there are {len(table)} now, or "
            "their labels or samples changed; give the data of its training back, or train again"
        )
    agrees = dict(zip(clean.ids, clean.predicted.tolist(), strict=True))
    same = [agrees[i] == p for i, p in zip(table.ids, table.predicted.tolist(), strict=True)]
    temperature = (trained.get("metrics") or {}).get("temperature") or 1.0  # of clean validation
    entry = {
        "status": "ok",
        **{k: trained[k] for k in KEPT if k in trained},
        **facts,
        "corruption": numbers["condition"],
        "same_answers": sum(same) / len(same),  # as without the condition
        **measure(table, temperature),
        "inference_seconds_per_utterance": None,  # the time is the corruption's, too
        "seconds": dict.fromkeys(("evaluate", "total"), round(time.perf_counter() - began, 2)),
        "peak_memory_mb": peak_memory_mb(),
        "threads": torch.get_num_threads(),
        **environment(),
    }
    table.write_jsonl(out / PREDICTIONS)
    write_json(out / RECORD, entry)
    return entry
