"""``serzoo label``: transcribe, entail, select; each resumable, the first two sharded."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...zoo.errors import ConfigError, DataError
from ...zoo.registry import Knob, attribute, check_knobs, schema_of
from ...zoo.taxonomy import Taxonomy
from ..catalog import Speech, open_corpora
from ..manifest import Utterance, write_lines, write_manifest
from .entail import TEMPLATES, Entail, Prior
from .folding import fold, fold_rows
from .recognisers import DEFAULT, recogniser
from .scorers import SCORERS, Scorer, device_of, scorer
from .select import Criteria, Selection, select
from .stage import Done, Shard, Stage, rows_of, run
from .telling import rejected, told_labels, told_transcripts, unfinished
from .transcribe import Transcribe, has_text, with_text

Told = Callable[[str, int, int], None]
"""Called with a stage's name, and how many of this shard's rows are done, of how many."""

WAIT = 2.0  # seconds between looks at what other ranks have done


@dataclass(frozen=True)
class Labelled:
    """What a call of :func:`label` came to.

    Attributes:
        folder: of the labels.
        record: what ``labels.json`` holds; None while other shards have rows to compute.
        lines: to be shown.
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
    into: str | None = None,
    threshold: float = Criteria.threshold,
    margin: float = Criteria.margin,
    agreement: float = Criteria.agreement,
    cap: int | None = Criteria.cap,
    neutral: float | None = Criteria.neutral,
    relabel: bool = False,
    shard: str | None = None,
    device: str = "auto",
    asr_options: Mapping[str, Any] | None = None,
    scorer_options: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    told: Told | None = None,
) -> Labelled:
    """Weak labels for the utterances of a manifest, from what is said in them.

    ``out`` then holds ``transcripts.jsonl`` and ``scores.jsonl`` (a row per utterance, and the
    shards that they were put together of), ``manifest.jsonl`` and ``labels.json`` (all settings,
    counts and hashes). A call that was killed is repeated as it was, and ends in the same bytes.

    Args:
        source: a manifest, or a corpus' name.
        taxonomy: whose classes are scored.
        out: folder of the labels.
        root: folder of the audio.
        asr: recogniser for utterances without text (:func:`.recognisers.recogniser`); None = every
            utterance has text.
        scorer: one of :data:`.scorers.SCORERS`, or ``package.module:Class``.
        templates: sentences with ``{}`` for a class; None = :data:`.entail.TEMPLATES`.
        prior: see :class:`.entail.Entail`.
        into: a coarser taxonomy that scores are folded into before they are selected.
        threshold: least score of the best class; see :class:`.select.Criteria`.
        margin: least distance to the second best.
        agreement: least share of templates that agree.
        cap: most utterances of a class.
        neutral: most neutral ones as a share of all.
        relabel: label utterances that have a human label too, which then stands in the column
            ``given`` of ``labels``.
        shard: ``k/n``: compute the k-th of n parts only; None = that of this rank of ``torchrun``
            (``RANK``, ``WORLD_SIZE``), which waits for the others, or all.
        device: where models run; ``auto`` = this rank's GPU where there is one.
        asr_options: keywords of ``recogniser`` and of :class:`.transcribe.Transcribe`.
        scorer_options: keywords of the scorer.
        options: keywords of the corpus' reader.
        told: called as rows are done.

    Raises:
        ConfigError: a setting is wrong, or another than the folder's rows were made with.
        DataError: the manifest cannot be used, or has labels.
    """
    classes = Taxonomy.load(taxonomy)
    coarse = classes if into is None else Taxonomy.load(into)
    folded = None if into is None else fold(classes, coarse)
    criteria = Criteria(threshold, margin, agreement, cap, neutral)
    part, wait = _shard(shard)
    folder = Path(out)
    speech = _opened(source, root, options)
    utterances = _unlabelled(speech.utterances, relabel)
    place = _device(device)

    def finish(stage: Stage, items: Sequence[Utterance]) -> Done:
        progress = (lambda done, total: told(stage.name, done, total)) if told else None
        done = run(stage, items, folder, shard=part, told=progress)
        while wait and not done.complete:  # torchrun ends all ranks when one of them fails
            time.sleep(WAIT)
            done = run(stage, items, folder, shard=part)
        return done

    first = _transcribe(utterances, speech, asr, dict(asr_options or {}), place)
    done = finish(first, utterances)
    lines = []
    if not done.complete:
        return Labelled(folder, None, [unfinished(first, done, part)])
    transcripts = list(rows_of(done.path))
    lines += told_transcripts(transcripts)
    heard = with_text(utterances, transcripts)
    if not heard:
        raise DataError(
            f"none of the {len(utterances)} transcripts can be used ({lines[-1]}); see "
            f"{done.path}, and choose another asr= or lower its limits (asr.min_confidence=null)"
        )
    second = Entail(
        scorer_of(scorer, dict(scorer_options or {}), place),
        classes,
        templates=TEMPLATES if templates is None else templates,
        prior=prior,
    )
    done = finish(second, heard)
    if not done.complete:
        return Labelled(folder, None, [*lines, unfinished(second, done, part)])
    rows = rows_of(done.path)
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
        "transcripts": {"settings": first.settings(), "rejected": rejected(transcripts)},
        "scores": {"settings": second.settings()},
        "selection": chosen.to_dict(),
    }
    record = _write(folder, speech, chosen, record)
    return Labelled(folder, record, [*lines, *told_labels(record, folder)])


