"""A scorer by causal language model: how likely the words of a class are after a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Published
from .nli import length_limit, tokenizer_of
from .scorers import BLANK, Hypothesis, Scorer, Scores, device_of


class Causal(Scorer):
    """Mean log-likelihood per token of a class' words, after the transcript and the sentence.

    The text is the framed transcript with the hypothesis' words before the class (``Someone says:
    "How dare you!" The speaker feels``). Then come the class and the words after it (``angry.``).
    The score is the mean over the tokens of the last part, so that long names have no disadvantage.
    The first part is read once for all classes. Subtract the score of the empty premise. The
    difference is the effect of the transcript on the likelihood of the class, in nats per token.
    Without this correction frequent words win.

    Args:
        model: hub id or local folder with ``model.safetensors``.
        revision: commit, tag or branch of a hub id.
        frame: how a transcript is presented (our choice).
        device: ``auto``, ``cpu``, ``cuda:1``.

    Raises:
        ConfigError: if the model cannot be loaded, or keeps a running state instead of keys and
            values. Also if the frame does not have exactly one blank.
    """

    scale: ClassVar[str] = "log-likelihood per token of the class, in nats"

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        frame: str = 'Someone says: "{}"',
        device: str = "auto",
    ) -> None:
        if frame.count(BLANK) != 1:
            raise ConfigError(f"frame={frame}; give one {BLANK} at the place of the transcript")
        self.frame, self.device = frame, device_of(device)
        published = Published.find("model", model, revision, example="gpt2")
        published.refuse_other_than_text()
        self.loaded = published.load(AutoModelForCausalLM, device=self.device)
        self.model, self.source = self.loaded.model, self.loaded.source
        published.refuse_running_state(self.model)
        self.tokenizer = tokenizer_of(published)
        self.limit = length_limit(self.tokenizer, self.model.config)

    def settings(self) -> dict[str, Any]:
        return super().settings() | self.loaded.settings() | {"frame": self.frame}

    @torch.inference_mode()
    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        found = np.empty((len(premises), len(hypotheses)))
        stems: dict[str, list[int]] = {}
        for index, hypothesis in enumerate(hypotheses):
            stems.setdefault(hypothesis.stem, []).append(index)
        for row, premise in enumerate(premises):
            for stem, columns in stems.items():
                said = [hypotheses[c].text for c in columns]
                prefix, rest = self.spelt(premise, stem, said)
                found[row, columns] = self._likelihood(prefix, rest)
        return found

    def spelt(
        self, premise: str, stem: str, said: Sequence[str]
    ) -> tuple[list[int], list[list[int]]]:
        """Return the token ids of the common beginning, and of the continuation of each text.

        They are cut from the tokens of the whole texts. A tokenizer may spell words inside a text
        differently than alone. Texts that are too long for the model lose their beginning.
        """
        framed = self.frame.replace(BLANK, premise)
        whole = [self._ids(f"{framed} {text}") for text in said]
        prefix = self._ids(f"{framed} {stem}".rstrip())
        shared = len(prefix)
        for ids in whole:
            same = [a == b for a, b in zip(prefix, ids, strict=False)]
            shared = min(shared, len(ids) - 1, same.index(False) if False in same else len(same))
        rest = [ids[shared:] for ids in whole]
        room = shared if self.limit is None else max(1, self.limit - max(map(len, rest)))
        begin = self.tokenizer.bos_token_id
        begin = self.tokenizer.eos_token_id if begin is None else begin
        return prefix[:shared][-room:] or [begin], rest

    def _ids(self, text: str) -> list[int]:
        """Return the token ids with the tokenizer's beginning of text, but no end of text."""
        ids = list(self.tokenizer.encode(text))
        if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            ids.pop()
        return ids

    def _likelihood(self, prefix: list[int], rest: list[list[int]]) -> list[float]:
        """Return the mean log-likelihood of each continuation of one prefix."""
        longest = max(map(len, rest))
        padded = [ids + [ids[-1]] * (longest - len(ids)) for ids in rest]
        tokens = torch.tensor(padded, device=self.device)  # [C, J]
        first = self.model(torch.tensor([prefix], device=self.device), use_cache=True)
        logits: Tensor = first.logits[:, -1:].expand(len(rest), -1, -1)  # [C, 1, vocabulary]
        if longest > 1:
            # no attention mask: a causal model does not see the padding on the right
            past = first.past_key_values
            past.batch_repeat_interleave(len(rest))
            more = self.model(tokens[:, :-1], past_key_values=past, use_cache=True).logits
            logits = torch.cat([logits, more], 1)
        each = log_softmax(logits.float(), -1).gather(-1, tokens[..., None]).squeeze(-1).double()
        return [float(row[: len(ids)].mean()) for row, ids in zip(each, rest, strict=True)]
