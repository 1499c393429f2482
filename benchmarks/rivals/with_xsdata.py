"""xsdata: one context, one parser and one serialiser for everything, with the handler and the writer on lxml."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from xsdata.formats.dataclass.context import XmlContext
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.handlers import LxmlEventHandler
from xsdata.formats.dataclass.serializers import XmlSerializer
from xsdata.formats.dataclass.serializers.config import SerializerConfig
from xsdata.formats.dataclass.serializers.writers import LxmlEventWriter

from benchmarks.rivals.rival import Binding, Rival

__all__ = ["XSDATA"]


@dataclass
class Ping:
    """The small document."""

    text: str = field(metadata={"name": "Text", "type": "Element"})
    n: int = field(metadata={"name": "N", "type": "Element"})


@dataclass
class Customer:
    """Who ordered."""

    name: str = field(metadata={"name": "Name", "type": "Element"})
    city: str = field(metadata={"name": "City", "type": "Element"})


@dataclass
class Line:
    """What was ordered."""

    article: str = field(metadata={"name": "Article", "type": "Element"})
    quantity: int = field(metadata={"name": "Quantity", "type": "Element"})
    price: Decimal = field(metadata={"name": "Price", "type": "Element"})


@dataclass
class Order:
    """The nested document."""

    number: int = field(metadata={"name": "Number", "type": "Element"})
    paid: bool = field(metadata={"name": "Paid", "type": "Element"})
    discount: float = field(metadata={"name": "Discount", "type": "Element"})
    customer: Customer = field(metadata={"name": "Customer", "type": "Element"})
    lines: list[Line] = field(metadata={"name": "Line", "type": "Element", "wrapper": "Lines"})


_context = XmlContext()
_parser = XmlParser(context=_context, handler=LxmlEventHandler)
_serializer = XmlSerializer(context=_context, config=SerializerConfig(xml_declaration=False), writer=LxmlEventWriter)


def _binding(cls: type[Any]) -> Binding:
    return Binding(lambda data: _parser.from_bytes(data, cls), lambda value: _serializer.render(value).encode())


XSDATA = Rival("xsdata", _binding(Ping), _binding(Order))
