"""Saved models: the files, the same scores bit for bit after loading, and the refusals."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from close import assert_like
from facts import says
from huggingface_hub import ModelCard
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import httpx
from peft import PeftModel
from safetensors.torch import load_file, save_file
from serzoo import zoo
from serzoo.zoo import push_to_hub, save_pretrained
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import CheckpointError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Targets
from serzoo.zoo.core.weights import strip_frozen
from serzoo.zoo.run import published, save
from serzoo.zoo.run.build import build
from serzoo.zoo.run.card import model_card
from serzoo.zoo.run.config import compose
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.published import FILES
from serzoo.zoo.run.record import Record
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import run_folder, train
from transformers import AutoModel

TAXONOMY = Taxonomy.of(["angry", "happy", "sad"])
SMALL = {
    "classification": {},
    "gen_ser": {"code_dim": 16, "width": 16},
    "selm": {"lm_width": 32},
}
LOGMEL = {"type": "logmel", "widths": [4, 8, 8, 8], "dim": 16, "bfloat16": False}


def load(path, **options):
    """The module of a saved model."""
    return zoo.load(path, **options).module


def module_of(encoder: dict[str, Any], head: str = "classification", seed: int = 1) -> SERModule:
    """A module as `train` builds it, with random changes of every trained weight."""
    base = {
        "groups": {"encoder": encoder["type"], "head": head},
        "encoder": encoder,
        "head": SMALL[head],
        "corpus": "ravdess",
    }
    cfg: RunConfig = compose(base, [("seed", seed)])
    meta = {
        "config": cfg.to_dict(),
        "fingerprint": cfg.fingerprint,
        "head": dict(cfg.head),
        "taxonomy": TAXONOMY.to_dict(),
        "taxonomy_fingerprint": TAXONOMY.fingerprint,
        "data": {"manifest": "a1", "split": "b2"},
    }
    module = build(cfg, TAXONOMY, meta)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def scores(module: SERModule) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    audio = 0.1 * torch.randn(2, 5000, generator=generator)
    batch = Batch(
        ids=["a", "b"], speakers=["x", "y"], audio=audio, lengths=torch.tensor([5000, 3000]),
        targets=Targets(torch.eye(3)[:2], torch.ones(2)),
    )  # fmt: skip
    with torch.no_grad():
        return module(batch)


def edit(folder: Path, change: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved model without a published encoder."""
    return save_pretrained(module_of(LOGMEL), tmp_path / "saved")


@pytest.fixture(autouse=True)
def strict_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that the card's template misspells is an error, not an empty text."""
    strict = partial(jinja2.Template, undefined=jinja2.StrictUndefined)
    monkeypatch.setattr(jinja2, "Template", strict)


# Saving and loading again.


@pytest.mark.parametrize("head", SMALL)
@pytest.mark.parametrize("tuning", ["frozen", "lora", "last_k", "full", "from scratch"])
def test_scores_come_back_bit_for_bit(tiny_hf, tmp_path, head, tuning):
    encoder = LOGMEL
    if tuning != "from scratch":
        encoder = {"type": "hf", "name": tiny_hf("wav2vec2", "layer"), "tuning": tuning}
    if tuning == "lora":
        encoder |= {"lora_rank": 2, "lora_dora": True}
    module = module_of(encoder, head)
    module.temperature = 1.25
    torch.manual_seed(99)
    folder = save_pretrained(module, tmp_path / "saved")
    again = load(folder)
    assert torch.equal(scores(module), scores(again))
    assert again.temperature == 1.25
    assert not again.training
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(FILES) if tuning == "lora" else found == {f for f in FILES if "/" not in f}
    kept = load_file(folder / "model.safetensors")
    assert not [k for k in kept if "lora" in k]
    assert any(k.startswith("encoder.backbone.") for k in kept) is (tuning in ("last_k", "full"))
    # a second save gives the same bytes
    twice = save_pretrained(again, tmp_path / "twice")
    assert all((twice / f).read_bytes() == (folder / f).read_bytes() for f in found)


