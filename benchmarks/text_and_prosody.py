"""Tables of what words tell of a corpus' labels, and of what frames tell of prosody.

They are written by ``serzoo label audit CORPUS out=FOLDER`` and ``serzoo probe MODEL out=FOLDER``,
and kept as ``results/audits/<corpus>.json`` and ``results/probes/<name>.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LEARNERS = {
    "sentences": "which sentence it is",
    "words": "its words",
    "scorer": "cue words, nothing learned",
}


def audits(records: Iterable[Mapping[str, Any]]) -> str:
    """What text alone tells of people's labels, a row for each corpus and learner."""
    head = ("corpus", "sentences", "from text by", "UAR", "labels shuffled", "p (Holm)", "chance")
    rows = []
    for record in records:
        for entry in record["corpora"]:
            text = entry["text"]
            for name, said in LEARNERS.items():
                found = text["reached"][name]
                interval = f"{found['low']:.3f} to {found['high']:.3f}"
                rows.append(
                    [
                        f"{entry['name']} ({entry['column']})",
                        f"{text['sentences']} in {text['utterances']}",
                        said,
                        f"{found['uar']:.3f} ({interval})",
                        f"{found['shuffled']:.3f}",
                        f"{found['corrected']:.3f}",
                        f"{text['chance']:.3f}",
                    ]
                )
    return _table(head, rows)


def probes(records: Mapping[str, Mapping[str, Any]]) -> str:
    """R² of linear probes, a row for each model, quantity and way of looking at it."""
    head = ("model", "quantity", "R²", "the same encoder untrained", "difference")
    rows = []
    for name, record in records.items():
        for quantity, ways in record["quantities"].items():
            for way, told in (("all", ""), ("within", " within speakers")):
                found = ways[way]
                cells = [found[k] for k in ("model", "against", "difference")]
                rows.append([name, f"{quantity}{told}", *map(_cell, cells)])
    return _table(head, rows)


def _cell(found: Mapping[str, Any]) -> str:
    return f"{found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
