"""The record of a run: everything needed to believe, repeat or refuse its numbers."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ComparisonError, DataError
from ..core.files import json_lines, new_file, read_json
from ..core.speakers import ACCEPT
from ..statistics.speakers import interval_text
from .config import RunConfig

if TYPE_CHECKING:
    from ..statistics.table import PredictionTable

RECORD = "record.json"
PACKAGES = (
    "serzoo",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "torchmetrics",
    "numpy",
    "scipy",
)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run's folder; None when it has not ended yet.

    Raises:
        DataError: when the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = read_json(path, remedy="remove it, and its run is made again")
    return record


def read_plan(folder: Path) -> dict[str, Any]:
    """A suite's plan.

    Raises:
        ComparisonError: when there is none, or it is damaged.
    """
    path = folder / "suite.json"
    if not path.is_file():
        raise ComparisonError(
            f"no comparison in {folder}; run `serzoo compare {folder.name}` first"
        )
    remedy = "the same `serzoo compare` writes it anew, and runs no finished cell again"
    plan: dict[str, Any] = read_json(path, ComparisonError, remedy=remedy)
    for key, kind in (("cells", list), ("title", str), ("baseline", str)):
        if not isinstance(plan.get(key), kind):
            raise ComparisonError(f"{path} is damaged ({key} is {plan.get(key)!r}); {remedy}")
    if not all(isinstance(cell, str) for cell in plan["cells"]):
        raise ComparisonError(f"{path} is damaged (not all cells are names); {remedy}")
    return plan


def finished(folder: Path) -> bool:
    """Whether a run ended well."""
    record = read_record(folder)
    return record is not None and record.get("status") == "ok"


def environment() -> dict[str, Any]:
    """Versions, code state and machine."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git": git_state(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this code runs from and whether it was changed; None outside one."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if "site-packages" in here.parts:
            return None
        changed = git("status", "--porcelain", "--", "zoo", "heads", "datamodules", "configs")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def count_parameters(module: Any) -> dict[str, int]:
    """Trainable, stored (in a checkpoint) and total numbers of weights, and the head's share."""
    frozen = module.frozen_keys()
    named = list(module.named_parameters())
    return {
        "trainable": sum(p.numel() for _, p in named if p.requires_grad),
        "stored": sum(p.numel() for n, p in named if n not in frozen),
        "total": sum(p.numel() for _, p in named),
        "head": sum(p.numel() for p in module.head.parameters()),
        "head_trainable": sum(p.numel() for p in module.head.parameters() if p.requires_grad),
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists become text. What HPARAMS can show."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, (list, tuple)):
            flat[prefix + key] = str(value)
        else:
            flat[prefix + key] = value
    return flat


# ---- Who speaks in an utterance, in what language, for how long: kept beside predictions.

UTTERANCES = "utterances.jsonl"
ATTRIBUTES = ("gender", "language", "seconds")
Attributes = dict[str, dict[str, Any]]


def attributes_of(utterances: Iterable[Any]) -> Attributes:
    """Of each id of a manifest, what sub-groups are made of; ``seconds`` is a float."""
    return {
        u.id: {
            "gender": u.gender,
            "language": u.language,
            "seconds": round(float(u.end - u.start), 3),
        }
        for u in utterances
    }


def write_attributes(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per utterance, sorted by id; the file appears complete or not at all."""
    lines = (json.dumps({"id": i, **rows[i]}, ensure_ascii=False) for i in sorted(rows))
    with new_file(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def of_table(ids: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> Attributes:
    """Attributes by the ids of a pooled table (``id#seed``); ids without any are left out."""
    found: Attributes = {}
    for name in ids:
        row = known.get(name) or known.get(name.rpartition("#")[0])
        if row is not None:
            found[name] = dict(row)
    return found


# ---- What people are told of a training and of an evaluation, in the terminal.


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
    """Lines on what :func:`serzoo.zoo.run.score.evaluate` returns."""
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


def read_attributes(folder: Path, cells: Sequence[str]) -> Attributes:
    """What a suite's folder and its cells hold; empty for records of before there were such.

    Raises:
        DataError: with the file and the line that cannot be used.
    """
    found: Attributes = {}
    for path in (folder / UTTERANCES, *(folder / "cells" / name / UTTERANCES for name in cells)):
        if not path.is_file():
            continue
        remedy = "remove the file and use --attributes, which takes them from the corpora"
        for number, row in json_lines(path, remedy=remedy, what=("an utterance", "utterances")):
            if "id" not in row:
                raise DataError(f"{path}, line {number}: not an utterance, it has no id; {remedy}")
            found[str(row.pop("id"))] = row
    return found
