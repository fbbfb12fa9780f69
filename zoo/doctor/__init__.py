"""`serzoo doctor`: build everything that a run would build, try one step, and report faults.

It writes no record, no checkpoint, no features and no lock file. A corpus that was never opened
before is prepared. Its manifest is kept in the cache, as with every command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console

from ..core import lock
from ..core.errors import ConfigError, SerzooError, suggest
from ..core.table import Cell, Line, Table
from ..run.schema import RunConfig
from . import cost as doctor_cost
from . import data as doctor_data
from . import model as doctor_model
from .findings import LEVELS, Finding, error, note
from .trial import StepFailedError, Trial, brief, undisturbed

Check = Callable[[Trial], Iterable[Finding]]

CHECKS: dict[str, Check] = {
    # in the order of the report
    "corpus": doctor_data.corpus,
    "clip lengths": doctor_data.clip_lengths,
    "sound": doctor_data.sound,
    "sample rates": doctor_data.sample_rates,
    "class coverage": doctor_data.class_coverage,
    "leakage": doctor_data.leakage,
    "published models": doctor_model.published_models,
    "training step": doctor_model.training_step,
    "dead parameters": doctor_model.dead_parameters,
    "labels matter": doctor_model.labels_matter,
    "LoRA effect": doctor_model.lora_effect,
    "batch sensitivity": doctor_model.batch_sensitivity,
    "checkpoint": doctor_model.checkpoint_size,
    "feature store": doctor_cost.feature_store,
    "memory": doctor_cost.memory,
    "time": doctor_cost.duration,
    "windows": doctor_cost.windows,
    "devices": doctor_cost.devices,
    "precision": doctor_cost.precision,
    "workers": doctor_cost.workers,
}


def doctor(
    cfg: RunConfig,
    only: Sequence[str] | None = None,
    report: Callable[[str], None] | None = None,
) -> list[Finding]:
    """Examine a run before it starts, and return the findings.

    Args:
        cfg: the resolved configuration.
        only: names of checks; all of :data:`CHECKS` by default.
        report: called with the name of each check before it begins.

    Returns:
        The findings of each check, in their order; at least one of each.

    Raises:
        SerzooError: if data or model cannot be built at all. The message is that of ``train``, and
            also names every other published model that cannot be read.
    """
    for name in only or ():
        if name not in CHECKS:
            raise ConfigError(f"no check is called '{name}'{suggest(name, CHECKS)}")
    report = report or (lambda name: None)
    with undisturbed(cfg.trainer.threads), lock.unwritten():
        report("data and model")
        try:
            trial = Trial(cfg)
        except SerzooError as problem:
            # a run offline often lacks several things: name all of them at once
            lacking = doctor_model.missing_models(cfg)
            if not (others := [text for text in lacking if text not in str(problem)]):
                raise
            raise ConfigError("\nalso: ".join([str(problem), *others])) from problem
        findings: list[Finding] = []
        for name in only or CHECKS:
            report(name)
            findings += examine(trial, name)
    return findings


def examine(trial: Trial, name: str) -> list[Finding]:
    """Return the findings of one check; if the check itself fails, this is a finding too."""
    try:
        found = list(CHECKS[name](trial))
    except StepFailedError as failed:
        first = name == "training step"
        found = [
            error(f"the first step of training fails: {failed}")
            if first
            else note("not examined, because the training step fails")
        ]
    except Exception as problem:
        found = [error(f"the check itself fails: {brief(problem)}")]
    return [replace(f, name=name) for f in found]


def summary(findings: Sequence[Finding]) -> dict[str, int]:
    """Return the number of findings per level."""
    counts = Counter(f.level for f in findings)
    return {level: counts[level] for level in LEVELS}


def as_dict(cfg: RunConfig, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the content of ``serzoo doctor --json``."""
    return {
        "recipe": cfg.recipe,
        "fingerprint": cfg.fingerprint,
        "summary": summary(findings),
        "findings": [asdict(f) for f in findings],
    }


_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def show(cfg: RunConfig, findings: Sequence[Finding], console: Console) -> None:
    """Print the findings as a table, with their numbers per level."""
    rows: list[Line] = []
    previous = ""
    for f in findings:
        name = "" if f.name == previous else f.name
        previous = f.name
        rows.append([Cell(f.level, style=_COLOURS[f.level]), name, f.message])
    console.print(Table("", ("", "", ""), rows).rich(lines=False))
    counts = summary(findings)
    plural = {"note": "notes", "warning": "warnings", "error": "errors"}
    rest = ", ".join(f"{counts[k]} {s if counts[k] != 1 else k}" for k, s in plural.items())
    checks = len({f.name for f in findings})
    console.print(f"{checks} checks of run {cfg.fingerprint}: {rest}", highlight=False)
