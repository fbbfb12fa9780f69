"""The simulation of coverage: small, and what the committed large one says."""

import json
from pathlib import Path

import error_rates as coverage
import numpy as np
import pytest
from serzoo.zoo.statistics.contrasts import HELD, _wide

RESULT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "coverage.json"


def test_a_small_simulation_keeps_its_promises():
    found = coverage.setting(10, 3, 4, 40, seed=5)
    for basis in ("these", "new"):
        rates = coverage.shares(found[basis])
        assert rates["coverage"] > 0.9
        assert rates["coverage of all"] > 0.85
        assert rates["coverage of all, all differ"] > 0.8  # standard error 0.034
        assert rates["false alarms, none, trainings alike"] < 0.15
        assert rates["false alarms, some, trainings alike"] < 0.15
        assert 0 < rates["power"] < 1
    # trainings that differ are a true difference of these models, and none of the heads
    assert "false alarms, none" not in found["these"]
    assert coverage.shares(found["new"])["false alarms, none"] < 0.15
    assert coverage.shares(found["new"])["power"] < coverage.shares(found["these"])["power"]


def test_the_seed_gives_the_numbers():
    assert coverage.setting(6, 2, 1, 2, seed=5) == coverage.setting(6, 2, 1, 2, seed=5)
    assert coverage.setting(6, 2, 1, 9, seed=5) != coverage.setting(6, 2, 1, 9, seed=6)


def test_true_differences_of_these_models_hold_their_trainings():
    rng = np.random.default_rng(0)
    true = np.array([0.1, 0.0])
    assert coverage.family(rng, 4, 2, true, (0.0, 0.0, 0.0))[1].tolist() == [0.1, 0.0]
    models = coverage.family(rng, 4, 2, true)[1]
    assert 0 < np.abs(models - true).max() < 0.15
    # only the first head is unstable
    first, second = coverage.family(rng, 4, 2, true, (0.0, 0.5, 0.0))[1]
    assert first != 0.1
    assert second == 0.0


@pytest.mark.parametrize(
    ("name", "hits", "ends"),
    [
        ("coverage", 880, "coverage 0.880 of 1000"),
        ("coverage", 900, None),  # a family of 8 counts as one case: two errors are 0.04
        ("coverage", 950, None),
        ("coverage", 1000, None),
        ("coverage, one head is unstable", 900, None),
        ("coverage of all, one head is unstable", 900, "coverage of all, one head is unstable 0.9"),
        ("coverage of all", 910, "coverage of all 0.910 of 1000"),
        ("coverage of all", 920, None),
        ("coverage of all", 1000, "coverage of all 1.000 of 1000, more than stated"),
        ("false alarms, none", 70, "false alarms, none 0.070 of 1000"),
        ("false alarms, none", 60, None),
        ("power", 10, None),
    ],
)
def test_a_claim_that_fails_is_told(name, hits, ends):
    found = coverage.fails("new", {name: (hits, 1000)}, 8)
    assert [line.startswith(f"new: {ends}") for line in found] == ([] if ends is None else [True])


def test_what_has_no_test_is_told():
    settings = {(g, 1, 1): coverage.setting(g, 1, 1, 2, seed=5) for g in (4, 6)}
    found = coverage.report(settings, {})
    assert (
        "these, 4 clusters, family of 1: no interval, and no p can be below 0.05" in found["fails"]
    )
    assert "new, 1 trainings, family of 1: no interval, no test" in found["fails"]
    assert found["pooled"]["new, by trainings"] == {"1 trainings, family of 1": None}
    assert set(found["settings"]) == {
        "4 clusters, 1 trainings, family of 1", "6 clusters, 1 trainings, family of 1"
    }  # fmt: skip


def test_coverage_above_what_is_stated_is_noted_with_its_error():
    rates = {"new": {"coverage of all": (1950, 2000)}, "these": {}}
    usual = {"new": {"coverage of all": (1900, 2000)}, "these": {}}
    exact = {"4 clusters": {"simulated": 0.981}, "9 clusters": {"simulated": 0.97}}
    assert coverage.notes({(4, 2, 8): rates, (6, 2, 8): rates, (4, 3, 8): usual}, exact) == [
        "new, 2 trainings, family of 8: coverage of all is 0.975 of 4000 (Monte Carlo error "
        "0.002), above 0.97",
        "integrated, 4 clusters: 0.981 at the simulation's variances, above 0.97",
    ]


def test_coverage_is_integrated_over_ratios_of_variances():
    found = coverage.integrated(10, 3, draws=2**11)
    assert found["smallest"] == pytest.approx(0.95, abs=0.002)
    assert found["smallest"] < found["simulated"] < found["largest"] < 0.975


def test_the_ratio_of_the_simulation_is_that_of_its_draws():
    rng, true = np.random.default_rng(1), np.zeros(8)
    means = [
        [answer.value for answer in coverage.family(rng, 6, 3, true)[0].values()] for _ in range(60)
    ]
    # two heads have twice the variance of one
    training, clusters, rest = 0.02**2 / 3, 0.06**2 / 6, (0.03**2 + 0.24 / 24) / 18
    want = 2 * (training + clusters + rest)
    assert np.mean(np.square(means)) == pytest.approx(want, rel=0.2)
    whole = training + clusters + rest
    assert coverage.as_simulated(6, 3) == pytest.approx(
        (training / whole, clusters / whole, rest / whole)
    )


