"""Pre-trainings of a suite: runs whose encoders its cells start from.

The key ``pretraining`` of a suite's file describes them. The axis ``pretraining`` compares them;
its value ``none`` means new (or published) weights::

    label: {corpus: synthetic_talk, taxonomy: basic7}      # `serzoo label` makes these first
    pretraining:
      weak: {about: words, recipe: lanser_pretrain, labels: weak}
      shuffled: {about: words, recipe: lanser_pretrain, labels: shuffled}
      human: {about: words, recipe: lanser_pretrain, overrides: [data.label=acted]}
    axes: {pretraining: [none, weak, shuffled, human], ...}

Each is trained once per seed, with the encoder of the cells, for all their folds and shares. Its
overrides may tune an encoder that the cells keep frozen; then the cells use it as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ...datamodules.labelling.label import label, settings
from ..core.errors import ConfigError, suggest
from ..run import config
from ..run.schema import RunConfig, give, one_of
from . import axes
from .suite_file import Words

NONE = "none"
COPIED = ("encoder", "trainer.", "data.max_seconds")
"""Beginnings of the settings that a pre-training takes from cells."""


@dataclass(frozen=True)
class Arm:
    """A way to pre-train.

    Attributes:
        recipe: recipe of the run.
        about: a description for tables; "" = its name.
        overrides: ``key=value`` of the run.
        labels: ``weak`` = the weak labels that the suite's ``label`` describes; ``shuffled`` =
            these, shuffled by the run's seed; None = the labels of the run's own data.
    """

    recipe: Annotated[str, give("the recipe of this pre-training")]
    about: str = ""
    overrides: Words = field(default_factory=list)
    labels: Annotated[str, one_of("weak", "shuffled")] | None = None


@dataclass(frozen=True)
class Source:
    """A pre-training that cells start from: its arm, name, run and folder."""

    arm: str
    name: str
    cfg: RunConfig
    folder: Path


@dataclass(frozen=True)
class Pretraining:
    """The pre-trainings of a suite.

    Attributes:
        arms: each way to pre-train, by its name.
        label: corpus and settings of the weak labels; None = the suite makes none.
    """

    arms: dict[str, Arm]
    label: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for ``suite.json``."""
        arms = {k: {**asdict(arm), "about": arm.about or k} for k, arm in self.arms.items()}
        return {"arms": arms, "label": self.label}

    def labels(self, folder: Path) -> Path:
        """Return the folder of the weak labels of these settings, in a suite's folder."""
        return folder / f"labels-{_digest(self.label)}"

    def source(
        self, arm: str, settings: Sequence[str], seed: int, *, out: str, folder: Path
    ) -> Source | None:
        """Return the pre-training that a cell starts from; None for the arm ``none``.

        Args:
            arm: name of the arm.
            settings: overrides of the cell; the pre-training takes those in :data:`COPIED`.
            seed: seed of the cell, and of the pre-training.
            out: folder of all runs.
            folder: folder of the suite.

        Raises:
            ConfigError: if the run cannot be composed.
        """
        if arm == NONE:
            return None
        how = self.arms[arm]
        copied = [s for s in settings if s.startswith(COPIED)]
        own = [f"seed={seed}", axes.setting("trainer.out", out)]
        if how.labels:
            own.append(axes.setting("data.manifest", str(self.labels(folder) / "manifest.jsonl")))
        if how.labels == "shuffled":
            own.append(f"data.weak_shuffle={seed}")
        cfg = config.load(how.recipe, ["trainer.progress=false", *copied, *how.overrides, *own])
        # a run's fingerprint does not contain its labels, so the name does
        unique = _digest([cfg.fingerprint, self.label if how.labels else None])
        name = f"{arm}-{cfg.encoder['type']}-{cfg.called}-s{seed}-{unique}"
        return Source(arm, name, cfg, folder / "pretraining" / name)


def check(arms: Mapping[str, Arm], label: Mapping[str, Any] | None, wanted: Sequence[Any]) -> None:
    """Check that a suite describes the pre-trainings that it uses.

    Args:
        arms: each way to pre-train, by its name.
        label: corpus and settings of the weak labels.
        wanted: values of the axis ``pretraining``.

    Raises:
        ConfigError: if a pre-training or a setting is missing, or has the name ``none``.
    """
    if NONE in arms:
        raise ConfigError("pretraining.none means new weights; give this pre-training another name")
    for name in map(str, wanted):
        if name not in (NONE, *arms):
            raise ConfigError(f"unknown pretraining '{name}'{suggest(name, (NONE, *arms))}")
    if label is None and any(arm.labels for arm in arms.values()):
        raise ConfigError(
            "it pre-trains on weak labels but has no label; give label: {corpus: NAME, taxonomy: "
            "NAME}"
        )
    for key in ("corpus", "taxonomy"):
        if label is not None and key not in label:
            raise ConfigError(f"label has no {key}; give label.{key}")
    if label is not None:
        arguments(label)


def make_labels(spec: Mapping[str, Any], folder: Path) -> list[str]:
    """Make weak labels as `serzoo label` does; repeat a call that was killed, and it goes on.

    Args:
        spec: ``corpus`` (or a manifest), ``taxonomy``, and further settings of that command.
        folder: where the labels are written.

    Returns:
        The lines that the command prints.
    """
    done = label(**{**arguments(spec), "out": str(folder)})
    return list(done.lines)


def arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`.label.label`, except its folder, from a suite's ``label``.

    Args:
        spec: ``corpus`` and the keys of `serzoo label`. Options of a scorer are
            ``scorer.model: NAME`` or ``scorer_options: {model: NAME}``; so are those of ``asr``.
            ``options: {KEY: VALUE}`` are those of the corpus' reader.

    Raises:
        ConfigError: if a key is unknown, or a value has a wrong type.
    """
    flat: dict[str, Any] = {}
    for key, value in spec.items():
        group = key.removesuffix("_options")
        if key not in ("options", "asr_options", "scorer_options"):
            flat[key] = value
        elif isinstance(value, Mapping):
            flat |= {f"{group}.{k}": v for k, v in value.items()}
        elif value is not None:
            raise ConfigError(f"label.{key}={value}; give {{KEY: VALUE}}")
    if "out" in flat:
        raise ConfigError(f"label.out={flat['out']}: a suite writes labels-* itself; leave it out")
    corpus = flat.pop("corpus")
    made = settings({**flat, "out": ""})
    return {"source": corpus, **{k: v for k, v in made.items() if k != "out"}}


def _digest(value: Any) -> str:
    """Return six hexadecimal digits that identify plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
