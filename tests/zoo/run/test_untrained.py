"""A published encoder with new weights: same shape, same stops, nothing of what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from serzoo.zoo.core import registry
from serzoo.zoo.run.trained import untrained
from tiny_models import CASES, tiny_hf


def test_every_family_and_norm_is_tested() -> None:
    assert len(CASES) == 13


@pytest.mark.parametrize(("family", "norm"), CASES)
@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_published_weights_are_drawn_anew(
    family: str, norm: str, tuning: str, tmp_path: Path
) -> None:
    name = tiny_hf(tmp_path, family, norm)
    options = {"type": "hf", "name": name, "tuning": tuning, "layers": [1, 2]}
    encoder = registry.get("encoders", "hf")(name=name, tuning=tuning, layers=[1, 2]).eval()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    state = torch.get_rng_state()
    fresh, again, other = (untrained(encoder, options, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    audio, lengths = torch.randn(2, 8_000) * 0.1, torch.tensor([8_000, 5_000])
    with torch.no_grad():
        a, b, c, d = (e(*e.extract(audio, lengths)).x for e in (encoder, fresh, again, other))
    assert torch.equal(b, c)
    assert not torch.allclose(b, d, atol=1e-2)
    assert not torch.allclose(a, b, atol=1e-2)
    assert torch.isfinite(b).all()
    assert b.std() > 0.01
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert fresh.source["weights"] != encoder.source["weights"]  # never their stored features
    matrices = [k for k, v in before.items() if v.dim() > 1 and "lora" not in k]
    drawn = [k for k in matrices if not torch.equal(fresh.state_dict()[k], before[k])]
    fixed = [k for k in matrices if k not in drawn]
    assert all("embed_positions" in k for k in fixed)  # Whisper's are not learned
