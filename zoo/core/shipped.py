"""The configurations that ship with serzoo: which there are, and YAML as all of it is read."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from .errors import ConfigError


def names(group: str) -> list[str]:
    """Names of the shipped configurations of a group, which is a folder of ``configs``."""
    found = (p.name for p in files(f"serzoo.configs.{group}").iterdir())
    return sorted(n[:-5] for n in found if n.endswith(".yaml"))


def text(group: str, name: str) -> str:
    """A shipped configuration as it is written."""
    return files(f"serzoo.configs.{group}").joinpath(f"{name}.yaml").read_text("utf-8")


def read(group: str, name: str) -> Any:
    """A shipped configuration as plain containers."""
    return read_yaml(text(group, name))


def read_yaml(text: str, *, words: bool = False) -> Any:
    """YAML to plain containers, by the safe loader, with keys such as ``01`` kept as strings.

    PyYAML reads an unquoted ``0010`` as octal 8; corpus codes and speaker names are such strings,
    so only ``true/false/null``, plain integers without a leading zero and floats are resolved. An
    integer is written in one way only: ``str(5)`` is what stood there.

    Args:
        text: YAML.
        words: resolve nothing: every value stays as it is written, ``null`` and ``1e3`` too.

    Raises:
        ConfigError: saying where it stops being YAML, or has a key twice.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_strict_loader(words))
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"no YAML: {getattr(e, 'problem', None) or e}{where}") from e
    except (ValueError, TypeError, LookupError, AttributeError) as e:  # `!!int x`, `!!bool x`
        raise ConfigError(f"no YAML: a value is not of the type that its tag names ({e})") from e
    except RecursionError as e:
        raise ConfigError("no YAML: it is nested too deeply") from e


@cache
def _strict_loader(words: bool) -> Any:
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """A safe loader that reads ``no``, ``on`` and ``0010`` as the strings they look like."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            # PyYAML lets the last of equal keys win, and tells nobody
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
