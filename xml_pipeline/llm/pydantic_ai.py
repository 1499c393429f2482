"""Models through pydantic-ai, which knows many providers more: https://ai.pydantic.dev.

Used is its direct request API: no agent of that library runs, and tools are called by whoever asked.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from xml_pipeline.config.problems import one_line
from xml_pipeline.llm.backend import BackendOptions, ModelBackend, seconds
from xml_pipeline.llm.errors import BackendError, MalformedResponse, ProviderError, RateLimitError, RequestRefused
from xml_pipeline.llm.estimate import completion_tokens, usage_of
from xml_pipeline.llm.patience import Patience
from xml_pipeline.llm.real_calls import check_real_call
from xml_pipeline.llm.refusals import error_for
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse, Tool, ToolCall
from xml_pipeline.llm.shape import arguments_of, cut, tool_call, well_formed
from xml_pipeline.llm.text_pieces import TextPieces
from xml_pipeline.llm.turns import Turn, turns_of

if TYPE_CHECKING:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

__all__ = ["PydanticAIBackend", "require_pydantic_ai"]

T = TypeVar("T")

_TEST: Final = "test"
"""That library's name for a model that calls nobody."""


def require_pydantic_ai() -> None:
    """See that the library is there; it takes half a second to import, which is better spent before the first call.

    Raises:
        ImportError: it is not; the text says how to install it.
    """
    try:
        import pydantic_ai.direct  # noqa: F401
    except ImportError:
        raise ImportError(
            "the pydantic-ai backend needs pydantic-ai: pip install 'xml-pipeline[pydantic-ai]', and with it what its "
            "provider needs, e.g. 'pydantic-ai-slim[google]'"
        ) from None


