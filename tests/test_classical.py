"""The classical anchor: the same folds, nothing of the test part in what was fitted, one row."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import classical
import functionals
import numpy as np
import pytest
import svm
from facts import says
from rich.console import Console
from serzoo.datamodules.corruption import remembered
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.report.report import report
from serzoo.zoo.run import config
from serzoo.zoo.run.build import open_data


def loudness(samples: np.ndarray) -> np.ndarray:
    """Loudness and its unsteadiness: what tells the tiny corpus' emotions apart."""
    parts = np.array_split(samples, 8)
    levels = np.log([np.sqrt(np.mean(p**2)) + 1e-6 for p in parts])
    return np.array([levels.mean(), levels.std(), np.nan, 7.0], dtype=np.float32)


@pytest.fixture
def extractor() -> Any:
    return sys.modules["functionals"].Extractor("fake", "1", loudness)


def part(ids: list[str], labels: list[int], n_classes: int = 2) -> SpeechDataset:
    us = [Utterance(i, "c", f"{i}.wav", 0.0, 1.0, 16_000, i[0]) for i in ids]
    return SpeechDataset(us, labels, n_classes, roots={}, max_seconds=20)


@pytest.fixture
def tiny_recipe(
    tmp_path: Path, write_wave: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> str:
    """Ten speakers, three emotions that differ in loudness, a third of a second each."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = ["audio,label,speaker"]
    for speaker in range(10):
        for label, loud in (("angry", 0.5), ("happy", 0.1), ("sad", 0.02)):
            name = f"{label}-{speaker}.wav"
            write_wave(tmp_path / "speech" / name, loud * 0.3 * rng.normal(size=5_000))
            rows.append(f"{name},{label},s{speaker}")
    (tmp_path / "speech" / "table.csv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
corpus: csv
protocol: kfold-5
groups: {{encoder: logmel, head: classification}}
encoder: {{widths: [4, 8, 8, 8], dim: 16, bfloat16: false}}
optim: {{epochs: 1}}
data: {{root: {tmp_path / "speech"}, batch_size: 8}}
trainer: {{accelerator: cpu, progress: false, threads: 1}}
"""
    )
    return str(path)


# The parts.


def test_standardising_knows_the_training_part_only() -> None:
    train_x = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan], [np.nan, 5.0, np.nan]])
    scale = svm.Scale.of(train_x)
    np.testing.assert_allclose(scale(train_x), [[-1, 0, 0], [1, 0, 0], [0, 0, 0]])
    other = np.array([[4.0, 9.0, 1.0], [np.nan, 5.0, 0.0]])
    np.testing.assert_allclose(scale(other), [[2, 0, 0], [0, 0, 0]])


def test_c_is_chosen_on_validation_and_equal_ones_take_the_smallest() -> None:
    rng = np.random.default_rng(0)
    parts = {}
    for name, n in (("train", 40), ("valid", 20), ("test", 20)):
        labels = np.arange(n) % 2
        data = part([f"{name[:3]}{i}" for i in range(n)], labels.tolist())
        parts[name] = data, rng.normal(size=(n, 3)) + 5 * labels[:, None]
    grid = (1e-3, 1e-1, 10.0)
    done = svm.fit(parts["train"], parts["valid"], ["a", "b"], grid=grid)
    best = max(done.valid_uar.values())
    assert done.c == min(c for c, v in done.valid_uar.items() if v == best)
    table = done.table(*parts["test"], ["a", "b"])
    assert table.uar() > 0.9
    assert table.scores.shape == (20, 2)
    np.testing.assert_allclose(table.scores.sum(1), 0, atol=1e-6)


def test_it_is_the_linear_svm_of_sklearn_with_balanced_classes() -> None:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rng = np.random.default_rng(1)
    y = [0, 1, 2, 2, 2] * 8
    parts = {}
    for name in ("train", "valid", "test"):
        x = rng.normal(size=(40, 5)) + np.array(y)[:, None] * 0.7
        parts[name] = part([f"{name[:3]}{i}" for i in range(40)], y, 3), x
    classes = ["a", "b", "c"]
    done = svm.fit(parts["train"], parts["valid"], classes, grid=(0.1,))
    table = done.table(*parts["test"], classes)
    scaler = StandardScaler().fit(parts["train"][1])
    model = SVC(C=0.1, kernel="linear", class_weight="balanced", break_ties=True)
    model.fit(scaler.transform(parts["train"][1]), y)
    test_x = scaler.transform(parts["test"][1])
    np.testing.assert_allclose(table.scores, model.decision_function(test_x), atol=1e-4)
    assert table.predicted.tolist() == model.predict(test_x).tolist()
    plain = svm.fit(parts["train"], None, classes, grid=(0.1,), balance=False)
    assert np.abs(plain.table(*parts["test"], classes).scores - table.scores).max() > 1e-3


