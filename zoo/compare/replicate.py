"""`serzoo replicate`: a paper's claim, and whether records confirm it, refute it, or cannot tell.

A claim is a YAML file (:class:`Claim`). It names a suite, two heads of it, a direction and the
smallest difference that matters. Every table of the suite with both heads gets one question, and
one for each control. They are one family for each corpus (:mod:`..report.answers`).
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..core.errors import ConfigError, suggest
from ..core.files import read_text
from ..core.shipped import names
from ..core.table import Line, Table, cell, span_cell
from ..report.answers import Answered, Asked, Question, ask, between, mean_metric
from ..report.grids import Grid, grids
from ..report.runs import find_cells
from ..run.config import read_group, read_mapping, read_suite
from ..run.record import environment
from ..run.schema import METRIC_KEYS, Flag, Positive, one_of, read_as
from ..statistics.contrasts import influences
from ..statistics.planning import MOST, trainings_for
from ..statistics.rates import METRICS

CONFIRMED, REFUTED, UNKNOWN = "confirmed", "refuted", "cannot tell"
DIRECTIONS = ("better", "worse", "equivalent")
THE_CLAIM = "claim"


@dataclass(frozen=True)
class Claim:
    """A claim of a paper; :func:`..run.config.read_as` checks it.

    Attributes:
        title: one line.
        paper: where it is from.
        says: the claim in words.
        refuted_by: what would refute the claim, in words.
        suite: the suite that can tell, by its name or YAML file.
        head: the head that the claim is about.
        against: the head that it is compared with.
        direction: ``better``, ``worse`` or ``equivalent``.
        size: smallest difference that matters, in units of the metric. For ``equivalent`` the
            largest that does not.
        relative: whether ``size`` is a share of the other head's metric.
        metric: ``uar``, ``wa`` or ``macro_f1``.
        corpora: tested corpora; empty = all of the suite.
        condition: whole words that the name of a table has to contain, such as ``4 shots``.
        controls: heads that the head must also be better than, each with the reason.
        settings: settings of the suite, as on the command line of ``serzoo compare``.
    """

    title: str
    paper: str
    says: str
    refuted_by: str
    suite: str
    head: str
    against: str
    direction: Annotated[str, one_of(*DIRECTIONS)]
    size: Positive
    relative: Flag = False
    metric: Annotated[str, one_of(*METRIC_KEYS)] = "uar"
    corpora: list[str] = field(default_factory=list)
    condition: str = ""
    controls: dict[str, str] = field(default_factory=dict)
    settings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Told:
    """What the records say about one question.

    Attributes:
        table: name of the table.
        corpora: its tested corpora.
        than: the other head.
        control: why the question is asked, if the other head is a control; or "".
        size: smallest difference that matters here.
        value: the head's metric minus the other's.
        low: lower bound of the family's interval; None if there is no interval.
        high: upper bound.
        basis: what the interval is for: ``new trainings`` or ``these models``.
        answer: ``confirmed``, ``refuted`` or ``cannot tell``.
        detectable: smallest difference that these cells find with power 0.8; None if none.
        trainings: number of trainings.
        needed: fewest trainings that would find ``size``; None if 20 would not, or nothing is
            known of the spread over trainings.
        note: remarks on the interval.
    """

    table: str
    corpora: list[str]
    than: str
    control: str
    size: float
    value: float | None
    low: float | None
    high: float | None
    basis: str
    answer: str
    detectable: float | None
    trainings: int
    needed: int | None
    note: str


@dataclass(frozen=True)
class Replication:
    """The answer to a claim.

    Attributes:
        claim: the claim.
        answer: ``confirmed``, ``refuted`` or ``cannot tell``.
        why: the reason in a sentence.
        plan: what to run so that it can be told, or why these speakers cannot.
        command: the command that runs it, or "".
        records: folder that was read.
        told: a row for each question.
    """

    claim: Claim
    answer: str
    why: str
    plan: str
    command: str
    records: str
    told: list[Told]

    def to_json(self) -> dict[str, Any]:
        """Return the content of the record: plain containers, with the versions in use."""
        return {"kind": "replication", **asdict(self), **environment()}


def read_claim(name: str) -> Claim:
    """Return a shipped claim, or that of a YAML file.

    Raises:
        ConfigError: if there is no such claim, or a key or value is wrong.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        if not Path(name).is_file():
            raise ConfigError(f"no claim file {name}; shipped claims: {', '.join(names('claim'))}")
        values = read_mapping(read_text(Path(name), ConfigError), name)
    else:
        values = read_group("claim", name)
    lacking = [key for key in list(Claim.__dataclass_fields__)[:9] if values.get(key) is None]
    if lacking:
        raise ConfigError(f"the claim '{name}' lacks {', '.join(lacking)}; give each a value")
    claim = read_as(Claim, values)
    if Path(claim.suite).suffix not in (".yaml", ".yml") and claim.suite not in names("suite"):
        raise ConfigError(
            f"the claim '{name}' is about the suite '{claim.suite}', which does not exist"
            f"{suggest(claim.suite, names('suite'))}; or give a suite's YAML file"
        )
    if twice := [h for h in (claim.against, *claim.controls) if h == claim.head]:
        raise ConfigError(f"the claim '{name}' compares {twice[0]} with itself; name another head")
    return claim


