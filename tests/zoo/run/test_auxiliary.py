"""Runs with what only training has: genders, speakers, transcripts and votes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from facts import says
from serzoo.zoo import load
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.run import config
from serzoo.zoo.run.build import build_run
from serzoo.zoo.run.train import train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TASKS = "head.auxiliary={gender: 1.0, speaker: 0.5}"


def test_auxiliary_losses_are_curves_and_only_the_main_head_scores(
    tiny_recipe: str, tmp_path: Path
) -> None:
    chosen = ["head=multi", TASKS, "head.shared=8", "optim.mixup=0.0"]
    entry = train(config.load(tiny_recipe, chosen), tmp_path)
    assert entry.status == "ok"
    found = EventAccumulator(str(tmp_path)).Reload()
    curves = {t for t in found.Tags()["scalars"] if t.startswith("head/multi/")}
    assert curves >= {f"head/multi/loss_{name}" for name in ("main", "gender", "speaker")}
    assert found.Scalars("head/multi/with_gender")[-1].value == pytest.approx(1.0)
    loaded = load(tmp_path)
    rows = loaded.predict([0.1 * np.random.default_rng(0).standard_normal(8000)])
    assert set(rows[0].probs) == set(entry.classes)


def test_a_transcript_task_gives_training_its_transcripts(tiny_recipe: str) -> None:
    chosen = ["head=multi", "head.auxiliary={transcript: 1.0}"]
    _, data = build_run(tiny_recipe, chosen)
    batch = data.datasets["train"][[0, 1]]
    assert batch.text is not None
    assert batch.targets.gender.sum() == 2
    assert batch.targets.speaker.shape[1] == len(data.speakers()["train"])
    assert data.datasets["test"][[0]].targets.speaker is None
    _, plain = build_run(tiny_recipe, ["head=multi"])
    assert plain.datasets["train"][[0]].text is None


def test_votes_are_asked_for_by_a_key_of_the_run(tiny_recipe: str) -> None:
    with pytest.raises(DataError, match=says("data.targets", "data.targets=majority")):
        build_run(tiny_recipe, ["data.targets=distribution"])
