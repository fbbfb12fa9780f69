"""SELM: emotion recognition as writing the name of the emotion.

After Bukhari, Deshmukh, Dhamyal, Raj, Singh, "SELM: Enhancing Speech Emotion Recognition for
Out-of-Domain Scenarios" (arXiv 2407.15300, Interspeech 2024). Audio becomes a prefix in the
embedding space of a causal language model, a prompt follows, and the model writes the label. What
was chosen here because the paper's text was not at hand is marked "our choice".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..zoo.errors import ConfigError
from ..zoo.head import Head
from ..zoo.taxonomy import Taxonomy
from ..zoo.types import Frames, HeadLoss, Targets
from .language import LanguageModel, Tuning
from .pooling import AttentiveStatistics

RELATIVE_LR = 0.3
"""Learning rate relative to the one asked for: transformers want a smaller one than convolutions
and linear layers (our choice)."""

PRETRAINED_LR = 0.03
"""The same for a published language model that is fully tuned (our choice)."""

WRITTEN = 8
"""Tokens that are written freely at most; more where a trained label is longer (our choice)."""


class Projection(nn.Module):
    """``LayerNorm(W1 x + W2 GELU(W1 x))``, frame by frame: ``[..., D]`` to ``[..., W]``.

    Two linear layers with GELU, as summarised of SELM; residual and norm as in Pengi's projection.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(dim, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.norm(x + self.dropout(self.second(nn.functional.gelu(x))))
        return out


class AudioMapper(nn.Module):
    """Frames of any number to a prefix of fixed length: ``[B, T, D]`` to ``[B, L, W]``.

    L learned queries weigh the frames of speech and read their mean and standard deviation, as the
    attentive statistics of the other heads do once (so that heads differ in what follows, not in
    how they read the frames); then projection, and transformer layers over the L positions
    (Pengi's mapper has learned constants there as well). The reduction by queries, and the final
    norm that starts at the size of the model's own token embeddings, are our choice.
    """

    def __init__(
        self, dim: int, width: int, prefix: int, layers: int, dropout: float, size: float
    ) -> None:
        super().__init__()
        self.pool = AttentiveStatistics(dim, queries=prefix)
        self.read = nn.LayerNorm(self.pool.width)
        self.project = Projection(self.pool.width, width, dropout)
        self.constants = nn.Parameter(0.1 * torch.randn(prefix, width))
        self.layers = nn.ModuleList(mapper_layer(width, dropout) for _ in range(layers))
        self.norm = SizedNorm(width, size)

    def forward(self, frames: Frames) -> Tensor:
        out = self.project(self.read(self.pool.statistics(frames))) + self.constants
        for layer in self.layers:
            out = layer(out)
        mapped: Tensor = self.norm(out)
        return mapped


class TextMapper(nn.Module):
    """A transformer layer over the token embeddings of the prompt: ``[1, Lt, W]`` to the same."""

    def __init__(self, width: int, dropout: float, size: float) -> None:
        super().__init__()
        self.layer = mapper_layer(width, dropout)
        self.norm = SizedNorm(width, size)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.norm(self.layer(x))
        return mapped


