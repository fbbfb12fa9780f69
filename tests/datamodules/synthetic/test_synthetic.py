import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import soundfile
from facts import says
from serzoo.datamodules.corpora.synthetic import prepare
from serzoo.datamodules.synthetic import generate as synthetic
from serzoo.datamodules.synthetic.acting import (
    EMOTIONS,
    NEUTRAL_WORDED,
    WORDED,
    speaker,
    takes,
)
from serzoo.datamodules.synthetic.espeak import ACCENTS, Espeak
from serzoo.datamodules.synthetic.generate import act, ensure_synthetic, generate
from serzoo.zoo.core.errors import ConfigError, DataError

pytest.importorskip("espeakng_loader", reason="needs the extra quickstart")


def contents(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two speakers, three takes of every emotion."""
    return ensure_synthetic(tmp_path_factory.mktemp("cache"), utterances=3, speakers=2)


def test_another_process_writes_the_same_bytes(small, tmp_path):
    code = (
        "import sys; from pathlib import Path; "
        "from serzoo.datamodules.synthetic.generate import generate;"
        "generate(Path(sys.argv[1]), utterances=3, speakers=2)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "again")], check=True, timeout=120)
    again = contents(tmp_path / "again")
    assert len(again) == 2 * 7 * 3 + 1
    assert again == contents(small)


def test_a_take_spoken_alone_is_the_take_of_the_series(small):
    chosen = [(i, t) for i in (1, 0) for t in takes(speaker(0, i), seed=0, index=i, utterances=3)]
    with Espeak() as voice:
        for index, take in chosen[::-5]:
            stored, rate = soundfile.read(small / take.audio, dtype="int16")
            assert rate == 16000
            np.testing.assert_array_equal(act(voice, speaker(0, index), take), stored)


def test_more_takes_and_more_speakers_leave_the_first_as_they_are(small, tmp_path):
    few = contents(generate(tmp_path / "few", utterances=1, speakers=3))
    many = contents(small)
    common = (few.keys() & many.keys()) - {"corpus.json"}
    assert len(common) == 2 * 7
    assert all(few[name] == many[name] for name in common)


def test_another_seed_sounds_different_in_every_file(small, tmp_path):
    other = contents(generate(tmp_path / "other", seed=1, utterances=1, speakers=2))
    same = contents(small)
    assert not [name for name, data in other.items() if data == same[name]]


def test_utterances_are_of_speech_length_and_not_clipped(small):
    for path in small.rglob("*.flac"):
        x, _ = soundfile.read(path)
        assert 0.9 < len(x) / 16000 < 3.5
        assert 0.01 < np.abs(x).max() < 0.999


def test_loudness_is_kept(small):
    def level(who, label):
        x = [soundfile.read(p)[0] for p in sorted((small / who).glob(f"{who}-{label}-*"))]
        return 10 * np.log10(np.mean(np.concatenate(x) ** 2))

    for who in ("f01", "m01"):
        assert level(who, "angry") > level(who, "neutral") + 3
        assert level(who, "neutral") > level(who, "sad") + 2


def test_the_default_has_twelve_speakers_balanced_by_sex_and_accent():
    who = [speaker(0, i) for i in range(12)]
    assert len({s.name for s in who}) == 12
    assert Counter((s.gender, s.accent) for s in who) == Counter(
        (g, a) for g in ("female", "male") for a in ACCENTS
    )
    assert len({s.formants for s in who}) == 12
    women = [s.pitch_hz[0] for s in who if s.gender == "female"]
    men = [s.pitch_hz[0] for s in who if s.gender == "male"]
    assert min(women) > max(men)


def test_the_acted_corpus_is_still_the_first_that_was_published(small):
    """Its listing as of the first release: what is said and how, of two speakers."""
    listed = json.loads((small / "corpus.json").read_text())
    assert list(listed) == [
        "generator", "espeakng-loader", "seed", "utterances", "speakers", "takes",
    ]  # fmt: skip
    text = json.dumps(listed["takes"], sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e33c077a104f7511"


def test_words_tell_something_in_every_third_take_only():
    said = [t for i in range(12) for t in takes(speaker(0, i), seed=0, index=i, utterances=30)]
    bland = [t for t in said if t.text in NEUTRAL_WORDED]
    assert len(said) == 12 * 7 * 30
    assert len(bland) == 12 * 7 * 20
    fitting = {e: [t for t in said if t.label == e and t.text in WORDED[e]] for e in EMOTIONS}
    for emotion in EMOTIONS:
        assert len(fitting[emotion]) / 120 == pytest.approx(2 / 3, abs=0.13)  # 3 standard errors
        counts = Counter(t.text for t in bland if t.label == emotion)
        assert len(counts) == 8
        assert all(2 * 12 <= n <= 3 * 12 for n in counts.values())


def test_the_reader_tells_the_facts(small):
    found = list(prepare(small))
    assert [u.id for u in found][:2] == ["synthetic/f01-angry-01", "synthetic/f01-angry-02"]
    assert Counter(u.label for u in found) == dict.fromkeys(EMOTIONS, 6)
    assert {(u.speaker, u.gender) for u in found} == {("f01", "female"), ("m01", "male")}
    assert {u.audio for u in found} == contents(small).keys() - {"corpus.json"}
    facts = {(u.text_source, u.label_source, u.language) for u in found}
    assert facts == {("human", "acted", "en")}
    assert {u.text for u in found} <= {*NEUTRAL_WORDED, *(s for w in WORDED.values() for s in w)}


def test_the_reader_generates_into_an_empty_folder(small, tmp_path):
    found = list(prepare(tmp_path, utterances=3, speakers=2))
    assert found == list(prepare(small))
    assert contents(tmp_path) == contents(small)


def test_the_reader_refuses_other_options_than_are_there(small):
    assert len(list(prepare(small, seed=0, utterances=3))) == 42
    with pytest.raises(DataError, match=says("seed=0", "seed=5")):
        list(prepare(small, seed=5))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=says(tmp_path, "thesis.txt")):
        list(prepare(tmp_path))
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_listing_is_named(tmp_path, text):
    (tmp_path / "corpus.json").write_text(text)
    with pytest.raises(DataError, match=says("corpus.json", "'synthetic'")):
        list(prepare(tmp_path))


@pytest.mark.parametrize(
    "options",
    [{"seed": -1}, {"utterances": 0}, {"speakers": 1}, {"seed": 0.5}, {"sentences": "sung"}],
)
def test_options_out_of_range_are_refused(tmp_path, options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=says(f"{name}={value!r}")):
        generate(tmp_path / "new", **options)
    assert not list(tmp_path.iterdir())


def test_every_option_has_a_folder_of_its_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(synthetic, "generate", lambda root, **_: asked.append(root) or root)
    ensure_synthetic(tmp_path)
    ensure_synthetic(tmp_path, seed=1)
    ensure_synthetic(tmp_path, utterances=1)
    ensure_synthetic(tmp_path, speakers=2)
    ensure_synthetic(tmp_path, sentences="talk")
    monkeypatch.setattr(synthetic, "GENERATOR", synthetic.GENERATOR + 1)
    ensure_synthetic(tmp_path)
    assert len(set(asked)) == 6


def test_a_generated_corpus_is_not_generated_again(small, monkeypatch):
    monkeypatch.setattr(synthetic, "act", lambda *_: pytest.fail("spoken again"))
    assert ensure_synthetic(small.parent, utterances=3, speakers=2) == small


def test_two_at_once_end_with_one_whole_corpus(tmp_path):
    roots = []
    threads = [
        threading.Thread(
            target=lambda: roots.append(generate(tmp_path / "c", utterances=1, speakers=2))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert roots == [tmp_path / "c"] * 2
    assert [p.name for p in tmp_path.iterdir()] == ["c"]  # no draft is left
    assert len(list(prepare(tmp_path / "c"))) == 14


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "act", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(tmp_path / "c", utterances=1, speakers=2)
    assert not list(tmp_path.iterdir())
    with Espeak() as voice:  # the next user is not kept waiting
        assert voice.sample_rate == 22050


def pitches(x, rate):
    """F0 of the voiced frames by the autocorrelation's peaks, 60 to 400 Hz, in Hz."""
    size = rate // 20
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[:: size // 4]
    frames = frames[frames.std(1) > 0.3 * x.std()]
    window = np.hanning(size)
    r = autocorrelation((frames - frames.mean(1, keepdims=True)) * window) / autocorrelation(window)
    found, lags = [], slice(rate // 400, rate // 60)
    for row in r[:, lags] / r[:, :1]:
        peaks = 1 + np.flatnonzero((row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:]))
        if row[peaks].max(initial=0) > 0.6:
            # the first that is nearly as good: the best may be a multiple of the period
            first = peaks[row[peaks] > 0.9 * row[peaks].max()][0]
            found.append(rate / (first + lags.start))
    return np.array(found)


def autocorrelation(x):
    n = x.shape[-1]
    return np.fft.irfft(np.abs(np.fft.rfft(x, 2 * n)) ** 2)[..., : n - 1]


@pytest.mark.slow
def test_the_task_is_neither_trivial_nor_impossible_and_not_one_of_words(tmp_path):
    """UAR of linear models in four speaker-disjoint folds: six functionals, and words alone."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.metrics import recall_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    root = generate(tmp_path / "c")
    found = list(prepare(root))
    assert (len(found), len({u.speaker for u in found})) == (504, 12)
    rows = []
    for utterance in found:
        x, _ = soundfile.read(root / utterance.audio)
        st = 12 * np.log2(pitches(x, 16000))
        spectrum = np.abs(np.fft.rfft(x, 1 << 16)) ** 2
        bands = [spectrum[round(f * 4.096) : round(2 * f * 4.096)].sum() for f in (250, 2000)]
        level = 10 * np.log10(np.mean(x**2))
        rows.append([st.mean(), st.std(), np.ptp(st), level, len(x), np.log(bands[1] / bands[0])])
    label, who = [u.label for u in found], [u.speaker for u in found]

    def uar(model, inputs):
        guess = cross_val_predict(model, inputs, label, groups=who, cv=GroupKFold(4))
        return recall_score(label, guess, average="macro")

    voice = uar(LinearDiscriminantAnalysis(), np.array(rows))
    words = uar(make_pipeline(CountVectorizer(), MultinomialNB()), [u.text for u in found])
    print(f"UAR {voice:.3f} by six functionals, {words:.3f} by words")
    assert 0.5 < voice < 0.9
    assert 1 / 7 < words < voice - 0.15


def test_a_neutral_take_varies_too():
    neutral = [
        t for t in takes(speaker(0, 0), seed=0, index=0, utterances=6) if t.label == "neutral"
    ]
    assert len({(t.rate, t.pitch, t.loudness) for t in neutral}) == 6
