"""One trained model, asked with several settings of its head: a curve without training again.

``serzoo eval RUN head.steps=[1,2,4] head.sampler=[ode,sde]`` gives a point for each combination.
Only options that no weight depends on can be changed (:attr:`.Head.at_evaluation`).
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError
from ..core.files import new_folder, write_json, write_text
from ..core.shipped import read_yaml
from ..core.table import Line, Table, cell, number_cell, span_cell, wide_console
from ..plots import curve_figure
from ..run.record import EvalRecord
from ..run.score import evaluate
from ..run.words import words
from ..statistics.speakers import interval_text
from .page import Part, Section, draw, render

PREFIX = "head."
FILES = ("curve.csv", "curve.json", "curve.html")
FIELDS = ("uar", "wa", "f1")


@dataclass(frozen=True)
class Point:
    """One setting of the head.

    Attributes:
        options: the changed options of the head.
        record: the record of the evaluation; None if the head refuses this setting.
        refusal: why it refuses it, or "".
    """

    options: dict[str, Any]
    record: EvalRecord | None
    refusal: str = ""


def combinations(typed: Sequence[str]) -> list[dict[str, Any]]:
    """Return every combination of ``head.KEY=VALUE`` and ``head.KEY=[VALUE,VALUE]``.

    Args:
        typed: settings as they were typed; the last one varies fastest.

    Raises:
        ConfigError: if a value cannot be read, or a key stands twice.
    """
    values: dict[str, list[Any]] = {}
    for key, text in words(typed):
        name = key.removeprefix(PREFIX)
        if name in values:
            raise ConfigError(f"{key} is given twice; write {key}=[VALUE,VALUE] for several")
        value = read_yaml(text)
        values[name] = value if isinstance(value, list) else [value]
        if not values[name] or len(values[name]) > len({repr(v) for v in values[name]}):
            raise ConfigError(f"{key}={text} is empty or has a value twice; give different values")
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def curve(path: str | Path, asked: Sequence[Mapping[str, Any]], **given: Any) -> list[Point]:
    """Evaluate a trained model with each setting of its head.

    Args:
        path: a run's folder, a ``.ckpt`` file, or a saved folder.
        asked: settings of the head.
        given: keywords of :func:`..run.score.evaluate`.

    Raises:
        ConfigError: if the head refuses every setting; with one setting, its own error.
    """
    points: list[Point] = []
    first: ConfigError | None = None
    for options in asked:
        try:
            _, record = evaluate(path, answering=options, **given)
            points.append(Point(dict(options), record))
        except ConfigError as error:
            first = first or error
            points.append(Point(dict(options), None, str(error)))
    if first is not None and all(p.record is None for p in points):
        raise first
    return points


def table(points: Sequence[Point]) -> Table:
    """Return a row for each setting, with the jackknife interval of its UAR.

    Settings that the head refuses are named in the notes.
    """
    keys = list(points[0].options)
    rows: list[Line] = []
    notes = []
    for p in points:
        if p.record is None:
            notes.append(f"left out, {said(p.options)}: {p.refusal}")
            continue
        m = p.record.metrics
        low, high = m["uar_interval"] or (None, None)
        shown = [_value(p.options[key]) for key in keys]
        rows.append(
            [*shown, cell(m["uar"]), span_cell(low, high), *(cell(m[k]) for k in ("wa", "f1"))]
        )
    first = next(p.record for p in points if p.record is not None)
    notes.append(
        f"{first.metrics['n']} utterances; {interval_text(first.metrics)} of the first row"
    )
    return Table("", (*keys, "UAR", "95 % interval", "WA", "macro-F1"), rows, notes)


def to_json(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return plain containers: the options of each setting, its record, or why it was refused."""
    return [
        {"options": p.options, "refusal": p.refusal, "record": p.record and p.record.to_json()}
        for p in points
    ]


def write(folder: Path, points: Sequence[Point], title: str) -> list[Path]:
    """Write the table, the records and a page with the figure; return the paths of the files.

    Args:
        folder: ``curve.csv``, ``curve.json`` and ``curve.html`` appear in it, all or none.
        points: settings and their records.
        title: title of the page.
    """
    made = table(points)
    parts: list[Part] = [*_figures(points, title), made]
    intro = "One trained model. Only options that no weight depends on differ between the rows."
    intro += " Bands are 95 % intervals over speakers."
    page = render(title, "", [Section("curve", "Answers of one model", intro, parts)])
    with new_folder(folder, FILES) as draft:
        write_text(draft / FILES[0], _csv(points))
        write_json(draft / FILES[1], {"title": title, "points": to_json(points)})
        write_text(draft / FILES[2], page)
    return [folder / name for name in FILES]


def show(points: Sequence[Point]) -> None:
    """Print the table."""
    wide_console().print(table(points).rich(lines=False))


def said(options: Mapping[str, Any]) -> str:
    """Return options as a text: ``steps=4, sampler=ode``."""
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _value(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number_cell(f"{value:g}", value) if number else str(value)


def _csv(points: Sequence[Point]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(points[0].options)
    writer.writerow([*keys, *FIELDS, "uar_low", "uar_high", "utterances", "refusal"])
    for p in points:
        options = [p.options[key] for key in keys]
        if p.record is None:
            writer.writerow([*options, *[""] * (len(FIELDS) + 3), p.refusal])
            continue
        m = p.record.metrics
        ends = m["uar_interval"] or ("", "")
        writer.writerow([*options, *(m[key] for key in FIELDS), *ends, m["n"], ""])
    return text.getvalue()


def _figures(points: Sequence[Point], title: str) -> list[Part]:
    """Return a figure for the first option that has several numbers; other options are lines."""
    for key in points[0].options:
        values = {p.options[key] for p in points}
        if len(values) > 1 and all(type(v) in (int, float) for v in values):
            break
    else:
        return []
    lines: dict[str, list[Any]] = {}
    for p in points:
        if p.record is None:
            continue
        others = {k: v for k, v in p.options.items() if k != key}
        m = p.record.metrics
        low, high = m["uar_interval"] or (None, None)
        name = said(others) or "UAR"
        lines.setdefault(name, []).append((float(p.options[key]), m["uar"], low, high))
    shown = "; ".join(
        f"{name}: " + ", ".join(f"{x:g} {y:.3f}" for x, y, *_ in line)
        for name, line in lines.items()
    )
    figure = curve_figure(lines, key, title)
    return [draw(figure, f"UAR by {key}. {shown}", table(points), name=key)]
