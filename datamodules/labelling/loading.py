"""Load published models for labelling: by hub id or local folder, safetensors only, no code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import WEIGHTS, weights_digest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to run, and its identity.

    Attributes:
        model: a model of ``transformers``, in evaluation mode, without gradients.
        path: folder or hub id, for tokenizers and feature extractors.
        name: hub id, or the folder's name.
        revision: 12 digits of the hub's commit, or ``local``.
        weights: 12 digits of a hash of the loaded weights.
    """

    model: Any
    path: str
    name: str
    revision: str
    weights: str

    @property
    def source(self) -> str:
        """``NAME@REVISION`` of a hub model, ``NAME@WEIGHTS`` of a folder."""
        return f"{self.name}@{self.weights if self.revision == 'local' else self.revision}"

    def settings(self) -> dict[str, Any]:
        """Return the settings for a stage; a folder may move, because its weights identify it."""
        return {"model": self.name, "revision": self.revision, "weights": self.weights}


def read_config(name: str, revision: str | None, setting: str) -> Any:
    """Return the configuration of a model.

    Args:
        name: hub id or local folder.
        revision: commit, tag or branch of a hub id; None = its main branch.
        setting: the setting that named it, for messages: ``asr``.

    Raises:
        ConfigError: if it cannot be found or read, or needs its own code.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(
                f"{setting}={name} is a local folder, which has no revision '{revision}'; leave it "
                "out, or move the folder away to load from the hub"
            )
        if not any((folder / file).is_file() for file in WEIGHTS):
            raise ConfigError(
                f"{setting}={name} is a folder without {WEIGHTS[0]}; serzoo never unpickles "
                "weights, since a pickle can run code: give the folder that save_pretrained wrote"
            )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ConfigError(
            f"{setting}={name} reads like a folder, but there is none at {folder.absolute()}; give "
            "a folder with config.json and model.safetensors, or a hub id"
        )
    try:
        return AutoConfig.from_pretrained(
            str(folder) if folder.is_dir() else name, revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ConfigError(_unreachable(name, setting, error)) from error


def load(
    auto: Any,
    name: str,
    revision: str | None,
    setting: str,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
) -> Loaded:
    """Return a model of one of the classes of ``transformers``.

    Args:
        auto: such as ``AutoModelForCTC``.
        name: hub id or local folder.
        revision: commit, tag or branch of a hub id.
        setting: the setting that named it, for messages.
        dtype: one of :data:`DTYPES`.
        device: device of the model.

    Raises:
        ConfigError: if it cannot be loaded, has only pickled weights, or lacks some weights.
    """
    config = read_config(name, revision, setting)
    if dtype not in DTYPES:
        raise ConfigError(f"unknown number format '{dtype}'; give one of {', '.join(DTYPES)}")
    folder = Path(name).expanduser()
    path = str(folder) if folder.is_dir() else name
    try:
        with quiet():
            model, report = auto.from_pretrained(
                path,
                config=config,
                revision=revision,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, HfHubHTTPError, RuntimeError, SafetensorError) as error:
        raise ConfigError(_unreachable(name, setting, error)) from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"the weights of {setting}={name} lack {len(missing)} that it needs "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}), so random ones "
            "would replace them; was it trained for another task?"
        )
    model.requires_grad_(False).eval()
    weights = weights_digest(model)
    commit = None if folder.is_dir() else getattr(config, "_commit_hash", None)
    known = commit[:12] if commit else "local"
    called = folder.resolve().name if folder.is_dir() else name
    return Loaded(model.to(device), path, called, known, weights)


@contextmanager
def quiet() -> Iterator[None]:
    """Context without bars and warnings of ``transformers``, for example about unused weights."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _unreachable(name: str, setting: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return (
        f"{setting}={name} cannot be loaded ({reason}); check the spelling and the connection, or "
        "give the folder of a downloaded copy that holds config.json and model.safetensors"
    )
