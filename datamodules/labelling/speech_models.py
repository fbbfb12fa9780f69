"""Recognisers of ``transformers``: with a CTC head, or with a decoder that writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

from ...zoo.errors import ConfigError
from ..audio import SAMPLE_RATE, Samples
from .loading import Loaded, load, quiet, read_config
from .recognisers import DEFAULT, POCKETSPHINX, Heard, Recogniser

NEW_TOKENS = 256  # at most, as the pipeline of transformers has it


def load_recogniser(
    name: str,
    *,
    revision: str | None,
    language: str | None,
    beams: int,
    dtype: str,
    device: str,
) -> Recogniser:
    """What :func:`.recognisers.recogniser` gives for a model of ``transformers``."""
    config = read_config(name, revision, "asr")
    kind = _kind(config)
    if kind is None:
        raise ConfigError(
            f"asr={name} is a {config.model_type} ({', '.join(config.architectures or ['?'])}), "
            "which neither has a CTC head nor writes text from speech; choose a model of the task "
            f"automatic-speech-recognition such as {DEFAULT}, or {POCKETSPHINX}"
        )
    if language is not None and config.model_type != "whisper":
        raise ConfigError(
            f"language={language} is for Whisper, and asr={name} is not one; leave language out"
        )
    if kind == "ctc":
        if beams != 1:
            raise ConfigError(
                f"beams={beams} is for encoder-decoders, and asr={name} has CTC; leave beams out"
            )
        model = load(AutoModelForCTC, name, revision, "asr", dtype=dtype, device=device)
        return CTC(model, revision)
    model = load(AutoModelForSpeechSeq2Seq, name, revision, "asr", dtype=dtype, device=device)
    return Writer(model, revision, beams=beams, language=language)


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
    windowed = False  # whether all is padded to one length anyway

    def __init__(self, loaded: Loaded, revision: str | None) -> None:
        self.loaded, self.model, self.source = loaded, loaded.model, loaded.source
        options = {"revision": revision, "trust_remote_code": False}
        self.extractor: Any = AutoFeatureExtractor.from_pretrained(loaded.path, **options)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(loaded.path, **options)
        rate = self.extractor.sampling_rate
        if rate != SAMPLE_RATE:
            raise ConfigError(
                f"asr={loaded.name} hears {rate} Hz, and everything here is {SAMPLE_RATE} Hz; "
                "choose a model of that rate"
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
    """A model with a CTC head, decoded greedily, as the pipeline of ``transformers`` does.

    The confidence is the mean over emitted tokens of the highest log-probability within the run of
    frames that emits each (our choice: frames of blanks would hide unsure tokens).
    """

    def __init__(self, loaded: Loaded, revision: str | None) -> None:
        super().__init__(loaded, revision)
        # others normalise over padding, or let it through: each utterance alone
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
    """An encoder and a decoder that writes: Whisper and its like.

    The confidence is the mean log-probability of the written tokens and of the end, by the model's
    own distribution (before Whisper's suppressed tokens are taken out).
    """

    def __init__(
        self, loaded: Loaded, revision: str | None, *, beams: int, language: str | None
    ) -> None:
        super().__init__(loaded, revision)
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
            has = ", ".join(sorted(self.languages.values())) or "English alone"
            raise ConfigError(f"language={language}: asr={loaded.name} knows {has}")
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
            with quiet():  # of settings of its own that it thinks are ours
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
            return ["en"] * count  # Whisper without a choice of languages is for English
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
