from __future__ import annotations

import pytest

from xml_pipeline.config.base import ConfigModel
from xml_pipeline.config.problems import InvalidConfiguration


class Box(ConfigModel):
    size: int = 1
    label: str = ""


def test_a_bad_argument_raises_our_error() -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        Box(size="1", lable="x")  # type: ignore[arg-type, call-arg]
    assert str(caught.value).splitlines() == [
        "size: must be a whole number, not the text '1'",
        "lable: unknown key, did you mean 'label'?",
    ]


def test_a_bad_assignment_raises_our_error_and_changes_nothing() -> None:
    box = Box(size=2)
    with pytest.raises(InvalidConfiguration, match="size: must be a whole number, not true"):
        box.size = True
    with pytest.raises(InvalidConfiguration, match="lable: unknown key, did you mean 'label'"):
        box.lable = "x"  # type: ignore[attr-defined]
    assert box == Box(size=2)


def test_good_values_are_taken() -> None:
    box = Box(size=2, label="x")
    box.size = 3
    assert box.model_dump() == {"size": 3, "label": "x"}
