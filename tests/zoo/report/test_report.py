"""Tables from records: the numbers, and the refusal to compare the incomparable."""

from __future__ import annotations

import copy
import io
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from facts import says, tells
from rich.console import Console
from serzoo.zoo.cli import app
from serzoo.zoo.core.errors import ComparisonError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report.report import (
    PREDICTIONS,
    Run,
    certificate,
    check_comparable,
    encoder_name,
    pooled,
    read_runs,
    report,
    summarise,
)
from serzoo.zoo.report.table import cells_of, columns_of, markdown
from serzoo.zoo.run import config
from serzoo.zoo.run.board import folder_of
from serzoo.zoo.run.record import RECORD, Record
from serzoo.zoo.statistics.contrasts import answers, difference
from serzoo.zoo.statistics.speakers import by_speaker, jackknife
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

CLASSES = ["angry", "happy", "sad"]


def make(head: str = "classification", fold: int = 0, seed: int = 1, *overrides: str) -> Run:
    """A finished cell with random predictions: 2 speakers a fold, 24 utterances."""
    settings = [f"head={head}", f"fold={fold}", f"seed={seed}", *overrides]
    rng = np.random.default_rng([fold, seed, sum(map(ord, head))])
    n = 24
    labels = np.random.default_rng(fold).permutation(np.arange(n) % 5 % 3)
    scores = rng.normal(size=(n, 3)) + np.eye(3)[labels]
    table = PredictionTable(
        [f"f{fold}/u{i}" for i in range(n)],
        [f"s{2 * fold + i % 2}" for i in range(n)],
        labels,
        scores,
        CLASSES,
    )
    record = {
        "status": "ok",
        "config": config.load("synthetic", settings).to_dict(),
        "data": {"manifest": "m", "split": f"split{fold}", "taxonomy": "t"},
        "selection": {"rule": "highest val/uar"},
        "seconds": {"fit": 2.0 + seed, "total": 3.0},
        "inference_seconds_per_utterance": 0.002,
        "parameters": {"trainable": 1234, "head": 1000, "stored": 1234, "total": 1234},
    }
    return Run(f"{head}-f{fold}-s{seed}", Record.from_json(record), table)


def grid(heads: Sequence[str], folds: Sequence[int], seeds: Sequence[int]) -> list[Run]:
    return [make(h, f, s) for s in seeds for f in folds for h in heads]


HEADS = ("classification", "prototype")


# Numbers.


def test_two_configurations_of_one_head_are_two_rows() -> None:
    runs = grid(("mlp", "linear"), (0, 1), (1,))
    rows = summarise(runs, "linear")
    assert [r.head for r in rows] == ["mlp", "linear"]
    assert rows[0].difference is not None
    assert rows[1].difference is None
    text = markdown(rows, "linear")
    assert "| mlp |" in text
    assert "UAR minus that of linear" in text


def test_a_record_without_a_name_is_called_after_its_type() -> None:
    run = make("linear")
    del run.record.config["head_name"]
    assert run.head == "classification"


def test_numbers_are_those_of_the_pooled_predictions() -> None:
    runs = grid(HEADS, (0, 1), (1, 2, 3))
    rows = summarise(runs)
    assert [r.head for r in rows] == list(HEADS)
    for row in rows:
        per_seed: dict[str, list[float]] = {"uar": [], "wa": [], "f1": []}
        for seed in (1, 2, 3):
            chosen = [r for r in runs if r.head == row.head and r.seed == seed]
            y = np.concatenate([r.table.labels for r in chosen])
            z = np.concatenate([r.table.scores.argmax(1) for r in chosen])
            per_seed["uar"].append(balanced_accuracy_score(y, z))
            per_seed["wa"].append(accuracy_score(y, z))
            per_seed["f1"].append(f1_score(y, z, average="macro"))
        for metric, values in per_seed.items():
            found = getattr(row, metric)
            assert found.mean == pytest.approx(np.mean(values))
            assert found.sd == pytest.approx(np.std(values, ddof=1))
            assert found.n == 3
        assert (row.folds, row.seeds, row.speakers) == (2, 3, 4)
        assert (row.utterances, row.partial) == (48, 0)
        assert row.interval[0] < row.uar.mean < row.interval[1]
        assert row.seconds == pytest.approx(4.0)
        assert row.inference_ms == pytest.approx(2.0)
        for fold in (0, 1):
            uars = [
                balanced_accuracy_score(r.table.labels, r.table.scores.argmax(1))
                for r in runs
                if (r.head, r.fold) == (row.head, fold)
            ]
            assert row.by_fold[fold] == pytest.approx(np.mean(uars))