def test_the_configuration_names_the_same_run(saved):
    module = load(saved)
    assert (
        RunConfig.from_dict(module.metadata["config"]).fingerprint
        == (module.metadata["fingerprint"])
    )


def test_no_folder_of_the_user_s_machine_is_written(tmp_path):
    module = module_of(LOGMEL)
    module.metadata["config"]["data"]["root"] = "/home/someone/corpora"
    module.metadata["config"]["data"]["options"] = {"table": "/home/someone/table.csv"}
    module.metadata["config"]["trainer"]["out"] = "/home/someone/runs"
    folder = save_pretrained(module, tmp_path / "saved")
    written = (folder / "config.json").read_text() + (folder / "README.md").read_text()
    assert "someone" not in written


def test_averaged_weights_are_what_is_saved(tmp_path):
    module = module_of(LOGMEL)
    ours = strip_frozen(module.state_dict(), module.frozen_keys())
    averaged = {k: v + 1 for k, v in ours.items()}
    module.average = type("Average", (), {"weights": averaged})()
    folder = save_pretrained(module, tmp_path / "saved")
    kept = load_file(folder / "model.safetensors")
    assert kept.keys() == averaged.keys()
    assert all(torch.equal(v, averaged[k]) for k, v in kept.items())


# A whole run.


@pytest.fixture(scope="module")
def run(tiny_recipe: str) -> Path:
    from serzoo.zoo.run.config import load as load_config

    cfg = load_config(tiny_recipe, ["seed=7"])
    train(cfg)
    return run_folder(cfg)


def test_a_run_is_saved_with_its_numbers(run, tmp_path, capsys):
    folder = tmp_path / "shared"
    assert main(["save", str(run), str(folder), "--licence", "cc-by-4.0"]) == 0
    assert str(folder) in capsys.readouterr().out
    assert torch.equal(scores(load(run)), scores(load(folder)))
    record = json.loads((run / "record.json").read_text())
    assert load(folder).temperature == load(run).temperature == record["metrics"]["temperature"]
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    values = {r.metric_name: r.metric_value for r in card.data.eval_results}
    assert values == {
        name: round(record["metrics"][key], 4)
        for name, key in (("UAR", "uar"), ("WA", "wa"), ("macro-F1", "f1"))
    }
    low, high = record["metrics"]["uar_interval"]
    assert f"{low:.3f} to {high:.3f}" in card.text
    assert "`kfold-5`, fold 0" in card.text
    for heading in ("Intended use", "Metrics", "Data", "Model", "Loading", "Licence"):
        assert f"## {heading}" in card.text


def test_a_saved_model_evaluates_as_its_run(run, tmp_path):
    folder = save_pretrained(run, tmp_path / "shared")
    root = RunConfig.from_dict(load(run).metadata["config"]).data.root
    a, _ = evaluate(run)
    b, _ = evaluate(folder, root=root)
    assert a.ids == b.ids
    assert (a.scores == b.scores).all()


# The card.


def test_the_card_names_licences_and_the_base(tiny_hf, tmp_path):
    module = module_of({"type": "hf", "name": tiny_hf("wavlm", "group"), "tuning": "lora"})
    module.encoder.source["commit"] = "c0ffee"
    module.encoder.name = "microsoft/wavlm-base-plus"
    folder = save_pretrained(module, tmp_path / "saved")
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == "microsoft/wavlm-base-plus"
    assert card.data.language == ["en"]
    assert card.data.license == "other"
    assert "CC BY-NC-SA 4.0" in card.text
    assert "Livingstone" in card.text
    assert "angry, happy, sad" in card.text
    assert "None: no record of a run" in card.text
    assert 'from_pretrained("microsoft/wavlm-base-plus", revision="c0ffee")' in card.text
    assert "ignores the adapters on q_proj, k_proj, v_proj, out_proj of WavLM" in card.text
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "microsoft/wavlm-base-plus"
    assert adapter["revision"] == "c0ffee"
    assert adapter["task_type"] is None  # any other gives the encoder a text-shaped forward


