"""Recognisers against the pipelines of transformers; what is kept and what is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_asr
import tiny_text
import torch
from facts import says
from serzoo.datamodules.audio import read_audio
from serzoo.datamodules.labelling.asr import (
    REASONS,
    Heard,
    Recogniser,
    Transcribe,
    recogniser,
    repeats,
    with_text,
)
from serzoo.datamodules.labelling.stage import rows_of, run
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError
from transformers import pipeline

LANGUAGES = {"english": "en", "german": "de", "french": "fr"}


def waves(*lengths: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(n) * np.linspace(0, 0.3, n)).astype("float32") for n in lengths]


def by_pipeline(folder: str, wave: Any, **options: Any) -> dict[str, Any]:
    found = pipeline("automatic-speech-recognition", model=folder)(
        {"raw": wave.copy(), "sampling_rate": 16000}, **options
    )
    return dict(found)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> str:
    return tiny_asr.tiny_whisper(tmp_path_factory.mktemp("asr") / "whisper")


@pytest.fixture(scope="module")
def ctc(tmp_path_factory) -> str:
    return tiny_asr.tiny_ctc(tmp_path_factory.mktemp("asr") / "ctc", seed=1)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_ctc_batches_are_the_pipeline_alone(tmp_path, norm):
    folder = tiny_asr.tiny_ctc(tmp_path, norm, seed=1)
    model = recogniser(folder)
    assert model.batched == (norm == "layer")  # others hear what is behind an utterance
    audio = waves(9000, 31000, 16000)
    together, alone = model.hear(audio), [model.hear([w])[0] for w in audio]
    assert len({h.text for h in together}) == 3
    for wave, one, other in zip(audio, together, alone, strict=True):
        assert one.text == other.text == by_pipeline(folder, wave)["text"].strip()
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4, abs=1e-5)
        assert one.language is None


def test_ctc_confidence_is_of_the_surest_frame_of_each_token(ctc):
    model = recogniser(ctc)
    # blank, A A (the second is surer), blank, A, B
    log = torch.tensor([-0.1, -0.9, -0.5, -0.1, -0.7, -0.3])
    heard = model._read(log, torch.tensor([0, 5, 5, 0, 5, 6]))
    assert heard.text == "AAB"
    assert heard.confidence == pytest.approx(-(0.5 + 0.7 + 0.3) / 3)
    silent = model._read(log[:2], torch.tensor([0, 0]))
    assert silent == Heard("", None, None)


@pytest.mark.parametrize("beams", [1, 3])
def test_whisper_batches_are_the_pipeline_alone_with_the_language_it_hears(whisper, beams):
    model = recogniser(whisper, beams=beams)
    audio = waves(9000, 16000, 24000, 31000)
    together, alone = model.hear(audio), [model.hear([w])[0] for w in audio]
    assert len({h.text for h in together}) == 4
    assert len({h.language for h in together}) > 1
    for wave, one, other in zip(audio, together, alone, strict=True):
        options = {"num_beams": beams, "max_new_tokens": 36, "task": "transcribe"}
        found = by_pipeline(whisper, wave, return_language=True, generate_kwargs=options)
        assert one.text == other.text == found["text"].strip()
        assert one.language == other.language == LANGUAGES[found["chunks"][0]["language"]]
        assert one.confidence == pytest.approx(other.confidence, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("multilingual", [True, False])
def test_whisper_confidence_is_the_mean_of_the_greedy_scores(tmp_path, multilingual):
    folder = tiny_asr.tiny_whisper(tmp_path, multilingual=multilingual, suppress=False)
    model = recogniser(folder, language="de" if multilingual else None)
    wave = waves(24000)[0]
    heard = model.hear([wave])[0]
    options = {"language": "de", "task": "transcribe"} if multilingual else {}
    found = model.model.generate(
        **model._features([wave]), max_new_tokens=36, force_unique_generate_call=True,
        return_dict_in_generate=True, output_logits=True, **options,
    )  # fmt: skip
    start = found.sequences.shape[1] - len(found.logits)
    assert start == (4 if multilingual else 2)
    logs = torch.stack(found.logits, 1).log_softmax(-1)[0]
    expected = logs.gather(-1, found.sequences[0, start:, None]).mean()
    assert heard.confidence == pytest.approx(float(expected), rel=1e-4, abs=1e-5)
    assert heard.language == ("de" if multilingual else "en")


def test_another_writer_is_the_pipeline_too(tmp_path):
    folder = tiny_asr.tiny_moonshine(tmp_path, seed=1)
    model = recogniser(folder)
    for wave, heard in zip(audio := waves(9000, 16000, 24000), model.hear(audio), strict=True):
        options = {"num_beams": 1, "max_new_tokens": 256}
        assert heard.text == by_pipeline(folder, wave, generate_kwargs=options)["text"].strip()
        assert heard.confidence < 0
        assert heard.language is None


def test_a_recogniser_says_what_it_is(whisper, ctc):
    model = recogniser(whisper, beams=2, language="de")
    assert model.settings() == {
        "model": "whisper", "revision": "local", "weights": model.source.partition("@")[2],
        "dtype": "float32", "beams": 2, "language": "de",
    }  # fmt: skip
    assert model.longest == 2.0
    assert recogniser(ctc).source.startswith("ctc@")
    assert recogniser(ctc, dtype="bfloat16").settings()["dtype"] == "bfloat16"


def test_what_does_not_fit_a_recogniser_is_refused(tmp_path, whisper, ctc):
    with pytest.raises(ConfigError, match=says("language=de", "Whisper", "ctc")):
        recogniser(ctc, language="de")
    with pytest.raises(ConfigError, match=says("beams=2", "ctc", "CTC")):
        recogniser(ctc, beams=2)
    with pytest.raises(ConfigError, match=says("language=it", "de, en, fr")):
        recogniser(whisper, language="it")
    with pytest.raises(ConfigError, match=says("asr=./nothing", "model.safetensors")):
        recogniser("./nothing")
    with pytest.raises(ConfigError, match=says("asr=", "ctc", "'main'")):
        recogniser(ctc, revision="main")
    with pytest.raises(ConfigError, match=says("'int8'", "float32, bfloat16, float16")):
        recogniser(ctc, dtype="int8")
    with pytest.raises(ConfigError, match=says("asr=pocketsphinx", "language", "beams")):
        recogniser("pocketsphinx", language="de")
    tiny_text.save_nli(tmp_path / "nli")
    with pytest.raises(
        ConfigError,
        match=says("BertForSequenceClassification", "openai/whisper-small", "pocketsphinx"),
    ):
        recogniser(str(tmp_path / "nli"))
    weights = Path(ctc) / "model.safetensors"
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((Path(ctc) / "config.json").read_bytes())
    (bare / "pytorch_model.bin").write_bytes(weights.read_bytes())
    with pytest.raises(ConfigError, match=says("asr=", "model.safetensors", "save_pretrained")):
        recogniser(str(bare))


class Parrot(Recogniser):
    """Hears the number of samples, looked up; writes down who shared a batch."""

    source, batched, least = "parrot@1", True, -1.0

    def __init__(self, says: dict[int, Heard]) -> None:
        self.says, self.batches = says, []

    def settings(self) -> dict[str, Any]:
        return {"model": "parrot"}

    def hear(self, waves: Any) -> list[Heard]:
        self.batches.append([len(w) for w in waves])
        return [self.says.get(len(w), Heard("one two three", -0.5, "en")) for w in waves]


def utterance(name: str, start: float, end: float, **facts: Any) -> Utterance:
    return Utterance(f"c/{name}", "c", "long.wav", start, end, 8000, "s", **facts)


@pytest.fixture
def roots(tmp_path) -> dict[str, Path]:
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 60, "float32"), 8000)
    return {"c": tmp_path}


def test_human_text_stays_and_what_is_missing_is_heard(tmp_path, roots):
    items = [
        utterance("a", 0, 1, text="so es war nun ", text_source="human", language="de"),
        utterance("b", 1, 3),
        utterance("c", 0, 2.5, text="from an earlier model", text_source="asr:x@1"),
        utterance("d", 0, 1, text=" "),
        utterance("e", 0, 1, text="Yes."),
    ]
    parrot = Parrot({32000: Heard("it was me", -0.25, "en")})
    done = run(Transcribe(parrot, roots), items, tmp_path / "out")
    rows = list(rows_of(done.path))
    assert [tuple(r.values()) for r in rows] == [
        ("c/a", "so es war nun", "human", "de", None, None),
        ("c/b", "it was me", "asr:parrot@1", "en", -0.25, None),
        ("c/c", "from an earlier model", "asr:x@1", None, None, None),
        ("c/d", "one two three", "asr:parrot@1", "en", -0.5, None),
        ("c/e", "Yes.", "human", None, None, "short"),
    ]
    assert list(rows[0]) == ["id", "text", "text_source", "language", "confidence", "rejected"]
    kept = with_text(items, rows)
    assert [(u.id, u.text, u.text_source) for u in kept] == [
        ("c/a", "so es war nun", "human"), ("c/b", "it was me", "asr:parrot@1"),
        ("c/c", "from an earlier model", "asr:x@1"), ("c/d", "one two three", "asr:parrot@1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("end", "heard", "reason"),
    [
        (30.1, Heard("not listened to at all"), "long"),
        (0.05, Heard("not listened to at all"), "empty"),
        (1, Heard(""), "empty"),
        (1, Heard("... !"), "empty"),
        (1, Heard("no " * 5), "repeated"),
        (1, Heard("thank you"), "short"),
        (1, Heard("who said so then", -1.01), "unsure"),
        (1, Heard("who said so then", -0.99), None),
        (1, Heard("who said so then", None), None),
    ],
)
def test_each_reason_to_turn_an_utterance_away(roots, end, heard, reason):
    parrot = Parrot({round(end * 16000): heard})
    (row,) = Transcribe(parrot, roots).rows([utterance("a", 0, end)])
    assert row["rejected"] == reason
    assert reason is None or reason in REASONS
    listened = 0.1 <= end <= 30
    assert row["text"] == ((heard.text if listened else "") or None)
    assert bool(parrot.batches) == listened


def test_limits_can_be_set(roots):
    parrot = Parrot({16000: Heard("oh no", -3.0), 32000: Heard("la la la", -0.1)})
    free = Transcribe(parrot, roots, min_words=1, min_confidence=None, max_repeats=2)
    rows = list(free.rows([utterance("a", 0, 1), utterance("b", 0, 2)]))
    assert {r["id"]: r["rejected"] for r in rows} == {"c/a": None, "c/b": "repeated"}
    parrot.longest = 1.5
    told = Transcribe(parrot, roots).settings()
    assert (told["max_seconds"], told["min_confidence"]) == (1.5, -1.0)
    parrot.least = None
    assert Transcribe(parrot, roots).settings()["min_confidence"] is None
    assert Transcribe(None, roots).settings()["asr"] is None
    with pytest.raises(ConfigError, match=says("min_words=0")):
        Transcribe(parrot, roots, min_words=0)
    with pytest.raises(ConfigError, match=says("c/a", "asr=MODEL")):
        list(Transcribe(None, roots).rows([utterance("a", 0, 1)]))


def test_batches_are_of_alike_lengths_and_within_their_budget(roots):
    parrot = Parrot({})
    items = [utterance(str(i), 0, end) for i, end in enumerate([1, 9, 2, 8, 1, 2, 4])]
    stage = Transcribe(parrot, roots, batch_size=3, batch_seconds=18)
    run(stage, items, roots["c"] / "out")
    assert [[n / 16000 for n in b] for b in parrot.batches] == [[9, 8], [4, 2, 2], [1, 1]]
    parrot.batches, parrot.batched = [], False
    list(stage.rows(items))
    assert [len(b) for b in parrot.batches] == [1] * 7


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("no no no no", False),
        ("No, no, no, no! No!", True),
        ("I know. I know. I know. I know. I know.", True),
        ("I know. I know. I know. I know. You know.", False),
        ("what a day it is what a day it is", False),
        ("thanks for watching " * 12, True),
        ("ha" * 60, True),  # one word to us, but zlib sees it
        ("", False),
    ],
)
def test_loops_are_told_from_emphasis(text, loops):
    assert repeats(text) == loops


def words_wrong(truth: str, heard: str) -> float:
    """Word error rate: the least number of words to change, add or leave out."""
    a, b = truth.lower().split(), heard.lower().split()
    row = list(range(len(b) + 1))
    for i, word in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1] / len(a)


def test_words_wrong():
    assert words_wrong("a b c d", "a x c") == 0.5
    assert words_wrong("a b", "a b c") == 0.5


def test_pocketsphinx_on_real_speech(real_data):
    """LibriSpeech's transcript of test-other/1688-142285-0000; 12 of 32 words wrong, measured."""
    pytest.importorskip("pocketsphinx")
    file = real_data("librispeech_mini") / "audio" / "test-other" / "1688-142285-0000.flac"
    truth = (
        "THERE'S IRON THEY SAY IN ALL OUR BLOOD AND A GRAIN OR TWO PERHAPS IS GOOD BUT HIS HE "
        "MAKES ME HARSHLY FEEL HAS GOT A LITTLE TOO MUCH OF STEEL ANON"
    )
    (heard,) = recogniser("pocketsphinx").hear([read_audio(file)])
    assert words_wrong(truth, heard.text) <= 0.4
    assert heard.confidence == pytest.approx(-1.03, abs=0.1)  # no limit fits every recogniser
    assert heard.language == "en"


def test_pocketsphinx_hears_the_same_whatever_came_before(real_data):
    pytest.importorskip("pocketsphinx")
    folder = real_data("librispeech_mini") / "audio" / "test-other"
    first, second = (
        read_audio(folder / f"{name}.flac") for name in ("533-1066-0000", "367-130732-0000")
    )
    model = recogniser("pocketsphinx")
    alone = model.hear([first])
    assert model.hear([second, first])[1:] == alone
    assert model.hear([np.zeros(1600, "float32")])[0].text == ""
    assert model.settings() == {"model": "pocketsphinx", "revision": model.source[13:]}
