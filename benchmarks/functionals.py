"""Functionals of openSMILE: one vector of an utterance, kept for the next call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from serzoo.datamodules.dataset import SpeechDataset
from serzoo.zoo.core.files import cache_dir, new_file
from serzoo.zoo.core.progress import Bar
from serzoo.zoo.encoders.opensmile import FeatureSet, measure

FEATURES = ("eGeMAPSv02", "ComParE_2016")


@dataclass(frozen=True)
class Extractor:
    """Functionals of an utterance.

    Attributes:
        name: of the feature set; with ``version``, what stored features are kept under.
        version: of the program.
        call: ``[S]`` float32 at 16 kHz to ``[F]``; NaN where a value is not defined.
    """

    name: str
    version: str
    call: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def opensmile_extractor(name: FeatureSet) -> Extractor:
    """A feature set of openSMILE; NaN where a value is not defined."""
    call, version = measure(name)
    return Extractor(name, version, call)


@dataclass
class Functionals:
    """Features of utterances as a dataset gives them: cut like the heads' audio, and corrupted.

    Attributes:
        extractor: of the features.
        folder: where they are kept, as ``.npy`` (no pickle); ``functionals/`` in the cache.
    """

    extractor: Extractor
    folder: Path = field(default_factory=lambda: cache_dir() / "functionals")
    _known: dict[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)

    def of(self, data: SpeechDataset) -> NDArray[np.float32]:
        """``[N, F]``, a row for each utterance."""
        condition = str(data.corruption.condition) if data.corruption else ""
        if missing := [u for u in data.utterances if (condition, u.id) not in self._known]:
            places = {u.id: i for i, u in enumerate(data.utterances)}
            order = [places[i] for i in sorted(u.id for u in missing)]
            rows = self._extract(data, order, condition)
            self._known |= {
                (condition, data.utterances[i].id): row for i, row in zip(order, rows, strict=True)
            }
        return np.stack([self._known[condition, u.id] for u in data.utterances])

    def _extract(
        self, data: SpeechDataset, order: Sequence[int], condition: str
    ) -> NDArray[np.float32]:
        us = [data.utterances[i] for i in order]
        rows = [[u.id, u.sha, round(u.start, 4), round(u.end, 4)] for u in us]
        what = [self.extractor.name, self.extractor.version, data.max_seconds, rows]
        if data.corruption:  # with its recordings
            said = data.corruption.describe()
            what.append({k: said.get(k) for k in ("name", "recordings", "sha")})
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{self.extractor.name}-{digest}.npy"
        known = all(u.sha for u in us)  # else nothing says that the audio is the same
        if known and path.is_file():
            return np.asarray(np.load(path, allow_pickle=False))
        title = f"{self.extractor.name} {condition}".strip()
        rows = []
        with Bar(title, len(us)) as bar:
            for u in us:
                rows.append(self.extractor.call(data.wave(u).numpy()))
                bar.advance()
        found = np.stack(rows)
        if known:
            with new_file(path) as draft, draft.open("wb") as file:
                np.save(file, found, allow_pickle=False)
        return found
