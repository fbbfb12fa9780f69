"""Files of protocols: names and versions, and what may not be written."""

import pytest
from serzoo.datamodules.protocols import Protocol
from serzoo.zoo.errors import ConfigError


class TestNames:
    def test_wrong_version_says_which_exists(self):
        with pytest.raises(ConfigError, match="'ravdess8-6fold' has version 1, not '2'"):
            Protocol.load("ravdess8-6fold@2")

    def test_unknown_name(self):
        with pytest.raises(ConfigError, match=r"have crema_d.*did you mean 'ravdess8-6fold'\?"):
            Protocol.load("ravdess-6fold@1")


class TestFiles:
    GOOD = {"version": 1, "by": "speaker", "folds": [["a"], ["b"], ["c"]], "validation": "next"}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"validations": "next"}, "unknown key 'validations'.*did you mean 'validation'"),
            ({"by": "gender"}, "by is 'gender'; have speaker, session, corpus, official"),
            ({"folds": [["a"], ["a"], ["c"]]}, "name a speaker twice"),
            ({"folds": "some"}, "folds is 'some'; want lists"),
            ({"folds": {"balanced": 2}}, "needs 3 folds"),
            ({"validation": "random"}, "validation is 'random'; want next"),
            ({"validation": {"speakers": 1.5}}, "share is 1.5"),
            ({"tests": "others"}, "tests is 'others'; have own, and others by corpus"),
            ({"tests": "rest", "by": "corpus"}, "tests is 'rest'"),
            ({"tests": "others", "by": "corpus"}, "others has no next one"),
        ],
    )
    def test_bad_rules_are_refused(self, change, message):
        assert Protocol.from_dict("mine", self.GOOD).n_folds([]) == 3
        with pytest.raises(ConfigError, match=message):
            Protocol.from_dict("mine", self.GOOD | change)
