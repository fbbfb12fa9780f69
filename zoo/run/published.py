"""Load a saved model: a folder that `serzoo save` wrote, or the hub id of one.

``config.json`` says how to build the model and what it was trained on. ``model.safetensors`` holds
the trained weights only. ``adapter/`` holds the LoRA adapters in the layout of peft. No file holds
code, and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..core import registry
from ..core.earlier import upgraded
from ..core.errors import CheckpointError, ConfigError, SerzooError, first_line
from ..core.files import read_json
from ..core.weights import check_keys, strip_frozen
from . import checkpoint

if TYPE_CHECKING:
    from .module import SERModule

ADAPTER_FOLDER = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_OURS = re.compile(r"^encoder\.backbone\.(.+\.lora_(?:A|B|magnitude_vector))\.default\.weight$")
_PEFTS = re.compile(r"^base_model\.model\.(.+\.lora_(?:A\.weight|B\.weight|magnitude_vector))$")
FORMAT = 1
CONFIG = "config.json"
TRAINING = ("corpus", "protocol", "fold", "taxonomy", "seed", "data", "optim", "trainer")
"""The keys of a run's configuration that are kept, besides encoder and head."""
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
"""The required keys of ``config.json`` and their types, besides ``library`` and ``format``."""
WEIGHTS = "model.safetensors"
CARD = "README.md"
ADAPTER = f"{ADAPTER_FOLDER}/{ADAPTER_WEIGHTS}"
FILES = (CONFIG, WEIGHTS, CARD, ADAPTER, f"{ADAPTER_FOLDER}/adapter_config.json")
"""The files of a saved folder; no other file is uploaded or fetched."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def split(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a module's weights into the LoRA adapters and all others.

    Args:
        weights: tensors by their names in the module.

    Returns:
        The other weights under the same names, and the adapters under the names of peft.
    """
    names = {key: _to_peft(key) for key in weights}
    rest = {key: value for key, value in weights.items() if names[key] is None}
    return rest, {name: weights[key] for key, name in names.items() if name is not None}


