"""Predictions as annotations of Praat, Label Studio and audformat."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from facts import says
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.run import annotate
from serzoo.zoo.run.predictions import Columns, Predictions, Row, suffix_of

CLASSES = ["angry", 'sad "x"']


def row(start: float, end: float, label: str = "angry", p: float = 0.75, file: str = "c/a.wav"):
    other = next(c for c in CLASSES if c != label)
    return Row(file, start, end, label, {label: p, other: 1 - p}, calibrated=True)


def error(start: float | None, end: float | None, file: str = "c/a.wav") -> Row:
    return Row(file, start, end, error=f"{file} is silent")


ROWS = [row(0, 2), row(1, 3, 'sad "x"', 0.5), row(1.1, 3.1, p=0.875), row(0, 1, file="d/b.wav")]
ALL = Predictions([*ROWS, error(None, None, "d/broken.wav")], Columns(CLASSES))


def test_a_textgrid_is_one_that_praat_reads(tmp_path: Path) -> None:
    parselmouth = pytest.importorskip("parselmouth", reason="no parselmouth: serzoo[formats]")
    (folder,) = ALL.to_textgrid(tmp_path / "grids")
    assert sorted(p.name for p in folder.iterdir()) == ["a.TextGrid", "b.TextGrid"]
    grid = parselmouth.read(str(folder / "b.TextGrid"))
    call = parselmouth.praat.call
    assert call(grid, "Get number of tiers") == 2
    assert call(grid, "Get total duration") == pytest.approx(1)
    assert [call(grid, "Get label of interval", tier, 1) for tier in (1, 2)] == ["angry", "0.75"]


def test_channels_are_those_of_label_studio_and_audformat_has_none(tmp_path: Path) -> None:
    two = [replace(row(0, 1), channel=1), replace(row(0, 1), channel=2)]
    (task,) = annotate.label_studio(two)
    assert [r["value"]["channel"] for r in task["predictions"][0]["result"]] == [0, 1]
    pytest.importorskip("audformat", reason="no audformat: pip install serzoo[audformat]")
    with pytest.raises(DataError, match=says("c/a.wav", "channel")):
        annotate.write_audformat(two, tmp_path / "db", CLASSES)


def test_label_studio_has_a_task_for_each_recording(tmp_path: Path) -> None:
    path, beside = ALL.to_label_studio(tmp_path / "tasks.json")
    tasks = json.loads(path.read_text("utf-8"))
    assert [t["data"]["audio"] for t in tasks] == ["c/a.wav", "d/b.wav", "d/broken.wav"]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == pytest.approx((0.75 + 0.5 + 0.875) / 3, abs=1e-6)
    values = [r["value"] for r in prediction["result"]]
    assert [(v["start"], v["end"], v["labels"]) for v in values] == [
        *[(0, 2, ["angry"]), (1, 3, ['sad "x"']), (1.1, 3.1, ["angry"])],
    ]
    assert tasks[2]["predictions"] == []
    assert tasks[2]["data"]["errors"] == ["d/broken.wav is silent"]
    # the names of the configuration are those of the tasks
    root = ElementTree.fromstring(beside.read_text("utf-8"))
    labels, audio = root.find("Labels"), root.find("Audio")
    assert labels is not None
    assert audio is not None
    one = prediction["result"][0]
    assert (one["from_name"], one["to_name"]) == (labels.get("name"), labels.get("toName"))
    assert (audio.get("name"), audio.get("value")) == ("audio", "$audio")
    assert [label.get("value") for label in labels] == CLASSES


def test_audformat_is_read_back_by_audformat(tmp_path: Path) -> None:
    audformat = pytest.importorskip(
        "audformat", reason="no audformat: pip install serzoo[audformat]"
    )
    ALL.to_audformat(tmp_path / "db")
    table = audformat.Database.load(str(tmp_path / "db"))["predictions"].get()
    index = table.index.to_frame(index=False)
    assert list(index["file"]) == ["c/a.wav", "c/a.wav", "c/a.wav", "d/b.wav"]
    assert [t.total_seconds() for t in index["end"]] == pytest.approx([2, 3, 3.1, 1])
    assert list(table["emotion"]) == ["angry", 'sad "x"', "angry", "angry"]
    assert list(table["p_angry"]) == pytest.approx([0.75, 0.5, 0.875, 0.75])
    header = (tmp_path / "db" / "db.yaml").read_text("utf-8")
    assert "1 of 5 rows" in " ".join(header.split())


def test_nothing_to_write_is_told(tmp_path: Path) -> None:
    none = Predictions([error(None, None)], ALL.columns)
    with pytest.raises(DataError, match=says("TextGrid")):
        none.to_textgrid(tmp_path)
    pytest.importorskip("audformat", reason="no audformat: pip install serzoo[audformat]")
    with pytest.raises(DataError, match=says("audformat")):
        none.to_audformat(tmp_path / "db")


def test_a_format_needs_a_place() -> None:
    with pytest.raises(ConfigError, match=says("audformat", "--out FOLDER")):
        annotate.check("audformat", None)
    with pytest.raises(ConfigError, match=says("label-studio", "--out FILE.json")):
        annotate.check("label-studio", None)
    with pytest.raises(ConfigError, match=says("elan", "label-studio", "audformat")):
        annotate.check("elan", "x")
    with pytest.raises(ConfigError, match=says("x.TextGrid", ".jsonl", "label-studio")):
        suffix_of("x.TextGrid")


# Data frames.


def test_rows_as_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas", reason="no pandas: pip install serzoo[pandas]")
    frame = ALL.to_pandas()
    assert list(frame) == ["file", "start", "end", "label", *(f"p_{c}" for c in CLASSES),
                           "calibrated", "error"]  # fmt: skip
    assert list(frame["p_angry"][:4]) == [0.75, 0.5, 0.875, 0.75]
    assert pandas.isna(frame["p_angry"][4])
    assert len(Predictions([], ALL.columns).to_pandas()) == 0


def test_without_pandas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match=says("pandas", "serzoo[pandas]")):
        ALL.to_pandas()
