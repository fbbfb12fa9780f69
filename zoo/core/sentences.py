"""Published models that embed sentences, loaded by sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import ConfigError, first_line
from .hub import NO_PICKLE, Loaded, Published

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Files that are fetched of a hub model: weights of torch, without pickles and code."""
EXAMPLE = "sentence-transformers/all-MiniLM-L6-v2"


def load_sentences(
    published: Published, device: str | torch.device = "cpu", *, instead: str
) -> Loaded:
    """Load a model as ``SentenceTransformer.save`` writes it, in float32 and evaluation mode.

    Args:
        published: the model.
        device: the device to load it to.
        instead: a setting that works without sentence-transformers, for the error.

    Raises:
        ConfigError: if sentence-transformers is not installed, or the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(
            f"{published.called} needs sentence-transformers: pip install 'serzoo[embedding]', or "
            f"choose {instead}"
        ) from error
    folder = published.folder(*WANTED)
    for pickled in folder.rglob("pytorch_model*.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            raise ConfigError(
                f"{published.called} holds {pickled.relative_to(folder)} without model.safetensors "
                f"beside it, and {NO_PICKLE}; save it again with SentenceTransformer.save"
            )
    try:
        model: Any = SentenceTransformer(
            str(folder),
            device=str(device),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        ).eval()
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"{published.called} cannot be loaded ({first_line(error)}); give the folder that "
            "SentenceTransformer.save wrote, or a hub id of such a model"
        ) from error
    published.check_vocabulary(model.tokenizer, folder)
    model.requires_grad_(False)
    model.published_origin = published.origin
    return Loaded(published, model, published.commit)


def embed_texts(model: Any, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float64]:
    """Return ``[N, W]`` float64 embeddings of unit length; ``encode()`` batches by length.

    Args:
        model: the model of :func:`load_sentences`.
        texts: N texts.
        batch_size: texts in a batch.
    """
    found = model.encode(
        list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=True
    )
    wide = np.asarray(found, dtype=np.float64).reshape(len(texts), -1)
    unit: NDArray[np.float64] = wide / np.maximum(
        np.linalg.norm(wide, axis=1, keepdims=True), 1e-12
    )
    return unit
