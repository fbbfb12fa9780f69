"""Distil an encoder: a small student learns to make a teacher's frames (Hinton et al. 2015).

The student hears corrupted speech. It regresses what the frozen teacher made of the clean speech,
as DistilHuBERT does (Chang et al. 2022, arXiv 2110.01900). Several layers of the teacher are
targets, each through a linear head of its own, which is dropped afterwards. Heads of classifiers
read the mean and deviation of frames, so the error of both is part of the loss. All weights of it
are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss
from torch.utils.data import DataLoader

from ...datamodules.corrupting import Corrupter
from ...datamodules.sampler import BucketSampler, EvalSampler
from ..core import registry, shipped
from ..core.encoder import Encoder
from ..core.errors import ConfigError, DamagedError, first_line
from ..core.files import check_place, named, read_text
from ..core.notices import quiet
from ..encoders.families import HOP, WhisperFamily
from ..encoders.hf import fast_bfloat16
from ..encoders.mel import frame_mask
from ..encoders.small import CELL, Shape, Student, read_student, spectrogram, write_student
from . import config, schema, words
from .checkpoint import ModelCheckpoint, WholeFiles
from .optim import AveragedWeights, adamw, rate_over_steps
from .record import environment
from .schema import Flag, FromOne, FromZero, NotNegative, Positive, Seed
from .targets import Shard, Taught, check_teacher, hours, make_targets, recordings

WEIGHTS = "student.safetensors"
STRIDE = HOP * CELL  # samples between two frames of a student
GENTLE = 60  # steps, at least, in which the learning rate rises
Part = Annotated[float, Field(strict=True, ge=0, lt=1)]


class Moments(NamedTuple):
    """How the teacher's frames are distributed, ``[K, D]`` each.

    Attributes:
        mean: mean over frames.
        deviation: deviation over frames.
        of_means: deviation of the utterances' means, of standardised frames.
        deviations: mean of the utterances' deviations, of standardised frames.
        of_deviations: deviation of the utterances' deviations, of standardised frames.
    """

    mean: Tensor
    deviation: Tensor
    of_means: Tensor
    deviations: Tensor
    of_deviations: Tensor


def statistics(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of an utterance's frames, ``[B, K, D]`` each.

    Args:
        x: ``[B, T, K, D]``.
        mask: ``[B, T]``.
    """
    weight = mask[:, :, None, None] / mask.sum(1)[:, None, None, None]
    mean = (x * weight).sum(1)
    variance = ((x - mean[:, None]).square() * weight).sum(1)
    return mean, (variance + 1e-4).sqrt()


