"""The manifest: one utterance per line of JSON, with facts only.

A manifest has no split and no taxonomy. It says what exists, and what the corpus states about it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, field, fields
from os.path import join
from pathlib import Path
from typing import Any

from ..zoo.core.errors import DataError, suggest
from ..zoo.core.files import json_lines, new_file, read_json
from .archives import holds
from .placeholders import problem

AGAIN = "is it a manifest? save it as UTF-8, or run `serzoo prepare` again"
GENDERS = ("female", "male", None)

WEAK = "weak:"  # a label source begins with it if a model gave the label


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of speech with its label and other facts.

    Attributes:
        id: unique, ``<corpus>/<name>``.
        corpus: name of the corpus.
        audio: path relative to the corpus' root, with forward slashes; it may go on inside an
            archive (:mod:`.archives`).
        start: seconds into the file.
        end: seconds into the file; ``end - start`` is the duration.
        sample_rate: sample rate of the file, in Hz.
        speaker: unique within the corpus; None if the speaker is unknown (``null`` in a manifest,
            which must have this key). Two utterances of unknown speakers may be from one person
            or from two.
        session: recording session (IEMOCAP), dialogue (MELD); None if there is none.
        gender: ``female``, ``male`` or None.
        language: ISO 639-1 code, or None.
        label: the corpus' own code; None = unlabelled.
        labels: other label columns of the corpus (``{"voice_vote": "A"}``), in its own codes.
        dims: valence, arousal, dominance in 0..1; None if not rated. Of several raters, the mean.
        text: transcript; None if there is none.
        text_source: ``human``, ``asr:<model>`` or None.
        label_source: ``acted``, ``perceived``, ``weak:<model>`` or None.
        label_score: confidence of the label in 0..1, or None.
        votes: how many raters gave each label (``{"ANG": 7, "DIS": 2}``), in the codes of
            ``label``; empty if single answers are not known.
        raters: what each rater said, by the rater's name; empty if raters are not told apart.
        dims_spread: standard deviation of ``dims`` among the raters, in the same unit; None if
            there are no single ratings.
        sha: 16 hexadecimal digits of the SHA-256 of the decoded samples.
        channel: the channel to use, counted from 1; None = the mean of all channels.
    """

    id: str
    corpus: str
    audio: str
    start: float
    end: float
    sample_rate: int
    speaker: str | None
    session: str | None = None
    gender: str | None = None
    language: str | None = None
    label: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    dims: tuple[float | None, float | None, float | None] | None = None
    text: str | None = None
    text_source: str | None = None
    label_source: str | None = None
    label_score: float | None = None
    votes: dict[str, float] = field(default_factory=dict)
    raters: dict[str, str] = field(default_factory=dict)
    dims_spread: tuple[float | None, float | None, float | None] | None = None
    sha: str | None = None
    channel: int | None = None

    @property
    def weak(self) -> bool:
        """Whether a model gave the label."""
        return (self.label_source or "").startswith(WEAK)

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.end - self.start


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, one utterance per line; a reader never sees a partial file.

    Fields with their default value are omitted, except the speaker, which is a name or null.

    Args:
        path: the file; missing parent folders are made.
        utterances: the utterances, in the order of the file.

    Raises:
        DataError: if a number is not finite; ``prepare`` fills in missing times.
    """
    write_lines(path, map(_line, utterances))


def _line(utterance: Utterance) -> str:
    record = {
        name: value
        for name, default in _DEFAULTS
        if (value := getattr(utterance, name)) != default and value != {}
    }
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise DataError(
            f"'{utterance.id}' has a number that is not finite (start {utterance.start}, end "
            f"{utterance.end}, dims {utterance.dims}); write what `prepare` returned, not what "
            "the corpus reader yields"
        ) from None


_DEFAULTS = [(f.name, f.default) for f in fields(Utterance)]


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write lines of text atomically: a draft is written first, and then replaces the file."""
    # newline="\n" gives the same bytes, and so the same hash, on every system
    with new_file(Path(path)) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Return the utterances of a manifest, in its order.

    Raises:
        DataError: if the file does not exist, is empty or is not text, or a line is not an
            utterance. The message gives the number of the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no manifest at {path}; write one with `serzoo prepare CORPUS out={path}`")
    rows = json_lines(path, remedy=AGAIN, finite=True)
    utterances = [_parse(row, f"{path}, line {number}") for number, row in rows]
    if not utterances:
        raise DataError(f"{path} holds no utterance; run `serzoo prepare` again")
    return utterances


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the facts that ``prepare`` wrote beside a manifest: ``root`` and ``notes``.

    Args:
        path: the file beside the manifest; the result is empty if it does not exist.

    Raises:
        DataError: if the file is damaged, or holds other content.
    """
    if not path.is_file():
        return {}
    remedy = "run `serzoo prepare` again, or remove it and set root= to the folder of the audio"
    found: dict[str, Any] = read_json(path, remedy=remedy, names=True)
    for key, kind in (("root", str), ("notes", dict)):
        if not isinstance(found.get(key, kind()), kind):
            raise DataError(f"{path}: {key} is {found[key]!r}; {remedy}")
    return found


def validate(utterances: Iterable[Utterance], root: str | Path) -> None:
    """Check a manifest for faults that would cause errors later.

    Args:
        utterances: the utterances of the manifest.
        root: the folder to which their ``audio`` paths are relative.

    Raises:
        DataError: if there is a fault. The message lists all kinds at once, each with a count and
            its first case. Faults are duplicate ids, durations and sample rates that are not
            positive, and times before the start of the file. So are paths out of the root, unknown
            genders and missing files.
    """
    utterances, root = list(utterances), Path(root)
    counts = Counter(u.id for u in utterances)
    outside = [u for u in utterances if not is_inside(u.audio)]
    missing = sorted(
        {u.audio for u in utterances if is_inside(u.audio) and not holds(join(root, u.audio))}
    )
    why = problem(root / missing[0]) if missing else None
    problems = [
        _problem("ids that occur more than once", [i for i, n in counts.items() if n > 1]),
        _problem(
            "utterances whose end is not after their start, or not finite",
            [u.id for u in utterances if not (0 < u.duration < float("inf"))],
        ),
        _problem("utterances that start before 0 s", [u.id for u in utterances if u.start < 0]),
        _problem("sample rates below 1 Hz", [u.id for u in utterances if u.sample_rate < 1]),
        _problem(
            "genders other than female, male, null",
            [f"{u.id}: {u.gender}" for u in utterances if u.gender not in GENDERS],
        ),
        _problem("audio paths that are not relative to the root", [u.audio for u in outside]),
        _problem(f"audio files that are not under {root}", missing) + (f": {why}" if why else ""),
    ]
    found = [p for p in problems if p]
    if found:
        raise DataError(
            f"the manifest of {len(utterances)} utterances has {'; '.join(found)}; check root=, or "
            "run `serzoo prepare` again"
        )


def by_sha(utterances: Iterable[Utterance]) -> dict[str, list[Utterance]]:
    """Return utterances by the hash of their samples, without those that have no hash."""
    found: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        if u.sha is not None:
            found[u.sha].append(u)
    return found


def is_inside(audio: str) -> bool:
    """Return whether a manifest's path is relative, has forward slashes, and stays in its root."""
    if audio.startswith("/") or "\\" in audio:
        return False
    parts = audio.split("/")
    return ".." not in parts and any(part not in ("", ".") for part in parts)


