"""How many examples the tests of properties try: enough for every day, and as many more as are asked for.

Each run tries others. ``XML_PIPELINE_EXAMPLES=20`` in the environment makes it twenty times as many.
"""

from __future__ import annotations

import os

__all__ = ["examples"]

_TIMES = int(os.environ.get("XML_PIPELINE_EXAMPLES", "1"))


def examples(count: int) -> int:
    """So many, or as many times that as are asked for."""
    return count * _TIMES
