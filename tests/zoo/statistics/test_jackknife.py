"""Intervals from leaving speakers out: against scipy, and their coverage by simulation."""

from math import isnan
from typing import NamedTuple

import numpy as np
import pytest
from facts import says
from scipy import stats as scipy_stats
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.statistics.rates import recalls_of, uar_of
from serzoo.zoo.statistics.speakers import (
    by_speaker,
    jackknife,
    labelled_speakers,
    paired_jackknife,
    uar_interval,
)
from serzoo.zoo.statistics.table import PredictionTable

CLASSES = ["a", "b", "c"]


class Bounds(NamedTuple):
    low: float
    high: float


class PValue(NamedTuple):
    p: float


def table_of(right: np.ndarray, c: int = 3) -> PredictionTable:
    """Predictions of ``[G, C, n]`` utterances, right or one class off."""
    g, _, n = right.shape
    labels = np.tile(np.repeat(np.arange(c), n), g)
    predicted = np.where(right.reshape(-1), labels, (labels + 1) % c)
    who = [f"s{i:02d}" for i in range(g) for _ in range(c * n)]
    ids = [str(i) for i in range(len(labels))]
    return PredictionTable(ids, who, labels, np.eye(c)[predicted], [f"c{i}" for i in range(c)])


def ability(rng, g: int, *, mean: float, spread: float = 0.8, c: int = 3) -> np.ndarray:
    """``[G, C, 1]`` chance of each speaker's utterances of each class."""
    logit = mean + spread * (rng.normal(size=(g, 1)) + rng.normal(size=(g, c)))
    return 1 / (1 + np.exp(-logit[..., None]))


def draw(rng, chance: np.ndarray, n: int = 8) -> PredictionTable:
    return table_of(rng.random((*chance.shape[:2], n)) < chance, chance.shape[1])


def resampled(*tables: PredictionTable, draws: int) -> list[np.ndarray]:
    """``[draws]`` UARs of each table when its speakers are drawn anew, as the bootstrap does."""
    names = labelled_speakers(tables[0])
    n = len(names)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    return [uar_of(np.tensordot(weights, by_speaker(t, names), axes=1)) for t in tables]


def percentiles(table: PredictionTable, draws: int) -> Bounds:
    """The interval that this project does not give: percentiles of the bootstrap."""
    return Bounds(*np.quantile(resampled(table, draws=draws)[0], [0.025, 0.975]))


def bootstrapped_p(a: PredictionTable, b: PredictionTable, draws: int) -> PValue:
    """Twice the smaller share of draws on the other side of zero (Davison & Hinkley 1997, 4.2)."""
    first, second = resampled(a, b, draws=draws)
    tail = min((first <= second + 1e-12).sum(), (first >= second - 1e-12).sum())
    return PValue(min(1.0, 2 * (tail + 1) / (draws + 1)))


