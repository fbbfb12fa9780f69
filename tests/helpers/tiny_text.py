"""Text models with random weights and tokenizers that read words, saved as a hub would serve them.

Loaded by path from the tests, since tests/ is no package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer

SENTENCES = [
    "the speaker feels angry sad happy neutral disgusted surprised",
    "this person is what a wonderful day how dare you i am so tired of all of it someone says",
]
NLI3 = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}


def save_tokenizer(folder: Path, family: str, limit: int | None = 40) -> None:
    """Of BERT (word pieces), or of RoBERTa, BART and GPT-2 (pieces of bytes)."""
    if family == "bert":
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        special |= {"unk_token": "[UNK]", "mask_token": "[MASK]"}
        raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=120, special_tokens=list(special.values())
        )
    elif family == "gpt2":
        special = {"eos_token": "<|endoftext|>"}
        raw = Tokenizer(models.BPE())
    else:
        special = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>"}
        special |= {"eos_token": "</s>", "bos_token": "<s>"}
        raw = Tokenizer(models.BPE())
    if family != "bert":
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=list(dict.fromkeys(special.values())),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    raw.train_from_iterator(SENTENCES * 20, trainer)
    ids = {token: raw.token_to_id(token) for token in special.values()}
    if family == "bert":
        raw.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
    elif family != "gpt2":
        raw.post_processor = processors.RobertaProcessing(
            ("</s>", ids["</s>"]), ("<s>", ids["<s>"])
        )
    options = {} if limit is None else {"model_max_length": limit}
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if family != "bert":
        names.remove("token_type_ids")
    FastTokenizer(
        tokenizer_object=raw, model_input_names=names, **special, **options
    ).save_pretrained(folder)


def loud(model: Any, folder: Path) -> None:
    """Save with weights large enough that every token moves the output."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 2 * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)


def save_nli(
    folder: Path,
    family: str = "bert",
    labels: dict[int, str] | None = None,
    *,
    limit: int | None = 40,
    seed: int = 0,
) -> str:
    """An NLI classifier of one of ``bert``, ``roberta``, ``bart``."""
    labels = labels or NLI3
    torch.manual_seed(seed)
    small: dict[str, Any] = {
        "vocab_size": 300,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "id2label": labels,
        "label2id": {label: index for index, label in labels.items()},
    }
    if family == "bart":
        small |= {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
        small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        small |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        del small["hidden_size"], small["num_hidden_layers"]
    save_tokenizer(folder, family, limit)
    tokenizer = FastTokenizer.from_pretrained(folder)
    for kind in ("pad", "bos", "eos"):
        small[f"{kind}_token_id"] = getattr(tokenizer, f"{kind}_token_id")
    config = AutoConfig.for_model(family, **small)
    loud(AutoModelForSequenceClassification.from_config(config), folder)
    return str(folder)


def save_causal(folder: Path, family: str = "gpt2", seed: int = 0) -> str:
    """A language model, ``gpt2`` or ``llama``."""
    torch.manual_seed(seed)
    small: dict[str, Any] = {"vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    small |= {"num_key_value_heads": 1} if family == "llama" else {}
    save_tokenizer(folder, "gpt2", None)
    loud(AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small)), folder)
    return str(folder)


def save_sentences(folder: Path) -> str:
    """A tiny random model of sentence-transformers: BERT and the mean over its tokens.

    The test is skipped without that library.
    """
    library = pytest.importorskip("sentence_transformers")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    save_tokenizer(folder / "bert", "bert")
    loud(AutoModel.from_config(config), folder / "bert")
    model = library.SentenceTransformer(str(folder / "bert"), device="cpu")
    model.save(str(folder / "sentences"))
    return str(folder / "sentences")