def _problem(what: str, cases: list[str]) -> str:
    return f"{len(cases)} {what} (first: {cases[0]})" if cases else ""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


def _votes(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(v) and v >= 0 for v in value.values())


def _counted(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _three(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(v is None or _number(v) for v in value)
    )


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **{f.name: (_text, "a string") for f in fields(Utterance)},
    "start": (_number, "a number"),
    "end": (_number, "a number"),
    "sample_rate": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "labels": (_texts, "an object of strings"),
    "votes": (_votes, "an object of numbers from 0"),
    "raters": (_texts, "an object of strings"),
    "dims": (_three, "a list of three numbers or nulls"),
    "dims_spread": (_three, "a list of three numbers or nulls"),
    "label_score": (_number, "a number"),
    "channel": (_counted, "a whole number from 1"),
}
_OBJECTS = ("labels", "votes", "raters")
_REQUIRED = [
    f.name for f in fields(Utterance) if f.default is MISSING and f.default_factory is MISSING
]


def _parse(record: dict[str, Any], where: str) -> Utterance:
    for key in record:
        if key not in _CHECKS:
            raise DataError(f"{where}: unknown key '{key}'{suggest(key, _CHECKS)}")
    missing = [key for key in _REQUIRED if key not in record]
    if missing:
        raise DataError(
            f"{where}: lacks {', '.join(missing)}; add what is missing (required are "
            f"{', '.join(_REQUIRED)})"
        )
    for key, value in record.items():
        fits, expected = _CHECKS[key]
        optional = (key not in _REQUIRED or key == "speaker") and key not in _OBJECTS
        if not (fits(value) or (optional and value is None)):
            raise DataError(f"{where}: {key} is {value!r}; expected {expected}")
    for key in ("start", "end"):
        record[key] = float(record[key])
    record["speaker"] = record["speaker"] or None  # older manifests write "" for an unknown speaker
    for key in ("dims", "dims_spread"):
        if record.get(key) is not None:
            record[key] = tuple(None if v is None else float(v) for v in record[key])
    return Utterance(**record)
