"""`serzoo replicate`: a claim is confirmed, refuted, or cannot be told from its records."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import report_suite
from facts import says
from serzoo.zoo.cli import main
from serzoo.zoo.compare import replicate as module
from serzoo.zoo.compare.replicate import Claim, read_claim, replicate, settings
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.shipped import names
from serzoo.zoo.run import config
from serzoo.zoo.statistics.planning import detectable, trainings_for

OURS = "a_b<i>"
CLAIM = Claim(
    "T", "P", "S", "R", suite="real", head=OURS, against="classification", direction="better",
    size=0.02,
)  # fmt: skip


def answered(low: float, high: float, verdict: str = "undecided") -> Any:
    """An answer with this interval of the family."""
    span = SimpleNamespace(low_family=low, high_family=high)
    return SimpleNamespace(verdict=verdict, basis="new trainings", new=span, these=None)


@pytest.mark.parametrize(
    ("direction", "low", "high", "answer"),
    [
        ("better", 0.01, 0.09, "confirmed"),
        ("better", -0.01, 0.09, "cannot tell"),
        ("better", -0.09, 0.01, "refuted"),
        ("better", 0.005, 0.01, "refuted"),  # better, but by less than matters
        ("worse", -0.09, -0.01, "confirmed"),
        ("worse", -0.01, 0.09, "refuted"),
        ("equivalent", -0.01, 0.02, "confirmed"),
        ("equivalent", -0.01, 0.03, "cannot tell"),
        ("equivalent", 0.03, 0.09, "refuted"),
        ("better", math.nan, math.nan, "cannot tell"),
    ],
)
def test_an_interval_confirms_refutes_or_leaves_open(
    direction: str, low: float, high: float, answer: str
) -> None:
    assert module._answer(direction, answered(low, high), 0.02) == answer


def test_rows_with_the_same_predictions_are_equivalent() -> None:
    same = answered(math.nan, math.nan, "identical")
    assert module._answer("equivalent", same, 0.02) == "confirmed"
    assert module._answer("better", same, 0.02) == "refuted"


# The plan.


def test_more_trainings_find_smaller_differences_and_speakers_set_the_limit() -> None:
    rng = np.random.default_rng(0)
    of_training, of_cluster = rng.normal(0, 0.02, (5, 1)), rng.normal(0, 0.01, (1, 24))
    pilot = of_training + of_cluster + rng.normal(0, 0.01, (5, 24))
    found = [detectable(pilot, n) for n in (2, 3, 5, 10, 20)]
    assert found == sorted(found, reverse=True)
    assert 0.005 < found[-1] < 0.03
    assert trainings_for(pilot, found[2]) == 5
    assert trainings_for(pilot, 0.001) is None
    assert detectable(pilot, 5, family=8) > found[2]
    assert detectable(pilot, 5, power=0.5) < found[2]
    assert np.isnan(detectable(pilot[:1], 5))


# Records.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return report_suite.write_suite(tmp_path / "runs" / "real")


def test_records_answer_with_a_row_for_each_table(folder: Path) -> None:
    found = replicate(CLAIM, folder)
    assert {t.table.split(",")[0] for t in found.told} == {"one", "two"}
    assert found.answer in ("confirmed", "refuted", "cannot tell")
    assert all(t.size == 0.02 for t in found.told)
    one = replicate(replace(CLAIM, corpora=["one"]), folder)
    assert [t.corpora for t in one.told] == [["one"]]
    part = replicate(replace(CLAIM, size=0.5, relative=True), folder)
    assert all(0 < t.size < 0.5 for t in part.told)
    assert json.loads(json.dumps(found.to_json()))["claim"]["head"] == OURS


def test_what_the_records_lack_is_said_and_planned(folder: Path, tmp_path: Path) -> None:
    for claim, where, word in (
        (CLAIM, tmp_path / "nothing", f"no such folder: {tmp_path / 'nothing'}"),
        (CLAIM, tmp_path, "no table"),
        (replace(CLAIM, head="selm"), folder, "no row of selm"),
        (replace(CLAIM, corpora=["emodb"]), folder, "no table of emodb"),
        (replace(CLAIM, condition="4 shots"), folder, "4 shots"),
        (replace(CLAIM, controls={"linear": "why"}), folder, "no row of linear"),
    ):
        found = replicate(claim, where)
        assert found.answer != "confirmed"
        if found.answer == "cannot tell":
            assert word in found.why
            assert "serzoo compare real" in found.command or not found.command
    assert "'head=[classification,selm]'" in replicate(replace(CLAIM, head="selm"), folder).command


@pytest.mark.parametrize(
    ("condition", "tables"),
    [
        ("4 shots, head", ["emodb, 4 shots, head, logmel"]),
        ("share=0.1", ["share=0.1", "a, share=0.1, logmel"]),
        ("", ["share=0.1", "share=0.15", "a, share=0.1, logmel"]),
    ],
)
def test_a_condition_is_whole_words_of_a_tables_name(condition: str, tables: list[str]) -> None:
    others = ["emodb, 64 shots, head, logmel", "emodb, 4 shots, heads", "share=0.15"]
    claim = replace(CLAIM, condition=condition)
    grids: list[Any] = [SimpleNamespace(name=name) for name in {*tables, *others}]
    wanted = {*tables, *others} if not condition else set(tables)
    assert {g.name for g in grids if module._asked_about(claim, g)} == wanted


def test_the_command_prints_and_keeps_the_answer(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "title: T\npaper: P\nsays: S\nrefuted_by: R\nsuite: real\nhead: classification\n"
    text += f"against: '{OURS}'\ndirection: better\nsize: 0.02\n"
    (tmp_path / "c.yaml").write_text(text)
    kept = tmp_path / "a.json"
    typed = ["replicate", str(tmp_path / "c.yaml"), "--out", str(folder.parent)]
    assert main([*typed, "--record", str(kept)]) == 0
    shown = capsys.readouterr().out
    answer = json.loads(kept.read_text())["answer"]
    assert f"answer: {answer}" in shown
    assert "claim (P): S" in shown


# Claims.


@pytest.mark.parametrize("name", names("claim"))
def test_every_shipped_claim_names_what_exists(name: str) -> None:
    claim = read_claim(name)
    heads = {h.partition(" after ")[0] for h in (claim.head, claim.against, *claim.controls)}
    assert heads <= set(names("head"))
    assert config.read_suite(claim.suite)
    asked = settings(claim)
    assert sum(s.startswith("head=") for s in asked) <= 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("direction: higher", ("direction", "better")),
        ("size: 0", ("size", "0")),
        ("against: selm", ("selm", "itself")),
        ("colour: red", ("colour",)),
        ("paper: null", ("lacks paper",)),
    ],
)
def test_a_claim_with_a_wrong_value_is_refused(
    line: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    values = {
        "title": "T", "paper": "P", "says": "S", "refuted_by": "R", "suite": "real",
        "head": "selm", "against": "classification", "direction": "better", "size": "0.02",
    }  # fmt: skip
    key, value = line.split(": ")
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in (values | {key: value}).items()))
    with pytest.raises(ConfigError, match=says(*words)):
        read_claim(str(path))


def test_a_claim_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=says("claim", "selm_outside", "selm_out_of_domain")):
        read_claim("selm_outside")
