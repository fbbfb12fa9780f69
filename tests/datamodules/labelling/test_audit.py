"""`serzoo label audit`: weak labels against people's, and what words alone can tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from math import log2
from pathlib import Path

import numpy as np
import pytest
from facts import says
from serzoo.datamodules.labelling.audit import audit
from serzoo.datamodules.labelling.label import label
from serzoo.datamodules.labelling.select import reachable
from serzoo.datamodules.labelling.wording import Said, beside, compare, control, shuffles
from serzoo.datamodules.manifest import Utterance, read_manifest, write_manifest
from serzoo.datamodules.synthetic.acting import speaker, takes
from serzoo.datamodules.synthetic.talking import sayings, talker
from serzoo.zoo import cli
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.taxonomy import Taxonomy

BIG4 = Taxonomy.load("big4")
TEXTS = {
    "angry": "Stop shouting at me, I am so angry.",
    "happy": "What a wonderful day, I am so happy.",
    "sad": "I am so sad about the garden.",
    "neutral": "The shop opens at nine on Mondays.",
}
PEOPLE = [*TEXTS, "angry", "neutral"]  # of six utterances of a speaker; the last two are worded sad


def utterance(i: int, speaker: str, text: str | None, emotion: str | None = None) -> Utterance:
    return Utterance(
        f"csv/{speaker}-{i:02}", "csv", "a.wav", 0.0, 1.0, 8000, speaker, label=emotion,
        gender="female" if int(speaker[1:]) % 2 else "male", text=text, text_source="human",
    )  # fmt: skip


def worded(emotion: str, i: int) -> str:
    return TEXTS[emotion] if i < 4 else TEXTS["sad"]


def spoken(speakers: int = 6) -> list[Utterance]:
    """Six utterances of each speaker: of four the words fit, of two they say sad."""
    return [
        utterance(i, f"s{k}", worded(emotion, i), emotion)
        for k in range(speakers)
        for i, emotion in enumerate(PEOPLE)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds a manifest ``people.jsonl``, and ``weak.jsonl``: the same without labels."""
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "a.wav").write_bytes(wave())
    write_manifest(tmp_path / "people.jsonl", spoken())
    write_manifest(tmp_path / "weak.jsonl", [replace(u, label=None) for u in spoken()])
    return tmp_path


def wave() -> bytes:
    import io

    import soundfile

    data = io.BytesIO()
    soundfile.write(data, np.random.default_rng(0).normal(0, 0.1, 8000), 8000, format="WAV")
    return data.getvalue()


def labels(folder: Path, **values: object) -> Path:
    values = {"taxonomy": "big4", "scorer": "lexicon", "root": str(folder), **values}
    label(str(folder / "weak.jsonl"), out=str(folder / "labels"), **values)
    return folder / "labels"


# -- shuffled labels ---------------------------------------------------------------------------


def test_shuffles_keep_the_labels_of_each_speaker():
    y, who = np.array([0, 1, 2, 0, 3, 3]), np.array([0, 1, 0, 1, 0, 1])
    drawn = list(shuffles(y, who, 500, 0))
    assert len({tuple(d) for d in drawn}) == 36  # 3! orders of 0 2 3 times 3! of 1 0 3
    assert all(sorted(d[who == k]) == sorted(y[who == k]) for d in drawn for k in (0, 1))
    again = shuffles(y, who, 500, 0)
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))


def test_p_counts_what_was_found_with_the_shuffles():
    assert beside(2.0, [1.0, 2.0, 3.0, 0.0]) == {"shuffled": 1.5, "p": 3 / 5}
    assert beside(9.0, [1.0]) == {"shuffled": 1.0, "p": 1 / 2}


# -- words -------------------------------------------------------------------------------------


def told(utterances: list[Utterance], **values: object):
    classes = [BIG4.classes.index(str(u.label)) for u in utterances]
    return control(utterances, classes, BIG4.classes, "kfold-3", draws=200, **values)


