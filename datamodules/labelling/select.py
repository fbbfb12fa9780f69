"""The third stage of labelling: which utterances get a label, and how many each criterion removes.

:func:`fold` maps the classes of a fine taxonomy to a coarse one. :func:`select` labels the
utterances that pass all :class:`Criteria`. :func:`soft_targets` and :func:`soft_scores` give
probabilities of all classes for training.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...zoo.core.errors import ConfigError, DataError
from ...zoo.core.taxonomy import Taxonomy
from ..catalog import Speech
from ..labels import shuffled
from ..manifest import WEAK, Utterance
from .entail import DIGITS, lift_of, mean_score
from .scorers import Scores
from .stage import read_labels, rows_of

# Scores of a fine taxonomy as scores of a coarse one.

THROUGH = "ekman"
"""The taxonomy that assigns finer emotions to broader ones."""


def fold(fine: Taxonomy, coarse: Taxonomy, through: str | None = THROUGH) -> dict[str, str | None]:
    """Map each class of a fine taxonomy to a class of a coarse one, or to None.

    A label belongs to the coarse class that contains it. If no class does, it belongs to the class
    that contains the name of its class in ``through``. Grateful is happy in ekman, and so positive
    in sentiment3. A class is mapped if all its labels that belong to a coarse class belong to the
    same one. Scores of unmapped classes are lost, so report how many.

    Raises:
        ConfigError: if a coarse class has no fine class.
    """
    found = _mapped(fine, coarse, through)
    if empty := [c for c in coarse.classes if c not in found.values()]:
        raise ConfigError(
            f"no class of taxonomy '{fine.name}' folds into {', '.join(empty)} of "
            f"'{coarse.name}'; choose a coarse taxonomy without these classes"
        )
    return found


def reachable(fine: Taxonomy, coarse: Taxonomy, through: str | None = THROUGH) -> Taxonomy:
    """Return the coarse taxonomy without the classes that no fine class is mapped to.

    Raises:
        ConfigError: if fewer than two classes remain.
    """
    found = set(_mapped(fine, coarse, through).values())
    kept = {name: list(labels) for name, labels in coarse.members if name in found}
    if len(kept) < 2:
        raise ConfigError(
            f"classes of '{fine.name}' fold into only {len(kept)} classes of '{coarse.name}' "
            f"({', '.join(coarse.classes)}), but two are needed; choose another coarse taxonomy"
        )
    return Taxonomy.from_dict({"name": coarse.name, "classes": kept})


def _mapped(fine: Taxonomy, coarse: Taxonomy, through: str | None) -> dict[str, str | None]:
    between = Taxonomy.load(through) if through is not None else None
    found: dict[str, str | None] = {}
    for name, labels in fine.members:
        places = {_place(label, coarse, between) for label in labels} - {None}
        index = places.pop() if len(places) == 1 else None
        found[name] = None if index is None else coarse.classes[index]
    return found


def _place(label: str, coarse: Taxonomy, between: Taxonomy | None) -> int | None:
    index = coarse.class_of(label)
    if index is None and between is not None:
        via = between.class_of(label)
        index = None if via is None else coarse.class_of(between.classes[via])
    return index


def fold_rows(
    rows: Iterable[Mapping[str, Any]],
    fine: Taxonomy,
    coarse: Taxonomy,
    through: str | None = THROUGH,
) -> Iterator[dict[str, Any]]:
    """Yield rows of scores of a fine taxonomy as rows of a coarse one.

    For each template, a coarse class has the largest score of its fine classes. It follows if one
    of them follows. (A sum would favour the class with the most members: 13 of ekman's are happy.
    Our choice.) Scores of unmapped classes are left out.
    """
    mapped = fold(fine, coarse, through)
    columns = [
        [i for i, c in enumerate(fine.classes) if mapped[c] == name] for name in coarse.classes
    ]
    for row in rows:
        lift = lift_of(row, fine.classes)
        if lift is None:
            yield dict(row)
            continue
        folded = np.stack([lift[:, held].max(-1) for held in columns], -1)
        scores = mean_score(folded).round(DIGITS).tolist()
        yield dict(row) | {
            "scores": dict(zip(coarse.classes, scores, strict=True)),
            "by_template": folded.tolist(),
        }


# Scores without what a scorer says of every transcript.


def centre_of(rows: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> Scores:
    """Return ``[T, C]``: the mean log-odds of each template and class over the rows with words.

    Zeros if no row has words.
    """
    total: Scores = np.zeros((1, len(classes)))
    count = 0
    for row in rows:  # of a large corpus: one at a time
        if (lift := lift_of(row, classes)) is not None:
            total, count = total + lift, count + 1
    mean: Scores = (total / max(count, 1)).round(DIGITS) + 0.0
    return mean


def centred(
    rows: Iterable[Mapping[str, Any]], classes: Sequence[str], centre: Scores
) -> Iterator[dict[str, Any]]:
    """Yield rows whose log-odds are those of :func:`centre_of` away from them."""
    for row in rows:
        lift = lift_of(row, classes)
        if lift is None:
            yield dict(row)
            continue
        rest = (lift - centre).round(DIGITS) + 0.0
        scores = mean_score(rest).round(DIGITS).tolist()
        yield dict(row) | {
            "scores": dict(zip(classes, scores, strict=True)),
            "by_template": rest.tolist(),
        }


def scored(folder: Path, record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a finished folder as its labels were selected from, before folding.

    Args:
        folder: folder of ``serzoo label``.
        record: its ``labels.json``.
    """
    rows = rows_of(folder / "scores.jsonl")
    if (centre := record.get("centre")) is None:
        return rows
    classes = Taxonomy.from_dict(record["scores"]["settings"]["taxonomy"]).classes
    return centred(rows, classes, np.asarray(centre))