KNOBS = {k: v for k, v in schema_of(label).items() if k not in ("told", "options")}


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of :func:`label` from ``key=value``.

    Args:
        values: of its own keywords; ``asr.KEY``, ``scorer.KEY`` are of these, and ``options.KEY``
            of the corpus' reader.

    Raises:
        ConfigError: listing what is unknown, missing or of a wrong type.
    """
    plain = {k: v for k, v in values.items() if "." not in k}
    allowed = {k: v for k, v in KNOBS.items() if not k.endswith("_options")}
    plain = check_knobs("label", allowed, plain)
    grouped: dict[str, dict[str, Any]] = {"asr": {}, "scorer": {}, "options": {}}
    for key, value in values.items():
        group, dot, name = key.partition(".")
        if dot and group not in grouped:
            raise ConfigError(f"label: unknown key '{key}'; have {', '.join(grouped)} with a dot")
        if dot:
            grouped[group][name] = value
    return {
        **plain,
        "asr_options": grouped["asr"],
        "scorer_options": grouped["scorer"],
        "options": grouped["options"],
    }


def _shard(text: str | None) -> tuple[Shard, bool]:
    """The shard of this process, and whether it waits for the others."""
    if text is None:
        rank, world = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1)))
        return (rank + 1, world), world > 1
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit()):
        raise ConfigError(f"shard={text}; write k/n, such as 1/4 for the first of four parts")
    return (int(k), int(n)), False


def _opened(source: str, root: str | None, options: Mapping[str, Any] | None) -> Speech:
    if source.endswith(".jsonl"):
        return open_corpora([], root=root, manifest=source)
    return open_corpora([source], root=root, options=dict(options or {}))


def _unlabelled(utterances: Sequence[Utterance], relabel: bool) -> list[Utterance]:
    """The utterances without their labels; those by people in a column of their own."""

    def human(u: Utterance) -> bool:
        return u.label is not None and not (u.label_source or "").startswith("weak:")

    found = [u for u in utterances if human(u)]
    if found and not relabel:
        raise DataError(
            f"{len(found)} of {len(utterances)} utterances have labels (first: {found[0].id}, "
            f"{found[0].label}, {found[0].label_source or 'of unknown source'}), and weak ones "
            "would take their place; relabel=true does so and keeps them in the column "
            "labels.given, to compare with"
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
    """A scorer by name, its knobs checked, on a device unless they name another."""
    if name in SCORERS:
        knobs = scorer_knobs(name)
        if "device" in knobs:
            given = {"device": device, **given}
        given = check_knobs(f"scorer={name}, by scorer.KEY", knobs, given)
    return scorer(name, **given)


def asr_knobs() -> dict[str, Knob]:
    """What ``asr.KEY`` may set: the recogniser's keywords, and the limits of transcripts."""
    return {**schema_of(Transcribe), **schema_of(recogniser)}


def scorer_knobs(name: str) -> dict[str, Knob]:
    """What ``scorer.KEY`` may set; nothing is known of a scorer of a third party."""
    return schema_of(attribute(SCORERS[name])) if name in SCORERS else {}


def _write(
    folder: Path, speech: Speech, chosen: Selection, record: dict[str, Any]
) -> dict[str, Any]:
    """The manifest, what it says of itself, and the record of all settings."""
    manifest = folder / "manifest.jsonl"
    several = len(speech.roots) > 1  # each in a folder of its name, unless all in one
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
