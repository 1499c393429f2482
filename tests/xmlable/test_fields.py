from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import pydantic
import pydantic.dataclasses
import pytest

from third_party.xmlable import DecodeError, XError, codec_of, xmlify
from third_party.xmlable.build import kind_of
from third_party.xmlable.fields import NO_DEFAULT, fields_of

from .helpers import accepts, survives


def elements(cls: type) -> list[str]:
    return [field.element for field in fields_of(cls, kind_of)]


def test_dataclass_options_are_kept() -> None:
    @dataclass(frozen=True, slots=True)
    class Frozen:
        a: int
        b: str = "x"

    @dataclass(kw_only=True)
    class Keywords:
        a: int = 1
        b: str

    @dataclass
    class Split:
        a: int
        _: KW_ONLY
        b: str = "x"
        c: int | None = None

    survives(Frozen(1))
    survives(Keywords(b="y"))
    survives(Split(1, b="y", c=2))


def test_a_keyword_only_base_does_not_shift_arguments() -> None:
    @dataclass(kw_only=True)
    class Base:
        first: str = "f"

    @dataclass
    class Derived(Base):
        second: str

    survives(Derived("s", first="g"))
    assert elements(Derived) == ["First", "Second"]


def test_fields_are_inherited_and_overridden_in_place() -> None:
    @dataclass
    class Base:
        a: int
        b: str

    @dataclass
    class Derived(Base):
        c: float
        a: str  # type: ignore[assignment]

    assert codec_of(Derived).encode(Derived("x", "y", 1.0)) == "<Derived><A>x</A><B>y</B><C>1.0</C></Derived>"
    survives(Derived("x", "y", 1.0))


def test_class_variables_and_private_attributes_are_not_written() -> None:
    @dataclass
    class Counted:
        text: str
        count: ClassVar[int] = 0
        plain = 1

    class Model(pydantic.BaseModel):
        text: str
        count: ClassVar[int] = 0
        _hidden: int = 1

    assert elements(Counted) == elements(Model) == ["Text"]


def test_annotations_that_are_no_fields_need_not_be_known() -> None:
    @dataclass
    class Logged:
        text: str
        log: ClassVar[Unknown]  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose

    survives(Logged("x"))


def test_what_the_class_derives_itself_is_not_written() -> None:
    @dataclass
    class Circle:
        radius: float
        area: float = field(init=False)
        tags: list[str] = field(init=False, default_factory=list)

        def __post_init__(self) -> None:
            self.area = self.radius**2

    assert codec_of(Circle).encode(Circle(2.0)) == "<Circle><Radius>2.0</Radius></Circle>"
    survives(Circle(2.0))


def test_an_init_var_needs_a_default() -> None:
    @dataclass
    class Scaled:
        a: int
        scale: InitVar[int] = 1
        b: int = 2

        def __post_init__(self, scale: int) -> None:
            self.a *= scale

    @dataclass
    class Bad:
        a: int
        scale: InitVar[int]

    survives(Scaled(3, b=5))
    with pytest.raises(XError, match=r"^Bad.scale: an InitVar without a default cannot be read back"):
        xmlify(Bad)


def test_an_own_init_is_called_by_keyword() -> None:
    @dataclass(init=False)
    class Own:
        a: int
        b: int

        def __init__(self, b: int, a: int) -> None:
            self.a, self.b = a, b

    survives(Own(b=1, a=2))


def test_xml_name_of_a_dataclass_and_of_a_model() -> None:
    @dataclass
    class Plain:
        retry_allowed: bool = field(metadata={"xml_name": "retry-allowed"})

    class Model(pydantic.BaseModel):
        retry_allowed: bool = pydantic.Field(json_schema_extra={"xml_name": "retry-allowed"})

    assert elements(Plain) == elements(Model) == ["retry-allowed"]
    survives(Plain(True))
    survives(Model(retry_allowed=False))


@pytest.mark.parametrize("name", ["a b", "", "1", "a:b", "x><y"])
def test_an_xml_name_is_checked(name: str) -> None:
    @dataclass
    class Bad:
        text: str = field(metadata={"xml_name": name})

    if name:
        with pytest.raises(XError, match=r"^Bad.text: its element would be called .*, which is no XML name"):
            xmlify(Bad)
    else:
        assert elements(Bad) == ["Text"]


def test_colliding_names_are_refused_with_both_fields() -> None:
    @dataclass
    class Bad:
        user_id: int
        userId: int  # noqa: N815 - an XML name

    @dataclass
    class Renamed:
        user_id: int
        userId: int = field(metadata={"xml_name": "OtherId"})  # noqa: N815 - an XML name

    class Model(pydantic.BaseModel):
        a: int
        b: int = pydantic.Field(json_schema_extra={"xml_name": "A"})

    with pytest.raises(XError, match=r"^Bad: the fields 'user_id' and 'userId' would both be the element <UserId>"):
        xmlify(Bad)
    with pytest.raises(XError, match=r"^Model: the fields 'a' and 'b' would both be the element <A>"):
        xmlify(Model)
    survives(Renamed(1, 2))


def test_names_that_are_no_identifiers_are_refused() -> None:
    for name in ("a-b", "a'", "class", "ﬁ"):
        model = pydantic.create_model("Bad", **{name: (int, ...)})  # type: ignore[call-overload]
        with pytest.raises(XError, match=r"it is no Python identifier in normal form"):
            xmlify(model)


