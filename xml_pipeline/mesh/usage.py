"""Usage: what a request has cost, as its handler reports it and its caller may add it up.

::

    @mesh.agent(AgentSpec(name="nlp.summarizer"))
    async def summarize(text: str) -> str:
        answer = await ask_a_model(text)
        report_usage(Usage(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens))
        return answer.text

    with collect_usage() as usage:
        await mesh.call("nlp.summarizer", "...")
        await mesh.call("nlp.summarizer", "...")
    usage.input_tokens  # of both

It travels with the last message of an answer. Nobody checks what a handler reports.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from xml_pipeline.mesh.job import current_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xml_pipeline.mesh.job import Job

__all__ = ["Usage", "collect", "collect_usage", "report_usage"]

# Beyond these a number is a mistake, or an attack on whoever adds up.
_MOST_TOKENS = 10**15
_MOST_DOLLARS = 1e12
_LONGEST_MODEL = 256
_LONGEST_HEADER = 4096


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a truth value is no number")
    return value


_Tokens = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=_MOST_TOKENS)]
_Dollars = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=_MOST_DOLLARS, allow_inf_nan=False)]
_Model = Annotated[str, Field(max_length=_LONGEST_MODEL)]

_SUMS: Final = ("input_tokens", "output_tokens", "total_tokens", "estimated_cost_usd")


class Usage(BaseModel):
    """What was used; everything may be left out.

    Args:
        input_tokens: of the prompts.
        output_tokens: of the answers.
        total_tokens: of both, where that is known; it is not computed.
        model: the model.
        estimated_cost_usd: in US dollars.

    Raises:
        ValidationError: a number is negative, too large or none; it is a ``ValueError``, too.
    """

    model_config = ConfigDict(validate_assignment=True)

    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    total_tokens: _Tokens | None = None
    model: _Model | None = None
    estimated_cost_usd: _Dollars | None = None

    def add(self, other: Usage) -> None:
        """Add another: the numbers of both, and its model, if it has one."""
        for name in _SUMS:
            if (more := getattr(other, name)) is not None:
                most = _MOST_DOLLARS if name == "estimated_cost_usd" else _MOST_TOKENS
                setattr(self, name, min(most, (getattr(self, name) or 0) + more))
        if other.model is not None:
            self.model = other.model

    def to_dict(self) -> dict[str, Any]:
        """What is known of it."""
        return self.model_dump(exclude_none=True)

    def to_header(self) -> str:
        """The value of ``X-Mesh-Usage``."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def read(cls, header: str) -> Usage | None:
        """What a header says; of one that can be read in parts, these; ``None`` if it says nothing."""
        if len(header) > _LONGEST_HEADER:
            return None
        try:
            found = json.loads(header)
        except (ValueError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            wrong = {problem["loc"][0] for problem in error.errors()}
            return cls.model_validate({name: value for name, value in found.items() if name not in wrong})


# -- the host's side


def report_usage(
    usage: Usage | None = None,
    *,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    total_tokens: int | None = None,
    model: str | None = None,
    estimated_cost_usd: float | None = None,
) -> None:
    """Report what the request that is being handled has used; several reports of one request are added up.

    It can be called by the handler, and by whatever it calls, also in tasks it has started, while it runs. What is
    reported after the answer is on its way is in the log event only.

    Args:
        usage: what was used.
        input_tokens: instead of that, as the others: see `Usage`.
        output_tokens: see `Usage`.
        total_tokens: see `Usage`.
        model: see `Usage`.
        estimated_cost_usd: see `Usage`.

    Raises:
        RuntimeError: no request is being handled.
        ValidationError: see `Usage`.
        TypeError: ``usage`` is something else.
    """
    job = current_job()
    if job is None:
        raise RuntimeError("report_usage() is for handlers: no call or stream is being handled here")
    if usage is None:
        usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=total_tokens,
            model=model,
            estimated_cost_usd=estimated_cost_usd,
        )
    if not isinstance(usage, Usage):
        raise TypeError(f"report_usage() takes a Usage, not {type(usage).__name__}")
    if job.usage is None:
        job.usage = Usage()
    job.usage.add(Usage(**dict(usage)))  # checked again, for there are ways around it


# -- the caller's side


@dataclass(frozen=True, slots=True)
class _Collecting:
    """One block of `collect_usage`, and the one around it."""

    usage: Usage
    job: Job | None
    outer: _Collecting | None


_COLLECTING: ContextVar[_Collecting | None] = ContextVar("mesh_usage", default=None)


@contextmanager
def collect_usage() -> Iterator[Usage]:
    """Add up what the calls and streams of a block have cost, also those of tasks that it starts.

    A stream counts when it has ended. What a handler's own calls cost counts with that handler only if it reports it.

    Yields:
        The sum; it grows with every answer whose host reported something.
    """
    outer = _COLLECTING.get()
    usage = Usage()
    _COLLECTING.set(_Collecting(usage, current_job(), outer))
    try:
        yield usage
    finally:
        _COLLECTING.set(outer)  # a block in an async generator may end in another context, where nothing can be undone


def collect(header: str) -> None:
    """An answer came with this header: it counts for the blocks around who asked."""
    collecting = _COLLECTING.get()
    usage = Usage.read(header) if collecting is not None else None
    if usage is None:
        return
    # A handler's context has the blocks around the place where its mesh object was entered; they are not for it.
    job = current_job()
    while collecting is not None:
        if collecting.job is job:
            collecting.usage.add(usage)
        collecting = collecting.outer
