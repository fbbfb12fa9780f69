"""One table in each of its four forms, letter by letter."""

from __future__ import annotations

import io
from math import inf, nan
from typing import Any

import pytest
from facts import says
from rich.console import Console
from serzoo.zoo.core.table import (
    Cell,
    Table,
    cell,
    number_cell,
    p_cell,
    p_text,
    plain,
    seconds_text,
    span,
    span_cell,
    tex,
)

# markup of every form stands in its texts, and a number of every kind in its cells
TABLE = Table(
    "UAR of <b> & [red]",
    ("head", "UAR", "p_1"),
    [
        ["a|b", cell(0.5), p_cell(0.0001)],
        [Cell("c\nd"), number_cell("0.25 ± 0.1", 0.25), None],
        ["-1 'x'", cell(None), cell(-0.125, "+.2f")],
    ],
    ["5 % of [these].", "x < y."],
)


def printed(table: Table, *, lines: bool = True, **console: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=60, **console).print(table.rich(lines=lines))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def test_markdown() -> None:
    assert TABLE.markdown() == (
        "**UAR of <b> & [red]**\n"
        "\n"
        "| head | UAR | p_1 |\n"
        "|---|--:|--:|\n"
        "| a\\|b | 0.500 | 0.0001 |\n"
        "| c d | 0.25 ± 0.1 | – |\n"
        "| -1 'x' | – | -0.12 |\n"
        "\n"
        "5 % of [these].\n"
        "\n"
        "x < y.\n"
    )


def test_latex() -> None:
    assert TABLE.latex() == (
        "\\begin{table}\n"
        "\\centering\\footnotesize\n"
        "\\caption{UAR of $<$b$>$ \\& [red].}\n"
        "\\begin{tabular}{lrr}\n"
        "\\hline\n"
        "head & UAR & p\\_1 \\\\\n"
        "\\hline\n"
        "a$|$b & 0.500 & 0.0001 \\\\\n"
        "c d & 0.25 $\\pm$ 0.1 & -- \\\\\n"
        "$-$1 'x' & -- & $-$0.12 \\\\\n"
        "\\hline\n"
        "\\end{tabular}\n"
        "\\par 5 \\% of [these].\n"
        "\\par x $<$ y.\n"
        "\\end{table}\n"
    )


def test_html() -> None:
    caption = "UAR of &lt;b&gt; &amp; [red]"
    assert TABLE.html() == (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">\n'
        '<table class="sortable">\n'
        f"<caption><span>{caption}</span></caption>\n"
        '<thead><tr><th scope="col"><button type="button">head</button></th>'
        '<th scope="col" class="number"><button type="button">UAR</button></th>'
        '<th scope="col" class="number"><button type="button">p_1</button></th></tr></thead>\n'
        "<tbody>\n"
        '<tr><th scope="row">a|b</th><td class="number" data-sort="0.5">0.500</td>'
        '<td class="number" data-sort="0.0001">0.0001</td></tr>\n'
        '<tr><th scope="row">c\nd</th><td class="number" data-sort="0.25">0.25 ± 0.1</td>'
        '<td class="number">–</td></tr>\n'
        '<tr><th scope="row">-1 &#x27;x&#x27;</th><td class="number">–</td>'
        '<td class="number" data-sort="-0.125">-0.12</td></tr>\n'
        "</tbody>\n"
        "</table>\n"
        "</div>\n"
        '<p class="note">5 % of [these].</p>\n'
        '<p class="note">x &lt; y.</p>\n'
    )


def test_rich() -> None:
    assert printed(TABLE) == (
        "UAR of <b> & [red]\n"
        "┏━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━┓\n"
        "┃ head   ┃        UAR ┃    p_1 ┃\n"
        "┡━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━┩\n"
        "│ a|b    │      0.500 │ 0.0001 │\n"
        "│ c      │ 0.25 ± 0.1 │      – │\n"
        "│ d      │            │        │\n"
        "│ -1 'x' │          – │  -0.12 │\n"
        "└────────┴────────────┴────────┘\n"
        "5 % of [these].\n"
        "x < y.\n"
    )


def test_rich_without_lines() -> None:
    assert printed(TABLE, lines=False) == (
        "UAR of <b> & [red]\n"
        "head           UAR     p_1\n"
        "a|b          0.500  0.0001\n"
        "c       0.25 ± 0.1       –\n"
        "d\n"
        "-1 'x'           –   -0.12\n"
        "5 % of [these].\n"
        "x < y.\n"
    )


def test_a_list_has_no_heads_and_a_colour_of_its_own() -> None:
    table = Table("", ("", ""), [[Cell("ok", style="green"), "[a]"]])
    assert printed(table, lines=False) == "ok  [a]\n"
    coloured = printed(table, lines=False, force_terminal=True, color_system="standard")
    assert coloured == "\x1b[32mok\x1b[0m  [a]\n"


