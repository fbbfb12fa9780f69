"""Loading published encoders: what is refused, what the files decide, what the messages say."""

from __future__ import annotations

import json
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from facts import says
from fake_hub import COMMIT
from safetensors.torch import load_file, save_file
from serzoo.zoo.core import registry, shipped
from serzoo.zoo.core.errors import ConfigError, DataNote
from serzoo.zoo.core.hub import Published, load_speech_model
from serzoo.zoo.encoders.hf import HFEncoder
from transformers import AutoModel


@pytest.mark.parametrize(
    ("family", "norm", "normalise"),
    [
        ("wav2vec2", "group", True),
        ("wav2vec2", "layer", True),
        ("hubert", "group", True),
        ("hubert", "layer", True),
        ("wavlm", "group", False),
        ("wavlm", "layer", True),
        ("data2vec-audio", "layer", True),
        ("unispeech-sat", "layer", True),
        ("sew", "group", True),
        ("wav2vec2-bert", "none", False),
        ("whisper", "none", False),
    ],
)
def test_without_a_preprocessor_file_the_family_decides(tiny_hf, family, norm, normalise):
    encoder = HFEncoder(name=tiny_hf(family, norm, do_normalize=None))
    assert encoder.source["normalise"] is normalise
    assert encoder.describe()["normalise_from"].startswith("default of ")


def test_reads_a_processor_file_of_transformers_5(tiny_hf):
    name = tiny_hf("wav2vec2", "layer", do_normalize=None)
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False}
    text = json.dumps({"feature_extractor": extractor, "processor_class": "Wav2Vec2Processor"})
    (Path(name) / "processor_config.json").write_text(text)
    encoder = HFEncoder(name=name)
    assert encoder.source["normalise"] is False
    assert encoder.describe()["normalise_from"] == "processor_config.json"


def test_half_precision_checkpoints_are_computed_in_float32(tiny_hf):
    name = tiny_hf("wav2vec2", "layer")
    AutoModel.from_pretrained(name).half().save_pretrained(name)
    encoder = HFEncoder(name=name)
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_pickled_weights_are_refused_and_the_advice_works(tiny_hf, monkeypatch):
    name = tiny_hf("wav2vec2", "group")
    audio, lengths = torch.linspace(-0.1, 0.2, 3000)[None].sin(), torch.tensor([3000])
    expected, _ = HFEncoder(name=name).extract(audio, lengths)
    torch.save(AutoModel.from_pretrained(name).state_dict(), Path(name) / "pytorch_model.bin")
    (Path(name) / "model.safetensors").unlink()
    with pytest.raises(
        ConfigError, match=says("pytorch_model.bin", "model.safetensors", "weights_only=True")
    ) as error:
        HFEncoder(name=name)
    command = str(error.value).split("if you trust it: ")[1]
    python, flag, code, folder = shlex.split(command)
    assert (python, flag, folder) == ("python", "-c", name)
    monkeypatch.setattr("sys.argv", ["-c", folder])
    exec(code, {})
    hidden, _ = HFEncoder(name=name).extract(audio, lengths)
    assert torch.equal(hidden, expected)


def test_a_model_that_lacks_weights_is_refused(tiny_hf):
    file = Path(tiny_hf()) / "model.safetensors"
    weights = load_file(file)
    del weights["encoder.layers.1.attention.k_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=says(1, "encoder.layers.1.attention.k_proj.weight")):
        HFEncoder(name=str(file.parent))


def test_damaged_weights_are_refused(tiny_hf):
    file = Path(tiny_hf()) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=says(file.parent, "damaged", "header")):
        HFEncoder(name=str(file.parent))


def test_weights_that_do_not_fit_the_config_are_refused(tiny_hf):
    file = Path(tiny_hf()) / "config.json"
    config = json.loads(file.read_text()) | {"intermediate_size": 64}
    file.write_text(json.dumps(config))
    with pytest.raises(
        ConfigError, match=says(file.parent, "config.json", "ignore_mismatched_sizes")
    ):
        HFEncoder(name=str(file.parent))


def test_other_kinds_of_model_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clap"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=says("'clap'", "wav2vec2", "wavlm", "sew", "whisper", "serzoo.encoders")
    ):
        HFEncoder(name=str(tmp_path))


