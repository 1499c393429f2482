"""The way in for neighbours that vouch for who speaks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from lxml import etree

from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.errors import (
    ConversationCancelled,
    DeadlineExceeded,
    ForgedMessage,
    HandlerError,
    NoAnswer,
    Overloaded,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.gateway import Arrival
from xml_pipeline.message_bus.stream_pump import StreamPump

NAMESPACE = "https://example.org/ns"


@dataclass
class Word:
    text: str


@dataclass
class Said:
    text: str
    sender: str = ""


def extension(text: str) -> etree._Element:
    element = etree.fromstring(f'<key xmlns="{NAMESPACE}"/>')
    element.text = text
    return element


class Seen:
    def __init__(self) -> None:
        self.metadata: list[HandlerMetadata] = []

    async def say(self, word: Word, metadata: HandlerMetadata) -> HandlerResponse:
        self.metadata.append(metadata)
        return HandlerResponse.respond(Said(word.text, metadata.from_id))


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
async def pump(seen):
    pump = StreamPump(max_queue=2, max_concurrent_handlers=1)
    pump.register("say", seen.say, Word)
    async with pump:
        yield pump


async def test_the_sender_is_who_the_neighbour_says_it_is(pump, seen):
    said = await pump.engine.gateway.request(Arrival("say", Word("hi"), "mesh:abc"), 10)
    assert said == Said("hi", "mesh:abc")


class Taken:
    """What a taker got; then it raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.got: asyncio.Queue[tuple[object, object]] = asyncio.Queue()
        self._error = error

    def __call__(self, payload: object, error: object) -> None:
        self.got.put_nowait((payload, error))
        if self._error is not None:
            raise self._error


class OwnBaseException(BaseException):
    pass


async def test_the_end_is_handed_over_once(pump):
    async def twice(word: Word, metadata: HandlerMetadata) -> object:
        return {"silent": None, "twice": [HandlerResponse.respond(Said(text)) for text in "ab"]}[word.text]

    pump.register("twice", twice, Word)
    for text, payload, error in (("twice", Said("a"), None), ("silent", None, NoAnswer), ("none", None, HandlerError)):
        taken = Taken()
        pump.engine.gateway.begin(Arrival("twice", Word(text), "mesh:a"), taken)
        got = await taken.got.get()
        assert (got[0], got[1] and type(got[1])) == (payload, error)
        await pump.wait_idle()
        assert taken.got.empty()
    assert pump.dead_letters.list() == []


async def test_what_is_given_up_is_cancelled_and_told_so(pump):
    taken = Taken()
    conversation = pump.engine.gateway.begin(Arrival("say", Word("x"), "mesh:a"), taken)
    pump.engine.gateway.give_up(conversation)
    assert isinstance((await taken.got.get())[1], ConversationCancelled)
    pump.engine.gateway.give_up(conversation)
    await pump.wait_idle()
    assert taken.got.empty()


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError, OwnBaseException])
@pytest.mark.parametrize("target", ["say", "fail"])
async def test_what_a_taker_raises_is_logged_and_the_pump_goes_on(pump, caplog, error, target):
    async def fail(word: Word, metadata: HandlerMetadata) -> None:
        raise ValueError

    pump.register("fail", fail, Word)
    taken = Taken(error())
    pump.engine.gateway.begin(Arrival(target, Word("x"), "mesh:a"), taken)
    await taken.got.get()
    await pump.wait_idle()
    assert "could not be handed over" in caplog.text
    assert await pump.engine.gateway.request(Arrival("say", Word("hi"), "mesh:a"), 10) == Said("hi", "mesh:a")


async def test_that_a_neighbour_vouched_for_a_name_opens_no_door_for_others(pump):
    await pump.engine.gateway.request(Arrival("say", Word("hi"), "mesh:abc"), 10)
    with pytest.raises(ForgedMessage):
        await pump.inject("say", Word("hi"), from_id="mesh:abc")


@pytest.mark.parametrize("sender", ["say", "system", "system.boot"])
async def test_nobody_can_vouch_for_a_local_name(pump, sender):
    with pytest.raises(ForgedMessage):
        await pump.engine.gateway.request(Arrival("say", Word("hi"), sender), 10)


@pytest.mark.parametrize("elements", [False, True], ids=["object", "elements"])
async def test_extensions_stand_in_the_envelope(pump, elements):
    async def fail(word: Word, metadata: HandlerMetadata) -> None:
        raise ValueError

    pump.register("fail", fail, Word)
    payload = [etree.fromstring("<Word><Text>x</Text></Word>")] if elements else Word("x")
    await pump.engine.gateway._admit(Arrival("fail", payload, "mesh:a", [extension("a & b"), extension("c")]))
    await pump.wait_idle()
    (letter,) = pump.dead_letters.list()
    assert etree.fromstring(letter.wire).xpath("//k:key/text()", namespaces={"k": NAMESPACE}) == ["a & b", "c"]


@pytest.mark.parametrize(("verb", "letters"), [("deliver", 1), ("follow", 0)])
async def test_what_fails_is_told_and_kept_unless_it_will_be_sent_again(pump, verb, letters):
    async def fail(word: Word, metadata: HandlerMetadata) -> None:
        raise ValueError

    pump.register("fail", fail, Word)
    with pytest.raises(HandlerError):
        await getattr(pump.engine.gateway, verb)(Arrival("fail", Word("x"), "mesh:a"))
    assert len(pump.dead_letters.list()) == letters


