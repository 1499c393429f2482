"""Listeners as agents of the mesh."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass

import pytest

from tests.bridge.kit import Ask, Told, count, echo, organism
from tests.mesh.kit import until_names
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.bridge import incoming
from xml_pipeline.bridge.forms import XSD_KEY
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.mesh import HandlerError, InvalidInput, MeshError, MeshTimeout, Overloaded


@pytest.fixture
def expose(server):
    def make(handler, payload_class=Ask, *, limits=None, entry=None, **options):
        pump = organism(server.url, limits=limits, expose=[{"listener": "it", "as": "demo.it", **(entry or {})}])
        pump.register("it", handler, payload_class, **options)
        return pump

    return make


async def test_a_listener_is_called_like_an_agent(expose, mesh):
    async with expose(echo):
        await until_names(mesh, "demo.it")
        assert await mesh.call("demo.it", {"message": "hi", "n": 2}) == {"reply": "hihi"}
    await until_names(mesh)


async def test_its_name_is_made_of_the_organisms_and_its_own(server, mesh):
    pump = organism(server.url, "shop", expose=[{"listener": "desk.clerk"}])
    pump.register("desk.clerk", echo, Ask)
    async with pump:
        await until_names(mesh, "shop.desk.clerk")


async def test_a_name_that_no_agent_can_have_needs_another(server):
    with pytest.raises(ConfigurationError, match="needs 'as'"):
        organism(server.url, "my shop", expose=[{"listener": "clerk"}])


async def test_a_generator_streams(expose, mesh):
    async with expose(count):
        await until_names(mesh, "demo.it")
        chunks = [chunk async for chunk in mesh.stream("demo.it", {"message": "c", "n": 3})]
        assert chunks == [{"reply": "c0"}, {"reply": "c1"}, {"reply": "c2"}]


async def test_the_contract_says_what_it_takes_in_both_languages(expose, mesh):
    async with expose(echo, description="Says it again", output_class=Told):
        await until_names(mesh, "demo.it")
        contract = await mesh.contract("demo.it")
        assert contract.description == "Says it again"
        assert contract.input_schema["properties"]["message"] == {"type": "string"}
        assert 'name="Ask"' in contract.input_schema[XSD_KEY]
        assert contract.output_schema["required"] == ["reply"]


async def test_who_speaks_is_a_mesh_object_and_never_a_listener(expose, mesh, peer):
    senders = []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        senders.append(metadata.from_id)
        return HandlerResponse.respond(Told(""))

    async with expose(remember):
        await until_names(mesh, "demo.it")
        await mesh.call("demo.it", {"message": ""})
        body = b'{"message": ""}'
        await peer.request("mesh.agent.demo.it", body)
        for claimed in ("it", "system", "mesh:it", "external", "a" * 65, ""):
            await peer.request("mesh.agent.demo.it", body, headers={"X-Mesh-Instance-Id": claimed or "-"})
        assert senders == [f"mesh:{mesh.instance_id}", *["mesh:anonymous"] * 7]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"message": 1}', b'{"message": "x", "more": 1}', b"\xff"])
async def test_what_does_not_fit_is_refused_and_never_handled_and_the_operator_is_told_why(
    expose, mesh, peer, caplog, body
):
    handled = []

    async def remember(ask: Ask, metadata: HandlerMetadata) -> None:
        handled.append(ask)

    async with expose(remember):
        await until_names(mesh, "demo.it")
        reply = await peer.request("mesh.agent.demo.it", body)
        assert MeshError.from_wire(reply.data).code == "invalid_input"
        assert handled == []
        [said] = [each.getMessage() for each in caplog.records if each.name == "xml_pipeline.bridge.exposed"]
        assert said.startswith("a request to demo.it was refused: ") and not said.endswith(": ")


async def test_what_failed_stays_here(expose, mesh, caplog):
    async def fail(ask: Ask, metadata: HandlerMetadata) -> None:
        raise ValueError("secret")

    async with expose(fail):
        await until_names(mesh, "demo.it")
        with pytest.raises(HandlerError) as caught:
            await mesh.call("demo.it", {"message": ""})
        assert "secret" not in str(caught.value.to_dict())


async def test_a_defect_in_writing_an_answer_does_not_keep_its_caller(expose, mesh, monkeypatch, caplog):
    def write(payload):
        raise RuntimeError("a defect")

    monkeypatch.setattr(incoming, "json_of", write)
    async with expose(echo):
        await until_names(mesh, "demo.it")
        with pytest.raises(HandlerError):
            await mesh.call("demo.it", {"message": ""}, timeout=30.0)
    assert "a defect" in caplog.text


class OwnBaseException(BaseException):
    pass


WHATEVER = {each.__name__: each for each in (SystemExit, asyncio.CancelledError, OwnBaseException)}


@pytest.mark.parametrize("kind", WHATEVER)
@pytest.mark.parametrize("reads", [True, False])
async def test_whatever_a_payload_class_raises_harms_its_own_request_only(expose, mesh, monkeypatch, kind, reads):
    """Also where the request before it frees the slot, from within the pump."""

    @dataclass
    class Said:
        message: str

        def __post_init__(self):
            if reads and self.message in WHATEVER:
                raise WHATEVER[self.message]

    def write(payload):
        if payload.reply in WHATEVER:
            raise WHATEVER[payload.reply]
        return json_of(payload)

    async def say(said: Said, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told(said.message))

    json_of = incoming.json_of
    monkeypatch.setattr(incoming, "json_of", write)
    async with expose(say, Said, entry={"max_concurrency": 1}):
        await until_names(mesh, "demo.it")
        for _ in range(2):
            calls = [mesh.call("demo.it", {"message": text}, 30.0) for text in ("1", kind, "2", kind, kind, "3")]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [results[index] for index in (0, 2, 5)] == [{"reply": text} for text in "123"]
            assert {type(results[index]) for index in (1, 3, 4)} == {HandlerError}


async def test_what_writing_an_answer_sets_is_not_there_for_the_next_handler(expose, mesh, monkeypatch):
    mark = ContextVar("mark", default="")
    seen = []

    def write(payload):
        mark.set(payload.reply)
        return json_of(payload)

    async def look(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(mark.get())
        return HandlerResponse.respond(Told(ask.message))

    json_of = incoming.json_of
    monkeypatch.setattr(incoming, "json_of", write)
    async with expose(look):
        await until_names(mesh, "demo.it")
        for _ in range(3):
            await mesh.call("demo.it", {"message": "mine"})
    assert seen == [""] * 3


async def test_a_listener_that_does_not_answer_is_told_so(expose, mesh):
    async def silent(ask: Ask, metadata: HandlerMetadata) -> None:
        return None

    async with expose(silent):
        await until_names(mesh, "demo.it")
        with pytest.raises(MeshError) as caught:
            await mesh.call("demo.it", {"message": ""})
        assert caught.value.code == "no-answer"


async def test_full_queues_are_said_at_once(expose, mesh):
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        begun.set()
        await go.wait()
        return HandlerResponse.respond(Told(""))

    limits = {"max_queue": 1, "max_concurrent_handlers": 1, "max_concurrent_pipelines": 1}
    async with expose(slow, limits=limits, concurrency=1, entry={"max_concurrency": 500}):
        await until_names(mesh, "demo.it")
        calls = [asyncio.create_task(mesh.call("demo.it", {"message": ""})) for _ in range(300)]
        await begun.wait()
        done, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert {type(call.exception()) for call in done} == {Overloaded}
        go.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {"reply": ""} in results


async def test_the_callers_deadline_ends_the_handler(expose, mesh):
    cancelled = asyncio.Event()

    async def hang(ask: Ask, metadata: HandlerMetadata) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with expose(hang):
        await until_names(mesh, "demo.it")
        with pytest.raises(MeshTimeout):
            await mesh.call("demo.it", {"message": ""}, 0.2)
        await cancelled.wait()


async def test_a_caller_that_goes_away_ends_the_handler(expose, mesh):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(ask: Ask, metadata: HandlerMetadata) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with expose(hang):
        await until_names(mesh, "demo.it")
        call = asyncio.create_task(mesh.call("demo.it", {"message": ""}))
        await begun.wait()
        call.cancel()
        await cancelled.wait()


async def test_a_shutdown_answers_what_was_taken(expose, mesh):
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        begun.set()
        await go.wait()
        return HandlerResponse.respond(Told("done"))

    pump = expose(slow)
    async with pump:
        await until_names(mesh, "demo.it")
        call = asyncio.create_task(mesh.call("demo.it", {"message": ""}))
        await begun.wait()
        stopping = asyncio.create_task(pump.shutdown())
        await asyncio.sleep(0)
        go.set()
        assert await call == {"reply": "done"}
        assert (await stopping).drained


async def test_a_class_without_fields_is_a_trigger(expose, mesh):
    @dataclass
    class Go:
        pass

    async def go(payload: Go, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Told("went"))

    async with expose(go, Go):
        await until_names(mesh, "demo.it")
        assert (await mesh.contract("demo.it")).input_schema is None
        assert await mesh.call("demo.it") == {"reply": "went"}


async def test_a_value_is_bare(expose, mesh):
    @dataclass
    class Value:
        value: list[int]

    async def double(payload: Value, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Value([2 * number for number in payload.value]))

    async with expose(double, Value, output_class=Value):
        await until_names(mesh, "demo.it")
        contract = await mesh.contract("demo.it")
        assert contract.input_schema["type"] == contract.output_schema["type"] == "array"
        assert await mesh.call("demo.it", [1, 2]) == [2, 4]
        with pytest.raises(InvalidInput):
            await mesh.call("demo.it", {"value": [1]})
