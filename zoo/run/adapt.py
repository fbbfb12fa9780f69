"""`serzoo adapt`: adapt a trained model to other speech, with a few utterances of each class.

An adaptation is a run that starts from another run. It trains on a support. That is a random draw
of utterances from the target's training speakers, the same for every head
(``datamodules/fewshot.py``). It makes a fixed number of steps, without a validation part. The test
part of the protocol is called the query. It is scored once, at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...datamodules.fewshot import FewShot, Support, open_few_shot
from ..core import registry
from ..core.errors import DataError, counted
from ..core.files import check_place
from ..core.notices import quiet
from ..core.speakers import REFUSE, counted_speakers
from ..core.taxonomy import Taxonomy
from ..core.weights import published_parts
from ..encoders.hf import Lora
from ..statistics.confidence import open_numbers, seen_classes
from ..statistics.speakers import interval_text, measure
from ..statistics.table import PredictionTable
from . import board, checkpoint, config, devices, record, spent
from .build import data_hashes, open_data
from .module import SERModule
from .published import FILES
from .record import Record
from .save import save_pretrained
from .schema import DataConfig, RunConfig, read_as
from .score import score, with_votes
from .spent import CountFlops, Used
from .start import take
from .trained import refuse_heard, refuse_seen
from .tuning import Options, fit, new_head, obstacles, refuse

RULE = "none: the weights after a fixed number of steps"
PARTS = ("encode", "fit", "evaluate")
WHERE = ("root", "manifest", "options", "label", "unknown_speakers")
BATCHES = ("batch_size", "batch_seconds", "max_seconds", "balance")


@dataclass
class Plan:
    """An adaptation that has been checked and not yet been run.

    Attributes:
        module: the trained model.
        path: where it was loaded from.
        source: configuration of the run that trained it.
        meta: its metadata.
        cfg: configuration of the adaptation.
        wanted: the options.
        tuning: what is tuned; ``none`` without shots.
        shot: support and query.
        wide: classes of the adapted head, which include the target's.
    """

    module: SERModule
    path: str | Path
    source: RunConfig
    meta: Mapping[str, Any]
    cfg: RunConfig
    wanted: Options
    tuning: str
    shot: FewShot
    wide: Taxonomy

    @property
    def classes(self) -> Taxonomy:
        """Classes that the model was trained on."""
        return Taxonomy.from_dict(self.meta["taxonomy"])

    @property
    def steps(self) -> int:
        """Number of the optimiser's steps."""
        return 0 if self.tuning == "none" else self.wanted.steps

    @property
    def fingerprint(self) -> str:
        """10 hexadecimal digits of everything that decides the numbers."""
        how = {k: v for k, v in asdict(self.wanted).items() if k not in ("forgetting", "save")}
        if how["per"] == "class":  # the only way of older adaptations
            del how["per"]
        identity = {
            "source": self.meta.get("fingerprint"),
            "config": self.cfg.identity,
            "support": self.shot.support.sha,
            "tuning": self.tuning,
            "how": how,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def folder(self) -> Path:
        """Folder of the adaptation, if none was given."""
        trained = "+".join(self.source.corpus) or "model"
        many = f"k{self.wanted.shots}{'s' if self.wanted.per == 'speaker' else ''}"
        parts = (trained, self.source.called, many, f"d{self.wanted.draw}")
        name = "-".join([*parts, self.tuning, self.fingerprint])
        return Path(self.cfg.trainer.out) / "adapted" / self.cfg.recipe / name

    def build(self) -> SERModule:
        """Build the model to adapt: its encoder as the tuning needs it, its head over ``wide``."""
        module, cfg = self.module, self.cfg
        if self.tuning == "scratch":
            options = {k: v for k, v in cfg.head.items() if k != "type"}
            torch.manual_seed(self.wanted.draw)
            head = registry.get("heads", cfg.head["type"])(module.encoder.dim, self.wide, **options)
            if module.encoder.utterance is not None:
                head.read_utterance(module.encoder.utterance.dim)
            made = SERModule(module.encoder, head, metadata=module.metadata).eval()
            made.normaliser = module.normaliser
            return made
        if cfg.encoder != self.source.encoder:
            meta = {**module.metadata, "config": cfg.to_dict()}
            made = checkpoint.rebuild(meta, self.path, kind=SERModule)
            take(f"adapt {self.path}", "encoder", module.encoder, made.encoder, self.source.encoder)
            take(f"adapt {self.path}", "head", module.head, made.head, self.source.head)
            module = made
        module.head.widen(self.wide)
        return module.eval()


def aimed(
    data: str | Sequence[str],
    *,
    unknown_speakers: str,
    label: str,
    options: dict[str, Any] | None = None,
    root: str | None,
    **how: Any,
) -> RunConfig:
    """Return corpus, protocol, fold and taxonomy of a target, and where its data is.

    The arguments are those of :func:`adapt`; ``how`` is its protocol, fold and taxonomy.
    """
    named = [data] if isinstance(data, str) else list(data)
    manifest = named[0] if len(named) == 1 and named[0].endswith(".jsonl") else None
    place = DataConfig(root, manifest, label, options or {})
    place.unknown_speakers = unknown_speakers
    return RunConfig("", [] if manifest else named, **how, data=place)


def composed(source: RunConfig, target: RunConfig) -> RunConfig:
    """Return the configuration of a run that starts from a source, on a target.

    Args:
        source: configuration of the run that is adapted.
        target: :func:`aimed`.
    """
    found = replace(
        RunConfig.from_dict(source.to_dict()),
        **{k: getattr(target, k) for k in ("corpus", "protocol", "fold")},
        recipe="+".join(target.corpus) or Path(str(target.data.manifest)).stem,
        # "auto" = the model's own classes, which may have no name
        taxonomy=target.taxonomy or "auto",
        data=replace(source.data, **{k: getattr(target.data, k) for k in WHERE}),
    )
    return config.resolve(found)


def planned(
    path: str | Path,
    wanted: Options,
    target: RunConfig,
    support: str | Path | None = None,
    progress: bool = False,
) -> Plan:
    """Load the model, draw the support, open the query, and refuse what cannot be done.

    Args:
        path: path of the model.
        wanted: how it is adapted.
        target: corpus, protocol, fold and taxonomy of the target, and where its data is.
        support: a file with a support to use instead of drawing one.
        progress: show bars.

    Raises:
        ConfigError: if the model does not allow the options.
        DataError: if the model has heard speakers of the query, or the data cannot be used.
    """
    module = SERModule.load_from_checkpoint(path)
    meta = dict(module.metadata)
    source, classes = RunConfig.from_dict(meta["config"]), Taxonomy.from_dict(meta["taxonomy"])
    tuning = "none"
    if wanted.shots:
        able = obstacles(source.encoder, any(p.requires_grad for p in module.encoder.parameters()))
        tuning = wanted.tuning or ("head" if able["lora"] else "lora")
        refuse(tuning, able)
    cfg = composed(source, target)
    cfg.seed, cfg.trainer.progress = wanted.draw, progress
    needs = type(module.head).trains_on(cfg.head)
    if tuning == "scratch":
        cfg.head, cfg.head_name = new_head(wanted.scratch_head), wanted.scratch_head
        if source.called != wanted.scratch_head:  # a row for each source, as encoders differ
            cfg.head_name += f" on the encoder of {source.called}"
        needs = registry.get("heads", cfg.head["type"]).trains_on(cfg.head)
    d = cfg.data
    shot = open_few_shot(
        cfg.corpus,
        protocol=str(cfg.protocol),
        fold=cfg.fold,
        taxonomy=config.build_taxonomy(cfg) or classes,
        shots=wanted.shots,
        draw=wanted.draw,
        per=wanted.per,
        given=Support.read(support) if support else None,
        restrict=target.taxonomy is None,
        progress=progress,
        **{k: getattr(d, k) for k in (*WHERE, *BATCHES)},
        text="text" in needs,
    )
    query = {"test": shot.data.speakers()["test"]}
    heard, again = meta.get("speakers"), sorted({*source.corpus} & {*cfg.corpus})
    if heard or again:
        other = f", or adapt it to another corpus than {', '.join(again)}" if again else ""
        refuse_heard(f"the model in {path}", heard or None, query, d.unknown_speakers, other)
    refuse_seen(module.encoder, query, d.unknown_speakers)
    wide = shot.taxonomy if tuning == "scratch" else classes
    if tuning in ("lora", "head", "full"):
        wide = classes.widened(shot.taxonomy)
    elif tuning == "none" and not module.head.open_labels:
        module.head.columns(shot.taxonomy)  # refuses unknown classes before any audio is read
    # an encoder that was tuned keeps its way of tuning; a frozen one gets the tuning asked for
    frozen = cfg.encoder["type"] == "hf" and cfg.encoder["tuning"] == "frozen"
    if frozen and tuning in ("lora", "full"):
        cfg.encoder |= {"tuning": tuning, "dtype": "float32"}
        if tuning == "lora":
            new = asdict(Lora(wanted.lora_rank, wanted.lora_alpha))
            cfg.encoder |= {f"lora_{k}": v for k, v in new.items()}
    cfg.optim = wanted.optim(cfg.optim, tuning, cfg.encoder["type"])
    return Plan(module, path, source, meta, cfg, wanted, tuning, shot, wide)


class Forgetting:
    """Scores on the source's own test part, over the source's classes: what is forgotten.

    Raises:
        DataError: if that part cannot be opened.
    """

    def __init__(self, plan: Plan) -> None:
        self.taxonomy, self.cfg, self.path = plan.classes, plan.source, Path(plan.path)
        self.cfg.trainer.progress, self.cfg.data.corrupted_copies = False, 0  # it is only scored
        try:
            self.data = open_data(self.cfg, self.taxonomy, text="text" in plan.module.head.needs)
        except DataError as error:
            raise DataError(
                f"the source's test part, which measures forgetting, cannot be opened: {error}; "
                "restore it, or set forgetting=false"
            ) from error

    def before(self, module: SERModule) -> PredictionTable:
        """Return the scores before adaptation, from the source's run if it has them."""
        had = record.read_record(self.path) if self.path.is_dir() else None
        if had is not None and had.kind != "adaptation" and had.data == data_hashes(self.data):
            return PredictionTable.read_jsonl(self.path / "predictions.jsonl")
        return self.score(module.eval())

    def score(self, module: SERModule) -> PredictionTable:
        """Score a model on its device."""
        if module.encoder.storable and self.cfg.data.features != "live":
            self.data.store_features(module.encoder, device=module.device)
        else:
            self.data.use_store(None)
        if module.normaliser is not None:
            module.enrol(self.data.whole("test"))
        return score(module, self.data.test_dataloader(), self.taxonomy)


def compared(before: PredictionTable, after: PredictionTable) -> dict[str, Any]:
    """Return UAR, WA and macro-F1 on the source's test part, before and after."""
    one, two = ({k: t.metrics()[k] for k in ("uar", "wa", "f1")} for t in (before, after))
    change = {k: two[k] - one[k] for k in one}
    return {"before": one, "after": two, "change": change, "utterances": len(after)}


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
) -> Record:
    """Adapt a trained model to a target, score the query, and write a record.

    A finished adaptation is not repeated.

    Args:
        path: a run's folder, a ``.ckpt`` file, a saved folder or hub id.
        data: the target: names of corpora, or a prepared manifest (``.jsonl``).
        root: folder of the target.
        protocol: protocol of the target; its corpus' own by default.
        fold: fold of the protocol.
        taxonomy: name of the target's taxonomy. The default is the model's, without classes that
            the target lacks. Classes that the model lacks are added to its head.
        label: column of the labels.
        options: keywords of the target's reader.
        unknown_speakers: ``refuse`` utterances without a speaker, or ``accept`` them and say so
            beside every number.
        support: a file with a support to use instead of drawing one.
        supports: folder for the drawn supports; by default ``supports`` beside ``out``.
        out: folder of the result; under ``runs/adapted`` by default.
        facts: more entries of the record.
        progress: show bars.
        how: fields of :class:`Options`.

    Returns:
        The record; its ``folder`` holds the result.

    Raises:
        ConfigError: if the model does not allow the options.
        DataError: if the model has heard speakers of the query, or the data cannot be used. Also if
            the folder holds another adaptation.
    """
    quiet()
    began, used = time.perf_counter(), Used.now()
    target = aimed(
        data,
        root=root,
        protocol=protocol,
        fold=fold,
        taxonomy=taxonomy,
        label=label,
        options=options,
        unknown_speakers=unknown_speakers,
    )
    plan = planned(path, read_as(Options, how), target, support, progress)
    folder = Path(out) if out else plan.folder
    done = record.read_record(folder)
    if done is not None and done.ok:
        if done.fingerprint != plan.fingerprint:
            raise DataError(
                f"{folder} holds another adaptation; choose another folder with out=FOLDER"
            )
        return done
    check_place(folder / record.RECORD)
    drawn = plan.shot.support
    file = Path(support) if support else drawn.write(Path(supports or folder.parent / "supports"))
    module, entry, table, losses = _run(plan, progress)
    entry.support["file"] = str(file)
    entry.add(facts or {})
    if plan.wanted.save:
        save_pretrained(module, folder, record=entry, overwrite=True)
        sizes = {f: (folder / f).stat().st_size for f in FILES if (folder / f).is_file()}
        entry.bytes |= {"saved": sum(sizes.values()), "files": sizes}
    table.write_jsonl(folder / "predictions.jsonl")
    if plan.wanted.save or not plan.wanted.shots:  # cells of a suite share a query: written once
        rows = record.attributes_of(plan.shot.data.datasets["test"].utterances)
        record.write_attributes(folder / record.UTTERANCES, rows)
    board.write_adapted(folder, plan.cfg, entry, table, losses)
    entry.seconds["total"] = round(time.perf_counter() - began, 2)
    entry.processor_seconds["total"] = spent.processor_seconds((used, Used.now()), {})["total"]
    record.write_record(folder, entry)
    return entry


