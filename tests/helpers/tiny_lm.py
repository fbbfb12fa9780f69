"""Language models with random weights, saved as a hub download would be."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as FastTokenizer

TEXT = ["this emotion is happy", "this emotion is sad", "this sentiment is positive"] * 20


def save_tokenizer(folder: Path, **special: str) -> None:
    """A byte-level BPE with real merges, in the files that the hub serves."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet
    )
    bpe.train_from_iterator(TEXT, trainer)
    FastTokenizer(tokenizer_object=bpe, **special).save_pretrained(folder)


def save_gpt2(folder: Path, **tokens: str) -> str:
    """A tiny random GPT-2, with dropout, as a folder."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=300, n_positions=64, n_embd=16, n_layer=2, n_head=2, initializer_range=0.5
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder, **(tokens or {"eos_token": "<|endoftext|>"}))
    return str(folder)


def save_llama(folder: Path) -> str:
    """Another architecture: rotary positions, grouped keys, untied output matrix."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder, eos_token="<|endoftext|>")
    return str(folder)
