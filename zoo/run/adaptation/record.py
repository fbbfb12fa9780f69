"""What is written down of an adaptation: beside its numbers, and inside the adapted model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...core.errors import DataError, counted, some
from ...core.speakers import ACCEPT, REFUSE, cannot_tell, counted_speakers, shared
from ...core.weights import published_parts
from ...statistics.confidence import open_numbers, seen_classes
from ...statistics.speakers import interval_text, measure
from ...statistics.table import PredictionTable
from .. import record
from ..board import unparsable
from ..record import Record, left_out, unsure_lines

if TYPE_CHECKING:
    from .adapt import Plan
    from .source import Source

RULE = "none: the weights after a fixed number of steps"


def metadata(plan: Plan) -> dict[str, Any]:
    """What the adapted model says of itself: how it is built again, and whom it has heard."""
    support, source, cfg = plan.shot.support, plan.source, plan.cfg
    heard, own = source.speakers, plan.shot.data.speakers()
    return {
        "config": cfg.to_dict(),
        "fingerprint": plan.fingerprint,
        "head": dict(cfg.head),
        "head_name": cfg.called,
        "taxonomy": plan.wide.to_dict(),
        "taxonomy_fingerprint": plan.wide.fingerprint,
        "widened_from": None if plan.tuning == "scratch" else source.made_for(plan.wide),
        "data": _data(plan),
        "speakers": {
            "train": sorted({*heard.get("train", ()), *own["train"]}),
            "valid": sorted(heard.get("valid", ())),
            "test": own["test"],
        },
        "published": published_parts(plan.module),
        "adapted": {
            "from": source.described(),
            "shots": support.shots,
            "draw": plan.wanted.draw,
            "tuning": plan.tuning,
            "steps": _steps(plan),
            "support": support.sha,
        },
    }


def entry(plan: Plan, table: PredictionTable) -> Record:
    """The record of an adaptation, without what was measured while it ran."""
    support, source, shot, module = plan.shot.support, plan.source, plan.shot, plan.module
    asked = shot.taxonomy
    numbers = measure(table)
    numbers["metrics"] |= unparsable(module.head, table, asked)
    if set(seen_classes(source.taxonomy, asked)) != set(asked.classes):
        numbers["open_labels"] = open_numbers(table, source.taxonomy, asked)
    speakers = shot.data.speakers()
    return record.written(
        status="ok",
        format=1,
        kind="adaptation",
        fingerprint=plan.fingerprint,
        shots=support.shots,
        draw=plan.wanted.draw,
        tuning=plan.tuning,
        steps=_steps(plan),
        condition=condition(source.cfg.corpus, support.shots, plan.tuning),
        source=source.described(),
        support={
            "sha": support.sha,
            "counts": {c: len(ids) for c, ids in support.ids.items()},
            "short": support.short,
            "speakers": speakers["train"],
        },
        adaptation={**asdict(plan.wanted), **asdict(plan.steps), "tuning": plan.tuning},
        config=plan.cfg.to_dict(),
        classes=asked.classes,
        new_classes=[c for c in asked.classes if c not in source.taxonomy.classes],
        data=_data(plan),
        speakers=speakers,
        counts=shot.data.counts(),
        notes=shot.data.speech.notes,
        split_notes=shot.notes,
        audit=shot.data.audit.to_dict(),
        selection={"rule": RULE, "val/uar": None, "epoch": None},
        parameters=record.count_parameters(module),
        encoder=module.encoder.describe(),
        layer_weights=module.encoder.layer_weights(),
        peak_memory_mb=record.peak_memory_mb(),
        device=str(plan.device),
        threads=torch.get_num_threads(),
        **numbers,
        **record.environment(),
    )


def condition(corpora: Sequence[str], shots: int, tuning: str) -> str:
    """``from emodb, 4 shots, head``: what stands in one table."""
    trained = " and ".join(corpora) or "a manifest"
    return f"from {trained}, {shots} shots" + ("" if tuning == "none" else f", {tuning}")


def refuse_heard(
    source: Source, corpora: Sequence[str], query: Sequence[str], unknown: str = REFUSE
) -> None:
    """Refuse a query of speakers that the model was trained or selected on.

    Args:
        source: the model.
        corpora: of the target.
        query: ``corpus/speaker`` names.
        unknown: ``refuse`` if it cannot be told, since a speaker is not known; or ``accept``.

    Raises:
        DataError: naming them; or when a model of the target's own corpus does not say whom it
            has heard.
    """
    trained = source.speakers
    if not trained and (again := sorted(set(source.cfg.corpus) & set(corpora))):
        raise DataError(
            f"the model was trained on {', '.join(again)} and does not say on whose voices (it is "
            "older than that); train it again, or adapt it to another corpus"
        )
    everyone = {*trained.get("train", ()), *trained.get("valid", ())}
    if (unsure := cannot_tell(everyone, query)) and unknown != ACCEPT:
        raise DataError(
            "whether speakers of the query were heard when the model was trained cannot be told: "
            f"not every speaker of {', '.join(unsure)} is known; name them, or set "
            "unknown_speakers=accept"
        )
    if heard := shared(everyone, query):
        raise DataError(
            f"{len(heard)} speakers of the query ({some(heard)}) "
            "were heard when the model was trained; choose "
            "the fold that it was tested on, or another target"
        )


def forgetting(
    before: PredictionTable | None, after: PredictionTable | None
) -> dict[str, Any] | None:
    """Metrics on the source's test part before and after; None where it was not scored."""
    if before is None or after is None:
        return None
    one, two = before.metrics(), after.metrics()
    keys = ("uar", "wa", "f1")
    return {
        "before": {k: one[k] for k in keys},
        "after": {k: two[k] for k in keys},
        "change": {k: two[k] - one[k] for k in keys},
        "utterances": len(after),
    }


