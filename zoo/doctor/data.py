"""Checks of the data: lengths, sound, rates, classes, folds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...datamodules.audio import decode_utterance
from ...datamodules.audit import audit
from ...datamodules.protocols import Protocol
from ..core.errors import DataError, some
from ..core.speakers import counted_speakers
from ..core.types import SAMPLE_RATE
from .findings import Finding, error, note, ok, warning
from .trial import Trial

PARTS = ("train", "valid", "test")

# all of these are our choice
SHORT = 0.1  # seconds; shorter speech hardly has an emotion
CUT = 0.05  # share of a part that may be cut without a warning
SAMPLE = 64  # number of files that are decoded
SILENT = 1e-3  # largest value of a silent file, at full scale 1 (-60 dB)
FULL_SCALE = 0.999
CLIPPED = 1e-3  # share of a file's samples at full scale
APART = 0.1  # largest allowed difference in the share of a rate between groups


def corpus(trial: Trial) -> Iterator[Finding]:
    """Yield the content of the corpora, and the findings of ``prepare``."""
    speech = trial.everything.speech
    for name in speech.roots:
        notes = speech.notes.get(name, {})
        mine = [u for u in speech.utterances if u.corpus == name]
        who = {f"{name}/{u.speaker or ''}" for u in mine}
        found = f"{name}: {len(mine)} utterances of {counted_speakers(who)}"
        if refused := notes.get("refused"):
            reasons = ", ".join(f"{n} {why}" for why, n in refused.items())
            yield note(
                f"{found}; left out when it was prepared: {reasons} (`serzoo prepare` names them)",
                refused=refused,
            )
        else:
            yield ok(found)
        for text in notes.get("warnings", ()):
            yield warning(text)
        for text in notes.get("remarks", ()):
            yield note(text)
        if changed := notes.get("changed_since_prepared"):
            yield warning(
                f"{name}: the audio of {changed} files has changed since the manifest was written; "
                "prepare the corpus again"
            )


def clip_lengths(trial: Trial) -> Iterator[Finding]:
    """Yield utterances that are shorter than a frame, or longer than training uses."""
    encoder, limit = trial.module.encoder, trial.cfg.data.max_seconds
    family = getattr(encoder, "family", None)
    frame = family.min_samples / SAMPLE_RATE if family is not None else encoder.frame_seconds
    least = max(SHORT, frame)
    everyone = sorted(_everyone(trial), key=lambda u: u.duration)
    short = [u for u in everyone if u.duration < least]
    if short:
        yield warning(
            f"{len(short)} of {len(everyone)} utterances are shorter than {least:.2g} s "
            f"({some((f'{u.id}: {u.duration:.3f} s' for u in short), 4)}), so they hold hardly any "
            "speech; listen to them, and leave them out of the manifest",
            short=[u.id for u in short],
        )
    parts = {p: d.utterances for p, d in trial.data.datasets.items() if d.utterances}
    cut = {p: sum(u.duration > limit for u in us) for p, us in parts.items()}
    if any(cut.values()):
        lost = sum(max(0.0, u.duration - limit) for u in everyone)
        shares = ", ".join(f"{n} of {len(parts[p])} in {p}" for p, n in cut.items())
        share = max(n / len(parts[p]) for p, n in cut.items())
        message = (
            f"cut to data.max_seconds={limit:g}: {shares}; {lost:.0f} s "
            f"({lost / sum(u.duration for u in everyone):.1%} of all speech) are not used"
        )
        if share > CUT:
            yield warning(f"{message}: raise data.max_seconds, or segment the corpus", cut=cut)
        else:
            yield note(message, cut=cut)
    first, last = everyone[0], everyone[-1]
    yield ok(
        f"{len(everyone)} utterances, {sum(u.duration for u in everyone) / 3600:.2f} h: from "
        f"{first.duration:.2f} s ({first.id}) to {last.duration:.2f} s ({last.id}), median "
        f"{everyone[len(everyone) // 2].duration:.2f} s; data.max_seconds={limit:g}",
        shortest=first.duration,
        longest=last.duration,
    )


def sound(trial: Trial) -> Iterator[Finding]:
    """Yield silent and clipped files, in a sample of all files."""
    decode = decode_utterance
    everyone = _everyone(trial)
    rng = np.random.default_rng(trial.cfg.seed)
    chosen = rng.choice(len(everyone), min(SAMPLE, len(everyone)), replace=False)
    silent, clipped, broken = [], [], []
    for u in (everyone[i] for i in sorted(chosen)):
        try:
            level = np.abs(decode(u, trial.everything.speech.roots[u.corpus])[0])
        except DataError as problem:
            broken.append(str(problem))
            continue
        if not np.isfinite(level).all() or level.max() < SILENT:
            silent.append(u.id)
        elif (level >= FULL_SCALE).mean() > CLIPPED:
            clipped.append(u.id)
    heard = f"of {len(chosen)} files drawn at random"
    facts = {"silent": silent, "clipped": clipped, "unreadable": broken}
    if broken:
        yield error(f"{len(broken)} {heard} cannot be read: {some(broken, 2)}", **facts)
    if silent:
        yield warning(
            f"{len(silent)} {heard} are silent (below -60 dB of full scale) or not numbers: "
            f"{some(silent, 4)}; from a label on silence a model learns only the class "
            "frequencies: leave them out",
            **facts,
        )
    if clipped:
        yield warning(
            f"{len(clipped)} {heard} are clipped (more than {CLIPPED:.1%} of their samples at full "
            f"scale): {some(clipped, 4)}; loud emotions clip first, so distortion may reveal the "
            "class: compare their number between classes, or record them again",
            **facts,
        )
    if not (broken or silent or clipped):
        yield ok(f"none {heard} is silent or clipped", **facts)


def sample_rates(trial: Trial) -> Iterator[Finding]:
    """Yield the sample rates of the files, and whether a rate reveals a group."""
    everyone = _everyone(trial)
    rates = Counter(u.sample_rate for u in everyone)
    shown = ", ".join(f"{n} files of {rate / 1000:g} kHz" for rate, n in sorted(rates.items()))
    facts = {"rates": {str(rate): n for rate, n in sorted(rates.items())}}
    low = sum(n for rate, n in rates.items() if rate < SAMPLE_RATE)
    if low:
        yield warning(
            f"{low} of {len(everyone)} files have less than 16 kHz and are upsampled ({shown}): "
            "their upper bands are empty, unlike the training data of encoders; a test on "
            "wide-band recordings will be worse, so use the originals if they have 16 kHz or more",
            **facts,
        )
    if len(rates) > 1:
        part_of = {u.id: p for p, us in trial.data.split.parts() for u in us}
        class_of = dict(zip((u.id for u in everyone), _classes(trial), strict=True))
        classes = trial.data.taxonomy.classes
        groups: dict[str, Callable[[Any], str]] = {
            "part": lambda u: part_of[u.id],
            "class": lambda u: classes[class_of[u.id]],
            "corpus": lambda u: str(u.corpus),
        }
        apart = {what: gap for what, of in groups.items() if (gap := _widest_gap(everyone, of))}
        for what, gap in apart.items():
            yield warning(
                f"the sample rate reveals the {what} ({gap}): a model can learn the band limit "
                "instead of the emotion; resample all files to the lowest rate before use, or keep "
                "one rate",
                **facts,
            )
        if not apart and not low:
            yield note(f"{shown}; spread alike over parts, classes and corpora", **facts)
    elif not low:
        same = ", as encoders want it" if SAMPLE_RATE in rates else "; resampled to 16 kHz"
        yield ok(f"{shown}{same}", **facts)


def _widest_gap(utterances: list[Any], of: Callable[[Any], str]) -> str:
    """Return in words the rate whose share differs most between groups; "" if none does."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for u in utterances:
        counts[of(u)][u.sample_rate] += 1
    widest = (0.0, "")
    for rate in {u.sample_rate for u in utterances}:
        shares = sorted((c[rate] / c.total(), group) for group, c in counts.items())
        (least, few), (most, many) = shares[0], shares[-1]
        text = f"{rate / 1000:g} kHz are {most:.0%} of {many}, {least:.0%} of {few}"
        widest = max(widest, (most - least, text))
    return widest[1] if widest[0] > APART else ""


