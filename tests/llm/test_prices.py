from __future__ import annotations

import pytest

from xml_pipeline.llm import Price, Prices, estimate_cost, get_prices
from xml_pipeline.llm.prices import PRICES, PRICES_AS_OF
from xml_pipeline.runtime import Runtime, use_runtime


@pytest.fixture(autouse=True)
def runtime():
    with use_runtime(Runtime()) as runtime:
        yield runtime


@pytest.mark.parametrize(
    ("model", "prompt", "completion"),
    [
        ("grok-4.1", 3, 15),
        ("claude-opus-4", 15, 75),
        ("gpt-4o", 2.5, 10),
        ("gpt-4o-mini", 0.15, 0.6),
        ("gpt-4o-mini-2024-07-18", 0.15, 0.6),
        ("claude-opus-4-20250514", 15, 75),
        ("claude-opus-4-5-20251101", 5, 25),
        ("GPT-4o", 2.5, 10),
        ("gpt-4o:ft", 2.5, 10),
        ("gpt-4", 30, 60),
    ],
)
def test_the_longest_name_that_a_model_begins_with_has_its_price(model, prompt, completion):
    assert estimate_cost(model, 1_000_000, 1_000_000) == pytest.approx(prompt + completion)
    assert estimate_cost(model, 1_000_000, 0) == pytest.approx(prompt)
    assert estimate_cost(model, 0, 1000) == pytest.approx(completion / 1000)


@pytest.mark.parametrize("model", ["unknown-model", "", "gpt-4omega", "gpt-5.99", "my-gpt-4o", "-" * 100_000])
def test_an_unknown_model_has_no_price(model):
    assert estimate_cost(model, 1000, 500) is None


def test_nothing_used_costs_nothing():
    assert estimate_cost("gpt-4o", 0, 0) == 0.0


def test_prices_are_added_and_replaced():
    prices = get_prices()
    prices.add("My-Model", 1.0, 2.0)
    prices.add("gpt-4o", 1.0, 1.0)
    assert estimate_cost("my-model-large", 1_000_000, 1_000_000) == 3.0
    assert estimate_cost("gpt-4o", 1_000_000, 0) == 1.0
    prices.replace({"x": Price(1.0, 1.0)})
    assert estimate_cost("gpt-4o", 1_000_000, 0) is None
    assert dict(prices.table) == {"x": Price(1.0, 1.0)}
    assert PRICES["gpt-4o"] == Price(2.5, 10.0)


def test_every_runtime_has_its_own():
    get_prices().add("mine", 1.0, 1.0)
    with use_runtime(Runtime()):
        assert estimate_cost("mine", 1, 1) is None
    assert estimate_cost("mine", 1_000_000, 0) == 1.0


@pytest.mark.parametrize(("prompt", "completion"), [(-1, 1), (1, float("nan")), (float("inf"), 1), ("1", 1), (True, 1)])
def test_a_price_is_a_number_of_dollars(prompt, completion):
    with pytest.raises(ValueError, match="dollars per million"):
        Prices().add("x", prompt, completion)


@pytest.mark.parametrize("model", ["", "  ", None])
def test_a_price_has_a_name(model):
    with pytest.raises(ValueError, match="name of a model"):
        Prices().add(model, 1.0, 1.0)


def test_a_table_holds_prices():
    with pytest.raises(TypeError, match="Price objects, not tuple"):
        Prices({"x": (1.0, 2.0)})


def test_the_table_has_a_date_and_lower_case_names():
    assert PRICES_AS_OF.year >= 2026
    assert all(name == name.lower().strip() for name in PRICES)
