"""Published speech encoders, by hub id or local folder: safetensors only, no weight made up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import logging

from .errors import ConfigError
from .files import parse_json, read_text
from .types import SAMPLE_RATE

FAMILIES = {
    "wav2vec2": "wav2vec 2.0",
    "hubert": "HuBERT",
    "wavlm": "WavLM",
    "data2vec-audio": "data2vec audio",
    "unispeech-sat": "UniSpeech-SAT",
    "sew": "SEW",
    "wav2vec2-bert": "w2v-BERT 2.0",
    "whisper": "Whisper (its encoder)",
}
"""``model_type`` of a checkpoint's ``config.json`` to the name of the family."""

SPECTRAL = ("wav2vec2-bert", "whisper")
"""Families that hear a spectrum, whose own scaling stands in for that of the samples."""

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "w = torch.load(sys.argv[1] + '/pytorch_model.bin', map_location='cpu', weights_only=True); "
    "save_file({k: v.clone().contiguous() for k, v in w.items()}, "
    "sys.argv[1] + '/model.safetensors', metadata={'format': 'pt'})\" "
)
"""How a user turns a pickle that they trust into safetensors; followed by the folder."""


@dataclass(frozen=True)
class Pretrained:
    """A published encoder and what must be known to feed it.

    Attributes:
        model: the bare encoder of ``transformers`` (no pretraining or CTC head), float32.
        normalise: whether it wants utterances of zero mean and unit variance.
        normalise_from: the file that said so, or "default of <family>".
        commit: the hub's commit that the configuration came from; None for a folder.
    """

    model: Any
    normalise: bool
    normalise_from: str
    commit: str | None


def load_speech_model(name: str, revision: str | None = None) -> Pretrained:
    """A published speech encoder of one of the :data:`FAMILIES`.

    Layerdrop and SpecAugment are off: both break a learned mix of layers and training on several
    devices, and short utterances. An adapter behind the last block is left out, since hidden
    states are taken before it, and so is Whisper's decoder.

    Args:
        name: hub id (``facebook/wav2vec2-base``) or local folder.
        revision: commit, tag or branch of a hub id.

    Raises:
        ConfigError: when it cannot be found or read, is of another family, has weights in pickle
            only, lacks weights, or was trained on another sampling rate.
    """
    source = _Source.find(name, revision)
    raw = source.read_config()
    family = raw.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"encoder '{name}' is of model_type '{family}'; the hf encoder runs "
            f"{', '.join(f'{k} ({v})' for k, v in FAMILIES.items())}: choose a model of one of "
            "these, or register an encoder of your own (entry point group serzoo.encoders)"
        )
    config = AutoConfig.from_pretrained(source.path, revision=revision, trust_remote_code=False)
    config.layerdrop = config.encoder_layerdrop = 0.0
    config.apply_spec_augment = False
    config.mask_time_prob = config.mask_feature_prob = 0.0  # then no mask embedding is made
    config.add_adapter = config.use_intermediate_ffn_before_adapter = False
    model = source.read_model(config)
    normalise, where = source.read_normalise(config)
    return Pretrained(model, normalise, where, source.read_commit())


