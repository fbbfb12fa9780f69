"""Shards of WebDataset: tar files in which the files of one sample have a common name.

``000017.flac`` with ``000017.json``, ``000017.txt`` or ``000017.cls`` is a sample. The audio stays
in the tar (:mod:`..archives`).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from pathlib import Path, PurePosixPath
from typing import Any

from ...zoo.core.errors import DataError, some
from ...zoo.core.files import decode, parse_json
from .. import archives
from ..audio import SUFFIXES
from ..corpora import find_files, note, utterance
from ..layout import listing
from ..manifest import Utterance
from . import Given, finish, part_of, takes_columns

VERSION = 1
FIELDS = {".txt": "text", ".cls": "label"}
"""The field that a file of a sample holds, by its suffix; json holds several."""

SPEAKER = "name the json field with options.speaker=FIELD"


@takes_columns("json field")
def prepare(
    root: Path,
    *,
    given: Given,
    rename: dict[str, str] | None = None,
) -> Iterator[Utterance]:
    """Yield the samples of all tar files below a folder.

    Without an option, the file ``.cls`` of a sample holds its label, and ``.txt`` its transcript.
    The folder or the first word of a tar's name may be a part (``train-0001.tar``); it is kept as
    ``labels["split"]``.

    Args:
        root: folder of the tar files.
        given: the options of :func:`takes_columns`, which name label, speaker and so on.
        rename: maps a label to another one, such as ``{0: angry}`` for the numbers of ``.cls``.

    Raises:
        DataError: if there is no tar, one is compressed or damaged, or no sample has audio. The
            message names tar and member.
    """
    tars = find_files(root, (".tar",))
    if not tars:
        packed = find_files(root, (".gz", ".zst", ".tgz", ".xz", ".bz2"))
        have = f"it holds {packed[0].name}: decompress that, " if packed else ""
        raise DataError(f"webdataset: no .tar in {root}; {have}or give the folder of the shards")
    rows: list[tuple[str, str, dict[str, Any], str | None]] = []
    silent: list[str] = []
    for tar in tars:
        part = part_of(tar.relative_to(root))
        for name, files in _samples(tar).items():
            where = f"{tar.name}, {name}"
            sound = [f for f in files if PurePosixPath(f).suffix.lower() in SUFFIXES]
            if not sound:
                silent.append(where)
                continue
            if len(sound) > 1:
                raise DataError(
                    f"{where}: {len(sound)} audio files ({some(sound)}) have one name, but a "
                    "sample has one; rename the others"
                )
            cells = _cells(tar, files)
            rows.append((where, f"{tar.relative_to(root).as_posix()}/{sound[0]}", cells, part))
    if silent:
        note(f"webdataset: samples without audio are left out: {listing(silent)}")
    fields = (key for _, _, cells, _ in rows for key in cells)
    columns = given.find("webdataset", fields)
    found = []
    for where, place, cells, split in rows:
        facts = columns.facts(cells, where)
        if split is not None:
            facts["labels"].setdefault("split", split)
        stem = PurePosixPath(place).with_suffix("").as_posix()
        found.append(
            utterance("webdataset", root / place, root, id=f"webdataset/{stem}", end=nan, **facts)
        )
    yield from finish("webdataset", found, rename, SPEAKER)


def _samples(tar: Path) -> dict[str, list[str]]:
    """Return the files of each sample; its name is the path up to the first dot of the file."""
    found: dict[str, list[str]] = {}
    for member in archives.members(tar):
        path = PurePosixPath(member)
        if path.name.startswith("."):
            continue
        name = (path.parent / path.name.partition(".")[0]).as_posix()
        found.setdefault(name, []).append(member)
    return found


def _cells(tar: Path, files: list[str]) -> dict[str, Any]:
    """Return the fields that the files of a sample hold."""
    cells: dict[str, Any] = {}
    for file in files:
        suffix = PurePosixPath(file).suffix.lower()
        if suffix != ".json" and suffix not in FIELDS:
            continue
        with archives.open_file(tar / file) as opened:
            text = decode(opened.read(), f"{tar.name}, {file}")[0]
        if suffix != ".json":
            cells[FIELDS[suffix]] = text.strip()
            continue
        try:
            cells |= parse_json(text)
        except ValueError as error:
            raise DataError(
                f"{tar.name}, {file}: not an object of JSON ({error}); write the shard again"
            ) from None
    return cells
