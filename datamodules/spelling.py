"""Names of files in a table or manifest, as the disk spells them.

macOS writes ``ä`` as ``a`` and two dots (NFD), others as one character (NFC), and Windows does not
tell upper from lower case: a table and an archive that went through different systems name one file
in two ways.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

from ..zoo.notices import shown
from .manifest import Utterance, is_inside


class Spelling:
    """The names below a folder; every folder is listed once.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, dict[str, list[str]]] = {}

    def find(self, audio: str) -> str | None:
        """The one path that differs from this in case and Unicode form alone; else None."""
        parts: list[str] = []
        for part in audio.split("/"):
            names = self._names(self.root.joinpath(*parts))
            same = names.get(_plain(part), [])
            if part in same:
                same = [part]
            if len(same) != 1:
                return None
            parts += same
        return "/".join(parts)

    def nearest(self, audio: str) -> str:
        """The end of a message on a missing file: what its folder holds instead."""
        folder, _, name = audio.rpartition("/")
        names = [n for same in self._names(self.root / folder).values() for n in same]
        if not names:
            return ""
        equal = self._names(self.root / folder).get(_plain(name), [])
        close = equal or get_close_matches(name, names, n=1, cutoff=0.6)
        return f"; the nearest name there is {' or '.join(map(shown, close))}" if close else ""

    def _names(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._known:
            found: dict[str, list[str]] = defaultdict(list)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        found[_plain(entry.name)].append(entry.name)
            except (OSError, ValueError):  # not there
                pass
            self._known[folder] = {key: sorted(names) for key, names in found.items()}
        return self._known[folder]


def _plain(name: str) -> str:
    return normalize("NFC", normalize("NFC", name).casefold())


def as_on_disk(
    utterances: Sequence[Utterance], root: Path
) -> tuple[list[Utterance], dict[str, str]]:
    """Utterances with the path of a file that is there, where a name is spelt otherwise.

    Args:
        utterances: of one corpus.
        root: its folder.

    Returns:
        The utterances, and the paths that were replaced, to what they are on the disk. A file
        that another utterance names as it is, or that two names could mean, replaces none.
    """
    spelling = Spelling(root)
    written = [a for a in dict.fromkeys(u.audio for u in utterances) if is_inside(a)]
    missing = [a for a in written if not os.path.lexists(root / a)]
    found = {a: real for a in missing if (real := spelling.find(a)) is not None}
    meant = Counter(found.values())
    exact = set(written) - set(missing)
    found = {a: real for a, real in found.items() if meant[real] == 1 and real not in exact}
    if not found:
        return list(utterances), {}
    return [replace(u, audio=found.get(u.audio, u.audio)) for u in utterances], found


def respelt(found: dict[str, str]) -> str:
    """What :func:`as_on_disk` replaced, in words."""
    one, real = next(iter(found.items()))
    names = f"{ascii(one)[1:-1]} is {ascii(real)[1:-1]} on the disk"
    return (
        f"{len(found)} names differ from those of the files in case or Unicode form (first: "
        f"{names}); these files are taken"
    )
