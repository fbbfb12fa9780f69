"""The first stage of labelling: transcripts. Human text is kept; a recogniser hears the rest.

:func:`recogniser` gives a :class:`Recogniser` by name: a model of ``transformers`` (:class:`CTC`,
:class:`Writer`), or :class:`PocketSphinx`, which works offline. :class:`Transcribe` is the stage;
it also rejects transcripts that are not usable.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CTC_MAPPING_NAMES,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
)

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Loaded, Published, quiet
from ..audio import SAMPLE_RATE, Samples, read_utterance
from ..manifest import Utterance
from ..sampler import pack
from .stage import Stage

# Recognisers: models of ``transformers``, or PocketSphinx if nothing can be downloaded. A
# transcript does not depend on the utterances that share its batch, except for the last bits of the
# numbers. For only models that mask the padding get batches.

DEFAULT = "openai/whisper-small"
POCKETSPHINX = "pocketsphinx"


@dataclass(frozen=True)
class Heard:
    """A transcript.

    Attributes:
        text: stripped text; "" if no words were heard.
        confidence: mean natural log-probability per token (PocketSphinx: per word), or None.
        language: ISO 639-1 code that the recogniser detected or was made for, or None.
    """

    text: str
    confidence: float | None = None
    language: str | None = None


class Recogniser(ABC):
    """The contract of a recogniser: speech to words.

    Attributes:
        source: ``MODEL@REVISION``.
        batched: whether utterances may share a batch.
        longest: largest duration in seconds.
        least: confidence below which its authors do not trust it, or None.
    """

    source: str
    batched: bool = False
    longest: float = math.inf
    least: float | None = None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return everything that determines a transcript, as plain JSON."""

    @abstractmethod
    def hear(self, waves: Sequence[Samples]) -> list[Heard]:
        """Return the transcripts of ``[S]`` float32 samples at 16 kHz, in their order."""


def recogniser(
    name: str = DEFAULT,
    *,
    revision: str | None = None,
    language: str | None = None,
    beams: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
) -> Recogniser:
    """Return the recogniser with a name.

    Args:
        name: ``pocketsphinx``, or hub id or folder of a model with CTC or an encoder and decoder.
        revision: commit, tag or branch of a hub id.
        language: spoken language (ISO 639-1), for Whisper; None = detected for each utterance.
        beams: beams of the search, for encoder-decoders; 1 = greedy.
        dtype: number format of the model.
        device: device of the model.

    Raises:
        ConfigError: if it cannot be loaded, or a setting does not fit this kind of model.
    """
    if name == POCKETSPHINX:
        if revision or language not in (None, "en") or beams != 1:
            raise ConfigError(
                f"asr=pocketsphinx has one English model and no beams, but got revision={revision},"
                f" language={language}, beams={beams}; leave these out"
            )
        return PocketSphinx()
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
        # otherwise the channel estimate from earlier utterances changes the words
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


# Recognisers of ``transformers``: with a CTC head, or with a decoder that writes.

NEW_TOKENS = 256  # largest number of written tokens, as in the pipeline of transformers


def load_recogniser(
    name: str,
    *,
    revision: str | None,
    language: str | None,
    beams: int,
    dtype: str,
    device: str,
) -> Recogniser:
    """Do the same as :func:`recogniser`, for a model of ``transformers``."""
    published = Published.find("asr", name, revision, example=DEFAULT)
    config = published.config()
    kind = _kind(config)
    if kind is None:
        raise ConfigError(
            f"asr={name} is a {config.model_type} ({', '.join(config.architectures or ['?'])}), "
            "which neither has a CTC head nor writes text from speech; choose a model of the task "
            f"automatic-speech-recognition, such as {DEFAULT}, or {POCKETSPHINX}"
        )
    if language is not None and config.model_type != "whisper":
        raise ConfigError(
            f"language={language} is for Whisper only, but asr={name} is a {config.model_type}; "
            "leave language out"
        )
    if kind == "ctc":
        if beams != 1:
            raise ConfigError(
                f"beams={beams} is for encoder-decoders only, but asr={name} has a CTC head; leave "
                "beams out"
            )
        return CTC(published.load(AutoModelForCTC, dtype=dtype, device=device))
    model = published.load(AutoModelForSpeechSeq2Seq, dtype=dtype, device=device)
    return Writer(model, beams=beams, language=language)


