"""Where a weak label comes from: audio, transcript, scores by template, criteria."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...zoo.errors import DataError, suggest
from ...zoo.taxonomy import Taxonomy
from ..manifest import Utterance, read_manifest
from .folding import fold_rows
from .select import Criteria, select
from .stage import read_labels, rows_of


def trace(out: str | Path, id: str) -> dict[str, Any]:
    """All that stands behind the label of an utterance, or behind its having none.

    The label is made anew from the row of scores, and must be the one of the manifest, but for
    caps, which look at other utterances too.

    Args:
        out: folder of ``serzoo label``.
        id: of the utterance.

    Returns:
        ``utterance``, ``transcript`` and ``scores`` (None where it was turned away) as their files
        have them, ``settings`` of both stages, ``criteria``, ``folded`` (class to
        coarser class), and ``lost_at``: the criterion that it failed, or
        None.

    Raises:
        DataError: the folder is not finished, a file has changed since, there is no such id, or the
            label does not follow from the scores.
    """
    folder = Path(out)
    path = folder / "labels.json"
    if not path.is_file():
        raise DataError(f"no {path}; run `serzoo label ... out={folder}` to its end")
    record = read_labels(folder)
    for name, digest in record["files"].items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise DataError(
                f"{file} is not what {path.name} tells of; run `serzoo label` again with the "
                "settings that it had"
            )
    found = {u.id: u for u in read_manifest(folder / "manifest.jsonl")}
    if id not in found:
        raise DataError(f"no utterance {id} in {folder}{_near(id, found)}")
    scores = _row(folder / "scores.jsonl", id)
    return {
        "utterance": found[id],
        "transcript": _row(folder / "transcripts.jsonl", id),
        "scores": scores,
        "settings": {k: record[k]["settings"] for k in ("transcripts", "scores")},
        "criteria": record["selection"]["criteria"],
        "folded": record["folded"],
        "lost_at": _lost(found[id], scores, record),
    }


def shown(traced: Mapping[str, Any]) -> list[str]:
    """A trace as lines of text."""
    u, transcript, row = traced["utterance"], traced["transcript"], traced["scores"]
    settings = traced["settings"]
    sure = transcript["confidence"]
    lines = [
        f"{u.id}: {u.audio}, {u.start:.2f} to {u.end:.2f} s",
        f'says: "{transcript["text"] or ""}" ({transcript["text_source"] or "not listened to"}'
        + (f", confidence {sure:.3f})" if sure is not None else ")"),
    ]
    if transcript["rejected"] is not None:
        return [*lines, f"turned away: {transcript['rejected']}; no label"]
    lines.append(f"scored by {settings['scores']['source']}: {settings['scores']['scale']}")
    ranked = sorted(row["scores"].items(), key=lambda pair: -pair[1])
    lines.append("scores: " + ", ".join(f"{c} {s:.3f}" for c, s in ranked[:5]))
    told = settings["scores"]
    by_template = zip(told["templates"], row["by_template"], told["prior"], strict=True)
    for template, each, prior in by_template:
        values = dict(zip(row["scores"], each, strict=True))
        empty = dict(zip(row["scores"], prior, strict=True))
        best = ", ".join(f"{c} {values[c]:+.2f} (prior {empty[c]:+.2f})" for c, _ in ranked[:3])
        lines.append(f"  '{template}': {best}")
    if traced["folded"] is not None:
        into = (f"{c} is {traced['folded'][c] or 'left out'}" for c, _ in ranked[:5])
        lines.append(f"folded: {', '.join(into)}")
    if (lost := traced["lost_at"]) is not None:
        value = traced["criteria"].get(lost)
        return [*lines, f"no label: lost at {lost}{'' if value is None else f' {value:g}'}"]
    return [*lines, f"label: {u.label}, {u.label_score:.3f} ({u.label_source})"]


def _lost(u: Utterance, row: dict[str, Any] | None, record: Mapping[str, Any]) -> str | None:
    """The criterion that an utterance failed, by its own row; caps where it passed the others."""
    taxonomy = Taxonomy.from_dict(record["taxonomy"])
    rows = [] if row is None else [row]
    if record["folded"] is not None and row is not None:
        fine = Taxonomy.from_dict(record["scores"]["settings"]["taxonomy"])
        rows = list(fold_rows(rows, fine, taxonomy))
    criteria = Criteria(**{**record["selection"]["criteria"], "cap": None, "neutral": None})
    alone = select([u], rows, taxonomy, record["source"], criteria)
    again = alone.utterances[0]
    lost = next((c["criterion"] for c in alone.counts if c["after"] == 0), None)
    if lost is None and u.label is None:
        full = record["selection"]["criteria"]
        neutral = taxonomy.class_of("neutral")
        share = full["neutral"] is not None and neutral is not None
        if share and again.label == taxonomy.classes[neutral or 0]:
            return "neutral" if full["cap"] is None else "cap or neutral"
        return "cap"
    if (again.label, again.label_score) != (u.label, u.label_score):
        raise DataError(
            f"the label of {u.id} is {u.label} ({u.label_score}), but its scores make it "
            f"{again.label} ({again.label_score}); run `serzoo label` again"
        )
    return lost


def _row(path: Path, id: str) -> dict[str, Any] | None:
    return next((row for row in rows_of(path) if row["id"] == id), None)


def _near(id: str, known: Mapping[str, Any]) -> str:
    text = suggest(id, known)
    return text if len(known) <= 10 else text[text.find("; did") :] if "; did" in text else ""
