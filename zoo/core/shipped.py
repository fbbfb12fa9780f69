"""The configurations that ship with serzoo, and the reader for all YAML files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import ConfigError

Kind = Literal[
    "heads", "encoders", "corpora", "taxonomies", "protocols", "recipes", "suites", "claims"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What `serzoo list` lists."""


def names(group: str) -> list[str]:
    """Return the names of the shipped configurations of a group, a folder of ``configs``."""
    found = (p.name for p in files(f"serzoo.configs.{group}").iterdir())
    return sorted(n[:-5] for n in found if n.endswith(".yaml"))


def text(group: str, name: str) -> str:
    """Return the text of a shipped configuration."""
    return files(f"serzoo.configs.{group}").joinpath(f"{name}.yaml").read_text("utf-8")


def read(group: str, name: str) -> Any:
    """Return a shipped configuration as plain containers."""
    return read_yaml(text(group, name))


def is_file(name: str) -> bool:
    """Whether a name is the path of a YAML file, and not the name of a shipped configuration."""
    return name.endswith((".yaml", ".yml"))


def read_file(group: str, name: str) -> dict[str, Any]:
    """Return the content of the user's own YAML file, such as a protocol or a taxonomy.

    Args:
        group: what it is, a folder of ``configs``, for messages.
        name: its path.

    Raises:
        ConfigError: if there is no such file, or it holds no keys; the message names the file.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"no {group} file {name}; shipped: {', '.join(names(group))}")
    try:
        content = read_yaml(path.read_text("utf-8"))
    except (ConfigError, UnicodeError) as error:
        raise ConfigError(f"{name}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{name} holds a {type(content).__name__}; expected lines of key: value")
    return content


def read_yaml(text: str, *, words: bool = False) -> Any:
    """Parse YAML to plain containers with the safe loader; keys such as ``01`` stay strings.

    PyYAML reads an unquoted ``0010`` as octal 8, but corpus codes and speaker names look like
    this. So only ``true/false/null``, integers without a leading zero, and floats are resolved.
    An integer has only one spelling: ``str(5)`` gives back the text in the file.

    Args:
        text: YAML.
        words: keep every value as a string, also ``null`` and ``1e3``.

    Raises:
        ConfigError: if the text is not YAML, or has a key twice; the message says where.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_strict_loader(words))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"no valid YAML: {getattr(e, 'problem', None) or e}{where}") from e
    except (ValueError, TypeError, LookupError, AttributeError) as e:  # `!!int x`, `!!bool x`
        raise ConfigError(f"no valid YAML: a value does not have the type of its tag ({e})") from e
    except RecursionError as e:
        raise ConfigError("no valid YAML: it is nested too deeply") from e


@cache
def _strict_loader(words: bool) -> Any:
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that reads ``no``, ``on`` and ``0010`` as strings."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            # PyYAML silently keeps the last of equal keys
            seen: dict[Any, Any] = {}
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                name = (key.tag, str(key.value))
                if name in seen and key.value != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' is there twice", key.start_mark
                    )
                seen[name] = key
            return dict(super().construct_mapping(node, deep))

    merge = {"tag:yaml.org,2002:merge"}
    keep = merge if words else {"tag:yaml.org,2002:null", *merge}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, rx) for tag, rx in resolvers if tag in keep]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    if words:
        return Loader
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF")
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"^(?:0|-?[1-9][0-9]*)$"), list("-0123456789")
    )
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$"
        ),
        list("-+.0123456789"),
    )
    return Loader
