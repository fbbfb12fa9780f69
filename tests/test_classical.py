"""The classical anchor: the same folds, nothing of the test part in what was fitted, one row."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo import config
from serzoo.zoo.errors import DataError
from serzoo.zoo.record import write_json
from serzoo.zoo.reporting.report import report
from serzoo.zoo.train import train
from serzoo.zoo.training.building import open_data


@pytest.fixture(scope="module")
def classical() -> ModuleType:
    pytest.importorskip("sklearn", reason="the classical anchor needs serzoo[classical]")
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "classical.py"
    spec = importlib.util.spec_from_file_location("serzoo_benchmarks_classical", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def loudness(samples: np.ndarray) -> np.ndarray:
    """Loudness and its unsteadiness: what tells the tiny corpus' emotions apart."""
    parts = np.array_split(samples, 8)
    levels = np.log([np.sqrt(np.mean(p**2)) + 1e-6 for p in parts])
    return np.array([levels.mean(), levels.std(), np.nan, 7.0], dtype=np.float32)


@pytest.fixture
def extractor(classical: ModuleType) -> Any:
    return classical.Extractor("fake", "1", loudness)


def part(features: dict[str, np.ndarray], ids: list[str], labels: list[int]) -> SpeechDataset:
    us = [Utterance(i, "c", f"{i}.wav", 0.0, 1.0, 16_000, i[0]) for i in ids]
    return SpeechDataset(us, labels, 2, roots={}, max_seconds=20)


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


# ---- the parts


