"""Pre-trainings of a suite: runs whose encoders its cells start from.

The key ``pretraining`` of a suite's file describes them. The axis ``pretraining`` compares them;
its value ``none`` means new weights::

    label: {corpus: synthetic_talk, taxonomy: basic7}      # `serzoo label` makes these first
    pretraining:
      weak: {about: words, recipe: lanser_pretrain, labels: weak}
      shuffled: {about: words, recipe: lanser_pretrain, labels: shuffled}
      human: {about: words, recipe: lanser_pretrain, overrides: [data.label=acted]}
    axes: {pretraining: [none, weak, shuffled, human], ...}

Each is trained once per seed, with the encoder of the cells, for all their folds and shares.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...datamodules.labelling.label import label
from ..core.errors import ConfigError, suggest
from ..run import config
from ..run.config import RunConfig
from . import axes

NONE = "none"
LABELS = (None, "weak", "shuffled")
COPIED = (
    "encoder",
    "trainer.",
    "data.max_seconds",
)  # settings that a pre-training takes from cells


@dataclass(frozen=True)
class Arm:
    """A way to pre-train.

    Attributes:
        about: a description for tables.
        recipe: recipe of the run.
        overrides: ``key=value`` of the run.
        labels: ``weak`` = the weak labels that the suite's ``label`` describes; ``shuffled`` =
            these, shuffled by the run's seed; None = the labels of the run's own data.
    """

    about: str
    recipe: str
    overrides: tuple[str, ...] = ()
    labels: str | None = None


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
        return {"arms": {name: asdict(arm) for name, arm in self.arms.items()}, "label": self.label}

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


def read(suite: str, raw: Mapping[str, Any], wanted: Any) -> Pretraining | None:
    """Read ``pretraining`` and ``label`` of a suite's file.

    Args:
        suite: its name, for errors.
        raw: its content.
        wanted: values of the axis ``pretraining``; None = the suite has no such axis.

    Returns:
        The pre-trainings; None if ``wanted`` is None.

    Raises:
        ConfigError: if a key, a name or a value is wrong.
    """
    found, label = raw.get("pretraining") or {}, raw.get("label")
    if not isinstance(found, dict) or NONE in found:
        raise ConfigError(
            f"suite '{suite}': pretraining is {found}; give a recipe for each name, such as "
            "weak: {recipe: lanser_pretrain, labels: weak}; the name 'none' means new weights"
        )
    arms = {str(name): _arm(suite, str(name), value) for name, value in found.items()}
    for name in map(str, wanted or ()):
        if name != NONE and name not in arms:
            known = suggest(str(name), (NONE, *arms))
            raise ConfigError(f"suite '{suite}' has unknown pretraining '{name}'{known}")
    if any(arm.labels for arm in arms.values()) and not isinstance(label, dict):
        raise ConfigError(
            f"suite '{suite}' pre-trains on weak labels but has no label; give label: "
            "{corpus: NAME, taxonomy: NAME}"
        )
    given = label if isinstance(label, dict) else None
    for key in ("corpus", "taxonomy"):
        if given is not None and key not in given:
            raise ConfigError(f"suite '{suite}': label has no {key}; give label.{key}")
    return Pretraining(arms, given) if wanted else None


def _arm(suite: str, name: str, value: Any) -> Arm:
    keys = ("about", "recipe", "overrides", "labels")
    if not isinstance(value, dict) or "recipe" not in value:
        raise ConfigError(f"suite '{suite}': pretraining.{name} is {value}; give at least a recipe")
    for key in value:
        if key not in keys:
            raise ConfigError(
                f"suite '{suite}' has unknown key 'pretraining.{name}.{key}'{suggest(key, keys)}"
            )
    if value.get("labels") not in LABELS:
        raise ConfigError(
            f"suite '{suite}': pretraining.{name}.labels is '{value['labels']}'; have weak, "
            "shuffled, or leave it out"
        )
    given = value.get("overrides") or []
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise ConfigError(
            f"suite '{suite}': pretraining.{name}.overrides is {given}; give a list of key=value"
        )
    return Arm(
        str(value.get("about") or name), str(value["recipe"]), tuple(given), value.get("labels")
    )


def make_labels(spec: Mapping[str, Any], folder: Path) -> list[str]:
    """Make weak labels as `serzoo label` does; repeat a call that was killed, and it goes on.

    Args:
        spec: ``corpus`` (or a manifest), ``taxonomy``, and further settings of that command.
        folder: for the labels.

    Returns:
        The lines that the command prints.
    """
    settings = {k: v for k, v in spec.items() if k != "corpus"}
    done = label(spec["corpus"], out=str(folder), **settings)
    return list(done.lines)


def _digest(value: Any) -> str:
    """Return six hexadecimal digits that identify plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