def replicate(claim: Claim, records: str | Path) -> Replication:
    """Answer a claim from the records of its suite.

    Args:
        claim: the claim.
        records: folder of a suite, or of a packed one.

    Raises:
        DataError: if a packed suite is damaged.
    """
    folder = Path(records)
    cells = find_cells(folder) if folder.is_dir() else None
    rows = {claim.head, claim.against, *claim.controls}
    # without other heads, no cell is left out for their sake
    made = grids([r for r in cells.runs if r.head in rows])[0] if cells is not None else []
    chosen = [g for g in made if _asked_about(claim, g)]
    command = _command(claim)
    lacking = _lacking(claim, folder, made, chosen)
    usable = [g for g in chosen if {claim.head, claim.against} <= set(g.runs)]
    if not usable:
        plan = f"run {command}; its cells and time: the same with --dry-run"
        return Replication(claim, UNKNOWN, lacking, plan, command, str(folder), [])
    told = _told(claim, usable)
    return _concluded(claim, told, lacking, command, str(folder))


def _asked_about(claim: Claim, grid: Grid) -> bool:
    if claim.corpora and not set(grid.corpora) & set(claim.corpora):
        return False
    whole = rf"(?<![\w.]){re.escape(claim.condition)}(?![\w.])"  # 4 shots are not 64 shots
    return not claim.condition or re.search(whole, grid.name) is not None


def _lacking(claim: Claim, folder: Path, made: Sequence[Grid], chosen: Sequence[Grid]) -> str:
    """Return what the records lack for the claim, or ""."""
    if not folder.is_dir():
        return f"no such folder: {folder}"
    if not made:
        return f"{folder} holds no table"
    tested = {c for g in chosen for c in g.corpora}
    if gone := [c for c in claim.corpora if c not in tested]:
        return f"{folder} has no table of {', '.join(gone)}"
    if not chosen:
        return f"no table of {folder} is called '{claim.condition}'"
    heads = [claim.head, claim.against, *claim.controls]
    if gone := [h for h in heads if not any(h in g.runs for g in chosen)]:
        have = sorted({h for g in chosen for h in g.runs})
        return f"{folder} has no row of {', '.join(gone)}{suggest(gone[0], have)}"
    return ""


def _told(claim: Claim, made: Sequence[Grid]) -> list[Told]:
    asked = Asked(claim.against, margin=claim.size, metric=claim.metric)
    others = {claim.against: "", **claim.controls}
    pairs = [(grid, other) for grid in made for other in others if other in grid.runs]
    questions = [
        Question((grid.name, other), grid, between(grid, claim.head, other), declared=True)
        for grid, other in pairs
    ]
    found = ask(questions, asked)
    out = []
    for question, (grid, other) in zip(questions, pairs, strict=True):
        answered = found[question.key]
        theirs = mean_metric(grid.totals(other), claim.metric)
        size = claim.size * theirs if claim.relative else claim.size
        span = answered.new if answered.basis == "new trainings" else answered.these
        pilot = influences(question.contrast, METRICS[claim.metric])
        out.append(
            Told(
                grid.name,
                grid.corpora,
                other,
                others[other],
                size,
                _known(answered.value),
                _known(span.low_family),
                _known(span.high_family),
                answered.basis,
                _answer("better" if others[other] else claim.direction, answered, size),
                _known(answered.detectable),
                len(pilot),
                trainings_for(pilot, size, family=answered.family),
                answered.note,
            )
        )
    return out


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _answer(direction: str, answered: Answered, size: float) -> str:
    """Return what an interval says about a difference of at least, or at most, a size.

    ``better`` is confirmed if the interval is above 0 and reaches the size. It is refuted if the
    interval is below the size. ``equivalent`` is confirmed if the interval is within the size on
    both sides, and refuted if it is outside. Rows with the same predictions are equivalent.
    """
    if answered.verdict == "identical":
        return CONFIRMED if direction == "equivalent" else REFUTED
    span = answered.new if answered.basis == "new trainings" else answered.these
    low, high = span.low_family, span.high_family
    if math.isnan(low) or math.isnan(high):
        return UNKNOWN
    if direction == "worse":
        low, high = -high, -low
    if direction == "equivalent":
        if -size <= low and high <= size:
            return CONFIRMED
        return REFUTED if low > size or high < -size else UNKNOWN
    if high < size:
        return REFUTED
    return CONFIRMED if low > 0 else UNKNOWN