def adapt_cell(cfg: RunConfig, folder: Path, **arguments: Any) -> Record:
    """Adapt as a cell of a suite: ``cfg``, of its source, is not used; see :func:`adapt`."""
    return adapt(out=folder, **arguments)


def _run(plan: Plan, progress: bool) -> tuple[SERModule, Record, PredictionTable, list[float]]:
    """Adapt and score. Return model, record, predictions on the query, and loss of each step."""
    device, data = devices.device_of(plan.cfg), plan.shot.data
    own = Forgetting(plan) if plan.wanted.forgetting else None
    before = own.before(plan.module.to(device)) if own else None
    had = checkpoint.copied(plan.module)
    module = plan.build().to(device)
    times, used, flops = [time.perf_counter()], [Used.now()], CountFlops()
    if module.encoder.storable and plan.cfg.data.features != "live":
        data.store_features(module.encoder, device=device, progress=progress)
    if module.normaliser is not None:
        for part in ("train", "test"):  # the support, and the query
            module.enrol(data.whole(part))
    times.append(time.perf_counter())
    used.append(Used.now())
    losses: list[float] = []
    if plan.steps:
        columns = plan.wide.positions_of(plan.shot.taxonomy)
        tuned, support = plan.tuning in ("lora", "full"), data.datasets["train"]
        how = plan.wanted, plan.cfg.optim
        losses = fit(module, support, columns, *how, encoder=tuned, counted=flops)
    times.append(time.perf_counter())
    used.append(Used.now())
    loader, tally = data.test_dataloader(), flops.scoring
    table = score(module, loader, plan.shot.taxonomy, progress=progress, tally=tally)
    table = with_votes(table, data.datasets["test"], plan.shot.taxonomy)
    times.append(time.perf_counter())
    used.append(Used.now())
    after = before
    if own and plan.tuning in ("lora", "head", "full"):  # scratch leaves the source as it was
        after = own.score(module)
    entry = _entry(plan, module, table)
    module.metadata = _metadata(plan, entry, module)
    module.temperature = None  # the source's does not fit, and no validation part gives another
    now = checkpoint.copied(module)
    new = [v for k, v in now.items() if k not in had or not torch.equal(v, had[k])]
    steps = zip(PARTS, times, times[1:], strict=False)
    processors = {part: b.since(a) for part, a, b in zip(PARTS, used, used[1:], strict=False)}
    entry.add(
        {
            "device": str(device),
            "loss": {"first": losses[0], "last": losses[-1]} if losses else None,
            "forgetting": compared(before, after)
            if before is not None and after is not None
            else None,
            "bytes": {"changed": sum(v.numel() * v.element_size() for v in new)},
            "seconds": {name: round(b - a, 3) for name, a, b in steps},
            "processor_seconds": {part: round(s, 3) for part, s in processors.items()},
            "flops": spent.flops(flops.training, tally, len(losses)),
            "inference_seconds_per_utterance": (times[3] - times[2]) / max(1, len(table)),
        }
    )
    return module, entry, table, losses


