"""Checks of the model: is it fixed, does everything train, and does padding change nothing?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..core import lock
from ..core.errors import ConfigError, DataNote, some
from ..core.types import SAMPLE_RATE, Batch, Targets
from ..run.cache import size
from ..run.locking import of_run
from ..run.schema import RunConfig
from .findings import Finding, error, note, ok, warning
from .trial import Trial

# Largest difference between an utterance's frames alone and in a batch, as a share of the largest
# value. Above the first it is a warning, above the second an error (our choice).
BOUNDS = {"full": (1e-4, 1e-3), "low": (1e-2, 3e-2)}


def published_models(trial: Trial) -> Iterator[Finding]:
    """Say of each published model whether another run will load the same weights."""
    wanted = of_run(trial.cfg)
    if not wanted:
        yield ok("no published model")
    for one in wanted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataNote)  # the trial has told what is read
            found = one.published()
        entry, again = found.locked, found.relock
        facts = {"model": one.model, "revision": one.revision, "locked": entry and entry.said}
        if entry is not None:
            yield ok(f"{found.called} is locked in {lock.lock_file()}: {entry.said}", **facts)
        elif found.local:
            yield note(
                f"{found.called} is read from {found.path}, and nothing fixes the files there; "
                f"{again} keeps their hashes",
                **facts,
            )
        elif lock.fixed(one.revision):
            yield ok(f"{found.called} is fixed at commit {one.revision}", **facts)
        else:
            yield note(
                f"{found.called} is not locked: revision={one.revision or 'null'} is commit "
                f"{found.commit} now, and may move; training keeps this commit in "
                f"{lock.lock_file()}, or {again} does so now",
                **facts,
            )


def missing_models(cfg: RunConfig) -> list[str]:
    """Return why published models of a run cannot be read; empty if all can.

    Only their small configurations are read.

    Args:
        cfg: the configuration of the run.
    """
    lacking = []
    for one in of_run(cfg):
        try:
            one.published().raw_config()
        except ConfigError as problem:
            lacking.append(str(problem))
    return lacking


def training_step(trial: Trial) -> Iterator[Finding]:
    """Check by two optimiser steps on a real batch that losses and gradients are finite."""
    step = trial.step
    losses = ", then ".join(f"{x:.4g}" for x in step.losses[-2:])
    facts = {"losses": step.losses, "gradient_norm": step.norm, "utterances": step.utterances}
    if not all(torch.tensor(step.losses).isfinite()):
        yield error(
            f"the loss is not finite ({losses}), so training cannot work; look for silent or "
            "damaged audio, or set trainer.precision=32-true and a smaller optim.lr",
            **facts,
        )
        return
    if step.not_finite:
        message = (
            f"{len(step.not_finite)} gradients are not finite ({some(step.not_finite, 4)}), "
            "although the loss is; "
        )
        if trial.precision == "16-mixed":
            yield warning(
                message + "in 16-mixed the first steps may be skipped until the scale fits; "
                "trainer.precision=bf16-mixed needs no scale",
                **facts,
            )
        else:
            yield error(
                message + "every weight becomes NaN in the first step: set "
                "trainer.precision=32-true, or correct the head's loss",
                **facts,
            )
        return
    clip = trial.cfg.optim.clip
    cut = f", cut to optim.clip={clip:g}" if clip and step.norm > clip else ""
    yield ok(
        f"{step.utterances} utterances ({step.padded:.0f} s with padding) on {trial.device.type} "
        f"in {trial.precision}: loss {losses}; gradient norm {step.norm:.3g} in the first step"
        f"{cut}",
        **facts,
    )


def dead_parameters(trial: Trial) -> Iterator[Finding]:
    """Find trainable parameters that the loss does not reach."""
    trained = [p for p in trial.module.parameters() if p.requires_grad]
    count = f"{len(trained)} trainable parameters ({sum(p.numel() for p in trained):,} weights)"
    if dead := trial.step.dead:
        yield error(
            f"{len(dead)} of {count} get no gradient: {some(dead, 4)}; training refuses them. "
            "Freeze them (requires_grad_(False)), remove them, or choose other "
            "encoder.lora_targets",
            dead=dead,
        )
    else:
        yield ok(f"all of {count} get a gradient")


@torch.no_grad()
def labels_matter(trial: Trial) -> Iterator[Finding]:
    """Check that the loss of a batch changes with its labels."""
    with _on_device(trial):
        batch = trial.batch().to(trial.device)
        frames = trial.module.frames(batch)
        targets, losses = batch.targets, []
        wrong = type(targets)(targets.probs.roll(1, -1), targets.weight, targets.dims)
        for given in (targets, wrong):
            torch.manual_seed(0)  # a head may draw noise; use the same for both
            losses.append(float(trial.module.head.loss(frames, given, batch.text).loss))
    facts = {"loss": losses[0], "loss_of_wrong_labels": losses[1]}
    head = trial.cfg.called
    if losses[0] == losses[1]:
        yield warning(
            f"the loss of head '{head}' is {losses[0]:.4g} both with the labels and with each "
            "replaced by the next class: it cannot learn emotion from this batch; check whether "
            "the head's loss uses targets.probs",
            **facts,
        )
    else:
        yield ok(
            f"before training the loss is {losses[0]:.4g} with the labels and {losses[1]:.4g} "
            "with each replaced by the next class",
            **facts,
        )


@torch.no_grad()
def lora_effect(trial: Trial) -> Iterator[Finding]:
    """Check for each adapter alone whether the model calls its layer."""
    adapters = {
        name: module
        for name, module in trial.module.encoder.named_modules()
        if len(getattr(module, "lora_B", None) or {})
    }
    tuning = trial.cfg.encoder.get("tuning", "from scratch")
    if not adapters:
        message = "encoder.tuning=lora, but the encoder holds no adapter; set lora_targets"
        yield error(message) if tuning == "lora" else ok(f"no adapters to check ({tuning})")
        return
    with _on_device(trial):
        # noise, because a silent utterance, or one of one frame, could hide an effect
        generator = torch.Generator().manual_seed(0)
        audio = 0.1 * torch.randn(1, SAMPLE_RATE, generator=generator).to(trial.device)
        lengths = torch.tensor([SAMPLE_RATE], device=trial.device)
        reference = trial.module.encoder.extract(audio, lengths)[0]
        least = 1e-6 * float(reference.abs().max())
        without = []
        for name, module in adapters.items():
            weights = [second.weight for second in module.lora_B.values()]
            kept = [w.clone() for w in weights]
            for w in weights:
                random = torch.randn(w.shape, generator=generator) / w.shape[1] ** 0.5
                w.copy_(random.to(w))
            changed = trial.module.encoder.extract(audio, lengths)[0]
            if not float((changed - reference).abs().max()) > least:
                without.append(name)
            for w, before in zip(weights, kept, strict=True):
                w.copy_(before)
    if without:
        yield error(
            f"{len(without)} of {len(adapters)} adapters have no effect on the frames: "
            f"{some(without, 4)}; the model does not call these layers: leave them out of "
            "encoder.lora_targets",
            without_effect=without,
        )
    else:
        yield ok(f"each of {len(adapters)} adapters alone changes the frames")


@torch.no_grad()
def batch_sensitivity(trial: Trial) -> Iterator[Finding]:
    """Compare the frames of utterances alone with those in one padded batch."""
    seconds = trial.dataset.seconds
    order = sorted(range(len(seconds)), key=lambda i: seconds[i])
    few = sorted({order[round(q * (len(order) - 1))] for q in (0.0, 0.25, 0.5, 0.75)})
    batch = trial.dataset[few]
    assert batch.audio is not None
    assert batch.lengths is not None
    absolute = relative = 0.0
    with _on_device(trial):
        together, mask = _frames(trial, batch.audio, batch.lengths)
        for k, n in enumerate(batch.lengths.tolist()):
            alone, own = _frames(trial, batch.audio[k : k + 1, :n], batch.lengths[k : k + 1])
            a, b = alone[0, own[0]], together[k, mask[k]]
            if a.shape != b.shape:
                yield error(
                    f"{batch.ids[k]} has {len(a)} frames alone and {len(b)} in a batch; the "
                    "encoder's mask counts padding as speech, or speech as padding"
                )
                return
            difference = float((a - b).abs().max())
            absolute = max(absolute, difference)
            relative = max(relative, difference / max(float(a.abs().max()), 1e-12))
    low = _low_precision(trial)
    allowed, wrong = BOUNDS["low" if low else "full"]
    span = f"{min(seconds[i] for i in few):.2f} to {max(seconds[i] for i in few):.2f} s"
    found = (
        f"frames of {len(few)} utterances ({span}) alone and in one batch differ by at most "
        f"{absolute:.1e}, {relative:.1e} of the largest value"
    )
    facts = {"absolute": absolute, "relative": relative, "warning": allowed, "error": wrong}
    how = "16-bit rounding" if low else "rounding"
    if relative <= allowed:
        yield ok(f"{found}: only {how}, not padding (allowed {allowed:.0e})", **facts)
        return
    message = (
        f"{found} (allowed {allowed:.0e}): scores depend on batch neighbours and cannot be "
        "repeated with another data.batch_size; "
    )
    message += (
        "compare with encoder.dtype=float32"
        if low
        else "the encoder does not mask padding: correct it, or choose another encoder"
    )
    yield error(message, **facts) if relative > wrong else warning(message, **facts)


def checkpoint_size(trial: Trial) -> Iterator[Finding]:
    """Yield the size of a checkpoint."""
    module = trial.module
    frozen = module.frozen_keys()
    state = module.state_dict()
    saved = sum(v.numel() * v.element_size() for k, v in state.items() if k not in frozen)
    total = sum(v.numel() * v.element_size() for v in state.values())
    trained = sum(p.numel() * 4 for p in module.parameters() if p.requires_grad)
    kept = saved + 2 * trained + (saved if module.average is not None else 0)
    facts = {"weights": saved, "left_out": total - saved, "file": kept}
    if not any(p.requires_grad for p in module.parameters()):
        yield error("no weight is trained; choose another encoder.tuning or head", **facts)
        return
    left = (
        f"; {size(total - saved)} of published weights are left out, and loaded by their name"
        if total > saved
        else ""
    )
    yield note(
        f"{size(saved)} of weights are saved{left}; best.ckpt and last.ckpt, with the "
        f"optimiser's state, take about {size(kept)} each",
        **facts,
    )


def _low_precision(trial: Trial) -> bool:
    dtype = getattr(trial.module.encoder, "dtype", torch.float32)
    return dtype != torch.float32 or trial.precision.endswith("-mixed")


def _frames(trial: Trial, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames and mask as evaluation computes them, in the precision of the run."""
    mixed = trial.precision.endswith("-mixed")
    dtype = torch.float16 if trial.precision.startswith("16") else torch.bfloat16
    n = len(audio)
    targets = Targets(torch.zeros(n, 1), torch.ones(n))
    batch = Batch([""] * n, [""] * n, targets, audio=audio, lengths=lengths).to(trial.device)
    with torch.autocast(trial.device.type, dtype, enabled=mixed):
        frames = trial.module.frames(batch)
    return frames.x.float(), frames.mask


@contextmanager
def _on_device(trial: Trial) -> Iterator[None]:
    """Context with the module in evaluation mode, on the device of the run."""
    training = trial.module.training
    trial.module.eval().to(trial.device)
    try:
        yield
    finally:
        trial.module.cpu().train(training)
