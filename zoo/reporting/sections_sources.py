"""The section of a report on what its cells started from."""

from __future__ import annotations

from itertools import combinations

from .page import Cell, Line, Section, Table, Text
from .section import Context, cell
from .sections_rows import amount_of
from .summary import Grid, difference
from .tables import p_text, span

CONTROL = "shuffled"


def started(section: Section, c: Context) -> None:
    """Paired differences between starts, of each head and table."""
    section.intro = (
        "UAR after one start minus that after another, on the same utterances, with the same "
        f"labels and seeds. What is left of a gain against '{CONTROL}' is owed to what the labels "
        "say, not to more speech or more steps. p is not corrected for the number of rows."
    )
    columns = ("head", "after", "minus after", "difference", "95 % interval", "p", "detectable",
               "speakers")  # fmt: skip
    amounts = [amount_of(next(iter(grid.runs.values()))[0]) for grid in c.grids]
    what = {found[1] if found else "table" for found in amounts}
    first = what.pop() if len(what) == 1 else "table"  # said once, not in every row
    body: list[Line] = []
    for grid, amount in zip(c.grids, amounts, strict=True):
        of = grid.name if amount is None else f"{amount[0]:g}"
        if amount is not None and first == "table":
            of = f"{amount[1]}: {of}"
        for head, starts in starts_of(grid).items():
            for one, other in pairs(list(starts)):
                d = difference(grid.pooled[starts[one]], grid.pooled[starts[other]])
                bounds = Cell(span(d["low"], d["high"], "+.3f"), d["low"])
                numbers = [cell(d["value"], "+.3f"), bounds, Cell(p_text(d["p"]), d["p"])]
                numbers += [cell(d["detectable"]), cell(d["n_speakers"], "d")]
                body.append([of, head, one, other, *numbers])
    if body:
        section.parts.append(Table("Differences between starts", (first, *columns), body))
    else:
        section.parts.append(Text("Not applicable: all cells started from new weights."))


def starts_of(grid: Grid) -> dict[str, dict[str, str]]:
    """Of each head that has several starts, the row's name by what it started from."""
    found: dict[str, dict[str, str]] = {}
    for name, runs in grid.runs.items():
        arm = runs[0].record.get("pretraining")
        if arm is not None:
            found.setdefault(name.removesuffix(f" after {arm}"), {})[str(arm)] = name
    return {head: starts for head, starts in found.items() if len(starts) > 1}


def pairs(starts: list[str]) -> list[tuple[str, str]]:
    """Each start against none, then each other against the control, then the rest."""
    ranks = {"none": 0, CONTROL: 1}
    order = sorted(starts, key=lambda s: ranks.get(s, 2))
    return [(b, a) for a, b in combinations(order, 2)]
