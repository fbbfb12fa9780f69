from math import isnan

import numpy as np
import pytest
from facts import says
from scipy import stats as scipy_stats
from serzoo.zoo.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.statistics.metrics import PredictionTable
from serzoo.zoo.statistics.rates import recalls_of
from serzoo.zoo.statistics.stats import (
    MeanSD,
    bootstrap,
    holm,
    holm_grid,
    mean_sd,
    paired_bootstrap,
)

SCORES = {
    "uar": PredictionTable.uar,
    "wa": PredictionTable.wa,
    "f1": PredictionTable.macro_f1,
}


def random_table(
    speakers: int = 8,
    each: int = 25,
    c: int = 4,
    seed: int = 0,
    skill: float = 1.0,
    labels_seed: int = 99,
    spread: float = 0.5,
) -> PredictionTable:
    """Speakers who differ in how well they are recognised."""
    rng = np.random.default_rng(seed)
    n = speakers * each
    labels = np.random.default_rng(labels_seed).integers(0, c, n)
    ability = skill + spread * rng.normal(size=speakers).repeat(each)
    scores = rng.normal(size=(n, c)) + ability[:, None] * np.eye(c)[labels]
    who = [f"toy/{i:02d}" for i in range(speakers) for _ in range(each)]
    ids = [f"toy/{i:04d}" for i in range(n)]
    return PredictionTable(ids, who, labels, scores, [f"c{i}" for i in range(c)])


def resampled(table: PredictionTable, seed: int, draws: int) -> list[PredictionTable]:
    """The plain way: concatenate the rows of the drawn speakers, under fresh ids."""
    names = sorted(set(table.speakers))
    n = len(names)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    rows = {s: [i for i, t in enumerate(table.speakers) if t == s] for s in names}
    out = []
    for w in weights:
        pick = [i for s, times in zip(names, w, strict=True) for _ in range(times) for i in rows[s]]
        ids = [str(k) for k in range(len(pick))]
        who = [table.speakers[i] for i in pick]
        out.append(PredictionTable(ids, who, table.labels[pick], table.scores[pick], table.classes))
    return out


class TestBootstrap:
    @pytest.mark.parametrize("metric", ["uar", "wa", "f1"])
    def test_equals_a_plain_loop(self, metric):
        t = random_table()
        values = [SCORES[metric](r) for r in resampled(t, seed=3, draws=60)]
        found = bootstrap(t, metric, draws=60, seed=3, level=0.9)
        assert found.value == SCORES[metric](t)
        assert found.low == pytest.approx(np.quantile(values, 0.05))
        assert found.high == pytest.approx(np.quantile(values, 0.95))
        assert (found.level, found.n_speakers, found.n_draws) == (0.9, 8, 60)

    def test_equals_scipy_where_speakers_weigh_the_same(self):
        # WA of speakers with as many utterances each is the mean of their accuracies
        t = random_table(speakers=20)
        right = (t.predicted == t.labels).reshape(20, -1).mean(1)
        rng = np.random.default_rng(0)
        want = scipy_stats.bootstrap(
            (right,), np.mean, method="percentile", n_resamples=20_000, rng=rng
        )
        found = bootstrap(t, "wa", draws=20_000)
        assert found.low == pytest.approx(want.confidence_interval.low, abs=0.002)
        assert found.high == pytest.approx(want.confidence_interval.high, abs=0.002)

    def test_speakers_are_resampled_not_utterances(self):
        # two speakers always right, two always wrong: utterances would give a narrow interval
        who = [s for s in "abcd" for _ in range(100)]
        predicted = np.array([0] * 200 + [1] * 200)
        t = PredictionTable(
            [str(i) for i in range(400)], who, np.zeros(400), np.eye(2)[predicted], ["x", "y"]
        )
        found = bootstrap(t, "wa")
        assert (found.low, found.value, found.high) == (0, 0.5, 1)

    def test_any_function_of_confusions(self):
        t = random_table()
        found = bootstrap(t, lambda confusion: recalls_of(confusion)[..., 2], draws=50)
        assert found.value == t.recalls()["c2"]
        assert found.low < found.value < found.high

    def test_seeded(self):
        t = random_table()
        assert bootstrap(t, seed=1) == bootstrap(t, seed=1)
        assert bootstrap(t, seed=1) != bootstrap(t, seed=2)

    def test_unlabelled_utterances_and_speakers_take_no_part(self):
        t = random_table()
        more = PredictionTable(
            [*t.ids, "new/1", "new/2"],
            [*t.speakers, "toy/00", "toy/silent"],
            np.append(t.labels, [-1, -1]),
            np.concatenate([t.scores, t.scores[:2]]),
            t.classes,
        )
        assert bootstrap(more) == bootstrap(t)

    def test_one_speaker_has_no_interval(self):
        found = bootstrap(random_table(speakers=1))
        assert found.value > 0
        assert found.n_speakers == 1
        assert isnan(found.low)
        assert isnan(found.high)

    def test_bad_arguments(self):
        t = random_table()
        with pytest.raises(ConfigError, match=says("'uarr'", "f1, uar, wa", "'uar'")):
            bootstrap(t, "uarr")
        with pytest.raises(ConfigError, match=says("level 95", "0 < level < 1")):
            bootstrap(t, level=95)
        t.labels[:] = -1
        with pytest.raises(DataError, match=says("none of 200", "interval")):
            bootstrap(t)