class PydanticAIBackend(ModelBackend):
    """Calls models through pydantic-ai.

    Args:
        model: one of that library's models, or its name there, such as ``google:gemini-2.5-flash``; every request goes
            to it. ``None``, the default, for the model that each request names in that form.
        timeout: seconds that a call may take in all, default 120; when streaming, that it may wait for the model in
            all.
        stream_timeout: seconds that a stream may be silent, default 60.
        **options: as for `ModelBackend`. Without ``models`` it serves the name of ``model``, or, if there is none,
            every name with a colon in it.

    Keys are that library's business: each of its providers reads a variable of its own, or is given a key when it is
    made. Our errors tell the kind of an error and its status, not what the provider said, which may repeat a key that
    we do not know.

    Raises:
        ValueError: an option is wrong.
        ImportError: the library is not installed.
    """

    def __init__(
        self,
        model: Model | str | None = None,
        *,
        timeout: float = 120.0,
        stream_timeout: float = 60.0,
        **options: Unpack[BackendOptions],
    ) -> None:
        require_pydantic_ai()
        super().__init__("pydantic-ai", **options)
        self.timeout = seconds("timeout", timeout)
        self.stream_timeout = seconds("stream_timeout", stream_timeout)
        self._model = model
        self._made: dict[str, Model] = {}

    def serves(self, model: str) -> bool:
        """Whether ``model`` can be asked for here."""
        if self.models or self._model is None:
            return model in self.models if self.models else ":" in model
        if isinstance(self._model, str):
            return model in (self._model, self._model.partition(":")[2])
        return model in (self._model.model_name, self._model.model_id)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer.

        Raises:
            BackendError: of the kind that says what to do about it.
        """
        model, messages = self._ready(request)
        answer = await self._ask(model, messages, request)
        if isinstance(answer, BackendError):
            raise answer
        return _response(request, answer, *cut(_text_of(answer)))

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The answer piece by piece; the last piece carries the whole.

        Raises:
            BackendError: of the kind that says what to do about it; also in the middle.
        """
        from pydantic_ai import direct

        model, messages = self._ready(request)
        patience = Patience(self.name, self.timeout, self.stream_timeout)
        text = TextPieces()
        async with AsyncExitStack() as stack:
            stream = await self._patiently(
                patience,
                lambda: stack.enter_async_context(
                    direct.model_request_stream(
                        model,
                        messages,
                        model_settings=_settings(request),
                        model_request_parameters=_parameters(request),
                    )
                ),
            )
            if isinstance(stream, BackendError):
                raise stream
            events = aiter(stream)
            while (event := await self._patiently(patience, lambda: anext(events, None))) is not None:
                if isinstance(event, BackendError):
                    raise event
                new = text.add(well_formed(_new_text(event)))
                if new:
                    yield LLMChunk(new)
            answer = stream.get()
        if answer.state != "complete" or (answer.finish_reason is None and not _is_local(model)):
            # Some of its models take a stream that just ends for one that is complete; only the reason tells.
            raise ProviderError(f"{self.name}: the stream was cut before the answer was complete")
        yield LLMChunk(response=_response(request, answer, str(text), text.was_cut))

    async def close(self) -> None:
        """Close the connections of the models that were made here by name. Twice is allowed."""
        made, self._made = self._made, {}
        for model in made.values():
            async with model:  # leaving it closes what it opened
                pass

    # -- how ----------------------------------------------------------------------------------------------------

    def _ready(self, request: LLMRequest) -> tuple[Model, list[ModelMessage]]:
        messages = _messages(turns_of(request))
        target = request.model if self._model is None else self._model
        if not isinstance(target, str):
            if not _is_local(target):
                check_real_call(self.name, target.base_url or "")
            return target, messages
        if target != _TEST:
            check_real_call(self.name)  # where it goes is known only after its provider was made, with a key
        if target not in self._made:
            made = self._make(target)
            if isinstance(made, BackendError):
                raise made
            self._made[target] = made
        return self._made[target], messages

    def _make(self, name: str) -> Model | BackendError:
        from pydantic_ai.exceptions import UserError
        from pydantic_ai.models import infer_model

        try:
            return infer_model(name)
        except (UserError, ImportError, ValueError) as exc:  # no key, no such provider, a library that is missing
            return RequestRefused(f"{self.name}: {one_line(str(exc))}")

    async def _ask(
        self, model: Model, messages: list[ModelMessage], request: LLMRequest
    ) -> ModelResponse | BackendError:
        from pydantic_ai import direct

        patience = Patience(self.name, self.timeout, self.timeout)
        return await self._patiently(
            patience,
            lambda: direct.model_request(
                model, messages, model_settings=_settings(request), model_request_parameters=_parameters(request)
            ),
        )

    async def _patiently(self, patience: Patience, wait: Callable[[], Awaitable[T]]) -> T | BackendError:
        """What ``wait`` gives; or an error, which is returned so that it does not refer to the library's own."""
        try:
            async with patience.waiting():
                return await wait()
        except TimeoutError:
            return patience.failure()
        except Exception as exc:  # every provider has a library of its own, and not all they raise is translated
            return self._failure(exc)

    def _failure(self, exc: Exception) -> BackendError:
        from pydantic_ai import exceptions as theirs

        status = exc.status_code if isinstance(exc, theirs.ModelHTTPError) else 0
        wait = exc.retry_after if isinstance(exc, theirs.ModelAPIError) else None
        text = f"{self.name}: {type(exc).__name__}" + (f", HTTP {status}" if status else "")
        if isinstance(exc, theirs.UserError):
            return RequestRefused(f"{self.name}: {one_line(str(exc))}")
        if isinstance(exc, theirs.ModelQuotaExceededError | theirs.ModelRequestRejectedError):
            return RequestRefused(text, status)
        if isinstance(exc, theirs.ContentFilterError):
            return RequestRefused(text)
        if isinstance(exc, theirs.ModelRateLimitError):
            return RateLimitError(text, wait)
        if isinstance(exc, theirs.UnexpectedModelBehavior):
            return MalformedResponse(f"Malformed response of {text}")
        return error_for(text, status, wait) if status else ProviderError(text, 0, wait)