def coverage(method, g: int, *, mean: float, reps: int, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    truth = float(ability(np.random.default_rng(1), 100_000, mean=mean).mean())
    found = [method(draw(rng, ability(rng, g, mean=mean))) for _ in range(reps)]
    return float(np.mean([f.low <= truth <= f.high for f in found]))


def false_alarms(test, g: int, *, reps: int, seed: int = 0) -> float:
    """How often two heads that are equally good in the population have p < 0.05."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(reps):
        shared = rng.normal(size=(g, 1))
        both = (
            1 / (1 + np.exp(-(0.5 + 0.6 * (shared + rng.normal(size=(g, 3)))[..., None])))
            for _ in range(2)
        )
        found.append(test(*(draw(rng, chance) for chance in both)).p < 0.05)
    return float(np.mean(found))


class TestJackknife:
    def test_equals_a_plain_loop(self):
        t = draw(np.random.default_rng(0), ability(np.random.default_rng(5), 7, mean=0.5))
        names = sorted(set(t.speakers))
        without = [t.subset([i for i in range(len(t)) if t.speakers[i] != s]).uar() for s in names]
        # scipy has no jackknife: the variance of pseudo-values is its definition (Tukey 1958)
        pseudo = 7 * t.uar() - 6 * np.array(without)
        half = scipy_stats.t.ppf(0.95, 6) * scipy_stats.sem(pseudo)
        logit = np.log(t.uar() / (1 - t.uar()))
        reach = half / (t.uar() * (1 - t.uar()))
        found = jackknife(t, level=0.9)
        assert found.value == t.uar()
        assert found.low == pytest.approx(1 / (1 + np.exp(-(logit - reach))))
        assert found.high == pytest.approx(1 / (1 + np.exp(-(logit + reach))))
        assert (found.level, found.n_speakers, found.note) == (0.9, 7, "")

    def test_stays_a_share(self):
        right = np.ones((2, 3, 8), dtype=bool)
        right[0, 0, 0] = False
        found = jackknife(table_of(right))
        assert 0 < found.low < found.value < found.high < 1
        perfect = jackknife(table_of(np.ones((3, 3, 8), dtype=bool)))
        assert (perfect.low, perfect.value, perfect.high) == (1, 1, 1)

    def test_one_speaker_has_no_interval(self):
        found = jackknife(table_of(np.ones((1, 3, 8), dtype=bool)))
        assert isnan(found.low)
        assert isnan(found.high)
        assert (found.value, found.n_speakers) == (1, 1)
        assert found.note == "one speaker: no interval"

    @pytest.mark.parametrize(
        ("unknown", "known", "why"),
        [(96, 0, "no speaker is known"), (48, 2, "48 of 96"), (73, 1, "73 of 96")],
    )
    def test_unknown_speakers_of_half_the_utterances_leave_no_interval(self, unknown, known, why):
        rng = np.random.default_rng(0)
        a, b = (draw(rng, ability(rng, 4, mean=m)) for m in (0.9, 0.3))
        for t in (a, b):
            t.speakers[:unknown] = [""] * unknown
        found = jackknife(a)
        assert found.value == a.uar()
        assert isnan(found.low)
        assert isnan(found.high)
        assert found.n_speakers == known
        assert found.note.startswith(why)
        paired = paired_jackknife(a, b)
        assert paired.value == a.uar() - b.uar()
        assert all(map(isnan, (paired.low, paired.high, paired.p)))
        assert paired.note.startswith(why)

    def test_a_few_unknown_speakers_count_in_the_value_and_not_in_the_spread(self):
        rng = np.random.default_rng(0)
        a, b = (draw(rng, ability(rng, 4, mean=m)) for m in (0.9, 0.3))
        for t in (a, b):
            t.speakers[:24] = [""] * 24  # all of the first speaker
        known = range(24, 96)
        found, alone = jackknife(a), jackknife(a.subset(known))
        assert (found.value, found.n_speakers) == (a.uar(), 3)
        logits = [np.log(x / (1 - x)) for x in (found.low, found.value, found.high)]
        assert logits[1] - logits[0] == pytest.approx(logits[2] - logits[1])
        # the same standard error, on the plain scale
        reach = (logits[2] - logits[1]) * found.value * (1 - found.value)
        alone_reach = np.log(alone.high / (1 - alone.high)) - np.log(
            alone.value / (1 - alone.value)
        )
        assert reach == pytest.approx(alone_reach * alone.value * (1 - alone.value))
        assert "24 of 96" in found.note
        paired, rest = paired_jackknife(a, b), paired_jackknife(a.subset(known), b.subset(known))
        assert paired.value == a.uar() - b.uar()
        assert paired.high - paired.value == pytest.approx(rest.high - rest.value)
        assert (paired.n_speakers, paired.note) == (3, found.note)
        entry = uar_interval(a)
        assert entry["uar_interval"] == [found.low, found.high]
        assert "24 of 96" in entry["uar_interval_by"]

    def test_unlabelled_utterances_and_speakers_take_no_part(self):
        t = draw(np.random.default_rng(0), ability(np.random.default_rng(5), 4, mean=0.5))
        more = PredictionTable(
            [*t.ids, "new/1", "new/2", "new/3"],
            [*t.speakers, "s00", "silent", ""],
            np.append(t.labels, [-1, -1, -1]),
            np.concatenate([t.scores, t.scores[:3]]),
            t.classes,
        )
        assert jackknife(more) == jackknife(t)

    @pytest.mark.parametrize("metric", ["uar", "wa", "f1"])
    def test_every_metric_has_its_value(self, metric):
        t = draw(np.random.default_rng(0), ability(np.random.default_rng(5), 4, mean=0.5))
        found = jackknife(t, metric)
        assert found.value == t.metrics()[metric]
        assert found.low < found.value < found.high

    def test_any_function_of_confusions(self):
        t = draw(np.random.default_rng(0), ability(np.random.default_rng(5), 4, mean=0.5))
        found = jackknife(t, lambda confusion: recalls_of(confusion)[..., 2])
        assert found.value == t.recalls()["c2"]
        assert found.low < found.value < found.high

    def test_bad_arguments(self):
        t = table_of(np.ones((3, 3, 8), dtype=bool))
        with pytest.raises(ConfigError, match=says("level 95", "0 < level < 1")):
            jackknife(t, level=95)
        with pytest.raises(ConfigError, match=r"'uarr'.*'uar'"):
            jackknife(t, "uarr")
        with pytest.raises(DataError, match=says("72.0", 0, 1, "paired_jackknife")):
            jackknife(t, lambda confusion: confusion.sum((-1, -2)))
        t.scores[3, 1] = np.nan
        with pytest.raises(DataError, match=says("1 of 72", "first: 3")):
            jackknife(t)
        t.labels[:] = -1
        with pytest.raises(DataError, match=says("none of 72", "interval")):
            jackknife(t)

    def test_a_class_that_one_speaker_alone_has(self):
        t = draw(np.random.default_rng(0), ability(np.random.default_rng(5), 4, mean=0.5))
        t = t.subset([i for i in range(len(t)) if t.labels[i] != 2 or t.speakers[i] == "s00"])
        found = jackknife(t)
        assert 0 < found.low < found.value < found.high < 1
        assert by_speaker(t, labelled_speakers(t)).sum() == len(t)

    def test_holds_the_truth_with_four_speakers_where_percentiles_do_not(self):
        # standard error of a coverage from 400 is 0.01 at 0.95 and 0.02 at 0.78
        assert 0.91 < coverage(jackknife, 4, mean=0.5, reps=400) < 0.98
        percentile = coverage(lambda t: percentiles(t, 200), 4, mean=0.5, reps=400)
        assert 0.70 < percentile < 0.84


class TestPaired:
    def test_wa_is_the_paired_t_test_of_scipy(self):
        rng = np.random.default_rng(2)
        a, b = (draw(rng, ability(rng, 9, mean=m)) for m in (0.9, 0.3))
        right = [(t.predicted == t.labels).reshape(9, -1).mean(1) for t in (a, b)]
        want = scipy_stats.ttest_rel(*right)
        found = paired_jackknife(a, b, "wa", level=0.9)
        assert found.p == pytest.approx(want.pvalue)
        assert (found.low, found.high) == pytest.approx(tuple(want.confidence_interval(0.9)))
        # all speakers have equally many of each class: UAR is WA
        assert paired_jackknife(a, b, level=0.9) == pytest.approx(found)

    def test_without_spread(self):
        rng = np.random.default_rng(2)
        a = draw(rng, ability(rng, 4, mean=0.5))
        same = paired_jackknife(a, a)
        assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
        right = np.zeros((4, 3, 8), dtype=bool)
        more = right.copy()
        more[:, :, 0] = True
        assert isnan(paired_jackknife(table_of(more), table_of(right)).p)

    def test_one_speaker_has_no_test(self):
        t = table_of(np.ones((1, 3, 8), dtype=bool))
        assert isnan(paired_jackknife(t, t).p)

    def test_swapping_changes_the_sign_only(self):
        rng = np.random.default_rng(2)
        a, b = (draw(rng, ability(rng, 9, mean=m)) for m in (0.9, 0.3))
        ab, ba = paired_jackknife(a, b), paired_jackknife(b, a)
        assert (ab.value, ab.low, ab.high, ab.p) == pytest.approx(
            (-ba.value, -ba.high, -ba.low, ba.p)
        )

    def test_the_order_of_rows_is_of_no_matter(self):
        rng = np.random.default_rng(2)
        a, b = (draw(rng, ability(rng, 9, mean=m)) for m in (0.9, 0.3))
        assert paired_jackknife(a, b.subset(range(len(b) - 1, -1, -1))) == paired_jackknife(a, b)

    def test_other_utterances_labels_and_classes_are_refused(self):
        t = table_of(np.ones((3, 3, 8), dtype=bool))
        with pytest.raises(ComparisonError, match=says(1, "first: 71")):
            paired_jackknife(t, t.subset(range(71)))
        other = t.subset(range(72))
        other.labels[7] = (other.labels[7] + 1) % 3
        with pytest.raises(ComparisonError, match=r"1 utterances differs \(first: 7,"):
            paired_jackknife(t, other)
        other = t.subset(range(72))
        other.classes = ["c1", "c0", "c2"]
        with pytest.raises(ComparisonError, match="c0, c1, c2"):
            paired_jackknife(t, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speakers", "mean", "percentile", "better"),
    [
        (2, 0.2, 0.48, 0.94),
        (2, 2.2, 0.46, 0.87),
        (4, 0.2, 0.80, 0.95),
        (4, 2.2, 0.76, 0.96),
        (10, 0.2, 0.92, 0.96),
        (10, 2.2, 0.88, 0.94),
        (24, 0.2, 0.95, 0.96),
        (24, 2.2, 0.93, 0.95),
    ],
)
def test_coverage(speakers, mean, percentile, better):
    """The table in jackknife.py, from other draws: within three standard errors of 1000."""
    found = coverage(jackknife, speakers, mean=mean, reps=1000, seed=7)
    assert found == pytest.approx(better, abs=0.03)
    plain = coverage(lambda t: percentiles(t, 500), speakers, mean=mean, reps=1000, seed=7)
    assert plain == pytest.approx(percentile, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("speakers", "bootstrapped"), [(2, 0.42), (4, 0.19), (10, 0.1), (24, 0.06)]
)
def test_false_alarms(speakers, bootstrapped):
    """Of tests at 0.05 between two heads that are equally good: the bootstrap's p is too low."""
    plain = false_alarms(lambda a, b: bootstrapped_p(a, b, 500), speakers, reps=1000)
    assert plain == pytest.approx(bootstrapped, abs=0.05)
    assert false_alarms(paired_jackknife, speakers, reps=1000) < 0.075
