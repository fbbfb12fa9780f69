"""The finished cells of a comparison: what they are, and whether one table may hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...datamodules.audio import read_utterance
from ...datamodules.catalog import open_corpora
from ..core.earlier import as_first_written
from ..core.errors import ComparisonError, DataError, SerzooError
from ..core.speakers import NONE
from ..run.record import RECORD, Attributes, Record, attributes_of, read_attributes, read_record
from ..run.schema import DataConfig, OptimConfig
from ..statistics.table import PredictionTable, merge
from .packed import PREDICTIONS as PREDICTIONS
from .packed import Packed, open_packed, read_table

BUDGET = ("trials", "space", "heads", "draw", "seed", "batch", "prune")
SHARED = tuple(key for key in BUDGET if key != "heads")  # what heads of one table have in common

KEYS = {
    "config": ("recipe", "encoder", "head", "fold", "seed"),
    "data": ("manifest", "split", "taxonomy"),
    "selection": ("rule",),
}

NORMALISED = "speakers normalised"
"""What the name of an encoder ends with in tables if speakers were normalised."""


@dataclass(frozen=True)
class Run:
    """A finished cell: its record and its test predictions."""

    name: str
    record: Record
    table: PredictionTable
    pair: str = ""  # corpora of training and test, if they differ

    @property
    def group(self) -> tuple[str, str]:
        """Data and encoder, which the cells of one table share."""
        cfg = self.record.config
        stem = Path(cfg["recipe"]).stem
        parts = [p for p in (stem, self.pair, self.condition) if p]
        # of an adaptation: how it was tuned is in the condition
        node = self.record.source.get("encoder", cfg["encoder"])
        beside = f" + {cfg['utterance']}" if cfg.get("utterance") else ""
        if self.normalised:
            beside += f", {NORMALISED} ({self.normalised})"
        return ", ".join(parts), encoder_name(node) + beside

    @property
    def frozen_start(self) -> bool:
        """Whether the encoder is that of a suite's pre-training, as it is."""
        return bool(self.record.pretraining and self.record.source)

    @property
    def normalised(self) -> str:
        """How speakers were normalised (``speaker``, ``enrol:K``); "" if they were not."""
        way = self.record.config.get("data", {}).get("normalise", NONE)
        return "" if way == NONE else str(way)

    @property
    def condition(self) -> str:
        """Conditions and free axes of the cell (``share=0.1``), from its record; or ""."""
        parts = [self.record.condition, *(f"{k}={v}" for k, v in self.record.axes.items())]
        return ", ".join(p for p in parts if p)

    @property
    def head(self) -> str:
        """Name of the head's configuration, or its type, and what it started from."""
        cfg, arm = self.record.config, self.record.pretraining
        name = str(cfg.get("head_name") or cfg["head"]["type"])
        return f"{name} after {arm}" if arm not in (None, "none") else name

    @property
    def fold(self) -> int:
        return int(self.record.config["fold"])

    @property
    def seed(self) -> int:
        return int(self.record.config["seed"])


def encoder_name(node: Mapping[str, Any]) -> str:
    """Return the name of an encoder in tables: model, tuning, layers and how they are joined."""
    name = Path(str(node.get("name") or node["type"])).name
    if node.get("tuning") not in (None, "frozen"):
        name += f" {node['tuning']}"
    if node.get("layers") is not None:
        name += f" layers {node['layers']}"
    if node.get("join") not in (None, "mix"):
        name += f" {node['join']}"
    return name


@dataclass(frozen=True)
class Found:
    """Cells of a suite's folder.

    Attributes:
        runs: finished cells.
        failed: error of each cell that ended badly.
        missing: cells that have not run.
        broken: why a cell cannot be read; it counts as not run.
    """

    runs: list[Run] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def others(self) -> list[str]:
        """Names of all cells that are not finished, sorted."""
        return sorted([*self.failed, *self.missing, *self.broken])


def find_cells(folder: Path, names: Sequence[str] | None = None) -> Found:
    """Read every cell of a suite's folder, or of a packed suite.

    A cell that cannot be read does not stop the others.

    Raises:
        DataError: if a packed suite is damaged.
    """
    cells, packed = folder / "cells", open_packed(folder)
    if names is None and packed is not None:
        names = list(packed.cells)
    elif names is None:
        names = sorted(p.name for p in cells.iterdir() if p.is_dir()) if cells.is_dir() else []
    found = Found()
    for name in names:
        try:
            record = read_record(cells / name) if packed is None else packed.record(name)
            if record is None:
                found.missing.append(name)
            elif not record.ok:
                found.failed[name] = record.error or "no reason was recorded"
            else:
                found.runs.append(_read(cells / name, record, packed))
        except (DataError, ComparisonError) as error:
            found.broken[name] = str(error)
    return found