def card_of(folder: Path, record: Record | None = None, **changes: Any) -> str:
    """The text of the card, after changes of a saved configuration."""
    config = json.loads((folder / "config.json").read_text())
    config["training"] |= changes.pop("training", {})
    return ModelCard(model_card(config | changes, record)).text


NUMBERS = {
    "uar": 0.5, "wa": 0.6, "f1": 0.4, "nll": 1.5, "nll_calibrated": 1.25, "ece": 0.2,
    "uar_interval": None, "uar_interval_by": "one speaker: no interval",
}  # fmt: skip


def test_the_card_says_what_the_record_holds(saved):
    unsure = "whether speakers of tess are in several parts"
    record = Record(
        metrics=NUMBERS, notes=["3 files left out"], split_notes=["2 women"],
        audit={"unsure": [unsure]},
    )  # fmt: skip
    text = card_of(saved, record, temperature=1.25)
    assert "| 0.500 (one speaker: no interval) |" in text
    assert "| negative log-likelihood | 1.500, calibrated 1.250 |" in text
    assert "calibration error" not in text  # it was not calibrated
    assert f"{unsure}.**" in text
    assert "are calibrated: scores are divided by 1.25," in text
    assert "\n\n- 3 files left out\n- 2 women\n\n## Model" in text
    assert "not calibrated" in card_of(saved)


def test_the_card_says_what_only_the_author_has(saved):
    source = {"name": "/home/me/wavlm", "commit": None, "revision": None, "weights": "ab12"}
    encoder = {"type": "hf", "layers": [1, 2], "tuning": "lora", "lora_targets": ["output_dense"]}
    own = {"head": "mine:MyHead@12", "head file": "mine.py@34"}
    text = card_of(
        saved, encoder=encoder, published={"encoder": source}, data=None,
        training={"own": own, "corpus": []},
    )  # fmt: skip
    assert 'load("FOLDER_OR_HUB_ID", head=MyHead)' in text
    assert "the code of `MyHead`," in text
    assert 'load("FOLDER", base="ENCODER_FOLDER")' in text
    assert 'AutoModel.from_pretrained("ENCODER_FOLDER")' in text
    assert "a local copy `wavlm`, weights `ab12`, layers [1, 2], tuning `lora`" in text
    assert "manifest of the author's" in text
    assert "ignores the adapters" not in text
    assert "/home/me" not in text


# The adapters in plain transformers and peft.

PLAIN = [
    ("wav2vec2", "group", None),
    ("wav2vec2", "layer", None),
    ("hubert", "group", None),
    ("wavlm", "group", ["intermediate_dense", "output_dense"]),
    ("data2vec-audio", "layer", None),
    ("unispeech-sat", "group", None),
    ("sew", "group", None),
    ("wav2vec2-bert", "none", None),
    ("whisper", "none", None),
]


