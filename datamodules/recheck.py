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

from ..zoo.errors import DataWarning
from .audio import Level, decode_utterance
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
        DataError: when a file cannot be read, or holds what training must not meet: samples that
            are not finite, or out of range.
    """
    seen = hashlib.sha256(b"2")  # raise when the same file is heard otherwise than before
    for u in utterances:
        stat = (root / u.audio).stat()
        facts = [str(root.resolve()), u.audio, u.start, u.end, stat.st_size, stat.st_mtime_ns]
        facts += [] if u.channel is None else [u.channel]
        seen.update(json.dumps(facts).encode())
    path = memory / f"heard-{seen.hexdigest()[:16]}.json"
    hashes = _remembered(path, utterances)
    if hashes is None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heard = pool.map(lambda u: _hear(u, root), utterances)
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


def _remembered(path: Path, utterances: Sequence[Utterance]) -> dict[str, str] | None:
    """What was heard before; None where nothing was, or the file is damaged, with a note."""
    try:
        hashes = json.loads(path.read_text("utf-8"))
        if not isinstance(hashes, dict) or not all(isinstance(h, str) for h in hashes.values()):
            raise ValueError("not a hash by id")
    except OSError:
        return None
    except ValueError as error:
        warnings.warn(
            f"{path} of the cache is damaged ({error}); the recordings are heard again",
            DataWarning,
            stacklevel=2,
        )
        return None
    # files are known by place, size and time: in another manifest they may have other ids
    return hashes if all(u.id in hashes for u in utterances) else None


def _hear(utterance: Utterance, root: Path) -> str:
    samples, _ = decode_utterance(utterance, root)
    level = Level(utterance.channel)
    level.add(samples[:, None], samples)
    if level.broken:
        level.check(f"{utterance.id} ({utterance.audio})")
    return sample_hash(samples)
