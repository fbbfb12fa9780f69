"""`serzoo compare import SUITE FILE name=NAME`: its settings, and what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import parse, words
from ..errors import ConfigError, suggest
from .exchange import import_predictions
from .foreign import Columns

COLUMNS = {
    "id": "id",
    "label": "label",
    "fold_column": "fold",
    "prefix": "prefix",
    "id_prefix": "id_prefix",
}
OWN = ("recipe", "encoder", "fold", "seed", "scores", "toolkit", "selection", "fit_seconds")
NUMBERS: dict[str, tuple[type, ...]] = {
    "fold": (int,),
    "seed": (int,),
    "fit_seconds": (int, float),
}
TYPES: dict[str, Any] = {"overwrite": bool, "fold": int, "seed": int, "fit_seconds": float}


def run(arguments: Sequence[str], *, out: str = "runs", dry_run: bool = False) -> int:
    """Check, write, tabulate.

    Args:
        arguments: suite, file, and settings: ``name``; those of
            :func:`.exchange.import_predictions`; ``id``, ``label``, ``prefix`` (of columns of
            scores), ``fold_column``, ``id_prefix``; ``class.THEIRS=OURS``; ``where.KEY=VALUE``.
        out: folder of all runs.
        dry_run: only check.

    Raises:
        ConfigError: naming what is missing or unknown.
    """
    from ..reporting.report import report

    suite, file, given = settings(arguments)
    done = import_predictions(suite, file, **given, out=out, dry_run=dry_run)
    print(
        f"{Path(file).name}: UAR {done.uar:.3f} on {done.utterances} utterances; "
        f"{len(done.cells)} cells {'would be written' if dry_run else 'written'} in {done.folder}"
    )
    for note in done.notes:
        print(f"  {note}")
    if not dry_run:
        report(done.folder)
    return 0


def settings(arguments: Sequence[str]) -> tuple[str, str, dict[str, Any]]:
    """Suite, file, and keywords of :func:`.exchange.import_predictions`."""
    plain = [a for a in arguments if "=" not in a or Path(a).is_file()]
    if len(plain) != 2:
        raise ConfigError(
            f"want `serzoo compare import SUITE FILE name=NAME`, found {len(plain)} of SUITE and "
            f"FILE ({', '.join(plain) or 'none'})"
        )
    values: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    rename: dict[str, str] = {}
    where: dict[str, str] = {}
    for item in arguments:
        if item in plain:
            continue
        ((key, typed),) = words([item])
        ((_, value),) = parse([item], {key: TYPES.get(key, str)})
        text = str(value or "")  # of what is neither flag nor number
        if key.startswith("class."):
            rename[key.removeprefix("class.")] = text
        elif key.startswith("where."):
            where[key.removeprefix("where.")] = text
        elif key in COLUMNS:
            columns[COLUMNS[key]] = text
        elif key == "overwrite":
            if not isinstance(value, bool):
                raise ConfigError(f"overwrite is '{typed}'; have true, false")
            values[key] = value
        elif key in NUMBERS:
            if not isinstance(value, NUMBERS[key]) or isinstance(value, bool):
                raise ConfigError(f"{key} is '{typed}'; give a number")
            values[key] = value
        elif key in ("name", *OWN):
            values[key] = text
        else:
            known = ("name", *OWN, *COLUMNS, "overwrite", "class.THEIRS", "where.KEY")
            raise ConfigError(f"unknown setting '{key}'{suggest(key, known)}")
    if "name" not in values:
        raise ConfigError("what shall the row be called? add name=NAME")
    values |= {"where": where} if where else {}
    return plain[0], plain[1], {**values, "columns": Columns(**columns, rename=rename)}
