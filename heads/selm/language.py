"""Causal language models for SELM: how likely a label is after a prefix.

:class:`LanguageModel` wraps any decoder that ``transformers`` can load, by hub id or local folder.
The offline default is a small GPT-2 from scratch over bytes (:func:`from_scratch`).
:func:`load_pretrained` loads a published model, and :func:`add_lora` adds adapters to it. Models
are wrapped, not subclassed: ``transformers`` 5 re-initialises modules that are added to a subclass
of its own models.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
)
from transformers.pytorch_utils import Conv1D

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Published
from .decoding import Allowed, Written, search
from .spelling import ByteTokenizer, PretrainedTokenizer, Tokenizer
from .tree import Branch, cache_of, memory, rank, read_lead

SCRATCH = "scratch"
"""The name of the offline default, a small GPT-2 over bytes with random weights."""

PAIRS_AT_ONCE = 128
"""How many (utterance, label) pairs share a forward pass; this limits the copies of the cache."""

Tuning = Literal["auto", "frozen", "lora", "full"]
Init = Literal["published", "random"]


class LanguageModel(nn.Module):
    """A causal language model that reads embeddings and returns the likelihood of labels.

    Args:
        name: ``"scratch"``, a hub id such as ``"gpt2"``, or a local folder. The folder has
            ``config.json``, ``model.safetensors`` and the tokenizer's files.
        revision: commit, tag or branch of a hub id; None = its main branch.
        tuning: ``frozen`` keeps the weights and runs in evaluation mode; gradients still reach
            the prefix. ``lora`` keeps them, and trains adapters on the layers that peft selects
            for the architecture. ``full`` trains them. ``auto`` is ``full`` for ``scratch`` and
            ``frozen`` otherwise.
        width: width of the model from scratch; a multiple of 32, the width of an attention head.
        layers: number of layers of the model from scratch.
        dropout: dropout rate of the model from scratch; a published model keeps its own.
        init: ``random`` takes architecture and tokenizer of a hub id or folder, and random
            weights.
        seed: seed of random weights that are not trained; they are rebuilt from it, not saved.
        rank: rank of the LoRA updates.
        alpha: the LoRA updates are scaled by ``alpha / rank``.

    Attributes:
        width: ``W``, width of the token embeddings.
        frozen: whether the weights stay as published.
        pretrained: whether it has a published architecture and tokenizer.
        slow: whether published weights are trained; they need a smaller learning rate.

    Raises:
        ConfigError: if the model or its tokenizer cannot be loaded. Also if its memory is a
            running state, which labels cannot share.
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
        init: Init = "published",
        seed: int = 0,
        rank: int = 8,
        alpha: float = 16.0,
    ) -> None:
        super().__init__()
        self.name = name
        self._spelt: dict[tuple[str, ...], list[list[int]]] = {}
        self.pretrained = name != SCRATCH
        self.frozen = self.pretrained if tuning == "auto" else tuning == "frozen"
        self.model: Any
        self.tokenizer: Tokenizer
        if self.pretrained:
            drawn = seed if init == "random" else None
            self.model, self.tokenizer = load_pretrained(name, revision, drawn)
        else:
            # trained weights start from the seed of the run, frozen ones from their own seed
            with seeded(seed if tuning in ("frozen", "lora") else None):
                self.model = from_scratch(width, layers, dropout)
            self.tokenizer = ByteTokenizer()
        if (output := self.model.get_output_embeddings()) is not None:
            output.register_forward_pre_hook(_in_one_block)
        # a published default, such as a penalty of repetition, would change what is likeliest
        self.model.generation_config = GenerationConfig()
        # a published model whose own weights are trained, not only adapters
        self.slow = self.pretrained and init == "published" and tuning == "full"
        self.width: int = self.model.get_input_embeddings().embedding_dim
        if self.frozen:
            self.model.requires_grad_(False)
            self.model.eval()
        elif tuning == "lora":
            add_lora(self.model, rank, alpha, name)
        else:
            save_tied_weights_once(self)
        # a model without position ids (its attention has a distance bias) cannot read a tree
        self._reads_trees = "position_ids" in inspect.signature(self.model.forward).parameters

    def train(self, mode: bool = True) -> LanguageModel:
        """Set training mode as ``nn.Module`` does, but a frozen model stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def frozen_parts(self) -> dict[str, nn.Module]:
        """Return the parts of the model that nothing trains, by their name below this module."""
        return frozen_parts(self.model, "model")

    def embed(self, ids: Tensor) -> Tensor:
        """Map token ids ``[...]`` to the model's own embeddings ``[..., W]``."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def spell(self, prompt: str, labels: list[str]) -> list[list[int]]:
        """Return the token ids of each label after the prompt, with the end of text.

        Raises:
            ConfigError: if a label is empty, or two labels have the same token ids.
        """
        key = (prompt, *labels)
        if key in self._spelt:
            return self._spelt[key]
        spelt: dict[tuple[int, ...], str] = {}
        for label in labels:
            ids = tuple(self.tokenizer.label(prompt, label)) if label.strip() else ()
            if not ids:
                raise ConfigError(f"the label '{label}' has no characters to spell; give it a form")
            if ids in spelt:
                raise ConfigError(
                    f"the labels '{spelt[ids]}' and '{label}' have the same tokens, so a language "
                    "model cannot tell them apart; rename one of the classes"
                )
            spelt[ids] = label
        self._spelt[key] = [[*ids, self.tokenizer.end] for ids in spelt]
        return self._spelt[key]

    def log_likelihood(
        self,
        context: Tensor,
        spelt: list[list[int]],
        rows: Tensor,
        columns: Tensor,
        lead: Tensor | None = None,
    ) -> Tensor:
        """Return ``log p(y_c | context_b)`` for chosen pairs of an utterance b and a label c.

        It is ``sum_j log p(y_cj | context_b, y_c<j)`` over the label's tokens and the end of text.
        So the probabilities of all strings add up to one. The context is read once per utterance;
        all labels share its keys and values.

        Args:
            context: ``[B, P, W]`` embeddings to condition on.
            spelt: C labels, from :meth:`spell`.
            rows: ``[N]`` int64, N >= 1: the utterance of each pair.
            columns: ``[N]`` int64: the label of each pair.
            lead: ``[1, P0, W]`` embeddings that stand before every context, such as a prompt. They
                are read once for all utterances. In training, all share their dropout.

        Returns:
            ``[N]`` float32 log-likelihoods, not normalised by length.

        Raises:
            ConfigError: if context and label together are longer than the model can read.
        """
        self._keep_mode()
        longest = max(map(len, spelt))
        before = 0 if lead is None else lead.shape[1]
        self._check_fits(before + context.shape[1] + longest)
        padded = [ids + [self.tokenizer.end] * (longest - len(ids)) for ids in spelt]
        tokens = torch.tensor(padded, device=context.device)  # [C, J]
        counts = torch.tensor([len(ids) for ids in spelt], device=context.device)
        real = torch.arange(longest, device=context.device) < counts[:, None]  # [C, J]

        # No attention mask: contexts have one length. A causal model does not see the padding on
        # the right of a label.
        kept = read_lead(self.model, lead)
        every = torch.arange(len(context), device=rows.device)
        if len(every) <= PAIRS_AT_ONCE and torch.equal(rows, every):
            # one label each, as in training on hard labels: one pass over context and label
            target = tokens[columns]
            logits = self.model(
                inputs_embeds=torch.cat([context, self.embed(target[:, :-1])], 1),
                past_key_values=cache_of(kept, len(context)),
                use_cache=bool(kept),
                logits_to_keep=longest,
            ).logits
            return _log_p(logits, target, real[columns])
        first = self.model(
            inputs_embeds=context,
            past_key_values=cache_of(kept, len(context)),
            use_cache=True,
            logits_to_keep=1,
        )
        shared = memory(first.past_key_values)
        parts = []
        for row, column in zip(
            torch.split(rows, PAIRS_AT_ONCE), torch.split(columns, PAIRS_AT_ONCE), strict=True
        ):
            target = tokens[column]  # [n, J]
            rest = self.model(
                inputs_embeds=self.embed(target[:, :-1]),
                past_key_values=cache_of(shared, row),
                use_cache=True,
            )
            logits = torch.cat([first.logits[row], rest.logits], 1)
            parts.append(_log_p(logits, target, real[column]))
        return torch.cat(parts)

    def rank(
        self, context: Tensor, branches: Sequence[Branch], lead: Tensor | None = None
    ) -> list[Tensor]:
        """Return ``log p(label | lead, context, trunk)`` of every label of every branch.

        The context is read once for all labels. Labels with the same beginning share it
        (:mod:`.tree`). A model without position ids reads branch by branch.

        Args:
            context: ``[B, P, W]`` embeddings to condition on.
            branches: trunks (for example a prompt) with their spelt labels; P >= 1 if a branch
                has no trunk.
            lead: ``[1, P0, W]`` embeddings before every context, such as a prompt; they are read
                once for all utterances. None = nothing.

        Returns:
            For each branch ``[B, labels]`` float32, not normalised by length.

        Raises:
            ConfigError: if lead, context, trunk and label are longer than the model can read.
        """
        self._keep_mode()
        if not self._reads_trees:
            return [self._rank_by_pairs(context, *branch, lead) for branch in branches]
        trunks = [0 if trunk is None else len(trunk) for trunk, _ in branches]
        longest = [max(map(len, spelt)) for _, spelt in branches]
        before = 0 if lead is None else lead.shape[1]
        self._check_fits(before + context.shape[1] + max(map(int.__add__, trunks, longest)))
        return rank(self.model, self.embed, context, branches, lead)

    def _rank_by_pairs(
        self, context: Tensor, trunk: Tensor | None, spelt: list[list[int]], lead: Tensor | None
    ) -> Tensor:
        B, C = len(context), len(spelt)
        if trunk is not None:
            context = torch.cat([context, trunk.expand(B, -1, -1)], 1)
        rows = torch.arange(B, device=context.device).repeat_interleave(C)
        columns = torch.arange(C, device=context.device).repeat(B)
        return self.log_likelihood(context, spelt, rows, columns, lead).view(B, C)

    def search(
        self,
        context: Tensor,
        tokens: int,
        *,
        beams: int = 1,
        allowed: Allowed | None = None,
        per_token: bool = False,
    ) -> list[list[Written]]:
        """Return the best texts after each context ``[B, P, W]``, by :func:`.decoding.search`.

        A text has at most ``tokens`` tokens, and fewer if the model has fewer positions left.

        Raises:
            ConfigError: if the context leaves no position for a token.
        """
        self._keep_mode()
        self._check_fits(context.shape[1] + 1)
        tokens = min(tokens, (self._positions() or context.shape[1] + tokens) - context.shape[1])
        return search(
            self.model,
            context,
            end=self.tokenizer.end,
            tokens=tokens,
            beams=beams,
            allowed=allowed,
            per_token=per_token,
        )

    def write(self, context: Tensor, tokens: int) -> list[list[int]]:
        """Return the token ids that the model writes greedily after each context."""
        return [list(texts[0].ids) for texts in self.search(context, tokens)]

    def _keep_mode(self) -> None:
        if self.frozen and self.model.training:
            self.model.eval()  # other code may have changed the mode of the inner model

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


