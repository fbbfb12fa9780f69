"""Speech to words: recognisers of ``transformers``, or PocketSphinx where nothing can be fetched.

A transcript does not depend on the utterances that share its batch, beyond the last bits of the
numbers: only models that mask what is behind an utterance get batches.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...zoo.errors import ConfigError
from ..audio import SAMPLE_RATE, Samples

DEFAULT = "openai/whisper-small"
POCKETSPHINX = "pocketsphinx"


@dataclass(frozen=True)
class Heard:
    """A transcript.

    Attributes:
        text: stripped; "" where nothing was heard.
        confidence: mean natural log-probability per token (PocketSphinx: per word), or None.
        language: ISO 639-1 code that the recogniser heard or was made for, or None.
    """

    text: str
    confidence: float | None = None
    language: str | None = None


class Recogniser(ABC):
    """Speech to words.

    Attributes:
        source: ``MODEL@REVISION``.
        batched: whether utterances may share a batch.
        longest: seconds that it can hear at a time.
        least: confidence below which its authors distrust it, or None.
    """

    source: str
    batched: bool = False
    longest: float = math.inf
    least: float | None = None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines a transcript, as plain JSON."""

    @abstractmethod
    def hear(self, waves: Sequence[Samples]) -> list[Heard]:
        """Transcripts of ``[S]`` float32 samples at 16 kHz, in their order."""


def recogniser(
    name: str = DEFAULT,
    *,
    revision: str | None = None,
    language: str | None = None,
    beams: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
) -> Recogniser:
    """The recogniser of a name.

    Args:
        name: ``pocketsphinx``, or hub id or folder of a model with CTC or an encoder and decoder.
        revision: commit, tag or branch of a hub id.
        language: that is spoken (ISO 639-1), for Whisper; None = detected in each utterance.
        beams: of the search, for encoder-decoders; 1 = greedy.
        dtype: number format of the model.
        device: where it runs.

    Raises:
        ConfigError: it cannot be loaded, or a setting is not of this kind of model.
    """
    if name == POCKETSPHINX:
        if revision or language not in (None, "en") or beams != 1:
            raise ConfigError(
                "asr=pocketsphinx knows English and one way to search; leave revision, language "
                "and beams out"
            )
        return PocketSphinx()
    from .speech_models import load_recogniser

    return load_recogniser(
        name, revision=revision, language=language, beams=beams, dtype=dtype, device=device
    )


class PocketSphinx(Recogniser):
    """CMU PocketSphinx with the English model in its wheel (extra ``asr``): offline, but coarse.

    The confidence is the mean log posterior probability of the words.
    """

    def __init__(self) -> None:
        from importlib.metadata import version

        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise ConfigError(
                "asr=pocketsphinx needs the package pocketsphinx; pip install 'serzoo[asr]', or "
                "choose a model of transformers"
            ) from None
        self.decoder = Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")
        self.source = f"{POCKETSPHINX}@{version('pocketsphinx')}"

    def settings(self) -> dict[str, Any]:
        return {"model": POCKETSPHINX, "revision": self.source.partition("@")[2]}

    def hear(self, waves: Sequence[Samples]) -> list[Heard]:
        return [self._one(wave) for wave in waves]

    def _one(self, wave: Samples) -> Heard:
        raw = (np.clip(wave, -1, 1) * 32767).round().astype("<i2").tobytes()
        # else the channel as estimated from earlier utterances changes the words
        self.decoder.reinit_feat()
        self.decoder.start_utt()
        self.decoder.process_raw(raw, full_utt=True)
        self.decoder.end_utt()
        found = self.decoder.hyp()
        if found is None or not found.hypstr:
            return Heard("", None, "en")
        words = [s for s in self.decoder.seg() if s.word[0] not in "<["]
        logs = [math.log(max(s.prob, 1e-30)) for s in words]
        return Heard(found.hypstr.strip(), float(np.mean(logs)) if logs else None, "en")
