"""From the name of a corpus to its utterances: find the folder, prepare it once, cache the result.

:func:`open_corpora` returns a :class:`Speech`. :func:`prepare_corpus` writes a manifest.
:func:`recheck` tests whether the audio still is what a manifest was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..zoo.core import own, registry
from ..zoo.core.errors import ConfigError, DataError, DataWarning, cut, first_line
from ..zoo.core.files import cache_dir
from ..zoo.core.notices import tell
from .archives import facts as facts_of
from .audio import Level, decode_utterance, parse_channel
from .listening import sample_hash
from .manifest import Utterance, read_manifest, read_sidecar, validate, write_lines
from .prepare import PREPARE_VERSION, Prepared, beside, prepare, tell_notes
from .synthetic.generate import ensure_synthetic
from .walk import as_on_disk, respelt, walk

# Does the audio still match its manifest?

ROUNDING = 0.05  # seconds that an utterance may end after its file, as written by other tools


def recheck(
    utterances: Sequence[Utterance], root: Path, memory: Path
) -> tuple[list[Utterance], int]:
    """Return the utterances with the hashes of their present samples.

    A manifest can be older than its audio. With its old hash, the store would give features of
    samples that no longer exist. Every file is decoded once; the hashes are remembered until a
    path, a size or a time of change differs.

    Args:
        utterances: the utterances of one corpus in a manifest.
        root: its folder.
        memory: the folder in which hashes are remembered.

    Returns:
        The utterances, and the number of those whose samples differ from the manifest; a warning
        names the first one.

    Raises:
        DataError: if a file cannot be read, or holds samples that are not finite, or out of range.
    """
    path, _ = _memory(utterances, root, memory)
    hashes = _hashes_before(path, utterances)
    if hashes is None:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heard = pool.map(lambda u: _hear(u, root), utterances)
            hashes = {u.id: sha for u, sha in zip(utterances, heard, strict=True)}
        # without this file, the next run decodes the audio again
        with contextlib.suppress(OSError):
            write_lines(path, [json.dumps(hashes)])
    changed = [u for u in utterances if u.sha is not None and u.sha != hashes[u.id]]
    if changed:
        warnings.warn(
            f"the audio of {len(changed)} of {len(utterances)} utterances changed after the "
            f"manifest was made (first: {changed[0].audio}); the present audio is used, and its "
            "results are those of other data. Run `serzoo prepare` again, or restore the files",
            DataWarning,
            stacklevel=2,
        )
    now = [u if u.sha == hashes[u.id] else replace(u, sha=hashes[u.id]) for u in utterances]
    return now, len(changed)


def _memory(utterances: Sequence[Utterance], root: Path, memory: Path) -> tuple[Path, int]:
    """Return the file that remembers the hashes, and the latest time of change in nanoseconds."""
    seen = hashlib.sha256(b"2")  # increase if the same file gives other samples than before
    base, latest = str(root.resolve()), 0
    for u in utterances:
        stat = facts_of(os.path.join(root, u.audio))
        facts = [base, u.audio, u.start, u.end, stat.st_size, stat.st_mtime_ns]
        facts += [] if u.channel is None else [u.channel]
        seen.update(json.dumps(facts).encode())
        latest = max(latest, stat.st_mtime_ns)
    return memory / f"heard-{seen.hexdigest()[:16]}.json", latest


def _remember(utterances: Sequence[Utterance], root: Path, began: int) -> None:
    """Remember the hashes of a corpus that was just prepared, so that it is not decoded again.

    Nothing is remembered if a file changed since then, as it may have been decoded before.

    Args:
        utterances: those of the manifest.
        root: folder of the corpus.
        began: when the corpus began to be prepared, in nanoseconds.
    """
    with contextlib.suppress(OSError):  # without it, the next run decodes the audio again
        path, latest = _memory(utterances, root, cache_dir() / "manifests")
        if latest < began:
            write_lines(path, [json.dumps({u.id: u.sha for u in utterances})])


def _hashes_before(path: Path, utterances: Sequence[Utterance]) -> dict[str, str] | None:
    """Return the remembered hashes, or None if there are none.

    A damaged file gives None and a note.
    """
    try:
        hashes = json.loads(path.read_text("utf-8"))
        if not isinstance(hashes, dict) or not all(isinstance(h, str) for h in hashes.values()):
            raise ValueError("not a hash by id")
    except OSError:
        return None
    except ValueError as error:
        warnings.warn(
            f"{path} of the cache is damaged ({error}); the recordings are decoded again",
            DataWarning,
            stacklevel=2,
        )
        return None
    # files are identified by place, size and time, because ids may differ between manifests
    return hashes if all(u.id in hashes for u in utterances) else None


def _hear(utterance: Utterance, root: Path) -> str:
    samples, rate = decode_utterance(utterance, root)
    if len(samples) / rate < utterance.duration - ROUNDING:
        holds = utterance.start + len(samples) / rate
        raise DataError(
            f"{utterance.id} ends at {utterance.end:.3f} s, but {utterance.audio} holds "
            f"{holds:.3f} s; correct its end in the manifest, or run `serzoo prepare` again"
        )
    level = Level(utterance.channel)
    level.add(samples[:, None], samples)
    if level.broken:
        level.check(f"{utterance.id} ({utterance.audio})")
    return sample_hash(samples)


# Corpora.

EMBEDDED = {"synthetic": "acted", "synthetic_talk": "talk"}


@dataclass(frozen=True)
class Speech:
    """Utterances, and the folders of their audio.

    Attributes:
        utterances: the utterances of all corpora.
        roots: maps a corpus to its folder.
        notes: findings of ``prepare``, for the record: refusals by reason, unexpected counts.
        soft: class scores by id, if weak labels are used in this way.
    """

    utterances: list[Utterance]
    roots: dict[str, Path]
    notes: dict[str, Any] = field(default_factory=dict)
    soft: dict[str, list[float]] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """12 hexadecimal digits of a hash of the utterances' facts and sound, without paths."""
        rows: list[Any] = sorted(
            (u.id, u.sha or "", u.label or "", u.speaker or "", f"{u.start:.3f}-{u.end:.3f}")
            for u in self.utterances
        )
        # for weak labels, also their source and their confidence
        weak = sorted((u.id, u.label_source, u.label_score) for u in self.utterances if u.weak)
        rows += [*weak, *sorted(self.soft.items())]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]


