"""What probes of prosody are fitted and scored on: a corpus, its quantities, its folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..zoo.encoder import Encoder
from ..zoo.errors import DataError
from ..zoo.statistics.probe import Fold
from ..zoo.types import Batch
from .catalog import Speech, open_corpora
from .dataset import SpeechDataset
from .features import FeatureStore
from .info import CorpusInfo
from .prosody import Prosody, RateFrom, prosody
from .protocols import Protocol
from .sampler import EvalSampler
from .split import some, speaker_of, without_speaker


@dataclass(frozen=True)
class Probing:
    """Utterances, what is to be found in their frames, and folds.

    Attributes:
        speech: utterances (labels play no part) and their folders.
        prosody: quantities by name, ``[N]``.
        folds: training and validation speakers fit, test speakers are scored.
        protocol: name and version.
        max_seconds: longer utterances are cut to this.
    """

    speech: Speech
    prosody: Prosody
    folds: list[Fold]
    protocol: str
    max_seconds: float

    @property
    def speakers(self) -> list[str]:
        """``corpus/speaker`` of each utterance."""
        return [speaker_of(u) for u in self.speech.utterances]

    def batches(
        self, encoder: Encoder, *, size: int, budget: float, stored: bool, device: Any = "cpu"
    ) -> Iterator[tuple[list[int], Batch]]:
        """Rows and batch, every utterance once, shortest first.

        Args:
            encoder: that will read them.
            size: utterances in a batch at most.
            budget: padded seconds in a batch at most.
            stored: take features from the store, where the encoder allows it and there is room;
                what is missing is computed first, and kept.
            device: where to compute it.
        """
        utterances = self.speech.utterances
        dataset = SpeechDataset(
            utterances,
            [-1] * len(utterances),
            1,
            roots=self.speech.roots,
            max_seconds=self.max_seconds,
        )
        if stored and encoder.storable:
            store = FeatureStore(
                encoder.extraction(),
                self.speech.roots,
                max_seconds=self.max_seconds,
                frame_seconds=encoder.frame_seconds,
            )
            if store.fill(encoder, utterances, device=device).kind == "stored":
                dataset.use(store)
        for rows in EvalSampler(dataset.seconds, size=size, budget=budget):
            yield rows, dataset[rows]


def open_probing(
    corpora: Sequence[str],
    *,
    protocol: str | None = None,
    fold: int | None = None,
    root: str | None = None,
    manifest: str | None = None,
    options: dict[str, Any] | None = None,
    max_seconds: float = 20.0,
    rate_from: RateFrom = "auto",
    progress: bool = False,
) -> Probing:
    """Corpora to what probes need.

    Args:
        corpora: registered names.
        protocol: name; the corpus' default, or ``loco`` for several.
        fold: one only; None = all, whose test parts must not overlap.
        root: folder of the corpus.
        manifest: a prepared manifest instead.
        options: keywords of the corpus' reader.
        max_seconds: longer utterances are cut to this.
        rate_from: where the speaking rate comes from: ``auto``, ``text``, ``audio``.
        progress: show bars.

    Raises:
        DataError: when the protocol's parts share speakers or a speaker is not known, and for
            anything wrong with the data.
        ConfigError: when pyworld is not installed.
    """
    speech = open_corpora(corpora, root=root, manifest=manifest, options=options, progress=progress)
    utterances = speech.utterances
    if lost := without_speaker(utterances):
        raise DataError(
            f"a probe is fitted and scored on other speakers, and {len(lost)} of {len(utterances)} "
            f"utterances have no speaker ({some(u.id for u in lost)}); name the speakers "
            "(options.speaker=..., or the manifest), or leave these out of the manifest"
        )
    names = sorted({u.corpus for u in utterances})
    if protocol is None:
        protocol = CorpusInfo.load(names[0]).protocol if len(names) == 1 else "loco"
    rule = Protocol.load(protocol or "kfold")
    row = {u.id: i for i, u in enumerate(utterances)}
    wanted = range(rule.n_folds(utterances)) if fold is None else [fold]
    folds = []
    for k in wanted:
        split = rule.split(utterances, k)
        train = {speaker_of(u) for u in [*split.train, *split.valid]}
        if shared := train & {speaker_of(u) for u in split.test}:
            raise DataError(
                f"{rule.name}, fold {k}: {len(shared)} speakers are in training and test; a probe "
                "needs a speaker-disjoint protocol, such as protocol=kfold"
            )
        fit, score = ([row[u.id] for u in us] for us in ([*split.train, *split.valid], split.test))
        folds.append(Fold(np.array(sorted(fit)), np.array(sorted(score))))
    found = prosody(
        utterances, speech.roots, max_seconds=max_seconds, rate_from=rate_from, progress=progress
    )
    return Probing(speech, found, folds, rule.name, max_seconds)
