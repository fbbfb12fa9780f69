"""Predictions as annotations of other tools: Label Studio JSON and audformat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from ..core.errors import ConfigError, DataError
from ..core.files import check_place, json_text, new_folder, write_text
from ..core.notices import shown

if TYPE_CHECKING:
    from .predictions import Row

FORMATS = ("label-studio", "audformat")
"""What predictions can be written as, besides CSV and JSON lines."""


def recordings_of(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return the rows of each recording, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.file, []).append(row)
    return found


def label_studio(rows: Iterable[Row], model: str = "serzoo") -> list[dict[str, Any]]:
    """Return tasks of Label Studio with predictions: a region for each window.

    Args:
        rows: rows of any number of recordings.
        model: what Label Studio shows as the version of the model.
    """
    tasks = []
    for file, found in recordings_of(rows).items():
        result, scores = [], []
        for number, row in enumerate(found):
            if row.label is None or row.start is None or row.end is None:
                continue
            scores.append(row.probs[row.label])
            value = {
                "start": row.start,
                "end": row.end,
                "labels": [row.label],
                "channel": (row.channel or 1) - 1,
            }
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
        rows: rows of any number of recordings.
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
        rows: rows of any number of recordings; rows with an error are left out, and counted in the
            header.
        folder: folder of the database; header and tables in it are replaced.
        classes: classes of the model.

    Raises:
        DataError: if no window was predicted, channels are apart, or the package is missing.
    """
    from ...datamodules.importers.audformat import package

    audformat = package()
    import pandas

    every = list(rows)
    known = [r for r in every if r.label is not None and r.start is not None and r.end is not None]
    if not known:
        raise DataError("no window was predicted for audformat; see the errors of the rows")
    if apart := [r.file for r in known if r.channel is not None]:
        raise DataError(
            f"audformat has no channels, and {shown(apart[0])} was predicted in each of its own; "
            "write CSV, JSON lines or TextGrids, or leave --channel separate out"
        )
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
    if form == "audformat":
        return [write_audformat(rows, out, classes)]
    return write_label_studio(rows, out, classes)
