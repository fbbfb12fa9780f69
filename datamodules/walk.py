"""Find the files below a folder: the one walk of ``prepare``, ``predict`` and the catalogue.

:func:`walk` follows links to folders, because large corpora are often linked into place. It reads
no folder twice; a real folder comes before a link to it. It skips hidden files, and files that
macOS adds to an archive. Files that are not taken are counted, with a reason and a remedy.
:class:`Spelling` finds files whose name is written differently on the disk.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from unicodedata import normalize

from ..zoo.core.notices import shown
from .audio import SUFFIXES, UNREADABLE_SUFFIXES
from .manifest import Utterance, is_inside
from .placeholders import REMEDY, dangling, pointer_of, special, target_of

HEARD = (*SUFFIXES, *UNREADABLE_SUFFIXES)
STORES = (".git", ".dvc", ".hg", ".svn", ".datalad")  # they hold copies of the same files


@dataclass(frozen=True)
class Kind:
    """A reason why a file is not taken.

    Attributes:
        what: the reason, with ``{s}`` at the place of the plural s.
        remedy: what the user should do next.
        fault: False = nothing is missing.
    """

    what: str
    remedy: str
    fault: bool = True


KINDS = {
    "closed": Kind(
        "left out {n} folder{s} or file{s} that cannot be read",
        "change the permissions (chmod -R u+rX), then try again",
    ),
    "annex": Kind("left out {n} file{s} that git-annex has not fetched", REMEDY["annex"]),
    "lfs": Kind("left out {n} Git LFS pointer{s} without audio", REMEDY["lfs"]),
    "dvc": Kind("left out {n} file{s} or folder{s} that DVC has not fetched", REMEDY["dvc"]),
    "dangling": Kind("left out {n} link{s} to nothing", REMEDY["dangling"]),
    "convert": Kind(
        "left out {n} audio file{s} of a format that cannot be read",
        "convert to wav or flac, such as `ffmpeg -i a.m4a a.wav`",
    ),
    "special": Kind("left out {n} pipe{s}, socket{s} or device{s}", REMEDY["special"]),
    "twice": Kind(
        "did not follow {n} link{s} to a folder that is read already", "nothing is missing", False
    ),
    "hidden": Kind(
        "passed over {n} hidden audio file{s}",
        "take the dot from the name if it belongs to the corpus",
        False,
    ),
    "macos": Kind(
        "passed over {n} file{s} that macOS added (._*, __MACOSX)", "they hold no sound", False
    ),
}


@dataclass
class Found:
    """The result of a walk.

    Attributes:
        root: the folder of the walk.
        files: every regular file with a visible name, sorted by path, with its ``stat``.
        folders: every folder that was read, sorted.
        passed: paths that are not taken, by the keys of :data:`KINDS`.
        why: details of some of these: the target of a link, the error of the system.
    """

    root: Path
    files: dict[Path, os.stat_result] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    passed: dict[str, list[Path]] = field(default_factory=dict)
    why: dict[Path, str] = field(default_factory=dict)

    def take(self, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
        """Return the files with these suffixes, in any case, sorted.

        Pointers of version control are left out.
        """
        ending = [p for p in self.files if p.suffix.lower() in suffixes]
        return [p for p in ending if pointer_of(p, self.files[p]) is None]

    def left(self, suffixes: Sequence[str] = SUFFIXES) -> dict[str, list[Path]]:
        """Return the paths that :meth:`take` leaves out, by kind, without empty kinds.

        A file with a converted copy (``a.m4a`` beside ``a.wav``) does not count as left out.
        """
        found: dict[str, list[Path]] = {}
        audio = bool(set(suffixes) & set(SUFFIXES))
        named = (*suffixes, *(HEARD if audio else ()))
        for kind, paths in self.passed.items():
            if audio and kind in ("closed", "twice"):
                found[kind] = paths
            elif audio or kind in ("annex", "dvc", "dangling"):
                # a name without a suffix may have been a folder
                bare = ("",) if audio and kind in ("annex", "dvc", "dangling") else ()
                found[kind] = [p for p in paths if p.suffix.lower() in (*named, *bare)]
        have = set()
        for path, facts in self.files.items():
            if path.suffix.lower() in suffixes:
                have.add(path.with_suffix(""))
                if pointer := pointer_of(path, facts):
                    found.setdefault(pointer, []).append(path)
        if audio:
            found["convert"] = [
                p
                for p in self.files
                if p.suffix.lower() in UNREADABLE_SUFFIXES
                and p.suffix.lower() not in suffixes
                and p.with_suffix("") not in have
            ]
        return {kind: sorted(found[kind]) for kind in KINDS if found.get(kind)}

    def notes(
        self, suffixes: Sequence[str] = SUFFIXES, *, without: Collection[Path] = ()
    ) -> list[tuple[str, bool]]:
        """Return the kinds of :meth:`left` in words, each with "is a fault", without some paths."""
        out = set(without)
        rest = {k: [p for p in ps if p not in out] for k, ps in self.left(suffixes).items()}
        return [(self._note(kind, ps), KINDS[kind].fault) for kind, ps in rest.items() if ps]

    def _note(self, kind: str, paths: Sequence[Path]) -> str:
        n = len(paths)
        what = KINDS[kind].what.format(n=n, s="" if n == 1 else "s")
        names = [shown(p.relative_to(self.root).as_posix()) for p in paths[:3]]
        names = [
            f"{name} ({shown(self.why[path])})" if path in self.why else name
            for path, name in zip(paths, names, strict=False)
        ]
        kinds = f"{by_suffix(paths)}; " if kind == "convert" else ""
        return f"{what} ({kinds}first: {', '.join(names)}): {KINDS[kind].remedy}"

    def holds(self, folder: Path | None = None) -> str:
        """Return the number of files below a folder by suffix: ``3 m4a, 1 txt``, or ``nothing``."""
        inside = [p for p in self.files if folder is None or p.is_relative_to(folder)]
        return by_suffix(inside) or "nothing"


def by_suffix(paths: Iterable[Path]) -> str:
    """Return a text such as ``3 m4a, 1 txt``, the most frequent suffix first."""
    counts = Counter(shown(p.suffix.lower()[1:]) or "without a suffix" for p in paths)
    return ", ".join(f"{n} {suffix}" for suffix, n in counts.most_common())


def walk(root: Path) -> Found:
    """Return everything below a folder; no file or folder raises an error.

    A folder that cannot be read is in ``passed["closed"]``, even if it is the root.
    """
    found = Found(root)
    seen: set[tuple[int, int]] = set()
    folders: list[tuple[Path, str]] = [(root, "")]  # with the kind of the hidden files in it
    links: list[tuple[Path, str]] = []
    while folders or links:
        if not folders:
            links.sort(reverse=True)
        folder, hidden = folders.pop() if folders else links.pop()
        try:
            here = os.stat(folder)
            if (here.st_dev, here.st_ino) in seen:
                target = target_of(folder)
                _pass(found, hidden or "twice", folder, target and f"-> {target}")
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(os.fspath(folder)) as entries:
                inside = list(entries)
        except OSError as error:
            _pass(found, hidden or "closed", folder, error.strerror or str(error))
            continue
        if not hidden:
            found.folders.append(folder)
        for entry in inside:
            _sort(entry, folder / entry.name, hidden, found, folders, links)
        names = {entry.name for entry in inside}
        for name in names:  # a.wav.dvc is the pointer of a.wav
            if name.endswith(".dvc") and name[:-4] and name[:-4] not in names and not hidden:
                _pass(found, "dvc", folder / name[:-4])
    found.files = dict(sorted(found.files.items(), key=lambda item: item[0].as_posix()))
    found.folders.sort()
    for paths in found.passed.values():
        paths.sort()
    return found


def _sort(
    entry: os.DirEntry[str],
    path: Path,
    hidden: str,
    found: Found,
    folders: list[tuple[Path, str]],
    links: list[tuple[Path, str]],
) -> None:
    """Put one name of a folder into the list that it belongs to."""
    if entry.name == "__MACOSX" or entry.name.startswith("._"):
        hidden = "macos"
    elif entry.name.startswith("."):
        hidden = hidden or "hidden"
    try:
        if entry.is_dir():
            if entry.name not in STORES:
                (links if entry.is_symlink() else folders).append((path, hidden))
            return
        facts = entry.stat()
    except OSError as error:
        if (
            error.errno is not None
            and os.path.islink(path)
            and not isinstance(error, PermissionError)
        ):
            kind, why = dangling(path)
        else:
            kind, why = "closed", error.strerror or str(error)
        if not hidden:
            _pass(found, kind, path, why)
        return
    if hidden:
        if path.suffix.lower() in HEARD:
            _pass(found, hidden, path)
    elif stat.S_ISREG(facts.st_mode):
        found.files[path] = facts
    else:
        _pass(found, "special", path, special(facts.st_mode))


def _pass(found: Found, kind: str, path: Path, why: str | None = None) -> None:
    found.passed.setdefault(kind, []).append(path)
    if why:
        found.why[path] = why


# Names of files in a table or manifest, as the disk spells them. macOS writes ``ä`` as ``a`` and
# two dots (NFD), other systems as one character (NFC). Windows ignores the case of letters. So a
# table and an archive from different systems can name one file in two ways.


class Spelling:
    """The names below a folder; every folder is listed once.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[Path, dict[str, list[str]]] = {}

    def find(self, audio: str) -> str | None:
        """Return the only path that differs from this one just in case or Unicode form, or None."""
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
        """Return the end of a message on a missing file: the content of its folder."""
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
            except (OSError, ValueError):  # the folder does not exist
                pass
            self._known[folder] = {key: sorted(names) for key, names in found.items()}
        return self._known[folder]


