"""`serzoo adapt`: a trained model to other speech, by a few utterances of each class.

The support is drawn by a seed from the target's training speakers and is the same for every head
(``datamodules/fewshot.py``); the query is the protocol's test part and is read once, at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ....datamodules.fewshot import Support, open_few_shot
from ...core import registry
from ...core.errors import DataError
from ...core.files import check_place
from ...core.notices import quiet
from ...core.speakers import REFUSE
from ...core.taxonomy import Taxonomy
from ...encoders.hf import Lora
from ...statistics.table import PredictionTable
from .. import board, checkpoint, config
from ..config import RunConfig
from ..devices import first_device
from ..module import SERModule
from ..published import FILES
from ..record import (
    RECORD,
    UTTERANCES,
    Record,
    attributes_of,
    read_record,
    write_attributes,
    write_record,
)
from ..save import save_pretrained
from ..score import score
from ..trained import refuse_seen
from . import model as adapt_model
from . import record as adapt_record
from .fit import Steps, fit
from .options import Options
from .source import Source, target_of
from .widening import widened


@dataclass
class Plan:
    """An adaptation that has been checked and not yet been run.

    Attributes:
        module: the model; before the run as it was trained.
        source: where it comes from.
        cfg: the run that it becomes.
        wanted: the options.
        tuning: what is tuned; ``none`` without shots.
        steps: of the optimiser.
        shot: support and query (``datamodules.fewshot.FewShot``).
        wide: classes of the adapted head, the target's among them.
        device: where it runs.
    """

    module: SERModule
    source: Source
    cfg: RunConfig
    wanted: Options
    tuning: str
    steps: Steps
    shot: Any
    wide: Taxonomy
    device: torch.device

    @property
    def fingerprint(self) -> str:
        """10 hexadecimal digits of everything that decides the numbers."""
        how = {k: v for k, v in asdict(self.wanted).items() if k not in ("forgetting", "save")}
        identity = {
            "source": self.source.fingerprint,
            "config": self.cfg.identity,
            "support": self.shot.support.sha,
            "tuning": self.tuning,
            "how": how,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """Where an adaptation is kept, unless told otherwise."""
        trained = "+".join(self.source.cfg.corpus) or "model"
        parts = (trained, self.source.cfg.called, f"k{self.wanted.shots}", f"d{self.wanted.draw}")
        name = "-".join([*parts, self.tuning, self.fingerprint])
        return Path(self.cfg.trainer.out) / "adapted" / self.cfg.recipe / name


def adapt(
    path: str | Path,
    *,
    data: str | Sequence[str],
    root: str | None = None,
    protocol: str | None = None,
    fold: int = 0,
    taxonomy: str | None = None,
    label: str = "label",
    options: dict[str, Any] | None = None,
    unknown_speakers: str = REFUSE,
    support: str | Path | None = None,
    supports: str | Path | None = None,
    out: str | Path | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: bool = False,
    **how: Any,
) -> dict[str, Any]:
    """Adapt a trained model to a target, score the query, write a record.

    A finished adaptation is not repeated.

    Args:
        path: checkpoint, run, saved folder, or hub id.
        data: the target: names of corpora, or a prepared manifest (``.jsonl``).
        root: its folder.
        protocol: of the target; its corpus' own by default.
        fold: of the protocol.
        taxonomy: name of the target's; by default the model's, without the classes that the
            target does not have. Classes that the model never had are added to its head.
        label: the column that it is of.
        options: keywords of the target's reader.
        unknown_speakers: ``refuse`` a protocol over utterances without a speaker, or ``accept`` it
            and say so beside every number.
        support: a file with a support to use instead of drawing one.
        supports: folder into which drawn supports are written; ``supports`` beside ``out``.
        out: folder of the result; under ``runs/adapted`` by default.
        facts: more entries of the record.
        progress: show bars.
        how: fields of :class:`.options.Options`.

    Returns:
        The record, and its ``folder``.

    Raises:
        ConfigError: for options that cannot be met by this model.
        DataError: when query speakers were heard by the model, and for anything wrong with the
            data.
    """
    quiet()
    began = time.perf_counter()
    target: dict[str, Any] = {"data": data, "root": root, "options": options or {}}
    target |= {"protocol": protocol, "fold": fold, "taxonomy": taxonomy, "label": label}
    target |= {"unknown_speakers": unknown_speakers}
    plan = planned(path, Options(**how), target, support, progress)
    folder = Path(out) if out else plan.folder
    done = read_record(folder)
    if done is not None and done.ok:
        if done.fingerprint != plan.fingerprint:
            raise DataError(f"{folder} holds another adaptation than this; choose another out")
        return {**done.to_json(), "folder": str(folder)}
    check_place(folder / RECORD)
    drawn = plan.shot.support
    file = Path(support) if support else drawn.write(Path(supports or folder.parent / "supports"))
    entry, table, losses = _run(plan, progress)
    entry.support["file"] = str(file)
    entry.add(facts or {})
    if plan.wanted.save:
        save_pretrained(plan.module, folder, record=entry, overwrite=True)
        sizes = {f: (folder / f).stat().st_size for f in FILES if (folder / f).is_file()}
        entry.bytes |= {"saved": sum(sizes.values()), "files": sizes}
    table.write_jsonl(folder / "predictions.jsonl")
    if plan.wanted.save or not plan.wanted.shots:  # a suite's cells have one query in common
        rows = attributes_of(plan.shot.data.datasets["test"].utterances)
        write_attributes(folder / UTTERANCES, rows)
    board.write_adapted(folder, plan.cfg, entry, table, losses)
    entry.seconds["total"] = round(time.perf_counter() - began, 2)
    write_record(folder, entry)
    return {**entry.to_json(), "folder": str(folder)}


def adapt_cell(cfg: RunConfig, folder: Path, **arguments: Any) -> dict[str, Any]:
    """A cell of a suite: ``cfg`` is its source's, the rest is as for :func:`adapt`."""
    return adapt(out=folder, **arguments)