@pytest.mark.parametrize(("family", "norm", "targets"), PLAIN)
def test_adapters_load_into_the_plain_model(tiny_hf, tmp_path, family, norm, targets):
    name = tiny_hf(family, norm)
    encoder = {
        "type": "hf", "name": name, "tuning": "lora", "lora_rank": 2, "layers": [2],
        "lora_targets": targets,
    }  # fmt: skip
    module = module_of(encoder)
    folder = save_pretrained(module, tmp_path / "saved")
    ours = module.encoder
    size = 16000 if family == "whisper" else 4000  # a whole window: nothing is padded
    audio = 0.1 * torch.randn(1, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = ours.extract(audio, torch.tensor([size]))[0][:, 0]
    plain = AutoModel.from_pretrained(name).eval()
    stock = _plain_states(plain, family, ours, audio)[2]
    adapted = PeftModel.from_pretrained(plain, folder / "adapter").eval()
    found = _plain_states(adapted.base_model.model, family, ours, audio)[2]
    assert_like(found, wanted)
    assert (stock - wanted).abs().max() > 1e-3 * wanted.abs().max()  # the adapters are awake


@torch.no_grad()
def _plain_states(model: Any, family: str, ours: Any, audio: torch.Tensor) -> Any:
    from serzoo.zoo.encoders.families import kaldi_filter_bank, real_samples, whisper_log_mel

    lengths = torch.tensor([audio.shape[1]])
    if family == "whisper":
        features = whisper_log_mel(audio, model.config.num_mel_bins)
        return model.encoder(features, output_hidden_states=True).hidden_states
    samples = real_samples(audio, lengths, normalise=ours.family.normalise)
    if family == "wav2vec2-bert":
        features, _ = kaldi_filter_bank(samples, lengths)
        return model(input_features=features, output_hidden_states=True).hidden_states
    return model(input_values=samples, output_hidden_states=True).hidden_states


# Refusals.


def reorder(config: dict[str, Any]) -> None:
    config["taxonomy"]["classes"] = dict(reversed(config["taxonomy"]["classes"].items()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reorder, r"fingerprint [0-9a-f]{12}\b.* [0-9a-f]{12}: .*order"),
        (lambda c: c.update(format=2), r"format 2 \(.*\).* 1; "),
        (lambda c: c.pop("library"), r"config\.json .*`serzoo save`.*checkpoints/best\.ckpt"),
        (lambda c: c.pop("taxonomy"), r"config\.json .*\(no taxonomy\)"),
        (lambda c: c.update(temperature="hot"), r"config\.json .*temperature is 'hot'"),
        (lambda c: c["head"].update(type="classifications"), "'classifications'.*'classification'"),
        (lambda c: c["encoder"].update(type="logmell"), "'logmell'.*'logmel'"),
        (lambda c: c["head"].update(colour=1), "head 'classification': .*'colour'.* dropout"),
        (lambda c: c["encoder"].update(dim="wide"), "encoder 'logmel': .*dim='wide'.* int"),
        (lambda c: c["head"].update(type="os:system"), "head 'os:system'.*code"),
        (lambda c: c["encoder"].update(type="serzoo.zoo.x"), r"encoder 'serzoo\.zoo\.x'.*code"),
        (lambda c: c["head"].update(type=["os"]), r"head '\['os'\]'.*code"),
        (lambda c: c["training"].update(surprise=1), "'surprise'.* corpus, data"),
        (lambda c: c["taxonomy"].pop("classes"), r"config\.json.*'classes'"),
        (
            lambda c: c["head"].update(hidden=5),
            r"\b2 .*\(head\.output\.3\.bias, head\.output\.3\.weight\)",
        ),
        (lambda c: c["encoder"].update(bands=32), r"bands=64 .*\b32\b"),
    ],
)
def test_another_configuration_is_refused(saved, change, message):
    edit(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load(saved)


def change_weights(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.output.0.bias"), r"\b1 .*\(head\.output\.0\.bias\)"),
        (lambda w: w.update(surplus=torch.ones(1)), r"\b1 .*\(surplus\)"),
        (
            lambda w: w.update({"head.output.0.bias": torch.ones(4)}),
            r"\b1 .*head\.output\.0\.bias: \[4\] .*\[3\]",
        ),
        (
            lambda w: w.update({"head.output.0.bias": torch.ones(3, dtype=torch.float16)}),
            r"head\.output\.0\.bias .*torch\.float16.*torch\.float32",
        ),
    ],
)
def test_other_weights_are_refused(saved, change, message):
    change_weights(saved, change)
    with pytest.raises(CheckpointError, match=message):
        load(saved)


