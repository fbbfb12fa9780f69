"""MSP-Podcast: natural speech of podcasts with votes of workers, English (Lotfian, Busso 2019).

``Labels/labels_consensus.csv`` has a row for each segment: majority, mean ratings from 1 to 7,
speaker, gender, and the official partition. ``Labels/labels_detailed.csv`` has a row for each
worker. ``Transcripts/NAME.txt`` holds the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError, suggest
from ...zoo.core.files import read_text
from ..layout import GENDERS, is_missing, known_speaker, listing, read_table
from ..manifest import Utterance
from ..ratings import Rating, mean_and_spread
from . import find_files, note, utterance

VERSION = 1
CONSENSUS = ("labels_consensus.csv", "labels_concensus.csv")
"""Names of the table of consensus; releases spell it in two ways."""

DETAILED = "labels_detailed.csv"
RATINGS = ("EmoVal", "EmoAct", "EmoDom")
WORDS = {
    "angry": "A",
    "sad": "S",
    "happy": "H",
    "surprise": "U",
    "fear": "F",
    "disgust": "D",
    "contempt": "C",
    "neutral": "N",
    "other": "O",
}
"""Words of the workers, and the code of each in the table of consensus."""

PARTS = {"Train": "train", "Development": "valid", "Validation": "valid"}


def prepare(root: Path, *, test: str | None = "Test1") -> Iterator[Utterance]:
    """Yield the utterances of MSP-Podcast.

    ``labels["split"]`` is ``train``, ``valid`` or ``test``, for ``protocol=official``.
    ``labels["partition"]`` is the publisher's word. A segment of an unknown speaker has none; the
    official protocol still takes it. A row without a file is yielded too, so that it counts as
    missing.

    Args:
        root: the unpacked release, with ``Labels`` and ``Audios``.
        test: the partition that is the test part, ``Test1``, ``Test2`` or ``Test3``; the others
            are left out, and counted. None = keep all, without a split for them.

    Raises:
        DataError: if the table of consensus or the audio is missing, or a table is damaged. Also if
            no row is of the partition ``test``.
    """
    tables = {p.name: p for p in find_files(root, (".csv",))}
    name = next((n for n in CONSENSUS if n in tables), None)
    if name is None:
        raise DataError(
            f"msp_podcast: no {CONSENSUS[0]} under {root}; give the folder of the release that "
            "holds Labels and Audios"
        )
    columns = ("FileName", "EmoClass", *RATINGS, "SpkrID", "Gender", "Split_Set")
    rows = read_table(tables[name], columns)
    audio = {p.stem: p for p in find_files(root)}
    if not audio:
        raise DataError(f"msp_podcast: no audio under {root}; unpack Audios beside Labels")
    parts = Counter(row["Split_Set"] for row in rows)
    if test is not None and test not in parts:
        raise DataError(
            f"msp_podcast: no row of {name} is of the partition '{test}' (test=)"
            f"{suggest(test, parts)}"
        )
    votes, felt = _workers(tables.get(DETAILED))
    if DETAILED not in tables:
        note(f"msp_podcast: no {DETAILED} under {root}: votes and spread stay empty")
    texts = {p.stem: p for p in find_files(root, (".txt",)) if p.parent.name == "Transcripts"}
    first = next(iter(audio.values()))
    left: Counter[str] = Counter()
    odd: list[str] = []
    for row in rows:
        partition, stem = row["Split_Set"], Path(row["FileName"]).stem
        part = "test" if partition == test else PARTS.get(partition)
        if part is None and test is not None:
            left[partition] += 1
            continue
        dims = _rating(row)
        if dims is None:
            odd.append(stem)
        text = read_text(texts[stem]).strip() if stem in texts else None
        yield utterance(
            "msp_podcast",
            audio.get(stem, first.with_name(row["FileName"])),
            root,
            id=f"msp_podcast/{stem}",
            speaker=known_speaker(row["SpkrID"]),
            gender=GENDERS.get(row["Gender"].casefold()),
            language="en",
            label=row["EmoClass"] or None,
            labels={"partition": partition} | ({"split": part} if part else {}),
            dims=dims,
            dims_spread=mean_and_spread(felt.get(stem, []))[1],
            votes=votes.get(stem, {}),
            text=text or None,
            text_source="human" if text else None,
            label_source="perceived",
        )
    if left:
        listed = ", ".join(f"{word} ({n})" for word, n in sorted(left.items()))
        note(
            f"msp_podcast: rows of other partitions than test={test} are left out: {listed}",
            fault=False,
        )
    if odd:
        note(f"msp_podcast: segments without ratings from 1 to 7: {listing(odd)}")
    if silent := listing(sorted(audio.keys() - {Path(r["FileName"]).stem for r in rows})):
        note(f"msp_podcast: audio files that {name} does not list: {silent}")


def _workers(path: Path | None) -> tuple[dict[str, dict[str, float]], dict[str, list[Rating]]]:
    """Return the votes and the ratings of the workers, by the stem of the file."""
    votes: dict[str, dict[str, float]] = {}
    felt: dict[str, list[Rating]] = {}
    odd: Counter[str] = Counter()
    if path is None:
        return votes, felt
    for row in read_table(path, ("FileName", "EmoClass_Major", *RATINGS)):
        stem, said = Path(row["FileName"]).stem, row["EmoClass_Major"]
        # workers write other emotions as "Other-..."
        code = WORDS.get(said.partition("-")[0].strip().casefold())
        if code is None:
            odd[said] += 1
        else:
            counts = votes.setdefault(stem, {})
            counts[code] = counts.get(code, 0.0) + 1.0
        if (rating := _rating(row)) is not None:
            felt.setdefault(stem, []).append(rating)
    if odd:
        listed = ", ".join(f"'{word}' ({n})" for word, n in odd.most_common(5))
        note(f"msp_podcast: words of workers that are no emotion, not counted: {listed}")
    return votes, felt


def _rating(row: dict[str, str]) -> Rating | None:
    """Scale valence, arousal and dominance from 1..7 to 0..1; None if all are empty or outside."""
    found: list[float | None] = []
    for column in RATINGS:
        try:
            value = (float(row[column]) - 1.0) / 6.0 if not is_missing(row[column]) else -1.0
        except ValueError:
            value = -1.0
        found.append(value if 0.0 <= value <= 1.0 else None)
    return None if all(v is None for v in found) else (found[0], found[1], found[2])
