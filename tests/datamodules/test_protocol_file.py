"""Files of protocols: names and versions, and what may not be written."""

import pytest
from facts import says
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.core.errors import ConfigError


class TestNames:
    def test_wrong_version_says_which_exists(self):
        with pytest.raises(ConfigError, match=says("'2'", "'ravdess8-6fold@1'")):
            Protocol.load("ravdess8-6fold@2")

    def test_unknown_name(self):
        with pytest.raises(
            ConfigError, match=says("'ravdess-6fold'", "crema_d-5fold", "'ravdess8-6fold'")
        ):
            Protocol.load("ravdess-6fold@1")


class TestFiles:
    GOOD = {"version": 1, "by": "speaker", "folds": [["a"], ["b"], ["c"]], "validation": "next"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"validations": "next"}, "'validations'.*'validation'"),
            ({"by": "gender"}, "by .*'gender'.* speaker, session, corpus, official"),
            ({"folds": [["a"], ["a"], ["c"]]}, "folds .*speaker twice"),
            ({"folds": "some"}, "folds .*'some'.*'each'"),
            ({"folds": {"balanced": 2}}, "next.*3 folds"),
            ({"validation": "random"}, "validation .*'random'.* next"),
            ({"validation": {"speakers": 1.5}}, r"share .*1\.5.* 0 .* 1\b"),
            ({"tests": "others"}, "tests .*'others'.* own.* corpus"),
            ({"tests": "rest", "by": "corpus"}, "tests .*'rest'.* own.* others"),
            ({"tests": "others", "by": "corpus"}, r"others .*\{speakers: 0\.2\}"),
        ],
    )
    def test_bad_rules_are_refused(self, change, message):
        assert Protocol.from_dict("mine", self.GOOD).n_folds([]) == 3
        with pytest.raises(ConfigError, match=message):
            Protocol.from_dict("mine", self.GOOD | change)
