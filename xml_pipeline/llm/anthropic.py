"""The dialect of Anthropic's messages: https://docs.anthropic.com/en/api/messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Unpack

from xml_pipeline.llm.backend import whole_number
from xml_pipeline.llm.errors import ProviderError, RequestRefused
from xml_pipeline.llm.estimate import completion_tokens, usage_of
from xml_pipeline.llm.http_backend import HttpBackend, HttpOptions
from xml_pipeline.llm.providers import ANTHROPIC
from xml_pipeline.llm.refusals import failure_told
from xml_pipeline.llm.request import LLMRequest, LLMResponse, Tool, ToolCall
from xml_pipeline.llm.secret import Secret
from xml_pipeline.llm.shape import Shape, cut, tool_call
from xml_pipeline.llm.sse import ServerSentEvent
from xml_pipeline.llm.temperature import takes_temperature
from xml_pipeline.llm.text_pieces import TextPieces
from xml_pipeline.llm.tool_calls import ToolCallPieces, call_id
from xml_pipeline.llm.turns import Turn, turns_of

__all__ = ["AnthropicBackend", "AnthropicDialect"]

_MAX_TOKENS: Final = 4096
"""The protocol demands a limit. Every model has allowed this one so far."""
_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
_NO_ID: Final = re.compile(r"[^A-Za-z0-9_-]")


class AnthropicBackend(HttpBackend):
    """Anthropic's server, or one that speaks like it.

    Args:
        max_tokens: the limit for requests that give none, which the protocol demands; default 4096.
        **options: ``api_key`` or ``api_key_env``, ``base_url``, ``timeout`` ..., as for `HttpBackend`.

    Raises:
        ValueError: the key is missing, or a setting is wrong.
        ImportError: the HTTP library is not installed.
    """

    def __init__(self, *, max_tokens: int = _MAX_TOKENS, **options: Unpack[HttpOptions]) -> None:
        limit = whole_number("max_tokens", max_tokens, 1)
        super().__init__(ANTHROPIC, lambda name, secret: AnthropicDialect(name, secret, limit), **options)


class AnthropicDialect:
    """Writes requests and reads answers.

    Args:
        source: the backend's name, for the texts of errors.
        secret: what must not be in those.
        max_tokens: the limit for requests that give none.
    """

    path = "/messages"
    headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}

    def __init__(self, source: str, secret: Secret, max_tokens: int = _MAX_TOKENS) -> None:
        self._source = source
        self._secret = secret
        self._max_tokens = max_tokens

    def sign(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"x-api-key": key}

    def encode(self, request: LLMRequest, *, stream: bool) -> dict[str, Any]:
        """The request's JSON. All system messages, wherever they stand, become the one system prompt, in order."""
        turns = turns_of(request)
        system = "\n\n".join(turn.content for turn in turns if turn.role == "system" and turn.content)
        messages = _messages(turn for turn in turns if turn.role != "system")
        if not messages:
            raise RequestRefused(f"{self._source}: the request is wrong: there is nothing in it but system messages")
        document: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_tokens or self._max_tokens,
            "messages": messages,
        }
        if system:
            document["system"] = system
        if request.temperature is not None and takes_temperature("anthropic", request.model):
            document["temperature"] = request.temperature
        if request.tools:
            document["tools"] = [_tool(tool) for tool in request.tools]
        if stream:
            document["stream"] = True
        return document

    def decode(self, request: LLMRequest, body: bytes) -> LLMResponse:
        """The answer that a body holds: text blocks joined, tool uses as tool calls, other blocks left out."""
        shape = Shape(self._source)
        document = shape.json(body)
        if document.get("type") == "error" or document.get("error"):
            raise failure_told(self._source, document.get("error"), self._secret)
        texts: list[str] = []
        calls: list[ToolCall] = []
        for number, value in enumerate(shape.sequence(document.get("content"), "content")):
            block = shape.mapping(value, f"content[{number}]")
            kind = shape.text(block.get("type"), f"content[{number}].type")
            if kind == "text":
                texts.append(shape.text(block.get("text"), f"content[{number}].text"))
            elif kind == "tool_use":
                calls.append(_tool_use(shape, block, f"content[{number}]"))
        content, was_cut = cut("".join(texts))
        return _response(
            request,
            content=content,
            was_cut=was_cut,
            calls=tuple(calls),
            model=shape.text_or_nothing(document.get("model"), "model"),
            reason=shape.text_or_nothing(document.get("stop_reason"), "stop_reason"),
            said=_usage(shape, document.get("usage"), (None, None)),
            raw=document,
        )

    def reader(self, request: LLMRequest) -> AnthropicReader:
        """For a streamed answer."""
        return AnthropicReader(request, self._source, self._secret)


