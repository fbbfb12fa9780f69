"""A scorer by sentence embeddings: the similarity of transcript and hypothesis, not entailment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...zoo.core.errors import ConfigError, first_line
from ...zoo.core.hub import NO_PICKLE, Loaded, Published
from .scorers import Hypothesis, Scorer, Scores, device_of

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files that are fetched of a hub model: weights of torch, without pickles and code."""
EXAMPLE = "sentence-transformers/all-MiniLM-L6-v2"


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
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                "scorer=embedding needs sentence-transformers: pip install 'serzoo[embedding]', or "
                "choose scorer=nli"
            ) from error
        self.factor, self.batch_size = factor, batch_size
        published = Published.find("model", model, revision, example=EXAMPLE)
        folder = published.folder(*WANTED)
        for pickled in folder.rglob("pytorch_model*.bin"):
            if not any(pickled.parent.glob("*.safetensors")):
                raise ConfigError(
                    f"model={model} holds {pickled.relative_to(folder)} without model.safetensors "
                    f"beside it, and {NO_PICKLE}; save it again with SentenceTransformer.save"
                )
        try:
            self.model = SentenceTransformer(
                str(folder),
                device=str(device_of(device)),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            ).eval()
        except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
            raise ConfigError(
                f"model={model} cannot be loaded ({first_line(error)}); give the folder that "
                "SentenceTransformer.save wrote, or a hub id of such a model"
            ) from error
        published.check_vocabulary(self.model.tokenizer, folder)
        loaded = Loaded(published, self.model, published.commit)
        self.weights, self.source = loaded.weights, loaded.source

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"weights": self.weights, "factor": self.factor}

    def score(self, premises: Sequence[str], hypotheses: Sequence[Hypothesis]) -> Scores:
        said, meant = self._embed(premises), self._embed([h.text for h in hypotheses])
        cosines: Scores = self.factor * (said @ meant.T)
        return cosines

    def _embed(self, texts: Sequence[str]) -> Scores:
        """Return ``[N, W]`` float64 embeddings of unit length.

        ``encode()`` itself batches by length.
        """
        found = self.model.encode(
            list(texts),
            batch_size=self.batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        wide = np.asarray(found, dtype=np.float64).reshape(len(texts), -1)
        unit: Scores = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
        return unit