def test_another_sampling_rate_is_refused(tiny_hf):
    name = tiny_hf(do_normalize=None)
    (Path(name) / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 8000}))
    with pytest.raises(ConfigError, match=says("8000 Hz", "preprocessor_config.json", "16000 Hz")):
        HFEncoder(name=name)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"config\.json.* save_pretrained"),
        (
            {"config.json": '{"model_type": "hubert"}'},
            r"model\.safetensors .*model\.safetensors\.index\.json",
        ),
        ({"config.json": "{", "model.safetensors": ""}, "config.json .*JSON"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path, files, message):
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    with pytest.raises(ConfigError, match=message):
        HFEncoder(name=str(tmp_path))


def test_the_folder_above_the_models_is_refused_and_they_are_named(tiny_hf, tmp_path):
    shutil.copytree(tiny_hf(), tmp_path / "models" / "whisper-base")
    with pytest.raises(ConfigError, match=says(tmp_path / "models", "config.json", "whisper-base")):
        HFEncoder(name=str(tmp_path / "models"))


def test_half_a_download_of_shards_is_refused(tiny_hf):
    name = tiny_hf()
    AutoModel.from_pretrained(name).save_pretrained(name, max_shard_size="20KB")
    (Path(name) / "model.safetensors").unlink(missing_ok=True)
    HFEncoder(name=name)  # the whole download
    shards = sorted(Path(name).glob("model-*.safetensors"))
    shards[1].unlink()
    words = (name, 1, f"of {len(shards)} files", shards[1].name)
    with pytest.raises(ConfigError, match=says(*words)):
        HFEncoder(name=name)
    (Path(name) / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match=says("model.safetensors.index.json", "fetch")):
        HFEncoder(name=name)


def test_a_placeholder_of_git_lfs_is_refused(tiny_hf):
    name = tiny_hf()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 377\n"
    (Path(name) / "model.safetensors").write_text(pointer)
    with pytest.raises(ConfigError, match=says(name, "model.safetensors", "`git lfs pull`")):
        HFEncoder(name=name)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_of_8_bits_are_refused(tiny_hf, kind):
    name = tiny_hf()
    file = Path(name) / "model.safetensors"
    key = "encoder.layers.1.attention.k_proj.weight"
    weights = load_file(file)
    weights[key] = weights[key].clamp(-1, 1).to(kind)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=says(key, name, "float16")):
        HFEncoder(name=name)


def test_a_quantised_checkpoint_is_refused_by_its_config(tiny_hf):
    name = tiny_hf()
    file = Path(name) / "config.json"
    quantised = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    config = json.loads(file.read_text()) | {"quantization_config": quantised}
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=says(name, "bitsandbytes", "float16")):
        HFEncoder(name=name)


def test_a_language_model_is_no_encoder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=says("encoder.name", "'llama'", "whisper")):
        HFEncoder(name=str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=says("missing", "model.safetensors", "facebook/wav2vec2-base")
    ):
        HFEncoder(name=str(tmp_path / "missing"))


def test_a_revision_of_a_folder_is_refused(tiny_hf):
    with pytest.raises(ConfigError, match=says("'v1'", "null")):
        HFEncoder(name=tiny_hf(), revision="v1")


def test_without_the_hub_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as error:
        HFEncoder(name="facebook/no-such-model", revision="abc")
    message = str(error.value)
    for part in (
        "no folder of this name",
        "'facebook/no-such-model' at revision 'abc' failed",
        "give the copy as encoder.name",
        "HF_HOME",
    ):
        assert part in message


@pytest.mark.parametrize(
    "name", ["hf", "wav2vec2-base", "hubert-base", "wavlm-base-plus", "data2vec-audio-base"]
)
def test_shipped_configs_fit_the_constructor(name):
    options = shipped.read("encoder", name)
    assert options.pop("type") == "hf"
    assert options.pop("optim") == "frozen"  # the optimisation that goes with it
    registry.check_options("encoders", "hf", options)
    assert options["name"].count("/") == 1


@pytest.mark.parametrize("revision", [COMMIT, "refs/pr/1"])
def test_the_commit_behind_a_revision_is_known(hub_cache, revision):
    assert load_speech_model("acme/tiny", revision).commit == COMMIT


