"""Speech and class names in one space: the loss is CLIP's, and unseen names have scores."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_text
import torch
from close import assert_like
from facts import says
from serzoo.heads.label_embedding import LabelEmbeddingHead
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Targets
from serzoo.zoo.testing import Case, check_head

CASE = Case(LabelEmbeddingHead, 12)
FOUR = Taxonomy.load("big4")


@pytest.fixture
def sentences(tmp_path: Path) -> str:
    """A folder with a tiny random model of sentence-transformers."""
    return tiny_text.save_sentences(tmp_path)


def test_one_utterance_of_each_class_gives_the_loss_of_clip() -> None:
    """CLIP's own code: the mean of two cross-entropies with the diagonal as labels."""
    head = LabelEmbeddingHead(12, FOUR, pooling="mean", dropout=0.0)
    frames = CASE.frames()
    logits = head.similarities(frames, FOUR)
    diagonal = torch.arange(4)
    per_image = torch.nn.functional.cross_entropy(logits, diagonal)
    per_text = torch.nn.functional.cross_entropy(logits.T, diagonal)
    found = head.loss(frames, Targets(torch.eye(4), torch.ones(4)))
    assert_like(found.loss, (per_image + per_text) / 2)
    assert_like(found.extras["to_names"], per_image.detach())
    assert_like(found.extras["to_speech"], per_text.detach())


def test_utterances_of_one_name_share_its_probability() -> None:
    head = LabelEmbeddingHead(12, FOUR, pooling="mean", dropout=0.0, batch_share=1.0)
    frames = CASE.frames()
    targets = Targets(torch.eye(4)[[0, 0, 2, 3]], torch.tensor([1.0, 1.0, 2.0, 0.0]))
    log_q = head.similarities(frames, FOUR)[:3].log_softmax(0)  # the last has weight 0
    by_hand = -(log_q[0, 0] + log_q[1, 0] + 2 * log_q[2, 2]) / 4
    assert_like(head.loss(frames, targets).loss, by_hand)


def test_scores_are_cosines_to_centred_names(sentences: str) -> None:
    head = LabelEmbeddingHead(12, FOUR, text_model=sentences, template="so {}").eval()
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(sentences, device="cpu")
    rows = torch.from_numpy(model.encode([f"so {form}" for form in FOUR.forms]))
    rows = torch.nn.functional.normalize(rows, dim=-1)
    frames = CASE.frames()
    with torch.no_grad():
        speech = head.project(head.embed(frames))
        wanted = torch.cosine_similarity(speech[:, None], (rows - rows.mean(0))[None], dim=-1)
        assert_like(head.scores(frames, FOUR), wanted / 0.07, digits=4)


def test_several_templates_are_averaged() -> None:
    one, two = (LabelEmbeddingHead(12, FOUR, template=t) for t in ("so {}", "how {} it is"))
    both = LabelEmbeddingHead(12, FOUR, template=["so {}", "how {} it is"])
    assert_like(both._embedded(FOUR), (one._embedded(FOUR) + two._embedded(FOUR)) / 2)


def test_a_class_that_was_never_trained_is_scored_by_its_name() -> None:
    """The trained columns stay as they are, since each cosine is of its own name."""
    head = LabelEmbeddingHead(12, FOUR).eval()
    wide = Taxonomy.of([*FOUR.classes, "surprised"])
    with torch.no_grad():
        four, five = head.scores(CASE.frames(), FOUR), head.scores(CASE.frames(), wide)
    assert_like(five[:, :4], four)
    assert not torch.equal(five[:, 4], five[:, 3])
    head.widen(wide)
    assert head.taxonomy == wide
    with torch.no_grad():
        assert_like(head.scores(CASE.frames(), wide), five)


def test_shuffled_names_are_those_of_other_classes() -> None:
    given, moved = (LabelEmbeddingHead(12, FOUR, names=n) for n in ("given", "shuffled"))
    assert_like(moved.names(FOUR), given.names(FOUR)[[2, 3, 0, 1]])


def test_the_text_encoder_is_not_trained_and_not_saved(sentences: str) -> None:
    head = LabelEmbeddingHead(12, FOUR, text_model=sentences).train()
    (root,) = head.frozen_roots().values()
    assert not root.training
    assert not any(p.requires_grad for p in root.parameters())
    assert {k.split(".")[0] for k in head.state_dict()} == {
        "sentences", "centre", "embed", "project", "log_factor"
    }  # fmt: skip
    assert root.published_origin["name"] == sentences


def test_the_contract_holds_on_a_text_model(sentences: str) -> None:
    check_head(LabelEmbeddingHead, text_model=sentences, hidden=8)
    check_head(LabelEmbeddingHead, pooling="stats", batch_share=0.0)


@pytest.mark.parametrize(
    ("knobs", "facts"),
    [
        ({"template": "no blank"}, ("template=no blank", "{}")),
        ({"template": []}, ("template=", "{}")),
        ({"batch_share": 1.5}, ("batch_share=1.5", "0 to 1")),
        ({"text_model": "./nowhere"}, ("head.text_model=./nowhere", "letters")),
    ],
)
def test_options_out_of_range_are_refused(knobs: dict, facts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=says(*facts)):
        LabelEmbeddingHead(12, FOUR, **knobs)


def test_without_a_connection_the_error_names_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of models, or the copy's own folder; and the encoder that needs neither."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=says("SERZOO_MODELS", "head.text_model")):
        LabelEmbeddingHead(12, FOUR, text_model="sentence-transformers/all-MiniLM-L6-v2")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ConfigError, match=says("pip install 'serzoo[embedding]'", "head.text_model=letters")
    ):
        LabelEmbeddingHead(12, FOUR, text_model=str(tmp_path))


def test_classes_with_one_spelling_are_refused() -> None:
    twice = Taxonomy.of(["so_so", "so so"])
    with pytest.raises(ConfigError, match=says("'so_so'", "'so so'")):
        LabelEmbeddingHead(12, twice)
    head = LabelEmbeddingHead(12, FOUR)
    with pytest.raises(ConfigError, match=says("'so_so'", "'so so'")):
        head.widen(Taxonomy.of([*FOUR.classes, "so_so", "so so"]))
    assert len(head.taxonomy) == 4
