"""Readers of other tools' data formats, one file each, and their common functions.

Each is a reader as in :mod:`..corpora`: a function ``prepare(root, *, ...)``, registered as a
corpus. A format says where things are, but not what a user called them. So a reader has options
that name the columns; without an option, usual names are tried (:data:`USUAL`).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from math import isfinite, nan
from pathlib import Path
from typing import Any

from ...zoo.core.errors import DataError, suggest
from ..corpora import note
from ..corpora.folder import NO_SPEAKERS
from ..layout import GENDERS, inside_root, known_speaker, one_spelling
from ..manifest import Utterance

USUAL = {
    "label": ("label", "emotion", "emo", "labels", "category", "major_emotion"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "client_id"),
    "text": ("text", "transcription", "transcript", "sentence", "wrd", "words"),
    "gender": ("gender", "sex"),
    "language": ("language", "lang", "locale"),
    "session": ("session", "dialogue"),
    "split": ("split", "partition"),
    "valence": ("valence",),
    "arousal": ("arousal", "activation"),
    "dominance": ("dominance",),
}
"""Names of columns that are tried for each field, the first one first."""

DIMENSIONS = ("valence", "arousal", "dominance")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "devel", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words for the parts of a split, and the part that each means."""


def part_of(path: Path) -> str | None:
    """Return the part that a path names, by the first word of its name, or by its folders."""
    words = [*path.parts[:-1], path.stem.split("-")[0].split("_")[0]]
    return next((SPLITS[w.casefold()] for w in reversed(words) if w.casefold() in SPLITS), None)


