"""The lock file: the commit of each published model that runs use, or the files of its folder.

A run names a model by hub id and revision. A revision may move: a branch, a pull request, or none
at all. The lock file keeps the commit that was meant at first use. Later runs load that
commit. A model that is read from a folder has no commit, so the hashes of its files are kept.

The lock file is the first of these:

1. the file that ``$SERZOO_LOCK`` names;
2. ``serzoo.lock`` in the current folder, if it is there;
3. ``serzoo.lock`` in the cache folder.

It is JSON, and is meant to be kept with a comparison.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own client, httpx or httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import ConfigError
from .files import cache_dir, locked, read_json, write_json

LOCK = "SERZOO_LOCK"
"""Environment variable: the lock file."""
NAME = "serzoo.lock"
FORMAT = 1
COMMIT = re.compile(r"[0-9a-f]{40}")
READ = (".json", ".safetensors", ".txt", ".model")
"""Endings of the files of a folder that can change what a model computes."""
BOT, TITLE = "SFconvertbot", "Adding `safetensors` variant of this model"
"""Author and title of the pull request by which the hub converts a model to safetensors."""


@dataclass(frozen=True)
class Locked:
    """What the lock file holds of a model.

    Attributes:
        name: hub id or folder, as the setting has it.
        revision: the requested revision; None = the main branch, or a folder.
        commit: commit of the hub, 40 hexadecimal digits; None for a folder.
        files: SHA-256 of files by name. For a commit these are its weights, if the hub tells
            their hashes. For a folder these are all files that are read.
    """

    name: str
    revision: str | None = None
    commit: Annotated[str, Field(pattern=f"^{COMMIT.pattern}$")] | None = None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str | None]:
        """What is asked for: name and revision."""
        return self.name, self.revision

    @property
    def said(self) -> str:
        """The commit, or the beginning of the hash of the weights."""
        if self.commit:
            return self.commit
        hashes = [sha for name, sha in self.files.items() if name.endswith(".safetensors")]
        return f"files {(hashes or list(self.files.values()) or ['?'])[0][:12]}"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    models: list[Locked]


def fixed(revision: str | None) -> bool:
    """Return whether a revision is a full commit, which cannot move."""
    return revision is not None and COMMIT.fullmatch(revision) is not None


def lock_file() -> Path:
    """Return the lock file in use; it need not exist yet."""
    if base := os.environ.get(LOCK):
        return Path(base).expanduser()
    here = Path(NAME).absolute()
    return here if here.is_file() else cache_dir() / NAME


def read(file: Path) -> dict[tuple[str, str | None], Locked]:
    """Return the content of a lock file by name and requested revision; empty if it is missing.

    Raises:
        ConfigError: if it cannot be read, or is no lock file.
    """
    if not file.exists():
        return {}
    remedy = f"restore it, or remove it and run `serzoo lock` ({LOCK} can name another one)"
    raw = read_json(file, ConfigError, remedy=remedy)
    try:
        found = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{file} is no lock file of this version ({where}: {first['msg']}); {remedy}"
        ) from error
    return {entry.key: entry for entry in found.models}


def find(name: str, revision: str | None) -> Locked | None:
    """Return what the lock file in use holds of a model; None if it holds nothing.

    Raises:
        ConfigError: if the file is damaged.
    """
    return read(lock_file()).get((name, revision))


def keep(entries: Iterable[Locked], file: Path | None = None, *, first: bool = False) -> Path:
    """Add entries to a lock file, and return its path; several processes may do so at once.

    Args:
        entries: the entries.
        file: the lock file; None = the one in use.
        first: keep an entry that is there already.

    Raises:
        ConfigError: if the file is damaged.
        OSError: if it cannot be written.
    """
    file = file or lock_file()
    cache_dir().mkdir(parents=True, exist_ok=True)
    with locked(cache_dir() / f".{NAME}"):
        held = read(file)
        new = {entry.key: entry for entry in entries}
        held = {**new, **held} if first else {**held, **new}
        ordered = sorted(held.values(), key=lambda e: (e.name, e.revision or ""))
        write_json(file, {"format": FORMAT, "models": [asdict(e) for e in ordered]})
    return file


_WRITTEN: ContextVar[bool] = ContextVar("lock_written", default=True)


@contextmanager
def unwritten() -> Iterator[None]:
    """Context in which the first use of a model is not written into the lock file."""
    token = _WRITTEN.set(False)
    try:
        yield
    finally:
        _WRITTEN.reset(token)


def written() -> bool:
    """Return whether the first use of a model is written into the lock file."""
    return _WRITTEN.get()


# A model of the hub.


def of_hub(name: str, revision: str | None, *, weights: bool = False) -> Locked:
    """Ask the hub which commit a revision is; without a connection, look into its local cache.

    If the main branch has no safetensors, the hub's own conversion in a pull request is taken.

    Args:
        name: hub id.
        revision: commit, branch, tag or pull request; None = the main branch.
        weights: refuse a commit without safetensors.

    Raises:
        OSError: if neither the hub nor the cache knows it, or it has no safetensors.
        httpx.RequestError: if the hub cannot be reached, and the cache does not know it.
    """
    api = HfApi()
    try:
        found = api.model_info(name, revision=revision, files_metadata=True)
        if revision is None and not _weights(found) and (pull := _conversion(api, found)):
            found = api.model_info(name, revision=pull, files_metadata=True)
    except (httpx.RequestError, ConnectionError) as error:
        return _of_cache(name, revision, error)
    except HfHubHTTPError as error:
        if error.response.status_code < 500:  # the hub answers, but does not have it
            raise
        return _of_cache(name, revision, error)
    hashes = _weights(found)
    if weights and not hashes:
        raise FileNotFoundError("it has no model.safetensors")
    return Locked(name, revision, str(found.sha), hashes)


def _of_cache(name: str, revision: str | None, unreached: Exception) -> Locked:
    """Return the commit that the hub's local cache has; raise ``unreached`` if it has none."""
    if fixed(revision):
        return Locked(name, revision, revision)
    try:
        path = hf_hub_download(name, "config.json", revision=revision, local_files_only=True)
    except OSError:
        raise unreached from None
    return Locked(name, revision, Path(path).parent.name)