@pytest.mark.parametrize("elements", [False, True], ids=["object", "elements"])
async def test_a_local_name_in_the_extensions_is_refused(pump, elements):
    payload = [etree.fromstring("<Word><Text>x</Text></Word>")] if elements else Word("x")
    with pytest.raises(ValidationError, match="namespace of its own"):
        await pump.engine.gateway.request(Arrival("say", payload, "mesh:a", [etree.fromstring("<from>say</from>")]), 10)
    assert pump.engine.registry.open_conversations == 1  # the pump's own: a refused message leaves no trace


async def test_elements_of_another_envelope_are_validated_like_everything(pump):
    good = etree.fromstring("<Word><Text>x</Text></Word>")
    assert await pump.engine.gateway.request(Arrival("say", [good], "mesh:org"), 10) == Said("x", "mesh:org")
    with pytest.raises(ValidationError):
        await pump.engine.gateway.request(Arrival("say", [etree.fromstring("<Word><no/></Word>")], "mesh:org"), 10)
    with pytest.raises(RoutingError):
        await pump.engine.gateway.request(Arrival("say", [etree.fromstring("<Other/>")], "mesh:org"), 10)
    with pytest.raises(ValidationError, match="no payload"):
        await pump.engine.gateway.request(Arrival("say", [], "mesh:org"), 10)


async def test_several_payloads_of_one_envelope_are_all_delivered(pump):
    words = [etree.fromstring(f"<Word><Text>{text}</Text></Word>") for text in "ab"]
    answers = [answer.text async for answer in pump.engine.gateway.stream(Arrival("say", words, "mesh:org"))]
    assert sorted(answers) == ["a", "b"]


async def test_a_message_past_its_deadline_is_not_handled(pump, seen):
    past = asyncio.get_running_loop().time() - 1
    with pytest.raises(DeadlineExceeded):
        await pump.engine.gateway.request(Arrival("say", Word("x"), "mesh:a", deadline=past), 10)
    assert seen.metadata == []


async def test_a_request_that_is_given_up_cancels_what_it_began(pump):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(word: Word, metadata: HandlerMetadata) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    pump.register("hang", hang, Word)
    task = asyncio.create_task(pump.engine.gateway.request(Arrival("hang", Word("x"), "mesh:a"), None))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    await cancelled.wait()


async def test_leaving_a_stream_cancels_what_it_began(pump):
    cancelled = asyncio.Event()

    async def forever(word: Word, metadata: HandlerMetadata):
        try:
            while True:
                yield HandlerResponse.respond(Said(word.text))
                await asyncio.Event().wait()
        finally:
            cancelled.set()

    pump.register("forever", forever, Word)
    answers = pump.engine.gateway.stream(Arrival("forever", Word("x"), "mesh:a"))
    assert await anext(answers) == Said("x")
    await answers.aclose()
    await cancelled.wait()


@pytest.mark.parametrize("verb", ["deliver", "follow"])
async def test_giving_a_delivery_up_cancels_what_it_began(pump, verb):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(word: Word, metadata: HandlerMetadata) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    pump.register("hang", hang, Word)
    task = asyncio.create_task(getattr(pump.engine.gateway, verb)(Arrival("hang", Word("x"), "mesh:a")))
    await begun.wait()
    task.cancel()
    await cancelled.wait()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.mark.parametrize("verb", ["deliver", "follow"])
async def test_delivering_waits_for_everything_that_was_begun(pump, verb):
    order = []

    async def first(word: Word, metadata: HandlerMetadata) -> HandlerResponse:
        order.append("first")
        return HandlerResponse(word, "second")

    async def second(word: Word, metadata: HandlerMetadata) -> None:
        await asyncio.sleep(0)
        order.append("second")

    pump.register("first", first, Word)
    pump.register("second", second, Word)
    await getattr(pump.engine.gateway, verb)(Arrival("first", Word("x"), "mesh:a"))
    assert order == ["first", "second"]


async def test_a_request_that_nobody_answers_says_so(pump):
    async def silent(word: Word, metadata: HandlerMetadata) -> None:
        return None

    pump.register("silent", silent, Word)
    with pytest.raises(NoAnswer):
        await pump.engine.gateway.request(Arrival("silent", Word("x"), "mesh:a"), 10)


async def test_without_room_it_is_refused_or_waits(pump):
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(word: Word, metadata: HandlerMetadata) -> HandlerResponse:
        begun.set()
        await go.wait()
        return HandlerResponse.respond(Said(word.text))

    pump.register("slow", slow, Word, concurrency=1)
    gateway = pump.engine.gateway
    tasks = []
    for number in range(200):
        try:
            exchange = await gateway._admit(Arrival("slow", Word(str(number)), "mesh:a"))
        except Overloaded:
            break
        tasks.append(asyncio.create_task(exchange.first()))
        await asyncio.sleep(0)
    else:
        pytest.fail("the queues have no end")
    waiting = asyncio.create_task(gateway.request(Arrival("slow", Word("w"), "mesh:a", wait=True), None))
    await begun.wait()
    go.set()
    assert (await waiting).text == "w"
    await asyncio.gather(*tasks)


async def test_a_dead_letter_of_a_mesh_sender_can_be_retried(pump):
    fails = [True, False]

    async def flaky(word: Word, metadata: HandlerMetadata) -> None:
        if fails.pop(0):
            raise ValueError

    pump.register("flaky", flaky, Word)
    await pump.engine.gateway._admit(Arrival("flaky", Word("x"), "mesh:a"))
    await pump.wait_idle()
    (letter,) = pump.dead_letters.list()
    assert letter.from_id == "mesh:a"
    await pump.dead_letters.retry(letter.id)
    await pump.wait_idle()
    assert fails == []
