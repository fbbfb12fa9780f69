"""`serzoo lock`: write the commits of published models into the lock file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...datamodules.labelling.asr import DEFAULT as RECOGNISER
from ..core import lock, shipped
from ..core.errors import ConfigError, suggest
from ..core.files import check_place
from ..core.hub import Published
from ..core.progress import Bar
from ..core.table import Line, Table, wide_console
from .schema import RunConfig

EXAMPLE = "facebook/wav2vec2-base"
ANY = "hf"
"""The configuration that lists every option of an encoder; its model is only an example."""


@dataclass(frozen=True)
class Wanted:
    """A published model that a configuration names.

    Attributes:
        called: names of the configurations, or ``asr``; a dash if it was named by itself.
        setting: the setting that names it, for messages.
        model: hub id or folder.
        revision: the requested revision; None = the main branch, or a folder.
    """

    called: str
    setting: str
    model: str
    revision: str | None

    def published(self) -> Published:
        """Find the model; see :meth:`Published.find`."""
        return Published.find(self.setting, self.model, self.revision, example=EXAMPLE)


@dataclass(frozen=True)
class Result:
    """What `serzoo lock` did with a model.

    Attributes:
        wanted: the model.
        entry: what is locked now; None if it could not be found.
        state: ``locked``, ``unchanged``, ``was ...`` for another commit, or why it failed. It is
            ``not checked`` if only the setting says so, because the hub was not reached.
    """

    wanted: Wanted
    entry: lock.Locked | None
    state: str


def of_encoder(options: dict[str, Any], called: str) -> list[Wanted]:
    """Return the published model that an encoder's options name; empty if they name none."""
    if options.get("type") != "hf" or not options.get("name"):
        return []
    return [Wanted(called, "encoder.name", str(options["name"]), options.get("revision"))]


MODELS_OF_HEADS = (("lm", "lm_revision", "scratch"), ("text_model", "text_revision", "letters"))
"""Options of heads: one that names a published model, its revision, and the value for no model."""


def of_head(options: dict[str, Any], called: str) -> list[Wanted]:
    """Return the published models that a head's options name; empty if they name none."""
    main = options.get("main")
    inner = of_head(main, called) if isinstance(main, dict) else []
    return inner + [
        Wanted(called, f"head.{key}", options[key], options.get(revision))
        for key, revision, none in MODELS_OF_HEADS
        if isinstance(options.get(key), str) and options[key] != none
    ]


def of_run(cfg: RunConfig) -> list[Wanted]:
    """Return the published models of a run."""
    return [*of_encoder(cfg.encoder, "encoder"), *of_head(cfg.head, "head")]


def known() -> dict[str, Wanted]:
    """Return the published models of the shipped configurations, by the configuration's name.

    ``asr`` is the default recogniser of ``serzoo label``.
    """
    found: dict[str, Wanted] = {}
    for name in shipped.names("encoder"):
        found |= {w.called: w for w in of_encoder(shipped.read("encoder", name), name)}
    for name in shipped.names("head"):
        found |= {w.called: w for w in of_head(shipped.read("head", name), name)}
    return {**found, "asr": Wanted("asr", "asr", RECOGNISER, None)}


def wanted(names: Sequence[str], everything: bool = False) -> list[Wanted]:
    """Return the models that a user names; those of one hub id and revision together.

    Args:
        names: names of shipped encoders and heads, ``asr``, hub ids (``OWNER/NAME`` or
            ``OWNER/NAME@REVISION``) and folders.
        everything: also all shipped encoders and heads, and ``asr``.

    Raises:
        ConfigError: if a name is none of these, or no model is named.
    """
    have = known()
    listed = [name for name in have if name != ANY] if everything else []
    found: dict[tuple[str, str | None], Wanted] = {}
    for name in dict.fromkeys([*listed, *names]):
        one = have.get(name) or _by_itself(name, have)
        key = one.model, one.revision
        if key in found:
            other = found[key].called
            called = f"{other}, {one.called}" if one.called not in other.split(", ") else other
            one = Wanted(called, one.setting, one.model, one.revision)
        found[key] = one
    if not found:
        raise ConfigError(
            "no model was named to lock; give names of encoders or heads (see `serzoo list "
            "encoders`), hub ids such as openai/whisper-base, or --all"
        )
    return list(found.values())


