"""A trained model as a folder that can be shared: written, read again, and put on the hub.

``config.json`` says how to build the model and what it was trained on, ``model.safetensors`` holds
what was trained and nothing else, ``adapter/`` the LoRA adapters in peft's own layout, and
``README.md`` is the model card. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import create_repo, snapshot_download, upload_folder
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core import registry
from ..core.errors import CheckpointError, ConfigError
from ..core.files import new_folder, read_json, write_json
from ..core.types import SAMPLE_RATE
from . import checkpoint
from .card import model_card
from .config import RunConfig
from .record import read_record

if TYPE_CHECKING:
    from .module import SERModule


# ---- Adapters in peft's own layout: names of weights here and there, and the file of their options.

ADAPTER_FOLDER = "adapter"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_OURS = re.compile(r"^encoder\.backbone\.(.+\.lora_(?:A|B|magnitude_vector))\.default\.weight$")
_PEFTS = re.compile(r"^base_model\.model\.(.+\.lora_(?:A\.weight|B\.weight|magnitude_vector))$")


def split(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A module's weights as all that are no adapters, and the adapters under peft's names."""
    names = {key: _to_peft(key) for key in weights}
    rest = {key: value for key, value in weights.items() if names[key] is None}
    return rest, {name: weights[key] for key, name in names.items() if name is not None}


