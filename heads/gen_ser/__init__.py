"""Gen-SER: an utterance is carried to the code of its emotion."""

from .head import GenSERHead

__all__ = ["GenSERHead"]
