"""IEMOCAP: ten actors in five sessions, scripted and improvised, English (Busso et al. 2008).

``Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav`` is labelled by a line of
``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt``. The letter after the session is the actor with
the motion-capture markers in that dialogue. The letter before the turn's number is the speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ...zoo.core.files import read_text
from ..layout import listing
from ..manifest import Utterance
from ..ratings import Rating, count_votes, mean_and_spread
from . import find_files, note, utterance

VERSION = 3
_NAME = re.compile(r"(?P<session>Ses0[1-5])(?P<dialogue>[FM]_\w+)_(?P<who>[FM])(?P<turn>\d{3})")
_RATED = re.compile(
    r"\[[\d.\s-]+\]\s+(?P<name>\S+)\s+(?P<label>\w+)\s+"
    r"\[(?P<v>[-\d.]+),\s*(?P<a>[-\d.]+),\s*(?P<d>[-\d.]+)\]\s*"
)
_SAID = re.compile(r"(?P<name>Ses\w+)\s*\[[\d.\s-]*\]\s*:\s*(?P<text>.*?)\s*")

# what one external evaluator said; actors' own ratings (C-F1, A-M1) are not counted
_VOTE = re.compile(r"C-(?P<who>E\d+):\s*(?P<said>[^()]*?)\s*\(.*")
_FELT = re.compile(
    r"A-E\d+:\s*val\s*(?P<v>\d+)?\s*;\s*act\s*(?P<a>\d+)?\s*;\s*dom\s*(?P<d>\d+)?\s*;.*"
)
WORDS = {
    "neutral": "neu",
    "happiness": "hap",
    "excited": "exc",
    "sadness": "sad",
    "anger": "ang",
    "frustration": "fru",
    "fear": "fea",
    "surprise": "sur",
    "disgust": "dis",
    "other": "oth",
}
"""Words of the evaluators, and the code of each in the majority's column."""

