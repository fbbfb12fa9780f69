"""Recognisers with random weights, saved as a hub download would be."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import (
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

SPECIAL = [
    *("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
]


def randomise(model: torch.nn.Module, scale: float = 1.0) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, scale * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))


def tiny_ctc(folder: Path, norm: str = "layer", seed: int = 0) -> str:
    torch.manual_seed(seed)
    vocab = {c: i for i, c in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFG"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        conv_dim=[16] * 7, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer",
        num_conv_pos_embedding_groups=4, vocab_size=len(vocab), pad_token_id=0,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config).eval()
    randomise(model, 2.0)
    model.save_pretrained(folder)
    return str(folder)


def tiny_whisper(
    folder: Path, *, multilingual: bool = True, suppress: bool = True, seed: int = 0
) -> str:
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    vocab = {c: i for i, c in enumerate(letters)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(
        vocab=vocab, merges=[], unk_token="<|endoftext|>", bos_token="<|endoftext|>",
        eos_token="<|endoftext|>", pad_token="<|endoftext|>", additional_special_tokens=SPECIAL[1:],
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    ids = {s: tokenizer.convert_tokens_to_ids(s) for s in SPECIAL}
    WhisperFeatureExtractor(chunk_length=2).save_pretrained(folder)
    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
        max_source_positions=100, max_target_positions=40, vocab_size=len(tokenizer),
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"], decoder_start_token_id=ids["<|startoftranscript|>"],
        suppress_tokens=None, begin_suppress_tokens=None, tie_word_embeddings=False,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    randomise(model, 2.5)
    generation = model.generation_config
    generation._from_model_config = False  # else it is made anew when it is loaded
    generation.is_multilingual = multilingual
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    if suppress:
        generation.suppress_tokens = [i for s, i in ids.items() if s != "<|endoftext|>"]
    generation.max_length = 40
    if multilingual:
        generation.lang_to_id = {k: ids[k] for k in ("<|en|>", "<|de|>", "<|fr|>")}
        generation.task_to_id = {k: ids[f"<|{k}|>"] for k in ("translate", "transcribe")}
    model.save_pretrained(folder)
    return str(folder)


def tiny_moonshine(folder: Path, seed: int = 0) -> str:
    torch.manual_seed(seed)
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{c: 3 + i for i, c in enumerate("abcdefghijĠ")}}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(), ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    ).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True).save_pretrained(folder)
    config = MoonshineConfig(
        hidden_size=32, intermediate_size=48, encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2, encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        encoder_num_key_value_heads=2, decoder_num_key_value_heads=2, vocab_size=len(vocab),
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = MoonshineForConditionalGeneration(config).eval()
    randomise(model, 1.5)
    model.save_pretrained(folder)
    return str(folder)
