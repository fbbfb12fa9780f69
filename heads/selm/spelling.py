"""Tokenizers for prompts and labels: bytes, or a published tokenizer."""

from __future__ import annotations

from typing import Any, Protocol

from ...zoo.core.errors import ConfigError


class Tokenizer(Protocol):
    """The contract of a tokenizer.

    Attributes:
        end: id of the end-of-text token.
    """

    end: int

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a prompt."""

    def label(self, prompt: str, label: str) -> list[int]:
        """Return the ids of a label that follows the prompt, without the end of text."""

    def text(self, ids: list[int]) -> str:
        """Return the text of any ids of the model."""


class ByteTokenizer:
    """UTF-8 bytes 0..255, and 256 as the end of text: spells every label in any language.

    The space between prompt and label belongs to the prompt, so the first predicted byte already
    distinguishes labels.

    >>> ByteTokenizer().label("this emotion is", "sad")
    [115, 97, 100]
    """

    end = 256
    size = 257

    def prompt(self, text: str) -> list[int]:
        return list(f"{text} ".encode())

    def label(self, prompt: str, label: str) -> list[int]:
        return list(label.encode())

    def text(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < self.end).decode(errors="replace").strip()


class PretrainedTokenizer:
    """A published tokenizer; it spells labels as text that follows the prompt and a space.

    Raises:
        ConfigError: if the tokenizer has no end-of-text token, or cannot spell a label.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                f"the tokenizer of lm '{name}' has no end-of-text token, which ends every label; "
                "set eos_token in its tokenizer_config.json, or choose another lm"
            )
        self.tokenizer = tokenizer
        self.name = name
        self.end: int = tokenizer.eos_token_id

    def prompt(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def label(self, prompt: str, label: str) -> list[int]:
        """Return the ids that ``"<prompt> <label>"`` has beyond those of the prompt.

        For GPT-2 these are the ids of ``" <label>"``. The label is not tokenised alone. If a
        tokenizer marks the beginning of a text, the label would have one space too many.
        """
        before, whole = self.prompt(prompt), self.prompt(f"{prompt} {label}")
        ids = whole[len(before) :] if whole[: len(before)] == before else self.prompt(f" {label}")
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown != self.end and unknown in ids:
            raise ConfigError(
                f"lm '{self.name}' cannot spell the label '{label}' (its tokenizer gives "
                f"'{self.tokenizer.unk_token}'); rename the class, or use an lm whose tokenizer "
                "falls back on bytes, such as gpt2 or scratch"
            )
        return ids

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()