def join(rest: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of :func:`split`; a name that peft would not write is kept, and so found surplus."""
    return {**rest, **{_from_peft(name): value for name, value in adapters.items()}}


def write_config(config: Any, folder: Path, base: str, revision: str | None) -> None:
    """``adapter_config.json``.

    Args:
        config: of the adapters that were put in.
        folder: where to.
        base: name of the published model that they belong to.
        revision: its commit, tag or branch.
    """
    config = copy.deepcopy(config)
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True  # as peft saves
    config.save_pretrained(str(folder))


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


# ---- ``config.json`` of a saved model: how to build it, and what it was trained on.

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
            "serzoo.zoo.run.build.build with that metadata"
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


# ----

CONFIG, WEIGHTS, CARD = CONFIG, "model.safetensors", "README.md"
ADAPTER = f"{ADAPTER_FOLDER}/{ADAPTER_WEIGHTS}"
FILES = (CONFIG, WEIGHTS, CARD, ADAPTER, f"{ADAPTER_FOLDER}/adapter_config.json")
"""All that a saved folder may hold, and all that is fetched from the hub."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def save_pretrained(
    source: SERModule | str | Path,
    folder: str | Path,
    *,
    record: Mapping[str, Any] | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trained model into a folder that :func:`serzoo.zoo.load` restores bit for bit.

    Args:
        source: a run's folder, a ``.ckpt`` file, or a module that a configuration was trained to.
        folder: where to; it appears whole or not at all. A folder that this function wrote is
            replaced; files in it that are not ours stay.
        record: of the run, for the card and the temperature; that of a run's folder by default.
        licence: of the trained weights, as the hub writes it (``cc-by-nc-sa-4.0``).
        overwrite: also write into a folder that holds something else.

    Returns:
        The folder.

    Raises:
        CheckpointError: when the module does not say how it was built, or the folder holds
            something else.
    """
    folder = Path(folder)
    _refuse_foreign(folder, overwrite)
    module, record = _trained(source, record)
    config = describe(module, record)
    weights = checkpoint.strip_frozen(module.state_dict(), module.frozen_keys())
    if module.average is not None and module.average.weights:
        weights = module.average.weights
    rest, adapted = split(weights)
    with new_folder(folder, FILES) as made:
        write_json(made / CONFIG, config)
        _write(rest, made / WEIGHTS)
        if adapted:
            (made / ADAPTER_FOLDER).mkdir()
            _write(adapted, made / ADAPTER)
            base = config["published"]["encoder"]
            revision = base["commit"] or base["revision"]
            options = getattr(module.encoder, "adapters", None)
            write_config(options, made / ADAPTER_FOLDER, base["name"], revision)
        (made / CARD).write_text(model_card(config, record, licence), "utf-8")
    return folder


def push_to_hub(
    source: SERModule | str | Path,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    record: Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """Save a trained model and upload it to the hub.

    Args:
        source: as for :func:`save_pretrained`.
        repo_id: ``user/name``; made where there is none.
        private: whether a repository that is made is private (to publish is a decision).
        token: of the hub; that of ``hf auth login`` by default.
        record: as for :func:`save_pretrained`.
        licence: as for :func:`save_pretrained`.

    Returns:
        The address of the repository.

    Raises:
        CheckpointError: when it stands on an encoder in a folder that nobody else has, or the hub
            refuses.
    """
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(source, Path(temporary) / "model", record=record, licence=licence)
        config = read(folder)
        options = [config["encoder"].get("name"), *config["head"].values()]
        local = [v for v in options if isinstance(v, str) and _local(v)]
        if local:
            raise CheckpointError(
                f"it stands on the folder {local[0]}, which nobody else has; train with a hub id "
                "instead, or share the folder of `serzoo save` together with that one "
                "(serzoo.zoo.load(..., base=FOLDER) for an encoder's)"
            )
        try:
            url = create_repo(repo_id, private=private, exist_ok=True, token=token)
            upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                token=token,
                commit_message=f"A model of serzoo {version('serzoo')}",
                allow_patterns=list(FILES),
            )
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise CheckpointError(
                f"the hub did not take '{repo_id}': {_first_line(error)}; check the name, and log "
                "in with `hf auth login` or give a token that may write"
            ) from error
    return str(url)


def is_meant(path: str | Path) -> bool:
    """Whether a path is to be read by :func:`load`: a saved folder, or the hub id of one."""
    here = Path(path)
    if here.is_dir():
        mine = any((here / name).is_file() for name in (CONFIG, WEIGHTS, "pytorch_model.bin"))
        return mine and not (here / "checkpoints").is_dir()
    is_id = HUB_ID.fullmatch(str(path)) is not None and here.suffix != ".ckpt"
    return is_id and not here.exists() and not here.parent.exists()


def load(
    path: str | Path, *, revision: str | None = None, base: str | None = None, **made: Any
) -> SERModule:
    """The model of a saved folder or hub id; see :func:`serzoo.zoo.run.checkpoint.load`."""
    folder = Path(path)
    if not folder.is_dir():
        folder = _fetched(str(path), revision)
    elif revision is not None:
        raise CheckpointError(f"{path} is a folder and has no revision '{revision}'; leave it out")
    config = read(folder)
    keys = ("fingerprint", "head", "taxonomy", "taxonomy_fingerprint", "data", "published")
    parts = {"encoder": config["encoder"], "head": config["head"]}
    meta = {**{k: config[k] for k in keys}, "config": {**config["training"], **parts}}
    # speakers of the parts, and what an adapted model was before; older folders do not say
    later = ("speakers", "widened_from", "adapted", "origin", "weak_labels")
    meta |= {key: config.get(key) for key in later}
    try:
        module = checkpoint.rebuild(meta, path, base, **made)
    except (ConfigError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / CONFIG}: its model cannot be built: {error}") from error
    check_preprocessing(config, module, path)
    weights = read_weights(folder / WEIGHTS)
    own = module.state_dict()
    if split(checkpoint.strip_frozen(own, module.frozen_keys()))[1]:
        weights = join(weights, read_weights(folder / ADAPTER))
    elif (folder / ADAPTER).exists():
        raise CheckpointError(
            f"{path} holds {ADAPTER}, but according to {CONFIG} its encoder is not tuned by LoRA; "
            "fetch or save it again"
        )
    try:
        checkpoint.check_keys(weights, own, module.frozen_keys())
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for key, value in weights.items():
        if value.dtype != own[key].dtype:
            raise CheckpointError(
                f"{path}: {key} is stored as {value.dtype}, the model has {own[key].dtype}; it was "
                "converted after it was saved, which changes scores: fetch or save it again"
            )
    module.load_state_dict(weights, strict=False)
    module.temperature = None if config["temperature"] is None else float(config["temperature"])
    return module.eval()


def _trained(
    source: SERModule | str | Path, record: Mapping[str, Any] | None
) -> tuple[SERModule, Mapping[str, Any] | None]:
    if not isinstance(source, (str, Path)):
        return source, record
    path = Path(source)
    if (path.parent.name, path.name) == ("checkpoints", "best.ckpt"):
        path = path.parent.parent
    return checkpoint.load(source), record or (read_record(path) if path.is_dir() else None)


def _refuse_foreign(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give a folder")
    if overwrite or not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        read(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} holds something else than a saved model; give another folder, or "
            "overwrite=True (--overwrite), which leaves other files as they are"
        ) from error


def _write(weights: Mapping[str, Tensor], path: Path) -> None:
    # clones: tensors that share memory would be refused
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    save_file(plain, path, metadata={"format": "pt"})


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a saved folder's file.

    Raises:
        CheckpointError: when it is missing, a pickle instead, or damaged.
    """
    if not path.is_file():
        beside = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        pickles = [p.name for p in beside if p.suffix in (".bin", ".pt", ".pth", ".ckpt")]
        found = f" (it holds {', '.join(pickles)}, which is not unpickled)" if pickles else ""
        raise CheckpointError(
            f"{path.parent} has no {path.name}{found}; fetch or save the model again"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged, cut off, or no safetensors ({_first_line(error)}); fetch or save "
            "the model again"
        ) from error


def _fetched(repo_id: str, revision: str | None) -> Path:
    try:
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=list(FILES))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        at = f" at revision '{revision}'" if revision else ""
        raise CheckpointError(
            f"there is no folder {repo_id}, and the hub's '{repo_id}'{at} cannot be fetched "
            f"({_first_line(error)}); check the spelling and the connection, or give a folder"
        ) from error
    return Path(folder)


def _local(name: str) -> bool:
    return "/" in name and Path(name).expanduser().is_dir()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