def test_standardising_knows_the_training_part_only(classical: ModuleType) -> None:
    train_x = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, np.nan], [np.nan, 5.0, np.nan]])
    other = np.array([[4.0, 9.0, 1.0], [np.nan, 5.0, 0.0]])
    a, b = classical.standardise(train_x, other)
    np.testing.assert_allclose(a, [[-1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(b, [[2, 0, 0], [0, 0, 0]])


def test_c_is_chosen_on_validation_and_equal_ones_take_the_smallest(classical: ModuleType) -> None:
    rng = np.random.default_rng(0)
    features, parts = {}, {}
    for name, n in (("train", 40), ("valid", 20), ("test", 20)):
        labels = [i % 2 for i in range(n)]
        ids = [f"{name[:3]}{i}" for i in range(n)]
        for i, y in zip(ids, labels, strict=True):
            features[i] = rng.normal(size=3) + 5 * y
        parts[name] = part(features, ids, labels)
    done = classical.fit_fold(parts, features, ["a", "b"], grid=(1e-3, 1e-1, 10.0))
    best = max(done.valid_uar.values())
    assert done.c == min(c for c, v in done.valid_uar.items() if v == best)
    assert done.test.uar() > 0.9
    assert done.test.scores.shape == (20, 2)
    np.testing.assert_allclose(done.test.scores.sum(1), 0, atol=1e-6)
    # labels of the test part are copied into the table and change nothing else
    flipped = {**parts, "test": part(features, [f"tes{i}" for i in range(20)], [0] * 20)}
    again = classical.fit_fold(flipped, features, ["a", "b"], grid=(1e-3, 1e-1, 10.0))
    np.testing.assert_array_equal(again.test.scores, done.test.scores)


def test_it_is_the_linear_svm_of_sklearn_with_balanced_classes(classical: ModuleType) -> None:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rng = np.random.default_rng(1)
    features: dict[str, np.ndarray] = {}
    parts: dict[str, SpeechDataset] = {}
    x, y = {}, {}
    for name in ("train", "valid", "test"):
        y[name] = [0, 1, 2, 2, 2] * 8
        ids = [f"{name[:3]}{i}" for i in range(40)]
        x[name] = rng.normal(size=(40, 5)) + np.array(y[name])[:, None] * 0.7
        features |= dict(zip(ids, x[name], strict=True))
        parts[name] = part(features, ids, y[name])
        parts[name].n_classes = 3
    done = classical.fit_fold(parts, features, ["a", "b", "c"], grid=(0.1,))
    scaler = StandardScaler().fit(x["train"])
    model = SVC(C=0.1, kernel="linear", class_weight="balanced", break_ties=True)
    model.fit(scaler.transform(x["train"]), y["train"])
    expected = model.decision_function(scaler.transform(x["test"]))
    np.testing.assert_allclose(done.test.scores, expected, atol=1e-4)
    assert done.test.predicted.tolist() == model.predict(scaler.transform(x["test"])).tolist()
    plain = classical.fit_fold(parts, features, ["a", "b", "c"], grid=(0.1,), balance=False)
    assert np.abs(plain.test.scores - done.test.scores).max() > 1e-3


def test_a_class_without_training_is_told(classical: ModuleType) -> None:
    features = {f"{p}{i}": np.ones(2) for p in "abc" for i in range(2)}
    parts = {
        name: part(features, [f"{p}0", f"{p}1"], [0, 0])
        for name, p in (("train", "a"), ("valid", "b"), ("test", "c"))
    }
    with pytest.raises(DataError, match="training lacks b"):
        classical.fit_fold(parts, features, ["a", "b"])


def test_features_are_kept_without_pickle(
    classical: ModuleType, tmp_path: Path, write_wave: Callable[..., Path]
) -> None:
    calls = []

    def call(samples: np.ndarray) -> np.ndarray:
        calls.append(len(samples))
        return np.array([len(samples), np.nan], dtype=np.float32)

    us = []
    for i, seconds in enumerate((0.5, 0.25)):
        write_wave(tmp_path / f"{i}.wav", seconds=seconds)
        us.append(Utterance(f"c/{i}", "c", f"{i}.wav", 0.0, seconds, 16_000, "s", sha=f"{i}"))
    extractor = classical.Extractor("count", "1", call)
    where = {"c": tmp_path}
    first = classical.functionals(extractor, us, where, 0.3, tmp_path / "kept")
    again = classical.functionals(extractor, us[::-1], where, 0.3, tmp_path / "kept")
    assert calls == [4_800, 4_000]  # cut to max_seconds, and read once
    assert {k: v[0] for k, v in first.items()} == {"c/0": 4_800, "c/1": 4_000}
    np.testing.assert_equal(again, first)
    (path,) = (tmp_path / "kept").iterdir()
    assert np.load(path, allow_pickle=False).shape == (2, 2)
    other = classical.Extractor("count", "2", call)  # another version, another file
    classical.functionals(other, us, where, 0.3, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2


# ---- the whole


def test_a_row_of_the_suite_by_the_import(
    classical: ModuleType, extractor: Any, tiny_recipe: str, tmp_path: Path
) -> None:
    axes = {"recipe": [tiny_recipe], "head": ["classification"], "fold": [0, 1], "seed": [1]}
    suite = tmp_path / "pair.yaml"
    suite.write_text(json.dumps({"title": "Pair", "axes": axes, "overrides": ["optim.epochs=1"]}))
    folder = tmp_path / "runs" / "pair"
    for fold in (0, 1):
        settings = [f"fold={fold}", "optim.epochs=1", f"trainer.out={tmp_path}"]
        train(config.load(tiny_recipe, settings), folder / "cells" / f"f{fold}")
    plan = {"name": "pair", "title": "Pair", "baseline": "classification", "cells": ["f0", "f1"]}
    write_json(folder / "suite.json", plan)
    path = classical.run(str(suite), tiny_recipe, extractor, tmp_path / "written")
    rows = list(csv.DictReader(path.open()))
    assert list(rows[0]) == ["id", "fold", "angry", "happy", "sad"]
    for fold in (0, 1):
        data = open_data(config.load(tiny_recipe, [f"fold={fold}"]))
        mine = {r["id"] for r in rows if r["fold"] == str(fold)}
        assert mine == {u.id for u in data.datasets["test"].utterances}
    entry = json.loads(path.with_suffix(".json").read_text())
    assert set(entry["folds"]) == {"0", "1"}
    assert entry["uar"]["value"] > 0.8  # loudness tells this corpus' classes apart
    done = classical.bring(str(suite), path, tiny_recipe, extractor, str(tmp_path / "runs"))
    assert len(done.cells) == 2
    found = {r["head"]: r for r in report(folder, console=Console(file=io.StringIO()))}
    assert found["svm_fake"]["uar"]["mean"] == pytest.approx(entry["uar"]["value"])
    assert found["svm_fake"]["certificate"] == found["classification"]["certificate"]


def test_opensmile_itself(classical: ModuleType) -> None:
    pytest.importorskip("opensmile", reason="needs serzoo[classical]")
    extractor = classical.opensmile_extractor("eGeMAPSv02")
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
