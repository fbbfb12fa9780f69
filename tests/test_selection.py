"""The study of selection: which epoch each rule takes, and what the differences are."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import selection
from numpy.typing import NDArray
from serzoo.zoo.statistics.rates import uar_of

EYE = np.eye(2, dtype=int)


def confusions(*speakers: list[int]) -> NDArray[np.int_]:
    """``[E, G, 2, 2]``: of each speaker, right answers of ten of each class, by epoch."""
    right = np.array(speakers).T
    return right[..., None, None] * EYE + (10 - right)[..., None, None] * (1 - EYE)


def fold(valid: dict[str, list[int]], test: dict[str, list[int]]) -> dict[str, NDArray[np.int_]]:
    return {
        "valid": confusions(*valid.values()),
        "test": confusions(*test.values()),
        "valid_speakers": np.array(list(valid)),
        "test_speakers": np.array(list(test)),
    }


FOLDS = {
    0: fold({"b": [5, 9, 6]}, {"a": [4, 5, 8]}),
    1: fold({"c": [5, 6, 9]}, {"b": [7, 6, 5]}),
    2: fold({"a": [9, 5, 5]}, {"c": [6, 6, 6]}),
}


def test_each_rule_takes_its_epoch() -> None:
    found = selection.chosen(FOLDS)
    assert [found[f]["best"] for f in range(3)] == [1, 2, 0]
    assert [found[f]["last"] for f in range(3)] == [2, 2, 2]
    assert [found[f]["oracle"] for f in range(3)] == [2, 0, 0]  # equal ones: the earliest
    # fold 0 tests a, whom fold 2 validates: b and c are left, with 10, 15 and 15 of 20
    assert [found[f]["pooled"] for f in range(3)] == [1, 0, 0]


def test_rules_are_compared_on_the_same_trainings_and_speakers() -> None:
    seeds = [FOLDS, {f: {**own, "test": own["test"][::-1]} for f, own in FOLDS.items()}]
    uar, confusions = selection.compared({"h": seeds}, {"h": seeds})
    said = selection.answered(confusions)["h"]
    best = [[5, 5, 6], [5, 7, 6]]  # a with epoch 1, b with 2, c with 0; the other way round
    assert uar["h"]["rules"]["best"] == pytest.approx([sum(x) / 30 for x in best])
    assert uar["h"]["rules"]["last"] == pytest.approx([19 / 30, 17 / 30])
    assert uar["h"]["by_epoch"] == pytest.approx([18 / 30, 17 / 30, 18 / 30])
    assert said["best - last"]["value"] == pytest.approx(-2 / 60)
    assert said["more - last"]["value"] == 0
    assert confusions["h"]["best"].shape == (2, 3, 2, 2)  # two seeds, three speakers
    assert set(said) == set(selection.CONTRASTS)
    assert uar_of(selection.tested(seeds, [{0: 2, 1: 2, 2: 2}] * 2).sum(1)[0]) == pytest.approx(
        19 / 30
    )


def test_what_is_trained_is_read_again_and_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(selection, "CORPORA", {"emodb": ("ravdess_nemo", 3, 5)})
    for k in range(5):
        arrays = {**FOLDS[k % 3], "test_speakers": np.array([f"s{k}"])}
        for more in (False, True):
            path = selection.path_of(tmp_path, "emodb", "mlp", 1, k, more)
            np.savez(path, **arrays, seconds=2.0)
    found, kept = selection.result(tmp_path, [1], ["mlp"])
    assert found["core_seconds"] == 20
    assert set(kept) == {f"emodb/mlp/{rule}" for rule in (*selection.RULES, "more")}
    own = found["corpora"]["emodb"]["heads"]["mlp"]
    assert set(own["contrasts"]) == set(selection.CONTRASTS)
    text = "\n".join(selection.lines(found))
    assert f"| emodb, mlp | {np.mean(own['rules']['best']):.3f} |" in text
    assert "emodb, mlp, best - last" in text
    path.unlink()
    found, _ = selection.result(tmp_path, [1], ["mlp"])
    assert "more" not in found["corpora"]["emodb"]["heads"]["mlp"]["rules"]


def test_intervals_are_computed_anew_from_what_is_kept(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(selection, "CORPORA", {"emodb": ("ravdess_nemo", 3, 3)})
    for k, seed in product(range(3), (1, 2)):
        path = selection.path_of(tmp_path, "emodb", "mlp", seed, k, False)
        turned = {name: FOLDS[k][name][:: 3 - 2 * seed] for name in ("valid", "test")}
        np.savez(path, **{**FOLDS[k], **turned}, seconds=2.0)
    found, kept = selection.result(tmp_path, [1, 2], ["mlp"])
    out = tmp_path / "found.json"
    np.savez_compressed(out.with_suffix(".npz"), **kept)
    selection.write_json(out, found)
    want = out.read_text("utf-8")
    own = found["corpora"]["emodb"]["heads"]["mlp"]
    assert own.pop("contrasts")["best - last"]["new trainings"]["p"] < 1
    selection.write_json(out, found)
    monkeypatch.setattr("sys.argv", ["selection.py", str(out), "--again"])
    selection.main()
    assert json.loads(out.read_text("utf-8")) == json.loads(want)
    assert "emodb, mlp, best - last" in capsys.readouterr().out
