"""Times that can be compared: taken in turn, in one process, with all of them kept."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from serzoo.zoo.core.files import check_place, write_json


def in_turn(
    functions: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = False
) -> dict[str, list[float]]:
    """Seconds of each function in each round, A B C A B C ...

    Each is called once before, unless they are ``warm`` already.
    """
    for function in () if warm else functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    """Lowest, median, highest."""
    return {"lowest": min(values), "median": statistics.median(values), "highest": max(values)}


def ratio(slow: Callable[[], Any], fast: Callable[[], Any], pairs: int = 7) -> dict[str, float]:
    """Median of time(slow) / time(fast) over interleaved pairs."""
    seconds = in_turn({"slow": slow, "fast": fast}, pairs)
    found = spread([a / b for a, b in zip(seconds["slow"], seconds["fast"], strict=True)])
    return {
        "ratio": found["median"],
        "lowest": found["lowest"],
        "highest": found["highest"],
        "slow_ms": 1000 * statistics.median(seconds["slow"]),
        "fast_ms": 1000 * statistics.median(seconds["fast"]),
    }


@torch.inference_mode()
def matrix_limit(dtype: torch.dtype, rounds: int = 7) -> float:
    """Operations per second of the best of some large matrix products, each at its best round."""
    best = 0.0
    for rows, inner, columns in ((2048, 2048, 2048), (1600, 1536, 512), (1600, 768, 3072)):
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        seconds = in_turn({"product": lambda a=a, b=b: a @ b.mT}, rounds)["product"]
        best = max(best, 2 * rows * inner * columns / min(seconds))
    return best


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a script's docstring, line by line."""
    return argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def script(
    about: str | None, measure: Callable[[], dict[str, Any]], show: Callable[[dict[str, Any]], None]
) -> None:
    """Measure and print; write the numbers too if the command line names a JSON file."""
    parser = parser_of(about)
    parser.add_argument("file", nargs="?", type=Path, help="JSON file for the numbers")
    file = parser.parse_args().file
    if file:
        check_place(file)  # before minutes of work
    result = measure()
    show(result)
    if file:
        write_json(file, result)
