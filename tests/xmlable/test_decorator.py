from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest

from third_party.xmlable import XError, codec_of, xmlify

from .helpers import survives


def test_xmlify_returns_the_same_class() -> None:
    @dataclass
    class Plain:
        a: int

    assert xmlify(Plain) is Plain
    assert xmlify(xmlify(Plain)) is Plain
    assert codec_of(Plain) is codec_of(Plain)


def test_xmlify_above_a_frozen_slotted_dataclass() -> None:
    @xmlify
    @dataclass(frozen=True, slots=True)
    class Frozen:
        a: int

    survives(Frozen(1))
    assert not hasattr(Frozen(1), "__dict__")


def test_xmlify_on_a_model_makes_no_noise() -> None:
    @xmlify
    class Model(pydantic.BaseModel):
        a: int

    survives(Model(a=1))
    assert set(Model.model_fields) == {"a"}


class Undecorated:
    a: int


@pytest.mark.parametrize("cls", [Undecorated, int, object, pydantic.BaseModel])
def test_other_classes_are_refused(cls: Any) -> None:
    for function in (xmlify, codec_of):
        with pytest.raises(XError, match=rf"^{cls.__name__} is neither a dataclass nor a pydantic model; decorate it"):
            function(cls)


@pytest.mark.parametrize("thing", [1, None, "Greeting", list[int], lambda: None])
def test_what_is_no_class_is_refused(thing: Any) -> None:
    for function in (xmlify, codec_of):
        with pytest.raises(XError, match=r" is not a class; expected a dataclass or a pydantic model$"):
            function(thing)


def test_an_instance_is_refused() -> None:
    @xmlify
    @dataclass
    class Plain:
        a: int

    with pytest.raises(XError, match="is not a class"):
        codec_of(Plain(1))  # type: ignore[arg-type]


def test_xmlify_below_dataclass_says_so() -> None:
    with pytest.raises(XError, match="decorate it with @dataclass, and @xmlify above that"):

        @dataclass
        @xmlify
        class Wrong:
            a: int


NAMES = ["get_xobject", "xsd_forward", "xsd_dependencies", "comment", "xsd", "xml", "xml_value", "parse"]


@pytest.mark.parametrize("name", NAMES)
def test_reserved_names_are_refused_as_fields(name: str) -> None:
    plain = dataclass(type("Bad", (), {"__annotations__": {name: int}}))
    model = pydantic.create_model("Bad", **{name: (int, ...)})  # type: ignore[call-overload]
    for cls in (plain, model):
        with pytest.raises(XError, match=rf"^Bad.{name}: the name '{name}' is reserved by xmlify; rename it"):
            xmlify(cls)


@pytest.mark.parametrize("name", NAMES[:4])
def test_four_are_refused_as_attributes_too(name: str) -> None:
    cls = dataclass(type("Bad", (), {"__annotations__": {}, name: lambda self: 1}))
    with pytest.raises(XError, match=rf"^Bad.{name}: the name '{name}' is reserved"):
        xmlify(cls)


def test_a_class_keeps_a_member_of_its_own() -> None:
    @xmlify
    @dataclass
    class Own:
        a: int

        @staticmethod
        def parse(text: str) -> str:
            return text.upper()

    assert Own.parse("x") == "X"
    survives(Own(1))


def test_a_subclass_has_its_own_codec_decorated_or_not() -> None:
    @xmlify
    @dataclass
    class Base:
        a: int

    @dataclass
    class Derived(Base):
        b: int

    @xmlify
    @dataclass
    class Decorated(Base):
        c: int

    assert codec_of(Derived).encode(Derived(1, 2)) == "<Derived><A>1</A><B>2</B></Derived>"
    assert Derived.xsd().getroot().get("id") == "Derived"  # type: ignore[attr-defined]
    survives(Decorated(1, 3))
    survives(Base(1))


def test_a_class_copied_by_slots_gets_a_codec_of_its_own() -> None:
    @dataclass
    class Base:
        a: int

    xmlify(Base)
    copied = dataclass(slots=True)(type("Copied", (), {**vars(Base), "__dict__": None} and dict(vars(Base))))
    assert codec_of(copied).cls is copied


def test_a_class_nobody_uses_is_freed() -> None:
    @xmlify
    @dataclass
    class Passing:
        a: int

    survives(Passing(1))
    reference = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert reference() is None