@dataclass(frozen=True)
class Columns:
    """Which column holds which field.

    Attributes:
        names: maps a field to its column.
        labels: further columns to keep in ``Utterance.labels``.
        scale: lowest and highest rating of the three dimensions.
        known: all columns of the data.
    """

    names: dict[str, str]
    labels: tuple[str, ...]
    scale: tuple[float, float] = (0.0, 1.0)
    known: tuple[str, ...] = ()

    @classmethod
    def find(
        cls,
        corpus: str,
        known: Iterable[str],
        given: Mapping[str, str | None],
        labels: Sequence[str] | None = None,
        scale: tuple[float, float] = (0.0, 1.0),
    ) -> Columns:
        """Find the column of each field, and say which one was taken for the label.

        Args:
            corpus: name of the reader, for messages.
            known: the columns of the data.
            given: maps a field to the column that the user names; None = a usual name.
            labels: further columns to keep.
            scale: lowest and highest rating.

        Raises:
            DataError: if a column that the user names does not exist.
        """
        if not scale[0] < scale[1]:
            raise DataError(f"scale={list(scale)}; give the lowest rating, then the highest")
        have = list(dict.fromkeys(known))
        lower = {name.casefold(): name for name in reversed(have)}
        names: dict[str, str] = {}
        for field, usual in USUAL.items():
            column = given.get(field)
            if column is None:
                column = next((lower[name] for name in usual if name in lower), None)
            elif column not in have:
                raise DataError(f"{corpus}: no column '{column}' ({field}=){suggest(column, have)}")
            if column is not None:
                names[field] = column
        for column in labels or ():
            if column not in have:
                raise DataError(f"{corpus}: no column '{column}' (labels=){suggest(column, have)}")
        if "label" not in names:
            note(
                f"{corpus}: no column is called {', '.join(USUAL['label'])}, so nothing is "
                f"labelled; name one with options.label=COLUMN (columns: {', '.join(have)})"
            )
        return cls(names, tuple(labels or ()), scale, tuple(have))

    def facts(self, row: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the fields of :class:`Utterance` that a row states.

        Args:
            row: maps a column to its value; None, NaN and empty texts are unknown.
            where: file and line, for messages.

        Raises:
            DataError: if a rating is not a number, or is outside the scale.
        """
        said = {f: text for f, c in self.names.items() if (text := _text(row.get(c))) is not None}
        labels = {c: text for c in self.labels if (text := _text(row.get(c))) is not None}
        if "split" in said:
            labels["split"] = SPLITS.get(said["split"].casefold(), said["split"])
        dims = tuple(
            self._rating(said[field], field, where) if field in said else None
            for field in DIMENSIONS
        )
        return {
            "label": said.get("label"),
            "speaker": known_speaker(said.get("speaker")),
            "gender": said.get("gender"),
            "language": said.get("language"),
            "session": said.get("session"),
            "text": said.get("text"),
            "text_source": "human" if "text" in said else None,
            "labels": labels,
            "dims": dims if any(d is not None for d in dims) else None,
        }

    def _rating(self, text: str, field: str, where: str) -> float:
        low, high = self.scale
        try:
            value = float(text)
        except ValueError:
            value = nan
        if not (isfinite(value) and low <= value <= high):
            raise DataError(
                f"{where}: {field} is '{text}', not a number in scale={[low, high]}; give the "
                "scale of the ratings"
            )
        return (value - low) / (high - low)


# The options that name the columns: one list for all readers.

COLUMNS = {
    "label": "label",
    "speaker": "speaker",
    "text": "transcript",
    "gender": "gender",
    "language": "language",
    "session": "recording session",
    "valence": "rated valence",
    "arousal": "rated arousal",
    "dominance": "rated dominance",
}
"""The options of :func:`takes_columns` that name one column, and what it holds."""

Reader = Callable[..., Iterator[Utterance]]


@dataclass(frozen=True)
class Given:
    """What a user says of the columns.

    Attributes:
        names: maps a field to the column that the user names; None = a usual name.
        labels: further columns to keep in ``Utterance.labels``.
        scale: lowest and highest rating.
    """

    names: Mapping[str, str | None]
    labels: tuple[str, ...] = ()
    scale: tuple[float, float] = (0.0, 1.0)

    def find(
        self,
        corpus: str,
        known: Iterable[str],
        *,
        split: str | None = None,
        also: Sequence[str] = (),
    ) -> Columns:
        """Return the columns of all fields; see :meth:`Columns.find`.

        Args:
            corpus: name of the reader.
            known: the columns of the data.
            split: column of the part; None = a usual name.
            also: further columns that must be there; they are not kept.
        """
        named = {**self.names, "split": split}
        found = Columns.find(corpus, known, named, [*self.labels, *also], self.scale)
        return replace(found, labels=self.labels)


def takes_columns(what: str) -> Callable[[Reader], Reader]:
    """Give a reader the options that name its columns, as one argument ``given``.

    The options replace ``given`` in the signature, and their meaning is added to the docstring.
    An option that the reader has itself is left to it.

    Args:
        what: what the format calls a column.
    """
    meanings = {name: f"{what} of the {held}." for name, held in COLUMNS.items()}
    meanings["labels"] = f"further {what}s to keep in ``Utterance.labels``."
    meanings["scale"] = "lowest and highest rating."
    kind = inspect.Parameter.KEYWORD_ONLY
    options = {
        name: inspect.Parameter(name, kind, default=None, annotation="str | None")
        for name in COLUMNS
    }
    options["labels"] = inspect.Parameter(
        "labels", kind, default=None, annotation="list[str] | None"
    )
    options["scale"] = inspect.Parameter(
        "scale", kind, default=(0.0, 1.0), annotation="tuple[float, float]"
    )

    def decorate(reader: Reader) -> Reader:
        own = inspect.signature(reader).parameters
        added = {name: option for name, option in options.items() if name not in own}

        @wraps(reader)
        def prepare(root: Path, **typed: Any) -> Iterator[Utterance]:
            named = {name: typed.pop(name, None) for name in COLUMNS}
            labels = tuple(typed.pop("labels", None) or ())
            scale = typed.pop("scale", (0.0, 1.0)) if "scale" in added else (0.0, 1.0)
            return reader(root, given=Given(named, labels, tuple(scale)), **typed)

        listed = [
            each
            for name, parameter in own.items()
            for each in (added.values() if name == "given" else [parameter])
        ]
        prepare.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
        prepare.__annotations__ = {p.name: p.annotation for p in listed}
        lines = [f"        {name}: {meanings[name]}" for name in added]
        before, mark, after = (reader.__doc__ or "").partition("        given: ")
        if mark:
            prepare.__doc__ = "\n".join([before.rstrip(), *lines, after.partition("\n")[2]])
        return prepare

    return decorate


def _text(value: Any) -> str | None:
    """Return a value as a text; None if it is unknown."""
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def number(value: Any, where: str, field: str, default: float) -> float:
    """Return a time in seconds; ``default`` if it is None.

    Raises:
        DataError: if it is not a finite number.
    """
    if value is None:
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = nan
    if isinstance(value, bool) or not isfinite(found):
        raise DataError(f"{where}: {field} is {value!r}; give a number of seconds")
    return found


@dataclass(frozen=True)
class Paths:
    """Turns the paths of a list into paths below the root.

    Attributes:
        root: the folder that the user names.
        strip: beginning of the paths to take away; None = nothing.
    """

    root: Path
    strip: str | None = None

    def below(self, audio: Any, where: str) -> str:
        """Return a path with forward slashes, relative to the root.

        Raises:
            DataError: if it is not a text, or not below the root.
        """
        if not isinstance(audio, str) or not audio.strip():
            raise DataError(f"{where}: the path of the audio is {audio!r}; give a file")
        if self.strip and audio.startswith(self.strip):
            audio = audio[len(self.strip) :].lstrip("/\\")
        remedy = (
            "set root= to a folder above it, or options.strip= to the beginning of the paths that "
            "this machine does not have"
        )
        return inside_root(audio, self.root, where, remedy)


def finish(
    corpus: str, found: Sequence[Utterance], rename: Mapping[str, str] | None, remedy: str
) -> Iterator[Utterance]:
    """Yield the utterances with one spelling of each label and gender; note unknown speakers.

    Args:
        corpus: name of the reader.
        found: the utterances as the data state them.
        rename: maps a word to its label.
        remedy: how the user can name the speakers.

    Raises:
        DataError: if nothing was found, or ``rename`` has a key that is no label.
    """
    if not found:
        raise DataError(f"{corpus}: no utterance was found; check root= and the options")
    words, clauses = one_spelling((u.label for u in found), rename or {}, missing=True)
    for clause in clauses:
        note(f"{corpus}: label: {clause}")
    if (n := sum(u.speaker is None for u in found)) == len(found):
        note(f"{corpus}: " + NO_SPEAKERS.format(n=n, remedy=remedy))
    elif n:
        note(
            f"{corpus}: the speaker of {n} of {len(found)} utterances is unknown, so folds by "
            f"speaker are refused (see data.unknown_speakers); {remedy}"
        )
    odd: Counter[str] = Counter()
    for u in found:
        gender = GENDERS.get((u.gender or "").casefold())
        if gender is None and u.gender:
            odd[u.gender] += 1
        yield replace(u, label=None if u.label is None else words[u.label], gender=gender)
    if odd:
        listed = ", ".join(f"'{g}' ({n})" for g, n in odd.items())
        note(f"{corpus}: gender {listed} is kept as unknown; known: {', '.join(GENDERS)}")
