"""Do the words of a corpus tell its emotions? What any function of the text alone can reach.

Three answers, none of which hears a voice: what a scorer of transcripts says of each sentence, and
two learners that are taught with the human labels of training speakers and tested on others
(:func:`held_out`). If neither is better than with labels that are shuffled within each speaker, no
label from text is worth anything here, whichever model gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...zoo.errors import ConfigError, DataError
from ...zoo.statistics.jackknife import interval_of
from ...zoo.statistics.rates import uar_of
from ...zoo.statistics.stats import holm
from ..folds import sentence
from ..manifest import Utterance
from ..protocols import Protocol
from ..split import some, speaker_of, without_speaker
from .shuffling import Ints, beside, shuffles

Verdict = Literal["none", "little", "some"]

DRAWS = 1000
LEVEL = 0.05
LITTLE = 0.05
"""Of the way from chance to perfection, below which words that tell something tell little."""

LEARNERS = ("sentences", "words")


@dataclass(frozen=True)
class Reached:
    """How far one function of the text gets.

    Attributes:
        uar: on the utterances tested.
        low: end of its 95 % interval over speakers.
        high: the other end.
        shuffled: mean UAR with labels shuffled within each speaker (and learned anew).
        p: share of the shuffles that are at least as good, one-sided.
        corrected: ``p`` after Holm, for all functions that say more than one class; 1 for others.
        says: how many of the classes it ever answers.
    """

    uar: float
    low: float
    high: float
    shuffled: float
    p: float
    corrected: float
    says: int


@dataclass(frozen=True)
class Control:
    """What the text of a corpus tells of its labels.

    Attributes:
        utterances: with a label and a text.
        silent: with a label, without a text: not used.
        speakers: who speak them.
        sentences: distinct ones, without case and punctuation.
        shared: share of the utterances whose sentence is said under several labels.
        classes: names of those present.
        protocol: whose folds were used; its test speakers are not learned from.
        chance: 1 / number of classes.
        bits: mutual information of sentence and label, and its ``shuffled`` mean and ``p``.
        ceiling: greatest UAR that any function of the sentence has on these very utterances, and
            the same of shuffled labels: with sentences said once it is 1, and tells nothing.
        reached: by function: :data:`LEARNERS`, and ``scorer`` where there is one.
        verdict: ``none``: nothing is better than shuffled labels (corrected p of 0.05); ``little``:
            something is, by less than :data:`LITTLE` of the way from chance to 1; ``some``.
    """

    utterances: int
    silent: int
    speakers: int
    sentences: int
    shared: float
    classes: list[str]
    protocol: str
    chance: float
    bits: dict[str, float]
    ceiling: dict[str, float]
    reached: dict[str, Reached]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain containers; None for an end of an interval that there is not."""
        found = asdict(self)
        for reached in found["reached"].values():
            reached.update({k: v if v == v else None for k, v in reached.items()})
        return found


class Texts(NamedTuple):
    """Utterances as numbers.

    Attributes:
        y: ``[N]`` class.
        s: ``[N]`` sentence, below S.
        who: ``[N]`` speaker, below G.
        words: ``[S, V]`` sparse; how often each word is in each sentence.
        folds: training and test utterances of each.
        c: number of classes.
    """

    y: Ints
    s: Ints
    who: Ints
    words: Any
    folds: list[tuple[Ints, Ints]]
    c: int


