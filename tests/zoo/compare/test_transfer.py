"""Out of domain: numbers per corpus of training and of test, never pooled over corpora."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serzoo.datamodules.catalog import prepare_corpus
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.report.report import Run, by_pair, summarise
from serzoo.zoo.report.table import caption
from serzoo.zoo.run.config import load
from serzoo.zoo.run.record import Record
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.speakers import jackknife, measure
from serzoo.zoo.statistics.table import PredictionTable
from sklearn.metrics import balanced_accuracy_score

CLASSES = ["angry", "sad"]
CORPORA = ("emodb", "nemo", "ravdess")


def table(corpora: tuple[str, ...], seed: int) -> PredictionTable:
    """Four speakers of six utterances in each corpus; labels are the corpus', scores random."""
    rng = np.random.default_rng(seed)
    ids = [f"{c}/s{s}-{i}" for c in corpora for s in range(4) for i in range(6)]
    labels = np.array([int(i.rsplit("-", 1)[1]) % 2 for i in ids])
    scores = rng.normal(size=(len(ids), 2)) + 0.5 * np.eye(2)[labels]
    return PredictionTable(ids, [i.split("-")[0] for i in ids], labels, scores, CLASSES)


def cell(head: str, fold: int, seed: int, tests: tuple[str, ...], trains: tuple[str, ...]) -> Run:
    cfg = {
        "recipe": "big4_transfer", "encoder": {"type": "logmel"}, "head": {"type": head},
        "fold": fold, "seed": seed, "optim": {}, "trainer": {"precision": "32-true"},
        "data": dict.fromkeys(["label", "batch_size", "batch_seconds", "max_seconds", "balance"]),
    }  # fmt: skip
    record = {
        "config": cfg,
        "data": {"manifest": "m", "split": f"split{fold}", "taxonomy": "t"},
        "selection": {"rule": "r"},
        "speakers": {
            "train": [f"{c}/t0" for c in trains],
            "valid": [f"{c}/t1" for c in trains],
            "test": sorted({f"{c}/s{i}" for c in tests for i in range(4)}),
        },
        "seconds": {"fit": 1.0},
        "inference_seconds_per_utterance": 0.001,
        "parameters": {"trainable": 1, "head": 1},
    }
    own = 100 * fold + 10 * seed + len(head)
    return Run(f"{head}-{fold}-{seed}", Record.from_json(record), table(tests, own))


def one_to_rest(heads=("classification", "selm"), seeds=(1, 2, 3)) -> list[Run]:
    return [
        cell(h, k, s, tuple(c for c in CORPORA if c != CORPORA[k]), (CORPORA[k],))
        for h in heads for k in range(3) for s in seeds
    ]  # fmt: skip


def test_one_row_for_each_pair_of_corpora_and_head() -> None:
    runs = one_to_rest()
    rows = summarise(runs)
    pairs = {f"big4_transfer, {a} to {b}" for a in CORPORA for b in CORPORA if a != b}
    assert {r.recipe for r in rows} == pairs
    assert len(rows) == 6 * 2
    for row in rows:
        source, target = row.recipe.removeprefix("big4_transfer, ").split(" to ")
        chosen = [r.table for r in runs if r.head == row.head and r.fold == CORPORA.index(source)]
        values = []
        for t in chosen:
            keep = [i for i, s in enumerate(t.speakers) if s.startswith(f"{target}/")]
            values.append(balanced_accuracy_score(t.labels[keep], t.scores[keep].argmax(1)))
        assert row.uar.mean == pytest.approx(np.mean(values))
        assert row.uar.n == row.seeds == 3
        assert (row.speakers, row.utterances, row.partial) == (4, 24, 0)
        assert (row.difference is None) == (row.head == "classification")
        assert caption(row).startswith(f"big4_transfer, {source} to {target}, encoder logmel: 24 ")


def test_one_corpus_left_out_is_one_row_for_each_test_corpus() -> None:
    runs = [
        cell("selm", k, 1, (CORPORA[k],), tuple(c for c in CORPORA if c != CORPORA[k]))
        for k in range(3)
    ]
    assert [r.recipe for r in summarise(runs, "selm")] == [
        "big4_transfer, nemo and ravdess to emodb",
        "big4_transfer, emodb and ravdess to nemo",
        "big4_transfer, emodb and nemo to ravdess",
    ]


