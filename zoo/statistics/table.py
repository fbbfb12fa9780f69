"""The table of predictions, from which every reported number is computed.

UAR and macro-F1 are means over the classes present in the reference; see :mod:`.rates`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ComparisonError, ConfigError, DataError, some, suggest
from ..core.files import json_lines, new_file
from ..core.table import pandas
from .rates import (
    FloatArray,
    IntArray,
    brier,
    ece,
    f1_of,
    fit_temperature,
    log_softmax,
    nll,
    recalls_of,
    uar_of,
    wa_of,
)

DIGITS = 6


@dataclass(eq=False)
class PredictionTable:
    """The scores of a model for N utterances, and the labels of these utterances.

    Scores are float32 with six significant digits from the start. So a table and the file of it
    give the same predictions and the same numbers to the last digit.

    Attributes:
        ids: N utterance ids, each once.
        speakers: N speaker names, as ``corpus/speaker`` if there are several corpora; "" if the
            speaker is unknown (null in a file).
        labels: ``[N]`` int, index into ``classes``; -1 = unlabelled: counted, but in no metric.
        scores: ``[N, C]`` log-scores; ``softmax(scores)`` is the model's probability.
        classes: C class names.
        texts: N texts that the model wrote freely, or None if the model does not write.
        votes: ``[N, C]`` counts or shares of what raters answered, or None without raters. A
            row of zeros means that no rater gave this utterance a class of the table.

    Raises:
        DataError: if lengths differ, an id is there twice, or a label is outside the classes. Also
            if a score or a vote is not finite, or a vote is negative. The message names the ids.
    """

    ids: list[str]
    speakers: list[str]
    labels: IntArray
    scores: FloatArray
    classes: list[str]
    texts: list[str] | None = None
    votes: FloatArray | None = None

    def __post_init__(self) -> None:
        n, c = len(self.ids), len(self.classes)
        self.labels = np.asarray(self.labels, dtype=np.int64).reshape(-1)
        self.scores = _round(np.asarray(self.scores, dtype=np.float64))
        if len(self.speakers) != n or len(self.labels) != n or self.scores.shape != (n, c):
            raise DataError(
                f"a table of {n} ids and {c} classes has {len(self.speakers)} speakers, "
                f"{len(self.labels)} labels and scores of shape {self.scores.shape}; "
                f"give {n} of each and scores [{n}, {c}]"
            )
        if self.texts is not None and len(self.texts) != n:
            raise DataError(f"a table of {n} ids has {len(self.texts)} texts; give {n}, or None")
        if self.votes is not None:
            self.votes = np.asarray(self.votes, dtype=np.float64)
            if self.votes.shape != (n, c):
                raise DataError(
                    f"a table of {n} ids and {c} classes has votes of shape {self.votes.shape}; "
                    f"give [{n}, {c}], with rows of zeros for utterances without votes, or None"
                )
            if bad := self._where(~(np.isfinite(self.votes) & (self.votes >= 0)).all(1)):
                raise DataError(
                    f"votes of {len(bad)} of {n} utterances are negative or not finite "
                    f"({some(bad)}); give counts or shares of the raters' answers"
                )
        if bad := self._where(~np.isfinite(self.scores).all(1)):
            raise DataError(
                f"scores of {len(bad)} of {n} utterances are not finite in float32 ({some(bad)}); "
                "look for a diverged model (lower the lr), or a log of zero"
            )
        if bad := self._where((self.labels < -1) | (self.labels >= c)):
            raise DataError(
                f"labels of {len(bad)} utterances are outside -1..{c - 1} ({some(bad)}); "
                f"give 0 to {c - 1}, or -1 for unlabelled"
            )
        if len(set(self.ids)) != n:
            raise DataError(
                f"{n - len(set(self.ids))} rows repeat an id; join parts of a table with merge()"
            )

    def _where(self, rows: Any) -> list[str]:
        return [self.ids[i] for i in np.flatnonzero(rows)]

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PredictionTable):
            return NotImplemented
        return (
            (self.ids, self.speakers, self.classes, self.texts)
            == (other.ids, other.speakers, other.classes, other.texts)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.scores, other.scores)
            and _same(self.votes, other.votes)
        )

    @property
    def predicted(self) -> IntArray:
        """``[N]`` index of the highest score; among equal scores, the first in class order."""
        best: IntArray = self.scores.argmax(1)
        return best

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """``[N]`` bool, True if the utterance has a label."""
        return self.labels >= 0

    def confusion(self) -> IntArray:
        """``[C, C]`` counts of labelled utterances: rows are the reference, columns predictions."""
        known, c = self.labelled, len(self.classes)
        cells = self.labels[known] * c + self.predicted[known]
        return np.bincount(cells, minlength=c * c).reshape(c, c).astype(np.int64)

    def recalls(self) -> dict[str, float]:
        """Return the recall of each class that is present in the reference, in class order."""
        values = recalls_of(self._counts())
        return {c: float(r) for c, r in zip(self.classes, values, strict=True) if np.isfinite(r)}

    def uar(self) -> float:
        """Return the mean recall over the classes present.

        Raises:
            DataError: if no utterance is labelled; this holds for all metrics.
        """
        return float(uar_of(self._counts()))

    def wa(self) -> float:
        """Return the share of labelled utterances that are predicted correctly."""
        return float(wa_of(self._counts()))

    def top(self, k: int = 2) -> float:
        """Return the share of labelled utterances whose label is among the k highest scores.

        Among equal scores the first in class order is the higher, as in :attr:`predicted`.

        Raises:
            ConfigError: if k is not 1 to C.
        """
        if not 1 <= k <= len(self.classes):
            raise ConfigError(f"k is {k}; it must be 1 to {len(self.classes)}, the classes")
        scores, labels = self._known()
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return float((best == labels[:, None]).any(1).mean())

    def macro_f1(self) -> float:
        """Return the mean F1 over the classes present in the reference."""
        return float(f1_of(self._counts()))

    def metrics(self) -> dict[str, Any]:
        """Return all metrics in plain containers.

        ``recall`` maps each present class to its recall. ``n`` counts labelled utterances.
        ``absent`` lists the classes without a labelled utterance.
        """
        recall, n = self.recalls(), int(self.labelled.sum())
        return {
            "uar": self.uar(),
            "wa": self.wa(),
            "f1": self.macro_f1(),
            "recall": recall,
            "n": n,
            "n_unlabelled": len(self) - n,
            "n_classes_present": len(recall),
            "absent": [c for c in self.classes if c not in recall],
        }

    def by_speaker(self) -> dict[str, dict[str, Any]]:
        """Return :meth:`metrics` of each known speaker with labelled utterances, sorted by name."""
        who = [self.speakers[i] for i in np.flatnonzero(self.labelled)]
        rows: dict[str, list[int]] = {s: [] for s in who if s}
        for i, s in enumerate(self.speakers):
            rows.get(s, []).append(i)
        return {s: self.subset(rows[s]).metrics() for s in sorted(rows)}

    def by_corpus(self) -> dict[str, PredictionTable]:
        """Return the rows of each corpus, sorted by name.

        The corpus is the part before the slash of the speaker. For an unknown speaker it is the
        part before the slash of the id, if other speakers have a slash.
        """
        rows: dict[str, list[int]] = {}
        plain = any(s and "/" not in s for s in self.speakers)
        for i, speaker in enumerate(self.speakers):
            corpus, slash, _ = (speaker or ("" if plain else self.ids[i])).partition("/")
            rows.setdefault(corpus if slash else "", []).append(i)
        return {corpus: self.subset(rows[corpus]) for corpus in sorted(rows)}

    def subset(self, rows: Sequence[int] | NDArray[Any]) -> PredictionTable:
        """Return a table of these rows, in this order."""
        return PredictionTable(
            [self.ids[i] for i in rows],
            [self.speakers[i] for i in rows],
            self.labels[rows],
            self.scores[rows],
            list(self.classes),
            None if self.texts is None else [self.texts[i] for i in rows],
            None if self.votes is None else self.votes[rows],
        )

    def _counts(self) -> IntArray:
        if not self.labelled.any():
            raise DataError(
                f"none of {len(self)} utterances is labelled, so there is nothing to score; "
                "evaluate on labelled speech, or read the predictions only"
            )
        return self.confusion()

    def probabilities(self, temperature: float = 1.0) -> FloatArray:
        """Return the ``[N, C]`` softmax of the scores divided by a temperature."""
        return np.exp(log_softmax(self.scores, temperature))

    def temperature(self) -> float:
        """Return the temperature that minimises :meth:`nll`.

        Fit it on validation, use it on test.
        """
        return fit_temperature(*self._known())

    def nll(self, temperature: float = 1.0) -> float:
        """Return the mean negative log-probability of the label, in nats."""
        return nll(*self._known(), temperature)

    def ece(self, temperature: float = 1.0, bins: int = 15) -> float:
        """Return the expected calibration error (Guo et al. 2017) over bins of confidence."""
        return ece(*self._known(), temperature, bins)

    def brier(self, temperature: float = 1.0) -> float:
        """Return the mean squared distance of the probabilities to the one-hot label, 0 to 2."""
        return brier(*self._known(), temperature)

    def _known(self) -> tuple[FloatArray, IntArray]:
        self._counts()  # refuses a table without labels
        return self.scores[self.labelled], self.labels[self.labelled]

    def write_jsonl(self, path: str | Path) -> Path:
        """Write one line per utterance: id, speaker, label, scores, any text, any votes.

        A speaker or label of null is unknown. Votes are those above 0, by class. Equal tables give
        equal bytes. The file is whole or absent.
        """
        path = Path(path)
        with new_file(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
            for i, name in enumerate(self.ids):
                label = self.classes[self.labels[i]] if self.labels[i] >= 0 else None
                scores = dict(zip(self.classes, self.scores[i].tolist(), strict=True))
                who = self.speakers[i] or None
                row = {"id": name, "speaker": who, "label": label, "scores": scores}
                row |= {} if self.texts is None else {"text": self.texts[i]}
                if self.votes is not None:
                    given = zip(self.classes, self.votes[i].tolist(), strict=True)
                    row["votes"] = {name: vote for name, vote in given if vote}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return path

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each utterance.

        Columns are ``id``, ``speaker``, ``label``, ``predicted``, ``score_CLASS`` (log-scores) and
        ``p_CLASS`` (their softmax). Also ``text`` and ``votes_CLASS`` if the table has them. An
        unknown speaker or label is None.

        Raises:
            ConfigError: if pandas is not installed.
        """
        frame = pandas().DataFrame
        p = self.probabilities()
        columns: dict[str, Any] = {
            "id": self.ids,
            "speaker": [s or None for s in self.speakers],
            "label": [self.classes[i] if i >= 0 else None for i in self.labels],
            "predicted": [self.classes[i] for i in self.predicted],
        }
        columns |= {f"score_{name}": self.scores[:, i] for i, name in enumerate(self.classes)}
        columns |= {f"p_{name}": p[:, i] for i, name in enumerate(self.classes)}
        if self.texts is not None:
            columns["text"] = self.texts
        if self.votes is not None:
            columns |= {f"votes_{name}": self.votes[:, i] for i, name in enumerate(self.classes)}
        return frame(columns)

    @classmethod
    def read_jsonl(cls, path: str | Path) -> PredictionTable:
        """Read a file of :meth:`write_jsonl`, or predictions of another toolkit in this form.

        A name that ends in ``.gz`` is decompressed. ``votes`` may be missing.

        Raises:
            DataError: if a line cannot be used; the message gives its number.
        """
        ids, speakers, labels, scores = [], [], [], []
        classes: list[str] = []
        texts: list[str] = []
        votes: list[dict[str, float]] = []
        remedy = "a file of predictions has a line for each utterance: run its run again"
        for number, row in json_lines(path, remedy=remedy, what=("a prediction", "predictions")):
            where = f"{path}, line {number}"
            try:
                name, speaker, label = row["id"], row["speaker"], row["label"]
                values = {str(c): float(v) for c, v in row["scores"].items()}
                given = {str(c): float(v) for c, v in row.get("votes", {}).items()}
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise DataError(
                    f"{where}: not a prediction ({type(error).__name__}: {error}); "
                    'give {"id", "speaker", "label", "scores": {class: number}}'
                ) from error
            classes = classes or list(values)
            if set(values) != set(classes):
                raise DataError(
                    f"{where}: scores for {', '.join(values)}; line 1 scores {', '.join(classes)}; "
                    "score the same classes in every line"
                )
            if label is not None and str(label) not in values:
                raise DataError(
                    f"{where}: label '{label}' is not a class{suggest(str(label), classes)}"
                )
            if strange := [c for c in given if c not in values]:
                raise DataError(
                    f"{where}: a vote for '{strange[0]}', which is not a class"
                    f"{suggest(strange[0], classes)}"
                )
            votes += [given] if "votes" in row else []
            ids.append(str(name))
            speakers.append("" if speaker is None else str(speaker))
            labels.append(-1 if label is None else classes.index(str(label)))
            scores.append([values[c] for c in classes])
            texts += [str(row["text"])] if "text" in row else []
        if not ids:
            raise DataError(f"{path} holds no predictions; it should have one line per utterance")
        if votes and len(votes) != len(ids):
            raise DataError(
                f"{path}: {len(votes)} of {len(ids)} lines have votes; give all lines some, {{}} "
                "for an utterance without"
            )
        counts = np.array([[row.get(c, 0.0) for c in classes] for row in votes])
        return cls(
            ids,
            speakers,
            np.array(labels),
            np.array(scores),
            classes,
            texts or None,
            counts if votes else None,
        )


