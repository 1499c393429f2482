"""xmlable: dataclasses and pydantic models as XML, with the schema that says so.

```python
from dataclasses import dataclass
from third_party.xmlable import codec_of, parse_string, xmlify

@xmlify
@dataclass
class Greeting:
    text: str
    count: int = 1

codec_of(Greeting).encode(Greeting("hi"))    # <Greeting><Text>hi</Text><Count>1</Count></Greeting>
parse_string(Greeting, "<Greeting><Text>hi</Text></Greeting>")    # Greeting(text="hi", count=1)
```

A value survives write - validate - read unchanged, or is refused when it is written, with the path of the field. Three
forms agree on what a value is: the XML text, which is exactly canonical (W3C Exclusive XML Canonicalization); the XSD,
which accepts what the encoder writes; and JSON, for those who speak that.

Elements
    The root is named after the class, in exactly its case. A field's element is its name in PascalCase (`names.pascal`)
    unless the field says ``metadata={"xml_name": ...}``, or ``json_schema_extra={"xml_name": ...}`` in pydantic. All
    are in no namespace and in declaration order. A field with a default is an optional element: always written, filled
    in when absent. Class variables, ``InitVar``, fields with ``init=False`` and excluded pydantic fields are not
    written.

Types
    ======================================= ================================== =======================================
    annotation                              XML                                JSON
    ======================================= ================================== =======================================
    ``str``                                 text, ``xs:string``, untouched     string
    ``int``                                 ``xs:integer``                     number; ``true`` is none, ``3.0`` is 3
    ``float`` (an exact ``int`` too)        ``xs:double``: ``INF -INF NaN``    number; those three as strings
    ``bool``                                ``xs:boolean``                     true, false
    ``Decimal`` (finite)                    ``xs:decimal``, all digits kept    string
    ``bytes``                               ``xs:base64Binary``                string, base64
    ``datetime``, ``date``, ``time``        ``xs:dateTime``, ``xs:date``, ...  the same text
    ``timedelta``                           ``xs:duration``, days and smaller  the same text (ISO 8601)
    ``UUID``, ``Path`` (and pure ones)      text                               string
    ``Enum``: all values str, or all int    the value                          the value
    ``Enum``: other values                  the member's name                  the name
    ``Literal[...]``                        the value's text                   the value
    ``list[T]``, ``tuple[T, ...]``          ``<Str>..</Str><Str>..</Str>``     array
    ``set[T]``, ``frozenset[T]``            the same, sorted; no doubles       array
    ``tuple[A, B]``                         ``<Item-1>``, ``<Item-2>``         array
    ``dict[K, V]``                          ``<Item><Key/><Val/></Item>`` ...  object, or array of ``{key, value}`` [1]
    ``T | None = None``                     as ``T``; absent for ``None``      as ``T``; null
    any other union, required optionals     one child named after the type     the value, or ``{"Type": value}`` [2]
    dataclass, pydantic model               its elements                       object with the field names as keys
    ======================================= ================================== =======================================

    Items and alternatives are named after their type: ``Str Int Float Bool Decimal Bytes Datetime Date Time Timedelta
    UUID Path List Set Frozenset Tuple Dict Union Literal NoneType``, or the class.
    [1] An object where the keys are strings in JSON. [2] Alone where JSON types tell the alternatives apart.

    ``Annotated``, ``NewType``, type aliases, ``Optional``, ``typing.List`` and its kin mean what they stand for.
    Classes may be recursive, nested, inherited, frozen, slotted, keyword-only, and named in annotations before they
    exist. ``Any``, bare containers, type variables, ``Flag`` and recursive aliases are refused at decoration.

Strictness
    ``str`` and ``int`` values are of exactly that type, and an instance is of exactly the declared class, so that
    nothing is lost; other subclasses are written as their base. The schema is stricter than the decoder, which ignores
    attributes, order and stray text. In turn it accepts some texts that the decoder refuses: the midnight that ends the
    year 9999, durations of a thousand million days, numbers of more than 4,300 digits, doubled set members and dict
    keys, what the class's own validation objects to, and, by a fault of libxml2, the double ``1e``. A fraction of a
    second finer than a microsecond is cut.

    The JSON Schema accepts what the XML Schema does, of values that both can say: XML does not tell ``5`` from ``"5"``,
    nor ``" 2025-01-31"`` from ``"2025-01-31"``; JSON takes only the second. It says number for a float, since JSON has
    neither infinity nor NaN; the three strings for them are read nevertheless. The decoder alone refuses a whole
    number beyond 2**53 that is written like ``1e300`` where an integer is to be, and one too large for a float.
    ``format`` is a note, as the standard has it: ``date-time`` and ``time`` are read without a zone, too; ``pattern``
    says it exactly.

Layout
    `kind` says what a type must be able to do; `basics`, `moments`, `choices`, `series`, `mapping`, `union` and
    `record` are the types; `build` finds the one for an annotation, `fields` and `hints` take classes apart; `compile`
    and `source` make the fast functions; `schema`, `jsonschema` and `example` describe; `codec` is the door.
"""

from .codec import Codec
from .decorator import codec_of, xmlify
from .documents import parse_bytes, parse_element, parse_string
from .errors import DecodeError, EncodeError, XError

__all__ = [
    "Codec",
    "DecodeError",
    "EncodeError",
    "XError",
    "codec_of",
    "parse_bytes",
    "parse_element",
    "parse_string",
    "xmlify",
]
