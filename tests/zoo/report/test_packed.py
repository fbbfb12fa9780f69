"""A suite in four files: what goes in comes out, and what was damaged is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_suite
from facts import says, tells
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.files import write_json
from serzoo.zoo.report import packed
from serzoo.zoo.report.packed import (
    ARRAYS,
    RECORDS,
    SUMS,
    open_packed,
    pack,
    record_reader,
    unpack,
    validation_reader,
)
from serzoo.zoo.report.runs import find_cells, suite_attributes
from serzoo.zoo.run.record import write_attributes
from serzoo.zoo.statistics.table import PredictionTable


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Eight cells: one has failed, one has not run, one has words, unknown voices and labels."""
    folder = report_suite.write_suite(tmp_path / "s")
    cells = folder / "cells"
    write_json(cells / "one-0-1" / "record.json", {"status": "failed", "error": "no disk"})
    (cells / "one-0-1" / "predictions.jsonl").unlink()
    shutil.rmtree(cells / "two-1-1")
    table = PredictionTable(
        ["one/é", "one/b"], ["", "one/s1"], np.array([-1, 2]),
        np.array([[1e-30, -2.5, 3.25], [0.1, 123456, -0.0]]), report_suite.CLASSES,
        ["a\u2028b", ""],
    )  # fmt: skip
    table.write_jsonl(cells / "two-0-1" / "predictions.jsonl")
    valid = PredictionTable(
        ["one/v", "one/w", "one/f0u0"], ["one/s9", "one/s9", "one/s0"], np.array([0, 1, 0]),
        np.arange(9.0).reshape(3, 3), report_suite.CLASSES, None, np.eye(3),
    )  # fmt: skip
    valid.write_jsonl(cells / "two-0-1" / "valid.jsonl")
    known = {f"one/f0u{i}": {"gender": None, "language": "de", "seconds": 0.125} for i in range(24)}
    write_attributes(folder / "utterances.jsonl", known | {"elsewhere/1": {"gender": "male"}})
    return folder


@pytest.fixture
def small(suite: Path, tmp_path: Path) -> Path:
    """The same, packed."""
    return pack(suite, tmp_path / "packed" / "s")


def kept(folder: Path) -> dict[str, bytes]:
    """Records, predictions, plan and attributes of a folder of cells."""
    found = {}
    for path in sorted(folder.rglob("*.json*")):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        if name.endswith(".gz"):
            name, data = name.removesuffix(".gz"), gzip.decompress(data)
        found[name] = data
    return found


def signed(folder: Path) -> Path:
    """Checksums of the files as they are now, so that only their content is at fault."""
    files = [folder / name for name in packed.CONTENT]
    lines = (f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files)
    (folder / SUMS).write_text("".join(lines))
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for x in lzma.decompress((folder / RECORDS).read_bytes()).splitlines()]


def rewritten(folder: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / RECORDS).write_bytes(lzma.compress(text.encode()))
    return signed(folder)


def test_what_is_packed_comes_out_byte_for_byte(suite: Path, small: Path, tmp_path: Path) -> None:
    assert {p.name for p in small.iterdir()} == {"suite.json", RECORDS, ARRAYS, SUMS}
    back = unpack(small, tmp_path / "back")
    assert kept(back) == kept(suite)
    assert len(kept(back)) == 1 + 1 + 7 + 6 + 1  # plan, attributes, records, predictions, valid


def test_a_packed_suite_is_read_like_its_cells(suite: Path, small: Path) -> None:
    names = json.loads((small / "suite.json").read_text())["cells"]
    one, two = find_cells(suite, names), find_cells(small, names)
    assert [(r.name, r.record) for r in two.runs] == [(r.name, r.record) for r in one.runs]
    assert [r.table for r in two.runs] == [r.table for r in one.runs]
    assert two.failed == one.failed == {"one-0-1": "no disk"}
    assert two.missing == one.missing == ["two-1-1"]
    assert [r.name for r in find_cells(small).runs] == [r.name for r in two.runs]
    assert suite_attributes(small, []) == suite_attributes(suite, names)


def test_a_record_is_read_by_its_name_in_either_form(suite: Path, small: Path) -> None:
    one, two = record_reader(suite), record_reader(small)
    for name in ("one-0-0", "one-0-1", "two-0-1", "two-1-1"):
        assert one(name) == two(name)
    assert two("two-1-1") is None


def test_validation_predictions_and_votes_are_packed_as_well(suite: Path, small: Path) -> None:
    one, two = validation_reader(suite), validation_reader(small)
    assert one("two-0-1") == two("two-0-1")
    assert two("two-0-1").votes.tolist() == np.eye(3).tolist()
    assert one("one-0-0") is two("one-0-0") is two("nobody") is None


def test_a_report_of_a_packed_suite_is_that_of_its_cells(suite: Path, small: Path) -> None:
    pages = [report_suite.made(folder)[1] for folder in (suite, small)]
    plain = [re.sub(r'id="[^"]+"', "", page) for page in pages]
    assert plain[0] == plain[1]
    assert (suite / "table.md").read_text() == (small / "table.md").read_text()
    assert (suite / "summary.json").read_text() == (small / "summary.json").read_text()


