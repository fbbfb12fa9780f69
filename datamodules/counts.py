"""Compare the counts of a prepared corpus with published counts and with taxonomies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..zoo.core.notices import shown
from ..zoo.core.taxonomy import canonical
from .info import CorpusInfo
from .manifest import Utterance, by_sha

RARE = 0.02  # a sample rate of at most this share of files (at least one) is odd (our choice)
SEVERAL = 4  # from this many utterances of one label on it is a corpus, not a trial (our choice)
MANY = 8  # so many files of one length are hardly chance (our choice)


@dataclass(frozen=True)
class Notice:
    """A finding about a prepared corpus.

    Attributes:
        kind: ``count`` = published counts are not met; ``reader`` = left out by the reader;
            ``passed`` = skipped on purpose, or taken under another name; ``label`` = not in the
            canonical vocabulary, or lost; ``content`` = recordings are suspiciously equal;
            ``channels`` = the channels hold different sounds.
        message: what was found, what is allowed, what to do next.
        fault: False = a fact to know; ``prepare`` then still ends with exit code 0.
    """

    kind: str
    message: str
    fault: bool = True

    def __str__(self) -> str:
        return self.message


def count_notice(info: CorpusInfo, utterances: list[Utterance], refused: int = 0) -> Notice | None:
    """Return what a published corpus has too little or too much of; None if all counts are met.

    Args:
        info: description of the corpus, with the expected counts.
        utterances: the utterances of the manifest.
        refused: number of refused files, which explains missing ones.
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
    """Return a notice if no utterance is labelled: the corpus cannot train or test a model."""
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
    """Return notices of labels that no shipped taxonomy has, for an open label map."""
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
    """Return notices of labels that the reader found, but that have no utterance left."""
    before = Counter(u.label for u in found if u.label is not None)
    lost = before.keys() - {u.label for u in utterances}
    if not lost:
        return []
    named = ", ".join(f"'{shown(str(label))}' ({before[label]})" for label in sorted(lost, key=str))
    message = f"{info.name}: every utterance of a label was refused: {named}; see the refusals"
    return [Notice("label", message)]


def contents(info: CorpusInfo, utterances: Sequence[Utterance]) -> list[Notice]:
    """Return notices of suspiciously equal recordings, which real speech does not have.

    These are one recording with two labels or two speakers, and one label for all. Also a sample
    rate of only a few files, and one length for all. Two copies with the same label and speaker are
    not reported: published corpora have some, and ``audit`` names them.
    """
    found: list[Notice] = []

    def label(u: Utterance) -> str | None:
        return None if u.label is None else info.labels[u.label]

    def speaker(u: Utterance) -> str | None:
        return u.speaker

    questions: dict[str, Callable[[Utterance], str | None]] = {
        "under two labels": label,
        "of two speakers": speaker,
    }
    copies = by_sha(utterances)
    for what, of in questions.items():
        pairs = []
        for same in copies.values():
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
    """Return whether two values are known to be different."""
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