def test_words_that_fit_are_told_apart_and_the_numbers_are_those_by_hand():
    found = told(spoken())
    # "sad" words are of one sad, one angry and one neutral utterance of each speaker: taken for
    # sad, of which they are all; angry and neutral are half right
    assert found.reached["sentences"].uar == (0.5 + 1 + 0.5 + 1) / 4
    assert found.reached["sentences"].low == found.reached["sentences"].high == 0.75  # all alike
    assert found.ceiling["value"] == 0.75
    assert (found.utterances, found.speakers, found.sentences) == (36, 6, 4)
    assert found.shared == 0.5  # one sentence of four, and half of what is said
    assert found.verdict == "some"
    # H(label) + H(sentence) - H(both), of shares in sixths
    both = [1 / 6] * 6
    entropy = [-sum(p * log2(p) for p in ps) for ps in ([2 / 6, 1 / 6, 1 / 6, 2 / 6],
               [1 / 6, 1 / 6, 3 / 6, 1 / 6], both)]  # fmt: skip
    assert found.bits["value"] == pytest.approx(entropy[0] + entropy[1] - entropy[2])
    assert found.bits["p"] == found.ceiling["p"] == 1 / 201


def test_sentences_said_under_every_label_alike_tell_nothing():
    fixed = [
        utterance(4 * n + i, f"s{k}", text, emotion)
        for k in range(6)
        for n, text in enumerate(("Kids are talking.", "Dogs are sitting."))
        for i, emotion in enumerate(TEXTS)
    ]
    found = told(fixed, said={"kids are talking": 3, "dogs are sitting": 3})
    assert found.verdict == "none"
    assert {k: r.uar for k, r in found.reached.items()} == dict.fromkeys(
        ("sentences", "words", "scorer"), 0.25
    )
    assert found.reached["scorer"].says == 1
    assert found.reached["scorer"].corrected == 1
    assert found.bits["value"] == pytest.approx(0, abs=1e-12)
    assert found.ceiling["value"] == 0.25
    assert found.shared == 1


def test_a_sentence_that_training_lacks_is_told_by_its_words():
    """Each speaker has a last word of their own; the others are of the emotion."""
    other = [
        utterance(i, f"s{k}", f"{word} here speaks{k}", emotion)
        for k in range(6)
        for i, (emotion, word) in enumerate(zip(TEXTS, "abcd", strict=True))
    ]
    found = told(other)
    assert found.sentences == 24
    assert found.reached["sentences"].uar == found.reached["words"].uar == 1
    nothing = [replace(u, text=f"speaks{u.speaker} take{u.id[-2:]}{u.speaker}") for u in other]
    found = told(nothing)
    assert found.verdict == "none"
    assert found.reached["words"].uar == 0.25
    assert (
        found.ceiling["value"] == found.ceiling["shuffled"] == 1
    )  # as every sentence is said once


def test_the_learner_of_sentences_takes_the_class_under_which_one_is_likeliest():
    """Not the most frequent class: 9 of 90 neutral ones say so, 3 of 10 sad ones do."""
    counts = {("neutral", "a b"): 27, ("neutral", "c d"): 3, ("sad", "a b"): 7, ("sad", "c d"): 3}
    items = [
        utterance(i, f"s{k}", text, emotion)
        for k in range(3)
        for i, (emotion, text) in enumerate(c for c, n in counts.items() for _ in range(n))
    ]
    found = told(items)
    assert found.classes == ["sad", "neutral"] or found.classes == ["neutral", "sad"]
    assert found.reached["sentences"].uar == pytest.approx((27 / 30 + 3 / 10) / 2)


def test_a_scorer_is_tested_as_it_is_and_other_classes_are_wrong():
    said = {"stop shouting at me i am so angry": 0, "what a wonderful day i am so happy": 1,
            "i am so sad about the garden": -1, "the shop opens at nine on mondays": 3}  # fmt: skip
    order = {c: i for i, c in enumerate(BIG4.classes)}
    said = {t: order[n] if v >= 0 else -1 for (t, v), n in zip(said.items(), TEXTS, strict=True)}
    found = told(spoken(), said=said)
    assert found.reached["scorer"].uar == (0.5 + 1 + 0 + 0.5) / 4


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(DataError, match=says("0 of 36", "0 classes", "serzoo label")):
        told([replace(u, text=None) for u in spoken()])
    with pytest.raises(ConfigError, match=says("train-only@1", "kfold")):
        control(spoken(), [0, 1, 2] * 12, BIG4.classes, "train-only")


# -- labels against people's -------------------------------------------------------------------


