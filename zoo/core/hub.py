"""Published models, by hub id or local folder: safetensors only, and no remote code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client, httpx or httpx2
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig
from transformers.utils import logging

from . import lock
from .errors import ConfigError, first_line, some
from .files import parse_json, read_json, read_text
from .notices import tell
from .types import SAMPLE_RATE

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
LIBRARY = (RuntimeError, SafetensorError, ValueError, TypeError, KeyError, ImportError)
"""Errors that ``transformers`` raises if it cannot build a model, besides those of the system."""
NUMBERS = ("F64", "F32", "F16", "BF16")
"""Number formats of weights, as safetensors calls them; others need a scale that is elsewhere."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Usual files of a tokenizer's vocabulary."""
POINTER = b"version https://git-lfs"
NO_PICKLE = "serzoo never unpickles weights, since a pickle can run code"
CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "w = torch.load(sys.argv[1] + '/pytorch_model.bin', map_location='cpu', weights_only=True); "
    "save_file({k: v.clone().contiguous() for k, v in w.items()}, "
    "sys.argv[1] + '/model.safetensors', metadata={'format': 'pt'})\" "
)
"""Command that converts a trusted pickle into safetensors. The folder follows it."""
MODELS = "SERZOO_MODELS"
"""Environment variable: a folder with a folder for each model. It is searched before the hub."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Published:
    """A published model that :meth:`find` found; its weights are not loaded yet.

    Attributes:
        setting: the setting that names it, for messages: ``encoder.name``.
        name: the setting's value: hub id or folder.
        path: hub id, or the folder with ``~`` written out.
        local: whether it is a folder.
        revision: commit, tag or branch of a hub id; None = its main branch, or a folder.
        example: another valid value of the setting, for messages.
        read_from: ``hub``, ``folder``, or ``SERZOO_MODELS`` for a hub id that was found there.
        asked: the requested revision, also if a folder is read.
    """

    setting: str
    name: str
    path: str
    local: bool
    revision: str | None
    example: str
    read_from: str
    asked: str | None = None

    @classmethod
    def find(
        cls, setting: str, name: str, revision: str | None = None, *, example: str
    ) -> Published:
        """Find a model: a folder, a folder of ``$SERZOO_MODELS``, or a hub id. No server is asked.

        The hub id ``openai/whisper-base`` is looked up as ``$SERZOO_MODELS/openai/whisper-base``
        and ``$SERZOO_MODELS/whisper-base``. A note says which folder is read. Letter case does
        not count.

        Args:
            setting: the setting that names it, for messages.
            name: hub id (``facebook/wav2vec2-base``), its last part, or a local folder.
            revision: commit, tag or branch of a hub id.
            example: another valid value of the setting: a hub id.

        Raises:
            ConfigError: if the name reads like a folder that does not exist, or a folder has a
                revision. Also if ``$SERZOO_MODELS`` is not a folder.
        """
        folder, called = Path(name).expanduser(), f"{setting}={name}"
        if folder.is_dir():
            if revision is not None:
                raise ConfigError(
                    f"{called} is a local folder, which has no revision '{revision}'; leave "
                    "revision out (null), or move the folder away to load from the hub"
                )
            return cls(setting, name, str(folder), True, None, example, "folder")
        if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
            raise ConfigError(
                f"{called} reads like a folder, but there is none at {folder.absolute()}; "
                f"give a folder with config.json and {WEIGHTS[0]}, or a hub id such as {example}"
            )
        if kept := _kept(name, called):
            unchecked = f", whatever revision it has ({revision} is the hub's)" if revision else ""
            if (entry := lock.find(name, revision)) and entry.files:
                unchecked = ""  # the lock file tells what its files must be
            tell(f"{called} is read from {kept} ({MODELS}){unchecked}", fault=False)
            return cls(setting, name, str(kept), True, None, example, MODELS, revision)
        return cls(setting, name, name, False, revision, example, "hub", revision)

    @property
    def called(self) -> str:
        """``SETTING=NAME``, for messages."""
        return f"{self.setting}={self.name}"

    @cached_property
    def locked(self) -> lock.Locked | None:
        """What the lock file holds of this model; None if it holds nothing.

        Raises:
            ConfigError: if the lock file is damaged, or the files are not the locked ones. Also if
                a folder is locked, but the model is read from the hub.
        """
        entry = lock.find(self.name, self.asked)
        if entry is None or (entry.commit and not self.local):
            return entry
        was = f"commit {entry.commit}" if entry.commit else "the files of a folder"
        if self.local:
            with self._explained("a locked file"):
                found = lock.difference(entry, Path(self.path))
            if found is None:
                return entry
            found, put = f"in {self.path}, {found}", "put the locked files there"
        else:
            found, put = "it is now read from the hub", f"set {MODELS} as before"
        raise ConfigError(
            f"{self.called} is not what {lock.lock_file()} has locked ({was}): {found}; {put}, or "
            f"accept what is there now: {self.relock}"
        )

    @property
    def relock(self) -> str:
        """The command that locks this model anew, for messages."""
        return f"`serzoo lock {self.name}{f'@{self.asked}' if self.asked else ''}`"

    @cached_property
    def _resolved(self) -> lock.Locked | None:
        """What is loaded from the hub, if neither the setting nor the lock file fixes it."""
        if self.local or lock.fixed(self.revision) or self.locked:
            return None
        with self._explained("config.json"):
            return lock.of_hub(self.name, self.revision)

    @property
    def commit(self) -> str | None:
        """The hub's commit that is loaded; None for a folder.

        The revision is this commit, or the lock file holds it. Otherwise the hub is asked, once.

        Raises:
            ConfigError: if the hub cannot be asked, or the lock file has another model.
        """
        entry = self.locked or self._resolved
        return self.revision if entry is None or self.local else entry.commit

    @property
    def origin(self) -> dict[str, str | None]:
        """Name, requested revision and commit, for records."""
        return {"name": self.name, "revision": self.revision, "commit": self.commit}

    def to_lock(self) -> lock.Locked:
        """Return what to lock of this model, whatever the lock file holds now.

        Raises:
            ConfigError: if the hub or the folder does not have it, or has pickled weights only.
        """
        self._check_config()
        self._check_weights()
        with self._explained(WEIGHTS[0]):
            if self.local:
                return lock.of_folder(self.name, self.asked, Path(self.path))
            return lock.of_hub(self.name, self.revision, weights=True)

    def _keep(self) -> None:
        """Write the commit of a first use into the lock file, so that later runs load it again."""
        if (entry := self._resolved) is None or not lock.written():
            return
        asked = f"revision={self.revision or 'null'}"
        try:
            file = lock.keep([entry], first=True)
        except OSError as error:
            tell(
                f"{self.called}: {asked} is commit {entry.commit}, which no lock file keeps "
                f"({first_line(error)}); set {lock.LOCK} to a file that can be written, or the "
                "revision to that commit"
            )
            return
        tell(f"{self.called}: {asked} is commit {entry.commit}, kept in {file}", fault=False)

    def raw_config(self) -> dict[str, Any]:
        """Return the content of ``config.json``, for any kind of model.

        Raises:
            ConfigError: if it cannot be fetched or read.
        """
        self._check_config()
        with self._explained("config.json"):
            raw, _ = PreTrainedConfig.get_config_dict(self.path, revision=self.commit)
            return dict(raw)

    def config(self) -> Any:
        """Return the configuration, of a kind that ``transformers`` knows.

        Raises:
            ConfigError: if it cannot be fetched or read, or needs code of its own.
        """
        self._check_config()
        return self.part(AutoConfig, "config.json")

    def refuse_other_than_text(self) -> None:
        """Check that this is a model that continues text.

        ``transformers`` also makes a decoder of text from models that need more than text: from
        Whisper, for instance.

        Raises:
            ConfigError: if its decoder reads the output of an encoder, or it cannot be read.
        """
        config = self.config()
        if config.is_encoder_decoder:
            raise ConfigError(
                f"{self.called} is of model_type '{config.model_type}', whose decoder needs an "
                f"encoder's output; give a model that continues text, such as {self.example}"
            )

    def refuse_running_state(self, model: Any) -> None:
        """Check that the texts of several classes can share a beginning that was read once.

        Args:
            model: the causal language model that was made of this.

        Raises:
            ConfigError: if it keeps a running state instead of keys and values, as Mamba does.
        """
        if getattr(model, "_is_stateful", False):
            raise ConfigError(
                f"{self.called} is a {model.config.model_type}, which keeps a running state that "
                f"classes cannot share; give a model with attention, such as {self.example}"
            )

    def folder(self, *wanted: str) -> Path:
        """Return the folder that holds the model, for a library that loads it by itself.

        Args:
            wanted: patterns (``*.json``) of the files that are fetched of a hub model. Give no
                pickle and no code.

        Returns:
            The local folder, without links; or a folder of the cache, named by the hub's commit.

        Raises:
            ConfigError: it cannot be fetched.
        """
        if self.local:
            _ = self.locked  # refuses other files than the locked ones
            return Path(self.path).resolve()
        with self._explained("the files"):
            found = snapshot_download(self.path, revision=self.commit, allow_patterns=list(wanted))
        self._keep()
        return Path(found)

    def part(self, auto: Any, file: str) -> Any:
        """Load another part of the model, such as its tokenizer.

        Args:
            auto: a class of ``transformers``, such as ``AutoTokenizer``.
            file: the file that it reads, for messages, such as ``tokenizer.json``.

        Raises:
            ConfigError: if it cannot be fetched or read, or needs code of its own. Also if it is
                a tokenizer without a vocabulary.
        """
        with self._explained(file):
            try:
                made = auto.from_pretrained(
                    self.path, revision=self.commit, trust_remote_code=False
                )
            except LIBRARY as error:
                if auto is AutoTokenizer and not self._has(*VOCABULARIES):
                    raise self._no_vocabulary() from error
                raise
            names = vocabulary_files(made) if auto is AutoTokenizer else ()
            if names and not self._has(*names):
                raise self._no_vocabulary()
            return made

    def check_vocabulary(self, tokenizer: Any, folder: Path) -> None:
        """Check that a tokenizer, which another library has made, read a vocabulary.

        Args:
            tokenizer: the tokenizer.
            folder: the folder that it was read from, or a folder above it.

        Raises:
            ConfigError: if no file of its vocabulary is there.
        """
        names = vocabulary_files(tokenizer)
        if names and not any(next(folder.rglob(name), None) for name in names):
            raise self._no_vocabulary()

    def _no_vocabulary(self) -> ConfigError:
        return ConfigError(
            f"{self.called} has no tokenizer (none of {', '.join(VOCABULARIES)}); fetch the whole "
            f"model again, or save its tokenizer into the same folder, or give {self.example}"
        )

    def _has(self, *names: str) -> bool:
        """Return whether the model has one of these files."""
        if self.local:
            return any((Path(self.path) / name).is_file() for name in names)
        for name in names:
            try:
                hf_hub_download(self.path, name, revision=self.commit)
            except EntryNotFoundError:
                continue
            return True
        return False

    def load(
        self,
        auto: Any,
        *,
        config: Any = None,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        trained: bool = False,
    ) -> Loaded:
        """Load the model with its weights, in evaluation mode.

        Args:
            auto: a class of ``transformers``, such as ``AutoModelForCTC``.
            config: the configuration to build; None = the model's own.
            dtype: one of :data:`DTYPES`. It need not be the one of the saved weights.
            device: the device to load it to.
            trained: whether its weights get gradients.

        Raises:
            ConfigError: if it cannot be loaded, has pickled weights only, or lacks weights.
        """
        if dtype not in DTYPES:
            raise ConfigError(f"there is no number format '{dtype}'; have {', '.join(DTYPES)}")
        config = self.config() if config is None else config
        self._check_quantised(config)
        self._check_weights()
        with self._explained(WEIGHTS[0]), quiet():
            if self.local:
                self._check_numbers()
            model, report = auto.from_pretrained(
                self.path,
                config=config,
                revision=self.commit,
                dtype=DTYPES[dtype],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            if not self.local:  # the files are here now
                self._check_numbers()
        if missing := sorted(report["missing_keys"]):
            raise ConfigError(
                f"the weights of {self.called} lack {len(missing)} that a {config.model_type} "
                f"needs here ({some(missing, 3)}); random ones would take their place. Give a "
                "model that was trained for this task and saved by transformers, such as "
                f"{self.example}"
            )
        if not trained:
            model.requires_grad_(False)
        model.published_origin = self.origin
        self._keep()
        return Loaded(self, model.eval().to(device), self.commit)

    def drawn(self, auto: Any) -> Any:
        """Build the model in float32 with random weights; its own are not read.

        Args:
            auto: a class of ``transformers``.

        Raises:
            ConfigError: if the configuration cannot be read, or is of another kind.
        """
        with self._explained("config.json"):
            model = auto.from_config(self.config(), dtype=torch.float32, trust_remote_code=False)
        model.published_origin = self.origin
        self._keep()
        return model

    def text(self, file: str) -> str | None:
        """Return the text of a small file; None if the model does not have it.

        Raises:
            ConfigError: if the hub cannot be reached, or the file is not text.
        """
        remedy = "fetch the model again"
        if self.local:
            path = Path(self.path) / file
            return read_text(path, ConfigError, remedy=remedy) if path.is_file() else None
        with self._explained(file):
            try:
                found = hf_hub_download(self.path, file, revision=self.commit)
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                return None
        return read_text(found, ConfigError, remedy=remedy)

    def _check_config(self) -> None:
        folder = Path(self.path)
        if self.local and not (folder / "config.json").is_file():
            below = sorted(p.parent.name for p in folder.glob("*/config.json"))
            hint = f" (models lie below it: {some(below, 4)})" if below else ""
            raise ConfigError(
                f"{self.called} is a folder without config.json{hint}; give the folder that "
                "save_pretrained wrote, or into which a model was downloaded from the hub, or "
                f"{self.example}"
            )

    def _check_weights(self) -> None:
        folder = Path(self.path)
        if not self.local:
            return
        if any((folder / file).is_file() for file in WEIGHTS):
            self._check_complete()
            return
        if not (folder / "pytorch_model.bin").is_file():
            raise ConfigError(
                f"{self.called} is a folder without weights; it needs {' or '.join(WEIGHTS)}: give "
                f"the folder that save_pretrained wrote, or {self.example}"
            )
        raise ConfigError(
            f"{self.called} holds pickled weights (pytorch_model.bin) and no {WEIGHTS[0]}, and "
            f"{NO_PICKLE}; give the folder that save_pretrained wrote, or {self.example}, or "
            f"convert it, if you trust it: {CONVERT}{quote(self.path)}"
        )

    def _check_complete(self) -> None:
        """Refuse half a download: shards that are missing, or placeholders of Git LFS."""
        folder = Path(self.path)
        names = [WEIGHTS[0]]
        if not (folder / WEIGHTS[0]).is_file():
            index = read_json(
                folder / WEIGHTS[1], ConfigError, remedy=f"fetch {self.called} again"
            ).get("weight_map")
            if not isinstance(index, dict) or not index:
                raise ConfigError(f"{folder / WEIGHTS[1]} lists no weights; fetch the model again")
            names = sorted({str(name) for name in index.values()})
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ConfigError(
                f"{self.called} lacks {len(missing)} of {len(names)} files of weights "
                f"({some(missing, 2)}); finish its download into {folder}"
            )
        for name in names:
            with (folder / name).open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    raise ConfigError(
                        f"{name} of {self.called} is a placeholder of Git LFS, without the "
                        f"weights; run `git lfs pull` in {folder}"
                    )

    def _check_quantised(self, config: Any) -> None:
        """Refuse a configuration of weights in 8 or fewer bits."""
        if (quantised := getattr(config, "quantization_config", None)) is None:
            return
        found = quantised if isinstance(quantised, dict) else quantised.to_dict()
        raise ConfigError(
            f"{self.called} is quantised ({found.get('quant_method') or 'by an unnamed method'}, "
            "says quantization_config of its config.json), and serzoo computes with full weights; "
            f"{self._full}"
        )

    @property
    def _full(self) -> str:
        return f"give the model in float32, float16 or bfloat16, such as {self.example}"

    def _check_numbers(self) -> None:
        """Refuse weights in 8 or fewer bits: without their scale they would be other weights."""
        for path in self._weight_files():
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - it is no dictionary
                    kind = file.get_slice(key).get_dtype()
                    if kind in NUMBERS or not key.endswith(("weight", "bias")):
                        continue
                    raise ConfigError(
                        f"{key} of {self.called} has the number format {kind}, whose scale is not "
                        f"known here; {self._full}"
                    )

    def _weight_files(self) -> list[Path]:
        """Return the files of weights; those of the hub must have been fetched."""
        if self.local:
            folder = Path(self.path)
        else:
            config = hf_hub_download(self.path, "config.json", revision=self.commit)
            folder = Path(config).parent
        if (folder / WEIGHTS[0]).is_file():
            return [folder / WEIGHTS[0]]
        return sorted(folder.glob("model-*.safetensors"))

    @contextmanager
    def _explained(self, file: str) -> Iterator[None]:
        """Turn errors of libraries into ones that say what failed and what to do next."""
        try:
            yield
        except ConfigError:
            raise
        except (OSError, HfHubHTTPError, httpx.RequestError) as error:
            raise ConfigError(self._unreachable(file, error)) from error
        except LIBRARY as error:
            if file == WEIGHTS[0] and isinstance(error, (RuntimeError, SafetensorError)):
                raise ConfigError(
                    f"the weights of {self.called} do not fit its config.json or are damaged "
                    f"({first_line(error)}); fetch it again"
                ) from error
            raise ConfigError(
                f"{self.called} cannot be loaded ({first_line(error)}); give the folder of a model "
                f"of the right kind that needs no code of its own, or {self.example}"
            ) from error

    def _unreachable(self, file: str, error: Exception) -> str:
        if self.local:
            return (
                f"{file} of {self.called} cannot be read ({first_line(error)}); give a folder that "
                f"holds it, as save_pretrained writes it, or {self.example}"
            )
        if file == WEIGHTS[0] and "safetensors" in str(error):
            return (
                f"{self.called}: the hub's '{self.name}' has no {WEIGHTS[0]} at this revision, "
                f"and {NO_PICKLE}; try the revision of a pull request that adds it "
                "(revision=refs/pr/<number>, see the model's Community page); or download the "
                f"model and, if you trust it, convert it: {CONVERT}FOLDER"
            )
        at = f" at revision '{self.revision}'" if self.revision else ""
        if (entry := self.__dict__.get("locked")) is not None:
            at = f" at the locked commit {entry.commit} (lock it anew by {self.relock})"
        return (
            f"{self.called} cannot be loaded: there is no folder of this name here{_lacking()}, "
            f"and fetching {file} of the hub's '{self.name}'{at} failed ({first_line(error)}); "
            "check the spelling and the connection. Without a connection: put a downloaded copy "
            f"into a folder of models as {self.name.split('/')[-1]}, and set {MODELS} to that "
            f"folder; or give the copy as {self.setting}; or set HF_HOME to a cache that holds it "
            "(HF_HUB_OFFLINE=1 then asks no server)"
        )


def _models() -> Path | None:
    """Return the folder that ``$SERZOO_MODELS`` names; None if it is not set.

    Raises:
        ConfigError: if it is set to something else than a folder.
    """
    base = os.environ.get(MODELS)
    if not base:
        return None
    folder = Path(base).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{MODELS}={base} is not a folder; set it to one that holds a folder for each model "
            "(whisper-base, smollm2-135m-instruct, ...), or unset it to load from the hub"
        )
    return folder


def _kept(name: str, called: str) -> Path | None:
    """Return the folder of a hub id in ``$SERZOO_MODELS``.

    Letter case does not count.

    Raises:
        ConfigError: if the folder is empty, or several differ in letter case only and none is
            called exactly so.
    """
    if (base := _models()) is None:
        return None
    last = name.split("/")[-1]
    found = [f for f in (base / name, base / last) if f.is_dir()]
    if not found:
        alike = [f for f in base.iterdir() if f.is_dir() and f.name.lower() == last.lower()]
        if len(alike) > 1:
            raise ConfigError(
                f"{called} fits several folders of {MODELS}={base}: "
                f"{', '.join(sorted(f.name for f in alike))}; give one of these names"
            )
        found = alike
    if found and not any(found[0].iterdir()):
        raise ConfigError(
            f"{called} is to be read from {found[0]} ({MODELS}), but that folder is empty; "
            "download the model into it again, or remove the folder to load from the hub"
        )
    return found[0] if found else None


def _lacking() -> str:
    """Return the end of a message: the models that ``$SERZOO_MODELS`` holds."""
    if (base := _models()) is None:
        return ""
    held = sorted(f.name for f in base.iterdir() if f.is_dir() and (f / "config.json").is_file())
    return f" and none in {MODELS}={base} (it holds: {some(held, 6) if held else 'no model'})"


def vocabulary_files(tokenizer: Any) -> tuple[str, ...]:
    """Return names of files that can hold a tokenizer's vocabulary; empty if it needs none.

    ``transformers`` makes some tokenizers without any file. They turn all text into nothing.
    """
    names = getattr(type(tokenizer), "vocab_files_names", None) or {}
    return (*VOCABULARIES, *names.values()) if names else ()


@dataclass(frozen=True)
class Loaded:
    """A published model that is ready to run, with its identity.

    Attributes:
        published: the source.
        model: the module of ``transformers``, in evaluation mode.
        commit: the hub's commit that the configuration came from; None for a folder.
    """

    published: Published
    model: Any
    commit: str | None

    @cached_property
    def weights(self) -> str:
        """First 12 hexadecimal digits of a hash of the weights, computed on first use."""
        return weights_digest(self.model)

    @property
    def name(self) -> str:
        """Hub id, or the folder's name."""
        path = self.published.path
        return Path(path).resolve().name if self.published.local else path

    @property
    def source(self) -> str:
        """``NAME@COMMIT`` of a hub model, or ``NAME@WEIGHTS`` of a folder; 12 digits each."""
        return f"{self.name}@{self.commit[:12] if self.commit else self.weights}"

    def settings(self) -> dict[str, Any]:
        """Return the key of cached results. A digest of the weights identifies a folder."""
        revision = self.commit[:12] if self.commit else "local"
        return {"model": self.name, "revision": revision, "weights": self.weights}