def _kind(config: Any) -> str | None:
    named = config.architectures or []
    for kind, table in (
        ("ctc", MODEL_FOR_CTC_MAPPING_NAMES),
        ("writer", MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
    ):
        if any(a in _names(table.get(config.model_type)) for a in named):
            return kind
    return None


def _names(entry: Any) -> Sequence[str]:
    return [entry] if isinstance(entry, str) else list(entry or [])


class _Model(Recogniser):
    windowed = False  # whether the extractor pads all audio to one length

    def __init__(self, loaded: Loaded) -> None:
        self.loaded, self.model, self.source = loaded, loaded.model, loaded.source
        part = loaded.published.part
        self.extractor: Any = part(AutoFeatureExtractor, "preprocessor_config.json")
        self.tokenizer: Any = part(AutoTokenizer, "the tokenizer's files")
        rate = self.extractor.sampling_rate
        if rate != SAMPLE_RATE:
            raise ConfigError(
                f"asr={loaded.name} needs audio at {rate} Hz, but gets {SAMPLE_RATE} Hz; choose a "
                f"model for {SAMPLE_RATE} Hz"
            )

    def settings(self) -> dict[str, Any]:
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {**self.loaded.settings(), "dtype": dtype}

    def _features(self, waves: Sequence[Samples]) -> dict[str, Tensor]:
        found = self.extractor(
            list(waves),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"padding": True} if len(waves) > 1 and not self.windowed else {}),
        )
        device, dtype = self.model.device, self.model.dtype
        return {
            k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in found.items()
        }


class CTC(_Model):
    """A model with a CTC head, decoded greedily as in the pipeline of ``transformers``.

    A token's confidence is the highest log-probability in the run of frames that emits it. The
    text's is the mean over tokens (our choice: frames of blanks would hide uncertain tokens).
    """

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded)
        # other models normalise over padding, or do not mask it: they get one utterance at a time
        self.batched = bool(
            getattr(self.model.config, "feat_extract_norm", None) == "layer"
            and getattr(self.extractor, "return_attention_mask", False)
        )

    @torch.no_grad()
    def hear(self, waves: Sequence[Samples]) -> list[Heard]:
        if len(waves) > 1 and not self.batched:
            return [heard for wave in waves for heard in self.hear([wave])]
        features = self._features(waves)
        logits = self.model(**features).logits.float()
        frames = [logits.shape[1]] * len(waves)
        if len(waves) > 1:
            lengths = features["attention_mask"].sum(-1)
            frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
        logs, tokens = logits.log_softmax(-1).cpu().max(-1)
        return [
            self._read(log[:n], token[:n])
            for log, token, n in zip(logs, tokens, frames, strict=True)
        ]

    def _read(self, logs: Tensor, tokens: Tensor) -> Heard:
        text = self.tokenizer.decode(tokens.numpy(), skip_special_tokens=False)
        best: list[float] = []
        before = blank = self.tokenizer.pad_token_id
        for token, log in zip(tokens.tolist(), logs.tolist(), strict=True):
            if token != blank and token == before:
                best[-1] = max(best[-1], log)
            elif token != blank:
                best.append(log)
            before = token
        return Heard(text.strip(), float(np.mean(best)) if best else None)


