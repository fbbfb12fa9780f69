"""What `serzoo label` says of its stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .stage import Done, Shard, Stage


def rejected(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many transcripts go no further, by reason."""
    return dict(Counter(r["rejected"] for r in rows if r["rejected"] is not None))


def unfinished(stage: Stage, done: Done, shard: Shard) -> str:
    """What a process says that leaves before the others are done."""
    return (
        f"{stage.name}: shard {shard[0]} of {shard[1]} is done, and {done.total - done.present} of "
        f"{done.total} rows are left to others; when they are there, run this command again"
    )


def counted(counts: Mapping[str, int]) -> str:
    """``a 1, b 2``."""
    return ", ".join(f"{k} {v}" for k, v in counts.items())


def told_transcripts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Transcripts by source, and what was turned away."""
    sources = Counter(r["text_source"] or "none" for r in rows)
    lost = rejected(rows)
    gone = f"; turned away: {counted(lost)}" if lost else ""
    return [f"transcripts: {len(rows)} ({counted(sources)}){gone}"]


def told_labels(record: Mapping[str, Any], folder: Path) -> list[str]:
    """Counts before and after each criterion, by class, and coverage against threshold."""
    chosen = record["selection"]
    shown = [f"scores: {record['source']}, {len(record['taxonomy']['classes'])} classes"]
    for step in chosen["counts"]:
        value = "" if step["value"] is None else f" {step['value']:g}"
        if value or step["before"] != step["after"]:
            shown.append(f"select: {step['criterion']}{value}: {step['before']} -> {step['after']}")
    last = chosen["counts"][-1]["classes"] or {}
    shown.append(f"labelled: {sum(last.values())} ({counted(last)})")
    shown.append(
        "coverage at thresholds: "
        + ", ".join(f"{c['threshold']:g} {c['share']:.0%}" for c in chosen["coverage"][8::2])
    )
    return [*shown, f"manifest: {folder / 'manifest.jsonl'}"]
