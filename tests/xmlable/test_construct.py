from __future__ import annotations

from dataclasses import dataclass

import pydantic
import pytest

from third_party.xmlable import DecodeError
from third_party.xmlable.construct import construct, refused


def test_whatever_a_constructor_raises_is_a_decode_error() -> None:
    @dataclass
    class Picky:
        a: int

        def __post_init__(self) -> None:
            raise LookupError("no")

    with pytest.raises(DecodeError, match=r"^the class refused the values: LookupError: no$") as caught:
        construct(Picky, {"a": 1})
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_signal_to_stop_is_no_decode_error() -> None:
    @dataclass
    class Stopping:
        a: int

        def __post_init__(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        construct(Stopping, {"a": 1})


def test_a_model_may_validate_as_a_whole() -> None:
    class Range(pydantic.BaseModel):
        low: int
        high: int

        @pydantic.model_validator(mode="after")
        def _ordered(self) -> Range:
            if self.low > self.high:
                raise ValueError("low above high")
            return self

    assert construct(Range, {"low": 1, "high": 2}) == Range(low=1, high=2)
    with pytest.raises(DecodeError, match=r"^the class refused the values: value: Value error, low above high$"):
        construct(Range, {"low": 2, "high": 1})


def test_refused_quotes_no_input() -> None:
    class Secret(pydantic.BaseModel):
        pin: int

    try:
        Secret(pin="hunter2")
    except pydantic.ValidationError as error:
        assert "hunter2" not in str(refused(error))
