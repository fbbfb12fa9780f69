"""What the zoo holds, for `serzoo list`: of each part what it is, its paper, size and licence.

Nothing is told twice. What a part is comes from its YAML file: from the first comment, ``title`` or
``about``. What an option means comes from the docstring of the part.
``configs/published/models.yaml`` has the sizes and licences of published models. A list of names
imports neither torch nor any part. The options of one part import that part.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from rich.console import Console

from . import registry, shipped
from .errors import ConfigError, suggest
from .shipped import KINDS, Kind
from .table import Cell, Line, Table, number_cell
from .taxonomy import Taxonomy

GROUPS: dict[Kind, str] = {
    "heads": "head",
    "encoders": "encoder",
    "corpora": "corpus",
    "taxonomies": "taxonomy",
    "protocols": "protocol",
    "recipes": "recipe",
    "suites": "suite",
    "claims": "claim",
}
"""Kinds, each with its folder of ``configs``."""

ABOUT: dict[Kind, str] = {
    "heads": "ways to pose the task; a head is what you compare",
    "encoders": "networks that turn audio into frames",
    "corpora": "readers of speech with labels",
    "taxonomies": "sets of classes",
    "protocols": "who trains, who validates and who is tested",
    "recipes": "starting points of a run: corpus, encoder, head",
    "suites": "comparisons: many runs with one table",
    "claims": "sentences of papers that records confirm or refute",
}

NOTHING, HUB, PUBLISHER, USER = "nothing", "hub", "publisher", "yours"
"""What must be fetched: nothing, a published model (once), a corpus, or data of your own."""


@dataclass(frozen=True)
class Entry:
    """One part of the zoo.

    Attributes:
        name: its name on the command line.
        about: what it is, in one sentence.
        paper: ``arXiv NUMBER`` of the paper it follows; "" if it follows none.
        millions: number of weights in millions; None if it depends on the data.
        licence: licence of its weights or recordings; "" for serzoo's own parts.
        needs: ``nothing``, ``hub``, ``publisher`` or ``yours``.
        source: hub id of its published weights, or address of its publisher.
        facts: more that is known of its kind: ``type``, ``speakers``, ``classes``, ...
    """

    name: str
    about: str
    paper: str = ""
    millions: float | None = None
    licence: str = ""
    needs: str = NOTHING
    source: str = ""
    facts: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return all that is known, as plain containers."""
        found = asdict(self)
        more = found.pop("facts") or {}
        return {**found, **more}


@dataclass(frozen=True)
class Option:
    """A key of a part that a configuration may set.

    Attributes:
        name: the key.
        type: its type in words: ``number``, ``mean|stats``.
        default: what holds if it is not set; of a named variant, what its file sets.
        required: whether it has no default.
        meaning: what it does, from the docstring of the part.
        range: which numbers it takes: ``0 or more``; empty if it has none, or checks them itself.
    """

    name: str
    type: str
    default: Any
    required: bool
    meaning: str
    range: str


# Entries.


def names(kind: Kind) -> list[str]:
    """Return the names of a kind: shipped ones, then those that other packages register."""
    if kind == "taxonomies":
        return Taxonomy.names()
    if kind == "corpora":
        return registry.names("corpora")
    found = shipped.names(GROUPS[kind])
    if kind in ("heads", "encoders"):
        registered = registry.names("heads" if kind == "heads" else "encoders")
        found += [name for name in registered if name not in found]
    return found


def entries(kind: Kind) -> list[Entry]:
    """Return the entries of a kind, in the order of :func:`names`."""
    return [entry(kind, name) for name in names(kind)]


def entry(kind: Kind, name: str) -> Entry:
    """Return the entry of one part.

    Raises:
        ConfigError: if the kind has no such name. It lists the known ones.
    """
    if name not in (known := names(kind)):
        raise ConfigError(f"no {GROUPS[kind]} called '{name}'{suggest(name, known)}")
    if kind == "corpora" and name in registry.own_corpora():
        return _own_corpus(name)
    if name not in shipped.names(GROUPS[kind]):
        return Entry(name, "registered by another package, or by you", facts={"type": name})
    content = shipped.read(GROUPS[kind], name) or {}
    first, whole = _comment(kind, name)
    paper = _paper(whole)
    if kind in ("heads", "encoders"):
        return _part(kind, name, first, paper, content)
    if kind == "corpora":
        return _corpus(name, content)
    facts: dict[str, Any] = {}
    if kind == "taxonomies":
        facts = {"classes": list(content["classes"])}
    elif kind == "protocols":
        first = content["about"]
        facts = {"corpora": content.get("corpora") or []}
    elif kind == "suites":
        first = content["title"]
    elif kind == "claims":
        first, paper = content["title"], str(content.get("paper", ""))
    return Entry(name, first, paper, facts=facts)


