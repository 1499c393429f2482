"""Reminders over the wire, through a running pump."""

import asyncio
from dataclasses import dataclass

from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.primitives import TodoClosed, TodoComplete, TodoRegistered, TodoUntil


@dataclass
class Order:
    item: str


@dataclass
class Report:
    text: str


@dataclass
class Ask:
    text: str = ""


@dataclass
class ReportDraft:
    text: str


@dataclass
class Done:
    nudges: list[str]


async def test_the_whole_cycle() -> None:
    """Ask to be reminded, get the awaited message, be reminded until the todo is closed."""
    nudges: list[str] = []
    ids: list[str] = []

    async def agent(payload: object, metadata: HandlerMetadata) -> object:
        nudges.append(metadata.todo_nudge)
        match payload:
            case Order():
                return HandlerResponse(TodoUntil("Report", "", "file it"), "system.todo")
            case TodoRegistered(watcher_id):
                ids.append(watcher_id)
                return HandlerResponse(Order("lamp"), "reporter")
            case Report():
                return HandlerResponse(Order("again"), "agent")
            case _:
                raise AssertionError(payload)

    async def turns(payload: object, metadata: HandlerMetadata) -> object:
        if isinstance(payload, Order) and payload.item == "again":
            nudges.append(metadata.todo_nudge)
            return HandlerResponse(TodoComplete(ids[0]), "system.todo")
        if isinstance(payload, TodoClosed):
            nudges.append(metadata.todo_nudge)
            assert payload == TodoClosed(ids[0], True)
            return HandlerResponse.respond(Done(nudges))
        return await agent(payload, metadata)

    async def reporter(payload: Order, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(Report(payload.item))

    pump = StreamPump()
    pump.register("agent", turns, Order, agent=True, peers=["reporter"])
    pump.register("reporter", reporter, Order)
    async with pump:
        await pump.request("agent", Order("lamp"))
    assert nudges[:2] == ["", ""]
    assert "SYSTEM NOTE" in nudges[2]
    assert ids[0] in nudges[2]
    assert "file it" in nudges[3]
    assert nudges[-1] == ""
    assert not pump.engine.todos.active


async def test_only_the_issuer_closes() -> None:
    """Another agent that knows the id closes nothing, and gets no answer."""
    seen: list[object] = []

    async def owner(payload: object, metadata: HandlerMetadata) -> object:
        match payload:
            case Order():
                return HandlerResponse(TodoUntil("Never"), "system.todo")
            case TodoRegistered(watcher_id):
                return HandlerResponse.call(Report(watcher_id), "thief", expect_answer=True)
            case _:
                seen.append((payload, pump.engine.todos.active))
                return HandlerResponse.respond(Report("end"))

    async def thief(payload: object, metadata: HandlerMetadata) -> object:
        if isinstance(payload, Report):
            return HandlerResponse(TodoComplete(payload.text), "system.todo-complete")
        raise AssertionError(payload)

    pump = StreamPump()
    pump.register("owner", owner, Order, agent=True, peers=["thief"])
    pump.register("thief", thief, Report, agent=True)
    async with pump:
        await pump.request("owner", Order("x"))
    [(answer, still_open)] = seen
    assert type(answer).__name__ == "SystemError"
    assert answer.code == "no-answer"  # type: ignore[attr-defined]
    assert still_open
    assert not pump.engine.todos.active  # it ended with the conversation


async def test_two_agents_in_two_conversations_do_not_see_each_others_watchers() -> None:
    """Both agents of both conversations wait for the same class; each is reminded of its own watcher, and only then."""
    both_wait = asyncio.Barrier(2)
    reminded: dict[tuple[str, str], list[str]] = {}
    watchers: dict[tuple[str, str], str] = {}

    async def chief(payload: object, metadata: HandlerMetadata) -> object:
        mine = (metadata.conversation_id, "chief")
        reminded.setdefault(mine, []).append(metadata.todo_nudge)
        match payload:
            case Order():
                return HandlerResponse(TodoUntil("Report", "", f"chief of {payload.item}"), "system.todo")
            case TodoRegistered(watcher_id):
                watchers[mine] = watcher_id
                return HandlerResponse(Ask(), "clerk")
            case Report():
                return HandlerResponse(TodoComplete(watchers[mine]), "system.todo")
            case TodoClosed(_, was_raised):
                return HandlerResponse.respond(Done([str(was_raised), *reminded[mine]]))
            case _:
                raise AssertionError(payload)

    async def clerk(payload: object, metadata: HandlerMetadata) -> object:
        mine = (metadata.conversation_id, "clerk")
        reminded.setdefault(mine, []).append(metadata.todo_nudge)
        match payload:
            case Ask():
                return HandlerResponse(TodoUntil("Order", "nobody", "clerk's own"), "system.todo")
            case TodoRegistered(watcher_id):
                watchers[mine] = watcher_id
                await both_wait.wait()  # now each conversation has two watchers open
                return HandlerResponse.respond(Report("done"))
            case _:
                raise AssertionError(payload)

    pump = StreamPump()
    pump.register("chief", chief, Order, agent=True, peers=["clerk"])
    pump.register("clerk", clerk, Ask, agent=True)
    async with pump:
        first, second = await asyncio.gather(*(pump.request("chief", Order(item)) for item in ("lamps", "chairs")))
        await pump.wait_idle()
    assert len(watchers) == len(set(watchers.values())) == 4
    for answer, own, other in ((first, "lamps", "chairs"), (second, "chairs", "lamps")):
        was_raised, *nudges = answer.nudges
        assert was_raised == "True"
        assert [f"chief of {own}" in nudge for nudge in nudges] == [False, False, True, False]
        assert not any(other in nudge or "clerk's own" in nudge for nudge in nudges)
    assert not any(nudge for (_, agent), nudges in reminded.items() if agent == "clerk" for nudge in nudges)
    assert not pump.engine.todos.active


async def test_the_class_must_be_the_very_one() -> None:
    """A class whose name only contains the awaited one does not raise the watcher."""
    nudges: list[str] = []

    async def agent(payload: object, metadata: HandlerMetadata) -> object:
        nudges.append(metadata.todo_nudge)
        match payload:
            case Order():
                return HandlerResponse(TodoUntil("Report"), "system.todo")
            case TodoRegistered():
                return HandlerResponse(Ask(), "clerk")
            case _:
                return HandlerResponse.respond(Done(nudges))

    async def clerk(payload: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        return HandlerResponse.respond(ReportDraft("nearly"))

    pump = StreamPump()
    pump.register("agent", agent, Order, agent=True, peers=["clerk"])
    pump.register("clerk", clerk, Ask)
    async with pump:
        assert await pump.request("agent", Order("x")) == Done(["", "", ""])


async def test_watchers_end_with_a_conversation_that_is_cancelled() -> None:
    registered = asyncio.Event()

    async def agent(payload: object, metadata: HandlerMetadata) -> object:
        if isinstance(payload, Order):
            return HandlerResponse(TodoUntil("Report"), "system.todo")
        registered.set()
        await asyncio.Event().wait()
        raise AssertionError("never comes here")

    pump = StreamPump()
    pump.register("agent", agent, Order, agent=True)
    async with pump:
        thread = await pump.inject("agent", Order("x"))
        await registered.wait()
        assert pump.engine.todos.active
        assert pump.cancel(thread)
        await pump.wait_idle()
        assert not pump.engine.todos.active