def test_statistics_are_those_of_their_modules() -> None:
    heads = (*HEADS, "selm")
    runs = grid(heads, (0, 1, 2), (1, 2))
    rows = {r.head: r for r in summarise(runs)}
    tables = {h: pooled([r for r in runs if r.head == h]) for h in heads}
    names = [f"s{i}" for i in range(6)]
    cells = {
        h: np.stack(
            [
                by_speaker(pooled([r for r in runs if (r.head, r.seed) == (h, seed)]), names)
                for seed in (1, 2)
            ]
        )
        for h in heads
    }
    wanted = answers({h: difference(cells[h], cells[HEADS[0]]) for h in heads[1:]})
    for head, row in rows.items():
        assert row.interval == jackknife(tables[head])[1:3]
        if head == HEADS[0]:
            continue
        found, answer = row.difference, wanted[head]
        assert (found.value, found.verdict) == (answer.value, answer.verdict)
        assert found.new.p_family == answer.new.p_family
        assert found.these == answer.these
        assert found.detectable == answer.detectable
        assert (found.family, found.declared) == (2, True)
        ratio = row.uar.mean / rows[HEADS[0]].uar.mean - 1
        assert found.relative == pytest.approx(ratio)
    assert len({r.certificate for r in rows.values()}) == 1
    other = summarise([altered(r, lambda e: e["data"].update(manifest="n")) for r in runs])
    assert other[0].certificate != rows[heads[0]].certificate
    assert f"certificate {other[0].certificate}" in markdown(other, HEADS[0])


def test_the_difference_is_taken_to_the_baseline() -> None:
    base, other = summarise(grid(HEADS, (0, 1), (1, 2)))
    assert base.difference is None
    assert other.difference.value == pytest.approx(other.uar.mean - base.uar.mean)
    new = other.difference.new
    assert new.low < other.difference.value < new.high
    turned = summarise(grid(HEADS, (0, 1), (1, 2)), "prototype")[0]
    assert turned.difference.value == pytest.approx(-other.difference.value)


@pytest.mark.parametrize(("seeds", "shown"), [((1,), False), ((1, 2), False), ((1, 2, 3), True)])
def test_a_spread_is_shown_from_three_seeds_on(seeds: tuple[int, ...], shown: bool) -> None:
    (row,) = summarise(grid(["classification"], (0, 1), seeds))
    uar = cells_of(row, "classification")[1].text
    assert ("±" in uar) is shown
    assert uar.startswith(f"{row.uar.mean:.3f}")


# What is not finished.


def test_a_cell_that_one_head_lacks_is_left_out_for_all() -> None:
    whole = grid(HEADS, (0,), (1, 2))
    part = [r for r in whole if r.name != "prototype-f0-s2"]
    rows = summarise(part)
    assert [r.seeds for r in rows] == [1, 1]
    assert [r.partial for r in rows] == [1, 1]
    only = summarise(grid(HEADS, (0,), (1,)))
    assert [r.uar for r in rows] == [r.uar for r in only]
    assert "1 fold of a seed left out, not finished by every head" in markdown(rows, HEADS[0])


def test_a_seed_counts_only_with_all_folds() -> None:
    runs = grid(HEADS, (0, 1), (1, 2))
    rows = summarise([r for r in runs if (r.head, r.fold, r.seed) != ("prototype", 1, 2)])
    assert [(r.seeds, r.folds, r.partial) for r in rows] == [(1, 2, 2)] * 2


def test_nothing_in_common_is_no_row() -> None:
    assert summarise([make("classification", 0), make("prototype", 1)]) == []


# Refusals.


def altered(run: Run, change: Callable[[dict[str, Any]], None]) -> Run:
    record = copy.deepcopy(run.record.to_json())
    change(record)
    return replace(run, record=Record.from_json(record))


