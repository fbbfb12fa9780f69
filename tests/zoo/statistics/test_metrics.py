import gzip
import json

import audmetric
import numpy as np
import pytest
from facts import says
from serzoo.zoo.core.errors import ComparisonError, ConfigError, DataError
from serzoo.zoo.statistics.rates import absent_of, f1_of, uar_of, wa_of
from serzoo.zoo.statistics.speakers import metric_of
from serzoo.zoo.statistics.table import PredictionTable, merge
from sklearn import metrics as sk
from tables import CLASSES, one_hot, random_table, table


class TestRates:
    def test_by_hand(self):
        t = table([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0])
        assert t.recalls() == {"angry": 0.75, "happy": 0.5}
        assert t.uar() == 0.625
        assert t.wa() == pytest.approx(4 / 6)
        assert t.macro_f1() == pytest.approx((2 * 3 / (4 + 4) + 2 * 1 / (2 + 2)) / 2)
        assert t.confusion().tolist() == [[3, 1, 0, 0], [1, 1, 0, 0], [0] * 4, [0] * 4]

    def test_trap_11_a_class_absent_from_the_reference_is_not_averaged(self):
        # two of four classes are present, and one prediction is of an absent class
        labels, predicted = [0, 0, 1, 1], [0, 2, 1, 1]
        t = table(labels, predicted)
        assert t.uar() == 0.75
        with pytest.warns(UserWarning, match=says("y_pred", "y_true")):
            assert t.uar() == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
        assert sk.recall_score(
            labels, predicted, labels=range(4), average="macro", zero_division=0
        ) == pytest.approx(0.375)
        assert t.metrics()["absent"] == ["sad", "neutral"]
        assert t.metrics()["n_classes_present"] == 2
        # angry: 1 hit of 2 and 1 predicted; happy: all right; sad, predicted only, is not averaged
        assert t.macro_f1() == pytest.approx((2 / 3 + 1) / 2)

    @pytest.mark.parametrize("present", [2, 3, 4])
    def test_equal_to_sklearn_and_audmetric(self, present):
        t = random_table(present=present)
        truth, guess = t.labels, t.predicted
        classes = sorted(set(truth.tolist()))
        recalls = sk.recall_score(truth, guess, labels=classes, average=None)
        assert list(t.recalls().values()) == pytest.approx(recalls.tolist())
        # given only the present classes, audmetric leaves predictions of others out of the support
        each = audmetric.recall_per_class(truth, guess, labels=list(range(4)))
        assert t.uar() == pytest.approx(np.mean([each[c] for c in classes]))
        assert t.uar() == pytest.approx(
            sk.recall_score(truth, guess, labels=classes, average="macro")
        )
        assert t.wa() == pytest.approx(sk.accuracy_score(truth, guess))
        assert t.wa() == pytest.approx(audmetric.accuracy(truth, guess))
        f1 = sk.f1_score(truth, guess, labels=classes, average="macro")
        assert t.macro_f1() == pytest.approx(f1)
        assert np.array_equal(t.confusion(), sk.confusion_matrix(truth, guess, labels=range(4)))

    def test_a_class_never_predicted_has_f1_zero(self):
        assert table([0, 1], [0, 0]).macro_f1() == pytest.approx((2 / 3 + 0) / 2)

    def test_leading_dimensions(self):
        stack = np.stack([random_table(seed=s).confusion() for s in range(3)])
        for rate in (uar_of, wa_of, f1_of):
            assert rate(stack) == pytest.approx([float(rate(c)) for c in stack])

    def test_ties_go_to_the_first_class(self):
        t = PredictionTable(["a"], ["s"], np.array([1]), np.array([[0.0, 0.5, 0.5]]), list("xyz"))
        assert t.predicted.tolist() == [1]

    def test_unlabelled_utterances_are_counted_and_in_no_score(self):
        with_, without = table([0, 1, -1, -1], [0, 0, 0, 1]), table([0, 1], [0, 0])
        a, b = with_.metrics(), without.metrics()
        assert a.pop("n_unlabelled") == 2
        assert b.pop("n_unlabelled") == 0
        assert a == b
        assert with_.nll() == without.nll()
        assert with_.ece() == without.ece()
        assert with_.brier() == without.brier()
        assert with_.temperature() == without.temperature()

    def test_nothing_labelled_is_an_error(self):
        t = table([-1, -1], [0, 1])
        for score in (t.uar, t.wa, t.macro_f1, t.metrics, t.nll, t.ece, t.brier, t.temperature):
            with pytest.raises(DataError, match=says("none of 2")):
                score()

    def test_by_speaker(self):
        t = table([0, 1, 0, -1], [0, 0, 0, 0], speakers=["b", "b", "a", "c"])
        found = t.by_speaker()
        assert list(found) == ["a", "b"]
        assert (found["a"]["uar"], found["b"]["uar"]) == (1.0, 0.5)
        assert found["b"]["n"] == 2

    def test_metrics_are_plain(self):
        m = random_table().metrics()
        assert json.loads(json.dumps(m)) == m


