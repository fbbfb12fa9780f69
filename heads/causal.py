"""Where SELM's language models come from: made from scratch, or published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.pytorch_utils import Conv1D

from ..zoo.errors import ConfigError
from .spelling import ByteTokenizer, PretrainedTokenizer


def from_scratch(width: int, layers: int, dropout: float) -> GPT2LMHeadModel:
    """A small GPT-2 over bytes with random weights, tied input and output embeddings.

    Raises:
        ConfigError: when the width is not a positive multiple of 32.
    """
    if width <= 0 or width % 32:
        raise ConfigError(f"lm_width={width}; give a positive multiple of 32, such as 128")
    end = ByteTokenizer.end
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=ByteTokenizer.size,
            n_positions=256,
            n_embd=width,
            n_layer=layers,
            n_head=width // 32,
            activation_function="gelu",  # a quarter of the time of GPT-2's approximation
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            # GPT-2's 0.02 is for a width of 768 and more; here it would whisper at the start
            initializer_range=width**-0.5,
            attn_pdrop=0.0,  # on attention weights it costs a slower kernel
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of a seed, the caller's own left alone; nothing at all for None."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_pretrained(
    name: str, revision: str | None, seed: int | None = None
) -> tuple[Any, PretrainedTokenizer]:
    """A published causal model in float32 and its tokenizer.

    Safetensors only, and no code from the hub: a model that needs either is refused.

    Args:
        name: hub id, or a local folder.
        revision: commit, tag or branch of a hub id.
        seed: of random weights in place of the published ones, which are then not read; None =
            the published ones.

    Raises:
        ConfigError: saying why it cannot be loaded and what to do.
    """
    folder = Path(name).expanduser()
    looks_like_a_path = folder.is_absolute() or name.startswith(".") or name.count("/") > 1
    if looks_like_a_path and not folder.is_dir():
        raise ConfigError(
            f"lm '{name}' reads like a folder, but there is none at {folder.absolute()}; give one "
            "that holds config.json, model.safetensors and the tokenizer's files, a hub id such "
            "as gpt2, or lm=scratch"
        )
    source = str(folder) if folder.is_dir() else name
    auto: Any = AutoModelForCausalLM
    safe = {"revision": revision, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **safe)
        report: dict[str, Any] = {"missing_keys": ()}
        if seed is not None:
            config = AutoConfig.from_pretrained(source, **safe)
            with seeded(seed):
                model = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        else:
            model, report = auto.from_pretrained(
                source, **safe, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"lm '{name}' cannot be loaded ({reason}); give a hub id that this machine can reach, "
            "a folder that holds config.json, model.safetensors and the tokenizer's files (no "
            "pickled weights, no code), or lm=scratch"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(
            f"the weights of lm '{name}' lack {len(missing)} that a {model.config.model_type} "
            f"needs ({', '.join(missing[:3])}), and random ones would take their place; was it "
            "saved from another model?"
        )
    if getattr(model, "_is_stateful", False):
        raise ConfigError(
            f"lm '{name}' is a {model.config.model_type}, whose memory is a running state that "
            "labels cannot share; give a model that attends, such as gpt2"
        )
    return model, PretrainedTokenizer(tokenizer, name)


def add_lora(model: Any, rank: int, alpha: float, name: str) -> None:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on the layers that peft knows for it.

    For an architecture that peft does not know, on all its linear layers but the output.

    Raises:
        ConfigError: when the rank is not positive.
    """
    if rank < 1:
        raise ConfigError(f"lora_rank={rank} for lm '{name}'; give at least 1")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float is fine, the hint is narrow
        # None: peft looks them up by the model's type
        target_modules=None if model.config.model_type in TARGETS else "all-linear",
        # GPT-2 keeps its matrices transposed
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
        bias="none",
    )
    inject_adapter_in_model(config, model)


def frozen_parts(module: nn.Module, name: str) -> dict[str, nn.Module]:
    """The largest parts of a module that hold weights and train none, by name."""
    if not module.state_dict():
        return {}
    if not any(p.requires_grad for p in module.parameters()):
        return {name: module}
    parts: dict[str, nn.Module] = {}
    for child, part in module.named_children():
        parts |= frozen_parts(part, f"{name}.{child}")
    return parts


def save_tied_weights_once(module: nn.Module) -> None:
    """Leave the tied output matrix out of the state dict: safetensors refuses shared memory."""
    seen: dict[int, str] = {}
    tied: dict[str, str] = {}
    for key, parameter in module.named_parameters(remove_duplicate=False):
        if id(parameter) in seen:
            tied[key] = seen[id(parameter)]
        seen.setdefault(id(parameter), key)

    def drop(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for key in tied:
            state.pop(prefix + key, None)

    def restore(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for key, source in tied.items():
            if prefix + source in state:
                state[prefix + key] = state[prefix + source]

    module.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(restore)  # type: ignore[no-untyped-call]
