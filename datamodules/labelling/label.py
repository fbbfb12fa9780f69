"""``serzoo label``: transcribe, entail, select; all stages can resume, the first two have shards.

:func:`label` runs the stages. :func:`trace` shows where the label of an utterance came from.
:func:`settings` checks the options of the command line.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...zoo.core.errors import ConfigError, DataError, suggest, tally
from ...zoo.core.files import check_place
from ...zoo.core.own import adopt
from ...zoo.core.progress import Bar
from ...zoo.core.registry import Knob, check_knobs, get, names, schema_of
from ...zoo.core.taxonomy import Taxonomy
from ..catalog import Speech, open_corpora
from ..manifest import Utterance, read_manifest, write_lines, write_manifest
from .asr import DEFAULT, Transcribe, has_text, recogniser, with_text
from .entail import TEMPLATES, Entail, Prior
from .scorers import Scorer, device_of, scorer
from .select import (
    Criteria,
    Selection,
    centre_of,
    centred,
    fold,
    fold_rows,
    one_sided_text,
    scored,
    select,
)
from .stage import Done, Shard, Stage, read_labels, rows_of, run

# Texts about the stages.


def rejected(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the number of rejected transcripts, by reason."""
    return dict(Counter(r["rejected"] for r in rows if r["rejected"] is not None))


def unfinished(stage: Stage, done: Done, shard: Shard) -> str:
    """Return the text for the user if other shards still have rows to compute."""
    return (
        f"{stage.name}: shard {shard[0]} of {shard[1]} is done, and {done.total - done.present} of "
        f"{done.total} rows are left to other shards; run this command again when they are done"
    )


