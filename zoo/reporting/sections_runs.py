"""Sections of a report about its cells: what was compared, what is missing, what made them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..record import flatten
from .page import Cell, Code, Fold, Part, Section, Table, Text
from .section import Context, cell
from .summary import Grid
from .tables import matching_notes, source_notes


def compared(section: Section, c: Context) -> None:
    """What was compared, and what makes it comparable."""
    section.intro = (
        "The certificate is a hash of the manifest (utterances, labels, speakers, audio), the "
        "split of every fold, the taxonomy and the rule by which an epoch was selected. All heads "
        "of a table share it; cells of different certificates are refused."
    )
    for (recipe, encoder), why in sorted(c.refused.items()):
        section.messages.append(f"No table for {recipe}, {encoder}: {why}.")
    text = f"{len(c.found.runs)} of {len(c.plan['cells'])} cells are finished."
    if axes := c.plan.get("axes"):
        text += f" Compared: {'; '.join(f'{k} {_listed(v)}' for k, v in axes.items())}."
    audited = [r.record["audit"] for r in c.found.runs if r.record.get("audit")]
    if audited:
        passed = sum(bool(a.get("ok")) and not a.get("unsure") for a in audited)
        text += (
            f" In {passed} of {len(audited)} audited cells no speaker, utterance or recording is "
            "in two parts of the fold."
        )
    unsure = Counter(u for a in audited for u in a.get("unsure", ()))
    section.messages.extend(f"Of {n} cells nobody can tell {u}." for u, n in unsure.items())
    section.parts.append(Text(text))
    section.parts.extend(Text(f"{note}.") for note in matching_notes(c.plan.get("matched", [])))
    section.parts.extend(Text(f"{note}.") for note in source_notes(c.plan.get("pretraining")))
    foreign = {r.head: r.record["imported"] for r in c.found.runs if r.record.get("imported")}
    for head, about in foreign.items():
        said = "; ".join(f"{k}: {v}" for k, v in flatten(about).items() if v not in (None, "None"))
        section.parts.append(
            Text(
                f"{head} is a row of another toolkit's predictions of the same utterances. How it "
                f"was trained and selected is what its user says: {said}."
            )
        )
    columns = ("table", "certificate", "manifest", "taxonomy", "folds", "seeds", "utterances",
               "speakers", "rule of selection")  # fmt: skip
    rows = []
    for g in c.grids:
        first, mark = c.row(g, next(iter(g.runs))), g.certificate
        counts = (len(g.folds), len(g.seeds), first["utterances"], first["speakers"])
        rows.append(
            [g.name, mark["hash"], str(mark["manifest"]), str(mark["taxonomy"])]
            + [cell(n, "d") for n in counts]
            + [str(mark["rule"])]
        )
    section.parts.append(Table("Certificates", columns, rows))
    section.parts.extend(_settings(g) for g in c.grids)


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _settings(g: Grid) -> Fold:
    """Hashes of each fold's parts, and what all heads of a table share."""
    splits = {f"fold {fold}": parts for fold, parts in g.certificate["splits"].items()}
    parts = {n: p if isinstance(p, Mapping) else {"all": p} for n, p in splits.items()}
    names = list(next(iter(parts.values())))
    body = [[fold, *(str(of.get(n, "")) for n in names)] for fold, of in parts.items()]
    run = next(iter(g.runs.values()))[0]
    hidden = ("head", "head_name", "fold", "seed")
    config = flatten({k: v for k, v in run.record["config"].items() if k not in hidden})
    shared = {k: v for k, v in config.items() if k not in ("data.root", "trainer.out")}
    classes = ", ".join(next(iter(g.pooled.values())).classes)
    made: list[Part] = [
        Text(f"Classes: {classes}."),
        Table(f"Hashes of the parts: {g.name}", ("fold", *names), body),
        Text("Settings that all heads share:"),
        Code(yaml.safe_dump(shared, sort_keys=False, allow_unicode=True).strip()),
    ]
    return Fold(f"Split and settings: {g.name}", made)


def missing(section: Section, c: Context) -> None:
    """Cells that are not in the tables, and classes that a fold lacks."""
    rows = [[n, "failed", why] for n, why in c.found.failed.items()]
    rows += [[n, "cannot be read", why] for n, why in c.found.broken.items()]
    rows += [[n, "has not run", ""] for n in c.found.missing]
    if rows:
        are = "is" if len(rows) == 1 else "are"
        section.messages.append(
            f"{len(rows)} of {len(c.plan['cells'])} cells {are} in no table. The same `serzoo "
            "compare` runs them again, and no other."
        )
        section.parts.append(Table("Cells without a result", ("cell", "state", "why"), rows))
    else:
        section.parts.append(Text("Every cell of the plan is finished."))
    for g in c.grids:
        for run in {r.fold: r for r in next(iter(g.runs.values()))}.values():
            if absent := run.table.metrics()["absent"]:
                section.messages.append(
                    f"{g.name}, fold {run.fold} tests no {', '.join(absent)}: UAR of that fold is "
                    "the mean over the other classes."
                )


def made_with(section: Section, c: Context) -> None:
    """Command and versions."""
    section.parts.append(Code(command(c.plan, c.folder)))
    records = [r.record for r in c.found.runs]
    packages = dict.fromkeys(n for r in records for n in (r.get("versions") or {}))
    counts = {n: Counter(str((r.get("versions") or {}).get(n)) for r in records) for n in packages}
    counts["code"] = Counter(map(commit, records))
    for key in ("device", "threads", "features"):
        counts[key] = Counter(str(r[key]) for r in records if r.get(key) is not None)
    counts["machine"] = Counter(
        ", ".join(f"{k} {v}" for k, v in r["machine"].items()) for r in records if r.get("machine")
    )
    body = [[name, Cell(_counted(k))] for name, k in counts.items() if k]
    section.parts.append(Table("What the cells were made with", ("what", "value"), body))
    section.parts.append(Text(f"{c.time}."))


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{v} ({n} cells)" for v, n in values.most_common())


def commit(record: Mapping[str, Any]) -> str:
    """Commit of the code that made a cell."""
    git = record.get("git") or {}
    return str(git.get("commit", "unknown"))[:10] + (" with changes" if git.get("changed") else "")


def command(plan: Mapping[str, Any], folder: Path) -> str:
    """The call that makes this comparison, every axis and override written out."""
    words = ["serzoo", "compare", str(plan.get("name", folder.name))]
    for key, value in (plan.get("axes") or {}).items():
        text = f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)
        words.append(f"{key}={text}")
    words += [str(o) for o in plan.get("overrides") or []]
    return " ".join(shlex.quote(w) for w in words)