def test_in_domain_runs_stay_as_they_are() -> None:
    inside = cell("selm", 0, 1, ("emodb", "nemo"), ("emodb", "nemo"))
    partly = cell("selm", 0, 1, ("emodb", "nemo"), ("emodb",))
    old = replace(inside, record=replace(inside.record, speakers={}))
    assert by_pair([inside, partly, old]) == [inside, partly, old]


def test_the_record_holds_each_corpus_by_itself() -> None:
    both = table(("emodb", "nemo"), 1)
    numbers = measure(both)["by_corpus"]
    assert list(numbers) == ["emodb", "nemo"]
    for corpus, found in numbers.items():
        keep = [i for i, name in enumerate(both.ids) if name.startswith(corpus)]
        alone = both.subset(keep)
        assert found["uar"] == pytest.approx(
            balanced_accuracy_score(alone.labels, alone.scores.argmax(1))
        )
        interval = jackknife(alone)
        assert found["uar_interval"] == [interval.low, interval.high]
    assert measure(table(("emodb",), 1))["by_corpus"] == {}


# -- whole runs


@pytest.fixture(scope="module")
def two_corpora(tiny_speech, tiny_recipe, tmp_path_factory) -> Path:
    """A recipe that trains on five speakers as one corpus, and tests five as another."""
    folder = tmp_path_factory.mktemp("two")
    _, path = prepare_corpus("csv", root=str(tiny_speech), out=str(folder / "csv.jsonl"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["speaker"] >= "s5":
            row |= {"corpus": "folder", "id": row["id"].replace("csv/", "folder/")}
    made = folder / "both.jsonl"
    made.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made.with_suffix(".json").write_text(json.dumps({"root": str(tiny_speech), "notes": {}}))
    recipe = Path(tiny_recipe).read_text().replace("corpus: csv", "corpus: [csv, folder]")
    recipe = recipe.replace("kfold-5", "one-to-rest\ntaxonomy: auto")
    recipe = recipe.replace("data: {", f"data: {{manifest: {made}, ")
    (folder / "there.yaml").write_text(recipe.replace("epochs: 2", "epochs: 1"))
    return folder / "there.yaml"


def test_a_suite_out_of_domain_runs_and_shows_each_pair(two_corpora, tmp_path, capsys) -> None:
    suite = tmp_path / "across.yaml"
    axes = {"recipe": [str(two_corpora)], "head": ["classification"], "fold": "all", "seed": [1]}
    suite.write_text(json.dumps({"title": "Across", "axes": axes}))
    done = compare(str(suite), out=str(tmp_path / "runs"), workers=1)
    assert (done["cells"], done["done"], done["failed"]) == (2, 2, 0)
    assert [r.recipe for r in done["summary"]] == [
        "there, csv to folder",
        "there, folder to csv",
    ]
    text = (done["folder"] / "table.md").read_text()
    assert "**there, csv to folder, encoder logmel: 15 test utterances of 5 speakers" in text
    assert "not finished" not in text
    for path in done["folder"].glob("cells/*/record.json"):
        record = json.loads(path.read_text())
        named = {p: {s.split("/")[0] for s in names} for p, names in record["speakers"].items()}
        assert named["train"] == named["valid"] != named["test"]
        lines = path.with_name("predictions.jsonl").read_text().splitlines()
        assert {json.loads(line)["speaker"].split("/")[0] for line in lines} == named["test"]


@pytest.mark.parametrize("protocol", ["mixed-8fold", "loco", "kfold"])
def test_several_corpora_train_in_one_run(two_corpora, tmp_path, protocol) -> None:
    entry = train(load(str(two_corpora), [f"protocol={protocol}"]), tmp_path)
    assert entry.status == "ok"
    assert entry.audit["ok"]
    speakers = entry.speakers
    assert len({*speakers["train"], *speakers["valid"], *speakers["test"]}) == 10
    if protocol == "mixed-8fold":
        assert {s.split("/")[0] for s in speakers["train"]} == {"csv", "folder"}
        assert len(speakers["valid"]) == 4  # a woman and a man of each