def transcript_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return lines for the user: numbers of transcripts by source, and of rejected ones."""
    sources = Counter(r["text_source"] or "none" for r in rows)
    lost = rejected(rows)
    gone = f"; rejected: {tally(lost)}" if lost else ""
    return [f"transcripts: {len(rows)} ({tally(sources)}){gone}"]


def label_lines(record: Mapping[str, Any], folder: Path) -> list[str]:
    """Return lines for the user: counts after each criterion, by class, and by threshold."""
    chosen = record["selection"]
    shown = [f"scores: {record['source']}, {len(record['taxonomy']['classes'])} classes"]
    for step in chosen["counts"]:
        value = "" if step["value"] is None else f" {step['value']:g}"
        if value or step["before"] != step["after"]:
            shown.append(f"select: {step['criterion']}{value}: {step['before']} -> {step['after']}")
    counted = next(c["classes"] for c in chosen["counts"] if c["criterion"] == "words")
    if warning := one_sided_text(counted or {}, record["source"]):
        shown.append(f"warning: {warning}")
    last = chosen["counts"][-1]["classes"] or {}
    shown.append(f"labelled: {sum(last.values())} ({tally(last)})")
    shown.append(
        "coverage at thresholds: "
        + ", ".join(f"{c['threshold']:g} {c['share']:.0%}" for c in chosen["coverage"][8::2])
    )
    return [*shown, f"manifest: {folder / 'manifest.jsonl'}"]


# The origin of a weak label: audio, transcript, scores by template, criteria.


def trace(out: str | Path, id: str) -> dict[str, Any]:
    """Return how an utterance got its label, or why it has none.

    The label is computed again from the row of scores, and must equal that of the manifest. Caps
    are an exception, because they depend on other utterances too.

    Args:
        out: folder of ``serzoo label``.
        id: id of the utterance.

    Returns:
        ``utterance``, ``transcript`` and ``scores`` (None if it was rejected) from their files.
        Further ``settings`` of both stages and ``criteria``. ``folded`` maps a class to a coarser
        class. ``lost_at`` is the criterion that it failed, or None.

    Raises:
        DataError: if the folder is not finished, a file has changed, or the id is unknown. Also
            if the label does not follow from the scores.
    """
    folder = Path(out)
    path = folder / "labels.json"
    if not path.is_file():
        raise DataError(f"no {path}; run `serzoo label ... out={folder}` to its end")
    record = read_labels(folder)
    for name, digest in record["files"].items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise DataError(
                f"{file} is not the file that {path.name} describes; run `serzoo label` again with "
                "the same settings"
            )
    found = {u.id: u for u in read_manifest(folder / "manifest.jsonl")}
    if id not in found:
        raise DataError(f"no utterance {id} in {folder}{_near(id, found)}")
    scores = next((row for row in scored(folder, record) if row["id"] == id), None)
    return {
        "utterance": found[id],
        "transcript": _row(folder / "transcripts.jsonl", id),
        "scores": scores,
        "settings": {k: record[k]["settings"] for k in ("transcripts", "scores")},
        "criteria": record["selection"]["criteria"],
        "folded": record["folded"],
        "centre": record.get("centre"),
        "lost_at": _lost(found[id], scores, record),
    }


def shown(traced: Mapping[str, Any]) -> list[str]:
    """Return a trace as lines of text."""
    u, transcript, row = traced["utterance"], traced["transcript"], traced["scores"]
    settings = traced["settings"]
    sure = transcript["confidence"]
    lines = [
        f"{u.id}: {u.audio}, {u.start:.2f} to {u.end:.2f} s",
        f'says: "{transcript["text"] or ""}" ({transcript["text_source"] or "not transcribed"}'
        + (f", confidence {sure:.3f})" if sure is not None else ")"),
    ]
    if transcript["rejected"] is not None:
        return [*lines, f"rejected: {transcript['rejected']}; no label"]
    lines.append(f"scored by {settings['scores']['source']}: {settings['scores']['scale']}")
    ranked = sorted(row["scores"].items(), key=lambda pair: -pair[1])
    lines.append("scores: " + ", ".join(f"{c} {s:.3f}" for c, s in ranked[:5]))
    scored = settings["scores"]
    by_template = zip(scored["templates"], row["by_template"], scored["prior"], strict=True)
    for template, each, prior in by_template:
        values = dict(zip(row["scores"], each, strict=True))
        empty = dict(zip(row["scores"], prior, strict=True))
        best = ", ".join(f"{c} {values[c]:+.2f} (prior {empty[c]:+.2f})" for c, _ in ranked[:3])
        lines.append(f"  '{template}': {best}")
    if traced["centre"] is not None:
        lines.append("centred: the mean log-odds of all transcripts are subtracted")
    if traced["folded"] is not None:
        into = (f"{c} is {traced['folded'][c] or 'left out'}" for c, _ in ranked[:5])
        lines.append(f"folded: {', '.join(into)}")
    if (lost := traced["lost_at"]) is not None:
        value = traced["criteria"].get(lost)
        return [*lines, f"no label: lost at {lost}{'' if value is None else f' {value:g}'}"]
    return [*lines, f"label: {u.label}, {u.label_score:.3f} ({u.label_source})"]


def _lost(u: Utterance, row: dict[str, Any] | None, record: Mapping[str, Any]) -> str | None:
    """Return the criterion that an utterance failed, by its own row of scores; None if none.

    If it passed all of these and has no label, a cap is the reason.
    """
    taxonomy = Taxonomy.from_dict(record["taxonomy"])
    rows = [] if row is None else [row]
    if record["folded"] is not None and row is not None:
        fine = Taxonomy.from_dict(record["scores"]["settings"]["taxonomy"])
        rows = list(fold_rows(rows, fine, taxonomy))
    full = record["selection"]["criteria"]
    others = dict.fromkeys(("cap", "balance", "neutral"))  # they depend on other utterances
    criteria = Criteria(**{**full, **others})
    alone = select([u], rows, taxonomy, record["source"], criteria)
    again = alone.utterances[0]
    lost = next((c["criterion"] for c in alone.counts if c["after"] == 0), None)
    if lost is None and u.label is None:
        neutral = taxonomy.class_of("neutral")
        of_neutral = neutral is not None and again.label == taxonomy.classes[neutral]
        limits = [name for name in others if full.get(name) is not None]
        return " or ".join(name for name in limits if name != "neutral" or of_neutral)
    if (again.label, again.label_score) != (u.label, u.label_score):
        raise DataError(
            f"the label of {u.id} is {u.label} ({u.label_score}), but its scores make it "
            f"{again.label} ({again.label_score}); run `serzoo label` again"
        )
    return lost


def _row(path: Path, id: str) -> dict[str, Any] | None:
    return next((row for row in rows_of(path) if row["id"] == id), None)


def _near(id: str, known: Mapping[str, Any]) -> str:
    text = suggest(id, known)
    return text if len(known) <= 10 else text[text.find("; did") :] if "; did" in text else ""


# The command.

Report = Callable[[str, int, int], None]
"""Takes a stage's name, the number of finished rows of this shard, and the number of its rows."""

