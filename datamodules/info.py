"""Facts about a corpus: licence, citation, label map, expected counts, defaults.

Read from ``configs/corpus/<name>.yaml``. A third-party reader may carry the same keys as an
attribute ``info`` of its ``prepare`` function. Without it, its labels are classes of their own. A
reader in a user's own file has them as ``INFO`` there, or in a YAML file beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from ..zoo.core import registry, shipped
from ..zoo.core.errors import ConfigError, DataError, suggest
from ..zoo.core.taxonomy import canonical
from .manifest import Utterance
from .naming import Naming

ATTRIBUTES = ("gender", "language", "speaker")
CLUSTERS = ("speaker", "session", "dialogue")


class LabelMap(dict[str, str | None]):
    """Maps raw codes to canonical labels; None = left out on purpose.

    Attributes:
        open: every raw code is its own label, in lower case (``labels: "*"`` in YAML); the
            mapping itself is then empty.
    """

    def __init__(
        self, codes: Mapping[str, str | None] | None = None, *, open: bool = False
    ) -> None:
        super().__init__(codes or {})
        self.open = open

    def __contains__(self, raw: object) -> bool:
        return self.open or super().__contains__(raw)

    def __missing__(self, raw: str) -> str:
        if self.open:
            return raw.lower()
        raise KeyError(raw)

    @classmethod
    def parse(cls, value: Any, where: str) -> LabelMap:
        """Build a label map from YAML: ``"*"`` or a mapping.

        Raises:
            ConfigError: for any other value, or a label that is not in the canonical vocabulary.
        """
        if value == "*":
            return cls(open=True)
        if not isinstance(value, Mapping):
            raise ConfigError(f'{where} is {value!r}; expected a mapping of raw codes, or "*"')
        codes = {str(raw): None if to is None else str(to) for raw, to in value.items()}
        for raw, to in codes.items():
            if to is not None and to not in canonical():
                raise ConfigError(f"{where} maps '{raw}' to '{to}'{suggest(to, canonical())}")
        return cls(codes)


@dataclass(frozen=True)
class Expected:
    """Published counts; values that are None or empty are not checked.

    Attributes:
        utterances: number of utterances of the complete corpus.
        speakers: number of speakers of the complete corpus.
        labels: number of utterances per raw code.
        per_speaker: number of utterances per speaker; messages name missing speakers by it.
    """

    utterances: int | None = None
    speakers: int | None = None
    labels: dict[str, int] = field(default_factory=dict)
    per_speaker: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Listeners:
    """How well people recognise the emotions of a corpus, as it publishes it.

    Attributes:
        source: where the figures are from, and what was counted.
        uar: mean share of listeners who recognised a class, over classes; None if not stated.
        wa: mean share over recordings; None if not stated.
        votes: whether both are computed from the votes of the recordings instead.
    """

    source: str
    uar: float | None = None
    wa: float | None = None
    votes: bool = False

    @classmethod
    def parse(cls, data: Any, where: str) -> Listeners:
        """Build from the content of ``listeners``.

        Raises:
            ConfigError: if keys are unknown or missing, or a figure is not a share.
        """
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} is {data!r}; give uar, wa and source")
        _check_keys(data, [f.name for f in fields(cls)], where)
        shares = [v for v in (data.get("uar"), data.get("wa")) if v is not None]
        if not isinstance(data.get("source"), str) or not all(
            isinstance(v, float) and 0 < v <= 1 for v in shares
        ):
            raise ConfigError(f"{where} is {data!r}; give shares from 0 to 1, and their source")
        if bool(shares) == (data.get("votes") is True):
            raise ConfigError(f"{where} needs either figures (uar, wa), or votes: true")
        return cls(**data)


@dataclass(frozen=True)
class CorpusInfo:
    """Facts about one corpus.

    Attributes:
        name: registered name.
        title: full name.
        licence: licence of the audio, and what its publisher asks of its users.
        citation: the publication to cite.
        url: where its publisher distributes it.
        language: ISO 639-1 code; None if there are several, or it is unknown.
        labels: label map of the column ``label``.
        alternative_labels: label maps of other columns (keys of ``Utterance.labels``).
        expected: published counts.
        taxonomy: default taxonomy; None if the user must name one.
        protocol: default protocol; None if the user must name one.
        cluster: the unit that an interval samples: ``speaker``, ``session`` or ``dialogue``. The
            latter two (``Utterance.session``) are for speakers who talk to each other, so that they
            are alike.
        sentences: number of sentences, if every speaker says the same few; None otherwise.
        naming: what its file names say, if no code is needed to read it; None otherwise.
        listeners: how well people recognise its emotions; None if it is not published.
    """

    name: str
    title: str
    licence: str = ""
    citation: str = ""
    url: str = ""
    language: str | None = None
    labels: LabelMap = field(default_factory=lambda: LabelMap(open=True))
    alternative_labels: dict[str, LabelMap] = field(default_factory=dict)
    expected: Expected = field(default_factory=Expected)
    taxonomy: str | None = None
    protocol: str | None = None
    cluster: str = "speaker"
    sentences: int | None = None
    naming: Naming | None = None
    listeners: Listeners | None = None

    @staticmethod
    def names() -> list[str]:
        """Return the names of the corpora that ship a description."""
        return shipped.names("corpus")

    @classmethod
    def load(cls, name: str) -> CorpusInfo:
        """Return the description of a corpus.

        Raises:
            ConfigError: if no corpus has this name, or its description has unknown keys. Also if
                it maps to labels that are not in the canonical vocabulary.
        """
        return _load(name)

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> CorpusInfo:
        """Build a description from the keys of a ``configs/corpus/<name>.yaml``."""
        where = f"the description of corpus '{name}'"
        _check_keys(data, [f.name for f in fields(cls) if f.name != "name"], where)
        values = dict(data)
        values["title"] = data.get("title", name)
        if "labels" in data:
            values["labels"] = LabelMap.parse(data["labels"], f"'labels' in {where}")
        if (cluster := values.get("cluster", "speaker")) not in CLUSTERS:
            raise ConfigError(
                f"'cluster' in {where} is {cluster!r}{suggest(str(cluster), CLUSTERS)}"
            )
        n = values.get("sentences")
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ConfigError(
                f"'sentences' in {where} is {n!r}; give how many sentences every speaker says, 1 "
                "or more, or leave it out"
            )
        if data.get("naming") is not None:
            values["naming"] = Naming.parse(data["naming"], f"'naming' in {where}")
        if data.get("listeners") is not None:
            values["listeners"] = Listeners.parse(data["listeners"], f"'listeners' in {where}")
        values["alternative_labels"] = {
            str(column): LabelMap.parse(codes, f"'alternative_labels.{column}' in {where}")
            for column, codes in (data.get("alternative_labels") or {}).items()
        }
        expected = data.get("expected") or {}
        _check_keys(expected, [f.name for f in fields(Expected)], f"'expected' in {where}")
        values["expected"] = Expected(
            utterances=expected.get("utterances"),
            speakers=expected.get("speakers"),
            labels={str(k): int(n) for k, n in (expected.get("labels") or {}).items()},
            per_speaker={str(k): int(n) for k, n in (expected.get("per_speaker") or {}).items()},
        )
        return cls(name, **values)

    def interval_remark(self) -> str:
        """Return what an interval of this corpus is about, for a report to print; "" if plain.

        A few sentences that all speakers say are not a sample of sentences. So the interval says
        nothing of other sentences.
        """
        if self.sentences is not None:
            said = "this sentence" if self.sentences == 1 else f"these {self.sentences} sentences"
            return f"the interval is to new {self.cluster}s of {said}"
        if self.cluster != "speaker":
            return f"the interval is to new {self.cluster}s, whose speakers are not independent"
        return ""

    def canonical_label(self, utterance: Utterance, column: str = "label") -> str | None:
        """Return the canonical label of an utterance of this corpus.

        See :func:`canonical_label`.
        """
        if column in ATTRIBUTES:
            value: str | None = getattr(utterance, column)
            return value
        if column == "label" and utterance.weak:
            return utterance.label  # a weak label is already canonical, not a code of the corpus
        if column == "label":
            raw, codes = utterance.label, self.labels
        elif column in self.alternative_labels:
            raw, codes = utterance.labels.get(column), self.alternative_labels[column]
        elif self.labels.open and column in utterance.labels:
            raw, codes = utterance.labels[column], self.labels
        else:
            known = {"label", *ATTRIBUTES, *self.alternative_labels}
            known |= set(utterance.labels) if self.labels.open else set()
            raise DataError(
                f"corpus '{self.name}' has no column '{column}'{suggest(column, known)}"
            )
        if raw is None:
            return None
        if raw not in codes:
            raise DataError(
                f"{column} '{raw}' ({utterance.id}) is not in configs/corpus/{self.name}.yaml; "
                f"known: {', '.join(codes)}; add it there, with null to leave it out"
            )
        return codes[raw]


def canonical_label(utterance: Utterance, column: str = "label") -> str | None:
    """Return the canonical label of an utterance, by the label map of its corpus.

    Args:
        utterance: an utterance of any corpus.
        column: ``label``, a key of ``Utterance.labels``, or ``gender``, ``language``, ``speaker``,
            whose values are used unchanged.

    Returns:
        The canonical label; None if the utterance has none, or the map leaves it out on purpose.

    Raises:
        DataError: if the map lacks the raw code, or the corpus lacks the column. The message names
            the utterance, the known codes and the file to edit.
    """
    return _load(utterance.corpus).canonical_label(utterance, column)


def cluster_of(utterance: Utterance) -> tuple[str, str]:
    """Return the kind and the name of an utterance's cluster, by the description of its corpus.

    Returns:
        ``speaker``, ``session`` or ``dialogue``, and ``corpus/name``; the name is "" if unknown.
    """
    kind = _load(utterance.corpus).cluster
    name = utterance.speaker if kind == "speaker" else utterance.session
    return kind, f"{utterance.corpus}/{name}" if name else ""


def _load(name: str) -> CorpusInfo:
    return _info(name, registry.added("corpora", name))


@cache
def _info(name: str, _: registry.Added | None) -> CorpusInfo:
    # an edited file is registered anew, and is another key
    if name in CorpusInfo.names():
        return CorpusInfo.from_dict(name, shipped.read("corpus", name))
    if name not in registry.names("corpora"):
        raise ConfigError(f"no corpus is called '{name}'{suggest(name, registry.names('corpora'))}")
    return CorpusInfo.from_dict(name, getattr(registry.get("corpora", name), "info", None) or {})


def _check_keys(data: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in data:
        if key not in known:
            raise ConfigError(f"unknown key '{key}' in {where}{suggest(str(key), known)}")
