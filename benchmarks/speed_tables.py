"""Tables of what ``speed.py``, ``encoding.py`` and ``stored.py`` measured, beside its limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def speed(folder: Path) -> str:
    """Return all speed tables under one heading; "" if there are no records."""

    def read(name: str) -> Any:
        path = folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def line(values: dict[str, float], form: str = ".2f") -> str:
        return (
            f"{values['median']:{form}} ({values['lowest']:{form}} to {values['highest']:{form}})"
        )

    text = ""
    if encoded := read("encoding"):
        row = encoded["encoding"]
        text += (
            f"Encoding {row['speech_seconds']:.0f} s of speech ({encoded['speech']}) with a random "
            f"model of wav2vec2-base's size, {encoded['threads']} threads, {encoded['rounds']} "
            f"rounds in turn; {row['gflop_per_second_of_speech']:.1f} GFLOP per second of speech. "
            "Ratios within the run: median (lowest to highest). Errors are against the plain model "
            "on each clip alone: the plain loop's own is that of its batches, whose padding enters "
            "the GroupNorm.\n\n"
            "| | ratio to the plain loop | times real time | share of the measured matrix-product "
            "limit | relative error | largest difference |\n|---|---|---|---|---|---|\n"
            f"| plain loop, float32, batch 8 padded | 1 | {line(row['plain']['real_time'], '.0f')} "
            f"| | {row['plain']['relative']:.1e} | {row['plain']['absolute']:.1e} |\n"
        )
        for dtype in ("float32", "bfloat16"):
            mine, limit = row[dtype], row["matrix_limit_tflops"][dtype]
            text += (
                f"| serzoo, {dtype} | {line(mine['ratio'])} | {line(mine['real_time'], '.0f')} | "
                f"{line(mine['share_of_limit'])} of {limit:.2f} TFLOP/s | {mine['relative']:.1e} | "
                f"{mine['absolute']:.1e} |\n"
            )
        text += "\n| one kept layer | time, of that of all 12 blocks | operations, likewise |\n"
        text += "|---|---|---|\n"
        for k, values in encoded["one_kept_layer"]["layers"].items():
            text += (
                f"| {k} | {values['time_over_all']:.2f} | {values['operations_over_all']:.2f} |\n"
            )
        text += "\n"
    if stored := read("stored"):
        text += (
            "Training the classification head on stored features of RAVDESS "
            f"({stored['utterances']} utterances, one layer of 768, two threads), "
            f"{stored['epochs']} epochs; a batch is loaded in {stored['load_ms']:.2f} ms. Seconds "
            "are of a shared machine, whose neighbours take a varying part of it.\n\n"
            "| pooling | seconds of each run | ms of a step, with its share of validation | "
            "loading |\n|---|---|---|---|\n"
        )
        for pooling, row in stored["pooling"].items():
            fits = ", ".join(f"{s:.1f}" for s in row["fit_seconds"])
            text += f"| {pooling} | {fits} | {row['step_ms']:.1f} | {row['load_share']:.0%} |\n"
        text += "\n"
    if ratios := read("ratios"):
        text += "| ratio within one run | median | lowest to highest |\n|---|---|---|\n"
        for name, row in ratios.items():
            if "ratio" in row:
                text += (
                    f"| {name} | {row['ratio']:.2f} | {row['lowest']:.2f} to {row['highest']:.2f} "
                    "|\n"
                )
    return f"## Speed\n\n{text.rstrip()}\n\n" if text else ""
