"""A run that starts from the weights of another, and one that nobody validates."""

import json
from pathlib import Path

import pytest
import tiny_models
import torch
from facts import says
from serzoo.zoo.core.errors import CheckpointError, ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.weights import published_parts, strip_frozen
from serzoo.zoo.run import config
from serzoo.zoo.run.build import build
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.run.record import finished, read_record
from serzoo.zoo.run.save import save_pretrained
from serzoo.zoo.run.start import start_from
from serzoo.zoo.run.train import train

TALK = ["corpus=synthetic_talk", "protocol=train-only", "data.label=acted"]
SMALL = [
    "encoder.widths=[8,8,8,8]", "encoder.dim=8", "optim.epochs=2", "trainer.accelerator=cpu",
    "trainer.progress=false", "data.options={utterances: 1, speakers: 4}",
]  # fmt: skip


def load(*overrides):
    return config.load("synthetic", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Trained on everyone who talks, by the labels of their voices."""
    pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")
    folder = tmp_path_factory.mktemp("runs") / "talk"
    train(load(*TALK), folder)
    return folder


def encoder_of(folder: Path):
    return SERModule.load_from_checkpoint(folder).encoder.state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_without_validation_the_last_epoch_is_kept_and_nothing_is_scored(pretrained):
    record = read_record(pretrained)
    assert record.selection == {
        "rule": "last epoch; nothing was validated", "val/uar": None, "epoch": 1,
    }  # fmt: skip
    assert not {"metrics", "valid"} & set(record.to_json())
    assert record.speakers["valid"] == record.speakers["test"] == []
    assert len(record.speakers["train"]) == 4
    kept, last = (pretrained / "checkpoints" / f"{n}.ckpt" for n in ("best", "last"))
    assert kept.read_bytes() == last.read_bytes()
    content = torch.load(last, weights_only=True)
    assert same(
        {k: v for k, v in content["ema"].items() if k.startswith("encoder.")},
        {f"encoder.{k}": v for k, v in encoder_of(pretrained).items()},
    )
    assert train(load(*TALK), pretrained) == record  # not repeated


def test_a_run_killed_without_validation_ends_the_same(pretrained, tmp_path, monkeypatch):
    from serzoo.zoo.run.module import SERModule

    calls = []
    begin = SERModule.on_train_epoch_start

    def killed(self):
        calls.append(self.current_epoch)
        if calls == [0, 1]:
            raise KeyboardInterrupt
        begin(self)

    monkeypatch.setattr(SERModule, "on_train_epoch_start", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(load(*TALK), tmp_path / "run")
    assert not finished(tmp_path / "run")
    assert train(load(*TALK), tmp_path / "run").resumed
    assert calls == [0, 1, 1]
    assert same(encoder_of(tmp_path / "run"), encoder_of(pretrained))


def test_a_run_starts_from_the_encoder_and_a_new_head(pretrained, tmp_path):
    cfg = load(f"init={pretrained}", "optim.lr=1e-12", "optim.head_lr=1e-3", "optim.ema=0")
    record = train(cfg, tmp_path / "run")
    found, wanted = encoder_of(tmp_path / "run"), encoder_of(pretrained)
    weights = dict(SERModule.load_from_checkpoint(pretrained).encoder.named_parameters())
    assert len(weights) > 10  # running statistics are those of this run's speech
    assert all(torch.allclose(found[k], wanted[k], atol=1e-6) for k in weights)
    assert record.origin["run"] == read_record(pretrained).fingerprint
    assert record.origin["corpora"] == ["synthetic_talk"]
    assert record.origin["folder"] == "talk"
    assert record.parameters["trainable"] == record.parameters["total"]


def test_its_checkpoint_says_where_it_comes_from_and_stands_by_itself(pretrained, tmp_path):
    copy = tmp_path / "source"
    copy.symlink_to(pretrained, target_is_directory=True)
    train(load(f"init={copy}"), tmp_path / "run")
    copy.unlink()
    module = SERModule.load_from_checkpoint(tmp_path / "run")
    origin = read_record(pretrained).fingerprint
    assert module.metadata["origin"]["run"] == origin
    save_pretrained(tmp_path / "run", tmp_path / "saved")
    told = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert told["origin"]["run"] == origin
    assert str(tmp_path) not in json.dumps(told)
    again = SERModule.load_from_checkpoint(tmp_path / "saved")
    assert again.metadata["origin"] == module.metadata["origin"]
    assert same(again.state_dict(), module.state_dict())


def module_of(*overrides, classes=None):
    cfg = load(*overrides)
    taxonomy = Taxonomy.of(classes, "few") if classes else Taxonomy.load("basic7")
    nobody = {"train": [], "valid": [], "test": []}
    return build(cfg, taxonomy, {"speakers": nobody, "head": cfg.head})


def test_the_head_is_taken_over_where_that_is_asked_for(pretrained):
    source, module = SERModule.load_from_checkpoint(pretrained), module_of("seed=5")
    before = {k: v.clone() for k, v in module.head.state_dict().items()}
    start_from(str(pretrained), module)
    assert same(module.head.state_dict(), before)
    assert not same(module.head.state_dict(), source.head.state_dict())
    start_from(str(pretrained), module, head=True)
    assert same(module.head.state_dict(), source.head.state_dict())
    with pytest.raises(ConfigError, match=says("init_head", "disgust", "angry, sad")):
        start_from(str(pretrained), module_of(classes=["angry", "sad"]), head=True)
    start_from(str(pretrained), module_of(classes=["angry", "sad"]))


def test_another_encoder_is_refused(pretrained):
    with pytest.raises(ConfigError, match=says("init=", 4, "out.weight", "dim=8")):
        start_from(str(pretrained), module_of("encoder.dim=12"))
    with pytest.raises(ConfigError, match=says("init=nowhere", "serzoo train")):
        start_from("nowhere", module_of())


def test_speakers_that_it_was_trained_on_are_not_scored(pretrained):
    module = module_of()
    module.metadata["speakers"]["test"] = ["synthetic_talk/tf01"]
    with pytest.raises(DataError, match=says(1, "test", "synthetic_talk/tf01")):
        start_from(str(pretrained), module)


class TestPublished:
    """On a published encoder: what the first run trained of it goes over."""

    @pytest.fixture
    def base(self, tmp_path_factory):
        return tiny_models.tiny_hf(tmp_path_factory.mktemp("base") / "w2v")

    def module(self, base, tuning, seed=1, moved=False):
        cfg = config.load(
            "synthetic", ["encoder=hf", f"encoder.name={base}", f"encoder.tuning={tuning}",
                          f"seed={seed}", "encoder.lora_rank=2"],
        )  # fmt: skip
        taxonomy = Taxonomy.load("basic7")
        nobody = {"train": [], "valid": [], "test": []}
        about = {
            "config": cfg.to_dict(), "fingerprint": cfg.fingerprint, "head": dict(cfg.head),
            "taxonomy": taxonomy.to_dict(), "taxonomy_fingerprint": taxonomy.fingerprint,
            "speakers": nobody,
        }  # fmt: skip
        module = build(cfg, taxonomy, about)
        module.metadata["published"] = published_parts(module)
        if moved:  # as training would
            for p in module.encoder.parameters():
                if p.requires_grad:
                    p.data += 0.1
        return module

    @pytest.mark.parametrize(
        ("first", "then"),
        [("frozen", "frozen"), ("frozen", "lora"), ("frozen", "full"), ("lora", "lora"),
         ("full", "full")],
    )  # fmt: skip
    def test_what_was_trained_goes_over_and_the_rest_is_as_new(self, base, tmp_path, first, then):
        source = self.module(base, first, moved=True)
        save_pretrained(source, tmp_path / "first")
        module, fresh = self.module(base, then, seed=2), self.module(base, then, seed=2)
        start_from(str(tmp_path / "first"), module)
        theirs = source.encoder.state_dict()
        trained = set(strip_frozen(theirs, source.encoder.frozen_keys()))
        assert any("logits" in k for k in trained)
        for key, value in module.encoder.state_dict().items():
            expected = theirs[key] if key in trained else fresh.encoder.state_dict()[key]
            assert torch.equal(value, expected), key
        assert not same(module.encoder.state_dict(), fresh.encoder.state_dict())

    def test_what_would_be_lost_is_refused(self, base, tmp_path):
        save_pretrained(self.module(base, "lora", moved=True), tmp_path / "first")
        for then in ("frozen", "full"):
            with pytest.raises(ConfigError, match=says("init=", "tuning=lora")):
                start_from(str(tmp_path / "first"), self.module(base, then))

    def test_other_published_weights_are_refused(self, base, tmp_path):
        save_pretrained(self.module(base, "lora"), tmp_path / "first")
        other = tiny_models.tiny_hf(tmp_path / "other", seed=9)
        with pytest.raises(
            CheckpointError, match=r"weights [0-9a-f]{12} .*encoder\b.* [0-9a-f]{12}\b"
        ):
            start_from(str(tmp_path / "first"), self.module(other, "lora"))
