"""Do the words of a corpus reveal its emotions? How far any function of the text alone gets.

:func:`compare` compares weak labels with those of people. :func:`control` gives three answers,
without the voice: that of a scorer of transcripts, and those of two learners (:func:`held_out`).
The learners are trained on the human labels of training speakers, and tested on other speakers. As
a control, labels are shuffled within each speaker. If no answer is better than with these, no label
from text is useful for this corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...zoo.core.errors import ConfigError, DataError, some
from ...zoo.statistics.confidence import calibrations, risk_coverage
from ...zoo.statistics.rates import uar_of
from ...zoo.statistics.speakers import Interval, by_speaker, holm, interval_of, jackknife
from ...zoo.statistics.table import PredictionTable
from ..manifest import Utterance
from ..protocols import Protocol, sentence, speaker_of, without_speaker
from .select import THRESHOLDS

DRAWS = 1000

# Chance level, by shuffled labels.

Ints = NDArray[np.int64]


def shuffles(y: Ints, who: Ints, draws: int, seed: int) -> Iterator[Ints]:
    """Yield the labels, permuted among the utterances of each speaker, ``draws`` times.

    Every speaker keeps the same labels, so recognising the speaker does not help.

    Args:
        y: ``[N]`` labels.
        who: ``[N]`` speakers, as numbers.
        draws: number of permutations.
        seed: seed of the draws.
    """
    rng, base = np.random.default_rng(seed), np.argsort(who, kind="stable")
    for _ in range(draws):
        shuffled = np.empty_like(y)
        shuffled[base] = y[np.lexsort((rng.random(len(y)), who))]
        yield shuffled


def beside(value: float, shuffled: Sequence[float]) -> dict[str, float]:
    """Return ``shuffled``, the mean over shuffled labels, and ``p``, one-sided.

    ``p`` is the share of values that are at least as large. The observed value counts too, so p is
    never 0.
    """
    at_least = sum(v >= value - 1e-12 for v in shuffled)  # the order of a sum may differ
    p = (at_least + 1) / (len(shuffled) + 1)
    return {"shuffled": float(np.mean(shuffled)), "p": p}


# Weak labels compared with those of people.

BINS = 10


@dataclass(frozen=True)
class Said:
    """The classes that the text suggests, by id; classes are indices of the people's taxonomy.

    Attributes:
        best: best class and its score, for ids that pass all criteria except threshold and caps.
        chosen: class of the selected ids.
        soft: probabilities of all classes, for all scored ids; None if no scores are kept.
    """

    best: Mapping[str, tuple[int, float]]
    chosen: Mapping[str, int]
    soft: Mapping[str, Sequence[float]] | None


def compare(
    utterances: Sequence[Utterance],
    classes: Sequence[int],
    names: Sequence[str],
    said: Said,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare weak labels with those of people; return plain containers.

    Args:
        utterances: the utterances with both kinds of labels.
        classes: classes that people gave; -1 = none. Those utterances are left out.
        names: names of the classes.
        said: classes that the model gave.
        draws: how often the test against chance shuffles people's labels within each speaker.
        seed: seed of the shuffles.

    Returns:
        ``utterances``: the number labelled by people. ``selected``: the labels of the manifest,
        with :func:`score`, ``confusion`` (people by rows) and ``unlabelled`` (by class of the
        people). Also ``shuffled`` and ``p`` of the UAR against shuffled labels. ``sweep``:
        :func:`score` at several thresholds. ``reliability`` of the score of the best class: bins of
        equal width with number, mean score and accuracy. ``error`` is their expected calibration
        error. ``soft``: calibration of the soft labels without temperature, and the area under
        their risk-coverage curve.
    """
    known = [(u, c) for u, c in zip(utterances, classes, strict=True) if c >= 0]
    chosen = _table(known, names, said.chosen)
    confusion = chosen.confusion()
    selected = score(chosen, len(known)) | {
        "confusion": confusion.tolist(),
        "unlabelled": {
            name: sum(c == i for _, c in known) - int(confusion[i].sum())
            for i, name in enumerate(names)
        },
    }
    if len(chosen):
        selected |= _by_chance(chosen, draws, seed)
    sweep = []
    for threshold in THRESHOLDS:
        over = {i: c for i, (c, s) in said.best.items() if s >= threshold}
        sweep.append({"threshold": threshold, **score(_table(known, names, over), len(known))})
    return {
        "utterances": len(known),
        "classes": list(names),
        "selected": selected,
        "sweep": sweep,
        "reliability": _reliability(known, said.best),
        "soft": None if said.soft is None else _soft(known, names, said.soft),
    }


