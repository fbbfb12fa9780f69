"""Who speaks in an utterance, in what language, for how long: kept beside predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry
from .errors import DataError, SerzooError
from .reporting.packed import open_packed
from .swap import new_file
from .text import json_lines

if TYPE_CHECKING:
    from .reporting.cells import Run

UTTERANCES = "utterances.jsonl"
OPEN = "serzoo.datamodules.catalog:open_corpora"
ATTRIBUTES = ("gender", "language", "seconds")
Attributes = dict[str, dict[str, Any]]


def attributes_of(utterances: Iterable[Any]) -> Attributes:
    """Of each id of a manifest, what sub-groups are made of; ``seconds`` is a float."""
    return {
        u.id: {
            "gender": u.gender,
            "language": u.language,
            "seconds": round(float(u.end - u.start), 3),
        }
        for u in utterances
    }


def write_attributes(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per utterance, sorted by id; the file appears complete or not at all."""
    lines = (json.dumps({"id": i, **rows[i]}, ensure_ascii=False) for i in sorted(rows))
    with new_file(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def read_attributes(folder: Path, cells: Sequence[str]) -> Attributes:
    """What a suite's folder and its cells hold; empty for records of before there were such.

    Raises:
        DataError: with the file and the line that cannot be used.
    """
    packed = open_packed(folder)
    found: Attributes = {} if packed is None else packed.attributes()
    for path in (folder / UTTERANCES, *(folder / "cells" / name / UTTERANCES for name in cells)):
        if not path.is_file():
            continue
        remedy = "remove the file and use --attributes, which takes them from the corpora"
        for number, row in json_lines(path, remedy=remedy, what=("an utterance", "utterances")):
            if "id" not in row:
                raise DataError(f"{path}, line {number}: not an utterance, it has no id; {remedy}")
            found[str(row.pop("id"))] = row
    return found


def of_table(ids: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> Attributes:
    """Attributes by the ids of a pooled table (``id#seed``); ids without any are left out."""
    found: Attributes = {}
    for name in ids:
        row = known.get(name) or known.get(name.rpartition("#")[0])
        if row is not None:
            found[name] = dict(row)
    return found


class Corpora:
    """The speech that runs were tested on, opened when asked for; each corpus once."""

    def __init__(self) -> None:
        self._opened: dict[str, Any] = {}

    def speech(self, run: Run) -> Any:
        """``utterances`` and ``roots`` of a run's corpora, which are here as they were there.

        Raises:
            DataError: they are not on this machine, or are other than the record's.
        """
        cfg = run.record["config"]
        which = [cfg["data"].get(name) for name in ("root", "manifest", "options")]
        key = json.dumps([cfg["corpus"], *which], sort_keys=True)
        if key not in self._opened:
            data = cfg["data"]
            try:
                self._opened[key] = registry.attribute(OPEN)(
                    cfg["corpus"],
                    root=data.get("root"),
                    manifest=data.get("manifest"),
                    options=data.get("options") or {},
                    progress=False,
                )
            except (SerzooError, OSError) as error:
                raise DataError(f"{run.name}: its corpus cannot be opened ({error})") from error
        speech, wanted = self._opened[key], run.record["data"]["manifest"]
        if speech.sha != wanted:
            raise DataError(
                f"{run.name}: its corpus is another here (manifest {speech.sha}) than it was "
                f"trained and tested on ({wanted})"
            )
        return speech

    def attributes(self, runs: Iterable[Run]) -> Attributes:
        """Attributes of what these runs were tested on."""
        found: Attributes = {}
        for run in runs:
            tested = set(run.table.ids)
            if not tested <= found.keys():
                every = attributes_of(self.speech(run).utterances)
                found |= {i: every[i] for i in tested if i in every}
        return found

    def clip(self, run: Run, name: str) -> str:
        """An utterance as a ``data:`` URI: 16 kHz mono FLAC."""
        import base64
        import io

        import soundfile

        speech = self.speech(run)
        at = next((u for u in speech.utterances if u.id == name), None)
        if at is None:
            raise DataError(
                f"{name} is not in the corpus of {run.name}; set root= to the data of that run"
            )
        read = registry.attribute("serzoo.datamodules.audio:read_utterance")
        buffer = io.BytesIO()
        samples = read(at, speech.roots[at.corpus])
        soundfile.write(buffer, samples, 16_000, format="FLAC", subtype="PCM_16")
        return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()
