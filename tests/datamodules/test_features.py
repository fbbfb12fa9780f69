"""Stored features are the live ones; they are made once, and what changed is noticed."""

import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from close import assert_like
from facts import says
from serzoo.datamodules.catalog import open_corpora, prepare_corpus
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.features import FeatureStore, feature_key, load_wave, pad_waves
from serzoo.datamodules.manifest import Utterance, read_manifest, write_manifest
from serzoo.zoo.core.encoder import Encoder, LayerMix
from serzoo.zoo.core.errors import DataError, DataNote, DataWarning
from serzoo.zoo.core.types import Frames
from serzoo.zoo.encoders.hf import HFEncoder
from serzoo.zoo.encoders.logmel import LogMelEncoder

SECONDS = (0.5, 1.25, 0.25, 0.75)


class Toy(Encoder):
    """Two layers: samples by fours, and their doubles. Counts the utterances that it extracts."""

    def __init__(self, dtype="float32", scale=1.0):
        super().__init__()
        self.dim, self.dtype, self.scale = 4, dtype, scale
        self.frame_seconds = 4 / 16_000
        self.mix = LayerMix([0, 1])
        self.seen = []

    def extract(self, audio, lengths):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(len(lengths))
        audio = torch.nn.functional.pad(audio, (0, -audio.shape[1] % 4)) * self.scale
        mask = torch.arange(audio.shape[1] // 4) < (lengths[:, None] + 3) // 4
        hidden = audio.unflatten(1, (-1, 4)).to(getattr(torch, self.dtype)).float()
        return torch.stack([hidden, 2 * hidden], 1) * mask[:, None, :, None], mask

    def forward(self, hidden, mask):
        return Frames(self.mix(hidden), mask)

    def extraction(self):
        return {"type": "toy", "layers": [0, 1], "scale": self.scale, "dtype": self.dtype}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus(tmp_path, write_wave):
    """Four utterances of other lengths and pitches, and their folder."""
    utterances = []
    for i, seconds in enumerate(SECONDS):
        write_wave(tmp_path / "waves" / f"{i}.wav", seconds=seconds, hz=200 + 50 * i)
        utterances.append(
            Utterance(f"w/{i}", "w", f"{i}.wav", 0.0, seconds, 16_000, speaker="s", sha=f"{i:016x}")
        )
    return utterances, {"w": tmp_path / "waves"}


def opened(encoder, roots, max_seconds=20.0):
    return FeatureStore(
        encoder.extraction(), roots, max_seconds=max_seconds, frame_seconds=encoder.frame_seconds
    )


def filled(encoder, utterances, roots, **options):
    store = opened(encoder, roots, **options)
    return store, store.fill(encoder, utterances)


def dataset(utterances, roots, store=None):
    return SpeechDataset(
        utterances, [0] * len(utterances), 2, roots=roots, max_seconds=20.0, store=store
    )


# -- stored and live -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["toy", "logmel", "wav2vec2"])
def test_stored_features_equal_live_ones(corpus, tiny_hf, kind):
    torch.manual_seed(0)
    if kind == "toy":
        encoder = Toy()
    elif kind == "logmel":
        encoder = LogMelEncoder(widths=(2, 2, 2, 2), dim=4, bfloat16=False)
    else:
        encoder = HFEncoder(name=tiny_hf())
    utterances, roots = corpus
    store = opened(encoder, roots)
    assert utterances[0] not in store
    assert store.fill(encoder, utterances).kind == "stored"
    assert all(u in store for u in utterances)
    order = [3, 0, 1]
    stored = dataset(utterances, roots, store)[order]
    live = dataset(utterances, roots)[order]
    assert stored.audio is None
    assert stored.ids == live.ids
    assert torch.equal(stored.targets.probs, live.targets.probs)
    encoder.eval()
    with torch.no_grad():
        hidden, mask = encoder.extract(live.audio, live.lengths)
        assert torch.equal(stored.mask, mask)
        assert_like(stored.hidden, hidden, digits=5)
        assert not stored.hidden[~mask[:, None, :, None].expand_as(stored.hidden)].any()
        frames = encoder(stored.hidden, stored.mask).x
        assert_like(frames, encoder(hidden, mask).x, digits=5)


def test_a_mix_of_layers_learns_from_stored_features(corpus):
    encoder = Toy()
    store, _ = filled(encoder, *corpus)
    batch = dataset(*corpus, store)[[0, 1]]
    encoder.train()(batch.hidden, batch.mask).x.square().sum().backward()
    assert encoder.mix.logits.grad.abs().min() > 0


def test_an_encoder_is_handed_back_as_it_was(corpus):
    encoder = Toy()
    assert filled(encoder.train(), *corpus)[1].encoded == 4
    assert encoder.training


def test_durations_are_those_of_stored_frames(corpus):
    store, _ = filled(Toy(), *corpus)
    assert dataset(*corpus, store).seconds == pytest.approx(SECONDS)


def test_bfloat16_is_kept_in_two_bytes_and_exactly(corpus):
    encoder = Toy("bfloat16")
    store, done = filled(encoder, *corpus)
    values = round(sum(SECONDS) * 16_000) * 2
    assert done.bytes == 2 * values
    assert sum(p.stat().st_size for p in store.shards.folder.glob("*.bin")) == 2 * values
    assert store[corpus[0][0]].dtype == torch.bfloat16
    stored, live = (dataset(*corpus, s)[[1]] for s in (store, None))
    with torch.no_grad():
        hidden, _ = encoder.eval().extract(live.audio, live.lengths)
    assert stored.hidden.dtype == torch.bfloat16
    assert torch.equal(stored.hidden.float(), hidden)


def test_numbers_that_are_not_what_was_promised_are_refused(corpus):
    encoder = Toy()
    encoder.extraction = lambda: {"type": "toy", "dtype": "bfloat16"}
    with pytest.raises(TypeError, match=says("Toy.extraction()", "bfloat16")):
        filled(encoder, *corpus)


def test_features_that_are_not_finite_are_refused(corpus):
    with pytest.raises(DataError, match=says("w/1", "precision", "layer")):
        filled(Toy(scale=float("inf")), *corpus)


# -- made once -----------------------------------------------------------------------------------


def test_features_are_computed_once(corpus):
    utterances, roots = corpus
    encoder = Toy()
    _, first = filled(encoder, utterances[:2], roots)
    assert (first.kind, first.reused, first.encoded) == ("stored", 0, 2)
    assert first.speech_seconds == pytest.approx(1.8)  # 0.5 and 1.25, rounded
    assert first.bytes == 4 * 2 * 28_000
    _, second = filled(encoder, utterances, roots)
    assert (second.reused, second.encoded) == (2, 2)
    _, third = filled(encoder, utterances, roots)
    assert (third.reused, third.encoded, third.speech_seconds) == (4, 0, 0)
    assert sum(encoder.seen) == 4
    assert third.to_dict()["bytes"] == second.bytes
    # the same samples under another name need no second extraction
    again = [replace(utterances[0], id="w/other", audio="gone.wav")]
    assert filled(encoder, again, roots)[1].encoded == 0


def test_one_recording_that_is_listed_twice_is_one_row(corpus):
    utterances, roots = corpus
    encoder = Toy()
    twice = [*utterances, replace(utterances[0], id="w/twin")]
    assert filled(encoder, twice, roots)[1].encoded == 4
    assert sum(encoder.seen) == 4


def test_batches_hold_utterances_of_like_length(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules["serzoo.datamodules.features"].BATCH, "cpu", (2, 100.0))
    encoder = Toy()
    lengths = []
    extract = encoder.extract
    encoder.extract = lambda audio, n: lengths.append(n.tolist()) or extract(audio, n)
    filled(encoder, *corpus)
    assert lengths == [[20_000, 12_000], [8000, 4000]]


def test_chunks_are_bounded(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules["serzoo.datamodules.features"].BATCH, "cpu", (1, 100.0))
    monkeypatch.setattr("serzoo.datamodules.features.CHUNK_SECONDS", 1.3)
    store, _ = filled(Toy(), *corpus)
    sizes = sorted(p.stat().st_size for p in store.shards.folder.glob("*.bin"))
    # 0.25 s; 0.75 and 0.5 s; 1.25 s
    assert sizes == [4 * 2 * n for n in (4000, 20_000, 20_000)]


def test_two_weights_do_not_share(corpus):
    one, other = Toy(), Toy(scale=2.0)
    first, _ = filled(one, *corpus)
    second, done = filled(other, *corpus)
    assert done.encoded == 4
    assert first.shards.folder != second.shards.folder
    u = corpus[0][0]
    assert torch.equal(2 * first[u], second[u])


def test_what_does_not_cut_decides_nothing(corpus):
    encoder = Toy()
    utterances, roots = corpus
    filled(encoder, utterances, roots, max_seconds=20.0)
    _, done = filled(encoder, utterances, roots, max_seconds=2.0)
    assert done.encoded == 0
    store, done = filled(encoder, utterances, roots, max_seconds=0.6)
    assert done.encoded == 2  # the two that are longer
    assert [store.row(u).shape[1] * 4 for u in utterances] == [8000, 9600, 4000, 9600]


def test_features_are_named_by_content_and_cut(corpus):
    one = corpus[0][0]

    def key(**changes):
        u = replace(one, **changes)
        return feature_key(u, u.sha, 20.0)

    assert key() == key(id="w/other", audio="x.wav")
    others = [key(end=0.4), key(start=0.1), key(sha="f" * 16), key(sample_rate=8000)]
    assert len({key(), *others}) == 5
    assert feature_key(one, "a", 0.3) == feature_key(replace(one, end=0.3), "a", 20.0)


# -- what changed --------------------------------------------------------------------------------


def test_without_a_hash_the_samples_are_heard(corpus, write_wave):
    utterances, roots = corpus
    nameless = [replace(u, sha=None) for u in utterances]
    encoder = Toy()
    assert filled(encoder, nameless, roots)[1].encoded == 4
    assert filled(encoder, nameless, roots)[1].encoded == 0
    write_wave(roots["w"] / "2.wav", seconds=0.25, hz=999)
    store, done = filled(encoder, nameless, roots)
    assert done.encoded == 1
    live = dataset(nameless, roots)[[2]]
    assert torch.equal(store[nameless[2]][0].flatten(), live.audio[0])


@pytest.mark.parametrize("way", ["corpus", "manifest"])
def test_a_changed_file_is_noticed(tmp_path, write_wave, way):
    """A manifest's hashes are not believed when its audio is another."""
    root = tmp_path / "speech"
    for i in range(3):
        write_wave(root / "sad" / f"{i}.wav", hz=200 + 100 * i)
    path = str(prepare_corpus("folder", root=str(root), out=str(tmp_path / "m.jsonl"))[1])

    def speech():
        if way == "corpus":
            return open_corpora(["folder"], root=str(root))
        return open_corpora([], manifest=path)

    encoder, before = Toy(), speech()
    assert filled(encoder, before.utterances, before.roots)[1].encoded == 3
    assert speech().sha == before.sha
    write_wave(root / "sad" / "1.wav", hz=777)
    if way == "manifest":
        with pytest.warns(DataWarning, match=says("1 of 3", "sad/1.wav", "serzoo prepare")):
            after = speech()
        assert after.notes["folder"]["changed_since_prepared"] == 1
    else:
        after = speech()
    assert after.sha != before.sha
    store, done = filled(encoder, after.utterances, after.roots)
    assert (done.reused, done.encoded) == (2, 1)
    live = dataset(after.utterances, after.roots)[[1]]
    assert torch.equal(store[after.utterances[1]][0].flatten(), live.audio[0])


def test_an_utterance_ends_within_its_file(tmp_path, write_wave):
    root, path = tmp_path / "speech", tmp_path / "m.jsonl"
    write_wave(root / "sad" / "0.wav", seconds=0.5)
    prepare_corpus("folder", root=str(root), out=str(path))
    text = path.read_text()
    assert text.count('"end": 0.5') == 1
    for end, right in ((0.52, True), (0.7, False)):  # rounded times are no fault
        path.write_text(text.replace('"end": 0.5', f'"end": {end}'))
        if right:
            assert len(open_corpora([], manifest=str(path)).utterances) == 1
            continue
        with pytest.raises(DataError, match=says("sad/0.wav", "0.700 s", "0.500 s", "end")):
            open_corpora([], manifest=str(path))


def test_a_manifest_is_listened_to_once(tmp_path, write_wave, monkeypatch):
    root = tmp_path / "speech"
    for i in range(2):
        write_wave(root / "sad" / f"{i}.wav", hz=200 + 100 * i)
    path = prepare_corpus("folder", root=str(root), out=str(tmp_path / "m.jsonl"))[1]
    bare = tmp_path / "bare.jsonl"
    write_manifest(bare, [replace(u, sha=None) for u in read_manifest(path)])
    speech = open_corpora([], manifest=str(bare), root=str(root))
    assert [u.sha for u in speech.utterances] == [u.sha for u in read_manifest(path)]
    monkeypatch.setattr(
        "serzoo.datamodules.catalog.decode_utterance", lambda *_: pytest.fail("again")
    )
    assert open_corpora([], manifest=str(bare), root=str(root)).sha == speech.sha


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (1e30, "out of range")])
def test_a_manifest_of_an_absurd_recording_is_refused_by_its_name(
    tmp_path, write_wave, value, words
):
    for i in range(2):
        wave = 0.1 * np.sin(np.arange(8000) / (5 + i))
        wave[100] = value if i else 0.1
        write_wave(tmp_path / "c" / f"{i}.wav", wave, subtype="FLOAT")
    rows = [Utterance(f"c/{i}", "folder", f"{i}.wav", 0.0, 0.5, 16_000, "s") for i in range(2)]
    write_manifest(tmp_path / "m.jsonl", rows)
    with pytest.raises(DataError, match=f"c/1 .*{words}"):
        open_corpora([], manifest=str(tmp_path / "m.jsonl"), root=str(tmp_path / "c"))