def _concluded(
    claim: Claim, told: list[Told], lacking: str, command: str, records: str
) -> Replication:
    """Return the answer of all questions together: each must confirm, and one refutes."""
    refuted = [t for t in told if t.answer == REFUTED]
    open_ = [t for t in told if t.answer == UNKNOWN]
    if refuted:
        answer = REFUTED
        why = "; ".join(f"{t.table}: {claim.head} against {t.than}" for t in refuted)
    elif open_ or lacking:
        answer = UNKNOWN
        tables = [f"{t.table}, against {t.than}" for t in open_]
        why = "; ".join([*filter(None, [lacking]), *tables])
    else:
        answer, why = CONFIRMED, f"in all of {len(told)} comparisons"
    plan = ""
    if answer == UNKNOWN:
        cannot = [t for t in open_ if t.needed is None]
        if cannot:
            alone = any(t.trainings < 2 for t in cannot)
            plan = "; ".join(
                f"{t.table}, against {t.than}: "
                + (
                    "needs two trainings or more to be planned"
                    if t.trainings < 2
                    else f"these speakers cannot tell {t.size:.3f} with {MOST} trainings"
                )
                for t in cannot
            )
            command = command if alone else ""
        else:
            most = max([t.needed or 2 for t in open_], default=5)
            seeds = ",".join(str(i + 1) for i in range(most))
            # adaptations repeat draws of their support, and not trainings
            key = "draw" if "shots" in read_suite(claim.suite) else "seed"
            command = f"{command} {shlex.quote(f'{key}=[{seeds}]')}" if open_ else command
            plan = f"run {command}"
            if open_:
                plan += f": {most} {key}s find the size with power 0.8"
    else:
        command = ""
    return Replication(claim, answer, why, plan, command, records, told)


def settings(claim: Claim) -> list[str]:
    """Return the settings of the claim's suite: its own, and only the heads that are asked about.

    Heads after a pre-training are named by it, and not in the suite, so all heads stay then.
    """
    heads = list(dict.fromkeys([claim.against, claim.head, *claim.controls]))
    named = any(s.startswith("head=") for s in claim.settings)
    if named or any(" after " in head for head in heads):
        return claim.settings
    return [f"head=[{','.join(heads)}]", *claim.settings]


def _command(claim: Claim) -> str:
    return shlex.join(["serzoo", "compare", claim.suite, *settings(claim)])


def table(found: Replication) -> Table:
    """Return a row for each question of a claim."""
    rows: list[Line] = [
        [
            t.table,
            t.than + (f" (control: {t.control})" if t.control else ""),
            cell(t.size),
            cell(t.value, "+.3f"),
            span_cell(t.low, t.high, "+.3f"),
            cell(t.detectable),
            t.answer,
        ]
        for t in found.told
    ]
    columns = ("table", "against", "size", "difference", "95 % interval", "detectable", "answer")
    return Table(found.claim.title, columns, rows)


def lines(found: Replication) -> list[str]:
    """Return the lines that the terminal shows below the table."""
    claim = found.claim
    shown = [f"claim ({claim.paper}): {claim.says}", f"refuted by: {claim.refuted_by}"]
    shown.append(f"answer: {found.answer}" + (f" ({found.why})" if found.why else ""))
    return [*shown, *([f"plan: {found.plan}"] if found.plan else []), f"read: {found.records}"]
