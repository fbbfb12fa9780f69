"""Where a comparison's time went."""

from __future__ import annotations

from serzoo.zoo.report.detail import in_words, totals
from serzoo.zoo.run.record import Record

OLD = Record(seconds={"fit": 10.0, "total": 12.5})
FIRST = Record(
    seconds={"encode": 6.0, "fit": 4.0, "evaluate": 1.0, "total": 12.0},
    processor_seconds={"total": 21.0},
    feature_store={"kind": "stored", "encoded": 100, "reused": 20},
)
SECOND = Record(
    seconds={"encode": 0.5, "fit": 4.0, "evaluate": 1.0, "total": 6.0},
    processor_seconds={"total": 8.0},
    feature_store={"kind": "stored", "encoded": 0, "reused": 120},
)


def test_parts_and_rest_add_up():
    sums = totals([FIRST, SECOND, OLD])
    assert sums == {
        "cells": 3, "encode": 6.5, "fit": 18.0, "evaluate": 2.0, "other": 4.0, "total": 30.5,
        "processor": None, "encoded": 100, "reused": 140,
    }  # fmt: skip
    assert totals([FIRST, SECOND])["processor"] == 29.0  # the old one does not say


def test_words_say_what_was_made_and_how_long_it_took():
    calls = [{"cells": 2, "seconds": 7.4}, {"cells": 0, "seconds": 1.0}, {"cells": 1, "seconds": 3}]
    text = in_words(totals([FIRST, SECOND]), calls)
    assert "encoding 6, fitting 8, evaluating 2, other 2; 29 s of processors;" in text
    assert "100 rows of features were made and 140 reused" in text
    assert text.endswith("10 s on the clock in 2 parts")
    alone = in_words(totals([FIRST]), [])
    assert alone.startswith("1 cell took 12 s of its process: ")
    assert "clock" not in alone
    for word in ("rows", "processors"):
        assert word not in in_words(totals([OLD]), [])
