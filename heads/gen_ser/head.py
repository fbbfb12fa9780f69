"""The Gen-SER head: it transports an utterance to the code of its emotion.

After "When the generative model meets speech emotion recognition" (arXiv 2601.20573). Only its
abstract was available to us. It describes emotion recognition as transport of an initial to a
terminal distribution. Sinusoidal taxonomy encoding places the labels in a continuous space. Target
matching trains the generative model. The decision is by similarity to the codes of the classes. The
abstract does not state network, constants, conditioning and sampler; these are our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError
from ...zoo.core.head import Head
from ...zoo.core.registry import Count, Dropout, Size
from ...zoo.core.taxonomy import Taxonomy
from ...zoo.core.types import Frames, HeadLoss, Targets
from ..losses import cross_entropy
from ..pooling import PoolingName
from ..widen import more_inputs, wider_linear
from .codes import (
    CodeName,
    DecisionName,
    LearnedCodes,
    Order,
    build_codes,
    dual,
    explain_codes,
    similarity,
    warn_of_alike,
    wider_codes,
)
from .networks import NetworkName, build_network
from .path import MeanName, Path, Sampler, SamplerName, VarianceName
from .state import FrameState, StateName, UtteranceState, masked_mean

TIME_EPSILON = 0.01  # t is drawn from (0.01, 0.99), because the ends have no noise
KEYS_OF_CODES = ("codes", "code_dim", "spacing", "base", "order")


class GenSERHead(Head):
    """Target matching along a noisy path from the utterance to the code of its class.

    The path from the utterance ``x_1`` to the code ``x_0`` is ``x_t = (1 - b_t) x_0 + b_t x_1 +
    sigma_t z`` (:class:`.path.Path`). :class:`.path.Sampler` follows it. Target matching predicts
    its end directly::

        L = w E ||f(x_1, x_1, 1) - x_0||^2 + (1 - w) E_{t, z} ||f(x_t, x_1, t) - x_0||^2

    with t in (0.01, 0.99). The target is the signal itself, without the stochastic part of score or
    flow matching. This is from the abstracts (arXiv 2509.07521, 2601.20573). The first term is our
    choice. Every sampler starts at t = 1, and a single-step one ends there. But uniform times
    almost never visit t = 1. With ``source_share=1`` the head is the control ``regress_codes``;
    with 0 it is target matching alone.

    By ``objective`` the network can also predict the velocity of the flow, or the noise, in the
    second term. The latter is score matching, weighted by the variance. The first term always
    compares codes, so the prediction is first converted to a code. Neither velocity nor noise exist
    at t = 1. The first term and the sampler then use ``x_1`` as the state at t = 0.99.

    ``x_1`` is a learned projection of the utterance, layer-normalised without learned scale. So
    the two ends of the path cannot collapse into each other. Its root mean square is that of the
    codes, ``1 / sqrt(2)``. With ``state=frames`` every frame is transported to the code, and the
    mean of the generated frames decides. The trainer can average weights (``optim.ema``).

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        state: what is transported: the pooled ``utterance``, or its ``frames`` (pooling unused).
        standardise: standardise pooled values (or frames) by the mean and variance of the
            training data, instead of a layer normalisation.
        projection: a learned linear layer to ``code_dim``; if false, both widths must be equal.
        codes: ``sinusoidal``, ``one_hot``, ``orthogonal`` (random), ``learned``, ``text``
            (embeddings of the class names).
        code_dim: width of the codes, even.
        spacing: distance between positions of neighbouring classes; below about 100, classes at
            the ends get worse.
        base: ratio of the longest to the shortest wavelength of sinusoidal codes.
        order: order of the classes along the positions. null = that of the taxonomy. Otherwise a
            list of class names, a list of positions, or the seed of a random permutation.
        code_steps: training batches after which learned codes are fixed.
        text_model: model of sentence-transformers for text codes: a hub id or folder.
        text_revision: commit, tag or branch of a hub id; None = its main branch.
        objective: what the network predicts: ``target``, ``flow``, ``score``. ``ce`` is a
            control: the same network at t = 1 with a linear readout and cross-entropy, without
            codes, path and sampler.
        mean: mean of the path: ``logistic``, ``linear``, ``cosine``.
        steepness: k of the logistic mean, > 0.
        variance: variance of the path: ``bridge``, ``constant``, ``zero``.
        sigma_max: scale of the noise, in units of the codes' elements (RMS 0.71).
        times: how t is drawn: ``uniform``, or ``logit_normal`` (more in the middle).
        draws: number of times and noises drawn per utterance and training step.
        source_share: w above, 0 to 1.
        sampler: ``ode`` or ``sde``.
        steps: steps of the sampler; 1 is a single evaluation of the network.
        noise_draws: number of samples whose codes are averaged; 0 is ``ode`` without noise.
        decision: ``cosine``, ``gram``, ``nearest`` (:func:`serzoo.heads.gen_ser.codes.similarity`).
        network: ``mlp`` (frame by frame), ``transformer`` (attends over frames).
        width: width of the network's hidden layers.
        depth: number of its residual blocks.
        dropout: dropout rate after pooling and inside the blocks, in training.
    """

    at_evaluation: ClassVar[tuple[str, ...]] = ("steps", "sampler", "noise_draws")
    sizes: ClassVar[Mapping[str, int]] = {"width": 8}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        pooling: PoolingName = "attentive",
        state: StateName = "utterance",
        standardise: bool = False,
        projection: bool = True,
        codes: CodeName = "sinusoidal",
        code_dim: int = 128,
        spacing: float = 1000.0,
        base: float = 10000.0,
        order: Order = None,
        code_steps: int = 300,
        text_model: str | None = None,
        text_revision: str | None = None,
        objective: Literal["target", "flow", "score", "ce"] = "target",
        mean: MeanName = "logistic",
        steepness: float = 5.0,
        variance: VarianceName = "bridge",
        sigma_max: float = 0.5,
        times: Literal["uniform", "logit_normal"] = "uniform",
        draws: int = 3,
        source_share: float = 0.5,
        sampler: SamplerName = "ode",
        steps: int = 1,
        noise_draws: int = 0,
        decision: DecisionName = "cosine",
        network: NetworkName = "mlp",
        width: Size = 256,
        depth: Count = 2,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__(dim, taxonomy)
        if steps < 1 or draws < 1 or not 0 <= source_share <= 1 or steepness <= 0 or sigma_max < 0:
            raise ConfigError(
                f"steps={steps}, draws={draws}, source_share={source_share}, "
                f"steepness={steepness}, sigma_max={sigma_max}; give steps >= 1, draws >= 1, "
                "0 <= source_share <= 1, steepness > 0 and sigma_max >= 0"
            )
        self.path = Path(mean, variance, steepness, sigma_max)
        if objective == "score" and not self.path.noisy:
            raise ConfigError(
                f"objective=score predicts noise, but variance={variance} with "
                f"sigma_max={sigma_max:g} has none; choose bridge or constant, or objective=flow"
            )
        if noise_draws < (sampler == "sde") or code_steps < 1:
            raise ConfigError(
                f"noise_draws={noise_draws}, code_steps={code_steps}; give code_steps of at least "
                "1, and noise_draws of 0 or more (with sampler=sde at least 1)"
            )
        if network == "transformer" and state == "utterance":
            raise ConfigError(
                "network=transformer attends over frames, but state=utterance has none; set "
                "state=frames, or network=mlp"
            )
        self.objective = objective
        self.times = times
        self.decision = decision
        self.draws, self.source_share = draws, source_share
        self.by_frames = state == "frames"
        self.coding: Any = {"codes": codes, "spacing": spacing, "base": base, "order": order}
        self.coding |= {"text_model": text_model, "text_revision": text_revision}
        made = build_codes(taxonomy, code_dim=code_dim, **self.coding)
        self.embed: UtteranceState | FrameState = (
            FrameState(dim, dropout, standardise)
            if self.by_frames
            else UtteranceState(dim, pooling, dropout, standardise)
        )
        if not projection and code_dim != self.embed.width:
            raise ConfigError(
                f"projection=false with code_dim={code_dim}: the vectors to be transported are "
                f"{self.embed.width} wide; set code_dim={self.embed.width}, or projection=true"
            )
        # statistics of the data already give a root mean square of 1 over the data
        self.normalised = projection or not standardise
        self.project = nn.Linear(self.embed.width, code_dim) if projection else nn.Identity()
        self.network = build_network(network, code_dim, width, depth, dropout)
        if objective == "ce":
            self.readout = nn.Linear(code_dim, len(taxonomy))
            return
        self.register_buffer("codes", made)
        if decision == "gram":
            self.register_buffer("dual", dual(made))
        self.learned = LearnedCodes(made, code_steps) if codes == "learned" else None
        if codes == "sinusoidal" and decision != "gram":
            warn_of_alike(made, taxonomy, spacing, stacklevel=2)
        self.sampler = Sampler(
            self.path, objective, sampler, start=self.start, steps=steps,
            noise_draws=noise_draws, code_dim=code_dim, by_frames=self.by_frames,
        )  # fmt: skip

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        """Return lines about the codes of a configuration: their Gram matrix and its condition."""
        if options.get("objective") == "ce":
            return []
        if options.get("codes") == "learned":
            return ["the codes are learned, so their Gram matrix is not known before training"]
        if options.get("codes") == "text":
            return [f"the codes are embeddings of the class names by {options.get('text_model')}"]
        given = {key: options[key] for key in KEYS_OF_CODES if key in options}
        return explain_codes(build_codes(taxonomy, **given), taxonomy)

    def check_trained(self) -> None:
        """Refuse the control without a path, which no sampler follows."""
        if self.objective == "ce":
            raise ConfigError(
                "objective=ce classifies without a path, so steps, sampler and noise_draws have no "
                "effect; leave them out, or give a model with another objective"
            )

    def add_utterance(self, width: int) -> None:
        """Make the utterances' vectors a part of ``x_1``, before its projection.

        Raises:
            ConfigError: if there is no projection, so that ``x_1`` cannot be wider than the codes.
        """
        if not isinstance(self.project, nn.Linear):
            raise ConfigError(
                f"projection=false leaves no place for the {width} numbers of an utterance in the "
                "initial state; set head.projection=true, or leave the key 'utterance' out"
            )
        self.embed.read_utterance(width)
        self.project = more_inputs(self.project, width)

    @property
    def reads_frames(self) -> bool:
        return isinstance(self.embed, FrameState) or self.embed.pooling.reads_frames

    def source(self, frames: Frames, labelled: Tensor | None = None) -> Tensor:
        """Return ``x_1``, ``[B, d]`` or ``[B, T, d]`` float32; its RMS is ``1 / sqrt(2)``.

        Args:
            frames: the frames of the batch.
            labelled: ``[B]`` bool, in training: which utterances update the statistics of the data.
        """
        x: Tensor = self.project(self.embed(frames, labelled)).float()
        if self.normalised:
            x = nn.functional.layer_norm(x, x.shape[-1:])
        return x * math.sqrt(0.5)

    def end(self, targets: Targets) -> Tensor:
        """Return ``x_0``, ``[B, d]``: the code of the class, or the expected code of a soft label.

        Under squared error the expected code and a drawn code have the same best prediction. The
        expected one has less noise. The result is zero for an unlabelled utterance, which has no
        weight.
        """
        p = targets.probs
        mean: Tensor = (p / p.sum(-1, keepdim=True).clamp_min(1e-6)) @ self.get_buffer("codes")
        return mean

    @property
    def start(self) -> float:
        """The time at which the sampler starts; below 1 if the prediction does not exist at 1."""
        return 1.0 if self.objective in ("target", "ce") else 1 - TIME_EPSILON

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        x_1 = self.source(frames, targets.item_weight > 0)
        mask = frames.mask if self.by_frames else None
        if self.objective == "ce":
            z, p = self._logits(x_1, mask), targets.probs
            right = targets.average((z.argmax(-1) == p.argmax(-1)).float())
            return HeadLoss(targets.average(cross_entropy(z, p)), {"accuracy": right.detach()})
        moved = self.learned.advance() if self.learned is not None and self.training else None
        if moved is not None:
            self.get_buffer("codes").copy_(moved)
            if self.decision == "gram":
                self.get_buffer("dual").copy_(dual(moved))
        code = self.end(targets)
        x_0 = code.unsqueeze(1) if self.by_frames else code
        x_t, t = self._states(x_0, x_1)
        given = self.network(x_t, x_1.expand_as(x_t), t, mask)
        w = self.source_share
        estimate = self.path.end(self.objective, given[-1], x_1, x_1, t[-1])
        source = targets.average(self.error(estimate, x_0, mask))
        cosine = nn.functional.cosine_similarity(masked_mean(estimate, mask), code, dim=-1)
        extras = {"source": source, "cosine": targets.average(cosine)}
        loss = w * source
        if len(given) > 1:
            wanted = self.path.wanted(self.objective, x_t[:-1], x_0, x_1, t[:-1])
            error = self.error(given[:-1], wanted, mask)
            extras["matching"] = matching = targets.average(error.mean(0))
            loss = loss + (1 - w) * matching
        if self.learned is not None:
            loss = loss + self.learned.loss(masked_mean(x_1, mask), targets)
        return HeadLoss(loss, {k: v.detach() for k, v in extras.items()})

    @staticmethod
    def error(given: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``2 / d ||given - wanted||^2``, averaged over frames; a zero code has error 1."""
        return 2 * masked_mean((given - wanted).square(), mask).mean(-1)

    def _states(self, x_0: Tensor, x_1: Tensor) -> tuple[Tensor, Tensor]:
        """Return states ``[M, B, ...]`` and times ``[M, B]``; the last state is the source."""
        last = x_1.new_full((1, len(x_1)), self.start)
        if self.source_share == 1:
            return x_1.unsqueeze(0), last
        t = x_1.new_empty(self.draws, len(x_1))
        if self.times == "uniform":
            t.uniform_(TIME_EPSILON, 1 - TIME_EPSILON)
        else:
            t.normal_().sigmoid_().clamp_(TIME_EPSILON, 1 - TIME_EPSILON)
        z = torch.randn_like(x_1.expand(self.draws, *x_1.shape))
        # one call of the network for all
        return torch.cat([self.path.at(x_0, x_1, t, z), x_1.unsqueeze(0)]), torch.cat([t, last])

    def at_source(self, x_1: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return ``f(x_1, x_1, t)`` at the time t at which the sampler starts."""
        t = x_1.new_full((len(x_1),), self.start)
        given: Tensor = self.network(x_1, x_1, t, mask)
        return given

    def estimate(self, x_1: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the generated codes of ``x_1``, in its shape; with a mask ``x_1`` holds frames."""
        generated: Tensor = self.sampler(self.network, x_1, mask)
        return generated

    def _logits(self, x_1: Tensor, mask: Tensor | None) -> Tensor:
        z: Tensor = self.readout(masked_mean(self.at_source(x_1, mask), mask))
        return z.float()

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        columns = self.columns(taxonomy)
        x_1, mask = self.source(frames), frames.mask if self.by_frames else None
        if self.objective == "ce":
            return self._logits(x_1, mask)[:, columns]
        codes = self.get_buffer("dual" if self.decision == "gram" else "codes")[columns]
        return similarity(self.decision, masked_mean(self.estimate(x_1, mask), mask), codes)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        if self.objective == "ce":
            self.readout = wider_linear(self.readout, len(taxonomy))
            return
        made = wider_codes(
            self.get_buffer("codes"), self.taxonomy, len(taxonomy), forms=taxonomy.forms,
            **self.coding,
        )  # fmt: skip
        self.register_buffer("codes", made)
        if self.decision == "gram":
            self.register_buffer("dual", dual(made))
        if self.learned is not None:
            self.learned.widen(made)