def test_aliases_of_a_model() -> None:
    class Aliased(pydantic.BaseModel):
        a: int = pydantic.Field(alias="alpha")
        b: int = pydantic.Field(validation_alias=pydantic.AliasChoices(pydantic.AliasPath("x", 0), "beta"))

    class ByName(pydantic.BaseModel, populate_by_name=True):
        a: int = pydantic.Field(alias="alpha")

    class Path(pydantic.BaseModel):
        a: int = pydantic.Field(validation_alias=pydantic.AliasPath("x", 0))

    survives(Aliased(alpha=1, beta=2))  # type: ignore[call-arg]
    assert elements(Aliased) == ["A", "B"]
    survives(ByName(a=1))  # type: ignore[call-arg]
    with pytest.raises(XError, match=r"^Path.a: its only alias is an AliasPath"):
        xmlify(Path)


def test_excluded_fields_of_a_model() -> None:
    class Secretive(pydantic.BaseModel):
        text: str
        secret: str = pydantic.Field(default="", exclude=True)

    class Bad(pydantic.BaseModel):
        secret: str = pydantic.Field(exclude=True)

    assert elements(Secretive) == ["Text"]
    with pytest.raises(XError, match=r"^Bad.secret: excluded and required"):
        xmlify(Bad)


def test_a_root_model_is_refused() -> None:
    class Numbers(pydantic.RootModel[list[int]]):
        pass

    with pytest.raises(XError, match=r"^Numbers: a RootModel has no fields"):
        xmlify(Numbers)


def test_pydantic_dataclasses() -> None:
    @pydantic.dataclasses.dataclass
    class Checked:
        age: int = pydantic.Field(ge=0)
        name: str = pydantic.Field(default="x", json_schema_extra={"xml_name": "full-name"})
        tags: list[str] = pydantic.Field(default_factory=list)

    assert elements(Checked) == ["Age", "full-name", "Tags"]
    survives(Checked(1, "y", ["t"]))
    assert codec_of(Checked).decode_text("<Checked><Age>1</Age></Checked>") == Checked(1)
    with pytest.raises(DecodeError, match=r"Checked: the class refused the values: .*greater than or equal to 0"):
        codec_of(Checked).decode_text("<Checked><Age>-1</Age></Checked>")


def test_models_of_one_generic_model() -> None:
    item = TypeVar("item")

    class Page(pydantic.BaseModel, Generic[item]):
        items: list[item]

    class Book(pydantic.BaseModel):
        numbers: Page[int]
        pages: list[Page[str]]

    class Numbers(Page[int]):
        pass

    survives(Book(numbers=Page[int](items=[1]), pages=[Page[str](items=["x"])]))
    survives(Numbers(items=[1]))
    with pytest.raises(XError, match=r"its element would be called 'Page\[int\]', which is no XML name"):
        codec_of(Page[int])


def test_implicit_optional() -> None:
    @dataclass
    class Sloppy:
        text: str = None  # type: ignore[assignment]

    survives(Sloppy())
    survives(Sloppy("x"))


def test_required_and_default() -> None:
    @dataclass
    class Defaults:
        a: int
        b: int = 1
        c: list[int] = field(default_factory=list)
        d: int | None = None
        e: None = None

    found = {f.name: (f.required, f.default, f.absent_is_none) for f in fields_of(Defaults, kind_of)}
    assert found == {
        "a": (True, NO_DEFAULT, False),
        "b": (False, 1, False),
        "c": (False, NO_DEFAULT, False),
        "d": (False, None, True),
        "e": (False, None, True),
    }
    assert accepts(codec_of(Defaults), "<Defaults><A>1</A></Defaults>")
    assert not accepts(codec_of(Defaults), "<Defaults></Defaults>")
    survives(Defaults(1, e=None))


def test_descriptions_and_examples() -> None:
    @dataclass
    class Plain:
        text: str = field(metadata={"description": "  What to say.\n  Briefly. "})

    class Model(pydantic.BaseModel):
        text: str = pydantic.Field(description="What to say.", examples=["hello"])

    assert [f.description for f in fields_of(Plain, kind_of)] == ["What to say.\nBriefly."]
    assert codec_of(Model).json_schema()["properties"]["text"]["description"] == "What to say."
    assert "<Text>hello</Text>" in codec_of(Model).example()


def test_annotated_constraints_are_the_models_business() -> None:
    class Limited(pydantic.BaseModel):
        percent: Annotated[int, pydantic.Field(ge=0, le=100)]

    survives(Limited(percent=5))
    with pytest.raises(DecodeError, match="less than or equal to 100"):
        codec_of(Limited).decode_text("<Limited><Percent>101</Percent></Limited>")


def test_a_subclass_with_annotations_that_is_no_dataclass_itself_is_refused() -> None:
    @dataclass
    class Base:
        a: int

    class Derived(Base):
        b: int

    class Same(Base):
        def twice(self) -> int:
            return 2 * self.a

    survives(Same(1))
    with pytest.raises(XError, match=r"^Derived: it has annotations, but only its base is a dataclass"):
        xmlify(Derived)


def test_a_class_without_fields() -> None:
    @dataclass
    class Empty:
        pass

    class Nothing(pydantic.BaseModel):
        pass

    for value in (Empty(), Nothing()):
        survives(value)
        name = type(value).__name__
        assert codec_of(type(value)).encode(value) == f"<{name}></{name}>"
        with pytest.raises(DecodeError, match=rf"^{name}: the element <X> is unknown; none is known here"):
            codec_of(type(value)).decode_text(f"<{name}><X/></{name}>")


def test_private_names() -> None:
    @dataclass
    class Hidden:
        __secret: int
        _x: int = 1

    survives(Hidden(5))
    assert elements(Hidden) == ["HiddenSecret", "_X"]


def test_fields_made_at_run_time() -> None:
    made: Any = dataclasses.make_dataclass("Made", [("größe", int), ("名前", str, "x")])
    survives(made(1))