class SELMHead(Head):
    """Ranks the classes of a taxonomy by how likely a language model is to write their names.

    ``a = AudioMapper(frames)``, ``t = TextMapper(wte(prompt))``, and the model continues
    ``[t ; a]`` with the label's tokens and the end of text. The loss is next-token prediction on
    these alone::

        L = -sum_j log p(y_j | a, t, y_<j)

    summed over the tokens and averaged over utterances: the negative log-likelihood of the label,
    as in the paper's formulation ``argmax_e p(e | x, w)``. (A mean over tokens would weigh short
    names more; our choice.) For a soft target it is the expectation over classes,
    ``sum_c p_c L_c``. The score of a class is ``-L_c``, for any class that the model can spell,
    trained on or not.

    Args:
        lm: ``"scratch"`` (a small GPT-2 over bytes), a hub id such as ``"gpt2"``, or a folder.
        lm_revision: commit, tag or branch of a hub id; None = its main branch.
        lm_tuning: ``frozen``, ``full``, or ``auto``: frozen where weights are published.
        lm_width: width of the model from scratch.
        lm_layers: layers of the model from scratch.
        prefix: length of the audio prefix (Pengi: 40; 4 by default is our choice, for speed).
        mapper_layers: transformer layers of the audio mapper (SELM: one; none by default, since on
            a thousand utterances and from scratch they learn more slowly; give a published model
            one).
        dropout: in the mappers, and in the model from scratch.
        prompt: what the model reads between the audio and the label.
        length_normalised: divide scores by the number of tokens; their softmax is then no longer
            the model's probability of the label.

    Raises:
        ConfigError: when the language model cannot be loaded, or two classes are spelt alike.
    """

    open_labels: ClassVar[bool] = True
    sizes: ClassVar[Mapping[str, int]] = {"lm_width": 32, "prefix": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        lm: str = "scratch",
        lm_revision: str | None = None,
        lm_tuning: Tuning = "auto",
        lm_width: int = 128,
        lm_layers: int = 1,
        prefix: int = 4,
        mapper_layers: int = 0,
        dropout: float = 0.0,
        prompt: str = "this emotion is",
        length_normalised: bool = False,
    ) -> None:
        super().__init__(dim, taxonomy)
        if prefix < 1:
            raise ConfigError(f"prefix={prefix}; the audio needs at least one position")
        self.language = LanguageModel(
            lm,
            revision=lm_revision,
            tuning=lm_tuning,
            width=lm_width,
            layers=lm_layers,
            dropout=dropout,
        )
        self.prompt = prompt
        self.length_normalised = length_normalised
        ids = self.language.tokenizer.prompt(prompt)
        if not ids:
            raise ConfigError("prompt is empty; give a few words, such as 'this emotion is'")
        self.prompt_ids: Tensor
        self.register_buffer("prompt_ids", torch.tensor([ids]), persistent=False)
        size = self.language.model.get_input_embeddings().weight.detach().square().mean().sqrt()
        width = self.language.width
        self.audio_mapper = AudioMapper(dim, width, prefix, mapper_layers, dropout, float(size))
        self.text_mapper = TextMapper(width, dropout, float(size))
        self.language.spell(
            prompt, taxonomy.forms
        )  # a taxonomy that cannot be told apart fails now

    def context(self, frames: Frames) -> Tensor:
        """``[B, Lt + L, W]``: what the language model reads before the label.

        The prompt first, so that the label follows the audio directly and hears it from the first
        step (Pengi has the audio first; our choice).
        """
        audio = self.audio_mapper(frames)
        text = self.text_mapper(self.language.embed(self.prompt_ids))
        return torch.cat([text.expand(len(audio), -1, -1), audio], 1)

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        spelt = self.language.spell(self.prompt, self.taxonomy.forms)
        pairs = targets.probs > 0
        # an unlabelled utterance is scored for some class, with probability 0, so that a backward
        # pass reaches every parameter in every batch
        pairs[:, 0] |= ~pairs.any(-1)
        rows, columns = pairs.nonzero(as_tuple=True)
        log_p = self.language.log_likelihood(self.context(frames), spelt, rows, columns)
        nll = -log_p * targets.probs[rows, columns].to(log_p.dtype)
        per_token = nll.detach() / self._counts(spelt, nll.device)[columns]
        zeros = nll.new_zeros(len(pairs))
        return HeadLoss(
            targets.average(zeros.index_add(0, rows, nll)),
            {"nll_per_token": targets.average(zeros.index_add(0, rows, per_token))},
        )

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        spelt = self.language.spell(self.prompt, taxonomy.forms)
        context = self.context(frames)
        B, C = len(context), len(taxonomy)
        rows = torch.arange(B, device=context.device).repeat_interleave(C)
        columns = torch.arange(C, device=context.device).repeat(B)
        log_p = self.language.log_likelihood(context, spelt, rows, columns).view(B, C)
        return log_p / self._counts(spelt, log_p.device) if self.length_normalised else log_p

    def write(self, frames: Frames) -> list[str]:
        """What the model writes by itself: greedy, over its whole vocabulary, to the end of text.

        At most 8 tokens, or as many as the longest trained label takes.
        """
        spelt = self.language.spell(self.prompt, self.taxonomy.forms)
        written = self.language.write(self.context(frames), max(WRITTEN, *map(len, spelt)))
        return [self.language.tokenizer.text(ids) for ids in written]

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """All at ``0.3 lr``, but a fully tuned published model at ``0.03 lr``."""
        slow = list(self.language.parameters()) if self.language.pretrained else []
        ids = {id(p) for p in slow}
        groups = [
            {"params": [p for p in self.parameters() if id(p) not in ids], "lr": lr * RELATIVE_LR},
            {"params": [p for p in slow if p.requires_grad], "lr": lr * PRETRAINED_LR},
        ]
        return [group for group in groups if group["params"]]

    def frozen_roots(self) -> dict[str, nn.Module]:
        return {"language.model": self.language.model} if self.language.frozen else {}

    @staticmethod
    def _counts(spelt: list[list[int]], device: torch.device) -> Tensor:
        return torch.tensor([len(ids) for ids in spelt], device=device)


def heads_for(width: int) -> int:
    """Attention heads of a mapper: 8 as in Pengi, or the most below that divide the width."""
    return next(n for n in (8, 4, 2, 1) if width % n == 0)


def mapper_layer(width: int, dropout: float) -> nn.TransformerEncoderLayer:
    """A pre-norm transformer layer with MLP ratio 2, as in Pengi's mappers (GELU: our choice)."""
    layer = nn.TransformerEncoderLayer(
        width, heads_for(width), 2 * width, dropout, "gelu", batch_first=True, norm_first=True
    )
    layer.self_attn.dropout = 0.0  # on attention weights it costs a slower kernel
    return layer


class SizedNorm(nn.Module):
    """A layer norm times a fixed size, the root mean square of the model's token embeddings.

    The size is not folded into the norm's weights: these would start near 0.02, and an optimiser's
    step that is small for a weight near 1 would change the prefix by several per cent.
    """

    def __init__(self, width: int, size: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.size: Tensor
        self.register_buffer("size", torch.tensor(size))  # saved: it was read off random weights

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.size * self.norm(x)
        return out
