"""The window of Whisper: shorter than published, of each utterance's own length, overlapping."""

from __future__ import annotations

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.encoders.hf import HFEncoder, fast_bfloat16
from transformers import AutoModel, WhisperFeatureExtractor
from waves import speech

SECOND = 16000


def voices(rows: int, samples: int) -> torch.Tensor:
    """Return ``[rows, samples]`` that differ."""
    return torch.stack([speech(samples, seed) for seed in range(rows)])


@pytest.fixture
def whisper(tiny_hf):
    """A Whisper whose published window is four seconds."""
    return tiny_hf("whisper", "none", max_source_positions=200)


def published(name: str, samples: torch.Tensor, seconds: int) -> torch.Tensor:
    """Return the last state ``[1, T, D]`` of transformers alone, with the first positions."""
    encoder = AutoModel.from_pretrained(name).eval().encoder
    encoder.config.max_source_positions = 50 * seconds
    encoder.max_source_positions = 50 * seconds
    positions = encoder.embed_positions.weight[: 50 * seconds]
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(positions)
    extractor = WhisperFeatureExtractor(chunk_length=seconds)
    features = extractor(samples.numpy(), sampling_rate=SECOND, return_tensors="pt")
    with torch.no_grad():
        state = encoder(features.input_features).last_hidden_state
    return state[:, : -(-len(samples) // 320)]


@pytest.mark.parametrize("seconds", [1, 2, 3, 4])
def test_a_shorter_window_is_the_published_model_with_the_first_positions(whisper, seconds):
    x = voices(1, 14000)
    encoder = HFEncoder(name=whisper, layers=[3], window=seconds)
    hidden, _ = encoder.extract(x, torch.tensor([14000]))
    assert_like(hidden[:, 0], published(whisper, x[0], seconds))


@pytest.mark.parametrize(("samples", "seconds"), [(9000, 1), (15700, 2), (31000, 2), (47000, 3)])
def test_an_own_window_is_the_audio_and_silence_to_the_next_second(whisper, samples, seconds):
    x = voices(1, samples)
    hidden, _ = HFEncoder(name=whisper, layers=[3], window="auto").extract(
        x, torch.tensor([samples])
    )
    assert_like(hidden[:, 0], published(whisper, x[0], seconds))


@pytest.mark.parametrize("window", [None, 2, 0.7, "auto"])
def test_neighbours_change_no_frame(whisper, window):
    lengths = torch.tensor([1, 399, 9000, 15999, 16000, 40000, 64000, 130001])
    x = voices(len(lengths), 130001)
    encoder = HFEncoder(name=whisper, layers=[0, 3], window=window)
    together, mask = encoder.extract(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = encoder.extract(x[i : i + 1, :n], lengths[i : i + 1])
        assert mask[i].sum() == alone.shape[2] == -(-n // 320)
        assert_like(together[i, :, : alone.shape[2]], alone[0])


def test_a_frame_of_long_audio_comes_from_the_window_in_whose_middle_it_lies(whisper):
    x, n = voices(1, 5 * SECOND), 5 * SECOND
    encoder = HFEncoder(name=whisper, layers=[3], window=2)
    hidden, _ = encoder.extract(x, torch.tensor([n]))
    # windows begin at 0, 1.6 and 3.2 s; the overlaps are divided at 1.8 and 3.4 s
    for start, first, end in [(0, 0, 90), (80, 90, 170), (160, 170, 250)]:
        piece = x[:, start * 320 : start * 320 + 2 * SECOND]
        own, _ = encoder.extract(piece, torch.tensor([piece.shape[1]]))
        assert_like(hidden[:, 0, first:end], own[:, 0, first - start : end - start])


def test_the_window_names_the_features(whisper):
    found = {w: HFEncoder(name=whisper, window=w).extraction() for w in (None, 2.0, "auto")}
    assert [e.get("window") for e in found.values()] == [None, 2.0, "auto"]


@pytest.mark.parametrize("window", [0, 0.05, -1, 4.5, 30])
def test_a_window_that_the_model_lacks_is_refused(whisper, window):
    with pytest.raises(ConfigError, match=says(f"encoder.window={window:g}", "4 s", "auto")):
        HFEncoder(name=whisper, window=window)


def test_a_window_of_another_family_is_refused(tiny_hf):
    with pytest.raises(ConfigError, match=says("encoder.window=10", "wavlm", "leave it out")):
        HFEncoder(name=tiny_hf("wavlm"), window=10)


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_format_auto_is_bfloat16_only_for_frozen_encoders_on_machines_that_have_it(
    whisper, tuning
):
    wanted = "bfloat16" if tuning == "frozen" and fast_bfloat16() else "float32"
    assert HFEncoder(name=whisper, dtype="auto", tuning=tuning).describe()["dtype"] == wanted


def test_bfloat16_frames_point_where_those_of_float32_do(whisper):
    x, lengths = voices(2, 30000), torch.tensor([30000, 20000])
    exact, mask = HFEncoder(name=whisper, window=2).extract(x, lengths)
    short, _ = HFEncoder(name=whisper, window=2, dtype="bfloat16").extract(x, lengths)
    cosine = torch.nn.functional.cosine_similarity(exact, short, dim=-1)
    assert cosine.transpose(1, 2)[mask].min() > 0.995
