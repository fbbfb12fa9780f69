"""Speech encoders with random weights, saved as a hub download would be: what tests load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

FAMILIES = {
    "wav2vec2": ("group", "layer"),
    "hubert": ("group", "layer"),
    "wavlm": ("group", "layer"),
    "data2vec-audio": ("layer",),
    "unispeech-sat": ("group", "layer"),
    "sew": ("group", "layer"),
    "wav2vec2-bert": ("none",),
    "whisper": ("none",),
}
"""Family to the norms that its convolutions over samples know; "none" has no such convolutions."""

EXTRACTORS = {
    "wav2vec2-bert": "SeamlessM4TFeatureExtractor",
    "whisper": "WhisperFeatureExtractor",
}

CASES = [(family, norm) for family, norms in FAMILIES.items() for norm in norms]

CONVOLVED = [(family, norm) for family, norm in CASES if norm != "none"]
"""Those that convolve samples."""


def tiny_hf(
    folder: Path,
    family: str = "wav2vec2",
    norm: str = "group",
    *,
    do_normalize: bool | None = True,
    seed: int = 0,
    **config: Any,
) -> str:
    """Save a tiny encoder into ``folder`` and return the folder's name.

    The convolutions have the published kernels and strides (400 samples to the first frame, then
    320 each); 3 blocks, width 32. As published, ``group`` models are of the base kind and
    ``layer`` models of wav2vec2, hubert and wavlm of the large kind (stable layer norm). Weights
    are larger than at initialisation, so that every part of the model moves its output.

    Args:
        do_normalize: what ``preprocessor_config.json`` says; None = no such file.
        config: entries of ``config.json`` to override.
    """
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "conv_dim": [16] * 7,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer",
        "num_conv_pos_embedding_groups": 4,
        "vocab_size": 12,
    }
    if family == "data2vec-audio":
        options |= {"conv_pos_kernel_size": 19, "num_conv_pos_embeddings": 5}
    elif family == "sew":
        options |= {"conv_dim": [16] * 13, "squeeze_factor": 2}
    elif family == "wav2vec2-bert":
        options |= {"left_max_position_embeddings": 8, "conv_depthwise_kernel_size": 7}
    elif family == "whisper":
        options = {
            "d_model": 32,
            "encoder_layers": 3,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_source_positions": 50,  # a window of one second
            "vocab_size": 12,
            **{f"{kind}_token_id": 0 for kind in ("pad", "bos", "eos", "decoder_start")},
        }
    model = AutoModel.from_config(AutoConfig.for_model(family, **{**options, **config}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if do_normalize is not None:
        text = {
            "feature_extractor_type": EXTRACTORS.get(family, "Wav2Vec2FeatureExtractor"),
            "do_normalize": do_normalize,
            "sampling_rate": 16000,
        }
        if family in EXTRACTORS:  # as published: they say nothing of normalising samples
            del text["do_normalize"]
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(text))
    return str(folder)
