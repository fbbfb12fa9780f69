"""Taxonomies: ordered classes over canonical emotion labels, and how much of a corpus they keep.

A label of a corpus becomes a class in two steps. First ``configs/corpus/<name>.yaml`` maps the
corpus' own code (``"05"``) to a canonical label (``angry``). Then the taxonomy maps canonical
labels to classes. It is an ordered list of classes, each a set of canonical labels.
``configs/taxonomy/canonical.yaml`` holds the canonical vocabulary and its verbal forms.

The fingerprint includes the order of the classes, because Gen-SER's class codes depend on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from . import shipped
from .errors import ConfigError, suggest


@dataclass(frozen=True)
class Emotion:
    """A canonical label with its verbal form, its synonyms, its sentiment and its point.

    ``sentiment`` is ``positive``, ``neutral`` or ``negative``, or None if it is undecided.
    ``point`` is valence, arousal and dominance in 0..1, or None if they are not known.
    """

    name: str
    form: str
    synonyms: tuple[str, ...] = ()
    sentiment: str | None = None
    point: tuple[float, float, float] | None = None


@cache
def canonical() -> dict[str, Emotion]:
    """Return the canonical vocabulary as a mapping of label to :class:`Emotion`."""
    raw = shipped.read("taxonomy", "canonical")
    return {
        name: Emotion(
            name,
            entry.get("form", name),
            tuple(entry.get("synonyms", ())),
            entry.get("sentiment"),
            tuple(entry["point"]) if "point" in entry else None,
        )
        for name, entry in raw.items()
    }


@dataclass(frozen=True)
class Coverage:
    """How many labels a taxonomy keeps per class, and how many it drops per label."""

    kept: dict[str, int]
    dropped: dict[str, int]

    @property
    def n_kept(self) -> int:
        return sum(self.kept.values())

    @property
    def n_dropped(self) -> int:
        return sum(self.dropped.values())

    def __str__(self) -> str:
        total = self.n_kept + self.n_dropped
        kept = ", ".join(f"{k} {v}" for k, v in self.kept.items())
        text = f"keeps {self.n_kept} of {total} utterances ({kept})"
        if self.dropped:
            gone = ", ".join(f"{k} {v}" for k, v in self.dropped.items())
            text += f"; leaves out {self.n_dropped} ({gone})"
        return text


@dataclass(frozen=True)
class Taxonomy:
    """An ordered list of classes, each a set of canonical labels.

    Attributes:
        name: for messages and records; two taxonomies that differ only in name are the same.
        members: pairs of a class name and the canonical labels of this class, in class order.

    Raises:
        ConfigError: if there are fewer than 2 classes, or two classes share a name or a label.
    """

    name: str
    members: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        if len(self.members) < 2:
            raise ConfigError(
                f"taxonomy '{self.name}' has {len(self.members)} classes; give at least 2"
            )
        if len({c for c, _ in self.members}) != len(self.members):
            raise ConfigError(f"taxonomy '{self.name}' names a class twice: {self.classes}")
        for cls, labels in self.members:
            for label in labels:
                if label in seen:
                    raise ConfigError(
                        f"taxonomy '{self.name}' puts '{label}' into both '{seen[label]}' and "
                        f"'{cls}'; leave it in one of them"
                    )
                seen[label] = cls

    @classmethod
    def load(cls, name: str) -> Taxonomy:
        """Return a shipped taxonomy by its name, or that of a YAML file.

        Args:
            name: the name, or the path of a file that ends in ``.yaml`` and holds ``classes``.

        Raises:
            ConfigError: if no taxonomy has this name, or it uses an unknown canonical label. Also
                if the file is damaged.
        """
        if shipped.is_file(name):
            content = shipped.read_file("taxonomy", name)
            classes = content.get("classes")
            if set(content) != {"classes"} or not (
                isinstance(classes, dict) and all(isinstance(m, list) for m in classes.values())
            ):
                raise ConfigError(
                    f"{name} holds the keys {', '.join(map(str, content)) or 'none'}; give "
                    "classes: {CLASS: [LABEL, LABEL]}, and nothing else"
                )
            return cls.from_dict({"name": Path(name).stem, "classes": classes}, check=True)
        if name not in cls.names():
            raise ConfigError(f"no taxonomy called '{name}'{suggest(name, cls.names())}")
        return cls.from_dict({"name": name, **shipped.read("taxonomy", name)}, check=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, check: bool = False) -> Taxonomy:
        """Build from ``{"name": ..., "classes": {class: [labels]}}``; inverse of :meth:`to_dict`.

        ``check`` refuses labels that are not in the canonical vocabulary with a ConfigError.
        """
        members = tuple((str(c), tuple(map(str, m))) for c, m in data["classes"].items())
        if check:
            for _, labels in members:
                for label in labels:
                    if label not in canonical():
                        raise ConfigError(
                            f"taxonomy '{data['name']}' uses '{label}'{suggest(label, canonical())}"
                        )
        return cls(str(data["name"]), members)

    @classmethod
    def of(cls, classes: Iterable[str], name: str = "custom") -> Taxonomy:
        """Build a taxonomy with one class per label, in the order given."""
        return cls(name, tuple((c, (c,)) for c in classes))

    @staticmethod
    def names() -> list[str]:
        """Return the names of the shipped taxonomies."""
        return [name for name in shipped.names("taxonomy") if name != "canonical"]

    @property
    def classes(self) -> list[str]:
        """Class names, in order."""
        return [c for c, _ in self.members]

    @property
    def forms(self) -> list[str]:
        """The verbal form of each class, in order; a class without a form uses its own name."""
        known = canonical()
        return [known[c].form if c in known else c.replace("_", " ") for c in self.classes]

    @property
    def sentiments(self) -> list[str | None]:
        """The sentiment of each class, in order; None if its labels have none, or disagree."""
        known = canonical()
        found = [
            {known[label].sentiment if label in known else None for label in labels}
            for _, labels in self.members
        ]
        return [next(iter(each)) if len(each) == 1 else None for each in found]

    @property
    def points(self) -> list[list[float] | None]:
        """Valence, arousal and dominance of each class in 0..1, in order: the mean of its labels.

        None if one of its labels has no point.
        """
        known = canonical()
        found: list[list[float] | None] = []
        for _, labels in self.members:
            points = [known[label].point if label in known else None for label in labels]
            rows = [point for point in points if point is not None]
            whole = rows and len(rows) == len(points)
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            found.append(mean if whole else None)
        return found

    @cached_property
    def words(self) -> dict[str, int]:
        """Words that name a class, in lower case, mapped to the index of the class.

        A class is named by its form and its own name. The names, forms and synonyms of its labels
        name it, too. If two classes claim the same word, the earlier kind in this list wins, then
        the earlier class.
        """
        known = canonical()
        found = dict(zip(map(_plain, self.forms), range(len(self)), strict=True))
        for index, name in enumerate(self.classes):
            found.setdefault(_plain(name.replace("_", " ")), index)
        for index, (_, labels) in enumerate(self.members):
            for label in labels:
                emotion = known.get(label, Emotion(label, label.replace("_", " ")))
                for word in (emotion.name, emotion.form, *emotion.synonyms):
                    found.setdefault(_plain(word), index)
        return found

    def class_said(self, text: str) -> int | None:
        """Return the index of the class that a text names, or None.

        Ignores case and outer punctuation.

        >>> Taxonomy.load("big4").class_said("Joyful.")
        1
        """
        return self.words.get(_plain(text))

    def __len__(self) -> int:
        return len(self.members)

    def class_of(self, label: str) -> int | None:
        """Return the index of the class that contains a canonical label, or None."""
        for index, (_, labels) in enumerate(self.members):
            if label in labels:
                return index
        return None

    def positions_of(self, other: Taxonomy) -> list[int]:
        """Return the index in this taxonomy of each class of ``other``, in order.

        Raises:
            ConfigError: if classes of ``other`` are missing here; the message names them.
        """
        mine = {c: i for i, c in enumerate(self.classes)}
        missing = [c for c in other.classes if c not in mine]
        if missing:
            raise ConfigError(
                f"trained on taxonomy '{self.name}' ({', '.join(self.classes)}), which lacks "
                f"{', '.join(missing)} of '{other.name}'; a closed head scores only classes that "
                "it was trained on: evaluate with a subset of them, or use a head with open labels"
            )
        return [mine[c] for c in other.classes]

    def widened(self, wanted: Taxonomy) -> Taxonomy:
        """Return these classes in their order, followed by the new classes of ``wanted``.

        A class is new if no class here has its name. Without new classes, return this taxonomy.

        Raises:
            ConfigError: if a new class contains a label that a class here has already.
        """
        new = tuple(m for m in wanted.members if m[0] not in self.classes)
        if not new:
            return self
        owner = {label: c for c, labels in self.members for label in labels}
        for c, labels in new:
            if taken := [label for label in labels if label in owner]:
                raise ConfigError(
                    f"the new class '{c}' of taxonomy '{wanted.name}' contains '{taken[0]}', which "
                    f"the model's class '{owner[taken[0]]}' already contains; give the target's "
                    "class that name, or choose a taxonomy with the model's classes"
                )
        return Taxonomy(f"{self.name} and {', '.join(c for c, _ in new)}", self.members + new)

    def coverage(self, labels: Iterable[str]) -> Coverage:
        """Count the labels that are kept, per class, and the labels that are dropped, per label."""
        kept = dict.fromkeys(self.classes, 0)
        dropped: dict[str, int] = {}
        for label in labels:
            index = self.class_of(label)
            if index is None:
                dropped[label] = dropped.get(label, 0) + 1
            else:
                kept[self.classes[index]] += 1
        return Coverage(kept, dict(sorted(dropped.items())))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, from which :meth:`from_dict` restores an equal taxonomy."""
        return {"name": self.name, "classes": {c: list(m) for c, m in self.members}}

    @property
    def fingerprint(self) -> str:
        """Hash of the classes, their members and their order.

        12 hexadecimal digits, without the name.
        """
        text = json.dumps([[c, sorted(m)] for c, m in self.members])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,;:!?\"'`*-")