class AnthropicReader:
    """Puts a streamed answer together: the message's start, its blocks one after another, its end.

    Kinds of events and blocks that are not known are left out: the protocol says that there will be more.

    Args:
        request: what was asked.
        source: the backend's name.
        secret: what must not be in an error.
    """

    def __init__(self, request: LLMRequest, source: str, secret: Secret) -> None:
        self.done = False
        self._request = request
        self._source = source
        self._secret = secret
        self._shape = Shape(source, "stream")
        self._text = TextPieces()
        self._calls = ToolCallPieces(self._shape)
        self._model = ""
        self._reason = ""
        self._usage: tuple[int | None, int | None] = (None, None)
        self._began = False

    def feed(self, event: ServerSentEvent) -> str:
        """Take an event; the text that is new in it."""
        shape = self._shape
        document = shape.json(event.data, "an event")
        kind = shape.text(document.get("type"), "an event's type")
        if kind == "error":
            raise failure_told(self._source, document.get("error"), self._secret)
        if kind == "message_start":
            message = shape.mapping(document.get("message"), "message")
            self._began = True
            self._model = shape.text_or_nothing(message.get("model"), "message.model")
            self._usage = _usage(shape, message.get("usage"), self._usage)
        elif kind == "content_block_start":
            return self._block_start(shape.mapping(document.get("content_block"), "content_block"), document)
        elif kind == "content_block_delta":
            return self._block_delta(shape.mapping(document.get("delta"), "delta"), document)
        elif kind == "message_delta":
            delta = shape.mapping(document.get("delta"), "delta")
            self._reason = shape.text_or_nothing(delta.get("stop_reason"), "delta.stop_reason") or self._reason
            self._usage = _usage(shape, document.get("usage"), self._usage)
        elif kind == "message_stop":
            self.done = True
        return ""

    def finish(self) -> LLMResponse:
        """The whole answer.

        Raises:
            ProviderError: the stream ended before the answer did.
        """
        if not self.done:
            raise ProviderError(f"{self._source}: the stream was cut before the answer was complete")
        if not self._began:
            self._shape.fail("it has no answer in it")
        return _response(
            self._request,
            content=str(self._text),
            was_cut=self._text.was_cut,
            calls=self._calls.calls(),
            model=self._model,
            reason=self._reason,
            said=self._usage,
            raw=None,
        )

    def _block_start(self, block: Mapping[str, Any], document: Mapping[str, Any]) -> str:
        shape = self._shape
        kind = shape.text(block.get("type"), "content_block.type")
        if kind == "text":
            return self._text.add(shape.text_or_nothing(block.get("text"), "content_block.text"))
        if kind == "tool_use":
            named = shape.text(block.get("id"), "content_block.id")
            self._calls.add(self._index(document), id=named, name=shape.text(block.get("name"), "content_block.name"))
        return ""

    def _block_delta(self, delta: Mapping[str, Any], document: Mapping[str, Any]) -> str:
        shape = self._shape
        kind = shape.text(delta.get("type"), "delta.type")
        if kind == "text_delta":
            return self._text.add(shape.text(delta.get("text"), "delta.text"))
        # Tools that the provider itself runs have such deltas, too; they are not in the list.
        if kind == "input_json_delta" and self._index(document) in self._calls:
            written = shape.text(delta.get("partial_json"), "delta.partial_json")
            self._calls.add(self._index(document), arguments=written)
        return ""

    def _index(self, document: Mapping[str, Any]) -> int:
        index = self._shape.count(document.get("index"), "index")
        if index is None:
            self._shape.fail("index is missing or null")
        return index


# -- writing ------------------------------------------------------------------------------------------------------


def _messages(turns: Iterable[Turn]) -> list[dict[str, Any]]:
    """Users and assistants by turns: neighbours of the same role become one message, the results of tools first, which
    are a user's here."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        role = "assistant" if turn.role == "assistant" else "user"
        blocks = _blocks(turn)
        if not blocks:
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += blocks
        else:
            messages.append({"role": role, "content": blocks})
    for message in messages:
        message["content"].sort(key=lambda block: block["type"] != "tool_result")
    return messages


def _blocks(turn: Turn) -> list[dict[str, Any]]:
    """Empty texts are left out: the protocol refuses them."""
    if turn.role == "tool":
        return [{"type": "tool_result", "tool_use_id": _id(turn.tool_call_id), "content": turn.content}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": turn.content}] if turn.content else []
    return blocks + [
        {"type": "tool_use", "id": _id(call.id), "name": call.name, "input": dict(call.arguments)}
        for call in turn.tool_calls
    ]


def _id(said: str) -> str:
    """The id of a call, as this protocol allows it; the call may have been made by another provider's model."""
    return _NO_ID.sub("_", said)


def _tool(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}


# -- reading ------------------------------------------------------------------------------------------------------


def _tool_use(shape: Shape, block: Mapping[str, Any], where: str) -> ToolCall:
    name = shape.text(block.get("name"), f"{where}.name")
    if not name:
        shape.fail(f"{where}.name is empty")
    arguments = shape.mapping(block.get("input"), f"{where}.input")
    return tool_call(call_id(shape.text(block.get("id"), f"{where}.id")), name, dict(arguments))


def _usage(shape: Shape, value: Any, before: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    """Tokens of the request and of the answer; what is not said now remains as it was before.

    What is written to the provider's cache, or read from it, is not in ``input_tokens``, but was sent.
    """
    if value is None:
        return before
    usage = shape.mapping(value, "usage")
    prompt = shape.count(usage.get("input_tokens"), "usage.input_tokens")
    if prompt is not None:
        for kind in ("cache_creation_input_tokens", "cache_read_input_tokens"):
            prompt += shape.count(usage.get(kind), f"usage.{kind}") or 0
    completion = shape.count(usage.get("output_tokens"), "usage.output_tokens")
    return before[0] if prompt is None else prompt, before[1] if completion is None else completion


def _response(
    request: LLMRequest,
    *,
    content: str,
    was_cut: bool,
    calls: tuple[ToolCall, ...],
    model: str,
    reason: str,
    said: tuple[int | None, int | None],
    raw: Any,
) -> LLMResponse:
    usage = usage_of(*said, request, completion_tokens(content, calls))
    reason = "length" if was_cut else _REASONS.get(reason, reason) or "stop"
    return LLMResponse(content, model or request.model, usage, reason, raw, calls)