def merge(tables: Iterable[PredictionTable], *, noise: float = 0.0) -> PredictionTable:
    """Join several tables into one: one row per id, sorted by id.

    If an id has several equal rows, the first is kept: two ranks may both see an utterance.

    Args:
        tables: tables over the same classes.
        noise: how much the scores of one utterance may differ, as a share of its largest score.

    Raises:
        ComparisonError: if the tables have different classes, or the rows of one id differ.
        DataError: if there are no tables.
    """
    tables = list(tables)
    if not tables:
        raise DataError("found no predictions to merge; was the evaluated part empty?")
    classes = tables[0].classes
    rows: dict[str, tuple[str, int, tuple[float, ...], str | None]] = {}
    for table in tables:
        if table.classes != classes:
            raise ComparisonError(
                f"cannot merge predictions over {', '.join(table.classes)} with predictions over "
                f"{', '.join(classes)}; merge tables of one taxonomy"
            )
        for i, name in enumerate(table.ids):
            text = None if table.texts is None else table.texts[i]
            row = (table.speakers[i], int(table.labels[i]), tuple(table.scores[i].tolist()), text)
            first = rows.setdefault(name, row)
            if first[:3] != row[:3] and not (
                first[:2] == row[:2]
                and np.allclose(first[2], row[2], rtol=0, atol=noise * max(map(abs, row[2])))
            ):
                raise ComparisonError(
                    f"'{name}' is predicted twice and differently: {rows[name]} and {row}; "
                    "merge folds of one run, in which each utterance is tested once"
                )
    ids = sorted(rows)
    return PredictionTable(
        ids,
        [rows[i][0] for i in ids],
        np.array([rows[i][1] for i in ids], dtype=np.int64),
        np.array([rows[i][2] for i in ids], dtype=np.float64).reshape(len(ids), len(classes)),
        list(classes),
        [str(rows[i][3]) for i in ids] if all(t.texts is not None for t in tables) else None,
        _votes(tables, ids),
    )


