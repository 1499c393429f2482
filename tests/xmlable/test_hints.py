from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from types import FunctionType
from typing import Any, List, Optional  # noqa: UP035 - the old form is tested

import pydantic
import pytest

from third_party.xmlable import XError, codec_of, parse_string, xmlify
from third_party.xmlable.hints import hints_of

from .helpers import survives


@xmlify
@dataclass
class Early:
    late: Late | None = None
    many: List[Late] = field(default_factory=list)  # noqa: UP006 - the old form is tested
    self_: Optional[Early] = None  # noqa: UP045 - the old form is tested


@xmlify
@dataclass
class Late:
    early: Early | None = None


class EarlyModel(pydantic.BaseModel):
    late: LateModel | None = None


xmlify(EarlyModel)


class LateModel(pydantic.BaseModel):
    early: EarlyModel | None = None


def test_classes_may_name_each_other() -> None:
    survives(Early(Late(Early()), [Late()], Early()))
    survives(EarlyModel(late=LateModel(early=EarlyModel())))


class Outer:
    @xmlify
    @dataclass
    class First:
        second: Second | None = None  # noqa: F821 - the linter looks upwards only

    @dataclass
    class Second:
        number: int = 1


def test_classes_inside_a_class_see_each_other() -> None:
    survives(Outer.First(Outer.Second(2)))


def test_classes_inside_a_function_see_each_other() -> None:
    @xmlify
    @dataclass
    class First:
        second: Second | None = None

    @dataclass
    class Second:
        firsts: list[First] = field(default_factory=list)

    survives(First(Second([First()])))


def test_models_inside_a_function_see_each_other() -> None:
    class First(pydantic.BaseModel):
        second: Second | None = None

    class Second(pydantic.BaseModel):
        firsts: list[First] = []

    survives(First(second=Second(firsts=[First()])))


def test_a_function_inside_a_function_sees_both() -> None:
    @dataclass
    class Far:
        x: int = 1

    def inner() -> None:
        @dataclass
        class Near:
            far: Far

        survives(Near(Far()))

    inner()


def test_functions_of_one_name_are_told_apart() -> None:
    def make(number: int, inner: Any) -> Any:
        kind = (int, str)[number]

        @xmlify
        @dataclass
        class Made:
            value: kind  # type: ignore[valid-type]

        return inner() if inner else Made

    made = make(0, lambda: make(1, None))
    survives(made("x"))


@dataclass
class Dated:
    date: date = date(2025, 1, 31)


def test_a_default_does_not_hide_the_type_of_its_name() -> None:
    survives(Dated(date(2024, 2, 29)))


def test_a_name_that_never_comes_is_told_at_first_use() -> None:
    @xmlify
    @dataclass
    class Waiting:
        value: Godot  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose

    with pytest.raises(XError, match=r"^Waiting: an annotation cannot be resolved: name 'Godot' is not defined"):
        codec_of(Waiting).example()
    with pytest.raises(XError, match="Godot"):
        parse_string(Waiting, "<Waiting/>")
    with pytest.raises(XError, match="Godot"):
        codec_of(Waiting).from_json({})


def test_a_model_that_waits_in_vain_is_told_at_first_use() -> None:
    class Waiting(pydantic.BaseModel):
        value: Godot  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose

    xmlify(Waiting)
    with pytest.raises(XError, match=r"^Waiting: an annotation cannot be resolved"):
        codec_of(Waiting).example()


def test_the_same_words_in_two_functions_are_two_types() -> None:
    def one() -> Any:
        @dataclass
        class Leaf:
            a: int = 1

        @xmlify
        @dataclass
        class Tree:
            leaves: List["Leaf"]  # noqa: UP006, UP037 - the old form is tested

        return Tree([Leaf()])

    def two() -> Any:
        @dataclass
        class Leaf:
            b: str = "x"

        @xmlify
        @dataclass
        class Tree:
            leaves: List["Leaf"]  # noqa: UP006, UP037 - the old form is tested

        return Tree([Leaf()])

    survives(one())
    survives(two())


def test_only_the_wanted_hints_are_evaluated() -> None:
    class Some:
        a: int
        b: Unknown  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose

    assert hints_of(Some, ["a"]) == {"a": int}
    with pytest.raises(NameError):
        hints_of(Some, ["a", "b"])


def test_a_function_of_the_same_name_in_another_module_is_another_scope() -> None:
    def scope() -> Any:
        @xmlify
        @dataclass
        class Waiting:
            value: Elsewhere  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose

        return Waiting

    def stranger(cls: Any) -> None:
        Elsewhere = int  # noqa: N806, F841 - a class
        codec_of(cls).xsd()

    waiting = scope()
    stranger.__code__ = stranger.__code__.replace(co_qualname=scope.__qualname__)
    stranger(waiting)  # same module: the name is taken for the scope's own
    foreign = FunctionType(stranger.__code__, {"__name__": "another", "codec_of": codec_of})
    with pytest.raises(XError, match="Elsewhere"):
        foreign(scope())
