"""A suite of adaptations: heads trained on one corpus, adapted to another by a few utterances.

The sources are trained first, as ordinary runs. Then every head is adapted to every draw of every
number of shots under every tuning; all heads get the same supports. Records hold ``shots``,
``draw``, ``tuning``, ``source`` and the support's hash; ``learning_curves.md`` is made of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config
from ..errors import ConfigError, suggest
from ..record import finished, read_record, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from .pool import Job

KEYS = ("title", "baseline", "source", "target", "head", "shots", "draw", "tuning", "options")
SOURCE = ("recipe", "encoder", "fold", "seed", "overrides")
TARGET = ("data", "root", "protocol", "fold", "taxonomy", "label")
CALL = "serzoo.zoo.adaptation.adapt:adapt_cell"


@dataclass(frozen=True)
class FewShotSuite:
    """What is adapted, to what, and how often.

    Attributes:
        name: of the suite, and of its folder.
        title: one line for people.
        source: ``recipe``, ``fold``, ``seed``, and optionally ``encoder`` and ``overrides``.
        target: ``data``, ``protocol``, ``fold``, ``taxonomy``, as for :func:`.adapt.adapt`.
        head: configurations of heads.
        shots: of each class; 0 = as it is, once for each head.
        draw: seeds of the supports.
        tuning: what is tuned.
        options: further fields of :class:`.adaptation.options.Options`.
        baseline: the head that differences are taken to.
    """

    name: str
    title: str
    source: dict[str, Any]
    target: dict[str, Any]
    head: list[str]
    shots: list[int]
    draw: list[int]
    tuning: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    baseline: str = "classification"


def is_meant(name: str) -> bool:
    """Whether a suite is one of adaptations; False too where there is none of this name."""
    try:
        return "shots" in config.read_suite(name)
    except ConfigError:
        return False


def load(name: str, overrides: Sequence[str] = ()) -> FewShotSuite:
    """A shipped suite of adaptations by name, or a YAML file.

    ``head=[selm]``, ``shots=[1,4]``, ``draw=[1,2]`` and ``tuning=[head]`` replace the suite's
    lists, ``target.KEY=...``, ``source.KEY=...`` and ``options.KEY=...`` its settings; any other
    ``key=value`` is one of the sources' runs.

    Raises:
        ConfigError: naming what is wrong.
    """
    from ..adaptation.options import Options, known_options

    raw = dict(config.read_suite(name))
    source = {"overrides": [], **_mapping(name, raw, "source")}
    parts = {
        "source": source,
        "target": _mapping(name, raw, "target"),
        "options": _mapping(name, raw, "options"),
    }
    for item, (key, value) in zip(overrides, config.parse(overrides), strict=True):
        part, dot, inner = key.partition(".")
        if dot and part in parts:
            parts[part][inner] = value
        elif key in KEYS:
            raw[key] = value
        else:
            source["overrides"] = [*source["overrides"], item]
    lists = {key: _list(name, raw, key) for key in ("head", "shots", "draw", "tuning")}
    own = ("shots", "draw", "tuning")
    wanted: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
        "": (raw, KEYS),
        "source.": (source, SOURCE),
        "target.": (parts["target"], TARGET),
        "options.": (parts["options"], [k for k in known_options() if k not in own]),
    }
    for prefix, (found, known) in wanted.items():
        for key in found:
            if key not in known:
                raise ConfigError(
                    f"suite '{name}' has unknown key '{prefix}{key}'{suggest(str(key), known)}"
                )
    for part, key in (("source", "recipe"), ("target", "data")):
        if key not in parts[part]:
            raise ConfigError(f"suite '{name}' does not say its {part}; give {part}.{key}")
    for shots, draw in product(lists["shots"], lists["draw"]):  # ranges are told before work
        Options(shots=shots, draw=draw, **parts["options"])
    title, baseline = str(raw.get("title", name)), str(raw.get("baseline", "classification"))
    return FewShotSuite(
        Path(name).stem,
        title,
        parts["source"],
        parts["target"],
        **lists,
        options=parts["options"],
        baseline=baseline,
    )


def _mapping(name: str, raw: dict[str, Any], key: str) -> dict[str, Any]:
    found = raw.get(key) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"suite '{name}': {key} is {found}; give keys and values")
    return dict(found)


def _list(name: str, raw: dict[str, Any], key: str) -> list[Any]:
    found = raw.get(key)
    found = found if isinstance(found, list) or found is None else [found]
    if not found or len({str(v) for v in found}) < len(found):
        raise ConfigError(f"suite '{name}': {key} is {found}; give a list of different values")
    return found


def jobs(suite: FewShotSuite, *, out: str) -> tuple[list[Job], list[Job]]:
    """Runs of the sources, and cells of the adaptations; those of one support follow each other."""
    from ..adaptation.model import obstacles, refuse
    from .pool import Job

    folder = Path(out) / suite.name
    s = suite.source
    settings = [*s["overrides"], f"trainer.out={out}", "trainer.progress=false"]
    settings += [f"{key}={s[key]}" for key in ("encoder", "fold", "seed") if key in s]
    sources = []
    for head in suite.head:
        cfg = config.load(s["recipe"], [*settings, f"head={head}"])
        for tuning in suite.tuning:  # told before anything is trained
            refuse(tuning, obstacles(cfg.encoder))
        name = f"{Path(s['recipe']).stem}-{head}-{cfg.fingerprint[:6]}"
        sources.append(Job(name, cfg.to_dict(), folder / "sources" / name))
    cells = []
    for shots in suite.shots:
        for draw, tuning in product(suite.draw, suite.tuning):
            if not shots and (draw, tuning) != (suite.draw[0], suite.tuning[0]):
                continue  # without a shot, neither matters
            for source in sources:
                how = f"-d{draw}-{tuning}" if shots else ""
                name = f"{source.name}-k{shots}{how}"
                options = {
                    "call": CALL,
                    "path": str(source.folder),
                    "supports": str(folder / "supports"),
                    "shots": shots,
                    "draw": draw,
                    "tuning": tuning if shots else None,
                    **suite.target,
                    **suite.options,
                }
                cells.append(Job(name, source.config, folder / "cells" / name, options))
    return sources, cells


def seconds_by_tuning(cells: Sequence[Job]) -> dict[str, float]:
    """What finished cells took on average, by what was tuned."""
    found: dict[str, list[float]] = {}
    for job in cells:
        entry = read_record(job.folder)
        if entry and entry.get("status") == "ok":
            found.setdefault(str(job.options["tuning"]), []).append(entry["seconds"]["total"])
    return {tuning: sum(values) / len(values) for tuning, values in found.items()}


def compare(
    name: str,
    overrides: Sequence[str] = (),
    *,
    out: str = "runs",
    workers: int | None = None,
    limit: float | None = None,
    dry_run: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train the sources, adapt each to every draw, tabulate; see :func:`.compare.compare`.

    Finished sources and cells are skipped.
    """
    from ..reporting.report import report
    from ..reporting.tables import wide_console
    from . import pool
    from .few_shot_table import write
    from .running import earlier_calls, lock, run_jobs

    console = console or wide_console()
    suite = load(name, overrides)
    sources, cells = jobs(suite, out=out)
    folder = Path(out) / suite.name
    ahead = [job for job in sources if not finished(job.folder)]
    todo = [job for job in cells if not finished(job.folder)]
    console.print(
        f"{suite.title}: {len(cells)} cells of {len(sources)} sources, "
        f"{len(cells) - len(todo)} finished, {len(todo)} to run after {len(ahead)} sources",
        markup=False,
    )
    result: dict[str, Any] = {
        "cells": len(cells),
        "done": len(cells) - len(todo),
        "failed": 0,
        "folder": folder,
    }
    if dry_run:
        spent = seconds_by_tuning(cells)
        for job in [*ahead, *cells]:
            known = spent.get(str(job.options.get("tuning")), None)
            about = f", about {known:.1f} s" if known and job in todo else ""
            console.print(f"{job.name}{about}", markup=False, highlight=False)
        if left := sum(spent.get(str(job.options["tuning"]), 0.0) for job in todo):
            console.print(f"about {left / 60 / (workers or 1):.0f} min on {workers or 1} workers")
        return {**result, "summary": None}
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        plan: dict[str, Any] = {
            **asdict(suite),
            "axes": {k: getattr(suite, k) for k in ("head", "shots", "draw", "tuning")},
            **{"overrides": [], "matched": [], "match_params": False, "search": None},
            "cells": [job.name for job in cells],
            "calls": earlier_calls(folder / "suite.json"),
        }
        write_json(folder / "suite.json", plan)
        kind, number = pool.devices()
        options: Any = {"workers": workers or number, "gpus": kind == "cuda"}
        options["limit"] = 60 * limit if limit else None
        began = time.monotonic()
        try:
            if ahead:
                run_jobs(console, ahead, "sources", **options)
            ready = [j for j in todo if finished(Path(j.options["path"]))]
            for job in todo:
                if job not in ready:
                    error = f"its source did not end well; see {job.options['path']}"
                    pool.record_failure(job, error, "", "source")
            result["failed"] = len(todo) - len(ready)
            if ready:
                result["failed"] += run_jobs(console, ready, "cells", **options)
        finally:
            ran = sum(finished(job.folder) for job in todo)
            call = {"cells": ran, "seconds": round(time.monotonic() - began, 1)}
            write_json(folder / "suite.json", {**plan, "calls": [*plan["calls"], call]})
        result["done"] = sum(finished(job.folder) for job in cells)
        summary, path = write(folder, [job.name for job in cells])
        report(folder, console=console)
        console.print(f"learning curves: {path}", markup=False, soft_wrap=True)
    return {**result, "summary": summary}
