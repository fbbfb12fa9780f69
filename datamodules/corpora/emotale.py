"""EmoTale: 18 speakers, 5 emotions, 5 sentences, Danish and English (Hjuler et al. 2025).

``DK_004_A_5.wav`` is language, speaker, acted emotion, sentence. ``annotations.csv`` has what each
annotator heard, and the arousal, valence and dominance from 1 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ..layout import check_once, is_missing, listing, read_table
from ..manifest import Utterance
from ..ratings import Rating, count_votes, mean_and_spread
from . import find_files, left_out, note, nothing_found, split_names, utterance

VERSION = 1
SENTENCES = {
    "DK": {
        "1": "Dugen ligger på køleskabet.",
        "2": "Det sorte ark papir er placeret deroppe ved siden af tømmerstykket.",
        "3": "De bar det bare ovenpå og nu skal de ned igen.",
        "4": "Det vil være på det sted, hvor vi altid opbevarer det.",
        "5": "Om syv timer er det morgen.",
    },
    "EN": {
        "1": "The tablecloth is lying on the fridge.",
        "2": "The black sheet of paper is located up there besides the piece of timber.",
        "3": "They just carried it upstairs and now they are going down again.",
        "4": "It will be in the place where we always store it.",
        "5": "In seven hours it will be morning.",
    },
}
LANGUAGES = {"DK": "da", "EN": "en"}
RATERS = ("a1", "a2", "a3")
_NAME = re.compile(r"(?P<language>DK|EN)_(?P<speaker>\d{3})_(?P<label>[ABHNS])_(?P<sentence>[1-5])")


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of EmoTale.

    The acted emotion is the label. ``votes`` and ``raters`` hold what the annotators heard, and
    ``dims`` is the mean of their ratings. Without ``annotations.csv`` these stay empty, with a
    warning.

    Args:
        root: the unpacked corpus with ``annotations.csv``, or a folder above it.

    Raises:
        DataError: if no file has a name of the corpus, or a recording is there twice. Also if
            ``annotations.csv`` is damaged.
    """
    named, other = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("emotale", root, "DK_004_A_5.wav")
    left_out("emotale", {"not named like DK_004_A_5.wav": other})
    check_once("emotale", root, ((path.stem, path) for path, _ in named))
    heard = _annotations(root)
    if heard and (absent := listing(p.stem for p, _ in named if p.stem not in heard)):
        note(f"emotale: recordings without a row in annotations.csv: {absent}")
    for path, match in named:
        said, felt = heard.get(path.stem, ({}, []))
        dims, spread = mean_and_spread(felt)
        yield utterance(
            "emotale",
            path,
            root,
            speaker=match["speaker"],
            language=LANGUAGES[match["language"]],
            label=match["label"],
            label_source="acted",
            text=SENTENCES[match["language"]][match["sentence"]],
            text_source="human",
            votes=count_votes([label] for label in said.values()),
            raters=said,
            dims=dims,
            dims_spread=spread,
        )


def _annotations(root: Path) -> dict[str, tuple[dict[str, str], list[Rating]]]:
    """Return the labels and the ratings of the annotators, by the stem of the file."""
    tables = [p for p in find_files(root, (".csv",)) if p.name == "annotations.csv"]
    if not tables:
        note(
            f"emotale: no annotations.csv under {root}: votes and ratings stay empty; the corpus' "
            "repository has it"
        )
        return {}
    columns = [f"{who}_{what}" for who in RATERS for what in ("cat", "V", "A", "D")]
    found = {}
    for row in read_table(tables[0], ("file", *columns)):
        where = f"{tables[0].name}, {row['file']}"
        said = {w: row[f"{w}_cat"] for w in RATERS if not _empty(row[f"{w}_cat"])}
        if odd := [label for label in said.values() if label not in "ABHNS"]:
            raise DataError(
                f"{where}: an annotator gave '{odd[0]}'; known: A, B, H, N, S: use the publisher's "
                "table"
            )
        felt = [
            (
                _scaled(row[f"{who}_V"], where),
                _scaled(row[f"{who}_A"], where),
                _scaled(row[f"{who}_D"], where),
            )
            for who in RATERS
        ]
        found[Path(row["file"]).stem] = said, felt
    return found


def _empty(cell: str) -> bool:
    return not cell or is_missing(cell)


def _scaled(cell: str, where: str) -> float | None:
    """Scale a rating from 1..5 to 0..1; None if the cell is empty."""
    if _empty(cell):
        return None
    try:
        value = (float(cell) - 1.0) / 4.0
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{where}: a rating is '{cell}', not 1 to 5; use the publisher's table")
    return value