class Writer(_Model):
    """An encoder with a decoder that writes, such as Whisper.

    The confidence is the mean log-probability of the written tokens and of the end. It is by the
    model's own distribution, before Whisper's suppressed tokens are removed.
    """

    def __init__(self, loaded: Loaded, *, beams: int, language: str | None) -> None:
        super().__init__(loaded)
        self.beams, self.language = beams, language
        self.whisper = self.windowed = self.model.config.model_type == "whisper"
        self.batched = self.whisper
        if self.whisper:
            self.longest, self.least = float(self.extractor.chunk_length), -1.0
        generation = self.model.generation_config
        self.languages: dict[int, str] = {}
        if self.whisper and getattr(generation, "is_multilingual", True):
            found = getattr(generation, "lang_to_id", None) or {}
            self.languages = {int(i): key.strip("<|>") for key, i in found.items()}
        if language is not None and language not in self.languages.values():
            has = ", ".join(sorted(self.languages.values())) or "only English, without the option"
            raise ConfigError(f"language={language} is unknown; asr={loaded.name} has {has}")
        longest = getattr(self.model.config, "max_target_positions", None) or 10**6
        self.new_tokens = min(NEW_TOKENS, longest - 4)  # start, language, task, no timestamps

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "beams": self.beams, "language": self.language}

    @torch.no_grad()
    def hear(self, waves: Sequence[Samples]) -> list[Heard]:
        if len(waves) > 1 and not self.batched:
            return [heard for wave in waves for heard in self.hear([wave])]
        features = self._features(waves)
        mask = features.get("attention_mask")
        inputs = features[self.model.main_input_name]
        options: dict[str, Any] = {"num_beams": self.beams, "max_new_tokens": self.new_tokens}
        spoken: list[str | None] = [None] * len(waves)
        encoder = self.model.get_encoder()
        if self.whisper:
            encoded = encoder(inputs)
            spoken = self._spoken(encoded, len(waves))
            if self.languages:
                options |= {"language": spoken, "task": "transcribe"}
            with quiet():  # generate() warns about the model's own settings
                written = self.model.generate(
                    inputs,
                    encoder_outputs=encoded,
                    attention_mask=mask,
                    return_segments=True,
                    **options,
                )
            segments = [s[0] for s in written["segments"]]
            rows = [(s["result"], s["idxs"][0]) for s in segments]
        else:
            encoded = encoder(inputs, **({} if mask is None else {"attention_mask": mask}))
            with quiet():
                sequences = self.model.generate(
                    **{self.model.main_input_name: inputs, "attention_mask": mask},
                    encoder_outputs=encoded,
                    **options,
                )
            rows = [(row, 1) for row in sequences]
        sure = self._confidence(encoded, mask, rows)
        texts = [self.tokenizer.decode(row[at:], skip_special_tokens=True) for row, at in rows]
        return [
            Heard(text.strip(), confidence, language)
            for text, confidence, language in zip(texts, sure, spoken, strict=True)
        ]

    def _spoken(self, encoded: Any, count: int) -> list[str | None]:
        if not self.languages:
            return ["en"] * count  # a Whisper without languages is an English one
        if self.language is not None:
            return [self.language] * count
        return [self.languages[i] for i in self.model.detect_language(None, encoded).tolist()]

    def _confidence(
        self, encoded: Any, mask: Tensor | None, rows: Sequence[tuple[Tensor, int]]
    ) -> list[float | None]:
        tokens = torch.nn.utils.rnn.pad_sequence([r.to(self.model.device) for r, _ in rows], True)
        logits = self.model(
            encoder_outputs=encoded,
            decoder_input_ids=tokens[:, :-1],
            **({} if mask is None or self.whisper else {"attention_mask": mask}),
        ).logits.float()
        logs = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].cpu()
        eos = self.model.generation_config.eos_token_id
        ends = set(eos if isinstance(eos, list) else [eos])
        found: list[float | None] = []
        for log, (row, at) in zip(logs, rows, strict=True):
            row_tokens = row.tolist()
            end = next((i for i in range(at, len(row_tokens)) if row_tokens[i] in ends), None)
            last = len(row_tokens) if end is None else end + 1
            found.append(float(log[at - 1 : last - 1].mean()) if last > at else None)
        return found


# The stage.

REASONS = ("long", "empty", "repeated", "short", "unsure")
"""Why an utterance is rejected; the first reason in this order that applies."""

SHORTEST = 0.1  # seconds; shorter audio has no word, and may be shorter than a model's frame