def _metadata(plan: Plan, entry: Record, module: SERModule) -> dict[str, Any]:
    """Return the adapted model's metadata: how it is built again, and whom it has heard."""
    heard, own = plan.meta.get("speakers") or {}, entry.speakers
    first = plan.meta.get("widened_from") or plan.meta["taxonomy"]  # the head's first classes
    new = plan.tuning == "scratch" or plan.wide == Taxonomy.from_dict(first)
    how = entry.pick(("shots", "draw", "tuning", "steps"))
    return {
        **checkpoint.how_built(plan.cfg, plan.wide),
        "fingerprint": plan.fingerprint,
        "widened_from": None if new else dict(first),
        "data": entry.data,
        "speakers": {
            "train": sorted({*heard.get("train", ()), *own["train"]}),
            "valid": sorted(heard.get("valid", ())),
            "test": own["test"],
        },
        "published": published_parts(module),
        "adapted": {"from": entry.source, **how, "support": plan.shot.support.sha},
    }


def _entry(plan: Plan, module: SERModule, table: PredictionTable) -> Record:
    """Return the record of an adaptation, without the measurements of its course."""
    support, shot, asked = plan.shot.support, plan.shot, plan.shot.taxonomy
    data, trained = shot.data, plan.classes
    numbers = measure(table)
    numbers["metrics"] |= board.unparsable(module.head, table, asked)
    if set(seen_classes(trained, asked)) != set(asked.classes):
        numbers["open_labels"] = open_numbers(table, trained, asked)
    tuned = "" if plan.tuning == "none" else f", {plan.tuning}"
    if support.per == "speaker":
        tuned = f" of each speaker{tuned}"
    corpora = " and ".join(plan.source.corpus) or "a manifest"
    return record.written(
        status="ok",
        kind="adaptation",
        fingerprint=plan.fingerprint,
        shots=support.shots,
        draw=plan.wanted.draw,
        tuning=plan.tuning,
        steps=plan.steps,
        condition=f"from {corpora}, {support.shots} shots{tuned}",  # rows with it share a table
        source={
            "path": str(plan.path),
            "fingerprint": plan.meta.get("fingerprint"),
            "taxonomy": plan.meta["taxonomy"],
            "head": plan.source.called,
            "encoder": plan.source.encoder,
            **{k: plan.meta["config"][k] for k in ("corpus", "protocol", "fold", "seed")},
        },
        support={
            "sha": support.sha,
            "counts": {c: len(ids) for c, ids in support.ids.items()},
            "short": support.short,
            "speakers": data.speakers()["train"],
        },
        adaptation={**asdict(plan.wanted), "lr": plan.cfg.optim.lr, "tuning": plan.tuning},
        config=plan.cfg.to_dict(),
        classes=asked.classes,
        new_classes=[c for c in asked.classes if c not in trained.classes],
        data={
            "manifest": support.manifest,
            "split": shot.split,
            "taxonomy": asked.fingerprint,
        },
        speakers=data.speakers(),
        counts=data.counts(),
        notes=data.speech.notes,
        split_notes=shot.notes,
        audit=data.audit.to_dict() if data.audit else None,
        selection={"rule": RULE, "val/uar": None, "epoch": None},
        parameters=record.count_parameters(module),
        encoder=module.encoder.describe(),
        layer_weights=module.encoder.layer_weights(),
        normalise=None if module.normaliser is None else module.normaliser.about,
        peak_memory_mb=record.peak_memory_mb(),
        threads=torch.get_num_threads(),
        **numbers,
        **record.environment(),
    )


def adapted_lines(entry: Record) -> list[str]:
    """Return the lines that the terminal shows after an adaptation."""
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
    lines += record.normalised_lines(entry.normalise)
    lines += record.left_out_lines(entry.counts, entry.notes)
    lines += record.unsure_lines(entry.unsure)
    if found := entry.forgetting:
        before, after = found["before"]["uar"], found["after"]["uar"]
        lines.append(f"on the source: UAR {before:.3f} before, {after:.3f} after")
    if entry.shots:
        kept = f", {size['saved'] / 1e6:.2f} MB saved" if "saved" in size else ""
        changed = f"{size['changed'] / 1e6:.2f} MB of weights changed"
        seconds = entry.seconds["fit"]
        lines.append(f"{entry.steps} steps in {seconds:.1f} s; {changed}{kept}")
    return [*lines, f"record, predictions{', model' if 'saved' in size else ''}: {entry.folder}"]