def _plain(name: str) -> str:
    return normalize("NFC", normalize("NFC", name).casefold())


def as_on_disk(
    utterances: Sequence[Utterance], root: Path
) -> tuple[list[Utterance], dict[str, str]]:
    """Correct paths that the disk spells differently.

    Args:
        utterances: the utterances of one corpus.
        root: its folder.

    Returns:
        The utterances, and a mapping of replaced paths to those on the disk. A path is not
        replaced by a file that another utterance names exactly, or that two names could mean.
    """
    spelling = Spelling(root)
    written = [a for a in dict.fromkeys(u.audio for u in utterances) if is_inside(a)]
    missing = [a for a in written if not os.path.lexists(os.path.join(root, a))]
    found = {a: real for a in missing if (real := spelling.find(a)) is not None}
    meant = Counter(found.values())
    exact = set(written) - set(missing)
    found = {a: real for a, real in found.items() if meant[real] == 1 and real not in exact}
    if not found:
        return list(utterances), {}
    return [replace(u, audio=found.get(u.audio, u.audio)) for u in utterances], found


def respelt(found: dict[str, str]) -> str:
    """Return the replacements of :func:`as_on_disk` in words."""
    one, real = next(iter(found.items()))
    names = f"{ascii(one)[1:-1]} is {ascii(real)[1:-1]} on the disk"
    return (
        f"{len(found)} names differ from those of the files in case or Unicode form (first: "
        f"{names}); these files are taken"
    )
