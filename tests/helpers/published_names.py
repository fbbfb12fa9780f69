"""Names and shapes of the weights of published checkpoints, as their files have them.

They are written down by hand, and do not ask ``transformers``. Sources, all read on 29 November
2026 in public repositories:

- names, shapes and the digests in ``INVENTORIES``: kadirnar/voicehub, ``asr_wav2vec2``,
  ``asr_hubert`` and ``asr_wavlm`` (``native/checkpoint.py``), read from headers of safetensors;
- numbers of tensors in ``INVENTORIES``: the Vokra runtime (``wav2vec2_ctc.rs``,
  ``data2vec_audio.rs``), counted in converted checkpoints;
- SEW and UniSpeech-SAT: the conversion scripts of ``transformers`` (``MAPPING``), and a reader of
  UniSpeech-SAT in TensorFlow;
- w2v-BERT 2.0: the converter of DialogueSidon to audio.cpp (32 tensors in a block);
- Whisper: the headers of whisper-base and whisper-tiny.en themselves (``tests/models``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shapes = dict[str, tuple[int, ...]]

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
CONVOLUTIONS = {
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}

# Heads of pretraining and recognition, which no encoder needs.

CTC: Shapes = {"lm_head.weight": (32, 0), "lm_head.bias": (32,)}
"""A zero is the width of the model."""
CTC_31: Shapes = {"lm_head.weight": (31, 0), "lm_head.bias": (31,)}
QUANTIZER: Shapes = {
    "quantizer.codevectors": (1, 640, 128),
    "quantizer.weight_proj.weight": (640, 512),
    "quantizer.weight_proj.bias": (640,),
    "project_q.weight": (256, 256),
    "project_q.bias": (256,),
    "project_hid.weight": (256, 0),
    "project_hid.bias": (256,),
}
SPEAKER: Shapes = {
    "speaker_proj.weight": (256, 0),
    "speaker_proj.bias": (256,),
    "label_embeddings_concat": (504, 256),
    "layer_norm_for_extract.weight": (0,),
    "layer_norm_for_extract.bias": (0,),
}


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint.

    Attributes:
        family: ``model_type`` of its ``config.json``.
        config: the fields of ``config.json`` that decide its architecture.
        prefix: what stands before the names of the encoder.
        head: the weights beside the encoder.
        masked: whether it holds the embedding of masked frames.
    """

    family: str
    config: Mapping[str, Any]
    prefix: str = ""
    head: Shapes = field(default_factory=dict)
    masked: bool = True

    def encoder(self, **sizes: Any) -> Shapes:
        """Return the weights of the encoder without prefix; ``sizes`` override the config."""
        config = {**self.config, **sizes}
        found = FORMS[self.family](config)
        if self.masked:
            found["masked_spec_embed"] = (config["hidden_size"],)
        return found

    def all(self, **sizes: Any) -> Shapes:
        """Return all weights under their published names."""
        found = {self.prefix + name: shape for name, shape in self.encoder(**sizes).items()}
        width = {**self.config, **sizes}.get("hidden_size", 0)
        head = {name: tuple(n or width for n in shape) for name, shape in self.head.items()}
        return {**found, **head}


def linear(name: str, inside: int, outside: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outside, inside), **({f"{name}.bias": (outside,)} if bias else {})}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def convolutions(c: Mapping[str, Any]) -> Shapes:
    found: Shapes = {}
    before = 1
    for k, (width, kernel) in enumerate(zip(c["conv_dim"], c["conv_kernel"], strict=True)):
        name = f"feature_extractor.conv_layers.{k}"
        found[f"{name}.conv.weight"] = (width, before, kernel)
        if c["conv_bias"]:
            found[f"{name}.conv.bias"] = (width,)
        if c["feat_extract_norm"] == "layer" or k == 0:
            found |= norm(f"{name}.layer_norm", width)
        before = width
    return found


