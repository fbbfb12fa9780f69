from math import isnan

import pytest
from facts import says
from serzoo.zoo.core.errors import DataError
from serzoo.zoo.statistics.speakers import MeanSD, holm, mean_sd


class TestHolm:
    def test_by_hand(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_never_above_one_and_never_out_of_order(self):
        assert holm([0.5, 0.6]) == [1, 1]
        assert holm([]) == []

    def test_nan_is_no_test(self):
        found = holm([0.02, float("nan"), 0.04])
        assert found[0] == pytest.approx(0.04)
        assert isnan(found[1])
        assert found[2] == pytest.approx(0.04)

    def test_what_is_no_p(self):
        with pytest.raises(DataError, match=says("1.2", "0 to 1")):
            holm([0.5, 1.2])


class TestMeanSD:
    def test_by_hand(self):
        found = mean_sd([0.5, 0.6, 0.7])
        assert found == pytest.approx(MeanSD(0.6, 0.1, 3))
        assert str(found) == "0.600 ± 0.100"

    def test_too_few(self):
        assert str(mean_sd([0.5, 0.6])) == "0.550"
        assert isnan(mean_sd([0.5]).sd)
        assert isnan(mean_sd([]).mean)