def test_intervals_that_trainings_never_narrow_hold_too_often():
    found = coverage.never_narrower(2, bins=40)
    assert found == pytest.approx(0.986, abs=0.002)
    assert coverage.never_narrower(2, 0.7, bins=40) == pytest.approx(0.966, abs=0.003)


def test_a_run_writes_its_command_and_its_rates(tmp_path, monkeypatch):
    for name, few in (("CLUSTERS", (6,)), ("TRAININGS", (2,)), ("FAMILIES", {1: 1.0})):
        monkeypatch.setattr(coverage, name, few)
    coverage.main(["--simulations", "2", "--seed", "9", "--out", str(tmp_path / "c.json")])
    written = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert written["command"] == "python benchmarks/error_rates.py --simulations 2 --seed 9"
    assert written["simulations"] == 14
    assert set(written["if adding trainings never narrows"]) == {"2 trainings"}
    assert list(written["settings"]) == ["6 clusters, 2 trainings, family of 1"]


def test_the_committed_numbers_are_of_all_settings_and_say_what_fails():
    written = json.loads(RESULT.read_text("utf-8"))
    assert len(written["settings"]) == 90
    runs = written["simulations of a case in a setting"].values()
    assert written["simulations"] == 30 * len(coverage.CASES) * sum(runs)
    assert written["processor seconds"] < 900
    broken = {",".join(line.split(",")[:2]) for line in written["fails"]}
    assert broken == {"these, 4 clusters", "new, 1 trainings"}
    # of all intervals, those of a family on six clusters are too wide over all
    assert {line.split(", family")[0] for line in written["wide"]} == {"these, 6 clusters"}


def test_what_is_said_of_these_models_is_what_was_simulated():
    """The bounds are those of the docstring of contrasts.py."""
    these = json.loads(RESULT.read_text("utf-8"))["pooled"]["these, by clusters"]
    for name, rates in these.items():
        if not name.startswith("4 "):
            assert all(0.94 <= v <= 0.98 for k, v in rates.items() if alone(k)), name
            assert all(0.94 <= v <= 0.99 for k, v in rates.items() if "coverage" in k), name
        assert max(v for k, v in rates.items() if k.startswith("false alarms")) < 0.065, name
    for k in (4, 8):
        assert these[f"6 clusters, family of {k}"]["coverage of all"] == pytest.approx(
            HELD, abs=4e-3
        )
    power = [these[f"{g} clusters, family of 8"]["power"] for g in (6, 10, 24)]
    assert power == pytest.approx([0.07, 0.35, 0.82], abs=0.006)


def alone(name: str) -> bool:
    return name.startswith("coverage") and not name.startswith("coverage of all")


def test_what_is_said_of_new_trainings_is_what_was_simulated():
    """The bounds are those of the docstring of contrasts.py."""
    written = json.loads(RESULT.read_text("utf-8"))
    new = written["pooled"]["new, by trainings"]
    for n, rate in {2: 0.97, 3: 0.96, 5: 0.96, 10: 0.95}.items():
        for k in (1, 4, 8):
            rates = new[f"{n} trainings, family of {k}"]
            assert rates["coverage"] == pytest.approx(rate, abs=0.0065)
            assert all(0.945 <= v <= 0.985 for w, v in rates.items() if "coverage" in w)
            # two standard errors above 0.05
            assert max(v for w, v in rates.items() if w.startswith("false alarms")) <= 0.056
    power = [new[f"{n} trainings, family of 8"]["power"] for n in (2, 3, 5, 10)]
    assert [round(p, 2) for p in power] == [0.03, 0.11, 0.45, 0.61]
    exact = written["integrated"]
    assert min(found["smallest"] for found in exact.values()) >= 0.949
    for n, most in {2: 0.985, 3: 0.979, 5: 0.973, 10: 0.973}.items():
        found = [v["largest"] for k, v in exact.items() if k.endswith(f" {n} trainings")]
        assert max(found) <= most
    # what a row states holds within 0.02: by integration, and in families
    for k, v in exact.items():
        clusters, trainings = (int(part.split()[0]) for part in k.split(", "))
        says = HELD if _wide(trainings, clusters, 1) else 0.95
        assert v["simulated"] == pytest.approx(says, abs=0.02), k
    several = {k: rates for k, rates in new.items() if rates}  # one training has no interval
    assert len(several) == 12
    for k, rates in several.items():
        trainings, family = (int(word) for word in k.replace(",", "").split() if word.isdigit())
        says = HELD if _wide(trainings, 24, family) else 0.95
        assert rates["coverage of all"] == pytest.approx(says, abs=0.02), k
    bounds = written["if adding trainings never narrows"]
    assert bounds == {"2 trainings": 0.986, "3 trainings": 0.976, "5 trainings": 0.968}
    narrower = written["if 2 trainings narrow at most"]
    assert narrower["to 0.8 of the width"] > 0.97 > narrower["to 0.7 of the width"]
    noted = [line.split(":")[0] for line in written["notes"]]
    assert noted == [
        "new, 2 trainings, family of 4",
        "new, 2 trainings, family of 8",
        "integrated, 4 clusters, 2 trainings",
        "integrated, 4 clusters, 3 trainings",
        "integrated, 6 clusters, 2 trainings",
        "integrated, 10 clusters, 2 trainings",
    ]
