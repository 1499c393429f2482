"""`ScriptedBackend`: a model that says what a script tells it to, for tests and for work without a network."""

from __future__ import annotations

import copy
import inspect
import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Final, Unpack

from xml_pipeline.config.problems import one_line, quoted
from xml_pipeline.llm.backend import BackendOptions, ModelBackend
from xml_pipeline.llm.errors import RequestRefused, ScriptExhausted
from xml_pipeline.llm.estimate import completion_tokens, usage_of
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse, ToolCall
from xml_pipeline.llm.script import Answer, Step, step_of
from xml_pipeline.llm.shape import cut
from xml_pipeline.llm.turns import check_request

__all__ = ["ScriptedBackend"]

_WORD: Final = re.compile(r"\S+\s*|\s+")
_KEPT: Final = 10_000
"""Requests that are remembered: more than a test makes, and few enough for a process that runs for months."""


class ScriptedBackend(ModelBackend):
    """Plays back a script.

    ::

        backend = ScriptedBackend(["Hello", ToolCall("", "search", {"q": "trains"}), RateLimitError("later", 2.0)])

    Each request takes one step: the first that is left whose ``when`` stands in the request's last message; if there is
    none, the first that is left and has no ``when``.

    Args:
        script: steps: a text, a `ToolCall` or a list of them, an `LLMResponse`, a `BackendError` to raise, a function
            (plain or async) that is given the request and returns one of these, or a `Step`. `script_from` makes them
            of what stands in YAML.
        repeat: begin anew with the steps that fit when all of them are played.
        **options: as for `ModelBackend`; without ``models`` it serves every model.

    Raises:
        TypeError: a step is none of these.
        ValueError: an option is wrong.
    """

    def __init__(
        self, script: Iterable[Answer | Step] = (), *, repeat: bool = False, **options: Unpack[BackendOptions]
    ) -> None:
        super().__init__("scripted", **options)
        self.repeat = repeat
        self._script = tuple(step_of(step) for step in script)
        self._played = [False] * len(self._script)
        self._requests: deque[LLMRequest] = deque(maxlen=_KEPT)
        self._calls = 0
        self._ids = 0

    @property
    def requests(self) -> list[LLMRequest]:
        """What was asked, in order; the last 10,000."""
        return list(self._requests)

    @property
    def calls(self) -> int:
        """How often it was asked."""
        return self._calls

    @property
    def left(self) -> tuple[Step, ...]:
        """The steps that were not played yet."""
        return tuple(step for step, played in zip(self._script, self._played, strict=True) if not played)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The next step's answer.

        Raises:
            ScriptExhausted: no step fits.
            BackendError: the step is an error, or the request is wrong.
            Exception: whatever a step's function raises.
        """
        step = self._take(request)
        if step.answer is not None:
            answer = step.answer(request)
            step = step_of(await answer if inspect.isawaitable(answer) else answer)
        if step.answer is not None:
            raise TypeError("the function of a step returned another function; it must return an answer")
        if step.error is not None:
            raise _copied(step.error)
        return step.response or self._response(step, request)

    async def stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        """The next step's answer, word by word.

        Raises:
            BackendError: as `complete`.
        """
        response = await self.complete(request)
        for word in _WORD.findall(response.content):
            yield LLMChunk(word)
        yield LLMChunk(response=response)

    async def close(self) -> None:
        """Nothing is held open."""

    # -- how ----------------------------------------------------------------------------------------------------

    def _take(self, request: LLMRequest) -> Step:
        """Take the step for ``request``; without waiting, so that parallel calls take different ones."""
        self._calls += 1
        fault = check_request(request)
        # The list of messages is the caller's, who may go on with it.
        self._requests.append(request if fault else replace(request, messages=copy.copy(request.messages)))
        if fault:
            raise RequestRefused(f"the request is wrong: {fault}")
        last = request.messages[-1].get("content") or ""
        specific = [number for number, step in enumerate(self._script) if step.when and step.when in last]
        general = [number for number, step in enumerate(self._script) if not step.when]
        number = self._first(specific)
        if number is None:
            number = self._first(general)
        if number is None:
            raise ScriptExhausted(self._exhausted(request), request)
        self._played[number] = True
        return self._script[number]

    def _first(self, numbers: list[int]) -> int | None:
        """The first of these steps that is left; when none is, and the script repeats, all of them are left again."""
        if self.repeat and all(self._played[number] for number in numbers):
            for number in numbers:
                self._played[number] = False
        return next((number for number in numbers if not self._played[number]), None)

    def _exhausted(self, request: LLMRequest) -> str:
        last = request.messages[-1]
        waiting = ", ".join(quoted(step.when) for step in self.left[:10])
        return (
            f"{self.name}: the script has no step for this request, of model {quoted(request.model)}, which ends with "
            f"{last['role']}: {one_line(last.get('content') or '')[:200]!r}; "
            f"{sum(self._played)} of {len(self._script)} steps are played"
            + (f", the others wait for {waiting}" if waiting else "")
        )

    def _response(self, step: Step, request: LLMRequest) -> LLMResponse:
        calls = tuple(call if call.id else self._with_id(call) for call in step.tool_calls)
        content, was_cut = cut(step.text)
        usage = usage_of(*step.usage, request, completion_tokens(content, calls))
        reason = "length" if was_cut else "tool_calls" if calls else "stop"
        return LLMResponse(content, request.model, usage, reason, None, calls)

    def _with_id(self, call: ToolCall) -> ToolCall:
        self._ids += 1
        return ToolCall(f"call_{self._ids}", call.name, call.arguments, call.fault)


def _copied(error: BaseException) -> BaseException:
    """The error of a step, as a new object: one that was raised before remembers where."""
    try:
        return copy.copy(error)
    except Exception:  # a subclass of the user's, with a constructor of its own
        return error.with_traceback(None)
