"""A json file of SpeechBrain: an object of utterances, each with ``wav`` and further fields."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

from ...zoo.core.errors import DataError, some
from ...zoo.core.files import read_json
from ..corpora import utterance
from ..manifest import Utterance
from . import SPLITS, Given, Paths, finish, number, takes_columns

VERSION = 1
ROOTS = ("{data_root}", "$data_root", "{data_folder}")
"""What recipes write for the folder of the data."""

REMEDY = "write it again with the recipe's script"
SPEAKER = "name the field with options.speaker=FIELD"


@takes_columns("field")
def prepare(
    root: Path,
    *,
    files: list[str] | None = None,
    audio: str = "wav",
    given: Given,
    strip: str | None = None,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the utterances of json files.

    A file whose name is that of a part (``train.json``, ``valid.json``, ``test.json``) gives
    ``labels["split"]``. In the paths, ``{data_root}`` means the root.

    Args:
        root: folder to which the paths are relative.
        files: the json files, relative to the root; by default all directly in it.
        audio: field of the path. It may also hold ``{"file": ..., "start": ..., "stop": ...}``, in
            samples.
        given: the options of :func:`takes_columns`, which name label, speaker and so on.
        strip: beginning of the paths to take away.
        rename: maps a label to another one.

    Raises:
        DataError: if there is no file, or one is damaged; the message names file and utterance.
    """
    if not root.is_dir():
        raise DataError(f"root={root} is not a folder; give the folder that paths are relative to")
    chosen = [root / f for f in files or ()] or sorted(root.glob("*.json"))
    absent = [p.name for p in chosen if not p.is_file()]
    if absent or not chosen:
        raise DataError(
            f"speechbrain: {some(absent) or 'no json file'} in {root}; name them in options.files"
        )
    rows: list[tuple[str, str, dict[str, Any], str | None]] = []
    for path in chosen:
        for name, row in read_json(path, remedy=REMEDY).items():
            where = f"{path.name}, '{name}'"
            if not isinstance(row, dict):
                raise DataError(f"{where}: holds {row!r}, not an object; {REMEDY}")
            rows.append((where, str(name), row, SPLITS.get(path.stem.casefold())))
    fields = (key for _, _, row, _ in rows for key in row)
    columns = given.find("speechbrain", fields)
    paths, found = Paths(root, strip), []
    for where, name, row, part in rows:
        file, start, end = _piece(row, audio, where)
        facts = columns.facts(row, where)
        if part is not None:
            facts["labels"].setdefault("split", part)
        found.append(
            utterance(
                "speechbrain",
                root / paths.below(file, where),
                root,
                id=f"speechbrain/{name}",
                start=start,
                end=end,
                **facts,
            )
        )
    yield from finish("speechbrain", found, rename, SPEAKER)


def _piece(row: dict[str, Any], audio: str, where: str) -> tuple[str, float, float]:
    """Return the file of a row, and its start and end in seconds (NaN = the file's end)."""
    said = row.get(audio)
    start, end = row.get("start"), row.get("stop", row.get("end"))
    if isinstance(said, dict):
        start, end, said = said.get("start"), said.get("stop"), said.get("file")
    if not isinstance(said, str):
        raise DataError(f"{where}: no path in '{audio}'; name the field in options.audio")
    for word in ROOTS:
        if said.startswith(word):
            said = said[len(word) :].lstrip("/")
    if start is None and end is None:
        return said, 0.0, nan
    rate = row.get("sample_rate", row.get("sampling_rate"))
    if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
        raise DataError(
            f"{where}: start and stop are samples, but sample_rate is {rate!r}; add it to the row"
        )
    first = number(start, where, "start", 0.0) / rate
    last = number(end, where, "stop", nan) / rate
    if not first < last and last == last:
        raise DataError(f"{where}: {first:g} s to {last:g} s; the stop must be after the start")
    return said, first, last
