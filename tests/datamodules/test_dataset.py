"""From a list of indices to a batch."""

from dataclasses import replace

import pytest
import soundfile
import torch
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.datamodules.features import load_wave, pad_hidden, pad_waves
from serzoo.datamodules.manifest import Utterance

SECONDS = (0.5, 1.25, 0.25, 0.75)


@pytest.fixture
def corpus(tmp_path, write_wave):
    """Four utterances; the last three files are louder and louder."""
    utterances = []
    for i, seconds in enumerate(SECONDS):
        write_wave(tmp_path / f"{i}.wav", seconds=seconds, hz=200 + 50 * i)
        utterances.append(
            Utterance(
                f"folder/{i}", "folder", f"{i}.wav", 0.0, seconds, 16_000, speaker=f"s{i % 2}",
                text="so it is" if i else None, sha=f"{i:016x}",
            )
        )  # fmt: skip
    return utterances, {"folder": tmp_path}


def dataset(corpus, **options):
    utterances, roots = corpus
    options = {"roots": roots, "max_seconds": 20.0, **options}
    return SpeechDataset(utterances, [1, 0, -1, 2], 3, **options)


def test_audio_is_padded_behind_with_zeros(corpus):
    batch = dataset(corpus)[[2, 1, 0]]
    assert batch.ids == ["folder/2", "folder/1", "folder/0"]
    assert batch.speakers == ["folder/s0", "folder/s1", "folder/s0"]
    assert batch.audio.shape == (3, 20_000)
    assert batch.audio.dtype == torch.float32
    assert batch.lengths.tolist() == [4000, 20_000, 8000]
    for i, name in enumerate(["2.wav", "1.wav", "0.wav"]):
        wave, _ = soundfile.read(corpus[1]["folder"] / name, dtype="float32")
        assert torch.equal(batch.audio[i, : len(wave)], torch.from_numpy(wave))
        assert not batch.audio[i, len(wave) :].any()


def test_labels_are_one_hot_and_unlabelled_rows_are_zero(corpus):
    targets = dataset(corpus, weights=[1.0, 2.0, 0.5])[[0, 1, 2, 3]].targets
    assert targets.probs.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert targets.weight.tolist() == [2, 1, 0, 0.5]
    assert targets.item_weight.tolist() == [2, 1, 0, 0.5]
    assert dataset(corpus)[[0, 3]].targets.weight.tolist() == [1, 1]


def test_dimensions_are_nan_where_not_rated(corpus):
    utterances, roots = corpus
    assert dataset(corpus)[[0, 1]].targets.dims is None
    utterances[1] = replace(utterances[1], dims=(0.25, None, 1.0))
    dims = dataset((utterances, roots))[[0, 1]].targets.dims
    assert dims.shape == (2, 3)
    assert dims[0].isnan().all()
    assert dims[1, [0, 2]].tolist() == [0.25, 1.0]
    assert dims[1, 1].isnan()


def test_genders_and_training_speakers_come_only_when_asked_for(corpus):
    utterances, roots = corpus
    genders = ("female", "male", None, "male")
    known = [replace(u, gender=g) for u, g in zip(utterances, genders, strict=True)]
    known[3] = replace(known[3], speaker="new")
    targets = dataset((known, roots), speakers=["folder/s1", "folder/s0"])[[0, 1, 2, 3]].targets
    assert targets.gender.tolist() == [[1, 0], [0, 1], [0, 0], [0, 1]]
    assert targets.speaker.tolist() == [[0, 1], [1, 0], [0, 1], [0, 0]]
    plain = dataset((known, roots))[[0]].targets
    assert plain.gender is plain.speaker is None


def test_transcripts_come_only_when_asked_for(corpus):
    assert dataset(corpus)[[0, 1]].text is None
    assert dataset(corpus, text=True)[[0, 1]].text == ["", "so it is"]


def test_long_utterances_are_cut(corpus):
    cut = dataset(corpus, max_seconds=0.6)
    assert cut.seconds == [0.5, 0.6, 0.25, 0.6]
    assert cut[[1]].lengths.tolist() == [9600]


def test_segments_are_cut_out_of_their_file(corpus):
    utterances, roots = corpus
    whole = load_wave(utterances[1], roots, 20.0)
    part = load_wave(replace(utterances[1], start=0.25, end=0.75), roots, 20.0)
    assert torch.equal(part, whole[4000:12_000])
    short = load_wave(replace(utterances[1], start=0.25, end=0.75), roots, 0.1)
    assert torch.equal(short, whole[4000:5600])


def test_padding_of_lists():
    audio, lengths = pad_waves([torch.ones(2), torch.ones(4)])
    assert audio.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert lengths.tolist() == [2, 4]
    hidden, mask = pad_hidden([torch.ones(2, 1, 3), torch.ones(2, 2, 3)])
    assert hidden.shape == (2, 2, 2, 3)
    assert hidden.sum(dim=(1, 2, 3)).tolist() == [6, 12]
    assert mask.tolist() == [[True, False], [True, True]]
    half, _ = pad_hidden([torch.full((1, 1, 2), 1.5, dtype=torch.bfloat16)])
    assert half.dtype == torch.bfloat16  # half the bytes to copy, and to send to a device
    assert half.tolist() == [[[[1.5, 1.5]]]]
