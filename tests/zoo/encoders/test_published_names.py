"""Published checkpoints: their names of weights and their configurations fit what loads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from facts import says
from published_names import CHECKPOINTS, INVENTORIES, SIZES, Checkpoint, inventory, renamed
from safetensors.torch import load_file, save_file
from serzoo.zoo.core import hub, shipped
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.hub import load_speech_model
from serzoo.zoo.encoders import families
from serzoo.zoo.encoders.hf import HFEncoder
from transformers import AutoConfig, AutoModel

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 48}
SMALL_WHISPER = {
    "d_model": 32,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 2 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
    "vocab_size": 64,
    "max_source_positions": 50,
    "max_target_positions": 8,
    **{f"{kind}_token_id": 0 for kind in ("pad", "bos", "eos", "decoder_start")},
}


def small(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return sizes for a small copy; all that decides the architecture stays as published."""
    if checkpoint.family == "whisper":
        return SMALL_WHISPER
    count = len(checkpoint.config.get("conv_dim", []))
    return {**SMALL, **({"conv_dim": [16] * count} if count else {})}


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a small copy under the published names; head and all."""
    torch.manual_seed(0)
    sizes = small(checkpoint)
    config = {**checkpoint.config, **sizes, "model_type": checkpoint.family}
    weights = {name: torch.randn(s) for name, s in checkpoint.all(**sizes).items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# The lists themselves.


def test_there_is_a_checkpoint_of_each_of_the_8_families() -> None:
    assert len(families.FAMILIES) == 8
    assert {c.family for c in CHECKPOINTS.values()} == set(families.FAMILIES) == set(hub.FAMILIES)


def test_the_shipped_encoders_are_of_these_families() -> None:
    names = [n for n in shipped.names("encoder") if shipped.read("encoder", n)["type"] == "hf"]
    assert len(names) == 28
    families_of = {"wav2vec2": ("wav2vec2", "xls-r", "mms"), "wav2vec2-bert": ("w2v-bert",)}
    starts = [start for f in families.FAMILIES for start in families_of.get(f, (f,))]
    starts = [s.removesuffix("-audio") for s in starts]
    assert [n for n in names if n != "hf" and not n.startswith(tuple(starts))] == []


@pytest.mark.parametrize(("name", "checkpoint", "count", "digest"), INVENTORIES)
def test_the_lists_are_those_of_published_files(
    name: str, checkpoint: Checkpoint, count: int, digest: str | None
) -> None:
    shapes = checkpoint.all()
    assert len(shapes) == count
    assert digest is None or inventory(shapes) == digest


@pytest.mark.parametrize("name", SIZES)
def test_the_lists_fill_the_published_files(name: str) -> None:
    shapes = CHECKPOINTS[name].all()
    rest = SIZES[name] - sum(4 * math.prod(shape) for shape in shapes.values())
    assert 0 < rest < 450 * len(shapes)  # names and places in a pickle


def test_a_block_of_w2v_bert_has_32_weights() -> None:
    names = CHECKPOINTS["facebook/w2v-bert-2.0"].encoder()
    assert sum(name.startswith("encoder.layers.7.") for name in names) == 32
    assert len(names) == 24 * 32 + 4 + 1


# What loads them.


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_transformers_builds_exactly_the_published_weights(name: str) -> None:
    checkpoint = CHECKPOINTS[name]
    config = AutoConfig.for_model(checkpoint.family, **checkpoint.config)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    built = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert built == {renamed(key): shape for key, shape in checkpoint.encoder().items()}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_loader_takes_every_weight_and_leaves_out_the_head_only(
    name: str, tmp_path: Path
) -> None:
    checkpoint = CHECKPOINTS[name]
    folder = write(tmp_path / "model", checkpoint)
    loaded = load_speech_model(str(folder)).model.state_dict()
    torch.manual_seed(0)
    sizes = small(checkpoint)
    saved = {key: torch.randn(shape) for key, shape in checkpoint.all(**sizes).items()}
    for key in checkpoint.head:
        del saved[key]
    # masks are for pretraining, and the loader leaves them out
    saved.pop(f"{checkpoint.prefix}masked_spec_embed", None)
    loaded.pop("masked_spec_embed", None)
    wanted = {renamed(key.removeprefix(checkpoint.prefix)): v for key, v in saved.items()}
    assert set(loaded) == set(wanted)
    assert all(torch.equal(loaded[key], value) for key, value in wanted.items())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_an_encoder_of_it_runs(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", CHECKPOINTS[name])
    encoder = HFEncoder(name=str(folder)).eval()
    audio = torch.linspace(-0.1, 0.2, 4000)[None].sin()
    hidden, mask = encoder.extract(audio, torch.tensor([4000]))
    assert hidden.shape[:2] == (1, 3)
    assert bool(mask.all())
    assert bool(hidden.isfinite().all())


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_one_weight_less_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    checkpoint = CHECKPOINTS[name]
    gone = next(key for key in checkpoint.all() if ".layers.1." in key and key.endswith("weight"))
    folder = write(tmp_path / "model", checkpoint)
    weights = load_file(folder / "model.safetensors")
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=says(1, gone.removeprefix(checkpoint.prefix))):
        load_speech_model(str(folder))
