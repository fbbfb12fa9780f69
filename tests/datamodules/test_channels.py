"""One channel of several: when they disagree, and that everything hears the same one."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from serzoo.datamodules.audio import LOSS, mean_loss
from serzoo.datamodules.catalog import Speech, open_corpora, prepare_corpus
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.features import hash_of_sound
from serzoo.datamodules.labelling.asr import Heard, Transcribe
from serzoo.datamodules.listening import sample_hash
from serzoo.datamodules.manifest import read_manifest, write_manifest
from serzoo.datamodules.prepare import prepare
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.run.schema import RunConfig

RATE = 16_000


def voice(seed, seconds=2.0):
    """Noise with the spectrum of speech (down 9 dB per octave), in syllables."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    f = np.fft.rfftfreq(n, 1 / RATE)
    wave = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * np.maximum(f, 150) ** -1.5, n)
    wave *= 1 + np.sin(np.arange(n) / RATE * 25 + seed)
    return 0.1 * wave / np.abs(wave).std()


def later(wave, samples):
    return np.concatenate([np.zeros(samples), wave[:-samples]])


ONE, OTHER = voice(0), voice(1)
HISS = 1e-3 * np.random.default_rng(2).normal(size=(len(ONE), 2))
PAIRS = {
    "identical": (ONE, ONE, False),
    "another level": (ONE, 0.1 * ONE, False),
    "one silent": (ONE, 0 * ONE, False),
    "one faint": (ONE, 0.05 * OTHER, False),
    "each with its own hiss": (ONE + HISS[:, 0], ONE + HISS[:, 1], False),
    "panned": (0.9 * ONE + 0.1 * OTHER, ONE, False),
    "inverted": (ONE, -0.9 * ONE, True),
    "two speakers": (ONE, OTHER, True),
    "two speakers, one louder": (ONE, 0.2 * OTHER, True),
    "a second microphone": (ONE, later(ONE, 8), True),  # 0.5 ms: 17 cm
    "a second microphone further away": (ONE, 0.7 * later(ONE, 40), True),
}


@pytest.mark.parametrize("name", PAIRS)
def test_channels_that_are_not_one_sound_lose_in_their_mean(name):
    left, right, apart = PAIRS[name]
    pair = np.stack([left, right], 1).astype(np.float32)
    loss = mean_loss(pair, RATE)
    assert (loss > LOSS) == apart
    assert mean_loss(7 * pair, RATE) == pytest.approx(loss, abs=0.01)
    fast = np.repeat(pair, 3, 0)  # the same at 48 kHz, but for what is above 8 kHz
    assert mean_loss(fast, 3 * RATE) == pytest.approx(loss, rel=0.2, abs=0.1)


def test_the_loss_has_known_values():
    rng = np.random.default_rng(0)
    two, four = rng.normal(size=(200_000, 2)), rng.normal(size=(200_000, 4))
    assert mean_loss(two.astype(np.float32), RATE) == pytest.approx(3.01, abs=0.1)
    assert mean_loss(four.astype(np.float32), RATE) == pytest.approx(6.02, abs=0.1)
    assert mean_loss(np.stack([ONE, -ONE], 1).astype(np.float32), RATE) == pytest.approx(60)
    for nothing in (np.zeros((0, 2)), np.zeros((100, 2)), np.ones((100, 1))):
        assert mean_loss(nothing.astype(np.float32), RATE) == 0


@pytest.fixture
def folder(tmp_path, write_wave):
    """``folder(pairs)``: a corpus of two labels with these recordings."""

    def make(pairs):
        for i, (name, pair) in enumerate(pairs.items()):
            label = ("angry", "sad")[i % 2]
            write_wave(tmp_path / "c" / label / f"{name}.wav", np.stack(pair, -1), subtype="FLOAT")
        return tmp_path / "c"

    return make


def channel_notices(prepared):
    return [w.message for w in prepared.warnings if w.kind == "channels"]


def test_prepare_counts_recordings_whose_channels_disagree(folder):
    root = folder({n.replace(" ", "-"): p[:2] for n, p in PAIRS.items()})
    prepared = prepare("folder", root=root)
    assert not prepared.refusals
    (message,) = channel_notices(prepared)
    assert "5 of 11 recordings" in message
    assert "channel=first" in message
    assert any(f"first: {u.audio}" in message for u in prepared.utterances)
    for channel in ("first", "mean", 2):
        assert not channel_notices(prepare("folder", root=root, options={"channel": channel}))


def test_a_mean_of_nothing_is_refused_and_a_channel_that_is_not_there(folder):
    root = folder({"cancel": (ONE, -ONE), "mono": ONE[:, None].T, "good": (ONE, ONE)})
    assert prepare("folder", root=root).refused == {"channels cancel": 1}
    prepared = prepare("folder", root=root, options={"channel": 2})
    assert prepared.refused == {"no channel 2": 1}
    assert "has 1 channel," in prepared.refusals[0].detail
    assert not prepare("folder", root=root, options={"channel": "first"}).refused
    with pytest.raises(ConfigError, match="channel is '0'"):
        prepare("folder", root=root, options={"channel": 0})
    with pytest.raises(ConfigError, match=r"unknown key 'chan'.*did you mean 'channel'"):
        prepare("folder", root=root, options={"chan": 1})