def positions(c: Mapping[str, Any]) -> Shapes:
    width, kernel = c["hidden_size"], c["num_conv_pos_embeddings"]
    name = "encoder.pos_conv_embed.conv"
    return {
        f"{name}.weight_g": (1, 1, kernel),
        f"{name}.weight_v": (width, width // c["num_conv_pos_embedding_groups"], kernel),
        f"{name}.bias": (width,),
    }


def blocks(c: Mapping[str, Any]) -> Shapes:
    width, wide = c["hidden_size"], c["intermediate_size"]
    found = norm("encoder.layer_norm", width)
    for k in range(c["num_hidden_layers"]):
        name = f"encoder.layers.{k}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= linear(f"{name}.attention.{part}", width, width)
        found |= norm(f"{name}.layer_norm", width)
        found |= linear(f"{name}.feed_forward.intermediate_dense", width, wide)
        found |= linear(f"{name}.feed_forward.output_dense", wide, width)
        found |= norm(f"{name}.final_layer_norm", width)
    return found


def projection(c: Mapping[str, Any]) -> Shapes:
    last = c["conv_dim"][-1]
    return {
        **norm("feature_projection.layer_norm", last),
        **linear("feature_projection.projection", last, c["hidden_size"]),
    }


def wav2vec2(c: Mapping[str, Any]) -> Shapes:
    return {**convolutions(c), **projection(c), **positions(c), **blocks(c)}


def wavlm(c: Mapping[str, Any]) -> Shapes:
    found, heads = wav2vec2(c), c["num_attention_heads"]
    for k in range(c["num_hidden_layers"]):
        name = f"encoder.layers.{k}.attention"
        found[f"{name}.gru_rel_pos_const"] = (1, heads, 1, 1)
        found |= linear(f"{name}.gru_rel_pos_linear", c["hidden_size"] // heads, 8)
    found["encoder.layers.0.attention.rel_attn_embed.weight"] = (c["num_buckets"], heads)
    return found


def data2vec(c: Mapping[str, Any]) -> Shapes:
    width, groups = c["hidden_size"], c["num_conv_pos_embedding_groups"]
    found = {**convolutions(c), **projection(c), **blocks(c)}
    for k in range(c["num_conv_pos_embeddings"]):  # the number of layers here
        name = f"encoder.pos_conv_embed.layers.{k}.conv"
        found[f"{name}.weight"] = (width, width // groups, c["conv_pos_kernel_size"])
        found[f"{name}.bias"] = (width,)
    return found


def sew(c: Mapping[str, Any]) -> Shapes:
    last, width = c["conv_dim"][-1], c["hidden_size"]
    found = {**convolutions(c), **norm("layer_norm", last), **positions(c), **blocks(c)}
    if last != width:
        found |= linear("feature_projection", last, width)
    return {**found, **linear("encoder.upsample.projection", width, width * c["squeeze_factor"])}


def w2v_bert(c: Mapping[str, Any]) -> Shapes:
    width, wide, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    seen = c["feature_projection_input_dim"]
    found = norm("feature_projection.layer_norm", seen)
    found |= linear("feature_projection.projection", seen, width)
    distances = c["left_max_position_embeddings"] + c["right_max_position_embeddings"] + 1
    for k in range(c["num_hidden_layers"]):
        name = f"encoder.layers.{k}"
        for part in ("ffn1_layer_norm", "ffn2_layer_norm", "self_attn_layer_norm"):
            found |= norm(f"{name}.{part}", width)
        found |= norm(f"{name}.final_layer_norm", width)
        for part in ("ffn1", "ffn2"):
            found |= linear(f"{name}.{part}.intermediate_dense", width, wide)
            found |= linear(f"{name}.{part}.output_dense", wide, width)
        for part in ("q", "k", "v", "out"):
            found |= linear(f"{name}.self_attn.linear_{part}", width, width)
        found[f"{name}.self_attn.distance_embedding.weight"] = (distances, width // heads)
        module = f"{name}.conv_module"
        found |= norm(f"{module}.layer_norm", width)
        found |= norm(f"{module}.depthwise_layer_norm", width)
        found[f"{module}.pointwise_conv1.weight"] = (2 * width, width, 1)
        found[f"{module}.depthwise_conv.weight"] = (width, 1, c["conv_depthwise_kernel_size"])
        found[f"{module}.pointwise_conv2.weight"] = (width, width, 1)
    return found


def whisper(c: Mapping[str, Any]) -> Shapes:
    width = c["d_model"]
    found: Shapes = {
        "encoder.conv1.weight": (width, c["num_mel_bins"], 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.embed_positions.weight": (c["max_source_positions"], width),
        "decoder.embed_positions.weight": (c["max_target_positions"], width),
        "decoder.embed_tokens.weight": (c["vocab_size"], width),
    }
    for side, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        found |= norm(f"{side}.layer_norm", width)
        for k in range(c[f"{side}_layers"]):
            name = f"{side}.layers.{k}"
            for attention in attentions:
                for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                    found |= linear(f"{name}.{attention}.{part}", width, width, part != "k_proj")
                found |= norm(f"{name}.{attention}_layer_norm", width)
            found |= linear(f"{name}.fc1", width, c[f"{side}_ffn_dim"])
            found |= linear(f"{name}.fc2", c[f"{side}_ffn_dim"], width)
            found |= norm(f"{name}.final_layer_norm", width)
    return found


FORMS = {
    "wav2vec2": wav2vec2,
    "hubert": wav2vec2,
    "wavlm": wavlm,
    "unispeech-sat": wav2vec2,
    "data2vec-audio": data2vec,
    "sew": sew,
    "wav2vec2-bert": w2v_bert,
    "whisper": whisper,
}

BUCKETS = {"num_buckets": 320, "max_bucket_distance": 800}
SEW = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "conv_dim": [64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512],
    "conv_kernel": [10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1],
    "conv_stride": [5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1],
    "conv_bias": False,
    "feat_extract_norm": "group",
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "squeeze_factor": 2,
}
BERT = {
    **LARGE,
    "hidden_act": "swish",
    "feature_projection_input_dim": 160,
    "position_embeddings_type": "relative_key",
    "left_max_position_embeddings": 64,
    "right_max_position_embeddings": 8,
    "conv_depthwise_kernel_size": 31,
}
WHISPER = {
    "d_model": 512,
    **{f"{side}_layers": 6 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 8 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 2048 for side in ("encoder", "decoder")},
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "vocab_size": 51865,
    "pad_token_id": 50257,
}
DATA2VEC = {
    **BASE,
    **CONVOLUTIONS,
    "feat_extract_norm": "layer",
    "conv_bias": False,
    "conv_pos_kernel_size": 19,
    "num_conv_pos_embeddings": 5,
}

CHECKPOINTS = {
    "facebook/wav2vec2-base": Checkpoint(
        "wav2vec2", {**BASE, **CONVOLUTIONS, **GROUP}, "wav2vec2.", QUANTIZER
    ),
    # as XLS-R and MMS, which are pretrained in the same way
    "facebook/wav2vec2-large-xlsr-53": Checkpoint(
        "wav2vec2", {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": True}, "wav2vec2.", QUANTIZER
    ),
    "facebook/hubert-base-ls960": Checkpoint("hubert", {**BASE, **CONVOLUTIONS, **GROUP}),
    "facebook/hubert-large-ll60k": Checkpoint(
        "hubert", {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": True}
    ),
    "microsoft/wavlm-base-plus": Checkpoint("wavlm", {**BASE, **CONVOLUTIONS, **GROUP, **BUCKETS}),
    "microsoft/wavlm-large": Checkpoint(
        "wavlm", {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": False, **BUCKETS}
    ),
    "microsoft/unispeech-sat-base-plus": Checkpoint(
        "unispeech-sat",
        {**BASE, **CONVOLUTIONS, **GROUP},
        "unispeech_sat.",
        {**QUANTIZER, "quantizer.weight_proj.weight": (640, 0), **SPEAKER},
    ),
    "facebook/data2vec-audio-base": Checkpoint("data2vec-audio", DATA2VEC),
    "asapp/sew-tiny-100k": Checkpoint("sew", SEW),
    "facebook/w2v-bert-2.0": Checkpoint("wav2vec2-bert", BERT),
    "openai/whisper-base": Checkpoint("whisper", WHISPER, "model.", masked=False),
}

INVENTORIES: list[tuple[str, Checkpoint, int, str | None]] = [
    (
        "facebook/wav2vec2-base-960h",
        Checkpoint("wav2vec2", {**BASE, **CONVOLUTIONS, **GROUP}, "wav2vec2.", CTC, masked=False),
        212,
        "c56641e58f851eaa253cade293069281563c63aaa38aa03e6fe6b724aa193710",
    ),
    (
        "facebook/wav2vec2-large-960h-lv60-self",
        Checkpoint(
            "wav2vec2",
            {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": True},
            "wav2vec2.",
            CTC,
            masked=False,
        ),
        423,
        None,
    ),
    (
        "facebook/wav2vec2-large-xlsr-53",
        CHECKPOINTS["facebook/wav2vec2-large-xlsr-53"],
        429,
        None,
    ),
    (
        "facebook/hubert-large-ls960-ft",
        Checkpoint("hubert", {**LARGE, **CONVOLUTIONS, **LAYER, "conv_bias": True}, "hubert.", CTC),
        424,
        "c41b63b3e040e0ff791721caa449733917ca7f0f627516e86f6a5ed42e382b19",
    ),
    (
        "patrickvonplaten/wavlm-libri-clean-100h-base-plus",
        Checkpoint("wavlm", {**BASE, **CONVOLUTIONS, **GROUP, **BUCKETS}, "wavlm.", CTC_31),
        250,
        "81881f33a6f12eabd0d11f85bdd8fec5e1c46a9284bf16d02987a4d5b234ab9b",
    ),
    (
        "facebook/data2vec-audio-base-960h",
        Checkpoint("data2vec-audio", DATA2VEC, "data2vec_audio.", CTC),
        232,
        None,
    ),
]
"""Published checkpoints whose tensors were counted, and of some the :func:`inventory`."""

SIZES = {
    "microsoft/wavlm-base-plus": 377_617_425,
    "microsoft/unispeech-sat-base-plus": 382_236_294,
}
"""Bytes of ``pytorch_model.bin`` at commits 4c66d480 and 74f55958, from a public registry."""


def inventory(shapes: Shapes) -> str:
    """Return the SHA-256 of names, number format and shapes, as its source computes it."""
    rows = [f"{name}|F32|{'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items())]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def renamed(name: str) -> str:
    """Return the present name of a weight in a file of before weight norm was a parametrisation."""
    name = name.replace(".weight_g", ".parametrizations.weight.original0")
    return name.replace(".weight_v", ".parametrizations.weight.original1")