def _weights(found: Any) -> dict[str, str]:
    """Return the SHA-256 of the weights that are loaded: one file, or all of its shards."""
    hashes = {
        s.rfilename: str(s.lfs.sha256)
        for s in found.siblings or ()
        if s.lfs and re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", s.rfilename)
    }
    single = "model.safetensors"
    return {single: hashes[single]} if single in hashes else hashes


def _conversion(api: HfApi, main: Any) -> str | None:
    """Return the pull request in which the hub's bot has converted this very main branch."""
    pulls = api.get_repo_discussions(
        main.id, author=BOT, discussion_type="pull_request", discussion_status="open"
    )
    for pull in pulls:
        if pull.title == TITLE and pull.git_reference:
            commits = api.list_repo_commits(main.id, revision=pull.git_reference)
            if len(commits) > 1 and commits[1].commit_id == main.sha:
                return str(pull.git_reference)
    return None


# A model of a folder.


def of_folder(name: str, revision: str | None, folder: Path) -> Locked:
    """Return an entry with the hashes of all files of a folder that can change a model.

    Args:
        name: hub id or folder, as the setting has it.
        revision: the requested revision.
        folder: the folder that is read.

    Raises:
        ConfigError: if the folder holds no such file.
        OSError: if a file cannot be read.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in READ and path.is_file() and not _hidden(path.relative_to(folder))
    )
    if not names:
        raise ConfigError(
            f"{folder} holds no file of a model ({', '.join(READ)}); give the folder that "
            "save_pretrained wrote, or download the model again"
        )
    return Locked(name, revision, None, {n: file_hash(folder / n) for n in names})


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, as the hub shows it for weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference(entry: Locked, folder: Path) -> str | None:
    """Return how a folder differs from a locked model; None if it does not.

    Args:
        entry: the locked model; only the files that it lists are compared. Without a commit, it
            lists all files, so a further file is a difference.
        folder: the folder that is read.

    Raises:
        OSError: if a file cannot be read.
    """
    for name, sha in entry.files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (found := file_hash(folder / name)) != sha:
            return f"{name} has SHA-256 {found[:12]}, but {sha[:12]} is locked"
    if entry.commit is None:
        present = of_folder(entry.name, entry.revision, folder).files
        if more := sorted(set(present) - set(entry.files)):
            return f"{more[0]} is new"
    return None
