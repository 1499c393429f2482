"""The bridge: an organism on the mesh. The only room that sees both the pump and the mesh.

What its parts are; a line may use those above it:

====================================  ============================================================================
``templates extensions``              keys with holes; elements of ``meta`` that say where a message came from
``classes``                           payload classes made from contracts
``failures forms senders``            errors of one side as the other's; payloads as JSON; who sent what came
``baggage letters``                   what crosses with a call, in headers; calls between organisms, as envelopes
``refused memory border``             what was not let in; what came already; signing and verifying
``incoming outgoing waiting``         calls that come in and go out; until there is a connection
``kept``                              what came and nobody will handle
``part``                              what each entry of the ``mesh`` section becomes:
``exposed``                           a listener as an agent
``outward peer discovered``           what leaves by a listener; an agent as a listener, named or as it appears
``kv_watched sink``                   keys that become messages; messages that become keys, or are published
``subject_followed subject_durable``  subjects that become messages: at most once, at least once
``event_feed``                        the pump's events
``part_maker``                        from the entries to their parts
``bridge``                            all of it, opened with a pump, changed with its file, left in order
====================================  ============================================================================
"""

from __future__ import annotations

from xml_pipeline.bridge.bridge import Bridge

__all__ = ["Bridge"]