def class_coverage(trial: Trial) -> Iterator[Finding]:
    """Yield the classes that each part of each fold has, and the labels that the taxonomy drops."""
    taxonomy = trial.data.taxonomy
    classes = taxonomy.classes
    class_of = dict(zip((u.id for u in _everyone(trial)), _classes(trial), strict=True))
    smallest: dict[str, tuple[int, str, int]] = {}
    missing: dict[tuple[str, str], list[int]] = defaultdict(list)
    unscored: set[str] = set()
    bad = 0
    for fold, split in _folds(trial):
        if isinstance(split, str):
            bad += 1
            yield error(f"fold {fold} cannot be made: {split}")
            continue
        for part, utterances in split.parts():
            if not utterances and part != "train":  # a protocol without scores
                unscored.add(part)
                continue
            counts = Counter(classes[class_of[u.id]] for u in utterances)
            least = min((counts[c], c, fold) for c in classes)
            smallest[part] = min(smallest.get(part, least), least)
            if absent := [c for c in classes if not counts[c]]:
                missing[part, some(absent, 9)].append(fold)
    for (part, absent_classes), folds in sorted(missing.items()):
        where = f"fold {folds[0]}" if len(folds) == 1 else f"folds {some(map(str, folds), 30)}"
        found = f"{where}: {part} has no utterance of {absent_classes}"
        if part == "train":
            yield error(
                f"{found}, and no model can be trained; choose a taxonomy or protocol under which "
                "every class is trained",
                folds=folds,
            )
        else:
            what = "selection" if part == "valid" else "test"
            yield warning(
                f"{found}; the {what} score is then a mean over the other classes, so folds "
                "cannot be compared",
                folds=folds,
            )
    bad += len(missing)
    rows = ", ".join(f"{p} {n} ({c}, fold {f})" for p, (n, c, f) in smallest.items())
    if smallest and not bad:
        yield ok(f"every class is in every part of every fold; smallest classes: {rows}")
    if unscored:
        yield note(
            f"no utterance is in {' or '.join(sorted(unscored))}: the last epoch is kept, and "
            "nothing is scored"
        )
    dropped = dict(trial.everything.coverage.dropped) if trial.everything.coverage else {}
    if dropped:
        left = ", ".join(f"{n} {label}" for label, n in dropped.items())
        total = sum(dropped.values()) + len(class_of)
        yield note(
            f"taxonomy '{taxonomy.name}' leaves out {sum(dropped.values())} of {total} utterances: "
            f"{left}",
            dropped=dropped,
        )