def corpus_root(corpus: str, root: str | None, options: dict[str, Any] | None = None) -> Path:
    """Return the folder of a corpus: the given folder, otherwise ``$SERZOO_DATA/<corpus>``.

    The embedded corpora are generated into the cache. ``nemo`` is also found as ``nemo_mini``.

    Raises:
        DataError: if the folder does not exist; the message says how to name it.
    """
    reader = registry.get("corpora", corpus)  # report a wrong name before a missing folder
    if root is None:
        root = getattr(reader, "root", None)  # of a corpus of the user's own
    if root is not None:
        return folder_of(corpus, root)
    if corpus in EMBEDDED:
        # the reader refuses unknown options
        shape = {
            k: v for k, v in (options or {}).items() if k in ("seed", "utterances", "speakers")
        }
        return ensure_synthetic(cache_dir(), sentences=EMBEDDED[corpus], **shape)
    return folder_of(corpus, None)


def folder_of(corpus: str, root: str | Path | None) -> Path:
    """Return the folder that was given, otherwise ``$SERZOO_DATA/<corpus>``.

    Args:
        corpus: name of the corpus; it need not be registered.
        root: the folder, or None.

    Raises:
        DataError: if the folder does not exist; the message says how to name it.
    """
    if root is not None:
        path = Path(root)
        path = path if path.is_dir() else path.expanduser()  # a folder may be called ~
        if not path.is_dir():
            raise DataError(
                f"no folder {path} for corpus '{corpus}'; set root (data.root in a run) to the "
                "folder of the corpus"
            )
        return path
    base = os.environ.get("SERZOO_DATA")
    if not base:
        raise DataError(
            f"the folder of corpus '{corpus}' is unknown; set root=FOLDER (data.root in a run), or "
            f"SERZOO_DATA to a folder that holds {corpus}/"
        )
    for name in (corpus, f"{corpus}_mini"):
        path = Path(base).expanduser() / name
        if path.is_dir():
            return path
    have = sorted(p.name for p in Path(base).expanduser().glob("*") if p.is_dir())
    raise DataError(
        f"SERZOO_DATA={base} holds no folder {corpus} (it holds: {', '.join(have) or 'nothing'}); "
        "set root=FOLDER (data.root in a run)"
    )