# Criteria and selection.

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(20))


@dataclass(frozen=True)
class Criteria:
    """Criteria that an utterance must pass to get a label; the values are our choice.

    Attributes:
        threshold: smallest score of the best class, 0..1.
        margin: smallest distance to the second best class, 0..1. If two classes are equally good,
            the utterance never gets a label.
        agreement: smallest share of the templates whose own best class is the label, 0..1. A
            template with several best classes agrees with none.
        cap: largest number of utterances of a class; the most confident are kept. None = no limit.
        balance: largest number of utterances of a class, as a multiple of the rarest class that has
            any. It is at least 1, and the most confident are kept. None = no limit.
        neutral: largest share of neutral ones among all labels, 0..1. None = no limit.
    """

    threshold: float = 0.5
    margin: float = 0.0
    agreement: float = 0.5
    cap: int | None = None
    balance: float | None = None
    neutral: float | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "margin", "agreement", "neutral"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name}={value}; give a number from 0 to 1")
        if self.cap is not None and self.cap < 1:
            raise ConfigError(f"cap={self.cap}; give at least 1, or null for no limit")
        if self.balance is not None and not 1 <= self.balance < math.inf:
            raise ConfigError(
                f"balance={self.balance}; give 1 for classes of equal size, more for a ratio to "
                "the rarest class, or null for no limit"
            )


@dataclass(frozen=True)
class Selection:
    """A labelled manifest, and how it was made.

    Attributes:
        utterances: all utterances in the manifest's order; those that were not chosen have no
            label.
        counts: for each criterion, in the order applied: ``criterion``, ``value``, ``before``,
            ``after`` and ``classes``. ``classes`` is the number left of each class (None before the
            scores).
        coverage: for each threshold: ``threshold``, ``kept``, ``share`` of all utterances, and
            ``classes``; margin and agreement are applied, caps are not.
        criteria: the criteria in use.
    """

    utterances: list[Utterance]
    counts: list[dict[str, Any]]
    coverage: list[dict[str, Any]]
    criteria: Criteria

    def to_dict(self) -> dict[str, Any]:
        """Return criteria, counts and coverage as plain JSON."""
        return {
            "criteria": asdict(self.criteria),
            "counts": self.counts,
            "coverage": self.coverage,
        }


