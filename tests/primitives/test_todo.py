"""Reminders over the wire, through a running pump."""

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