def test_emovo_is_heard_on_one_of_its_two_microphones(tmp_path, write_wave):
    pair = np.stack([ONE, later(ONE, 20)], 1)
    write_wave(tmp_path / "f1" / "dis-f1-b1.wav", pair, subtype="FLOAT")
    for options, want in (
        ({}, ONE.astype(np.float32)),
        ({"channel": 2}, later(ONE, 20).astype(np.float32)),
        ({"channel": "mean"}, pair.astype(np.float32).mean(1)),
    ):
        prepared = prepare("emovo", root=tmp_path, options=options)
        assert [u.sha for u in prepared.utterances] == [sample_hash(want)]
        assert not channel_notices(prepared)


def test_the_channel_is_of_a_runs_identity_and_its_absence_of_none():
    plain = RunConfig()
    assert "channel" not in str(plain.identity)
    prints = {plain.fingerprint}
    for channel in ("first", 2):
        cfg = RunConfig()
        cfg.data.options = {"channel": channel}
        prints.add(cfg.fingerprint)
    assert len(prints) == 3


def test_everything_hears_the_channel_of_an_utterance(folder, tmp_path, monkeypatch):
    """Training, features, the check of a manifest, prosody, transcripts, doctor and reports."""
    from serzoo.datamodules import prosody
    from serzoo.zoo.doctor import data as doctor
    from serzoo.zoo.report.runs import Corpora

    root = folder({"x": (ONE, OTHER), "y": (OTHER, ONE)})
    (u, _) = prepare("folder", root=root, options={"channel": "2"}).utterances
    want = OTHER.astype(np.float32)
    assert (u.channel, u.sha) == (2, sample_hash(want))
    roots = {"folder": root}

    wave = SpeechDataset([u], [0], 2, roots=roots, max_seconds=9.0)[[0]].audio[0]
    assert np.array_equal(wave.numpy(), want)
    assert hash_of_sound(u, roots) == u.sha

    told = []
    monkeypatch.setattr(prosody, "pyworld", lambda: None)
    monkeypatch.setattr(prosody, "measure", lambda samples: told.append(samples) or 1 / 0)
    monkeypatch.setattr(prosody, "_Store", lambda: type("S", (), {"get": lambda *_: None})())
    with pytest.raises(ZeroDivisionError):
        list(prosody._measured([u], roots, 9.0, False))

    class Ear:
        longest, least, batched, source = 30.0, None, False, "ear"

        def hear(self, waves):
            told.extend(waves)
            return [Heard("some words here", None, "en") for _ in waves]

    list(Transcribe(Ear(), roots).rows([u]))
    assert len(told) == 2
    assert all(np.array_equal(samples, want) for samples in told)

    corpora = Corpora()
    monkeypatch.setattr(corpora, "speech", lambda run: Speech([u], roots))
    player = base64.b64decode(corpora.clip(None, u.id).partition(",")[2])
    np.testing.assert_allclose(soundfile.read(io.BytesIO(player))[0], want, atol=1e-4)

    trial = SimpleNamespace(everything=SimpleNamespace(speech=Speech([u], roots)), cfg=RunConfig())
    monkeypatch.setattr(doctor, "_everyone", lambda trial: [u, replace(u, id="3", channel=3)])
    (broken, *_) = doctor.sound(trial)
    assert "1 of 2 files" in broken.message
    assert "channel 3" in broken.message

    manifest = tmp_path / "m.jsonl"
    write_manifest(manifest, [u])
    assert read_manifest(manifest) == [u]
    speech = open_corpora([], manifest=str(manifest), root=str(root))
    assert "changed_since_prepared" not in speech.notes["folder"]


def test_a_setting_of_any_corpus_reaches_prepare_and_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    root = str(folder({"x": (ONE, OTHER), "y": (OTHER, ONE)}))
    shas = {
        channel: open_corpora(["folder"], root=root, options={"channel": channel}).sha
        for channel in ("mean", "first", 2)
    }
    assert len(set(shas.values())) == 3
    assert open_corpora(["folder"], root=root).sha == shas["mean"]
    assert open_corpora(["folder"], root=root, options={"channel": "1"}).sha == shas["first"]

    out = tmp_path / "m.jsonl"
    assert main(["prepare", "folder", f"root={root}", f"out={out}", "channel=first"]) == 1
    assert {u.channel for u in read_manifest(out)} == {1}
    options = {"channel": "first"}
    assert open_corpora([], manifest=str(out), options=options).sha == shas["first"]
    with pytest.raises(DataError, match=r"channel 1.*not mean.*channel=mean"):
        open_corpora([], manifest=str(out), options={"channel": "mean"})
    done, _ = prepare_corpus("folder", root=root, out=str(out), channel=2)
    assert {u.channel for u in done.utterances} == {2}