@pytest.mark.parametrize("what", ["manifest", "split", "taxonomy"])
def test_other_data_is_refused(what: str) -> None:
    first, second = grid(HEADS, (0,), (1,))
    other = altered(second, lambda r: r["data"].update({what: "other"}))
    with pytest.raises(ComparisonError) as caught:
        summarise([first, other])
    one, two = certificate([first])["hash"], certificate([other])["hash"]
    assert one != two
    ours = f"{first.record.data[what]} in {first.name}"
    facts = (what, ours, f"other in {other.name}", f"certificates {one} and {two}")
    assert tells(str(caught.value), *facts)


@pytest.mark.parametrize(
    "override",
    [
        "optim.epochs=3",
        "optim.lr=0.5",
        "data.batch_size=8",
        "data.max_seconds=3",
        "data.balance=false",
        "data.label=gender",
        "trainer.precision=bf16-mixed",
        "encoder.dropout=0.45",
    ],
)
def test_another_budget_is_refused(override: str) -> None:
    first, other = make(), make("prototype", 0, 1, override)
    with pytest.raises(ComparisonError) as caught:
        check_comparable([first, other])
    key = override.partition("=")[0]
    assert tells(str(caught.value), first.name, other.name, f"settings: {key} (")


def test_a_setting_that_is_younger_than_a_record_had_its_default_there() -> None:
    first = make()
    younger = (("optim", "min_steps"), ("data", "train_share"))
    for group, key in younger:
        other = altered(make("prototype"), lambda r: r["config"][group].pop(key))  # noqa: B023
        check_comparable([first, other])
    other = altered(make("prototype", 0, 1, "optim.min_steps=9"), lambda r: None)
    with pytest.raises(ComparisonError, match=says("optim.min_steps (0 and 9)")):
        check_comparable([first, other])


def test_an_option_of_an_encoder_that_is_younger_than_a_record_had_its_default_there() -> None:
    first, other = make(), make("prototype")
    small = {"type": "serzoo-small", "layers": [2]}
    old = altered(first, lambda r: r["config"].update(encoder=small))
    new = altered(other, lambda r: r["config"].update(encoder={**small, "join": "mix"}))
    check_comparable([old, new])
    wide = altered(other, lambda r: r["config"].update(encoder={**small, "join": "concat"}))
    check_comparable([old, wide])  # it has a table of its own
    assert wide.group == (old.group[0], f"{old.group[1]} concat")


def test_another_rule_of_selection_is_refused() -> None:
    first, second = grid(HEADS, (0,), (1,))
    other = altered(second, lambda r: r["selection"].update(rule="last"))
    with pytest.raises(ComparisonError, match=says(first.name, other.name, "selected")):
        check_comparable([first, other])


def test_what_may_differ_is_not_refused() -> None:
    check_comparable(grid(HEADS, (0, 1), (1, 2)))
    check_comparable([make(), make("prototype", 0, 1, "data.workers=2", "trainer.threads=1")])


def test_one_head_with_two_settings_is_refused() -> None:
    with pytest.raises(
        ComparisonError, match=says("classification-f0-s1", "b", "head, fold", "seed")
    ):
        summarise([make(), replace(make("classification", 0, 1, "head.hidden=8"), name="b")])


# Encoders stand apart.


def test_each_encoder_has_its_own_table() -> None:
    runs = [make("classification", 0, 1, f"encoder={e}") for e in ("hubert-base", "wav2vec2-base")]
    rows = summarise(runs)
    assert [r.encoder for r in rows] == ["hubert-base-ls960", "wav2vec2-base"]
    assert [r.difference for r in rows] == [None, None]


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ({"type": "logmel"}, "logmel"),
        ({"type": "hf", "name": "microsoft/wavlm-base-plus", "layers": None}, "wavlm-base-plus"),
        ({"type": "hf", "name": "a/b", "tuning": "lora", "layers": [4]}, "b lora layers [4]"),
    ],
)
def test_encoder_names(node: dict[str, Any], name: str) -> None:
    assert encoder_name(node) == name


# Files.


def write(folder: Path, runs: Sequence[Run], planned: Sequence[str] = ()) -> Path:
    cells = [r.name for r in runs] + list(planned)
    plan = {"name": "mine", "title": "Mine [0]", "baseline": HEADS[0], "cells": cells}
    write_json(folder / "suite.json", plan)
    for run in runs:
        write_json(folder / "cells" / run.name / RECORD, run.record.to_json())
        run.table.write_jsonl(folder / "cells" / run.name / PREDICTIONS)
    return folder


