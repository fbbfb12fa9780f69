"""What people are told of a training and of an evaluation, in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from ..speakers import ACCEPT
from ..statistics.measure import interval_text

if TYPE_CHECKING:
    from ..statistics.metrics import PredictionTable


def trained(cfg: RunConfig, entry: Mapping[str, Any], folder: Path) -> list[str]:
    """Lines on the record of a finished run.

    Args:
        cfg: the run.
        entry: its record.
        folder: where that is kept.
    """
    called = f"{cfg.called} on {', '.join(cfg.corpus)}"
    if "metrics" not in entry:
        return [
            f"{called}: trained; nothing was validated or tested",
            f"record, checkpoints, TensorBoard: {folder}",
        ]
    m = entry["metrics"]
    return [
        f"{called}, fold {cfg.fold}: "
        f"test UAR {m['uar']:.3f} {interval_text(m)}, WA {m['wa']:.3f}, macro-F1 {m['f1']:.3f}",
        *unsure_lines(entry.get("audit")),
        *left_out(entry.get("counts") or {}, entry.get("notes") or {}),
        f"record, predictions, checkpoints, TensorBoard: {folder}",
    ]


def evaluated(table: PredictionTable, numbers: Mapping[str, Any]) -> list[str]:
    """Lines on what :func:`serzoo.zoo.evaluate.evaluate` returns."""
    lines, m = [], numbers["metrics"]
    if c := numbers.get("condition"):
        lines.append(
            f"condition {c['name']}: {c['scaled']} of {c['utterances']} utterances were scaled "
            "down to stay in range"
        )
    lines.append(
        f"{len(table)} utterances: UAR {m['uar']:.3f} {interval_text(m)}, WA {m['wa']:.3f}, "
        f"macro-F1 {m['f1']:.3f}"
    )
    lines += [f"  recall of {name}: {recall:.3f}" for name, recall in table.recalls().items()]
    if absent := m["absent"]:
        lines.append(f"  absent from the reference: {', '.join(absent)}")
    if found := numbers.get("open_labels"):
        for part in ("seen", "unseen", "among_unseen"):
            if v := found[part]:
                classes = ", ".join(found[f"{part.removeprefix('among_')}_classes"])
                lines.append(
                    f"  {part.replace('_', ' ')} ({classes}): mean recall {v['value']:.3f} "
                    f"{interval_text(v)}, chance "
                    f"{v.get('chance', found['chance']):.3f}"
                )
    if heard := numbers["speakers_heard"]:
        lines.append(
            f"  {len(heard)} speakers were heard in training: this is no test on new speakers"
        )
    data = numbers.get("data") or {}
    if unsure := numbers.get("speakers_unsure"):
        accepted = data.get("unknown_speakers") == ACCEPT
        lines.append(
            "  cannot tell whether training heard these speakers: not every speaker of "
            f"{', '.join(unsure)} is known" + (" (unknown_speakers=accept)" if accepted else "")
        )
    return lines + left_out(data.get("counts") or {}, data.get("notes") or {})


def left_out(counts: Mapping[str, Any], notes: Mapping[str, Any]) -> list[str]:
    """Lines on utterances that are in no number, or not whole, and why; none if all are.

    Args:
        counts: of the data module, as a record holds them.
        notes: of the corpora, likewise.
    """
    lines = []
    if dropped := counts.get("left_out_by_taxonomy"):
        lines.append(f"  left out, in no class of the taxonomy: {_counted(dropped)}")
    for corpus, found in notes.items():
        if refused := found.get("refused"):
            lines.append(f"  refused when {corpus} was prepared: {_counted(refused)}")
    if cut := counts.get("cut_to_max_seconds"):
        lines.append(f"  cut to data.max_seconds: {cut} utterances")
    return lines


def unsure_lines(audit: Mapping[str, Any] | None) -> list[str]:
    """Lines on what the audit of a split could not tell; none if it could tell everything."""
    return [f"  cannot tell {text}" for text in (audit or {}).get("unsure", ())]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())