@dataclass(frozen=True)
class _Guess:
    """The best class of an utterance, and how clearly it is the best."""

    label: str
    score: float
    margin: float
    agreement: float


Guesses = dict[str, _Guess]


def select(
    utterances: Sequence[Utterance],
    rows: Iterable[Mapping[str, Any]],
    taxonomy: Taxonomy,
    source: str,
    criteria: Criteria | None = None,
) -> Selection:
    """Label the utterances that pass all criteria, and return the selection.

    A chosen utterance gets three entries, and the scored text with its source. ``label`` is the
    name of the class, ``label_score`` its score, and ``label_source`` is ``weak:SOURCE``. Old
    labels of the manifest are removed: a weak manifest holds only weak labels.

    Args:
        utterances: the utterances of the manifest.
        rows: rows of the stage ``scores``, or folded ones; utterances without a row had no
            transcript.
        taxonomy: the classes of the scores.
        source: ``MODEL@REVISION`` of the scorer.
        criteria: the criteria; None = the defaults.

    Raises:
        DataError: if rows are of other utterances or classes, or an id has two rows.
    """
    criteria = criteria or Criteria()
    known = {u.id for u in utterances}
    texts: dict[str, Mapping[str, Any]] = {}
    guesses: Guesses = {}
    for row in rows:
        if row["id"] not in known or row["id"] in texts:
            wrong = "occurs twice in them" if row["id"] in texts else "is not in the manifest"
            raise DataError(
                f"the scores are not of this manifest: {row['id']} {wrong}; run `serzoo label` "
                "again, or give the manifest that was scored"
            )
        texts[row["id"]] = row
        lift = lift_of(row, taxonomy.classes)
        if lift is not None:
            guesses[row["id"]] = _guess(lift, taxonomy.classes)

    counts = [
        _step("transcript", None, len(utterances), len(texts)),
        _step("words", None, len(texts), len(guesses), _by_class(guesses, taxonomy)),
    ]
    kept = guesses
    for name, keep in _steps(taxonomy).items():
        before, value = len(kept), getattr(criteria, name, None)
        kept = keep(kept, value) if value is not None or name == "tie" else kept
        counts.append(_step(name, value, before, len(kept), _by_class(kept, taxonomy)))

    def labelled(u: Utterance) -> Utterance:
        row, guess = texts.get(u.id), kept.get(u.id)
        if row is not None:
            u = replace(u, text=row["text"], text_source=row["text_source"])
        if guess is None:
            return replace(u, label=None, label_source=None, label_score=None)
        return replace(
            u, label=guess.label, label_source=f"{WEAK}{source}", label_score=guess.score
        )

    coverage = _coverage(guesses, criteria, taxonomy, len(utterances))
    return Selection([labelled(u) for u in utterances], counts, coverage, criteria)


def soft_targets(
    rows: Iterable[Mapping[str, Any]],
    taxonomy: Taxonomy,
    kind: Literal["distribution", "independent"] = "distribution",
    temperature: float = 1.0,
) -> dict[str, Scores]:
    """Return ``[C]`` probabilities of the classes by id, for training; only for ids with words.

    Args:
        rows: rows of the stage ``scores``, or folded ones.
        taxonomy: the classes of the scores, in its order.
        kind: ``distribution`` sums to one: it is the softmax over classes of the log-odds' mean
            over templates. ``independent`` gives the row's scores, a separate probability of each
            class, for a sigmoid cross-entropy per class.
        temperature: the log-odds are first divided by it; a value below 1 sharpens.

    Raises:
        ConfigError: if the temperature is not positive, or the kind is unknown.
    """
    if kind not in ("distribution", "independent") or temperature <= 0:
        raise ConfigError(
            f"kind={kind}, temperature={temperature}; give distribution or independent, and a "
            "temperature above 0"
        )
    found: dict[str, Scores] = {}
    for row in rows:
        lift = lift_of(row, taxonomy.classes)
        if lift is None:
            continue
        if kind == "independent":
            found[row["id"]] = mean_score(lift / temperature)
        else:
            mean = lift.mean(0) / temperature
            odds = np.exp(mean - mean.max())
            found[row["id"]] = odds / odds.sum()
    return found


