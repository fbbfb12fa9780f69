"""Verdicts of a report: what is compared to what, in which family, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import report_suite
from facts import tells
from serzoo.zoo.report.answers import Asked, kept, references, to_baseline, verdicts
from serzoo.zoo.report.grids import grids
from serzoo.zoo.report.overview import (
    degradation,
    degradation_tables,
    kept_markdown,
    kept_tables,
)
from serzoo.zoo.report.runs import Run
from serzoo.zoo.report.summary import rows_of
from serzoo.zoo.report.table import below_anchor, latex, markdown, tables
from serzoo.zoo.run.record import Record, SuiteRecord
from serzoo.zoo.statistics.contrasts import UNDECLARED
from serzoo.zoo.statistics.rates import wa_of
from serzoo.zoo.statistics.table import PredictionTable

BASE = "classification"
CLASSES = ["a", "b"]


def run(head: str, right: Sequence[int], seed: int = 1, recipe: str = "r", **record: Any) -> Run:
    """A cell of as many speakers as there are numbers, each with that many of 10 right."""
    labels = np.tile(np.arange(10) % 2, len(right))
    hit = np.concatenate([np.arange(10) < n for n in right])
    answers = np.where(hit, labels, 1 - labels)
    who = [f"c/s{i // 10}" for i in range(len(labels))]
    ids = [f"c/u{i}" for i in range(len(labels))]
    table = PredictionTable(ids, who, labels, np.eye(2)[answers], CLASSES)
    entry = report_suite.record(recipe, head, 0, seed, **record)
    condition = record.get("condition", "")
    return Run(f"{head}-{seed}-{condition}", Record.from_json(entry), table)


# 8 speakers; `good` is better for each of them, by amounts that vary
PLAIN = [4, 5, 6, 5, 4, 5, 6, 5]
GOOD = [7, 9, 9, 8, 8, 8, 9, 9]
SAME = [5, 4, 6, 5, 4, 6, 5, 5]


def suite(heads: Mapping[str, Sequence[int]], seeds: int = 1, **record: Any) -> list[Run]:
    return [run(h, right, s + 1, **record) for s in range(seeds) for h, right in heads.items()]


HEADS = {BASE: PLAIN, "good": GOOD, "same": SAME}


def test_a_verdict_for_every_row() -> None:
    made, _ = grids(suite(HEADS))
    found = {key[2]: row for key, row in to_baseline(made, Asked(BASE)).items()}
    assert found["good"].verdict == "better"
    assert found["good"].these.p_family <= 0.05
    assert found["same"].verdict == "undecided"
    assert found["good"].basis == "these models"
    assert found["good"].relative == pytest.approx(67 / 40 - 1)
    text = markdown(rows_of(made, Asked(BASE)), BASE)
    assert "For these models: good is better than classification; same is undecided." in text
    assert "2 in a family" in text


def test_an_imported_row_does_not_change_the_p_of_others() -> None:
    runs = suite(HEADS)
    theirs = [
        run(f"svm{i}", list(np.roll(GOOD, i)), imported={"name": f"svm{i}"}) for i in range(6)
    ]
    alone = to_baseline(grids(runs)[0], Asked(BASE))
    beside = to_baseline(grids([*runs, *theirs])[0], Asked(BASE))
    assert len(beside) == len(alone) + 6
    assert {key: beside[key] for key in alone} == alone
    foreign = next(row for key, row in beside.items() if key[2] == "svm0")
    assert not foreign.declared
    assert UNDECLARED in foreign.note
    assert foreign.these.p_family == foreign.these.p


def test_primary_names_the_family() -> None:
    made, _ = grids(suite(HEADS))
    found = {k[2]: r for k, r in to_baseline(made, Asked(BASE, ("same",))).items()}
    assert {row.family for row in found.values()} == {1}
    assert [found[h].declared for h in ("good", "same")] == [False, True]
    assert UNDECLARED in found["good"].note


def test_a_head_is_declared_with_all_that_it_starts_from() -> None:
    weak = run(BASE, GOOD, pretraining="weak")
    assert weak.head == f"{BASE} after weak"
    assert Asked(BASE, (BASE,)).declares(weak.head, [weak])
    assert Asked(BASE, (weak.head,)).declares(weak.head, [weak])
    assert not Asked(BASE, ("good",)).declares(weak.head, [weak])


def test_a_row_says_that_four_speakers_can_give_no_low_p() -> None:
    made, _ = grids(suite({BASE: PLAIN[:4], "good": GOOD[:4]}))
    (row,) = to_baseline(made, Asked(BASE)).values()
    assert row.smallest_p == 0.125
    assert row.verdict == "undecided"
    assert isnan(row.detectable)
    text = markdown(rows_of(made, Asked(BASE)), BASE)
    line = next(x for x in text.splitlines() if x.startswith("| good |") and "speakers" in x)
    assert tells(line, "4 speakers", "0.125", "undecided")


def test_two_seeds_make_the_verdict_one_about_new_trainings() -> None:
    runs = suite(HEADS)
    second = [
        run(h, [max(n - (h == "good") * 3, 0) for n in right], 2) for h, right in HEADS.items()
    ]
    made, _ = grids([*runs, *second])
    row = next(r for k, r in to_baseline(made, Asked(BASE)).items() if k[2] == "good")
    assert (row.basis, row.n_seeds) == ("new trainings", 2)
    assert row.these.p_family <= 0.05  # these two models are better
    assert row.verdict == "undecided"  # two trainings that differ by so much tell no more


def test_the_margin_decides_what_is_equivalent() -> None:
    made, _ = grids(suite({BASE: PLAIN, "same": SAME}))
    for margin, verdict in ((0.03, "undecided"), (0.3, "equivalent")):
        (row,) = to_baseline(made, Asked(BASE, margin=margin)).values()
        assert (row.verdict, row.margin) == (verdict, margin)


def test_the_metric_of_a_suite_is_that_of_its_differences() -> None:
    # all but two utterances of the second class are gone: UAR and WA differ
    runs = [replace(r, table=r.table.subset([*range(0, 80, 2), 1, 33])) for r in suite(HEADS)]
    made, _ = grids(runs)
    asked = Asked.of(SuiteRecord(baseline=BASE, metric="wa"))
    rows = rows_of(made, asked)
    wa = {r.head: float(wa_of(r.table.confusion())) for r in runs}
    good = next(r for r in rows if r.head == "good")
    assert good.score.mean == pytest.approx(wa["good"])
    assert good.difference.value == pytest.approx(wa["good"] - wa[BASE])
    assert good.difference.value != pytest.approx(good.uar.mean - 0.5)
    assert good.interval[0] < wa["good"] < good.interval[1]
    text = markdown(rows, BASE)
    assert (
        "| head | WA | 95 % interval | difference | relative | verdict | UAR | macro-F1 |" in text
    )
    assert "**WA minus classification's: r, logmel**" in text


def test_absent_classes_are_told_beside_macro_f1() -> None:
    runs = [replace(r, table=r.table.subset(range(0, 80, 2))) for r in suite(HEADS)]
    text = markdown(rows_of(grids(runs)[0], Asked(BASE, metric="macro_f1")), BASE)
    assert tells(text, "no test utterance is b", "macro-F1", "scikit-learn")
    whole = markdown(rows_of(grids(suite(HEADS))[0], Asked(BASE)), BASE)
    assert "scikit-learn" not in whole


# what a head keeps


def loud(heads: Mapping[str, Sequence[int]]) -> list[Run]:
    return [*suite(HEADS, condition="clean"), *suite(heads, condition="noise:0dB")]


def test_what_is_kept_is_a_difference_of_differences() -> None:
    # the baseline loses 2 of 10 for every speaker, `good` 2, and `same` none
    lower = {BASE: [n - 2 for n in PLAIN], "good": [n - 2 for n in GOOD], "same": SAME}
    made, _ = grids(loud(lower))
    rows = {r.head: r for r in kept(made, Asked(BASE))}
    assert set(rows) == {"good", "same"}
    assert rows["good"].recipe == "r, noise:0dB"
    assert rows["good"].reference == "r, clean"
    assert rows["good"].change.value == pytest.approx(0)
    assert rows["same"].change.value == pytest.approx(0.2)
    # above a chance of 0.5, `good` keeps (0.6375 - 0.5) / (0.8375 - 0.5); the baseline has nothing
    assert isnan(rows["good"].share.value)
    text = kept_markdown(list(rows.values()), Asked(BASE))
    assert "**Change of UAR minus that of classification, from r, clean, encoder logmel**" in text
    assert "| r, noise:0dB | same | +0.200 |" in text


def test_the_share_is_of_what_lies_above_chance() -> None:
    high = {BASE: [9, 8, 9, 8, 9, 8, 9, 8], "good": [8, 7, 8, 7, 8, 8, 7, 7]}
    low = {BASE: [7, 6, 7, 6, 7, 6, 7, 6], "good": [8, 7, 8, 7, 8, 8, 7, 7]}
    runs = [*suite(high, condition="clean"), *suite(low, condition="white:0dB")]
    (row,) = kept(grids(runs)[0], Asked(BASE))
    assert row.share.value == pytest.approx(1 - (0.65 - 0.5) / (0.85 - 0.5))
    assert row.change.value == pytest.approx(0.2)


def test_flat_speech_is_compared_with_its_copy_too() -> None:
    runs = [r for c in ("clean", "resynthesised", "monotone") for r in suite(HEADS, condition=c)]
    pairs = [(a.recipe, b.recipe) for a, b in references(grids(runs)[0])]
    assert pairs == [
        ("r, resynthesised", "r, clean"),
        ("r, monotone", "r, clean"),
        ("r, monotone", "r, resynthesised"),
    ]


def test_fewer_labels_are_compared_with_all() -> None:
    runs = [r for share in (0.1, 0.5, 1.0) for r in suite(HEADS, axes={"share": share})]
    pairs = [(a.recipe, b.recipe) for a, b in references(grids(runs)[0])]
    assert pairs == [("r, share=0.1", "r, share=1.0"), ("r, share=0.5", "r, share=1.0")]


def test_models_at_home_are_the_reference_of_those_from_elsewhere() -> None:
    away = [run(h, [max(n - 2, 0) for n in r], recipe="t") for h, r in HEADS.items()]
    away = [replace(r, pair="d to c") for r in away]
    made, _ = grids([*suite(HEADS), *away])
    pairs = [(a.recipe, b.recipe) for a, b in references(made)]
    assert pairs == [("t, d to c", "r")]
    fewer = [replace(r, table=r.table.subset(range(79))) for r in suite(HEADS)]
    assert references(grids([*fewer, *away])[0]) == []


def test_no_shot_is_a_point_of_every_tuning_but_a_new_head() -> None:
    shots: list[Run] = []
    for k, tuning in ((0, ""), (4, ", head"), (8, ", head"), (4, ", scratch"), (8, ", scratch")):
        said = f"from x, {k} shots{tuning}"
        for seed in (1, 2) if k else (1,):
            for head, right in HEADS.items():
                moved = list(np.roll(right, seed))
                shots.append(run(head, moved, seed, shots=k, condition=said))
    made, _ = grids(shots)
    pairs = [(a.recipe, b.recipe) for a, b in references(made)]
    assert pairs == [
        ("r, from x, 0 shots", "r, from x, 8 shots, head"),
        ("r, from x, 4 shots, head", "r, from x, 8 shots, head"),
        ("r, from x, 4 shots, scratch", "r, from x, 8 shots, scratch"),
    ]
    rows = kept(made, Asked(BASE))
    # one cell without a shot stands beside two draws
    assert {r.change.n_seeds for r in rows} == {2}


def test_a_corpus_is_one_family_with_all_its_conditions() -> None:
    made, _ = grids(loud(HEADS))
    found = to_baseline(made, Asked(BASE))
    assert {row.family for row in found.values()} == {4}
    assert {row.change.family for row in kept(made, Asked(BASE))} == {2}


def test_many_undecided_rows_are_counted() -> None:
    made, _ = grids(suite(HEADS))
    row = next(iter(to_baseline(made, Asked(BASE)).values()))
    row = replace(row, verdict="undecided", basis="these models")
    found = {f"h{i}": row for i in range(20)} | {"x": replace(row, verdict="worse")}
    assert verdicts(found, BASE) == (
        "For these models: x is worse than classification; 20 of 21 rows are undecided."
    )
    assert verdicts({}, BASE) == ""


# clusters


def of_corpus(corpus: str, runs: Sequence[Run]) -> list[Run]:
    tables = [
        replace(r.table, speakers=[f"{corpus}/{w[2:]}" for w in r.table.speakers]) for r in runs
    ]
    return [replace(r, table=t) for r, t in zip(runs, tables, strict=True)]


def test_sessions_of_a_corpus_are_its_clusters() -> None:
    runs = of_corpus("iemocap", suite(HEADS))
    known = {f"c/u{i}": {"session": f"Ses0{i // 20}"} for i in range(80)}  # two speakers each
    made, _ = grids(runs, known)
    rows = rows_of(made, Asked(BASE))
    assert {(r.speakers, r.clusters, r.cluster) for r in rows} == {(8, 4, "session")}
    found = rows[1].difference
    assert (found.n_clusters, found.smallest_p) == (4, 0.125)
    text = markdown(rows, BASE)
    assert tells(text, "4 sessions", "new sessions", "jackknife over sessions")
    assert tells(found.note, "4 sessions", "0.125")


def test_without_sessions_there_is_no_interval_and_a_remedy() -> None:
    rows = rows_of(grids(of_corpus("iemocap", suite(HEADS)))[0], Asked(BASE))
    assert rows[0].interval == (None, None)
    assert tells(rows[1].difference.note, "no session", "--attributes", "no interval")


REMARK = "The interval is to new speakers of these 2 sentences."


def test_a_corpus_of_few_sentences_says_what_its_interval_is_about() -> None:
    rows = rows_of(grids(of_corpus("ravdess", suite(HEADS)))[0], Asked(BASE))
    made = tables(rows, BASE)
    assert len(made) == 2  # results, and differences with their own intervals
    for table in made:
        assert REMARK in table.markdown()
        assert f"\\par {REMARK}" in table.latex()
        assert f'<p class="note">{REMARK}</p>' in table.html()
    assert latex(rows, BASE).count(REMARK) == 2
    plain = rows_of(grids(suite(HEADS))[0], Asked(BASE))
    assert plain[0].remarks == []
    assert "sentences" not in markdown(plain, BASE).partition("all folds")[0]


def test_so_do_tables_of_conditions() -> None:
    runs = [
        *of_corpus("ravdess", suite(HEADS, condition="clean")),
        *of_corpus("ravdess", suite({h: v[::-1] for h, v in HEADS.items()}, condition="noise")),
    ]
    asked = Asked(BASE)
    made = kept_tables(kept(grids(runs)[0], asked), asked) + degradation_tables(degradation(runs))
    assert len(made) == 3
    assert all(REMARK in table.notes for table in made)


def test_utterances_of_unknown_speakers_count_in_the_value_alone() -> None:
    runs = [
        replace(r, table=replace(r.table, speakers=[*r.table.speakers[:70], *[""] * 10]))
        for r in suite(HEADS)
    ]
    rows = rows_of(grids(runs)[0], Asked(BASE))
    assert rows[1].uar.mean == pytest.approx(67 / 80)
    assert rows[1].difference.value == pytest.approx(27 / 80)
    assert rows[1].difference.n_clusters == 7
    assert rows[1].interval[0] < 67 / 80 < rows[1].interval[1]
    assert tells(markdown(rows, BASE), "10 without a speaker", "10 of 80", "7 known")


@pytest.mark.parametrize(("svm", "warned"), [(GOOD, True), (PLAIN, False), ([3] * 8, False)])
def test_a_baseline_below_the_linear_svm_is_told(svm: list[int], warned: bool) -> None:
    made, _ = grids(suite({BASE: PLAIN, "linear_svm": svm, "same": SAME}))
    text = markdown(rows_of(made, Asked(BASE)), BASE)
    words = ("baseline", BASE, "below linear_svm", "weak baseline")
    assert tells(text, *words) if warned else "weak baseline" not in text


@pytest.mark.parametrize(("value", "warned"), [(0.0004, False), (0.0006, True)])
def test_a_baseline_is_not_told_to_be_below_by_nothing(value: float, warned: bool) -> None:
    svm: Any = SimpleNamespace(value=value, verdict="equivalent")
    assert bool(below_anchor({"linear_svm": svm}, BASE)) == warned
