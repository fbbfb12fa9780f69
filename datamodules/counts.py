"""What a prepared corpus has, against what its publisher counts and what taxonomies can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..zoo.taxonomy import canonical
from .info import CorpusInfo
from .manifest import Utterance


@dataclass(frozen=True)
class Notice:
    """Something to know about a prepared corpus.

    Attributes:
        kind: ``count`` (published counts are not met), ``reader`` (left out by the reader), or
            ``label`` (not in the canonical vocabulary).
        message: what was found, what is allowed, what to do next.
    """

    kind: str
    message: str

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
    speakers = Counter(u.speaker for u in utterances)
    if expected.speakers is not None and len(speakers) != expected.speakers:
        parts.append(f"{len(speakers)} of {expected.speakers} speakers")
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
    return [Notice("label", message)]


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
