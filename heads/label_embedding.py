"""The label-embedding head: speech and class names in the space of a frozen text encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor, nn

from ..zoo.core.errors import ConfigError
from ..zoo.core.hub import Published
from ..zoo.core.registry import Count, Dropout
from ..zoo.core.sentences import EXAMPLE, embed_texts, load_sentences
from ..zoo.core.taxonomy import Taxonomy
from ..zoo.core.types import Frames, HeadLoss, Targets
from .losses import cross_entropy
from .pooling import PooledHead, PoolingName

LETTERS = "letters"
"""The offline text encoder: counts of letters, pairs and triples, without a meaning."""

LETTER_WIDTH = 256  # hashed counts; our choice
FIRST_FACTOR, LARGEST_FACTOR = 1 / 0.07, 100.0  # of the cosines, as in CLIP
ALIKE = 1e-4  # names whose embeddings are nearer cannot be told apart

BLANK = "{}"
Names = Literal["given", "shuffled"]


class LabelEmbeddingHead(PooledHead):
    """Scores a class by the cosine of the utterance and of the class name's embedding.

    The pooled utterance is projected into the space of a text encoder that stays as published::

        score_c = a cos(g(x), e_c - m)

    Here ``e_c`` is the unit embedding of ``template`` with the class name, averaged over the
    templates. ``m`` is the mean of ``e_c`` over the trained classes. Sentences that differ in one
    word are nearly parallel, and without their mean they are not (our choice). The factor ``a``
    is learned. Any class has a score by its name, whether it was trained or not.

    The loss is contrastive, after CLIP (Radford et al. 2021, arXiv 2103.00020). ``w_i`` is the
    weight of an utterance, and ``p_ic`` its target::

        L = (1 - s) sum_i w_i sum_c -p_ic log softmax_c(score_ic) / sum_i w_i
          +      s  sum_ic -w_i p_ic log softmax_i(score_ic) / sum_ic w_i p_ic

    The second term compares the utterances of the batch for each name. CLIP has one text per
    item. Here several utterances share a name, so its probability is divided among them.

    Args:
        dim: ``D``, width of the frames.
        taxonomy: the classes.
        text_model: the text encoder. ``letters`` needs no download, and knows only the spelling.
            Or a model of sentence-transformers: a hub id or a folder.
        text_revision: commit, tag or branch of a hub id; None = its main branch.
        template: sentence or sentences with ``{}`` for the class name.
        names: ``shuffled`` gives every class the name of another one, as a control.
        pooling: how frames become one vector: ``mean``, ``stats``, ``attentive``.
        hidden: width of a hidden layer of the projection; 0 = none.
        dropout: dropout rate before each layer, in training.
        batch_share: ``s``, weight of the second term, 0 to 1. CLIP has one half.

    Raises:
        ConfigError: if the text encoder cannot be loaded, a template has no blank, or two classes
            have the same embedding. Also if ``batch_share`` is out of its range.
    """

    open_labels: ClassVar[bool] = True
    reader = "project"
    sizes: ClassVar[Mapping[str, int]] = {"hidden": 1}

    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        text_model: str = LETTERS,
        text_revision: str | None = None,
        template: str | list[str] = "this person sounds {}",
        names: Names = "given",
        pooling: PoolingName = "attentive",
        hidden: Count = 0,
        dropout: Dropout = 0.1,
        batch_share: float = 0.5,
    ) -> None:
        super().__init__(dim, taxonomy, pooling, dropout)
        self.templates = [template] if isinstance(template, str) else list(template)
        if not self.templates or any(t.count(BLANK) != 1 for t in self.templates):
            raise ConfigError(
                f"template={template}; give sentences with one {BLANK} at the place of the class"
            )
        if not 0 <= batch_share <= 1:
            raise ConfigError(f"batch_share={batch_share}; give a share from 0 to 1")
        self.batch_share = batch_share
        self.sentences = None if text_model == LETTERS else _loaded(text_model, text_revision)
        self._known: dict[str, Tensor] = {}
        C = len(taxonomy)
        move = C // 2 if names == "shuffled" else 0
        self.speaks = {c: taxonomy.classes[(i + move) % C] for i, c in enumerate(taxonomy.classes)}
        self.centre: Tensor
        self.register_buffer("centre", self._embedded(taxonomy).mean(0))
        self._refuse_alike(taxonomy)
        self.project = self.layers(hidden, len(self.centre))
        self.log_factor = nn.Parameter(torch.tensor(math.log(FIRST_FACTOR)))

    @classmethod
    def explain(cls, taxonomy: Taxonomy, options: Mapping[str, Any]) -> list[str]:
        if options.get("text_model", LETTERS) != LETTERS:
            return []
        return [
            "text_model=letters knows the spelling of a class, not its meaning; for the meaning "
            f"set head.text_model={EXAMPLE}"
        ]

    def train(self, mode: bool = True) -> LabelEmbeddingHead:
        """Set training mode as ``nn.Module`` does, but the text encoder stays as published."""
        super().train(mode)
        if self.sentences is not None:
            self.sentences.eval()
        return self

    def _embedded(self, taxonomy: Taxonomy) -> Tensor:
        """Return ``[C, W]`` float32 on the CPU, the mean over templates of unit embeddings."""
        forms = dict(zip(self.taxonomy.classes, self.taxonomy.forms, strict=True))
        forms |= dict(zip(taxonomy.classes, taxonomy.forms, strict=True))
        rows = [self._of_name(forms[self.speaks.get(c, c)]) for c in taxonomy.classes]
        return torch.stack(rows)

    def _of_name(self, name: str) -> Tensor:
        if name not in self._known:
            texts = [template.replace(BLANK, name) for template in self.templates]
            unit = _letters(texts)
            if self.sentences is not None:
                # once, and in full precision, whatever the trainer's precision is
                device = next(self.sentences.parameters()).device.type
                with torch.autocast(device, enabled=False):
                    unit = embed_texts(self.sentences, texts)
            self._known[name] = torch.from_numpy(unit).float().mean(0)
        return self._known[name]

    def names(self, taxonomy: Taxonomy) -> Tensor:
        """Return ``[C, W]`` float32, a unit vector for each class."""
        centred = self._embedded(taxonomy).to(self.centre) - self.centre
        return nn.functional.normalize(centred, dim=-1)

    def _refuse_alike(self, taxonomy: Taxonomy) -> None:
        rows = self._embedded(taxonomy)
        for i, j in torch.combinations(torch.arange(len(taxonomy))).tolist():
            if (rows[i] - rows[j]).norm() < ALIKE:
                raise ConfigError(
                    f"the classes '{taxonomy.classes[i]}' and '{taxonomy.classes[j]}' have the "
                    "same embedding, so their names cannot tell them apart; rename one of them, "
                    "or choose another head.text_model"
                )

    def similarities(self, frames: Frames, taxonomy: Taxonomy) -> Tensor:
        """Return ``[B, C]`` float32 cosines times the learned factor."""
        z: Tensor = self.project(self.embed(frames))
        factor = self.log_factor.exp().clamp_max(LARGEST_FACTOR)
        with torch.autocast(z.device.type, enabled=False):
            unit = nn.functional.normalize(z.float(), dim=-1)
            return factor * (unit @ self.names(taxonomy).T)

    def loss(self, frames: Frames, targets: Targets, text: list[str] | None = None) -> HeadLoss:
        scores, share = self.similarities(frames, self.taxonomy), self.batch_share
        to_names = targets.average(cross_entropy(scores, targets.probs))
        to_speech = _among_utterances(scores, targets)
        right = (scores.argmax(-1) == targets.probs.argmax(-1)).float()
        extras = {"to_names": to_names, "to_speech": to_speech, "accuracy": targets.average(right)}
        return HeadLoss(
            (1 - share) * to_names + share * to_speech, {k: v.detach() for k, v in extras.items()}
        )

    def scores(self, frames: Frames, taxonomy: Taxonomy, text: list[str] | None = None) -> Tensor:
        return self.similarities(frames, taxonomy)

    def add_classes(self, taxonomy: Taxonomy) -> None:
        """Accept new classes by name: this adds no weights, but each name needs its own vector."""
        self._refuse_alike(taxonomy)

    def frozen_roots(self) -> dict[str, nn.Module]:
        return {} if self.sentences is None else {"sentences": self.sentences}


def _loaded(name: str, revision: str | None) -> nn.Module:
    published = Published.find(
        "head.text_model", name, revision, example=f"{EXAMPLE}, or {LETTERS}"
    )
    model: nn.Module = load_sentences(published, instead=f"head.text_model={LETTERS}").model
    return model


def _letters(texts: Sequence[str]) -> Any:
    """Return ``[N, 256]`` float64 unit vectors of hashed counts of one to three letters."""
    counter = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=LETTER_WIDTH, norm="l2"
    )
    return counter.transform(texts).toarray()


def _among_utterances(scores: Tensor, targets: Targets) -> Tensor:
    """Return the weighted mean, over classes, of the cross-entropy over the batch's utterances.

    Args:
        scores: ``[B, C]``.
        targets: utterances of weight 0 are left out of each softmax.
    """
    weight = targets.item_weight.to(scores.dtype)
    # a finite floor: a batch without labels must give 0, not NaN
    kept = torch.where((weight > 0).unsqueeze(1), scores, torch.finfo(scores.dtype).min / 2)
    log_q = kept.log_softmax(0)
    mass = weight.unsqueeze(1) * targets.probs.to(scores.dtype)
    total = mass.sum().clamp_min(torch.finfo(scores.dtype).tiny)
    return -torch.where(mass > 0, mass * log_q, 0.0).sum() / total
