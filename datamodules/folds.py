"""Rules that deal speakers into folds and choose validation speakers, without a random number.

All depend on the speakers in the manifest alone (and, where asked, on how many utterances each
has), never on the order of its lines. An utterance whose speaker nobody knows is dealt by itself,
as if it were a speaker: protocols refuse that unless they are told to accept it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from .manifest import Utterance
from .split import unit_of


def sexes(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Sex of every speaker; "" where the manifest does not say, or says two things."""
    said: dict[str, set[str]] = defaultdict(set)
    for u in utterances:
        said[unit_of(u)] |= {u.gender} if u.gender else set()
    return {s: next(iter(g)) if len(g) == 1 else "" for s, g in sorted(said.items())}


def balanced(utterances: Sequence[Utterance], n: int, *, by_utterances: bool) -> list[list[str]]:
    """Deal the speakers into ``n`` folds that differ by one speaker of each sex at most.

    Within a sex, each speaker goes to the fold with the fewest of that sex, then the fewest
    speakers, then (by_utterances) the fewest utterances, then the first; in the order of their
    names, or from the one with the most utterances down. Our choice.
    """
    counts = Counter(map(unit_of, utterances))
    groups: dict[str, list[str]] = defaultdict(list)
    for speaker, sex in sexes(utterances).items():
        groups[sex].append(speaker)
    folds: list[list[str]] = [[] for _ in range(n)]
    load = [0] * n
    for _, speakers in sorted(groups.items()):
        mine = [0] * n
        for s in sorted(speakers, key=lambda s: (-counts[s] if by_utterances else 0, s)):
            k = min(range(n), key=lambda i: (mine[i], len(folds[i]), load[i], i))
            folds[k].append(s)
            mine[k] += 1
            load[k] += counts[s] if by_utterances else 0
    return [sorted(f) for f in folds]


def held_out_speakers(utterances: Sequence[Utterance], share: float) -> set[str]:
    """A share of the speakers of each corpus and sex: one at least, and one at least stays.

    Which ones is settled by a hash of their names, so that neither the first nor the last of a
    corpus is favoured. Our choice.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    corpus = {unit_of(u): u.corpus for u in utterances}
    for speaker, sex in sexes(utterances).items():
        groups[corpus[speaker], sex].append(speaker)
    chosen: set[str] = set()
    for speakers in groups.values():
        k = min(len(speakers) - 1, max(1, round(share * len(speakers))))
        chosen |= set(sorted(speakers, key=_rank)[:k])
    return chosen


def held_out_sentences(utterances: Sequence[Utterance], share: float) -> set[str]:
    """Ids of all utterances of a share of the sentences, chosen by hash; one sentence at least."""
    spoken: dict[str, list[str]] = defaultdict(list)
    for u in utterances:
        spoken[sentence(u.text) or u.id].append(u.id)
    k = min(len(spoken) - 1, max(1, round(share * len(spoken))))
    return {i for s in sorted(spoken, key=_rank)[:k] for i in spoken[s]}


def sentence(text: str | None) -> str:
    """A transcript without case, punctuation and extra spaces; "" where there is none."""
    plain = unicodedata.normalize("NFKC", text or "").casefold()
    kept = "".join(c for c in plain if unicodedata.category(c)[0] not in "PS")
    return " ".join(kept.split())


def _rank(name: str) -> tuple[str, str]:
    return hashlib.sha256(f"serzoo:{name}".encode()).hexdigest(), name