def score(table: PredictionTable, total: int) -> dict[str, Any]:
    """Return number, share of ``total``, classes present, UAR and accuracy with intervals."""
    found: dict[str, Any] = {"n": len(table), "coverage": len(table) / max(1, total)}
    if not len(table):
        return found
    for name in ("uar", "wa"):
        found[name] = _interval(jackknife(table, name))
    present = len(set(table.labels.tolist()))
    return found | {"present": present, "chance": 1 / present}


def _interval(interval: Interval) -> dict[str, float | None]:
    return {k: v if isfinite(v := getattr(interval, k)) else None for k in ("value", "low", "high")}


def _table(
    known: Sequence[tuple[Utterance, int]], names: Sequence[str], said: Mapping[str, int]
) -> PredictionTable:
    """Return the table of the utterances that have an answer from the text."""
    rows = [(u, c) for u, c in known if u.id in said]
    return PredictionTable(
        ids=[u.id for u, _ in rows],
        speakers=[speaker_of(u) for u, _ in rows],
        labels=np.array([c for _, c in rows], dtype=np.int64),
        scores=np.eye(len(names))[[said[u.id] for u, _ in rows]].reshape(-1, len(names)),
        classes=list(names),
    )


def _by_chance(table: PredictionTable, draws: int, seed: int) -> dict[str, float]:
    """Return the UAR of the same answers for labels shuffled within each speaker; one-sided p.

    Raises:
        DataError: if a speaker is unknown.
    """
    if unknown := table.speakers.count(""):
        raise DataError(
            f"labels are shuffled within each speaker, but {unknown} of {len(table)} utterances "
            "have no speaker; name the speakers, or leave these out of the manifest"
        )
    names = sorted(set(table.speakers))
    who = np.array([names.index(s) for s in table.speakers], dtype=np.int64)
    c, answers = len(table.classes), table.predicted
    value = float(uar_of(by_speaker(table, names).sum(0)))
    found = [
        float(uar_of(np.bincount(y * c + answers, minlength=c * c).reshape(c, c)))
        for y in shuffles(table.labels, who, draws, seed)
    ]
    return beside(value, found)


def _reliability(
    known: Sequence[tuple[Utterance, int]], best: Mapping[str, tuple[int, float]]
) -> dict[str, Any]:
    """Return bins ``(low, high]`` of the score, with the model's mean score and its accuracy."""
    rows = [(best[u.id][0] == c, best[u.id][1]) for u, c in known if u.id in best]
    right, sure = np.array([r for r, _ in rows], dtype=float), np.array([s for _, s in rows])
    index = np.clip(np.ceil(sure * BINS - 1e-9).astype(int) - 1, 0, BINS - 1)
    bins = []
    for k in sorted(set(index.tolist())):
        mine = index == k
        bins.append(
            {
                "low": k / BINS,
                "high": (k + 1) / BINS,
                "n": int(mine.sum()),
                "score": float(sure[mine].mean()),
                "accuracy": float(right[mine].mean()),
            }
        )
    gaps = [b["n"] * abs(b["accuracy"] - b["score"]) for b in bins]
    return {"bins": bins, "error": sum(gaps) / len(rows) if rows else None}


def _soft(
    known: Sequence[tuple[Utterance, int]],
    names: Sequence[str],
    soft: Mapping[str, Sequence[float]],
) -> dict[str, float] | None:
    rows = [(u, c) for u, c in known if u.id in soft]
    if not rows:
        return None
    chances = np.array([soft[u.id] for u, _ in rows], dtype=np.float64)
    table = PredictionTable(
        ids=[u.id for u, _ in rows],
        speakers=[speaker_of(u) for u, _ in rows],
        labels=np.array([c for _, c in rows], dtype=np.int64),
        scores=np.log(np.maximum(chances, 1e-30)),
        classes=list(names),
    )
    errors, risk = calibrations(table, 1.0)[0], risk_coverage(table)
    return {
        "n": len(rows),
        "ece": errors.ece,
        "classwise_ece": errors.classwise_ece,
        "brier": errors.brier,
        "nll": errors.nll,
        "aurc": risk.aurc,
        "excess_aurc": risk.excess,
    }


