"""SELM: emotion recognition as writing the name of the emotion."""

from .head import SELMHead

__all__ = ["SELMHead"]
