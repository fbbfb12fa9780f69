"""What a prepared corpus has, against what its publisher counts and what taxonomies can hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..zoo.core.notices import shown
from ..zoo.core.taxonomy import canonical
from .info import CorpusInfo
from .manifest import Utterance

RARE = 0.02  # share of files whose sample rate is told as odd, one file at least (our choice)
SEVERAL = 4  # utterances of one label that are a corpus, not a trial (our choice)
MANY = 8  # files of one length that are hardly chance (our choice)


@dataclass(frozen=True)
class Notice:
    """Something to know about a prepared corpus.

    Attributes:
        kind: ``count`` (published counts are not met), ``reader`` (left out by the reader),
            ``passed`` (passed over on purpose, or taken under another name), ``label`` (not in the
            canonical vocabulary, or lost), ``content`` (what recordings have in common), or
            ``channels`` (they are not one sound).
        message: what was found, what is allowed, what to do next.
        fault: False = a fact to know, which is no reason for ``prepare`` to end with 1.
    """

    kind: str
    message: str
    fault: bool = True

    def __str__(self) -> str:
        return self.message


def count_notice(info: CorpusInfo, utterances: list[Utterance], refused: int = 0) -> Notice | None:
    """What is missing of a published corpus, or too much; None where all published counts are met.

    Args:
        info: of the corpus, with the expected counts.
        utterances: of the manifest.
        refused: number of refusals, told because it explains what is missing.
    """
    expected, parts = info.expected, []
    speakers = Counter(u.speaker for u in utterances if u.speaker)
    if expected.speakers is not None and len(speakers) != expected.speakers:
        parts.append(f"{len(speakers)} of {expected.speakers} speakers")
    if (expected.speakers or expected.per_speaker) and (n := len(utterances) - speakers.total()):
        parts.append(f"{n} utterances without a speaker")
    parts += _differences("speaker", expected.per_speaker, speakers, {})
    labels = Counter(u.label for u in utterances if u.label is not None)
    spoken = {raw: name for raw, name in info.labels.items() if name not in (None, raw)}
    parts += _differences("label", expected.labels, labels, spoken)
    total = expected.utterances
    if not parts and total in (None, len(utterances)):
        return None
    head = f"{info.name}: {len(utterances)} of {total} utterances" if total else info.name
    if refused:
        head += f" ({refused} refused)"
    where = f" from {info.url}" if info.url else ""
    if total is not None and len(utterances) > total:
        remedy = "remove what is not of the published corpus"
    else:
        remedy = f"unpack the complete corpus{where}"
    return Notice("count", "; ".join([head, *parts, f"{remedy}, or report your own number"]))


def nothing_labelled(info: CorpusInfo, utterances: Sequence[Utterance]) -> list[Notice]:
    """Told of a corpus that nobody has labelled: it cannot be trained or tested on."""
    if any(u.label is not None or u.labels for u in utterances):
        return []
    message = (
        f"{info.name}: none of {len(utterances)} utterances is labelled; `serzoo label` and "
        "`serzoo predict` need no labels, but training and testing do"
    )
    return [Notice("label", message, fault=False)]


def _differences(
    what: str, expected: dict[str, int], found: Counter[str], spoken: Mapping[str, str | None]
) -> list[str]:
    if not expected:
        return []
    parts = []
    for key, number in expected.items():
        name = f"{what} {key} ({spoken[key]})" if key in spoken else f"{what} {key}"
        if not found[key]:
            parts.append(f"{name} is missing ({number})")
        elif found[key] < number:
            parts.append(f"{name} lacks {number - found[key]} of {number}")
        elif found[key] > number:
            parts.append(f"{name} has {found[key] - number} more than {number}")
    extra = [
        f"{what} {key} ({n}) is not published" for key, n in found.items() if key not in expected
    ]
    return parts + sorted(extra)


def unknown_words(info: CorpusInfo, utterances: list[Utterance]) -> list[Notice]:
    """For an open label map: words that no shipped taxonomy can hold, with what they may mean."""
    if not info.labels.open:
        return []
    counts = Counter(u.label.lower() for u in utterances if u.label is not None)
    meant = {s: e.name for e in canonical().values() for s in (e.form, *e.synonyms)}
    unknown = [
        f"'{word}' ({n}{f', did you mean {meant[word]}?' if word in meant else ''})"
        for word, n in sorted(counts.items())
        if word not in canonical()
    ]
    if not unknown:
        return []
    return [
        Notice(
            "label",
            f"{info.name}: not in the canonical vocabulary: {', '.join(unknown)}; map them "
            "with the option rename={word: label}, or use a taxonomy of these words",
        )
    ]


def lost_labels(
    info: CorpusInfo, found: Sequence[Utterance], utterances: Sequence[Utterance]
) -> list[Notice]:
    """Labels that the reader found, and of which no utterance is left."""
    before = Counter(u.label for u in found if u.label is not None)
    lost = before.keys() - {u.label for u in utterances}
    if not lost:
        return []
    named = ", ".join(f"'{shown(str(label))}' ({before[label]})" for label in sorted(lost, key=str))
    message = f"{info.name}: every utterance of a label was refused: {named}; see the refusals"
    return [Notice("label", message)]


def contents(info: CorpusInfo, utterances: Sequence[Utterance]) -> list[Notice]:
    """What recordings have in common that a corpus of real speech does not.

    One recording under two labels or of two speakers, one label in all, a sample rate that only
    few files have, all utterances of exactly one length. Two copies with the same label and
    speaker are not told: published corpora hold some, and ``audit`` names them.
    """
    found: list[Notice] = []
    by_sha: dict[str, list[Utterance]] = defaultdict(list)
    for u in utterances:
        if u.sha is not None:
            by_sha[u.sha].append(u)

    def label(u: Utterance) -> str | None:
        return None if u.label is None else info.labels[u.label]

    def speaker(u: Utterance) -> str | None:
        return u.speaker

    questions: dict[str, Callable[[Utterance], str | None]] = {
        "under two labels": label,
        "of two speakers": speaker,
    }
    for what, of in questions.items():
        pairs = []
        for same in by_sha.values():
            other = next((u for u in same if _differ(of(u), of(same[0]))), None)
            if other is not None:
                pairs.append((same[0], other))
        if pairs:
            first, second = (f"{u.audio} ({of(u)})" for u in pairs[0])
            message = (
                f"the same recording is there {what}, {len(pairs)} times (first: {first} and "
                f"{second}); keep the right one of each pair"
            )
            found.append(Notice("content", f"{info.name}: {message}"))
    labels = [name for name in map(label, utterances) if name is not None]
    if len(set(labels)) == 1 and len(labels) >= SEVERAL:
        message = f"all {len(labels)} labelled utterances have one label, '{labels[0]}'"
        remedy = "to train needs two: is root= the folder above those of the labels?"
        found.append(Notice("content", f"{info.name}: {message}; {remedy}"))
    return found + _alike(info, utterances)


def _differ(a: str | None, b: str | None) -> bool:
    """Whether two are known to be different."""
    return a is not None and b is not None and a != b


def _alike(info: CorpusInfo, utterances: Sequence[Utterance]) -> list[Notice]:
    found = []
    rates: dict[int, dict[str, None]] = defaultdict(dict)
    for u in utterances:
        rates[u.sample_rate][u.audio] = None
    files = sum(map(len, rates.values()))
    common = max(rates, key=lambda rate: len(rates[rate]), default=0)
    for rate, names in sorted(rates.items()):
        if rate != common and len(names) <= max(1, RARE * files):
            message = (
                f"{len(names)} of {files} files have {rate} Hz, most have {common} Hz (first: "
                f"{next(iter(names))}); listen whether they belong here"
            )
            found.append(Notice("content", f"{info.name}: {message}", fault=False))
    lengths = {round(u.duration * u.sample_rate) for u in utterances}
    if len(lengths) == 1 and files >= MANY and len(rates) == 1:
        message = (
            f"all {len(utterances)} utterances last exactly {utterances[0].duration:.3f} s; if "
            "they were cut or padded to that, use the originals"
        )
        found.append(Notice("content", f"{info.name}: {message}", fault=False))
    return found