def test_a_table_without_a_caption_or_a_row() -> None:
    table = Table("", ("a", "b"), [])
    assert table.markdown() == "| a | b |\n|---|---|\n"
    assert "caption" not in table.latex()
    assert "caption" not in table.html()
    assert "aria-label" not in table.html()


def test_names_break_behind_underscores_and_sentences_get_width_on_a_page() -> None:
    table = Table("", ("head", "note", "p"), [["a_b<", "x" * 61, cell(0.5)], ["c", "short", None]])
    page = table.html()
    assert '<th scope="row">a_<wbr>b&lt;</th>' in page
    assert page.count('<td class="long">') == page.count(f'<td class="long">{"x" * 61}</td>') == 1
    assert "<wbr>" not in table.markdown()


def test_what_is_heard_is_a_player_on_a_page_only() -> None:
    table = Table("", ("id", "audio"), [["x", Cell("play x", audio="data:audio/flac;base64,AA")]])
    player = (
        '<td><audio controls preload="none" src="data:audio/flac;base64,AA" aria-label="play x">'
        "</audio></td>"
    )
    assert player in table.html()
    assert table.markdown().endswith("| x | play x |\n")


def test_a_column_of_unknown_numbers_is_one_of_numbers() -> None:
    table = Table("", ("a", "b", "c"), [["x", cell(None), "–"]])
    assert table.numeric == [False, True, False]


def test_columns_can_be_left_out() -> None:
    table = TABLE.without("UAR", "p_1")
    assert table.markdown().splitlines()[2:7] == [
        "| head |", "|---|", "| a\\|b |", "| c d |", "| -1 'x' |",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=says("'WA'", "head, UAR, p_1")):
        TABLE.without("WA")


@pytest.mark.parametrize("row", [["x"], ["x", "y", "z"]])
def test_a_row_of_another_length_is_refused(row: list[str]) -> None:
    with pytest.raises(ValueError, match=says("row 2", "'T'", f"{len(row)}", "2 columns", "a, b")):
        Table("T", ("a", "b"), [["x", "y"], row])


@pytest.mark.parametrize("value", [None, nan, inf, -inf])
def test_what_is_not_known_is_a_dash(value: float | None) -> None:
    assert plain(value, ".3f") == span(value, 1.0) == span(0.0, value) == p_text(value) == "–"
    assert seconds_text(value) == "–"
    for found in (cell(value), span_cell(value, 1.0), p_cell(value)):
        assert found.text == "–"
        assert found.sort != found.sort


def test_numbers_as_text() -> None:
    assert span_cell(0.25, 0.5, "+.2f") == Cell("+0.25 to +0.50", 0.25)
    assert [p_text(p) for p in (0.0314, 0.0005, 0.00049, 1e-7)] == [
        "0.031",
        "0.001",
        "0.0005",
        "1e-07",
    ]
    assert [seconds_text(s) for s in (9.96, 10.4)] == ["10.0", "10"]
    assert cell(1234567, ",") == Cell("1,234,567", 1234567.0)


def test_a_row_of_latex_is_no_argument_of_the_last_one() -> None:
    rows = Table("", ("a",), [["[4]"], ["*"]]).latex().splitlines()[6:8]
    assert rows == ["{}[4] \\\\", "{}* \\\\"]


def test_text_as_latex() -> None:
    assert tex("a_b & 5 % -0.1 (+0.2 to -3) x-y") == r"a\_b \& 5 \% $-$0.1 ($+$0.2 to $-$3) x-y"
    assert tex("\\{}~^²#$") == (r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}$^2$\#\$")


def test_csv_has_all_digits_of_a_number_and_the_text_of_all_else() -> None:
    row = [
        "a,b",
        cell(1 / 3),
        cell(None),
        cell(1234.5, ",.0f"),
        span_cell(0.1, 0.2),
        cell(0.5, ".0%"),
    ]
    table = Table("", ("head", "x", "y", "n", "span", "share"), [row])
    assert table.csv().splitlines() == [
        "head,x,y,n,span,share",
        '"a,b",0.3333333333333333,,1234.5,0.100 to 0.200,0.5',
    ]


def test_columns_stay_whole_where_it_is_asked() -> None:
    console = Console(file=io.StringIO(), width=20)
    console.print(
        Table("", ("a", "b"), [["one two three", "x y z"]]).rich(lines=False, whole=["a"])
    )
    assert "one two three" in console.file.getvalue()


def test_a_data_frame_has_all_digits_and_nan_for_unknown() -> None:
    pandas = pytest.importorskip("pandas", reason="no pandas: pip install serzoo[pandas]")
    frame = TABLE.to_pandas()
    assert list(frame) == ["head", "UAR", "p_1"]
    assert list(frame["head"]) == ["a|b", "c\nd", "-1 'x'"]
    assert list(frame["UAR"])[:2] == [0.5, 0.25]
    assert pandas.isna(frame["UAR"][2])
    assert frame["p_1"][0] == 0.0001
