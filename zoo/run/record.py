"""Records of runs: all that is needed to believe, repeat or refuse their numbers."""

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

from ..core.errors import ComparisonError, DataError, SerzooError, counted
from ..core.files import json_lines, read_json, write_json, write_text
from ..core.speakers import ACCEPT
from ..core.table import pandas
from ..statistics.speakers import interval_text
from .schema import RunConfig

if TYPE_CHECKING:
    from ..statistics.table import PredictionTable

RECORD = "record.json"
PLAN = "suite.json"
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
"""What to do with a damaged record."""


@dataclass
class Recorded:
    """The base of all records: the common fields, and how a file is written and read.

    A subclass adds the fields of its kind. Keys without a field are kept in :attr:`more`, and
    :meth:`to_json` writes them beside the fields. They are a caller's own facts, or the ``format``
    of a file that is older than versions.

    Attributes:
        status: ``ok``, or ``failed``; "" in a file that is older than versions and has none.
        version: version of the record; 0 if its file has none.
        more: key to value, for keys without a field.
        order: keys in the order of the file.
        folder: folder of the file; None until it is written. The file does not hold it.
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
        """Return the types that each field of a file may have."""
        return _kinds_of(cls)  # type: ignore[arg-type]  # mypy looks at the hash of instances

    def add(self, found: Mapping[str, Any]) -> Self:
        """Set fields by name, and other keys in :attr:`more`. Return the same record."""
        for key, value in found.items():
            if key in self._kinds():
                setattr(self, key, value)
            else:
                self.more[key] = value
            if key not in self.order:
                self.order.append(key)
        return self

    def pick(self, names: Iterable[str]) -> dict[str, Any]:
        """Return these keys with their values, without those that the file does not have."""
        found = self.to_json()
        return {k: found[k] for k in names if k in found}

    def to_json(self) -> dict[str, Any]:
        """Return the file's content: the keys of :attr:`order`, then all that were set since."""
        kinds = self._kinds()
        known = [f for f in fields(self) if f.name in kinds and f.name != "version"]
        since = [f.name for f in known if getattr(self, f.name) != _default(f)]
        if self.version:  # a record without a version stays without one
            since.append("version")
        keys = dict.fromkeys([*self.order, *since, *self.more])
        return {k: getattr(self, k) if k in kinds else self.more[k] for k in keys}

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` of one row: a column ``a.b`` for each value of the file.

        Lists stay lists. ``pandas.concat`` makes one frame of several records.

        Raises:
            ConfigError: if pandas is not installed.
        """
        return pandas().json_normalize(self.to_json())

    @classmethod
    def from_json(
        cls,
        found: Mapping[str, Any],
        where: object = "the record",
        remedy: str = AGAIN,
        error: type[SerzooError] = DataError,
    ) -> Self:
        """Read a record from the content of its file.

        Args:
            found: the content. Without ``version`` it is older than versions, and counts as 0.
            where: name of the file, for errors.
            remedy: what to do with a damaged file, for errors.
            error: the kind of error to raise if the file is damaged.

        Raises:
            DataError: if the file is newer than this serzoo.
            SerzooError: of the kind ``error``, if a field has a wrong type.
        """
        version = found.get("version", 0)
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise error(f"{where} is of version {version!r}, which is not a number; {remedy}")
        if version > VERSION:
            raise DataError(  # not ``error``: such a file is whole, and must not be written anew
                f"{where} is of version {version}, and this serzoo reads versions up to {VERSION}; "
                "it was written by a newer one: install that"
            )
        known = cls._kinds()
        for key, value in found.items():
            allowed = known.get(key, (object,))
            if not isinstance(value, allowed):
                names = " or ".join(dict.fromkeys(_NAMES[k] for k in allowed))
                text = json.dumps(value, default=str)
                raise error(f"{where} is damaged ({key} is {text[:60]}, and not {names}); {remedy}")
        return cls(version=version).add(found)


@dataclass
class Computed(Recorded):
    """The base of the records of a computation: what it ran with, as :func:`environment` says.

    Attributes:
        versions: versions of Python and of the packages that decide numbers.
        git: commit and state of a checkout; None outside one.
        machine: system, processor and cores.
    """

    versions: dict[str, str | None] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)


@dataclass
class Record(Computed):
    """The ``record.json`` of a run, an adaptation, a test under a condition, or an import.

    A field that a record does not have is empty (``{}``, ``[]``, ``""``) or None.

    Attributes:
        kind: ``adaptation``; "" for all others.
        fingerprint: 10 hexadecimal digits of all that decides the numbers.
        config: the resolved configuration (:class:`.schema.RunConfig`), with its ``recipe``,
            ``fold`` and ``seed``.
        classes: C names, in the order of the scores.
        data: hashes of the ``manifest``, the ``split`` and the ``taxonomy``.
        speakers: ``corpus/speaker`` names of ``train``, ``valid`` and ``test``.
        counts: utterances of each part, and what was left out.
        notes: what was found when each corpus was prepared, by corpus.
        split_notes: what the protocol says about its parts.
        audit: whether the parts share speakers, utterances or recordings.
        selection: ``rule``, ``val/uar`` and ``epoch``; ``val/wa`` or ``val/f1`` if the rule names
            it.
        parameters: numbers of weights: ``trainable``, ``stored``, ``total``, ``head``,
            ``head_trainable``.
        encoder: its description: commit and digest of published weights, and more.
        layer_weights: weights of a learned mix of layers, by layer.
        normalise: how the test part's speakers were normalised, and by how many utterances
            (:class:`..core.normalising.SpeakerNormaliser`); None = they were not.
        origin: the run whose encoder this run started from.
        features: ``stored`` or ``live``.
        feature_store: what the store encoded and reused.
        seconds: on the clock: ``encode``, ``fit``, ``evaluate`` and ``total``.
        processor_seconds: the same parts (:func:`.spent.processor_seconds` says what counts).
        flops: floating-point operations of the whole ``training``, and of ``scoring`` one second
            of speech (:class:`.spent.Tally` says what counts).
        resumed: whether the run was resumed; a text if from an older file: its name and epoch.
        rounds: epochs as the trainer counts them.
        steps: number of the optimiser's steps.
        peak_memory_mb: peak memory of the process, in MiB.
        device: the device, as torch names it.
        processes: number of processes that trained together.
        threads: CPU threads of each process.
        metrics: metrics of the test part (:func:`..statistics.speakers.measure`).
        by_speaker: metrics of the test part by speaker.
        by_corpus: metrics of the test part by corpus.
        valid: metrics of the validation part.
        open_labels: recalls on seen and unseen classes; None if the model was trained on all.
        inference_seconds_per_utterance: measured on the test part.
        axes: values of the free axes of a suite's cell.
        settings: settings that a trial of a search tried.
        search: budget, trials and choice of a search.
        pretraining: the arm of a suite that the cell belongs to.
        condition: rows of the same condition (of the audio, or of adaptation) share a table.
        tested: suite and cell that were tested under the condition.
        corruption: what was done to the test audio.
        same_answers: share of utterances that are answered as in clean audio.
        shots: number of utterances of each class that the model was adapted on.
        draw: seed of the support.
        tuning: what was tuned.
        source: the model that was adapted, or the pre-training whose frozen encoder is used.
        support: digest, counts and speakers of the support.
        adaptation: the options of the adaptation.
        new_classes: classes that the source did not have.
        loss: loss of the first and of the last step.
        forgetting: metrics on the source's test part before and after.
        bytes: sizes of the weights that changed, and of the saved files.
        imported: name, toolkit and file of another toolkit's predictions.
        probabilities: whether the scores are log-probabilities; those of an import may only rank.
        reason: why a cell failed: ``error``, ``memory``, ``search``, ``source``, ...
        error: the error in one line.
        details: the traceback.
        tries: number of attempts.
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
    normalise: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    features: str | None = None
    feature_store: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
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
        """Temperature that was fitted on validation; None without one, as for an import."""
        found = self.metrics.get("temperature")
        return None if found is None else float(found)

    @property
    def unsure(self) -> list[str]:
        """Open questions of the audit of the split; empty in older records."""
        return list((self.audit or {}).get("unsure") or [])


@dataclass
class ProbeRecord(Computed):
    """The ``record.json`` of probes.

    Attributes:
        kind: ``probe``.
        model: the encoder that was probed, and where it is from.
        against: the encoder that it is compared with; None without one.
        data: ``corpora``, ``manifest``, ``protocol``, ``folds``, ``fold``, ``max_seconds``,
            ``rate_from`` and ``speakers``.
        speakers_heard: ``corpus/speaker`` names of the data that the encoder was trained on.
        speakers_unsure: corpora for which this is unknown, since some speakers are unknown.
        quantities: for each quantity its unit, and the R² of each way and model.
        seconds: duration of everything.
    """

    kind: str = "probe"
    model: dict[str, Any] = field(default_factory=dict)
    against: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    speakers_heard: list[str] = field(default_factory=list)
    speakers_unsure: list[str] = field(default_factory=list)
    quantities: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class EvalRecord(Computed):
    """The file that ``serzoo eval record=FILE.json`` writes.

    Attributes:
        kind: ``evaluation``.
        model: ``fingerprint``, ``corpus``, ``protocol``, ``fold``, ``seed``, ``head`` and
            ``taxonomy`` of the model's training. ``answering`` has the options of the head that
            differ from those of its training; they are in ``head``, too.
        data: what was scored: ``corpora``, ``part``, ``manifest`` (a hash), ``taxonomy``,
            ``counts``, ``notes`` and ``unknown_speakers``.
        condition: what was done to the audio; None for clean audio.
        normalise: how speakers were normalised, as in :class:`Record`; None = they were not.
        metrics: metrics of the scored speech (:func:`..statistics.speakers.measure`).
        by_speaker: the same numbers by speaker.
        by_corpus: the same numbers by corpus.
        calibration: calibration error (:func:`.score.calibrated`); None if it was not computed.
        label_shift: plain metrics beside matched ones (:func:`..statistics.priors.label_shift`).
        open_labels: recalls on seen and on unseen classes
            (:func:`..statistics.confidence.open_numbers`); None if the model was trained on
            every class.
        speakers_heard: ``corpus/speaker`` names that the model was trained or selected on. Their
            speech makes no test.
        speakers_unsure: corpora for which this is unknown, since some speakers are unknown.
        seconds: ``evaluate``, on the clock, encoding included.
        processor_seconds: the same (:func:`.spent.processor_seconds` says what counts).
        flops: operations of ``scoring`` one second of speech (:class:`.spent.Tally`).
    """

    kind: str = "evaluation"
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    condition: dict[str, Any] | None = None
    normalise: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    by_speaker: dict[str, Any] = field(default_factory=dict)
    by_corpus: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    label_shift: dict[str, Any] = field(default_factory=dict)
    open_labels: dict[str, Any] | None = None
    speakers_heard: list[str] = field(default_factory=list)
    speakers_unsure: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    processor_seconds: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)


@dataclass
class SuiteRecord(Recorded):
    """The ``suite.json`` of a comparison: the settings and the cells of its suite.

    A suite of conditions has ``of``, ``conditions``, ``noise``, ``rir`` and ``only``. A suite of
    adaptations has ``source``, ``target``, ``head``, ``shots``, ``draw``, ``tuning`` and
    ``options``. Older files lack some fields.

    Attributes:
        name: name of the suite, and of its folder.
        title: one line for people.
        baseline: the head that others are compared to.
        primary: heads whose comparisons to the baseline are declared questions; None = all.
        margin: largest difference that counts as equivalent; None = the default.
        metric: ``uar``, ``wa`` or ``macro_f1``.
        axes: values of each axis, or ``all``.
        overrides: ``key=value`` for every cell.
        match_params: what the sizes of heads were matched to; False = they were not.
        matched: target, parameters and changed options of each head, by table.
        search: the settings that each head tried; None without a search.
        limit_minutes: time that a cell may take; None = no limit.
        pretraining: ``arms`` and ``label`` of the axis of pre-trainings; None without one.
        label: corpus and settings of weak labels.
        of: the suite whose cells were tested.
        conditions: what was done to the test audio, ``clean`` first.
        noise: folder of recorded noises; None = that in ``$SERZOO_DATA``.
        rir: folder of room impulse responses, likewise.
        only: values of the axes that were tested.
        source: the runs that were adapted.
        target: what they were adapted to.
        head: names of the adapted heads.
        shots: numbers of utterances of each class.
        draw: seeds of the supports.
        tuning: parts that were tuned.
        options: all other settings of the adaptations.
        cells: names of all cells, imported ones last.
        calls: ``cells`` and ``seconds`` of each call of `serzoo compare`.
    """

    name: str = ""
    title: str = ""
    baseline: str = ""
    primary: list[str] | None = None
    margin: float | None = None
    metric: str = "uar"
    axes: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    match_params: bool | int | str = False
    matched: list[dict[str, Any]] = field(default_factory=list)
    search: dict[str, Any] | None = None
    limit_minutes: float | None = None
    pretraining: dict[str, Any] | None = None
    label: dict[str, Any] | None = None
    of: str = ""
    conditions: list[str] = field(default_factory=list)
    noise: str | None = None
    rir: str | None = None
    only: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    shots: list[int] = field(default_factory=list)
    draw: list[int] = field(default_factory=list)
    tuning: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    cells: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)


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

evaluation = _in_order(EvalRecord)
"""A new record of an evaluation, likewise."""


planned = _in_order(SuiteRecord)
"""A new plan of a suite, likewise."""


def write_record(folder: Path, record: Recorded) -> None:
    """Write a record into its folder, whole or not at all, and set its ``folder``."""
    write_json(folder / RECORD, record.to_json())
    record.folder = folder


def read_record(folder: Path) -> Record | None:
    """Read the record of a run's folder; None if the run has not ended.

    Raises:
        DataError: if the file is damaged, or newer than this serzoo.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record = Record.from_json(read_json(path, remedy=AGAIN), path)
    record.folder = folder
    return record


def read_plan(folder: Path) -> SuiteRecord:
    """Read the plan of a suite, ``suite.json``.

    Raises:
        ComparisonError: if there is none, or it is damaged.
        DataError: if it is newer than this serzoo.
    """
    path = folder / PLAN
    if not path.is_file():
        raise ComparisonError(
            f"no comparison in {folder}; run `serzoo compare {folder.name}` first"
        )
    remedy = "the same `serzoo compare` writes it anew, and runs no finished cell again"
    found = dict.fromkeys(("cells", "title", "baseline"))  # None, unless the file has them
    found |= read_json(path, ComparisonError, remedy=remedy)
    plan = SuiteRecord.from_json(found, path, remedy, ComparisonError)
    if not all(isinstance(cell, str) for cell in plan.cells):
        raise ComparisonError(f"{path} is damaged (not all cells are names); {remedy}")
    return plan


def write_plan(folder: Path, plan: SuiteRecord) -> None:
    """Write the plan of a suite into its folder, whole or not at all."""
    write_json(folder / PLAN, plan.to_json())


def finished(folder: Path) -> bool:
    """Whether a run ended well."""
    record = read_record(folder)
    return record is not None and record.ok


def environment() -> dict[str, Any]:
    """Return ``versions``, ``git`` and ``machine`` of a record."""
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
    """Return the commit of this checkout, and whether code was changed; None outside a checkout."""
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
    """Return the largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def count_parameters(module: Any) -> dict[str, int]:
    """Return the numbers of weights: trainable, stored in a checkpoint, total, and of the head."""
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
    """Turn ``{"a": {"b": 1}}`` into ``{"a.b": 1}``, and lists into text, for TensorBoard."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, (list, tuple)):
            flat[prefix + key] = str(value)
        else:
            flat[prefix + key] = value
    return flat


# Attributes of utterances, which are written beside the predictions.

UTTERANCES = "utterances.jsonl"
ATTRIBUTES = ("gender", "language", "seconds")
Attributes = dict[str, dict[str, Any]]


def attributes_of(utterances: Iterable[Any]) -> Attributes:
    """Return gender, language and duration in seconds of utterances, by id.

    If the clusters of a corpus are not speakers, ``session`` or ``dialogue`` is there, too.
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
    """Write one line per utterance, sorted by id; the file appears complete or not at all."""
    lines = (json.dumps({"id": i, **rows[i]}, ensure_ascii=False) for i in sorted(rows))
    write_text(path, "".join(f"{line}\n" for line in lines))


def of_table(ids: Iterable[str], known: Mapping[str, Mapping[str, Any]]) -> Attributes:
    """Return attributes by the ids of a pooled table (``id#seed``), without unknown ids."""
    found: Attributes = {}
    for name in ids:
        row = known.get(name) or known.get(name.rpartition("#")[0])
        if row is not None:
            found[name] = dict(row)
    return found


# Lines of the terminal.


def trained_lines(cfg: RunConfig, entry: Record, folder: Path) -> list[str]:
    """Return the lines that the terminal shows after a run.

    Args:
        cfg: configuration of the run.
        entry: record of the run.
        folder: folder of the run.
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
        *normalised_lines(entry.normalise),
        *unsure_lines(entry.unsure),
        *left_out_lines(entry.counts, entry.notes),
        f"record, predictions, checkpoints, TensorBoard: {folder}",
    ]


def evaluated_lines(table: PredictionTable, record: EvalRecord) -> list[str]:
    """Return the lines for a result of :func:`serzoo.zoo.run.score.evaluate`."""
    lines, m = [], record.metrics
    if c := record.condition:
        lines.append(
            f"condition {c['name']}: {c['scaled']} of {c['utterances']} utterances were scaled "
            "down to stay in range"
        )
    lines.append(
        f"{counted(len(table), 'utterance')}: UAR {m['uar']:.3f} {interval_text(m)}, "
        f"WA {m['wa']:.3f}, macro-F1 {m['f1']:.3f}"
    )
    lines += normalised_lines(record.normalise)
    lines += [f"  recall of {name}: {recall:.3f}" for name, recall in table.recalls().items()]
    if absent := m["absent"]:
        lines.append(f"  absent from the reference: {', '.join(absent)}")
    if found := record.calibration:
        lines.append(calibration_line(found))
    if votes := m.get("votes"):
        lines.append(
            f"  against the votes of raters ({counted(votes['n'], 'utterance')}): cross-entropy "
            f"{votes['cross_entropy']:.3f} nats (the votes' own entropy {votes['entropy']:.3f}), "
            f"Jensen-Shannon {votes['jensen_shannon']:.3f}, right by any rater "
            f"{votes['any_rater_accuracy']:.3f}"
        )
    if shift := record.label_shift:
        lines += matched_lines(shift)
    if found := record.open_labels:
        for part in ("seen", "unseen", "among_unseen"):
            if v := found[part]:
                classes = ", ".join(found[f"{part.removeprefix('among_')}_classes"])
                lines.append(
                    f"  {part.replace('_', ' ')} ({classes}): mean recall {v['value']:.3f} "
                    f"{interval_text(v)}, chance "
                    f"{v.get('chance', found['chance']):.3f}"
                )
    if heard := record.speakers_heard:
        lines.append(
            f"  heard in training: {counted(len(heard), 'speaker')}; "
            "this is not a test on new speakers"
        )
    if unsure := record.speakers_unsure:
        accepted = record.data.get("unknown_speakers") == ACCEPT
        lines.append(
            "  it is unknown whether training heard these speakers: not every speaker of "
            f"{', '.join(unsure)} is known" + (" (unknown_speakers=accept)" if accepted else "")
        )
    return lines + left_out_lines(record.data.get("counts") or {}, record.data.get("notes") or {})


def calibration_line(found: Mapping[str, Any]) -> str:
    """A line on the numbers of :func:`serzoo.zoo.run.score.calibrated`."""
    t, span = found["temperature"], found["interval"]
    how = "no temperature was fitted" if t is None else f"at temperature {t:.2f}"
    interval = f"95 % interval {span[0]:.3f} to {span[1]:.3f}" if span else found["note"]
    prior = "a uniform class prior" if found["prior"] == "uniform" else "the shares of training"
    error = f"calibration error {found['error']:.3f} ({interval}; {how})"
    return f"  {error}; probabilities are for {prior}"


def matched_lines(shift: Mapping[str, Any]) -> list[str]:
    """Return the lines for the numbers of :func:`serzoo.zoo.statistics.priors.label_shift`."""
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


def left_out_lines(counts: Mapping[str, Any], notes: Mapping[str, Any]) -> list[str]:
    """Return lines on utterances that were left out or cut, and why.

    Args:
        counts: ``counts`` of a record.
        notes: ``notes`` of a record.
    """
    lines = []
    if dropped := counts.get("left_out_by_taxonomy"):
        lines.append(f"  left out, in no class of the taxonomy: {_counted(dropped)}")
    for corpus, found in notes.items():
        if refused := found.get("refused"):
            lines.append(f"  refused when {corpus} was prepared: {_counted(refused)}")
    if cut := counts.get("cut_to_max_seconds"):
        lines.append(f"  cut to data.max_seconds: {counted(cut, 'utterance')}")
    return lines


def normalised_lines(normalise: Mapping[str, Any] | None) -> list[str]:
    """Return a line on speaker normalisation, of ``normalise`` of a record; none without it."""
    if not normalise:
        return []
    used, people = normalise["utterances_used"], normalise["speakers"]
    text = (
        f"  speakers are normalised (data.normalise={normalise['way']}), by "
        f"{counted(used, 'unlabelled utterance')} of {counted(people, 'speaker')} of this part: "
        "an answer depends on the speaker's other utterances"
    )
    if unknown := normalise["without_speaker"]:
        text += f"; {counted(unknown, 'utterance')} without a speaker use the training mean"
    return [text]


def unsure_lines(unsure: Iterable[str]) -> list[str]:
    """Return lines on what the audit of a split left open."""
    return [f"  it is unknown {text}" for text in unsure]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items())


def read_attributes(folder: Path, cells: Sequence[str]) -> Attributes:
    """Read the attributes that a suite's folder and its cells hold; older folders have none.

    Raises:
        DataError: if a line cannot be used. It names file and line.
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
