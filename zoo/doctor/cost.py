"""Checks of the machine: disk, memory, time, devices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from ...datamodules.features import MARGIN_BYTES, FeatureStore
from ..core import own
from ..core.errors import counted
from ..core.files import features_dir
from ..core.types import SAMPLE_RATE
from ..encoders.families import WhisperFamily
from ..run.cache import size
from ..run.devices import available, cores, number_of, refused_devices, refused_precision
from ..run.optim import rounds
from .findings import Finding, error, note, ok, warning
from .trial import StepFailedError, Trial, bytes_of

NEARLY = 0.8  # above this share of the memory a run may fail (our choice)


def feature_store(trial: Trial) -> Iterator[Finding]:
    """Yield what the store will hold, its size, and whether it fits."""
    encoder, d = trial.module.encoder, trial.cfg.data
    if not encoder.storable:
        tuning = trial.cfg.encoder.get("tuning")
        yield ok(
            f"live: the encoder is trained (encoder.tuning={tuning}), so its output changes and "
            "nothing is stored"
        )
        return
    if d.features == "live":
        yield note(
            "live, as data.features says: the encoder runs in every epoch; data.features=auto "
            "would run it once"
        )
        return
    missing, seconds = to_encode(trial)
    everyone = trial.everything.datasets["test"].utterances
    rate = encoder.bytes_per_second
    layers = getattr(encoder, "layers", None)
    of = f"features of {len(layers)} layers" if layers else "features"
    facts = {"missing": missing, "seconds": seconds, "bytes": round(rate * seconds)}
    copied = [u for part in trial.data.datasets.values() for u in part.copies * part.utterances]
    total = rate * sum(min(u.duration, d.max_seconds) for u in [*everyone, *copied])
    said = f"{len(everyone)} utterances"
    if copied:
        said = f"{len(everyone) + len(copied)} utterances and corrupted copies"
    if not missing:
        yield ok(f"features of all {said} are stored ({size(total)})", **facts)
        return
    folder = existing(features_dir())
    free, margin = shutil.disk_usage(folder).free, int(MARGIN_BYTES)
    found = (
        f"{of} will be stored: {missing} of {said} ({seconds / 3600:.2f} h) "
        f"must be encoded, {size(rate * seconds)} under {features_dir()} ({size(free)} free)"
    )
    if rate * seconds + margin > free:
        yield warning(
            f"{found}: they do not fit ({size(margin)} must stay free), so training would encode "
            "in every epoch; keep fewer layers (encoder.layers), clear old stores (`serzoo cache "
            "list`), or set SERZOO_CACHE to a folder on another disk",
            **facts,
        )
    else:
        yield ok(found, **facts)


def memory(trial: Trial) -> Iterator[Finding]:
    """Yield the memory that a process of the run needs, and the memory of the machine."""
    step, module = trial.step, trial.module
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = bytes_of([*module.parameters(), *module.buffers()])
    gradients = bytes_of(trained)
    states = 2 * gradients  # AdamW: two moments of each weight
    average = bytes_of(trained) if module.average is not None else 0
    largest = trial.padded(trial.batches[-1])
    rest = max(0, step.growth - gradients - states)
    activations = rest * largest / step.padded
    local = trial.cfg.trainer.devices if trial.device.type == "cpu" else 1
    need = local * (weights + gradients + states + average + activations)
    there = available(trial.device) + (weights if trial.device.type == "cpu" else 0)
    facts = {
        "weights": weights,
        "gradients": gradients,
        "optimiser": states,
        "activations": round(activations),
        "need": round(need),
        "free": there,
    }
    found = (
        f"about {size(need)}: weights {size(weights)}, gradients {size(gradients)}, optimiser "
        f"{size(states)}, activations {size(activations)} at most (measured: {step.source}, "
        f"{step.padded:.0f} s of speech; the largest batch has {largest:.0f} s)"
    )
    if local > 1:
        found += f", in each of {local} processes"
    found += f"; {size(there)} are free on {trial.device.type}"
    advice = (
        "set a smaller data.batch_seconds with optim.accumulate, encoder.checkpointing=true, or "
        "encoder.tuning=lora or frozen"
    )
    if need > there or not step.whole:
        yield error(f"{found}: it will not fit; {advice}", **facts)
    elif need > NEARLY * there:
        yield warning(f"{found}: that is tight; {advice}", **facts)
    else:
        yield ok(found, **facts)


def duration(trial: Trial) -> Iterator[Finding]:
    """Yield an estimate of the duration of the run."""
    step, cfg = trial.step, trial.cfg
    if trial.refusal:
        yield note("not estimated: the fold cannot be trained (see class coverage)")
        return
    if not step.whole:
        yield note("not estimated: a whole batch does not fit into memory (see memory)")
        return
    share = {p: _padded(trial, p) / step.padded for p in ("train", "valid", "test")}
    reading = 0.0 if trial.stored or cfg.data.workers else trial.loaded[1]
    batches = -(-len(trial.batches) // trial.world)
    epochs, o = cfg.optim.epochs, cfg.optim
    repeated = rounds(epochs, batches, o.accumulate, o.min_steps)
    trained = epochs * repeated * share["train"]  # steps on the batch that was measured
    training = trained * (step.seconds + reading) / trial.world
    flops = trained * step.padded * step.flops
    scoring = (epochs + 1) * share["valid"] + share["test"]
    evaluation = scoring * (step.scoring + reading) / trial.world
    encoding = 0.0
    if trial.stored:
        encoding = to_encode(trial)[1] * trial.encoded[1] / trial.world
    total = training + evaluation + encoding
    facts = {
        "step": step.seconds,
        "training": training,
        "evaluation": evaluation,
        "encoding": encoding,
        "total": total,
        "flops": flops,
    }
    parts = f"training {spoken(training)}, evaluation {spoken(evaluation)}"
    if trial.stored:
        parts = f"encoding {spoken(encoding)} (once), {parts}"
    yield note(
        f"about {spoken(total)} ({parts}); {epochs} epochs of {batches * repeated} steps; a step "
        f"with {step.padded:.0f} s of speech took {step.seconds:.3g} s on this machine as busy as "
        f"it is now; training is {flops / 1e9:,.1f} GFLOP of matrix products, convolutions and "
        "attention",
        **facts,
    )


def windows(trial: Trial) -> Iterator[Finding]:
    """Say how much faster Whisper would encode in windows of the utterances' own length.

    Both speeds are measured on the batch of the trial.
    """
    family = getattr(trial.module.encoder, "family", None)
    if not isinstance(family, WhisperFamily):
        yield ok("the encoder reads utterances in their own length")
        return
    published, window = family.longest / SAMPLE_RATE, family.window / SAMPLE_RATE
    mean = sum(trial.dataset.seconds) / len(trial.dataset.seconds)
    if family.own_windows or window < published:
        chosen = "auto" if family.own_windows else f"{window:g}"
        yield ok(f"encoder.window={chosen}: shorter than the published {published:g} s")
        return
    now = trial.encoded[1]
    family.own_windows = True
    try:
        own = trial.encode()[1]
    finally:
        family.own_windows = False
    found = (
        f"every utterance is padded to {published:g} s, as published, and the mean one lasts "
        f"{mean:.1f} s: encoding a second of speech takes {now:.2g} s"
    )
    facts = {"window": published, "mean": mean, "seconds": now, "seconds_of_own_windows": own}
    if own > 0.8 * now:
        yield ok(f"{found}; encoder.window=auto would take {own:.2g} s, as measured", **facts)
        return
    yield note(
        f"{found}; encoder.window=auto would take {own:.2g} s ({now / own:.1f} times faster, as "
        "measured). Another window gives other features, so keep one window in a comparison",
        **facts,
    )


def devices(trial: Trial) -> Iterator[Finding]:
    """Yield the requested processes and devices, and those of the machine."""
    t, kind, number = trial.cfg.trainer, trial.device.type, number_of(trial.device)
    if refusal := refused_devices(trial.cfg):
        yield error(f"{refusal} (the checks above ran in one process on {kind})")
        return
    several = f" on each of {t.num_nodes} machines, including this one" if t.num_nodes > 1 else ""
    found = f"{t.devices} of {number} {kind} devices"
    if kind == "cpu":
        each = t.threads or max(1, torch.get_num_threads() // t.devices)
        there = counted(cores(), "core")
        if t.devices * each > cores():
            yield warning(
                f"{t.devices} processes with {counted(each, 'thread')} each share {there} and slow "
                f"each other down; set trainer.threads={max(1, cores() // t.devices)}"
            )
            return
        found = f"{counted(t.devices, 'process', 'es')} of {counted(each, 'thread')} on {there}"
    if kind == "cuda":
        found += f" ({torch.cuda.get_device_name()})"
        if t.devices < number:
            found += f"; trainer.devices={number} would use all"
    yield ok(found + several)


def precision(trial: Trial) -> Iterator[Finding]:
    """Yield the requested precision, and the one in which the device computes."""
    if refusal := refused_precision(trial.cfg):
        yield error(f"{refusal} (the checks above ran in 32-true)")
    else:
        yield ok(f"{trial.precision} on {trial.device.type}")


def workers(trial: Trial) -> Iterator[Finding]:
    """Yield the number of processes that read audio, compared with the cores."""
    t, n = trial.cfg.trainer, trial.cfg.data.workers
    threads = torch.get_num_threads() if trial.device.type == "cpu" else 1
    total = t.devices * n
    if total > cores():
        best = max(0, (cores() - threads) // t.devices)
        yield warning(
            f"data.workers={n} for {counted(t.devices, 'process', 'es')} gives {total} readers on "
            f"{counted(cores(), 'core')}; set data.workers={best}"
        )
        return
    try:
        step, reading = trial.step.seconds, trial.loaded[1]
    except StepFailedError:
        step = reading = 0.0
    if not trial.stored and not n and reading > 0.2 * step > 0 and cores() > threads:
        yield note(
            f"reading a batch takes {reading:.2g} s, a step {step:.2g} s; data.workers="
            f"{min(4, cores() - threads)} would read ahead"
        )
        return
    yield ok(
        f"audio is read by {counted(n, 'process', 'es') if n else 'the training process itself'}"
        + (", if its features are not stored" if trial.stored else "")
    )


def to_encode(trial: Trial) -> tuple[int, float]:
    """Return the number of utterances that are not in the store, and their seconds of speech.

    Each corrupted copy of a training utterance is one more.
    """
    encoder, limit = trial.module.encoder, trial.cfg.data.max_seconds
    speech, parts = trial.everything.speech, trial.data.datasets.values()
    store = FeatureStore(own.extraction_of(encoder), speech.roots, max_seconds=limit)
    store.refresh()
    missing = {
        store.key(u, copy): u
        for d in parts
        for u in d.utterances
        for copy in range(d.copies + 1)
        if not store.holds(u, copy)
    }
    return len(missing), sum(min(u.duration, limit) for u in missing.values())


def _padded(trial: Trial, part: str) -> float:
    """Return the seconds of a part; for training, those of the first epoch with its padding."""
    if part == "train":
        return sum(trial.padded(b) for b in trial.batches)
    return float(sum(trial.data.datasets[part].seconds))


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest folder above it that exists."""
    return next(p for p in [folder, *folder.parents] if p.exists())


def spoken(seconds: float) -> str:
    """Return a duration as text: ``42 s``, ``3.5 min``, ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
