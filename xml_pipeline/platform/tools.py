"""`Toolbox`: the peers of an agent as tools of its model, and what the model asks for as messages.

======================= ===============================================================================================
peer                    tools
======================= ===============================================================================================
listener of one class   one, with the class's JSON Schema
of several classes      one for each class
generic listener        one, whose only argument is the payload as XML text: any element in no namespace
broadcast group         as a listener. Each member gets the message; the first member's answer, or error, is the result
======================= ===============================================================================================

The peers are those that the pump lets the agent call at that moment, in that conversation. Whether a call may be made
is decided once more when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from third_party.xmlable import Codec, XError, codec_of
from xml_pipeline.errors import ValidationError
from xml_pipeline.llm.request import Tool, ToolCall
from xml_pipeline.message_bus.message_state import ROUTING_ERROR, HandlerResponse
from xml_pipeline.platform.tool_names import RESPOND, ToolKey, ToolNames
from xml_pipeline.primitives.fragments import parse_payloads

if TYPE_CHECKING:
    from xml_pipeline.message_bus.directory import ListenerInfo

__all__ = ["Toolbox", "UnusableCall"]

_INVALID: Final = ValidationError.code
_MAX_DESCRIPTION: Final = 1_024
"""Characters; OpenAI refuses more."""
_XML: Final = "xml"
_ANY_PAYLOAD: Final = {
    "type": "object",
    "properties": {_XML: {"type": "string", "description": "The payload: one XML element, in no namespace."}},
    "required": [_XML],
    "additionalProperties": False,
}


class UnusableCall(Exception):
    """What a model asks for cannot be sent. The text is for the model.

    Args:
        code: one of the codes of `SystemError`.
        message: what is wrong with it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Toolbox:
    """The tools for one model call.

    Args:
        peers: whom the agent may call.
        names: the tools' names, as far as the dialogue has given them.
        output_class: the class of the agent's answer, given by the tool `RESPOND`; ``None`` if it answers in text.
    """

    def __init__(self, peers: Sequence[ListenerInfo], names: ToolNames, output_class: type | None = None) -> None:
        self._output: Codec[Any] | None = None if output_class is None else codec_of(output_class)
        self._targets: dict[str, tuple[str, Codec[Any] | None]] = {}
        self.tools: list[Tool] = []
        offers = [(peer, key, codec) for peer in peers for key, codec in _offers(peer)]
        named = names.of(key for _, key, _ in offers)
        for peer, key, codec in offers:
            name = named[key]
            self._targets[name] = (peer.name, codec)
            self.tools.append(Tool(name, _description(peer), _ANY_PAYLOAD if codec is None else _parameters(codec)))
        if self._output is not None:
            told = "Give your answer. It is sent to whoever asked you, and ends this task."
            self.tools.append(Tool(RESPOND, told, _parameters(self._output)))

    def message(self, call: ToolCall) -> HandlerResponse:
        """The message that a model asks for.

        Raises:
            UnusableCall: there is no such tool, the arguments do not fit it, or it is `RESPOND`, which is no message.
        """
        if call.name == RESPOND:
            raise UnusableCall(_INVALID, self._not_now())
        target = self._targets.get(call.name)
        if target is None:
            raise UnusableCall(ROUTING_ERROR.code, f"there is no tool {call.name!r:.80}")
        listener, codec = target
        arguments = _arguments(call)
        payload = _element(arguments) if codec is None else _payload(codec, arguments)
        return HandlerResponse.call(payload, listener)

    def is_answer(self, calls: Sequence[ToolCall]) -> bool:
        """Whether this is an answer, and no request for messages: a call of `RESPOND`, alone.

        An answer ends the frame. What a model says beside calls whose results it does not know is not taken for one.
        """
        return self._output is not None and len(calls) == 1 and calls[0].name == RESPOND

    def answer(self, call: ToolCall) -> Any:
        """The payload that a model answers with.

        Raises:
            UnusableCall: the arguments do not fit.
        """
        assert self._output is not None  # for the type checker: is_answer was asked
        return _payload(self._output, _arguments(call))

    def _not_now(self) -> str:
        if self._output is None:
            return f"there is no tool {RESPOND!r}: answer in plain text"
        return f"{RESPOND!r} was not carried out: call it alone, once you know the results of all other calls"


def _offers(peer: ListenerInfo) -> Iterator[tuple[ToolKey, Codec[Any] | None]]:
    if peer.is_generic:
        yield ToolKey(peer.name), None
        return
    codecs: list[Codec[Any]] = [codec_of(cls) for cls in peer.payload_classes]
    for codec in codecs:
        yield ToolKey(peer.name, codec.name if len(codecs) > 1 else ""), codec


def _description(peer: ListenerInfo) -> str:
    parts = [peer.description or f"The peer {peer.name!r}."]
    if peer.is_generic:
        parts.append("Takes any payload.")
    if peer.group == peer.name:
        parts.append("The result is the first answer.")
    text = " ".join(parts)
    return text if len(text) <= _MAX_DESCRIPTION else f"{text[: _MAX_DESCRIPTION - 1]}…"


def _parameters(codec: Codec[Any]) -> dict[str, Any]:
    """The class's JSON Schema, without what some providers object to at its root."""
    return {key: value for key, value in codec.json_schema().items() if key not in ("$schema", "title")}


def _arguments(call: ToolCall) -> dict[str, Any]:
    if call.fault:
        raise UnusableCall(_INVALID, call.fault)
    if not isinstance(call.arguments, Mapping):  # of a backend of the user's
        raise UnusableCall(_INVALID, "the arguments are no object")
    return dict(call.arguments)


def _payload(codec: Codec[Any], arguments: dict[str, Any]) -> Any:
    try:
        payload = codec.from_json(arguments)
        codec.encode(payload)  # what XML cannot carry, such as control characters, the model is to hear of, too
    except XError as error:
        raise UnusableCall(_INVALID, f"the arguments do not fit: {error}") from None
    return payload


def _element(arguments: dict[str, Any]) -> Any:
    text = arguments.get(_XML)
    if not isinstance(text, str) or len(arguments) != 1:
        raise UnusableCall(_INVALID, f"the only argument is {_XML!r}, a text")
    try:
        elements = parse_payloads(text)
    except ValidationError as error:
        raise UnusableCall(_INVALID, f"the argument {_XML!r} is not a payload: {error.detail}") from None
    if len(elements) != 1:
        raise UnusableCall(_INVALID, f"the argument {_XML!r} must be one element, not {len(elements)}")
    return elements[0]
