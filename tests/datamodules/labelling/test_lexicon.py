"""Cue words: counted by hand."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from facts import says
from serzoo.datamodules.labelling.lexicon import Lexicon, languages
from serzoo.datamodules.labelling.scorers import Hypothesis, hypotheses
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.taxonomy import Taxonomy, canonical

BIG4 = Taxonomy.load("big4")


def of(taxonomy: Taxonomy, templates: tuple[str, ...] = ("I feel {}.",)) -> list[Hypothesis]:
    return hypotheses(templates, taxonomy.forms, [labels for _, labels in taxonomy.members])


def odds(for_it: int, against: int) -> float:
    return math.log((for_it + 0.5) / (against + 0.5))


@pytest.mark.parametrize(
    ("text", "counts"),  # angry, happy, neutral, sad
    [
        ("", (0, 0, 0, 0)),
        ("I am so HAPPY, what wonderful news!", (0, 2, 0, 0)),
        ("How dare you! I hate it.", (2, 0, 0, 0)),
        ("He cried, and she was furious.", (1, 0, 0, 1)),
        ("The train leaves at nine.", (0, 0, 1, 0)),
        ("I am not at all happy.", (0, 0, 0, 0)),  # no word for happy, and none for neutral
        ("I don’t hate it.", (0, 0, 0, 0)),
        ("No, I am happy.", (0, 1, 0, 0)),  # the comma ends what is denied
        ("That is boring.", (0, 0, 0, 0)),  # a cue of an emotion that is not asked for
        ("She made the gladiolus blossom.", (0, 1, 0, 0)),  # a star takes every ending: no miracle
    ],
)
def test_scores_are_the_odds_of_the_counted_words(text: str, counts: tuple[int, ...]) -> None:
    expected = [odds(n, sum(counts) - n) for n in counts]
    assert Lexicon().score([text], of(BIG4)).tolist() == [pytest.approx(expected)]


def test_a_class_has_the_cues_of_all_its_labels_and_templates_play_no_part() -> None:
    text = "I can't wait!"  # of excited
    two = ("I feel {}.", "This person is {}.")
    scores = Lexicon().score([text, ""], of(Taxonomy.load("iemocap4"), two))
    assert scores.shape == (2, 8)
    assert (scores[:, :4] == scores[:, 4:]).all()
    assert scores[0, :4].tolist() == pytest.approx([odds(0, 1), odds(1, 0), odds(0, 1), odds(0, 1)])
    assert (scores[1] == 0).all()
    assert (Lexicon().score([text], of(BIG4)) == 0).all()


def test_what_was_found_can_be_asked_for() -> None:
    lexicon = Lexicon()
    assert lexicon.found("I can't wait, not sad, such joy", ["happy", "excited"]) == [
        "can't wait",
        "joy",
    ]
    assert lexicon.found("I can't wait, not sad", ["sad"]) == []


def test_classes_without_cues_are_refused() -> None:
    with pytest.raises(ConfigError, match=says("lexicon-english", "female", "happy", "scorer=nli")):
        Lexicon().score([""], of(Taxonomy.load("gender")))
    with pytest.raises(ConfigError, match=says("'klingon'", "english")):
        Lexicon(language="klingon")


def test_settings_name_the_words_by_a_digest() -> None:
    settings = Lexicon().settings()
    assert settings["scorer"] == "lexicon"
    assert re.fullmatch("lexicon-english@[0-9a-f]{12}", settings["source"])
    assert "no entailment" in settings["scale"]


# The file.


def test_every_emotion_has_cues_and_none_is_of_two() -> None:
    assert languages() == ["english"]
    lexicon = Lexicon()
    silent = {"neutral", "other", "positive", "negative", "female", "male"}
    assert set(lexicon.cues) == set(canonical()) - silent
    assert len(lexicon.cues) == 43
    for label, cues in lexicon.cues.items():
        assert len(set(cues)) == len(cues) >= 12, label
        assert all(re.fullmatch(r"[a-z']+( [a-z']+)*\*?", cue) for cue in cues), label
        said = {"realising": "now i see", "content": "contented"}.get(
            label, canonical()[label].form
        )
        assert lexicon.found(said, [label]), f"'{said}' is no cue of itself"
        for cue in cues:
            takers = [x for x in lexicon.cues if lexicon._of((x,)).fullmatch(cue.rstrip("*"))]
            assert takers == [label], cue


def test_the_order_of_the_classes_is_of_no_matter() -> None:
    # the score does not depend on the order of classes
    ab, ba = Taxonomy.of(["sad", "happy"]), Taxonomy.of(["happy", "sad"])
    text = ["such joy, he cried, she cried"]
    one, two = Lexicon().score(text, of(ab)), Lexicon().score(text, of(ba))
    assert (one == two[:, ::-1]).all()
    assert all(x > y for x, y in pairwise(one[0]))
