"""The tables of ``docs/results`` and ``benchmarks/README.md``, computed from the packed results.

    python benchmarks/publish.py pages       # write them anew

A comment at the end of the paragraph above a table names it: ``<!-- table: few_shot_whisper -->``.
The table below it is computed, and the sentences are written by hand.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

from ingredients import ingredients
from serzoo.zoo.compare.ensemble import ensemble
from serzoo.zoo.compare.replicate import Replication, read_claim, replicate
from serzoo.zoo.core import shipped
from serzoo.zoo.core.errors import DataError, suggest
from serzoo.zoo.core.files import write_text
from serzoo.zoo.core.table import Cell, Line, Table, cell, p_text, span
from serzoo.zoo.report.answers import Asked, Question, ask, between
from serzoo.zoo.report.grids import grids
from serzoo.zoo.report.runs import by_pair, find_cells
from serzoo.zoo.report.summary import Result, rows_of
from serzoo.zoo.run.record import read_plan
from serzoo.zoo.statistics.contrasts import NEW, THESE, difference
from serzoo.zoo.statistics.priors import matched

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (*sorted((ROOT / "docs" / "results").glob("*.md")), ROOT / "benchmarks" / "README.md")
MARKER = re.compile(r"(<!-- table: (\S+) -->\n\n)((?:\|.*\n)*)")

CORPORA = {"ravdess": "RAVDESS", "emodb": "EMO-DB", "nemo": "nEMO"}
PAIRS = tuple(permutations(sorted(CORPORA), 2))
LABELS = {
    "linear_svm": "linear SVM",
    "gen_ser_target_only": "gen_ser, published objective",
    "four_heads_mean": "mean of four heads and five seeds",
    "svm_eGeMAPSv02": "SVM on eGeMAPS",
    "svm_ComParE_2016": "SVM on ComParE",
}
"""Rows whose names in the records do not say what they are."""
BASELINE = "classification"
HEADS = ("classification", "linear_svm", "selm", "gen_ser", "prototype")
SIX = (*HEADS[:4], "gen_ser_target_only", "prototype")
SCRATCH = ("classification", "selm", "gen_ser", "linear", "mlp", "prototype")
SVMS = ("svm_eGeMAPSv02", "svm_ComParE_2016")

X = TypeVar("X")
Y = TypeVar("Y")
Made = Callable[[], Table]
TABLES: dict[str, Made] = {}
"""Each table by the name that a page gives it."""


def named(make: Made) -> Made:
    """Register a table by the name of its function."""
    TABLES[make.__name__] = make
    return make


def filled(text: str) -> str:
    """Return a page with its tables computed anew.

    Raises:
        DataError: if it names a table that does not exist.
    """

    def put(found: re.Match[str]) -> str:
        above, name, _ = found.groups()
        if name not in TABLES:
            raise DataError(f"no table is called '{name}'{suggest(name, TABLES)}")
        return above + TABLES[name]().markdown()

    return MARKER.sub(put, text)


def write_pages() -> list[Path]:
    """Write all pages with their tables computed anew; return those that changed."""
    changed = []
    for page in PAGES:
        old = page.read_text("utf-8")
        if (new := filled(old)) != old:
            write_text(page, new)
            changed.append(page)
    return changed


# What the tables are made of.


@cache
def results_of(name: str) -> list[Result]:
    """Return the rows of a packed suite; differences are not computed."""
    return rows_of(grids(find_cells(RESULTS / name).runs)[0], Asked(baseline=""))


def suite(name: str) -> dict[tuple[str, str], Result]:
    """Return the same by table and head, of a suite with one encoder."""
    return {(r.recipe, r.head): r for r in results_of(name)}


@cache
def record(name: str) -> Any:
    """Return a file of the results that is no suite."""
    return json.loads((RESULTS / name).read_text("utf-8"))


def pivot(
    corner: str,
    down: Mapping[str, X],
    across: Mapping[str, Y],
    value: Callable[[X, Y], Cell | None],
) -> Table:
    """Return a table of a value for each line and column, whose texts are the keys."""
    body: list[Line] = [[name, *(value(x, y) for y in across.values())] for name, x in down.items()]
    return Table("", (corner, *across), body)


def uar(found: Result, spread: bool = False) -> Cell:
    """Return a mean UAR over seeds, with its standard deviation if seeds differ by 0.0005."""
    differ = spread and found.uar.n > 2 and found.uar.sd >= 0.0005
    return Cell(str(found.uar) if differ else f"{found.uar.mean:.3f}", found.uar.mean)


def change(value: float, low: float | None, high: float | None) -> Cell:
    """Return a difference, with its interval if it has one."""
    inside = "" if low is None or high is None else f" ({span(low, high, '+.3f')})"
    return Cell(f"{value:+.3f}{inside}", value)


def labels(names: Sequence[str], baseline: str = "") -> dict[str, str]:
    """Return heads by what a reader reads."""
    return {LABELS.get(n, n) + (" (baseline)" if n == baseline else ""): n for n in names}


def corpora_of(name: str, corpora: Sequence[str], head: str = "classification") -> dict[str, str]:
    """Return corpora by their title, number of emotions and number of test utterances."""
    rows = [suite(name)[corpus, head] for corpus in corpora]
    return {
        f"{CORPORA[r.recipe]} ({len(r.recalls)} emotions, {r.utterances:,} utterances)": r.recipe
        for r in rows
    }


def heads_table(name: str, heads: Sequence[str], corpora: Sequence[str]) -> Table:
    """Return UAR with its deviation over seeds: heads down, corpora across.

    The last line is the interval of the baseline.
    """
    rows, across = suite(name), corpora_of(name, corpora)
    found = pivot(
        "head",
        labels(heads, "classification"),
        across,
        lambda head, corpus: uar(rows[corpus, head], spread=True),
    )
    bounds = [span(*rows[corpus, "classification"].interval) for corpus in across.values()]
    last: Line = ["95 % interval of the baseline, new speakers", *bounds]
    return Table("", found.columns, [*found.rows, last])


def matrix(name: str, ending: str = "") -> Table:
    """Return UAR of classification, by the corpus of the training and that of the test."""
    rows = suite(name)
    order = sorted(CORPORA)

    def value(source: str, target: str) -> Cell | None:
        if source == target:
            return None
        return uar(rows[f"big4_transfer, {source} to {target}{ending}", "classification"])

    across = {f"tested on {CORPORA[c]}": c for c in order}
    return pivot("UAR of classification, trained on", {CORPORA[c]: c for c in order}, across, value)


def conditions(
    name: str, corner: str, down: Mapping[str, str], across: Mapping[str, tuple[str, str]]
) -> Table:
    """Return UAR under conditions: conditions down, a recipe with its settings and a head across.

    Args:
        name: suite of conditions.
        corner: title of the first column.
        down: conditions by what a reader reads.
        across: for each column a recipe, in which ``{}`` is the condition, and a head.
    """
    rows = suite(name)
    return pivot(corner, down, across, lambda c, of: uar(rows[of[0].format(c), of[1]]))


def heads_under(
    name: str, corner: str, down: Mapping[str, str], corpus: str, heads: Sequence[str]
) -> Table:
    """Return UAR of heads on a corpus under conditions; see :func:`conditions`."""
    across = {title: (f"{corpus}, {{}}", head) for title, head in labels(heads).items()}
    return conditions(name, corner, down, across)


def shots(name: str, recipe: str, tuning: str, k: int, head: str) -> Result:
    """Return the row of a head after k utterances of each emotion; with k = 0, none is tuned."""
    return suite(name)[f"{recipe}, {k} shots{f', {tuning}' if k else ''}", head]


TRANSFER = {"cross_corpus_whisper": "", "cross_corpus": ", protocol=one-to-rest"}
"""Suites that go from one corpus to each other, and how their tables of these cells end."""


def pair_of(name: str, source: str, target: str) -> str:
    """Return the table of a suite of ``TRANSFER`` that goes from one corpus to another."""
    return f"big4_transfer, {source} to {target}{TRANSFER[name]}"


@cache
def transfer(name: str, by: str) -> dict[tuple[str, str], float]:
    """Return mean UAR over seeds by pair of corpora and head, of a suite of ``TRANSFER``.

    Args:
        name: the suite.
        by: ``corpus`` or ``speaker``: what has the class prior (:func:`.priors.matched`).
    """
    found: dict[tuple[str, str], list[float]] = {}
    for run in by_pair(find_cells(RESULTS / name).runs):
        value = matched(run.table, by).metrics()["uar"]
        found.setdefault((run.group[0], run.head), []).append(value)
    return {key: statistics.fmean(values) for key, values in found.items()}


def mean_of_pairs(name: str, head: str, by: str = "") -> Cell:
    """Return the mean over the six pairs of corpora; see :func:`transfer`."""
    plain = {key: r.uar.mean for key, r in suite(name).items()}
    values = transfer(name, by) if by else plain
    return cell(statistics.fmean(values[pair_of(name, *pair), head] for pair in PAIRS))


# Which head is best?


@named
def head_to_head_whisper() -> Table:
    heads = (*SIX, "regress_codes", "gen_ser_ce")
    return heads_table("head_to_head_whisper", heads, tuple(CORPORA))


@named
def head_to_head() -> Table:
    made = heads_table("head_to_head", SIX, tuple(CORPORA))
    rows = suite("head_to_head")
    found = {corpus: rows.get((corpus, "four_heads_mean")) for corpus in CORPORA}
    line: Line = [LABELS["four_heads_mean"], *(uar(r) if r else None for r in found.values())]
    return Table("", made.columns, [*made.rows[:-1], line, made.rows[-1]])


@named
def head_to_head_scratch() -> Table:
    return heads_table("head_to_head_scratch", (*SCRATCH, *SVMS), ("ravdess", "emodb"))


@named
def heads_short() -> Table:
    down = {
        f"{encoder}: {title}": (name, corpus)
        for encoder, name, corpora in (
            ("Whisper-base", "head_to_head_whisper", tuple(CORPORA)),
            ("serzoo-small", "head_to_head", ("ravdess", "emodb")),
        )
        for title, corpus in corpora_of(name, corpora).items()
    }
    return pivot(
        "UAR on frozen frames",
        down,
        labels(HEADS),
        lambda of, head: uar(suite(of[0])[of[1], head]),
    )


# Which ingredient of a head matters?

WORTH = {
    "SELM's language model learns, against random weights": ("selm", "selm_frozen_random"),
    "Gen-SER's codes are far apart, against neighbours alike": ("gen_ser", "gen_ser_spacing_1"),
    "attentive statistics, against the mean and a linear layer": ("classification", "linear"),
    "Gen-SER's path, against regressing the codes at t = 1": ("gen_ser", "regress_codes"),
    "sinusoidal codes, against one-hot codes": ("gen_ser", "gen_ser_one_hot"),
    "the classes' own names, against each other's (SELM)": ("selm", "selm_shuffled"),
}


@cache
def _ingredients(corpus: str) -> dict[tuple[str, str], Any]:
    folder = RESULTS / f"ablation_{corpus}"
    found = ingredients(grids(find_cells(folder).runs)[0], Asked.of(read_plan(folder)))
    return {(i.first, i.second): i.difference for i in found}


def _worth(down: Mapping[str, tuple[str, str]], corner: str, bounds: bool) -> Table:
    def value(pair: tuple[str, str], corpus: str) -> Cell:
        d = _ingredients(corpus)[pair]
        return change(d.value, *((d.these.low, d.these.high) if bounds else (None, None)))

    return pivot(corner, down, {CORPORA[c]: c for c in ("ravdess", "emodb")}, value)


@named
def ingredients_frozen() -> Table:
    return _worth(WORTH, "ingredient", bounds=True)


ENSEMBLED = {"learns from nothing": "ablation_scratch", "frozen serzoo-small": "head_to_head"}


@named
def ensembles() -> Table:
    """Rows for each corpus and encoder: seeds of one head, then of three heads, averaged."""
    columns = ("averaged", "corpus, encoder", "UAR of one, mean", "together", "gain")
    body: list[Line] = []
    for text, members in (
        ("seeds of classification", ["classification"]),
        ("seeds of classification, SELM and Gen-SER", ["classification", "selm", "gen_ser"]),
    ):
        for encoder, name in ENSEMBLED.items():
            for corpus in ("ravdess", "emodb"):
                done = ensemble(
                    name, members=members, name="all", recipe=corpus, dry_run=True, out=str(RESULTS)
                )
                alone = [r for r in find_cells(done.folder).runs if r.group[0] == corpus]
                made, _ = grids([*(r for r in alone if r.head == "classification"), *done.rows])
                one, all_ = rows_of(made, Asked(baseline="classification"))
                d = all_.difference
                gain = change(d.value, d.these.low, d.these.high)
                where = f"{CORPORA[corpus]}, {encoder}"
                body.append([text, where, uar(one), uar(all_), gain])
    return Table("", columns, body)


@named
def ingredients_short() -> Table:
    pairs = list(WORTH.values())
    down = {
        "SELM's language model learns": pairs[0],
        "Gen-SER's codes are far apart": pairs[1],
        "Gen-SER's path": pairs[3],
    }
    return _worth(down, "UAR with it minus UAR without it, frozen frames", bounds=False)


def against(name: str, rows: Mapping[str, str], corpora: Sequence[str], corner: str) -> Table:
    """Return UAR of heads, and its difference to that of the first, for new trainings.

    Args:
        name: a suite with one encoder.
        rows: heads by what a reader reads.
        corpora: recipes of the suite.
        corner: title of the first column.
    """
    of = {grid.recipe: grid for grid in grids(find_cells(RESULTS / name).runs)[0]}
    first, *others = rows.values()
    found = ask(
        [
            Question((c, h), of[c], between(of[c], h, first), declared=True)
            for c in corpora
            for h in others
        ],
        Asked.of(read_plan(RESULTS / name)),
    )

    def gain(corpus: str, head: str) -> Cell | None:
        if head == first:
            return None
        d = found[corpus, head]
        return change(d.value, d.new.low, d.new.high)

    columns = [corner]
    body: list[Line] = [[text] for text in rows]
    for corpus in corpora:
        columns += [CORPORA[corpus], f"{CORPORA[corpus]}, minus the first"]
        for line, head in zip(body, rows.values(), strict=True):
            line += [uar(suite(name)[corpus, head], True), gain(corpus, head)]
    return Table("", columns, body)


@named
def gen_ser_parts() -> Table:
    rows = {
        "published objective: logistic mean, bridge, one step": "gen_ser_target_only",
        "linear mean": "gen_ser_linear",
        "cosine mean": "gen_ser_cosine",
        "no noise": "gen_ser_no_noise",
        "constant noise": "gen_ser_constant",
        "flow matching, 8 steps": "gen_ser_flow",
        "score matching, 8 steps": "gen_ser_score",
        "4 steps": "gen_ser_steps",
        "4 steps with noise, mean of 8": "gen_ser_sde",
    }
    return against("gen_ser_parts", rows, ["ravdess", "emodb"], "UAR, frozen serzoo-small")


@named
def gender() -> Table:
    rows = labels((*HEADS[:2], "gen_ser_target_only"))
    return against("gender", rows, tuple(CORPORA), "UAR of two genders, frozen serzoo-small")


# From corpus to corpus, and out of domain.


def transfer_table(name: str) -> Table:
    """Return UAR of heads by pair of corpora, its means, and those with matched priors."""
    rows = suite(name)
    heads = labels((*SIX, "regress_codes"))
    made = pivot(
        "trained on → tested on",
        {f"{CORPORA[a]} → {CORPORA[b]}": pair_of(name, a, b) for a, b in PAIRS},
        heads,
        lambda pair, head: uar(rows[pair, head]),
    )
    means = {
        "mean of the six": "",
        "the mean, class prior matched": "corpus",
        "the mean, prior of each speaker matched": "speaker",
    }
    below = pivot("", means, heads, lambda by, head: mean_of_pairs(name, head, by))
    return Table("", made.columns, [*made.rows, *below.rows])


@named
def cross_corpus_whisper() -> Table:
    return transfer_table("cross_corpus_whisper")


@named
def cross_corpus() -> Table:
    return transfer_table("cross_corpus")


@named
def cross_corpus_means() -> Table:
    return pivot(
        "mean UAR of six pairs, frozen Whisper-base",
        {"as it is": "", "class prior matched": "corpus"},
        labels(HEADS),
        lambda by, head: mean_of_pairs("cross_corpus_whisper", head, by),
    )


@named
def emogator() -> Table:
    heads = labels(SIX)
    across = {"serzoo-small": "emogator", "Whisper-tiny.en": "emogator_whisper"}
    return pivot(
        "UAR, 7 classes", heads, across, lambda head, name: uar(suite(name)["emogator", head], True)
    )


@named
def cross_corpus_scratch() -> Table:
    return matrix("cross_corpus_scratch", ", protocol=one-to-rest")


@named
def out_of_domain() -> Table:
    return matrix("out_of_domain")


# Corrupted audio, and prosody.

CORRUPTED = {
    "clean": "clean",
    "noise at 20 dB": "noise:20dB",
    "noise at 10 dB": "noise:10dB",
    "telephone": "telephone",
    "a room": "reverb",
}


@named
def robustness_ravdess() -> Table:
    return heads_under("robustness", "RAVDESS", CORRUPTED, "ravdess", SIX)


@named
def robustness_emodb() -> Table:
    return heads_under("robustness", "EMO-DB", CORRUPTED, "emodb", SIX)


MORE_CORRUPTED = CORRUPTED | {"the first second": "first:1s"}
FIVE = ("classification", "linear_svm", "selm", "gen_ser", "gen_ser_target_only")


@named
def robustness_whisper_ravdess() -> Table:
    return heads_under("robustness_whisper", "RAVDESS", MORE_CORRUPTED, "ravdess", FIVE)


@named
def robustness_whisper_emodb() -> Table:
    return heads_under("robustness_whisper", "EMO-DB", MORE_CORRUPTED, "emodb", FIVE)


@named
def robustness_copies() -> Table:
    across = {
        f"{CORPORA[corpus]}, {count}": (f"{corpus}, {{}}, data.corrupted_copies={n}", "linear_svm")
        for corpus in ("ravdess", "emodb")
        for count, n in (("none", 0), ("three", 3), ("six", 6))
    }
    return conditions("robustness_copies", "test audio", CORRUPTED, across)


@named
def robustness_scratch() -> Table:
    down = {
        "clean": "clean",
        "noise at 20 dB": "noise:20dB",
        "noise at 0 dB": "noise:0dB",
        "a room": "reverb",
        "telephone": "telephone",
        "MP3 at 16 kbit/s": "mp3:16k",
        "Opus at 12 kbit/s": "opus:12k",
        "the first second": "first:1s",
        "the middle two seconds": "centre:2s",
    }
    heads = ("classification", "selm", "gen_ser", *reversed(SVMS))
    return heads_under("robustness_scratch", "test audio", down, "emodb", heads)


@named
def robustness_short() -> Table:
    rows = suite("robustness")
    heads = labels(FIVE)
    return pivot("UAR on RAVDESS", heads, CORRUPTED, lambda h, c: uar(rows[f"ravdess, {c}", h]))


@named
def prosody() -> Table:
    down = {
        "clean": "clean",
        "analysed and synthesised by WORLD": "resynthesised",
        "the same, with flat F0": "monotone",
        "only what is below 400 Hz": "lowpass:400Hz",
        "time reversed": "reversed",
    }
    heads = ("classification", "selm", "gen_ser")
    return heads_under("prosody", "test audio", down, "emodb", heads)


# Few labels, and weak labels.


def _few_on_whisper(
    corner: str, heads: Sequence[str], spread: bool, name: str = "few_shot_whisper"
) -> Table:
    corpus = "nemo" if name.endswith("nemo") else "emodb"
    at = partial(shots, name, f"{corpus}, from ravdess", "head")

    def value(head: str, k: int | None) -> Cell:
        if k is None:
            return cell(at(4, head).uar.mean - at(0, head).uar.mean, "+.3f")
        return uar(at(k, head), spread)

    across: dict[str, int | None] = {f"k = {k}": k for k in (0, 1, 4, 16)}
    return pivot(corner, labels(heads), across | {"gain of four": None}, value)


@named
def few_shot_whisper() -> Table:
    heads = ("classification", "selm", "gen_ser", "gen_ser_target_only")
    return _few_on_whisper("head", heads, spread=True)


@named
def few_shot_whisper_nemo() -> Table:
    heads = ("classification", "selm", "gen_ser", "gen_ser_target_only")
    return _few_on_whisper("head", heads, spread=True, name="few_shot_whisper_nemo")


@named
def few_shot_short() -> Table:
    corner = "UAR on EMO-DB after k utterances of each emotion, Whisper-base"
    return _few_on_whisper(corner, ("classification", "selm", "gen_ser"), spread=False)


@named
def few_shot() -> Table:
    return pivot(
        "head",
        labels(("classification", "gen_ser", "selm", *SVMS)),
        {f"k = {k}": k for k in (0, 1, 2, 4, 8, 16, 32, 64)},
        lambda head, k: uar(shots("few_shot", "ravdess, from emodb", "full", k, head)),
    )


ARMS = {
    "nothing": "classification",
    "weak labels": "classification after weak",
    "the same labels, shuffled": "classification after shuffled",
    "the emotions that the voices act": "classification after human",
}


def _by_share(corner: str, arms: Mapping[str, str], shares: Sequence[float]) -> Table:
    rows = suite("label_efficiency")
    across = {f"{100 * share:.0f} %": f"lanser_finetune, share={share}" for share in shares}
    return pivot(corner, arms, across, lambda arm, share: uar(rows[share, arm]))


@named
def label_efficiency() -> Table:
    return _by_share("pre-trained on", ARMS, (0.01, 0.05, 0.1, 0.25, 0.5, 1.0))


@named
def lanser_speech() -> Table:
    """UAR by corpus and share of human labels, after each pre-training on real talk."""
    rows = suite("lanser_speech")
    across = {
        f"{CORPORA[corpus]}, {100 * share:.0f} %": f"{corpus}, share={share}"
        for corpus in ("ravdess", "emodb")
        for share in (0.1, 0.25, 1.0)
    }
    arms = dict(list(ARMS.items())[:3])
    return pivot("pre-trained on", arms, across, lambda arm, share: uar(rows[share, arm], True))


@named
def label_efficiency_short() -> Table:
    arms = dict(list(ARMS.items())[:3])
    corner = "UAR by share of human labels, pre-trained on"
    return _by_share(corner, arms, (0.01, 0.1, 1.0))


# The classical anchor, and the mean of a speaker.


def _anchor(corner: str, names: Mapping[str, str], corpora: Sequence[str], spread: bool) -> Table:
    rows = suite("head_to_head")
    across = {CORPORA[c]: c for c in corpora}
    return pivot(corner, names, across, lambda head, c: uar(rows[c, head], spread))


@named
def anchor_frozen() -> Table:
    names = {
        "classification, serzoo-small": "classification",
        "linear SVM, serzoo-small": "linear_svm",
        "SVM on ComParE 2016": "svm_ComParE_2016",
    }
    return _anchor("", names, tuple(CORPORA), spread=True)


@named
def anchor_short() -> Table:
    names = {
        "SVM on ComParE 2016": "svm_ComParE_2016",
        "classification, frozen serzoo-small": "classification",
    }
    return _anchor("UAR", names, ("ravdess", "emodb"), spread=False)


@named
def anchor_scratch() -> Table:
    rows = suite("real_scratch")
    across = {CORPORA[c]: c for c in ("ravdess", "emodb")}

    def value(head: str, corpus: str) -> Cell:
        if head:
            return uar(rows[corpus, head])
        ours = [r for (c, h), r in rows.items() if c == corpus and h not in SVMS]
        best = max(ours, key=lambda r: r.uar.mean)
        return Cell(f"{best.uar.mean:.3f} ({best.head})", best.uar.mean)

    down = {
        "SVM on eGeMAPS": "svm_eGeMAPSv02",
        "SVM on ComParE 2016": "svm_ComParE_2016",
        "best head, shipped log-mel encoder": "",
    }
    return pivot("", down, across, value)


@named
def normalised() -> Table:
    rows = suite("normalised")

    def mean(corpus: str, beside: str | None, way: str) -> Result:
        return rows[f"{corpus}, data.normalise={way}, utterance={beside}", "linear_svm"]

    def value(of: tuple[str, str | None], way: str) -> Cell:
        found = mean(*of, way or "speaker")
        return uar(found) if way else cell(found.uar.mean - mean(*of, "none").uar.mean, "+.3f")

    down: dict[str, tuple[str, str | None]] = {
        f"{CORPORA[corpus]}, serzoo-small{f' + {beside}' if beside else ''}": (corpus, beside)
        for beside in (None, "functionals")
        for corpus in ("emodb", "ravdess")
    }
    across = {"`none`": "none", "`speaker`": "speaker", "`enrol:16`": "enrol:16"}
    return pivot("corpus, encoder", down, across | {"`speaker` minus `none`": ""}, value)


@named
def normalised_frames() -> Table:
    def value(of: tuple[str, str], way: str) -> Cell:
        corpus, encoder = of
        (found,) = (
            r
            for r in results_of("normalised_frames")
            if r.recipe == f"{corpus}, data.normalise={way}" and r.encoder.startswith(encoder)
        )
        return uar(found)

    encoders = {"functionals": "functionals", "Whisper-base, layer 4": "whisper-base"}
    down = {
        f"{CORPORA[corpus]}, {text}": (corpus, encoder)
        for text, encoder in encoders.items()
        for corpus in ("emodb", "ravdess")
    }
    ways = ("none", "speaker", "enrol:16", "enrol:4")
    return pivot("corpus, encoder", down, {f"`{way}`": way for way in ways}, value)


Way = tuple[str, str, str]
"""A row of a table: the suite, its recipe (the table's name) and the head."""


def two_ways(columns: Sequence[str], rows: Mapping[str, tuple[Way, Way]]) -> Table:
    """Return UAR of two ways on the same utterances, and the first one minus the second one.

    The interval is for new trainings. If all trainings are alike, it is for new speakers only.
    """
    body: list[Line] = []
    for title, ways in rows.items():
        found = [_grids(name)[recipe] for name, recipe, _ in ways]
        cells = [grid.cells(way[2]) for grid, way in zip(found, ways, strict=True)]
        asked = Question(title, found[0], difference(*cells), declared=True)
        d = ask([asked], Asked(baseline="classification"))[title]
        means = [uar(suite(name)[recipe, head], True) for name, recipe, head in ways]
        bounds = d.these if math.isnan(d.new.low) else d.new
        body.append([title, *means, change(d.value, bounds.low, bounds.high)])
    return Table("", (*columns, "difference (interval)"), body)


@cache
def _grids(name: str) -> dict[str, Any]:
    return {grid.recipe: grid for grid in grids(find_cells(RESULTS / name).runs)[0]}


@named
def standardised() -> Table:
    def way(corpus: str, name: str, rate: float) -> Way:
        return "standardise", f"{corpus}, data.standardise={name}, optim.lr={rate}", BASELINE

    return two_ways(
        ("corpus, learning rate", "standardised", "as they are"),
        {
            f"{CORPORA[corpus]}, rate {rate:g}": (
                way(corpus, "auto", rate),
                way(corpus, "none", rate),
            )
            for corpus in ("ravdess", "emodb")
            for rate in (0.001, 0.003)
        },
    )


def _layers(corner: str, heads: Sequence[str]) -> Table:
    return two_ways(
        (corner, "layers 2 to 5", "layer 4"),
        {
            f"{CORPORA[corpus]}, {text}": (
                ("layers_whisper", corpus, head),
                ("head_to_head_whisper", corpus, head),
            )
            for corpus in CORPORA
            for text, head in labels(heads).items()
        },
    )


@named
def layers_side_by_side() -> Table:
    return _layers("corpus, head", (BASELINE, "linear_svm"))


@named
def layers_short() -> Table:
    return _layers("UAR on frozen Whisper-base", (BASELINE,))


@named
def more_corpora() -> Table:
    return two_ways(
        ("nEMO", "RAVDESS and EMO-DB train too", "its own speakers only"),
        {
            text: (("layers_whisper", "nemo_joined", head), ("layers_whisper", "nemo", head))
            for text, head in labels((BASELINE, "linear_svm")).items()
        },
    )


# The papers' claims.


BETTER = {
    "gen_ser_classification": "head_to_head_whisper",
    "lanser_label_efficiency": "lanser_speech",
    "selm_few_shot": "few_shot_whisper",
    "selm_out_of_domain": "cross_corpus_whisper",
}
"""Suites on a better encoder that answer a claim too, whose own suite needs no download."""


@cache
def _answers() -> dict[str, list[Replication]]:
    """Return what packed records say about each claim: of its suite, then of the better one."""
    found = {}
    for name in shipped.names("claim"):
        claim = read_claim(name)
        suites = [claim.suite, *([BETTER[name]] if name in BETTER else [])]
        found[name] = [replicate(claim, RESULTS / suite) for suite in suites]
    return found


@named
def claims() -> Table:
    """Rows of every shipped claim: what it is, and its answers."""
    body: list[Line] = []
    for name, found in _answers().items():
        own, *better = [each.answer if each.told else "not measured" for each in found]
        claim = found[0].claim
        body.append([claim.title, claim.paper.removeprefix("arXiv "), name, own, *better])
        body[-1] += [None] * (5 - len(body[-1]))
    columns = ("claim", "arXiv", "serzoo replicate", "answer", "on a better encoder")
    return Table("", columns, body)


@named
def claims_told() -> Table:
    """Rows of every comparison behind these answers."""
    body: list[Line] = []
    for name, found in _answers().items():
        for told in (row for each in found for row in each.told):
            assert told.value is not None  # these records have answers to every question
            value = change(told.value, told.low, told.high)
            body.append([name, told.table, told.than, cell(told.size), value, told.answer])
    columns = ("claim", "cells", "against", "size", "difference (interval)", "answer")
    return Table("", columns, body)


# Studies of methods, and speed.


TUNINGS = {"frozen": "frozen", "LoRA": "lora", "all weights": "full"}


@named
def tuned() -> Table:
    """Ways of tuning an encoder: UAR, its difference to a frozen one, weights and minutes."""
    runs = find_cells(RESULTS / "tuning_whisper").runs
    grid = {g.recipe: g for g in grids(runs)[0]}
    name, head = "emodb, tuning={}", "classification"
    frozen = grid[name.format("frozen")]
    questions = [
        Question(way, frozen, difference(grid[way].cells(head), frozen.cells(head)), declared=True)
        for way in map(name.format, list(TUNINGS.values())[1:])
    ]
    found = ask(questions, Asked(baseline=head))
    body: list[Line] = []
    for text, way in TUNINGS.items():
        table = name.format(way)
        own = [run.record for run in runs if run.group[0] == table]
        learned = cell(own[0].parameters["trainable"], ",d")
        minutes = cell(statistics.fmean(r.seconds["total"] for r in own) / 60, ".1f")
        d = found.get(table)
        gain = None if d is None else change(d.value, d.these.low_family, d.these.high_family)
        body.append([text, uar(suite("tuning_whisper")[table, head]), gain, learned, minutes])
    columns = ("Whisper-tiny.en, EMO-DB", "UAR", "minus frozen", "learned weights", "minutes")
    return Table("", columns, body)


@named
def frozen_seconds() -> Table:
    time = record("frozen_random.json")["time"]
    steps = {"encoding": "encode", "fitting": "fit", "evaluating": "evaluate", "the rest": "other",
             "all": "total"}  # fmt: skip
    body: list[Line] = [[step, cell(time[key], ".0f")] for step, key in steps.items()]
    return Table("", ("step", "seconds"), body)


@named
def frozen_counts() -> Table:
    time = record("frozen_random.json")["time"]
    counts = {
        "finished cells": "cells",
        "recordings encoded, in all cells together": "encoded",
        "stored frames taken instead, times": "reused",
    }
    body: list[Line] = [[text, cell(time[key], ",d")] for text, key in counts.items()]
    return Table("", ("what", "how many"), body)


RULES = ("best", "pooled", "last", "more", "oracle")


def _selection() -> dict[str, Any]:
    of = record("selection.json")["corpora"]
    return {
        f"{CORPORA[corpus]}, {head}": own
        for corpus in sorted(of)
        for head, own in of[corpus]["heads"].items()
    }


@named
def selection_rules() -> Table:
    return pivot("", _selection(), {rule: rule for rule in RULES}, _rule)


def _rule(own: Mapping[str, Any], rule: str) -> Cell:
    return cell(statistics.fmean(own["rules"][rule]))


@named
def selection_differences() -> Table:
    body: list[Line] = []
    for contrast in ("best - last", "pooled - last", "more - best"):
        for name, own in _selection().items():
            a = own["contrasts"][contrast]
            line: Line = [f"{contrast}: {name}", cell(a["value"], "+.3f")]
            for basis in (THESE, NEW):
                s = a[basis]
                bounds = span(s["low_family"], s["high_family"], "+.3f")
                line = [*line, f"{bounds} (p {p_text(s['p_family'])})"]
            body.append([*line, a["verdict"]])
    margin = record("selection.json")["margin"]
    columns = ("difference", "UAR", THESE, NEW, f"verdict, margin {margin:g}")
    return Table("", columns, body)


def _within(values: Mapping[str, float], form: str) -> Cell:
    bounds = span(values["lowest"], values["highest"], form)
    return Cell(f"{values['median']:{form}} ({bounds})", values["median"])


@named
def speed_encoding() -> Table:
    row = record("speed/encoding.json")["encoding"]
    loop = row["plain"]
    body: list[Line] = [
        ["plain loop, float32, batch 8 padded", cell(1, "d"), _within(loop["real_time"], ".0f"),
         cell(loop["relative"], ".1e")],
    ]  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        mine = row[dtype]
        times = _within(mine["ratio"], ".2f"), _within(mine["real_time"], ".0f")
        body.append([f"serzoo, {dtype}", *times, cell(mine["relative"], ".1e")])
    return Table("", ("", "ratio to the plain loop", "times real time", "relative error"), body)


@named
def speed_streaming() -> Table:
    models = record("speed/streaming.json")["models"]
    names = {
        "serzoo-small": "`serzoo-small`",
        "wav2vec2-base's size": "wav2vec2-base's size, bfloat16",
    }
    return pivot(
        "`serzoo predict`, seconds of work for a second of sound",
        {names[key]: of for key, of in models.items()},
        {"file of two channels": "file", "pipe of one channel": "pipe"},
        lambda of, way: _within(of[way]["real_time_factor"], ".3f"),
    )


@named
def scale() -> Table:
    found = record("scale.json")
    down = {
        "`serzoo prepare`": "prepare",
        "killed half way, then started again: the second call": "resumed",
        "read the manifest": "read_manifest",
        "open it as a run does, first time": "open_first",
        "open it again": "open_again",
    }
    across = {
        "clock, s": "seconds",
        "processor, s": "processor_seconds",
        "peak memory, MB": "peak_mb",
    }
    corner = f"{found['rows']:,} recordings, {found['processes']} processes"
    return pivot(corner, down, across, lambda row, what: cell(found.get(f"{row}_{what}"), ".0f"))
