"""Features of a speaker lose what is common to the speaker's utterances."""

from __future__ import annotations

import warnings

import pytest
import torch
from facts import says
from serzoo.zoo.core.errors import DataNote, DataWarning
from serzoo.zoo.core.normalising import SHRINKAGE, SpeakerNormaliser
from serzoo.zoo.core.speakers import enrolled


def test_the_ways_to_normalise_are_none_all_and_some() -> None:
    assert [enrolled(way) for way in ("none", "speaker", "enrol:1", "enrol:16")] == [None, 0, 1, 16]


@pytest.mark.parametrize("way", ["", "enrol", "enrol:", "enrol:0", "enrol:-1", "enrol:x", "4"])
def test_another_way_is_refused(way: str) -> None:
    with pytest.raises(ValueError, match=says(f"'{way}'", "none", "speaker", "enrol:16")):
        enrolled(way)


def rows(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def fitted(way: str = "speaker") -> SpeakerNormaliser:
    """A normaliser of one number, whose training mean is 10."""
    made = SpeakerNormaliser(way, (1, 1))
    made.enrol([(["a", "b"], ["c/x", "c/y"], rows(8.0, 12.0))], learn=True)
    return made


def test_the_speaker_s_mean_is_shrunk_to_the_training_mean() -> None:
    normaliser = fitted()
    ids = [f"u{i}" for i in range(12)]
    speakers = ["c/z"] * 12
    normaliser.enrol([(ids, speakers, rows(*range(16, 28)))])
    # 12 utterances with the mean 21.5, and 4 for the training mean: 3/4 of the difference
    assert normaliser.offsets(["u0", "u11"]).tolist() == [[8.625], [8.625]]
    assert normaliser.about == {
        "way": "speaker", "speakers": 1, "utterances_used": 12, "without_speaker": 0,
    }  # fmt: skip


def test_an_enrolment_uses_k_utterances_of_a_fixed_draw() -> None:
    values = {f"u{i}": float(i) for i in range(9)}

    def offset(order: list[str]) -> float:
        normaliser = fitted("enrol:2")
        part = (order, ["c/z"] * 9, rows(*(values[name] for name in order)))
        normaliser.enrol([part])
        assert normaliser.about["utterances_used"] == 2
        return float(normaliser.offsets(["u3"])[0])

    found = offset(list(values))
    assert found == offset(list(values)[::-1])  # the order of batches does not matter
    mean = found * (2 + SHRINKAGE) / 2 + 10
    assert round(2 * mean, 4) in range(1, 16)  # the sum of two of 0 to 8


def test_training_draws_few_and_many_utterances() -> None:
    normaliser = SpeakerNormaliser("speaker", (1, 1))
    ids = [f"u{i}" for i in range(20)]
    normaliser.enrol([(ids, ["c/x"] * 20, rows(*range(20)))], learn=True)
    draw = torch.Generator().manual_seed(1)
    found = {float(normaliser.offsets(["u0"], draw)[0]) for _ in range(50)}
    assert len(found) > 40
    assert normaliser.offsets(["u0"]).tolist() == [[0.0]]  # all utterances: the training mean
    again = torch.Generator().manual_seed(1)
    assert float(normaliser.offsets(["u0"], again)[0]) in found


def test_utterances_of_unknown_speakers_are_not_of_one_speaker() -> None:
    normaliser = fitted()
    with pytest.warns(DataNote, match=says("2 utterances of 3", "no speaker", "training mean")):
        normaliser.enrol([(["u", "v", "w"], ["", "c/", "c/z"], rows(100.0, 200.0, 15.0))])
    assert normaliser.offsets(["u", "v", "w"]).tolist() == [[0.0], [0.0], [1.0]]
    assert normaliser.about["without_speaker"] == 2


def test_somebody_who_was_not_enrolled_uses_the_training_mean_and_it_is_said_once() -> None:
    normaliser = fitted()
    with pytest.warns(DataWarning, match=says("u1", "enrol", "training mean")):
        assert normaliser.offsets(["u1"]).tolist() == [[0.0]]
    with warnings.catch_warnings(action="error"):
        normaliser.offsets(["u1", "u2", ""])


def test_training_without_known_speakers_is_refused() -> None:
    with pytest.raises(ValueError, match=says("known speaker")):
        SpeakerNormaliser("speaker", (1, 1)).enrol([(["a"], [""], rows(1.0))], learn=True)


def test_features_and_vectors_lose_their_own_part_and_padding_stays_zero() -> None:
    normaliser = SpeakerNormaliser("speaker", (2, 3), 4)
    hidden = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.tensor([[5], [2]])
    vectors = torch.ones(2, 4)
    measured = normaliser.measured(hidden, mask, vectors)
    torch.testing.assert_close(measured[1, :6], hidden[1, :, :2].mean(1).flatten())
    assert measured[:, 6:].tolist() == vectors.tolist()
    moved, beside = normaliser(hidden, mask, vectors, measured)
    assert beside is not None
    assert beside.tolist() == torch.zeros(2, 4).tolist()
    torch.testing.assert_close(moved[1, :, :2].mean(1), torch.zeros(2, 3))
    assert not moved[1, :, 2:].any()


def test_a_saved_normaliser_keeps_mean_and_shrinkage() -> None:
    first, second = fitted(), SpeakerNormaliser("speaker", (1, 1))
    first.tau.fill_(1.0)
    second.load_state_dict(first.state_dict())
    second.enrol([(["u"], ["c/z"], rows(14.0))])
    assert second.offsets(["u"]).tolist() == [[2.0]]