def _part(kind: Kind, name: str, first: str, paper: str, content: dict[str, Any]) -> Entry:
    made = str(content["type"])
    if not paper and made != name and made in shipped.names(GROUPS[kind]):
        paper = _paper(_comment(kind, made)[1])  # a variant follows the paper of its class
    source = ""
    if kind == "heads":
        named = (content.get("lm"), content.get("text_model"))
        source = next((str(n) for n in named if n not in (None, "scratch", "letters")), "")
    elif made == "hf" and name != made:
        source = str(content["name"])
    known = _published().get(source or name, {})
    return Entry(
        name,
        first,
        paper,
        known.get("weights") if kind == "encoders" else None,
        str(known.get("licence", "")),
        HUB if source or made == "hf" else USER if made == "trained" else NOTHING,
        source,
        {"type": made},
    )


def _corpus(name: str, content: Mapping[str, Any]) -> Entry:
    expected = content.get("expected") or {}
    made = name in ("synthetic", "synthetic_talk")
    needs = NOTHING if made else PUBLISHER if content.get("url") else USER
    facts = {
        "language": content.get("language"),
        "speakers": expected.get("speakers"),
        "utterances": expected.get("utterances"),
        "taxonomy": content.get("taxonomy"),
        "protocol": content.get("protocol"),
        "citation": content.get("citation"),
    }
    return Entry(
        name,
        str(content["title"]),
        licence=str(content.get("licence", "")),
        needs=needs,
        source=str(content.get("url", "")),
        facts=facts,
    )


def _own_corpus(name: str) -> Entry:
    """Return the entry of a corpus that a YAML file of the user describes; it may be damaged."""
    file = registry.own_corpora()[name]
    try:
        content = shipped.read_yaml(file.read_text("utf-8"))
        about = str(content.get("title") or f"{name}, a corpus of your own")
        found = _corpus(name, {**content, "title": about})
    except (ConfigError, OSError, UnicodeError, AttributeError) as error:
        return Entry(name, f"cannot be read: {file} ({error})", needs=USER, facts={})
    return replace(found, needs=USER, source=str(file))


@cache
def _published() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = shipped.read("published", "models")
    return found


def _comment(kind: Kind, name: str) -> tuple[str, str]:
    """Return the first sentence of a file's first comment without its paper, and the whole."""
    lines = []
    for line in shipped.text(GROUPS[kind], name).splitlines():
        if not line.startswith("#") or line.startswith("#   "):  # the latter is a command
            break
        lines.append(line.removeprefix("#").strip())
    whole = " ".join(lines)
    first = re.split(r"(?<=\.)\s+(?=[A-Z])", whole)[0]
    return re.sub(r"\s*\([^()]*arXiv [\d.]+\)|, after arXiv \d+\.\d+", "", first), whole


def _paper(text: str) -> str:
    found = re.search(r"arXiv \d{4}\.\d{4,5}", text)
    return found[0] if found else ""


# Tables.


def overview() -> Table:
    """Return a table of the kinds: how many there are, what they are."""
    rows = [[kind, number_cell(str(n := len(names(kind))), n), ABOUT[kind]] for kind in KINDS]
    return Table(
        "",
        ("kind", "number", "what it is"),
        rows,
        ["`serzoo list heads` shows one kind, `serzoo list heads selm` one of them."],
    )


def tables(kind: Kind) -> list[Table]:
    """Return the tables of a kind, for 80 columns."""
    found = entries(kind)
    if kind == "heads":
        own = [e for e in found if (e.facts or {}).get("type") == e.name]
        rest = [e for e in found if e not in own]
        return [
            _heads("Heads", own),
            _heads("Variants and controls of these heads", rest, _head_note(rest)),
        ]
    if kind == "encoders":
        return [
            _encoders("Without a download", [e for e in found if e.needs != HUB], [_MILLIONS]),
            _encoders(
                "Published models, fetched once from the hub or read from SERZOO_MODELS",
                [e for e in found if e.needs == HUB],
                [f"{_MILLIONS} The licence is that of the weights."],
            ),
        ]
    if kind == "corpora":
        parts = ((NOTHING, "Made on your machine, no download"), (PUBLISHER, _WHERE), (USER, _OWN))
        return [_corpora(title, [e for e in found if e.needs == need]) for need, title in parts]
    if kind == "taxonomies":
        rows: list[Line] = [
            [e.name, number_cell(str(n := len(classes)), n), ", ".join(classes)]
            for e in found
            for classes in [(e.facts or {})["classes"]]
        ]
        return [Table("", ("taxonomy", "size", "classes"), rows)]
    note = {
        "protocols": "`kfold-8` is kfold with eight folds.",
        "recipes": "`serzoo config NAME` prints every key of a recipe.",
        "suites": "`serzoo compare NAME --dry-run` shows the cells of a suite.",
        "claims": "`serzoo replicate NAME` asks what the records say about a claim.",
    }[kind]
    return [Table("", (GROUPS[kind], "what it is"), [[e.name, e.about] for e in found], [note])]


