"""Tables of a report as csv, json, latex, md and data frames; and listeners beside models."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import write_cell, write_suite
from facts import says, tells
from report_suite import write_suite as write_small
from serzoo.datamodules.info import CorpusInfo
from serzoo.zoo.cli import main
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.report.report import read_runs, summarise
from serzoo.zoo.report.table import LISTENERS, flat, latex, markdown, results_table, to_pandas
from serzoo.zoo.run.record import Record
from serzoo.zoo.statistics.table import PredictionTable


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("runs") / "s")


@pytest.fixture
def printed(suite: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    def of(form: str) -> str:
        assert main(["report", "s", "--out", str(suite.parent), "--format", form]) == 0
        return capsys.readouterr().out

    return of


def test_csv_and_json_have_the_same_rows(printed: Callable[[str], str], suite: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(printed("csv"))))
    other = json.loads(printed("json"))
    assert [(r["recipe"], r["head"]) for r in rows] == [(r["recipe"], r["head"]) for r in other]
    assert len(rows) == 4
    results = {(r.recipe, r.head): r for r in summarise(read_runs(suite)[0])}
    for row, same in zip(rows, other, strict=True):
        found = results[row["recipe"], row["head"]]
        assert float(row["uar"]) == same["uar"] == found.uar.mean
        assert float(row["recall_sad"]) == same["recall_sad"] == found.recalls["sad"]
        assert (row["difference"] == "") == (same["difference"] is None)
        if found.difference:
            assert float(row["difference"]) == found.difference.value


def test_latex_and_markdown_are_those_of_the_files(
    printed: Callable[[str], str], suite: Path
) -> None:
    rows = summarise(read_runs(suite)[0])
    assert printed("latex") == latex(rows, "classification") == (suite / "table.tex").read_text()
    assert printed("md") == markdown(rows, "classification")
    assert printed("md") in (suite / "table.md").read_text()


def test_one_form_at_a_time(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "s", "--out", str(suite.parent), "--format", "csv", "--json"]) == 2
    assert tells(capsys.readouterr().err, "--format csv", "--json")


def test_results_records_and_predictions_as_data_frames(suite: Path) -> None:
    pytest.importorskip("pandas", reason="no pandas: pip install serzoo[pandas]")
    runs, _ = read_runs(suite)
    rows = summarise(runs)
    frame = to_pandas(rows)
    assert frame.to_dict("list")["uar"] == [row.uar.mean for row in rows]
    one = runs[0].record.to_pandas()
    assert len(one) == 1
    assert one["config.optim.lr"][0] == 0.001
    table = runs[0].table
    found = table.to_pandas()
    assert list(found["id"]) == table.ids
    assert list(found["predicted"]) == [table.classes[i] for i in table.predicted]
    p = found[[f"p_{c}" for c in table.classes]].to_numpy()
    assert np.allclose(p.sum(1), 1)
    assert np.array_equal(p.argmax(1), table.predicted)


def test_unknown_values_of_predictions_are_none() -> None:
    pytest.importorskip("pandas", reason="no pandas: pip install serzoo[pandas]")
    table = PredictionTable(
        ["a", "b"], ["", "s"], [-1, 1], [[0, 1], [1, 0]], ["x", "y"], ["hm", "ah"], [[0, 2], [1, 1]]
    )
    frame = table.to_pandas()
    assert frame["speaker"].isna().tolist() == frame["label"].isna().tolist() == [True, False]
    assert list(frame["text"]) == ["hm", "ah"]
    assert list(frame["votes_y"]) == [2, 1]


# Listeners.


def predicted(corpus: str, classes: list[str], votes: Any = None) -> PredictionTable:
    n = len(classes)
    labels = np.arange(4 * n) % n
    who = [f"{corpus}/s{i // (2 * n)}" for i in range(4 * n)]
    ids = [f"{corpus}/u{i}" for i in range(4 * n)]
    return PredictionTable(ids, who, labels, np.eye(n)[labels], classes, votes=votes)


def rows_of(folder: Path, table: PredictionTable, change: dict[str, Any] | None = None) -> Any:
    names = [write_cell(folder, table, head, 0, 1) for head in ("classification", "linear")]
    for name in names:
        path = folder / "cells" / name / "record.json"
        content = json.loads(path.read_text())
        content["config"]["data"]["label"] = "label"
        write_json(path, content | (change or {}))
    write_suite(folder, names)
    return summarise(read_runs(folder)[0])


def test_listeners_of_emodb_stand_below_the_models(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, predicted("emodb", Taxonomy.load("emodb7").classes))
    table = results_table(rows, "classification")
    last = [c.text for c in table.cells[-1]]
    assert last[:2] == [LISTENERS, "0.930"]
    assert last[table.columns.index("WA")] == "0.935"
    assert set(last[2:]) == {"0.935", "–", ""}
    assert tells(table.notes, "Burkhardt", LISTENERS)
    people = flat(rows)[-1]
    assert (people["head"], people["uar"], people["wa"], people["f1"]) == (
        *(LISTENERS, 0.930, 0.935, None),
    )
    # it is beside no other head, and is no head itself
    assert [r["head"] for r in flat(rows)] == ["classification", "linear", LISTENERS]


def test_the_figure_of_emodb_is_that_of_its_recordings(real_data: Callable[[str], Path]) -> None:
    folder = real_data("emodb")
    with (folder / "manifest.csv").open() as file:
        label = {r["file"]: r["emotion"] for r in csv.DictReader(file)}
    with (folder / "labels_extra.csv").open() as file:
        said = [(label[r["file"]], float(r["recognised_pct"])) for r in csv.DictReader(file)]
    info = CorpusInfo.load("emodb").listeners
    assert info is not None
    assert info.wa == pytest.approx(np.mean([p for _, p in said]) / 100, abs=5e-4)
    by_class = [np.mean([p for c, p in said if c == name]) for name in set(label.values())]
    assert info.uar == pytest.approx(np.mean(by_class) / 100, abs=5e-4)
    assert min(p for _, p in said) == 80


def test_the_figure_of_ravdess_is_that_of_its_published_ratings() -> None:
    info = CorpusInfo.load("ravdess")
    # mean share of the raters who were right, by emotion: S1 Table, speech, audio only
    shares = {
        ("01", "02"): 0.8170, ("03",): 0.3656, ("04",): 0.4792, ("05",): 0.7464, ("06",): 0.6620,
        ("07",): 0.5188, ("08",): 0.6792,
    }  # fmt: skip
    assert info.listeners is not None
    assert info.listeners.uar == pytest.approx(np.mean(list(shares.values())), abs=5e-4)
    counts = [sum(info.expected.labels[c] for c in codes) for codes in shares]
    assert sum(counts) == info.expected.utterances
    mean = np.average(list(shares.values()), weights=counts)
    assert info.listeners.wa == pytest.approx(mean, abs=6e-4)


def test_listeners_of_crema_d_are_counted_from_their_votes(tmp_path: Path) -> None:
    classes = Taxonomy.load("basic6").classes
    votes = np.zeros((24, 6))
    labels = np.arange(24) % 6
    votes[np.arange(24), labels] = 3
    votes[:, 0] += 1  # everybody else says the first class
    votes[5] = 0  # nobody voted
    rows = rows_of(tmp_path, predicted("crema_d", classes, votes))
    human = rows[0].human
    # the first class 4 of 4, the others 3 of 4; one of 24 is not counted
    assert human.uar == pytest.approx((1 + 5 * 0.75) / 6)
    assert human.wa == pytest.approx((4 + 19 * 0.75) / 23)


@pytest.mark.parametrize(
    ("corpus", "classes", "change"),
    [
        ("emodb", ["angry", "happy", "neutral", "sad"], {}),
        ("emodb", Taxonomy.load("emodb7").classes, {"condition": "white:10dB"}),
        ("savee", Taxonomy.load("basic7").classes, {}),
        ("crema_d", Taxonomy.load("basic6").classes, {}),
    ],
    ids=["other classes", "noise", "no figure", "no votes"],
)
def test_no_row_where_the_figure_does_not_apply(
    tmp_path: Path, corpus: str, classes: list[str], change: dict[str, Any]
) -> None:
    assert {row.human for row in rows_of(tmp_path, predicted(corpus, classes), change)} == {None}


@pytest.mark.parametrize(
    "listeners",
    ["0.9", {"uar": 0.9}, {"uar": 93, "source": "x"}, {"source": "x"},
     {"votes": True, "wa": 0.5, "source": "x"}, {"uar": 0.9, "source": "x", "who": "y"}],
)  # fmt: skip
def test_a_wrong_figure_is_refused(listeners: Any) -> None:
    with pytest.raises(ConfigError, match=says("listeners", "mine")):
        CorpusInfo.from_dict("mine", {"listeners": listeners})


# Speakers that train and are tested.


def test_a_table_says_that_its_numbers_depend_on_the_speakers(tmp_path: Path) -> None:
    table = predicted("emodb", ["a", "b"])
    assert "speaker-dependent" not in results_table(rows_of(tmp_path, table), "linear").caption
    speakers = {
        "train": ["emodb/s0", "emodb/x"],
        "valid": ["emodb/"],
        "test": ["emodb/s0", "emodb/s1"],
    }
    rows = rows_of(tmp_path, table, {"speakers": speakers})
    assert rows[0].dependent == 1
    assert tells(results_table(rows, "linear").caption, "speaker-dependent", 1)


def test_a_record_of_an_older_version_has_no_speakers() -> None:
    assert Record.from_json({"status": "ok"}).speakers == {}
