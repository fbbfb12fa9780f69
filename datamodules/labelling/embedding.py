"""A scorer by sentence embeddings: the similarity of transcript and hypothesis, not entailment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...zoo.core.errors import ConfigError
from ...zoo.core.hub import Published
from ...zoo.core.sentences import EXAMPLE, embed_texts, load_sentences
from .scorers import Hypothesis, Scorer, Scores, device_of


class Embedding(Scorer):
    """Cosine of the embeddings of transcript and hypothesis, times a factor.

    A cosine is not a probability; the factor brings it to the range of log-odds. Use it with the
    prior correction: only the difference to the empty premise has a meaning.

    Args:
        model: hub id or local folder, as ``SentenceTransformer.save`` writes it.
        revision: commit, tag or branch of a hub id.
        factor: factor of the cosine (our choice: 20, a common value in losses over cosines).
        batch_size: texts in a batch; it limits memory and does not change results.
        device: ``auto``, ``cpu``, ``cuda:1``.

    Raises:
        ConfigError: if sentence-transformers is not installed, or the model cannot be loaded.
    """

    scale: ClassVar[str] = "cosine of sentence embeddings, times a factor; no entailment"

    def __init__(
        self,
        *,
        model: str,
        revision: str | None = None,
        factor: float = 20.0,
        batch_size: int = 64,
        device: str = "auto",
    ) -> None:
        if factor <= 0 or batch_size < 1:
            raise ConfigError(
                f"factor={factor}, batch_size={batch_size}; give a factor above 0 and a batch of "
                "at least 1"
            )
        self.factor, self.batch_size = factor, batch_size
        published = Published.find("model", model, revision, example=EXAMPLE)
        loaded = load_sentences(published, device_of(device), instead="scorer=nli")
        self.model, self.weights, self.source = loaded.model, loaded.weights, loaded.source

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"weights": self.weights, "factor": self.factor}

    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        said = embed_texts(self.model, premises, self.batch_size)
        meant = embed_texts(self.model, [h.text for h in hypotheses], self.batch_size)
        cosines: Scores = self.factor * (said @ meant.T)
        return cosines
