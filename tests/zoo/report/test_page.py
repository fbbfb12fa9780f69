"""The report as a page: every section, what bad input leaves of it, and how a browser shows it."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_suite
import soundfile
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.catalog import open_corpora
from serzoo.zoo.core.files import write_json
from serzoo.zoo.core.table import Table
from serzoo.zoo.report.packed import pack
from serzoo.zoo.report.page import Section, Text, render
from serzoo.zoo.report.report import SECTIONS
from serzoo.zoo.report.runs import PREDICTIONS, by_pair, pooled, read_runs
from serzoo.zoo.run import config
from serzoo.zoo.run.record import RECORD, UTTERANCES, attributes_of, write_attributes
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.priors import matched
from serzoo.zoo.statistics.table import PredictionTable


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    return partial(report_suite.write_suite, tmp_path / "s")


# The page.


ABSENT = (
    "beyond",
    "learning",
    "started",
    "conditions",
    "across",
    "label-shift",
    "votes",
    "missing",
)
"""Sections that do not apply to the small suite."""


def test_every_section_that_applies_is_there(suite: Callable[..., Path]) -> None:
    sections, text = report_suite.made(suite())
    assert list(sections) == [anchor for anchor, *_ in SECTIONS if anchor not in ABSENT]
    left = sections["made-with"].partition("Left out: 8 sections")[2]
    for anchor, title, _ in SECTIONS:
        assert (f"{title}: " in left) == (anchor in ABSENT), anchor
    assert "A &lt;suite&gt; &amp; more" in text
    assert "a_b&lt;i&gt;" in text
    assert "<i>" not in text
    assert "serzoo compare s 'recipe=[one,two]' fold=all 'a=b c'" in sections["made-with"]
    assert text.count('role="img"') == text.count("<svg ")
    ids = report_suite.Reader(text).ids
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text)) - {"main"}
    assert used <= set(ids)
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert "utterances.jsonl" in sections["groups"]
    assert "debiased after" in sections["calibration"]
    assert "Probabilities are for a" in sections["calibration"]


def test_the_page_opens_with_the_answer(suite: Callable[..., Path]) -> None:
    folder = suite()
    sections, text = report_suite.made(folder)
    assert next(iter(sections)) == "answer"
    said = sections["answer"]
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    for row in rows:
        if row["head"] == report_suite.HEADS[0]:
            mean = row["score"]["mean"] if isinstance(row["score"], dict) else row["score"][0]
            assert f"{row['recipe']}, logmel: UAR of classification is {mean:.3f}." in said
        else:
            assert row["difference"]["verdict"] in said
    assert "one: 48 utterances of 4 speakers; two: 48 utterances of 4 speakers" in said
    assert f"Compared with classification: {report_suite.HEADS[1]}." in said
    assert text[text.index('id="answer"') : text.index('id="results"')].count("<svg ") == 1


def test_the_data_of_every_figure_is_a_csv_file(suite: Callable[..., Path]) -> None:
    folder = suite()
    _, text = report_suite.made(folder)
    files = re.findall(r'<a download="([^"]+)" href="data:text/csv;[^,]+,([^"]+)"', text)
    assert len(files) == text.count("<figure>") >= 10
    found = {name: base64.b64decode(data).decode().splitlines() for name, data in files}
    assert len(found) == len(files)
    assert min(map(len, found.values())) >= 2
    rows = list(csv.DictReader(found["answer.csv"]))
    summary = json.loads((folder / "summary.json").read_text())["rows"]
    compared = {r["recipe"]: r["difference"] for r in summary if r["difference"]}
    assert {r["table"].partition(",")[0]: r["verdict"] for r in rows} == {
        recipe: d["verdict"] for recipe, d in compared.items()
    }
    assert [float(r["difference"]) for r in rows] == [d["value"] for d in compared.values()]
    matrix = np.array([line.split(",")[1:] for line in found["confusion-0-classification.csv"][1:]])
    assert matrix.astype(float).sum() == 48


def with_genders(folder: Path) -> Path:
    """A suite whose utterances have a gender."""
    runs, _ = read_runs(folder)
    known = {i: {"gender": "mf"[int(i[-1]) % 2]} for run in runs for i in run.table.ids}
    write_attributes(folder / UTTERANCES, known)
    return folder


def test_sub_groups_and_variance_are_of_the_metric_of_the_suite(
    suite: Callable[..., Path],
) -> None:
    folder = with_genders(suite(("one",)))
    plan = json.loads((folder / "suite.json").read_text())
    for metric, name in (("uar", "UAR"), ("wa", "WA"), ("macro_f1", "macro-F1")):
        write_json(folder / "suite.json", plan | {"metric": metric})
        sections, _ = report_suite.made(folder)
        assert f"{name}, mean of runs" in sections["variance"]
        assert f"{name} by gender" in sections["groups"]


def test_every_table_with_intervals_of_few_sentences_says_so(suite: Callable[..., Path]) -> None:
    sections, _ = report_suite.made(with_genders(suite(("ravdess",), speakers=4)))
    remark = "The interval is to new speakers of these 2 sentences."
    for anchor in ("results", "differences", "groups", "calibration", "cost"):
        assert remark in sections[anchor], anchor


def test_the_same_cells_make_the_same_page(suite: Callable[..., Path]) -> None:
    folder = suite()
    assert report_suite.made(folder)[1] == report_suite.made(folder)[1]


def test_text_is_escaped_and_a_table_is_not_escaped_twice() -> None:
    table = Table("<c>", ["a", "b"], [["x&y", "z"]])
    text = render("t", "l", [Section("s", "S", "", [table, Text("<p>")], ["<m>"])])
    assert table.html() in text
    assert "<p>&lt;p&gt;</p>" in text
    assert "<m>" not in text


def test_latex_has_no_times_of_a_machine(suite: Callable[..., Path]) -> None:
    folder = suite()
    report_suite.made(folder)
    text = (folder / "table.tex").read_text()
    assert r"a\_b$<$i$>$ &" in text
    assert text.count(r"\begin{table}") == 4  # results and differences of two corpora
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {9}
    assert "ms / utt" not in text


def test_shots_are_curves_that_begin_at_the_source(suite: Callable[..., Path]) -> None:
    folder = suite(("one",), (0,))
    cells = []
    for shots in (0, 4, 16):
        for k, head in enumerate(report_suite.HEADS):
            cells.append(f"s{shots}-{k}")
            said = f"from two, {shots} shots" + (", lora" if shots else "")
            entry = report_suite.record("one", head, 0, shots=shots, condition=said)
            encoder = {"type": "hf", "name": "a/b", "tuning": "frozen"}
            entry |= {"kind": "adaptation", "source": {"encoder": encoder}}
            entry["config"]["encoder"] = encoder | ({"tuning": "lora"} if shots else {})
            write_json(folder / "cells" / cells[-1] / RECORD, entry)
            table = report_suite.predictions("one", head, 0, seed=shots)
            table.write_jsonl(folder / "cells" / cells[-1] / PREDICTIONS)
    plan = json.loads((folder / "suite.json").read_text())
    write_json(folder / "suite.json", {**plan, "cells": cells})
    sections, text = report_suite.made(folder)
    caption = "UAR by shots per class: one, b, from two, lora"
    assert caption in sections["learning"]
    head = text[text.index(f"<span>{caption}</span>") :]
    assert re.findall(r'<button type="button">(\w+)</button>', head)[:4] == ["head", "0", "4", "16"]
    assert "UAR by condition: one, b" in sections["conditions"]


def test_pairs_of_corpora_are_a_map(suite: Callable[..., Path]) -> None:
    folder = suite()
    for recipe, other in (("one", "two"), ("two", "one")):
        for k, head in enumerate(report_suite.HEADS):
            for fold in (0, 1):
                entry = report_suite.record(
                    recipe, head, fold, speakers={"train": [f"{other}/x"], "valid": []}
                )
                write_json(folder / "cells" / f"{recipe}-{k}-{fold}" / RECORD, entry)
    sections, _ = report_suite.made(folder)
    assert "UAR across corpora: classification, logmel" in sections["across"]
    assert "one, two to one" in sections["results"]
    text = sections["label-shift"]
    assert "transductive" in text
    assert "Matched to a uniform prior: one, two to one, logmel" in text
    runs = [r for r in by_pair(read_runs(folder)[0]) if r.pair and r.head == "classification"]
    values = []
    for name in ("two to one", "one to two"):
        own = [r for r in runs if r.pair == name]
        moved = [replace(r, table=matched(r.table, "speaker")) for r in own]
        values.append((pooled(own).uar(), pooled(moved).uar()))
    plain, speaker = np.mean(values, axis=0)
    mean = text[text.index("Mean of 2 tables") :]
    assert re.search(rf"classification{plain:.3f}\d\.\d{{3}}{speaker:.3f}", mean)


# Attributes and audio.


def test_sub_groups_and_players_of_a_corpus(
    tiny_speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    speech = open_corpora(["csv"], root=str(tiny_speech))
    ids = [u.id for u in speech.utterances]
    who = [f"csv/{u.speaker}" for u in speech.utterances]
    labels = np.array([report_suite.CLASSES.index(str(u.label)) for u in speech.utterances])
    folder = tmp_path / "s"
    for k, head in enumerate(report_suite.HEADS):
        entry = report_suite.record("one", head, 0)
        entry["config"] |= {"corpus": ["csv"]}
        entry["config"]["data"] = {**entry["config"]["data"], "root": str(tiny_speech)}
        entry["data"]["manifest"] = speech.sha
        write_json(folder / "cells" / f"c{k}" / RECORD, entry)
        scores = np.random.default_rng(k).normal(size=(len(ids), 3))
        table = PredictionTable(ids, who, labels, scores, report_suite.CLASSES)
        table.write_jsonl(folder / "cells" / f"c{k}" / PREDICTIONS)
    plan = {"name": "s", "title": "S", "baseline": report_suite.HEADS[0], "cells": ["c0", "c1"]}
    write_json(folder / "suite.json", plan)
    sections, text = report_suite.made(folder, audio=True, attributes=True)
    assert "UAR by gender: one, logmel" in sections["groups"]
    assert "UAR by duration in seconds: one, logmel" in sections["groups"]
    kept = (folder / UTTERANCES).read_text()
    assert len(kept.splitlines()) == len(ids)
    (clip,) = re.findall(r'src="data:audio/flac;base64,([^"]+)" aria-label="play ([^"]+)"', text)[
        :1
    ]
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(clip[0])), dtype="float32")
    (u,) = [u for u in speech.utterances if u.id == clip[1]]
    wanted = read_audio(tiny_speech / u.audio, u.start, u.end)
    assert rate == 16_000
    np.testing.assert_allclose(samples, wanted, atol=2e-5)
    # the same without flags: attributes are kept, audio is not asked for
    sections, text = report_suite.made(folder)
    assert "UAR by gender: one, logmel" in sections["groups"]
    assert "<audio" not in text
    # a corpus that is another by now
    entry["data"]["manifest"] = "another"
    write_json(folder / "cells" / "c1" / RECORD, entry)
    entry["config"]["head"] = {"type": report_suite.HEADS[0]}
    write_json(folder / "cells" / "c0" / RECORD, entry)
    sections, text = report_suite.made(folder, audio=True)
    assert all(fact in sections["errors"] for fact in ("manifest", speech.sha, "another"))
    assert "not at hand" in sections["errors"]


def test_attributes_are_written_whole(tmp_path: Path, tiny_speech: Path) -> None:
    rows = attributes_of(open_corpora(["csv"], root=str(tiny_speech)).utterances)
    write_attributes(tmp_path / "a", rows)
    lines = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert {line["id"]: {k: v for k, v in line.items() if k != "id"} for line in lines} == rows
    assert {line["gender"] for line in lines} == {"female", "male"}
    assert all(0.3 <= line["seconds"] <= 0.5 for line in lines)


def test_a_run_writes_attributes_of_what_it_tested(tiny_recipe: str) -> None:
    record = train(config.load(tiny_recipe))
    (found,) = Path(record.config["trainer"]["out"]).rglob(PREDICTIONS)
    cell = found.parent
    table = PredictionTable.read_jsonl(cell / PREDICTIONS)
    rows = map(json.loads, (cell / UTTERANCES).read_text().splitlines())
    known = {row["id"]: row for row in rows}
    assert set(known) == set(table.ids)
    assert {row["gender"] for row in known.values()} == {"female", "male"}


# In a browser.


@pytest.mark.slow
def test_a_browser_shows_it(suite: Callable[..., Path], chromium: Any) -> None:
    folder = suite()
    report_suite.made(folder)
    chromium.size(1200, 900)
    chromium.scheme("light")
    chromium.open(f"file://{folder / 'report.html'}")
    shown = chromium.run(
        "return [...document.querySelectorAll('section')].map(s => [s.id, s.offsetHeight > 40])"
    )
    assert shown == [[anchor, True] for anchor, *_ in SECTIONS if anchor not in ABSENT]
    # a table sorts by numbers where it has them, and says so
    column = """
        const table = document.querySelector("#results table");
        const at = [...table.tHead.rows[0].cells].findIndex(
            h => h.innerText.startsWith(arguments[0]));
        const head = table.tHead.rows[0].cells[at];
        if (arguments[1]) head.querySelector("button").click();
        return [head.ariaSort, [...table.tBodies[0].rows].map(r => r.cells[at].innerText)];
    """
    _, before = chromium.run(column, "UAR", False)
    said, falling = chromium.run(column, "UAR", True)
    assert (said, falling) == ("descending", sorted(before, key=float, reverse=True))
    said, rising = chromium.run(column, "UAR", True)
    assert (said, rising) == ("ascending", sorted(before, key=float))
    assert chromium.run(column, "head", True)[1] == sorted(report_suite.HEADS)
    assert chromium.run(column, "UAR", False)[0] is None
    differences = chromium.run(column, "difference", True)[1]
    assert differences[-1] == "baseline"  # what has no number is last
    light = chromium.run("return getComputedStyle(document.body).backgroundColor")
    chromium.scheme("dark")
    assert chromium.run("return getComputedStyle(document.body).backgroundColor") != light
    assert chromium.run(
        "const t = document.querySelector('svg text');"
        "return getComputedStyle(t).fill === getComputedStyle(document.body).color"
    )
    chromium.size(390, 844)  # nothing but tables and wide figures is wider than a phone
    assert chromium.run("return document.documentElement.scrollWidth") <= 390
    # names and roles of a table, and of a figure, as a screen reader is told them
    told = chromium.run(
        "return [...document.querySelectorAll('table')].map(t => [t.caption !== null,"
        " [...t.querySelectorAll('thead th')].every(h => h.scope === 'col'),"
        " [...t.querySelectorAll('tbody th')].every(h => h.scope === 'row')])"
    )
    assert told == [[True, True, True]] * len(told)
    assert all(chromium.run("return [...document.querySelectorAll('svg')].map(s => s.ariaLabel)"))
    assert chromium.console() == []
    asked = [a for a in chromium.requests() if not a.startswith(("data:", "about:"))]
    assert [a for a in asked if a.endswith("/report.html")] == asked
    assert asked[0].startswith("file://")


CONTRAST = """
    const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const c = parse(getComputedStyle(at).backgroundColor);
            if (c.length === 3 || c[3] > 0) return c;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const node of document.querySelectorAll("body *:not(svg *):not(script)")) {
        const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !node.checkVisibility()) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.tagName]);
    }
    return found;
