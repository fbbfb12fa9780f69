"""Tables of the results pages are what the packed records give, and answers agree with them."""

from __future__ import annotations

import re
from pathlib import Path

import page_tables
import publish
import pytest
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.core.table import Table, cell

TEXT = {page.name: page.read_text("utf-8") for page in page_tables.PAGES}
CHEAP = {"speed.md", "selection.md"}  # no suite is read for them


def tables(text: str) -> list[str]:
    return re.findall(r"(?<!\|)\n((?:\|.*\n)+)", text)


@pytest.mark.parametrize(
    "name", [n if n in CHEAP else pytest.param(n, marks=pytest.mark.slow) for n in sorted(TEXT)]
)
def test_the_tables_of_a_page_are_what_the_records_give(name: str) -> None:
    assert page_tables.filled(TEXT[name]) == TEXT[name], "run benchmarks/publish.py pages"


def test_every_table_is_computed() -> None:
    computed = {name: len(page_tables.MARKER.findall(text)) for name, text in TEXT.items()}
    assert sum(computed.values()) == 50
    assert {name: len(tables(text)) for name, text in TEXT.items()} == computed
    named = [found[1] for text in TEXT.values() for found in page_tables.MARKER.findall(text)]
    assert set(named) == set(page_tables.TABLES)


def test_the_numbers_of_an_answer_stand_in_a_computed_table() -> None:
    checked = 0
    for name, text in TEXT.items():
        if name == "README.md":  # its answers are those of the pages
            continue
        answer = text.partition("**")[2].partition("**")[0].replace("\n", " ")
        body = "".join(found[2] for found in page_tables.MARKER.findall(text))
        shown = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", body)]
        for number in re.findall(r"(?<!\w)\d[\d,]*(?:\.\d+)?", answer):
            digits = len(number.partition(".")[2])
            wanted = float(number.replace(",", ""))
            near = 0.5 * 10**-digits + 1e-9  # a number may be rounded further than the table
            assert any(abs(value - wanted) <= near for value in shown), (name, number)
            checked += 1
    assert checked == 5


def test_the_numbers_of_the_readme_are_those_of_the_pages() -> None:
    readme = (page_tables.ROOT / "README.md").read_text("utf-8")
    results = readme.partition("\n## Results\n")[2].partition("\n## ")[0]
    numbers = re.findall(r"-?\d\.\d{3}", results)
    pages = TEXT["which-head.md"] + TEXT["frozen-encoder.md"]
    assert len(numbers) == 7
    assert [n for n in numbers if n not in pages] == []


def test_a_table_is_put_below_the_comment_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Table("", ("head", "UAR"), [["a", cell(0.5)]])
    monkeypatch.setattr(page_tables, "TABLES", {"one": lambda: made})
    new = "| head | UAR |\n|---|--:|\n| a | 0.500 |\n"
    text = "Words. <!-- table: one -->\n\n{}\n## Next\n\n| typed |\n|---|\n"
    assert page_tables.filled(text.format("| old |\n|---|\n")) == text.format(new)
    assert page_tables.filled(text.format("")) == text.format(new)  # none was there yet
    with pytest.raises(DataError, match=r"'two'.*one"):
        page_tables.filled("<!-- table: two -->\n\n")


def test_pages_are_written_only_where_a_table_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, same = tmp_path / "old.md", tmp_path / "same.md"
    old.write_text("<!-- table: one -->\n\n| head |\n")
    same.write_text("no table")
    made = Table("", ("head",), [["a"]])
    monkeypatch.setattr(page_tables, "TABLES", {"one": lambda: made})
    monkeypatch.setattr(page_tables, "PAGES", (old, same))
    assert publish.main(["pages"]) == 0
    assert capsys.readouterr().out == "changed: old.md\n"
    assert old.read_text() == "<!-- table: one -->\n\n| head |\n|---|\n| a |\n"
    assert publish.main(["pages"]) == 0
    assert capsys.readouterr().out == "changed: no page\n"