def open_corpora(
    corpora: Sequence[str],
    *,
    root: str | None = None,
    manifest: str | None = None,
    options: dict[str, Any] | None = None,
    progress: bool = False,
) -> Speech:
    """Return the utterances of corpora; they are prepared on first use and cached.

    The findings of ``prepare`` are shown (:func:`.prepare.tell_notes`), even if an earlier call
    prepared the corpus.

    Args:
        corpora: registered names. With ``manifest``, the corpora to keep of it (empty = all);
            corpora that it lacks are found as usual.
        root: folder of the corpus (or of the manifest's audio). For several corpora, a folder with
            one sub-folder per corpus.
        manifest: a prepared manifest to read instead.
        options: options of the corpus reader, and ``channel`` (:func:`.prepare.prepare`), which
            must be that of the manifest.
        progress: show a bar while files are decoded.
    """
    if manifest is not None:
        speech = _from_manifest(Path(manifest), corpora, root)
        _refuse_other_channel(manifest, speech.utterances, options or {})
        others = [c for c in corpora if c not in speech.roots]
        if not others:
            return speech
        more = open_corpora(others, options=options, progress=progress)
        return Speech(
            [*speech.utterances, *more.utterances],
            {**speech.roots, **more.roots},
            {**speech.notes, **more.notes},
        )
    utterances: list[Utterance] = []
    roots: dict[str, Path] = {}
    notes: dict[str, Any] = {}
    for corpus in corpora:
        inner = root
        if root is not None and len(corpora) > 1:
            inner = str(Path(root) / corpus)
            if not Path(inner).is_dir() and _own_root(corpus):
                inner = None
        roots[corpus] = corpus_root(corpus, inner, options)
        found, notes[corpus] = _prepared(corpus, roots[corpus], options or {}, progress)
        utterances += found
    return Speech(utterances, roots, notes)


def _own_root(corpus: str) -> bool:
    """Whether a corpus of the user's own names its folder itself."""
    return getattr(registry.get("corpora", corpus), "root", None) is not None


def _refuse_other_channel(
    manifest: str, utterances: list[Utterance], options: dict[str, Any]
) -> None:
    if "channel" not in options:
        return
    channel = parse_channel(options["channel"])
    other = next((u for u in utterances if u.channel != channel), None)
    if other is not None:
        raise DataError(
            f"{manifest} was made from channel {other.channel or 'mean'} (first: {other.id}), not "
            f"{channel or 'mean'}; run `serzoo prepare CORPUS channel={options['channel']}` again, "
            "or leave options.channel out"
        )


def _from_manifest(path: Path, corpora: Sequence[str], root: str | None) -> Speech:
    everything = read_manifest(path)
    utterances = [u for u in everything if not corpora or u.corpus in corpora]
    if not utterances:
        held = ", ".join(sorted({u.corpus for u in everything})) or "none"
        raise DataError(
            f"{path} holds no utterances of {', '.join(corpora) or 'any corpus'}; it has {held}: "
            "name one of these, or give another manifest"
        )
    stored = read_sidecar(beside(path, ".json"))
    names = sorted({u.corpus for u in utterances})
    roots = {}
    for name in names:
        folder = root or stored.get("root")
        if folder is None:
            raise DataError(f"{path} does not name the folder of its audio; set data.root=FOLDER")
        several = Path(folder) / name
        roots[name] = several if len(names) > 1 and several.is_dir() else Path(folder)
    notes: dict[str, Any] = {n: dict(stored.get("notes", {})) for n in names}
    sounding: dict[str, Utterance] = {}
    for name in names:
        mine, other = as_on_disk([u for u in utterances if u.corpus == name], roots[name])
        if other:
            tell(f"{path.name}: {respelt(other)}", fault=False)
        validate(mine, roots[name])
        mine, changed = recheck(mine, roots[name], cache_dir() / "manifests")
        if changed:
            notes[name]["changed_since_prepared"] = changed
        sounding |= {u.id: u for u in mine}
    tell_notes(path.name, stored.get("notes", {}), beside(path, ".refused.jsonl"))
    return Speech([sounding[u.id] for u in utterances], roots, notes)


def _prepared(
    corpus: str, root: Path, options: dict[str, Any], progress: bool
) -> tuple[list[Utterance], dict[str, Any]]:
    """Prepare a corpus, or read the result of an earlier call for the same files."""
    folder = cache_dir() / "manifests"
    made = {
        "options": options,
        "prepare": PREPARE_VERSION,
        "reader": _reader_version(corpus),
    }
    path = folder / f"{corpus}-{_listing(root, made)}.jsonl"
    found = _remembered(path)
    if found is None:
        done = prepare(corpus, root=root, out=path, options=options, progress=progress)
        found = done.utterances, done.notes()
    tell_notes(corpus, found[1], beside(path, ".refused.jsonl"))
    return found


