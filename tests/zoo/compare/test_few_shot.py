"""A suite of adaptations, and the verb: small ones from the first word to the last table."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import soundfile
from facts import says, tells
from serzoo.zoo.cli import main
from serzoo.zoo.compare import few_shot
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ComparisonError, ConfigError, SerzooError
from serzoo.zoo.core.shipped import names
from serzoo.zoo.report.overview import points, write_few_shot
from serzoo.zoo.report.runs import find_cells
from serzoo.zoo.run.config import load as compose
from serzoo.zoo.run.train import run_folder, train
from serzoo.zoo.statistics.table import merge
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


@pytest.fixture
def suite(tiny_recipe, tiny_speech, tmp_path) -> Path:
    """Two heads, from some speakers of a table to the test speakers of the same fold."""
    told = {
        "title": "Tiny",
        "source": {"recipe": tiny_recipe, "overrides": ["optim.epochs=1", "head.dropout=0.0"]},
        "target": {"data": "csv", "root": str(tiny_speech), "protocol": "kfold-5"},
        "head": ["classification", "prototype"],
        "shots": [0, 1, 2],
        "draw": [1, 2],
        "tuning": ["head", "scratch"],
        "options": {"steps": 2, "save": False},
    }
    path = tmp_path / "tiny_shots.yaml"
    path.write_text(json.dumps(told))
    return path


def test_a_suite_adapts_every_head_to_the_same_supports(suite, tmp_path, capsys) -> None:
    done = compare(str(suite), out=str(tmp_path / "runs"), workers=1)
    # 2 heads x (zero shots + 2 numbers of shots x 2 draws x 2 tunings)
    assert (done["cells"], done["done"], done["failed"]) == (18, 18, 0)
    folder = tmp_path / "runs" / "tiny_shots"
    assert len(list((folder / "supports").glob("*.json"))) == 5
    records = [json.loads(p.read_text()) for p in folder.glob("cells/*/record.json")]
    assert Counter(r["tuning"] for r in records) == {"none": 2, "head": 8, "scratch": 8}
    by_draw = {}
    for r in records:
        by_draw.setdefault((r["shots"], r["draw"]), set()).add(r["support"]["sha"])
    assert len(by_draw) == 5
    assert all(len(shas) == 1 for shas in by_draw.values())
    assert len({str(r["data"]) for r in records}) == 1  # one certificate for all draws
    text, change, _ = (folder / "learning_curves.md").read_text().partition("**Change of UAR")
    assert change  # what fewer shots cost, beyond what they cost the baseline
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 4
    assert "± " in rows[0]
    curves = json.loads((folder / "learning_curves.json").read_text())
    assert {(p["head"], p["tuning"], p["shots"], p["draws"]) for p in curves} >= {
        ("classification", "none", 0, 1),
        ("prototype", "scratch", 2, 2),
    }
    assert not list(folder.glob("cells/*/*.safetensors"))
    # TensorBoard's columns are declared once, for all; those that tell cells apart come first
    (declared,) = folder.glob("cells/*/*.columns")
    (content,) = EventAccumulator(str(declared)).Reload().summary_metadata.values()
    found = HParamsPluginData.FromString(content.plugin_data.content).experiment.hparam_infos
    assert {"head", "shots", "draw", "tuning"} <= {i.name for i in found if i.differs}
    assert {"head.dropout", "optim.lr"} <= {i.name for i in found}
    # nothing is run twice
    again = compare(str(suite), out=str(tmp_path / "runs"), workers=1)
    assert "of 2 sources, 18 finished, 0 to run\n" in capsys.readouterr().out
    assert again["done"] == 18


@pytest.fixture
def others(tiny_speech, tmp_path, write_wave) -> Path:
    """The same speech, softer, said by ten other people."""
    table = (tiny_speech / "table.csv").read_text()
    for wave in tiny_speech.glob("*.wav"):
        write_wave(tmp_path / "others" / wave.name, 0.9 * soundfile.read(wave)[0])
    (tmp_path / "others" / "table.csv").write_text(re.sub(r",s(\d)", r",t\1", table))
    return tmp_path / "others"


def test_every_fold_of_the_target_draws_and_tests_its_own(suite, others, tmp_path) -> None:
    words = [f"target.root={others}", "target.fold=all", "shots=[0,1]", "tuning=head"]
    words.append("head=classification")
    done = compare(str(suite), words, out=str(tmp_path / "runs"), workers=1)
    assert (done["done"], done["failed"]) == (5 + 5 * 2, 0)  # five folds, two draws
    folder = tmp_path / "runs" / "tiny_shots"
    found = find_cells(folder).runs
    queries = [frozenset(r.table.ids) for r in found if r.record.shots == 0]
    assert sum(map(len, queries)) == len(frozenset.union(*queries)) == 30  # all utterances, once
    for run in found:
        heard = run.record.speakers
        assert not {*heard["train"]} & {*heard["test"]}
    assert len({(r.fold, r.record.support["sha"]) for r in found}) == 15
    one, zero = points(folder, [r.name for r in found])
    assert (zero.draws, one.draws) == (1, 2)
    each = [merge([r.table for r in found if r.record.shots and r.seed == d]).uar() for d in (1, 2)]
    assert one.value == pytest.approx(sum(each) / 2)
    assert len(list(folder.glob("cells/*/utterances.jsonl"))) == 5  # of each query, once


def test_a_fold_that_is_not_there_is_told_before_anything_is_trained(suite, tmp_path) -> None:
    with pytest.raises(SerzooError, match=says("fold", 9)):
        compare(str(suite), ["target.fold=[0,9]"], out=str(tmp_path / "runs"), workers=1)
    assert not (tmp_path / "runs").exists()


def test_sources_are_selected_by_the_metric_of_the_suite(suite, tmp_path) -> None:
    found = few_shot.load(str(suite), ["metric=macro_f1"])
    sources, _ = few_shot.jobs(found, out=str(tmp_path))
    assert {job.config["optim"]["metric"] for job in sources} == {"macro_f1"}


def test_points_are_over_draws(tmp_path) -> None:
    for draw, uar in ((1, 0.2), (2, 0.4), (3, 0.9)):
        folder = tmp_path / "cells" / str(draw)
        folder.mkdir(parents=True)
        told = {
            "status": "ok", "shots": 4, "tuning": "head", "draw": draw, "metrics": {"uar": uar},
            "source": {"head": "selm", "encoder": {"type": "logmel"}}, "seconds": {"fit": draw},
            "forgetting": {"change": {"uar": -uar}}, "bytes": {"changed": 10 * draw},
            "support": {"sha": str(draw), "short": {"sad": 3} if draw == 1 else {}},
        }  # fmt: skip
        (folder / "record.json").write_text(json.dumps(told))
    (tmp_path / "cells" / "4").mkdir()
    (point,) = points(tmp_path, ["1", "2", "3", "4"])
    assert point.value == pytest.approx(0.5)
    assert point.deviation == pytest.approx(0.36056, abs=1e-5)  # n - 1
    assert (point.lowest, point.highest, point.draws) == (0.2, 0.9, 3)
    assert (point.forgetting, point.seconds, point.bytes) == pytest.approx((-0.5, 2, 20))
    path = write_few_shot(tmp_path, ["1", "2", "3"])
    assert "| selm | head | 0.500 ± 0.361 | -0.500 | 2.0 | 0 |" in path.read_text()
    assert tells(path.read_text(), "fewer", "sad")


def test_the_shipped_suite_is_what_it_says() -> None:
    suite = few_shot.load("few_shot")
    assert suite.shots == [0, 1, 2, 4, 8, 16, 32, 64]
    assert len(suite.draw) >= 10
    assert set(suite.head) <= set(names("head"))
    assert suite.baseline in suite.head
    sources, cells = few_shot.jobs(suite, out="runs")
    assert len(sources) == len(suite.head)
    assert len(cells) == len(suite.head) * (1 + 7 * len(suite.draw) * len(suite.tuning))
    assert len({job.name for job in cells}) == len(cells)
    assert {job.config["taxonomy"] for job in sources} == {"big4"}


def test_overrides_replace_lists_settings_and_the_sources_runs() -> None:
    suite = few_shot.load(
        "few_shot",
        ["head=[selm]", "shots=4", "target.fold=2", "options.steps=5", "optim.epochs=3"],
    )
    assert (suite.head, suite.shots, suite.target.fold) == (["selm"], [4], 2)
    assert suite.options.steps == 5
    sources, _ = few_shot.jobs(suite, out="runs")
    assert sources[0].config["optim"]["epochs"] == 3
    assert few_shot.load("few_shot", ["source={recipe: ravdess}"]).source.recipe == "ravdess"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shots=[1,1]", "give a list of different values"),
        ("shots=[65]", "shots=65"),
        ("options.stesp=1", "unknown key 'options.stesp'. Did you mean 'steps'"),
        ("options.shots=1", "unknown key 'options.shots'"),
        ("target.flod=1", "unknown key 'target.flod'"),
        ("head=[]", "head is []"),
        ("target.fold=-1", "target.fold=-1"),
        ("target.fold=[0,0]", "target.fold=[0, 0]"),
        ("target.fold=[]", "target.fold=[]"),
        ("target.fold=[0,true]", "target.fold=[0, True]"),
        ("target.fold=most", "target.fold=most"),
        ("target.data=", "target.data is missing; give target"),
        ("target.unknown_speakers=drop", "target.unknown_speakers is 'drop'; have refuse, accept"),
        ("options.steps=0", "options.steps=0"),
        ("source={seed: 1}", "source.recipe is missing; give source"),
        ("source=emodb", "'source' is 'emodb'; give keys and values: source"),
    ],
)
def test_what_is_wrong_is_named_before_work(override, message) -> None:
    with pytest.raises(ConfigError) as caught:
        few_shot.load("few_shot", [override])
    assert message.split(".")[0] in str(caught.value)


def test_the_verb(tiny_recipe, tiny_speech, tmp_path, capsys) -> None:
    cfg = compose(tiny_recipe, ["optim.epochs=1"])
    train(cfg)
    out = tmp_path / "out"
    there = ["data=csv", f"root={tiny_speech}", "protocol=kfold-5", f"out={out}", "steps=2"]
    assert main(["adapt", str(run_folder(cfg)), *there, "shots=7", "tuning=head", "lr=1e-4"]) == 0
    said = capsys.readouterr().out
    assert re.search("note: 7 shots .*6 of angry, 6 of happy", said)
    assert "from csv, 7 shots, head: query of 6 utterances of 2 speakers: UAR 0." in said
    assert "on the source: UAR" in said
    assert f"record, predictions, model: {out}" in said
    assert json.loads((out / "record.json").read_text())["adaptation"]["lr"] == 1e-4
    assert main(["adapt", str(run_folder(cfg)), "shots=2"]) == 2
    assert tells(capsys.readouterr().err, "data=CORPUS")
    assert main(["adapt", str(run_folder(cfg)), *there, "shots=2.5"]) == 2
    assert tells(capsys.readouterr().err, "shots", 2.5, "whole number")


def test_a_tuning_that_the_encoder_has_not_is_told_before_anything_is_trained(tmp_path) -> None:
    with pytest.raises(ConfigError, match=says("tuning=lora", "'logmel'", "head, full, scratch")):
        compare("few_shot", ["tuning=[head,lora]"], out=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_cells_of_a_source_that_failed_are_recorded(suite, tmp_path) -> None:
    small = ["head=[classification]", "shots=[0,1]", "draw=1", "tuning=head"]
    with pytest.raises(
        ComparisonError, match=says("2 of 2", "tiny_shots/sources/tiny-classification", "log.txt")
    ):
        compare(str(suite), small, out=str(tmp_path / "runs"), workers=1, limit=1e-4)
    told = [json.loads(p.read_text()) for p in tmp_path.glob("runs/*/cells/*/record.json")]
    assert [(t["status"], t["reason"]) for t in told] == [("failed", "source")] * 2