"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(suite: Callable[..., Path], chromium: Any, scheme: str) -> None:
    folder = suite()
    report_suite.made(folder)
    chromium.scheme(scheme)
    chromium.open(f"file://{folder / 'report.html'}")
    chromium.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = chromium.run(CONTRAST)
    assert len(found) > 200
    assert [tag for ratio, tag in found if ratio < 4.5] == []  # WCAG 2.2, AA


@pytest.mark.slow
def test_a_keyboard_reaches_everything(suite: Callable[..., Path], chromium: Any) -> None:
    folder = suite()
    report_suite.made(folder)
    chromium.scheme("light")
    chromium.open(f"file://{folder / 'report.html'}")

    def press(key: str, code: int) -> Any:
        # as a real key: ``text`` makes Enter activate what has the focus
        more = {"text": "\r"} if key == "Enter" else {}
        chromium.devtools(
            "Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more
        )
        chromium.devtools("Input.dispatchKeyEvent", type="keyUp", key=key)
        return chromium.run(
            "const e = document.activeElement; const o = getComputedStyle(e);"
            "return [e.tagName, e.innerText.trim(), o.outlineStyle !== 'none']"
        )

    assert press("Tab", 9)[:2] == ["A", "Skip to the content"]
    titles = [title for anchor, title, _ in SECTIONS if anchor not in ABSENT]
    assert [press("Tab", 9)[1] for _ in titles] == titles
    seen = [press("Tab", 9) for _ in range(40)]
    assert all(ring for _, _, ring in seen)  # one sees where the focus is
    assert {"BUTTON", "A", "DIV", "SUMMARY"} <= {tag for tag, _, _ in seen}
    chromium.run("document.querySelector('#results thead button').focus()")
    press("Enter", 13)
    assert chromium.run("return document.querySelector('#results thead th').ariaSort")
    chromium.run("document.querySelector('#results summary').focus()")
    press("Enter", 13)
    assert chromium.run("return document.querySelector('#results details').open")


