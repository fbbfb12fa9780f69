"""The scorer that fills a gap, balanced selection, and the report of a one-sided scorer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_text
import torch
from facts import says
from serzoo.datamodules.labelling.masked import Masked
from serzoo.datamodules.labelling.scorers import Hypothesis, hypotheses, scorer
from serzoo.datamodules.labelling.select import (
    Criteria,
    best_classes,
    one_sided,
    one_sided_text,
    select,
)
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

BIG4 = Taxonomy.load("big4")
SAID = hypotheses(
    ("The speaker feels {}.", "How {} this person is!"), BIG4.forms, [m for _, m in BIG4.members]
)
PREMISES = ["what a wonderful day", "how dare you", ""]


def save_masked(folder: Path, family: str = "bert", limit: int = 62) -> str:
    """A tiny random model that fills gaps."""
    torch.manual_seed(0)
    tiny_text.save_tokenizer(folder, family, limit)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
        tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        family, vocab_size=320, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    tiny_text.loud(AutoModelForMaskedLM.from_config(config), folder)
    return str(folder)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_score_is_the_mean_likelihood_of_the_masked_words(family: str, tmp_path: Path) -> None:
    folder = save_masked(tmp_path / family, family)
    masked = scorer("masked", model=folder, device="cpu")
    assert isinstance(masked, Masked)
    found = masked.score(PREMISES, SAID)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, premise in enumerate(PREMISES):
        for column, hypothesis in enumerate(SAID):
            ids = tokenizer(f'Someone says: "{premise}" {hypothesis.text}')["input_ids"]
            gap = masked.gap(premise, hypothesis)
            assert len(gap.ids) == len(ids)
            assert [i for i, (a, b) in enumerate(zip(ids, gap.ids, strict=True)) if a != b] == (
                gap.places
            )
            word = tokenizer.decode(gap.wanted).translate({ord(c): "" for c in " #Ġ"})
            assert word == hypothesis.form
            with torch.no_grad():
                log_p = model(torch.tensor([gap.ids])).logits[0].log_softmax(-1)
            each = [float(log_p[i, ids[i]]) for i in gap.places]
            assert found[row, column] == pytest.approx(np.mean(each), rel=1e-4)
    assert found.std(0).min() > 1e-4
    assert found.std(1).min() > 1e-3


def test_the_beginning_of_a_long_text_is_lost(tmp_path: Path) -> None:
    masked = Masked(model=save_masked(tmp_path / "m", limit=40), device="cpu", batch_tokens=64)
    hypothesis = Hypothesis("The speaker feels {}.", "angry", ("angry",))
    short, long = masked.gap("", hypothesis), masked.gap("so tired of it " * 40, hypothesis)
    assert len(long.ids) == masked.limit == 40
    assert long.wanted == short.wanted
    assert long.ids[0] == short.ids[0]
    assert long.ids[-6:] == short.ids[-6:]
    assert np.isfinite(masked.score(["so tired of it " * 40, ""], [hypothesis])).all()
    assert masked.settings()["frame"] == 'Someone says: "{}"'


def test_models_that_fill_no_gaps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says("no mask", "scorer=causal")):
        Masked(model=tiny_text.save_causal(tmp_path / "gpt2"))
    with pytest.raises(ConfigError, match=says("frame=says", "{}")):
        Masked(model="x", frame="says")


# Classes of equal size.

THREE = Taxonomy.of(["angry", "happy", "neutral"], "three")


def guessed(*classes: str) -> tuple[list[Utterance], list[dict[str, object]]]:
    """Utterances whose best class is given; earlier ones are more confident."""
    ids = [f"u{i}" for i in range(len(classes))]
    utterances = [Utterance(i, "c", "a.wav", 0.0, 1.0, 16000, "s") for i in ids]
    rows: list[dict[str, object]] = []
    for n, (i, name) in enumerate(zip(ids, classes, strict=True)):
        lift = [3.0 - 0.01 * n if c == name else -3.0 for c in THREE.classes]
        scores = dict(zip(THREE.classes, lift, strict=True))
        row = {"id": i, "text": "t", "text_source": "x", "scores": scores, "by_template": [lift]}
        rows.append(row)
    return utterances, rows


def test_balance_limits_classes_by_the_rarest_that_has_any() -> None:
    utterances, rows = guessed(*["happy"] * 5, *["angry"] * 2)
    kept = {}
    for balance in (1.0, 2.0, 9.0):
        chosen = select(utterances, rows, THREE, "x", Criteria(balance=balance))
        kept[balance] = [u.label for u in chosen.utterances]
        assert next(c for c in chosen.counts if c["criterion"] == "balance")["value"] == balance
    assert kept[1.0] == ["happy"] * 2 + [None] * 3 + ["angry"] * 2
    assert kept[2.0] == ["happy"] * 4 + [None] + ["angry"] * 2
    assert kept[9.0] == ["happy"] * 5 + ["angry"] * 2
    assert select([], [], THREE, "x", Criteria(balance=1.0)).utterances == []
    with pytest.raises(ConfigError, match=says("balance=0.5")):
        Criteria(balance=0.5)


# A scorer that says one class nearly always.


def test_a_scorer_that_finds_one_class_five_times_of_six_is_reported() -> None:
    _, rows = guessed(*["happy"] * 20, *["angry"] * 4)
    found = best_classes(rows, THREE)
    assert found == {"angry": 4, "happy": 20, "neutral": 0}
    assert one_sided(found) == ("happy", pytest.approx(5 / 6))
    text = one_sided_text(found, "m@1")
    assert text is not None
    assert all(part in text for part in ("m@1", "'happy'", "83%", "24"))
    assert one_sided({"angry": 5, "happy": 15}) is None  # three of four
    assert one_sided({"angry": 0, "happy": 19}) is None  # too few to say
    assert one_sided({}) is None
