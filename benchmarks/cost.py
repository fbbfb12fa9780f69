"""What a large comparison costs, from the committed records: `python benchmarks/cost.py`.

It prints the constants of docs/reference/cost.md, and the costs of the comparison that page is
about. Features are counted from the sizes of the encoders. All else is measured, on processors.
`--seconds` and `--speed` give the GPU hours with constants that you measured on your GPU.
"""

from __future__ import annotations

import json
import lzma
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from timing import parser_of

RESULTS = Path(__file__).parent / "results"
SUITE = "head_to_head_whisper"  # nine heads on frozen frames, as most large comparisons are
HEADS, ENCODERS, CORPORA, FOLDS, SEEDS = 9, 10, 12, 5, 5
FRAMES = 50  # frames per second of the published encoders for speech
WIDTHS = {"base": (13, 768), "large": (25, 1024)}  # kept layers and width, by size of the encoder
HOURS = 10  # of speech in a corpus; an assumption, since corpora have 0.5 to 200 hours


def cells(suite: str) -> list[dict[str, Any]]:
    """Return the records of a committed suite's cells that ended well."""
    with lzma.open(RESULTS / suite / "records.jsonl.xz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["record"] for row in rows if row.get("record", {}).get("status") == "ok"]


def gpu_hours(seconds: float, speed: float) -> dict[str, float]:
    """Return the GPU hours of the comparison if a GPU runs one cell at a time.

    Args:
        seconds: of a cell.
        speed: hours of speech that are encoded in an hour.
    """
    found = cells(SUITE)
    mean = statistics.mean(r["seconds"]["total"] for r in found)
    search = statistics.mean(r["search"]["seconds"] for r in found if r.get("search")) / mean
    searched = HEADS * ENCODERS * CORPORA * FOLDS  # the seeds share the settings
    return {
        "cells": searched * SEEDS * seconds / 3600,
        "trials": searched * search * seconds / 3600,
        "encoding": ENCODERS * CORPORA * HOURS / speed,
    }


def main() -> None:
    """Print constants and costs."""
    found = cells(SUITE)
    by_head: dict[str, list[float]] = defaultdict(list)
    for record in found:
        cfg = record["config"]
        by_head[cfg.get("head_name") or cfg["head"]["type"]].append(record["seconds"]["total"])
    print(f"{SUITE}: {len(found)} cells of {len(by_head)} heads, one thread each")
    for head, seconds in sorted(by_head.items(), key=lambda item: statistics.mean(item[1])):
        print(f"  {head}: {statistics.mean(seconds):.1f} s, at most {max(seconds):.1f} s")
    mean = statistics.mean(r["seconds"]["total"] for r in found)
    print(f"  all: {mean:.1f} s; peak memory {max(r['peak_memory_mb'] for r in found):.0f} MiB")
    stores = [r["feature_store"] for r in found if "bytes" in r["feature_store"]]
    each = sorted({round(s["bytes"] / (s["reused"] + s["encoded"])) for s in stores})
    print(f"  features of one layer, float32: {each[0]:,} to {each[-1]:,} bytes an utterance")
    trials = [r["search"]["seconds"] for r in found if r.get("search")]
    print(f"  search: {statistics.mean(trials):.0f} s for the trials that chose a cell's settings")
    text = statistics.mean(len(json.dumps(r, indent=1)) for r in found)
    packed = sum(f.stat().st_size for f in (RESULTS / SUITE).iterdir() if f.is_file()) / len(found)
    print(f"  record: {text / 1e3:.1f} kB; packed with its predictions {packed / 1e3:.1f} kB")
    number = HEADS * ENCODERS * CORPORA * FOLDS * SEEDS
    print(f"comparison: {number:,} cells")
    print(f"  processor hours of the cells: {number * mean / 3600:.0f}")
    print(f"  records: {number * text / 1e9:.2f} GB; packed {number * packed / 1e9:.2f} GB")
    for size, (layers, width) in WIDTHS.items():
        for name, width_of_number in (("float32", 4), ("bfloat16", 2)):
            hour = layers * width * FRAMES * 3600 * width_of_number
            total = hour * HOURS * CORPORA * ENCODERS
            print(f"  {size}, {name}: {hour / 1e9:.2f} GB an hour; in all {total / 1e12:.2f} TB")


if __name__ == "__main__":
    parser = parser_of(__doc__)
    parser.add_argument("--seconds", type=float, help="seconds of a cell on your GPU")
    parser.add_argument("--speed", type=float, help="hours of speech that it encodes in an hour")
    given = parser.parse_args()
    if given.seconds is None and given.speed is None:
        main()
    elif not (given.seconds and given.speed and min(given.seconds, given.speed) > 0):
        parser.error("give both --seconds and --speed, each a number above 0")
    else:
        for part, hours in gpu_hours(given.seconds, given.speed).items():
            print(f"GPU hours of the {part}: {hours:.0f}")
