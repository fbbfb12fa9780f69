"""``serzoo label audit``: are the weak labels right, and could words tell at all?

Two questions, of each corpus that people have labelled. Where weak labels of the same utterances
exist: how often they are right, at which coverage (:mod:`.against`). And in any case what the text
alone tells of the people's labels (:mod:`.wording`): where that is nothing, as in acted corpora of
fixed sentences, weak labels are worthless, and what a model gains by others is not owed to words.
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
from ...zoo.core.registry import check_knobs, schema_of
from ...zoo.core.table import Cell, Line, Table, cell, p_cell, p_text, span, span_cell
from ...zoo.core.taxonomy import Taxonomy
from ..catalog import open_corpora
from ..info import CorpusInfo
from ..labels import auto_taxonomy, class_indices
from ..manifest import Utterance, read_manifest, write_lines
from ..protocols import sentence
from .entail import Entail
from .label import scorer_of
from .scorers import Scorer
from .select import Criteria, fold, fold_rows, reachable, select, soft_targets
from .stage import read_labels, rows_of
from .wording import DRAWS, LEVEL, Control, Said, compare, control

# ---- What an audit looks at: weak labels with what stands behind them, and corpora people
# labelled.

Rows = dict[str, dict[str, Any]]
GIVEN = "given"
"""The column that ``serzoo label`` keeps people's labels in; their codes are those of ``label``."""


@dataclass(frozen=True)
class Weak:
    """A manifest of weak labels.

    Attributes:
        utterances: by id.
        coarse: whose classes the labels are; None where its folder is not there.
        fine: whose classes were scored.
        rows: of scores, by id.
        criteria: that the labels were selected by.
        source: ``MODEL@REVISION``, or "" where none is labelled.
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
        name: of the corpus; of several alike, with where it is from.
        utterances: with people's labels in ``column``, and no weak ones.
        column: as :func:`..info.canonical_label` takes it.
        taxonomy: of the labels.
        classes: of each utterance; -1 = none.
        own: weak labels are of these utterances, or would be.
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
    """Weak labels, if there are some, and all utterances, of a folder, manifest or corpus.

    Raises:
        DataError: when there is none such.
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
            {r["id"]: r for r in rows_of(folder / "scores.jsonl")},
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
    """The folder of ``serzoo label`` that this is, or whose manifest it is."""
    path = Path(source)
    folder = path.parent if path.name == "manifest.jsonl" else path
    return folder if (folder / "labels.json").is_file() else None


def labelled(
    utterances: Sequence[Utterance], label: str | None, where: str
) -> dict[str, tuple[list[Utterance], str]]:
    """By corpus, the utterances with people's labels only, and the column that these are in.

    Raises:
        DataError: when nobody has labelled one of them, naming the columns that there are.
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
            f"nobody has labelled {where} in column label, so there is nothing to hold weak labels "
            f"against; name a manifest or corpus by human=, or a column by label= (it has: "
            f"{', '.join(columns) or 'none'})"
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
    """A corpus under a taxonomy: the one named, its own, that of the weak labels, or all labels.

    Raises:
        DataError: when none of its labels has a class.
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
            f"'{chosen.name}' in column {column}; choose another by taxonomy="
        )
    return People(name, utterances, column, chosen, classes, own)


# ---- What ``serzoo label audit`` says: verdicts in words; tables, printed and as Markdown.

CARRY = {
    "none": "the words of {} carry no emotion: weak labels from text can only reflect words, and "
    "are useless here",
    "little": "the words of {} carry next to no emotion: weak labels from text can only reflect "
    "words, and are of little use here",
    "some": "the words of {} tell something of its emotions: weak labels from text can be of use",
}
FUNCTIONS = {
    "sentences": "which sentence it is, learned on other speakers",
    "words": "its words, learned on other speakers (naive Bayes)",
    "scorer": "the scorer",
}
WIDE = 0.1
"""Above chance: of an upper end of an interval, what is said not to be excluded."""


