"""The bounds of one pump: how much may wait, run, nest, and be kept, and for how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from xml_pipeline.config.base import ConfigModel, StrictModel
from xml_pipeline.config.fields import Count, RateLimit, Retention, Seconds, SecondsOrNone

__all__ = ["LimitFields", "Limits"]


class LimitFields(StrictModel):
    """The fields; `Limits`, the configuration and the file format all have them, under the same names."""

    thread_scheduling: Literal["breadth-first", "depth-first"] = Field(
        default="breadth-first",
        description="Which conversations of one target are served first: each in turn (breadth-first), or those that "
        "have started (depth-first). A reload does not change it.",
    )
    max_concurrent_pipelines: Count = Field(
        default=50, description="Messages inside the XML stages at a time; conversations that wait do not count."
    )
    max_concurrent_handlers: Count = Field(default=20, description="Handlers running at a time, in all.")
    max_concurrent_per_agent: Count = Field(default=5, description="Handlers of one agent running at a time.")
    max_queue: Count = Field(default=10_000, description="Messages from outside that may wait, in all.")
    max_queue_per_listener: Count = Field(default=1_000, description="Messages from outside that may wait per target.")
    max_hops: Count = Field(default=64, description="How deep calls may nest in one conversation.")
    max_turns: Count = Field(default=1_000, description="Handler calls on one frame.")
    max_fan_out: Count = Field(default=1_000, description="Payloads in one message, and messages in one return value.")
    max_message_bytes: Count = Field(default=1_048_576, description="Size of one message in bytes.")
    max_element_depth: Count = Field(default=100, description="How deep XML elements may nest.")
    max_elements: Count = Field(default=50_000, description="XML elements in one message.")
    max_attributes: Count = Field(default=256, description="Attributes of one XML element.")
    max_history_bytes: Count = Field(
        default=1_048_576,
        description="History kept per conversation, in bytes; beyond it the oldest is dropped.",
    )
    max_conversation_seconds: SecondsOrNone = Field(
        default=None, description="How long a conversation may last, in seconds; null for no end."
    )
    timeout: Seconds = Field(
        default=30.0, description="How long a handler may run, in seconds, unless it says its own."
    )
    rate: RateLimit = Field(
        default=None,
        description="Messages that the whole pump takes from outside: a number per second, or like '10/s', '100/min', "
        "'5/h'; null for no limit.",
    )
    thread_idle_ttl: Retention = Field(
        default=600.0, description="How long the history of a closed conversation is kept, in seconds."
    )
    max_threads: Count = Field(default=1_000, description="Closed conversations whose history is kept.")
    max_dead_letters: Count = Field(default=1_000, description="Dead letters kept; beyond it the oldest is dropped.")
    max_tokens_per_thread: Count = Field(
        default=100_000, description="Tokens that the model calls of one conversation may use."
    )


class Limits(LimitFields, ConfigModel):
    """The bounds of one pump, immutable.

    Args:
        thread_scheduling: ``"breadth-first"`` (default) or ``"depth-first"``. Alone among the limits it stays what it
            was when the pump was made: a reload with another one succeeds, with a warning.
        max_concurrent_pipelines: messages inside the XML stages at a time; 50.
        max_concurrent_handlers: handlers running at a time, in all; 20.
        max_concurrent_per_agent: handlers of one agent running at a time; 5.
        max_queue: messages from outside that may wait, in all; 10,000.
        max_queue_per_listener: the same per target; 1,000.
        max_hops: depth of nested calls; 64.
        max_turns: handler calls on one frame; 1,000.
        max_fan_out: payloads in one message, messages in one return value; 1,000.
        max_message_bytes: bytes; 1,048,576.
        max_element_depth: 100.
        max_elements: 50,000 in a message.
        max_attributes: 256 of one element.
        max_history_bytes: bytes per conversation; 1,048,576.
        max_conversation_seconds: seconds, or ``None`` (default) for no end.
        timeout: seconds a handler may run, unless it says its own; 30.0.
        rate: a `Rate`, a number per second, text like ``"10/s"``, or ``None`` (default) for no limit.
        thread_idle_ttl: seconds that the history of a closed conversation is kept; 600.0.
        max_threads: closed conversations whose history is kept; 1,000.
        max_dead_letters: dead letters kept; 1,000.
        max_tokens_per_thread: tokens that the model calls of one conversation may use; 100,000.

    Raises:
        InvalidConfiguration: an unknown name (with the nearest known one), a wrong type, a number out of range.
    """

    model_config = ConfigDict(frozen=True)

    @classmethod
    def of(cls, **limits: Any) -> Limits:
        """The limits given by keyword, defaults for the others; see the class for names and what is raised."""
        return cls(**limits)