def measured(data: Taught, pieces: int = 512) -> Moments:
    """Return the moments of the teacher's frames, from pieces spread over the training speech."""
    step = max(1, len(data) // pieces)
    batches = [[i] for i in range(0, len(data), step)]
    frames = [data[batch]["frames"][0].float() for batch in batches]
    everything = torch.cat(frames)
    mean, deviation = everything.mean(0), everything.std(0).clamp_min(1e-4)
    found = [
        statistics((x[None] - mean) / deviation, torch.ones(1, len(x), dtype=torch.bool))
        for x in frames
    ]
    means, spread = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Moments(
        mean, deviation, means.std(0).clamp_min(0.05), spread.mean(0), spread.std(0).clamp_min(0.05)
    )


class Distillation(L.LightningModule):
    """A student in training.

    Args:
        student: it is changed in place.
        moments: distribution of the teacher's frames.
        lr: highest learning rate.
        steps: number of steps of the whole training.
        decay: weight decay of matrices.
        average: decay of the averaged weights.
        seed: seed of the corruption.
    """

    layer_weights: Tensor

    def __init__(
        self,
        student: Student,
        moments: Moments,
        *,
        lr: float,
        steps: int,
        decay: float,
        average: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.student = student
        layers, dim = moments.mean.shape
        width = student.shape.dim
        # the student's own frames stand for the middle layer, if the widths are equal
        self.main = layers // 2 if dim == width else None
        self.heads = nn.ModuleList(
            nn.Identity() if k == self.main else nn.Linear(width, dim) for k in range(layers)
        )
        for name, value in moments._asdict().items():
            self.register_buffer(f"teacher_{name}", value)
        self.lr, self.steps, self.decay = lr, steps, decay
        self.averaged = AveragedWeights(average)
        self.seed = seed
        self.corrupt = Corrupter()

    @property
    def moments(self) -> Moments:
        """The moments of the teacher's frames."""
        return Moments(*(getattr(self, f"teacher_{name}") for name in Moments._fields))

    def configure_optimizers(self) -> Any:
        groups = [{"params": list(self.parameters()), "lr": self.lr}]
        optimiser = adamw(groups, self.decay, str(self.trainer.precision))
        rate = rate_over_steps(self.steps, 0.1, "cosine")
        # weights that come from a teacher do not survive large first steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / GENTLE) * rate(step)
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def frames(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the student's standardised frames of each layer of the teacher, and their mask.

        Args:
            audio: ``[B, S]``.
            lengths: ``[B]`` samples.

        Returns:
            ``[B, T, K, D]`` and ``[B, T]``.
        """
        with torch.autocast(audio.device.type, enabled=False):
            mel, counts = spectrogram(audio, lengths, self.student.shape.bands)
        last = self.student(mel, counts)[-1]
        made = torch.stack([head(last).float() for head in self.heads], 2)
        return made, frame_mask(counts, made.shape[1])

    @torch.no_grad()
    def begin(self, data: Taught, pieces: int = 256) -> None:
        """Solve the last linear layer and the heads by ridge regression, on clean speech.

        So training starts from the best linear map of the student's first weights.
        """
        step = max(1, len(data) // pieces)
        made, wanted = [], []
        for i in range(0, len(data), step):
            batch = data[[i]]
            mel, counts = spectrogram(batch["audio"], batch["lengths"], self.student.shape.bands)
            made.append(self.student(mel, counts)[1][0])  # the second block is still the identity
            wanted.append((batch["frames"][0] - self.moments.mean) / self.moments.deviation)
        x, y = torch.cat(made), torch.cat(wanted)
        if self.main is not None:
            _solve(self.student.out, x, y[:, self.main])
        x = self.student.out(x)
        for k, head in enumerate(self.heads):
            if isinstance(head, nn.Linear):
                _solve(head, x, y[:, k])

    def errors(self, made: Tensor, mask: Tensor, wanted: Tensor) -> dict[str, Tensor]:
        """Return the errors of frames, of their means and of their deviations, scalars.

        An error of means or deviations is relative to how utterances differ. It is 1 if the student
        is no better than the mean of all utterances.
        """
        m = self.moments
        target = (wanted.float() - m.mean) / m.deviation
        frame = smooth_l1_loss(made, target, reduction="none").mean((2, 3))
        mean, spread = statistics(made, mask)
        mean_of, spread_of = statistics(target, mask)
        return {
            "frame": (frame * mask).sum() / mask.sum(),
            "mean": ((mean - mean_of) / m.of_means).square().mean(),
            "deviation": ((spread - spread_of) / m.of_deviations).square().mean(),
        }

    def on_train_epoch_start(self) -> None:
        # a resumed training hears the same corruption
        self.corrupt.restart(self.seed, self.current_epoch)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        heard = self.corrupt(batch["audio"].cpu(), batch["lengths"].cpu()).to(self.device)
        made, mask = self.frames(heard, batch["lengths"])
        errors = self.errors(made, mask, batch["frames"])
        self.log_dict({f"train/{k}": v.detach() for k, v in errors.items()}, prog_bar=True)
        return 2 * errors["frame"] + errors["mean"] + 0.25 * errors["deviation"]

    def validation_step(self, batch: dict[str, Tensor], _: int) -> None:
        made, mask = self.frames(batch["audio"], batch["lengths"])
        errors = self.errors(made, mask, batch["frames"])
        size = len(batch["audio"])
        self.log_dict({f"valid/{k}": v for k, v in errors.items()}, prog_bar=True, batch_size=size)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.averaged.update(dict(self.named_parameters()), self.global_step)

    def on_validation_epoch_start(self) -> None:
        self.averaged.swap(dict(self.named_parameters()))

    def on_validation_epoch_end(self) -> None:
        self.averaged.swap(dict(self.named_parameters()))

    def on_save_checkpoint(self, content: dict[str, Any]) -> None:
        content["averaged"] = self.averaged.weights

    def on_load_checkpoint(self, content: dict[str, Any]) -> None:
        self.averaged.restart(content["averaged"])


def _solve(layer: nn.Linear, x: Tensor, y: Tensor) -> None:
    """Set a layer to the ridge regression of ``y [N, D]`` on ``x [N, D']``."""
    a, b = x.double(), y.double()
    mean, level = a.mean(0), b.mean(0)
    square = (a - mean).T @ (a - mean)
    square += 0.01 * square.diagonal().mean() * torch.eye(len(square))
    weight = torch.linalg.solve(square, (a - mean).T @ (b - level)).T
    layer.weight.copy_(weight)
    layer.bias.copy_(level - weight @ mean)


def copy_front(student: Student, teacher: Encoder) -> bool:
    """Let a student start from the convolutions and the first block of a Whisper.

    Returns:
        Whether the teacher is a Whisper of the student's sizes; otherwise nothing is copied.
    """
    family = getattr(teacher, "family", None)
    if not isinstance(family, WhisperFamily) or not len(family.blocks):
        return False
    encoder = family.model.encoder
    source: dict[str, Tensor] = {}
    for name, part in (
        ("conv1", encoder.conv1), ("conv2", encoder.conv2), ("blocks.0", family.blocks[0])
    ):  # fmt: skip
        source |= {f"{name}.{k}": v for k, v in part.state_dict().items()}
    own = student.state_dict()
    if any(k not in own or own[k].shape != v.shape for k, v in source.items()):
        return False
    student.load_state_dict(own | {k: v.float() for k, v in source.items()})
    return True


# The whole work, as the verb does it.


@dataclass
class DistilConfig:
    """All settings of `serzoo distil`.

    ``configs/distil/serzoo-small.yaml`` explains each of them.
    """

    data: Annotated[list[str], schema.LISTED, schema.give("data=[FOLDER,FOLDER] with speech")]
    out: Annotated[str, schema.give("out=FOLDER for the result")]
    teacher: dict[str, Any]
    student: Shape = field(default_factory=Shape)
    start: str = "teacher"
    copies: FromOne = 1
    held_out: Part = 0.03
    epochs: FromOne = 14
    lr: Positive = 4e-4
    weight_decay: NotNegative = 0.01
    average: Part = 0.995
    batch_size: FromOne = 20
    batch_seconds: Positive = 90.0
    precision: str = "auto"
    threads: FromZero = 0
    seed: Seed = 0
    progress: Flag = True


def load(name: str, overrides: Sequence[str] = ()) -> DistilConfig:
    """Compose the settings of a distillation.

    Args:
        name: a shipped configuration (``serzoo-small``) or a YAML file.
        overrides: ``key=value``, such as ``teacher.encoder=wavlm-base``.

    Raises:
        ConfigError: if a key, name or value is wrong.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise ConfigError(
                f"no file {name}; shipped configurations: {', '.join(shipped.names('distil'))}"
            )
        base = config.read_mapping(read_text(name, ConfigError), name)
    else:
        base = config.read_group("distil", name)
    chosen = dict(words.words(overrides)).get("teacher.encoder")
    teacher = base.get("teacher")
    if chosen and isinstance(teacher, dict) and teacher.get("encoder") != chosen:
        base["teacher"] = {}  # its options were for another encoder
    for key, text in words.words(overrides):
        kind = schema.annotation(key, DistilConfig)
        config.put(base, key, words.parse([f"{key}={text}"], {key: kind})[0][1])
    cfg = schema.read_as(DistilConfig, base)
    if not isinstance(cfg.teacher.get("encoder"), str):
        raise ConfigError(
            "teacher has no encoder; add teacher.encoder=NAME (`serzoo list encoders`)"
        )
    if refusal := cfg.precision != "auto" and schema.refused_precision(cfg.precision):
        raise ConfigError(f"precision {refusal}; or set precision=auto")
    return cfg


def build_teacher(node: Mapping[str, Any]) -> Encoder:
    """Return a teacher in evaluation mode.

    Args:
        node: ``encoder``, the name of a configuration of encoders, and options that it changes.

    Raises:
        ConfigError: if it cannot be built, or nothing can be learned from it.
    """
    options = {**config.read_group("encoder", node["encoder"]), **node}
    kind = options.pop("type")
    options = {k: v for k, v in options.items() if k not in ("encoder", "optim")}
    checked = registry.check_options("encoders", kind, options)
    teacher: Encoder = registry.get("encoders", kind)(**checked).eval()
    check_teacher(teacher, node["encoder"])
    return teacher


def distil(cfg: DistilConfig) -> dict[str, Any]:
    """Train a student on speech, and write its weights.

    The folder ``out`` gets ``student.safetensors`` after each epoch, the teacher's frames, the
    errors (``log/metrics.csv``), and a checkpoint. A stopped training goes on from its last whole
    epoch, if it is started again with the same settings.

    Returns:
        Facts about the student, as its file holds them.

    Raises:
        ConfigError: if the teacher or the settings cannot be used.
        DataError: if there is no speech, or all of it is too short.
        OSError: if ``out`` cannot be written.
    """
    quiet()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    out = Path(cfg.out).expanduser()
    check_place(out / "student.safetensors")
    files = recordings(cfg.data)
    L.seed_everything(cfg.seed, verbose=False)
    student, beginning = _first(cfg)
    teacher = build_teacher(cfg.teacher)
    with named(out):
        shards = make_targets(
            out / "targets",
            files,
            teacher,
            copies=cfg.copies,
            seed=cfg.seed,
            stride=STRIDE,
            held_out=cfg.held_out,
            progress=cfg.progress,
            facts={"teacher": teacher.extraction()},
        )
    if cfg.start == "teacher":
        beginning = "teacher" if copy_front(student, teacher) else "new"
    facts = {
        "shape": asdict(student.shape),
        "start": beginning,
        "teacher": {**cfg.teacher, "weights": teacher.extraction().get("weights")},
        "speech": {"folders": [Path(f).name for f in cfg.data], **hours(shards)},
        **{k: getattr(cfg, k) for k in ("epochs", "lr", "batch_size", "copies", "seed")},
        "versions": environment()["versions"],
    }
    del teacher  # it takes memory that training needs
    with named(out):
        return fit(cfg, out, student, shards, facts)


def _first(cfg: DistilConfig) -> tuple[Student, str]:
    """Return the student before training, and what it starts from."""
    if cfg.start in ("teacher", "new"):
        return Student(cfg.student), "new"
    student, _ = read_student(Path(cfg.start).expanduser())
    if student.shape != cfg.student:
        raise ConfigError(
            f"start={cfg.start} has the sizes {asdict(student.shape)}, and student has "
            f"{asdict(cfg.student)}; set the same, or start=new"
        )
    return student, Path(cfg.start).name


def fit(
    cfg: DistilConfig, out: Path, student: Student, shards: Sequence[Shard], facts: dict[str, Any]
) -> dict[str, Any]:
    """Train a student on what its teacher made of speech; return ``facts`` and the errors.

    Args:
        cfg: the settings.
        out: folder of the result.
        student: the student; it is changed in place.
        shards: speech and frames.
        facts: where the student comes from, for its file.
    """
    data, held = (Taught(shards, STRIDE, held_out=h) for h in (False, True))
    size, budget = cfg.batch_size, cfg.batch_seconds
    sampler = BucketSampler(data.seconds, size=size, budget=budget, seed=cfg.seed)
    train = DataLoader(data, sampler=sampler, batch_size=None)
    evaluated = EvalSampler(held.seconds, size=size, budget=budget)
    valid = DataLoader(held, sampler=evaluated, batch_size=None)
    start = out / "last.ckpt"
    moments, done = _read_checkpoint(start) if start.exists() else (measured(data), 0)
    if done >= cfg.epochs:
        return read_student(out / WEIGHTS)[1]
    sampler.set_epoch(done)  # its first batches are drawn before Lightning does so
    module = Distillation(
        student,
        moments,
        lr=cfg.lr,
        steps=cfg.epochs * len(train),
        decay=cfg.weight_decay,
        average=cfg.average,
        seed=cfg.seed,
    )
    if not start.exists() and cfg.start in ("teacher", "new"):
        module.begin(data)
    last = ModelCheckpoint(
        out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    keep = Keep(out / WEIGHTS, facts)
    callbacks: list[Callback] = [keep, last]
    if cfg.progress:
        callbacks.append(RichProgressBar(leave=False))
    precision = cfg.precision
    if precision == "auto":
        precision = "bf16-mixed" if fast_bfloat16() else "32-true"
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        plugins=[WholeFiles()],
        precision=precision,  # type: ignore[arg-type]
        max_epochs=cfg.epochs,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,  # ours gives whole batches
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if len(held) else 0,
        logger=CSVLogger(str(out), name="", version="log"),
        callbacks=callbacks,
        enable_progress_bar=cfg.progress,
        enable_model_summary=False,
        log_every_n_steps=5,
    )
    trainer.fit(
        module, train, valid, ckpt_path=str(start) if start.exists() else None, weights_only=True
    )
    return keep.facts


def _read_checkpoint(path: Path) -> tuple[Moments, int]:
    """Return the moments that a checkpoint of a distillation holds, and its number of epochs.

    Raises:
        DamagedError: if it cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"]
        moments = Moments(*(state[f"teacher_{name}"] for name in Moments._fields))
        return moments, int(content["epoch"]) + 1
    except Exception as error:  # torch and zip files have many errors
        raise DamagedError(
            f"{path} is damaged ({first_line(error)}); remove it, and training starts anew"
        ) from error


class Keep(Callback):
    """Write the averaged weights of the student after each epoch.

    Args:
        path: their file.
        facts: what the file says about them; the errors of the last epoch are added.
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path, self.facts = path, facts

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        weights = {
            k.removeprefix("student."): v
            for k, v in module.averaged.weights.items()
            if k.startswith("student.")
        }
        errors = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items()}
        done = {"epochs_done": trainer.current_epoch + 1, "steps": trainer.global_step}
        self.facts = {**self.facts, **done, "errors": errors}
        write_student(self.path, weights, self.facts)


def lines(cfg: DistilConfig, facts: Mapping[str, Any]) -> list[str]:
    """Return what `serzoo distil` prints at its end."""
    errors = facts["errors"]
    heard = facts["speech"]
    part = "valid" if "valid/frame" in errors else "train"
    found = ", ".join(f"{k} {errors[f'{part}/{k}']:.3f}" for k in ("frame", "mean", "deviation"))
    weights = Path(cfg.out) / WEIGHTS
    return [
        f"distilled from {heard['hours']:.2f} h of speech ({heard['pieces']} pieces), "
        f"{facts['epochs_done']} epochs",
        f"errors of {'held-out' if part == 'valid' else 'training'} speech: {found} (0 = as the "
        "teacher)",
        f"weights: {weights}",
        f"use them: serzoo train RECIPE encoder=serzoo-small encoder.weights={weights}",
    ]
