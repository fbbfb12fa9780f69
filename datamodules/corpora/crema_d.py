"""CREMA-D: 91 actors, 12 sentences, 6 emotions, English (Cao et al. 2014).

``AudioWAV/1001_DFA_ANG_XX.wav`` is actor, sentence, acted emotion, level. The acted emotion is the
label. ``labels["voice_vote"]`` is the emotion that most listeners heard in the voice alone. The two
often differ, so a result must say which one it uses. ``votes`` counts the listeners of the voice
by what they heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ..layout import check_once, listing, read_table
from ..manifest import Utterance
from . import find_files, left_out, note, nothing_found, utterance

VERSION = 2
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}

# answers of listeners as the tables write them, and the same emotion as file names do
_HEARD = {"A": "ANG", "D": "DIS", "F": "FEA", "H": "HAP", "N": "NEU", "S": "SAD"}

_NAME = re.compile(rf"(1\d{{3}})_({'|'.join(SENTENCES)})_([A-Z]{{3}})_(?:XX?|LO|MD|HI)")

# the tables write this recording as _XX; only this one is allowed, so that no other passes
_IN_TABLES = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of CREMA-D.

    It uses the WAV files; it uses an MP3 file only if a recording has no WAV file. Recordings that
    ``SentenceFilenames.csv`` lists but the disk lacks are yielded too, so that they count as
    missing. Without the tables, gender, voice vote and single votes stay empty, with a warning.

    Args:
        root: the repository, or a folder above it; ``AudioWAV`` alone is enough, without tables.

    Raises:
        DataError: if no audio is found, a recording is there twice, or a table is damaged.
    """
    audio = _audio(root)
    tables = {p.name: p for p in find_files(root, (".csv",))}

    def rows(table: str, *columns: str, without: str) -> list[dict[str, str]]:
        if table in tables:
            return read_table(tables[table], columns)
        note(f"crema_d: no {table} under {root}: {without}; the corpus' repository has it")
        return []

    names = rows("SentenceFilenames.csv", "Filename", without="missing audio goes unnoticed")
    listed = {row["Filename"] for row in names}
    sex = {
        row["ActorID"]: row["Sex"].lower()
        for row in rows("VideoDemographics.csv", "ActorID", "Sex", without="gender stays empty")
    }
    ratings = rows(
        "summaryTable.csv", "FileName", "VoiceVote", without="no voice vote is filled in"
    )
    votes = {row["FileName"]: row["VoiceVote"] for row in ratings}

    answers = rows(
        "tabulatedVotes.csv", "", "fileName", *_HEARD, without="no single votes are filled in"
    )
    heard = {row["fileName"]: _votes(row) for row in answers if _of_voice(row[""])}
    if answers and not heard:
        note(
            "crema_d: no row of tabulatedVotes.csv is about the voice (named 100001 and so on), so "
            "no single votes are filled in"
        )

    if unlisted := listing(sorted(set(audio) - listed if listed else ())):
        note(f"crema_d: audio files that SentenceFilenames.csv does not list: {unlisted}")
    first = next(iter(audio.values()))
    expected = {name: first.with_name(name + first.suffix) for name in listed}
    everything = sorted((expected | audio).items())
    if unvoted := listing(n for n, _ in everything if votes and not votes.get(n)):
        note(f"crema_d: recordings without a vote in summaryTable.csv: {unvoted}")

    for name, path in everything:
        match = _NAME.fullmatch(name)
        if match is None:
            raise DataError(
                f"SentenceFilenames.csv lists '{name}', which is not named like 1001_DFA_ANG_XX; "
                "use the publisher's table"
            )
        actor, sentence, label = match.groups()
        yield utterance(
            "crema_d",
            path,
            root,
            id=f"crema_d/{path.stem.upper()}",
            speaker=actor,
            gender=sex.get(actor),
            language="en",
            label=label,
            labels={"voice_vote": votes[name]} if votes.get(name) else {},
            votes=heard.get(name, {}),
            text=SENTENCES[sentence],
            text_source="human",
            label_source="acted",
        )


def _of_voice(row: str) -> bool:
    """Whether the name of a row (``100002``) says that it is about the voice alone.

    Its first digit is 1 for the voice, 2 for the face and 3 for both. The others are the clip.
    """
    return len(row) == 6 and row.startswith("1")


def _votes(row: dict[str, str]) -> dict[str, float]:
    """Return the votes above 0 of a row, by the codes of file names."""
    try:
        return {label: n for code, label in _HEARD.items() if (n := int(row[code]))}
    except ValueError as error:
        raise DataError(
            f"tabulatedVotes.csv has a row of {row['fileName']} whose votes are not whole numbers "
            f"({error}); use the publisher's table"
        ) from None


def _audio(root: Path) -> dict[str, Path]:
    """Return the audio files by their names in the tables."""
    files = find_files(root)
    # the repository holds every recording as WAV and as MP3
    files = [p for p in files if p.suffix.lower() != ".mp3"] or files
    # some systems do not keep the case of names
    named = [p for p in files if _NAME.fullmatch(p.stem.upper())]
    if not named:
        raise nothing_found("crema_d", root, "AudioWAV/1001_DFA_ANG_XX.wav")
    other = [p for p in files if not _NAME.fullmatch(p.stem.upper())]
    left_out("crema_d", {"not named like 1001_DFA_ANG_XX.wav": other})
    check_once("crema_d", root, ((p.stem.upper(), p) for p in named))
    return {_IN_TABLES.get(p.stem.upper(), p.stem.upper()): p for p in named}