def _read(folder: Path, record: Record, packed: Packed | None) -> Run:
    for key, inner in KEYS.items():
        if any(k not in getattr(record, key) for k in inner):
            raise DataError(
                f"{folder / RECORD} lacks {key} ({', '.join(inner)}); remove the cell's "
                "folder, and it is run again"
            )
    table = read_table(folder) if packed is None else packed.table(folder.name)
    metrics = record.metrics
    wanted = metrics.get("n", len(table)) + metrics.get("n_unlabelled", 0)
    if "n" in metrics and wanted != len(table):
        raise DataError(
            f"{folder / PREDICTIONS} holds {len(table)} utterances and its record counts "
            f"{wanted}; it was cut off or exchanged: remove the cell's folder, and it is run again"
        )
    return Run(folder.name, record, table)


def read_runs(folder: Path, names: Sequence[str] | None = None) -> tuple[list[Run], list[str]]:
    """Return the finished cells of a suite's folder, and the names of the others."""
    found = find_cells(folder, names)
    return found.runs, found.others


def by_pair(runs: Sequence[Run]) -> list[Run]:
    """Split each run on corpora that it did not train on into one run for each of them.

    Numbers out of domain are never pooled over corpora, because folds may test the same utterances.
    """
    found = []
    for run in runs:
        speakers = run.record.speakers
        heard = {s.partition("/")[0] for part in ("train", "valid") for s in speakers.get(part, ())}
        tables = run.table.by_corpus()
        if not heard or heard & set(tables):
            found.append(run)
            continue
        source = " and ".join(sorted(heard))
        found += [replace(run, table=t, pair=f"{source} to {name}") for name, t in tables.items()]
    return found


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that all heads were trained and tested on the same data, and selected by one rule.

    Raises:
        ComparisonError: if two cells differ; the message names them, and both certificates.
    """
    folds: dict[tuple[Any, ...], Run] = {}
    groups: dict[tuple[str, str], Run] = {}
    for run in runs:
        first = groups.setdefault(run.group, run)  # of all folds
        other = folds.setdefault((*run.group, run.fold), run)
        for what, a, b in (
            ("manifest", first, run),
            ("split", other, run),
            ("taxonomy", first, run),
        ):
            one, two = a.record.data[what], b.record.data[what]
            if one != two:
                raise ComparisonError(
                    f"refusing to compare: the {what} differs ({one} in {a.name}, {two} in "
                    f"{b.name}); remove the older cells and run them again{_two(a, b)}"
                )
        if first.record.selection["rule"] != run.record.selection["rule"]:
            raise ComparisonError(
                f"refusing to compare: {first.name} and {run.name} selected by different rules"
                f"{_two(first, run)}"
            )
        one, two = _settings(other), _settings(run)
        if one != two:
            raise ComparisonError(
                f"refusing to compare: {other.name} and {run.name} were trained with different "
                f"settings: {_differing(one, two)}; set the same, or compare them under another "
                "suite's name"
            )


def certificate(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what makes the cells of one table comparable, and its hash.

    Returns:
        ``manifest``, ``taxonomy``, ``rule``, ``splits`` (by fold) and ``hash``: 12 hexadecimal
        digits over the others. Tables with one hash agree in utterances, parts, classes and the
        rule that selects the epoch.
    """
    data = runs[0].record.data
    content = {
        "manifest": data["manifest"],
        "taxonomy": data["taxonomy"],
        "rule": runs[0].record.selection["rule"],
        "splits": {str(r.fold): r.record.data["split"] for r in sorted(runs, key=_fold)},
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return {**content, "hash": hashlib.sha256(text.encode()).hexdigest()[:12]}


def _fold(run: Run) -> int:
    return run.fold


def _two(a: Run, b: Run) -> str:
    """Return the certificates of two cells as text."""
    one, two = certificate([a])["hash"], certificate([b])["hash"]
    return f" (certificates {one} and {two})"


def _settings(run: Run) -> dict[str, Any]:
    """Return, by key, the settings that all heads of a table must share.

    A record may be older than a key. Then the run was trained with the key's default.
    """
    cfg = run.record.config
    data = {**asdict(DataConfig()), **cfg["data"]}
    keys = ("label", "batch_size", "batch_seconds", "max_seconds", "balance", "train_share",
            "corrupted_copies")  # fmt: skip
    found = {f"data.{k}": data[k] for k in keys}
    # a search may give each head its own optimisation, but each the same number of trials
    found |= {f"optim.{k}": v for k, v in asdict(OptimConfig()).items()}
    found |= {f"optim.{k}": v for k, v in cfg["optim"].items()}
    for key in searched(run.record):
        found.pop(key, None)
    # of frozen pre-trainings: the encoder that they tuned, which is the same for all
    node = run.record.source["encoder"] if run.frozen_start else cfg["encoder"]
    found |= {f"encoder.{k}": v for k, v in as_first_written(node).items()}
    # stored and live features make other batches: by the length of frames, or of files
    return found | {
        "trainer.precision": cfg["trainer"]["precision"],
        "features": run.record.features,
        "search": budget_of(run.record),
    }


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    """Return what differs: ``optim.epochs (2 and 3)``; a search is only named, as it is long."""
    keys = [k for k in {**one, **two} if one.get(k) != two.get(k)]
    return ", ".join(k if k == "search" else f"{k} ({one.get(k)} and {two.get(k)})" for k in keys)


def pooled(runs: Sequence[Run]) -> PredictionTable:
    """Return the test tables of several folds and seeds as one, with an utterance once per seed.

    Each seed has the same class counts. So the UAR of this table is the mean of the seeds' UARs,
    also if speakers are left out.
    """
    tables = [replace(r.table, ids=[f"{i}#{r.seed}" for i in r.table.ids]) for r in runs]
    return merge(tables)


def searched(record: Record) -> set[str]:
    """Return the keys that a record's search chose for any head, such as ``optim.lr``."""
    search = record.search or {}
    spaces = [search.get("space", {}), *(search.get("heads") or {}).values()]
    return {key for space in spaces for key in space}


def budget_of(record: Record) -> str:
    """Return the search budget of a record as text that can be compared; "" without a search.

    A head may have a space of its own beside the shared one; that is not compared.
    """
    search = record.search
    if not search:
        return ""
    return json.dumps({k: search[k] for k in SHARED if k in search}, sort_keys=True)


class Corpora:
    """Opens the corpora that runs were tested on, each once."""

    def __init__(self) -> None:
        self._opened: dict[str, Any] = {}

    def speech(self, run: Run) -> Any:
        """Return the utterances and roots of a run's corpora.

        Raises:
            DataError: if they are not on this machine, or differ from those of the record.
        """
        cfg = run.record.config
        which = [cfg["data"].get(name) for name in ("root", "manifest", "options")]
        key = json.dumps([cfg["corpus"], *which], sort_keys=True)
        if key not in self._opened:
            data = cfg["data"]
            try:
                self._opened[key] = open_corpora(
                    cfg["corpus"],
                    root=data.get("root"),
                    manifest=data.get("manifest"),
                    options=data.get("options") or {},
                    progress=True,
                )
            except (SerzooError, OSError) as error:
                raise DataError(f"{run.name}: its corpus cannot be opened ({error})") from error
        speech, wanted = self._opened[key], run.record.data["manifest"]
        if speech.sha != wanted:
            raise DataError(
                f"{run.name}: its corpus has changed: its manifest is {speech.sha} here, and was "
                f"{wanted} in the run; give the corpus of the run, or run the cell again"
            )
        return speech

    def attributes(self, runs: Iterable[Run]) -> Attributes:
        """Return the attributes of the utterances that these runs were tested on."""
        found: Attributes = {}
        for run in runs:
            tested = set(run.table.ids)
            if not tested <= found.keys():
                every = attributes_of(self.speech(run).utterances)
                found |= {i: every[i] for i in tested if i in every}
        return found

    def clip(self, run: Run, name: str) -> str:
        """Return an utterance as a ``data:`` URI: 16 kHz mono FLAC."""
        import base64
        import io

        import soundfile

        speech = self.speech(run)
        at = next((u for u in speech.utterances if u.id == name), None)
        if at is None:
            raise DataError(
                f"{name} is not in the corpus of {run.name}; set root= to the data of that run"
            )
        read = read_utterance
        buffer = io.BytesIO()
        samples = read(at, speech.roots[at.corpus])
        soundfile.write(buffer, samples, 16_000, format="FLAC", subtype="PCM_16")
        return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()


def suite_attributes(folder: Path, cells: Sequence[str]) -> Attributes:
    """Return the attributes of a suite's utterances, packed or not; empty if none were kept.

    Raises:
        DataError: if a line cannot be used; the message names the file and the line.
    """
    packed = open_packed(folder)
    return ({} if packed is None else packed.attributes()) | read_attributes(folder, cells)
