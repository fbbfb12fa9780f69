"""Files that appear whole or not at all, whoever else writes them at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serzoo.datamodules.manifest import write_lines
from serzoo.zoo.swap import new_file


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
