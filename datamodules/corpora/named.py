"""Corpora whose file names say everything: a description each, and no code.

``configs/corpus/NAME.yaml`` has the key ``naming`` (:class:`..naming.Naming`). This module has a
reader for each such description: ``named.cafe`` reads CaFE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ...zoo.core.errors import DataError
from ..info import CorpusInfo
from ..layout import check_once
from ..manifest import Utterance
from ..naming import Naming
from . import find_files, left_out, nothing_found, utterance

VERSION = 1

Reader = Callable[[Path], Iterator[Utterance]]


def read(corpus: str, names: Naming, info: CorpusInfo, root: Path) -> Iterator[Utterance]:
    """Yield the utterances whose names fit the description of a corpus.

    Args:
        corpus: name of the corpus.
        names: what its names say.
        info: its description.
        root: the unpacked corpus, or a folder above it.

    Raises:
        DataError: if no file fits, or a recording is there twice.
    """
    found, other = [], []
    for path in find_files(root):
        match = names.end.search(path.relative_to(root).with_suffix("").as_posix())
        if match is None:
            other.append(path)
        else:
            found.append((path, {k: v for k, v in match.groupdict().items() if v is not None}))
    if not found:
        raise nothing_found(corpus, root, names.example)
    left_out(corpus, {f"not named like {names.example}": other})
    named = [(names.id.format(stem=p.stem, **groups), p, groups) for p, groups in found]
    check_once(corpus, root, ((name, path) for name, path, _ in named))
    codes = {code.casefold(): code for code in info.labels}
    for name, path, groups in named:
        speaker, said = groups.get("speaker"), groups.get("label")
        text = names.sentences.get(groups.get("sentence", ""))
        yield utterance(
            corpus,
            path,
            root,
            id=f"{corpus}/{name}",
            speaker=speaker,
            session=groups.get("session"),
            gender=names.gender_of(groups),
            language=names.language_of(speaker, info.language),
            label=None if said is None else codes.get(said.casefold(), said),
            text=text,
            text_source=None if text is None else "human",
            label_source=None if said is None else names.label_source,
        )


@cache
def __getattr__(name: str) -> Reader:
    """Return the reader of a corpus that has a description of its names."""
    if name.startswith("_") or name not in CorpusInfo.names():
        raise AttributeError(name)

    def prepare(root: Path) -> Iterator[Utterance]:
        info = CorpusInfo.load(name)
        if info.naming is None:
            raise DataError(f"the description of corpus '{name}' has no key 'naming'; add it")
        return read(name, info.naming, info, root)

    prepare.__qualname__ = prepare.__name__ = name
    prepare.__doc__ = f"Yield the utterances of the corpus ``{name}``."
    return prepare