def test_the_anchor_s_speakers_are_normalised_as_those_of_the_heads() -> None:
    ids = [f"{who}{i}" for who in "xy" for i in range(4)]
    voice = np.repeat([-10.0, 10.0], 4)
    train_x = np.stack([voice, np.where(voice > 0, np.nan, 1.0)], 1)
    data = part(ids, [0, 1] * 4)
    plain = classical.Normalised("none")
    assert plain.of(data, train_x, learn=True) is train_x
    done = classical.Normalised("speaker")
    learned = done.of(data, train_x, learn=True)
    assert np.abs(learned[:, 0]).max() < 10  # each draws how many utterances it uses
    assert np.isfinite(learned).all()
    test = part([f"z{i}" for i in range(12)], [0, 1] * 6)
    found = done.of(test, np.tile([8.0, np.nan], (12, 1)))
    np.testing.assert_allclose(found, np.tile([2.0, 1.0], (12, 1)))  # 12 utterances against 4
    with pytest.raises(ValueError, match=says("training part", "first")):
        classical.Normalised("speaker").of(test, found)


def test_a_class_without_training_is_told() -> None:
    with pytest.raises(DataError, match=says("training", "b")):
        svm.fit((part(["a0", "a1"], [0, 0]), np.ones((2, 2))), None, ["a", "b"])


def test_features_are_kept_without_pickle(tmp_path: Path, write_wave: Callable[..., Path]) -> None:
    calls = []

    def call(samples: np.ndarray) -> np.ndarray:
        calls.append(len(samples))
        return np.array([len(samples), np.nan], dtype=np.float32)

    us = []
    for i, seconds in enumerate((0.5, 0.25)):
        write_wave(tmp_path / f"{i}.wav", seconds=seconds)
        us.append(Utterance(f"c/{i}", "c", f"{i}.wav", 0.0, seconds, 16_000, "s", sha=f"{i}"))

    def read(us: list[Utterance], version: str = "1", condition: str | None = None) -> np.ndarray:
        data = SpeechDataset(us, [0, 0], 2, roots={"c": tmp_path}, max_seconds=0.3)
        if condition:
            data.corrupt(remembered(condition))
        extractor = functionals.Extractor("count", version, call)
        return functionals.Functionals(extractor, tmp_path / "kept").of(data)

    np.testing.assert_equal(read(us), [[4_800, np.nan], [4_000, np.nan]])
    np.testing.assert_equal(read(us[::-1]), [[4_000, np.nan], [4_800, np.nan]])
    assert calls == [4_800, 4_000]  # cut to max_seconds, and read once
    (path,) = (tmp_path / "kept").iterdir()
    assert np.load(path, allow_pickle=False).shape == (2, 2)
    read(us, version="2")  # another version, another file
    assert len(list((tmp_path / "kept").iterdir())) == 2
    np.testing.assert_equal(read(us, condition="first:0.1s")[:, 0], [1_600, 1_600])
    assert len(list((tmp_path / "kept").iterdir())) == 3


# The whole.


@pytest.fixture
def pair(tiny_recipe: str, tmp_path: Path) -> Path:
    """``runs/pair``: one head, two folds, two seeds."""
    axes = {"recipe": [tiny_recipe], "head": ["classification"], "fold": [0, 1], "seed": [1, 2]}
    suite = tmp_path / "pair.yaml"
    suite.write_text(json.dumps({"title": "Pair", "axes": axes}))
    done = compare(str(suite), out=str(tmp_path / "runs"), workers=1)
    assert done["done"] == 4
    return tmp_path / "runs"


def rows(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r.recipe, r.head): r for r in report(folder, console=Console(file=io.StringIO()))}