def test_cut_or_foreign_files_are_refused(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:7], whole[: len(whole) // 2], whole[:-1], b"no tensors" * 99):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=says(path, "damaged")):
            load(saved)
    (saved / "config.json").write_text('{"library": ')
    with pytest.raises(CheckpointError, match=says("config.json", "damaged", "line 1")):
        load(saved)


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_no_pickle_is_ever_read(saved, tmp_path):
    mark = tmp_path / "executed"
    pickled = pickle.dumps(Payload(mark))
    (saved / "model.safetensors").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=says(saved / "model.safetensors", "header")):
        load(saved)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=says("model.safetensors", "pytorch_model.bin")):
        load(saved)
    assert not mark.exists()
    pickle.loads(pickled)  # the payload works
    assert mark.exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=says(saved, name)):
        load(saved)


def test_adapters_are_checked_as_well(tiny_hf, tmp_path):
    encoder = {"type": "hf", "name": tiny_hf("wav2vec2", "group"), "tuning": "lora"}
    folder = save_pretrained(module_of(encoder), tmp_path / "saved")
    path = folder / "adapter" / "adapter_model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))
    save_file({k: v for k, v in weights.items() if k != first}, path)
    with pytest.raises(CheckpointError, match=says(1, "k_proj.lora_A.default.weight")):
        load(folder)
    save_file({**weights, "base_model.model.x": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=says(1, "base_model.model.x")):
        load(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=says("adapter has", "adapter_model.safetensors")):
        load(folder)


def test_stray_adapters_are_refused(saved):
    (saved / "adapter").mkdir()
    save_file({"x": torch.ones(1)}, saved / "adapter" / "adapter_model.safetensors")
    with pytest.raises(
        CheckpointError, match=says("adapter/adapter_model.safetensors", "config.json", "LoRA")
    ):
        load(saved)


def other_encoder(name: str) -> None:
    weights = load_file(f"{name}/model.safetensors")
    key = next(k for k in weights if k.endswith("q_proj.weight"))
    weights[key] = weights[key] + 1e-3
    save_file(weights, f"{name}/model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_another_published_encoder_is_refused(tiny_hf, tmp_path, tuning):
    name = tiny_hf("wav2vec2", "group")
    module = module_of({"type": "hf", "name": name, "tuning": tuning})
    digest = module.encoder.describe()["weights"]
    folder = save_pretrained(module, tmp_path / "saved")
    copy = str(shutil.copytree(name, tmp_path / "copy"))
    other_encoder(name)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    text = str(caught.value)
    assert re.search(f"published weights {digest} .*encoder", text)
    assert f"('{name}', revision not given)" in text
    assert text.count(name) == 2
    # the same weights in another folder are accepted
    assert torch.equal(scores(load(folder, base=copy)), scores(module))


def test_another_language_model_is_refused(tmp_path, monkeypatch):
    from serzoo.heads.selm.head import SELMHead

    # a stand-in for a published model: it is not saved, but built again from the seed
    roots = {"language.model": lambda head: head.language.model}
    monkeypatch.setattr(
        SELMHead, "frozen_roots", lambda head: {k: of(head) for k, of in roots.items()}
    )
    folder = save_pretrained(module_of(LOGMEL, "selm"), tmp_path / "saved")
    digest = json.loads((folder / "config.json").read_text())["published"]
    assert list(digest) == ["head.language.model"]
    edit(folder, lambda config: config["training"].update(seed=2))
    with pytest.raises(
        CheckpointError, match=r"weights [0-9a-f]{12} .*head\.language\.model.* [0-9a-f]{12}\b"
    ):
        load(folder)


def test_the_commit_is_loaded_though_a_branch_was_named(tiny_hf, tmp_path, monkeypatch):
    from serzoo.zoo.encoders import hf

    name = tiny_hf("wav2vec2", "group")
    real, asked = hf.load_speech_model, []

    def fake(hub_id: str, revision: str | None) -> Any:
        asked.append((hub_id, revision))
        return replace(real(name, None), commit="c0ffee")

    monkeypatch.setattr(hf, "load_speech_model", fake)
    module = module_of({"type": "hf", "name": "some/encoder", "revision": "main"})
    folder = save_pretrained(module, tmp_path / "saved")
    assert torch.equal(scores(load(folder)), scores(module))
    assert asked == [("some/encoder", "main"), ("some/encoder", "c0ffee")]


def test_other_preprocessing_is_refused(tiny_hf, tmp_path):
    name = tiny_hf("wav2vec2", "group")
    folder = save_pretrained(module_of({"type": "hf", "name": name}), tmp_path / "saved")
    path = Path(name) / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"do_normalize": true', '"do_normalize": false'))
    with pytest.raises(
        CheckpointError, match=says("normalise=True", "False", "preprocessor_config.json")
    ):
        load(folder)


def test_a_lightning_checkpoint_notices_another_encoder(tiny_recipe, tiny_hf, tmp_path):
    from serzoo.zoo.run.config import load as load_config

    name = tiny_hf("wav2vec2", "group")
    more = ["encoder=hf", f"encoder.name={name}", "encoder.layers=[1]", "optim.epochs=1"]
    cfg = load_config(tiny_recipe, [*more, f"trainer.out={tmp_path / 'runs'}"])
    train(cfg)
    run = run_folder(cfg)
    load(run)
    other_encoder(name)
    with pytest.raises(CheckpointError, match=r"weights [0-9a-f]{12} .*encoder\b.* [0-9a-f]{12}\b"):
        load(run)
    (run / "record.json").unlink()
    (resumed := load_config(tiny_recipe, more)).trainer.out = str(tmp_path / "runs")
    with pytest.raises(
        CheckpointError, match=r"checkpoint .*weights [0-9a-f]{12} .*encoder\b.* [0-9a-f]{12}\b"
    ):
        train(resumed)


# Folders.


def test_a_folder_with_something_else_is_left_alone(saved, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=says(mine, "--overwrite")):
        save_pretrained(saved, mine)
    assert [p.name for p in mine.iterdir()] == ["thesis.txt"]
    save_pretrained(saved, mine, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "mine"
    load(mine)
    save_pretrained(saved, mine)  # now it is ours
    assert (mine / "thesis.txt").read_text() == "mine"


def test_what_is_left_of_an_older_model_goes(tiny_hf, tmp_path):
    encoder = {"type": "hf", "name": tiny_hf("wav2vec2", "group"), "tuning": "lora"}
    folder = save_pretrained(module_of(encoder), tmp_path / "saved")
    assert (folder / "adapter").is_dir()
    save_pretrained(module_of(LOGMEL), folder)
    assert not (folder / "adapter").exists()


def test_a_failed_write_leaves_what_was_there(saved, tmp_path, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    around = sorted(tmp_path.iterdir())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    module = module_of(LOGMEL, seed=2)
    monkeypatch.setattr(save, "model_card", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(module, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(module, tmp_path / "new")
    assert sorted(tmp_path.iterdir()) == around


@pytest.mark.parametrize("source", [3, torch.nn.Linear(1, 1), None])
def test_only_a_trained_model_is_saved(tmp_path, source):
    with pytest.raises(CheckpointError, match=says(type(source).__name__, "SERModule")):
        save_pretrained(source, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_module_that_cannot_be_built_again_is_not_saved(tmp_path):
    module = module_of(LOGMEL)
    module.metadata = {}  # as if built by hand; the parts know how they were built
    folder = save_pretrained(module, tmp_path / "by hand")
    assert type(load(folder).encoder) is type(module.encoder)

    class Own(type(module.head)):
        """Registered by nobody."""

    module.head = Own(module.encoder.dim, module.head.taxonomy)
    with pytest.raises(CheckpointError, match=says("head", "serzoo.heads")):
        save_pretrained(module, tmp_path / "saved")


# The hub.


def test_a_hub_id_is_fetched_without_code(saved, monkeypatch):
    asked = {}

    def fetch(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(saved)

    monkeypatch.setattr(published, "snapshot_download", fetch)
    assert torch.equal(scores(load("someone/model", revision="v1")), scores(load(saved)))
    assert (asked["repo_id"], asked["revision"]) == ("someone/model", "v1")
    assert {Path(p).suffix for p in asked["allow_patterns"]} == {".json", ".safetensors", ".md"}
    assert not [p for p in asked["allow_patterns"] if "*" in p]


def test_a_hub_that_does_not_answer_is_an_error(monkeypatch):
    def fetch(*_: Any, **__: Any) -> str:
        raise OSError("no route")

    monkeypatch.setattr(published, "snapshot_download", fetch)
    with pytest.raises(CheckpointError, match=says("someone/model", "'someone/model'", "no route")):
        load("someone/model")


def test_a_revision_is_of_the_hub_only(saved):
    with pytest.raises(CheckpointError, match=says(saved, "'v1'")):
        load(saved, revision="v1")


def test_a_model_is_uploaded(saved, monkeypatch, capsys):
    calls: list[tuple[str, dict[str, Any]]] = []

    def create(repo_id: str, **options: Any) -> str:
        calls.append(("create", {"repo_id": repo_id, **options}))
        return f"https://hub/{repo_id}"

    def upload(**options: Any) -> None:
        found = {p.name: p.read_bytes() for p in Path(options["folder_path"]).iterdir()}
        calls.append(("upload", {**options, "found": found}))

    monkeypatch.setattr(save, "create_repo", create)
    monkeypatch.setattr(save, "upload_folder", upload)
    assert push_to_hub(saved, "me/model", token="t") == "https://hub/me/model"
    (_, made), (_, sent) = calls
    assert made == {"repo_id": "me/model", "private": True, "exist_ok": True, "token": "t"}
    assert (sent["repo_id"], sent["token"]) == ("me/model", "t")
    assert sent["allow_patterns"] == list(FILES)
    assert sent["delete_patterns"] == list(FILES)  # files of an older model
    assert sent["found"]["model.safetensors"] == (saved / "model.safetensors").read_bytes()
    assert not Path(sent["folder_path"]).exists()
    calls.clear()
    assert main(["push", str(saved), "me/model", "--public"]) == 0
    assert calls[0][1]["private"] is False
    assert "https://hub/me/model" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("[Errno -2] Name or service not known"),
        httpx.ReadTimeout("timed out"),
        OfflineModeIsEnabled("offline mode is enabled"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_one_line(saved, monkeypatch, capsys, error):
    def create(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(save, "create_repo", create)
    assert main(["push", str(saved), "me/model"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"serzoo push: the hub cannot be reached for 'me/model': {error}; ")
    assert "check the network" in line
    assert "serzoo save" in line
    assert "log in" not in line  # a login does not help


@pytest.mark.parametrize("name", ["wavlm", "./wavlm", "/gone/wavlm", None])
def test_a_model_that_only_this_machine_can_build_is_not_uploaded(
    tiny_hf, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(save, "create_repo", lambda *a, **k: pytest.fail("uploaded"))
    module = module_of({"type": "hf", "name": tiny_hf("wav2vec2", "group")})
    (tmp_path / "wavlm").mkdir()
    monkeypatch.chdir(tmp_path)
    name = name or module.encoder.name
    module.metadata["config"]["encoder"]["name"] = name
    with pytest.raises(CheckpointError, match=says(name, "base=FOLDER", "serzoo save")):
        push_to_hub(module, "me/model")


def test_an_option_is_not_taken_for_a_folder_of_its_name(saved, tmp_path, monkeypatch):
    (tmp_path / "attentive").mkdir()  # as the head's pooling
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(save, "create_repo", lambda *a, **k: "https://hub/me/model")
    monkeypatch.setattr(save, "upload_folder", lambda **k: None)
    assert push_to_hub(saved, "me/model") == "https://hub/me/model"
