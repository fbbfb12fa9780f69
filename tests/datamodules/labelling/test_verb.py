"""`serzoo label`: the three stages in a row, killed anywhere and gone on with; tracing a label."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_asr
import tiny_text
from facts import says
from serzoo.datamodules.catalog import open_corpora
from serzoo.datamodules.labelling import audit
from serzoo.datamodules.labelling import label as verb
from serzoo.datamodules.labelling.asr import Transcribe
from serzoo.datamodules.labelling.entail import Entail
from serzoo.datamodules.labelling.label import label, settings, shown, trace
from serzoo.datamodules.labelling.select import centred, fold_rows, soft_scores, soft_targets
from serzoo.datamodules.labelling.stage import rows_of
from serzoo.datamodules.manifest import Utterance, read_manifest, write_manifest
from serzoo.zoo import cli
from serzoo.zoo.core import progress as bars
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy

SAID = {
    "angry": "Stop shouting at me, I am so angry.",
    "happy": "What a wonderful day, I am so happy.",
    "sad": "I am so sad about the garden.",
    "neutral": "The shop opens at nine on Mondays.",
    "none": "Oh well.",
}


def utterances(n: int = 100) -> list[Utterance]:
    texts = list(SAID.values())
    return [
        Utterance(
            f"c/{i:03}", "c", "a.wav", 0.0, 0.5 + i % 7 / 10, 8000, f"s{i % 4}",
            text=texts[i % 5], text_source="human",
        )
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of 100 utterances with text; the folder holds their audio."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "a.wav", noise.astype("float32"), 8000)
    path = tmp_path / "all.jsonl"
    write_manifest(path, utterances())
    return path


def call(corpus: Path, out: str, **values: Any) -> verb.Labelled:
    values = {"taxonomy": "big4", "scorer": "lexicon", "root": str(corpus.parent), **values}
    return label(str(corpus), out=str(corpus.parent / out), **values)


def files(folder: Path) -> dict[str, bytes]:
    """All that a call leaves, but for locks, whose content is the number of a process."""
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


RESULTS = ("labels.json", "manifest.json", "manifest.jsonl", "scores.jsonl", "transcripts.jsonl")


def test_from_a_manifest_to_labels(corpus):
    done = call(corpus, "out")
    found = read_manifest(corpus.parent / "out" / "manifest.jsonl")
    texts = {text: name for name, text in SAID.items()}
    for before, u in zip(utterances(), found, strict=True):
        expected = texts[before.text or ""]
        assert u.label == (None if expected == "none" else expected)  # two words are short
        if u.label:
            assert u.label_source.startswith("weak:lexicon-english@")
            assert 0.7 < u.label_score < 0.9
        facts = replace(u, label=None, label_source=None, label_score=None, sha=before.sha)
        assert facts == before
    assert [line.partition(":")[0] for line in done.lines] == [
        "transcripts", "scores", *["select"] * 4, "labelled", "coverage at thresholds", "manifest",
    ]  # fmt: skip
    assert done.lines[0] == "transcripts: 100 (human 100); rejected: short 20"
    assert "labelled: 80 (angry 20, happy 20, neutral 20, sad 20)" in done.lines
    assert "select: threshold 0.5: 80 -> 80" in done.lines
    assert done.record["transcripts"]["rejected"] == {"short": 20}
    assert done.record["selection"]["criteria"]["threshold"] == 0.5
    assert set(done.record["files"]) == {"transcripts.jsonl", "scores.jsonl", "manifest.jsonl"}
    stored = json.loads((corpus.parent / "out" / "labels.json").read_text("utf-8"))
    assert stored == done.record


def test_the_labelled_manifest_opens_without_being_told_where_its_audio_is(corpus):
    call(corpus, "out")
    speech = open_corpora([], manifest=str(corpus.parent / "out" / "manifest.jsonl"))
    assert speech.roots == {"c": corpus.parent}
    assert len(speech.utterances) == 100


class KilledError(Exception):
    pass


@pytest.mark.parametrize("stage", [Transcribe, Entail])
@pytest.mark.parametrize("k", [0, 1, 40, 79])
def test_killed_after_k_rows_of_a_stage_it_ends_in_the_same_bytes(corpus, monkeypatch, stage, k):
    call(corpus, "whole")
    left = k
    whole_rows = stage.rows

    def rows(self, items):
        nonlocal left
        for row in whole_rows(self, items):
            if left == 0:
                raise KilledError
            left -= 1
            yield row

    with monkeypatch.context() as patched:
        patched.setattr(stage, "rows", rows)
        with pytest.raises(KilledError):
            call(corpus, "cut")
    assert not (corpus.parent / "cut" / "manifest.jsonl").exists()
    call(corpus, "cut")
    assert files(corpus.parent / "cut") == files(corpus.parent / "whole")


@pytest.mark.parametrize("name", ["manifest.json", "manifest.jsonl", "labels.json"])
def test_killed_before_any_of_the_last_files_it_ends_in_the_same_bytes(corpus, name):
    call(corpus, "out")
    whole = files(corpus.parent / "out")
    for later in ("manifest.json", "manifest.jsonl", "labels.json"):
        (corpus.parent / "out" / later).unlink()
        if later == name:
            break
    call(corpus, "out")
    assert files(corpus.parent / "out") == whole


SUICIDAL = """
import os, signal
from serzoo.datamodules.labelling.lexicon import Lexicon

