"""Predictions as annotations of other tools: Praat TextGrid, Label Studio JSON, audformat.

Windows overlap, but a tier of Praat may not. So where two windows overlap, the first holds to the
middle of the overlap. Each window keeps its own label and probability. Stretches without a window
are empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import quoteattr

from ..core.errors import ConfigError, DataError, some
from ..core.files import check_place, json_text, new_folder, write_text
from ..core.notices import shown

if TYPE_CHECKING:
    from .predictions import Row

FORMATS = ("label-studio", "textgrid", "audformat")
"""What predictions can be written as, besides CSV and JSON lines."""


class Stretch(NamedTuple):
    """A stretch of a recording; label and probability are "" and None if nothing is known of it."""

    start: float
    end: float
    label: str = ""
    probability: float | None = None


def recordings_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each recording, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.file, []).append(row)
    return found


def stretches(rows: Sequence[Row]) -> list[Stretch]:
    """Return the stretches of a recording from 0 s on, without gaps and overlaps.

    Args:
        rows: the windows of one recording, by their start. A row with an error is an empty stretch.
    """
    known = [r for r in rows if r.label is not None and r.start is not None and r.end is not None]
    found: list[Stretch] = []
    at = 0.0
    for i, row in enumerate(known):
        start, end = float(row.start or 0.0), float(row.end or 0.0)
        if i + 1 < len(known) and (following := float(known[i + 1].start or 0.0)) < end:
            end = (following + end) / 2
        start = max(start, at)
        if start > at:
            found.append(Stretch(at, start))
        if end > start:
            found.append(Stretch(start, end, str(row.label), row.probs[str(row.label)]))
            at = end
    if (last := max((r.end for r in rows if r.end is not None), default=at)) > at:
        found.append(Stretch(at, last))
    return found


def textgrid(rows: Sequence[Row]) -> str:
    """Return a TextGrid of Praat with two tiers: the label, and its probability.

    Args:
        rows: the windows of one recording.

    Raises:
        DataError: if no window has a length.
    """
    found = stretches(rows)
    if not found:
        raise DataError(f"{shown(rows[0].file)} has no window for a TextGrid; leave it out")
    end = found[-1].end
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end:.6f}", "tiers? <exists>", "size = 2", "item []:"]
    tiers = {
        "label": [s.label for s in found],
        "probability": ["" if s.probability is None else f"{s.probability:.3f}" for s in found],
    }
    for number, (name, texts) in enumerate(tiers.items(), 1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"']
        lines += [f'        name = "{name}"', "        xmin = 0", f"        xmax = {end:.6f}"]
        lines.append(f"        intervals: size = {len(found)}")
        for k, (stretch, text) in enumerate(zip(found, texts, strict=True), 1):
            doubled = text.replace('"', '""')
            lines += [f"        intervals [{k}]:", f"            xmin = {stretch.start:.6f}"]
            lines += [f"            xmax = {stretch.end:.6f}", f'            text = "{doubled}"']
    return "\n".join(lines) + "\n"


def _names(files: Sequence[str]) -> dict[str, PurePath]:
    """Return a name below a folder for each recording: its stem, or its path if stems are equal."""
    stems = {file: PurePath(file).stem for file in files}
    if len(set(stems.values())) == len(stems):
        return {file: PurePath(stem) for file, stem in stems.items()}
    paths = {}
    for file in files:
        path = PurePath(file)
        parts = [p for p in path.parts if p not in (path.anchor, "..", ".")]
        paths[file] = PurePath(*parts).with_suffix("")
    if len(set(paths.values())) < len(paths):
        raise DataError(
            f"recordings have the same name ({some(sorted({str(p) for p in paths.values()}), 2)}); "
            "write them apart"
        )
    return paths


def write_textgrids(rows: Iterable[Row], folder: str | Path) -> list[Path]:
    """Write ``NAME.TextGrid`` for each recording that has a window, and return the files.

    Args:
        rows: of any number of recordings.
        folder: where they are written; a file of the same name is replaced.

    Raises:
        DataError: if no recording has a window.
    """
    groups = {f: r for f, r in recordings_of(rows).items() if stretches(r)}
    if not groups:
        raise DataError("no recording has a window for a TextGrid; see the errors of the rows")
    names = _names(list(groups))
    written = []
    for file, found in groups.items():
        path = Path(folder) / names[file].with_name(names[file].name + ".TextGrid")
        write_text(path, textgrid(found))
        written.append(path)
    return written


def label_studio(rows: Iterable[Row], model: str = "serzoo") -> list[dict[str, Any]]:
    """Return tasks of Label Studio with predictions: a region for each window.

    Args:
        rows: of any number of recordings.
        model: what Label Studio shows as the version of the model.
    """
    tasks = []
    for file, found in recordings_of(rows).items():
        result, scores = [], []
        for number, row in enumerate(found):
            if row.label is None or row.start is None or row.end is None:
                continue
            scores.append(row.probs[row.label])
            value = {"start": row.start, "end": row.end, "labels": [row.label], "channel": 0}
            result.append(
                {
                    "id": f"w{number}",
                    "from_name": "emotion",
                    "to_name": "audio",
                    "type": "labels",
                    "score": round(row.probs[row.label], 6),
                    "value": value,
                }
            )
        errors = [shown(row.error) for row in found if row.error is not None]
        data = {"audio": shown(file), **({"errors": errors} if errors else {})}
        mean = sum(scores) / len(scores) if scores else 0.0
        prediction = {"model_version": model, "score": round(mean, 6), "result": result}
        tasks.append({"data": data, "predictions": [prediction] if result else []})
    return tasks


def labelling_config(classes: Sequence[str]) -> str:
    """Return the labelling configuration (XML) of the project that takes the tasks."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View>\n  <Labels name="emotion" toName="audio">\n{labels}\n  </Labels>\n'
        '  <Audio name="audio" value="$audio"/>\n</View>\n'
    )