def test_packing_twice_gives_the_same_bytes(suite: Path, small: Path, tmp_path: Path) -> None:
    again = pack(unpack(small, tmp_path / "back"), tmp_path / "again")
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in small.iterdir()
    }


def test_an_order_and_an_utterance_are_kept_once(small: Path) -> None:
    found = rows(small)
    assert sum("speaker" in row for row in found) == 24 * 4 - 24 + 2 + 2  # two-1-1 has not run
    assert [row["order"] for row in found if "order" in row] == [0, 0, 1, 2, 2, 3]
    with np.load(small / ARRAYS, allow_pickle=False) as file:
        assert file["scores"].dtype == np.float32
        assert file["order_ends"].tolist() == [24, 48, 72, 74, 77]


@pytest.mark.parametrize("name", ["suite.json", RECORDS, ARRAYS])
def test_a_damaged_or_missing_file_is_named(small: Path, name: str) -> None:
    data = bytearray((small / name).read_bytes())
    data[len(data) // 2] ^= 1
    (small / name).write_bytes(data)
    with pytest.raises(DataError, match=says(name, "SHA-256", "git")):
        open_packed(small)
    (small / name).unlink()
    with pytest.raises(DataError, match=says(name, "git")):
        find_cells(small)


def test_checksums_are_needed(small: Path) -> None:
    (small / SUMS).write_text("00  records.jsonl.xz\n")
    with pytest.raises(DataError, match=says(SUMS, ARRAYS)):
        open_packed(small)
    (small / SUMS).unlink()
    with pytest.raises(DataError, match=says(SUMS)):
        open_packed(small)


def test_another_version_is_refused(small: Path) -> None:
    rewritten(small, [{"packed": 3}, *rows(small)[1:]])
    with pytest.raises(DataError, match=says(RECORDS, 3, 1, 2)):
        open_packed(small)


def test_the_first_version_is_read_and_has_no_validation(small: Path) -> None:
    lines = rows(small)
    del lines[-1]["valid"]
    with np.load(small / ARRAYS, allow_pickle=False) as file:
        arrays = {**file, "scores": file["scores"][:-9]}
    np.savez(small / ARRAYS, **arrays)
    rewritten(small, [{"packed": 1}, *lines[1:]])
    assert validation_reader(small)(lines[-1]["cell"]) is None
    assert len(find_cells(small).runs) == 6


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".."])
def test_a_cell_that_would_leave_its_folder_is_refused(small: Path, name: str) -> None:
    lines = rows(small)
    lines[-1]["cell"] = name
    with pytest.raises(DataError, match=says(RECORDS, "cell")):
        open_packed(rewritten(small, lines))


@pytest.mark.parametrize(
    "change",
    [
        {"order": "first"},
        {"order": 9},
        {"order": -1},
        {"classes": 3},
        {"valid": 3},
        {"valid": {"order": 0}},
        {"valid": {"order": 99, "classes": ["a"]}},
    ],
)
def test_a_line_that_is_no_cell_is_refused(small: Path, change: dict[str, Any]) -> None:
    lines = rows(small)
    lines[-1] |= change
    with pytest.raises(DataError, match=says(RECORDS)):
        open_packed(rewritten(small, lines))


def test_a_label_that_is_no_class_spoils_its_cell_alone(small: Path) -> None:
    lines = rows(small)
    next(row for row in lines if row.get("id") == "two/f0u0")["label"] = "tiger"
    found = find_cells(rewritten(small, lines))
    assert sorted(found.broken) == ["two-0-0", "two-1-0"]
    assert tells(found.broken["two-0-0"], "tiger", "angry", "two-0-0")


def test_records_and_arrays_have_to_fit(small: Path) -> None:
    rewritten(small, rows(small)[:-1])
    with pytest.raises(DataError, match=says(RECORDS, ARRAYS)):
        open_packed(small)


@pytest.mark.parametrize(
    "scores", [np.array([None]), np.zeros(3), np.zeros((2, 2), np.float32)], ids=str
)
def test_arrays_hold_numbers_and_no_pickle(small: Path, scores: Any) -> None:
    with np.load(small / ARRAYS) as file:
        arrays = {**file, "scores": scores}
    file = io.BytesIO()
    np.savez(file, **arrays)
    (small / ARRAYS).write_bytes(file.getvalue())
    with pytest.raises(DataError, match=says(ARRAYS)):
        open_packed(signed(small))


def test_two_forms_in_one_folder_are_refused(suite: Path, small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says("cells")):
        pack(suite, suite)
    with pytest.raises(DataError, match=says("unpack")):
        pack(small, tmp_path / "other")
    with pytest.raises(DataError, match=says("empty")):
        unpack(small, suite)
    (small / "cells").mkdir()
    with pytest.raises(DataError, match=says(RECORDS, "cells")):
        open_packed(small)
    with pytest.raises(DataError, match=says(SUMS)):
        unpack(suite, tmp_path / "other")


def test_nothing_is_written_of_a_suite_that_cannot_be_read(suite: Path, tmp_path: Path) -> None:
    path = suite / "cells" / "two-0-0" / "predictions.jsonl"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match=says("predictions.jsonl")):
        pack(suite, tmp_path / "packed")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]