_GENDER = {"F": "female", "M": "male"}


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of IEMOCAP, each with majority label, mean ratings and transcript.

    ``votes`` and ``raters`` hold what the external evaluators said. One who chose several labels
    gives each an equal part of a vote. ``dims_spread`` is the deviation of their ratings.
    ``labels["style"]`` is ``improvised`` or ``scripted``, for the protocols of each.
    All labels are kept as published, including ``xxx`` (no majority). Ratings from 1 to 5 are
    scaled to 0..1. A mean outside this range counts as not rated, with a warning. A rated turn
    without a file is yielded too, so that it counts as missing.

    Args:
        root: ``IEMOCAP_full_release``, or a folder above it.

    Raises:
        DataError: if there is no session or no audio, or a session lacks its texts.
    """
    sessions = _sessions(root)
    # some systems do not keep the case of names
    audio = {p.stem.lower(): p for s in sessions for p in _audio(s)}
    if not audio:
        raise DataError(
            f"iemocap: no audio in sentences/wav of the {len(sessions)} sessions under {root}; "
            "unpack Session*/sentences/wav"
        )
    texts: dict[str, str] = {}
    rated: set[str] = set()
    odd_texts, odd_lines, odd_dims = [], [], []
    odd_words: list[str] = []
    for session in sessions:
        for line in _lines(session, "transcriptions"):
            said = _SAID.fullmatch(line)
            if said is None:
                odd_texts.append(line)
            else:
                texts[said["name"]] = said["text"]
        for line, below in _rated(session):
            found = _RATED.fullmatch(line)
            turn = found and _NAME.fullmatch(found["name"])
            if found is None or turn is None or turn[0] in rated:
                odd_lines.append(line)
                continue
            rated.add(turn[0])
            dims = (_scale(found["v"]), _scale(found["a"]), _scale(found["d"]))
            if None in dims:
                odd_dims.append(turn[0])
            heard, felt = _single(below, odd_words)
            path = audio.get(turn[0].lower()) or session.joinpath(
                "sentences", "wav", turn["session"] + turn["dialogue"], f"{turn[0]}.wav"
            )
            text = texts.get(turn[0])
            yield utterance(
                "iemocap",
                path,
                root,
                id=f"iemocap/{turn[0]}",
                speaker=turn["session"] + turn["who"],
                session=turn["session"],
                gender=_GENDER[turn["who"]],
                language="en",
                label=found["label"],
                labels={"style": "improvised" if "impro" in turn["dialogue"] else "scripted"},
                dims=dims,
                votes=count_votes(heard.values()),
                raters={who: " ".join(words) for who, words in heard.items()},
                dims_spread=mean_and_spread(felt)[1],
                text=text,
                text_source=None if text is None else "human",
                label_source="perceived",
            )
    odd_texts += sorted(set(texts) - rated)
    unrated = audio.keys() - {name.lower() for name in rated}
    for what, names in {
        "rated lines that name no turn, or one a second time": odd_lines,
        "turns with a mean rating outside 1..5, taken as not rated": odd_dims,
        "words of evaluators that are no emotion of the corpus, not counted": odd_words,
        "audio files without a rated line, left out": sorted(audio[k].stem for k in unrated),
        "turns without a transcript": sorted(rated - set(texts)),
        "lines of transcripts that belong to no rated turn": odd_texts,
    }.items():
        if names:
            note(f"iemocap: {what}: {listing(names)}")


def _sessions(root: Path) -> list[Path]:
    """Return the folders Session1..Session5, in ``root`` or one or two levels below."""
    for pattern in ("Session[1-5]", "*/Session[1-5]", "*/*/Session[1-5]"):
        found = sorted(p for p in root.glob(pattern) if p.is_dir())
        if found:
            parents = {p.parent for p in found}
            if len(parents) > 1:
                raise DataError(
                    f"iemocap: {len(parents)} copies under {root} "
                    f"({', '.join(sorted(p.name for p in parents))}); point root= at one of them"
                )
            absent = sorted({f"Session{i}" for i in range(1, 6)} - {p.name for p in found})
            if absent:
                note(f"iemocap: {', '.join(absent)} not under {root}")
            return found
    raise DataError(
        f"iemocap: no Session1..Session5 under {root}; give the folder IEMOCAP_full_release"
    )


def _audio(session: Path) -> list[Path]:
    folder = session / "sentences" / "wav"
    return find_files(folder) if folder.is_dir() else []


def _lines(session: Path, folder: str) -> Iterator[str]:
    """Yield the lines of the texts directly in ``dialog/<folder>``.

    Its subfolders are per rater.
    """
    texts = sorted(p for p in (session / "dialog" / folder).glob("*.txt") if p.name[0] != ".")
    if not texts:
        raise DataError(f"iemocap: no texts in {session / 'dialog' / folder}; use a complete copy")
    for path in texts:
        yield from filter(None, map(str.strip, read_text(path, old=True).split("\n")))


def _rated(session: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the line of each rated turn, and the lines of single raters below it."""
    line, below = "", list[str]()
    for text in _lines(session, "EmoEvaluation"):
        if text.startswith("["):
            if line:
                yield line, below
            line, below = text, []
        else:
            below.append(text)
    if line:
        yield line, below


def _single(below: list[str], odd: list[str]) -> tuple[dict[str, list[str]], list[Rating]]:
    """Return the labels of each evaluator, and the ratings; unknown words are added to ``odd``."""
    said: dict[str, list[str]] = {}
    felt: list[Rating] = []
    for line in below:
        if vote := _VOTE.fullmatch(line):
            words = [w.strip().casefold() for w in vote["said"].split(";") if w.strip()]
            odd += [w for w in words if w.split()[0] not in WORDS]
            codes = [WORDS[w.split()[0]] for w in words if w.split()[0] in WORDS]
            if codes:
                said[vote["who"]] = list(dict.fromkeys(codes))
        elif rating := _FELT.fullmatch(line):
            v, a, d = (_scale(rating[k]) if rating[k] else None for k in "vad")
            felt.append((v, a, d))
    return said, felt


def _scale(rating: str) -> float | None:
    """Scale a rating from 1..5 to 0..1; None if it is outside."""
    value = (float(rating) - 1.0) / 4.0
    return value if 0.0 <= value <= 1.0 else None
