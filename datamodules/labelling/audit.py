"""``serzoo label audit``: are weak labels right, and can words reveal the emotion at all?

The audit answers two questions about each corpus that people have labelled. If the same utterances
have weak labels: how often are these right, and at which coverage (:func:`.wording.compare`)? And
how much does the text alone tell about the people's labels (:func:`.wording.control`)? If it tells
nothing, as in acted corpora with fixed sentences, weak labels from text are useless there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ...zoo.core import registry
from ...zoo.core.errors import ConfigError, DataError
from ...zoo.core.registry import schema_of
from ...zoo.core.table import Cell, Line, Table, cell, p_cell, p_text, span, span_cell
from ...zoo.core.taxonomy import Taxonomy
from ..catalog import open_corpora
from ..info import CorpusInfo
from ..labels import auto_taxonomy, class_indices
from ..manifest import Utterance, read_manifest, write_lines
from ..protocols import sentence
from .entail import Entail
from .label import grouped_settings, scorer_of
from .scorers import Scorer
from .select import (
    Criteria,
    best_classes,
    fold,
    fold_rows,
    one_sided_text,
    reachable,
    scored,
    select,
    soft_targets,
)
from .stage import read_labels
from .wording import DRAWS, LEVEL, Control, Said, compare, control

# The input of an audit: weak labels with their scores, and corpora that people have labelled.

Rows = dict[str, dict[str, Any]]
GIVEN = "given"
"""The column in which ``serzoo label`` keeps people's labels; it has the codes of ``label``."""


@dataclass(frozen=True)
class Weak:
    """A manifest of weak labels.

    Attributes:
        utterances: the utterances, by id.
        coarse: taxonomy of the labels; None if only the manifest is known, not its folder.
        fine: taxonomy of the scores; None if there are no scores.
        rows: rows of scores, by id; None if there are no scores.
        criteria: the criteria by which the labels were selected.
        source: ``MODEL@REVISION``, or "" if no utterance is labelled.
    """

    utterances: dict[str, Utterance]
    coarse: Taxonomy | None = None
    fine: Taxonomy | None = None
    rows: Rows | None = None
    criteria: Criteria = field(default_factory=Criteria)
    source: str = ""


@dataclass(frozen=True)
class People:
    """A corpus with people's labels.

    Attributes:
        name: name of the corpus; also its source, if two sources have a corpus of this name.
        utterances: the utterances, with people's labels in ``column`` and no weak labels.
        column: the label column, as for :func:`..info.canonical_label`.
        taxonomy: the classes.
        classes: class of each utterance; -1 = none.
        own: whether the weak labels are of these utterances, or would be.
    """

    name: str
    utterances: list[Utterance]
    column: str
    taxonomy: Taxonomy
    classes: list[int]
    own: bool


def opened(
    source: str, root: str | None = None, options: Mapping[str, Any] | None = None
) -> tuple[Weak | None, list[Utterance]]:
    """Return the weak labels, if any, and all utterances of a source.

    Args:
        source: a folder of ``serzoo label``, a manifest, or the name of a corpus.
        root: folder of a corpus' audio.
        options: options of the corpus' reader.

    Raises:
        DataError: if the source does not exist, or a folder is not finished.
    """
    path = Path(source)
    folder = folder_of(source)
    if folder is not None:
        utterances = read_manifest(folder / "manifest.jsonl")
        record = read_labels(folder)
        weak = Weak(
            {u.id: u for u in utterances},
            Taxonomy.from_dict(record["taxonomy"]),
            Taxonomy.from_dict(record["scores"]["settings"]["taxonomy"]),
            {r["id"]: r for r in scored(folder, record)},
            Criteria(**record["selection"]["criteria"]),
            record["source"],
        )
        return weak, utterances
    if source.endswith(".jsonl"):
        utterances = read_manifest(path)
        models = {str(u.label_source)[5:] for u in utterances if u.weak}
        if not models:
            return None, utterances
        return Weak({u.id: u for u in utterances}, source=", ".join(sorted(models))), utterances
    if path.is_dir() and source not in registry.names("corpora"):
        raise DataError(f"no {path / 'labels.json'}; run `serzoo label ... out={path}` to its end")
    return None, open_corpora([source], root=root, options=dict(options or {})).utterances


def folder_of(source: str) -> Path | None:
    """Return the folder of ``serzoo label`` that a source names, itself or by its manifest."""
    path = Path(source)
    folder = path.parent if path.name == "manifest.jsonl" else path
    return folder if (folder / "labels.json").is_file() else None