_MILLIONS = "M: millions of weights."
_WHERE = "From their publishers, into a folder of SERZOO_DATA"
_OWN = "Your own data"


def _number(value: float | None, form: str = "") -> Cell | None:
    return None if value is None else number_cell(f"{value:{form}}", value)


def _arxiv(e: Entry) -> str | None:
    return e.paper.removeprefix("arXiv ") or None


def _heads(title: str, found: list[Entry], notes: list[str] | None = None) -> Table:
    rows = [[e.name, e.about, _arxiv(e)] for e in found]
    return Table(title, ("head", "what it is", "arXiv"), rows, notes or [])


def _head_note(found: list[Entry]) -> list[str]:
    fetch = [e.name for e in found if e.needs == HUB]
    models = sorted({f"{e.source} ({e.licence})" for e in found if e.needs == HUB})
    return [f"{', '.join(fetch)} fetch {', '.join(models)}. The others need no download."]


def _encoders(title: str, found: list[Entry], notes: list[str] | None = None) -> Table:
    rows: list[Line] = []
    for e in found:
        about = e.about.partition(":")[0].rstrip(".")
        rows.append([e.name, about, _arxiv(e), _number(e.millions, ".0f"), e.licence or None])
    return Table(title, ("encoder", "what it is", "arXiv", "M", "licence"), rows, notes or [])


def _corpora(title: str, found: list[Entry]) -> Table:
    rows = [
        [
            e.name,
            e.about,
            (e.facts or {}).get("language"),
            _number((e.facts or {}).get("speakers")),
            _number((e.facts or {}).get("utterances")),
            e.licence,
        ]
        for e in found
    ]
    heads = ("corpus", "what it is", "language", "speakers", "files", "licence")
    table = Table(title, heads, rows)
    unknown = [h for i, h in enumerate(heads) if all(row[i] is None for row in rows)]
    return table.without(*unknown)


# One part.


def details(kind: Kind, name: str) -> dict[str, Any]:
    """Return all that is known of one part: its entry, its ``text`` and its ``options``.

    Raises:
        ConfigError: if the kind has no such name.
    """
    found: dict[str, Any] = {"kind": kind, **entry(kind, name).to_json()}
    if name in shipped.names(GROUPS[kind]):
        found["text"] = _comment(kind, name)[1] or found["about"]
    if kind in ("heads", "encoders", "corpora"):
        found["options"] = [asdict(o) for o in options(kind, name)]
    else:
        found["file"] = shipped.text(GROUPS[kind], name)
    return found


def options(kind: Kind, name: str) -> list[Option]:
    """Return the options of a head, an encoder or a corpus, in the order of its signature.

    Args:
        kind: ``heads``, ``encoders`` or ``corpora``.
        name: its name, or that of a variant.

    Raises:
        ConfigError: if the kind has no such name, or its parts have no options.
    """
    if kind not in ("heads", "encoders", "corpora"):
        raise ConfigError(f"{kind} have no options; have heads, encoders, corpora")
    facts = entry(kind, name).facts or {}
    of: registry.Kind = kind
    part = registry.get(of, str(facts.get("type", name)))
    is_variant = kind != "corpora" and name in shipped.names(GROUPS[kind])
    given = shipped.read(GROUPS[kind], name) if is_variant else {}
    meanings = dict(_meanings(part))
    return [
        Option(
            key,
            type_text(knob.annotation),
            given.get(key, None if knob.required else knob.default),
            knob.required and key not in given,
            meanings.get(key, ""),
            str(knob.within or ""),
        )
        for key, knob in registry.schema_of(part).items()
    ]


def _meanings(part: Any) -> Iterator[tuple[str, str]]:
    """Yield name and description of each argument in the docstrings of a class, bases first."""
    from docstring_parser import parse

    classes = reversed(part.__mro__) if inspect.isclass(part) else [part]
    for of in classes:
        for argument in parse(of.__dict__.get("__doc__") or of.__doc__ or "").params:
            meaning = _unmarked(argument.description or "")
            for name in argument.arg_name.split(","):  # "lora_rank, lora_alpha: ..."
                yield name.strip(), meaning