def changed_bytes(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> int:
    """Of all weights that are new or not as they were: what an adaptation adds to its source."""
    changed = [v for k, v in after.items() if k not in before or not torch.equal(v, before[k])]
    return sum(v.numel() * v.element_size() for v in changed)


def told(entry: Record, folder: str) -> list[str]:
    """Lines for people on a finished adaptation."""
    support, m, size = entry.support, entry.metrics, entry.bytes
    lines = [f"note: {note}" for note in entry.split_notes]
    if entry.shots:
        drawn = ", ".join(f"{n} {c}" for c, n in support["counts"].items())
        lines.append(
            f"support {support['sha']}, draw {entry.draw} ({drawn}; "
            f"{counted_speakers(support['speakers'])}): {support['file']}"
        )
    lines.append(
        f"{entry.condition}: query of {counted(m['n'], 'utterance')} of "
        f"{counted_speakers(entry.speakers['test'])}: UAR {m['uar']:.3f} {interval_text(m)}, "
        f"WA {m['wa']:.3f}, macro-F1 {m['f1']:.3f}"
    )
    lines += left_out(entry.counts, entry.notes)
    lines += unsure_lines(entry.unsure)
    if found := entry.forgetting:
        before, after = found["before"]["uar"], found["after"]["uar"]
        lines.append(f"on the source: UAR {before:.3f} before, {after:.3f} after")
    if entry.shots:
        kept = f", {size['saved'] / 1e6:.2f} MB saved" if "saved" in size else ""
        changed = f"{size['changed'] / 1e6:.2f} MB of weights changed"
        seconds = entry.seconds["fit"]
        lines.append(f"{entry.steps} steps in {seconds:.1f} s; {changed}{kept}")
    return [*lines, f"record, predictions{', model' if 'saved' in size else ''}: {folder}"]


def _steps(plan: Plan) -> int:
    return 0 if plan.tuning == "none" else plan.steps.steps


def _data(plan: Plan) -> dict[str, Any]:
    return {
        "manifest": plan.shot.support.manifest,
        "split": plan.shot.split,
        "taxonomy": plan.shot.taxonomy.fingerprint,
    }
