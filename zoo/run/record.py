"""The record of a run: everything needed to believe, repeat or refuse its numbers."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ParamSpec,
    Self,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from ..core.errors import ComparisonError, DataError
from ..core.files import json_lines, new_file, read_json, write_json
from ..core.speakers import ACCEPT
from ..statistics.speakers import interval_text
from .config import RunConfig

if TYPE_CHECKING:
    from ..statistics.table import PredictionTable

RECORD = "record.json"
VALID = "valid.jsonl"  # predictions of the validation part
PACKAGES = (
    "serzoo",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "torchmetrics",
    "numpy",
    "scipy",
)


VERSION = 1
"""Version of the records that are written; a record without one counts as 0."""

AGAIN = "remove it, and its run is made again"


@dataclass
class Recorded:
    """What every ``record.json`` has, and how it is written and read.

    A subclass adds the fields of its kind. A key without a field is kept in :attr:`more`, and
    :meth:`to_json` writes it beside the fields: a caller's own fact, or the ``format`` of a file
    that is older than versions.

    Attributes:
        status: ``ok``, or ``failed``.
        version: of the record; 0 if its file names none, since it is older than versions.
        more: what no field is for, by key.
        order: keys in the order of the file.
        folder: where the file is; None until it is written. The file does not hold it.
    """

    status: str = ""
    version: int = VERSION
    more: dict[str, Any] = field(default_factory=dict)
    order: list[str] = field(default_factory=list, compare=False, repr=False)
    folder: Path | None = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the run ended well."""
        return self.status == "ok"

    @classmethod
    def _kinds(cls) -> dict[str, tuple[type, ...]]:
        """The types that each field of a file may have."""
        return _kinds_of(cls)  # type: ignore[arg-type]  # mypy looks at the hash of instances

    def add(self, found: Mapping[str, Any]) -> Self:
        """Set fields by their names; other keys go to :attr:`more`. Returns the record itself."""
        for key, value in found.items():
            if key in self._kinds():
                setattr(self, key, value)
            else:
                self.more[key] = value
            if key not in self.order:
                self.order.append(key)
        return self

    def pick(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of these keys that the file has or would have."""
        found = self.to_json()
        return {k: found[k] for k in names if k in found}

    def to_json(self) -> dict[str, Any]:
        """The content of ``record.json``: the keys of :attr:`order`, then what was set since."""
        kinds = self._kinds()
        known = [f for f in fields(self) if f.name in kinds and f.name != "version"]
        since = [f.name for f in known if getattr(self, f.name) != _default(f)]
        if self.version:  # a record of before there were any stays one
            since.append("version")
        keys = dict.fromkeys([*self.order, *since, *self.more])
        return {k: getattr(self, k) if k in kinds else self.more[k] for k in keys}

    @classmethod
    def from_json(
        cls, found: Mapping[str, Any], where: object = "the record", remedy: str = AGAIN
    ) -> Self:
        """A record from the content of its file.

        Args:
            found: the content; without ``version`` it is older than versions, which is 0.
            where: for messages.
            remedy: likewise, what to do with a damaged one.

        Raises:
            DataError: when it is newer than this serzoo, or a field holds what it cannot.
        """
        version = found.get("version", 0)
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise DataError(f"{where} is of version {version!r}, which is no number; {remedy}")
        if version > VERSION:
            raise DataError(
                f"{where} is of version {version}, and this serzoo reads versions up to {VERSION}; "
                "it was written by a newer one: install that"
            )
        known = cls._kinds()
        for key, value in found.items():
            allowed = known.get(key, (object,))
            if not isinstance(value, allowed):
                names = " or ".join(dict.fromkeys(_NAMES[k] for k in allowed))
                text = json.dumps(value, default=str)
                raise DataError(
                    f"{where} is damaged ({key} is {text[:60]}, and not {names}); {remedy}"
                )
        return cls(version=version).add(found)


@dataclass
class Record(Recorded):
    """What ``record.json`` holds of a run, an adaptation, a tested condition or an import.

    A field that a record does not have is empty (``{}``, ``[]``, ``""``) or None.

    Attributes:
        kind: ``adaptation``; "" for a run, also where it was imported or tested under a condition.
        fingerprint: of all that decides the numbers.
        config: the resolved configuration (:class:`.config.RunConfig`), with its ``recipe``,
            ``fold`` and ``seed``.
        classes: C names, in the order of the scores.
        data: hashes: ``manifest``, ``split`` and ``taxonomy``.
        speakers: ``corpus/speaker`` names of ``train``, ``valid`` and ``test``.
        counts: utterances of each part, and what was left out.
        notes: by corpus, what its reader says.
        split_notes: what the protocol says of its parts.
        audit: whether the parts share speakers, utterances or recordings.
        selection: ``rule``, ``val/uar`` and ``epoch``.
        parameters: numbers of weights: ``trainable``, ``stored``, ``total``, ``head``,
            ``head_trainable``.
        encoder: what it says of itself.
        layer_weights: of a learned mix of layers, by layer.
        origin: the run whose encoder this one began with.
        features: ``stored`` or ``live``.
        feature_store: what the store encoded and reused.
        seconds: ``encode``, ``fit``, ``evaluate`` and ``total``.
        resumed: whether, or from which file and epoch.
        rounds: epochs as the trainer counts them.
        steps: of the optimiser.
        peak_memory_mb: of the process, in MiB.
        device: as torch names it.
        processes: that trained together.
        threads: of each.
        metrics: of the test part (:func:`..statistics.speakers.measure`).
        by_speaker: likewise.
        by_corpus: likewise.
        valid: metrics of the validation part.
        open_labels: numbers where classes were asked for that the model never trained on.
        inference_seconds_per_utterance: of the test part.
        versions: of Python and of the packages that decide numbers.
        git: commit and state of a checkout; None outside one.
        machine: system, processor and cores.
        axes: of a suite's cell, the values of its free axes.
        settings: of a trial of a search, what it tried.
        search: the budget of a search, what it tried and what it chose.
        pretraining: the arm of a suite that the cell belongs to.
        condition: of a test under a condition, or an adaptation, what one table holds.
        tested: the suite and cell that was tested under a condition.
        corruption: what was done to the test audio.
        same_answers: share of utterances with the answer to clean audio.
        shots: of an adaptation, utterances of each class.
        draw: the seed of its support.
        tuning: what was tuned.
        source: the model that was adapted.
        support: what it was adapted on.
        adaptation: the options.
        new_classes: that the source did not have.
        loss: of the first and of the last step.
        forgetting: metrics on the source's test part before and after.
        bytes: that changed, and that were saved.
        imported: name, toolkit and file of another toolkit's predictions.
        probabilities: whether the scores are such; an import's may only order the classes.
        reason: why a cell failed: ``error``, ``memory``, ``search``, ``source``, ...
        error: in a line.
        details: the traceback.
        tries: how often it was tried.
    """

    kind: str = ""
    fingerprint: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    speakers: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    split_notes: list[str] = field(default_factory=list)
    audit: dict[str, Any] | None = None
    selection: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, int] | None = None
    encoder: dict[str, Any] = field(default_factory=dict)
    layer_weights: dict[str, float] = field(default_factory=dict)
    origin: dict[str, Any] | None = None
    features: str | None = None
    feature_store: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    resumed: bool | str = False
    rounds: int | None = None
    steps: int | None = None
    peak_memory_mb: float | None = None
    device: str | None = None
    processes: int | None = None
    threads: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    by_speaker: dict[str, Any] = field(default_factory=dict)
    by_corpus: dict[str, Any] = field(default_factory=dict)
    valid: dict[str, Any] = field(default_factory=dict)
    open_labels: dict[str, Any] | None = None
    inference_seconds_per_utterance: float | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    pretraining: str | None = None
    condition: str = ""
    tested: dict[str, Any] | None = None
    corruption: dict[str, Any] | None = None
    same_answers: float | None = None
    shots: int | None = None
    draw: int | None = None
    tuning: str | None = None
    source: dict[str, Any] = field(default_factory=dict)
    support: dict[str, Any] = field(default_factory=dict)
    adaptation: dict[str, Any] = field(default_factory=dict)
    new_classes: list[str] = field(default_factory=list)
    loss: dict[str, float] | None = None
    forgetting: dict[str, Any] | None = None
    bytes: dict[str, Any] = field(default_factory=dict)
    imported: dict[str, Any] | None = None
    probabilities: bool = True
    reason: str = ""
    error: str = ""
    details: str = ""
    tries: int = 0

    @property
    def temperature(self) -> float | None:
        """Fitted on validation; None where nothing was, as of imported answers."""
        found = self.metrics.get("temperature")
        return None if found is None else float(found)

    @property
    def unsure(self) -> list[str]:
        """What the audit of the split could not tell; older records have none."""
        return list((self.audit or {}).get("unsure") or [])


@dataclass
class ProbeRecord(Recorded):
    """What ``record.json`` holds of probes.

    Attributes:
        kind: ``probe``.
        model: the encoder that was looked into, and where it is from.
        against: the encoder that it is compared with; None without one.
        data: ``corpora``, ``manifest``, ``protocol``, ``folds``, ``fold``, ``max_seconds``,
            ``rate_from`` and ``speakers``.
        speakers_heard: ``corpus/speaker`` names of the data that the encoder was trained on.
        speakers_unsure: corpora for which this cannot be told.
        quantities: of each its unit, and R² of each way and model.
        seconds: that it all took.
        versions: of Python and of the packages that decide numbers.
        git: commit and state of a checkout; None outside one.
        machine: system, processor and cores.
    """

    kind: str = "probe"
    model: dict[str, Any] = field(default_factory=dict)
    against: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    speakers_heard: list[str] = field(default_factory=list)
    speakers_unsure: list[str] = field(default_factory=list)
    quantities: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str | None] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)


_NAMES = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


@cache
def _kinds_of(record: type[Recorded]) -> dict[str, tuple[type, ...]]:
    found = {}
    for key, hint in get_type_hints(record).items():
        parts = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds = tuple(get_origin(part) or part for part in parts)
        found[key] = (int, *kinds) if float in kinds else kinds
    return {k: v for k, v in found.items() if k not in ("more", "order", "folder")}


def _default(of: Field[Any]) -> Any:
    return of.default if of.default_factory is MISSING else of.default_factory()


P = ParamSpec("P")
R = TypeVar("R", bound=Recorded)


def _in_order(make: Callable[P, R]) -> Callable[P, R]:
    def made(*args: P.args, **given: P.kwargs) -> R:
        record = make(*args, **given)
        record.order = list(given.keys())
        record.order.insert(1, "version")  # after the status
        return record

    return made


written = _in_order(Record)
"""A new record: :class:`Record` by keywords, whose file has its keys in the order given here."""

probed = _in_order(ProbeRecord)
"""A new record of probes, likewise."""


def write_record(folder: Path, record: Recorded) -> None:
    """Write a record into its folder, whole or not at all; the record then knows the folder."""
    write_json(folder / RECORD, record.to_json())
    record.folder = folder


def read_record(folder: Path) -> Record | None:
    """The record of a run's folder; None when it has not ended yet.

    Raises:
        DataError: when the file is damaged, or newer than this serzoo.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record = Record.from_json(read_json(path, remedy=AGAIN), path)
    record.folder = folder
    return record


def read_plan(folder: Path) -> dict[str, Any]:
    """A suite's plan.

    Raises:
        ComparisonError: when there is none, or it is damaged.
    """
    path = folder / "suite.json"
    if not path.is_file():
        raise ComparisonError(
            f"no comparison in {folder}; run `serzoo compare {folder.name}` first"
        )
    remedy = "the same `serzoo compare` writes it anew, and runs no finished cell again"
    plan: dict[str, Any] = read_json(path, ComparisonError, remedy=remedy)
    for key, kind in (("cells", list), ("title", str), ("baseline", str)):
        if not isinstance(plan.get(key), kind):
            raise ComparisonError(f"{path} is damaged ({key} is {plan.get(key)!r}); {remedy}")
    if not all(isinstance(cell, str) for cell in plan["cells"]):
        raise ComparisonError(f"{path} is damaged (not all cells are names); {remedy}")
    return plan


def finished(folder: Path) -> bool:
    """Whether a run ended well."""
    record = read_record(folder)
    return record is not None and record.ok


def environment() -> dict[str, Any]:
    """Versions, code state and machine."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git": git_state(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
    }


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this code runs from and whether it was changed; None outside one."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *args], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if "site-packages" in here.parts:
            return None
        changed = git("status", "--porcelain", "--", "zoo", "heads", "datamodules", "configs")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def count_parameters(module: Any) -> dict[str, int]:
    """Trainable, stored (in a checkpoint) and total numbers of weights, and the head's share."""
    frozen = module.frozen_keys()
    named = list(module.named_parameters())
    return {
        "trainable": sum(p.numel() for _, p in named if p.requires_grad),
        "stored": sum(p.numel() for n, p in named if n not in frozen),
        "total": sum(p.numel() for _, p in named),
        "head": sum(p.numel() for p in module.head.parameters()),
        "head_trainable": sum(p.numel() for p in module.head.parameters() if p.requires_grad),
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` to ``{"a.b": 1}``; lists become text. What HPARAMS can show."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, (list, tuple)):
            flat[prefix + key] = str(value)
        else:
            flat[prefix + key] = value
    return flat


# Attributes of utterances, which are kept beside the predictions.

UTTERANCES = "utterances.jsonl"
ATTRIBUTES = ("gender", "language", "seconds")
Attributes = dict[str, dict[str, Any]]


def attributes_of(utterances: Iterable[Any]) -> Attributes:
    """What sub-groups are made of, for each id of a manifest; ``seconds`` is a float.

    If the clusters of its corpus are no speakers, ``session`` or ``dialogue`` is there, too.
    """
    from ...datamodules.info import cluster_of

    found: Attributes = {}
    for u in utterances:
        kind, name = cluster_of(u)
        found[u.id] = {
            "gender": u.gender,
            "language": u.language,
            "seconds": round(float(u.end - u.start), 3),
            **({} if kind == "speaker" else {kind: name or None}),
        }
    return found


def write_attributes(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """One line per utterance, sorted by id; the file appears complete or not at all."""
    lines = (json.dumps({"id": i, **rows[i]}, ensure_ascii=False) for i in sorted(rows))
    with new_file(path) as draft:
        draft.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def of_table(ids: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> Attributes:
    """Attributes by the ids of a pooled table (``id#seed``); ids without any are left out."""
    found: Attributes = {}
    for name in ids:
        row = known.get(name) or known.get(name.rpartition("#")[0])
        if row is not None:
            found[name] = dict(row)
    return found


# Lines that the terminal shows after a training and an evaluation.


def trained(cfg: RunConfig, entry: Record, folder: Path) -> list[str]:
    """Lines on the record of a finished run.

    Args:
        cfg: the run.
        entry: its record.
        folder: where that is kept.
    """
    called = f"{cfg.called} on {', '.join(cfg.corpus)}"
    if not entry.metrics:
        return [
            f"{called}: trained; nothing was validated or tested",
            f"record, checkpoints, TensorBoard: {folder}",
        ]
    m = entry.metrics
    return [
        f"{called}, fold {cfg.fold}: "
        f"test UAR {m['uar']:.3f} {interval_text(m)}, WA {m['wa']:.3f}, macro-F1 {m['f1']:.3f}",
        *unsure_lines(entry.unsure),
        *left_out(entry.counts, entry.notes),
        f"record, predictions, checkpoints, TensorBoard: {folder}",
    ]


def evaluated(table: PredictionTable, numbers: Mapping[str, Any]) -> list[str]:
    """Lines on what :func:`serzoo.zoo.run.score.evaluate` returns."""
    lines, m = [], numbers["metrics"]
    if c := numbers.get("condition"):
        lines.append(
            f"condition {c['name']}: {c['scaled']} of {c['utterances']} utterances were scaled "
            "down to stay in range"
        )
    lines.append(
        f"{len(table)} utterances: UAR {m['uar']:.3f} {interval_text(m)}, WA {m['wa']:.3f}, "
        f"macro-F1 {m['f1']:.3f}"
    )
    lines += [f"  recall of {name}: {recall:.3f}" for name, recall in table.recalls().items()]
    if absent := m["absent"]:
        lines.append(f"  absent from the reference: {', '.join(absent)}")
    if found := numbers.get("calibration"):
        lines.append(calibration_line(found))
    if votes := m.get("votes"):
        lines.append(
            f"  against the votes of raters ({votes['n']} utterances): cross-entropy "
            f"{votes['cross_entropy']:.3f} nats (the votes' own entropy {votes['entropy']:.3f}), "
            f"Jensen-Shannon {votes['jensen_shannon']:.3f}, right by any rater "
            f"{votes['any_rater_accuracy']:.3f}"
        )
    if shift := numbers.get("label_shift"):
        lines += matched_lines(shift)
    if found := numbers.get("open_labels"):
        for part in ("seen", "unseen", "among_unseen"):
            if v := found[part]:
                classes = ", ".join(found[f"{part.removeprefix('among_')}_classes"])
                lines.append(
                    f"  {part.replace('_', ' ')} ({classes}): mean recall {v['value']:.3f} "
                    f"{interval_text(v)}, chance "
                    f"{v.get('chance', found['chance']):.3f}"
                )
    if heard := numbers["speakers_heard"]:
        lines.append(
            f"  {len(heard)} speakers were heard in training: this is no test on new speakers"
        )
    data = numbers.get("data") or {}
    if unsure := numbers.get("speakers_unsure"):
        accepted = data.get("unknown_speakers") == ACCEPT
        lines.append(
            "  cannot tell whether training heard these speakers: not every speaker of "
            f"{', '.join(unsure)} is known" + (" (unknown_speakers=accept)" if accepted else "")
        )
    return lines + left_out(data.get("counts") or {}, data.get("notes") or {})


def calibration_line(found: Mapping[str, Any]) -> str:
    """A line on the numbers of :func:`serzoo.zoo.run.score.calibrated`."""
    t, span = found["temperature"], found["interval"]
    how = "no temperature was fitted" if t is None else f"at temperature {t:.2f}"
    told = f"95 % interval {span[0]:.3f} to {span[1]:.3f}" if span else found["note"]
    prior = "a uniform class prior" if found["prior"] == "uniform" else "the shares of training"
    return (
        f"  calibration error {found['error']:.3f} ({told}; {how}); probabilities are for {prior}"
    )


def matched_lines(shift: Mapping[str, Any]) -> list[str]:
    """Lines on the numbers of :func:`serzoo.zoo.statistics.priors.label_shift`."""
    weights = list(shift["prior"].values())
    named = ", ".join(f"{name} {p:.2f}" for name, p in shift["prior"].items())
    prior = "a uniform prior" if max(weights) == min(weights) else f"the prior {named}"
    lines = [f"  matched to {prior} ({shift['note']}):"]
    for part, words in (("matched", "each corpus"), ("per_speaker", "each speaker")):
        m = shift[part]
        lines.append(
            f"    {words}: not made, {shift['why']}"
            if m is None
            else f"    {words}: UAR {m['uar']:.3f} (plain {shift['plain']['uar']:.3f}), "
            f"WA {m['wa']:.3f}, macro-F1 {m['f1']:.3f}"
        )
    return lines


def left_out(counts: Mapping[str, Any], notes: Mapping[str, Any]) -> list[str]:
    """Lines on utterances that are in no number, or not whole, and why; none if all are.

    Args:
        counts: of the data module, as a record holds them.
        notes: of the corpora, likewise.
    """
    lines = []
    if dropped := counts.get("left_out_by_taxonomy"):
        lines.append(f"  left out, in no class of the taxonomy: {_counted(dropped)}")
    for corpus, found in notes.items():
        if refused := found.get("refused"):
            lines.append(f"  refused when {corpus} was prepared: {_counted(refused)}")
    if cut := counts.get("cut_to_max_seconds"):
        lines.append(f"  cut to data.max_seconds: {cut} utterances")
    return lines


def unsure_lines(unsure: Iterable[str]) -> list[str]:
    """Lines on what the audit of a split could not tell; none if it could tell everything."""
    return [f"  cannot tell {text}" for text in unsure]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def read_attributes(folder: Path, cells: Sequence[str]) -> Attributes:
    """What a suite's folder and its cells hold; empty for records of before there were such.

    Raises:
        DataError: with the file and the line that cannot be used.
    """
    found: Attributes = {}
    for path in (folder / UTTERANCES, *(folder / "cells" / name / UTTERANCES for name in cells)):
        if not path.is_file():
            continue
        remedy = "remove the file and use --attributes, which takes them from the corpora"
        for number, row in json_lines(path, remedy=remedy, what=("an utterance", "utterances")):
            if "id" not in row:
                raise DataError(f"{path}, line {number}: not an utterance, it has no id; {remedy}")
            found[str(row.pop("id"))] = row
    return found
