"""Names to classes, and constructors as schemas."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Literal, Optional, Union

import pytest
from facts import says, tells
from serzoo.datamodules.labelling.scorers import Scorer
from serzoo.zoo.core import registry
from serzoo.zoo.core.encoder import Encoder
from serzoo.zoo.core.errors import ConfigError
from serzoo.zoo.core.head import Head
from serzoo.zoo.core.registry import BUILT_IN, Kind, check_options, fits, get, names, schema_of
from serzoo.zoo.core.taxonomy import Taxonomy

KINDS: tuple[Kind, ...] = ("heads", "encoders", "corpora", "scorers")


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points that this test pretends are installed."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    registry._table.cache_clear()
    yield points
    registry._table.cache_clear()


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in BUILT_IN[k]])
def test_every_built_in_name_resolves(kind: Kind, name: str) -> None:
    found = get(kind, name)
    if kind == "heads":
        assert issubclass(found, Head)
    elif kind == "encoders":
        assert issubclass(found, Encoder)
    elif kind == "scorers":
        assert issubclass(found, Scorer)
    else:
        assert next(iter(inspect.signature(found).parameters)) == "root"


def test_how_many_are_built_in() -> None:
    assert {k: len(BUILT_IN[k]) for k in KINDS} == {
        "heads": 11,
        "encoders": 7,
        "corpora": 38,
        "scorers": 5,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_built_in_names_come_first(kind: Kind) -> None:
    assert names(kind)[: len(BUILT_IN[kind])] == list(BUILT_IN[kind])


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        get("heads", "classificatio")
    assert str(caught.value).startswith("no head called 'classificatio'; have classification, ")
    assert str(caught.value).endswith("did you mean 'classification'?")
    with pytest.raises(
        ConfigError,
        match=r"'x'.* functionals, hf, logmel, opensmile, resnet50, serzoo-small, trained$",
    ):
        get("encoders", "x")
    with pytest.raises(ConfigError, match=says("'emodbb'", "crema_d", "'emodb'")):
        get("corpora", "emodbb")


# Third parties.


def test_an_entry_point_is_listed_after_the_built_in_and_found(entries: list[EntryPoint]) -> None:
    entries.append(EntryPoint("decoder", "json:JSONDecoder", "serzoo.heads"))
    assert names("heads") == [*BUILT_IN["heads"], "decoder"]
    assert names("encoders") == list(BUILT_IN["encoders"])
    assert get("heads", "decoder").__name__ == "JSONDecoder"


def test_a_name_that_is_taken_is_an_error(entries: list[EntryPoint]) -> None:
    entries.append(EntryPoint("selm", "other:Head", "serzoo.heads"))
    with pytest.raises(ConfigError) as caught:
        names("heads")
    assert tells(
        str(caught.value), "other:Head", "'selm'", "heads", "serzoo.heads.selm.head:SELMHead"
    )


def test_two_third_parties_of_one_name_are_an_error(entries: list[EntryPoint]) -> None:
    entries += [EntryPoint("mine", f"{m}:Head", "serzoo.heads") for m in ("one", "two")]
    with pytest.raises(ConfigError, match=says("two:Head", "'mine'", "heads", "one:Head")):
        names("heads")


@pytest.mark.parametrize("value", ["nowhere_at_all:Head", "json:NoSuchClass"])
def test_a_broken_entry_point_is_told(entries: list[EntryPoint], value: str) -> None:
    entries.append(EntryPoint("broken", value, "serzoo.heads"))
    assert "broken" in names("heads")
    with pytest.raises(ConfigError, match=says("'broken'", value)):
        get("heads", "broken")


# Schemas.


class Example:
    def __init__(
        self,
        dim: int,
        taxonomy: Taxonomy,
        *,
        size: int,
        rate: float = 0.5,
        layers: list[int] | None = None,
    ) -> None:
        """Nothing is built in these tests."""
        raise AssertionError


def test_the_constructor_is_the_schema() -> None:
    schema = schema_of(Example)
    assert list(schema) == ["size", "rate", "layers"]
    assert [k.required for k in schema.values()] == [True, False, False]
    assert (schema["rate"].annotation, schema["rate"].default) == (float, 0.5)


def test_functions_have_a_schema_too() -> None:
    assert {"speaker", "language", "rename"} == set(schema_of(get("corpora", "folder")))


def test_options_are_bound_without_building(
    entries: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries.append(EntryPoint("example", "x:Example", "serzoo.heads"))
    monkeypatch.setattr(registry, "attribute", {"x:Example": Example}.__getitem__)
    check_options("heads", "example", {"size": 3, "rate": 1, "layers": [4, 5]})
    with pytest.raises(ConfigError) as caught:
        check_options("heads", "example", {"sizee": 3, "rate": "x", "layers": ["a"], "dim": 3})
    unknown = ("'sizee'", "layers, rate, size", "'size'?", "'dim'", "missing key 'size'")
    assert tells(str(caught.value), "head 'example'", *unknown)
    assert tells(str(caught.value), "rate='x'", "float", "layers=['a']", "list[int] | None")


FITS: list[tuple[Any, Any]] = [
    (3, int),
    (3, float),
    (3.5, float),
    (True, bool),
    ("a", str),
    (None, type(None)),
    (None, int | None),
    (3, Optional[int]),  # noqa: UP045
    ("a", Union[int, str]),  # noqa: UP007
    ([1, 2], list[int]),
    ([], list[int]),
    ([1, 2], Sequence[int]),
    ((1, 2), list[int]),
    ([0.0, 1], tuple[float, float]),
    ([1, 2, 3], tuple[int, ...]),
    ([[0.0, 1]], list[tuple[float, float]] | None),
    ({"a": 1}, dict[str, int]),
    ({"a": 1}, Mapping[str, int]),
    ([1], list),
    ({}, dict),
    ("ce", Literal["ce", "bce"]),
    ([4], list[int] | None),
    (object(), Any),
]

DOES_NOT_FIT: list[tuple[Any, Any]] = [
    (3.0, int),
    (True, int),
    (True, float),
    (1, bool),
    ("1", int),
    ("1.0", float),
    (1, str),
    (None, str),
    ("a", int | None),
    (["a"], list[int]),
    (3, list[int]),
    ("ab", Sequence[str]),
    ([0.0], tuple[float, float]),
    ([1, "a"], tuple[int, ...]),
    ({"a": "b"}, dict[str, int]),
    ({1: 1}, dict[str, int]),
    ([1], dict[str, int]),
    ("mse", Literal["ce", "bce"]),
    ([4.0], list[int] | None),
    ([["a", 1]], list[tuple[float, float]]),
    ("a", Example),
]


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_fits(value: Any, annotation: Any) -> None:
    assert fits(value, annotation)


@pytest.mark.parametrize(("value", "annotation"), DOES_NOT_FIT)
def test_does_not_fit(value: Any, annotation: Any) -> None:
    assert not fits(value, annotation)


# From classes to names.


class Own(Encoder):
    def extract(self, audio: Any, lengths: Any) -> Any: ...

    def forward(self, hidden: Any, mask: Any) -> Any: ...


def test_a_part_remembers_what_it_was_made_with() -> None:
    head = get("heads", "classification")(4, Taxonomy.of(["a", "b"]), hidden=3)
    assert head.made_with == ((4, Taxonomy.of(["a", "b"])), {"hidden": 3})
    assert registry.name_of("heads", head) == "classification"
    assert registry.name_of("encoders", get("encoders", "logmel")()) == "logmel"
    assert not [k for k in head.state_dict() if "made_with" in k]


def test_a_class_has_the_name_that_it_is_registered_under(entries: list[EntryPoint]) -> None:
    own = Own()
    assert registry.name_of("encoders", own) is None

    class Sub(type(get("encoders", "logmel")())):  # type: ignore[misc]
        """Not what its parent is registered as."""

    assert registry.name_of("encoders", Sub()) is None
    broken = EntryPoint("broken", "there.is.none:X", "serzoo.encoders")
    # by a module that only passes it on
    passed = EntryPoint("mine", f"{__name__}:PASSED_ON", "serzoo.encoders")
    registry._table.cache_clear()
    entries += [broken, passed]
    sys.modules.setdefault(__name__, sys.modules[Own.__module__])
    assert registry.name_of("encoders", own) == "mine"


PASSED_ON = Own


# Ranges.


class Ranged(Encoder):
    """An encoder whose numbers have ranges."""

    def __init__(
        self,
        *,
        rate: registry.Dropout = 0.1,
        size: registry.Size = 1,
        order: registry.Count | None = None,
        free: float = 0.0,
    ) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"rate": 1}, ("rate=1", "0 or more", "less than 1")),
        ({"rate": -0.1}, ("rate=-0.1", "0 or more")),
        ({"size": 0}, ("size=0", "1 or more")),
        ({"order": -1}, ("order=-1", "0 or more")),
        ({"free": float("nan")}, ("free=nan", "finite")),
        ({"free": float("inf"), "size": 0}, ("free=inf", "finite", "size=0")),
    ],
)
def test_a_number_out_of_its_range_is_refused(options: dict[str, Any], facts: Any) -> None:
    schema = schema_of(Ranged)
    assert schema["rate"].annotation is float
    assert registry.check_knobs("it", schema, {"rate": 0, "size": 1, "order": None, "free": -5.0})
    with pytest.raises(ConfigError, match=says("it", *facts)):
        registry.check_knobs("it", schema, options)
