"""`ModelAgent`: the handler of an agent that is written in no language but its prompt's.

On the first turn of a frame the model is given the prompt, what it says about answering (`_instructions`), the agent's
history in the conversation, and what arrived: the text of a `TextInput` as it is, any other payload as canonical XML.
What it calls becomes messages to peers; their results, and it is asked again; and so on, until it answers.

=============================== =======================================================================================
the model answers with          what is done
=============================== =======================================================================================
calls                           they are carried out together; all results go back in one further model call
text, where text is wanted      answered, as `TextOutput`; its status is ``cut`` if the provider stopped in the middle
a call of `RESPOND`, alone,     answered, if it fits the class; else the model is told why not, and asked again
where a class is wanted
`RESPOND` beside other calls    the others are carried out, and `RESPOND` is not: what it says was said without
                                knowing their results
text, where a class is wanted   one reminder, then the frame fails
nothing                         the same
=============================== =======================================================================================

Every model call counts, reminders and calls after mistakes among them. Where ``max_model_calls`` do not lead to an
answer, the caller gets `SystemError` with the code ``hops``; where the conversation's budget does not suffice, with
``budget``; where a model call fails, with ``handler``.

Only results lead to a further model call. A warning that the budget runs out is told with the next one; everything else
that may come on a frame, such as further answers of a peer, is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.errors import HopLimitError
from xml_pipeline.message_bus.directory import get_directory
from xml_pipeline.message_bus.message_state import HandlerMetadata, HandlerResponse, SystemError
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.platform.dialogue import Dialogue, get_dialogues
from xml_pipeline.platform.history import MAX_HISTORY_CHARS, history_messages, keep_answer, xml_text
from xml_pipeline.platform.model_call import call_model
from xml_pipeline.platform.prompt_registry import get_prompt_registry
from xml_pipeline.platform.tool_names import RESPOND
from xml_pipeline.platform.tool_results import error_text
from xml_pipeline.platform.tools import Toolbox, UnusableCall
from xml_pipeline.primitives.text import TextInput, TextOutput

if TYPE_CHECKING:
    from xml_pipeline.config import ListenerConfig
    from xml_pipeline.llm import LLMResponse

__all__ = ["ModelAgent", "make_model_agent"]

logger = logging.getLogger(__name__)

_Result = HandlerResponse | list[HandlerResponse] | None

_GRACE: Final = 1.0
"""Seconds that a model call may take longer than its turn, so that it is the turn whose time is up."""
_CUT: Final = "length"
"""Why an answer ended that was longer than it may be, as backends say it."""
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry (production 2)."""