class TestValidation:
    def test_non_finite_scores_name_the_ids(self):
        scores = one_hot([0, 1, 2, 3])
        scores[1, 0], scores[3, 2] = np.nan, -np.inf
        with pytest.raises(DataError, match=says("2 of 4", "u1, u3", "float32")):
            PredictionTable([f"u{i}" for i in range(4)], ["s"] * 4, np.zeros(4), scores, CLASSES)

    def test_scores_beyond_float32_are_not_finite(self):
        with pytest.raises(DataError, match=says("1 of 1", "a", "float32")):
            PredictionTable(["a"], ["s"], np.zeros(1), np.array([[1e39, 0.0]]), ["x", "y"])

    def test_rounding_twice_is_rounding_once(self):
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(2000, 4)) * 10.0 ** rng.integers(-45, 38, (2000, 4))
        ids = [str(i) for i in range(2000)]
        t = PredictionTable(ids, ["s"] * 2000, np.zeros(2000), scores, CLASSES)
        assert t.subset(range(2000)) == t
        assert t.scores == pytest.approx(scores, rel=5.1e-6, abs=1e-37)

    def test_labels_outside_the_classes(self):
        with pytest.raises(DataError, match=says(1, "-1..3", "toy/001")):
            table([0, 4], [0, 0])

    def test_an_id_twice(self):
        with pytest.raises(DataError, match=says("1 rows", "merge()")):
            PredictionTable(["a", "a"], ["s", "s"], np.zeros(2), one_hot([0, 1]), CLASSES)

    def test_lengths(self):
        with pytest.raises(DataError, match=says("2 ids", "4 classes", "1 speakers", "2 labels")):
            PredictionTable(["a", "b"], ["s"], np.zeros(2), one_hot([0, 1]), CLASSES)
        with pytest.raises(DataError, match=says("2 ids", "3 classes", "(2, 4)", "[2, 3]")):
            PredictionTable(["a", "b"], ["s"] * 2, np.zeros(2), one_hot([0, 1]), CLASSES[:3])


class TestMerge:
    def test_parts_of_a_table_merge_to_it_in_any_order(self):
        t = random_table(20)
        assert merge([t.subset(range(11, 20)), t.subset(range(0, 11))]) == t

    def test_identical_rows_collapse(self):
        t = random_table(20)
        assert merge([t.subset(range(0, 15)), t.subset(range(10, 20))]) == t

    @pytest.mark.parametrize("what", ["label", "speaker", "scores"])
    def test_conflicting_rows_are_an_error(self, what):
        t = random_table(3)
        other = t.subset([1])
        if what == "label":
            other.labels = (other.labels + 1) % 4
        elif what == "speaker":
            other.speakers = ["someone else"]
        else:
            other.scores = other.scores + 1
        with pytest.raises(ComparisonError, match=says("'toy/001'", "twice")):
            merge([t, other])

    def test_other_classes_are_an_error(self):
        with pytest.raises(
            ComparisonError, match=says("c0, c1, c2, c3", "angry, happy, sad, neutral")
        ):
            merge([table([0], [0]), random_table(3)])

    def test_nothing_to_merge(self):
        with pytest.raises(DataError, match=says("merge", "empty")):
            merge([])
        empty = PredictionTable([], [], np.array([]), np.zeros((0, 4)), CLASSES)
        assert len(merge([empty])) == 0


