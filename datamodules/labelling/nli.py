"""A scorer by any NLI classifier of ``transformers``: does the sentence follow from the words?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Published
from .scorers import Hypothesis, Scorer, Scores, device_of


class NLI(Scorer):
    """The entailment of each hypothesis, as a log-odds.

    The score is ``log p(entailment) - log p(contradiction)``. The model's ``config.json`` gives
    the indices of these classes. For a model of two classes it is the difference of these. Its
    sigmoid is the score of a label in the zero-shot pipeline of ``transformers``, with
    ``multi_label=True``. That pipeline assumes that contradiction is the first or last class.

    Pairs of transcript and hypothesis are sorted by length and run in batches of similar length;
    padding is masked. A transcript that is too long is cut at its end; a hypothesis is never cut.

    Args:
        model: hub id or local folder with ``model.safetensors``.
        revision: commit, tag or branch of a hub id.
        batch_tokens: tokens in a batch with padding; it limits memory, and does not change results.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Raises:
        ConfigError: if the model cannot be loaded, or its classes do not have the names of NLI.
    """

    scale: ClassVar[str] = "log-odds of entailment against contradiction"

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        batch_tokens: int = 8192,
        device: str = "auto",
    ) -> None:
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens={batch_tokens}; give at least 1")
        self.batch_tokens, self.device = batch_tokens, device_of(device)
        published = Published.find(
            "model", model, revision, example="cross-encoder/nli-deberta-v3-base"
        )
        self.loaded = published.load(AutoModelForSequenceClassification, device=self.device)
        self.source = self.loaded.source
        self.model = self.loaded.model
        config = self.model.config
        self.entailment, self.contradiction = places(config.id2label, config.label2id, model)
        self.tokenizer = tokenizer_of(published)
        if config.pad_token_id is None:  # decoders find the last token by it
            config.pad_token_id = self.tokenizer.pad_token_id
        self.limit = length_limit(self.tokenizer, config)
        forward = inspect.signature(self.model.forward).parameters
        self._extra = {"use_cache": False} if "use_cache" in forward else {}

    def settings(self) -> dict[str, Any]:
        labels = [self.entailment, self.contradiction]
        return super().settings() | self.loaded.settings() | {"labels": labels}

    @torch.inference_mode()
    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        pairs = [(p, h.text) for p in premises for h in hypotheses]
        found = np.empty(len(pairs))
        if pairs:
            encoded = self.tokenizer(
                [p for p, _ in pairs],
                [h for _, h in pairs],
                truncation="only_first",
                max_length=self.limit,
            )
            names = [n for n in self.tokenizer.model_input_names if n in encoded]
            for batch in buckets([len(ids) for ids in encoded["input_ids"]], self.batch_tokens):
                padded = self.tokenizer.pad(
                    {n: [encoded[n][i] for i in batch] for n in names}, return_tensors="pt"
                ).to(self.device)
                logits = self.model(**padded, **self._extra).logits.double().cpu().numpy()
                found[batch] = logits[:, self.entailment] - logits[:, self.contradiction]
        return found.reshape(len(premises), len(hypotheses))


def places(id2label: Mapping[int, str], label2id: Mapping[str, int], name: str) -> tuple[int, int]:
    """Return the indices of entailment and of its opposite: contradiction, or not entailment.

    Raises:
        ConfigError: if the names are unclear, or the two maps of the configuration disagree.
    """
    labels = {int(index): str(label).lower() for index, label in id2label.items()}
    shown = ", ".join(f"{index} {id2label[index]}" for index in id2label)
    entail = [index for index, label in labels.items() if label.startswith("entail")]
    if len(entail) != 1:
        raise ConfigError(
            f"model={name} has {len(entail)} classes of entailment ({shown}), but one is needed; "
            "give a model trained on NLI, or name its classes in id2label of its config.json"
        )
    against = [index for index, label in labels.items() if label.startswith("contradict")]
    if len(labels) == 2:
        against = [index for index in labels if index != entail[0]]
    if len(against) != 1:
        raise ConfigError(
            f"model={name} has {len(labels)} classes ({shown}), but not exactly one for "
            "contradiction; give a model with entailment, neutral and contradiction, or with "
            "entailment and its opposite"
        )
    turned = {int(index): str(label).lower() for label, index in label2id.items()}
    for index in (entail[0], against[0]):
        if turned.get(index, labels[index]) != labels[index]:
            raise ConfigError(
                f"config.json of model={name} calls class {index} '{labels[index]}' in id2label "
                f"and '{turned[index]}' in label2id; correct the one that is wrong"
            )
    return entail[0], against[0]


def tokenizer_of(published: Published) -> Any:
    """Return the tokenizer of a model; without a padding token, the end of text is used.

    Raises:
        ConfigError: if it cannot be loaded.
    """
    tokenizer = published.part(AutoTokenizer, "the tokenizer's files")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def length_limit(tokenizer: Any, config: Any) -> int | None:
    """Return the number of tokens that a model can read; None if there is no limit.

    If the tokenizer gives no limit, it is two less than the model's positions. RoBERTa and similar
    models count positions from the padding token on.
    """
    if tokenizer.model_max_length < 10**6:  # unset is 1e30
        return int(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None) or -1
    return int(positions) - 2 if positions > 2 else None


def buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yield indices in batches of similar length, the longest first, at most ``tokens`` padded.

    >>> list(buckets([3, 9, 4, 8], 16))
    [[1], [3, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    start = 0
    while start < len(order):
        count = max(1, tokens // max(1, lengths[order[start]]))
        yield order[start : start + count]
        start += count
