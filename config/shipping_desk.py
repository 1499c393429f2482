"""Payload classes and handlers of the example organism; see ``organism.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.memory import get_context_buffer
from xml_pipeline.message_bus.message_state import SystemError

PRICES = {"lamp": Decimal("19.90"), "table": Decimal("149.00"), "chair": Decimal("59.50")}
IN_STOCK = {"lamp": 12, "table": 3, "chair": 0}
ROAD_PER_PIECE, RAIL_PER_PIECE = Decimal("4.20"), Decimal("3.10")


@dataclass
class Order:
    """Somebody wants to buy something."""

    item: str
    quantity: int = 1


@dataclass
class Offer:
    """What it costs, delivered."""

    item: str
    quantity: int
    total: Decimal
    carrier: str


@dataclass
class Regret:
    """Why there is no offer."""

    reason: str


@dataclass
class StockQuery:
    """How many of an item are there?"""

    item: str


@dataclass
class Stock:
    """That many are there, at that price each."""

    item: str
    available: int
    price: Decimal


@dataclass
class Parcel:
    """What does it cost to send it?"""

    pieces: int


@dataclass
class Quote:
    """It costs that much."""

    carrier: str
    price: Decimal


async def take_order(
    payload: Order | Stock | Quote | SystemError, metadata: HandlerMetadata
) -> list[HandlerResponse] | HandlerResponse | None:
    """The clerk asks the store and the carriers at once, and answers when all have answered.

    The handler keeps nothing between its turns: what has been said in this call stands in the history of its frame.
    """
    if isinstance(payload, Order):
        return [
            HandlerResponse(StockQuery(payload.item), to="store.stock"),
            HandlerResponse(Parcel(payload.quantity), to="carriers"),
        ]
    if isinstance(payload, SystemError):
        return HandlerResponse.respond(Regret(f"We cannot say at the moment. {payload.message}"))
    said = [slot.payload for slot in get_context_buffer().get_thread_slots(metadata.thread_id)]
    order = next(each for each in said if isinstance(each, Order))
    stock = next((each for each in said if isinstance(each, Stock)), None)
    quotes = [each for each in said if isinstance(each, Quote)]
    if stock is None or len(quotes) < 2:
        return None  # some have not answered yet
    return HandlerResponse.respond(offer(order, stock, quotes))


def offer(order: Order, stock: Stock, quotes: list[Quote]) -> Offer | Regret:
    """An offer with the cheapest carrier, or a regret if there are too few."""
    if stock.available < order.quantity:
        return Regret(f"We have {stock.available} of {order.item}, not {order.quantity}.")
    best = min(quotes, key=lambda quote: quote.price)
    return Offer(order.item, order.quantity, order.quantity * stock.price + best.price, best.carrier)


async def look_up_stock(payload: StockQuery, metadata: HandlerMetadata) -> HandlerResponse:
    """The store. An item it has never heard of is answered; a dragon is too much for it."""
    if payload.item == "dragon":
        raise RuntimeError("the store is on fire")
    available, price = IN_STOCK.get(payload.item, 0), PRICES.get(payload.item, Decimal(0))
    return HandlerResponse.respond(Stock(payload.item, available, price))


async def quote_road(payload: Parcel, metadata: HandlerMetadata) -> HandlerResponse:
    """A carrier that is cheap for one piece."""
    return HandlerResponse.respond(Quote("carriers.road", ROAD_PER_PIECE * payload.pieces))


async def quote_rail(payload: Parcel, metadata: HandlerMetadata) -> HandlerResponse:
    """A carrier that is cheap for many."""
    return HandlerResponse.respond(Quote("carriers.rail", 5 + RAIL_PER_PIECE * payload.pieces))
