"""The script of the embedded corpus of unlabelled talk: what is said, and how.

The voices act as in ``acting.py``, but the speakers are others. Their words tell something about
their emotion, as in conversation. A quarter of the utterances have neutral words, whatever the
voice acts. Of the others, two of three fit the emotion of the voice, and one fits another emotion.
So a reader who understands every sentence is right about the voice in two of three sentences with
emotional words. For sentences with neutral words it is three of ten. All shares are our choice.

Sentences are built from several hundred parts and have 4 to 10 words. No speaker repeats a sentence
before having said all sentences of its wording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from .acting import EMOTIONS, Speaker, Take, delivery, style_of, voice

NEUTRAL_SHARE, FITTING_SHARE = 1 / 4, 2 / 3

# for each emotion its templates; a template has alternatives for each place, joined by spaces
_PARTS: dict[str, tuple[tuple[tuple[str, ...], ...], ...]] = {
    "angry": (
        (
            ("You", "They", "My neighbours"),
            ("lied to me", "ignored my letter", "blocked my driveway", "broke my window"),
            ("again", "on purpose", "and just laughed"),
        ),
        (
            ("I am sick of", "I won't put up with", "I have had enough of"),
            ("your excuses", "this stupid noise", "his insults", "their lies"),
        ),
        (
            ("Stop", "Quit"),
            ("shouting at me", "blaming my sister", "touching my things", "wasting my time"),
            ("this minute", "right now", "or get out"),
        ),
        (
            ("How dare",),
            ("you", "they", "he"),
            ("cheat me", "yell at my children", "sell my car", "insult my mother"),
            ("like that", "in public", "after all this"),
        ),
    ),
    "disgust": (
        (
            ("This", "That", "Your"),
            ("soup", "milk", "meat", "cheese"),
            ("smells rotten", "tastes like vomit", "is full of maggots", "looks mouldy and slimy"),
        ),
        (
            ("There is", "I found", "Somebody left"),
            ("dirt", "spit", "filthy hair", "sticky slime"),
            ("on the floor", "in the sink", "all over the towel"),
        ),
        (
            ("What a", "Such a"),
            ("nasty", "revolting", "foul"),
            ("smell in", "stain in", "mess in"),
            ("the kitchen", "this bathroom"),
        ),
    ),
    "fearful": (
        (
            ("Somebody", "A stranger", "Something"),
            ("is following us", "is hiding", "keeps moving"),
            ("in the dark", "behind the door", "outside the window"),
        ),
        (
            ("Please don't", "Please never"),
            ("leave me alone", "open that door", "turn off the light"),
            ("tonight", "in this house", "down here"),
        ),
        (
            ("I am afraid", "I am scared", "I am terrified"),
            ("the bridge", "the ladder", "this old lift"),
            ("will collapse", "might fall", "is about to break"),
        ),
        (
            ("Hide quickly,", "Hurry,", "Be quiet,"),
            ("they", "those men", "the dogs"),
            ("have found us", "are coming closer", "will hear us"),
        ),
        (
            ("My hands", "My knees"),
            ("are shaking", "were trembling"),
            ("because of that scream", "since the explosion", "before the operation"),
        ),
    ),
    "happy": (
        (
            ("We", "The children", "My parents"),
            ("won the cup", "had a wonderful trip", "danced and sang"),
            ("today", "yesterday", "last weekend"),
        ),
        (
            ("I am so glad", "I am delighted", "It is wonderful"),
            ("you got the job", "she said yes", "the baby is healthy", "we are finally married"),
        ),
        (
            ("What a", "It was such a", "We had a"),
            ("lovely", "fantastic", "beautiful", "brilliant"),
            ("party", "holiday", "concert", "birthday"),
        ),
        (
            ("I love", "I really enjoy", "I adore"),
            ("your new song", "this sunny garden", "dancing with you"),
            ("so much", "more every day"),
        ),
    ),
    "neutral": (
        (
            ("The lecture", "The lesson", "The film"),
            ("starts", "ends", "continues"),
            ("at nine", "at half past six", "after lunch"),
        ),
        (
            ("The bus", "The train", "The tram"),
            ("leaves from", "stops at"),
            ("platform four", "the main station", "the second gate"),
        ),
        (
            ("He", "She", "My colleague"),
            ("put the folder", "found the form", "copied the list"),
            ("on the shelf", "in the office", "next to the printer"),
        ),
        (
            ("You need", "We ordered", "They sell"),
            ("two", "three", "ten"),
            ("boxes of paper", "bags of cement", "metres of cable"),
        ),
        (
            ("On Monday", "In March"),
            ("we paint", "they measure"),
            ("the fence", "the hall", "both rooms"),
        ),
    ),
    "sad": (
        (
            ("I miss", "I cry for", "I grieve for"),
            ("my brother", "my grandmother", "our old dog", "my best friend"),
            ("every night", "since the funeral", "more than ever"),
        ),
        (
            ("Nobody", "None of them", "Not one friend"),
            ("came to visit me", "remembered my birthday", "called to say goodbye"),
            ("this year", "last month", "after the divorce"),
        ),
        (
            ("I feel", "She feels", "He looks"),
            ("so lonely", "so hopeless", "completely empty", "heartbroken and tired"),
            ("these days", "since you left", "in that empty house"),
        ),
        (
            ("All our", "Her", "My"),
            ("dreams", "hopes", "plans"),
            ("have died with him", "are gone for ever"),
        ),
    ),
    "surprised": (
        (
            ("I never knew", "I had no idea", "Nobody ever told me"),
            ("you play the trumpet", "she has a twin", "he speaks Chinese", "they moved to Peru"),
        ),
        (
            ("Wow,", "Oh my,", "Good heavens,"),
            ("where did",),
            ("that horse", "this box", "all that snow", "this piano"),
            ("come from", "suddenly come from"),
        ),
        (
            ("What,", "Really,", "Hold on,"),
            ("you have", "she has", "they have"),
            ("already finished", "changed the colour", "bought an island", "met the king"),
        ),
        (
            ("Out of nowhere", "All of a sudden", "To my amazement"),
            (
                "the lights went on",
                "it started snowing",
                "a parrot answered me",
                "the shop had vanished",
            ),
        ),
        (
            ("I did not expect", "I never imagined"),
            ("such a letter", "so many people", "a call"),
            ("from you", "at this hour", "on a Sunday"),
        ),
    ),
}

# maps the emotion of the words to all its sentences
SENTENCES = {
    emotion: tuple(" ".join(places) + "." for t in templates for places in product(*t))
    for emotion, templates in _PARTS.items()
}


@dataclass(frozen=True)
class Saying(Take):
    """A take with the emotion that its words were written for."""

    worded: str


def talker(seed: int, index: int) -> Speaker:
    """Return the speaker with this number, who is not in the acted corpus of any seed."""
    return voice(np.random.default_rng([seed, 3, index]), index, prefix="t")


def sayings(who: Speaker, *, seed: int, index: int, utterances: int) -> Iterator[Saying]:
    """Yield what a speaker says: each of ``utterances`` rounds has every emotion once, shuffled.

    The first rounds do not depend on ``utterances``. Ids are numbers and do not name the emotion.
    """
    acted = [
        style_of(who, np.random.default_rng([seed, 4, index, number]))
        for number in range(len(EMOTIONS))
    ]
    rng = np.random.default_rng([seed, 5, index])
    orders = {e: rng.permutation(len(s)) for e, s in SENTENCES.items()}
    said = dict.fromkeys(SENTENCES, 0)
    for turn in range(utterances):
        order = np.random.default_rng([seed, 6, index, turn]).permutation(len(EMOTIONS))
        for place, number in enumerate(order):
            count = turn * len(EMOTIONS) + place
            key = (seed, 7, index, count)
            rng = np.random.default_rng(key)
            label = EMOTIONS[number]
            worded = _wording(rng, label)
            chosen = orders[worded][said[worded] % len(orders[worded])]
            said[worded] += 1
            yield Saying(
                id=f"{who.name}-{count + 1:03d}",
                text=SENTENCES[worded][chosen],
                worded=worded,
                seed=key,
                **delivery(who, rng, label, *acted[number]),
            )


def _wording(rng: np.random.Generator, label: str) -> str:
    """Return the emotion that the words should fit."""
    if rng.random() < NEUTRAL_SHARE:
        return "neutral"
    if rng.random() < FITTING_SHARE:
        return label
    return str(rng.choice([e for e in EMOTIONS if e != label]))