class Transcribe(Stage):
    """Rows ``{id, text, text_source, language, confidence, rejected}``.

    Args:
        recogniser: the model for utterances without text; None if all have text.
        roots: maps a corpus to the folder of its audio.
        min_words: a text with fewer words is ``short``; this holds for human text, too.
        min_confidence: a mean log-probability per token below it is ``unsure``. None = no limit.
            ``auto`` = -1 for Whisper (Radford et al. 2022, section 4.5), and none for others, which
            have other scales of confidence.
        max_ratio: a text that zlib shrinks by a larger factor is ``repeated``: 2.4, same section.
        max_repeats: a text that has one to four words more often than this in a row is
            ``repeated``, too. This is our choice: loops of short texts shrink less.
        max_seconds: longer utterances are ``long``, and are not transcribed; at most the window
            of the model (30 for Whisper).
        batch_size: largest number of utterances in a batch.
        batch_seconds: largest number of padded seconds in a batch.
    """

    name = "transcripts"

    def __init__(
        self,
        recogniser: Recogniser | None,
        roots: dict[str, Path],
        *,
        min_words: int = 3,
        min_confidence: float | Literal["auto"] | None = "auto",
        max_ratio: float = 2.4,
        max_repeats: int = 4,
        max_seconds: float = 30.0,
        batch_size: int = 16,
        batch_seconds: float = 160.0,
    ) -> None:
        if min_words < 1 or max_repeats < 1 or batch_size < 1 or max_seconds <= 0:
            raise ConfigError(
                f"min_words={min_words}, max_repeats={max_repeats}, batch_size={batch_size}, "
                f"max_seconds={max_seconds}; give 1 or more, and max_seconds above 0"
            )
        self.recogniser, self.roots = recogniser, roots
        if recogniser is not None:
            max_seconds = min(max_seconds, recogniser.longest)
        if min_confidence == "auto":
            min_confidence = None if recogniser is None else recogniser.least
        self.limits: dict[str, Any] = {
            "min_words": min_words,
            "min_confidence": min_confidence,
            "max_ratio": max_ratio,
            "max_repeats": max_repeats,
            "max_seconds": max_seconds,
        }
        self.max_seconds = max_seconds
        self.batch_size, self.batch_seconds = batch_size, batch_seconds

    def settings(self) -> dict[str, Any]:
        batches = {"batch_size": self.batch_size, "batch_seconds": self.batch_seconds}
        asr = None if self.recogniser is None else self.recogniser.settings()
        return {"asr": asr, **self.limits, **batches}

    def rows(self, items: Sequence[Utterance]) -> Iterator[dict[str, Any]]:
        mute = [u for u in items if not has_text(u)]
        for u in items:
            if has_text(u):
                heard = Heard((u.text or "").strip(), None, u.language)
                yield self._row(u, heard, u.text_source or "human")
        for u in mute:
            if u.duration > self.max_seconds:
                yield self._row(u, Heard(""), None, "long")
            elif u.duration < SHORTEST:
                yield self._row(u, Heard(""), None)
        short = [u for u in mute if SHORTEST <= u.duration <= self.max_seconds]
        if short and self.recogniser is None:
            raise ConfigError(
                f"{len(short)} utterances have no text (first: {short[0].id}), and asr is null; "
                "set asr=MODEL"
            )
        if not short or self.recogniser is None:
            return
        size = self.batch_size if self.recogniser.batched else 1
        seconds = np.array([u.duration for u in short])
        for batch in pack(range(len(short)), seconds, size, self.batch_seconds):
            part = [short[i] for i in batch]
            waves = [read_utterance(u, self.roots[u.corpus]) for u in part]
            for u, heard in zip(part, self.recogniser.hear(waves), strict=True):
                yield self._row(u, heard, f"asr:{self.recogniser.source}")

    def _row(
        self, u: Utterance, heard: Heard, source: str | None, rejected: str | None = None
    ) -> dict[str, Any]:
        machine = has_text(u) is False
        reason = rejected or self._fault(heard, machine)
        return {
            "id": u.id,
            "text": heard.text or None,
            "text_source": source,
            "language": heard.language,
            "confidence": None if heard.confidence is None else round(heard.confidence, 6),
            "rejected": reason,
        }

    def _fault(self, heard: Heard, machine: bool) -> str | None:
        least = self.limits["min_confidence"]
        if not any(c.isalnum() for c in heard.text):
            return "empty"
        if machine and repeats(heard.text, self.limits["max_ratio"], self.limits["max_repeats"]):
            return "repeated"
        if len(heard.text.split()) < self.limits["min_words"]:
            return "short"
        unsure = least is not None and heard.confidence is not None and heard.confidence < least
        return "unsure" if unsure else None


def has_text(u: Utterance) -> bool:
    """Return whether an utterance comes with words, which are kept."""
    return bool(u.text and u.text.strip())


def repeats(text: str, max_ratio: float = 2.4, max_repeats: int = 4) -> bool:
    """Return whether a text loops, as the output of recognisers does in silence and noise.

    Args:
        text: a text with any case and punctuation.
        max_ratio: largest ratio of bytes in UTF-8 to bytes after zlib.
        max_repeats: how often one to four words may be repeated in a row.
    """
    raw = text.encode()
    if len(raw) / len(zlib.compress(raw)) > max_ratio:
        return True
    words = ["".join(filter(str.isalnum, w)) for w in text.casefold().split()]
    for n in range(1, 5):
        same = 0  # number of words in a row that equal the word n before
        for i in range(n, len(words)):
            same = same + 1 if words[i] == words[i - n] else 0
            if same >= n * max_repeats:
                return True
    return False


def with_text(utterances: Sequence[Utterance], rows: Sequence[dict[str, Any]]) -> list[Utterance]:
    """Return the utterances that are not rejected, with their text.

    Args:
        utterances: the utterances of the manifest.
        rows: rows of this stage, in the same order.
    """
    return [
        replace(u, text=row["text"], text_source=row["text_source"])
        for u, row in zip(utterances, rows, strict=True)
        if row["rejected"] is None
    ]