def test_a_commit_with_a_pickle_only_is_refused(hub_cache):
    (hub_cache / "model.safetensors").rename(hub_cache / "pytorch_model.bin")
    with pytest.raises(
        ConfigError, match=says("'acme/tiny'", "model.safetensors", "revision=refs/pr/<number>")
    ):
        load_speech_model("acme/tiny", COMMIT)


def test_results_of_a_hub_model_are_kept_under_its_commit(hub_cache):
    loaded = Published.find("model", "acme/tiny", COMMIT, example="gpt2").load(AutoModel)
    assert loaded.source == "acme/tiny@012345678901"
    assert loaded.settings()["revision"] == "012345678901"
    origin = {"name": "acme/tiny", "revision": COMMIT, "commit": COMMIT}
    assert loaded.model.published_origin == origin
    assert not any(p.requires_grad for p in loaded.model.parameters())


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("SERZOO_MODELS", str(folder))
    return folder


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("owner/tiny", "tiny"), ("owner/tiny", "owner/tiny"), ("tiny", "tiny"),
        ("Owner/Tiny-135M", "tiny-135m"),
    ],
)  # fmt: skip
def test_a_model_of_the_declared_folder_is_read_before_the_hub(tiny_hf, models, name, inside):
    shutil.copytree(tiny_hf(), models / inside)
    with pytest.warns(DataNote, match=says(f"encoder.name={name}", models / inside, COMMIT)):
        encoder = HFEncoder(name=name, revision=COMMIT)
    facts = encoder.describe()
    assert (facts["read_from"], facts["revision"], facts["commit"]) == ("SERZOO_MODELS", None, None)
    assert facts["weights"] == HFEncoder(name=str(models / inside)).describe()["weights"]


def test_folders_that_differ_in_letter_case_only_must_be_named_exactly(models):
    for name in ("tiny", "TINY"):
        (models / name).mkdir()
    if len(list(models.iterdir())) == 1:
        pytest.skip("this file system does not tell the two names apart")
    find = partial(Published.find, "encoder.name", example="a/b")
    with pytest.raises(ConfigError, match=says("owner/Tiny", models, "TINY, tiny", "give")):
        find("owner/Tiny")
    (models / "TINY" / "config.json").touch()
    with pytest.warns(DataNote, match=says(models / "TINY")):
        assert find("owner/TINY").path == str(models / "TINY")


def test_a_folder_as_named_comes_before_the_declared_folder(tiny_hf, models, monkeypatch):
    shutil.copytree(tiny_hf(), models / "tiny")
    here = models.parent / "here"
    shutil.copytree(tiny_hf(), here / "tiny")
    monkeypatch.chdir(here)
    assert HFEncoder(name="tiny").describe()["read_from"] == "folder"


def test_a_declared_folder_that_is_none_is_refused(models, monkeypatch):
    monkeypatch.setenv("SERZOO_MODELS", str(models / "gone"))
    with pytest.raises(ConfigError, match=says("SERZOO_MODELS", models / "gone", "unset")):
        Published.find("encoder.name", "owner/tiny", example="a/b")


def test_an_empty_folder_of_a_model_is_refused(models):
    (models / "tiny").mkdir()
    with pytest.raises(ConfigError, match=says(models / "tiny", "empty", "download")):
        Published.find("encoder.name", "owner/tiny", example="a/b")


def test_half_a_download_in_the_declared_folder_is_refused(tiny_hf, models):
    shutil.copytree(tiny_hf(), models / "tiny")
    (models / "tiny" / "model.safetensors").unlink()
    with (
        pytest.warns(DataNote),
        pytest.raises(ConfigError, match=says("encoder.name=o/tiny", "model.safetensors")),
    ):
        HFEncoder(name="o/tiny")


def test_without_the_hub_the_error_names_both_ways(tiny_hf, models, monkeypatch):
    shutil.copytree(tiny_hf(), models / "other")
    monkeypatch.setattr(
        "serzoo.zoo.core.lock.HfApi.model_info",
        lambda *_, **__: (_ for _ in ()).throw(ConnectionError("unplugged")),
    )
    with pytest.raises(
        ConfigError, match=says("SERZOO_MODELS", models, "other", "HF_HOME", "unplugged")
    ):
        HFEncoder(name="owner/tiny")
