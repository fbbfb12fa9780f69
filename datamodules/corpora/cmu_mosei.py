"""CMU-MOSEI: opinions in videos, six emotions from 0 to 3, English (Zadeh et al. 2018).

A segment is a stretch of the recording of a video, ``Audio/Full/WAV_16000/VIDEO.wav``. Two layouts
are read:

* the publisher's: each table in ``Labels`` has a row for each worker and segment
  (``Input.VIDEO_ID``, ``Input.CLIP``, ``Answer.happiness`` and so on). The lines of
  ``Transcript/Segmented/Combined/VIDEO.txt`` are ``VIDEO___CLIP___START___END___TEXT``;
* means of the workers, as users share them: each table in ``Labels`` has a row for each segment.
  Its columns are ``video``, ``start_time``, ``end_time`` and the emotions.

The official split is by video. It is read from ``cmu_mosei_std_folds.py`` of the publisher's SDK,
which is parsed and never run. The corpus has about 1000 speakers, but does not name them. So one
person may be in several parts.

Layouts and columns were taken from code that reads the corpus, as no copy was at hand.
"""

from __future__ import annotations

import ast
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...zoo.core.errors import DataError
from ...zoo.core.files import ENDS, read_text
from ..layout import check_once, listing, read_header, read_table
from ..manifest import Utterance
from ..ratings import count_votes
from . import find_files, note, utterance

VERSION = 1
EMOTIONS = {
    "happy": "happiness",
    "sad": "sadness",
    "anger": "anger",
    "surprise": "surprise",
    "disgust": "disgust",
    "fear": "fear",
}
"""Emotions in the order of the publisher, and the word for each in the tables of the workers."""

TIE = "tie"
"""The label of a segment whose two strongest emotions are as strong."""

WORKERS = ("Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{word}" for word in EMOTIONS.values()))
SENTIMENT = "Answer.sentiment"
MEANS = ("video", "start_time", "end_time", *EMOTIONS)
FOLDS = "cmu_mosei_std_folds.py"
LISTS = {f"standard_{part}_fold": part for part in ("train", "valid", "test")}
"""Lists of videos in the publisher's file, and the part that each is."""

SAME = 1e-4  # intensities are thirds that were rounded (our choice)

Intensities = dict[str, float]
"""How strong each emotion is, from 0 to 3."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a video.

    Attributes:
        video: name of the video.
        name: unique among all segments.
        start: seconds into the video.
        end: seconds into the video.
        text: what is said; None if there is no transcript.
        heard: what each worker heard, or one row of means.
        sentiment: sentiment from -3 to 3, of each worker, or one mean.
        part: the official part; None if it is not known.
    """

    video: str
    name: str
    start: float
    end: float
    text: str | None
    heard: list[Intensities] = field(default_factory=list)
    sentiment: list[float] = field(default_factory=list)
    part: str | None = None


def prepare(root: Path, *, all_videos: bool = False) -> Iterator[Utterance]:
    """Yield the segments of CMU-MOSEI.

    The label is the emotion with the highest mean. It is ``neutral`` if no emotion is above 0, and
    ``tie`` if two are as strong. ``labels`` holds each mean above 0, the sign of the sentiment,
    and the official part (``split``). ``votes`` counts the emotion that each worker heard most;
    tables of means give none. ``session`` is the video.

    Args:
        root: the unpacked release, with ``Labels``, ``Audio`` and ``Transcript``.
        all_videos: whether to keep videos that the official split does not list.

    Raises:
        DataError: if labels, transcripts or audio are missing, or a table is damaged.
    """
    workers, means = _tables(root)
    named = [(path.stem, path) for path in find_files(root)]
    if not named:
        raise DataError(
            f"cmu_mosei: no audio under {root}; unpack Audio/Full/WAV_16000 beside Labels"
        )
    found = _of_workers(root, workers) if workers else _of_means(means)
    labelled = {s.video for s in found}
    found = _placed(found, _folds(root), all_videos)
    needed = {s.video for s in found}
    check_once("cmu_mosei", root, [(stem, path) for stem, path in named if stem in needed])
    audio = dict(named)
    if early := [s.name for s in found if s.start < 0]:
        note(
            f"cmu_mosei: segments that start before their video are read from 0 s: "
            f"{listing(early)}",
            fault=False,
        )
    for segment in found:
        path = audio.get(segment.video, named[0][1].with_name(f"{segment.video}.wav"))
        mean = {word: float(np.mean([h[word] for h in segment.heard])) for word in EMOTIONS}
        strongest = _strongest(mean)
        yield utterance(
            "cmu_mosei",
            path,
            root,
            id=f"cmu_mosei/{segment.name}",
            start=max(0.0, segment.start),
            end=segment.end,
            speaker=None,
            session=segment.video,
            language="en",
            label=strongest[0] if len(strongest) == 1 else TIE,
            labels={
                **{word: f"{value:.4g}" for word, value in mean.items() if value > 0},
                **_polarity(segment.sentiment),
                **({"split": segment.part} if segment.part else {}),
            },
            votes=count_votes(map(_strongest, segment.heard)) if workers else {},
            text=segment.text or None,
            text_source="human" if segment.text else None,
            label_source="perceived",
        )
    if silent := listing(sorted(audio.keys() - labelled)):
        note(f"cmu_mosei: audio files of no labelled segment: {silent}", fault=False)


