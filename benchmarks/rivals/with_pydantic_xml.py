"""pydantic-xml."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic_xml import BaseXmlModel, element, wrapped

from benchmarks.rivals.rival import Binding, Rival

__all__ = ["PYDANTIC_XML"]


class Ping(BaseXmlModel, tag="Ping"):
    """The small document."""

    text: str = element(tag="Text")
    n: int = element(tag="N")


class Customer(BaseXmlModel, tag="Customer"):
    """Who ordered."""

    name: str = element(tag="Name")
    city: str = element(tag="City")


class Line(BaseXmlModel, tag="Line"):
    """What was ordered."""

    article: str = element(tag="Article")
    quantity: int = element(tag="Quantity")
    price: Decimal = element(tag="Price")


class Order(BaseXmlModel, tag="Order"):
    """The nested document."""

    number: int = element(tag="Number")
    paid: bool = element(tag="Paid")
    discount: float = element(tag="Discount")
    customer: Customer
    lines: list[Line] = wrapped("Lines", element(tag="Line"))


def _write(value: Any) -> bytes:
    data: bytes = value.to_xml()
    return data


PYDANTIC_XML = Rival("pydantic-xml", Binding(Ping.from_xml, _write), Binding(Order.from_xml, _write))