WAIT = 2.0  # seconds between two looks at the work of other ranks


@contextmanager
def progress() -> Iterator[Report]:
    """Context that gives a function to show the progress of :func:`label` on standard error.

    A terminal shows a bar for each stage; a file gets lines (:class:`.progress.Bar`).
    """
    with Bar("", 0) as bar:

        def report(name: str, done: int, total: int) -> None:
            bar.reach(done, total, name)

        yield report


@dataclass(frozen=True)
class Labelled:
    """The result of a call of :func:`label`.

    Attributes:
        folder: folder of the labels.
        record: content of ``labels.json``; None while other shards still have rows to compute.
        lines: lines for the user.
    """

    folder: Path
    record: dict[str, Any] | None
    lines: list[str]


def label(
    source: str,
    *,
    taxonomy: str,
    out: str,
    root: str | None = None,
    asr: str | None = DEFAULT,
    scorer: str = "nli",
    templates: list[str] | None = None,
    prior: Prior = "subtract",
    centre: bool = False,
    into: str | None = None,
    threshold: float = Criteria.threshold,
    margin: float = Criteria.margin,
    agreement: float = Criteria.agreement,
    cap: int | None = Criteria.cap,
    balance: float | None = Criteria.balance,
    neutral: float | None = Criteria.neutral,
    relabel: bool = False,
    shard: str | None = None,
    device: str = "auto",
    asr_options: Mapping[str, Any] | None = None,
    scorer_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Labelled:
    """Make weak labels for the utterances of a manifest, from their words.

    ``out`` then holds ``transcripts.jsonl`` and ``scores.jsonl``: a row per utterance, with their
    shards. It also holds ``manifest.jsonl`` and ``labels.json`` (all settings, counts and hashes).
    Repeat a killed call with the same arguments; it gives the same bytes.

    Args:
        source: a manifest, or the name of a corpus.
        taxonomy: the taxonomy of the scored classes.
        out: folder of the labels.
        root: folder of the audio.
        asr: recogniser for utterances without text (:func:`.asr.recogniser`); None = every
            utterance has text.
        scorer: a registered name, ``FILE.py:Class`` or ``package.module:Class``.
        templates: sentences with ``{}`` for a class; None = :data:`.entail.TEMPLATES`.
        prior: see :class:`.entail.Entail`.
        centre: subtract from each class's log-odds their mean over all transcripts, before they are
            selected. A scorer that prefers one class then has no preference. A score of 1/2 means:
            as much as in other transcripts.
        into: a coarser taxonomy that scores are folded into before they are selected.
        threshold: smallest score of the best class; see :class:`.select.Criteria`.
        margin: smallest distance to the second best class.
        agreement: smallest share of templates that agree.
        cap: largest number of utterances of a class.
        balance: largest number of utterances of a class, as a multiple of the rarest class.
        neutral: largest share of neutral ones.
        relabel: also label utterances that have a human label; the human label then moves to the
            column ``given`` of ``labels``.
        shard: ``k/n``: compute only the k-th of n parts. None = the part of this rank of
            ``torchrun`` (``RANK``, ``WORLD_SIZE``), which waits for the others; without torchrun,
            all parts.
        device: device of the models; ``auto`` = this rank's GPU if there is one.
        asr_options: options of ``recogniser`` and of :class:`.asr.Transcribe`.
        scorer_options: options of the scorer.
        options: options of the corpus' reader.
        report: called when rows are finished.

    Raises:
        ConfigError: if a setting is wrong, or differs from the setting of the rows in the folder.
        OSError: if ``out`` cannot be written.
        DataError: if the manifest cannot be used, or has labels.
    """
    classes = Taxonomy.load(taxonomy)
    coarse = classes if into is None else Taxonomy.load(into)
    folded = None if into is None else fold(classes, coarse)
    criteria = Criteria(threshold, margin, agreement, cap, balance, neutral)
    part, wait = _shard(shard)
    folder = Path(out)
    check_place(folder / "labels.json")
    if ":" not in scorer:
        get("scorers", scorer)
    speech = _opened(source, root, options, report is not None)
    utterances = _unlabelled(speech.utterances, relabel)
    place = _device(device)

    def finish(stage: Stage, items: Sequence[Utterance]) -> Done:
        show = (lambda done, total: report(stage.name, done, total)) if report else None
        done = run(stage, items, folder, shard=part, report=show)
        while wait and not done.complete:  # torchrun ends all ranks when one of them fails
            time.sleep(WAIT)
            done = run(stage, items, folder, shard=part)
        return done

    # both before hours of recognition: what is wrong with one is said now
    first = _transcribe(utterances, speech, asr, dict(asr_options or {}), place)
    second = Entail(
        scorer_of(scorer, dict(scorer_options or {}), place),
        classes,
        templates=TEMPLATES if templates is None else templates,
        prior=prior,
    )
    done = finish(first, utterances)
    lines = []
    if not done.complete:
        return Labelled(folder, None, [unfinished(first, done, part)])
    transcripts = list(rows_of(done.path))
    lines += transcript_lines(transcripts)
    heard = with_text(utterances, transcripts)
    if not heard:
        raise DataError(
            f"none of the {len(utterances)} transcripts can be used ({lines[-1]}); see "
            f"{done.path}, and set another asr=, or lower limits such as asr.min_confidence=null"
        )
    done = finish(second, heard)
    if not done.complete:
        return Labelled(folder, None, [*lines, unfinished(second, done, part)])
    rows: Iterable[Mapping[str, Any]] = rows_of(done.path)
    mean = centre_of(rows_of(done.path), classes.classes) if centre else None
    if mean is not None:
        rows = centred(rows, classes.classes, mean)
    chosen = select(
        utterances,
        rows if into is None else fold_rows(rows, classes, coarse),
        coarse,
        second.scorer.source,
        criteria,
    )
    record = {
        "source": second.scorer.source,
        "taxonomy": coarse.to_dict(),
        "folded": folded,
        "centre": None if mean is None else mean.tolist(),
        "transcripts": {"settings": first.settings(), "rejected": rejected(transcripts)},
        "scores": {"settings": second.settings()},
        "selection": chosen.to_dict(),
    }
    record = _write(folder, speech, chosen, record)
    return Labelled(folder, record, [*lines, *label_lines(record, folder)])


KNOBS = {k: v for k, v in schema_of(label).items() if k not in ("report", "options")}


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of :func:`label` from ``key=value``.

    Args:
        values: values by key. ``asr.KEY`` and ``scorer.KEY`` are options of these, and
            ``options.KEY`` options of the corpus' reader.

    Raises:
        ConfigError: if a key is unknown or missing, or a value has a wrong type; the message
            lists them.
    """
    return grouped_settings("label", KNOBS, values, ("asr", "scorer", "options"))


def grouped_settings(
    verb: str, knobs: Mapping[str, Knob], values: Mapping[str, Any], groups: Sequence[str]
) -> dict[str, Any]:
    """Return arguments from ``key=value``; keys with a dot are put together by their group.

    Args:
        verb: the command, for messages.
        knobs: the keys without a dot; ``GROUP_options`` among them are ignored.
        values: values by key.
        groups: allowed groups; ``GROUP.KEY`` becomes a key of ``GROUP_options``, and
            ``options.KEY`` a key of ``options``.

    Raises:
        ConfigError: if a key is unknown or missing, or a value has a wrong type.
    """
    plain = {k: v for k, v in values.items() if "." not in k}
    allowed = {k: v for k, v in knobs.items() if not k.endswith("_options")}
    found = check_knobs(verb, allowed, plain)
    grouped: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for key, value in values.items():
        group, dot, name = key.partition(".")
        if dot and group not in grouped:
            have = ", ".join(f"{group}.KEY" for group in groups)
            raise ConfigError(f"{verb}: unknown key '{key}'; have {have}")
        if dot:
            grouped[group][name] = value
    return found | {g if g == "options" else f"{g}_options": grouped[g] for g in groups}


def _shard(text: str | None) -> tuple[Shard, bool]:
    """Return the shard of this process, and whether it waits for the others."""
    if text is None:
        rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        return (rank + 1, world), world > 1
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit()):
        raise ConfigError(f"shard={text}; write k/n, such as 1/4 for the first of four parts")
    return (int(k), int(n)), False


def _opened(
    source: str, root: str | None, options: Mapping[str, Any] | None, progress: bool
) -> Speech:
    if source.endswith(".jsonl"):
        return open_corpora([], root=root, manifest=source)
    return open_corpora([source], root=root, options=dict(options or {}), progress=progress)


def _unlabelled(utterances: Sequence[Utterance], relabel: bool) -> list[Utterance]:
    """Return the utterances without labels; human labels move to a column of their own."""

    def human(u: Utterance) -> bool:
        return u.label is not None and not u.weak

    found = [u for u in utterances if human(u)]
    if found and not relabel:
        raise DataError(
            f"{len(found)} of {len(utterances)} utterances have labels (first: {found[0].id}, "
            f"{found[0].label}, {found[0].label_source or 'of unknown source'}), and weak labels "
            "would replace them; set relabel=true to replace them, and to keep the old ones in "
            "the column labels.given for a comparison"
        )
    return [
        replace(
            u,
            label=None,
            label_source=None,
            label_score=None,
            labels={**u.labels, "given": str(u.label)} if human(u) else u.labels,
        )
        for u in utterances
    ]


def _device(name: str) -> str:
    local = os.environ.get("LOCAL_RANK")
    found = device_of(name)
    if name == "auto" and found.type == "cuda" and local is not None:
        return f"cuda:{local}"
    return str(found)


def _transcribe(
    utterances: Sequence[Utterance],
    speech: Speech,
    asr: str | None,
    given: dict[str, Any],
    device: str,
) -> Transcribe:
    ours, theirs = schema_of(Transcribe), schema_of(recogniser)
    given = check_knobs("asr", asr_knobs(), given)
    limits = {k: v for k, v in given.items() if k in ours}
    rest = {k: v for k, v in given.items() if k in theirs}
    found = None
    if asr is not None and not all(map(has_text, utterances)):
        found = recogniser(asr, **{"device": device, **rest})
    return Transcribe(found, speech.roots, **limits)


def scorer_of(name: str, given: dict[str, Any], device: str) -> Scorer:
    """Return a scorer by name, with checked options.

    ``device`` applies unless the options name one.
    """
    if ":" not in name:
        knobs = scorer_knobs(name)
        if "device" in knobs:
            given = {"device": device, **given}
        given = check_knobs(f"scorer={name}, by scorer.KEY", knobs, given)
    return scorer(name, **given)


def asr_knobs() -> dict[str, Knob]:
    """Return the options of ``asr.KEY``: those of the recogniser, and the limits of transcripts."""
    return {**schema_of(Transcribe), **schema_of(recogniser)}


def scorer_knobs(name: str) -> dict[str, Knob]:
    """Return the options of ``scorer.KEY``; empty if no scorer has this name."""
    name = adopt("scorers", name, base=Scorer)
    return schema_of(get("scorers", name)) if name in names("scorers") else {}


def _write(
    folder: Path, speech: Speech, chosen: Selection, record: dict[str, Any]
) -> dict[str, Any]:
    """Write the manifest, the facts beside it, and the record of all settings."""
    manifest = folder / "manifest.jsonl"
    several = len(speech.roots) > 1  # each in a folder with its name, unless all are in one
    roots = {r.parent if several and r.name == c else r for c, r in speech.roots.items()}
    sidecar: dict[str, Any] = {"notes": {"labels": "labels.json"}}
    if len(roots) == 1:
        sidecar["root"] = str(roots.pop().resolve())
    write_lines(folder / "manifest.json", [json.dumps(sidecar, indent=1, ensure_ascii=False)])
    write_manifest(manifest, chosen.utterances)
    record["files"] = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (folder / "transcripts.jsonl", folder / "scores.jsonl", manifest)
    }
    write_lines(folder / "labels.json", [json.dumps(record, indent=1, ensure_ascii=False)])
    return record
