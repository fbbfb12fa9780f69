"""Suites of conditions: which cells, what is measured, how it is tabulated, what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from close import assert_like
from facts import says
from rich.console import Console
from serzoo.datamodules.corruption import _remembered as remembered_conditions
from serzoo.zoo.cli import main
from serzoo.zoo.compare import conditions
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.compare.conditions import evaluate_cell
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError, DataNote
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.shipped import names
from serzoo.zoo.encoders.logmel import LogMelEncoder
from serzoo.zoo.report.overview import degradation, degradation_markdown, write_degradation
from serzoo.zoo.report.runs import Run, read_runs
from serzoo.zoo.run import config
from serzoo.zoo.run.record import Record, read_record, write_record
from serzoo.zoo.run.schema import RunConfig
from serzoo.zoo.run.score import evaluate
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable

HEADS = ("classification", "prototype")
TEXT = """
title: Tiny heads under conditions
of: tiny
conditions: [white:0dB, "first:0.2s"]
"""


@pytest.fixture(scope="module")
def runs(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished comparison of two heads on one fold, in ``runs/tiny``."""
    out = tmp_path_factory.mktemp("robust") / "runs"
    for head in HEADS:
        cfg = config.load(tiny_recipe, [f"head={head}", f"trainer.out={out}"])
        train(cfg, out / "tiny" / "cells" / head)
    cells = [*HEADS, "not_run", "no_model"]
    record = read_record(out / "tiny" / "cells" / "prototype")
    write_json(out / "tiny" / "cells" / "no_model" / "record.json", record.to_json())
    write_json(
        out / "tiny" / "suite.json", {"cells": cells, "title": "T", "baseline": "classification"}
    )
    return out


@pytest.fixture
def suite(tmp_path: Path) -> str:
    path = tmp_path / "robust.yaml"
    path.write_text(TEXT)
    return str(path)


# The suite.


def test_the_shipped_suite() -> None:
    found = conditions.load("robustness")
    assert found.of in names("suite")
    assert found.conditions[0] == "clean"
    kinds = {c.partition(":")[0] for c in found.conditions}
    assert {"noise", "reverb", "clip", "telephone", "mp3", "opus", "first"} <= kinds


def test_clean_comes_first_and_values_are_written_one_way(suite: str) -> None:
    assert conditions.load(suite).conditions == ["clean", "white:0dB", "first:0.2s"]
    found = conditions.load(suite, ["of=other", "conditions=[white:5,white:5dB]", "head=selm"])
    assert (found.of, found.conditions, found.only) == (
        "other", ["clean", "white:5dB"], {"head": ["selm"]},
    )  # fmt: skip


