"""SELM's views: who has which, how they are answered, and what they weigh in the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from close import assert_like
from serzoo.heads.selm.head import SELMHead
from serzoo.heads.selm.views import NUMBERS, Views
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Targets
from serzoo.zoo.run.optim import mix
from serzoo.zoo.testing import Case
from torch import Tensor

CASE = Case(SELMHead, 12)  # angry happy neutral sad fearful
TAXONOMY = Taxonomy.of(["angry", "happy", "neutral", "surprised"])
ALL = dict.fromkeys(["categorical", "sentiment", "valence", "arousal", "dominance"], 1.0)
NAN = float("nan")


def head(**knobs: Any) -> SELMHead:
    torch.manual_seed(0)
    h = SELMHead(12, CASE.taxonomy, **({"lm_width": 32, "prefix": 3} | knobs)).eval()
    with torch.no_grad():
        for p in h.language.parameters():
            p.mul_(8.0)
    return h


def of(views: Views, name: str, targets: Targets) -> list[list[float]]:
    view = next(v for v in views.all if v.name == name)
    return views.targets(view, targets).tolist()


def full(h: SELMHead, frames: Any, prompt: str, label: str) -> Tensor:
    """``[B]`` log-likelihood by one plain pass per label."""
    text, audio = h.text(prompt).expand(len(frames.x), -1, -1), h.audio_mapper(frames)
    before = [text, audio] if h.order == "prompt_first" else [audio, text]
    ids = torch.tensor([*label.encode(), 256])
    read = torch.cat([*before, h.language.embed(ids).expand(len(audio), -1, -1)], 1)
    log_p = h.language.model(inputs_embeds=read).logits.log_softmax(-1)[:, -len(ids) - 1 : -1]
    return log_p[:, torch.arange(len(ids)), ids].sum(1)


# Targets.


def test_sentiment_is_that_of_the_class() -> None:
    views = Views(TAXONOMY, weights=ALL)
    probs = torch.cat([torch.eye(4), torch.tensor([[0.5, 0.25, 0.0, 0.25], [0, 0, 0, 0.0]])])
    got = of(views, "sentiment", Targets(probs, torch.ones(6)))  # negative, neutral, positive
    assert got == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0], [0.5, 0, 0.25], [0, 0, 0]]


def test_ratings_become_words() -> None:
    dims = torch.tensor([[0.0, 0.39, 0.4], [0.59, 0.6, 1.0], [NAN, 0.5, NAN]])
    targets = Targets(torch.eye(4)[:3], torch.ones(3), dims)
    views = Views(TAXONOMY, weights=ALL)
    low, medium, high = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert of(views, "valence", targets) == [low, medium, [0, 0, 0]]
    assert of(views, "arousal", targets) == [low, high, medium]
    assert of(views, "dominance", targets) == [medium, high, [0, 0, 0]]
    views = Views(TAXONOMY, weights=ALL, low=0.2, high=0.5)
    assert of(views, "arousal", targets) == [medium, high, high]
    nobody = Targets(torch.eye(4)[:3], torch.ones(3))
    assert of(views, "arousal", nobody) == [[0, 0, 0]] * 3


def test_ratings_become_numbers() -> None:
    views = Views(TAXONOMY, weights=ALL, dimensions="numbers")
    dims = torch.tensor([[0.0, 0.34, 0.36], [1.0, 0.67, NAN]])
    targets = Targets(torch.eye(4)[:2], torch.ones(2), dims)
    said = {
        name: [NUMBERS[row.index(1)] if 1 in row else None for row in of(views, name, targets)]
        for name in ("valence", "arousal", "dominance")
    }
    assert said == {
        "valence": ["0.0", "1.0"], "arousal": ["0.3", "0.7"], "dominance": ["0.4", None]
    }  # fmt: skip
    view = views.all[2]
    assert views.answers(view, TAXONOMY) == [[n] for n in NUMBERS]
    assert len(NUMBERS) == 11


def test_mixed_utterances_are_rated_between_their_halves() -> None:
    torch.manual_seed(0)
    dims = torch.rand(40, 3).masked_fill(torch.rand(40, 3) < 0.2, NAN)
    probs = torch.eye(40)  # which says who was mixed with whom, and how much
    hidden, mask = torch.zeros(40, 1, 5, 2), torch.ones(40, 5, dtype=torch.bool)
    _, mixed, _ = mix(hidden, mask, Targets(probs, torch.ones(40), dims), 0.5)
    want = torch.stack([
        sum(p * dims[j] for j, p in enumerate(row) if p > 0) for row in mixed.probs
    ])  # fmt: skip
    torch.testing.assert_close(mixed.dims, want, equal_nan=True)
    assert 5 < (mixed.probs > 0).sum(1).eq(2).sum() < 35


# The loss.


def test_the_loss_is_the_weighted_mean_over_the_examples_of_all_views() -> None:
    weights = {"categorical": 1.0, "sentiment": 0.5, "valence": 2.0, "arousal": 0.25}
    h, frames = head(views=weights), CASE.frames()
    dims = torch.tensor([[0.1, NAN, 0.5], [NAN, NAN, NAN], [0.9, 0.5, NAN], [0.5, 0.5, 0.5]])
    targets = Targets(torch.eye(5)[[0, 1, 2, 3]], torch.tensor([1.0, 2.0, 0.5, 0.0]), dims)
    examples = [  # view, utterance, prompt, answer; the last utterance weighs nothing
        ("categorical", 0, "this emotion is", "angry"),
        ("categorical", 1, "this emotion is", "happy"),
        ("categorical", 2, "this emotion is", "neutral"),
        ("sentiment", 0, "this sentiment is", "negative"),
        ("sentiment", 1, "this sentiment is", "positive"),
        ("sentiment", 2, "this sentiment is", "neutral"),
        ("valence", 0, "the valence is", "low"),
        ("valence", 2, "the valence is", "high"),
        ("arousal", 2, "the arousal is", "medium"),
    ]
    with torch.no_grad():
        total = weight = 0.0
        for view, i, prompt, answer in examples:
            w = weights[view] * targets.weight[i].item()
            total -= w * full(h, frames, prompt, answer)[i].item()
            weight += w
        got = h.loss(frames, targets).loss.item()
    assert got == pytest.approx(total / weight, rel=1e-4)


def test_an_open_sentiment_counts_for_the_part_that_is_known() -> None:
    torch.manual_seed(0)
    h = SELMHead(12, TAXONOMY, lm_width=32, views={"categorical": 1.0, "sentiment": 1.0}).eval()
    frames = CASE.frames()
    probs = torch.tensor([[0.5, 0, 0, 0.5], [0, 0, 0, 1.0], [0, 1.0, 0, 0], [0, 0, 0, 0]])
    with torch.no_grad():
        categorical = -(probs * h.scores(frames, TAXONOMY)).sum()
        s = h.answers(frames)["sentiment"]
        want = (categorical - 0.5 * s[0, 0] - s[2, 2]) / (3 + 0.5 + 1)
        assert_like(h.loss(frames, Targets(probs, torch.ones(4))).loss, want)


def test_training_draws_one_prompt_per_batch_and_scores_average_all() -> None:
    both = ["this emotion is", "the speaker feels"]
    h, frames, targets = head(prompts={"categorical": both}), CASE.frames(), CASE.targets()
    each = [head(prompts={"categorical": one}) for one in both]
    with torch.no_grad():
        one, other = (x.loss(frames, targets).loss.item() for x in each)
        losses = [h.loss(frames, targets).loss.item() for _ in range(20)]
        nearer = [one if abs(x - one) < abs(x - other) else other for x in losses]
        assert_like(losses, nearer)
        mean = (each[0].scores(frames, CASE.taxonomy) + each[1].scores(frames, CASE.taxonomy)) / 2
        assert_like(h.scores(frames, CASE.taxonomy), mean)
    assert abs(one - other) > 0.01 * one
    assert set(nearer) == {one, other}


def test_forms_of_a_class_are_as_likely_as_all_of_them_together() -> None:
    forms = {"categorical": {"happy": ["happy", "joyful"], "sad": "unhappy"}}
    h, frames, targets = head(forms=forms), CASE.frames(), CASE.targets()
    with torch.no_grad():
        s = h.scores(frames, CASE.taxonomy)
        each = {
            form: full(h, frames, "this emotion is", form)
            for form in ("angry", "happy", "joyful", "neutral", "unhappy", "fearful")
        }
        want = torch.stack(
            [each["angry"], torch.logaddexp(each["happy"], each["joyful"]), each["neutral"],
             each["unhappy"], each["fearful"]], 1,
        )  # fmt: skip
        assert_like(s, want)
        loss = h.loss(frames, targets).loss
    assert_like(loss, -(want * targets.probs).sum() / 4)
    assert [h.class_written(t, CASE.taxonomy) for t in ("joyful", "unhappy", "Angry")] == [1, 3, 0]


@pytest.mark.parametrize("order", ["prompt_first", "audio_first"])
def test_all_views_are_answered_as_by_full_passes(order: str) -> None:
    h, frames = head(views=ALL, order=order), CASE.frames()
    passes: list[int] = []
    h.language.model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    with torch.no_grad():
        got = h.answers(frames)
        # prompts that stand first are read once for the four utterances
        assert passes == ([1, 4] * 5 if order == "prompt_first" else [4])
        for view, prompt, words in (
            ("categorical", "this emotion is", CASE.taxonomy.forms),
            ("sentiment", "this sentiment is", ["negative", "neutral", "positive"]),
            ("dominance", "the dominance is", ["low", "medium", "high"]),
        ):
            want = torch.stack([full(h, frames, prompt, word) for word in words], 1)
            assert_like(got[view], want)
    assert list(got) == list(ALL)


def test_more_views_do_not_change_what_is_built() -> None:
    plain, more = head(), head(views=ALL)
    one, two = plain.state_dict(), more.state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))


# Names.


@pytest.mark.parametrize("classes", [2, 3, 5, 8])
def test_shuffled_names_leave_no_class_its_own(classes: int) -> None:
    names = ["angry", "happy", "neutral", "sad", "fearful", "disgust", "surprised", "calm"]
    taxonomy = Taxonomy.of(names[:classes])
    views = Views(taxonomy, names="shuffled")
    said = [forms[0] for forms in views.answers(views.categorical, taxonomy)]
    assert sorted(said) == sorted(taxonomy.forms)
    assert all(a != b for a, b in zip(said, taxonomy.forms, strict=True))


def test_shuffled_names_swap_the_scores_and_what_a_text_means() -> None:
    frames = CASE.frames()
    with torch.no_grad():
        a = head().scores(frames, CASE.taxonomy)
        h = head(names="shuffled")
        b = h.scores(frames, CASE.taxonomy)
        part = Taxonomy.of(["sad", "angry", "jubilant"])
        assert_like(h.scores(frames, part)[:, :2], b[:, [3, 0]])
    assert_like(b, a.roll(-2, 1))  # angry says neutral
    text = ["neutral", "unemotional", "angry", "rage", "happy", "bored", "jubilant"]
    assert [h.class_written(t, CASE.taxonomy) for t in text] == [0, 0, 3, 3, 4, None, None]
    assert [h.class_written(t, part) for t in text] == [1, 1, 0, 0, None, None, 2]


# Refusals.


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"views": {"sentiment": 1.0}}, "views .*categorical"),
        ({"views": {"categorical": 1.0, "mood": 1.0}}, "views: .*'mood'.* arousal, categorical"),
        ({"views": {"categorical": 0.0}}, r"views.*categorical=0\.0\b.* 0\b"),
        ({"prompts": {"mood": "x"}}, "prompts: .*'mood'.* arousal, categorical"),
        ({"prompts": {"categorical": []}}, "prompt .*'categorical'"),
        ({"prompt": " "}, "prompt .*'categorical'"),
        (
            {"views": {"categorical": 1, "valence": 1}, "forms": {"valence": {"lo": "bad"}}},
            "valence: .*'lo'.*'low'",
        ),
        ({"low_below": 0.7}, r"low_below=0\.7 .*high_from=0\.6\b.* 0 < low_below < high_from < 1"),
    ],
)
def test_views_that_make_no_sense_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(**knobs)