# -- the disk ------------------------------------------------------------------------------------


def room(monkeypatch, free):
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr("serzoo.datamodules.features.shutil.disk_usage", lambda _: usage)


@pytest.mark.parametrize("told", [True, False])
def test_what_does_not_fit_is_not_stored(corpus, monkeypatch, told):
    """Told by the encoder, or measured on the first chunk."""
    room(monkeypatch, 512 * 2**20 + 100_000)
    encoder = Toy()
    if told:
        monkeypatch.setattr(Toy, "bytes_per_second", 2 * 4 * 16_000.0)
    with pytest.warns(DataWarning, match=says(4, "0.00 GiB", "SERZOO_CACHE", "data.features=live")):
        store, done = filled(encoder, *corpus)
    assert done.kind == "live"
    assert sum(encoder.seen) == (0 if told else 4)
    assert not list(store.shards.folder.glob("*.bin*"))
    assert not list(store.shards.folder.glob("*.claim"))
    room(monkeypatch, 512 * 2**20 + 400_000)
    assert filled(encoder, *corpus)[1].kind == "stored"


def test_a_disk_that_runs_full_is_an_error_with_advice(corpus, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    encoder = Toy()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(
            DataError, match=says("serzoo cache list", "SERZOO_CACHE", "data.features=live")
        ):
            filled(encoder, *corpus)
    assert filled(encoder, *corpus)[1].kind == "stored"


def test_a_cache_that_cannot_be_written_is_an_error_with_advice(corpus, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SERZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=says("Errno 20", "SERZOO_CACHE", "data.features=live")):
        filled(Toy(), *corpus)


# -- reading -------------------------------------------------------------------------------------


def test_a_worker_process_reads_the_same(corpus):
    store, _ = filled(Toy(), *corpus)
    sent = pickle.dumps(store)
    assert len(sent) < 4000  # no values
    assert torch.equal(pickle.loads(sent)[corpus[0][1]], store[corpus[0][1]])


def test_writing_into_a_row_leaves_the_file_alone(corpus):
    store, _ = filled(Toy(), *corpus)
    before = store[corpus[0][0]].clone()
    store[corpus[0][0]].zero_()
    fresh, _ = filled(Toy(), *corpus)
    assert torch.equal(fresh[corpus[0][0]], before)


def test_many_shards_take_no_file_handles(corpus, monkeypatch):
    """Python's own maps keep their files open: 1024 of them end a process."""
    utterances, roots = corpus
    monkeypatch.setattr("serzoo.datamodules.features.CHUNK_SECONDS", 0.0)
    monkeypatch.setitem(sys.modules["serzoo.datamodules.features"].BATCH, "cpu", (1, 1.0))
    many = [replace(utterances[2], sha=f"{i:016x}") for i in range(40)]
    filled(Toy(), many, roots)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, hard))
    try:
        store, done = filled(Toy(), many, roots)
        assert len({store.row(u).shard for u in many}) == 40
        assert all(store[u].abs().sum() > 0 for u in many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert done.encoded == 0


# -- several processes ---------------------------------------------------------------------------

PROCESS = textwrap.dedent(
    """
    import importlib.util, json, sys
    from pathlib import Path
    from serzoo.datamodules import features as encoding
    from serzoo.datamodules.manifest import read_manifest

    spec = importlib.util.spec_from_file_location("shared", sys.argv[1])
    shared = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shared)
    encoding.CHUNK_SECONDS = 2.0
    encoding.BATCH["cpu"] = (2, 4.0)
    print("ready", flush=True)
    sys.stdin.readline()
    encoder = shared.Toy()
    utterances = read_manifest(sys.argv[2])
    store, done = shared.filled(encoder, utterances, {"w": Path(sys.argv[3])})
    total = sum(float(store[u].sum()) for u in utterances)
    print(json.dumps([done.encoded, done.reused, sum(encoder.seen), total]))
    """
)


HELPERS = Path(__file__).resolve().parents[1] / "helpers"  # where pytest finds them, too


@pytest.mark.slow
def test_three_processes_share_the_work(tmp_path, write_wave):
    """Each utterance is extracted once in all, and each process reads all of them."""
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(60):
        n = int(rng.integers(4000, 16_000))
        write_wave(tmp_path / "waves" / f"{i}.wav", 0.1 * rng.normal(size=n))
        utterances.append(
            Utterance(
                f"w/{i}", "w", f"{i}.wav", 0.0, n / 16_000, 16_000, speaker="s", sha=f"{i:016x}"
            )
        )
    write_manifest(tmp_path / "m.jsonl", utterances)
    arguments = [str(Path(__file__)), str(tmp_path / "m.jsonl"), str(tmp_path / "waves")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HELPERS)},
        )
        for _ in range(3)
    ]
    try:
        assert [p.stdout.readline() for p in processes] == ["ready\n"] * 3
        for p in processes:  # all at once
            p.stdin.write("go\n")
            p.stdin.flush()
        said = [p.communicate(timeout=120)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
            p.wait()
    results = [json.loads(text) for text in said]
    assert sum(encoded for encoded, _, _, _ in results) == 60
    assert all(encoded == seen for encoded, _, seen, _ in results)
    assert all(encoded + reused == 60 for encoded, reused, _, _ in results)
    assert len(Counter(total for *_, total in results)) == 1
    assert sum(encoded > 0 for encoded, _, _, _ in results) >= 2


# -- one store serves many -----------------------------------------------------------------------


@pytest.mark.parametrize("layers", [[0], [2], [0, 1], [1, 2], [0, 2]])
@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_a_store_of_all_layers_serves_some_of_them(corpus, tiny_hf, monkeypatch, family, layers):
    utterances, roots = corpus
    name = tiny_hf(family, "none" if family == "whisper" else "group")
    whole, _ = filled(HFEncoder(name=name), utterances, roots)
    few = HFEncoder(name=name, layers=layers)
    fresh = FeatureStore(few.extraction(), roots, max_seconds=20.0, folder=roots["w"] / "fresh")
    fresh.fill(few, utterances)
    monkeypatch.setattr(few, "extract", None)  # nothing is encoded again
    store, done = filled(few, utterances, roots)
    assert (done.kind, done.encoded, done.reused) == ("stored", 0, len(utterances))
    assert not store.shards.folder.exists()
    for u in utterances:
        assert store[u].shape[0] == len(layers)
        assert torch.equal(store[u], whole[u][layers])
        assert torch.equal(store[u], fresh[u])
    assert done.bytes == sum(fresh[u].nbytes for u in utterances)
    again = pickle.loads(pickle.dumps(store))
    assert torch.equal(again[utterances[0]], store[utterances[0]])


def test_what_the_wider_store_lacks_is_encoded(corpus, tiny_hf):
    utterances, roots = corpus
    name = tiny_hf()
    filled(HFEncoder(name=name), utterances[:3], roots)
    few = HFEncoder(name=name, layers=[1])
    store, done = filled(few, utterances, roots)
    assert (done.encoded, done.reused) == (1, 3)
    live, _ = few.eval().extract(*pad_waves([load_wave(utterances[3], roots, 20.0)]))
    assert_like(store[utterances[3]], live[0])


@pytest.mark.parametrize("change", ["layers", "weights", "window", "damaged"])
def test_a_store_of_something_else_does_not_serve(corpus, tiny_hf, cache, change):
    utterances, roots = corpus
    name = tiny_hf("whisper", "none")
    kept = {"layers": {"layers": [0, 1]}, "window": {"window": 0.5}}.get(change, {})
    if change == "weights":
        kept = {"name": tiny_hf("whisper", "none", d_model=32, seed=3)}
    _, _ = filled(HFEncoder(**{"name": name, **kept}), utterances, roots)
    if change == "damaged":
        next(cache.glob("features/*/store.json")).write_text("{")
    _, done = filled(HFEncoder(name=name, layers=[2]), utterances, roots)
    assert (done.encoded, done.reused) == (len(utterances), 0)


def test_long_work_without_a_bar_is_told(corpus, monkeypatch):
    utterances, roots = corpus
    monkeypatch.setattr("serzoo.datamodules.features.Said.FIRST", 0.0)
    with pytest.warns(DataNote, match=says("4 of 4 utterances", "encoded", "min left")):
        filled(Toy(), utterances, roots)
