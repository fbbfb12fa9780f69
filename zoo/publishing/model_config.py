"""``config.json`` of a saved model: how to build it, and what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checkpoint, registry
from ..config import RunConfig
from ..errors import CheckpointError, ConfigError
from ..text import read_json
from ..types import SAMPLE_RATE

if TYPE_CHECKING:
    from ..module import SERModule

FORMAT = 1
CONFIG = "config.json"

TRAINING = ("corpus", "protocol", "fold", "taxonomy", "seed", "data", "optim", "trainer")
"""Of the run's configuration, besides encoder and head; without folders of the user's machine."""

KEYS: dict[str, type | tuple[type, ...]] = {
    "serzoo": str,
    "classes": list,
    "temperature": (float, int, type(None)),
    "encoder": dict,
    "published": dict,
    "head": dict,
    "taxonomy": dict,
    "taxonomy_fingerprint": str,
    "preprocessing": dict,
    "fingerprint": str,
    "data": (dict, type(None)),
    "training": dict,
}
"""What it holds besides ``library`` and ``format``."""


def describe(module: SERModule, record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of ``config.json``.

    Args:
        module: one that a configuration was trained to.
        record: of its run, for the temperature, where the module does not know it.

    Raises:
        CheckpointError: when the module does not say how it was built.
    """
    meta = module.described()
    if own := meta.get("own"):
        raise CheckpointError(
            "; ".join(f"the {part} is {what}" for part, what in own.items())
            + ", which nobody else could build by a registered name; register its class (an entry "
            "point in the group serzoo.heads or serzoo.encoders)"
        )
    if lacking := [k for k in ("config", "taxonomy", "taxonomy_fingerprint") if k not in meta]:
        raise CheckpointError(
            f"the module does not say how it was built (no {', '.join(lacking)} in its metadata); "
            "save the folder of a run of `serzoo train`, or build it by "
            "serzoo.zoo.training.building.build with that metadata"
        )
    cfg = RunConfig.from_dict(meta["config"])
    identity = cfg.identity
    options = identity["data"]["options"]
    for key, value in options.items():  # a reader's table, say
        if isinstance(value, str) and Path(value).expanduser().is_absolute():
            options[key] = Path(value).name
    temperature = module.temperature
    if temperature is None and record is not None and record.get("kind") != "adaptation":
        temperature = (record.get("metrics") or {}).get("temperature")
    return {
        "library": "serzoo",
        "format": FORMAT,
        "serzoo": version("serzoo"),
        "classes": module.head.taxonomy.classes,
        "temperature": temperature,
        "encoder": cfg.encoder,
        "published": checkpoint.published_parts(module),
        "head": cfg.head,
        "taxonomy": meta["taxonomy"],
        "taxonomy_fingerprint": meta["taxonomy_fingerprint"],
        "preprocessing": {
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "max_seconds": cfg.data.max_seconds,
            "normalise_from": module.encoder.describe().get("normalise_from"),
            "extraction": _extraction(module),
        },
        "fingerprint": meta.get("fingerprint") or cfg.fingerprint,
        "widened_from": meta.get("widened_from"),
        "adapted": meta.get("adapted"),
        "origin": meta.get("origin"),
        "weak_labels": meta.get("weak_labels"),
        "data": meta.get("data"),
        "speakers": meta.get("speakers"),
        "training": {key: identity[key] for key in TRAINING} | {"head_name": cfg.called},
    }


def read(folder: Path) -> dict[str, Any]:
    """The checked content of a saved folder's ``config.json``.

    Raises:
        CheckpointError: when it is missing, damaged, not ours, of another format, or asks for
            code or for something that is not installed.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {CONFIG}; give a folder that `serzoo save` wrote, or fetch it again"
        )
    config: dict[str, Any] = read_json(path, CheckpointError, remedy="fetch or save it again")
    if config.get("library") != "serzoo":
        raise CheckpointError(
            f"{path} was not written by `serzoo save`; give a folder that was, or a run's folder "
            "with checkpoints/best.ckpt"
        )
    if config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} has format {config.get('format')!r} (of serzoo {config.get('serzoo')}), this "
            f"serzoo {version('serzoo')} reads {FORMAT}; install the serzoo that wrote it"
        )
    wrong = [k for k, kind in KEYS.items() if not isinstance(config.get(k, ...), kind)]
    if wrong:
        raise CheckpointError(
            f"{path} lacks {', '.join(wrong)}, or holds something else there; fetch or save it "
            "again"
        )
    _check_parts(config, path)
    return config


def _check_parts(config: Mapping[str, Any], path: Path) -> None:
    parts: tuple[tuple[registry.Kind, str], ...] = (("encoders", "encoder"), ("heads", "head"))
    for kind, part in parts:
        name = config[part].get("type")
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            raise CheckpointError(
                f"{path} asks for {part} '{name}', which is no registered name; a saved model "
                "names its parts and never code to import, so that nothing was imported"
            )
        options = {k: v for k, v in config[part].items() if k != "type"}
        try:
            registry.check_options(kind, name, options)
        except ConfigError as error:
            raise CheckpointError(
                f"{path}: {error}; install the serzoo ({config['serzoo']}), or the package, that "
                "knows it"
            ) from error


def check_preprocessing(config: Mapping[str, Any], module: SERModule, path: str | Path) -> None:
    """Refuse an encoder that would prepare audio otherwise than in training.

    Raises:
        CheckpointError: naming the first difference.
    """
    trained, here = config["preprocessing"].get("extraction"), _extraction(module)
    for key in sorted(set(trained or {}) & set(here or {})):
        if trained[key] != here[key]:  # type: ignore[index]  # neither is None
            raise CheckpointError(
                f"{path} was trained with {key}={trained[key]} in its encoder's preprocessing, "
                f"but it would now be {here[key]}; "  # type: ignore[index]
                "give the published encoder's whole folder, with preprocessor_config.json"
            )


def _extraction(module: SERModule) -> dict[str, Any] | None:
    try:
        about = module.encoder.extraction()
    except TypeError:  # an encoder that cannot be stored, and so cannot be compared either
        return None
    return dict(json.loads(json.dumps(about)))
