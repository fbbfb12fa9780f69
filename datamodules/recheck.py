"""Whether the audio of a manifest is still what the manifest was made of."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ..zoo.errors import DataError, DataWarning
from ..zoo.text import read_json
from .audio import decode
from .manifest import Utterance, write_lines
from .prepare import sample_hash


def recheck(
    utterances: Sequence[Utterance], root: Path, memory: Path
) -> tuple[list[Utterance], int]:
    """The utterances with the hash of what their files hold now.

    A manifest can be older than its audio, and a hash that does not tell would hand out features of
    samples that are no more. Every file is decoded once; what was heard is remembered until a path,
    size or time of change is another.

    Args:
        utterances: of one corpus in a manifest.
        root: its folder.
        memory: folder to remember in.

    Returns:
        The utterances, and the number of those whose samples are others than the manifest says;
        a warning names the first.

    Raises:
        DataError: when a file cannot be read.
    """
    seen = hashlib.sha256()
    for u in utterances:
        stat = (root / u.audio).stat()
        facts = [str(root.resolve()), u.audio, u.start, u.end, stat.st_size, stat.st_mtime_ns]
        seen.update(json.dumps(facts).encode())
    path = memory / f"heard-{seen.hexdigest()[:16]}.json"
    hashes: dict[str, str] | None = None
    with contextlib.suppress(DataError):  # none yet, or damaged: heard again
        hashes = read_json(path, remedy="")
    if hashes is None or any(u.id not in hashes for u in utterances):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heard = pool.map(
                lambda u: sample_hash(decode(root / u.audio, u.start, u.end)[0]), utterances
            )
            hashes = {u.id: sha for u, sha in zip(utterances, heard, strict=True)}
        with contextlib.suppress(OSError):  # a convenience: the next run would listen again
            write_lines(path, [json.dumps(hashes)])
    changed = [u for u in utterances if u.sha is not None and u.sha != hashes[u.id]]
    if changed:
        warnings.warn(
            f"the audio of {len(changed)} of {len(utterances)} utterances is not what the manifest "
            f"was made of (first: {changed[0].audio}); what the files hold now is used and counts "
            "as other data. Run `serzoo prepare` again, or restore the files",
            DataWarning,
            stacklevel=2,
        )
    return [replace(u, sha=hashes[u.id]) for u in utterances], len(changed)