class ModelAgent:
    """Handles an agent's messages by asking a model, with the agent's peers as its tools.

    ::

        pump.register("helper", ModelAgent(prompt="You help."), TextInput, agent=True, peers=["search"], timeout=120)

    The listener must be an agent. Its ``output_class`` is what the model has to answer with; without one, or with
    `TextOutput`, the model's text is answered as `TextOutput`. Its ``timeout`` bounds each turn, and so each model call
    with all its attempts. Its own prompt and model, where it has them, win over those given here.

    Args:
        prompt: who the agent is and what it does.
        model: the model's name; empty, the default, for the router's default.
        temperature: 0 to 2; ``None``, the default, for the provider's.
        max_tokens: of one answer of the model's; ``None``, the default, for the provider's.
        max_model_calls: model calls on one frame; default 25.
        max_parallel: calls of one answer that are open at a time; default 10.
        max_history_chars: characters of the agent's history in the conversation that the model is told; the oldest
            that do not fit are left out. Default 100,000; 0 for none.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        *,
        prompt: str = "",
        model: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_model_calls: int = 25,
        max_parallel: int = 10,
        max_history_chars: int = MAX_HISTORY_CHARS,
    ) -> None:
        self.prompt = _text("prompt", prompt)
        self.model = _text("model", model)
        self.temperature = _temperature(temperature)
        self.max_tokens = None if max_tokens is None else _count("max_tokens", max_tokens)
        self.max_model_calls = _count("max_model_calls", max_model_calls)
        self.max_parallel = _count("max_parallel", max_parallel)
        self.max_history_chars = _count("max_history_chars", max_history_chars, least=0)

    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> _Result:
        """Handle one turn.

        Raises:
            BudgetExhausted: the conversation has no budget left for a model call.
            RuntimeError: a model call failed, or the model does not answer. The text tells why, and carries no key.
        """
        dialogue = get_dialogues().of(metadata.thread_id)
        if dialogue is None:
            dialogue = self._begin(payload, metadata)
        elif not dialogue.take(payload, metadata):
            return dialogue.due() or None
        while dialogue.model_calls < self.max_model_calls:
            result = await self._ask(dialogue, metadata)
            if result is not None:
                return result
        logger.warning(
            "agent %r has not answered after %d model calls on one frame (max_model_calls)",
            metadata.own_name,
            self.max_model_calls,
        )
        return HandlerResponse.respond(SystemError.of(HopLimitError()))

    def __repr__(self) -> str:
        return f"<ModelAgent, model {self.model!r}>"

    # -- a frame begins -----------------------------------------------------------------------------------------

    def _begin(self, payload: Any, metadata: HandlerMetadata) -> Dialogue:
        name, thread_id = metadata.own_name, metadata.thread_id
        frame = get_registry().frame(thread_id)
        if name is None or frame is None or frame.listener is None:
            raise RuntimeError("a ModelAgent must be the handler of an agent: register it with agent=True")
        output_class = frame.listener.output_class
        registered = get_prompt_registry().get(name)
        history = history_messages(metadata.conversation_id, name, self.max_history_chars, without_thread=thread_id)
        dialogue = Dialogue(
            self.prompt if registered is None else registered.system_prompt,
            (registered is not None and registered.model) or self.model,
            None if output_class is TextOutput else output_class,
            [*history, {"role": "user", "content": _asked(payload)}],
            bool(history),
        )
        get_dialogues().open(thread_id, dialogue)
        return dialogue

    # -- a model call -------------------------------------------------------------------------------------------

    async def _ask(self, dialogue: Dialogue, metadata: HandlerMetadata) -> _Result:
        """Ask the model; ``None`` if it is to be asked again."""
        toolbox = Toolbox(get_directory().callable_from(metadata.thread_id), dialogue.names, dialogue.output_class)
        dialogue.model_calls += 1
        response = await self._call(dialogue, toolbox, metadata)
        content, calls = response.content, response.tool_calls
        if not calls:
            return self._hear_text(dialogue, response, metadata)
        if not toolbox.is_answer(calls):
            return dialogue.begin_round(content, calls, toolbox, metadata, self.max_parallel) or None
        try:
            return _answered(toolbox.answer(calls[0]), metadata)
        except UnusableCall as error:
            (told,) = dialogue.says(content, calls)
            dialogue.tell(told, error_text(error.code, str(error)))
            return None

    async def _call(self, dialogue: Dialogue, toolbox: Toolbox, metadata: HandlerMetadata) -> LLMResponse:
        told = [dialogue.prompt, _instructions(dialogue, toolbox, metadata), metadata.todo_nudge, dialogue.warning]
        messages = [{"role": "system", "content": text} for text in told if text]
        failure = ""
        try:
            return await call_model(
                metadata.own_name or "",
                metadata.thread_id,
                [*messages, *dialogue.messages],
                model=dialogue.model,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                tools=toolbox.tools or None,
                timeout=_time_left(metadata),
            )
        except RuntimeError as error:
            failure = str(error)
        # Without its causes, whose texts nobody knows: the pump logs what a handler raises.
        raise RuntimeError(failure)

    def _hear_text(self, dialogue: Dialogue, response: LLMResponse, metadata: HandlerMetadata) -> _Result:
        text = _NOT_XML.sub("\ufffd", response.content or "")
        is_empty = not text.strip()
        if not is_empty and dialogue.output_class is None:
            return _answered(TextOutput(text, "cut" if response.finish_reason == _CUT else "ok"), metadata)
        fault = "answered nothing" if is_empty else f"answered in plain text, without calling {RESPOND!r}"
        if dialogue.is_reminded:
            raise RuntimeError(
                f"the model of agent {metadata.own_name!r} {fault}, although it was reminded "
                f"(it stopped for the reason {response.finish_reason!r:.40})"
            )
        if not is_empty:
            dialogue.says(text)
        wanted = "answer in plain text" if dialogue.output_class is None else f"call {RESPOND!r} with your answer"
        dialogue.remind(f"System note: you {fault}, so nothing was sent. Call a tool, or {wanted}.")
        return None


def make_model_agent(config: ListenerConfig) -> ModelAgent:
    """The handler of a listener that is declared without one.

    Args:
        config: an agent's.
    """
    return ModelAgent(
        prompt=config.prompt,
        model=config.model,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        max_model_calls=config.max_model_calls,
        max_history_chars=config.max_history_chars,
    )


# -- what the model is told -----------------------------------------------------------------------------------------


def _instructions(dialogue: Dialogue, toolbox: Toolbox, metadata: HandlerMetadata) -> str:
    """How to call, and how to answer."""
    lines = [f"You are the agent {metadata.own_name!r}. You are given messages, and answer each of them."]
    if dialogue.has_history:
        lines.append(
            "First you see what you heard and said earlier in this conversation, as XML with its sender; do not write "
            "so yourself. What you are to answer now comes after that."
        )
    if len(toolbox.tools) > (dialogue.output_class is not None):
        lines.append(
            "Your tools are others that you may ask. The result of a call is what they answer, or an error with a "
            "code. Calls that you make in one answer are carried out at the same time."
        )
    if dialogue.output_class is None:
        lines.append(
            "An answer without calls is your final one: its text is sent to whoever asked you, as it is, and ends this "
            "task. So call what you need first, and wait for the results."
        )
    else:
        lines.append(
            f"When you have all you need, call {RESPOND!r}, and nothing else beside it: its arguments are your final "
            "answer, which is sent to whoever asked you and ends this task. Text that you write reaches nobody."
        )
    return "\n".join(lines)


def _asked(payload: Any) -> str:
    """What the agent is asked. A blank text is shown in its XML: providers refuse messages without any text."""
    if isinstance(payload, TextInput) and payload.text.strip():
        return payload.text
    return xml_text(payload)


def _answered(payload: Any, metadata: HandlerMetadata) -> HandlerResponse:
    keep_answer(metadata.own_name or "", metadata.thread_id, payload)
    return HandlerResponse.respond(payload)


def _time_left(metadata: HandlerMetadata) -> float | None:
    if not metadata.deadline:
        return None
    return max(metadata.deadline - asyncio.get_running_loop().time(), 0.0) + _GRACE


# -- checking arguments ---------------------------------------------------------------------------------------------


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {type(value).__name__}")
    return value


def _count(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def _temperature(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"temperature must be a number or None, not {type(value).__name__}")
    if not 0 <= value <= 2:
        raise ValueError(f"temperature must be between 0 and 2, not {value}")
    return float(value)