def _remembered(path: Path) -> tuple[list[Utterance], dict[str, Any]] | None:
    """Return the cached result of an earlier call, or None.

    A damaged cache gives None and a note: all of it can be made again, so no error is needed.
    """
    sidecar = path.with_suffix(".json")
    if not (path.is_file() and sidecar.is_file()):
        return None
    try:
        notes = json.loads(sidecar.read_text("utf-8"))["notes"]
        if not (isinstance(notes, dict) and isinstance(notes.get("utterances"), int)):
            raise ValueError("no notes")
        utterances = read_manifest(path)
        if len(utterances) != notes["utterances"]:
            raise ValueError(f"{len(utterances)} utterances of {notes['utterances']}")
    except (ValueError, KeyError, TypeError) as error:
        reason = cut(first_line(error), 200)
        warnings.warn(
            f"{path} of the cache is damaged ({reason}); {path.stem.rpartition('-')[0]} is "
            "prepared again",
            DataWarning,
            stacklevel=2,
        )
        return None
    return utterances, notes


def prepare_corpus(
    corpus: str,
    *,
    root: str | None = None,
    out: str | None = None,
    options: dict[str, Any] | None = None,
    channel: str | int | None = None,
    strict: bool = False,
    processes: int | None = 1,
    progress: bool = False,
) -> tuple[Prepared, Path]:
    """Write the manifest of a corpus, for `serzoo prepare`; return the report and the path.

    Unexpected findings are shown (:func:`.prepare.tell_notes`).

    Args:
        corpus: registered name.
        root: its folder; see :func:`corpus_root`.
        out: the manifest; by default ``<corpus>.jsonl`` in the current folder.
        options: options of its reader.
        channel: ``mean``, ``first`` or a number from 1; None = the choice of the reader.
        strict: raise an error if counts differ from the published ones.
        processes: see :func:`.prepare.prepare`.
        progress: show a bar.

    Raises:
        ConfigError: for an unknown corpus, folder or option.
        DataError: if no utterance can be used, or counts differ and ``strict`` is set.
    """
    if not isinstance(strict, bool):
        raise ConfigError(f"strict is '{strict}'; have true, false")
    folder = corpus_root(corpus, root, options)
    path = Path(out or f"{corpus}.jsonl")
    if channel is not None:
        options = {**(options or {}), "channel": channel}
    began = time.time_ns()
    done = prepare(
        corpus,
        root=folder,
        out=path,
        options=options,
        strict=strict,
        progress=progress,
        processes=processes,
    )
    _remember(done.utterances, folder, began)
    tell_notes(corpus, done.notes(), done.refused_list)
    return done, path


def _reader_version(corpus: str) -> Any:
    """Return what changes when the reader changes; of a YAML file, it and the reader it names."""
    origin = own.origin("corpora", corpus)
    inner = getattr(registry.get("corpora", corpus), "made_by", None)
    return [origin, _version(inner)] if inner else origin or _version(corpus)


def _version(corpus: str) -> Any:
    """Return what changes when a reader changes: its ``VERSION``, or otherwise its file's hash."""
    module = sys.modules[registry.get("corpora", corpus).__module__]
    version = getattr(module, "VERSION", None)
    if version is None and module.__file__:
        version = hashlib.sha256(Path(module.__file__).read_bytes()).hexdigest()
    return version


def _listing(root: Path, made: dict[str, Any]) -> str:
    """Return a hash of every file's path, size and time: a changed corpus is prepared again.

    Args:
        root: folder of the corpus.
        made: other facts that decide the result, such as the options.
    """
    digest = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode())
    found = walk(root)
    for path, stat in found.files.items():
        name = os.fsencode(path.relative_to(root))
        digest.update(b"%s|%d|%d\n" % (name, stat.st_size, stat.st_mtime_ns))
    # files that are not taken and empty folders are reported too, so they are part of the hash
    rest = [("folder", p) for p in found.folders]
    rest += [(kind, p) for kind, paths in sorted(found.passed.items()) for p in paths]
    for kind, path in rest:
        why = os.fsencode(found.why.get(path, ""))
        digest.update(b"%s|%s|%s\n" % (kind.encode(), os.fsencode(path.relative_to(root)), why))
    return digest.hexdigest()[:16]
