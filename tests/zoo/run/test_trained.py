"""The encoder of another run, frozen: its frames, its weights, and whose voices it knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import CheckpointError, ConfigError, DataError
from serzoo.zoo.run.config import load
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.run.trained import TrainedEncoder, refuse_seen

LENGTHS = [1, 400, 3000, 16_000, 40_000]
RESNET = ["encoder=resnet50", "encoder.depths=[1,1,1,1]", "encoder.widths=[4,8,8,8]"]


@pytest.fixture(scope="module")
def pretrained(tiny_recipe, tmp_path_factory):
    """``pretrained(*overrides)``: the folder of a run of one epoch; each is made once."""
    done: dict[tuple[str, ...], Path] = {}

    def make(*overrides: str) -> Path:
        if overrides not in done:
            folder = tmp_path_factory.mktemp("pretrained") / "run"
            train(load(tiny_recipe, [*overrides, "optim.epochs=1"]), folder)
            done[overrides] = folder
        return done[overrides]

    return make


@pytest.fixture(scope="module")
def others(tiny_speech, tmp_path_factory) -> list[str]:
    """The same voices as a corpus of another name: overrides that name it."""
    root = tmp_path_factory.mktemp("others")
    for path in tiny_speech.glob("*.wav"):
        target = root / path.name.partition("-")[0] / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return ["corpus=folder", f"data.root={root}", "data.options.speaker='-(\\d+)'"]


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.zeros(len(LENGTHS), max(LENGTHS))
    for i, n in enumerate(LENGTHS):
        audio[i, :n] = 0.1 * torch.randn(n, generator=generator)
    return audio, torch.tensor(LENGTHS)


@pytest.fixture
def sources(pretrained, tiny_hf, tmp_path):
    """A run of each kind of encoder, by name."""
    name = tiny_hf("wav2vec2", "layer")
    tuned = ["encoder=hf", f"encoder.name={name}", "encoder.tuning=lora"]
    return {
        "logmel": lambda: pretrained(),
        "resnet50": lambda: pretrained(*RESNET),
        "hf": lambda: pretrained(*tuned),
    }


@pytest.mark.parametrize(
    ("kind", "seconds"), [("logmel", 0.128), ("resnet50", 0.512), ("hf", 0.02)]
)
def test_frames_are_those_of_the_run_s_own_encoder(sources, kind, seconds):
    folder = sources[kind]()
    module = SERModule.load_from_checkpoint(folder)
    encoder = TrainedEncoder(name=str(folder)).train()  # in vain
    with torch.no_grad():
        ours = encoder(*encoder.extract(*batch()))
        theirs = module.encoder(*module.encoder.extract(*batch()))
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.mask, theirs.mask)
    assert ours.x.shape[2] == encoder.dim
    assert ours.x.any()
    assert encoder.frame_seconds == pytest.approx(seconds)
    assert encoder.storable
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.param_groups(1e-3) == []
    assert encoder.frozen_keys() == set(encoder.state_dict())


@pytest.mark.parametrize("kind", ["logmel", "resnet50", "hf"])
def test_an_utterance_does_not_depend_on_its_neighbours(sources, kind):
    encoder = TrainedEncoder(name=str(sources[kind]()))
    audio, lengths = batch()
    hidden, mask = encoder.extract(audio, lengths)
    assert hidden.shape[:2] == (len(LENGTHS), 1)
    assert not hidden[:, 0][~mask].any()
    for i, n in enumerate(LENGTHS):
        alone, own = encoder.extract(audio[i : i + 1, :n], lengths[i : i + 1])
        assert own.all()
        assert int(mask[i].sum()) == own.shape[1]
        assert_like(hidden[i, :, : own.shape[1]], alone[0], digits=5)


def test_bfloat16_is_what_is_stored_and_half_as_large(pretrained):
    name = str(pretrained())
    full, half = TrainedEncoder(name=name), TrainedEncoder(name=name, dtype="bfloat16")
    exact, stored = full.extract(*batch())[0], half.extract(*batch())[0]
    assert torch.equal(stored, exact.bfloat16().float())
    assert not torch.equal(stored, exact)
    assert full.bytes_per_second == 2 * half.bytes_per_second == 4 * full.dim / 0.128
    assert full.extraction() != half.extraction()


def test_features_are_kept_by_weights_not_by_folder(pretrained, tmp_path):
    saved = save_pretrained(pretrained(), tmp_path / "saved")
    one, other = TrainedEncoder(name=str(pretrained())), TrainedEncoder(name=str(saved))
    assert one.extraction() == other.extraction()
    assert json.loads(json.dumps(one.extraction())) == one.extraction()
    assert one.speakers == other.speakers
    assert one.describe() | {"name": ""} == other.describe() | {"name": ""}
    changed = TrainedEncoder(name=str(pretrained("seed=2")))
    assert one.extraction() != changed.extraction()


@pytest.mark.parametrize("head", ["classification", "gen_ser"])
def test_a_head_trains_on_it_with_stored_features(pretrained, others, tiny_recipe, tmp_path, head):
    wanted = [*others, f"head={head}", "encoder=trained", f"encoder.name={pretrained()}"]
    cfg = load(tiny_recipe, [*wanted, "optim.epochs=2"])
    assert cfg.optim.mixup == 0  # optim=frozen came with it
    entry = train(cfg, tmp_path / "run")
    assert entry.features == "stored"
    assert entry.parameters["trainable"] == entry.parameters["head"]
    assert entry.parameters["stored"] == entry.parameters["head"]
    about = entry.encoder
    assert about["trained_on"]["corpora"] == ["csv"]
    assert about["trained_on"]["classes"] == ["angry", "happy", "sad"]
    source = json.loads((pretrained() / "record.json").read_text())
    assert about["trained_on"]["speakers"] == source["speakers"]
    assert about["trained_on"]["run"] == source["fingerprint"]
    assert {p: len(s) for p, s in source["speakers"].items()} == {"train": 6, "valid": 2, "test": 2}
    assert all(s.startswith("folder/") for s in entry.speakers["test"])
    # and it comes back: from its run, and from a folder to share
    table, _ = evaluate(tmp_path / "run")
    assert table.uar() == pytest.approx(entry.metrics["uar"])
    saved = save_pretrained(tmp_path / "run", tmp_path / "saved")
    again = SERModule.load_from_checkpoint(saved, base=str(pretrained()))
    assert isinstance(again.encoder, TrainedEncoder)
    assert "layers mixed" not in (saved / "README.md").read_text()


def test_a_head_is_not_put_on_other_weights(pretrained, others, tiny_recipe, tmp_path):
    copy = shutil.copytree(pretrained(), tmp_path / "encoder")
    wanted = [*others, "encoder=trained", f"encoder.name={copy}", "optim.epochs=1"]
    train(load(tiny_recipe, wanted), tmp_path / "run")
    shutil.rmtree(copy)
    shutil.copytree(pretrained("seed=2"), copy)
    with pytest.raises(CheckpointError, match=r"weights [0-9a-f]{12} .*encoder\b.* [0-9a-f]{12}\b"):
        SERModule.load_from_checkpoint(tmp_path / "run")


# Speakers that it was trained on.


def test_its_own_speakers_are_refused(pretrained, tiny_recipe, tmp_path):
    wanted = ["encoder=trained", f"encoder.name={pretrained()}", "fold=2", "optim.epochs=1"]
    told = says(2, "valid", "csv/s6, csv/s7", "encoder.allow_seen_speakers=true")
    with pytest.raises(DataError, match=told):
        train(load(tiny_recipe, wanted), tmp_path / "a")
    assert not (tmp_path / "a" / "checkpoints").exists()
    allowed = load(tiny_recipe, [*wanted, "encoder.allow_seen_speakers=true"])
    assert train(allowed, tmp_path / "b").status == "ok"


def test_a_model_on_it_is_not_scored_on_its_speakers(
    pretrained, others, tiny_recipe, tiny_speech, tmp_path
):
    wanted = [*others, "encoder=trained", f"encoder.name={pretrained()}", "optim.epochs=1"]
    train(load(tiny_recipe, wanted), tmp_path / "run")
    with pytest.raises(
        DataError, match=says(8, "test", "csv/s2", "encoder.allow_seen_speakers=true")
    ):
        evaluate(tmp_path / "run", corpus=["csv"], root=str(tiny_speech))


def test_only_what_was_neither_trained_nor_selected_on_is_new(pretrained):
    encoder = TrainedEncoder(name=str(pretrained()))
    known = encoder.speakers
    assert known is not None
    refuse_seen(encoder, {"train": known["train"], "valid": ["x/a"], "test": known["test"]})
    for part in ("train", "valid"):
        with pytest.raises(DataError, match=known[part][0]):
            refuse_seen(encoder, {"valid": ["x/a"], "test": known[part][:1]})
    encoder.speakers = None
    with pytest.raises(
        DataError, match=says("encoder", "encoder.allow_seen_speakers=true") + r"(?!.*\bcsv/)"
    ):
        refuse_seen(encoder, {"valid": ["x/a"], "test": ["x/b"]})
    encoder.allow_seen_speakers = True
    refuse_seen(encoder, {"valid": ["x/a"], "test": ["x/b"]})


# Refusals.


def test_what_holds_no_encoder_is_told(pretrained, others, tiny_recipe, tmp_path):
    with pytest.raises(ConfigError, match=says("encoder.name=", "nowhere", "serzoo train")):
        TrainedEncoder(name=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=says(f"encoder.name={tmp_path} ", "serzoo train")):
        TrainedEncoder(name=str(tmp_path))
    unfinished = shutil.copytree(pretrained(), tmp_path / "unfinished")
    (unfinished / "record.json").unlink()
    with pytest.raises(ConfigError, match=says("unfinished", "record.json", "status ok")):
        TrainedEncoder(name=str(unfinished))
    empty = shutil.copytree(pretrained(), tmp_path / "empty")
    (empty / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(ConfigError, match=says("empty/checkpoints/best.ckpt", "serzoo save")):
        TrainedEncoder(name=str(empty))
    wanted = [*others, "encoder=trained", f"encoder.name={pretrained()}", "optim.epochs=1"]
    train(load(tiny_recipe, wanted), tmp_path / "second")
    with pytest.raises(ConfigError, match=says("second", pretrained(), "encoder.name")):
        TrainedEncoder(name=str(tmp_path / "second"))


def test_the_file_lists_every_knob_with_its_default():
    from serzoo.zoo.core import registry
    from serzoo.zoo.run import config

    values = config.read_group("encoder", "trained")
    assert values.pop("optim") == "frozen"
    assert values.pop("type") == "trained"
    schema = registry.schema_of(registry.get("encoders", "trained"))
    assert set(values) == set(schema)
    assert {k: v for k, v in values.items() if k != "name"} == {
        k: knob.default for k, knob in schema.items() if k != "name"
    }
