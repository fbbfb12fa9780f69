"""Train one run: from its configuration to its record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from rich.console import Console

from ..core import notices
from ..core.errors import ConfigError, DataError
from ..core.files import named, new_file, write_json
from ..core.notices import quiet
from ..core.progress import Bar
from ..core.taxonomy import Taxonomy
from ..statistics.speakers import measure
from ..statistics.table import PredictionTable
from . import board, checkpoint, devices, record, spent
from .board import unparsable
from .build import assemble, data_hashes, open_data
from .checkpoint import ModelCheckpoint, how_built
from .devices import device_of, refuse_absent
from .loggers import loggers, refuse_missing
from .module import SERModule
from .optim import rounds
from .record import Record, read_record
from .schema import METRIC_KEYS, OptimConfig, RunConfig
from .score import with_votes
from .spent import CountFlops, Used


class Lines(Callback):
    """Tell now and then how far the training is, if there is no terminal for a bar."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        epochs = trainer.max_epochs or 0
        self.bar = Bar("epochs", epochs - trainer.current_epoch, shown=trainer.is_global_zero)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.bar.advance()


class StoreFeatures(Callback):
    """Fill the feature store before fitting, if the encoder allows it.

    If the frames are what is stored, and the head needs only their mean and deviation, batches
    hold these. Training is then several times as fast, and computes the same.

    It works in Lightning's ``setup`` hook, since all ranks exist there, however they were started.
    They share the encoding, each on its own device. If one of them has no room on its disk, all
    read audio instead, since their batches would differ otherwise.

    Args:
        data: data module with ``store_features`` and ``use_store``.
        wanted: False = read audio in any case.
        progress: show a bar.

    Attributes:
        filled: what was stored and reused, for the record.
        seconds: how long that took.
        used: processor seconds up to its begin and its end.
    """

    def __init__(self, data: Any, *, wanted: bool, progress: bool) -> None:
        self.data, self.wanted, self.progress = data, wanted, progress
        self.filled: dict[str, Any] = {"kind": "live"}
        self.seconds = 0.0
        self.used: tuple[Used, Used] | None = None

    @property
    def stored(self) -> bool:
        """Whether batches hold stored features."""
        return bool(self.filled["kind"] == "stored")

    def setup(self, trainer: L.Trainer, module: Any, stage: str) -> None:
        encoder = module.encoder
        if not self.wanted or not (encoder.storable or encoder.utterance is not None):
            return
        self.wanted = False  # once
        began, used = time.perf_counter(), Used.now()
        device = trainer.strategy.root_device
        filled = self.data.store_features(encoder, device=device, progress=self.progress)
        self.filled = filled.to_dict()
        if not encoder.storable:
            pass  # only the vectors beside the frames are stored
        elif not trainer.strategy.reduce_boolean_decision(self.stored, all=True):
            self.filled["kind"] = "live"
            self.data.use_store(None)
        elif self.stored and encoder.plain and not (module.head.reads_frames or module.mixup):
            self.filled["statistics"] = self.data.use_statistics()
        self.seconds = time.perf_counter() - began
        self.used = used, Used.now()


def selected_by(optim: OptimConfig) -> str:
    """Return the name of the validation score that the best epoch is best by: ``val/uar``."""
    return f"val/{METRIC_KEYS[optim.metric]}"


def rule(optim: OptimConfig) -> str:
    """Return the rule by which an epoch is selected, for records."""
    if optim.select == "last":
        return "last epoch"
    return f"highest {selected_by(optim)}, earliest epoch of equals"


REFITTED = "; then trained anew on the training and validation speakers"
SELECTION = "selection"  # folder, in a run's, of the run that selected an epoch for `optim.refit`


def run_folder(cfg: RunConfig) -> Path:
    """Return the folder of a run of ``serzoo train``."""
    return Path(cfg.trainer.out) / Path(cfg.recipe).stem / f"{cfg.called}-{cfg.fingerprint}"