def weights_digest(module: nn.Module) -> str:
    """12 hexadecimal digits of the names and values of a module's state: what was really loaded."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        value = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class _Source:
    """Where a model comes from: ``path`` is a folder or a hub id."""

    name: str
    path: str
    local: bool
    revision: str | None

    @classmethod
    def find(cls, name: str, revision: str | None) -> _Source:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
                raise ConfigError(
                    f"encoder '{name}' reads like a folder, but there is none at "
                    f"{folder.absolute()}; give a folder with config.json and model.safetensors, "
                    "or a hub id such as facebook/wav2vec2-base"
                )
            return cls(name, name, False, revision)
        if revision is not None:
            raise ConfigError(
                f"encoder '{name}' is a local folder, which has no revision '{revision}'; "
                "leave revision out (null), or move the folder away to load from the hub"
            )
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"encoder '{name}' is a folder without config.json; give the folder that "
                "save_pretrained wrote, or into which a model was downloaded from the hub"
            )
        if not any((folder / file).is_file() for file in WEIGHTS):
            raise ConfigError(_no_safetensors(name, folder))
        return cls(name, str(folder), True, None)

    def read_config(self) -> dict[str, Any]:
        try:
            raw, _ = PreTrainedConfig.get_config_dict(self.path, revision=self.revision)
            return dict(raw)
        except (OSError, ValueError, TypeError, HfHubHTTPError) as error:
            raise ConfigError(self._unreachable("config.json", error)) from error

    def read_commit(self) -> str | None:
        """The commit behind the revision, which names the folder of config.json in the cache."""
        if self.local:
            return None
        return Path(hf_hub_download(self.path, "config.json", revision=self.revision)).parent.name

    def read_model(self, config: Any) -> Any:
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # no table of the pretraining head's weights that stay behind
        bar = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model, report = AutoModel.from_pretrained(
                self.path,
                config=config,
                revision=self.revision,
                dtype=torch.float32,  # the default would take half precision from the checkpoint
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, HfHubHTTPError) as error:
            if not self.local and "safetensors" in str(error):
                raise ConfigError(_no_safetensors(self.name, None)) from error
            raise ConfigError(self._unreachable("model.safetensors", error)) from error
        except (RuntimeError, SafetensorError) as error:
            raise ConfigError(
                f"the weights of encoder '{self.name}' do not fit its config.json or are damaged "
                f"({_first_line(error)}); fetch it again"
            ) from error
        finally:
            logging.set_verbosity(verbosity)
            if bar:
                logging.enable_progress_bar()
        if missing := sorted(report["missing_keys"]):
            raise ConfigError(
                f"the weights of encoder '{self.name}' lack {len(missing)} that a "
                f"{config.model_type} encoder needs ({', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}), and random ones would take their place; "
                "was it saved from another model, or by another toolkit?"
            )
        return model

    def read_normalise(self, config: Any) -> tuple[bool, str]:
        spectral = config.model_type in SPECTRAL
        for file in ("preprocessor_config.json", "processor_config.json"):
            text = self._read(file)
            try:
                found = parse_json(text) if text is not None else {}
            except ValueError as error:
                raise ConfigError(
                    f"encoder '{self.name}': {file} is damaged ({error}); fetch the model again"
                ) from error
            inner = found.get("feature_extractor")
            found = inner if isinstance(inner, dict) else found
            rate = found.get("sampling_rate", SAMPLE_RATE)
            if rate != SAMPLE_RATE:
                raise ConfigError(
                    f"encoder '{self.name}' was trained on {rate} Hz ({file}); everything here is "
                    f"{SAMPLE_RATE} Hz: choose a model of that rate"
                )
            if "feature_extractor_type" in found or "do_normalize" in found:
                return bool(found.get("do_normalize", not spectral)), file
        # as published: WavLM base and base+ (group norm) hear raw samples, all others normalised
        raw = config.model_type == "wavlm" and config.feat_extract_norm == "group"
        return not (raw or spectral), f"default of {FAMILIES[config.model_type]}"

    def _read(self, file: str) -> str | None:
        """Text of a small file; None where there is none (not: where it could not be fetched)."""
        remedy = "fetch the model again"
        if self.local:
            path = Path(self.path) / file
            return read_text(path, ConfigError, remedy=remedy) if path.is_file() else None
        try:
            found = hf_hub_download(self.path, file, revision=self.revision)
            return read_text(found, ConfigError, remedy=remedy)
        except LocalEntryNotFoundError as error:
            raise ConfigError(self._unreachable(file, error)) from error
        except EntryNotFoundError:
            return None
        except (OSError, HfHubHTTPError) as error:
            raise ConfigError(self._unreachable(file, error)) from error

    def _unreachable(self, file: str, error: Exception) -> str:
        if self.local:
            return f"{file} of encoder '{self.name}' cannot be read: {_first_line(error)}"
        at = f" at revision '{self.revision}'" if self.revision else ""
        return (
            f"encoder '{self.name}' cannot be loaded: there is no folder of this name here, and "
            f"fetching {file} of the hub's '{self.name}'{at} failed ({_first_line(error)}); check "
            "the spelling and the connection, give the folder of a downloaded copy as "
            "encoder.name, or set HF_HOME to a cache that holds it (HF_HUB_OFFLINE=1 then asks "
            "no server)"
        )


def _no_safetensors(name: str, folder: Path | None) -> str:
    why = "serzoo never unpickles weights, since a pickle can run code"
    if folder is None:
        return (
            f"the hub's '{name}' has no model.safetensors at this revision, and {why}; try the "
            "revision of a pull request that adds it (revision=refs/pr/<number>, see the model's "
            "Community page), or download the model and, if you trust it, convert it: "
            f"{CONVERT}FOLDER"
        )
    if (folder / "pytorch_model.bin").is_file():
        return (
            f"encoder '{name}' holds pytorch_model.bin but no model.safetensors, and {why}; "
            f"convert it, if you trust it: {CONVERT}{quote(str(folder))}"
        )
    return f"encoder '{name}' is a folder without weights; it needs {' or '.join(WEIGHTS)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
