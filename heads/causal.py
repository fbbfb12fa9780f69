"""Where SELM's language models come from: made from scratch, or published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

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


def load_pretrained(name: str, revision: str | None) -> tuple[Any, PretrainedTokenizer]:
    """A published causal model in float32 and its tokenizer.

    Safetensors only, and no code from the hub: a model that needs either is refused.

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
    return model, PretrainedTokenizer(tokenizer, name)