def test_a_comparison_is_what_is_counted_by_hand():
    items = [utterance(i, f"s{i % 2}", "x", "sad") for i in range(8)]
    people = [0, 0, 0, 0, 1, 1, 1, -1]
    said = [(0, 0.95), (0, 0.85), (1, 0.55), (0, 0.55), (1, 0.95), (0, 0.85), (1, 0.3), (1, 0.9)]
    best = {u.id: answer for u, answer in zip(items, said, strict=True)}
    chosen = {k: c for k, (c, s) in best.items() if s >= 0.5}
    soft = {k: [0.8, 0.2] if c == 0 else [0.4, 0.6] for k, (c, _) in best.items()}
    found = compare(items, people, ["a", "b"], Said(best, chosen, soft), draws=100)
    assert found["utterances"] == 7
    selected = found["selected"]
    assert selected["confusion"] == [[3, 1], [1, 1]]
    assert selected["unlabelled"] == {"a": 0, "b": 1}
    assert (selected["n"], selected["coverage"]) == (6, 6 / 7)
    assert selected["wa"]["value"] == pytest.approx(4 / 6)
    assert selected["uar"]["value"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert 0 < selected["p"] <= 1
    by_threshold = {s["threshold"]: s for s in found["sweep"]}
    assert [by_threshold[t]["n"] for t in (0.0, 0.3, 0.35, 0.55, 0.6, 0.85, 0.9, 0.95)] == [
        7, 7, 6, 6, 4, 4, 2, 2,
    ]  # fmt: skip
    assert by_threshold[0.9]["wa"]["value"] == 1
    bins = [(b["n"], round(b["score"], 6), b["accuracy"]) for b in found["reliability"]["bins"]]
    assert bins == [(1, 0.3, 1), (2, 0.55, 0.5), (2, 0.85, 0.5), (2, 0.95, 1)]
    gaps = 1 * 0.7 + 2 * 0.05 + 2 * 0.35 + 2 * 0.05
    assert found["reliability"]["error"] == pytest.approx(gaps / 7)
    # of the soft: four are 0.8 sure, 3 of them right; three 0.6 sure, 2 of them right
    assert found["soft"]["ece"] == pytest.approx((4 * 0.05 + 3 * abs(2 / 3 - 0.6)) / 7, abs=1e-6)


def test_nothing_selected_is_said_and_not_divided_by():
    items = [utterance(0, "s0", "x", "sad")]
    found = compare(items, [0], ["a", "b"], Said({}, {}, None), draws=10)
    assert found["selected"] == {
        "n": 0, "coverage": 0.0, "confusion": [[0, 0], [0, 0]], "unlabelled": {"a": 1, "b": 0},
    }  # fmt: skip
    assert found["reliability"] == {"bins": [], "error": None}


def test_classes_that_nothing_folds_into_are_left_out():
    assert reachable(Taxonomy.load("ekman"), Taxonomy.load("ravdess8")).classes == [
        c for c in Taxonomy.load("ravdess8").classes if c != "calm"
    ]
    assert reachable(BIG4, BIG4) == BIG4
    with pytest.raises(ConfigError, match=says("'big4'", "'gender'", "coarse")):
        reachable(Taxonomy.load("gender"), BIG4)


# -- the verb ----------------------------------------------------------------------------------


def test_labels_are_held_against_a_manifest_of_people(folder):
    done = audit(str(labels(folder)), human=str(folder / "people.jsonl"), protocol="kfold-3",
                 taxonomy="big4", draws=100)  # fmt: skip
    (found,) = done.record["corpora"]
    order = BIG4.classes
    says = Counter((e, "sad" if i > 3 else e) for i, e in enumerate(PEOPLE))
    assert found["labels"]["selected"]["confusion"] == [
        [6 * says[a, b] for b in order] for a in order
    ]
    assert found["labels"]["selected"]["uar"]["value"] == 0.75
    assert found["labels"]["soft"]["n"] == 36
    assert found["text"]["reached"]["scorer"]["uar"] == 0.75  # by the folder's own scores
    assert found["scorer"] == found["labels"]["source"]
    assert found["own"]
    assert done.ok
    assert [p.name for p in done.written] == ["audit.json", "audit.md"]
    assert json.loads((folder / "labels" / "audit.json").read_text("utf-8")) == done.record
    page = (folder / "labels" / "audit.md").read_text("utf-8")
    assert "csv tell something" in page
    assert "| as selected | 36 | 100.0% | 0.667 | 0.667 to 0.667 | 0.750 |" in page


def test_people_may_have_labelled_the_same_manifest_in_another_column(folder):
    items = [replace(u, label=None, labels={"acted": u.label or ""}) for u in spoken()]
    write_manifest(folder / "weak.jsonl", items)
    out = labels(folder)
    with pytest.raises(DataError, match=says("labels", "human=", "label=", "acted")):
        audit(str(out))
    for where in (out, out / "manifest.jsonl"):
        done = audit(
            str(where), label="acted", protocol="kfold-3", draws=100, out=str(folder / "o")
        )
        assert done.record["corpora"][0]["labels"]["selected"]["uar"]["value"] == 0.75
    assert not (out / "audit.json").exists()


def test_given_labels_are_found_without_naming_them(folder):
    write_manifest(folder / "weak.jsonl", spoken())
    done = audit(str(labels(folder, relabel=True)), protocol="kfold-3", draws=100)
    assert done.record["corpora"][0]["labels"]["selected"]["uar"]["value"] == 0.75


def test_fine_labels_are_folded_into_those_of_people(folder):
    done = audit(str(labels(folder, taxonomy="ekman", threshold=0.0)), taxonomy="big4", draws=100,
                 human=str(folder / "people.jsonl"), protocol="kfold-3")  # fmt: skip
    assert done.record["corpora"][0]["labels"]["classes"] == BIG4.classes
    assert done.record["corpora"][0]["labels"]["selected"]["uar"]["value"] == 0.75
    done = audit(str(folder / "labels"), taxonomy="sentiment3", draws=100, protocol="kfold-3",
                 human=str(folder / "people.jsonl"))  # fmt: skip
    # angry words and sad ones are negative: of the six, the neutral one worded sad is wrong
    assert done.record["corpora"][0]["labels"]["selected"]["uar"]["value"] == (1 + 0.5 + 1) / 3


def test_a_manifest_of_weak_labels_without_its_folder_is_audited_by_what_it_holds(folder):
    bare = folder / "bare.jsonl"
    write_manifest(bare, read_manifest(labels(folder) / "manifest.jsonl"))
    done = audit(str(bare), human=str(folder / "people.jsonl"), protocol="kfold-3", draws=100)
    (found,) = done.record["corpora"]
    assert found["labels"]["selected"]["uar"]["value"] == 0.75
    assert found["labels"]["soft"] is None
    assert done.written == []


def test_labels_that_are_no_better_than_chance_are_warned_of(folder):
    wrong = [replace(u, label=PEOPLE[(i + 1 + i // 6) % 6]) for i, u in enumerate(spoken())]
    write_manifest(folder / "people.jsonl", wrong)
    done = audit(str(labels(folder)), human=str(folder / "people.jsonl"), protocol="kfold-3",
                 taxonomy="big4", draws=100)  # fmt: skip
    assert any("chance: UAR 0." in w for w in done.warnings)
    assert not done.ok


def test_where_people_labelled_other_utterances_only_the_words_are_looked_at(folder):
    fixed = [replace(u, id=f"{u.id}x", text="Kids are talking.") for u in spoken()]
    write_manifest(folder / "fixed.jsonl", fixed)
    done = audit(str(labels(folder)), human=str(folder / "fixed.jsonl"), protocol="kfold-3",
                 draws=100, scorer="lexicon")  # fmt: skip
    (found,) = done.record["corpora"]
    assert found["labels"] is None
    assert "weak labels" in found["notes"][0]
    assert "csv carry no emotion" in found["verdict"]
    assert done.ok  # nobody would label these by their words


def test_what_a_recogniser_heard_stands_in_for_text(folder):
    out = labels(folder)
    write_manifest(folder / "people.jsonl", [replace(u, text=None) for u in spoken()])
    done = audit(str(out), human=str(folder / "people.jsonl"), protocol="kfold-3", draws=100)
    assert done.record["corpora"][0]["text"]["utterances"] == 36


def test_the_command_prints_writes_and_says_by_its_code_what_it_found(folder, capsys):
    out = labels(folder)
    people = f"human={folder / 'people.jsonl'}"
    assert cli.label_audit(str(out), people, "protocol=kfold-3", "draws=100") == 0
    shown = capsys.readouterr().out
    assert "csv tell something" in shown
    assert f"written: {out / 'audit.md'}" in shown
    fixed = [replace(u, text="Kids are talking.") for u in spoken()]
    write_manifest(folder / "fixed.jsonl", fixed)
    assert cli.label_audit(str(folder / "fixed.jsonl"), "protocol=kfold-3", "draws=100") == 1
    assert re.search("warning: .*csv carry no emotion", capsys.readouterr().out)
    with pytest.raises(ConfigError, match=says("'draw'", "draws")):
        cli.label_audit(str(out), "draw=100")
    with pytest.raises(ConfigError, match=says("'asr.language'", "scorer")):
        cli.label_audit(str(out), "asr.language=en")
    with pytest.raises(ConfigError, match=says("serzoo label audit OUT", "human=MANIFEST")):
        cli.label_audit(people)
    with pytest.raises(DataError, match=says("labels.json", "serzoo label")):
        cli.label_audit(str(folder))


def test_ravdess_is_flagged(real_data, tmp_path):
    done = audit("ravdess", root=str(real_data("ravdess")), draws=100, out=str(tmp_path))
    (found,) = done.record["corpora"]
    text = found["text"]
    assert (text["utterances"], text["silent"], text["sentences"]) == (1440, 0, 2)
    assert [r["uar"] for r in text["reached"].values()] == [0.125] * 3
    assert text["bits"]["value"] == pytest.approx(0, abs=1e-9)
    assert text["verdict"] == "none"
    assert done.warnings == [found["verdict"]]
    assert "ravdess carry no emotion" in (tmp_path / "audit.md").read_text("utf-8")


def acted(corpus: str) -> list[Utterance]:
    """What is said in an embedded corpus of 12 speakers, without the audio."""
    talk = corpus == "synthetic_talk"
    found = []
    for index in range(12):
        who = talker(0, index) if talk else speaker(0, index)
        said = (sayings if talk else takes)(who, seed=0, index=index, utterances=6)
        found += [
            Utterance(
                f"{corpus}/{t.id}", corpus, "a.wav", 0.0, 1.0, 16000, who.name, gender=who.gender,
                label=None if talk else t.label, labels={"acted": t.label} if talk else {},
                text=t.text, text_source="human",
            )
            for t in said
        ]  # fmt: skip
    return found


@pytest.mark.parametrize(("corpus", "column"), [("synthetic", None), ("synthetic_talk", "acted")])
def test_embedded_corpora_whose_words_tell_something_are_not(corpus, column, tmp_path):
    write_manifest(tmp_path / "all.jsonl", acted(corpus))
    done = audit(str(tmp_path / "all.jsonl"), label=column, draws=100)
    text = done.record["corpora"][0]["text"]
    assert text["utterances"] == 12 * 7 * 6
    assert text["verdict"] == "some"
    assert done.ok
    assert min(r["low"] for r in text["reached"].values()) > 1 / 7


def test_a_scorer_that_nearly_always_finds_one_class_is_reported(folder: Path) -> None:
    said = ["sad"] * 5 + ["happy"]
    spoke = [
        utterance(i, f"s{k}", TEXTS[emotion], PEOPLE[i])
        for k in range(6)
        for i, emotion in enumerate(said)
    ]
    write_manifest(folder / "people.jsonl", spoke)
    write_manifest(folder / "weak.jsonl", [replace(u, label=None) for u in spoke])
    values = {"taxonomy": "big4", "scorer": "lexicon", "root": str(folder)}
    done = label(str(folder / "weak.jsonl"), out=str(folder / "labels"), **values)
    warned = [line for line in done.lines if line.startswith("warning:")]
    assert len(warned) == 1
    assert all(part in warned[0] for part in ("'sad'", "83%", "36"))
    found = audit(str(folder / "labels"), human=str(folder / "people.jsonl"), draws=100)
    assert not found.ok
    assert [w for w in found.warnings if "'sad' in 83% of 36" in w]
    assert found.record["corpora"][0]["best_classes"] == {
        "angry": 0, "happy": 6, "neutral": 0, "sad": 30,
    }  # fmt: skip
    varied = [replace(u, label=None) for u in spoken()]
    write_manifest(folder / "weak.jsonl", varied)
    done = label(str(folder / "weak.jsonl"), out=str(folder / "others"), **values)
    assert not [line for line in done.lines if line.startswith("warning:")]
