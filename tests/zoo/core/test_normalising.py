"""Features of a speaker lose what is common to the speaker's utterances."""

from __future__ import annotations

import pytest
from facts import says
from serzoo.zoo.core.speakers import enrolled


def test_the_ways_to_normalise_are_none_all_and_some() -> None:
    assert [enrolled(way) for way in ("none", "speaker", "enrol:1", "enrol:16")] == [None, 0, 1, 16]


@pytest.mark.parametrize("way", ["", "enrol", "enrol:", "enrol:0", "enrol:-1", "enrol:x", "4"])
def test_another_way_is_refused(way: str) -> None:
    with pytest.raises(ValueError, match=says(f"'{way}'", "none", "speaker", "enrol:16")):
        enrolled(way)
