"""Every head on another label column than the emotion, by configuration only."""

from __future__ import annotations

from pathlib import Path

import pytest
from serzoo.zoo.core import registry
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable


def test_gender_is_a_taxonomy_like_any_other() -> None:
    gender = Taxonomy.load("gender")
    assert gender.classes == gender.forms == ["female", "male"]


def test_a_corpus_label_map_does_not_stand_in_the_way() -> None:
    cfg = config.load("ravdess", ["data.label=gender", "taxonomy=gender", "head=gen_ser"])
    assert (cfg.data.label, cfg.taxonomy, cfg.protocol) == (
        "gender",
        "gender",
        "ravdess8-6fold@1",
    )
    assert cfg.fingerprint != config.load("ravdess", ["head=gen_ser"]).fingerprint
    # without a taxonomy the classes are what the column holds, not the corpus' emotions
    assert config.load("ravdess", ["data.label=gender"]).taxonomy == "auto"
    assert config.load("crema_d", ["data.label=voice"]).taxonomy is not None


HEADS = [n for n in registry.BUILT_IN["heads"] if n != "dimensions"]  # a gender has no point


@pytest.mark.parametrize(
    ("head", "taxonomy"), [*((name, "gender") for name in HEADS), ("classification", "auto")]
)
def test_every_head_learns_the_gender(
    head: str, taxonomy: str, tiny_recipe: str, tmp_path: Path
) -> None:
    chosen = [f"head={head}", "data.label=gender", "optim.epochs=1", f"taxonomy={taxonomy}"]
    entry = train(config.load(tiny_recipe, chosen), tmp_path)
    assert entry.classes == ["female", "male"]
    kept = entry.counts["kept"]
    assert sum(sum(part.values()) for part in kept.values()) == 30
    table = PredictionTable.read_jsonl(tmp_path / "predictions.jsonl")
    # the speakers are numbered, and the even ones are female
    number = [int(s.rpartition("s")[2]) for s in table.speakers]
    assert table.labels.tolist() == [n % 2 for n in number]


def test_gen_ser_on_the_embedded_corpus(tmp_path: Path) -> None:
    small = [
        "encoder.widths=[4,8,8,8]",
        "encoder.dim=16",
        "data.options={speakers: 12, utterances: 1}",
    ]
    cfg = config.load(
        "synthetic",
        [*small, "head=gen_ser", "data.label=gender", "taxonomy=gender", "optim.epochs=1"],
    )
    cfg.trainer.progress, cfg.trainer.accelerator = False, "cpu"
    entry = train(cfg, tmp_path)
    assert entry.classes == ["female", "male"]
    assert entry.metrics["absent"] == []
