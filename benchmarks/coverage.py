"""Coverage and false alarms of ``zoo/statistics/contrasts.py``, by simulation.

    python benchmarks/coverage.py --out benchmarks/results/coverage.json

Clusters and trainings are both random. A baseline and 1, 4 or 8 heads answer 24 utterances of each
cluster. The chance of a right answer is the sum of a mean of 0.6, an effect of the cluster
(deviation 0.1), of the cluster for each head (0.06), of the training (0.02) and of the training on
the cluster (0.03). All effects are normal, so the true differences are known exactly. With skewed
clusters or unequal numbers of utterances the numbers may be worse; this is not simulated.

Each setting runs with no true difference, and with one of 0.1 in every second head.
"""

from __future__ import annotations

import argparse
import json
import time
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from serzoo.zoo.statistics.contrasts import Answer, answers, difference

CLUSTERS = (4, 6, 10, 24, 60, 90)
TRAININGS = (1, 2, 3, 5, 10)
FAMILIES = (1, 4, 8)
UTTERANCES = 24
DEVIATIONS = {"cluster": 0.1, "head": 0.06, "training": 0.02, "rest": 0.03}
TRUE = 0.1
DRAWS = 499

Values = NDArray[np.float64]


def family(
    rng: np.random.Generator, g: int, s: int, true: Values
) -> tuple[dict[int, Answer], Values]:
    """Return the answers of one simulated table, and the true ``[K]`` differences of its models.

    Args:
        rng: source of all draws.
        g: number of clusters.
        s: number of trainings.
        true: ``[K]`` true differences of heads from the baseline.
    """
    k = len(true) + 1
    training = DEVIATIONS["training"] * rng.standard_normal((k, s, 1))
    chance = (
        0.6
        + np.append(0.0, true)[:, None, None]
        + DEVIATIONS["cluster"] * rng.standard_normal((1, 1, g))
        + DEVIATIONS["head"] * rng.standard_normal((k, 1, g))
        + training
        + DEVIATIONS["rest"] * rng.standard_normal((k, s, g))
    )
    right = rng.binomial(UTTERANCES, np.clip(chance, 0, 1)).astype(np.float64)
    cells = np.zeros((k, s, g, 2, 2))
    cells[..., 0, 0], cells[..., 0, 1] = right, UTTERANCES - right
    found = answers(
        {i: difference(cells[i + 1], cells[0]) for i in range(len(true))},
        draws=DRAWS,
        seed=int(rng.integers(2**31)),
    )
    models = training.mean((1, 2))
    return found, true + models[1:] - models[0]


def setting(g: int, s: int, k: int, simulations: int, seed: int) -> dict[str, Any]:
    """Return rates of one setting: coverage of intervals, false alarms of families, power.

    A rate is None if the setting has no such interval or test.
    """
    rng = np.random.default_rng([seed, g, s, k])
    out: dict[str, Any] = {"clusters": g, "trainings": s, "family": k}
    kept: dict[str, dict[str, list[bool]]] = {"these": {}, "new": {}}
    for with_true in (False, True):
        true = np.where(np.arange(k) % 2 == 0, TRUE, 0.0) * with_true
        for _ in range(simulations):
            found, of_models = family(rng, g, s, true)
            for name, target in (("these", of_models), ("new", true)):
                spans = [getattr(found[i], name) for i in range(k)]
                if not np.isfinite(spans[0].p):
                    continue
                add(kept[name], spans, target, true, with_true=with_true)
    for name, rates in kept.items():
        out[name] = {
            w: round(float(np.mean(v)), 4) if v else None for w, v in sorted(rates.items())
        }
    return out


def add(
    rates: dict[str, list[bool]],
    spans: list[Any],
    target: Values,
    true: Values,
    *,
    with_true: bool,
) -> None:
    """Add what one simulated family shows to the lists of its rates."""
    own = [(x.low <= t <= x.high) for x, t in zip(spans, target, strict=True) if x.low == x.low]
    rates.setdefault("coverage", []).extend(own)
    both = [x.low_family <= t <= x.high_family for x, t in zip(spans, target, strict=True)]
    if all(x.low_family == x.low_family for x in spans):
        rates.setdefault("coverage_of_all", []).append(all(both))
    hit = [x.p_family <= 0.05 for x in spans]
    # trainings are a part of the truth of these models, so a head of no difference has one there
    if target is true:
        null = [h for h, t in zip(hit, true, strict=True) if t == 0]
        if null:
            name = "false_alarms_beside_true" if with_true else "false_alarms"
            rates.setdefault(name, []).append(any(null))
    if with_true:
        rates.setdefault("power", []).extend(h for h, t in zip(hit, true, strict=True) if t)


def main(arguments: list[str] | None = None) -> None:
    """Write the rates of all settings."""
    parser = argparse.ArgumentParser(description="Coverage and false alarms of contrasts.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coverage.json"))
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    began = time.process_time()
    settings = [
        setting(g, s, k, given.simulations, given.seed)
        for g in CLUSTERS
        for s in TRAININGS
        for k in FAMILIES
    ]
    report = {
        "command": f"python benchmarks/coverage.py --simulations {given.simulations} "
        f"--seed {given.seed}",
        "simulations": 2 * given.simulations,
        "error_of_a_rate_of_0.05": round(sqrt(0.05 * 0.95 / given.simulations), 4),
        "deviations": DEVIATIONS,
        "utterances": UTTERANCES,
        "true_difference": TRUE,
        "processor_seconds": round(time.process_time() - began),
        "settings": settings,
    }
    given.out.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
