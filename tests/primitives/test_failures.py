"""What sequences and buffers answer when they fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.message_bus.orchestration_kit import Number
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.primitives import buffer, failures, sequence
from xml_pipeline.primitives.buffer import BufferComplete, BufferDispatched, BufferError
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceError


@pytest.mark.parametrize(
    "answer", [SequenceError("s", "step", 1, "why", "timeout"), BufferError("b", "why", "routing")]
)
def test_a_failure_is_recognised(answer: Any) -> None:
    assert failures.failure_in(answer) is answer


@pytest.mark.parametrize(
    "answer",
    [SequenceComplete(), BufferComplete(), BufferDispatched(), Number(1), None, SystemError("handler", "", False)],
)
def test_other_answers_are_none(answer: Any) -> None:
    assert failures.failure_in(answer) is None


def test_they_are_found_where_they_are_documented() -> None:
    assert sequence.SequenceError is failures.SequenceError
    assert buffer.BufferError is failures.BufferError
