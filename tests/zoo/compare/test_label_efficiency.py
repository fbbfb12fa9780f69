"""From unlabelled audio to fine-tuned models by one command; killed anywhere, it ends the same."""

import json
import signal
from pathlib import Path

import pytest
from groups import group_is_gone
from serzoo.zoo.run import config
from serzoo.zoo.run.record import finished, read_record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALL = {
    "label": {"options": {"utterances": 6, "speakers": 4, "text": True}, "neutral": 0.3},
    "axes": {
        "recipe": ["lanser_finetune"],
        "pretraining": ["none", "weak", "shuffled", "human"],
        "share": [0.5, 1.0],
        "head": ["classification"],
        "fold": [0],
        "seed": [1],
    },
    "overrides": [
        "encoder.widths=[4,8,8,8]", "encoder.dim=8", "optim.epochs=3", "trainer.accelerator=cpu",
        "data.options={utterances: 2, speakers: 8}",
    ],
}  # fmt: skip


@pytest.fixture
def suite(tmp_path):
    """The shipped suite, small."""
    pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")
    whole = config.read_suite("label_efficiency")
    arms = whole["pretraining"]
    for arm in arms.values():
        given = [o for o in arm.get("overrides", []) if "data.options" not in o]
        arm["overrides"] = [*given, "optim.epochs=3"]
    arms["human"]["overrides"].append("data.options={utterances: 6, speakers: 4}")
    small = {**whole, **SMALL, "label": {**whole["label"], **SMALL["label"]}}
    path = tmp_path / "efficiency.yaml"
    path.write_text(json.dumps(small))
    return str(path)


def outcome(folder: Path):
    """Bytes of the labels, and of the predictions by start and share."""
    (labels,) = folder.glob("labels-*")
    found = {name: (labels / name).read_bytes() for name in ("scores.jsonl", "manifest.jsonl")}
    for record in folder.glob("cells/*/record.json"):
        entry = read_record(record.parent)
        assert entry.status == "ok"
        key = f"{entry.pretraining} {entry.axes['share']}"
        found[key] = (record.parent / "predictions.jsonl").read_bytes()
    return found


def test_killed_on_the_way_it_ends_the_same(suite, serzoo, wait_until, tmp_path):
    log = tmp_path / "log.txt"

    def start(out):
        return serzoo("compare", suite, "--out", str(tmp_path / out), "--workers", "1", log=log)

    assert start("whole").wait(900) == 0, log.read_text()
    whole = tmp_path / "whole" / "efficiency"
    expected = outcome(whole)
    assert len(expected) == 2 + 4 * 2

    folder = tmp_path / "killed" / "efficiency"
    for reached in (
        lambda: list(folder.glob("labels-*/transcripts/shard-*.jsonl")),
        lambda: len(list(folder.glob("pretraining/*/checkpoints/last.ckpt"))) >= 2,
        lambda: len(list(folder.glob("cells/*/record.json"))) >= 3,
    ):
        process = start("killed")
        wait_until(reached, process, seconds=300)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        wait_until(lambda p=process: group_is_gone(p), seconds=60)
    assert start("killed").wait(900) == 0, log.read_text()
    assert outcome(folder) == expected

    by_arm = {}
    for record in whole.glob("cells/*/record.json"):
        entry = read_record(record.parent)
        by_arm.setdefault(entry.pretraining, []).append(entry)
    assert by_arm["none"][0].origin is None
    origin = by_arm["weak"][0].origin
    assert origin["corpora"] == ["synthetic_talk"]
    assert next(iter(origin["weak_labels"])).startswith("weak:lexicon")
    assert by_arm["shuffled"][0].origin["weak_shuffle"] == 1
    assert by_arm["human"][0].origin["weak_labels"] == {}
    # the same draws of the labels for all
    drawn = {
        arm: sorted(e.counts["train_share"]["utterances"] for e in found if e.axes["share"] < 1)
        for arm, found in by_arm.items()
    }
    assert len(set(map(str, drawn.values()))) == 1
    assert all(finished(p.parent) for p in whole.glob("pretraining/*/record.json"))

    page = (whole / "report.html").read_text()
    assert "What pre-training is worth" in page
    assert "UAR by share of the training utterances" in page
    for row in ("classification after weak", "classification after shuffled"):
        assert row in page
        assert row in (whole / "table.md").read_text()
