"""`serzoo probe`, from a model or a recipe to its record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from close import assert_like
from facts import says
from serzoo.datamodules import prosody as audio_side
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.prosody import QUANTITIES, Prosody, open_probing
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.cli import main
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.run import config
from serzoo.zoo.run.build import build
from serzoo.zoo.run.probing import mean_frames, probe_model, subject_of
from serzoo.zoo.run.record import VERSION
from serzoo.zoo.run.train import train
from serzoo.zoo.run.trained import TrainedEncoder, untrained

SPEAKERS = 6


@pytest.fixture(scope="module")
def corpus(write_wave: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder corpus: six speakers, two emotions, two takes, tones of 0.3 s."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for label in ("angry", "sad"):
        for s in range(SPEAKERS):
            for take in range(2):
                x = 0.1 * np.sin(2 * np.pi * rng.uniform(200, 3000) * np.arange(4_800) / 16_000)
                x += 0.01 * rng.normal(size=4_800)
                write_wave(root / label / f"s{s}" / f"{take}.wav", x)
    return root


@pytest.fixture(scope="module")
def settings(corpus: Path) -> list[str]:
    return [
        "corpus=folder", f"data.root={corpus}", "data.options.speaker=(s\\d)", "taxonomy=auto",
        "protocol=kfold-3", "encoder.widths=[4,4,8,8]", "encoder.dim=16", "data.features=live",
        "optim.epochs=1",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch, on the first fold's speakers."""
    folder = tmp_path_factory.mktemp("run")
    train(config.load("synthetic", [*settings, "trainer.progress=false"]), folder)
    return folder


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Quantities that are drawn, not measured (that needs pyworld); what was asked for."""
    asked: dict[str, Any] = {}

    def draw(utterances: Any, roots: Any, **how: Any) -> Prosody:
        asked.update(how)
        rng = np.random.default_rng(1)
        values = {name: rng.normal(size=len(utterances)) for name in QUANTITIES}
        values["f0_mean"][0] = np.nan
        return Prosody(values, "audio")

    monkeypatch.setattr(audio_side, "prosody", draw)
    return asked


# The folds.


def test_probes_fit_on_training_and_validation_speakers(
    corpus: Path, made_up: dict[str, Any]
) -> None:
    options = {"speaker": r"(s\d)"}
    found = open_probing(["folder"], root=str(corpus), options=options, protocol="kfold-3")
    assert found.protocol == "kfold-3@1"
    assert len(found.folds) == 3
    names = np.array(found.speakers)
    assert sorted(set(names)) == [f"folder/s{i}" for i in range(SPEAKERS)]
    for fold in found.folds:
        assert not set(names[fold.train]) & set(names[fold.test])
        assert len(fold.train) + len(fold.test) == len(names) == 24
    assert sorted(np.concatenate([f.test for f in found.folds])) == list(range(24))
    one = open_probing(["folder"], root=str(corpus), options=options, protocol="kfold-3", fold=1)
    np.testing.assert_array_equal(one.folds[0].test, found.folds[1].test)
    assert made_up == {"max_seconds": 20.0, "rate_from": "auto", "progress": False}


def test_a_protocol_that_shares_speakers_is_refused(
    corpus: Path, made_up: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"speaker": r"(s\d)"}
    plain = Protocol.split

    def shared(self: Protocol, utterances: Any, fold: int) -> Any:
        split = plain(self, utterances, fold)
        return replace(split, train=[*split.train, split.test[0]])

    monkeypatch.setattr(Protocol, "split", shared)
    with pytest.raises(DataError, match=says("fold 0", 1, "protocol=kfold")):
        open_probing(["folder"], root=str(corpus), options=options, protocol="kfold-3")


# The frames.


def test_frames_are_the_model_s_own_each_alone(
    run: Path, corpus: Path, made_up: dict[str, Any]
) -> None:
    options = {"speaker": r"(s\d)"}
    probing = open_probing(["folder"], root=str(corpus), options=options, protocol="kfold-3")
    subject = subject_of(str(run))
    found = mean_frames(subject, probing)
    assert found.shape == (24, 16)
    for i in (0, 7, 23):
        u = probing.speech.utterances[i]
        wave = torch.from_numpy(read_audio(corpus / u.audio))[None]
        hidden, mask = subject.encoder.extract(wave, torch.tensor([wave.shape[1]]))
        with torch.no_grad():
            alone = subject.encoder(hidden, mask).mean()[0].double().numpy()
        assert_like(found[i], alone, digits=5)
    subject.cfg.data.features = "auto"  # by way of the store
    assert_like(mean_frames(subject, probing), found, digits=5)


# The same encoder, untrained.


def test_untrained_is_what_the_run_started_from(run: Path, settings: list[str]) -> None:
    subject = subject_of(str(run))
    start = build(subject.cfg, Taxonomy.from_dict(_meta(run)["taxonomy"])).encoder
    fresh = untrained(subject.encoder, subject.cfg.encoder, subject.cfg.seed)
    own = subject.encoder.state_dict()
    differing = 0
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, start.state_dict()[key])
        differing += not torch.equal(value, own[key])
    assert differing > 10
    assert not fresh.training


def _meta(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["serzoo"])


def test_untrained_of_an_encoder_of_another_run_is_that_run_s(run: Path) -> None:
    trained = TrainedEncoder(name=str(run))
    fresh = untrained(trained, {"type": "trained", "name": str(run)})
    own = subject_of(str(run))
    expected = untrained(own.encoder, own.cfg.encoder, own.cfg.seed).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in fresh.state_dict().items())


def test_an_encoder_that_cannot_be_drawn_anew_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Foreign(LogMelEncoder):
        def frozen_keys(self) -> frozenset[str]:
            return frozenset(self.state_dict())

    monkeypatch.setattr(registry, "get", lambda kind, name: Foreign)
    with pytest.raises(ConfigError, match=says("'foreign'", "--against none")):
        untrained(Foreign(), {"type": "foreign"})


# The verb.


def test_a_run_against_itself_untrained(
    run: Path, made_up: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["probe", str(run), f"out={out}", "rate_from=audio"]) == 0
    assert made_up["rate_from"] == "audio"
    entry = json.loads((out / "record.json").read_text())
    assert list(entry)[:3] == ["status", "version", "kind"]
    assert (entry["status"], entry["version"], entry["kind"]) == ("ok", VERSION, "probe")
    assert entry["model"]["fingerprint"] == _meta(run)["fingerprint"]
    assert entry["against"]["trained"] is False
    assert entry["data"]["folds"] == 3
    assert len(entry["data"]["speakers"]) == SPEAKERS
    assert entry["speakers_heard"] == sorted(
        {*_meta(run)["speakers"]["train"], *_meta(run)["speakers"]["valid"]}
    )
    assert list(entry["quantities"]) == list(QUANTITIES)
    for name, quantity in entry["quantities"].items():
        assert quantity["unit"]
        for way in ("all", "within"):
            found = quantity[way]
            assert found["utterances"] == (23 if name == "f0_mean" else 24)
            a, b = found["model"]["value"], found["against"]["value"]
            assert a < 0.5  # drawn numbers are in no frames
            assert found["difference"]["value"] == pytest.approx(a - b)
            assert found["model"]["low"] < a < found["model"]["high"]
            assert len(found["model"]["strengths"]) == 3
    told = capsys.readouterr().out
    first = [line.split()[0] for line in told.splitlines()]
    assert first[:7] == ["as", "quantity", *QUANTITIES]
    assert first[7:14] == ["within", "quantity", *QUANTITIES]
    assert "24 utterances of 6 speakers of folder, 3 folds of kfold-3@1" in told
    assert "the other: the same encoder, untrained" in told
    assert re.search(r"\b4 .*speakers .*heard", told)
    assert str(out) in told


def test_one_fold_that_the_model_did_not_hear(run: Path, made_up: dict[str, Any]) -> None:
    entry = probe_model(run, fold=0, against="none", out=run / "probe")
    assert entry.speakers_heard == []
    assert entry.data["speakers"] == _meta(run)["speakers"]["test"]
    assert entry.against is None
    assert "against" not in entry.quantities["rate"]["all"]


def test_a_recipe_is_its_encoder_as_it_starts(
    run: Path, settings: list[str], made_up: dict[str, Any], tmp_path: Path
) -> None:
    fresh = probe_model("synthetic", settings, out=tmp_path / "a")
    assert fresh.against is None  # it is untrained itself
    assert fresh.model["trained"] is False
    both = probe_model(run, out=tmp_path / "b")
    for name in QUANTITIES:
        expected = both.quantities[name]["all"]["against"]["value"]
        assert fresh.quantities[name]["all"]["model"]["value"] == pytest.approx(expected)
    versus = probe_model("synthetic", settings, against=str(run), out=tmp_path / "c")
    assert versus.against["path"] == str(run)


def test_a_published_encoder_by_its_recipe(
    settings: list[str], made_up: dict[str, Any], tmp_path: Path
) -> None:
    name = tiny_models.tiny_hf(tmp_path / "tiny")
    kept = [s for s in settings if not s.startswith("encoder.")]
    entry = probe_model(
        "synthetic", [*kept, "encoder=hf", f"encoder.name={name}"], out=tmp_path / "out"
    )
    assert entry.model["trained"] is True
    assert entry.against["weights"] != entry.model["weights"]
    assert entry.quantities["energy_sd"]["within"]["difference"]["value"] is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "'nothing' .*recipe"),
        (["synthetc"], "'synthetc'.*'synthetic'"),
        (["RUN", "head=selm"], "head=selm .*recipe"),
        (["synthetic", "hed=selm"], "'hed'.*'head'"),
        (["RUN", "rate_from=words"], "rate_from .*'words'.* auto, text, audio"),
        (["RUN", "fold=9"], "kfold-3@1 .*fold 9.* 0 to 2"),
        (["RUN", "--against", "nobody"], "'nobody' .*recipe"),
    ],
)
def test_what_cannot_be_probed_is_told(
    arguments: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", *(a.replace("RUN", str(run)) for a in arguments)]) == 2
    assert re.search(message, capsys.readouterr().err)


# With pyworld.


@pytest.mark.skipif(not find_spec("pyworld"), reason="needs pyworld: serzoo[prosody]")
def test_on_the_embedded_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    small = ["data.options.speakers=4", "data.options.utterances=1", "data.max_seconds=0.7"]
    assert main(["probe", "synthetic", *small, f"trainer.out={tmp_path}", "protocol=kfold-3"]) == 0
    (path,) = tmp_path.glob("probes/synthetic-*/record.json")
    entry = json.loads(path.read_text())
    assert entry["data"]["rate_from"] == "audio"  # utterances are cut
    assert entry["quantities"]["f0_mean"]["all"]["utterances"] == 28
    # the pitch of a voice shows in a spectrum, trained or not
    assert entry["quantities"]["f0_mean"]["all"]["model"]["value"] > 0.2
