"""SELM's decisions: weighted ranks, written answers, and what of a model is trained."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from close import assert_like, decided
from facts import says
from safetensors import safe_open
from safetensors.torch import save_file
from serzoo import zoo
from serzoo.heads.selm.head import SELMHead
from serzoo.heads.selm.language import LanguageModel
from serzoo.zoo import save_pretrained
from serzoo.zoo.core.errors import CheckpointError, ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy
from serzoo.zoo.core.types import Batch, Frames, Targets
from serzoo.zoo.core.weights import published_parts
from serzoo.zoo.run import checkpoint, published
from serzoo.zoo.run.build import build
from serzoo.zoo.run.config import compose, read_group
from serzoo.zoo.run.module import SERModule
from serzoo.zoo.testing import Case, check_head
from sweeps import often
from transformers import AutoModelForCausalLM

CASE = Case(SELMHead, 12)
CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "head"
SHIPPED = sorted(p.stem for p in CONFIGS.glob("selm*.yaml"))
TinyLM = Callable[[str], str]


def load(path, **options):
    """The module of a saved model."""
    return zoo.load(path, **options).module


def head(**knobs: Any) -> SELMHead:
    torch.manual_seed(0)
    h = SELMHead(12, CASE.taxonomy, **({"lm_width": 32, "prefix": 3} | knobs)).eval()
    with torch.no_grad():
        for p in h.language.parameters():
            if p.requires_grad and h.language.name == "scratch":
                p.mul_(8.0)
    return h


def moved(h: SELMHead, steps: int = 3) -> set[str]:
    """Names of what some steps of training change."""
    before = {k: v.clone() for k, v in h.state_dict().items()}
    optimiser = torch.optim.SGD(h.train().param_groups(0.1))
    for _ in range(steps):
        optimiser.zero_grad()
        h.loss(CASE.frames(), CASE.targets()).loss.backward()
        optimiser.step()
    h.eval()
    return {k for k, v in h.state_dict().items() if not torch.equal(v, before[k])}


# The shipped configurations.


def test_the_shipped_controls_are_tested_here() -> None:
    assert len(SHIPPED) == 17
    assert {"selm", "selm_calibrated", "selm_frozen_random", "selm_no_text_mapper"} < set(SHIPPED)


@pytest.mark.parametrize("name", often(SHIPPED, ["selm", "selm_paper"]))
def test_every_shipped_selm_keeps_the_contract(name: str, tiny_lm: TinyLM) -> None:
    options = read_group("head", name)
    assert options.pop("type") == "selm"
    assert set(options) < set(read_group("head", "selm"))  # what differs from its defaults
    if options.get("lm", "scratch") != "scratch":
        options |= {"lm": tiny_lm("gpt2"), "prefix": 4}
    if name == "selm_paper":
        assert (options["constants"], options["order"]) == ("appended", "audio_first")
    else:
        options["lm_width"] = 32
    check_head(SELMHead, dim=12, **options)


# The weight of the language model's own preference.


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
def test_the_score_of_null_audio_is_weighted(weight: float) -> None:
    frames = CASE.frames()
    for kind in ("mean", "zeros"):
        h = head(lm_weight=weight, null_audio=kind)
        plain = head()
        plain.load_state_dict(h.state_dict(), strict=False)
        if kind == "mean":
            h.null.mean.copy_(torch.randn(1, 3, 32))
            prefix = h.null.mean
        else:
            nothing = Frames(torch.zeros(1, 1, 12), torch.ones(1, 1, dtype=torch.bool))
            prefix = h.audio_mapper(nothing)
        with torch.no_grad():
            prior = plain._rank(prefix, [plain.views.categorical], CASE.taxonomy)[0]
            taken = (1 - weight) * prior  # compared without it, which is large
            want = plain.scores(frames, CASE.taxonomy) - taken
            assert_like(h.scores(frames, CASE.taxonomy) + taken, want + taken)
        assert prior.shape == (1, 5)
        assert prior.std() > 0.1


def test_mean_audio_is_the_average_prefix_of_training() -> None:
    h = head().train()
    prefixes = []
    for seed, weight in ((1, [1.0, 1, 1, 1]), (2, [2.0, 0, 1, 1]), (3, [0.0, 0, 0, 0])):
        frames, w = CASE.frames(seed=seed), torch.tensor(weight)
        h.loss(frames, Targets(CASE.targets().probs, w))
        if w.any():
            with torch.no_grad():
                prefixes.append((h.audio_mapper(frames) * (w / w.sum())[:, None, None]).sum(0))
    assert_like(h.null.mean[0], torch.stack(prefixes).mean(0), digits=5)
    before = h.null.mean.clone()
    h.eval().loss(CASE.frames(), CASE.targets())
    assert torch.equal(h.null.mean, before)  # only training counts
    assert "null.mean" in h.state_dict()


def test_a_prior_that_the_audio_does_not_change_is_gone_at_weight_0() -> None:
    h = head(lm_weight=0.0, null_audio="zeros")
    nothing = Frames(torch.zeros(2, 5, 12), torch.ones(2, 5, dtype=torch.bool))
    with torch.no_grad():
        plain = head().scores(nothing, CASE.taxonomy)
        taken = plain - h.scores(nothing, CASE.taxonomy)
    assert_like(taken, plain)  # two large numbers of two batches: what is left is their rounding


# Written answers.


def test_constrained_with_enough_beams_decides_as_the_ranking() -> None:
    frames = CASE.frames([3 + i % 9 for i in range(24)])
    for normalised in (False, True):
        knobs = {"length_normalised": normalised}
        ranked = head(**knobs)
        wrote = head(decoding="generate", constrained=True, beams=5, **knobs)
        with torch.no_grad():
            for h in (ranked, wrote):
                h.audio_mapper.norm.size.mul_(20)  # so that decisions differ
            a = ranked.scores(frames, CASE.taxonomy)
            b = wrote.scores(frames, CASE.taxonomy)
            texts = wrote.write(frames)
        assert_like(a, b)
        clear = decided(a)
        assert clear.float().mean() > 0.8
        for i in clear.nonzero().flatten().tolist():
            assert texts[i] == CASE.taxonomy.forms[int(a[i].argmax())]
    assert len(a.argmax(1).unique()) > 1


def test_a_head_that_learnt_its_labels_writes_them_and_its_decision_is_what_it_writes() -> None:
    taxonomy = Taxonomy.of(["angry", "happy", "disgust"])
    torch.manual_seed(0)
    h = SELMHead(12, taxonomy, lm_width=32, prefix=3, decoding="generate", beams=2)
    frames, labels = CASE.frames([5, 6, 7, 8, 9, 10]), torch.arange(6) % 3
    optimizer = torch.optim.AdamW(h.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        h.loss(frames, Targets(torch.eye(3)[labels], torch.ones(6))).loss.backward()
        optimizer.step()
    h.eval()
    with torch.no_grad():
        assert h.write(frames) == [taxonomy.forms[i] for i in labels]
        s = h.scores(frames, taxonomy)
        assert s.argmax(1).tolist() == labels.tolist()
        rank = h._rank(h.audio_mapper(frames), [h.views.categorical], taxonomy)[0]
        rows = torch.arange(6)
        written = rank.index_put((rows, labels), s[rows, labels])
        assert_like(written, rank)
        # asked for classes without that word, the answer names none of them
        other = h.scores(frames, Taxonomy.of(["sad", "bored"]))
    assert torch.equal(other, torch.full((6, 2), -10.0))


def test_synonyms_count_as_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    h = head(decoding="generate")
    said = iter(["furious", "Joy!", "gibberish", "sadness"])
    monkeypatch.setattr(h.language.tokenizer, "text", lambda ids: next(said))
    with torch.no_grad():
        s = h.scores(CASE.frames(), CASE.taxonomy)
    assert s.argmax(1).tolist() == [0, 1, 0, 3]
    assert (s[2] == s[2, 0]).all()  # all alike
    assert (s.sort(1).values[[0, 1, 3], -2] < s.max(1).values[[0, 1, 3]]).all()


# What is trained.


def test_adapters_learn_and_the_model_below_stays(tiny_lm: TinyLM) -> None:
    for kind, layer in (("gpt2", "attn.c_attn"), ("llama", "self_attn.q_proj")):
        h = head(lm=tiny_lm(kind), lm_tuning="lora", lora_rank=2)
        changed = {k for k in moved(h) if k.startswith("language")}
        adapters = {k for k in h.state_dict() if ".lora_" in k}
        assert changed == adapters
        assert any(f"{layer}.lora_A" in k for k in adapters)
        assert {v.shape[0] for k, v in h.state_dict().items() if ".lora_A" in k} == {2}
        roots = tuple(f"{name}." for name in h.frozen_roots())
        kept = {k for k in h.state_dict() if not k.startswith(roots)}
        assert {k for k in kept if k.startswith("language")} == adapters


def test_adapters_start_as_the_published_model_and_are_scaled_by_alpha(tiny_lm: TinyLM) -> None:
    folder = tiny_lm("gpt2")
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    m = head(lm=folder, lm_tuning="lora", lora_rank=2, lora_alpha=6.0).language.model
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        assert_like(m(ids).logits, plain(ids).logits, digits=5)
        layer = m.transformer.h[0].attn.c_attn
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        b.normal_()
        x = torch.randn(1, 16)
        want = plain.transformer.h[0].attn.c_attn(x) + 6.0 / 2 * x @ a.T @ b.T
        assert_like(layer(x), want, digits=5)


def test_a_model_from_scratch_can_stay_random_and_comes_back_from_its_seed() -> None:
    one, two, three = (head(lm_tuning="frozen", lm_seed=seed) for seed in (0, 0, 1))
    weights = [h.language.model.transformer.wte.weight for h in (one, two, three)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    changed = moved(one)
    assert changed
    assert not any(k.startswith("language") for k in changed)
    assert list(one.frozen_roots()) == ["language.model"]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    LanguageModel("scratch", revision=None, tuning="frozen", width=32, layers=1, dropout=0.0)
    assert torch.equal(state, torch.get_rng_state())  # its numbers are its own


def test_random_weights_keep_architecture_and_tokenizer_only(tiny_lm: TinyLM) -> None:
    for kind in ("gpt2", "llama"):
        folder = tiny_lm(kind)
        published, drawn, again = (
            head(lm=folder, lm_init=init, lm_seed=7).language
            for init in ("published", "random", "random")
        )
        assert drawn.frozen
        assert type(drawn.model) is type(published.model)
        assert drawn.spell("a", ["sad"]) == published.spell("a", ["sad"])
        pairs = zip(drawn.model.parameters(), published.model.parameters(), strict=True)
        assert all(a.shape == b.shape for a, b in pairs)
        a, b, c = (m.model.get_input_embeddings().weight for m in (published, drawn, again))
        assert not torch.equal(a, b)
        assert torch.equal(b, c)
        (Path(folder) / "model.safetensors").unlink()  # the weights are not even read
        other = head(lm=folder, lm_init="random", lm_seed=1).language.model
        assert not torch.equal(b, other.get_input_embeddings().weight)


def module_of(options: dict[str, Any]) -> SERModule:
    """As training builds one, with every trained weight moved."""
    small = {"type": "logmel", "widths": [4, 8, 8, 8], "dim": 16, "bfloat16": False}
    base = {
        "groups": {"encoder": "logmel", "head": "selm"}, "encoder": small,
        "head": {"type": "selm", "lm_width": 32, **options}, "corpus": "ravdess",
    }  # fmt: skip
    cfg = compose(base, [])
    meta = {
        "config": cfg.to_dict(),
        "fingerprint": cfg.fingerprint,
        "head": dict(cfg.head),
        "taxonomy": CASE.taxonomy.to_dict(),
        "taxonomy_fingerprint": CASE.taxonomy.fingerprint,
        "data": {"manifest": "a1", "split": "b2"},
    }
    module = build(cfg, CASE.taxonomy, meta)
    meta["published"] = published_parts(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_a_record_names_the_language_model_and_its_commit(tiny_lm: TinyLM, tuning: str) -> None:
    name = tiny_lm("gpt2")
    parts = published_parts(module_of({"lm": name, "lm_tuning": tuning}))
    of_language = {k: v for k, v in parts.items() if k.startswith("head.language.model")}
    assert of_language
    for part in of_language.values():
        origin = {k: part[k] for k in ("name", "revision", "commit")}
        assert origin == {"name": name, "revision": None, "commit": None}  # a folder has none


@pytest.mark.parametrize(
    ("kind", "options", "stored"),
    [
        ("gpt2", {"lm_tuning": "lora"}, 2 * 2),  # two matrices in each of two blocks
        ("gpt2", {"lm_init": "random"}, 0),
        ("scratch", {"lm_tuning": "frozen"}, 0),
        ("scratch", {"lm_tuning": "lora"}, 2),
        ("llama", {"lm_tuning": "frozen", "lm_weight": 0.0}, 0),
    ],
)
def test_a_saved_model_holds_what_was_trained_and_comes_back(
    kind: str, options: dict[str, Any], stored: int, tiny_lm: TinyLM, tmp_path: Path
) -> None:
    lm = kind if kind == "scratch" else tiny_lm(kind)
    module = module_of({"lm": lm, **options})
    folder = save_pretrained(module, tmp_path / "saved")
    with safe_open(folder / "model.safetensors", "pt") as file:
        kept = [k for k in file.keys() if k.startswith("head.language")]  # noqa: SIM118
    assert len(kept) == stored
    assert all(".lora_" in k for k in kept)
    audio = 0.1 * torch.randn(2, 5000)
    batch = Batch(["a", "b"], ["x", "y"], CASE.targets(2), None, audio, torch.tensor([5000, 3000]))
    back = load(folder)
    with torch.no_grad():
        assert torch.equal(back(batch), module(batch))
    buffer = io.BytesIO()  # and a checkpoint
    content: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    torch.save(content, buffer)
    buffer.seek(0)
    other = module_of({"lm": lm, **options})
    checkpoint.restore(other, torch.load(buffer, weights_only=True))
    with torch.no_grad():
        assert torch.equal(other(batch), module(batch))


def test_random_weights_that_came_out_otherwise_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pretrained(module_of({"lm_tuning": "frozen"}), tmp_path / "saved")
    plain = torch.manual_seed  # as of another version of torch
    monkeypatch.setattr(torch, "manual_seed", lambda seed: plain(seed + 1))
    with pytest.raises(CheckpointError, match=says("head.language.model")):
        load(folder)


@pytest.mark.parametrize(("calibrated", "weight"), [(False, 1.0), (True, 0.0)])
def test_a_model_saved_before_the_weight_existed_is_read(
    calibrated: bool, weight: float, tmp_path: Path
) -> None:
    module = module_of({"lm_weight": weight, "null_audio": "zeros"})
    folder = save_pretrained(module, tmp_path / "saved")
    with safe_open(folder / "model.safetensors", "pt") as file:  # it kept no average prefix
        kept = {k: file.get_tensor(k) for k in file.keys() if ".null." not in k}  # noqa: SIM118
    save_file(kept, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["head"]["calibrated"] = calibrated
    del config["head"]["lm_weight"]
    (folder / "config.json").write_text(json.dumps(config))
    audio = 0.1 * torch.randn(2, 5000, generator=torch.Generator().manual_seed(2))
    batch = Batch(["a", "b"], ["x", "y"], CASE.targets(2), None, audio, torch.tensor([5000, 3000]))
    again, first = load(folder).score(batch), module.eval().score(batch)
    assert again.scores.tolist() == first.scores.tolist()
    asked = {"lm_weight": 2.0, "null_audio": "mean"}
    heavy = published.load(folder, kind=SERModule, answering=asked).head
    with pytest.raises(ConfigError, match=says("null_audio=zeros")):
        heavy.check_trained()


# Refusals.


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"beams": 0}, r"beams=0\b.* 1 .*greedy"),
        ({"decoding": "generate", "lm_weight": 0.0}, "lm_weight=0 .*decoding=rank"),
        ({"lm_weight": -1.0}, "lm_weight=-1; give 0 "),
        ({"lm_tuning": "lora", "lora_rank": 0}, r"lora_rank=0 .* 1$"),
    ],
)
def test_decisions_that_make_no_sense_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        head(**knobs)


def test_a_model_with_a_running_state_is_refused(tmp_path: Path, tiny_lm: TinyLM) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    folder = tiny_lm("gpt2")
    for file in ("config.json", "model.safetensors"):
        (Path(folder) / file).unlink()
    small = MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(small).save_pretrained(folder)
    with pytest.raises(ConfigError, match=says("mamba", "gpt2")):
        head(lm=folder)
