"""Parts in the user's own files, which need no package: ``FILE.py:NAME``.

``package.module:NAME`` does the same for a module that can be imported. Users who type such a name,
or write it into their YAML file, run their own code. Checkpoints, saved folders and models of the
hub hold plain names only. So loading them imports nothing.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import registry
from .errors import ConfigError, SerzooError, suggest
from .registry import SINGULAR, Added, Kind
from .shipped import read_yaml

if TYPE_CHECKING:
    from .encoder import Encoder

BASES: tuple[Kind, ...] = ("heads", "encoders")
EXAMPLES = {"heads": "MyHead", "encoders": "MyEncoder", "corpora": "prepare", "scorers": "MyScorer"}
_OWN = re.compile(r".+\.py(:\w*)?|\w+(\.\w+)*:\w+")
Shipped = tuple[Kind, str, Any, str]
"""A part for another process: kind, name, place (or the class itself) and digest of its file."""


def is_own(text: Any) -> bool:
    """Whether a text names a part in a file or a module, and is not a registered name."""
    return isinstance(text, str) and _OWN.fullmatch(text) is not None


def adopt(kind: Kind, text: str, *, beside: Path | None = None, base: type | None = None) -> str:
    """Import and register one of the user's own parts, and return its registered name.

    Args:
        kind: kind of the part.
        text: ``FILE.py:NAME``, ``package.module:NAME``, or a registered name, which is returned
            as it is.
        beside: folder of the YAML file that names the part. A relative path is looked for there
            first, then in the working directory.
        base: class that the part must extend; by default that of its kind.

    Returns:
        The name: ``my_head`` for a class ``MyHead``. A reader called ``prepare`` has the name of
        its file.

    Raises:
        ConfigError: if file or name is missing, or the file cannot be run. Also if the object is
            not a part of this kind, or its name is taken.
    """
    if not is_own(text):
        return text
    place, _, name = text.rpartition(":") if ":" in text else (text, "", "")
    file = _file(place, beside) if place.endswith(".py") else None
    where = f"{file or place}:{name}"
    if file is not None:
        sha = _digest(file)
        known = next((k for k, n, a in _added(kind) if a.where == where and a.sha == sha), None)
        if known is not None:
            return known
        module = _run(file, sha)
    else:
        module = _imported(kind, place, text)
        sha = _digest_of(module)
    part = _find(kind, module, place, name, base)
    if (old := registry.name_of_class(kind, part)) is not None:
        return old
    called = _name(kind, name, Path(place).stem if file else place.rpartition(".")[2])
    if kind == "corpora":
        _describe(part, module, where, file)
    registry.add(kind, called, Added(part, where, sha, loaded=True))
    return called


def register(kind: Kind, name: str, part: Any) -> str:
    """Give your own class a name, which configurations of this process may then use.

    Args:
        kind: ``heads``, ``encoders``, ``corpora`` or ``scorers``.
        name: its name in configurations, tables and folders.
        part: a subclass of :class:`~serzoo.zoo.Head` or :class:`~serzoo.zoo.Encoder`; or the reader
            function of a corpus.

    Returns:
        The name.

    Raises:
        ConfigError: if the part is not of this kind, or another part has the name.
    """
    if kind not in SINGULAR:
        raise ConfigError(f"no kind of part is called '{kind}'{suggest(str(kind), SINGULAR)}")
    if not registry.NAME.fullmatch(name):
        raise ConfigError(f"'{name}' is not a name; use a letter, then letters, digits, - and _")
    where = f"{getattr(part, '__module__', '?')}:{getattr(part, '__qualname__', part)}"
    _check(kind, part, where, _base(kind))
    module = sys.modules.get(part.__module__)
    file = getattr(module, "__file__", None)
    if file:
        where = f"{Path(file).resolve()}:{part.__qualname__}"
    if kind == "corpora" and module is not None:
        _describe(part, module, where, Path(file) if file else None)
    sha = _digest_of(module, part)
    registry.add(kind, name, Added(part, where, sha))
    return name


def name_for(kind: Kind, part: Any) -> str:
    """Return the registered name of a part, given as a name, as ``FILE.py:NAME`` or as a class.

    A class without a name is registered.

    Raises:
        ConfigError: see :func:`adopt` and :func:`register`.
    """
    if isinstance(part, str):
        return adopt(kind, part)
    if (known := registry.name_of_class(kind, part)) is not None:
        return known
    called = getattr(part, "__name__", "")
    stem = getattr(part, "__module__", "").rpartition(".")[2]
    return register(kind, _name(kind, called, stem) or "?", part)


def adopt_any(text: str) -> str:
    """Register the part ``FILE.py:NAME``, of whatever kind it is, and return its name.

    Raises:
        ConfigError: see :func:`adopt`.
    """
    if not is_own(text):
        raise ConfigError(f"'{text}' names no file; write FILE.py:NAME")
    for kind in BASES:
        try:
            return adopt(kind, text)
        except _OtherPartError:
            continue
    return adopt("corpora", text)


class _OtherPartError(ConfigError):
    """The name was found, but it is a part of another kind."""


def origin(kind: Kind, name: str) -> str | None:
    """Return ``FILE.py:NAME@SHA`` of one of the user's own parts; None for all others."""
    part = registry.added(kind, name)
    return part.origin if part else None


