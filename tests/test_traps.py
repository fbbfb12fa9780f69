"""The traps that docs/how-to/write-a-test.md lists: is every test that it names still there?"""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "how-to" / "write-a-test.md"


def test_every_trap_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (T\d+) .*\| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == [f"T{k}" for k in range(1, 9)]
    named = [found for _, cell in rows for found in re.findall(r"`(\S+)::(\w+)`", cell)]
    assert len(named) == 17
    for file, test in named:
        assert f"\ndef {test}(" in (TESTS / file).read_text(), f"{file}::{test} is gone"
