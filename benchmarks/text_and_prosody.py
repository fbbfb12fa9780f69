"""Tables of what words tell of a corpus' labels, and of what frames tell of prosody.

They are written by ``serzoo label audit CORPUS out=FOLDER`` and ``serzoo probe MODEL out=FOLDER``,
and kept as ``results/audits/<corpus>.json`` and ``results/probes/<name>.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serzoo.zoo.core.table import Cell, Line, Table, cell, span

LEARNERS = {
    "sentences": "which sentence it is",
    "words": "its words",
    "scorer": "cue words, nothing learned",
}


def audits(records: Iterable[Mapping[str, Any]]) -> Table:
    """What text alone tells of people's labels, a row for each corpus and learner."""
    head = ("corpus", "sentences", "from text by", "UAR", "labels shuffled", "p (Holm)", "chance")
    rows: list[Line] = []
    for record in records:
        for entry in record["corpora"]:
            text = entry["text"]
            for name, said in LEARNERS.items():
                found = text["reached"][name]
                interval = span(found["low"], found["high"])
                rows.append(
                    [
                        f"{entry['name']} ({entry['column']})",
                        f"{text['sentences']} in {text['utterances']}",
                        said,
                        Cell(f"{found['uar']:.3f} ({interval})", found["uar"]),
                        cell(found["shuffled"]),
                        cell(found["corrected"]),
                        cell(text["chance"]),
                    ]
                )
    return Table("", head, rows)


def probes(records: Mapping[str, Mapping[str, Any]]) -> Table:
    """R² of linear probes, a row for each model, quantity and way of looking at it."""
    head = ("model", "quantity", "R²", "the same encoder untrained", "difference")
    rows: list[Line] = []
    for name, record in records.items():
        for quantity, ways in record["quantities"].items():
            for way, ending in (("all", ""), ("within", " within speakers")):
                found = ways[way]
                cells = [found[k] for k in ("model", "against", "difference")]
                rows.append([name, f"{quantity}{ending}", *map(_cell, cells)])
    return Table("", head, rows)


def _cell(found: Mapping[str, Any]) -> Cell:
    value = found["value"]
    return Cell(f"{value:+.2f} ({span(found['low'], found['high'], '+.2f')})", value)
