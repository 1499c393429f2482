"""The example organism in ``config/``."""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from xml_pipeline.config import load_report
from xml_pipeline.errors import HandlerError, RoutingError
from xml_pipeline.testing import TestPump

ORGANISM = Path(__file__).resolve().parents[1] / "config" / "organism.yaml"


@pytest.fixture
def desk():
    """The module with its classes, imported as the loader does it."""
    path = list(sys.path)
    assert load_report(ORGANISM).ok
    yield sys.modules["shipping_desk"]
    sys.path[:] = path


def test_it_is_good_and_nothing_in_it_is_doubtful():
    path = list(sys.path)
    report = load_report(ORGANISM)
    sys.path[:] = path
    assert (report.problems, report.warnings) == ((), ())


async def test_the_clerk_asks_the_store_and_both_carriers_and_offers_the_cheapest(desk):
    async with TestPump(ORGANISM) as pump:
        offer = await pump.ask("desk.clerk", desk.Order("lamp", 2))
        assert offer == desk.Offer("lamp", 2, Decimal("48.20"), "carriers.road")
        offer = await pump.ask("desk.clerk", desk.Order("lamp", 10))
        assert offer == desk.Offer("lamp", 10, Decimal("235.00"), "carriers.rail")
        await pump.until_idle()
        first = pump.conversations[0]
        assert first.path[0] == "desk.clerk"
        assert sorted(first.path) == ["carriers.rail", "carriers.road", *["desk.clerk"] * 4, "store.stock"]
        answers = {message.payload_type for message in first.messages if message.to_id == "desk.clerk"}
        assert answers == {"Order", "Stock", "Quote"}


async def test_too_few_and_unknown_items_are_regretted(desk):
    async with TestPump(ORGANISM) as pump:
        assert await pump.ask("desk.clerk", desk.Order("table", 4)) == desk.Regret("We have 3 of table, not 4.")
        assert await pump.ask("desk.clerk", desk.Order("unicorn")) == desk.Regret("We have 0 of unicorn, not 1.")


async def test_the_store_fails_on_purpose_and_the_clerk_copes(desk):
    async with TestPump(ORGANISM) as pump:
        regret = await pump.ask("desk.clerk", desk.Order("dragon"))
        assert regret == desk.Regret("We cannot say at the moment. The message could not be processed.")
        (failure,) = pump.forget_failures()
        assert (failure.listener, str(failure.exception)) == ("store.stock", "the store is on fire")
        with pytest.raises(HandlerError) as caught:
            await pump.ask("store.stock", desk.StockQuery("dragon"))
        assert isinstance(caught.value.__cause__, RuntimeError)


async def test_interleaved_orders_do_not_see_each_other(desk):
    orders = [desk.Order("lamp", 1), desk.Order("table", 2), desk.Order("chair", 1)]
    async with TestPump(ORGANISM) as pump:
        answers = await asyncio.gather(*(pump.ask("desk.clerk", order) for order in orders * 5))
    assert answers[:3] == [
        desk.Offer("lamp", 1, Decimal("24.10"), "carriers.road"),
        desk.Offer("table", 2, Decimal("306.40"), "carriers.road"),
        desk.Regret("We have 0 of chair, not 1."),
    ]
    assert answers == answers[:3] * 5


async def test_the_clerk_reaches_nobody_but_its_peers(desk):
    async with TestPump(ORGANISM) as pump:
        assert pump.listeners["desk.clerk"].peers == ["store.stock", "carriers"]
        with pytest.raises(RoutingError):
            await pump.ask("carriers", desk.Order("lamp"))  # a class that the group does not take