def extraction_of(encoder: Encoder) -> dict[str, Any]:
    """Return what names stored features: the encoder's ``extraction()``, and its file's digest.

    Raises:
        TypeError: if the encoder cannot be stored.
    """
    return {**encoder.extraction(), **file_of(encoder)}


def file_of(encoder: Encoder) -> dict[str, str]:
    """Return ``{"file": SHA}`` for one of the user's own encoders; empty for all others."""
    found = [a for _, _, a in _added("encoders") if a.part is type(encoder)]
    return {"file": found[0].sha} if found else {}


def ship() -> list[Shipped]:
    """Return all that another process needs to register the same parts.

    A class that only this process has, such as a notebook's, is left out.
    """
    found: list[Shipped] = []
    for kind, name, part in registry.all_added():
        if part.loaded:
            found.append((kind, name, part.where, part.sha))
            continue
        try:
            pickle.dumps(part.part)
        except Exception:  # pickle raises errors of any class
            continue
        found.append((kind, name, part.part, part.sha))
    return found


def receive(parts: Sequence[Shipped]) -> None:
    """Register the parts that :func:`ship` returned in another process.

    Raises:
        ConfigError: if a file has changed since.
    """
    for kind, name, part, sha in parts:
        if not isinstance(part, str):
            if registry.added(kind, name) is None:
                register(kind, name, part)
            continue
        called = adopt(kind, part)
        here = registry.added(kind, called)
        if here is None or here.sha != sha:
            raise ConfigError(
                f"{part} was changed while the comparison ran; start it again, so that all cells "
                "run the same code"
            )


def missing(own: Mapping[str, str], part: str) -> str | None:
    """Return why the head or encoder of a record cannot be built here; None if it can.

    Args:
        own: the key ``own`` of the run's configuration.
        part: ``head`` or ``encoder``.
    """
    if part not in own:
        return None
    return (
        f"its {part} is its author's own class ({own[part].partition('@')[0]}), and loading a "
        "model never imports code"
    )


# The steps of :func:`adopt`.


def _base(kind: Kind) -> type | None:
    """Return the class that parts of this kind extend; imported here, since it brings torch."""
    if kind == "heads":
        from .head import Head

        return Head
    if kind == "encoders":
        from .encoder import Encoder

        return Encoder
    return object if kind == "scorers" else None  # only datamodules know what a scorer is


def _added(kind: Kind) -> Iterator[tuple[str, Kind, Added]]:
    return ((name, k, part) for k, name, part in registry.all_added() if k == kind)


def _file(place: str, beside: Path | None) -> Path:
    path = Path(place).expanduser()
    tried = [path] if beside is None or path.is_absolute() else [beside / path, path]
    for candidate in tried:
        if candidate.is_file():
            return candidate.resolve()
    folders = " or ".join(str(p.resolve().parent) for p in dict.fromkeys(tried))
    near = next((p.resolve().parent for p in tried if p.resolve().parent.is_dir()), None)
    have = sorted(p.name for p in near.glob("*.py")) if near else []
    raise ConfigError(
        f"no file {path.name} in {folders} (Python files there: {', '.join(have[:10]) or 'none'}); "
        "give FILE.py:NAME, relative to the YAML file that names it or to the working directory"
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _digest_of(module: ModuleType | None, part: Any = None) -> str:
    """Return the digest of a module's file; or of a part's source, such as a notebook's cell."""
    file = getattr(module, "__file__", None)
    if file and Path(file).is_file():
        return _digest(Path(file))
    try:
        return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:12]
    except (OSError, TypeError):
        return ""