def _guess(lift: Scores, classes: Sequence[str]) -> _Guess:
    score = mean_score(lift)
    best, second = (int(i) for i in np.argsort(-score, kind="stable")[:2])
    top = lift == lift.max(1, keepdims=True)  # [T, C]
    clear = top.sum(1) == 1
    return _Guess(
        classes[best],
        round(float(score[best]), DIGITS),
        round(float(score[best] - score[second]), DIGITS),
        round(float((top[:, best] & clear).mean()), DIGITS),
    )


def _steps(taxonomy: Taxonomy) -> dict[str, Callable[[Guesses, Any], Guesses]]:
    """Return a function per criterion that filters guesses by a value, in the order applied."""
    return {
        "tie": lambda kept, _: {i: g for i, g in kept.items() if g.margin > 0},
        "threshold": lambda kept, least: {i: g for i, g in kept.items() if g.score >= least},
        "margin": lambda kept, least: {i: g for i, g in kept.items() if g.margin >= least},
        # a share of templates is rounded, so that 2 of 3 pass a share of 2/3
        "agreement": lambda kept, least: {
            i: g for i, g in kept.items() if g.agreement >= round(least, DIGITS)
        },
        "cap": lambda kept, most: _capped(kept, dict.fromkeys(taxonomy.classes, most)),
        "balance": lambda kept, ratio: _balanced(kept, ratio),
        "neutral": lambda kept, share: _less_neutral(kept, share, taxonomy),
    }


def _capped(kept: Guesses, most: Mapping[str, int]) -> Guesses:
    """Return the most confident guesses of each class; among equals, the smaller hash of the id."""
    order = sorted(kept, key=lambda i: (-kept[i].score, hashlib.sha256(i.encode()).hexdigest(), i))
    left, chosen = dict(most), set()
    for i in order:
        if left.get(kept[i].label, 1) > 0:
            chosen.add(i)
            if kept[i].label in left:
                left[kept[i].label] -= 1
    return {i: g for i, g in kept.items() if i in chosen}


def _balanced(kept: Guesses, ratio: float) -> Guesses:
    found = Counter(g.label for g in kept.values())
    if not found:
        return kept
    return _capped(kept, dict.fromkeys(found, math.floor(ratio * min(found.values()) + 1e-9)))


ONE_SIDED = 0.8
"""From this share of one class among all best classes on, a scorer is reported (our choice)."""
FEWEST = 20
"""Smallest number of utterances that such a report needs (our choice)."""


def one_sided(classes: Mapping[str, int]) -> tuple[str, float] | None:
    """Return the class that a scorer nearly always finds, and its share; None if there is none.

    Args:
        classes: for each class, the number of utterances whose best class it is, before any
            criterion.
    """
    total = sum(classes.values())
    name = max(classes, key=lambda c: classes[c], default="")
    if total < FEWEST or classes[name] < ONE_SIDED * total:
        return None
    return name, classes[name] / total


def best_classes(rows: Iterable[Mapping[str, Any]], taxonomy: Taxonomy) -> dict[str, int]:
    """Return for each class how many rows of scores it is the best class of.

    Args:
        rows: rows of the stage ``scores``, or folded ones; those without words do not count.
        taxonomy: the classes of the scores.
    """
    lifts = (lift_of(row, taxonomy.classes) for row in rows)
    found = Counter(_guess(lift, taxonomy.classes).label for lift in lifts if lift is not None)
    return {c: found[c] for c in taxonomy.classes}


def one_sided_text(classes: Mapping[str, int], source: str) -> str | None:
    """Return a warning about a scorer that nearly always finds one class; None if it does not.

    Args:
        classes: as for :func:`one_sided`.
        source: name of the scorer.
    """
    if (found := one_sided(classes)) is None:
        return None
    name, share = found
    return (
        f"{source} finds '{name}' in {share:.0%} of {sum(classes.values())} utterances, before any "
        "criterion: it may know little else. Compare with people's labels (serzoo label audit), "
        "try other templates or another scorer, or set prior=subtract or centre=true"
    )