def train(
    cfg: RunConfig,
    out: Path | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    test: bool = True,
    callbacks: Sequence[Callback] = (),
    trial: str | None = None,
) -> Record:
    """Fit a model, select it on validation, test it once, and write the record.

    If the protocol has no validation part, the last epoch is kept, and the record has no scores. A
    finished run is not repeated. A killed run goes on from its last whole epoch. It ends with the
    same weights as an unbroken one.

    With ``optim.refit``, a first run in the folder's ``selection`` selects an epoch. A second one
    starts from new weights, and trains on the training and validation speakers together. It ends
    after that epoch of the same schedule, and is the one that is tested and kept. Its validation
    predictions, by which scores are calibrated, are those of the first run.

    Args:
        cfg: the resolved configuration.
        out: folder of the run; :func:`run_folder` by default.
        facts: more entries of the record.
        test: False = a trial of a search: it is only validated, and its test part is never scored.
        callbacks: more callbacks of the trainer. One with an attribute ``facts`` may stop the
            training early, and adds these entries to the record.
        trial: folder of a trial of a search. If it had the same configuration and data, it takes
            the place of the first run of ``optim.refit``. The two would be the same training.

    Returns:
        The record, as ``record.json`` holds it. If several processes train together, only the first
        one writes it. The others return a record that has only a status.

    Raises:
        ConfigError: if this machine lacks the devices, the precision or the logger's package. This
            is checked before any data is opened.
        DataError: if the data cannot be used, or the folder holds a run on other data.
    """
    out = out or run_folder(cfg)
    refuse_absent(cfg)
    refuse_missing(cfg)
    quiet()
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    started, used = time.time(), [Used.now()]
    data = open_data(cfg)
    taxonomy: Taxonomy = data.taxonomy
    identity = data_hashes(data)
    done = read_record(out)
    if done is not None and done.ok:
        _refuse_other_data(out, done.data, identity)
        return done
    first, selected = None, out / SELECTION
    if cfg.optim.refit and test and len(data.datasets["valid"]):
        first = _ended(trial, cfg, identity)
        if first is not None:
            selected = Path(str(trial))
        else:
            first = _select(cfg, selected)
        data = open_data(cfg, refit=True)
    metadata = {**how_built(cfg, taxonomy), "fingerprint": cfg.fingerprint, "data": identity}
    module = assemble(cfg, data, metadata)
    validated = len(data.datasets["valid"]) > 0
    epochs = cfg.optim.epochs
    if first is not None:
        assert first.rounds is not None
        epochs = (first.selection["epoch"] + 1) * epochs // first.rounds
        module.schedule_share = epochs / cfg.optim.epochs
    if module.solvable:
        epochs = 1
    trainer, best = _trainer(cfg, out, validated, len(data.train_dataloader()), epochs)
    if trainer.is_global_zero:
        write_json(out / "config.json", {"fingerprint": cfg.fingerprint, **cfg.to_dict()})
    storing, counted = _store(cfg, trainer, data), CountFlops()
    trainer.callbacks.extend((counted, *callbacks))  # type: ignore[attr-defined]
    last = out / "checkpoints" / "last.ckpt"
    found = checkpoint.newest(last.parent, aside=trainer.is_global_zero)
    start = None
    resumed: bool | str = False
    if found is not None:
        start = found[0]
        resumed = start == last or f"{start.name}, epoch {found[1]['epoch']}"
        _refuse_other_data(out, found[1]["serzoo"].get("data"), identity)
        del found
    began = time.perf_counter()
    used.append(Used.now())
    # only here Lightning reads a checkpoint itself; weights_only keeps pickled code out
    with devices.explaining_lost_processes(trainer.world_size), named(out):
        trainer.fit(module, data, ckpt_path=str(start) if start else None, weights_only=True)
    fit_seconds = time.perf_counter() - began - storing.seconds
    used.append(Used.now())
    batches = trainer.fit_loop.total_batch_idx + 1  # those before it was resumed, too
    began = time.perf_counter()
    chosen = validated and cfg.optim.select == "best"
    if validated and not chosen:
        _copy(trainer, last)
    if validated or first is None:
        result = (
            _test(trainer, module, data, last, test) if validated else _kept(trainer, module, last)
        )
    else:
        _copy(trainer, last)
        module.tables["valid"] = PredictionTable.read_jsonl(selected / record.VALID)
        result = _test(trainer, module, data, last, test, valid=module.tables["valid"])
    valid = result.get("valid", {})
    score = best.best_model_score if chosen else valid.get(METRIC_KEYS[cfg.optim.metric])
    evaluate_seconds = time.perf_counter() - began
    used.append(Used.now())
    # in every process: they may share the weights
    layer_weights = module.encoder.layer_weights()
    begin, fitting, fitted, end = used
    laps = {"encode": storing.used or (fitting, fitting), "fit": (fitting, fitted)}
    laps["evaluate"] = fitted, end
    processors = spent.processor_seconds((begin, end), laps, trainer.world_size)
    flops = spent.flops(counted.training, counted.scoring, batches, trainer.world_size)
    seconds = {"encode": storing.seconds, "fit": fit_seconds, "evaluate": evaluate_seconds}
    took = time.time() - started
    if first is not None:  # the selection is part of the training
        if selected != out / SELECTION:  # it was not run inside of this run's time
            took += first.seconds["total"]
            processors["total"] = round(processors["total"] + first.processor_seconds["total"], 2)
        for part in ("encode", "fit"):
            seconds[part] += first.seconds[part]
            processors[part] = round(processors[part] + first.processor_seconds[part], 2)
        if "training" in flops and "training" in first.flops:
            flops["training"] += first.flops["training"]
    if not trainer.is_global_zero:
        return Record(status="ok")
    entry = record.written(
        status="ok",
        fingerprint=cfg.fingerprint,
        config=cfg.to_dict(),
        classes=taxonomy.classes,
        data=identity,
        speakers=metadata["speakers"],
        counts=data.counts(),
        notes=data.speech.notes,
        split_notes=list(data.split.notes),
        audit=data.audit.to_dict() if data.audit else None,
        selection=_selection(cfg, validated, score, result.pop("epoch"), valid, first),
        parameters=record.count_parameters(module),
        encoder=module.encoder.describe(),
        layer_weights=layer_weights,
        normalise=None if module.normaliser is None else module.normaliser.about,
        **({"origin": metadata["origin"]} if cfg.init else {}),
        features="stored" if storing.stored else "live",
        feature_store=storing.filled,
        seconds={k: round(v, 2) for k, v in (*seconds.items(), ("total", took))},
        processor_seconds=processors,
        flops=flops,
        resumed=resumed,
        rounds=trainer.max_epochs,
        steps=trainer.global_step,
        peak_memory_mb=record.peak_memory_mb(),
        device=str(module.device),
        processes=trainer.world_size,
        threads=torch.get_num_threads(),
        **result,
        **record.environment(),
    ).add(facts or {})
    for callback in callbacks:
        entry.add(getattr(callback, "facts", {}))
    scored = validated or first is not None
    for part, file in parts_to_write(test, scored).items():
        module.tables[part].write_jsonl(out / file)
    if test and scored:
        rows = record.attributes_of(data.datasets["test"].utterances)
        record.write_attributes(out / record.UTTERANCES, rows)
        with named(out):
            board.write(trainer, module, cfg, entry, data)
    record.write_record(out, entry)
    return entry


