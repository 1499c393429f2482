"""`Dialogue`: what the model of one frame was told, what it said, and which of its calls are open.

A model asks for calls in *rounds*: all calls of one answer are made together, as one `Join`, and when the last of them
has ended, all results go back together::

    the model answers ── calls ──> messages are sent ── each turn brings a result ──> all have ended ──> the model
                                                                                                       is asked again

What came instead of a message, because the model's arguments do not fit, is a result like any other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.llm.request import ToolCall
from xml_pipeline.message_bus.join import Join, get_joins
from xml_pipeline.message_bus.message_state import HandlerResponse
from xml_pipeline.message_bus.thread_registry import ThreadRegistry
from xml_pipeline.platform.tool_names import ToolNames, tool_name_like
from xml_pipeline.platform.tool_results import error_text, result_text
from xml_pipeline.platform.tools import Toolbox, UnusableCall
from xml_pipeline.primitives.budget import BUDGET_SENDER, BudgetWarning
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import HandlerMetadata

__all__ = ["Dialogue", "Dialogues", "get_dialogues"]

_JOIN: Final = "model-call"


@dataclass(slots=True, eq=False)
class _Round:
    """The calls of one answer.

    Args:
        calls: in the form in which they are told.
        results: what the model is to be told of each call that has ended, by the call's place.
        places: the places of those that became messages, in the order of the join.
        join: waits for these.
    """

    calls: Sequence[ToolCall]
    results: dict[int, str]
    places: Sequence[int]
    join: Join


@dataclass(slots=True, eq=False)
class Dialogue:
    """One frame of an agent.

    Args:
        prompt: the agent's, as it was when the frame began.
        model: the model's name; empty for the router's default.
        output_class: the class of the agent's answer; ``None`` for text.
        messages: history, what the agent is asked, and what has been said since.
        has_history: whether there is any.
    """

    prompt: str = field(repr=False)
    model: str
    output_class: type | None
    messages: list[dict[str, Any]] = field(repr=False)
    has_history: bool = False
    names: ToolNames = field(default_factory=ToolNames, repr=False)
    warning: str = field(default="", repr=False)
    """The latest warning that the budget runs out: it stays true, so it is told with every later call."""
    model_calls: int = 0
    is_reminded: bool = False
    """The model was told, after its last answer, that this was no answer."""
    _round: _Round | None = field(default=None, repr=False)

    # -- what the model says ------------------------------------------------------------------------------------

    def says(self, content: str, calls: Sequence[ToolCall] = ()) -> tuple[ToolCall, ...]:
        """Keep an answer of the model's.

        Returns:
            Its calls in the form in which they can be told to the model again.
        """
        said: dict[str, Any] = {"role": "assistant", "content": content}
        told = _tellable(calls)
        if told:
            said["tool_calls"] = told
            self.is_reminded = False
        self.messages.append(said)
        return told

    def remind(self, text: str) -> None:
        """Tell the model that this was no answer."""
        self.is_reminded = True
        self.messages.append({"role": "user", "content": text})

    def tell(self, call: ToolCall, result: str) -> None:
        """Tell the model how a call has ended."""
        self.messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    # -- rounds -------------------------------------------------------------------------------------------------

    def begin_round(
        self, content: str, calls: Sequence[ToolCall], toolbox: Toolbox, metadata: HandlerMetadata, max_parallel: int
    ) -> list[HandlerResponse]:
        """Keep an answer of the model's, and make messages of the calls in it.

        Returns:
            Those to be sent now. None if no call became one: then the model was told so, and is to be asked again.
        """
        told = self.says(content, calls)
        messages: dict[int, HandlerResponse] = {}
        results: dict[int, str] = {}
        for place, call in enumerate(calls):
            try:
                messages[place] = toolbox.message(call)
            except UnusableCall as error:
                results[place] = error_text(error.code, str(error))
        if not messages:
            self._tell_all(told, results)
            return []
        join = get_joins().open(metadata, name=_JOIN, max_parallel=max_parallel)
        join.add(messages.values())
        self._round = _Round(told, results, tuple(messages), join)
        return join.due()

    def take(self, payload: Any, metadata: HandlerMetadata) -> bool:
        """Take a message in that came while the frame is open.

        Returns:
            Whether it was the last result of a round, so that the model is to be asked again. A message that is no
            result, such as a further answer of a peer's, changes nothing; a `BudgetWarning` is kept for the next call.
        """
        if isinstance(payload, BudgetWarning) and metadata.from_id == BUDGET_SENDER:
            self.warning = payload.message
            return False
        current = self._round
        result = None if current is None else current.join.take(payload, metadata)
        if current is None or result is None:
            return False
        current.results[current.places[result.index]] = result_text(result)
        if not current.join.is_complete:
            return False
        self._tell_all(current.calls, current.results)
        return True

    def due(self) -> list[HandlerResponse]:
        """Calls of the open round that had to wait for others to end."""
        return [] if self._round is None else self._round.join.due()

    def _tell_all(self, calls: Sequence[ToolCall], results: Mapping[int, str]) -> None:
        for place, call in enumerate(calls):
            self.tell(call, results[place])


def _tellable(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Every call with an id of its own, a name that providers take, and arguments that JSON can carry."""
    told: list[ToolCall] = []
    ids: set[str] = set()
    for number, call in enumerate(calls):
        call_id = call.id
        while not call_id or call_id in ids:
            call_id = f"{call.id or 'call'}_{number}"
            number += len(calls)
        ids.add(call_id)
        arguments = call.arguments if _is_json(call.arguments) else {}
        told.append(ToolCall(call_id, tool_name_like(call.name), arguments, call.fault))
    return tuple(told)


def _is_json(arguments: Any) -> bool:
    try:
        json.dumps(dict(arguments), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class Dialogues:
    """The dialogues of one pump, by frame. A dialogue is forgotten when its frame closes.

    Args:
        registry: knows the frames.
    """

    def __init__(self, registry: ThreadRegistry | None = None) -> None:
        self._registry = registry or current_runtime().get(ThreadRegistry)
        self._dialogues: dict[str, Dialogue] = {}

    def open(self, thread_id: str, dialogue: Dialogue) -> None:
        """Keep a dialogue for as long as its frame is open.

        Raises:
            KeyError: the frame is not open.
        """
        self._registry.on_close(thread_id, lambda: self._dialogues.pop(thread_id, None))
        self._dialogues[thread_id] = dialogue

    def of(self, thread_id: str) -> Dialogue | None:
        """The dialogue of a frame; ``None`` on its first turn."""
        return self._dialogues.get(thread_id)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._dialogues)


def get_dialogues() -> Dialogues:
    """The dialogues of the current pump."""
    return current_runtime().get(Dialogues)
