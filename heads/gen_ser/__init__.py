"""Gen-SER: emotion recognition as transport of an utterance to the code of its emotion."""

from __future__ import annotations

from .head import GenSERHead

__all__ = ["GenSERHead"]
