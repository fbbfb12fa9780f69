"""`serzoo cache`, and runs that share a store."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from facts import says, tells
from serzoo.datamodules.store import Claim, Shards, complete, locked
from serzoo.zoo.cli import main
from serzoo.zoo.compare.compare import compare
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.run import cache
from serzoo.zoo.run.config import load
from serzoo.zoo.run.train import train
from serzoo.zoo.statistics.table import PredictionTable


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A cache with two stores, a corpus and a manifest."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path))
    for path in ("synthetic-0/corpus.json", "manifests/x.jsonl"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text("{}")
    extractions = {
        "aa11": {"model_type": "hubert", "layers": [0, 1, 2, 3]},
        "ab22": {"type": "logmel", "bands": 64},
    }
    for i, (name, extraction) in enumerate(extractions.items()):
        facts = {"dtype": "float32", "extraction": extraction, "first_used_by": {"name": "a/b"}}
        shards = Shards(tmp_path / "features" / name)
        rows = [(f"k{j}", np.ones((1, 64, 4), np.float32), 1800.0) for j in range(i + 1)]
        complete(shards, [r[0] for r in rows], facts, lambda k: k, lambda k, rows=rows: rows)
    return tmp_path


def test_stores_are_listed(base, capsys):
    assert main(["cache", "list"]) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in text.splitlines()}
    assert lines["aa11"][1:6] == ["hubert", "a/b", "0-3", "float32", "1"]
    assert lines["aa11"][6] == "0.50"
    assert lines["ab22"][1:6] == ["logmel", "a/b", "–", "float32", "2"]
    assert text.splitlines()[-1].startswith("2 stores, ")
    assert text.splitlines()[-1].endswith(f"under {base / 'features'}")


def test_an_empty_cache_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path))
    assert main(["cache", "list"]) == 0
    assert tells(capsys.readouterr().out, tmp_path / "features")
    assert main(["cache", "clear", "all"]) == 0
    assert capsys.readouterr().out == "removed 0 feature stores: 0 B freed\n"


def test_one_store_is_cleared_by_its_beginning(base, capsys):
    freed = sum(p.stat().st_size for p in (base / "features" / "ab22").iterdir())
    assert main(["cache", "clear", "ab"]) == 0
    assert capsys.readouterr().out == f"removed 1 feature store: {cache.size(freed)} freed\n"
    assert [s["store"] for s in cache.cache_list()] == ["aa11"]


def test_clearing_all_leaves_corpora_and_manifests(base):
    number, freed = cache.cache_clear("all")
    assert number == 2
    assert freed > 2 * 64 * 4 * 4
    assert sorted(p.name for p in base.rglob("*.json*")) == ["corpus.json", "x.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clear"], "serzoo cache list.* all$"),
        (["clear", "a"], "'a' .*several.* aa11, ab22, all"),
        (["clear", "ab23"], "'ab23' .*'ab22'"),
    ],
)
def test_what_is_not_clear_is_refused(base, arguments, message, capsys):
    assert main(["cache", *arguments]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert len(cache.cache_list()) == 2


def test_a_store_that_is_written_is_not_cleared(base):
    folder = base / "features" / "aa11"
    with locked(folder):
        claim = Claim(folder, ["k9"])
    with pytest.raises(ConfigError, match=says(folder, "writing")):
        cache.cache_clear("aa11")
    claim.release()
    assert cache.cache_clear("aa11")[0] == 1


def test_sizes_are_written_for_reading():
    assert [cache.size(n) for n in (0, 1023, 1536, 5 * 2**20, 2**40)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 MiB", "1024.0 GiB",
    ]  # fmt: skip


def test_listing_needs_no_torch(base):
    code = (
        "import sys; from serzoo.zoo.cli import main; main(['cache', 'list']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# Runs.


def test_all_runs_share_one_store(tiny_recipe, tmp_path, monkeypatch):
    """Heads, folds and seeds encode once in all; scores are those of live features."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    encoded = []
    variants = [[], ["head=prototype"], ["fold=1", "seed=2"], ["data.max_seconds=5"]]
    for i, keys in enumerate(variants):
        entry = train(load(tiny_recipe, ["optim.epochs=1", *keys]), tmp_path / str(i))
        encoded.append((entry.feature_store["encoded"], entry.feature_store["reused"]))
    assert encoded == [(30, 0), (0, 30), (0, 30), (0, 30)]
    (store,) = cache.cache_list()
    assert (store["encoder"], store["rows"]) == ("logmel", 30)
    live = train(load(tiny_recipe, ["optim.epochs=1", "data.features=live"]), tmp_path / "live")
    assert live.feature_store == {"kind": "live"}
    assert live.seconds["encode"] == 0
    a, b = (PredictionTable.read_jsonl(tmp_path / r / "predictions.jsonl") for r in ("0", "live"))
    assert a.ids == b.ids


@pytest.mark.slow
def test_ranks_share_the_encoding(tiny_recipe, tmp_path, serzoo, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    log = tmp_path / "log.txt"
    arguments = ["optim.epochs=1", f"trainer.out={tmp_path}", "trainer.devices=2"]
    process = serzoo("train", tiny_recipe, *arguments, log=log)
    assert process.wait(300) == 0, log.read_text()
    (path,) = tmp_path.glob("**/record.json")
    entry = json.loads(path.read_text())
    assert entry["features"] == "stored"
    assert entry["feature_store"]["encoded"] + entry["feature_store"]["reused"] == 30
    (store,) = cache.cache_list()
    assert store["rows"] == 30
    shards = Shards(cache.features_dir() / store["store"])
    shards.refresh()
    names = {row.shard for row in shards.rows.values()}
    assert len(list(shards.folder.glob("*.bin"))) == len(names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_comparison_encodes_once_in_all(tiny_recipe, tmp_path, monkeypatch):
    """Two workers begin at the same time, with an empty store."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    suite = tmp_path / "two.yaml"
    heads = ["classification", "prototype"]
    axes = {"recipe": [tiny_recipe], "head": heads, "fold": [0, 1], "seed": [1]}
    overrides = ["optim.epochs=1"]
    suite.write_text(json.dumps({"title": "Two", "axes": axes, "overrides": overrides}))
    encoded = []
    for out in ("first", "second"):
        assert compare(str(suite), out=str(tmp_path / out), workers=2)["failed"] == 0
        paths = (tmp_path / out).glob("two/cells/*/record.json")
        entries = [json.loads(path.read_text())["feature_store"] for path in paths]
        assert [e["encoded"] + e["reused"] for e in entries] == [30] * 4
        encoded.append(sum(e["encoded"] for e in entries))
    assert encoded == [30, 0]
