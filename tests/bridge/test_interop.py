"""The real `openagentmesh` client and its ``oam`` command with an organism, and the organism with agents written for
it.

============ ==================================================== ====================================================
verb         their client                                         their command
============ ==================================================== ====================================================
list         ``test_their_client_lists``                          ``test_their_command_lists``
call         ``test_their_client_calls``                          ``test_their_command_calls``
stream       ``test_their_client_streams``                        ``test_their_command_streams``
subscribe    ``test_their_client_subscribes``                     ``test_their_command_subscribes``
error        ``test_their_client_is_told_what_failed``            ``test_their_command_is_told_what_failed``
============ ==================================================== ====================================================

The other way round, what fails in an agent of theirs is a `SystemError` for the agent of the organism that called it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.bridge.kit import Ask, Told, count, echo, organism
from tests.mesh.commands import subscribed
from tests.mesh.kit import spin, until
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.message_bus.message_state import SystemError

oam = pytest.importorskip("openagentmesh")
OAM = Path(sys.executable).with_name("oam")


@dataclass
class Go:
    pass


async def fail(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
    raise ValueError("secret")


@pytest.fixture
async def org(server):
    """An organism with a listener of each shape; its publisher begins when somebody has subscribed."""
    names = ("echo", "count", "ticks", "fail")
    pump = organism(server.url, expose=[{"listener": name, "tags": ["t"]} for name in names])
    pump.go = asyncio.Event()  # type: ignore[attr-defined]

    async def ticks(go: Go, metadata: HandlerMetadata) -> AsyncIterator[HandlerResponse]:
        await pump.go.wait()  # type: ignore[attr-defined]
        for number in range(3):
            yield HandlerResponse.respond(Told(str(number)))

    pump.register("echo", echo, Ask, description="Says it again", output_class=Told)
    pump.register("count", count, Ask, description="Counts", output_class=Told)
    pump.register("ticks", ticks, Go, description="Ticks", output_class=Told)
    pump.register("fail", fail, Ask, description="Fails", output_class=Told)
    async with pump:
        await until(pump.attachments[0].mesh, lambda entries: len(entries) == 4)
        yield pump


@pytest.fixture
async def theirs(server, org):
    async with oam.AgentMesh(server.url) as theirs:
        yield theirs


# -- their client


async def test_their_client_lists(theirs):
    found = {entry.name: entry for entry in await theirs.catalog(channel="org", tags=["t"])}
    assert {name: (entry.invocable, entry.streaming) for name, entry in found.items()} == {
        "org.echo": (True, False),
        "org.count": (True, True),
        "org.ticks": (False, True),
        "org.fail": (True, False),
    }
    assert found["org.echo"].description == "Says it again"
    contract = await theirs.contract("org.echo")
    assert contract.skills[0]["inputSchema"]["properties"]["message"] == {"type": "string"}
    assert contract.skills[0]["outputSchema"]["required"] == ["reply"]
    assert {each.name for each in await theirs.discover()} == {*found}


async def test_their_client_calls(theirs):
    assert await theirs.call("org.echo", {"message": "hi", "n": 2}) == {"reply": "hihi"}
    answers = await asyncio.gather(*(theirs.call("org.echo", {"message": str(number)}) for number in range(50)))
    assert answers == [{"reply": str(number)} for number in range(50)]


async def test_their_client_streams(theirs):
    chunks = [chunk async for chunk in theirs.stream("org.count", {"message": "c", "n": 100})]
    assert chunks == [{"reply": f"c{number}"} for number in range(100)]


async def test_their_client_subscribes(org, theirs):
    events = theirs.subscribe(agent="org.ticks")
    first = asyncio.create_task(anext(events))
    await spin(lambda: any("events" in one.subject for one in theirs._nc._subs.values()))
    await theirs._nc.flush()
    await theirs._nc.flush()  # the first overtakes what still waits to be written
    org.go.set()
    assert [await first, *[event async for event in events]] == [{"reply": str(number)} for number in range(3)]


async def test_their_client_is_told_what_failed(theirs):
    for name, payload, code in (
        ("org.fail", {"message": "x"}, "handler_error"),
        ("org.echo", {"message": 1}, "invalid_input"),
        ("org.echo", None, "invalid_input"),
    ):
        with pytest.raises(oam.MeshError) as caught:
            await theirs.call(name, payload)
        assert (caught.value.code, caught.value.agent) == (code, name)
        assert "secret" not in str(caught.value.to_dict())
    with pytest.raises(oam.InvocationMismatch, match="stream"):
        await theirs.call("org.count", {"message": "x"})
    with pytest.raises(oam.InvocationMismatch, match="Subscribe"):
        await theirs.call("org.ticks")


async def test_their_client_sends_and_is_called_back(theirs):
    replies = asyncio.Queue[Any]()
    await theirs.send("org.echo", {"message": "x"}, on_reply=replies.put_nowait)
    assert await replies.get() == {"reply": "x"}


# -- their command


async def command(url: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *([str(OAM)] if OAM.exists() else [sys.executable, "-m", "openagentmesh.cli"]),
        *arguments,
        "--url",
        url,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(url: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await command(url, *arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def objects(text: str) -> list[Any]:
    """JSON documents, one after the other."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        one, end = decoder.raw_decode(rest)
        found.append(one)
        rest = rest[end:].strip()
    return found


async def test_their_command_lists(server, org):
    code, out, err = await run(server.url, "mesh", "catalog", "--channel", "org", "--json")
    assert code == 0, err
    assert {entry["name"] for entry in json.loads(out)} == {"org.echo", "org.count", "org.ticks", "org.fail"}
    code, out, err = await run(server.url, "agent", "contract", "org.echo", "--json")
    assert code == 0, err
    assert json.loads(out)["description"] == "Says it again"


