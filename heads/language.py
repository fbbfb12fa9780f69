"""Causal language models as SELM uses them: how likely a label is after a prefix.

Any decoder that ``transformers`` can load will do, by hub id or local folder; the offline default
is a small GPT-2 from scratch over bytes. Models are wrapped, not subclassed: ``transformers`` 5
re-initialises modules that are added to a subclass of its own models.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..zoo.errors import ConfigError
from .causal import from_scratch, load_pretrained
from .spelling import ByteTokenizer, Tokenizer

SCRATCH = "scratch"
"""The name of the offline default, a small GPT-2 over bytes with random weights."""

PAIRS_AT_ONCE = 128
"""How many (utterance, label) pairs share a forward pass: bounds the copies of the cache."""

Tuning = Literal["auto", "frozen", "full"]


class LanguageModel(nn.Module):
    """A causal language model that reads embeddings and says how likely a label is.

    Args:
        name: ``"scratch"``, a hub id such as ``"gpt2"``, or a local folder with ``config.json``,
            ``model.safetensors`` and the tokenizer's files.
        revision: commit, tag or branch of a hub id; None = its main branch.
        tuning: ``frozen`` keeps the published weights and runs in evaluation mode (gradients pass
            through to the prefix); ``full`` trains them; ``auto`` is frozen where there are
            published weights, full for ``scratch``.
        width: of the model from scratch; a multiple of 32, the width of an attention head.
        layers: of the model from scratch.
        dropout: of the model from scratch; a published model keeps its own.

    Attributes:
        width: ``W``, width of the token embeddings.
        frozen: whether the weights stay as published.
        pretrained: whether there are published weights.

    Raises:
        ConfigError: when the model or its tokenizer cannot be loaded, or ``scratch`` is to be
            frozen.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None,
        tuning: Tuning,
        width: int,
        layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.name = name
        self.pretrained = name != SCRATCH
        self.frozen = self.pretrained if tuning == "auto" else tuning == "frozen"
        self.model: Any
        self.tokenizer: Tokenizer
        if self.pretrained:
            self.model, self.tokenizer = load_pretrained(name, revision)
        elif self.frozen:
            raise ConfigError(
                "lm_tuning=frozen with lm=scratch would freeze random weights that no checkpoint "
                "keeps; set lm_tuning=full, or lm to a hub id or folder"
            )
        else:
            self.model, self.tokenizer = from_scratch(width, layers, dropout), ByteTokenizer()
        self.width: int = self.model.get_input_embeddings().embedding_dim
        if self.frozen:
            self.model.requires_grad_(False)
            self.model.eval()
        else:
            self._save_tied_weights_once()

    def train(self, mode: bool = True) -> LanguageModel:
        """As in ``nn.Module``, but a frozen model stays in evaluation mode (no dropout)."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids ``[...]`` to the model's own embeddings ``[..., W]``."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def spell(self, prompt: str, labels: list[str]) -> list[list[int]]:
        """Ids of each label after the prompt, with the end of text.

        Raises:
            ConfigError: when a label is empty, or two labels are spelt alike and so cannot be told
                apart.
        """
        spelt: dict[tuple[int, ...], str] = {}
        for label in labels:
            ids = tuple(self.tokenizer.label(prompt, label)) if label.strip() else ()
            if not ids:
                raise ConfigError(f"the label '{label}' has nothing to spell; give it a form")
            if ids in spelt:
                raise ConfigError(
                    f"the labels '{spelt[ids]}' and '{label}' are spelt alike, so a language "
                    "model cannot tell them apart; rename one of the classes"
                )
            spelt[ids] = label
        return [[*ids, self.tokenizer.end] for ids in spelt]

    def log_likelihood(
        self, context: Tensor, spelt: list[list[int]], rows: Tensor, columns: Tensor
    ) -> Tensor:
        """``log p(y_c | context_b) = sum_j log p(y_cj | context_b, y_c<j)``, for chosen pairs.

        The sum runs over the label's tokens and the end of text, so that over all strings the
        probabilities add up to one. The context is read once per utterance; its keys and values
        are shared by the labels.

        Args:
            context: ``[B, P, W]`` embeddings to condition on.
            spelt: C labels, from :meth:`spell`.
            rows: ``[N]`` long, N >= 1: which utterance, for each pair.
            columns: ``[N]`` long: which label, for each pair.

        Returns:
            ``[N]`` float32 log-likelihoods, not normalised by length.

        Raises:
            ConfigError: when context and label together are longer than the model can read.
        """
        if self.frozen and self.model.training:
            self.model.eval()  # somebody switched it behind our back
        longest = max(map(len, spelt))
        self._check_fits(context.shape[1] + longest)
        padded = [ids + [self.tokenizer.end] * (longest - len(ids)) for ids in spelt]
        tokens = torch.tensor(padded, device=context.device)  # [C, J]
        counts = torch.tensor([len(ids) for ids in spelt], device=context.device)
        real = torch.arange(longest, device=context.device) < counts[:, None]  # [C, J]

        # no attention mask: contexts have one length, and padding on the right of a label is
        # invisible to a causal model
        first = self.model(inputs_embeds=context, use_cache=True, logits_to_keep=1)
        shared = [(layer.keys, layer.values) for layer in first.past_key_values.layers]
        parts = []
        for row, column in zip(
            torch.split(rows, PAIRS_AT_ONCE), torch.split(columns, PAIRS_AT_ONCE), strict=True
        ):
            past = DynamicCache()
            for depth, (keys, values) in enumerate(shared):
                past.update(keys[row], values[row], depth)
            target = tokens[column]  # [n, J]
            rest = self.model(
                inputs_embeds=self.embed(target[:, :-1]), past_key_values=past, use_cache=True
            )
            logits = torch.cat([first.logits[row], rest.logits], 1).float()  # [n, J, vocabulary]
            nll = nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
            parts.append(-(nll * real[column]).sum(1))
        return torch.cat(parts)

    def write(self, context: Tensor, tokens: int) -> list[list[int]]:
        """Greedy free decoding: what the model writes by itself after a context.

        Each step takes the likeliest token of the whole vocabulary, reads only that one (keys and
        values of the rest are kept), and a row ends at the end of text. Contexts have one length,
        so rows do not see each other.

        Args:
            context: ``[B, P, W]`` embeddings to condition on.
            tokens: at most so many are written; fewer where the model reads no more positions.

        Returns:
            B lists of ids, without the end of text.

        Raises:
            ConfigError: when the context leaves no position to write at.
        """
        if self.frozen and self.model.training:
            self.model.eval()
        self._check_fits(context.shape[1] + 1)
        tokens = min(tokens, (self._positions() or context.shape[1] + tokens) - context.shape[1])
        written: list[list[int]] = [[] for _ in context]
        open_rows = set(range(len(written)))
        past, step = DynamicCache(), context
        for _ in range(tokens):
            out = self.model(
                inputs_embeds=step, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            chosen = out.logits[:, -1].float().argmax(-1)
            for row, token in enumerate(chosen.tolist()):
                if token == self.tokenizer.end:
                    open_rows.discard(row)
                elif row in open_rows:
                    written[row].append(token)
            if not open_rows:
                break
            step = self.embed(chosen[:, None])
        return written

    def _positions(self) -> int | None:
        limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        return limit

    def _check_fits(self, length: int) -> None:
        limit = self._positions()
        if limit is not None and length > limit:
            raise ConfigError(
                f"audio prefix, prompt and label take {length} positions, and lm '{self.name}' "
                f"reads {limit}; set a smaller prefix or a shorter prompt"
            )

    def _save_tied_weights_once(self) -> None:
        """Leave the tied output matrix out of the state dict: safetensors refuses shared memory."""
        seen: dict[int, str] = {}
        tied: dict[str, str] = {}
        for key, parameter in self.named_parameters(remove_duplicate=False):
            if id(parameter) in seen:
                tied[key] = seen[id(parameter)]
            seen.setdefault(id(parameter), key)

        def drop(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
            for key in tied:
                state.pop(prefix + key, None)

        def restore(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
            for key, source in tied.items():
                if prefix + source in state:
                    state[prefix + key] = state[prefix + source]

        self.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(restore)  # type: ignore[no-untyped-call]
