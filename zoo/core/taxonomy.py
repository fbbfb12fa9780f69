"""Taxonomies: ordered classes over canonical emotion labels, and what a corpus loses to one.

Three steps lead from a corpus to a class: the corpus' own code (``"05"``) to a canonical label
(``angry``) by ``configs/corpus/<name>.yaml``; the canonical vocabulary with its verbal forms in
``configs/taxonomy/canonical.yaml``; and the taxonomy, an ordered list of classes, each a set of
canonical labels. Order is part of Gen-SER's method (the class codes depend on it), so it is part
of the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from . import shipped
from .errors import ConfigError, suggest


@dataclass(frozen=True)
class Emotion:
    """A canonical label: how it is said, what else it is called, its sentiment view.

    ``sentiment`` is ``positive``, ``neutral``, ``negative``, or None where it is open.
    """

    name: str
    form: str
    synonyms: tuple[str, ...] = ()
    sentiment: str | None = None


@cache
def canonical() -> dict[str, Emotion]:
    """The canonical vocabulary, by label."""
    raw = shipped.read("taxonomy", "canonical")
    return {
        name: Emotion(
            name,
            entry.get("form", name),
            tuple(entry.get("synonyms", ())),
            entry.get("sentiment"),
        )
        for name, entry in raw.items()
    }


@dataclass(frozen=True)
class Coverage:
    """What a taxonomy keeps of a list of canonical labels."""

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
        name: for messages and records; not part of the identity.
        members: class name to the canonical labels that it gathers, in class order.
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
        """A shipped taxonomy by name.

        Raises:
            ConfigError: when there is none of this name, or it uses an unknown canonical label.
        """
        if name not in cls.names():
            raise ConfigError(f"no taxonomy called '{name}'{suggest(name, cls.names())}")
        return cls.from_dict({"name": name, **shipped.read("taxonomy", name)}, check=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, check: bool = False) -> Taxonomy:
        """From ``{"name": ..., "classes": {class: [labels]}}``; inverse of :meth:`to_dict`."""
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
        """One class per label, in the order given."""
        return cls(name, tuple((c, (c,)) for c in classes))

    @staticmethod
    def names() -> list[str]:
        """Names of the shipped taxonomies."""
        return [name for name in shipped.names("taxonomy") if name != "canonical"]

    @property
    def classes(self) -> list[str]:
        """Class names, in order."""
        return [c for c, _ in self.members]

    @property
    def forms(self) -> list[str]:
        """How each class is said, in order; an unknown class says its own name."""
        known = canonical()
        return [known[c].form if c in known else c.replace("_", " ") for c in self.classes]

    @property
    def sentiments(self) -> list[str | None]:
        """Sentiment of each class, in order; None where its labels have none, or disagree."""
        known = canonical()
        found = [
            {known[label].sentiment if label in known else None for label in labels}
            for _, labels in self.members
        ]
        return [next(iter(each)) if len(each) == 1 else None for each in found]

    @cached_property
    def words(self) -> dict[str, int]:
        """Every word that stands for a class, in lower case, to the index of the class.

        A class stands for its form and its name, then for the names, forms and synonyms of the
        labels that it gathers; what two classes could be called is taken by the earlier rank, then
        by the earlier class.
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
        """Index of the class that a text names, case and outer punctuation aside, or None.

        >>> Taxonomy.load("big4").class_said("Joyful.")
        1
        """
        return self.words.get(_plain(text))

    def __len__(self) -> int:
        return len(self.members)

    def class_of(self, label: str) -> int | None:
        """Index of the class that a canonical label belongs to; None where it has none."""
        for index, (_, labels) in enumerate(self.members):
            if label in labels:
                return index
        return None

    def positions_of(self, other: Taxonomy) -> list[int]:
        """Where the classes of ``other`` stand in this taxonomy, in the order of ``other``.

        Raises:
            ConfigError: naming the classes of ``other`` that are not here.
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
        """These classes in their order, and behind them those of ``wanted`` that are not here.

        A class is the same if it has the same name. It is this taxonomy if nothing is new.

        Raises:
            ConfigError: when a new class gathers a label that a class has already.
        """
        new = tuple(m for m in wanted.members if m[0] not in self.classes)
        if not new:
            return self
        owner = {label: c for c, labels in self.members for label in labels}
        for c, labels in new:
            if taken := [label for label in labels if label in owner]:
                raise ConfigError(
                    f"the new class '{c}' of taxonomy '{wanted.name}' gathers '{taken[0]}', which "
                    f"the model's class '{owner[taken[0]]}' gathers already; give the target's "
                    "class that name, or choose a taxonomy that does not divide it otherwise"
                )
        return Taxonomy(f"{self.name} and {', '.join(c for c, _ in new)}", self.members + new)

    def coverage(self, labels: Iterable[str]) -> Coverage:
        """Counts of what is kept per class and what is left out per label."""
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
        """Plain containers; :meth:`from_dict` restores an equal taxonomy."""
        return {"name": self.name, "classes": {c: list(m) for c, m in self.members}}

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of the classes, their members and their order (not the name)."""
        text = json.dumps([[c, sorted(m)] for c, m in self.members])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .,;:!?\"'`*-")