def planned(
    path: str | Path,
    wanted: Options,
    target: Mapping[str, Any],
    support: str | Path | None = None,
    progress: bool = False,
) -> Plan:
    """Load the model, draw the support, open the query, and refuse what cannot be done."""
    module = SERModule.load_from_checkpoint(path)
    source = Source(path, module.metadata)
    tuning = adapt_model.chosen(module, wanted.tuning) if wanted.shots else "none"
    cfg = target_of(source.cfg, target)
    cfg.seed, cfg.trainer.progress = wanted.draw, progress
    needs = module.head.needs
    if tuning == "scratch":
        cfg.head, trained = adapt_model.new_head(wanted.scratch_head), cfg.called
        cfg.head_name = wanted.scratch_head
        if trained != wanted.scratch_head:  # one for each source: their encoders differ
            cfg.head_name += f" on the encoder of {trained}"
        needs = registry.get("heads", cfg.head["type"]).needs
    given = Support.read(support) if support else None
    d = cfg.data
    shot = open_few_shot(
        cfg.corpus,
        protocol=str(cfg.protocol),
        fold=cfg.fold,
        taxonomy=config.build_taxonomy(cfg) or source.taxonomy,
        shots=wanted.shots,
        draw=wanted.draw,
        given=given,
        restrict=target["taxonomy"] is None,
        root=d.root,
        manifest=d.manifest,
        options=d.options,
        label=d.label,
        progress=progress,
        unknown_speakers=d.unknown_speakers,
        batch_size=d.batch_size,
        batch_seconds=d.batch_seconds,
        max_seconds=d.max_seconds,
        balance=d.balance,
        text="text" in needs,
    )
    speakers = shot.data.speakers()
    adapt_record.refuse_heard(source, cfg.corpus, speakers["test"], d.unknown_speakers)
    refuse_seen(module.encoder, {"test": speakers["test"]}, d.unknown_speakers)
    wide = shot.taxonomy if tuning == "scratch" else source.taxonomy
    if tuning in ("lora", "head", "full"):
        wide = widened(source.taxonomy, shot.taxonomy)
    elif tuning == "none" and not module.head.open_labels:
        module.head.columns(shot.taxonomy)  # refuses before anything is read
    cfg.encoder = adapt_model.encoder_of(
        cfg.encoder, tuning, Lora(wanted.lora_rank, wanted.lora_alpha)
    )
    steps = wanted.rates(tuning, cfg.encoder["type"])
    o = cfg.optim
    o.lr, o.head_lr, o.mix_lr = steps.lr, steps.head_lr, steps.head_lr
    o.weight_decay, o.warmup, o.clip = steps.weight_decay, steps.warmup, steps.clip
    o.mixup, o.ema = 0.0, 0.0
    device = torch.device("cpu") if cfg.trainer.accelerator == "cpu" else first_device()
    return Plan(module, source, cfg, wanted, tuning, steps, shot, wide, device)


def _run(plan: Plan, progress: bool) -> tuple[Record, PredictionTable, list[float]]:
    """Adapt and score; the record, the query's predictions, and the loss of each step."""
    source, shot, wanted = plan.source, plan.shot, plan.wanted
    before = source.before(plan.module, plan.device) if wanted.forgetting else None
    had = checkpoint.copied(plan.module)
    if plan.tuning == "scratch":
        module = adapt_model.from_scratch(plan.module, plan.cfg.head, plan.wide, wanted.draw)
    else:
        module = adapt_model.ready(plan.module, plan.cfg, plan.wide, source.path)
    plan.module = module.to(plan.device)
    times = [time.perf_counter()]
    if module.encoder.storable and plan.cfg.data.features != "live":
        shot.data.store_features(module.encoder, device=plan.device, progress=progress)
    times.append(time.perf_counter())
    losses: list[float] = []
    if plan.tuning != "none":
        losses = fit(
            module,
            shot.data.datasets["train"],
            plan.wide.positions_of(shot.taxonomy),
            plan.steps,
            encoder=plan.tuning in ("lora", "full"),
            seed=wanted.draw,
        )
    times.append(time.perf_counter())
    loader = shot.data.test_dataloader()
    table = score(module.eval(), loader, shot.taxonomy, progress=progress)
    times.append(time.perf_counter())
    after = before
    if before is not None and plan.tuning in ("lora", "head", "full"):
        after = source.score(module)  # a new head leaves the model as it was
    module.metadata = adapt_record.metadata(plan)
    module.temperature = None  # the source's is not this model's, and nothing here validates
    entry = adapt_record.entry(plan, table)
    steps = zip(("encode", "fit", "evaluate"), times, times[1:], strict=False)
    entry.add(
        {
            "loss": {"first": losses[0], "last": losses[-1]} if losses else None,
            "forgetting": adapt_record.forgetting(before, after),
            "bytes": {"changed": adapt_record.changed_bytes(had, checkpoint.copied(module))},
            "seconds": {name: round(b - a, 3) for name, a, b in steps},
            "inference_seconds_per_utterance": (times[3] - times[2]) / max(1, len(table)),
        }
    )
    return entry, table, losses
