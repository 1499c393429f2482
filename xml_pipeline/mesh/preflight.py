"""Whether an agent can be used in a way, and the words to say it if not. Both ends use them.

======================== ==================== ==================== ================== ====================
verb                     publisher            background task      streamer           responder, trigger
======================== ==================== ==================== ================== ====================
``call``                 no                   no                   no                 yes
``stream``               no                   no                   yes                no
``send``                 no                   no                   yes (the host: no) yes
``subscribe``            yes                  no                   no                 no
======================== ==================== ==================== ================== ====================
"""

from __future__ import annotations

from typing import Literal

from xml_pipeline.mesh.errors import InvocationMismatch

__all__ = ["Verb", "mismatch", "mismatch_at_host"]

Verb = Literal["call", "stream", "send", "subscribe"]

_PARTICIPLES = {"call": "called", "stream": "streamed", "send": "sent to", "subscribe": "subscribed to"}

# (invocable, streaming) -> verb -> what is wrong with it. The words tell users' tools what to suggest instead.
_TEXTS: dict[tuple[bool, bool], dict[str, str]] = {
    (False, True): {
        verb: f"Agent '{{name}}' is a publisher and cannot be {_PARTICIPLES[verb]}. Subscribe to it: "
        "subscribe(agent='{name}')."
        for verb in ("call", "stream", "send")
    },
    (False, False): {
        **{
            verb: f"Agent '{{name}}' is a background task and cannot be {_PARTICIPLES[verb]}."
            for verb in ("call", "stream", "send")
        },
        "subscribe": "Agent '{name}' is a background task and does not publish anything.",
    },
    (True, True): {
        "call": "Agent '{name}' is streaming-only. Use stream() instead.",
        "subscribe": "Agent '{name}' streams responses to requests and does not publish. Use stream() instead.",
    },
    (True, False): {
        "stream": "Agent '{name}' does not support streaming. Use call() instead.",
        "subscribe": "Agent '{name}' does not publish events. Use call() instead.",
    },
}


def mismatch(verb: Verb, name: str, invocable: bool, streaming: bool) -> InvocationMismatch | None:
    """What is wrong with using an agent in this way; ``None`` for nothing.

    Args:
        verb: the way.
        name: the agent.
        invocable: whether it takes requests.
        streaming: whether it yields.
    """
    text = _TEXTS[invocable, streaming].get(verb)
    return InvocationMismatch(message=text.format(name=name), agent=name) if text is not None else None


def mismatch_at_host(name: str, streams: bool, asked_to_stream: bool) -> InvocationMismatch | None:
    """What is wrong with a request that arrived; ``None`` for nothing.

    Args:
        name: the agent.
        streams: whether it answers in chunks.
        asked_to_stream: whether the request is for chunks.
    """
    if streams == asked_to_stream:
        return None
    return mismatch("call" if streams else "stream", name, True, streams)
