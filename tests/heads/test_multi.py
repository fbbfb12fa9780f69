"""Auxiliary tasks: what they add to the loss, what they share, and what they leave alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.classification import ClassificationHead
from serzoo.heads.multi import MultiHead, Reversed, Transcript
from serzoo.zoo.core.errors import ConfigError, DataError
from serzoo.zoo.core.scaling import FrameStatistics, standardisers
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Frames, Targets
from serzoo.zoo.run.locking import of_head
from serzoo.zoo.run.optim import mix
from serzoo.zoo.testing import Case, check_head
from torch import nn

CASE = Case(MultiHead, 12)
ALL = {"gender": 0.5, "speaker": 0.25, "transcript": 2.0}
TEXT = ["ab", "", "a dog", "no"]


def head(**knobs) -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(12, CASE.taxonomy, dropout=0.0, **knobs)


def test_without_tasks_it_is_its_main_head() -> None:
    made = head(main={"type": "classification", "hidden": 8, "dropout": 0.0}, shared=0)
    torch.manual_seed(0)
    plain = ClassificationHead(12, CASE.taxonomy, hidden=8, dropout=0.0)
    frames, targets = CASE.frames(), CASE.targets()
    assert_like(made.loss(frames, targets).loss, plain.loss(frames, targets).loss)
    assert torch.equal(made.scores(frames, CASE.taxonomy), plain.scores(frames, CASE.taxonomy))


def test_the_loss_is_the_weighted_sum_and_each_is_logged() -> None:
    made = head(auxiliary=ALL)
    out = made.loss(CASE.frames(), CASE.targets(), TEXT)
    parts = {name: out.extras[f"loss_{name}"] for name in ("main", *ALL)}
    assert_like(out.loss.detach(), parts["main"] + sum(w * parts[n] for n, w in ALL.items()))
    assert all(value > 0 for value in parts.values())
    assert "accuracy" in out.extras  # what the main head logs


def test_only_utterances_with_a_label_of_the_task_count() -> None:
    made = head(auxiliary={"gender": 1.0})
    frames, targets = CASE.frames(), CASE.targets()
    gender = targets.gender.clone()
    gender[2:] = 0.0
    weight = torch.tensor([1.0, 3.0, 1.0, 1.0])
    out = made.loss(frames, replace(targets, gender=gender, weight=weight))
    z = made.tasks["gender"](made.shared(frames))
    each = nn.functional.cross_entropy(z, gender, reduction="none")
    assert_like(out.extras["loss_gender"], (each[0] + 3 * each[1]).detach() / 4)
    assert out.extras["with_gender"] == 0.5
    unknown = made.loss(frames, replace(targets, gender=None))
    assert unknown.extras["with_gender"] == unknown.extras["loss_gender"] == 0


def gradients(reverse: float) -> dict[str, torch.Tensor]:
    made = head(auxiliary={"speaker": 1.0}, reverse=reverse)
    seen = made.shared(CASE.frames())
    per_item, _ = made._task("speaker", seen, CASE.targets(), None)
    per_item.sum().backward()
    return {
        name: p.grad
        for name, p in made.named_parameters()
        if p.grad is not None and not name.startswith("main")
    }


def test_the_shared_layer_gets_the_reversed_gradient_and_the_task_its_own(monkeypatch) -> None:
    found = gradients(0.5)
    monkeypatch.setattr(Reversed, "apply", lambda x, factor: x)
    plain = gradients(0.5)
    for name, gradient in plain.items():
        factor = -0.5 if name.startswith("shared") else 1.0
        assert_like(found[name], factor * gradient)
    assert any(name.startswith("shared") for name in plain)


def test_with_factor_zero_speakers_are_recognised_and_change_nothing() -> None:
    found = gradients(0.0)
    assert not any(g.any() for name, g in found.items() if name.startswith("shared"))
    assert any(g.any() for name, g in found.items() if name.startswith("tasks"))


def test_ctc_sums_over_all_paths_of_the_bytes() -> None:
    """Two frames and one byte: the byte twice, or once with a blank before or after."""
    task = Transcript(6, 0.0)
    frames = Frames(torch.randn(2, 3, 6), torch.tensor([[True, True, False], [True, True, True]]))
    p = task.layers(frames.x).softmax(-1)
    a, blank = ord("a"), 256
    first = p[0, 0, a] * p[0, 1, a] + p[0, 0, a] * p[0, 1, blank] + p[0, 0, blank] * p[0, 1, a]
    second = p[1, 0, a] * p[1, 1, blank] * p[1, 2, a]  # equal bytes need a blank between them
    loss, known = task(frames, ["A ", "aa"])
    assert_like(loss, -torch.stack([first.log(), second.log() / 2]))
    assert known.tolist() == [True, True]


def test_transcripts_that_do_not_fit_do_not_count() -> None:
    frames = Frames(torch.randn(3, 2, 6), torch.ones(3, 2, dtype=torch.bool))
    loss, known = Transcript(6, 0.0)(frames, ["aa", "", "ab"])
    assert known.tolist() == [False, False, True]
    assert loss.isfinite().all()
    with pytest.raises(DataError, match=says("transcript", "head.auxiliary")):
        Transcript(6, 0.0)(frames, None)


def test_training_needs_transcripts_and_scoring_does_not() -> None:
    made = head(auxiliary={"transcript": 1.0})
    assert MultiHead.trains_on({"auxiliary": {"transcript": 1.0}}) == {"text"}
    assert MultiHead.trains_on({"auxiliary": {"gender": 1.0}}) == MultiHead.trains_on({}) == set()
    assert made.needs == set()
    assert made.scores(CASE.frames(), CASE.taxonomy).shape == (4, 5)


def test_more_speakers_than_outputs_are_refused() -> None:
    made = head(auxiliary={"speaker": 1.0}, speakers=2)
    with pytest.raises(DataError, match=says("3 speakers", "head.speakers=2", "head.speakers=3")):
        made.loss(CASE.frames(), CASE.targets())


def test_only_the_shared_layer_is_standardised_by_the_encoder_s_frames() -> None:
    parts = standardisers(head(auxiliary={"gender": 1.0}))
    assert [len(p.location) for p in parts] == [12]
    statistics = FrameStatistics.of([CASE.frames()])
    parts[0].fit(statistics)
    assert not standardisers(head(auxiliary={"gender": 1.0}, shared=0))[0].fitted.item()


def test_the_main_head_decides_what_the_composition_can_do() -> None:
    made = head(main={"type": "label_embedding"}, auxiliary={"gender": 1.0})
    assert made.open_labels
    assert MultiHead.open_labels is False
    wide = Taxonomy.of([*CASE.taxonomy.classes, "surprised"])
    assert made.scores(CASE.frames(), wide).shape == (4, 6)
    made.widen(wide)
    assert made.main.taxonomy == wide
    with pytest.raises(ConfigError, match=says("surprised", "rank")):
        head(main="ordinal").widen(wide)
    lines = MultiHead.explain(CASE.taxonomy, {"main": "ordinal"})
    assert lines == ["levels, lowest first: angry, happy, neutral, sad, fearful"]
    alone = MultiHead.explain(CASE.taxonomy, {"auxiliary": {"gender": 1.0}, "shared": 0})
    assert "shared=0" in alone[0]


def test_a_language_model_as_main_head_keeps_its_frozen_part_and_its_rates() -> None:
    main = {"type": "selm", "lm_width": 32, "lm_tuning": "frozen"}
    made = head(main=main, auxiliary={"gender": 1.0})
    assert list(made.frozen_roots()) == ["main.language.model"]
    assert made.writes
    assert not head().writes
    assert sorted({g["lr"] for g in made.param_groups(1.0)}) == [0.3, 1.0]
    (wanted,) = of_head({"type": "multi", "main": {"type": "selm", "lm": "gpt2"}}, "mine")
    assert wanted.model == "gpt2"


@pytest.mark.parametrize(
    ("knobs", "facts"),
    [
        ({"auxiliary": {"sex": 1.0}}, ("'sex'",)),
        ({"auxiliary": {"gender": 0.0}}, ("gender=0.0", "above 0")),
        ({"main": "multi"}, ("main=multi",)),
        ({"main": {"hidden": 3}}, ("type",)),
        ({"main": {"type": "classification", "lable": 3}}, ("'lable'",)),
        ({"shared": -1}, ("shared=-1",)),
    ],
)
def test_options_that_cannot_be_used_are_refused(knobs: dict, facts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=says(*facts)):
        head(**knobs)


def test_mixup_mixes_genders_and_speakers_as_it_mixes_classes() -> None:
    torch.manual_seed(3)
    hidden, mask = torch.randn(8, 1, 4, 2), torch.ones(8, 4, dtype=torch.bool)
    eye = torch.eye(8)
    _, mixed, _ = mix(hidden, mask, Targets(eye, torch.ones(8), gender=eye, speaker=eye), 0.5)
    assert torch.equal(mixed.gender, mixed.probs)
    assert torch.equal(mixed.speaker, mixed.probs)
    assert not torch.equal(mixed.probs, eye)


def test_the_contract_holds_with_all_tasks() -> None:
    check_head(MultiHead, auxiliary=ALL, shared=16, speakers=5)
