"""The dialect of OpenAI's chat completions, which xAI, Ollama, vLLM and many others speak too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Unpack

from xml_pipeline.llm.errors import ProviderError
from xml_pipeline.llm.estimate import completion_tokens, usage_of
from xml_pipeline.llm.http_backend import HttpBackend, HttpOptions
from xml_pipeline.llm.providers import OPENAI_COMPATIBLE
from xml_pipeline.llm.refusals import failure_told
from xml_pipeline.llm.request import LLMRequest, LLMResponse, Tool, ToolCall
from xml_pipeline.llm.secret import Secret
from xml_pipeline.llm.shape import Shape, arguments_of, cut
from xml_pipeline.llm.sse import ServerSentEvent
from xml_pipeline.llm.temperature import takes_temperature
from xml_pipeline.llm.text_pieces import TextPieces
from xml_pipeline.llm.tool_calls import ToolCallPieces, call_id
from xml_pipeline.llm.turns import Turn, turns_of

__all__ = ["OpenAICompatibleBackend", "OpenAIDialect"]


class OpenAICompatibleBackend(HttpBackend):
    """A server that speaks the dialect of OpenAI's chat completions.

    Args:
        provider: ``openai``, ``xai``, ``ollama`` (at ``http://localhost:11434``), or ``openai-compatible`` for any
            other, such as vLLM, which needs a ``base_url``. The last two need no key, and serve any model unless
            ``models`` names some.
        **options: ``api_key`` or ``api_key_env``, ``base_url``, ``timeout`` ..., as for `HttpBackend`.

    Raises:
        ValueError: the provider is another one, its key is missing, or a setting is wrong.
        ImportError: the HTTP library is not installed.
    """

    def __init__(self, provider: str = "openai", **options: Unpack[HttpOptions]) -> None:
        known = OPENAI_COMPATIBLE.get(provider)
        if known is None:
            raise ValueError(f"provider must be one of {', '.join(OPENAI_COMPATIBLE)}, not {provider!r:.80}")
        super().__init__(known, lambda name, secret: OpenAIDialect(provider, name, secret), **options)


class OpenAIDialect:
    """Writes requests and reads answers.

    Args:
        provider: who it is; some fields differ.
        source: the backend's name, for the texts of errors.
        secret: what must not be in those.
    """

    path = "/chat/completions"
    headers: Mapping[str, str] = {}

    def __init__(self, provider: str, source: str, secret: Secret) -> None:
        self._provider = provider
        self._source = source
        self._secret = secret

    def sign(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key."""
        return {"authorization": f"Bearer {key}"}

    def encode(self, request: LLMRequest, *, stream: bool) -> dict[str, Any]:
        """The request's JSON."""
        document: dict[str, Any] = {
            "model": request.model,
            "messages": [_message(turn) for turn in turns_of(request)],
        }
        if request.temperature is not None and takes_temperature(self._provider, request.model):
            document["temperature"] = request.temperature
        if request.max_tokens is not None:
            # OpenAI's newer models refuse the old name, other servers do not know the new one.
            document["max_completion_tokens" if self._provider == "openai" else "max_tokens"] = request.max_tokens
        if request.tools:
            document["tools"] = [_tool(tool) for tool in request.tools]
        if stream:
            document["stream"] = True
            document["stream_options"] = {"include_usage": True}
        return document

    def decode(self, request: LLMRequest, body: bytes) -> LLMResponse:
        """The answer that a body holds."""
        shape = Shape(self._source)
        document = shape.json(body)
        if document.get("error"):
            raise failure_told(self._source, document["error"], self._secret)
        choices = shape.sequence(document.get("choices"), "choices")
        if not choices:
            shape.fail("choices is empty")
        choice = shape.mapping(choices[0], "choices[0]")
        message = shape.mapping(choice.get("message"), "choices[0].message")
        content, was_cut = cut(_content(shape, message, "choices[0].message"))
        return _response(
            request,
            content=content,
            was_cut=was_cut,
            calls=_tool_calls(shape, message),
            model=shape.text_or_nothing(document.get("model"), "model"),
            reason=shape.text_or_nothing(choice.get("finish_reason"), "choices[0].finish_reason"),
            said=_usage(shape, document.get("usage")),
            raw=document,
        )

    def reader(self, request: LLMRequest) -> OpenAIReader:
        """For a streamed answer."""
        return OpenAIReader(request, self._source, self._secret)


class OpenAIReader:
    """Puts a streamed answer together: deltas of the text and of tool calls, then the reason, then the usage.

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
        if event.data.strip() == "[DONE]":
            self.done = True
            return ""
        chunk = self._shape.json(event.data, "an event")
        if chunk.get("error") or event.event == "error":
            raise failure_told(self._source, chunk.get("error") or chunk, self._secret)
        self._model = self._model or self._shape.text_or_nothing(chunk.get("model"), "model")
        if chunk.get("usage") is not None:
            self._usage = _usage(self._shape, chunk["usage"])
        choices = self._shape.sequence(chunk.get("choices"), "choices")
        self._began = self._began or bool(choices)
        return "".join(self._choice(choice) for choice in choices)

    def finish(self) -> LLMResponse:
        """The whole answer.

        Raises:
            ProviderError: the stream ended before the answer did. Some servers end it without ``[DONE]``; then the
                reason says that the answer is complete.
        """
        if not self.done and not self._reason:
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

    def _choice(self, value: Any) -> str:
        choice = self._shape.mapping(value, "choices[0]")
        if choice.get("index") not in (None, 0):
            return ""
        self._reason = self._shape.text_or_nothing(choice.get("finish_reason"), "finish_reason") or self._reason
        if choice.get("delta") is None:
            return ""
        delta = self._shape.mapping(choice["delta"], "delta")
        if delta.get("tool_calls") is not None:
            for piece in self._shape.sequence(delta["tool_calls"], "delta.tool_calls"):
                self._tool_call(self._shape.mapping(piece, "delta.tool_calls[]"))
        return self._text.add(_content(self._shape, delta, "delta"))

    def _tool_call(self, piece: Mapping[str, Any]) -> None:
        shape = self._shape
        named = shape.text_or_nothing(piece.get("id"), "delta.tool_calls[].id")
        function = shape.mapping(piece.get("function") or {}, "delta.tool_calls[].function")
        self._calls.add(
            self._index(piece.get("index"), new=bool(named)),
            id=named,
            name=shape.text_or_nothing(function.get("name"), "delta.tool_calls[].function.name"),
            arguments=_written(shape, function.get("arguments"), "delta.tool_calls[].function.arguments"),
        )

    def _index(self, value: Any, *, new: bool) -> int:
        """Which call a piece belongs to. Some servers leave the index out; then an id begins a new call."""
        if value is None:
            return self._calls.last + 1 if new else max(self._calls.last, 0)
        index = self._shape.count(value, "delta.tool_calls[].index")
        return 0 if index is None else index


# -- writing ------------------------------------------------------------------------------------------------------


def _message(turn: Turn) -> dict[str, Any]:
    if turn.role == "tool":
        return {"role": "tool", "tool_call_id": turn.tool_call_id, "content": turn.content}
    if turn.tool_calls:
        calls = [_call(call) for call in turn.tool_calls]
        return {"role": turn.role, "content": turn.content or None, "tool_calls": calls}
    return {"role": turn.role, "content": turn.content}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False, default=str)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


# -- reading ------------------------------------------------------------------------------------------------------


def _content(shape: Shape, message: Mapping[str, Any], where: str) -> str:
    """The text; or that in which the model refuses, which stands elsewhere."""
    content = shape.text_or_nothing(message.get("content"), f"{where}.content")
    return content or shape.text_or_nothing(message.get("refusal"), f"{where}.refusal")


def _tool_calls(shape: Shape, message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    if message.get("tool_calls") is None:
        return ()
    found = []
    for number, value in enumerate(shape.sequence(message["tool_calls"], "tool_calls")):
        where = f"tool_calls[{number}]"
        call = shape.mapping(value, where)
        function = shape.mapping(call.get("function"), f"{where}.function")
        name = shape.text(function.get("name"), f"{where}.function.name")
        if not name:
            shape.fail(f"{where}.function.name is empty")
        written = _written(shape, function.get("arguments"), f"{where}.function.arguments")
        found.append(arguments_of(call_id(shape.text_or_nothing(call.get("id"), f"{where}.id")), name, written))
    return tuple(found)


def _written(shape: Shape, arguments: Any, where: str) -> str:
    """A tool's arguments as the protocol has them, a text with JSON in it; some servers send the object itself."""
    return json.dumps(arguments) if isinstance(arguments, dict) else shape.text_or_nothing(arguments, where)


def _usage(shape: Shape, value: Any) -> tuple[int | None, int | None]:
    """Tokens of the request and of the answer.

    xAI counts reasoning in the total only, so that what the total has beyond the request is the answer.
    """
    if value is None:
        return None, None
    usage = shape.mapping(value, "usage")
    prompt = shape.count(usage.get("prompt_tokens"), "usage.prompt_tokens")
    completion = shape.count(usage.get("completion_tokens"), "usage.completion_tokens")
    total = shape.count(usage.get("total_tokens"), "usage.total_tokens")
    if total is not None and prompt is not None:
        completion = max(completion or 0, total - prompt)
    return prompt, completion


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
    if was_cut:
        reason = "length"
    elif calls and reason in ("", "stop"):  # what some servers say all the same
        reason = "tool_calls"
    usage = usage_of(*said, request, completion_tokens(content, calls))
    return LLMResponse(content, model or request.model, usage, reason or "stop", raw, calls)
