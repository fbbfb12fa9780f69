"""RAVDESS, the speech part: 24 actors, 8 emotions, 2 sentences, English (Livingstone & Russo 2018).

Names are seven codes, ``MM-VV-EE-II-SS-RR-AA``: modality, vocal channel, emotion, intensity,
sentence, repetition and actor. Modality 03 is audio only. Vocal channel 01 is speech, 02 song. Odd
actors are male, even ones female.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..audio import SUFFIXES
from ..layout import check_once
from ..manifest import Utterance
from . import find_files, left_out, nothing_found, utterance

VERSION = 1
SENTENCES = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_NAME = re.compile(
    r"(?P<modality>\d\d)-(?P<channel>\d\d)-(?P<emotion>\d\d)-\d\d-(?P<sentence>\d\d)-\d\d-"
    r"(?P<actor>\d\d)"
)


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of the speech audio anywhere below a folder, by the publisher's names.

    Song, video and files with other names are left out; a warning counts them.

    Args:
        root: holds ``Actor_XX/03-01-EE-II-SS-RR-AA.wav``, at any depth.

    Raises:
        DataError: if the folder does not exist or holds no RAVDESS speech. Also if it holds a
            recording twice, as one mirror's archive does.
    """
    speech, song, video, others = [], [], [], []
    for path in find_files(root, (*SUFFIXES, ".mp4")):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            others.append(path)
        elif match["channel"] == "02":
            song.append(path)
        elif match["modality"] != "03" or path.suffix.lower() == ".mp4":
            video.append(path)
        else:
            speech.append((path, match))
    if not speech:
        raise nothing_found("ravdess", root, "Actor_01/03-01-01-01-01-01-01.wav")
    left_out(
        "ravdess",
        {"song files": song, "video files": video, "files of other names": others},
    )
    check_once("ravdess", root, ((path.stem, path) for path, _ in speech))
    for path, match in speech:
        text = SENTENCES.get(match["sentence"])
        yield utterance(
            "ravdess",
            path,
            root,
            speaker=match["actor"],
            gender="male" if int(match["actor"]) % 2 else "female",
            language="en",
            label=match["emotion"],
            text=text,
            text_source="human" if text else None,
            label_source="acted",
        )