class TestFile:
    def test_round_trip_is_exact(self, tmp_path):
        t = random_table()
        t.labels[3] = -1
        again = PredictionTable.read_jsonl(t.write_jsonl(tmp_path / "deep" / "p.jsonl"))
        assert again == t
        assert again.metrics() == t.metrics()
        assert again.nll() == t.nll()

    def test_the_text(self, tmp_path):
        scores = np.array([[-0.123456789, -2.0], [-0.0, 1e-9]])
        t = PredictionTable(["k/ä", "k/b"], ["k/1", "k/2"], np.array([1, -1]), scores, ["x", "y"])
        assert t.write_jsonl(tmp_path / "p.jsonl").read_text("utf-8") == (
            '{"id": "k/ä", "speaker": "k/1", "label": "y", "scores": {"x": -0.123457, "y": -2.0}}\n'
            '{"id": "k/b", "speaker": "k/2", "label": null, "scores": {"x": 0.0, "y": 1e-09}}\n'
        )

    def test_noise_below_six_digits_does_not_reach_the_file(self, tmp_path):
        t = random_table()
        noisy = PredictionTable(t.ids, t.speakers, t.labels, t.scores * (1 + 1e-8), t.classes)
        a, b = t.write_jsonl(tmp_path / "a"), noisy.write_jsonl(tmp_path / "b")
        assert a.read_bytes() == b.read_bytes()

    def test_no_half_file_is_left(self, tmp_path, monkeypatch):
        path = tmp_path / "p.jsonl"
        path.write_text("before")
        t = random_table(3)
        monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            t.write_jsonl(path)
        assert path.read_text() == "before"

    def test_reads_another_toolkits_class_order(self, tmp_path):
        path = tmp_path / "p.jsonl"
        row = '{{"id": "{}", "speaker": "s", "label": "y", "scores": {}}}\n'
        path.write_text(row.format("a", '{"x": 1, "y": 2}') + row.format("b", '{"y": 3, "x": 4}'))
        t = PredictionTable.read_jsonl(path)
        assert t.classes == ["x", "y"]
        assert t.scores.tolist() == [[1, 2], [4, 3]]

    @pytest.mark.parametrize(
        ("second", "message"),
        [
            ("nonsense", "line 2: .*prediction.*'nonsense'"),
            (
                '{"id": "b", "speaker": "s", "scores": {"x": 1, "y": 2}}',
                "line 2.*KeyError: 'label'",
            ),
            (
                '{"id": "b", "speaker": "s", "label": "z", "scores": {"x": 1, "y": 2}}',
                "line 2: label 'z'.* x, y",
            ),
            (
                '{"id": "b", "speaker": "s", "label": "x", "scores": {"x": 1}}',
                "line 2: .* x; line 1 .* x, y",
            ),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path, second, message):
        path = tmp_path / "p.jsonl"
        good = '{"id": "a", "speaker": "s", "label": "x", "scores": {"x": 1, "y": 2}}\n'
        path.write_text(good + second + "\n")
        with pytest.raises(DataError, match=message):
            PredictionTable.read_jsonl(path)

    def test_compressed(self, tmp_path):
        t = random_table(20)
        whole = gzip.compress(t.write_jsonl(tmp_path / "p.jsonl").read_bytes())
        (tmp_path / "p.jsonl.gz").write_bytes(whole)
        assert PredictionTable.read_jsonl(tmp_path / "p.jsonl.gz").ids == t.ids
        for damaged in (whole[:-9], b"no gzip"):
            (tmp_path / "p.jsonl.gz").write_bytes(damaged)
            with pytest.raises(DataError, match=says("p.jsonl.gz")):
                PredictionTable.read_jsonl(tmp_path / "p.jsonl.gz")

    def test_missing_and_empty(self, tmp_path):
        with pytest.raises(DataError, match=says(tmp_path / "none", "Errno 2")):
            PredictionTable.read_jsonl(tmp_path / "none")
        (tmp_path / "empty").touch()
        with pytest.raises(DataError, match=says(tmp_path / "empty")):
            PredictionTable.read_jsonl(tmp_path / "empty")


class TestOtherRates:
    @pytest.mark.parametrize("k", [1, 2, 3])
    def test_top_k_equals_sklearn(self, k):
        t = random_table()
        want = sk.top_k_accuracy_score(t.labels, t.scores, k=k, labels=range(4))
        assert t.top(k) == pytest.approx(want)
        assert t.top(1) == pytest.approx(t.wa())

    def test_ties_are_broken_by_class_order_as_in_predicted(self):
        t = table([0, 1, 2, 3], [0, 0, 0, 0])  # all other scores are equal
        assert t.top(1) == t.wa() == 0.25
        assert t.top(2) == 0.5

    @pytest.mark.parametrize("k", [0, 5])
    def test_k_is_a_number_of_classes(self, k):
        with pytest.raises(ConfigError, match=says(k, "1 to 4")):
            random_table().top(k)

    def test_macro_f1_has_its_name_and_its_older_one(self):
        confusion = random_table().confusion()
        value = metric_of("macro_f1")(confusion)
        assert value == metric_of("f1")(confusion) == f1_of(confusion)

    def test_a_predicted_class_may_be_absent(self):
        t = table([0, 0, 1], [0, 2, 1])
        assert absent_of(t.confusion()).tolist() == [False, False, True, True]
        assert absent_of(np.stack([t.confusion(), t.confusion()])).shape == (2, 4)
        assert t.macro_f1() == pytest.approx((2 / 3 + 1) / 2)
        # the other rule averages over the predicted class, too
        assert sk.f1_score([0, 0, 1], [0, 2, 1], average="macro") < t.macro_f1()