def labelled(
    utterances: Sequence[Utterance], label: str | None, where: str
) -> dict[str, tuple[list[Utterance], str]]:
    """Return, by corpus, the utterances with only people's labels, and the column of these labels.

    Args:
        utterances: the utterances of a source.
        label: the column; None = ``given`` if the source has it, otherwise ``label``.
        where: the source, for the message.

    Raises:
        DataError: if people have labelled no utterance; the message gives the columns.
    """
    column = label or ("label" if not any(GIVEN in u.labels for u in utterances) else GIVEN)
    found: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        people = None if u.weak else u.label
        if column == GIVEN:
            people = u.labels.get(GIVEN, people)
        if u.weak or people != u.label:
            u = replace(u, label=people, label_source=None, label_score=None)
        found[u.corpus].append(u)
    column = "label" if column == GIVEN else column
    if column == "label" and not any(u.label for us in found.values() for u in us):
        columns = sorted({name for u in utterances for name in u.labels})
        raise DataError(
            f"{where} has no labels by people in the column 'label', so weak labels cannot be "
            "compared; name a labelled manifest or corpus with human=, or another column with "
            f"label= (columns: {', '.join(columns) or 'none'})"
        )
    return {corpus: (mine, column) for corpus, mine in sorted(found.items())}


def people(
    name: str,
    utterances: list[Utterance],
    column: str,
    taxonomy: str | None,
    weak: Weak | None,
    own: bool,
) -> People:
    """Return a corpus with the classes of a taxonomy.

    It is the named taxonomy, or else the corpus' own, that of the weak labels, or a class per
    label.

    Args:
        name: name of the corpus, for tables and messages.
        utterances: the utterances, with people's labels only.
        column: the label column.
        taxonomy: name of a taxonomy, or None.
        weak: the weak labels, or None.
        own: whether the weak labels are of these utterances, or would be.

    Raises:
        DataError: if the taxonomy has none of the labels.
    """
    named = taxonomy or CorpusInfo.load(utterances[0].corpus).taxonomy
    if named is not None:
        chosen = Taxonomy.load(named)
    elif weak is not None and weak.coarse is not None:
        chosen = weak.coarse
    else:
        chosen = auto_taxonomy(utterances, column)
    classes = class_indices(utterances, chosen, column)
    if not any(c >= 0 for c in classes):
        raise DataError(
            f"none of {len(utterances)} utterances of {name} has a label of taxonomy "
            f"'{chosen.name}' in column '{column}'; choose another one with taxonomy=NAME"
        )
    return People(name, utterances, column, chosen, classes, own)


# The output of an audit: verdicts in words, and tables, printed and as Markdown.

VERDICTS = {
    "none": "the words of {} carry no emotion: weak labels from text can only reflect words, so "
    "they are useless here",
    "little": "the words of {} carry almost no emotion: weak labels from text can only reflect "
    "words, so they are of little use here",
    "some": "the words of {} tell something about its emotions: weak labels from text can be "
    "useful",
}
FUNCTIONS = {
    "sentences": "the sentence, learned on other speakers",
    "words": "the words, learned on other speakers (naive Bayes)",
    "scorer": "the scorer",
}
WIDE = 0.1
"""Distance above chance. If an interval ends above it, a verdict says that this is possible."""


def words(name: str, found: Control) -> str:
    """Return the verdict on a corpus in words, with its numbers."""
    best, r = max(found.reached.items(), key=lambda item: item[1].uar)
    wide = r.high == r.high and r.high - found.chance > WIDE and found.verdict != "some"
    return (
        f"{VERDICTS[found.verdict].format(name)} ({found.utterances} utterances have "
        f"{found.sentences} distinct sentences, {found.shared:.0%} of them with several labels; "
        f"{found.bits['value']:.3f} bits of mutual information, {found.bits['shuffled']:.3f} with "
        f"shuffled labels; the best from text alone is {FUNCTIONS[best]}: UAR {r.uar:.3f} "
        f"({span(r.low, r.high)}), chance {found.chance:.3f}, p {p_text(r.corrected)}"
        + (f"; with so few speakers, a UAR up to {r.high:.3f} is possible)" if wide else ")")
    )


