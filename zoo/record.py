"""The record of a run: everything needed to believe, repeat or refuse its numbers."""

from __future__ import annotations

import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import ComparisonError
from .swap import new_file
from .text import read_json

RECORD = "record.json"
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


def write_json(path: Path, data: Any) -> None:
    """Write atomically: the file is whole or absent. NaN becomes null."""
    with new_file(path) as draft:
        draft.write_text(json.dumps(_clean(data), indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run's folder; None when it has not ended yet.

    Raises:
        DataError: when the file is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = read_json(path, remedy="remove it, and its run is made again")
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
    return record is not None and record.get("status") == "ok"


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


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # an array, a tensor, or a number out of one
        return _clean(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value
