"""Tables of predictions, made up."""

from __future__ import annotations

import numpy as np
from serzoo.zoo.statistics.table import PredictionTable

CLASSES = ["angry", "happy", "sad", "neutral"]


def one_hot(predicted: list[int], c: int = 4) -> np.ndarray:
    """Scores ``[N, C]`` that say this and nothing else."""
    return np.eye(c)[predicted]


def table(
    labels: list[int],
    predicted: list[int],
    speakers: list[str] | None = None,
    classes: list[str] = CLASSES,
) -> PredictionTable:
    """Of these labels and answers, by one speaker unless said otherwise."""
    ids = [f"toy/{i:03d}" for i in range(len(labels))]
    speakers = speakers or ["toy/a"] * len(labels)
    return PredictionTable(
        ids, speakers, np.array(labels), one_hot(predicted, len(classes)), classes
    )


def random_table(
    n: int = 200, c: int = 4, seed: int = 0, present: int | None = None
) -> PredictionTable:
    """Better than chance, by up to seven speakers; ``present`` classes have utterances."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, present or c, n)
    scores = rng.normal(size=(n, c)) + 0.8 * np.eye(c)[labels]
    speakers = [f"toy/{i}" for i in rng.integers(0, 7, n)]
    return PredictionTable(
        [f"toy/{i:03d}" for i in range(n)], speakers, labels, scores, [f"c{i}" for i in range(c)]
    )