def words(name: str, found: Control) -> str:
    """The verdict, and the numbers that it stands on."""
    best, r = max(found.reached.items(), key=lambda item: item[1].uar)
    wide = r.high == r.high and r.high - found.chance > WIDE and found.verdict != "some"
    return (
        f"{CARRY[found.verdict].format(name)} ({found.utterances} utterances say "
        f"{found.sentences} distinct sentences, {found.shared:.0%} of them under several labels; "
        f"{found.bits['value']:.3f} bits of mutual information, {found.bits['shuffled']:.3f} with "
        f"labels shuffled; the best from text alone is {FUNCTIONS[best]}: UAR {r.uar:.3f} "
        f"({span(r.low, r.high)}), chance {found.chance:.3f}, p {p_text(r.corrected)}"
        + (f"; with so few, up to {r.high:.3f} is not excluded)" if wide else ")")
    )


def unlike_chance(name: str, selected: Mapping[str, Any]) -> list[str]:
    """A warning, where weak labels are no better than ones dealt out anew."""
    if not selected["n"]:
        return [f"none of the utterances of {name} that people labelled has a weak label"]
    if selected["p"] < LEVEL:
        return []
    return [
        f"the weak labels of {name} are no better than chance: UAR {selected['uar']['value']:.3f}, "
        f"{selected['shuffled']:.3f} against shuffled labels, p {p_text(selected['p'])}"
    ]


def tables(found: Mapping[str, Any]) -> Iterator[Table]:
    """The tables of one corpus of a record."""
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
        f"{found['name']}: what text alone tells of {found['column']} "
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
            ("greatest UAR of any function", text["ceiling"]),
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
    lines += [  # the last threshold of those that let the same through
        (f"score of {s['threshold']:g} and more", s)
        for s, after in zip(steps, [*steps[1:], None], strict=True)
        if after is None or after["n"] != s["n"]
    ]
    yield Table(
        f"{name}: weak labels of {found['source']} against {found['utterances']} by people"
        + (f"; p {p_text(selected['p'])} against shuffled ones" if selected["n"] else ""),
        ("labels", "n", "coverage", "accuracy", "95 % interval", "UAR", "95 % interval", "chance"),
        [
            [what, cell(s["n"], "d"), cell(s["coverage"], ".1%"), *_score(s, "wa"),
             *_score(s, "uar"), cell(s.get("chance"))]
            for what, s in lines
        ],
    )  # fmt: skip
    yield Table(
        f"{name}: people's labels (rows) and the selected weak ones",
        ("", *classes, "none"),
        [
            [c, *(cell(n, "d") for n in (*row, selected["unlabelled"][c]))]
            for c, row in zip(classes, selected["confusion"], strict=True)
        ],
    )
    honest = found["reliability"]
    if honest["bins"]:
        yield Table(
            f"{name}: is a score what it says? Calibration error {honest['error']:.3f}",
            ("score", "n", "mean score", "accuracy"),
            [
                [f"{b['low']:.1f} to {b['high']:.1f}", cell(b["n"], "d"), cell(b["score"]),
                 cell(b["accuracy"])]
                for b in honest["bins"]
            ],
        )  # fmt: skip
    if found["soft"] is not None:
        soft = found["soft"]
        yield Table(
            f"{name}: soft labels of {soft['n']} utterances, untempered",
            ("ECE", "classwise ECE", "Brier", "NLL", "AURC", "excess AURC"),
            [[cell(soft[k]) for k in
              ("ece", "classwise_ece", "brier", "nll", "aurc", "excess_aurc")]],
        )  # fmt: skip


def show(record: Mapping[str, Any], console: Console) -> None:
    """Print a record: tables, notes, verdicts, and what is to be warned of last."""
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
    """The same as a page."""
    lines = [f"# Audit of the labels of {record['source']}"]
    for found in record["corpora"]:
        lines += ["", f"## {found['name']}", ""]
        plain_ = [] if found["verdict"] in found["warnings"] else [found["verdict"]]
        lines += [f"- {line}" for line in plain_]
        lines += [f"- **warning:** {line}" for line in found["warnings"]]
        lines += [f"- {line}" for line in found["notes"]]
        for table in tables(found):
            lines += ["", table.markdown().rstrip()]
    lines += [
        "",
        f"Intervals are over speakers. Shuffled: people's labels, within each speaker, "
        f"{record['draws']} times (seed {record['seed']}), and learned anew; p is one-sided.",
    ]
    return "\n".join(lines)


def _score(found: Mapping[str, Any], name: str) -> list[Cell]:
    value = found.get(name, {})
    return [cell(value.get("value")), span_cell(value.get("low"), value.get("high"))]


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