def weights_digest(module: nn.Module) -> str:
    """Return the first 12 hexadecimal digits of a hash of a module's names and weights."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        value = value.float() if value.dtype == torch.bfloat16 else value  # NumPy has none
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


@contextmanager
def quiet() -> Iterator[None]:
    """Context without progress bars and warnings of transformers."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


# Speech encoders: the families, and the input that each expects.

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
"""Names of the families, by ``model_type`` of ``config.json``."""

SPECTRAL = ("wav2vec2-bert", "whisper")
"""Families that read a spectrogram. They scale it, so the samples are not normalised."""


@dataclass(frozen=True)
class Pretrained:
    """A published encoder, and the input that it expects.

    Attributes:
        model: the bare encoder of ``transformers`` (no pretraining or CTC head), float32.
        normalise: whether it expects utterances of zero mean and unit variance.
        normalise_from: the file that says so, or "default of <family>".
        commit: the hub's commit that the configuration came from; None for a folder.
        revision: the requested revision of the hub; None for a folder.
        read_from: ``hub``, ``folder`` or ``SERZOO_MODELS``.
    """

    model: Any
    normalise: bool
    normalise_from: str
    commit: str | None
    revision: str | None
    read_from: str


def load_speech_model(name: str, revision: str | None = None) -> Pretrained:
    """Load a published speech encoder of one of the :data:`FAMILIES`.

    Layerdrop and SpecAugment are off. They break a learned mix of layers, training on several
    devices, and short utterances. An adapter behind the last block is left out, since hidden
    states are taken before it. Whisper's decoder is left out, too.

    Args:
        name: hub id (``facebook/wav2vec2-base``) or local folder.
        revision: commit, tag or branch of a hub id.

    Raises:
        ConfigError: if it cannot be found or read, or is of another family. Also if its weights
            are pickled or incomplete, or if it was trained on another sampling rate.
    """
    source = Published.find("encoder.name", name, revision, example="facebook/wav2vec2-base")
    family = source.raw_config().get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"{source.called} is of model_type '{family}'; the hf encoder runs "
            f"{', '.join(f'{k} ({v})' for k, v in FAMILIES.items())}: choose a model of one of "
            "these, or register an encoder of your own (entry point group serzoo.encoders)"
        )
    config = source.config()
    config.layerdrop = config.encoder_layerdrop = 0.0
    config.apply_spec_augment = False
    config.mask_time_prob = config.mask_feature_prob = 0.0  # then no mask embedding is made
    config.add_adapter = config.use_intermediate_ffn_before_adapter = False
    loaded = source.load(AutoModel, config=config, trained=True)
    normalise, where = _normalise(source, config)
    return Pretrained(
        loaded.model, normalise, where, loaded.commit, source.revision, source.read_from
    )


def _normalise(source: Published, config: Any) -> tuple[bool, str]:
    spectral = config.model_type in SPECTRAL
    for file in ("preprocessor_config.json", "processor_config.json"):
        text = source.text(file)
        try:
            found = parse_json(text) if text is not None else {}
        except ValueError as error:
            raise ConfigError(
                f"{source.called}: {file} is damaged ({error}); fetch the model again"
            ) from error
        inner = found.get("feature_extractor")
        found = inner if isinstance(inner, dict) else found
        rate = found.get("sampling_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise ConfigError(
                f"{source.called} was trained on {rate} Hz ({file}); everything here is "
                f"{SAMPLE_RATE} Hz: choose a model of that rate"
            )
        if "feature_extractor_type" in found or "do_normalize" in found:
            return bool(found.get("do_normalize", not spectral)), file
    # as published: WavLM base and base+ (group norm) hear raw samples, all others normalised
    raw = config.model_type == "wavlm" and config.feat_extract_norm == "group"
    return not (raw or spectral), f"default of {FAMILIES[config.model_type]}"
