"""SAVEE: 4 male speakers, 7 emotions, British English (Jackson and Haq 2011).

``AudioData/DC/a01.wav`` in the original archive, ``DC_a01.wav`` in flat mirrors: speaker, emotion
letters, number of the sentence within that emotion. The sentences differ between emotions, so the
words alone tell something about the label; no transcript ships with the audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..layout import check_once
from ..manifest import Utterance
from . import find_files, left_out, nothing_found, utterance

VERSION = 1
_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(sa|su|a|d|f|h|n)(\d{2})")
_SPEAKERS = ("DC", "JE", "JK", "KL")


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of SAVEE.

    Args:
        root: the unpacked archive, ``AudioData``, or the folder of a flat mirror.

    Raises:
        DataError: if no file has a name of the corpus, or a recording is there twice.
    """
    found: list[tuple[str, str, str, Path]] = []
    other = []
    for path in find_files(root):
        match = _NAME.fullmatch(path.stem)
        speaker = (match and match[1]) or path.parent.name
        if match and speaker in _SPEAKERS:
            found.append((speaker, match[2], match[3], path))
        else:
            other.append(path)
    if not found:
        raise nothing_found("savee", root, "AudioData/DC/a01.wav or DC_a01.wav")
    left_out("savee", {"not named like DC/a01.wav or DC_a01.wav": other})
    check_once("savee", root, ((f"{s}_{label}{n}", path) for s, label, n, path in found))
    for speaker, label, number, path in sorted(found):
        yield utterance(
            "savee",
            path,
            root,
            id=f"savee/{speaker}_{label}{number}",
            speaker=speaker,
            gender="male",
            language="en",
            label=label,
            label_source="acted",
        )
