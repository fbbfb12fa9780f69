"""Prediction: formats, order, errors, timelines, calibration, from Python and the command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tracemalloc
from threading import Thread

import numpy as np
import pytest
import soundfile
import soxr
import torch
from close import assert_like
from facts import says
from scipy.special import softmax
from serzoo.datamodules.audio import read_audio
from serzoo.zoo import load
from serzoo.zoo.cli import main
from serzoo.zoo.core import registry
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Targets
from serzoo.zoo.run import predict as verb
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.predictions import Columns, Row
from serzoo.zoo.run.train import train
from sweeps import often

SMALL = {"selm": ["head.lm_width=32", "head.lm_layers=1"]}
SHARP = ["data.max_seconds=2.0", "optim.ema=0", "optim.mixup=0", "optim.epochs=6", "optim.lr=0.01"]
CLASSES = ["angry", "happy", "sad"]


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory):
    """``run(head)``: folder of a run whose training utterances are cut to 2 s."""
    done = {}

    def once(head="classification"):
        if head not in done:
            done[head] = tmp_path_factory.mktemp("runs") / head
            settings = [f"head={head}", *SMALL.get(head, []), *SHARP]
            train(compose(tiny_recipe, settings), done[head])
        return done[head]

    return once


@pytest.fixture(scope="module")
def model(run):
    return load(run())


def chirp(seconds, rate=16_000):
    t = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (150 * t + 60 * t**2)) * (1 + np.sin(7 * t)) / 2


def probs(rows):
    return np.array([[row.probs[c] for c in CLASSES] for row in rows])


def table(text):
    return list(csv.DictReader(text.splitlines()))


def assert_same_rows(found, want):
    """Rows say the same; probabilities may differ by how a processor rounds a batch."""
    names = [f"p_{c}" for c in CLASSES]
    for a, b in zip(found, want, strict=True):
        assert {k: v for k, v in a.items() if k not in names} == {
            k: v for k, v in b.items() if k not in names
        }
        if not a["error"]:
            assert_like([float(a[n]) for n in names], [float(b[n]) for n in names], digits=5)


# Reading.


def test_all_formats_rates_and_channels_agree(model, tmp_path):
    hiss = np.random.default_rng(0).normal(size=72_000)  # no band is empty but for a codec
    master = chirp(1.5, 48_000) + 0.03 * hiss
    for name, rate, channels, subtype in (
        ("a.wav", 16_000, 1, "FLOAT"),
        ("b.flac", 44_100, 2, "PCM_24"),
        ("c.ogg", 48_000, 1, None),
        ("d.mp3", 44_100, 2, None),
        ("e.WAV", 22_050, 6, "PCM_24"),
    ):
        wave = np.repeat(soxr.resample(master, 48_000, rate)[:, None], channels, 1)
        soundfile.write(tmp_path / name, wave, rate, subtype=subtype)
    found = model.predict(tmp_path)
    names = ["a.wav", "b.flac", "c.ogg", "d.mp3", "e.WAV"]
    assert [row.file for row in found] == [str(tmp_path / name) for name in names]
    np.testing.assert_allclose(probs(found), probs(found[:1]).repeat(5, 0), atol=0.02)
    assert [row.end for row in found] == pytest.approx([1.5] * 5, abs=0.06)
    spread = probs(model.predict([chirp(1.2), 0.01 * np.random.default_rng(0).normal(size=20_000)]))
    assert np.abs(np.diff(spread, axis=0)).max() > 0.05  # the model does tell sounds apart


def test_arrays_are_files(model, tmp_path):
    wave = chirp(1.0, 44_100)
    soundfile.write(tmp_path / "a.wav", wave, 44_100, subtype="FLOAT")
    want = probs(model.predict(str(tmp_path / "a.wav")))
    stereo = torch.tensor(np.stack([wave, wave]), dtype=torch.float32)
    ints = np.round(wave * 2**31).astype(np.int32)
    got = model.predict([wave, stereo, ints], rate=44_100)
    assert [row.file for row in got] == ["[0]", "[1]", "[2]"]
    assert_like(probs(got), want.repeat(3, 0), digits=5)
    assert_like(probs(model.predict(wave, rate=44_100)), want, digits=5)


def test_what_cannot_be_an_input_is_refused(model):
    for inputs, words in (
        ([np.zeros((2, 3, 4))], r"\[0\] .*\[2, 3, 4\]"),
        ([np.zeros((16_000, 2))], r"\[16000, 2\].*\[samples\] .*\[channels, samples\]"),
        ([np.zeros(9, complex)], r"\[0\] .*complex128"),
        ([3.5], r"\[0\] .*\bfloat\b.* numpy"),
        ([], "files, folders, patterns or arrays"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.predict(inputs)


def test_samples_that_are_no_numbers_are_an_error_of_their_row(model):
    found = model.predict([np.full(8000, np.nan), np.zeros(0), chirp(0.5)])
    assert [row.error is None for row in found] == [False, False, True]
    assert "not finite" in found[0].error
    assert "no samples" in found[1].error


def test_what_is_no_recording_is_an_error_of_its_row(model, tmp_path):
    tone = chirp(0.5)
    waves = {
        "silent": np.zeros(8000),
        "faint": tone * 1e-4,
        "cancel": np.stack([tone, -tone], 1),
        "nearly": np.stack([tone, -0.999 * tone], 1),
        "nan": np.where(np.arange(8000) == 7, np.nan, tone),
        "inf": np.where(np.arange(8000) == 7, np.inf, tone),
        "absurd": tone * 1e29,
        "good": tone,
        "left": np.stack([tone, 0 * tone], 1),
        "integers": tone * 2**15,  # written as floats
    }
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000, subtype="DOUBLE")
    paths = [tmp_path / f"{name}.wav" for name in waves]
    found = model.predict([*paths, *(wave.T for wave in waves.values())])
    words = ["silent", "silent", "cancel", "cancel", "not finite", "not finite", "out of range"]
    for rows in (found[:10], found[10:]):
        assert [row.error is None for row in rows] == [False] * 7 + [True] * 3
        for row, word in zip(rows[:7], words, strict=True):
            assert word in row.error
            assert row.label is None
        assert all("channel=first" in row.error for row in rows[2:4])
    assert not model.predict(paths[2:4], channel="first").errors


def heard_by(model, monkeypatch):
    """Seconds of each recording that the encoder hears from now on."""
    seconds, right = [], model.module.encoder.extract

    def extract(audio, lengths):
        seconds.extend(round(n / 16_000, 2) for n in lengths.tolist())
        return right(audio, lengths)

    monkeypatch.setattr(model.module.encoder, "extract", extract)
    return seconds


def test_recordings_whose_features_are_stored_are_not_encoded_again(
    model, tiny_speech, tmp_path, monkeypatch
):
    soundfile.write(tmp_path / "new.wav", chirp(1.5), 16_000, subtype="FLOAT")
    files = sorted(tiny_speech.glob("*.wav"))
    waves = [soundfile.read(file, dtype="float32")[0] for file in files]
    heard = heard_by(model, monkeypatch)
    want = model.predict([*waves[:15], chirp(1.5), *waves[15:]])
    assert len(heard) == 31  # arrays have no stored features
    heard.clear()
    got = model.predict([*files[:15], tmp_path / "new.wav", *files[15:]])
    assert heard == [1.5]
    assert_like(probs(got), probs(want), digits=4)
    assert [row.end for row in got] == pytest.approx([row.end for row in want])


def test_another_part_or_channel_of_a_stored_recording_is_encoded(
    model, tiny_speech, tmp_path, monkeypatch
):
    file = next(tiny_speech.glob("*.wav"))
    wave = soundfile.read(file, dtype="float32")[0]
    soundfile.write(tmp_path / "stereo.wav", np.stack([chirp(0.3), wave[:4800]], 1), 16_000)
    soundfile.write(tmp_path / "twin.flac", wave, 16_000)
    heard = heard_by(model, monkeypatch)
    model.predict(tmp_path / "twin.flac")  # the same sound under another name
    assert heard == []
    model.predict(file, window=0.2)
    assert len(heard) > 1
    heard.clear()
    model.predict(tmp_path / "stereo.wav", channel=1)
    assert heard == [0.3]


def test_a_store_that_was_removed_meanwhile_costs_only_time(model, tiny_speech, monkeypatch):
    files = sorted(tiny_speech.glob("*.wav"))[:2]
    want = probs(model.predict(files))
    heard = heard_by(model, monkeypatch)

    def gone(*_):
        raise DataError("removed")

    monkeypatch.setattr(verb.FeatureStore, "read", gone)
    assert_like(probs(model.predict(files)), want, digits=4)
    assert len(heard) == 2


def test_a_row_whose_scores_are_not_finite_is_an_error_and_the_rest_goes_on(model, monkeypatch):
    good = model.predict([chirp(0.5), chirp(0.6)])
    scores = type(model.module.head).scores

    def broken(self, frames, taxonomy, text=None):
        found = scores(self, frames, taxonomy, text)
        found[1, 0] = float("nan")
        return found

    monkeypatch.setattr(type(model.module.head), "scores", broken)
    first, second = model.predict([chirp(0.5), chirp(0.6)])
    assert first == good[0]
    assert "[1]: the model's scores are not finite" in second.error
    assert (second.label, second.probs, second.end) == (None, {}, pytest.approx(0.6))


def test_a_silent_stretch_is_an_error_of_its_own_and_the_rest_goes_on(run, model, tmp_path):
    wave = np.concatenate([chirp(3.0), np.zeros(16_000 * 6), chirp(3.0), np.zeros(16_000 * 3)])
    found = model.predict([wave, np.zeros(16_000 * 9), chirp(0.5)])
    mine = [(row.start, row.end, row.error is None) for row in found if row.file == "[0]"]
    assert mine == [
        (0, 2, True),
        (1, 3, True),
        (2, 4, True),
        (3, 9, False),
        (8, 10, True),
        (9, 11, True),
        (10, 12, True),
        (11, 13, True),
        (12, 15, False),
    ]
    assert "3.000 s to 9.000 s" in found[3].error
    (silent,) = [row for row in found if row.file == "[1]"]
    assert "silent" in silent.error
    assert found[-1].error is None
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    plot = ["--plot", str(tmp_path / "plots"), "--out", str(tmp_path / "a.csv")]
    assert main(["predict", str(run()), str(tmp_path / "a.wav"), *plot]) == 1
    assert [p.name for p in (tmp_path / "plots").iterdir()] == ["a.png"]  # one recording, one panel


def test_a_channel_is_chosen_by_name_or_number_for_files_and_arrays(run, model, tmp_path, capsys):
    left, right = chirp(0.8), np.random.default_rng(0).uniform(-0.2, 0.2, 12_800)
    stereo = np.stack([left, right], 1)
    path = tmp_path / "a.wav"
    soundfile.write(path, stereo, 16_000, subtype="FLOAT")
    one, two, mean = probs(model.predict([left, right, stereo.mean(1)]))
    assert not np.allclose(one, two, atol=1e-3)
    for channel, want in (("mean", mean), (None, mean), ("first", one), (1, one), (2, two)):
        got = probs(model.predict([path, stereo.T], channel=channel))
        np.testing.assert_allclose(got, [want, want], atol=1e-5)
    for row in model.predict([path, stereo.T], channel=3):
        assert "has 2 channels" in row.error
        assert "channel 3" in row.error
    with pytest.raises(ConfigError, match=r"channel is '0'; have mean, first"):
        model.predict(path, channel=0)
    assert main(["predict", str(run()), str(path), "--channel", "2"]) == 0
    (row,) = table(capsys.readouterr().out)
    assert [float(row[f"p_{c}"]) for c in CLASSES] == pytest.approx(two, abs=2e-6)
    assert main(["predict", str(run()), str(path), "--channel", "left"]) == 2


def test_a_recording_that_was_cut_is_an_error_of_its_row(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", chirp(9.0), 16_000)
    soundfile.write(tmp_path / "b.ogg", chirp(1.0), 16_000)
    for name in ("a.wav", "b.ogg"):
        raw = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    found = model.predict([tmp_path / "a.wav", tmp_path / "b.ogg", chirp(0.5)])
    assert [row.file for row in found.errors] == [str(tmp_path / n) for n in ("a.wav", "b.ogg")]
    assert all("cut short" in row.error for row in found.errors)
    assert [row.end for row in found if row.error is None][:-1] == [2, 3, 4]
    assert found[-1].error is None


def test_order_folders_patterns_and_case(model, tmp_path, write_wave, monkeypatch):
    names = ["z/long.wav", "a.FLAC", "b.wav", "z/deep/er/c.ogg", "odd[1].wav"]
    for i, name in enumerate(names):
        write_wave(tmp_path / name, seconds=0.9 - 0.15 * i)  # longest first: sorting must be undone
    (tmp_path / "z" / "notes.txt").write_text("not audio")
    monkeypatch.chdir(tmp_path)
    found = model.predict(["z", "*.wav", "odd[1].wav", "z/**/*.ogg", "a.FLAC"])
    assert [row.file for row in found] == [
        "z/deep/er/c.ogg", "z/long.wav", "b.wav", "odd[1].wav", "odd[1].wav", "z/deep/er/c.ogg",
        "a.FLAC",
    ]  # fmt: skip
    assert (found[3].file, found[3].end) == (found[4].file, found[4].end)
    assert_like(probs(found[3:4]), probs(found[4:5]), digits=5)
    assert [r.end for r in found] == pytest.approx([0.45, 0.9, 0.6, 0.3, 0.3, 0.45, 0.75])
    assert not found.errors


# A row has the model's answer.


def test_rows_are_calibrated_scores(run, model, tmp_path, write_wave):
    path = write_wave(tmp_path / "a.wav", chirp(1.0))
    record = json.loads((run() / "record.json").read_text())
    assert model.temperature == record["metrics"]["temperature"] != 1.0
    wave = torch.from_numpy(read_audio(path))[None]
    batch = Batch(["a"], ["s"], Targets(torch.zeros(1, 3), torch.zeros(1)), audio=wave,
                  lengths=torch.tensor([wave.shape[1]]))  # fmt: skip
    with torch.no_grad():
        scores = model.module(batch)[0].double().numpy()
    (row,) = model.predict(path)
    assert_like(list(row.probs.values()), softmax(scores / model.temperature).tolist(), digits=5)
    assert row.calibrated
    assert row.label == CLASSES[scores.argmax()]
    plain = load(run() / "checkpoints" / "last.ckpt")
    assert plain.temperature is None
    plain.module.temperature, model_t = None, model.temperature
    try:
        model.module.temperature = None
        (bare,) = model.predict(path)
    finally:
        model.module.temperature = model_t
    assert not bare.calibrated
    assert_like(list(bare.probs.values()), softmax(scores).tolist(), digits=5)


def test_the_best_checkpoint_is_calibrated_as_its_run(run, tmp_path):
    assert load(run() / "checkpoints" / "best.ckpt").temperature == load(run()).temperature
    copy = shutil.copy(run() / "checkpoints" / "best.ckpt", tmp_path)
    assert load(copy).temperature is None


WRITERS = ("selm", "speech_llm")


@pytest.mark.parametrize("head", often(registry.names("heads"), ["classification", "selm"]))
def test_batching_changes_nothing_for_any_head(run, head, tmp_path):
    module = load(run(head))
    waves = [chirp(s) for s in (1.9, 0.1, 5.3, 0.4)]
    together = module.predict(waves, window=1.0, hop=0.25)
    single = module.predict(waves, window=1.0, hop=0.25, batch_seconds=1e-6)
    alone = [row for w in waves for row in module.predict(w, window=1.0, hop=0.25)]
    assert len(together) == len(single) == len(alone) == 5 + 1 + 19 + 1
    for other in (single, alone):
        assert_like(probs(other), probs(together), digits=5)
        assert [r.text for r in other] == [r.text for r in together]
    assert all((r.text is None) == (head not in WRITERS) for r in together)
    assert ("text" in together.to_dicts()[0]) == (head in WRITERS)


def test_reading_ahead_is_bounded_and_changes_nothing(model, monkeypatch):
    waves = [chirp(s) for s in (1.9, 7.3, 0.4, 1.0, 0.2)]
    want = model.predict(waves)
    longest, score = [], verb._score
    monkeypatch.setattr(verb, "READ_AHEAD", 3.0)
    monkeypatch.setattr(
        verb, "_score", lambda job, ready: longest.append(len(ready)) or score(job, ready)
    )
    got = model.predict(waves)
    assert [(r.file, r.start, r.end) for r in got] == [(r.file, r.start, r.end) for r in want]
    assert_like(probs(got), probs(want), digits=5)
    assert len(longest) > 3
    assert max(longest) <= 4


def test_the_mode_of_every_part_is_left_as_it_was(model):
    parts = list(model.module.modules())
    modes = [i % 3 == 0 for i in range(len(parts))]
    try:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
        model.predict(chirp(0.5))
        assert [part.training for part in parts] == modes
    finally:
        model.module.eval()


def test_a_head_that_reads_text_says_so(model, monkeypatch):
    monkeypatch.setattr(type(model.module.head), "needs", frozenset({"text"}))
    with pytest.raises(ConfigError, match=says("ClassificationHead", "serzoo eval")):
        model.predict(chirp(0.5))


# Timelines.


def test_windows_cover_a_long_recording_to_its_end(model):
    found = model.predict([chirp(5.3), chirp(2.0)])
    spans = [(r.start, r.end) for r in found if r.file == "[0]"]
    assert spans == [(0, 2), (1, 3), (2, 4), (3, 5), (3.3, 5.3)]
    assert [(r.start, r.end) for r in found if r.file == "[1]"] == [(0, 2)]  # it fits
    wave = chirp(5.3).astype(np.float32)
    whole = model.predict([wave[round(s * 16_000) : round(e * 16_000)] for s, e in spans])
    assert_like(probs(found[:5]), probs(whole), digits=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 1.0, "hop": 1.5}, r"hop .*1\.5 s\b.* window, 1 s\b"),
        ({"window": 1.0, "hop": 0.0}, r"hop .*\b0 s\b.* 0 .* 1 s\b"),
        ({"window": -1.0}, r"window .*-1 s\b.* 0 .* 2 s\b"),
        ({"window": 2.5}, r"window .*2\.5 s\b.* 2 s\b.*max_seconds"),
        ({"window": float("nan")}, r"window .*nan s.* 2 s\b"),
        ({"voice": "loud"}, "voice .*'loud'.* none, energy, silero"),
        ({"batch_seconds": 0.0}, "batch_seconds .*0; .*0"),
        ({"rate": 0}, r"rate .*\b0; .*arrays"),
    ],
)
def test_options_that_do_not_fit_are_refused(model, options, words):
    with pytest.raises(ConfigError, match=words):
        model.predict(chirp(0.5), **options)


def test_only_speech_is_covered(model):
    rng = np.random.default_rng(0)
    wave = 1e-4 * rng.normal(size=16_000 * 10)
    wave[32_000:48_000] += chirp(1.0)
    wave[96_000:144_000] += chirp(3.0)
    hiss = 2e-4 * rng.uniform(-1, 1, 16_000)  # not silent, but nobody speaks
    found = model.predict([wave, hiss], voice="energy")
    spans = [(r.start, r.end) for r in found if r.error is None]
    assert spans[0] == pytest.approx((2, 3), abs=0.25)
    assert min(s for s, _ in spans[1:]) == pytest.approx(6, abs=0.25)
    assert max(e for _, e in spans[1:]) == pytest.approx(9, abs=0.25)
    assert all(e - s <= 2 + 1e-9 for s, e in spans)
    assert len(spans) > 3
    (error,) = [r.error for r in found if r.error]
    assert re.search(says("[1]", "voice=energy", "voice=none"), error)


# The command line.


@pytest.fixture
def files(tmp_path, write_wave):
    write_wave(tmp_path / "in" / "a.wav", chirp(3.1))
    write_wave(tmp_path / "in" / "b.flac", chirp(0.7))
    return tmp_path / "in"


def test_python_equals_the_command_line(run, model, files, tmp_path, capsys):
    assert main(["predict", str(run()), str(files)]) == 0
    shown = capsys.readouterr()
    out = tmp_path / "new" / "out.csv"
    assert main(["predict", str(run()), "--out", str(out), str(files)]) == 0
    written = model.predict(files).to_csv(tmp_path / "python.csv").read_text()
    assert_same_rows(table(out.read_text()), table(shown.out))
    assert_same_rows(table(written), table(shown.out))
    assert written.splitlines()[0] == shown.out.splitlines()[0] == out.read_text().splitlines()[0]
    assert "2 recordings, 4 windows, 0 errors; probabilities calibrated" in shown.err
    assert f"wrote {out}" in capsys.readouterr().err
    rows = table(written)
    names = [f"p_{c}" for c in CLASSES]
    assert list(rows[0]) == ["file", "start", "end", "label", *names, "calibrated", "error"]
    assert [(r["start"], r["end"]) for r in rows[:3]] == [("0", "2"), ("1", "3"), ("1.1", "3.1")]
    assert {r["calibrated"] for r in rows} == {"true"}
    assert all(sum(float(r[n]) for n in names) == pytest.approx(1, abs=2e-6) for r in rows)


def test_jsonl_is_the_same_table(run, model, files, tmp_path):
    out = tmp_path / "out.jsonl"
    options = ["--window", "1.5", "--hop", "1", "--batch-seconds", "4"]
    assert main(["predict", str(run()), str(files), *options, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    want = model.predict(files, window=1.5, hop=1.0)
    assert [r["start"] for r in rows] == [0, 1, 1.6, 0]
    assert [list(r) for r in rows] == [list(d) for d in want.to_dicts()]
    for row, other in zip(rows, want, strict=True):
        values = [row[f"p_{c}"] for c in CLASSES]
        assert values == pytest.approx(list(other.probs.values()), abs=1e-5)
        assert (row["label"], row["calibrated"], row["error"]) == (other.label, True, None)


def test_the_text_of_selm_is_written(run, files, tmp_path, capsys):
    assert main(["predict", str(run("selm")), str(files)]) == 0
    rows = table(capsys.readouterr().out)
    want = load(run("selm")).predict(files)
    assert [r["text"] for r in rows] == [r.text for r in want]


def test_bad_files_are_reported_and_the_rest_goes_on(run, files, tmp_path, capsys, monkeypatch):
    (files / "c.wav").write_bytes(b"RIFF, but no more")
    (files / "d.mp3").touch()
    (files / "empty").mkdir()
    soundfile.write(files / "e.wav", np.zeros(0), 16_000)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 40)
    soundfile.write(files / "f.flac", noise, 16_000)
    whole = (files / "f.flac").read_bytes()
    (files / "f.flac").write_bytes(whole[: len(whole) * 9 // 10])  # damaged beyond the first 30 s
    monkeypatch.chdir(files)
    inputs = ["absent.wav", ".", "*.aiff", "empty", "a.wav"]
    assert main(["predict", str(run()), *inputs]) == 1
    shown = capsys.readouterr()
    rows = table(shown.out)
    errors = {r["file"]: r["error"] for r in rows if r["error"]}
    assert list(errors) == ["absent.wav", "c.wav", "d.mp3", "e.wav", "f.flac", "*.aiff", "empty"]
    for name, words in (
        ("absent.wav", "there is no such file or folder"),
        ("c.wav", "cannot be read as audio"),
        ("d.mp3", "has 0 bytes"),
        ("e.wav", "holds no samples"),
        ("f.flac", "convert it"),
        ("*.aiff", "no file matches"),
        ("empty", "the folder has no wav"),
    ):
        assert words in errors[name]
        assert f"serzoo predict: {errors[name]}" in shown.err
    good = [r for r in rows if not r["error"]]
    assert {r["file"] for r in good} == {"a.wav", "b.flac", "f.flac"}
    assert [r["file"] for r in rows[-2:]] == ["a.wav"] * 2 or rows[-1]["file"] == "a.wav"
    (broken,) = [r for r in rows if r["file"] == "f.flac" and r["error"]]
    assert float(broken["start"]) == max(float(r["end"]) for r in good if r["file"] == "f.flac")
    assert (broken["label"], broken["p_sad"], broken["calibrated"]) == ("", "", "")
    assert "7 errors" in shown.err


def test_nothing_predicted_ends_with_2(run, tmp_path, capsys):
    assert main(["predict", str(run()), str(tmp_path / "*.wav")]) == 2
    assert "no file matches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "a.wav"], "nowhere"),
        (["RUN", "a.wav", "--out", "a.xlsx"], "out is 'a.xlsx'; give a name that ends in .csv"),
        (["RUN", "a.wav", "--plot", "a.doc"], "plot is 'a.doc'"),
        (["RUN", "a.wav", "--hop", "9"], "hop is 9 s"),
        (["RUN", *["a.wav"] * 21, "--plot", "a.png"], "21 recordings do not fit one figure"),
    ],
)
def test_usage_errors_end_with_2_and_one_line(run, arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = [str(run()) if a == "RUN" else a for a in arguments]
    assert main(["predict", *arguments]) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert not shown.out
    assert not list(tmp_path.iterdir())


def test_plots_are_written(run, files, tmp_path, capsys):
    one, folder = tmp_path / "p" / "one.png", tmp_path / "many"
    write = ["predict", str(run()), str(files), str(files / "a.wav"), "absent.wav"]
    assert main([*write, "--plot", str(one)]) == 1
    assert main([*write, "--plot", str(folder), "--window", "1"]) == 1
    assert f"wrote {folder}" in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["a-2.png", "a.png", "b.png"]
    for image in (one, *folder.iterdir()):
        assert image.read_bytes().startswith(b"\x89PNG")


# Channels of their own, and pipes.


@pytest.fixture
def call(tmp_path, write_wave):
    """A call of two speakers, one in each channel; the second one is silent at first."""
    sides = np.stack([chirp(5.3), np.concatenate([np.zeros(40_000), chirp(2.8)])], 1)
    return write_wave(tmp_path / "call.wav", sides)


def test_each_channel_is_a_recording(run, model, call, tmp_path):
    found = model.predict(call, channel="separate")
    for channel in (1, 2):
        alone = [r for r in found if r.channel == channel]
        want = model.predict(call, channel=channel)
        assert [(r.start, r.end) for r in alone] == [(r.start, r.end) for r in want]
        good = [(a, b) for a, b in zip(alone, want, strict=True) if a.error is None]
        assert len(good) >= 4
        assert_like(probs([a for a, _ in good]), probs([b for _, b in good]), digits=5)
    (silent,) = found.errors
    assert re.search(says("channel 2", "call.wav", "0.000 s", "2.000 s"), silent.error)
    array = soundfile.read(call)[0].T
    assert_like(probs([r for r in model.predict(array, channel="separate") if not r.error]),
                probs([r for r in found if not r.error]), digits=5)  # fmt: skip
    out, folder = tmp_path / "o.csv", tmp_path / "grids"
    words = ["--channel", "separate", "--out", str(out), "--textgrid", str(folder)]
    assert main(["predict", str(run()), str(call), *words]) == 1
    rows = table(out.read_text())
    assert list(rows[0])[:3] == ["file", "channel", "start"]
    assert [r["channel"] for r in rows] == ["1"] * 5 + ["2"] * 5
    text = (folder / "call.TextGrid").read_text()
    assert 'name = "channel 2 emotion"' in text
    assert "xmax = 5.300000" in text


def test_a_file_that_cannot_be_read_has_one_row_for_all_channels(model, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF, but no more")
    (found,) = model.predict(tmp_path / "a.wav", channel="separate")
    assert found.channel is None
    assert "a.wav" in found.error


class Stdin:
    """Standard input that holds these bytes, and notes how many were taken."""

    closed = False

    def __init__(self, data, step=4096, terminal=False):
        self.left, self.step, self.taken, self.buffer = data, step, 0, self
        self.isatty = lambda: terminal

    def read1(self, size):
        got, self.left = self.left[: self.step], self.left[self.step :]
        self.taken += len(got)
        return got


@pytest.fixture
def pipe(monkeypatch):
    """``pipe(bytes)``: standard input holds them."""

    def hold(data, **options):
        stdin = Stdin(data, **options)
        monkeypatch.setattr(sys, "stdin", stdin)
        return stdin

    return hold


def raw_bytes(path):
    return soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()


def test_a_pipe_has_the_rows_of_the_file(run, files, pipe, capsys):
    assert main(["predict", str(run()), str(files / "a.wav")]) == 0
    want = table(capsys.readouterr().out)
    pipe(raw_bytes(files / "a.wav"))
    assert main(["predict", str(run()), "-", "--rate", "16000"]) == 0
    found = table(capsys.readouterr().out)
    assert_same_rows(found, [{**row, "file": "-"} for row in want])
    assert len(found) == 3


def test_channels_of_a_pipe_take_turns(run, call, pipe, capsys):
    words = ["--channel", "separate", "--json"]
    assert main(["predict", str(run()), str(call), *words]) == 1
    want = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    pipe(raw_bytes(call))
    words += ["--rate", "16000", "--channels", "2"]
    assert main(["predict", str(run()), "-", *words]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["channel"] for r in found] == [1, 2] * 5
    for a in (r for r in found if not r["error"]):
        (b,) = (r for r in want if (r["channel"], r["start"]) == (a["channel"], a["start"]))
        assert_same_rows([a], [{**b, "file": "-"}])
    assert [(r["channel"], r["start"]) for r in found if r["error"]] == [(2, 0.0)]


def test_a_row_comes_as_soon_as_its_window_is_there(run, files, pipe, monkeypatch):
    source, taken = pipe(raw_bytes(files / "a.wav"), step=1000), []
    written = Columns.row
    monkeypatch.setattr(
        Columns,
        "row",
        lambda self, row: taken.append((row.end, source.taken)) or written(self, row),
    )
    assert main(["predict", str(run()), "-", "--rate", "16000", "--window", "1"]) == 0
    rows = [(end, bytes_) for end, bytes_ in taken if end]
    assert len(rows) == 6
    for end, bytes_ in rows[:-1]:
        assert 2 * 16_000 * end < bytes_ <= 2 * 16_000 * end + 2 * 1000


def test_the_memory_of_a_pipe_does_not_grow(run, monkeypatch, tmp_path):
    class Endless(Stdin):
        def __init__(self, seconds):
            super().__init__(b"")
            self.rest = int(seconds * 10)
            self.second = np.random.default_rng(0).integers(-999, 999, 3200, "<i2").tobytes()

        def read1(self, size):
            self.rest -= 1
            return self.second if self.rest >= 0 else b""

    def score(job, ready):
        for recording, clip in ready:
            yield Row(recording.name, clip.start, clip.end, "sad", dict.fromkeys(CLASSES, 0.3))

    monkeypatch.setattr(verb, "_score", score)

    def peak(seconds):
        monkeypatch.setattr(sys, "stdin", Endless(seconds))
        words = ["--rate", "16000", "--channels", "2", "--channel", "separate"]
        tracemalloc.start()
        assert main(["predict", str(run()), "-", *words, "--out", str(tmp_path / "o.csv")]) == 0
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # what is imported once
    short, long = peak(10), peak(60)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + 2 * 59
    assert long < short + 100_000  # 50 s of two channels are 6.4 MB


PIPES = [
    (b"ab" * 16_000, "- --rate 16", 2, ("rate", 16, 4000)),
    (b"ab" * 16_000, "-", 2, ("--rate", "--encoding", "s16le", "ffmpeg")),
    (b"ab" * 16_000, "- --rate 16000 --encoding s17", 2, ("'s17'", "s16le")),
    (b"ab" * 16_000, "- --rate 16000 --channel 2", 2, ("channel", 2, 1, "--channels")),
    (b"ab" * 16_000, "- --rate 16000 --voice energy", 2, ("voice=energy", "once")),
    (b"ab" * 16_000, "- a.wav --rate 16000", 2, ("a.wav, -", "--rate")),
    (b"ab" * 16_000, "a.wav --rate 16000", 2, ("a.wav", "--rate")),
    (b"ab" * 16_000, "a.wav --encoding f32le", 2, ("--encoding", "--rate")),
    (b"ab" * 16_000 + b"c", "- --rate 16000", 1, ("1 byte", "s16le")),
    (b"", "- --rate 16000", 2, ("standard input", "no samples")),
    (b"RIFF" + bytes(99), "- --rate 16000", 2, ("WAV", "ffmpeg")),
]


@pytest.mark.parametrize(("data", "typed", "code", "facts"), PIPES)
def test_what_is_wrong_with_a_pipe_is_one_line(run, pipe, data, typed, code, facts, capsys):
    pipe(data)
    assert main(["predict", str(run()), *typed.split()]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("serzoo predict: ")]
    assert len(lines) == 1
    assert re.search(says(*facts), lines[0])
    assert len(out.splitlines()) in ((0, 2) if code == 2 else (3,))


def test_a_terminal_is_no_pipe(run, pipe, capsys, monkeypatch):
    pipe(b"", terminal=True)
    assert main(["predict", str(run()), "-", "--rate", "16000"]) == 2
    assert re.search(says("terminal", "ffmpeg"), capsys.readouterr().err)
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["predict", str(run()), "-", "--rate", "16000"]) == 2
    assert re.search(says("closed", "ffmpeg"), capsys.readouterr().err)


def test_a_named_pipe_is_read_as_standard_input(run, files, tmp_path, capsys):
    os.mkfifo(tmp_path / "fifo")
    writer = Thread(target=(tmp_path / "fifo").write_bytes, args=[raw_bytes(files / "b.flac")])
    writer.start()
    assert main(["predict", str(run()), str(tmp_path / "fifo"), "--rate", "16000"]) == 0
    writer.join()
    (row,) = table(capsys.readouterr().out)
    assert (row["file"], row["end"]) == (str(tmp_path / "fifo"), "0.7")


PROGRAM = "import sys; from serzoo.zoo.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupt", "reader"])
def test_a_live_prediction_ends_cleanly(run, end):
    sound = chirp(3.5)
    words = [sys.executable, "-c", PROGRAM, "predict", str(run()), "-", "--rate", "16000"]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as live:  # fmt: skip
        live.stdin.write((sound * 32767).astype("<i2").tobytes())
        live.stdin.flush()
        rows = [live.stdout.readline() for _ in range(3)]  # while the pipe is still open
        assert [row.split(b",")[2] for row in rows] == [b"end", b"2", b"3"]
        if end == "interrupt":
            live.send_signal(signal.SIGINT)
            assert live.wait(60) == 130
            assert live.stderr.read() == b"interrupted\n"
        else:
            live.stdout.close()
            live.stdin.write((sound * 32767).astype("<i2").tobytes())
            live.stdin.close()
            assert live.wait(60) == 141
            assert live.stderr.read() == b""


# In Python.


def test_predictions_say_what_they_are(model, tmp_path):
    found = model.predict([chirp(0.5), tmp_path / "absent.wav"])
    text = repr(found)
    assert "2 rows of 2 recordings, 1 with errors; angry, happy, sad (calibrated)" in text
    assert f"[0] 0.00-0.50 s: {found[0].label} {max(found[0].probs.values()):.2f}" in text
    assert "no such file" in text
    assert len(found[:1]) == 1
    assert repr(model.predict([chirp(0.1)] * 12)).endswith("... 2 more")


def test_any_text_survives_csv_and_jsonl(tmp_path):
    from serzoo.zoo.run.predictions import Columns, Predictions, Row

    odd = 'a "b", c\nd \ufffd é'
    columns = Columns(Taxonomy.of(["x", "y"]).classes, text=True)
    row = Row(f"{odd}.wav", 0.0, 1e-9, "x", {"x": 1.0, "y": 1e-9}, False, odd)
    found = Predictions([row], columns)
    with found.to_csv(tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        (back,) = csv.DictReader(file)
    assert (back["file"], back["text"], back["p_x"], back["p_y"]) == (f"{odd}.wav", odd, "1", "0")
    (line,) = found.to_jsonl(tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line) == found.to_dicts()[0]
    assert json.loads(line)["text"] == odd