def _log_p(logits: Tensor, target: Tensor, real: Tensor) -> Tensor:
    """Return ``[n]`` float32 log-likelihoods of labels.

    Args:
        logits: ``[n, J, vocabulary]`` predictions of each token.
        target: ``[n, J]`` ids of the tokens.
        real: ``[n, J]`` bool, False after the label's end.
    """
    nll = nn.functional.cross_entropy(logits.float().transpose(1, 2), target, reduction="none")
    return -(nll * real).sum(1)


def _in_one_block(_: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Make the states contiguous that the output layer reads.

    The last position of each utterance is a slice. PyTorch multiplies it by the vocabulary's matrix
    once for each utterance, and not once for all. That took a third of a training step.
    """
    return (states[0].contiguous(), *states[1:])


# Making language models: from scratch, or published.


def from_scratch(width: int, layers: int, dropout: float) -> GPT2LMHeadModel:
    """Return a small GPT-2 over bytes with random weights and tied input and output embeddings.

    Raises:
        ConfigError: if the width is not a positive multiple of 32.
    """
    if width <= 0 or width % 32:
        raise ConfigError(f"lm_width={width}; give a positive multiple of 32, such as 128")
    end = ByteTokenizer.end
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=ByteTokenizer.size,
            n_positions=256,
            n_embd=width,
            n_layer=layers,
            n_head=width // 32,
            activation_function="gelu",  # takes a quarter of the time of GPT-2's approximation
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            # GPT-2's 0.02 is for a width of 768 or more; here it gives too small activations
            initializer_range=width**-0.5,
            attn_pdrop=0.0,  # dropout on attention weights needs a slower kernel
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Context with the random numbers of a seed; those of the caller stay as they were.

    With None the context has no effect.
    """
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_pretrained(
    name: str, revision: str | None, seed: int | None = None
) -> tuple[Any, PretrainedTokenizer]:
    """Return a published causal model in float32, and its tokenizer.

    Args:
        name: hub id, or a local folder.
        revision: commit, tag or branch of a hub id.
        seed: seed of random weights, which replace the published ones; these are then not read.
            None = use the published weights.

    Raises:
        ConfigError: if the model cannot be loaded; the message says why and what to do.
    """
    source = Published.find("head.lm", name, revision, example="gpt2, or head.lm=scratch")
    source.refuse_other_than_text()
    tokenizer = source.part(AutoTokenizer, "the tokenizer's files")
    if seed is None:
        model = source.load(AutoModelForCausalLM, trained=True).model
    else:
        with seeded(seed):
            model = source.drawn(AutoModelForCausalLM)
    source.refuse_running_state(model)
    return model, PretrainedTokenizer(tokenizer, name)


def add_lora(model: Any, rank: int, alpha: float, name: str) -> None:
    """Add low-rank adapters (Hu et al. 2021, arXiv 2106.09685) to the layers that peft selects.

    If peft does not know the architecture, all linear layers except the output get adapters.

    Raises:
        ConfigError: if the rank is not positive.
    """
    if rank < 1:
        raise ConfigError(f"lora_rank={rank} for lm '{name}'; give at least 1")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float is fine, the hint is narrow
        # None: peft selects the layers by the model's type
        target_modules=None if model.config.model_type in TARGETS else "all-linear",
        # GPT-2 keeps its matrices transposed
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
        bias="none",
    )
    inject_adapter_in_model(config, model)


def frozen_parts(module: nn.Module, name: str) -> dict[str, nn.Module]:
    """Return the largest parts of a module that hold weights and train none, by name."""
    if not module.state_dict():
        return {}
    if not any(p.requires_grad for p in module.parameters()):
        return {name: module}
    parts: dict[str, nn.Module] = {}
    for child, part in module.named_children():
        parts |= frozen_parts(part, f"{name}.{child}")
    return parts


def save_tied_weights_once(module: nn.Module) -> None:
    """Leave the tied output matrix out of the state dict; safetensors refuses shared memory."""
    seen: dict[int, str] = {}
    tied: dict[str, str] = {}
    for key, parameter in module.named_parameters(remove_duplicate=False):
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

    module.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(restore)  # type: ignore[no-untyped-call]
