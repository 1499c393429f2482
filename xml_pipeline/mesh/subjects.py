"""Names of agents, ids of requests, and the subjects made of them.

A subject is built here and nowhere else, and only of parts that were checked: what came from a peer or a user can never
add a token, a wildcard or a line to a subject.
"""

from __future__ import annotations

import os
import re

__all__ = [
    "agent_subject",
    "answerable",
    "cancel_subject",
    "channel_subject",
    "check_agent_name",
    "check_filter",
    "check_subject",
    "credit_subject",
    "death_subject",
    "errors_subject",
    "events_subject",
    "instance_death_subject",
    "is_agent_name",
    "is_inbox",
    "is_request_id",
    "is_within",
    "logs_subject",
    "new_id",
    "queue_group",
    "results_subject",
    "stream_subject",
    "tail_of",
]

AGENTS = "mesh.agent."
CANCELS = "mesh.cancel."
CREDITS = "mesh.credit."
DEATHS = "mesh.death."
ERRORS = "mesh.errors."

# `fullmatch` everywhere: `$` would let a line end through.
_SEGMENTS = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOKEN = re.compile(r"[!-)+-=?-~]+")  # printable ASCII but `*` and `>`; a dot is excluded by the split
_TOKENS = re.compile(r"[!-)+-\-/-=?-~]+(\.[!-)+-\-/-=?-~]+)*")  # the same, joined by dots
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # what makes the digits a UUID of version 4
_LONGEST_NAME = 200
_LONGEST_SUBJECT = 1024


def new_id() -> str:
    """A fresh request or instance id: 32 lower-case hexadecimal digits."""
    digits = os.urandom(16).hex()
    return f"{digits[:12]}4{digits[13:16]}{_VARIANT[digits[16]]}{digits[17:]}"


def check_agent_name(name: str) -> str:
    """The name, if it is one: segments of ASCII letters, digits, ``_`` and ``-``, joined by single dots.

    Raises:
        ValueError: it is not; the text says why.
    """
    if not isinstance(name, str) or not name:
        raise ValueError("the name of an agent must be a text that is not empty")
    if not _SEGMENTS.fullmatch(name):
        raise ValueError(
            f"{name[:100]!r} cannot be the name of an agent: it must be of letters, digits, '_' and '-', in segments "
            "joined by single dots"
        )
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"the name of an agent may have {_LONGEST_NAME} characters, {name[:40]!r}... has {len(name)}")
    return name


def is_agent_name(name: object) -> bool:
    """Whether an agent can have this name."""
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and bool(_SEGMENTS.fullmatch(name))


def is_request_id(value: str) -> bool:
    """Whether the value can be one token of a subject, as the id of a stream or a cancellation must be."""
    return bool(_REQUEST_ID.fullmatch(value))


def is_inbox(subject: str) -> bool:
    """Whether an answer may be sent there on a peer's word: a reply inbox, without wildcards."""
    return subject.startswith("_INBOX.") and _is_concrete(subject)


def answerable(subject: str) -> str:
    """Where an answer is sent on a caller's word: the subject, or nothing where that is not the caller's to decide.

    A host may often publish where its caller may not: to what the server stores and obeys, and to what others take as
    said by an agent, a host, or the mesh. A caller is answered in an inbox, in ``mesh.results.<id>``, or on a subject
    of the application.
    """
    if subject.startswith("_INBOX."):
        return subject
    is_ours = subject.startswith(("$", "mesh.")) and not subject.startswith("mesh.results.")
    return "" if is_ours or not _is_concrete(subject) else subject


def _is_concrete(subject: str) -> bool:
    return len(subject) <= _LONGEST_SUBJECT and _TOKENS.fullmatch(subject) is not None


def check_subject(subject: str) -> str:
    """The subject, if one can publish to it: names joined by dots, no wildcards.

    Raises:
        ValueError: it is not such a subject.
    """
    if not isinstance(subject, str) or not _SEGMENTS.fullmatch(subject) or len(subject) > _LONGEST_SUBJECT:
        raise ValueError(
            f"{subject!r} is not a subject to publish to: letters, digits, '_' and '-' in segments joined by single "
            "dots, without wildcards"
        )
    return subject


def check_filter(subject: str) -> str:
    """The subject, if one can subscribe to it: tokens joined by dots, each a name, ``*``, or at the end ``>``.

    Raises:
        ValueError: it is not such a subject.
    """
    if isinstance(subject, str) and 0 < len(subject) <= _LONGEST_SUBJECT:
        *tokens, last = subject.split(".")
        if all(token == "*" or _TOKEN.fullmatch(token) for token in tokens) and (
            last in ("*", ">") or _TOKEN.fullmatch(last)
        ):
            return subject
    raise ValueError(
        f"{subject!r} is not a subject to subscribe to: tokens joined by single dots, '*', or '>' at the end"
    )


def is_within(name: str, channel: str) -> bool:
    """Whether the agent belongs to the channel: it has its name, or a name below it."""
    return name == channel or name.startswith(channel + ".")


def agent_subject(name: str) -> str:
    """Where requests to the agent go."""
    return AGENTS + check_agent_name(name)


def queue_group(name: str) -> str:
    """The group in which all hosts of the agent take its requests in turn."""
    return "q." + check_agent_name(name)


def events_subject(name: str) -> str:
    """Where a publisher's events go."""
    return f"{AGENTS}{check_agent_name(name)}.events"


def channel_subject(channel: str) -> str:
    """Everything of the agents below this prefix."""
    return f"{AGENTS}{check_agent_name(channel)}.>"


def errors_subject(name: str) -> str:
    """Where copies of the agent's error replies go."""
    return ERRORS + check_agent_name(name)


def death_subject(name: str) -> str:
    """Where it is said that the agent has left, or that its last host is gone."""
    return DEATHS + check_agent_name(name)


def instance_death_subject(instance_id: str) -> str:
    """Where it is said that a host is gone; plain peers do not listen there."""
    return f"{DEATHS}instance.{_checked_id(instance_id)}"


def logs_subject(name: str) -> str:
    """Where the agent's log events go."""
    return "mesh.logs." + check_agent_name(name)


def stream_subject(request_id: str) -> str:
    """Where the chunks of a streaming request go."""
    return "mesh.stream." + _checked_id(request_id)


def results_subject(request_id: str) -> str:
    """Where the reply to a request goes that was sent with a callback."""
    return "mesh.results." + _checked_id(request_id)


def cancel_subject(request_id: str) -> str:
    """Where the caller says that it gives the request up."""
    return CANCELS + _checked_id(request_id)


def credit_subject(request_id: str) -> str:
    """Where the consumer of a stream says how many chunks it takes."""
    return CREDITS + _checked_id(request_id)


def tail_of(subject: str, prefix: str) -> str:
    """What follows the prefix, e.g. the request id of a cancellation."""
    return subject[len(prefix) :]


def _checked_id(request_id: str) -> str:
    if not is_request_id(request_id):
        raise ValueError(
            f"{request_id[:100]!r} cannot be the id of a request: letters, digits, '_' and '-', at most 128"
        )
    return request_id
