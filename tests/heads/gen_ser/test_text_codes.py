"""Codes from embeddings of the class names."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from close import assert_like
from facts import says
from serzoo.heads.gen_ser.codes import build_codes, text_codes, wider_codes
from serzoo.heads.gen_ser.head import GenSERHead
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.hub import Published
from serzoo.zoo.core.sentences import embed_texts, load_sentences
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.run import config
from serzoo.zoo.testing import check_head
from tiny_text import save_sentences

NAMES = ["angry", "happy", "sad"]
SMALL = {"codes": "text", "code_dim": 16, "width": 16}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny random model with embeddings of 16 numbers."""
    return save_sentences(tmp_path_factory.mktemp("text"))


def test_a_code_is_the_embedding_of_the_name_without_their_mean(sentences: str) -> None:
    found = build_codes(Taxonomy.of(NAMES), codes="text", code_dim=20, text_model=sentences)
    published = Published.find("model", sentences, example="")
    said = torch.from_numpy(embed_texts(load_sentences(published, instead="").model, NAMES))
    centred = said - said.mean(0)
    want = math.sqrt(10) * torch.nn.functional.normalize(centred, dim=1).float()
    assert_like(found[:, :16], want, digits=5)
    assert torch.equal(found[:, 16:], torch.zeros(3, 4))


def test_the_head_keeps_its_contract_and_takes_new_names(sentences: str) -> None:
    check_head(GenSERHead, dim=12, text_model=sentences, **SMALL)
    h = GenSERHead(12, Taxonomy.of(NAMES), text_model=sentences, **SMALL)  # type: ignore[arg-type]
    old = h.get_buffer("codes").clone()
    h.widen(Taxonomy.of([*NAMES, "neutral"]))
    new = h.get_buffer("codes")
    assert torch.equal(new[:3], old)
    assert_like(new[3:], text_codes(["neutral"], NAMES, 16, sentences), digits=5)
    coding = {"codes": "text", "spacing": 1.0, "base": 2.0, "order": None}
    with pytest.raises(ConfigError, match=says("head.text_model")):
        wider_codes(old, Taxonomy.of(NAMES), 4, forms=["a"] * 4, **coding)  # type: ignore[arg-type]


def test_what_is_missing_or_does_not_fit_is_said(
    sentences: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taxonomy = Taxonomy.of(NAMES)
    with pytest.raises(ConfigError, match=says("head.text_model=", "SERZOO_MODELS")):
        build_codes(taxonomy, codes="text")
    with pytest.raises(ConfigError, match=says("code_dim=8", "16", "head.code_dim=16")):
        build_codes(taxonomy, codes="text", code_dim=8, text_model=sentences)
    monkeypatch.setenv("SERZOO_MODELS", str(tmp_path))
    hub = "sentence-transformers/all-MiniLM-L6-v2"
    with pytest.raises(ConfigError, match=says("SERZOO_MODELS", "all-MiniLM-L6-v2")):
        build_codes(taxonomy, codes="text", code_dim=384, text_model=hub)


def test_the_shipped_head_is_composed_and_explained_without_its_model() -> None:
    cfg = config.load("ravdess", ["head=gen_ser_text"])
    taxonomy = config.build_taxonomy(cfg)
    assert taxonomy is not None
    assert GenSERHead.explain(taxonomy, cfg.head) == [
        "the codes are embeddings of the class names by sentence-transformers/all-MiniLM-L6-v2"
    ]
    plain = config.load("ravdess", ["head=gen_ser"])
    assert plain.head["text_model"] is None
    assert "text_model" not in plain.identity["head"]  # the runs of before keep their fingerprints