# The control: how far the text alone gets.

Verdict = Literal["none", "little", "some"]

LEVEL = 0.05
LITTLE = 0.05
"""If words get less than this share of the way from chance to 1, they tell little."""

LEARNERS = ("sentences", "words")


@dataclass(frozen=True)
class Reached:
    """The score of one function of the text.

    Attributes:
        uar: UAR on the tested utterances.
        low: lower end of its 95 % interval over speakers.
        high: upper end of this interval.
        shuffled: mean UAR with labels shuffled within each speaker (and learned again).
        p: share of the shuffles that are at least as good, one-sided.
        corrected: ``p`` after Holm, for all functions that answer more than one class; 1 for
            others.
        says: number of classes that it ever answers.
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
    """Scores of the text of a corpus as a predictor of its labels.

    Attributes:
        utterances: number of utterances with a label and a text.
        silent: number with a label, but without a text; these are not used.
        speakers: number of their speakers.
        sentences: number of distinct sentences, without case and punctuation.
        shared: share of the utterances whose sentence has several labels.
        classes: names of the classes present.
        protocol: the protocol of the folds; its test speakers are not used for training.
        chance: 1 / number of classes.
        bits: mutual information of sentence and label, with its ``shuffled`` mean and ``p``.
        ceiling: largest UAR of any function of the sentence on these utterances, and the same for
            shuffled labels. If every sentence is said once, it is 1 and tells nothing.
        reached: results by function: :data:`LEARNERS`, and ``scorer`` if there is one.
        verdict: ``none``: no function is better than shuffled labels (corrected p of 0.05);
            ``little``: one is, by less than :data:`LITTLE` of the way from chance to 1; ``some``.
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
        """Return plain containers; missing ends of intervals are None."""
        found = asdict(self)
        for reached in found["reached"].values():
            reached.update({k: v if v == v else None for k, v in reached.items()})
        return found


class Texts(NamedTuple):
    """The utterances as numbers.

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
    """Return how much the text alone tells about the labels.

    Args:
        utterances: utterances with their texts.
        classes: classes that people gave; -1 = none. Those utterances are left out.
        names: names of the classes.
        protocol: its test parts are tested; the model of each learns from the other two parts.
        said: the class that a scorer gives to each :func:`..protocols.sentence`; a class that is
            not present is wrong.
        draws: number of shuffles of the labels.
        seed: seed of the shuffles.

    Raises:
        ConfigError: if the protocol has no test part.
        DataError: if fewer than two classes have text, a speaker is unknown, or the protocol does
            not fit.
    """
    labelled = [(u, c) for u, c in zip(utterances, classes, strict=True) if c >= 0]
    if lost := without_speaker(u for u, _ in labelled):
        raise DataError(
            f"words are learned from some speakers and tested on others, but {len(lost)} of "
            f"{len(labelled)} labelled utterances have no speaker ({some(u.id for u in lost)}); "
            "name the speakers, or leave these out of the manifest"
        )
    rows = [(u, c) for u, c in labelled if sentence(u.text)]
    present = sorted({c for _, c in rows})
    if len(present) < 2:
        raise DataError(
            f"{len(rows)} of {len(labelled)} labelled utterances have text, from {len(present)} "
            "classes, but two classes are needed; transcribe with `serzoo label` first"
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
    # a function that always gives one answer is at chance for any labels: no test to correct for
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
    """Return the answers of each learner to the test utterances of all folds, in their order.

    ``words`` is naive Bayes on the counts of words, with equal class frequencies as in UAR. Words
    that training lacks are ignored. ``sentences`` takes the class under which a sentence is
    likeliest, or the answer of ``words`` if training lacks the sentence. If training has all
    sentences, no other function of the text is better except by luck. Both add one to each count
    (our choice). Among equal classes, the first one wins.
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
            # rounded, so that the order of a sum does not decide between equal classes
            answers[k].append(scores.round(9).argmax(1)[texts.s[test]])
    return {k: np.concatenate(v) for k, v in answers.items()}


def _log_shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ``[C, V]`` log-probability of each word in its class; 0 if no class has it."""
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
        raise ConfigError(f"{rule.name} has no test part; choose another protocol, such as kfold")
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
    """Return the ``[G, C + 1, C + 1]`` confusions of the tested speakers.

    The last class means a class that the reference does not have.
    """
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
