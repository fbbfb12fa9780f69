"""Where imported predictions stand in a comparison, and whether they are of its test utterances."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ComparisonError, DataError, suggest
from ..reporting.cells import Run, find_cells
from ..statistics.metrics import PredictionTable
from .foreign import Foreign, some

Place = tuple[tuple[str, str], int, int]  # table, fold, seed


def places_of(
    folder: Path,
    plan: Mapping[str, Any],
    recipe: str | None,
    encoder: str | None,
    fold: int | None,
    seed: int | None,
    where: Mapping[str, Any] = MappingProxyType({}),
) -> dict[Place, Run]:
    """A finished cell for every table, fold and seed that the rows shall stand in."""
    own = [r for r in find_cells(folder, plan["cells"]).runs if "imported" not in r.record]
    if "condition" not in where and any("corruption" not in r.record for r in own):
        # answers to the audio as it is are none to other audio
        own = [r for r in own if "corruption" not in r.record]
    if not own:
        raise ComparisonError(
            f"{folder} holds no finished cell that says which utterances are tested; run `serzoo "
            f"compare {folder.name}` first"
        )

    def keep(what: str, wanted: Any, of: Any) -> None:
        nonlocal own
        found = sorted({of(run) for run in own})
        if wanted is None:
            return
        if wanted not in found:
            known = suggest(str(wanted), [str(f) for f in found])
            raise ComparisonError(f"{folder} has no finished cell of {what} {wanted}{known}")
        own = [run for run in own if of(run) == wanted]

    keep("recipe", recipe, _stem)
    if len(recipes := sorted({_stem(run) for run in own})) > 1:
        raise ComparisonError(
            f"{folder} compares on {', '.join(recipes)}; say with recipe=NAME which of them these "
            "predictions are for"
        )
    keep("encoder", encoder, lambda run: run.group[1])
    keep("fold", fold, lambda run: run.fold)
    keep("seed", seed, lambda run: run.seed)
    for path, value in where.items():
        keep(path, str(value), partial(_fact, path=path))
    if "condition" not in where and len(tested := sorted({_heard(run) for run in own})) > 1:
        raise ComparisonError(
            f"{folder} tests under several conditions ({', '.join(tested)}), and answers are to "
            "one of them; say with where.condition=NAME to which"
        )
    return {(run.group, run.fold, run.seed): run for run in reversed(own)}


def _fact(run: Run, path: str) -> str:
    """What a record says at ``key.key``; empty where it says nothing."""
    found: Any = run.record
    for key in path.split("."):
        found = found.get(key, "") if isinstance(found, Mapping) else ""
    return str(found)


def _heard(run: Run) -> str:
    """The condition that the test audio was under; empty for audio as it is."""
    return str(run.record["condition"]) if "corruption" in run.record else ""


def _stem(run: Run) -> str:
    return Path(run.record["config"]["recipe"]).stem


def reference_of(places: Mapping[Place, Run]) -> dict[int, PredictionTable]:
    """Ids, speakers and labels of each fold's test part, which all cells agree on."""
    found: dict[int, Run] = {}
    for (_, fold, _), run in sorted(places.items()):
        first = found.setdefault(fold, run)
        if first.record["data"] != run.record["data"] or set(first.table.ids) != set(run.table.ids):
            raise ComparisonError(
                f"{first.name} and {run.name} were not tested on the same utterances; say with "
                "where.KEY=VALUE (of their records) beside which of them these predictions stand, "
                "or, if one is out of date, remove it and compare again"
            )
    return {fold: run.table for fold, run in found.items()}


def split(
    path: Path, given: Foreign, reference: Mapping[int, PredictionTable], fold: int | None
) -> dict[int, PredictionTable]:
    """A table per fold, in the order of the reference, with its labels."""
    home: dict[str, list[int]] = defaultdict(list)
    for k, table in reference.items():
        for i in table.ids:
            home[i].append(k)
    if given.folds is not None:
        folds = given.folds
        if strange := sorted(set(folds) - set(reference)):
            raise DataError(
                f"{path}: folds {', '.join(map(str, strange))} are not finished in the comparison, "
                f"which has {', '.join(map(str, sorted(reference)))}"
            )
    else:
        if fold is None and (several := [i for i, ks in home.items() if len(ks) > 1]):
            raise DataError(
                f"{len(several)} utterances are tested in several folds ({some(several)}); give "
                "fold_column=COLUMN, or a file for each fold with fold=NUMBER"
            )
        folds = [home[i][0] if home.get(i) else -1 for i in given.ids]
    problems = []
    counts = Counter(zip(folds, given.ids, strict=True))
    wanted = {(k, i) for k, table in reference.items() for i in table.ids}
    for what, ids in (
        ("missing", [i for k, i in sorted(wanted) if (k, i) not in counts]),
        ("not among the test utterances", [i for k, i in counts if (k, i) not in wanted]),
        ("there more than once", [i for (_, i), n in counts.items() if n > 1]),
    ):
        if ids:
            problems.append(f"{len(ids)} ids are {what} ({some(ids)})")
    if problems:
        raise DataError(
            f"{path} does not hold each of the {len(wanted)} test utterances once: "
            f"{'; '.join(problems)}. A row is comparable only where all is tested; id_prefix=TEXT "
            "puts the corpus before ids, fold=NUMBER says that a file holds one fold"
        )
    row = {key: n for n, key in enumerate(zip(folds, given.ids, strict=True))}
    return {
        k: PredictionTable(
            list(table.ids),
            list(table.speakers),
            table.labels,
            given.scores[[row[k, i] for i in table.ids]],
            list(table.classes),
        )
        for k, table in reference.items()
    }


def taken(
    folder: Path,
    plan: Mapping[str, Any],
    name: str,
    places: Collection[Place],
    sha: str,
    overwrite: bool,
) -> list[str]:
    """Earlier cells of this name in these places, which are replaced."""
    old = []
    tables = {table for table, _, _ in places}
    for run in find_cells(folder, plan["cells"]).runs:
        if run.head != name or run.group not in tables:
            continue
        found = run.record.get("imported")
        if found is None:
            raise ComparisonError(f"'{name}' is a head of this comparison; choose another name")
        if found["sha256"] != sha and (run.group, run.fold, run.seed) in places:
            if not overwrite:
                raise ComparisonError(
                    f"'{name}' was imported from other predictions ({found['file']}); choose "
                    "another name, or overwrite=true to replace them"
                )
            old.append(run.name)
    return old
