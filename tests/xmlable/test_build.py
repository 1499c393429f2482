from __future__ import annotations

import collections
import enum
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, NewType, TypedDict, TypeVar

import pytest
from typing_extensions import TypeAliasType

from third_party.xmlable import XError, xmlify
from third_party.xmlable.basics import INT, STR
from third_party.xmlable.build import kind_of, record_of
from third_party.xmlable.union import NOTHING

from .helpers import survives

UserId = NewType("UserId", int)
Name = TypeAliasType("Name", str)
Item = TypeVar("Item")
Pair = TypeAliasType("Pair", tuple[Item, Item], type_params=(Item,))
Value = TypeVar("Value")
Swapped = TypeAliasType("Swapped", dict[Value, Item], type_params=(Item, Value))


class Row(NamedTuple):
    a: int


class Options(TypedDict):
    a: int


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (str, STR),
        (Annotated[str, "why"], STR),
        (Annotated[Annotated[UserId, 1], 2], INT),
        (UserId, INT),
        (Name, STR),
        (Final[int], INT),
        (None, NOTHING),
        (type(None), NOTHING),
        (typing.Literal[None], NOTHING),
    ],
)
def test_what_stands_for_a_type_means_that_type(annotation: Any, kind: Any) -> None:
    assert kind_of(annotation) is kind


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (typing.List[int], "List"),  # noqa: UP006 - the old form is tested
        (typing.Dict[str, int], "Dict"),  # noqa: UP006 - the old form is tested
        (typing.Set[int], "Set"),  # noqa: UP006 - the old form is tested
        (typing.FrozenSet[int], "Frozenset"),  # noqa: UP006 - the old form is tested
        (typing.Tuple[int, ...], "Tuple"),  # noqa: UP006 - the old form is tested
        (typing.Tuple[int, str], "Tuple"),  # noqa: UP006 - the old form is tested
        (typing.Optional[int], "Union"),  # noqa: UP045 - the old form is tested
        (tuple[()], "Tuple"),
        (Pair[int], "Tuple"),
    ],
)
def test_old_spellings(annotation: Any, name: str) -> None:
    assert kind_of(annotation).name == name


BARE = [list, set, frozenset, tuple, dict, typing.List, typing.Dict, typing.Tuple]  # noqa: UP006
OTHER = [
    complex,
    Callable[[], int],
    Sequence[int],
    collections.deque[int],
    type,
    type[int],
    object(),
    Row,
    Options,
    slice,
]


@pytest.mark.parametrize("annotation", BARE)
def test_bare_containers_are_refused(annotation: Any) -> None:
    with pytest.raises(XError, match=r"is not supported: say of what, as in "):
        kind_of(annotation)


@pytest.mark.parametrize("annotation", [Any, object])
def test_any_is_refused(annotation: Any) -> None:
    with pytest.raises(XError, match=r"the type .* is not supported: the schema must say what may come"):
        kind_of(annotation)


@pytest.mark.parametrize("annotation", OTHER)
def test_other_types_are_refused(annotation: Any) -> None:
    with pytest.raises(XError, match=r"the type .* is not supported: use a supported type"):
        kind_of(annotation)


def test_bytearray_is_refused_in_favour_of_bytes() -> None:
    with pytest.raises(XError, match="the type bytearray is not supported: use bytes"):
        kind_of(bytearray)


def test_type_variables_are_refused() -> None:
    with pytest.raises(XError, match=r"the type variable .*Item stands for no type"):
        kind_of(list[Item])  # type: ignore[valid-type]


def test_recursive_aliases_are_refused() -> None:
    class Nested:
        """What ``type Nested = list[Nested]`` makes, from Python 3.12 on."""

        __type_params__ = ()

        @property
        def __value__(self) -> Any:
            return list[self]  # type: ignore[valid-type]

    with pytest.raises(XError, match=r"the type alias .*Nested.* contains itself"):
        kind_of(Nested())


def test_parameters_of_an_alias_are_replaced_by_name() -> None:
    kind = kind_of(Swapped[int, str])
    assert [part.name for part in kind.parts()] == ["Str", "Int"]


def test_the_error_says_class_and_field() -> None:
    @dataclass
    class Inner:
        anything: Any

    @dataclass
    class Outer:
        inner: list[Inner]

    with pytest.raises(XError, match=r"^Inner.anything: the type (typing.)?Any is not supported"):
        xmlify(Outer)


def test_a_record_is_kept_on_its_class() -> None:
    @dataclass
    class Kept:
        a: int

    @dataclass
    class Derived(Kept):
        b: int

    assert record_of(Kept) is record_of(Kept)
    assert record_of(Derived) is not record_of(Kept)


def test_everything_at_once() -> None:
    class Color(enum.Enum):
        RED = "red"

    @dataclass
    class Everything:
        a: dict[UserId, list[Pair[Name]]]
        b: tuple[Annotated[int, 1], Color | None]

    survives(Everything({UserId(1): [("x", "y")]}, (1, None)))