@pytest.mark.slow
def test_on_paper_everything_is_unfolded_and_nothing_is_cut(
    suite: Callable[..., Path], chromium: Any
) -> None:
    folder = suite()
    report_suite.made(folder)
    chromium.scheme("dark")
    chromium.open(f"file://{folder / 'report.html'}")
    chromium.size(1000, 1400)
    chromium.devtools("Emulation.setEmulatedMedia", media="print")
    try:
        assert not chromium.run("return document.querySelector('nav').checkVisibility()")
        assert chromium.run(
            "return [...document.querySelectorAll('details:not([open]) > :not(summary)')]"
            ".every((n) => n.offsetHeight > 0)"
        )
        white = chromium.run("return getComputedStyle(document.body).backgroundColor")
        assert white == "rgb(255, 255, 255)"
        assert chromium.run(
            "return [...document.querySelectorAll('.scroll')]"
            ".every((n) => getComputedStyle(n).overflowX === 'visible')"
        )
    finally:
        chromium.devtools("Emulation.setEmulatedMedia", media="")


def test_the_cost_table_has_processor_seconds_and_operations(
    suite: Callable[..., Path], tmp_path: Path
) -> None:
    folder = suite(("one",), (0, 1))
    for fold, seconds in ((0, 3.0), (1, 4.0)):
        path = folder / "cells" / f"one-0-{fold}" / RECORD
        costs = {
            "processor_seconds": {"fit": seconds, "total": 9.0},
            "flops": {"training": 1000e9 * seconds, "scoring": 25e6},
        }
        path.write_text(json.dumps(json.loads(path.read_text()) | costs))
    packed = pack(folder, tmp_path / "packed")
    for where in (folder, packed):
        sections, _ = report_suite.made(where)
        for number in ("3.5", "3,500.0", "0.025"):  # means over folds
            assert number in sections["cost"]
        first, second = json.loads((where / "summary.json").read_text())["rows"]
        found = [first[k] for k in ("processor_seconds", "training_flops", "scoring_flops")]
        assert found == [3.5, 3500e9, 25e6]
        assert second["training_flops"] is None  # its records are of before
