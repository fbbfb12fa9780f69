"""The stage of scores: prior, templates, rows, and that a kill leaves no trace."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_text
from facts import says
from serzoo.datamodules.labelling.entail import TEMPLATES, Entail, lift_of
from serzoo.datamodules.labelling.lexicon import Lexicon
from serzoo.datamodules.labelling.nli import NLI
from serzoo.datamodules.labelling.scorers import Hypothesis, Scorer, Scores
from serzoo.datamodules.labelling.stage import rows_of, run
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy

PAIR = Taxonomy.load("shared5")
TWO = Taxonomy.of(["angry", "happy"], "two")


def spoken(text: str | None, number: int = 0, source: str | None = "human") -> Utterance:
    return Utterance(
        f"c/{number}", "c", "a.wav", 0.0, 1.0, 16000, "s", text=text, text_source=source
    )


class Told(Scorer):
    """Scores that are written out: hypothesis to log-odds, per premise."""

    source = "told@1"
    scale = "told"

    def __init__(self, table: dict[str, list[float]]) -> None:
        self.table = table

    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        assert all(len(self.table[p]) == len(hypotheses) for p in premises)
        return np.array([self.table[p] for p in premises], dtype=np.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_row_is_the_lift_over_the_empty_premise_and_the_mean_over_templates() -> None:
    # templates times classes: t1 angry, t1 happy, t2 angry, t2 happy
    told = Told({"": [-3.0, 1.0, 0.0, -1.0], "grr": [-1.0, 0.5, 0.0, 1.0]})
    stage = Entail(told, TWO, templates=["I feel {}.", "I am {}."])
    (row,) = stage.rows([spoken(" grr ")])
    assert row["by_template"] == [[2.0, -0.5], [0.0, 2.0]]
    assert list(row["scores"]) == ["angry", "happy"]
    assert row["scores"]["angry"] == pytest.approx((sigmoid(2) + 0.5) / 2, abs=1e-5)
    assert row["scores"]["happy"] == pytest.approx((sigmoid(-0.5) + sigmoid(2)) / 2, abs=1e-5)
    assert (row["id"], row["text"], row["text_source"]) == ("c/0", " grr ", "human")
    settings = stage.settings()
    assert settings["prior"] == [[-3.0, 1.0], [0.0, -1.0]]
    # what the scorer said is in the row and the settings together
    assert np.add(row["by_template"], settings["prior"]).ravel().tolist() == told.table["grr"]
    raw = Entail(told, TWO, templates=["I feel {}.", "I am {}."], prior="none")
    assert next(raw.rows([spoken("grr")]))["by_template"] == [[-1.0, 0.5], [0.0, 1.0]]
    assert raw.settings()["prior"] == [[0.0, 0.0], [0.0, 0.0]]


def test_settings_are_plain_and_hold_what_determines_a_row() -> None:
    settings = Entail(Lexicon(), PAIR).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["templates"] == list(TEMPLATES)
    assert settings["forms"] == ["angry", "happy", "sad", "neutral", "fearful"]
    assert settings["fingerprint"] == PAIR.fingerprint
    assert Taxonomy.from_dict(settings["taxonomy"]) == PAIR
    assert settings["source"].startswith("lexicon-english@")
    assert np.array(settings["prior"]).shape == (3, 5)


def test_without_words_there_are_no_scores() -> None:
    stage = Entail(Lexicon(), TWO)
    rows = list(stage.rows([spoken(None, 1, None), spoken("such joy", 2), spoken(" \n", 3)]))
    assert [r["scores"] is None for r in rows] == [True, False, True]
    assert lift_of(rows[0], TWO.classes) is None
    assert next(stage.rows([spoken(None)]))["by_template"] is None


def test_classes_are_found_in_whatever_order_they_are_asked_for() -> None:
    row = {"id": "a", "scores": {"angry": 0.5, "happy": 0.5}, "by_template": [[1.0, 2.0]]}
    assert lift_of(row, ["happy", "angry"]).tolist() == [[2.0, 1.0]]
    with pytest.raises(DataError, match=says("angry, happy", "sad, angry")):
        lift_of(row, ["sad", "angry"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "odds"}, "prior=odds.* subtract, none"),
        ({"chunk": 0}, r"chunk=0\b.* 1\b"),
        ({"templates": []}, r"templates.*\[\]"),
        ({"templates": ["So."]}, r"'So\.'.* 0 .*{}"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Entail(Lexicon(), TWO, **options)


def test_classes_that_are_said_alike_are_refused() -> None:
    alike = Taxonomy("alike", (("disgust", ("disgust",)), ("disgusted", ("angry",))))
    with pytest.raises(ConfigError, match=says("'alike'", "disgusted, disgusted")):
        Entail(Lexicon(), alike)


def test_a_score_that_is_not_finite_is_said_with_its_text() -> None:
    stage = Entail(Told({"": [0.0, 0.0], "x": [math.nan, 0.0]}), TWO, templates=["I am {}."])
    with pytest.raises(DataError, match=says("told@1", "c/0", "'x'")):
        list(stage.rows([spoken("x")]))


def test_through_the_engine_a_kill_changes_no_byte(tmp_path: Path) -> None:
    scorer = NLI(model=tiny_text.save_nli(tmp_path / "nli"), batch_tokens=100, device="cpu")
    texts = [
        "what a day",
        "how dare you",
        "so",
        None,
        "i am so tired of it",
        "day " * 9,
        "wonderful",
    ]
    items = [spoken(text, number) for number, text in enumerate(texts)]

    def stage() -> Entail:
        return Entail(scorer, TWO, chunk=2)

    whole = run(stage(), items, tmp_path / "whole").path.read_bytes()
    killed = stage()
    rows = killed.rows

    def dies(chunk: Sequence[Utterance]) -> Any:
        if any(u.id == "c/2" for u in chunk):
            raise KeyboardInterrupt
        return rows(chunk)

    killed.rows = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(killed, items, tmp_path / "cut")
    done = run(stage(), items, tmp_path / "cut")
    assert (done.complete, done.found > 0, done.computed > 0) == (True, True, True)
    assert done.path.read_bytes() == whole
    for k in (1, 2):
        shard = run(stage(), items, tmp_path / "shards", shard=(k, 2))
    assert shard.path.read_bytes() == whole
    assert [r["id"] for r in rows_of(shard.path)] == [u.id for u in items]
