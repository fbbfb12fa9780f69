from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serzoo.datamodules.info import CorpusInfo
from serzoo.datamodules.manifest import Utterance
from serzoo.zoo.core.errors import DataWarning


class Tree:
    """A folder of a corpus, for readers that look at names and tables only."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plant(self, *names: str) -> None:
        """Empty files."""
        for name in names:
            self.write(name, "")

    def write(self, name: str, text: str, encoding: str = "utf-8") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding=encoding, newline="")

    def has(self, utterance: Utterance) -> bool:
        return (self.root / utterance.audio).is_file()

    def read(
        self, prepare: Callable[[Path], Iterator[Utterance]], below: str = ""
    ) -> tuple[dict[str, Utterance], list[str]]:
        """Utterances by name, and what is at fault; checks what must hold for every reader."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = list(prepare(self.root / below))
        corpus = prepare.__module__.rpartition(".")[2]
        info = CorpusInfo.load(corpus)
        by_name = {}
        for utterance in found:
            assert utterance.corpus == corpus
            assert utterance.label is None or utterance.label in info.labels
            for column in info.alternative_labels.keys() & utterance.labels.keys():
                assert utterance.labels[column] in info.alternative_labels[column]
            assert (utterance.text is None) == (utterance.text_source is None)
            # measured by the engine, never by a reader
            assert (utterance.start, utterance.sample_rate, utterance.sha) == (0.0, 0, None)
            assert math.isnan(utterance.end)
            by_name[utterance.id.removeprefix(f"{corpus}/")] = utterance
        assert len(by_name) == len(found)
        assert all(issubclass(w.category, DataWarning) for w in caught)
        return by_name, [str(w.message) for w in caught if w.category is DataWarning]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)