async def test_their_command_calls(server, org):
    code, out, err = await run(server.url, "agent", "call", "org.echo", '{"message": "hi"}', "--json")
    assert (code, json.loads(out)) == (0, {"reply": "hi"}), err


async def test_their_command_streams(server, org):
    code, out, err = await run(server.url, "agent", "stream", "org.count", '{"message": "c", "n": 3}', "--json")
    assert (code, objects(out)) == (0, [{"reply": f"c{number}"} for number in range(3)]), err


async def test_their_command_subscribes(server, org):
    process = await command(server.url, "agent", "subscribe", "org.ticks", "--json")
    await subscribed(org.attachments[0].mesh, "mesh.agent.org.ticks.events")
    org.go.set()
    out, err = await process.communicate()
    assert (process.returncode, objects(out.decode())) == (
        0,
        [{"reply": str(number)} for number in range(3)],
    ), err.decode()


async def test_their_command_is_told_what_failed(server, org):
    code, out, err = await run(server.url, "agent", "call", "org.fail", '{"message": "x"}')
    assert (code, out) == (1, "")
    assert "handler_error" in err
    assert "secret" not in err
    code, out, err = await run(server.url, "agent", "call", "org.count", '{"message": "x"}')
    assert code == 1
    assert "stream()" in err


# -- agents of theirs


class Word(BaseModel):
    text: str


class Spelling(BaseModel):
    letters: list[str]


@dataclass
class Spell:
    text: str


@dataclass
class Spelled:
    letters: list[str]


@dataclass
class Asked:
    word: str


@dataclass
class Reported:
    what: list[str]


@pytest.fixture
def words(server):
    """A program of theirs: one agent answers, one streams, one ticks; what is no word fails."""
    theirs = oam.AgentMesh(server.url)

    @theirs.agent(oam.AgentSpec(name="words.speller", description="Spells"))
    async def speller(word: Word) -> Spelling:
        if not word.text.isalpha():
            raise ValueError(f"{word.text!r} is no word")
        if word.text == "mine":
            raise oam.MeshError("mine", "of its own")
        return Spelling(letters=list(word.text))

    @theirs.agent(oam.AgentSpec(name="words.letters", description="Streams"))
    async def letters(word: Word) -> Spelling:  # type: ignore[misc]
        for letter in word.text:
            if not letter.isalpha():
                raise ValueError("no letter")
            yield Spelling(letters=[letter])

    theirs.go = asyncio.Event()

    @theirs.agent(oam.AgentSpec(name="words.clock", description="Ticks"))
    async def clock() -> Spelling:  # type: ignore[misc]
        await theirs.go.wait()
        for letter in "abc":
            yield Spelling(letters=[letter])

    return theirs


@pytest.fixture
def asking(server):
    """An organism whose agent calls theirs, and says what it got."""
    agents = [
        {"name": "words.speller", "as": "speller", "payload_class": Spell, "output_class": Spelled},
        {"name": "words.letters", "as": "letters", "payload_class": Spell, "output_class": Spelled},
        {"subscribe": "words.clock", "to": "clock", "payload_class": Spelled},
    ]
    pump = organism(server.url, "asking", agents=agents)
    pump.got = asyncio.Queue()  # type: ignore[attr-defined]

    async def clock(spelled: Spelled, metadata: HandlerMetadata) -> None:
        pump.got.put_nowait(spelled)  # type: ignore[attr-defined]

    def agent(target: str) -> Any:
        async def ask(message: Asked | Spelled | SystemError, metadata: HandlerMetadata) -> HandlerResponse:
            match message:
                case Asked(word):
                    return HandlerResponse(Spell(word), to=target)
                case Spelled(letters):
                    return HandlerResponse.respond(Reported(letters))
                case _:
                    return HandlerResponse.respond(Reported([message.code, str(message.retry_allowed)]))

        return ask

    for name, target in (("asks", "speller"), ("reads", "letters")):
        pump.register(name, agent(target), (Asked, Spelled), agent=True, peers=[target])
    pump.register("clock", clock, Spelled)
    return pump


async def known(pump: Any, *names: str) -> None:
    await until(pump.attachments[0].mesh, lambda entries: {*names} <= {*entries})


async def test_an_agent_of_the_organism_calls_theirs(words, asking):
    async with words, asking:
        await known(asking, "words.speller")
        assert await asking.request("asks", Asked("mesh")) == Reported(list("mesh"))


async def test_an_agent_of_the_organism_streams_from_theirs(words, asking):
    async with words, asking:
        await known(asking, "words.letters")
        answers = [answer async for answer in asking.stream("letters", Spell("abc"))]
        assert answers == [Spelled([letter]) for letter in "abc"]


@pytest.mark.parametrize(
    ("word", "code", "retry"), [("4 you", "handler", "False"), ("mine", "handler", "False"), ("", "handler", "False")]
)
async def test_what_fails_in_theirs_is_a_system_error(words, asking, word, code, retry):
    async with words, asking:
        await known(asking, "words.speller")
        assert await asking.request("asks", Asked(word)) == Reported([code, retry])


async def test_what_fails_in_the_middle_of_their_stream_is_a_system_error(words, asking):
    async with words, asking:
        await known(asking, "words.letters")
        assert await asking.request("reads", Asked("4")) == Reported(["handler", "False"])


async def test_theirs_that_is_not_there_is_a_system_error(words, asking):
    async with asking:
        assert await asking.request("asks", Asked("mesh")) == Reported(["routing", "True"])


async def test_their_publisher_is_a_source(words, asking):
    async with asking:
        await asking.attachments[0].mesh.parts.link.flush(5.0)
        async with words:
            words.go.set()
            assert [await asking.got.get() for _ in "abc"] == [Spelled([letter]) for letter in "abc"]