def test_report_writes_what_it_shows(tmp_path: Path) -> None:
    runs = grid(HEADS, (0, 1), (1, 2, 3))
    folder = write(tmp_path / "mine", runs, ["late-f0-s1", "bad-f0-s1"])
    write_json(
        folder / "cells" / "bad-f0-s1" / RECORD, {"status": "failed", "error": "E: [/odd] 1"}
    )
    console = Console(file=io.StringIO(), width=140)
    rows = report(folder, console=console)
    assert repr(rows) == repr(summarise(runs))  # NaN is not equal to itself
    stored = json.loads((folder / "summary.json").read_text())
    for row, kept in zip(rows, stored["rows"], strict=True):
        assert list(kept) == [f.name for f in fields(row)]
        assert kept["score"] == row.score._asdict()
        assert (kept["remarks"], kept["interval"]) == (row.remarks, list(row.interval))
        assert (kept["difference"] is None) == (row.head == HEADS[0])
    found = stored["rows"][1]["difference"]
    assert found["new"] == rows[1].difference.new._asdict()
    assert (found["verdict"], found["relative"]) == (
        rows[1].difference.verdict,
        rows[1].difference.relative,
    )
    assert stored["failed"] == ["bad-f0-s1"]
    text = (folder / "table.md").read_text()
    assert text.startswith("# Mine [0]\n\n**synthetic, encoder logmel: 48 test utterances of 4 ")
    assert "| " + " | ".join(columns_of("uar")) + " |" in text
    for row in rows:
        assert "| " + " | ".join(c.text for c in cells_of(row, HEADS[0])) + " |" in text
    assert "of 14 cells, 1 failed, 1 has not run.\n- bad-f0-s1: E: [/odd] 1\n" in text
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{rows[0].uar.mean:.3f} ±" in shown
    assert "of 14 cells, 1 failed, 1 has not run" in shown
    assert "TensorBoard" not in shown  # of which these cells wrote nothing
    page = (folder / "report.html").read_text()
    assert "2 rows in 1 table, from 12 finished cells;" in page


@pytest.mark.parametrize(
    ("place", "said"),
    [("runs/mine", "mine"), ("runs/my own", "'my own'"), ("other/mine", "mine --out other")],
)
def test_the_command_that_shows_the_cells_is_told(
    place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(Path(place), grid(HEADS, (0, 1), (1,)))
    (folder / "cells" / "one").mkdir()
    (folder / "cells" / "one" / "events.out.tfevents.1").touch()
    console = Console(file=io.StringIO(), width=140)
    report(folder, console=console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.endswith(f"TensorBoard: serzoo tensorboard {said}\n")
    _, typed, _ = app.parse_args(shlex.split(shown.splitlines()[-1])[2:], exit_on_error=False)
    typed.apply_defaults()
    assert folder_of(typed.arguments["what"], typed.arguments["out"]) == folder / "cells"


def test_read_runs_without_a_plan_takes_every_folder(tmp_path: Path) -> None:
    runs = grid(HEADS, (0,), (1,))
    folder = write(tmp_path, runs)
    (folder / "cells" / "empty").mkdir()
    found, others = read_runs(folder)
    assert [(r.name, r.table) for r in found] == [(r.name, r.table) for r in runs]
    assert others == ["empty"]


def test_a_corpus_without_common_cells_is_mentioned(tmp_path: Path) -> None:
    folder = write(tmp_path, [make("classification", 0), make("prototype", 1)])
    console = Console(file=io.StringIO(), width=140)
    assert report(folder, console=console) == []
    note = "synthetic, encoder logmel: no fold and seed is finished by every head yet"
    assert note in (folder / "table.md").read_text()
    assert note in console.file.getvalue()  # type: ignore[attr-defined]


def test_nothing_to_tabulate_is_told(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=says("x", "serzoo compare x")):
        report(tmp_path / "x")
    folder = write(tmp_path / "y", [], ["a", "b"])
    with pytest.raises(ComparisonError, match=says("y", "0 of 2")):
        report(folder)
    write_json(folder / "cells" / "b" / RECORD, {"status": "failed", "error": "DataError: gone"})
    with pytest.raises(ComparisonError, match=says("1 of 2", "b: DataError: gone", "log.txt")):
        report(folder)
