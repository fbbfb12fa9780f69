"""The SELM head: emotion recognition as writing the name of the emotion.

After Bukhari, Deshmukh, Dhamyal, Raj, Singh, "SELM: Enhancing Speech Emotion Recognition for
Out-of-Domain Scenarios" (arXiv 2407.15300, Interspeech 2024). Audio becomes a prefix in the
embedding space of a causal language model. A prompt follows, and the model writes the label. The
paper's text was not available to us; choices that we made for this reason are marked "our choice".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError
from ...zoo.core.head import Head
from ...zoo.core.registry import Count, Dropout, Positive, Size
from ...zoo.core.taxonomy import Taxonomy
from ...zoo.core.types import Frames, HeadLoss, Targets
from .answers import Answers, Writer, expected_nll
from .language import Init, LanguageModel, Tuning
from .mappers import AudioMapper, Constants, NullAudio, NullName, Reduction, TextMapper
from .tree import Branch
from .views import DimensionAnswers, Names, View, Views

Decoding = Literal["rank", "generate"]
Order = Literal["prompt_first", "audio_first"]

RELATIVE_LR = 0.3
"""Learning rate of the head relative to the configured one (our choice).

Transformers need a smaller one than convolutions and linear layers.
"""

PRETRAINED_LR = 0.03
"""The same for a published language model whose weights are all tuned (our choice)."""


class SELMHead(Head):
    """Ranks the classes of a taxonomy by how likely a language model is to write their names.

    ``a = AudioMapper(frames)``, ``t = TextMapper(wte(prompt))``, and the model continues
    ``[t ; a]`` with the label's tokens and the end of text. The loss is next-token prediction on
    these tokens only::

        L = -sum_j log p(y_j | a, t, y_<j)

    summed over the tokens and averaged over utterances. This is the negative log-likelihood of the
    label, as in the paper's formulation ``argmax_e p(e | x, w)``. (A mean over tokens would give
    short names more weight; our choice.) For a soft target it is the expectation over classes,
    ``sum_c p_c L_c``. The score of a class is ``-L_c``. It exists for any class that the model can
    spell, also for classes that it was not trained on.

    An utterance gives one example for each view that it has. The loss is the mean over examples,
    weighted by the weights of the views. If a view has several prompts, training draws one per
    batch, and a score is the mean over all. The likelihood of a class is the sum over its forms.

    Args:
        lm: ``"scratch"`` (a small GPT-2 over bytes), a hub id such as ``"gpt2"``, or a folder.
        lm_revision: commit, tag or branch of a hub id; None = its main branch.
        lm_tuning: ``frozen``, ``lora``, ``full``, or ``auto``: frozen if the weights are
            published, full otherwise.
        lm_init: ``random`` keeps architecture and tokenizer of a published model, but not its
            weights. This control shows how much the weights help.
        lm_seed: seed of random weights that are not trained; they are rebuilt from it, not saved.
        lm_width: width of the model from scratch.
        lm_layers: number of layers of the model from scratch.
        lora_rank: rank of the adapters.
        lora_alpha: updates of the adapters are scaled by it over the rank.
        reduction: ``queries``, ``adaptive``, ``vector``, ``stats`` or ``mean``
            (:class:`.mappers.AudioMapper`).
        prefix: length of the audio prefix (Pengi: 40; 4 by default is our choice, for speed).
        mapper_layers: transformer layers of the audio mapper. SELM has one. The default is none,
            because from scratch on a thousand utterances it learns more slowly with one. Use one
            with a published model.
        constants: how the audio mapper uses its learned constants. They are ``added`` to its
            positions, or ``appended`` after them as in Pengi. The latter needs a layer.
        text_mapper: false = use the prompt's own embeddings, as a control.
        text_layers: transformer layers of the text mapper (SELM: one).
        dropout: dropout rate in the mappers, and in the model from scratch.
        order: what the model reads first. By default it is the prompt. The label then follows the
            audio directly and depends on it from the first step (our choice). ``audio_first`` is as
            in Pengi: all prompts of an utterance then share the pass over its audio.
        prompt: prompt of the categorical view.
        views: maps each question that is asked to the weight of its loss: ``categorical``,
            ``sentiment``, ``valence``, ``arousal``, ``dominance`` (:class:`.views.Views`); None =
            only ``categorical``.
        prompts: maps a question to its prompt, or to several ways to ask it.
        forms: maps a question and an answer to the text of the answer, or to several.
        names: ``shuffled`` gives every class the texts of another one, as a control.
        dimension_answers: valence, arousal and dominance as ``words`` (low, medium, high) or
            ``numbers`` (0.0, 0.1, ... 1.0).
        low_below: ratings below it are low, from 0 to 1.
        high_from: ratings from it on are high, from 0 to 1.
        decoding: ``rank`` scores all classes. ``generate`` searches for texts. It scores the
            classes that they name by their likelihood, and all others 10 nats lower (our choice).
            If the best text names no class, all classes score the same, so the first class is
            predicted (chance level). The share of such texts is logged as ``unparsable``.
        beams: beams of the search; 1 = greedy.
        constrained: the search writes only verbal forms; with as many beams as classes it ranks.
        length_normalised: divide scores by the number of tokens; their softmax is then no longer
            the model's probability of the label.
        lm_weight: weight v of the model's own preference, from 0. The score of a class is
            ``log p(e | x) + (v - 1) log p(e | null audio)``. This is the weighted decision of
            speech recognition, ``log p(x | e) + v log p(e)``, up to a constant. 0 removes the
            preference, 1 keeps the model as trained, and more than 1 trusts language more. Choose
            it on validation. 1 by default: training on weighted classes already gives the model
            the wanted prior, and only then are scores log-probabilities. Training does not use it.
        null_audio: the input without audio. ``mean`` is the average prefix of training, over about
            its last hundred batches. ``zeros`` is the prefix of a frame of zeros. Both are our
            choice.

    Raises:
        ConfigError: if the language model cannot be loaded, two classes have the same spelling,
            or options contradict each other.
    """

    open_labels: ClassVar[bool] = True
    sizes: ClassVar[Mapping[str, int]] = {"lm_width": 32, "prefix": 1}
    at_evaluation: ClassVar[tuple[str, ...]] = (
        *("lm_weight", "null_audio", "decoding", "beams", "constrained", "length_normalised"),
    )

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        lm: str = "scratch",
        lm_revision: str | None = None,
        lm_tuning: Tuning = "auto",
        lm_init: Init = "published",
        lm_seed: Count = 0,
        lm_width: int = 128,
        lm_layers: Count = 1,
        lora_rank: Size = 8,
        lora_alpha: Positive = 16.0,
        reduction: Reduction = "queries",
        prefix: int = 4,
        mapper_layers: Count = 0,
        constants: Constants = "added",
        text_mapper: bool = True,
        text_layers: Count = 1,
        dropout: Dropout = 0.0,
        order: Order = "prompt_first",
        prompt: str = "this emotion is",
        views: dict[str, float] | None = None,
        prompts: dict[str, str | list[str]] | None = None,
        forms: dict[str, dict[str, str | list[str]]] | None = None,
        names: Names = "given",
        dimension_answers: DimensionAnswers = "words",
        low_below: float = 0.4,
        high_from: float = 0.6,
        decoding: Decoding = "rank",
        beams: int = 1,
        constrained: bool = False,
        length_normalised: bool = False,
        lm_weight: float = 1.0,
        null_audio: NullName = "mean",
    ) -> None:
        super().__init__(dim, taxonomy)
        if prefix < 1:
            raise ConfigError(f"prefix={prefix}; give the audio at least 1 position")
        if beams < 1:
            raise ConfigError(f"beams={beams}; give 1 for a greedy search, or more")
        if not 0 <= lm_weight < float("inf"):
            raise ConfigError(
                f"lm_weight={lm_weight:g}; give 0 (no prior of the language model), 1 (the model "
                "as it was trained), or a larger weight"
            )
        if decoding == "generate" and lm_weight != 1:
            raise ConfigError(
                f"lm_weight={lm_weight:g} weighs the scores of decoding=rank, not of "
                "decoding=generate; set decoding=rank, or lm_weight=1"
            )
        self.language = LanguageModel(
            lm, revision=lm_revision, tuning=lm_tuning, width=lm_width, layers=lm_layers,
            dropout=dropout, init=lm_init, seed=lm_seed, rank=lora_rank, alpha=lora_alpha,
        )  # fmt: skip
        self.views = Views(
            taxonomy, weights=views, prompt=prompt, prompts=prompts, forms=forms, names=names,
            dimensions=dimension_answers, low=low_below, high=high_from,
        )  # fmt: skip
        self.order, self.decoding = order, decoding
        # a head that ranks writes only for people to read, with free greedy search
        searching = decoding == "generate"
        self.writer = Writer(beams, constrained, length_normalised) if searching else Writer()
        self.length_normalised = length_normalised
        size = self.language.model.get_input_embeddings().weight.detach().square().mean().sqrt()
        width = self.language.width
        self.audio_mapper = AudioMapper(
            dim, width, prefix, mapper_layers, dropout, float(size), reduction, constants
        )
        self.text_mapper = (
            TextMapper(width, text_layers, dropout, float(size)) if text_mapper else None
        )
        self.lm_weight = lm_weight
        self.null = NullAudio(null_audio, prefix, width)
        for view in self.views.all:  # fail now if two answers have the same spelling
            for words in view.prompts:
                self._answers(view, words, taxonomy)

    def text(self, prompt: str) -> Tensor:
        """Return ``[1, Lt, W]``, the prompt as the language model reads it."""
        ids = self.language.tokenizer.prompt(prompt)
        device = next(self.language.parameters()).device
        embedded = self.language.embed(torch.tensor([ids], device=device))
        mapped: Tensor = embedded if self.text_mapper is None else self.text_mapper(embedded)
        return mapped

    def context(self, frames: Frames) -> Tensor:
        """Return ``[B, Lt + L, W]``, all that the language model reads before the label.

        It uses the first prompt of the categorical view.
        """
        return self._joined(self.audio_mapper(frames), self.views.categorical.prompts[0])

    def _joined(self, audio: Tensor, prompt: str) -> Tensor:
        text = self.text(prompt).expand(len(audio), -1, -1)
        return torch.cat([text, audio] if self.order == "prompt_first" else [audio, text], 1)

    def _answers(self, view: View, prompt: str, taxonomy: Taxonomy) -> Answers:
        forms = self.views.answers(view, taxonomy)
        spelt = self.language.spell(prompt, [form for each in forms for form in each])
        return Answers(spelt, [index for index, each in enumerate(forms) for _ in each])

    def _classes(self, taxonomy: Taxonomy) -> Answers:
        view = self.views.categorical
        return self._answers(view, view.prompts[0], taxonomy)

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        audio = self.audio_mapper(frames)
        if self.training:
            self.null.follow(audio.detach(), targets.item_weight)
        total = weight = per_token = audio.new_zeros((), dtype=torch.float32)
        item_weight = targets.item_weight.float()
        for number, view in enumerate(self.views.all):
            prompt = view.prompts[0]
            if len(view.prompts) > 1:
                prompt = view.prompts[int(torch.randint(len(view.prompts), ()))]
            probs = self.views.targets(view, targets)
            answers = self._answers(view, prompt, self.taxonomy)
            first = number == 0
            if self.order == "prompt_first":  # the prompt is read once for the batch
                nll, per = expected_nll(
                    self.language, audio, answers, probs, first, lead=self.text(prompt)
                )
            else:
                context = self._joined(audio, prompt)
                nll, per = expected_nll(self.language, context, answers, probs, first)
            # select first, then multiply: zero times NaN is NaN, not zero
            kept = torch.where(item_weight > 0, nll, 0.0)
            total = total + view.weight * (kept * item_weight).sum()
            share = item_weight if number == 0 else item_weight * probs.sum(-1)
            weight = weight + view.weight * share.sum()
            if number == 0:
                per_token = targets.average(per)
        tiny = torch.finfo(total.dtype).tiny
        return HeadLoss(total / weight.clamp_min(tiny), {"nll_per_token": per_token})

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        if self.decoding == "generate":
            answers = self._classes(taxonomy)
            said = partial(self.class_written, taxonomy=taxonomy)
            return self.writer.scores(self.language, self.context(frames), answers, said)
        return self._rank(self.audio_mapper(frames), [self.views.categorical], taxonomy)[0]

    def answers(self, frames: Frames) -> dict[str, Tensor]:
        """Return the ``[B, answers]`` log-likelihoods of all answers, by the name of the view.

        With ``order=audio_first`` one pass over an utterance scores all views and prompts.
        """
        found = self._rank(self.audio_mapper(frames), self.views.all, self.taxonomy)
        return {view.name: s for view, s in zip(self.views.all, found, strict=True)}

    def _rank(self, audio: Tensor, views: list[View], taxonomy: Taxonomy) -> list[Tensor]:
        weighted = self.lm_weight != 1
        if weighted:
            nothing = self.null(self.audio_mapper, self.dim, self.utterance)
            audio = torch.cat([audio, nothing.to(audio.dtype)])
        asked = [
            (view, prompt, self._answers(view, prompt, taxonomy))
            for view in views
            for prompt in view.prompts
        ]
        if self.order == "audio_first":
            branches: list[Branch] = [(self.text(p)[0], each.spelt) for _, p, each in asked]
            found = self.language.rank(audio, branches)
        else:
            found = [
                self.language.rank(audio, [(None, each.spelt)], lead=self.text(prompt))[0]
                for _, prompt, each in asked
            ]
        scores: dict[str, list[Tensor]] = {}
        for (view, _, each), log_p in zip(asked, found, strict=True):
            if self.length_normalised:
                log_p = log_p / each.counts(log_p.device)
            log_p = each.together(log_p)
            if weighted:
                log_p = log_p[:-1] + (self.lm_weight - 1) * log_p[-1:]
            scores.setdefault(view.name, []).append(log_p)
        return [torch.stack(scores[view.name]).mean(0) for view in views]

    def write(self, frames: Frames) -> list[str]:
        """Return what the model writes: by its search, or freely if it ranks.

        Free writing is greedy over the whole vocabulary, until the end of text. A text has at most
        8 tokens, or as many as the longest trained label.
        """
        answers = self._classes(self.taxonomy)
        texts = self.writer.texts(self.language, self.context(frames), answers)
        return [self.language.tokenizer.text(list(found[0].ids)) for found in texts]

    def class_written(self, text: str, taxonomy: Taxonomy) -> int | None:
        return self.views.class_written(text, taxonomy)

    def check_trained(self) -> None:
        """Refuse weights without the average prefix that ``lm_weight`` needs."""
        if self.lm_weight != 1 and self.null.kind == "mean" and not self.null.batches:
            raise ConfigError(
                f"head.lm_weight={self.lm_weight:g} needs the average prefix of training, which "
                "this model did not keep; add head.null_audio=zeros, or train it again"
            )

    def add_utterance(self, width: int) -> None:
        """Give the utterance's vector one more position in the audio prefix."""
        self.audio_mapper.read_utterance(width)
        prefix = len(self.audio_mapper.constants)
        self.null = NullAudio(self.null.kind, prefix, self.language.width)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Accept new classes by name: this adds no weights, but each name needs its own tokens."""
        view = self.views.categorical
        _ = [self._answers(view, words, taxonomy) for words in view.prompts]
        self.views.widen(taxonomy)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return groups at ``0.3 lr``, or at ``0.03 lr`` for a fully tuned published model."""
        slow = list(self.language.parameters()) if self.language.slow else []
        ids = {id(p) for p in slow}
        trained = [p for p in self.parameters() if p.requires_grad and id(p) not in ids]
        slow = [p for p in slow if p.requires_grad]
        groups = ((trained, RELATIVE_LR), (slow, PRETRAINED_LR))
        return [{"params": params, "lr": lr * scale} for params, scale in groups if params]

    @property
    def reads_frames(self) -> bool:
        return self.audio_mapper.reads_frames

    def frozen_roots(self) -> dict[str, nn.Module]:
        return {f"language.{name}": part for name, part in self.language.frozen_parts().items()}
