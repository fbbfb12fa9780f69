"""SELM's mappers: what each reduction computes, and that a mapper can be left out."""

from __future__ import annotations

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.selm.head import SELMHead
from serzoo.heads.selm.mappers import AudioMapper, TextMapper, segment_means
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.types import Frames
from serzoo.zoo.testing import Case
from torch import nn

CASE = Case(SELMHead, 12)
SMALL = {"lm_width": 32, "prefix": 3}


def mapper(reduction: str, layers: int = 0, prefix: int = 5) -> AudioMapper:
    torch.manual_seed(0)
    return AudioMapper(12, 32, prefix, layers, 0.0, 0.1, reduction).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("segments", [1, 4, 9, 40])
def test_segment_means_are_adaptive_pooling_of_each_utterance_alone(segments: int) -> None:
    frames = CASE.frames()  # 9, 1, 14 and 6 frames
    spoilt = Frames(frames.x.masked_fill(~frames.mask[..., None], float("nan")), frames.mask)
    got = segment_means(spoilt, segments)
    for row, x, mask in zip(got, frames.x, frames.mask, strict=True):
        want = nn.functional.adaptive_avg_pool1d(x[mask].T[None], segments)[0].T
        assert_like(row, want, digits=5)


def test_a_hole_in_the_speech_is_skipped() -> None:
    frames = CASE.frames((6,))
    mask = torch.tensor([[True, True, False, True, False, True]])
    got = segment_means(Frames(frames.x, mask), 2)[0]
    torch.testing.assert_close(got[0], frames.x[0, [0, 1]].mean(0))
    torch.testing.assert_close(got[1], frames.x[0, [3, 5]].mean(0))


def test_the_adaptive_mapper_projects_segment_means() -> None:
    m, frames = mapper("adaptive"), CASE.frames()
    with torch.no_grad():
        want = m.norm(m.project(m.read(segment_means(frames, 5))) + m.constants)
        assert_like(m(frames), want, digits=5)
    assert m.pool is None
    assert m.reads_frames


def test_the_vector_mapper_sees_an_utterance_through_one_vector() -> None:
    m, frames = mapper("vector"), CASE.frames()
    with torch.no_grad():
        pooled = m.project(m.read(m.pool(frames)))  # [B, W]
        linear = torch.stack([pooled @ w.T for w in m.spread.weight.view(5, 32, 32)], 1)
        want = m.norm(linear + m.spread.bias.view(5, 32) + m.constants)
        assert_like(m(frames), want, digits=5)
    assert m.pool.attention[-1].out_features == 1


@pytest.mark.parametrize("reduction", ["vector", "adaptive"])
def test_appended_constants_are_what_the_layers_make_of_the_last_positions(reduction: str) -> None:
    torch.manual_seed(0)
    m = AudioMapper(12, 32, 5, 1, 0.0, 0.1, reduction, "appended").eval()  # type: ignore[arg-type]
    frames = CASE.frames()
    reduced = segment_means(frames, 5) if reduction == "adaptive" else m._reduced(frames)
    with torch.no_grad():
        audio = m.project(m.read(reduced))
        if reduction == "vector":
            audio = m.spread(audio).view(4, 5, 32)
        layer = m.layers[0]
        both = torch.cat([audio, m.constants.expand(4, -1, -1)], 1)
        assert both.shape == (4, 10, 32)
        assert_like(m(frames), m.norm(layer(both)[:, 5:]), digits=5)
    assert float(m.constants.detach().std()) == pytest.approx(1.0, abs=0.2)  # as in Pengi
    with pytest.raises(ConfigError, match=says("mapper_layers=0", "constants=added")):
        AudioMapper(12, 32, 5, 0, 0.0, 0.1, "adaptive", "appended")


