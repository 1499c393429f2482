"""Every error of this project, and what may be told to whom.

::

    PipelineError
    ├── RoutingError             routing     no such target, not a peer, wrong class for the target
    ├── ValidationError          validation  malformed, schema, too large, too many payloads
    │   └── ForgedMessage        validation  claims a sender or a thread that is not its own
    ├── DeadlineExceeded         timeout     handler, request or conversation took too long (also a TimeoutError)
    ├── HandlerError             handler     the handler raised, or returned something that is no answer
    ├── HopLimitError            hops        frames nested too deep, or too many turns on one frame
    ├── BudgetExhausted          budget      the conversation has spent what it may; as `message_bus.budget` raises it,
    │                                        a BudgetExhaustedError, its text says how much
    ├── Overloaded               overloaded  a queue is full
    ├── ConversationCancelled    cancelled   cancelled by its owner, or by shutdown
    │   └── PumpStopped          cancelled   the pump refuses new work
    ├── NoAnswer                 no-answer   the conversation ended without an answer
    └── ConfigurationError       -           organism.yaml or a registration is wrong

``str(error)`` is the public text: one sentence per code, the same for every cause, so that a message sent to a handler
or over a wire tells nothing about listeners, peers or schemas that its reader may not know. What really happened is in
``detail``; it is also attached as a note, so that tracebacks and logs of the in-process caller show it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

__all__ = [
    "BudgetExhausted",
    "ConfigurationError",
    "ConversationCancelled",
    "DeadlineExceeded",
    "ForgedMessage",
    "HandlerError",
    "HopLimitError",
    "NoAnswer",
    "Overloaded",
    "PipelineError",
    "PumpStopped",
    "RoutingError",
    "ValidationError",
    "from_code",
]


class PipelineError(Exception):
    """Root of the tree.

    Args:
        detail: what happened, where, and what to do, for the operator and the in-process caller; never for handlers.
        step: the pipeline step or component that found it, for logs and dead letters.
        target: the listener concerned, if one is known.
    """

    code: ClassVar[str] = "handler"
    public_message: ClassVar[str] = "The message could not be processed."
    retry_allowed: ClassVar[bool] = False

    def __init__(self, detail: str = "", *, step: str = "", target: str = "") -> None:
        super().__init__(self.public_message)
        self.detail = detail
        self.step = step
        self.target = target
        if detail:
            self.add_note(detail)

    def bare(self) -> Self:
        """A copy without traceback, cause and context, for keeping: these hold the frames of handlers, and so all that
        the handlers had."""
        # By Python's own class: one of somebody's may want other arguments, and that of OSError does not keep them.
        own: Any = next(base for base in type(self).__mro__ if base.__module__ == "builtins")
        twin: Self = own.__new__(type(self))
        twin.args = self.args
        twin.__dict__.update(self.__dict__)
        return twin


class RoutingError(PipelineError):
    """The target does not exist, is not a peer of the sender, or does not accept this payload class."""

    code = "routing"
    public_message = "The message could not be delivered to its target."
    retry_allowed = True


class ValidationError(PipelineError):
    """The message is malformed, does not fit its schema, or exceeds a size limit."""

    code = "validation"
    public_message = "The message is not valid."
    retry_allowed = True


class ForgedMessage(ValidationError):
    """The message claims a sender, a target or a thread that its sender does not own."""


class DeadlineExceeded(PipelineError, TimeoutError):
    """A handler, a request or a conversation did not finish in its time."""

    code = "timeout"
    public_message = "The message was not processed in time."
    retry_allowed = True


class HandlerError(PipelineError):
    """A handler raised an exception, or returned something that is neither an answer nor ``None``."""

    code = "handler"
    public_message = "The message could not be processed."


class HopLimitError(PipelineError):
    """Calls are nested deeper than ``max_hops``, or one frame took more than ``max_turns`` turns."""

    code = "hops"
    public_message = "The conversation took too many steps."


class BudgetExhausted(PipelineError):
    """The conversation has no budget left for this call."""

    code = "budget"
    public_message = "The budget of the conversation is exhausted."


class Overloaded(PipelineError):
    """A queue is full; try again later. Contrast `PumpStopped`: there, trying again does not help."""

    code = "overloaded"
    public_message = "The system is overloaded."
    retry_allowed = True


class ConversationCancelled(PipelineError):
    """The conversation was cancelled before its answer came."""

    code = "cancelled"
    public_message = "The conversation was cancelled."


class PumpStopped(ConversationCancelled):
    """The pump is shutting down, or has stopped, and accepts no new messages."""


class NoAnswer(PipelineError):
    """The conversation completed, and nobody answered."""

    code = "no-answer"
    public_message = "The conversation ended without an answer."


class ConfigurationError(PipelineError):
    """A configuration or a registration is wrong. Its text is for the operator, so ``str(error)`` is the detail.

    Args:
        detail: what is wrong and how to mend it; several problems stand on a line each.
    """

    code = "configuration"
    public_message = "The configuration is not valid."

    def __str__(self) -> str:
        return self.detail or self.public_message

    def __init__(self, detail: str = "", *, step: str = "", target: str = "") -> None:
        super().__init__("", step=step, target=target)
        self.detail = detail


_BY_CODE: dict[str, type[PipelineError]] = {
    cls.code: cls
    for cls in (
        RoutingError,
        ValidationError,
        DeadlineExceeded,
        HandlerError,
        HopLimitError,
        BudgetExhausted,
        Overloaded,
        ConversationCancelled,
        NoAnswer,
    )
}


def from_code(code: str, detail: str = "") -> PipelineError:
    """The error of a wire ``code``, e.g. of a `SystemError` payload; an unknown code gives a `HandlerError`.

    Args:
        code: one of the codes in this module's tree.
        detail: see `PipelineError`.
    """
    return _BY_CODE.get(code, HandlerError)(detail)