def parts_to_write(test: bool, validated: bool) -> dict[str, str]:
    """Return the parts whose predictions a run keeps, each with the name of its file.

    Args:
        test: whether the test part is scored; False in a trial of a search.
        validated: whether the protocol validates somebody. If not, no epoch was selected, and
            nothing is scored.
    """
    if not validated:
        return {}
    valid = {"valid": record.VALID}
    return {**valid, "test": "predictions.jsonl"} if test else valid


def _refuse_other_data(out: Path, found: Any, identity: dict[str, Any]) -> None:
    if found != identity:
        raise DataError(f"{out} holds a run on other data; choose another trainer.out")


def _ended(trial: str | None, cfg: RunConfig, identity: dict[str, Any]) -> Record | None:
    """Return the record of a trial that is the first run of this one; None if it is not."""
    found = read_record(Path(trial)) if trial else None
    if found is None or not found.ok:
        return None
    same = (found.fingerprint, found.data) == (cfg.fingerprint, identity)
    return found if same else None


def _select(cfg: RunConfig, out: Path) -> Record:
    """Return the record, in every process, of the run that selects an epoch for a second one."""
    once = replace(cfg, optim=replace(cfg.optim, refit=False))
    found = train(once, out, test=False)
    if torch.distributed.is_initialized():  # only the first process has the record
        found = spent.gathered(found, torch.distributed.get_world_size())[0]
    return found


def _selection(
    cfg: RunConfig,
    validated: bool,
    score: Any,
    epoch: int,
    valid: Mapping[str, Any],
    first: Record | None,
) -> dict[str, Any]:
    """Return what a record says about the epoch that was kept."""
    if first is not None:
        return {**first.selection, "rule": rule(cfg.optim) + REFITTED, "epoch": epoch}
    return {
        "rule": rule(cfg.optim) if validated else "last epoch; nothing was validated",
        "val/uar": valid.get("uar"),
        selected_by(cfg.optim): None if score is None else float(score),
        "epoch": epoch,
    }


