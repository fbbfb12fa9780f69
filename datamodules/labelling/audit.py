"""``serzoo label audit``: are the weak labels right, and could words tell at all?

Two questions, of each corpus that people have labelled. Where weak labels of the same utterances
exist: how often they are right, at which coverage (:mod:`.against`). And in any case what the text
alone tells of the people's labels (:mod:`.wording`): where that is nothing, as in acted corpora of
fixed sentences, weak labels are worthless, and what a model gains by others is not owed to words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...zoo.errors import ConfigError
from ...zoo.registry import check_knobs, schema_of
from ...zoo.taxonomy import Taxonomy
from ..folds import sentence
from ..info import CorpusInfo
from ..manifest import Utterance, write_lines
from ..weak import is_weak
from .against import Said, compare
from .audit_data import People, Rows, Weak, folder_of, labelled, opened, people
from .audit_page import markdown, unlike_chance, words
from .entail import Entail
from .folding import fold, fold_rows, reachable
from .scorers import Scorer
from .select import select, soft_targets
from .verb import scorer_of
from .wording import DRAWS, control

NO_SCORER = "none"
LEAST = 100
"""Draws; below 60, no p of three corrected ones can be under 0.05."""


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Attributes:
        record: all of it, as ``audit.json`` holds it.
        written: the files that it was written to.
    """

    record: dict[str, Any]
    written: list[Path] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What speaks against weak labels of these very corpora; empty where nothing does."""
        return [w for found in self.record["corpora"] for w in found["warnings"]]

    @property
    def ok(self) -> bool:
        """Whether there is no warning."""
        return not self.warnings


def audit(
    source: str,
    *,
    human: str | list[str] | None = None,
    label: str | None = None,
    taxonomy: str | None = None,
    scorer: str | None = None,
    protocol: str | None = None,
    root: str | None = None,
    out: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "auto",
    scorer_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Audited:
    """Weak labels against people's, and what words alone tell of these.

    Args:
        source: folder of ``serzoo label``, a manifest, or a corpus' name.
        human: manifests or corpora that people have labelled; utterances that ``source`` has by the
            same id are compared. None = ``source`` itself.
        label: column of the people's labels, such as ``acted``; None = ``given`` where ``serzoo
            label`` put them there, else ``label``.
        taxonomy: of the people's labels; weak labels are folded into it, and classes that nothing
            folds into are left out of the comparison. None = the corpus' own.
        scorer: what scores the sentences of the text-only control, as in ``serzoo label``; None =
            the scores in the folder where it has some, else ``lexicon``; ``none`` = no scorer.
        protocol: whose test speakers the learners are tested on; None = the corpus' own.
        root: folder of a corpus' audio.
        out: folder of ``audit.json`` and ``audit.md``; None = that of the labels, and none where
            ``source`` is no such folder.
        draws: shuffles of the people's labels that what is found is held against.
        seed: of these.
        device: where the scorer runs.
        scorer_options: its keywords.
        options: keywords of the corpora's readers.

    Raises:
        ConfigError: a setting is wrong.
        DataError: nobody labelled these utterances, or they cannot be used.
    """
    if draws < LEAST:
        raise ConfigError(f"draws={draws}; give at least {LEAST}: fewer can show nothing")
    weak, utterances = opened(source, root, options)
    sets: list[People] = []
    for where in [human] if human is None or isinstance(human, str) else human:
        found = utterances if where is None else opened(where, root, options)[1]
        for corpus, (mine, column) in labelled(found, label, where or source).items():
            name = corpus if corpus not in {s.name for s in sets} else f"{corpus} of {where}"
            own = where is None or any(weak is not None and u.id in weak.utterances for u in mine)
            sets.append(people(name, mine, column, taxonomy, weak, own))
    made = None
    if scorer is not None or weak is None or weak.rows is None:
        name = scorer or "lexicon"
        if name != NO_SCORER:
            made = scorer_of(name, dict(scorer_options or {}), device)
    record = {
        "source": source,
        "draws": draws,
        "seed": seed,
        "corpora": [_one(s, weak, made, scorer, protocol, draws, seed) for s in sets],
    }
    folder = folder_of(source) if out is None else Path(out)
    return Audited(record, [] if folder is None else _write(folder, record))


AUDIT_KNOBS = {k: v for k, v in schema_of(audit).items() if k != "options"}


def audit_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of :func:`audit` from ``key=value``; ``scorer.KEY`` and ``options.KEY`` too.

    Raises:
        ConfigError: listing what is unknown or of a wrong type.
    """
    plain = {k: v for k, v in values.items() if "." not in k}
    allowed = {k: v for k, v in AUDIT_KNOBS.items() if k != "scorer_options"}
    plain = check_knobs("label audit", allowed, plain)
    grouped: dict[str, dict[str, Any]] = {"scorer": {}, "options": {}}
    for key, value in values.items():
        group, dot, name = key.partition(".")
        if dot and group not in grouped:
            raise ConfigError(
                f"label audit: unknown key '{key}'; have {', '.join(grouped)} with a dot"
            )
        if dot:
            grouped[group][name] = value
    return {**plain, "scorer_options": grouped["scorer"], "options": grouped["options"]}


