"""TESS: 2 actresses, 200 words in one phrase, 7 emotions, English (Dupuis and Pichora-Fuller 2010).

``OAF_Fear/OAF_back_fear.wav``: older or younger actress, word, emotion. Only file names are read.
Folder names differ between the two actresses (``OAF_Pleasant_surprise``,
``YAF_pleasant_surprised``), but file names do not (``_ps``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..layout import check_once
from ..manifest import Utterance
from . import find_files, left_out, nothing_found, split_names, utterance

VERSION = 1
# OA_bite_neutral.wav, in the folder OAF_neutral, lost a letter in the release
_NAME = r"(?i)(OAF?|YAF)_([a-z]+)_(angry|disgust|fear|happy|neutral|ps|sad)"


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of TESS.

    Args:
        root: the unpacked archive, with or without the folders per emotion.

    Raises:
        DataError: if no file has a name of the corpus, or a recording is there twice. A well-known
            mirror has a second copy of the corpus inside the first.
    """
    named, other = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("tess", root, "OAF_Fear/OAF_back_fear.wav")
    left_out("tess", {"not named like OAF_back_fear.wav": other})
    found = []
    for path, match in named:
        speaker = "YAF" if match[1].upper() == "YAF" else "OAF"
        found.append((speaker, match[2].lower(), match[3].lower(), path))
    check_once("tess", root, (("_".join(key), path) for *key, path in found))
    for speaker, word, label, path in sorted(found):
        yield utterance(
            "tess",
            path,
            root,
            id=f"tess/{speaker}_{word}_{label}",
            speaker=speaker,
            gender="female",
            language="en",
            label=label,
            text=f"Say the word {word}.",
            text_source="human",
            label_source="acted",
        )