def control(
    utterances: Sequence[Utterance],
    classes: Sequence[int],
    names: Sequence[str],
    protocol: str,
    *,
    said: Mapping[str, int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Control:
    """What can be told of the labels by the text alone.

    Args:
        utterances: with their texts.
        classes: by people; -1 = none, which is left out.
        names: of the classes.
        protocol: its test parts are what is tested, each by what was learned on the other two.
        said: the class that a scorer gives to each :func:`..folds.sentence`; one that is none of
            the classes present is wrong.
        draws: shuffles of the labels.
        seed: of these.

    Raises:
        ConfigError: when the protocol tests nobody.
        DataError: when fewer than two classes have text, a speaker is not known, or the protocol
            does not fit.
    """
    labelled = [(u, c) for u, c in zip(utterances, classes, strict=True) if c >= 0]
    if lost := without_speaker(u for u, _ in labelled):
        raise DataError(
            f"what words tell is learned and tested on other speakers, and {len(lost)} of "
            f"{len(labelled)} labelled utterances have no speaker ({some(u.id for u in lost)}); "
            "name the speakers, or leave these out of the manifest"
        )
    rows = [(u, c) for u, c in labelled if sentence(u.text)]
    present = sorted({c for _, c in rows})
    if len(present) < 2:
        raise DataError(
            f"{len(rows)} of {len(labelled)} labelled utterances have text, of {len(present)} "
            "classes; two at the least are needed: transcribe with `serzoo label` first"
        )
    used = [u for u, _ in rows]
    texts, plain = _numbers(used, [present.index(c) for _, c in rows], protocol)
    place = {c: i for i, c in enumerate(present)}
    fixed = None if said is None else np.array([place.get(said[t], len(present)) for t in plain])

    answers = held_out(texts, texts.y)
    if fixed is not None:
        answers["scorer"] = fixed[texts.s[_tested(texts)]]
    found = _measures(texts, texts.y, answers)
    shuffled: dict[str, list[float]] = {k: [] for k in found}
    for y in shuffles(texts.y, texts.who, draws, seed):
        again = held_out(texts, y)
        if fixed is not None:
            again["scorer"] = answers["scorer"]
        for k, value in _measures(texts, y, again).items():
            shuffled[k].append(value)
    spread = {k: beside(found[k], v) for k, v in shuffled.items()}
    # what says the same of everything is at chance whatever the labels: no test to correct for
    tried = [k for k, v in answers.items() if len(set(v.tolist())) > 1]
    corrected = dict(zip(tried, holm([spread[k]["p"] for k in tried]), strict=True))
    reached = {}
    for k, predicted in answers.items():
        interval = interval_of(_confusions(texts, texts.y, predicted), "uar", 0.95)
        reached[k] = Reached(
            found[k], interval.low, interval.high, spread[k]["shuffled"], spread[k]["p"],
            corrected.get(k, 1.0), len(set(predicted.tolist())),
        )  # fmt: skip
    chance = 1 / len(present)
    under = np.bincount(texts.s * texts.c + texts.y, minlength=len(plain) * texts.c)
    several = (under.reshape(len(plain), texts.c) > 0).sum(1) > 1
    return Control(
        utterances=len(used),
        silent=len(labelled) - len(used),
        speakers=len(set(texts.who.tolist())),
        sentences=len(plain),
        shared=float(several[texts.s].mean()),
        classes=[names[c] for c in present],
        protocol=protocol,
        chance=chance,
        bits={"value": found["bits"], **spread["bits"]},
        ceiling={"value": found["ceiling"], **spread["ceiling"]},
        reached=reached,
        verdict=_verdict(reached, chance),
    )


def held_out(texts: Texts, y: Ints) -> dict[str, Ints]:
    """What each learner answers to the test utterances of all folds, in the folds' order.

    ``words`` is naive Bayes of the counts of words, with classes taken as equally frequent, as UAR
    has them; words that training lacks count for nothing. ``sentences`` takes the class under which
    a sentence is likeliest, and for one that training lacks the words' answer: where all were heard
    in training, no other function of the text does better but by luck. Both have one count added
    to each (our choice); of equal classes, the first.
    """
    answers: dict[str, list[Ints]] = {k: [] for k in LEARNERS}
    n = texts.words.shape[0]
    for train, test in texts.folds:
        counts = np.bincount(y[train] * n + texts.s[train], minlength=texts.c * n)
        counts = counts.reshape(texts.c, n)  # [C, S]
        heard = np.asarray((texts.words.T @ counts.T).T, dtype=np.float64)  # [C, V]
        by_words = np.asarray(texts.words @ _log_shares(heard).T)  # [S, C]
        known = counts.sum(0)[:, None] > 0
        by_sentence = np.where(known, _log_shares(counts.astype(np.float64)).T, by_words)
        for k, scores in (("sentences", by_sentence), ("words", by_words)):
            # rounded: sums in another order must not decide between equals
            answers[k].append(scores.round(9).argmax(1)[texts.s[test]])
    return {k: np.concatenate(v) for k, v in answers.items()}


def _log_shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[C, V]`` log-probability of each within its class; 0 for what no class has."""
    seen = counts.sum(0) > 0
    shares = (counts + 1) / (counts.sum(1, keepdims=True) + max(1, seen.sum()))
    return np.where(seen, np.log(shares), 0.0)


def _numbers(
    utterances: Sequence[Utterance], classes: Sequence[int], protocol: str
) -> tuple[Texts, list[str]]:
    from scipy.sparse import csr_matrix

    said = [sentence(u.text) for u in utterances]
    plain = sorted(set(said))
    index = {t: i for i, t in enumerate(plain)}
    vocabulary = {w: i for i, w in enumerate(sorted({w for t in plain for w in t.split()}))}
    cells = [(i, vocabulary[w]) for i, t in enumerate(plain) for w in t.split()]
    rows, columns = zip(*cells, strict=True)
    words = csr_matrix((np.ones(len(cells)), (rows, columns)), shape=(len(plain), len(vocabulary)))
    names = {n: i for i, n in enumerate(sorted(set(map(speaker_of, utterances))))}
    rule = Protocol.load(protocol)
    if rule.by == "none":
        raise ConfigError(f"{rule.name} tests nobody; choose another protocol, such as kfold")
    place = {u.id: i for i, u in enumerate(utterances)}
    folds = []
    for k in range(rule.n_folds(utterances)):
        split = rule.split(utterances, k)
        parts = ([*split.train, *split.valid], split.test)
        train, test = (np.array([place[u.id] for u in part], dtype=np.int64) for part in parts)
        folds.append((train, test))
    numbers = Texts(
        np.array(classes, dtype=np.int64),
        np.array([index[t] for t in said], dtype=np.int64),
        np.array([names[speaker_of(u)] for u in utterances], dtype=np.int64),
        words,
        folds,
        max(classes) + 1,
    )
    return numbers, plain


def _tested(texts: Texts) -> Ints:
    return np.concatenate([test for _, test in texts.folds])


def _confusions(texts: Texts, y: Ints, predicted: Ints) -> NDArray[np.float64]:
    """``[G, C + 1, C + 1]`` of the speakers tested; the last class is one that nobody has."""
    test, c = _tested(texts), texts.c + 1
    who = np.unique(texts.who[test], return_inverse=True)[1]
    cells = (who * c + y[test]) * c + predicted
    counts = np.bincount(cells, minlength=(who.max() + 1) * c * c)
    return counts.reshape(-1, c, c).astype(np.float64)


def _measures(texts: Texts, y: Ints, answers: Mapping[str, Ints]) -> dict[str, float]:
    n = texts.words.shape[0]
    joint = np.bincount(y * n + texts.s, minlength=texts.c * n).reshape(texts.c, n)
    share = joint / joint.sum()
    expected = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    some = share > 0
    return {
        "bits": float((share[some] * np.log2(share[some] / expected[some])).sum()),
        "ceiling": float((joint / joint.sum(1, keepdims=True)).max(0).sum() / texts.c),
        **{k: float(uar_of(_confusions(texts, y, v).sum(0))) for k, v in answers.items()},
    }


def _verdict(reached: Mapping[str, Reached], chance: float) -> Verdict:
    better = [r.uar for r in reached.values() if r.corrected < LEVEL]
    if not better:
        return "none"
    return "some" if (max(better) - chance) / (1 - chance) >= LITTLE else "little"