def _votes(tables: Sequence[PredictionTable], ids: Sequence[str]) -> FloatArray | None:
    """Return the votes of these ids from all tables; None if no table has any."""
    found: dict[str, FloatArray] = {}
    for table in tables:
        for name, row in zip(table.ids, () if table.votes is None else table.votes, strict=False):
            if not _same(found.setdefault(name, row), row):
                raise ComparisonError(
                    f"'{name}' has two different votes: {found[name].tolist()} and {row.tolist()}; "
                    "merge tables that were made from one manifest"
                )
    nothing = np.zeros(len(tables[0].classes))
    return np.stack([found.get(i, nothing) for i in ids]) if found else None


def _same(one: FloatArray | None, two: FloatArray | None) -> bool:
    if one is None or two is None:
        return one is two
    return np.array_equal(one, two)


def _round(scores: FloatArray) -> FloatArray:
    """Return float32 with six significant digits, as in a file; rounding again changes nothing."""
    with np.errstate(over="ignore"):
        single = scores.astype(np.float32)
    # below this, float32 has fewer than six digits
    single[np.abs(single) < np.finfo(np.float32).tiny] = 0
    # adding zero turns -0.0 into 0.0; a sum in another order may give -0.0
    flat = [float(f"{v:.{DIGITS}g}") + 0.0 for v in single.ravel().tolist()]
    return np.array(flat, dtype=np.float64).reshape(scores.shape)
