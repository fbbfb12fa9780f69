"""Pre-trainings of a suite: runs that are trained first, and whose encoders its cells start from.

``pretraining`` of a suite's file names them, and as an axis of its cells (``none`` is a start from
new weights) they are compared::

    label: {corpus: synthetic_talk, taxonomy: basic7}      # `serzoo label`, before anything else
    pretraining:
      weak: {about: words, recipe: lanser_pretrain, labels: weak}
      shuffled: {about: words, recipe: lanser_pretrain, labels: shuffled}
      human: {about: words, recipe: lanser_pretrain, overrides: [data.label=acted]}
    axes: {pretraining: [none, weak, shuffled, human], ...}

Each is trained once per seed, on the cells' own encoder, for all their folds and shares.
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
SHARED = ("encoder", "trainer.", "data.max_seconds")  # settings of cells that their sources share


@dataclass(frozen=True)
class Arm:
    """A way to pre-train.

    Attributes:
        about: what it is, for tables.
        recipe: of the run.
        overrides: of it.
        labels: ``weak``, those of the suite's ``label``; ``shuffled``, the same dealt out anew by
            the run's seed; None = those of the run's own data.
    """

    about: str
    recipe: str
    overrides: tuple[str, ...] = ()
    labels: str | None = None


@dataclass(frozen=True)
class Source:
    """A pre-training: its arm, its run and its folder."""

    arm: str
    name: str
    cfg: RunConfig
    folder: Path


@dataclass(frozen=True)
class Pretraining:
    """What a suite says of it.

    Attributes:
        arms: by name.
        label: corpus and settings of the weak labels; None where no arm asks for them.
    """

    arms: dict[str, Arm]
    label: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For ``suite.json``."""
        return {"arms": {name: asdict(arm) for name, arm in self.arms.items()}, "label": self.label}

    def labels(self, folder: Path) -> Path:
        """Where the weak labels of these settings lie in a suite's folder."""
        return folder / f"labels-{_digest(self.label)}"

    def source(
        self, arm: str, settings: Sequence[str], seed: int, *, out: str, folder: Path
    ) -> Source | None:
        """The pre-training of a cell; None for the arm ``none``.

        Args:
            arm: its name.
            settings: of the cell; those of the encoder and of the trainer are shared.
            seed: of the cell, and of the pre-training.
            out: folder of all runs.
            folder: of the suite.
        """
        if arm == NONE:
            return None
        how = self.arms[arm]
        shared = [s for s in settings if s.startswith(SHARED)]
        own = [f"seed={seed}", axes.setting("trainer.out", out)]
        if how.labels:
            own.append(axes.setting("data.manifest", str(self.labels(folder) / "manifest.jsonl")))
        if how.labels == "shuffled":
            own.append(f"data.weak_shuffle={seed}")
        cfg = config.load(how.recipe, ["trainer.progress=false", *shared, *how.overrides, *own])
        # of other labels, another run: their file is no part of a run's fingerprint
        unique = _digest([cfg.fingerprint, self.label if how.labels else None])
        name = f"{arm}-{cfg.encoder['type']}-{cfg.called}-s{seed}-{unique}"
        return Source(arm, name, cfg, folder / "pretraining" / name)


def read(suite: str, raw: Mapping[str, Any], wanted: Any) -> Pretraining | None:
    """``pretraining`` and ``label`` of a suite's file.

    Args:
        suite: its name, for messages.
        raw: its content.
        wanted: the axis ``pretraining``; None = it has none.

    Raises:
        ConfigError: naming what is wrong.
    """
    found, label = raw.get("pretraining") or {}, raw.get("label")
    if not isinstance(found, dict) or NONE in found:
        raise ConfigError(
            f"suite '{suite}': pretraining is {found}; say what each name means, such as "
            "weak: {recipe: lanser_pretrain, labels: weak} ('none' means nothing)"
        )
    arms = {str(name): _arm(suite, str(name), value) for name, value in found.items()}
    for name in map(str, wanted or ()):
        if name != NONE and name not in arms:
            known = suggest(str(name), (NONE, *arms))
            raise ConfigError(f"suite '{suite}' has unknown pretraining '{name}'{known}")
    if any(arm.labels for arm in arms.values()) and not isinstance(label, dict):
        raise ConfigError(
            f"suite '{suite}' pre-trains on weak labels and does not say of what; give label: "
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
    """Weak labels, as `serzoo label` makes them; a call that was killed goes on where it was.

    Args:
        spec: ``corpus`` (or a manifest), ``taxonomy``, and further settings of the verb.
        folder: for the labels.

    Returns:
        What the verb says, a line each.
    """
    settings = {k: v for k, v in spec.items() if k != "corpus"}
    done = label(spec["corpus"], out=str(folder), **settings)
    return list(done.lines)


def _digest(value: Any) -> str:
    """Six digits of plain containers."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]