def test_a_row_of_every_table_by_the_import(
    extractor: Any, pair: Path, tiny_recipe: str, tmp_path: Path
) -> None:
    (path,) = classical.anchor("pair", extractor, out=str(pair))
    written = list(csv.DictReader(path.open()))
    assert list(written[0]) == ["id", "fold", "angry", "happy", "sad"]
    for fold in (0, 1):
        data = open_data(config.load(tiny_recipe, [f"fold={fold}"]))
        mine = {r["id"] for r in written if r["fold"] == str(fold)}
        assert mine == {u.id for u in data.datasets["test"].utterances}
    entry = json.loads(path.with_suffix(".json").read_text())
    assert set(entry["folds"]) == {"0", "1"}
    found = rows(pair / "pair")
    mine, theirs = found["tiny", "svm_fake"], found["tiny", "classification"]
    # the same for both seeds; folds are of one size; loudness tells this corpus' classes apart
    expected = np.mean([f["uar"] for f in entry["folds"].values()])
    assert mine.uar.mean == pytest.approx(expected)
    assert mine.uar.mean > 0.8
    assert mine.certificate == theirs.certificate
    assert (mine.folds, mine.seeds) == (2, 2)
    # another corpus by now: nothing is brought beside what was tested on the first
    table = tmp_path / "speech" / "table.csv"
    table.write_text(table.read_text().replace(",s9", ",s8"))
    with pytest.raises(DataError, match=says("tiny-logmel-classification-f0-s1-a2b3c3")):
        classical.anchor("pair", extractor, out=str(pair))


def test_under_conditions_it_hears_what_the_heads_heard(
    extractor: Any, pair: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "noisy.yaml"
    suite.write_text(json.dumps({"of": "pair", "conditions": ["white:-20dB", "first:0.2s"]}))
    compare(str(suite), out=str(pair), workers=1)
    paths = classical.anchor("noisy", extractor, out=str(pair))
    assert len(paths) == 3
    found = rows(pair / "noisy")
    clean, noisy = found["tiny, clean", "svm_fake"], found["tiny, white:-20dB", "svm_fake"]
    assert clean.uar.mean > 0.8
    assert noisy.uar.mean < 0.5  # all are as loud as the noise
    assert found["tiny, first:0.2s", "svm_fake"].folds == 2
    assert "svm_fake" in (pair / "noisy" / "degradation.md").read_text()


def test_of_few_shots_it_gets_the_support(extractor: Any, tiny_recipe: str, tmp_path: Path) -> None:
    target = {"data": "csv", "root": str(tmp_path / "speech"), "protocol": "kfold-5"}
    told = {
        "source": {"recipe": tiny_recipe},
        "target": target,
        "head": ["classification"],
        "shots": [0, 2],
        "draw": [1, 2],
        "tuning": ["head", "scratch"],
        "options": {"steps": 1, "save": False},
    }
    suite = tmp_path / "shots.yaml"
    suite.write_text(json.dumps(told))
    out = str(tmp_path / "runs")
    assert compare(str(suite), out=out, workers=1)["done"] == 5
    paths = classical.anchor("shots", extractor, out=out)
    assert len(paths) == 3  # without a shot; two draws, for both tunings
    entries = [json.loads(p.with_suffix(".json").read_text())["folds"]["0"] for p in paths]
    assert [bool(e["valid_uar"]) for e in entries] == [True, False, False]
    assert len({e["c"] for e in entries}) == 1  # as the source chose it
    tables = [p.read_text() for p in paths]
    assert len(set(tables)) == 3
    found = rows(tmp_path / "runs" / "shots")
    head, scratch = (found[f"csv, from csv, 2 shots, {t}", "svm_fake"] for t in ("head", "scratch"))
    assert head.uar == scratch.uar
    assert head.seeds == 2  # draws
    curves = (tmp_path / "runs" / "shots" / "learning_curves.md").read_text()
    (line,) = [x for x in curves.splitlines() if x.startswith("| svm_fake")]
    assert line.startswith("| svm_fake | imported | ")
    zero = entries[0]["uar"]
    assert f"| {zero:.3f} | {head.uar.mean:.3f} ± " in line


def test_opensmile_itself() -> None:
    pytest.importorskip("opensmile", reason="needs serzoo[classical]")
    extractor = functionals.opensmile_extractor("eGeMAPSv02")
    t = np.arange(16_000) / 16_000
    tone = (0.1 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)
    values, louder = extractor.call(tone), extractor.call(2 * tone)
    assert values.shape == (88,)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert not np.array_equal(values, louder)
    assert np.array_equal(values, extractor.call(tone))
    assert extractor.version
    short = extractor.call(tone[:100])
    assert short.shape == (88,)
    assert np.isnan(short).all()