def leakage(trial: Trial) -> Iterator[Finding]:
    """Yield the findings of the audit of every fold."""
    # folds that cannot be split are reported under class coverage
    reports = [audit(split) for _, split in _folds(trial) if not isinstance(split, str)]
    for report in reports:
        if not report.ok:
            yield error(f"fold {report.fold}: " + "; ".join(report.errors), fold=report.fold)
    for text, n in Counter(u for r in reports for u in r.unsure).items():
        yield warning(f"in {n} of {len(reports)} folds it is unknown {text}")
    if reports and all(r.ok and not r.unsure for r in reports):
        yield ok(f"no speaker and no recording is in two parts of any of {len(reports)} folds")
    same = max((sum(r.counts[f"{p}_duplicates"] for p in PARTS) for r in reports), default=0)
    if same:
        yield note(
            f"recordings that occur again under another id within a part of a fold: {same}; "
            "`serzoo audit` names them",
            duplicates=same,
        )
    shares: list[float] = [
        r.counts["train_test_utterances_with_shared_sentence"] / r.counts["test_utterances"]
        for r in reports
        if r.counts["test_utterances"]
    ]
    if shares and max(shares) > 0:
        least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
        between = most if least == most else f"{least} to {most}"
        yield note(
            f"{between} of the test utterances have a sentence that is also in training, as is "
            "usual in acted corpora; a head that reads transcripts profits from it",
            shared_sentences=shares,
        )
    counted = ("holds the same audio", "heard in training")  # reported above, for all folds
    others = Counter(n for r in reports for n in r.notes if not any(c in n for c in counted))
    for text, n in others.items():
        yield note(text if n == len(reports) else f"{text} (in {n} of {len(reports)} folds)")


def _everyone(trial: Trial) -> list[Any]:
    found: list[Any] = trial.everything.datasets["test"].utterances
    return found


def _classes(trial: Trial) -> list[int]:
    found: list[int] = trial.everything.datasets["test"].classes.tolist()
    return found


def _folds(trial: Trial) -> Iterator[tuple[int, Any]]:
    """Yield number and split of each fold; if a split cannot be made, the reason instead."""
    rule = Protocol.load(str(trial.cfg.protocol))
    everyone = _everyone(trial)
    try:
        number = rule.n_folds(everyone)
    except DataError as problem:
        yield trial.cfg.fold, str(problem)
        return
    for fold in range(number):
        try:
            accepted = trial.cfg.data.unknown_speakers
            yield fold, rule.split(everyone, fold, unknown_speakers=accepted)
        except DataError as problem:
            yield fold, str(problem)