def _less_neutral(kept: Guesses, share: float, taxonomy: Taxonomy) -> Guesses:
    index = taxonomy.class_of("neutral")
    if index is None or share == 1:
        return kept
    name = taxonomy.classes[index]
    others = sum(g.label != name for g in kept.values())
    # n <= share * (n + others); the small number corrects the rounding of 0.3 / 0.7 * 70
    return _capped(kept, {name: math.floor(share / (1 - share) * others + 1e-9)})


def _coverage(
    guesses: Guesses, criteria: Criteria, taxonomy: Taxonomy, total: int
) -> list[dict[str, Any]]:
    steps = _steps(taxonomy)
    free = steps["agreement"](steps["tie"](guesses, None), criteria.agreement)
    free = steps["margin"](free, criteria.margin)
    table = []
    for threshold in THRESHOLDS:
        over = steps["threshold"](free, threshold)
        table.append(
            {
                "threshold": threshold,
                "kept": len(over),
                "share": round(len(over) / max(1, total), 6),
                "classes": _by_class(over, taxonomy),
            }
        )
    return table


def _by_class(kept: Guesses, taxonomy: Taxonomy) -> dict[str, int]:
    found = Counter(g.label for g in kept.values())
    return {c: found[c] for c in taxonomy.classes}


def _step(
    criterion: str, value: Any, before: int, after: int, classes: dict[str, int] | None = None
) -> dict[str, Any]:
    return {
        "criterion": criterion,
        "value": value,
        "before": before,
        "after": after,
        "classes": classes,
    }


def soft_scores(manifest: str | Path, taxonomy: Taxonomy, kind: str) -> dict[str, list[float]]:
    """Return the targets of all classes by id, from the scores beside a manifest of weak labels.

    Scores of a finer taxonomy are folded, as the labels were.

    Args:
        manifest: a manifest of ``serzoo label``.
        taxonomy: the classes, which are those of the scores.
        kind: ``soft`` sums to one; ``independent`` is a separate probability of each class. See
            :func:`.labelling.select.soft_targets`.

    Raises:
        ConfigError: if finer classes fold into none of the run's.
        DataError: if the file of scores is missing, or holds other classes.
    """
    path = Path(manifest).with_name("scores.jsonl")
    if not path.is_file():
        raise DataError(
            f"data.weak={kind} needs {path.name} beside {manifest}, but the file is missing; give "
            "the manifest in the folder of `serzoo label`, or set data.weak=hard"
        )
    name: Any = "distribution" if kind == "soft" else kind
    about = read_labels(path.parent) if path.with_name("labels.json").is_file() else {}
    rows: Any = scored(path.parent, about)
    if about.get("folded"):
        fine = Taxonomy.from_dict(about["scores"]["settings"]["taxonomy"])
        rows = fold_rows(rows, fine, taxonomy)
    found = soft_targets(rows, taxonomy, name)
    return {i: [float(v) for v in row] for i, row in found.items()}


def with_weak(
    speech: Speech,
    manifest: str | None,
    taxonomy: Taxonomy | None,
    weak: str,
    seed: int | None,
) -> Speech:
    """Return the speech with soft labels, if they are used, and with shuffled labels, if asked."""
    if weak != "hard":
        if manifest is None or taxonomy is None:
            raise DataError(
                f"data.weak={weak} reads the scores beside a manifest of weak labels, and needs "
                "the name of a taxonomy; set data.manifest=FOLDER/manifest.jsonl and taxonomy=NAME"
            )
        speech = replace(speech, soft=soft_scores(manifest, taxonomy, weak))
    if seed is None:
        return speech
    utterances, giver = shuffled(speech.utterances, seed)
    soft = {i: speech.soft[g] for i, g in giver.items() if g in speech.soft}
    return replace(speech, utterances=utterances, soft=soft)