def test_a_vector_beside_the_frames_gets_a_constant_of_its_own() -> None:
    torch.manual_seed(0)
    m = AudioMapper(12, 32, 5, 1, 0.0, 0.1, "adaptive", "appended").eval()
    m.read_utterance(7)
    frames = CASE.frames()
    given = Frames(frames.x, frames.mask, torch.randn(4, 7))
    assert m(given).shape == (4, 6, 32)
    assert not torch.equal(m(given), m(Frames(frames.x, frames.mask, torch.zeros(4, 7))))


@pytest.mark.parametrize(("reduction", "width"), [("mean", 12), ("stats", 24)])
def test_plain_mean_and_deviation_can_be_that_vector(reduction: str, width: int) -> None:
    m, frames = mapper(reduction), CASE.frames()
    rows = [x[mask] for x, mask in zip(frames.x, frames.mask, strict=True)]
    mean = torch.stack([r.mean(0) for r in rows])
    deviation = torch.stack([r.var(0, unbiased=False).clamp_min(1e-5).sqrt() for r in rows])
    with torch.no_grad():
        pooled = m.project(m.read(torch.cat([mean, deviation], 1)[:, :width]))
        want = m.norm(m.spread(pooled).view(len(rows), 5, 32) + m.constants)
        assert_like(m(frames), want, digits=5)
    assert not m.reads_frames


def test_learned_queries_are_the_default() -> None:
    torch.manual_seed(0)
    plain = AudioMapper(12, 32, 5, 0, 0.0, 0.1)
    assert plain.reduction == "queries"
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), mapper("queries").parameters(),
                                                 strict=True))  # fmt: skip
    with torch.no_grad():
        m, frames = mapper("queries"), CASE.frames()
        want = m.norm(m.project(m.read(m.pool.statistics(frames))) + m.constants)
        assert_like(m(frames), want, digits=5)


@pytest.mark.parametrize("reduction", ["queries", "adaptive", "vector", "stats", "mean"])
def test_layers_of_the_mapper_mix_its_positions(reduction: str) -> None:
    frames = CASE.frames()
    for layers, mixed in ((0, False), (2, True)):
        m = mapper(reduction, layers)
        assert len(m.layers) == layers
        with torch.no_grad():
            before = m(frames)
            m.constants[0] += torch.randn(32)
            moved = (m(frames) - before).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [True] + [mixed] * 4


def test_without_a_text_mapper_the_prompt_is_read_as_the_model_embeds_it() -> None:
    torch.manual_seed(0)
    h = SELMHead(12, CASE.taxonomy, text_mapper=False, **SMALL).eval()  # type: ignore[arg-type]
    assert h.text_mapper is None
    body = h.language.model.transformer
    raw = body.wte(torch.tensor([list(b"this emotion is ")]))
    with torch.no_grad():
        assert torch.equal(h.text("this emotion is"), raw)
        assert torch.equal(h.context(CASE.frames())[:, :16], raw.expand(4, -1, -1))
    torch.manual_seed(0)
    mapped = SELMHead(12, CASE.taxonomy, text_layers=2, **SMALL).eval()  # type: ignore[arg-type]
    assert isinstance(mapped.text_mapper, TextMapper)
    assert len(mapped.text_mapper.layers) == 2
    with torch.no_grad():
        raw = mapped.language.model.transformer.wte(torch.tensor([list(b"this emotion is ")]))
        one, two = mapped.text_mapper.layers
        want = mapped.text_mapper.norm(two(one(raw)))
        assert_like(mapped.text("this emotion is"), want, digits=5)


def test_what_is_read_first_can_be_chosen() -> None:
    frames = CASE.frames()
    for order, audio_at in (("prompt_first", slice(16, 19)), ("audio_first", slice(0, 3))):
        torch.manual_seed(0)
        h = SELMHead(12, CASE.taxonomy, order=order, **SMALL).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            context = h.context(frames)
            assert context.shape == (4, 19, 32)
            assert torch.equal(context[:, audio_at], h.audio_mapper(frames))