def chance_warnings(name: str, selected: Mapping[str, Any]) -> list[str]:
    """Return a warning if weak labels are no better than chance, or if there are none."""
    if not selected["n"]:
        return [f"none of the utterances of {name} that people labelled has a weak label"]
    if selected["p"] < LEVEL:
        return []
    return [
        f"the weak labels of {name} are no better than chance: UAR {selected['uar']['value']:.3f}, "
        f"{selected['shuffled']:.3f} with shuffled labels, p {p_text(selected['p'])}"
    ]


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of one corpus of a record."""
    text = found["text"]
    rows: list[Line] = [
        [
            FUNCTIONS[k] if k != "scorer" else f"{FUNCTIONS[k]} {found['scorer']}",
            cell(r["uar"]), span_cell(r["low"], r["high"]), cell(r["shuffled"]),
            p_cell(r["p"]), p_cell(r["corrected"]), cell(r["says"], "d"),
        ]
        for k, r in text["reached"].items()
    ]  # fmt: skip
    yield Table(
        f"{found['name']}: what text alone tells about {found['column']} "
        f"({len(text['classes'])} classes, chance {text['chance']:.3f}; {text['protocol']})",
        (
            "a function of the text",
            "UAR",
            "95 % interval",
            "shuffled",
            "p",
            "p (Holm)",
            "classes said",
        ),
        rows,
    )
    rows = [
        [what, cell(v["value"]), cell(v["shuffled"]), p_cell(v["p"])]
        for what, v in (
            ("mutual information, bits", text["bits"]),
            ("largest UAR of any function", text["ceiling"]),
        )
    ]
    yield Table(
        f"{found['name']}: {text['sentences']} distinct sentences in {text['utterances']} "
        f"utterances of {text['speakers']} speakers",
        ("sentence and label", "found", "shuffled", "p"),
        rows,
    )
    if found["labels"] is not None:
        yield from _labels(found["name"], found["labels"])


def _labels(name: str, found: Mapping[str, Any]) -> Iterator[Table]:
    classes, selected = found["classes"], found["selected"]
    lines = [("as selected", selected)]
    steps = [s for s in found["sweep"] if s["n"]]
    lines += [  # of thresholds that select the same utterances, only the last
        (f"score of {s['threshold']:g} or more", s)
        for s, after in zip(steps, [*steps[1:], None], strict=True)
        if after is None or after["n"] != s["n"]
    ]
    yield Table(
        f"{name}: weak labels of {found['source']} compared with {found['utterances']} by people"
        + (f"; p {p_text(selected['p'])} by shuffled labels" if selected["n"] else ""),
        ("labels", "n", "coverage", "accuracy", "95 % interval", "UAR", "95 % interval", "chance"),
        [
            [what, cell(s["n"], "d"), cell(s["coverage"], ".1%"), *_score(s, "wa"),
             *_score(s, "uar"), cell(s.get("chance"))]
            for what, s in lines
        ],
    )  # fmt: skip
    yield Table(
        f"{name}: people's labels (rows) and selected weak labels (columns)",
        ("", *classes, "none"),
        [
            [c, *(cell(n, "d") for n in (*row, selected["unlabelled"][c]))]
            for c, row in zip(classes, selected["confusion"], strict=True)
        ],
    )
    reliability = found["reliability"]
    if reliability["bins"]:
        yield Table(
            f"{name}: accuracy by score; calibration error {reliability['error']:.3f}",
            ("score", "n", "mean score", "accuracy"),
            [
                [f"{b['low']:.1f} to {b['high']:.1f}", cell(b["n"], "d"), cell(b["score"]),
                 cell(b["accuracy"])]
                for b in reliability["bins"]
            ],
        )  # fmt: skip
    if found["soft"] is not None:
        soft = found["soft"]
        yield Table(
            f"{name}: soft labels of {soft['n']} utterances, without temperature",
            ("ECE", "classwise ECE", "Brier", "NLL", "AURC", "excess AURC"),
            [[cell(soft[k]) for k in
              ("ece", "classwise_ece", "brier", "nll", "aurc", "excess_aurc")]],
        )  # fmt: skip


def show(record: Mapping[str, Any], console: Console) -> None:
    """Print a record: tables, notes, verdicts, and then warnings."""
    for found in record["corpora"]:
        for table in tables(found):
            console.print(table.rich())
        for note in found["notes"]:
            console.out(f"note: {note}", highlight=False)
        if found["verdict"] not in found["warnings"]:
            console.out(found["verdict"], highlight=False)
        for warning in found["warnings"]:
            console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False, soft_wrap=True)


def markdown(record: Mapping[str, Any]) -> str:
    """Return the text of ``audit.md``: the same as :func:`show`, as Markdown."""
    lines = [f"# Audit of the labels of {record['source']}"]
    for found in record["corpora"]:
        lines += ["", f"## {found['name']}", ""]
        if found["verdict"] not in found["warnings"]:
            lines.append(f"- {found['verdict']}")
        lines += [f"- **warning:** {line}" for line in found["warnings"]]
        lines += [f"- {line}" for line in found["notes"]]
        for table in tables(found):
            lines += ["", table.markdown().rstrip()]
    lines += [
        "",
        "Intervals are over speakers. For the shuffled values, people's labels are shuffled within "
        f"each speaker {record['draws']} times (seed {record['seed']}), and learned again. p is "
        "one-sided.",
    ]
    return "\n".join(lines)


def _score(found: Mapping[str, Any], name: str) -> list[Cell]:
    value = found.get(name, {})
    return [cell(value.get("value")), span_cell(value.get("low"), value.get("high"))]


NO_SCORER = "none"
LEAST = 100
"""Smallest number of draws; with fewer than 60, no p of three corrected ones is below 0.05."""


@dataclass(frozen=True)
class Audited:
    """The result of an audit.

    Attributes:
        record: all results, the content of ``audit.json``.
        written: the files with the results.
    """

    record: dict[str, Any]
    written: list[Path] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """The reasons not to use weak labels for these corpora; empty if there are none."""
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
    """Compare weak labels with people's labels, and test what words alone tell about the latter.

    Args:
        source: a folder of ``serzoo label``, a manifest, or the name of a corpus.
        human: manifests or corpora that people have labelled; utterances with the same id as in
            ``source`` are compared. None = ``source`` itself.
        label: column of the people's labels, such as ``acted``. None = ``given`` if ``serzoo
            label`` has put them there, otherwise ``label``.
        taxonomy: the classes of the people's labels. Weak labels are folded into these; a class
            into which no weak label folds is not compared. None = the corpus' own taxonomy.
        scorer: scorer of the sentences in the text-only control, as in ``serzoo label``; ``none``
            = no scorer. None = the scores in the folder if it has some, otherwise ``lexicon``.
        protocol: the learners are tested on its test speakers; None = the corpus' own protocol.
        root: folder of a corpus' audio.
        out: folder of ``audit.json`` and ``audit.md``. None = the folder of the labels; if
            ``source`` is not such a folder, nothing is written.
        draws: number of shuffles of the people's labels, for chance level and p.
        seed: seed of the shuffles.
        device: device of the scorer.
        scorer_options: options of the scorer.
        options: options of the corpora's readers.

    Raises:
        ConfigError: if a setting is wrong.
        DataError: if people have not labelled these utterances, or they cannot be used.
    """
    if draws < LEAST:
        raise ConfigError(f"draws={draws}; give at least {LEAST}: with fewer, no p can be small")
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
    """Return the arguments of :func:`audit` from ``key=value``; see :func:`.grouped_settings`.

    Raises:
        ConfigError: if a key is unknown, or a value has a wrong type; the message lists them.
    """
    return grouped_settings("label audit", AUDIT_KNOBS, values, ("scorer", "options"))


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
        notes.append("none of its utterances has a weak label, so weak labels were not compared")
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
            f"{by} gives every sentence the same class: it finds no emotion, or does not know the "
            "language"
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
        warnings += chance_warnings(about.name, compared["selected"])
    if weak is not None and weak.rows is not None and weak.fine is not None and about.own:
        mine = [row for i in {u.id for u in about.utterances} if (row := weak.rows.get(i))]
        best = best_classes(mine, weak.fine)
        result["best_classes"] = best
        if text := one_sided_text(best, weak.source or "the scorer"):
            warnings.append(text)
    return result | {"warnings": warnings}


def _compared(
    about: People, weak: Weak, notes: list[str], draws: int, seed: int
) -> tuple[dict[str, Any], Rows]:
    """Return the comparison, and the rows of scores, folded into the people's classes."""
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
            f"{n} utterances of {', '.join(lost)} were not compared: no class of the weak labels "
            "folds into these classes"
        )
    if weak.coarse is not None:
        into = fold(weak.coarse, kept)
    else:  # a manifest without its folder does not state the taxonomy; it has only labels
        into = {label: name for name, labels in kept.members for label in labels}
    chosen = _best((u for u in marked if u.weak), into, kept)
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
    """Return class and score of the labelled utterances, by id.

    Labels that fold into no class are left out.
    """
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
    """Map each sentence to its best class, or the first of equal ones; -1 if it has no scores."""
    found: dict[str, int] = {}
    for u in utterances:
        scores = rows[u.id]["scores"] if u.id in rows else None
        plain = sentence(u.text)
        if scores is not None and found.get(plain, -1) < 0:
            found[plain] = taxonomy.classes.index(max(scores, key=scores.__getitem__))
        found.setdefault(plain, -1)
    return found


def _with_text(u: Utterance, weak: Weak | None) -> Utterance:
    """Return an utterance without a transcript with that of the recogniser, if there is one."""
    if sentence(u.text) or weak is None or u.id not in weak.utterances:
        return u
    return replace(u, text=weak.utterances[u.id].text)


def _write(folder: Path, record: Mapping[str, Any]) -> list[Path]:
    written = [folder / "audit.json", folder / "audit.md"]
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_lines(written[0], [text])
    write_lines(written[1], [markdown(record)])
    return written