def test_a_file_may_keep_some_cells_only(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT + "only: {seed: 1, head: [selm]}\n")
    assert conditions.load(str(path)).only == {"seed": [1], "head": ["selm"]}
    assert conditions.load(str(path), ["head=all", "fold=[2]"]).only == {"seed": [1], "fold": [2]}
    assert conditions.load(str(path), ["only={fold: 1}"]).only == {"fold": [1]}
    path.write_text(TEXT + "only: {speaker: 1}\n")
    with pytest.raises(
        ConfigError, match=says("'only.speaker'", "encoder, fold, head, recipe, seed")
    ):
        conditions.load(str(path))
    path.write_text(TEXT + "only: [1]\n")
    with pytest.raises(ConfigError, match=says("[1]", "only: {seed: [1]}")):
        conditions.load(str(path))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr=1"], "'optim.lr'.* baseline, conditions"),
        (["conditions=[]"], r"conditions .*\[\].* list"),
        (["conditions=[whites:5]"], "'whites:5'.*'white'"),
        (["of="], "of=SUITE"),
    ],
)
def test_what_a_suite_of_conditions_refuses(suite: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        conditions.load(suite, overrides)


def test_an_unknown_key_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(TEXT + "axes: {}\n")
    with pytest.raises(ConfigError, match=says("'axes'", "baseline, conditions")):
        conditions.load(str(path))


# Its cells.


def test_heads_follow_each_other_under_a_condition(suite: str, runs: Path) -> None:
    cells, left = conditions.expand(conditions.load(suite), out=str(runs))
    assert left == ["not_run", "no_model"]
    assert [(c.source.name, c.condition) for c in cells] == [
        (head, condition) for condition in ("clean", "white:0dB", "first:0.2s") for head in HEADS
    ]
    assert cells[2].name == "classification-white_0dB"
    only = conditions.load(suite, ["head=[prototype]", "fold=0"])
    cells, _ = conditions.expand(only, out=str(runs))
    assert {c.source.name for c in cells} == {"prototype"}


def test_trained_cells_that_are_not_there(suite: str, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=says("'tiny'", "serzoo compare tiny", "of=SUITE")):
        conditions.expand(conditions.load(suite), out=str(tmp_path))
    with pytest.raises(
        ComparisonError, match=says("checkpoint", "{'seed': [7]}", "serzoo compare tiny")
    ):
        conditions.expand(conditions.load(suite, ["seed=7"]), out=str(runs))


# What is measured.


def measured(runs: Path, out: Path, condition: str, head: str = "classification") -> Record:
    source = runs / "tiny" / "cells" / head
    cfg = RunConfig.from_dict(read_record(source).config)
    facts = {"condition": condition, "tested": {"of": "tiny", "cell": head}}
    return evaluate_cell(cfg, out, source=str(source), facts=facts)


def test_clean_audio_gives_what_training_gave(runs: Path, tmp_path: Path) -> None:
    entry = measured(runs, tmp_path / "a", "clean")
    source = runs / "tiny" / "cells" / "classification"
    before = PredictionTable.read_jsonl(source / "predictions.jsonl")
    after = PredictionTable.read_jsonl(tmp_path / "a" / "predictions.jsonl")
    assert sorted(after.ids) == sorted(before.ids)
    order = [after.ids.index(i) for i in before.ids]
    assert_like(after.scores[order], before.scores)
    trained = read_record(source)
    assert entry.same_answers == 1
    for number in ("uar", "nll_calibrated", "temperature"):
        assert entry.metrics[number] == pytest.approx(trained.metrics[number], abs=1e-4)
    for same in ("config", "data", "speakers", "selection", "parameters", "fingerprint"):
        assert getattr(entry, same) == getattr(trained, same)


def test_a_condition_is_in_the_record(runs: Path, tmp_path: Path) -> None:
    entry = measured(runs, tmp_path / "a", "white:-30dB")
    assert read_record(tmp_path / "a").to_json() == json.loads(json.dumps(entry.to_json()))
    n = entry.metrics["n"]
    assert entry.condition == "white:-30dB"
    assert entry.corruption["utterances"] == n
    assert entry.corruption["scaled"] > 0
    assert 0 <= entry.same_answers <= 1
    assert "fit" not in entry.seconds
    table = PredictionTable.read_jsonl(tmp_path / "a" / "predictions.jsonl")
    clean = PredictionTable.read_jsonl(runs / "tiny/cells/classification/predictions.jsonl")
    assert set(table.ids) == set(clean.ids)
    assert np.abs(np.sort(table.scores, 0) - np.sort(clean.scores, 0)).max() > 0.01
    assert Run("a", entry, table).group == ("tiny, white:-30dB", "logmel")
    measured(runs, tmp_path / "b", "white:-30dB")  # the very same audio again
    assert PredictionTable.read_jsonl(tmp_path / "b" / "predictions.jsonl") == table


def test_models_of_one_encoder_share_the_frames_of_corrupted_audio(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second model encodes nothing, and answers as if it had encoded the audio itself."""
    heard: list[int] = []
    plain = LogMelEncoder.extract
    monkeypatch.setattr(
        LogMelEncoder,
        "extract",
        lambda self, audio, lengths: heard.append(len(audio)) or plain(self, audio, lengths),
    )
    found = {}
    for held in (True, False):
        remembered_conditions.cache_clear()
        if not held:
            monkeypatch.setattr("serzoo.zoo.run.score.HELD_SECONDS", 0.0)
        for head in HEADS:
            heard.clear()
            with nullcontext() if held else pytest.warns(DataNote, match="corrupted.*again"):
                found[held, head] = evaluate(runs / "tiny" / "cells" / head, condition="pink:0dB")
            extra = sum(heard) - len(found[held, head][0])
            assert extra in ((0, 1) if head == HEADS[0] or not held else (-6, -5)), extra
    for head in HEADS:
        (one, record), (two, live) = found[True, head], found[False, head]
        order = [one.ids.index(i) for i in two.ids]
        assert_like(one.scores[order], two.scores)
        assert record.condition == live.condition
        assert record.condition["utterances"] == 6


def test_data_that_changed_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "tiny", tmp_path / "tiny")
    path = tmp_path / "tiny" / "cells" / "classification" / "predictions.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=says("cells/classification", 5, 6)):
        measured(tmp_path, tmp_path / "a", "clean")


def test_conditions_are_for_test_audio(runs: Path) -> None:
    source = runs / "tiny" / "cells" / "classification"
    with pytest.raises(ConfigError, match=says("part=test", "part=all")):
        evaluate(source, part="valid", condition="telephone")
    with pytest.raises(ConfigError, match=says("'telefone'", "clean", "'telephone'")):
        evaluate("no/such/run", condition="telefone")  # before the model is looked for
    _, record = evaluate(source, part="all", condition="telephone")
    assert record.condition["utterances"] == record.metrics["n"] == 30


def test_eval_takes_a_condition(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = runs / "tiny" / "cells" / "classification", tmp_path / "p.jsonl"
    record = tmp_path / "r.json"
    assert main(["eval", str(source), "condition=white:5", f"out={out}", f"record={record}"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"condition white:5dB: \d+ of 6 .*scaled", text)
    assert json.loads(record.read_text())["condition"]["name"] == "white:5dB"
    measured(runs, tmp_path / "a", "white:5dB")
    one, two = (PredictionTable.read_jsonl(p) for p in (out, tmp_path / "a" / "predictions.jsonl"))
    assert one == two


def test_what_f0_alone_costs_is_told_beside_the_copy(tmp_path: Path) -> None:
    """Monotone speech went through a vocoder: so did its control."""
    labels = np.arange(12) % 3
    wrong = {"clean": 0, "resynthesised": 2, "monotone": 5}
    found = []
    for condition, n in wrong.items():
        answers = np.where(np.arange(12) < n, (labels + 1) % 3, labels)
        speakers = [f"s{i // 3}" for i in range(12)]
        table = PredictionTable(
            [f"u{i}" for i in range(12)], speakers, labels, np.eye(3)[answers], list("abc")
        )
        cfg = {"recipe": "r", "encoder": {"type": "logmel"}, "head": {"type": "h"}}
        record = Record(config={**cfg, "fold": 0, "seed": 1}, condition=condition)
        found.append(Run(condition, record, table))
    rows = {r.condition: r for r in degradation(found)}
    assert rows["monotone"].difference.value == pytest.approx(-5 / 12, abs=0.01)
    assert rows["monotone"].control.value == pytest.approx(-3 / 12, abs=0.01)
    assert rows["resynthesised"].control is None
    assert "| monotone less resynthesised | -0.2" in degradation_markdown(list(rows.values()))


def test_settings_of_the_compared_models_have_tables_of_their_own() -> None:
    labels = np.arange(6) % 3
    found = []
    for copies, right in ((0, 3), (3, 6)):
        answers = np.where(np.arange(6) < right, labels, (labels + 1) % 3)
        table = PredictionTable(
            [f"u{i}" for i in range(6)], ["a", "b"] * 3, labels, np.eye(3)[answers], list("xyz")
        )
        cfg = {"recipe": "r", "encoder": {"type": "logmel"}, "head": {"type": "h"}}
        cell = Record(
            config={**cfg, "fold": 0, "seed": 1}, condition="clean", axes={"data.copies": copies}
        )
        found.append(Run(f"c{copies}", cell, table))
    rows = {r.recipe: r.value for r in degradation(found)}
    assert rows == {"r, data.copies=0": 0.5, "r, data.copies=3": 1.0}


# The whole.


def test_a_comparison_under_conditions(suite: str, runs: Path) -> None:
    console = Console(file=io.StringIO(), width=180)
    arguments = {"out": str(runs), "workers": 1, "console": console}
    listed = compare(suite, dry_run=True, **arguments)
    assert (listed["cells"], listed["done"], listed["summary"]) == (6, 0, None)
    done = compare(suite, **arguments)
    assert (done["cells"], done["done"], done["failed"]) == (6, 6, 0), console.file.getvalue()
    recipes = {row.recipe for row in done["summary"]}
    assert recipes == {"tiny, clean", "tiny, white:0dB", "tiny, first:0.2s"}
    found, others = read_runs(done["folder"])
    assert (len(found), others) == (6, [])
    rows = {(r.head, r.condition): r for r in degradation(found)}
    assert len(rows) == 6
    by_name = {r.name: r.table for r in found}
    for head in HEADS:
        clean, noisy = by_name[f"{head}-clean"], by_name[f"{head}-white_0dB"]
        row = rows[head, "white:0dB"]
        assert row.value == noisy.uar()
        assert row.difference.value == pytest.approx(noisy.uar() - clean.uar())
        assert rows[head, "clean"].difference is None
    text = (done["folder"] / "degradation.md").read_text()
    assert "| condition | classification | prototype |" in text
    assert "| clean | " in text
    assert "degradation.md" in console.file.getvalue()
    again = compare(suite, **arguments)
    assert "6 finished, 0 to run" in console.file.getvalue()
    assert again["done"] == 6


def test_a_condition_that_a_head_lacks_is_left_out(suite: str, runs: Path, tmp_path: Path) -> None:
    plan = {"name": "r", "title": "R", "baseline": "classification", "cells": []}
    for fold in (0, 1):
        for condition in ("clean", "white:0dB"):
            if (fold, condition) == (1, "white:0dB"):
                continue
            name = f"c{fold}-{condition[:5]}"
            entry = measured(runs, tmp_path / "cells" / name, condition)
            entry.config = {**entry.config, "fold": fold}
            write_record(tmp_path / "cells" / name, entry)
            plan["cells"].append(name)
    write_json(tmp_path / "suite.json", plan)
    rows = json.loads(write_degradation(tmp_path).with_suffix(".json").read_text())["rows"]
    assert {(r["condition"], r["cells"], r["left_out"]) for r in rows} == {
        ("clean", 1, 1), ("white:0dB", 1, 1),
    }  # fmt: skip
    assert "Left out: 1 fold of seeds" in (tmp_path / "degradation.md").read_text()
