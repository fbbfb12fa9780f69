"""SELM: emotion recognition as writing the name of the emotion."""

from __future__ import annotations

from .head import SELMHead

__all__ = ["SELMHead"]
