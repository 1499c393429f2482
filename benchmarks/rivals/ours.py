"""Ours: dataclasses, and pydantic models."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from benchmarks.rivals.rival import Binding, Rival
from third_party.xmlable import codec_of, xmlify

__all__ = ["DATACLASSES", "MODELS"]


class Dataclasses:
    """The classes as dataclasses."""

    @xmlify
    @dataclass
    class Ping:
        """The small document."""

        text: str
        n: int

    @dataclass
    class Customer:
        """Who ordered."""

        name: str
        city: str

    @dataclass
    class Line:
        """What was ordered."""

        article: str
        quantity: int
        price: Decimal

    @xmlify
    @dataclass
    class Order:
        """The nested document."""

        number: int
        paid: bool
        discount: float
        customer: Dataclasses.Customer
        lines: list[Dataclasses.Line]


class Models:
    """The classes as pydantic models."""

    @xmlify
    class Ping(BaseModel):
        """The small document."""

        text: str
        n: int

    class Customer(BaseModel):
        """Who ordered."""

        name: str
        city: str

    class Line(BaseModel):
        """What was ordered."""

        article: str
        quantity: int
        price: Decimal

    class Order(BaseModel):
        """The nested document."""

        number: int
        paid: bool
        discount: float
        customer: Models.Customer
        lines: list[Models.Line]


Models.Order.model_rebuild()
xmlify(Models.Order)


def _binding(cls: type[Any]) -> Binding:
    codec = codec_of(cls)
    return Binding(codec.decode_text, lambda value: codec.encode(value).encode())


DATACLASSES = Rival("ours", _binding(Dataclasses.Ping), _binding(Dataclasses.Order))
MODELS = Rival("ours, pydantic models", _binding(Models.Ping), _binding(Models.Order))