def _run(file: Path, sha: str) -> ModuleType:
    """Run a file once, and return its module; an edited file is run as another module."""
    name = f"serzoo_own.{re.sub(r'[^A-Za-z0-9_]', '_', file.stem)}_{sha}_{_path_digest(file)}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, file, loader=_Loader(name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations look up their module
    try:
        with _on_path(file.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, SerzooError) or not isinstance(error, (Exception, SystemExit)):
            raise
        raise ConfigError(_why(file, error)) from error
    return module


class _Loader(SourceFileLoader):
    """Compile the file as it is now, since bytecode of the same second may be older."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _path_digest(file: Path) -> str:
    return hashlib.sha256(str(file).encode()).hexdigest()[:6]


def _why(file: Path, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        where = Path(error.filename or file).name
        return (
            f"{file} is not valid Python: {error.msg} ({where}, line {error.lineno}); mend it there"
        )
    line, at = None, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename == str(file):
            line = at.tb_lineno
        at = at.tb_next
    said = f"{type(error).__name__}: {error}"
    return f"{file} cannot be run: {said} (line {line}); mend it there, then try again"


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let modules of a folder be imported within the block, as ``python FILE.py`` does."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _imported(kind: Kind, place: str, text: str) -> ModuleType:
    try:
        with _on_path(Path.cwd()):
            return import_module(place)
    except Exception as error:
        raise ConfigError(
            f"the {SINGULAR[kind]} '{text}' cannot be imported ({type(error).__name__}: {error}); "
            f"write package.module:NAME, or FILE.py:NAME for a file"
        ) from error


def _find(kind: Kind, module: ModuleType, place: str, name: str, base: type | None) -> Any:
    base = base or _base(kind)
    have = [key for key, value in vars(module).items() if _is_part(value, module, base)]
    what = base.__name__ if base else "reader"
    found = f"{place} has {', '.join(have)}" if have else f"{place} has no {what} of its own"
    if name and hasattr(module, name):
        part = getattr(module, name)
        try:
            _check(kind, part, f"{place}:{name}", base)
        except _OtherPartError as error:
            raise _OtherPartError(f"{error}; {found}") from None
        return part
    lacking = f"{place} has no '{name}'" if name else f"'{place}' does not say which {what} of it"
    raise ConfigError(f"{lacking}; {found}; write {place}:{have[0] if have else EXAMPLES[kind]}")


def _is_part(value: Any, module: ModuleType, base: type | None) -> bool:
    if getattr(value, "__module__", None) != module.__name__:
        return False
    if base is None:
        return inspect.isfunction(value) and not value.__name__.startswith("_")
    return inspect.isclass(value) and issubclass(value, base)


def _check(kind: Kind, part: Any, where: str, base: type | None) -> None:
    if base is None:
        if not callable(part) or inspect.isclass(part):
            raise _OtherPartError(
                f"{where} is not a {SINGULAR[kind]}; name a function that takes the corpus' folder "
                "and yields utterances"
            )
        if not inspect.signature(part).parameters:
            raise ConfigError(f"{where} takes no argument; let it take the corpus' folder first")
        return
    if not (inspect.isclass(part) and issubclass(part, base)):
        raise _OtherPartError(
            f"'{where}' is not a subclass of {base.__module__}:{base.__name__}; name a class that "
            "extends it"
        )
    if inspect.isabstract(part):
        lacking = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
        raise ConfigError(f"{where} lacks {lacking}; every {SINGULAR[kind]} needs them: add them")


def _name(kind: Kind, name: str, stem: str) -> str:
    """Return ``my_head`` for ``MyHead``, and the file's name for a reader called ``prepare``."""
    if kind == "corpora" and name == "prepare":
        name = stem
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9_-]", "_", words.lower())


def _describe(reader: Any, module: ModuleType, where: str, file: Path | None) -> None:
    """Set a reader's ``info``: its own, else ``INFO`` of its file, else the YAML file beside."""
    info = getattr(reader, "info", None) or getattr(module, "INFO", None)
    beside = file.with_suffix(".yaml") if file else None
    if info is None and beside is not None and beside.is_file():
        try:
            info = read_yaml(beside.read_text("utf-8"))
        except ConfigError as error:
            raise ConfigError(f"{beside}: {error}") from error
    if not isinstance(info, Mapping):
        found = "nothing" if info is None else f"a {type(info).__name__}"
        names = beside.name if beside else "a YAML file"
        raise ConfigError(
            f"{where} is not described (found {found}): licence and label map are not known; write "
            f"INFO = {{'licence': TEXT, 'labels': {{CODE: LABEL}}}} beside it, or the same keys "
            f"into {names}; labels: '*' keeps each code as its own label"
        )
    reader.info = dict(info)