def _is_local(model: Model) -> bool:
    """Whether a model, or what it wraps, calls nobody."""
    from pydantic_ai.models.function import FunctionModel
    from pydantic_ai.models.test import TestModel
    from pydantic_ai.models.wrapper import WrapperModel

    while isinstance(model, WrapperModel):
        model = model.wrapped
    return isinstance(model, TestModel | FunctionModel)


# -- writing ------------------------------------------------------------------------------------------------------


def _messages(turns: list[Turn]) -> list[ModelMessage]:
    from pydantic_ai import messages as theirs

    names = {call.id: call.name for turn in turns for call in turn.tool_calls}
    found: list[ModelMessage] = []
    parts: list[theirs.ModelRequestPart] = []
    for turn in turns:
        if turn.role == "assistant":
            found += [theirs.ModelRequest(parts)] if parts else []
            found.append(theirs.ModelResponse(_answer_parts(turn)))
            parts = []
        elif turn.role == "system":
            parts.append(theirs.SystemPromptPart(turn.content))
        elif turn.role == "user":
            parts.append(theirs.UserPromptPart(turn.content))
        else:
            name = names.get(turn.tool_call_id, "unknown")
            parts.append(theirs.ToolReturnPart(name, turn.content, turn.tool_call_id))
    return [*found, theirs.ModelRequest(parts)] if parts else found


def _answer_parts(turn: Turn) -> list[Any]:
    from pydantic_ai import messages as theirs

    text = [theirs.TextPart(turn.content)] if turn.content else []
    calls = [theirs.ToolCallPart(call.name, dict(call.arguments), call.id) for call in turn.tool_calls]
    return [*text, *calls]


def _settings(request: LLMRequest) -> ModelSettings:
    settings: ModelSettings = {}
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    if request.max_tokens is not None:
        settings["max_tokens"] = request.max_tokens
    return settings


def _parameters(request: LLMRequest) -> ModelRequestParameters:
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.tools import ToolDefinition

    def definition(tool: Tool) -> ToolDefinition:
        return ToolDefinition(
            name=tool.name, parameters_json_schema=dict(tool.parameters), description=tool.description
        )

    return ModelRequestParameters(function_tools=[definition(tool) for tool in request.tools or ()])


# -- reading ------------------------------------------------------------------------------------------------------


def _text_of(answer: ModelResponse) -> str:
    from pydantic_ai.messages import TextPart

    return well_formed("".join(part.content for part in answer.parts if isinstance(part, TextPart)))


def _new_text(event: Any) -> str:
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    text: str = ""
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        text = event.part.content
    elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        text = event.delta.content_delta
    return text


def _calls_of(answer: ModelResponse) -> tuple[ToolCall, ...]:
    from pydantic_ai.messages import ToolCallPart

    return tuple(
        tool_call(part.tool_call_id, part.tool_name, dict(part.args))
        if isinstance(part.args, dict)
        else arguments_of(part.tool_call_id, part.tool_name, part.args or "")
        for part in answer.parts
        if isinstance(part, ToolCallPart)
    )


def _response(request: LLMRequest, answer: ModelResponse, content: str, was_cut: bool) -> LLMResponse:
    calls = _calls_of(answer)
    usage = answer.usage
    said = bool(usage.input_tokens or usage.output_tokens)  # a provider that says nothing is 0 and 0 there
    counted = usage_of(
        usage.input_tokens if said else None,
        usage.output_tokens if said else None,
        request,
        completion_tokens(content, calls),
    )
    reason = answer.finish_reason or ("tool_calls" if calls else "stop")
    reason = "length" if was_cut else "tool_calls" if reason == "tool_call" else reason
    return LLMResponse(content, answer.model_name or request.model, counted, reason, answer, calls)
