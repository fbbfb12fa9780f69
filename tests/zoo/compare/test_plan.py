"""Every shipped suite has a plan of its kind."""

import pytest
from serzoo.zoo.compare import compare
from serzoo.zoo.compare.few_shot import FewShotSuite
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.shipped import names
from serzoo.zoo.run import config


class Made:
    def __init__(self, kind: str) -> None:
        self.kind = kind


def test_every_shipped_suite_is_of_one_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the keys of its file: nothing is expanded here, which would read corpora."""
    kinds = {key: lambda *_, k=key, **__: Made(k) for key in compare.KINDS}
    monkeypatch.setattr(compare, "KINDS", kinds)
    monkeypatch.setattr(compare.runs, "plan", lambda *_, **__: Made("axes"))
    found = {name: compare.plan(name).kind for name in names("suite")}  # type: ignore[attr-defined]
    assert {n for n, kind in found.items() if kind == "shots"} == {
        "few_shot",
        "few_shot_nemo",
        "few_shot_tuning",
        "few_shot_whisper",
        "few_shot_whisper_nemo",
    }
    assert "robustness" in {n for n, kind in found.items() if kind == "conditions"}
    for name, kind in found.items():
        others = {"axes", *kinds} - {kind}
        assert kind in config.read_suite(name)
        assert not others & set(config.read_suite(name)), name
    assert FewShotSuite.__dataclass_fields__.keys() >= {"shots", "draw", "tuning"}


def test_no_such_suite() -> None:
    with pytest.raises(ConfigError, match="smoke"):
        compare.plan("smok")
