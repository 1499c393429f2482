"""How often something may happen."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from xml_pipeline.config.problems import quoted

__all__ = ["Rate"]

_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
}
_TEXT: Final = re.compile(r"\s*(?P<count>[0-9]+(?:\.[0-9]+)?)\s*/\s*(?P<unit>[a-z]+)\s*", re.ASCII)
_EXPECTED: Final = "a number per second, or like '10/s', '100/min', '5/h'"

# Once a fortnight to a million a second: outside of it somebody mistook the unit.
_SLOWEST: Final = 1e-6
_FASTEST: Final = 1e6


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit on how often something happens, as a token bucket.

    Args:
        per_second: how many per second in the long run; between a millionth and a million.
        burst: how many at once after a pause; 0, the default, for one second's worth, and at least one. So 100 a
            minute are let through two by two, and not all in the minute's first moment.

    Raises:
        ValueError: a number is out of range.
    """

    per_second: float
    burst: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_second) and _SLOWEST <= self.per_second <= _FASTEST):
            raise ValueError(f"a rate must be between {_SLOWEST:g} and {_FASTEST:g} per second")
        if self.burst < 0:
            raise ValueError("a rate's burst must not be negative")
        if self.burst == 0:
            object.__setattr__(self, "burst", max(1, math.ceil(self.per_second)))

    @classmethod
    def parse(cls, value: Any) -> Rate:
        """The rate that a configuration value stands for.

        Args:
            value: a `Rate`, a number per second, or text like ``"10/s"``, ``"100/min"``, ``"5/h"``.

        Raises:
            ValueError: it is none of these, or out of range.
        """
        if isinstance(value, Rate):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not -_FASTEST <= value <= _FASTEST:  # an int may be too large to become a float
                raise ValueError(f"a rate must be between {_SLOWEST:g} and {_FASTEST:g} per second")
            return cls(float(value))
        match = _TEXT.fullmatch(value) if isinstance(value, str) else None
        if match is None or match["unit"] not in _SECONDS:
            shown = f", not {quoted(value)}" if type(value) is str else ""
            raise ValueError(f"must be {_EXPECTED}{shown}")
        return cls(float(match["count"]) / _SECONDS[match["unit"]])