class Mortal(Lexicon):
    calls = 0
    def score(self, premises, hypotheses):
        Mortal.calls += 1
        if Mortal.calls == int(os.environ["DIE_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(premises, hypotheses)
"""


@pytest.mark.slow
def test_a_killed_process_ends_in_the_same_bytes_when_it_is_started_again(corpus):
    here = corpus.parent
    (here / "mortal.py").write_text(SUICIDAL)

    def start(out: str, die_at: int) -> int:
        words = ["label", str(corpus), "taxonomy=big4", "scorer=mortal:Mortal", f"root={here}"]
        environment = {**os.environ, "PYTHONPATH": str(here), "DIE_AT": str(die_at)}
        code = "import sys; from serzoo.zoo.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, *words, f"out={here / out}"],
            env=environment, capture_output=True, timeout=240,
        ).returncode  # fmt: skip

    # the prior is the first call, the first chunk of 64 the second, the last of 16 the third
    assert start("cut", 3) == -signal.SIGKILL
    assert len((here / "cut" / "scores" / "shard-1-of-1.jsonl").read_bytes().splitlines()) == 64
    assert start("cut", 0) == 0
    assert start("whole", 0) == 0
    assert files(here / "cut") == files(here / "whole")


def test_shards_one_after_another_end_in_the_same_labels(corpus):
    call(corpus, "whole")
    first = call(corpus, "parts", shard="2/2")
    assert first.record is None
    assert "transcripts: shard 2 of 2 is done, and 64 of 100 rows are left" in first.lines[-1]
    second = call(corpus, "parts", shard="1/2")
    assert "scores: shard 1 of 2 is done, and 16 of 80 rows are left" in second.lines[-1]
    last = call(corpus, "parts", shard="2/2")
    assert last.record is not None
    whole, parts = files(corpus.parent / "whole"), files(corpus.parent / "parts")
    assert all(whole[name] == parts[name] for name in RESULTS)


def test_ranks_of_torchrun_share_the_work_and_wait_for_each_other(corpus, monkeypatch):
    monkeypatch.setattr(verb, "WAIT", 0.01)
    call(corpus, "whole")
    done: list[verb.Labelled] = []
    ranks = iter([("1", "3"), ("0", "3"), ("2", "3")])
    shards = [verb._shard(None)]
    for rank, world in ranks:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world)
        shards.append(verb._shard(None))
    assert shards == [((1, 1), False), ((2, 3), True), ((1, 3), True), ((3, 3), True)]

    given = threading.local()
    monkeypatch.setattr(verb, "_shard", lambda text: given.shard)

    def rank(shard: tuple[tuple[int, int], bool]) -> None:
        given.shard = shard
        done.append(call(corpus, "ranks"))

    threads = [threading.Thread(target=rank, args=(s,)) for s in shards[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [d.record is not None for d in done] == [True] * 3
    whole, ranks_ = files(corpus.parent / "whole"), files(corpus.parent / "ranks")
    assert all(whole[name] == ranks_[name] for name in RESULTS)
    assert sum(name.startswith("transcripts/shard-") for name in ranks_) == 3


def test_speech_without_text_is_recognised_and_traced(corpus):
    folder = tiny_asr.tiny_whisper(corpus.parent / "whisper")
    model = tiny_text.save_nli(corpus.parent / "nli")
    items = [replace(u, text=None, text_source=None) if i % 2 else u
             for i, u in enumerate(utterances(6))]  # fmt: skip
    write_manifest(corpus, items)
    asr = {"min_words": 1, "min_confidence": None, "max_repeats": 100, "max_ratio": 100.0}
    call(
        corpus, "out", asr=folder, asr_options={"language": "de", **asr}, scorer="nli",
        scorer_options={"model": model}, threshold=0.0, agreement=0.0, device="cpu",
    )  # fmt: skip
    found = read_manifest(corpus.parent / "out" / "manifest.jsonl")
    heard = [u for u in found if u.text_source != "human"]
    assert [u.id for u in heard] == ["c/001", "c/003", "c/005"]
    assert all(u.text_source.startswith("asr:whisper@") and u.text for u in heard)
    traced = trace(corpus.parent / "out", "c/001")
    assert traced["settings"]["transcripts"]["asr"]["language"] == "de"
    assert traced["transcript"]["confidence"] < 0
    assert traced["utterance"] == found[1]
    assert traced["lost_at"] is None
    lines = shown(traced)
    assert lines[0] == "c/001: a.wav, 0.00 to 0.60 s"
    assert lines[1].startswith(f'says: "{found[1].text}" (asr:whisper@')
    assert lines[2].startswith("scored by nli@")
    assert sum(line.startswith("  '") for line in lines) == 3  # templates
    assert lines[-1].startswith(f"label: {found[1].label}, {found[1].label_score:.3f} (weak:nli@")


def test_no_recogniser_is_loaded_where_all_have_text(corpus):
    call(corpus, "out", asr="no/such-model")
    write_manifest(corpus, [replace(u, text=None) for u in utterances(3)])
    with pytest.raises(ConfigError, match=says("asr=pocketsphinx", "language", "beams")):
        call(corpus, "other", asr="pocketsphinx", asr_options={"language": "de"})
    with pytest.raises(ConfigError, match=says("c/002", "asr=MODEL")):
        call(corpus, "other", asr=None)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scorer": "masked", "scorer_options": {"model": "missing/model"}}, ("missing/model",)),
        ({"scorer_options": {"modl": "x"}}, ("modl",)),
        ({"templates": ["this says nothing"]}, ("this says nothing",)),
        ({"prior": "add"}, ("add", "subtract")),
    ],
)
def test_what_the_scorer_cannot_do_is_said_before_hours_of_recognition(
    corpus, monkeypatch, values, words
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(verb, "run", lambda *_: pytest.fail("it was recognised first"))
    with pytest.raises(ConfigError, match=says(*words)):
        call(corpus, "labels", **values)


def test_each_reason_to_have_no_label_is_traced(corpus):
    call(corpus, "out", threshold=0.99)
    folder = corpus.parent / "out"
    assert shown(trace(folder, "c/004"))[-1] == "rejected: short; no label"
    assert shown(trace(folder, "c/000"))[-1] == "no label: lost at threshold 0.99"
    call(corpus, "out", cap=3, neutral=0.1)  # selection anew, from the same scores
    found = read_manifest(folder / "manifest.jsonl")
    assert sum(u.label == "angry" for u in found) == 3
    lost = {trace(folder, f"c/{i:03}")["lost_at"] for i in range(0, 100, 5)}
    assert lost == {None, "cap"}
    lost = {trace(folder, f"c/{i:03}")["lost_at"] for i in range(3, 100, 5)}
    assert lost == {None, "cap or neutral"}
    call(corpus, "out", neutral=0.1)
    assert {trace(folder, f"c/{i:03}")["lost_at"] for i in range(3, 100, 5)} == {None, "neutral"}


def test_a_fine_taxonomy_folds_into_a_coarse_one(corpus):
    done = call(corpus, "out", taxonomy="ekman", into="sentiment3")
    labelled = done.record["selection"]["counts"][-1]["classes"]
    assert labelled == {"positive": 20, "neutral": 20, "negative": 40}
    assert done.record["folded"]["angry"] == "negative"
    lines = shown(trace(corpus.parent / "out", "c/000"))
    assert lines[-2].startswith("folded: angry is negative")
    assert lines[-1].startswith("label: negative")


def test_centred_labels_are_traced_and_learned_from_the_same_scores(corpus):
    folder = corpus.parent / "out"
    plain = call(corpus, "out", taxonomy="ekman", into="sentiment3").record
    assert plain["centre"] is None
    done = call(corpus, "out", taxonomy="ekman", into="sentiment3", centre=True)
    assert np.shape(done.record["centre"]) == (3, 7)
    assert done.record["scores"] == plain["scores"]  # nothing is scored again
    fine, coarse = Taxonomy.load("ekman"), Taxonomy.load("sentiment3")
    raw = list(rows_of(folder / "scores.jsonl"))
    rows = centred(raw, fine.classes, np.asarray(done.record["centre"]))
    expected = soft_targets(fold_rows(rows, fine, coarse), coarse)
    found = soft_scores(folder / "manifest.jsonl", coarse, "soft")
    assert found == {i: v.tolist() for i, v in expected.items()}
    weak, _ = audit.opened(str(folder))
    np.testing.assert_allclose(
        np.mean([row["by_template"] for row in weak.rows.values()], axis=0), 0.0, atol=1e-4
    )
    lines = shown(trace(folder, "c/000"))
    assert any(line.startswith("centred") for line in lines)
    assert lines[-1].startswith("label: negative")


def test_a_trace_of_what_is_not_there_or_was_changed_is_refused(corpus):
    folder = corpus.parent / "out"
    with pytest.raises(DataError, match=says("labels.json", "serzoo label")):
        trace(folder, "c/000")
    call(corpus, "out")
    with pytest.raises(DataError, match=says("c/0000", "'c/000'")):
        trace(folder, "c/0000")
    scores = folder / "scores.jsonl"
    scores.write_text(scores.read_text("utf-8").replace("0.75", "0.76"), "utf-8")
    with pytest.raises(DataError, match=says("scores.jsonl", "labels.json", "serzoo label")):
        trace(folder, "c/000")


def test_human_labels_are_not_overwritten_silently(corpus):
    named = [replace(u, label="A", label_source="acted") for u in utterances(10)]
    named[1] = replace(named[1], label="sad", label_source="weak:other@1", label_score=0.9)
    write_manifest(corpus, named)
    with pytest.raises(DataError, match=says("9 of 10", "c/000, A, acted", "relabel=true")):
        call(corpus, "out")
    call(corpus, "out", relabel=True)
    found = read_manifest(corpus.parent / "out" / "manifest.jsonl")
    assert [u.labels for u in found] == [{"given": "A"}, {}, *[{"given": "A"}] * 8]
    assert (found[0].label, found[4].label) == ("angry", None)


def test_other_settings_are_refused_but_for_those_of_the_selection(corpus):
    call(corpus, "out")
    call(corpus, "out", threshold=0.9)
    with pytest.raises(ConfigError, match=r"out/scores.*taxonomy\.name: \"big4\".*\"shared5\""):
        call(corpus, "out", taxonomy="shared5")
    with pytest.raises(ConfigError, match=r"out/transcripts.*min_words: 3\b.* 2\b"):
        call(corpus, "out", asr_options={"min_words": 2})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["taxonomy=big4"], "missing key 'out'"),
        (["taxonomy=big4", "out=x", "treshold=1"], "'treshold'.*'threshold'"),
        (["taxonomy=big4", "out=x", "threshold=high"], "threshold='high'.* float"),
        (["taxonomy=big4", "out=x", "centre=maybe"], "centre='maybe'.* true or false"),
        (["taxonomy=big4", "out=x", "threshold=2"], r"threshold=2\b.* 0 .* 1\b"),
        (["taxonomy=big4", "out=x", "nli.model=x"], r"'nli\.model'.* asr\.KEY, scorer\.KEY"),
        (["taxonomy=big4", "out=x", "asr.beem=2"], "asr: .*'beem'.*'beams'"),
        (["taxonomy=big4", "out=x", "scorer.modl=x"], "scorer=nli.*'modl'.*'model'"),
        (["taxonomy=big4", "out=x", "scorer=nil"], "'nil'.* nli\\b"),
        (["taxonomy=big5", "out=x"], "'big5'.*'big4'"),
        (["taxonomy=big4", "out=x", "shard=4"], "shard=4.* k/n"),
        (["taxonomy=big4", "out=x", "scorer=lexicon", "shard=3/2"], "shard 3 of 2.*1/2 .*2/2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(corpus, monkeypatch, words, message):
    monkeypatch.chdir(corpus.parent)
    with pytest.raises(ConfigError, match=message):
        cli.label(str(corpus), *words, f"root={corpus.parent}")


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(bars, "FIRST", 0.0)
    with verb.progress() as told:
        told("scores", 1, 3)
    monkeypatch.setattr(bars, "FIRST", 60.0)
    with verb.progress() as told:
        told("scores", 2, 3)
    assert capsys.readouterr().err == "scores: 1 of 3, about 0 s left\n"


def test_settings_of_parts_are_told_apart():
    found = settings(
        {"taxonomy": "big4", "out": "x", "asr.beams": 2, "scorer.model": "m", "options.text": True}
    )
    assert found == {
        "taxonomy": "big4", "out": "x", "asr_options": {"beams": 2},
        "scorer_options": {"model": "m"}, "options": {"text": True},
    }  # fmt: skip


def test_the_command_labels_and_traces(corpus, monkeypatch, capsys):
    from serzoo.zoo.cli import main

    monkeypatch.chdir(corpus.parent)
    words = ["taxonomy=big4", "scorer=lexicon", "out=out", "root=."]
    assert main(["label", "all.jsonl", *words, "--shard", "1/1"]) == 0
    assert "manifest: out/manifest.jsonl" in capsys.readouterr().out
    assert main(["label", "trace", "out", "c/001"]) == 0
    assert 'says: "What a wonderful day, I am so happy." (human)' in capsys.readouterr().out
    assert main(["label", "trace", "out"]) == 2
    assert "See `serzoo label trace --help`" in capsys.readouterr().err
    assert main(["label", "all.jsonl", *words, "threshold=2"]) == 2
