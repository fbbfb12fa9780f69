"""Tables of what ``speed.py``, ``encoding.py``, ``stored.py`` and ``streaming.py`` measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serzoo.zoo.core.table import Cell, Line, Table, cell, span, span_cell


def speed(folder: Path) -> str:
    """Return all speed tables under one heading; "" if there are no records."""

    def read(name: str) -> Any:
        path = folder / f"{name}.json"
        return json.loads(path.read_text("utf-8")) if path.is_file() else None

    def line(values: dict[str, float], form: str = ".2f") -> Cell:
        bounds = span(values["lowest"], values["highest"], form)
        return Cell(f"{values['median']:{form}} ({bounds})", values["median"])

    def errors(values: dict[str, float]) -> list[Cell]:
        return [cell(values[k], ".1e") for k in ("relative", "absolute")]

    parts: list[str | Table] = []
    if encoded := read("encoding"):
        row = encoded["encoding"]
        parts.append(
            f"Encoding {row['speech_seconds']:.0f} s of speech ({encoded['speech']}) with a random "
            f"model of wav2vec2-base's size, {encoded['threads']} threads, {encoded['rounds']} "
            f"rounds in turn; {row['gflop_per_second_of_speech']:.1f} GFLOP per second of speech. "
            "Ratios within the run: median (lowest to highest). Errors are against the plain model "
            "on each clip alone: the plain loop's own is that of its batches, whose padding enters "
            "the GroupNorm."
        )
        columns = ("", "ratio to the plain loop", "times real time",
                   "share of the measured matrix-product limit", "relative error",
                   "largest difference")  # fmt: skip
        loop = row["plain"]
        body: list[Line] = [
            ["plain loop, float32, batch 8 padded", cell(1, "d"), line(loop["real_time"], ".0f"),
             None, *errors(loop)],
        ]  # fmt: skip
        for dtype in ("float32", "bfloat16"):
            mine, limit = row[dtype], row["matrix_limit_tflops"][dtype]
            share = line(mine["share_of_limit"])
            share = share._replace(text=f"{share.text} of {limit:.2f} TFLOP/s")
            times = line(mine["ratio"]), line(mine["real_time"], ".0f"), share
            body.append([f"serzoo, {dtype}", *times, *errors(mine)])
        parts.append(Table("", columns, body))
        columns = ("one kept layer", "time, of that of all 12 blocks", "operations, likewise")
        layers = encoded["one_kept_layer"]["layers"].items()
        body = [
            [k, cell(v["time_over_all"], ".2f"), cell(v["operations_over_all"], ".2f")]
            for k, v in layers
        ]
        parts.append(Table("", columns, body))
    if stored := read("stored"):
        parts.append(
            "Training the classification head on stored features of RAVDESS "
            f"({stored['utterances']} utterances, one layer of 768, two threads), "
            f"{stored['epochs']} epochs; a batch is loaded in {stored['load_ms']:.2f} ms. Seconds "
            "are of a shared machine, whose neighbours take a varying part of it."
        )
        columns = ("pooling", "seconds of each run", "ms of a step, with its share of validation",
                   "loading")  # fmt: skip
        body = []
        for pooling, row in stored["pooling"].items():
            fits = ", ".join(f"{s:.1f}" for s in row["fit_seconds"])
            body.append(
                [pooling, fits, cell(row["step_ms"], ".1f"), cell(row["load_share"], ".0%")]
            )
        parts.append(Table("", columns, body))
    if streamed := read("streaming"):
        (long, step), (short, hop) = streamed["file"], streamed["pipe"]
        parts.append(
            "`serzoo predict`: seconds of work for a second of sound (the real-time factor), "
            f"{streamed['threads']} threads, {streamed['rounds']} rounds. A file of two channels, "
            f"each on its own: windows of {long:g} s, hop {step:g} s. A pipe of one channel, read "
            f"window by window: windows of {short:g} s, hop {hop:g} s. The machine is shared, so "
            "the highest numbers are those of its neighbours."
        )
        columns = ("encoder", "file", "pipe", "pipe: ms of a window", "pipe: growth of memory, MB")
        body = []
        for name, row in streamed["models"].items():
            pipe = row["pipe"]
            factors = (
                line(row["file"]["real_time_factor"], ".3f"),
                line(pipe["real_time_factor"], ".3f"),
            )
            rest = line(pipe["window_ms"], ".0f"), line(pipe["growth_mb"], ".1f")
            body.append([name, *factors, *rest])
        parts.append(Table("", columns, body))
    if ratios := read("ratios"):
        body = [
            [name, cell(row["ratio"], ".2f"), span_cell(row["lowest"], row["highest"], ".2f")]
            for name, row in ratios.items()
            if "ratio" in row
        ]
        parts.append(Table("", ("ratio within one run", "median", "lowest to highest"), body))
    texts = [p if isinstance(p, str) else p.markdown().rstrip() for p in parts]
    return "\n\n".join(["## Speed", *texts]) + "\n\n" if texts else ""
