"""Save a trained model as a folder to share, or upload it to the hub; `published.py` loads it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import create_repo, upload_folder
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client, httpx or httpx2
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import CheckpointError, first_line
from ..core.files import new_folder, read_text, write_json
from ..core.types import SAMPLE_RATE
from ..core.weights import published_parts, strip_frozen
from .card import model_card
from .module import SERModule
from .published import (
    ADAPTER,
    ADAPTER_FOLDER,
    CARD,
    CONFIG,
    FILES,
    FORMAT,
    TRAINING,
    WEIGHTS,
    extraction_of,
    is_local,
    read,
    split,
)
from .record import Record, read_record
from .schema import RunConfig


def write_config(config: Any, folder: Path, base: str, revision: str | None) -> None:
    """Write ``adapter_config.json``.

    Args:
        config: peft's configuration of the adapters.
        folder: the folder to write it into.
        base: name of the published model that they adapt.
        revision: its commit, tag or branch.
    """
    config = copy.deepcopy(config)
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = True  # as peft saves
    config.save_pretrained(str(folder))


def describe(module: SERModule, record: Record | None = None) -> dict[str, Any]:
    """Return the content of ``config.json``.

    Args:
        module: a trained module that knows its configuration.
        record: the record of its run; it gives the temperature if the module has none.

    Raises:
        CheckpointError: if the module does not say how it was built.
    """
    meta = module.described()
    if own := meta.get("own"):
        raise CheckpointError(
            "; ".join(f"the {part} is {what}" for part, what in own.items())
            + ", and others can build only parts with a registered name; register the class (an "
            "entry point in the group serzoo.heads or serzoo.encoders)"
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
    for key, value in options.items():  # a path of the user's machine, such as a table's
        if isinstance(value, str) and Path(value).expanduser().is_absolute():
            options[key] = Path(value).name
    temperature = module.temperature
    if temperature is None and record is not None and record.kind != "adaptation":
        temperature = record.temperature
    return {
        "library": "serzoo",
        "format": FORMAT,
        "serzoo": version("serzoo"),
        "classes": module.head.taxonomy.classes,
        "temperature": temperature,
        "encoder": cfg.encoder,
        "published": published_parts(module),
        "head": cfg.head,
        "taxonomy": meta["taxonomy"],
        "taxonomy_fingerprint": meta["taxonomy_fingerprint"],
        "preprocessing": {
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
            "max_seconds": cfg.data.max_seconds,
            "normalise_from": module.encoder.describe().get("normalise_from"),
            "extraction": extraction_of(module),
        },
        "fingerprint": meta.get("fingerprint") or cfg.fingerprint,
        "widened_from": meta.get("widened_from"),
        "adapted": meta.get("adapted"),
        "origin": meta.get("origin"),
        "weak_labels": meta.get("weak_labels"),
        "data": meta.get("data"),
        "speakers": meta.get("speakers"),
        "training": {key: identity[key] for key in TRAINING}
        | {"head_name": cfg.called}
        | ({"utterance": cfg.utterance} if cfg.utterance else {})
        | ({"own": cfg.own} if cfg.own else {}),
    }


def save_pretrained(
    source: Any,
    folder: str | Path,
    *,
    record: Record | Mapping[str, Any] | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a trained model into a folder that :func:`serzoo.zoo.load` restores bit for bit.

    Args:
        source: a run's folder, a ``.ckpt`` file, a module, or what :func:`serzoo.zoo.load` returns.
        folder: the folder to write; it appears whole or not at all. A saved model in it is
            replaced, and other files stay.
        record: the run's record, for the card and the temperature; by default that of the run's
            folder.
        licence: licence of the trained weights, as the hub writes it (``cc-by-nc-sa-4.0``).
        overwrite: also write into a folder that holds files but no saved model.

    Returns:
        The folder.

    Raises:
        CheckpointError: if the module does not say how it was built, or the folder holds files
            but no saved model.
    """
    folder = Path(folder)
    _refuse_foreign(folder, overwrite)
    module, record = _module_and_record(source, record)
    config = describe(module, record)
    weights = strip_frozen(module.state_dict(), module.frozen_keys())
    if module.average is not None and module.average.weights:
        weights = module.average.weights
    rest, adapted = split(weights)
    with new_folder(folder, FILES) as made:
        write_json(made / CONFIG, config)
        _write_weights(rest, made / WEIGHTS)
        if adapted:
            (made / ADAPTER_FOLDER).mkdir()
            _write_weights(adapted, made / ADAPTER)
            base = config["published"]["encoder"]
            revision = base["commit"] or base["revision"]
            options = getattr(module.encoder, "adapters", None)
            write_config(options, made / ADAPTER_FOLDER, base["name"], revision)
        (made / CARD).write_text(model_card(config, record, licence), "utf-8")
    return folder