def _unmarked(text: str) -> str:
    """Return a description of a docstring on one line, without the marks of code and links."""
    text = re.sub(r":\w+:`~?\.*(?:[\w.]*\.)?(\w+)`", r"\1", " ".join(text.split()))
    return text.replace("``", "")


_TYPES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true|false",
    str: "text",
    type(None): "null",
    Any: "any value",
}


def type_text(annotation: Any) -> str:
    """Return a type in words: ``number``, ``mean|stats``, ``list of text, or null``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in _TYPES:
        return _TYPES[annotation]
    if origin is Literal:
        return "|".join("null" if a is None else str(a) for a in args)
    if origin in (Union, UnionType):
        return ", or ".join(type_text(a) for a in args)
    if origin is not None and args:
        name = str(getattr(origin, "__name__", origin)).lower()
        if name in ("list", "sequence", "tuple"):
            return f"list of {type_text(args[0])}"
        if name in ("dict", "mapping"):
            return f"mapping of {type_text(args[0])} to {type_text(args[1])}"
        return type_text(args[0])  # Annotated
    return str(getattr(annotation, "__name__", annotation))


def option_lines(kind: Kind, found: Mapping[str, Any], width: int = 80) -> list[str]:
    """Return the options of :func:`details` as lines: key, default and type, then the meaning.

    Args:
        kind: the kind of the part.
        found: what :func:`details` returned.
        width: longest line, in characters.
    """
    prefix = {"heads": "head.", "encoders": "encoder.", "corpora": "data.options."}[kind]
    lines = [f"set one by {GROUPS[kind]}={found['name']} {prefix}KEY=VALUE"]
    for o in found["options"]:
        value = "must be set" if o["required"] else shown(o["default"])
        kind_of = ", ".join(filter(None, [o["type"], o["range"]]))
        key = textwrap.wrap(f"{o['name']} = {value}  ({kind_of})", width, subsequent_indent="    ")
        lines += ["", *key]
        lines += textwrap.wrap(o["meaning"], width, initial_indent="    ", subsequent_indent="    ")
    return lines if found["options"] else ["it has no options"]


def shown(value: Any) -> str:
    """Return a value as the command line takes it: ``null``, ``true``, ``[4]``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value)


def facts_table(found: Mapping[str, Any]) -> Table:
    """Return the facts of :func:`details` as a table of two columns."""
    needs = {
        NOTHING: "no download",
        HUB: f"downloads {found['source']} once, or reads it from SERZOO_MODELS",
        PUBLISHER: f"get it at {found['source']}",
        USER: "needs files of yours",
    }[found["needs"]]
    paper, millions = found["paper"], found["millions"]
    address = f"{paper} (https://arxiv.org/abs/{paper.removeprefix('arXiv ')})"
    rows = [
        ("after", address if paper else ""),
        ("class", found.get("type", "") if found.get("type") != found["name"] else ""),
        ("weights", "" if millions is None else f"{millions:.1f} million"),
        ("licence", found["licence"]),
        ("needs", needs if found["kind"] in ("heads", "encoders", "corpora") else ""),
        *(
            (key, str(found[key]))
            for key in ("language", "speakers", "utterances", "taxonomy", "protocol", "citation")
            if found.get(key)
        ),
    ]
    return Table("", ("", ""), [[key, text] for key, text in rows if text])


def show(kind: Kind | None = None, name: str | None = None) -> None:
    """Print the kinds, the parts of a kind, or one part, for a terminal of 80 columns or more.

    Raises:
        ConfigError: if the kind has no such name.
    """
    console = Console()
    width = console.width if console.is_terminal else 80
    console = Console(width=max(60, min(width, 100)))
    if kind is None:
        console.print(overview().rich(lines=False))
    elif name is None:
        whole = (GROUPS[kind], *(["licence"] if kind == "encoders" else []))
        for number, table in enumerate(tables(kind)):
            console.print(*([""] if number else []), table.rich(lines=False, whole=whole), sep="\n")
    else:
        _show_one(kind, details(kind, name), console)


def _show_one(kind: Kind, found: Mapping[str, Any], console: Console) -> None:
    lines = [f"{found['name']} ({GROUPS[kind]})"]
    if "file" not in found:  # the file says it itself
        lines += textwrap.wrap(found.get("text") or found["about"], console.width)
    print("\n".join(lines))
    if (table := facts_table(found)).rows:
        console.print("", table.rich(lines=False), sep="\n")
    print()
    if "options" in found:
        print("\n".join(option_lines(kind, found, console.width)))
    else:
        print(found["file"], end="")