def write_label_studio(rows: Iterable[Row], path: str | Path, classes: Sequence[str]) -> list[Path]:
    """Write the tasks as ``FILE.json``, and the labelling configuration beside it as ``FILE.xml``.

    Args:
        rows: of any number of recordings.
        path: the file.
        classes: classes of the model.
    """
    path = Path(path)
    beside = path.with_suffix(".xml")
    write_text(path, json_text(label_studio(rows)))
    write_text(beside, labelling_config(classes))
    return [path, beside]


def write_audformat(rows: Iterable[Row], folder: str | Path, classes: Sequence[str]) -> Path:
    """Write a database of audformat with the table ``predictions``, and return its header.

    The table is segmented. It has the label, and the probability of each class.

    Args:
        rows: of any number of recordings; rows with an error are left out, and counted in the
            header.
        folder: folder of the database; header and tables in it are replaced.
        classes: classes of the model.

    Raises:
        DataError: if no window was predicted, or the package is missing.
    """
    from ...datamodules.importers.audformat import package

    audformat = package()
    import pandas

    every = list(rows)
    known = [r for r in every if r.label is not None and r.start is not None and r.end is not None]
    if not known:
        raise DataError("no window was predicted for audformat; see the errors of the rows")
    db = audformat.Database("predictions", usage=audformat.define.Usage.UNRESTRICTED)
    db.description = (
        f"Predictions of a model of serzoo; {len(every) - len(known)} of {len(every)} rows have an "
        "error and are left out."
    )
    db.schemes["emotion"] = audformat.Scheme(labels=list(classes))
    db.schemes["probability"] = audformat.Scheme("float", minimum=0, maximum=1)
    index = audformat.segmented_index(
        [r.file for r in known],
        [pandas.Timedelta(seconds=float(r.start or 0.0)) for r in known],
        [pandas.Timedelta(seconds=float(r.end or 0.0)) for r in known],
    )
    table = db["predictions"] = audformat.Table(index)
    table["emotion"] = audformat.Column(scheme_id="emotion")
    table["emotion"].set([r.label for r in known])
    for name in classes:
        column = f"p_{name}"
        table[column] = audformat.Column(scheme_id="probability")
        table[column].set([r.probs[name] for r in known])
    place = Path(folder)
    with new_folder(place) as draft:
        db.save(str(draft), storage_format="csv")
    return place / "db.yaml"


def check(form: str, out: str | None) -> None:
    """Refuse a format that is unknown, or has no place to go to.

    Raises:
        ConfigError: if it is refused; the message says what to give.
        OSError: if the place cannot be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format is '{form}'; have csv, jsonl, {', '.join(FORMATS)}")
    if out is None:
        where = "FILE.json" if form == "label-studio" else "FOLDER"
        raise ConfigError(f"--format {form} writes files; add --out {where}")
    check_place(Path(out) if form == "label-studio" else Path(out) / "file")


def write(form: str, rows: Sequence[Row], out: str, classes: Sequence[str]) -> list[Path]:
    """Write rows in one of :data:`FORMATS`, and return what was written."""
    if form == "textgrid":
        return write_textgrids(rows, out)
    if form == "audformat":
        return [write_audformat(rows, out, classes)]
    return write_label_studio(rows, out, classes)