def join(rest: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`split`.

    A name that peft does not write is kept, so that :func:`.check_keys` refuses it.
    """
    return {**rest, **{_from_peft(name): value for name, value in adapters.items()}}


def _to_peft(key: str) -> str | None:
    if (found := _OURS.match(key)) is None:
        return None
    stem = found[1]
    # peft keeps magnitudes as bare parameters, for the sake of its older files
    return f"base_model.model.{stem}" + ("" if stem.endswith("magnitude_vector") else ".weight")


def _from_peft(name: str) -> str:
    if (found := _PEFTS.match(name)) is None:
        return name
    return f"encoder.backbone.{found[1].removesuffix('.weight')}.default.weight"


def read(folder: Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Return the checked content of ``config.json``.

    Args:
        folder: a saved folder.
        given: ``encoder`` or ``head``, if the caller has its class; its name need not be
            registered.

    Raises:
        CheckpointError: if the file is missing, damaged, of another library or format, or names
            a part that is not installed.
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
    wrong = [
        f"{key} is {config[key]!r:.60}" if key in config else f"no {key}"
        for key, kind in KEYS.items()
        if not isinstance(config.get(key, ...), kind)
    ]
    if wrong:
        raise CheckpointError(f"{path} is damaged ({', '.join(wrong)}); fetch or save it again")
    config["head"] = upgraded(config["head"])
    _check_parts(config, path, given)
    return config


def _check_parts(config: Mapping[str, Any], path: Path, given: Collection[str]) -> None:
    parts: tuple[tuple[registry.Kind, str], ...] = (("encoders", "encoder"), ("heads", "head"))
    for kind, part in parts:
        name = config[part].get("type")
        if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
            raise CheckpointError(
                f"{path} asks for {part} '{name}', which is not a registered name; a saved model "
                "may not name code, and nothing was imported: fetch or save it again"
            )
        its_authors = part in (config["training"].get("own") or {})
        if part in given or (its_authors and name not in registry.names(kind)):
            continue  # rebuild() checks the class, or asks for it
        options = {k: v for k, v in config[part].items() if k != "type"}
        try:
            registry.check_options(kind, name, options)
        except ConfigError as error:
            raise CheckpointError(
                f"{path}: {error}; install the serzoo ({config['serzoo']}), or the package, that "
                "knows it"
            ) from error


def check_preprocessing(config: Mapping[str, Any], module: SERModule, path: str | Path) -> None:
    """Check that the encoder prepares audio as it did in training.

    Args:
        config: content of ``config.json``.
        module: the model that was built from it.
        path: where it is from, for the message.

    Raises:
        CheckpointError: if it does not; the message names the first difference.
    """
    trained, here = config["preprocessing"].get("extraction"), extraction_of(module)
    for key in sorted(set(trained or {}) & set(here or {})):
        if trained[key] != here[key]:  # type: ignore[index]  # neither is None
            raise CheckpointError(
                f"{path} was trained with {key}={trained[key]} in its encoder's preprocessing, "
                f"but it would now be {here[key]}; "  # type: ignore[index]
                "give the published encoder's whole folder, with preprocessor_config.json"
            )


def extraction_of(module: SERModule) -> dict[str, Any] | None:
    """Return ``encoder.extraction()`` as plain JSON; None if the encoder is not storable.

    If heads get vectors beside the frames, ``utterance`` is the extraction of these.
    """
    beside = module.encoder.utterance
    try:
        about = module.encoder.extraction()
    except TypeError:
        if beside is None:
            return None
        about = {}
    if beside is not None:
        about = {**about, "utterance": beside.extraction()}
    return dict(json.loads(json.dumps(about)))


def is_saved_or_hub_id(path: str | Path) -> bool:
    """Return whether a path is a saved folder, or a hub id that is not a local path."""
    here = Path(path)
    if here.is_dir():
        mine = any((here / name).is_file() for name in (CONFIG, WEIGHTS, "pytorch_model.bin"))
        return mine and not (here / "checkpoints").is_dir()
    is_id = HUB_ID.fullmatch(str(path)) is not None and here.suffix != ".ckpt"
    return is_id and not here.exists() and not here.parent.exists()


def load(
    path: str | Path,
    *,
    kind: type[SERModule],
    revision: str | None = None,
    base: str | None = None,
    **made: Any,
) -> SERModule:
    """Return the trained model of a checkpoint, a run or a saved folder, in evaluation mode.

    Args:
        path: a ``.ckpt`` file, or a run's folder (its best checkpoint). Also a folder that
            ``save_pretrained`` wrote, or the hub id of one.
        kind: class of the module.
        revision: commit, tag or branch of a hub id.
        base: folder or hub id of the published encoder, if the name of the training does not find
            it. Its weights must be the same.
        made: ``encoder`` and ``head``, if their classes are not registered: the class, or an
            instance built as in training. Also the options of :func:`.checkpoint.construct`, and
            ``answering``, options of the head to answer with instead of those of its training.

    Raises:
        ConfigError: if ``answering`` names an option that training used, or a wrong value.
        CheckpointError: if it cannot be read, or does not fit the model that it describes.
    """
    if is_saved_or_hub_id(path):
        return _load_folder(path, revision=revision, base=base, kind=kind, **made)
    if revision is not None:
        raise CheckpointError(
            f"{path} is not a hub id, so it has no revision '{revision}'; leave revision out"
        )
    content = checkpoint.read(path)
    try:
        module = checkpoint.rebuild(content["serzoo"], path, base, kind=kind, **made)
        checkpoint.restore(module, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SerzooError):
            raise
        raise CheckpointError(
            f"{path} does not describe a model that can be built ({type(error).__name__}: {error});"
            " was it changed by hand? train again, or fetch it again"
        ) from error
    module.temperature = checkpoint.temperature_of(path)
    return module.eval()


def _load_folder(
    path: str | Path, *, revision: str | None = None, base: str | None = None, **made: Any
) -> SERModule:
    """Load a saved folder or hub id; see :func:`load`."""
    folder = Path(path)
    if not folder.is_dir():
        folder = _fetched(str(path), revision)
    elif revision is not None:
        raise CheckpointError(
            f"{path} is a folder, so it has no revision '{revision}'; leave revision out"
        )
    config = read(folder, [part for part, what in made.items() if what is not None])
    keys = ("fingerprint", "head", "taxonomy", "taxonomy_fingerprint", "data", "published")
    parts = {"encoder": config["encoder"], "head": config["head"]}
    meta = {**{k: config[k] for k in keys}, "config": {**config["training"], **parts}}
    # folders of older versions lack these
    later = ("speakers", "widened_from", "adapted", "origin", "weak_labels")
    meta |= {key: config.get(key) for key in later}
    try:
        module = checkpoint.rebuild(meta, path, base, **made)
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        if made.get("answering") and isinstance(error, ConfigError):
            raise
        raise CheckpointError(
            f"{folder / CONFIG}: its model cannot be built: {error}; fetch or save it again"
        ) from error
    check_preprocessing(config, module, path)
    weights = read_weights(folder / WEIGHTS)
    own = module.state_dict()
    if split(strip_frozen(own, module.frozen_keys()))[1]:
        weights = join(weights, read_weights(folder / ADAPTER))
    elif (folder / ADAPTER).exists():
        raise CheckpointError(
            f"{path} holds {ADAPTER}, but according to {CONFIG} its encoder is not tuned by LoRA; "
            "fetch or save it again"
        )
    try:
        check_keys(weights, own, module.frozen_keys())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for key, value in weights.items():
        if value.dtype != own[key].dtype:
            raise CheckpointError(
                f"{path}: {key} is stored as {value.dtype}, the model has {own[key].dtype}; a "
                "conversion after saving changes scores: fetch or save the model again"
            )
    module.load_state_dict(weights, strict=False)
    module.temperature = None if config["temperature"] is None else float(config["temperature"])
    return module.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.safetensors`` file by name.

    Raises:
        CheckpointError: if the file is missing, or is not a whole safetensors file.
    """
    if not path.is_file():
        beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        pickles = [p.name for p in beside if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        found = f" (it holds {', '.join(pickles)}; serzoo never unpickles)" if pickles else ""
        raise CheckpointError(
            f"{path.parent} has no {path.name}{found}; fetch or save the model again"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged, cut off, or no safetensors file ({first_line(error)}); fetch or "
            "save the model again"
        ) from error


def _fetched(repo_id: str, revision: str | None) -> Path:
    try:
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        at = f" at revision '{revision}'" if revision else ""
        raise CheckpointError(
            f"there is no folder {repo_id}, and the hub's '{repo_id}'{at} cannot be fetched "
            f"({first_line(error)}); check the spelling and the connection, or give a folder"
        ) from error
    return Path(folder)


def is_local(name: str) -> bool:
    """Whether a published model is named by a folder, which only this machine has."""
    return Path(name).expanduser().is_dir() or name.startswith((".", "/", "~"))
