"""Sequences and buffers whose listeners are on other nodes."""

from __future__ import annotations

import contextlib
from collections import Counter

from tests.bridge.kit import Ask, Told, organism
from tests.mesh.kit import until_names
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.primitives.buffer import BufferComplete, BufferStart
from xml_pipeline.primitives.sequence import SequenceComplete, SequenceStart


def stage(url, name, gives=Ask):
    """A node with one step, which adds its name."""
    pump = organism(url, name, expose=[{"listener": "step"}])

    async def step(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(gives(f"{ask.message}-{name}"))

    pump.register("step", step, Ask, output_class=gives)
    return pump


def asking(url, names):
    """A pump with an agent that has the steps, or the items, done as it is told."""
    agents = [{"name": each, "payload_class": Ask, "output_class": gives} for each, gives in names.items()]
    pump = organism(url, "asking", agents=agents)

    async def ask(message, metadata: HandlerMetadata) -> HandlerResponse:
        match message:
            case Ask("sequence"):
                return HandlerResponse(SequenceStart(",".join(names), PAYLOAD.format("x")), to="system.sequence")
            case Ask("buffer"):
                items = "".join(PAYLOAD.format(number) for number in range(message.n))
                return HandlerResponse(BufferStart(next(iter(names)), items, max_parallel=6), to="system.buffer")
            case SequenceComplete():
                return HandlerResponse.respond(Told(message.final_result))
            case BufferComplete():
                return HandlerResponse.respond(Told(f"{message.successful} of {message.total}"))
            case _:
                return HandlerResponse.respond(message)

    pump.register("ask", ask, Ask, agent=True, peers=["system.sequence", "system.buffer", *names])
    return pump


ITEMS = 60  # of which one replica gets none by chance in one of 10**20 runs
PAYLOAD = "<Ask><Message>{}</Message><N>1</N></Ask>"


async def test_a_sequence_whose_steps_are_on_three_nodes(server):
    names = {"a.step": Ask, "b.step": Ask, "c.step": Told}
    pump = asking(server.url, names)
    async with stage(server.url, "a"), stage(server.url, "b"), stage(server.url, "c", Told), pump:
        await until_names(pump.attachments[0].mesh, *names)
        assert await pump.sequence(list(names), Ask("x")) == Told("x-a-b-c")
        told = await pump.request("ask", Ask("sequence"))
        assert "<Reply>x-a-b-c</Reply>" in told.reply


async def test_a_buffer_spreads_its_items_over_replicas(server):
    done = Counter()

    def replica(number):
        pump = organism(server.url, "shop", expose=[{"listener": "step"}])

        async def step(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
            done[number] += 1
            return HandlerResponse.respond(Told(ask.message))

        pump.register("step", step, Ask, output_class=Told)
        return pump

    pump = asking(server.url, {"shop.step": Told})
    async with contextlib.AsyncExitStack() as nodes:
        for number in range(3):
            await nodes.enter_async_context(replica(number))
        await nodes.enter_async_context(pump)
        await until_names(pump.attachments[0].mesh, "shop.step")
        answers = await pump.map("shop.step", [Ask(str(number)) for number in range(ITEMS)], max_parallel=6)
        assert answers == [Told(str(number)) for number in range(ITEMS)]
        assert await pump.request("ask", Ask("buffer", ITEMS)) == Told(f"{ITEMS} of {ITEMS}")
    assert sorted(done) == [0, 1, 2]
    assert done.total() == 2 * ITEMS