class TestPaired:
    @pytest.mark.parametrize("metric", ["uar", "wa", "f1"])
    def test_equals_a_plain_loop(self, metric):
        a, b = random_table(seed=1, skill=1.3), random_table(seed=2)
        score = SCORES[metric]
        pairs = zip(resampled(a, 5, 80), resampled(b, 5, 80), strict=True)
        diffs = np.array([score(x) - score(y) for x, y in pairs])
        found = paired_bootstrap(a, b, metric, draws=80, seed=5)
        assert found.value == pytest.approx(score(a) - score(b))
        assert found.low == pytest.approx(np.quantile(diffs, 0.025))
        assert found.high == pytest.approx(np.quantile(diffs, 0.975))
        tail = min((diffs <= 0).sum(), (diffs >= 0).sum())
        assert found.p == pytest.approx(min(1, 2 * (tail + 1) / 81))

    def test_a_table_does_not_differ_from_itself(self):
        t = random_table()
        found = paired_bootstrap(t, t)
        assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)

    def test_swapping_changes_the_sign_only(self):
        a, b = random_table(seed=1, skill=1.3), random_table(seed=2)
        ab, ba = paired_bootstrap(a, b), paired_bootstrap(b, a)
        assert (ab.value, ab.p) == (-ba.value, ba.p)
        assert (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low))

    def test_the_order_of_rows_is_of_no_matter(self):
        a, b = random_table(seed=1), random_table(seed=2)
        assert paired_bootstrap(a, b.subset(range(len(b) - 1, -1, -1))) == paired_bootstrap(a, b)

    def test_pairing_is_what_makes_it_sharp(self):
        # b is a with 10 % of each speaker's hits taken away: always worse, whoever is drawn
        a = random_table(speakers=12, spread=1.0)
        b = a.subset(range(len(a)))
        for s in set(a.speakers):
            hits = [i for i, t in enumerate(a.speakers) if t == s and a.predicted[i] == a.labels[i]]
            for i in hits[: max(1, len(hits) // 10)]:
                b.scores[i] = -np.eye(4)[a.labels[i]]
        found = paired_bootstrap(a, b, "wa")
        assert found.low > 0
        assert found.p < 0.002
        assert bootstrap(a, "wa").low < bootstrap(b, "wa").high

    def test_one_speaker_has_no_test(self):
        found = paired_bootstrap(random_table(1, seed=1), random_table(1, seed=2))
        assert isnan(found.low)
        assert isnan(found.p)

    def test_other_utterances_are_refused(self):
        a = random_table()
        with pytest.raises(ComparisonError, match=says(1, "toy/0199")):
            paired_bootstrap(a, a.subset(range(199)))

    def test_other_labels_are_refused(self):
        a, b = random_table(), random_table()
        b.labels[7] = (b.labels[7] + 1) % 4
        with pytest.raises(ComparisonError, match=says(1, "toy/0007", "label", "speaker")):
            paired_bootstrap(a, b)

    def test_other_classes_are_refused(self):
        a, b = random_table(), random_table()
        b.classes = ["c1", "c0", "c2", "c3"]
        with pytest.raises(ComparisonError, match=says("c0, c1, c2, c3", "c1, c0, c2, c3")):
            paired_bootstrap(a, b)


class TestHolm:
    def test_by_hand(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_never_above_one_and_never_out_of_order(self):
        assert holm([0.5, 0.6]) == [1, 1]
        assert holm([]) == []

    def test_nan_is_no_test(self):
        found = holm([0.02, float("nan"), 0.04])
        assert found[0] == pytest.approx(0.04)
        assert isnan(found[1])
        assert found[2] == pytest.approx(0.04)

    def test_over_a_grid(self):
        grid = {
            ("r", "e", "selm"): 0.02,
            ("r", "e", "flow"): float("nan"),
            ("q", "e", "selm"): 0.04,
        }
        found = holm_grid(grid)
        assert list(found) == list(grid)
        assert found["r", "e", "selm"] == found["q", "e", "selm"] == pytest.approx(0.04)
        assert isnan(found["r", "e", "flow"])
        assert holm_grid({}) == {}

    def test_what_is_no_p(self):
        with pytest.raises(DataError, match=r"\b0 .* 1: 1\.2$"):
            holm([0.5, 1.2])


class TestMeanSD:
    def test_by_hand(self):
        found = mean_sd([0.5, 0.6, 0.7])
        assert found == pytest.approx(MeanSD(0.6, 0.1, 3))
        assert str(found) == "0.600 ± 0.100"

    def test_too_few(self):
        assert str(mean_sd([0.5, 0.6])) == "0.550"
        assert isnan(mean_sd([0.5]).sd)
        assert isnan(mean_sd([]).mean)


@pytest.mark.slow
def test_coverage_and_false_alarms():
    """90 % intervals hold the truth in about 90 %; two equal models rarely differ."""
    truth = random_table(speakers=4000, each=25, seed=12345).wa()
    held, alarms, n = 0, 0, 300
    for k in range(n):
        a = random_table(speakers=24, seed=2 * k, labels_seed=k)
        b = random_table(speakers=24, seed=2 * k + 1, labels_seed=k)
        found = bootstrap(a, "wa", draws=500, level=0.9)
        held += found.low <= truth <= found.high
        alarms += paired_bootstrap(a, b, "uar", draws=500).p < 0.05
    assert 0.83 < held / n < 0.95
    assert alarms / n < 0.10