def _one(
    about: People,
    weak: Weak | None,
    made: Scorer | None,
    scorer: str | None,
    protocol: str | None,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    notes: list[str] = []
    compared: dict[str, Any] | None = None
    rows: Rows = {}
    if weak is not None and about.own:
        compared, rows = _compared(about, weak, notes, draws, seed)
    elif weak is not None:
        notes.append("none of its utterances is among the weak labels, so these were not compared")
    texts = [_with_text(u, weak) for u in about.utterances]
    said, by = None, None
    if made is not None:
        once = list({sentence(u.text): u for u in texts if sentence(u.text)}.values())
        scores = {r["id"]: r for r in Entail(made, about.taxonomy).rows(once)}
        said, by = _said(once, scores, about.taxonomy), made.source
    elif weak is not None and rows and scorer is None:
        said, by = _said(texts, rows, about.taxonomy), weak.source
    found = control(
        texts,
        about.classes,
        about.taxonomy.classes,
        protocol or CorpusInfo.load(texts[0].corpus).protocol or "kfold",
        said=said,
        draws=draws,
        seed=seed,
    )
    if found.silent:
        notes.append(f"{found.silent} labelled utterances have no text and were not used")
    if said is not None and found.reached["scorer"].says < 2:
        notes.append(
            f"{by} says the same of every sentence: it finds no emotion in any, or does not know "
            "the language"
        )
    result: dict[str, Any] = {
        "name": about.name,
        "column": about.column,
        "taxonomy": about.taxonomy.to_dict(),
        "own": about.own,
        "labels": compared,
        "scorer": by,
        "text": found.to_dict(),
        "notes": notes,
    }
    result["verdict"] = words(about.name, found)
    warnings = [result["verdict"]] if about.own and found.verdict != "some" else []
    if compared is not None:
        warnings += unlike_chance(about.name, compared["selected"])
    return result | {"warnings": warnings}


def _compared(
    about: People, weak: Weak, notes: list[str], draws: int, seed: int
) -> tuple[dict[str, Any], Rows]:
    """The comparison; and the rows of scores, folded into those of the people's classes."""
    names = about.taxonomy.classes
    both = [
        (u, c)
        for u, c in zip(about.utterances, about.classes, strict=True)
        if u.id in weak.utterances
    ]
    marked = [weak.utterances[u.id] for u, _ in both]
    kept = about.taxonomy if weak.coarse is None else reachable(weak.coarse, about.taxonomy)
    lost = [c for c in names if c not in kept.classes]
    if lost:
        n = sum(c >= 0 and names[c] in lost for _, c in both)
        notes.append(
            f"{n} utterances of {', '.join(lost)} were not compared: no class of the weak "
            "labels folds into these"
        )
    if weak.coarse is not None:
        into = fold(weak.coarse, kept)
    else:  # of a bare manifest nobody knows the classes, but all that is written are labels
        into = {label: name for name, labels in kept.members for label in labels}
    chosen = _best((u for u in marked if is_weak(u)), into, kept)
    best, soft, rows = chosen, None, {}
    if weak.rows is not None and weak.fine is not None:
        mine = [weak.rows[u.id] for u in marked if u.id in weak.rows]
        rows = {r["id"]: r for r in fold_rows(mine, weak.fine, kept)}
        free = replace(weak.criteria, threshold=0.0, cap=None, neutral=None)
        all_ = select(marked, rows.values(), kept, weak.source, free).utterances
        best = _best(all_, {c: c for c in kept.classes}, kept)
        soft = {i: v.tolist() for i, v in soft_targets(rows.values(), kept).items()}
    compared = compare(
        [u for u, _ in both],
        [kept.classes.index(names[c]) if c >= 0 and names[c] not in lost else -1 for _, c in both],
        kept.classes,
        Said(best, {i: c for i, (c, _) in chosen.items()}, soft),
        draws=draws,
        seed=seed,
    )
    return {**compared, "source": weak.source}, rows


def _best(
    utterances: Iterable[Utterance], into: Mapping[str, str | None], kept: Taxonomy
) -> dict[str, tuple[int, float]]:
    """Class and score of the labelled ones, by id; without labels that fold into no class."""
    found = {}
    for u in utterances:
        name = into.get(u.label or "")
        if name is not None:
            score = 1.0 if u.label_score is None else u.label_score
            found[u.id] = (kept.classes.index(name), score)
    return found


def _said(
    utterances: Sequence[Utterance], rows: Mapping[str, Mapping[str, Any]], taxonomy: Taxonomy
) -> dict[str, int]:
    """Each sentence to its best class, of equal ones the first; -1 where it was not scored."""
    found: dict[str, int] = {}
    for u in utterances:
        scores = rows[u.id]["scores"] if u.id in rows else None
        plain = sentence(u.text)
        if scores is not None and found.get(plain, -1) < 0:
            found[plain] = taxonomy.classes.index(max(scores, key=scores.__getitem__))
        found.setdefault(plain, -1)
    return found


def _with_text(u: Utterance, weak: Weak | None) -> Utterance:
    """With what a recogniser heard, where nobody has written what is said."""
    if sentence(u.text) or weak is None or u.id not in weak.utterances:
        return u
    return replace(u, text=weak.utterances[u.id].text)


def _write(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    written = [folder / "audit.json", folder / "audit.md"]
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_lines(written[0], [text])
    write_lines(written[1], [markdown(record)])
    return written