def _trainer(
    cfg: RunConfig, out: Path, validated: bool, batches: int, epochs: int
) -> tuple[L.Trainer, ModelCheckpoint]:
    """Return the trainer, and the callback that keeps the best epoch.

    ``batches`` is the number of training batches of all processes together.
    """
    folder = out / "checkpoints"
    best = ModelCheckpoint(
        folder,
        filename="best",
        monitor=selected_by(cfg.optim),
        mode="max",
        enable_version_counter=False,
    )
    # `last` has its own callback, since it is written after every epoch, whatever the score
    last = ModelCheckpoint(
        folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [last, board.Board()]
    if validated and cfg.optim.select == "best":
        callbacks.insert(0, best)
    shown = cfg.trainer.progress and notices.level() != notices.QUIET
    drawn = shown and Console().is_terminal
    if shown:
        callbacks.append(RichProgressBar(leave=False) if drawn else Lines())
    t, o = cfg.trainer, cfg.optim
    own = -(-batches // (t.devices * t.num_nodes))
    repeated = rounds(o.epochs, own, o.accumulate, o.min_steps)  # in a second run, too
    trainer = L.Trainer(
        accelerator=device_of(cfg).type,  # the one that refuse_absent checked
        devices=t.devices,
        num_nodes=t.num_nodes,
        strategy=devices.strategy(cfg),
        plugins=devices.plugins(),
        precision=t.precision,  # type: ignore[arg-type]
        max_epochs=epochs * repeated,
        check_val_every_n_epoch=repeated,
        gradient_clip_val=o.clip or None,
        accumulate_grad_batches=o.accumulate,
        use_distributed_sampler=False,  # our samplers give each process its share
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if validated else 0,
        logger=loggers(cfg, out),
        callbacks=callbacks,
        enable_progress_bar=drawn,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    return trainer, best


def _store(cfg: RunConfig, trainer: L.Trainer, data: Any) -> StoreFeatures:
    """Add the callback that stores features when fitting starts."""
    storing = StoreFeatures(data, wanted=cfg.data.features != "live", progress=cfg.trainer.progress)
    trainer.callbacks.append(storing)  # type: ignore[attr-defined]
    return storing


def _test(
    trainer: L.Trainer,
    module: SERModule,
    data: Any,
    last: Path,
    test_too: bool,
    valid: PredictionTable | None = None,
) -> dict[str, Any]:
    """Score validation and test with the selected weights; only here the test part is read.

    If ``valid`` is given, the model was trained on the validation part, and that is not scored.
    """
    best = last.with_name("best.ckpt")
    if not best.is_file():
        raise ConfigError("no epoch was validated, so nothing was selected; raise optim.epochs")
    content = checkpoint.read(best)
    checkpoint.restore(module, content)
    if valid is None:
        module.validated_as = "selected"  # keeps this score out of the curve of val/uar
        trainer.validate(module, data, verbose=False)
    if not test_too:
        return {"epoch": int(content["epoch"]), "valid": module.tables["valid"].metrics()}
    began = time.perf_counter()
    trainer.test(module, data, verbose=False)
    seconds = time.perf_counter() - began
    valid, test = valid or module.tables["valid"], module.tables["test"]
    test = with_votes(test, data.datasets["test"], module.head.taxonomy)
    module.tables["test"] = test  # it is written as it is measured
    temperature = valid.temperature()
    numbers = measure(test, temperature)
    numbers["metrics"] |= unparsable(module.head, test, module.head.taxonomy)
    return (
        {"epoch": int(content["epoch"])}
        | numbers
        | {
            "valid": valid.metrics() | unparsable(module.head, valid, module.head.taxonomy),
            "inference_seconds_per_utterance": seconds / max(1, len(test.ids)),
        }
    )


def _copy(trainer: L.Trainer, last: Path) -> None:
    """Make the last epoch the run's model; every process calls this, and waits for the first."""
    if trainer.is_global_zero:
        with new_file(last.with_name("best.ckpt")) as draft:
            shutil.copyfile(last, draft)
    trainer.strategy.barrier()


def _kept(trainer: L.Trainer, module: SERModule, last: Path) -> dict[str, Any]:
    """Keep the last epoch as the run's model, since the protocol has no validation part."""
    content = checkpoint.read(last)
    checkpoint.restore(module, content)
    _copy(trainer, last)
    return {"epoch": int(content["epoch"])}