def _tables(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the tables of workers, and those of means, that lie in a folder ``Labels``."""
    tables = [p for p in find_files(root, (".csv",)) if p.parent.name.casefold() == "labels"]
    workers: list[Path] = []
    means: list[Path] = []
    other: list[Path] = []
    for path in tables:
        header = read_header(path)
        kind = workers if header >= _lower(WORKERS) else means if header >= _lower(MEANS) else other
        kind.append(path)
    if not workers and not means:
        seen = f"; {listing(p.name for p in other)} have other columns" if other else ""
        raise DataError(
            f"cmu_mosei: no table in a folder Labels under {root} has the columns of the workers "
            f"({', '.join(WORKERS)}) or of their means ({', '.join(MEANS)}){seen}: use the "
            "publisher's tables"
        )
    if workers and means:
        other += means
    if other:
        note(f"cmu_mosei: tables that are not read: {listing(p.name for p in other)}", fault=False)
    return workers, means


def _lower(columns: Iterable[str]) -> set[str]:
    return {column.lower() for column in columns}


def _of_workers(root: Path, tables: list[Path]) -> list[Segment]:
    """Return the segments that workers rated, by video and number."""
    heard: dict[tuple[str, int], list[tuple[Intensities, float | None]]] = defaultdict(list)
    odd: list[str] = []
    for path in tables:
        columns = [*WORKERS, *(c for c in (SENTIMENT,) if c.lower() in read_header(path))]
        for row in read_table(path, columns):
            # some tables write FOLDER/VIDEO
            video = row["Input.VIDEO_ID"].rpartition("/")[2]
            rating = {w: _within(row[f"Answer.{a}"], 0, 3) for w, a in EMOTIONS.items()}
            known = {word: value for word, value in rating.items() if value is not None}
            clip = _within(row["Input.CLIP"], 0, math.inf)
            if not video or clip is None or len(known) < len(EMOTIONS):
                odd.append(f"{path.name}, {video}_{row['Input.CLIP']}")
                continue
            heard[video, int(clip)].append((known, _within(row.get(SENTIMENT, ""), -3, 3)))
    if odd:
        note(
            f"cmu_mosei: rows of workers without all six emotions from 0 to 3 are left out: "
            f"{listing(odd)}"
        )
    spoken = _transcripts(root)
    if untimed := [f"{v}_{clip}" for v, clip in sorted(heard) if (v, clip) not in spoken]:
        note(f"cmu_mosei: labelled segments without a line of transcript: {listing(untimed)}")
    if unrated := listing(f"{v}_{clip}" for v, clip in sorted(spoken.keys() - heard.keys())):
        note(f"cmu_mosei: lines of transcript without a label: {unrated}", fault=False)
    found = []
    for video, clip in sorted(heard.keys() & spoken.keys()):
        start, end, text = spoken[video, clip]
        said = heard[video, clip]
        found.append(
            Segment(
                video,
                f"{video}_{clip}",
                start,
                end,
                text,
                [rating for rating, _ in said],
                [value for _, value in said if value is not None],
            )
        )
    return found


def _transcripts(root: Path) -> dict[tuple[str, int], tuple[float, float, str]]:
    """Return start, end and words of every segment, by its video and number."""
    spoken: dict[tuple[str, int], tuple[float, float, str]] = {}
    odd: list[str] = []
    files = [
        p
        for p in find_files(root, (".txt",))
        if [x.casefold() for x in p.parts[-3:-1]] == ["segmented", "combined"]
    ]
    if not files:
        raise DataError(
            f"cmu_mosei: no Transcript/Segmented/Combined/VIDEO.txt under {root}; it says where "
            "the segments are: unpack Transcript beside Labels"
        )
    for path in files:
        for number, line in enumerate(ENDS.split(read_text(path, old=True)), 1):
            if not line.strip():
                continue
            # a video's name may itself hold underscores
            cells = line.removeprefix(f"{path.stem}___").split("___", 3)
            values = [_within(cell, -1, math.inf) for cell in cells[:3]]
            clip, start, end = values if len(values) == 3 else (None, None, None)
            if clip is None or start is None or end is None:
                odd.append(f"{path.name}, line {number}")
                continue
            spoken[path.stem, int(clip)] = start, end, cells[3].strip() if cells[3:] else ""
    if odd:
        note(
            "cmu_mosei: lines of transcripts that are not VIDEO___CLIP___START___END___TEXT: "
            f"{listing(odd)}"
        )
    return spoken


def _of_means(tables: list[Path]) -> list[Segment]:
    """Return the segments of tables of means; the name of a table says its part."""
    found: list[Segment] = []
    odd: list[str] = []
    for path in tables:
        part = re.search(r"train|val|dev|test", path.stem.casefold())
        optional = [c for c in ("sentiment", "text") if c in read_header(path)]
        for number, row in enumerate(read_table(path, [*MEANS, *optional]), 1):
            rating = {word: _within(row[word], 0, 3) for word in EMOTIONS}
            known = {word: value for word, value in rating.items() if value is not None}
            start = _within(row["start_time"], -1, math.inf)
            end = _within(row["end_time"], 0, math.inf)
            if not row["video"] or start is None or end is None or len(known) < len(EMOTIONS):
                odd.append(f"{path.name}, row {number}")
                continue
            sentiment = _within(row.get("sentiment", ""), -3, 3)
            found.append(
                Segment(
                    row["video"],
                    f"{row['video']}[{row['start_time']}_{row['end_time']}]",
                    start,
                    end,
                    row.get("text"),
                    [known],
                    [] if sentiment is None else [sentiment],
                    {"val": "valid", "dev": "valid"}.get(part[0], part[0]) if part else None,
                )
            )
    if odd:
        note(
            "cmu_mosei: rows without a video, its times and six emotions from 0 to 3 are left out: "
            f"{listing(odd)}"
        )
    return found


def _folds(root: Path) -> dict[str, str]:
    """Return the official part of each video; nothing without the publisher's file.

    The file is Python with three lists of names. It is parsed, and nothing in it is run.
    """
    files = [p for p in find_files(root, (".py",)) if p.name == FOLDS]
    if not files:
        return {}
    wrong = DataError(
        f"{files[0]} does not hold the lists {', '.join(LISTS)} of names; copy it again from the "
        "publisher's CMU-MultimodalSDK"
    )
    try:
        tree = ast.parse(read_text(files[0]))
        lists = {
            target.id: ast.literal_eval(line.value)
            for line in tree.body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name) and target.id in LISTS
        }
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise wrong from None
    if lists.keys() != LISTS.keys() or not all(
        isinstance(names, list) and all(isinstance(n, str) for n in names)
        for names in lists.values()
    ):
        raise wrong
    return {video: LISTS[name] for name, videos in lists.items() for video in videos}


def _placed(found: list[Segment], parts: dict[str, str], all_videos: bool) -> list[Segment]:
    """Return the segments with their official part, and without those that have none."""
    if not parts and any(s.part is None for s in found):
        note(
            f"cmu_mosei: no {FOLDS}, so there is no official split; copy it from the publisher's "
            "CMU-MultimodalSDK to the corpus, or set protocol=kfold"
        )
        return found
    found = [replace(s, part=parts.get(s.video)) for s in found] if parts else found
    left = [s for s in found if s.part is None and not all_videos]
    if left:
        note(
            f"cmu_mosei: segments of videos that {FOLDS} does not list are left out: "
            f"{listing(s.name for s in left)}; all_videos=true keeps them, without a split",
            fault=False,
        )
    return [s for s in found if s.part is not None or all_videos]


def _strongest(heard: Intensities) -> list[str]:
    """Return the emotions that are as strong as the strongest; ``neutral`` if all are 0."""
    top = max(heard.values())
    return [word for word, value in heard.items() if value > top - SAME] if top > 0 else ["neutral"]


def _polarity(sentiment: list[float]) -> dict[str, str]:
    """Return the sign of the mean sentiment, as the publisher divides it into three classes."""
    if not sentiment:
        return {}
    mean = float(np.mean(sentiment))
    return {"sentiment": "positive" if mean > 0 else "negative" if mean < 0 else "neutral"}


def _within(cell: str, low: float, high: float) -> float | None:
    """Return the number in a cell; None if it is not a number from ``low`` to ``high``."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if low <= value <= high and math.isfinite(value) else None
