"""A trained model asked with other options of its head: a curve without training again."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from facts import says
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.report.answering import combinations, curve
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable

HEADS = {
    "gen_ser": ["head.width=16", "head.code_dim=16", "head.source_share=0"],
    "selm": ["head.lm_width=32", "optim.epochs=1"],
    "classification": ["optim.epochs=1"],
}


@pytest.fixture(scope="module")
def runs(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a run of each head."""
    folder = tmp_path_factory.mktemp("runs")
    for head, settings in HEADS.items():
        train(compose(tiny_recipe, [f"head={head}", *settings]), folder / head)
    return {head: folder / head for head in HEADS}


def scores(table: PredictionTable) -> list[list[float]]:
    return table.scores.tolist()


def test_all_combinations_are_asked_and_the_last_option_varies_fastest() -> None:
    asked = combinations(["head.steps=[1,2]", "head.sampler=[ode,sde]", "head.noise_draws=4"])
    assert [tuple(each.values()) for each in asked] == [
        (1, "ode", 4), (1, "sde", 4), (2, "ode", 4), (2, "sde", 4),
    ]  # fmt: skip
    assert combinations([]) == [{}]
    for typed in (["head.steps=[]"], ["head.steps=[1,1]"], ["head.steps=1", "head.steps=2"]):
        with pytest.raises(ConfigError, match=says("head.steps")):
            combinations(typed)


def test_steps_of_a_trained_model_change_its_answers_and_not_its_weights(
    runs: dict[str, Path],
) -> None:
    run = runs["gen_ser"]
    as_trained, one = evaluate(run)
    same, _ = evaluate(run, answering={"steps": 1})
    four, record = evaluate(run, answering={"steps": 4})
    assert scores(same) == scores(as_trained)
    assert scores(four) != scores(as_trained)
    assert record.model["answering"] == {"steps": 4}
    assert (record.model["head"]["steps"], one.model["head"]["steps"]) == (4, 1)
    assert record.model["fingerprint"] == one.model["fingerprint"]
    assert record.calibration["temperature"] is None  # that of validation is for one step
    assert "answering" not in one.model


def test_the_weight_of_the_language_model_is_changed_without_training(
    runs: dict[str, Path],
) -> None:
    tables = {w: evaluate(runs["selm"], answering={"lm_weight": w})[0] for w in (0.0, 1.0, 2.0)}
    assert scores(tables[1.0]) == scores(evaluate(runs["selm"])[0])
    removed = tables[0.0].scores - tables[1.0].scores
    # the same prior is added for each utterance
    assert removed == pytest.approx(removed[:1].repeat(len(removed), 0), abs=1e-3)
    assert tables[2.0].scores - tables[1.0].scores == pytest.approx(-removed, abs=1e-3)
    assert abs(removed).max() > 0.01


def test_what_training_used_is_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=says("head.width", "head.steps", "train again")):
        evaluate(runs["gen_ser"], answering={"width": 8})
    with pytest.raises(ConfigError, match=says("head.hidden", "'classification' has none")):
        evaluate(runs["classification"], answering={"hidden": 8})
    with pytest.raises(ConfigError, match=says("steps=0")):
        evaluate(runs["gen_ser"], answering={"steps": 0})
    with pytest.raises(ConfigError, match=says("steps='many'")):
        evaluate(runs["gen_ser"], answering={"steps": "many"})


def test_settings_that_a_head_refuses_are_left_out_by_name(runs: dict[str, Path]) -> None:
    asked = combinations(["head.sampler=[ode,sde]", "head.noise_draws=[0,2]", "head.steps=2"])
    points = curve(runs["gen_ser"], asked)
    assert [p.record is not None for p in points] == [True, True, False, True]
    assert "noise_draws" in points[2].refusal
    with pytest.raises(ConfigError, match=says("noise_draws")):
        curve(runs["gen_ser"], [{"sampler": "sde", "noise_draws": 0}])


def test_a_curve_is_printed_and_kept(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["head.steps=[1,2,8]", "head.sampler=[ode,sde]", "head.noise_draws=2"]
    assert main(["eval", str(runs["gen_ser"]), *typed, f"curve={tmp_path / 'c'}"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:3] for line in shown.splitlines() if "0." in line][:2] == [
        ["1", "ode", "2"], ["1", "sde", "2"],
    ]  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "c" / "curve.csv").open()))
    assert [(r["steps"], r["sampler"]) for r in rows] == [
        (n, s) for n in "128" for s in ("ode", "sde")
    ]
    table, record = evaluate(
        runs["gen_ser"], answering={"steps": 8, "sampler": "sde", "noise_draws": 2}
    )
    assert float(rows[-1]["uar"]) == table.uar()
    kept = json.loads((tmp_path / "c" / "curve.json").read_text())["points"]
    assert kept[-1]["record"]["metrics"] == json.loads(json.dumps(record.metrics))
    page = (tmp_path / "c" / "curve.html").read_text()
    assert page.count("<svg") == 1
    assert "sampler=ode" in re.sub(r"\s+", " ", page)


def test_a_curve_without_options_or_with_one_file_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs["gen_ser"])
    assert main(["eval", run, "head.steps=[1,2]", f"out={tmp_path / 'p.jsonl'}"]) == 2
    assert "curve=FOLDER" in capsys.readouterr().err
    assert main(["eval", run, f"curve={tmp_path / 'c'}"]) == 2
    assert "head.KEY=" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
