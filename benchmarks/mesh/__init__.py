"""The mesh against a plain NATS client, and against the ``openagentmesh`` package: same server, same process, same run.

Each of the three is a pair: a host and a caller, each with one connection of its own to one embedded server, both in
one process and one event loop. The three take turns; those whose turn it is not are connected and idle.

What is counted, for each of the three:

a call
    A request of a text and a number, and an answer of one text. The caller makes a model, writes it as JSON and asks;
    the host reads the JSON into a model, calls a handler that does not wait, and writes the model it returns as JSON;
    the caller reads that into a model, which is compared with what was to come. One at a time, or by 100 tasks at once,
    of which each asks again when it has its answer.
a slow call
    The same with a handler that waits for 50 ms; 20 to one agent at once, and the time until the last is answered.
a chunk
    One stream of many, of one text each: written from a model by the host, and read into one by the caller, which
    compares it with what was to come. The time begins with the request and ends with the last chunk.
a put
    A model as JSON under one of ten keys, waiting for the server's word; one at a time.
a change
    A put, and until a watch of the keys has read it into a model; one at a time.

The plain client is ``nats-py`` with what one would write by hand: ``request()`` with pydantic at both ends, a handler
awaited in the callback of its subscription (a task for each slow one), chunks published one after the other as fast as
the client takes them and checked in a callback, and the client's own KV. Its messages carry the very headers that ours
carry, fresh ids and numbers among them. Its host reads the id of the request, and its caller reads the status of the
answer and the number of a chunk. It has no agents, no deadlines that its host sees, no slots, no cancelling, no window
for slow consumers, and it begins a stream without being asked: whatever that costs, only ours pays.

``openagentmesh`` is used as its documentation says. It hands out parsed JSON, which is read into the same models.

Times and rates are by the clock on the wall, and include the way through the server; processor times are those of this
process, of both ends together, and do not include the server's. Before and after every measurement of ours, each of the
others is measured; see `measure`.
"""

from benchmarks.mesh.cases import rows

__all__ = ["rows"]