def _by_itself(name: str, have: dict[str, Wanted]) -> Wanted:
    if Path(name).expanduser().is_dir():
        return Wanted("-", "model", name, None)
    model, _, revision = name.partition("@")
    # a bare name is a hub id only if it has a revision: gpt2@main
    if re.fullmatch(r"[\w.-]+/[\w.-]+" if not revision else r"[\w.-]+(/[\w.-]+)?", model):
        return Wanted("-", "model", model, revision or None)
    if model in {w.model for w in have.values()}:
        return Wanted("-", "model", model, None)
    raise ConfigError(
        f"'{name}' is neither a shipped encoder or head with a published model, nor a hub id "
        f"(OWNER/NAME or OWNER/NAME@REVISION), nor a folder{suggest(name, have)}"
    )


def lock_models(
    names: Sequence[str], *, everything: bool = False, file: str | Path | None = None
) -> tuple[list[Result], Path]:
    """Ask the hub for the commits of models, and write them into the lock file.

    A model that is read from a folder, or from ``$SERZOO_MODELS``, is locked by the hashes of its
    files. Models that cannot be found keep what the lock file has of them.

    Args:
        names: see :func:`wanted`.
        everything: see :func:`wanted`.
        file: the lock file; None = the one in use.

    Returns:
        A result for each model, and the lock file.

    Raises:
        ConfigError: if a name is unknown, or the lock file is damaged.
        OSError: if the lock file cannot be written.
    """
    target = Path(file).expanduser() if file else lock.lock_file()
    held = lock.read(target)
    check_place(target)
    results, asked = [], wanted(names, everything)
    with Bar("models", len(asked)) as bar:  # hashing large files takes long
        for one in asked:
            results.append(_locked(one, held))
            bar.advance()
    if entries := [r.entry for r in results if r.entry]:
        lock.keep(entries, target)
    return results, target


def _locked(one: Wanted, held: dict[tuple[str, str | None], lock.Locked]) -> Result:
    try:
        entry = one.published().to_lock()
    except ConfigError as error:
        return Result(one, None, str(error))
    before = held.get(entry.key)
    if before is None:
        return Result(one, entry, "locked" if entry.files else "not checked")
    if entry.commit and entry.commit == before.commit and not entry.files:
        entry = before  # without a connection the hashes are not known
    same = before.said == entry.said and (before.files == entry.files or not before.files)
    return Result(one, entry, "unchanged" if same else f"was {before.said}")


def show(results: Sequence[Result], file: Path, console: Console | None = None) -> None:
    """Print what was locked as a table, and then why a model could not be locked."""
    console = console or wide_console()
    columns = ("name", "hub id", "revision", "commit", "state")
    rows: list[Line] = [
        [r.wanted.called, r.wanted.model, r.wanted.revision or "null", r.entry.said, r.state]
        for r in results
        if r.entry
    ]
    if rows:
        console.print(Table("", columns, rows).rich(lines=False))
    for r in results:
        if r.entry is None:
            console.out(f"{r.wanted.called}: not locked: {r.state}", highlight=False)
    console.out(f"{len(rows)} of {len(results)} models are locked in {file}", highlight=False)


def show_held(file: Path, console: Console | None = None) -> None:
    """Print what a lock file holds."""
    console = console or wide_console()
    held = lock.read(file)
    rows: list[Line] = [[e.name, e.revision or "null", e.said] for e in held.values()]
    if rows:
        console.print(Table("", ("hub id", "revision", "commit"), rows).rich(lines=False))
    console.out(f"{len(rows)} models are locked in {file}", highlight=False)
