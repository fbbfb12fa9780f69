"""EMO-DB, the Berlin database: 10 actors, 7 emotions, 10 sentences, German (Burkhardt et al. 2005).

Names are ``03a01Fa``: speaker, code of the sentence, letter of the emotion, version.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..layout import check_once
from ..manifest import Utterance
from . import find_files, left_out, nothing_found, split_names, utterance

VERSION = 1
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Blatt Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "male"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "female"),
}
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]")


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of the audio anywhere below a folder, with the publisher's file names.

    Files with other names are left out; a warning counts them.

    Args:
        root: holds ``wav/03a01Fa.wav``, at any depth.

    Raises:
        DataError: if the folder does not exist, holds no file of EMO-DB, or holds a recording
            twice.
    """
    named, others = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("emodb", root, "wav/03a01Fa.wav")
    left_out("emodb", {"files of other names": others})
    check_once("emodb", root, ((path.stem, path) for path, _ in named))
    for path, match in named:
        text = SENTENCES.get(match["sentence"])
        yield utterance(
            "emodb",
            path,
            root,
            speaker=match["speaker"],
            gender=GENDERS.get(match["speaker"]),
            language="de",
            label=match["emotion"],
            text=text,
            text_source="human" if text else None,
            label_source="acted",
        )
