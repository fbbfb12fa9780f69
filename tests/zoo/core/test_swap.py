"""Files that appear whole or not at all, whoever else writes them at the same time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import NamedTuple

import pytest
from serzoo.datamodules.manifest import write_lines
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.files import check_place, locked, new_file, new_folder, write_json


def test_a_file_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "f.txt"
    with new_file(path) as draft:
        draft.write_text("one")
        assert draft.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "one"
    with pytest.raises(FileNotFoundError), new_file(path) as draft:
        draft.write_text("half") and (tmp_path / "nothing").read_text()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_two_who_write_at_once_do_not_take_each_other_s_draft(tmp_path: Path) -> None:
    """They may have one process id: threads, or containers that share a disk."""
    path = tmp_path / "f.txt"

    def lines() -> Iterator[str]:
        yield "first"
        write_lines(path, ["other"])
        assert path.read_text() == "other\n"
        yield "second"

    write_lines(path, lines())
    assert path.read_text() == "first\nsecond\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_written_before_an_error_stays_where_it_is_asked_for(
    keep: bool, tmp_path: Path
) -> None:
    path = tmp_path / "f.txt"
    path.write_text("before")

    def interrupted() -> None:
        with new_file(path, keep=keep) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        interrupted()
    assert path.read_text() == "before"
    parts = [p for p in tmp_path.iterdir() if p != path]
    assert [p.read_text() for p in parts] == ["half"] * keep
    notes = getattr(stopped.value, "__notes__", [])
    assert [part.name in note for part, note in zip(parts, notes, strict=True)] == [True] * keep


def test_an_error_of_the_system_names_the_file_and_not_its_draft(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    with pytest.raises(OSError, match=r"f\.txt") as full, new_file(path):
        raise OSError(errno.ENOSPC, "No space left on device")  # a full disk names nothing
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(PermissionError) as denied, new_file(path) as draft:
        raise PermissionError(errno.EACCES, "Permission denied", str(draft))
    assert denied.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as other, new_file(path):
        (tmp_path / "other").read_text()
    assert other.value.filename == str(tmp_path / "other")


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), new_file(tmp_path / "folder"):
        raise AssertionError("told before anything is written")
    with pytest.raises(NotADirectoryError), new_folder(tmp_path / "file", ()):
        raise AssertionError("told before anything is written")
    for path, error in (("folder", IsADirectoryError), ("file/x/y", NotADirectoryError)):
        with pytest.raises(error):
            check_place(tmp_path / path)
    check_place(tmp_path / "new" / "x" / "y.txt")
    check_place(tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_device_or_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for path in (tmp_path / "pipe", Path(os.devnull)):
        check_place(path)
        with new_file(path) as draft:
            draft.write_text("here")
        assert not path.is_file()
    assert os.read(reader, 10) == b"here"
    os.close(reader)


@pytest.mark.parametrize("name", ["n" * 250, "\u00e9" * 120])
def test_a_name_that_is_just_not_too_long_has_a_draft(name: str, tmp_path: Path) -> None:
    with new_file(tmp_path / name) as draft:
        draft.write_text("x")
    with new_folder(tmp_path / f"{name[:-2]}d", ()) as made:
        (made / "x").write_text("x")
    with pytest.raises(OSError, match="too long") as long, new_file(tmp_path / (name * 3)):
        pass
    assert long.value.errno == errno.ENAMETOOLONG


def test_what_must_survive_a_loss_of_power_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, half, seen = tmp_path / "f.txt", tmp_path / "half", []

    def fsync(opened: int) -> None:
        there = Path(os.readlink(f"/proc/self/fd/{opened}"))
        seen.append((there, path.exists(), there.read_text() if there.is_file() else ""))

    monkeypatch.setattr(os, "fsync", fsync)
    with new_file(path, sync=True, draft=half) as draft:
        assert draft == half  # who removes drafts of killed processes knows its name
        draft.write_text("whole")
    assert seen == [(half, False, "whole"), (tmp_path, True, "")]
    with new_file(path) as draft:
        draft.write_text("other")
    assert len(seen) == 2  # others do not wait for the disk


def test_a_disk_that_fails_at_the_end_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.txt"
    path.write_text("before")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"f\.txt"), new_file(path, sync=True) as draft:
        draft.write_text("new")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_of_two_writers_of_a_folder_wins_if_it_is_not_to_be_replaced(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "c"

    def write(text: str) -> None:
        with new_folder(folder, replace=False) as draft:
            if text == "slow":
                write("fast")
            (draft / "x").write_text(text)

    folder.mkdir()  # an empty folder holds nothing that somebody reads
    with pytest.raises(FileExistsError) as late:
        write("slow")
    assert late.value.filename == str(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert (folder / "x").read_text() == "fast"


class Both(NamedTuple):
    low: float
    high: float


@dataclass
class Kept:
    name: str
    span: Both
    rest: list[Both]


def test_dataclasses_and_named_tuples_become_objects_of_json(tmp_path: Path) -> None:
    write_json(
        tmp_path / "f.json", {"row": Kept("a", Both(0.5, nan), [Both(1, 2)]), "pair": (1, 2)}
    )
    assert json.loads((tmp_path / "f.json").read_text()) == {
        "row": {"name": "a", "span": {"low": 0.5, "high": None}, "rest": [{"low": 1, "high": 2}]},
        "pair": [1, 2],
    }


HOLD = """
import sys
from pathlib import Path
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.files import locked
with locked(Path(sys.argv[1]), ConfigError):
    print("now", flush=True)
    sys.stdin.read()
"""


def test_a_lock_names_its_process_and_ends_with_it(tmp_path):
    file = tmp_path / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "now\n"
    second = locked(file, lambda process: ConfigError(f"held by {process}"))
    with pytest.raises(ConfigError, match=f"^held by {holder.pid}$"), second:
        raise AssertionError("two hold it")
    holder.kill()
    holder.communicate()
    with locked(file):
        assert file.read_text() == str(holder.pid)  # waiting tells nobody who it is
