"""MSP-IMPROV: 12 actors in six dyads, acted and natural turns, English (Busso et al. 2017).

``Audio/session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav`` is sentence and target emotion, speaker,
scenario, and turn. A line of ``Evalution.txt`` holds the majority of the listeners, and the mean of
their ratings from 1 to 5. The release spells the name of this file so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...zoo.core.errors import DataError
from ...zoo.core.files import ENDS, read_text
from ..layout import check_once, listing
from ..manifest import Utterance
from . import find_files, left_out, note, nothing_found, split_names, utterance

VERSION = 1
EXAMPLE = "Audio/session1/S01A/S/MSP-IMPROV-S01A-F01-S-FM01.wav"
TABLES = ("Evalution.txt", "Evaluation.txt")
_NAME = re.compile(
    r"MSP-IMPROV-(?P<turn>S\d\d[AHNS]-(?P<speaker>(?P<gender>[FM])(?P<session>0[1-6]))-[PRST]-\w+)"
)
_RATED = re.compile(
    r"UTD-IMPROV-(?P<turn>[\w-]+)\.avi;\s*(?P<label>[AHSNOX]);\s*A:(?P<a>[\d.]+);\s*"
    r"V:(?P<v>[\d.]+);\s*D:(?P<d>[\d.]+);.*"
)


def prepare(root: Path) -> Iterator[Utterance]:
    """Yield the utterances of MSP-IMPROV, with the majority of the listeners as label.

    Lines of single listeners are not read, so there are no votes.

    Args:
        root: the unpacked release, or a folder above it.

    Raises:
        DataError: if there is no audio or no table of ratings, or a recording is there twice.
    """
    named, other = split_names(find_files(root), _NAME)
    if not named:
        raise nothing_found("msp_improv", root, EXAMPLE)
    left_out("msp_improv", {f"not named like {Path(EXAMPLE).name}": other})
    check_once("msp_improv", root, ((path.stem, path) for path, _ in named))
    tables = [p for p in find_files(root, (".txt",)) if p.name in TABLES]
    if not tables:
        raise DataError(
            f"msp_improv: no {TABLES[0]} under {root}, so no turn has a label; unpack it beside "
            "Audio"
        )
    rated: dict[str, re.Match[str]] = {}
    odd = []
    for n, line in enumerate(ENDS.split(read_text(tables[0], old=True)), 1):
        if not line.startswith("UTD-IMPROV-"):  # what single listeners said, and blank lines
            continue
        found = _RATED.fullmatch(line.strip())
        if found is None or found["turn"] in rated:
            odd.append(f"line {n}")
        else:
            rated[found["turn"]] = found
    unrated = []
    for path, match in named:
        line_of = rated.get(match["turn"])
        if line_of is None:
            unrated.append(path.stem)
        dims = tuple(_scale(line_of[k]) for k in "vad") if line_of else None
        yield utterance(
            "msp_improv",
            path,
            root,
            speaker=match["speaker"],
            session=match["session"],
            gender="female" if match["gender"] == "F" else "male",
            language="en",
            label=line_of["label"] if line_of else None,
            dims=dims if dims and any(d is not None for d in dims) else None,
            label_source="perceived" if line_of else None,
        )
    for what, names in {
        f"lines of {tables[0].name} that cannot be read, or rate a turn again": odd,
        "recordings without a rating, which have no label": unrated,
    }.items():
        if names:
            note(f"msp_improv: {what}: {listing(names)}")


def _scale(rating: str) -> float | None:
    """Scale a rating from 1..5 to 0..1; None if it is outside."""
    try:
        value = (float(rating) - 1.0) / 4.0
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None
