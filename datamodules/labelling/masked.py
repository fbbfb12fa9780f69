"""A scorer by masked language model: how well the words of a class fill the gap in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import log_softmax
from transformers import AutoModelForMaskedLM

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Published
from .nli import buckets, length_limit, tokenizer_of
from .scorers import BLANK, Hypothesis, Scorer, Scores, device_of


@dataclass(frozen=True)
class Gap:
    """A text whose class is masked.

    Attributes:
        ids: its tokens, with the mask at the places of the class.
        places: the places of the class.
        wanted: the tokens of the class.
    """

    ids: list[int]
    places: list[int]
    wanted: list[int]


class Masked(Scorer):
    """Mean log-likelihood per token of a class' words, in a gap after the transcript.

    The text is the framed transcript with the hypothesis (``Someone says: "How dare you!" The
    speaker feels angry.``). All tokens of the class are masked at once. The score is the mean of
    their log-probabilities, so that long names have no disadvantage (our choice). The words after
    the class are read, too. Subtract the score of the empty premise: without this correction
    frequent words win.

    Args:
        model: hub id or local folder with ``model.safetensors``, such as a BERT or RoBERTa.
        revision: commit, tag or branch of a hub id.
        frame: how a transcript is presented (our choice).
        batch_tokens: tokens in a batch with padding; it limits memory, and does not change results.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Raises:
        ConfigError: if the model cannot be loaded, or its tokenizer has no mask or does not tell
            where a word stands. Also if the frame does not have exactly one blank.
    """

    scale: ClassVar[str] = "log-likelihood per token of the class in a gap, in nats"

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        frame: str = 'Someone says: "{}"',
        batch_tokens: int = 4096,
        device: str = "auto",
    ) -> None:
        if frame.count(BLANK) != 1:
            raise ConfigError(f"frame={frame}; give one {BLANK} at the place of the transcript")
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens={batch_tokens}; give at least 1")
        self.frame, self.batch_tokens, self.device = frame, batch_tokens, device_of(device)
        published = Published.find("model", model, revision, example="FacebookAI/roberta-base")
        self.tokenizer = tokenizer_of(published)
        if self.tokenizer.mask_token_id is None or not self.tokenizer.is_fast:
            lack = "no mask" if self.tokenizer.mask_token_id is None else "no places of words"
            raise ConfigError(
                f"model={model} has a tokenizer with {lack}; scorer=masked needs a model that "
                "fills gaps, such as FacebookAI/roberta-base. For one that continues text choose "
                "scorer=causal"
            )
        self.loaded = published.load(AutoModelForMaskedLM, device=self.device)
        self.model, self.source = self.loaded.model, self.loaded.source
        self.limit = length_limit(self.tokenizer, self.model.config)

    def settings(self) -> dict[str, Any]:
        return super().settings() | self.loaded.settings() | {"frame": self.frame}

    @torch.inference_mode()
    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        gaps = [self.gap(p, h) for p in premises for h in hypotheses]
        found = np.empty(len(gaps))
        for batch in buckets([len(g.ids) for g in gaps], self.batch_tokens):
            padded = self.tokenizer.pad(
                {"input_ids": [gaps[i].ids for i in batch]}, return_tensors="pt"
            ).to(self.device)
            logits = self.model(**padded).logits
            for row, i in zip(logits, batch, strict=True):
                places = torch.tensor(gaps[i].places, device=self.device)
                wanted = torch.tensor(gaps[i].wanted, device=self.device)
                each = log_softmax(row[places].float(), -1).gather(-1, wanted[:, None])
                found[i] = float(each.double().mean())
        return found.reshape(len(premises), len(hypotheses))

    def gap(self, premise: str, hypothesis: Hypothesis) -> Gap:
        """Return the text of a premise and a hypothesis, whose class is masked.

        A text that is too long for the model loses its beginning.
        """
        before, _, after = hypothesis.template.partition(BLANK)
        left = f"{self.frame.replace(BLANK, premise)} {before}"
        first, last = len(left), len(left) + len(hypothesis.form)
        encoded = self.tokenizer(
            left + hypothesis.form + after, return_offsets_mapping=True, verbose=False
        )
        ids, spans = list(encoded["input_ids"]), encoded["offset_mapping"]
        # a token that only begins before the class holds its space
        places = [i for i, (a, b) in enumerate(spans) if a < last and b > first]
        if self.limit is not None and (surplus := len(ids) - self.limit) > 0:
            kept = 1 if spans[0] == (0, 0) else 0  # a token that begins every text
            del ids[kept : kept + surplus]
            places = [i - surplus for i in places]
        wanted = [ids[i] for i in places]
        for i in places:
            ids[i] = self.tokenizer.mask_token_id
        return Gap(ids, places, wanted)