def card_of(source: str | Path, module: SERModule) -> str:
    """Return the model card of a trained model: that of its folder, or one that is made now.

    Args:
        source: the path that the model was loaded from.
        module: the loaded model.

    Raises:
        CheckpointError: if the module does not say how it was built, or holds a part of the user's
            own.
    """
    path = Path(source)
    if (path / CONFIG).is_file() and (path / CARD).is_file():
        return read_text(path / CARD, CheckpointError)
    if (path.parent.name, path.name) == ("checkpoints", "best.ckpt"):
        path = path.parent.parent
    record = read_record(path) if path.is_dir() else None
    return model_card(describe(module, record), record)


def push_to_hub(
    source: Any,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    record: Record | Mapping[str, Any] | None = None,
    licence: str | None = None,
) -> str:
    """Save a trained model and upload it to the hub.

    Args:
        source: as for :func:`save_pretrained`.
        repo_id: ``user/name``; a new repository is made if there is none.
        private: whether a new repository is private.
        token: access token of the hub; that of ``hf auth login`` by default.
        record: as for :func:`save_pretrained`.
        licence: as for :func:`save_pretrained`.

    Returns:
        The address of the repository.

    Raises:
        CheckpointError: if the model needs a published model in a local folder. Also if the hub
            refuses it or cannot be reached.
    """
    with TemporaryDirectory() as temporary:
        folder = save_pretrained(source, Path(temporary) / "model", record=record, licence=licence)
        config = read(folder)
        # an option without a slash is a word, even if a folder has the same name
        names = [
            config["encoder"].get("name"),
            *(v for v in config["head"].values() if "/" in str(v)),
        ]
        local = [name for name in names if isinstance(name, str) and is_local(name)]
        if local:
            raise CheckpointError(
                f"the model needs the folder {local[0]}, which only this machine has; train with "
                "a hub id, or share that folder beside that of `serzoo save` "
                "(serzoo.zoo.load(..., base=FOLDER) finds an encoder there)"
            )
        try:
            url = create_repo(repo_id, private=private, exist_ok=True, token=token)
            upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                token=token,
                commit_message=f"A model of serzoo {version('serzoo')}",
                allow_patterns=list(FILES),
                delete_patterns=list(FILES),  # files of an older model, such as its adapters
            )
        except (httpx.RequestError, ConnectionError) as error:
            raise CheckpointError(
                f"the hub cannot be reached for '{repo_id}': {first_line(error)}; check the "
                "network (and HF_HUB_OFFLINE), or write the folder with `serzoo save` and push "
                "that from another machine"
            ) from error
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise CheckpointError(
                f"the hub did not take '{repo_id}': {first_line(error)}; check the name, and log "
                "in with `hf auth login` or give a token that may write"
            ) from error
    return str(url)


def _module_and_record(
    source: Any, record: Record | Mapping[str, Any] | None
) -> tuple[SERModule, Record | None]:
    if record is not None and not isinstance(record, Record):
        record = Record.from_json(record)
    if not isinstance(source, (str, Path)):
        module = getattr(source, "module", source)
        if not isinstance(module, SERModule):
            raise CheckpointError(
                f"a {type(source).__name__} is not a trained model; give a SERModule, what "
                "serzoo.zoo.load(PATH) returns, or a path"
            )
        return module, record
    path = Path(source)
    if (path.parent.name, path.name) == ("checkpoints", "best.ckpt"):
        path = path.parent.parent
    return SERModule.load_from_checkpoint(source), record or (
        read_record(path) if path.is_dir() else None
    )


def _refuse_foreign(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give a folder")
    if overwrite or not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        read(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{folder} holds files but no saved model; give another folder, or overwrite=True "
            "(--overwrite), which leaves other files as they are"
        ) from error


def _write_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    # clones, since safetensors refuses tensors that share memory
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    save_file(plain, path, metadata={"format": "pt"})
