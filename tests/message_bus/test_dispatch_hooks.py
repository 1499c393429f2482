"""`DispatchHook`: the exact calls for every outcome, so that a journal can rely on them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from xml_pipeline.errors import DeadlineExceeded, HandlerError, PipelineError
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import GUARD, Ask, Gate, Other, Reply, echo, guard, quiesce, running, silent, until


class Recorder:
    """Records what it is told, with entry ids made from the target's name."""

    def __init__(self, log=None, name=""):
        self.log = [] if log is None else log
        self.name = name
        self.count = 0
        self.intents = []

    async def on_intent(self, *, thread_id, from_id, to_id, payload_type, payload_bytes):
        self.count += 1
        entry = f"{self.name}{to_id}#{self.count}"
        self.intents.append((thread_id, from_id, to_id, payload_type, payload_bytes))
        self.log.append(("intent", entry))
        return entry

    async def on_dispatched(self, entry_id):
        self.log.append(("dispatched", entry_id))

    async def on_acknowledged(self, entry_id):
        self.log.append(("acknowledged", entry_id))

    async def on_failed(self, entry_id, error):
        self.log.append(("failed", entry_id))
        assert isinstance(error, str)
        assert error

    async def on_thread_complete(self, thread_id):
        self.log.append(("complete", thread_id))


class Talkative(Recorder):
    """Waits in every call, as one that writes to a disk does."""

    async def on_intent(self, *, thread_id, from_id, to_id, payload_type, payload_bytes):
        await asyncio.sleep(0)
        return await super().on_intent(
            thread_id=thread_id, from_id=from_id, to_id=to_id, payload_type=payload_type, payload_bytes=payload_bytes
        )

    async def on_dispatched(self, entry_id):
        await asyncio.sleep(0)
        await super().on_dispatched(entry_id)

    async def on_acknowledged(self, entry_id):
        await asyncio.sleep(0)
        await super().on_acknowledged(entry_id)

    async def on_failed(self, entry_id, error):
        await asyncio.sleep(0)
        await super().on_failed(entry_id, error)


def call(target, number, end, prefix=""):
    entry = f"{prefix}{target}#{number}"
    return [("intent", entry), ("dispatched", entry), (end, entry)]


@pytest.fixture(params=[Recorder, Talkative], ids=["quick", "waiting"])
def hook(request):
    return request.param()


async def recorded(pump, hook, target="tool", payload=None, cancel_when=None):
    """What a hook is told of one external message, once all is over."""
    async with running(pump):
        pump.register_dispatch_hook(hook)
        thread = await pump.inject(target, payload or Ask("x"))
        waiting = asyncio.ensure_future(pump.wait(thread, timeout=5))
        if cancel_when is not None:
            await cancel_when()
            pump.cancel(thread)
        await asyncio.gather(waiting, return_exceptions=True)
        await pump.wait_idle()
    return thread, hook.log


# -- every outcome


async def test_handled(hook):
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    thread, log = await recorded(pump, hook)
    assert log == [*call("tool", 1, "acknowledged"), ("complete", thread)]


async def test_answered(hook):
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    thread, log = await recorded(pump, hook)
    assert log == [*call("tool", 1, "acknowledged"), ("complete", thread)]


async def test_forwarded_and_answered():
    hook = Recorder()
    pump = StreamPump()

    async def front(payload, metadata):
        return HandlerResponse(Other(), "tool")

    pump.register("front", front, Ask)

    async def tool(payload, metadata):
        return HandlerResponse.respond(Reply())

    pump.register("tool", tool, Other)
    thread, log = await recorded(pump, hook, "front")
    assert log == [*call("front", 1, "acknowledged"), *call("tool", 2, "acknowledged"), ("complete", thread)]


@pytest.mark.parametrize("returned", [42, [1], b"no mark-up"])
async def test_a_result_that_is_none(hook, returned):
    pump = StreamPump()

    async def tool(payload, metadata):
        return returned

    pump.register("tool", tool, Ask)
    thread, log = await recorded(pump, hook)
    assert log == [*call("tool", 1, "failed"), ("complete", thread)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, asyncio.CancelledError])
async def test_an_exception(hook, error):
    pump = StreamPump()

    async def tool(payload, metadata):
        raise error

    pump.register("tool", tool, Ask)
    thread, log = await recorded(pump, hook)
    assert log == [*call("tool", 1, "failed"), ("complete", thread)]


async def test_a_timeout(hook):
    pump = StreamPump()
    pump.register("tool", Gate(), Ask, timeout=0.01)
    thread, log = await recorded(pump, hook)
    assert sorted(log) == sorted([*call("tool", 1, "failed"), ("complete", thread)])
    assert log[:2] == call("tool", 1, "failed")[:2]


async def test_a_cancellation(hook):
    gate = Gate()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    thread, log = await recorded(pump, hook, cancel_when=lambda: gate.until_begun(1))
    assert sorted(log) == sorted([*call("tool", 1, "failed"), ("complete", thread)])


async def test_a_cancellation_in_the_middle_of_on_intent():
    """Whoever was told of the intent is told of its end; whoever was not, is not."""
    entered, never = asyncio.Event(), asyncio.Event()
    log = []

    class Stuck(Recorder):
        async def on_intent(self, **fields):
            entered.set()
            await never.wait()

    pump = StreamPump()
    pump.register("tool", silent, Ask)
    async with running(pump):
        pump.register_dispatch_hook(Recorder(log, "first "))
        pump.register_dispatch_hook(Stuck(log, "stuck "))
        thread = await pump.inject("tool", Ask())
        await entered.wait()
        assert pump.cancel(thread)
        await pump.wait_idle()
        await quiesce()
    assert [entry for entry in log if entry[0] != "complete"] == [
        ("intent", "first tool#1"),
        ("failed", "first tool#1"),
    ]


async def test_a_handler_that_ignores_its_cancellation_has_failed(monkeypatch):
    monkeypatch.setattr("xml_pipeline.message_bus.worker_pool.GRACE", 0.02)
    release = asyncio.Event()
    hook = Recorder()
    pump = StreamPump()

    async def stubborn(payload, metadata):
        for _ in range(2):  # the third one ends it, so that a test that fails does not hang
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
                break
        else:
            await release.wait()

    pump.register("tool", stubborn, Ask, timeout=0.01)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        await asyncio.gather(pump.request("tool", Ask(), timeout=5), return_exceptions=True)
        async with guard(5):
            await until(lambda: pump.statistics().abandoned_handlers)
            await quiesce()
        told = [kind for kind, _ in hook.log]
        assert told.count("failed") == 1
        release.set()
        await quiesce()
    assert [kind for kind, _ in hook.log].count("failed") == 1
    assert "acknowledged" not in [kind for kind, _ in hook.log]


async def test_one_that_cancels_its_own_task_and_returns_has_one_end():
    log = []
    pump = StreamPump()

    async def tool(payload, metadata):
        asyncio.current_task().cancel()
        return HandlerResponse.respond(Reply())

    pump.register("tool", tool, Ask)
    async with running(pump):
        for name in ("a ", "b "):
            pump.register_dispatch_hook(Talkative(log, name))
        await asyncio.gather(pump.request("tool", Ask(), timeout=5), return_exceptions=True)
        await pump.wait_idle()
        await quiesce()
    ends = [entry for kind, entry in log if kind in ("acknowledged", "failed")]
    assert sorted(ends) == ["a tool#1", "b tool#1"]


async def test_a_refused_call_does_not_fail_the_message_that_made_it():
    hook = Recorder()
    pump = StreamPump()

    async def agent(payload, metadata):
        if isinstance(payload, SystemError):
            return None
        return HandlerResponse(Ask(), "forbidden")

    pump.register("agent", agent, Ask, agent=True)
    pump.register("forbidden", echo, Ask)
    thread, log = await recorded(pump, hook, "agent")
    assert log == [*call("agent", 1, "acknowledged"), *call("agent", 2, "acknowledged"), ("complete", thread)]
    assert [intent[3] for intent in hook.intents] == ["Ask", "SystemError"]


async def test_a_message_that_reaches_no_handler_has_no_intent():
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    thread, log = await recorded(pump, hook, "nobody")
    assert log == [("complete", thread)]


async def test_a_generator_is_acknowledged_at_its_end(hook):
    pump = StreamPump()
    when = []

    async def tool(payload, metadata):
        yield HandlerResponse.respond(Reply("1"))
        when.append(len(hook.log))
        yield HandlerResponse.respond(Reply("2"))
        when.append(len(hook.log))

    pump.register("tool", tool, Ask)
    thread, log = await recorded(pump, hook)
    assert log == [*call("tool", 1, "acknowledged"), ("complete", thread)]
    assert when == [2, 2]


async def test_a_shutdown_with_a_running_handler_fails_it():
    gate = Gate()
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump, shutdown=0.01):
        pump.register_dispatch_hook(hook)
        thread = await pump.inject("tool", Ask())
        await gate.until_begun(1)
    told = [entry for entry in hook.log if entry[0] != "complete" or entry[1] == thread]
    assert sorted(told) == sorted([*call("tool", 1, "failed"), ("complete", thread)])


# -- completion


async def test_a_conversation_is_complete_once_however_many_messages_it_had():
    hook = Recorder()
    pump = StreamPump()

    async def front(payload, metadata):
        return [HandlerResponse(Other(number), "tool") for number in range(5)] if isinstance(payload, Ask) else None

    async def tool(payload, metadata):
        await asyncio.sleep(0)
        return HandlerResponse.respond(Reply()) if payload.number % 2 else None

    pump.register("front", front, (Ask, Reply))
    pump.register("tool", tool, Other)
    thread, log = await recorded(pump, hook, "front")
    assert log.count(("complete", thread)) == 1
    assert log[-1] == ("complete", thread)
    assert sum(kind == "intent" for kind, _ in log) == 8  # front, five calls, two answers


async def test_every_conversation_is_told_before_shutdown_returns():
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        threads = [await pump.inject("tool", Ask()) for _ in range(100)]
    assert sorted(thread for kind, thread in hook.log if kind == "complete") == sorted(threads)


async def test_a_next_turn_completes_the_conversation_again():
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        thread = await pump.inject("tool", Ask())
        await pump.wait_idle()
        await pump.inject("tool", Ask(), thread_id=thread)
        await pump.wait_idle()
    assert hook.log.count(("complete", thread)) == 2


# -- what on_intent is told


async def test_the_five_keywords_and_canonical_bytes():
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        thread = await pump.inject("tool", Ask("a < b & c"), from_id="console")
        raw = (
            "<m:message xmlns:m='https://xml-pipeline.org/ns/envelope/v1'><m:meta><m:from>console</m:from><m:to>tool</m:to>"
            f"<m:thread>{thread}</m:thread></m:meta><Ask><Text><![CDATA[x<y]]></Text><!-- c --></Ask></m:message>"
        )
        await pump.wait_idle()
        await pump.inject(raw.encode(), thread, "console")
        await pump.wait_idle()
    first, second = hook.intents
    assert first == (thread, "console", "tool", "Ask", b"<Ask><Text>a &lt; b &amp; c</Text></Ask>")
    assert second[1:] == ("console", "tool", "Ask", b"<Ask><Text>x&lt;y</Text></Ask>")


async def test_message_id_is_given_to_those_that_take_it():
    seen = []
    ids = []

    class Takes(Recorder):
        async def on_intent(self, *, message_id, **fields):
            seen.append(("takes", message_id))
            return ""

    class TakesAll:
        async def on_intent(self, **fields):
            seen.append(("all", fields["message_id"]))
            return ""

    class Strict:
        async def on_intent(self, *, thread_id, from_id, to_id, payload_type, payload_bytes):
            seen.append(("strict", None))
            return ""

    pump = StreamPump()

    async def tool(payload, metadata):
        ids.append(metadata.message_id)

    pump.register("tool", tool, Ask)
    async with running(pump):
        for hook in (Takes(), TakesAll(), Strict()):
            pump.register_dispatch_hook(hook)
        await pump.inject("tool", Ask())
        await pump.wait_idle()
    (message_id,) = ids
    assert seen == [("takes", message_id), ("all", message_id), ("strict", None)]


async def test_the_batch_form_gets_dicts_and_returns_ids():
    log = []

    class Batch:
        async def on_intents(self, intents):
            log.extend(
                ("intent", fields["to_id"], fields["payload_bytes"], bool(fields["message_id"])) for fields in intents
            )
            return [f"id-{len(log)}-{number}" for number, _ in enumerate(intents)]

        async def on_acknowledged(self, entry_id):
            log.append(("acknowledged", entry_id))

        async def on_failed(self, entry_id, error):
            log.append(("failed", entry_id))

    pump = StreamPump()
    pump.register("tool", silent, Ask)
    async with running(pump):
        pump.register_dispatch_hook(Batch())
        await pump.inject("tool", Ask("x"))
        await pump.wait_idle()
    assert log == [("intent", "tool", b"<Ask><Text>x</Text></Ask>", True), ("acknowledged", "id-1-0")]


async def test_acknowledged_only_after_what_was_sent_is_accepted():
    """When a hook hears that a message is done, everything it led to has been counted in."""
    accepted = []
    pump = StreamPump()

    async def front(payload, metadata):
        return [HandlerResponse(Ask(), "tool") for _ in range(3)]

    class Watching:
        async def on_acknowledged(self, entry_id):
            accepted.append(pump.statistics().accepted)

        async def on_intent(self, *, to_id, **fields):
            return to_id

    pump.register("front", front, Other)
    pump.register("tool", silent, Ask)
    async with running(pump):
        before = pump.statistics().accepted
        pump.register_dispatch_hook(Watching())
        await pump.inject("front", Other())
        await pump.wait_idle()
    assert accepted[0] >= before + 4


async def test_the_handler_runs_after_the_intent_and_before_the_end():
    order = []

    class Ordering(Recorder):
        async def on_dispatched(self, entry_id):
            order.append("dispatched")

        async def on_acknowledged(self, entry_id):
            order.append("acknowledged")

    async def tool(payload, metadata):
        order.append("handler")

    pump = StreamPump()
    pump.register("tool", tool, Ask)
    await recorded(pump, Ordering())
    assert order == ["dispatched", "handler", "acknowledged"]


# -- hooks that fail


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
@pytest.mark.parametrize("method", ["on_intent", "on_dispatched", "on_acknowledged", "on_thread_complete"])
async def test_a_hook_that_raises_changes_nothing_for_anybody_else(method, error, caplog):
    log = []
    broken = Recorder([], "broken ")

    async def fail(*args, **kwargs):
        raise error

    setattr(broken, method, fail)
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with running(pump):
        for hook in (Recorder(log, "before "), broken, Recorder(log, "after ")):
            pump.register_dispatch_hook(hook)
        for number in range(3):
            assert await pump.request("tool", Ask(str(number)), timeout=5) == Reply(str(number))
        await pump.wait_idle()
    for name in ("before ", "after "):
        for number in (1, 2, 3):
            entry = f"{name}tool#{number}"
            assert [kind for kind, known in log if known == entry] == ["intent", "dispatched", "acknowledged"]
    assert sum(kind == "complete" for kind, _ in log) == 6
    assert method in caplog.text


async def test_a_hook_whose_intent_raised_hears_no_more_of_that_message():
    hook = Recorder()
    told = []

    async def fail(**fields):
        raise ValueError

    hook.on_intent = fail
    hook.on_dispatched = hook.on_acknowledged = lambda entry: told.append(entry)
    pump = StreamPump()
    pump.register("tool", echo, Ask)
    thread, log = await recorded(pump, hook)
    assert told == []
    assert log == [("complete", thread)]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_on_failed_that_raises_leaves_the_others_told(error):
    log = []
    broken = Recorder([], "broken ")

    async def fail(*args):
        raise error

    broken.on_failed = fail
    pump = StreamPump()

    async def tool(payload, metadata):
        raise KeyError

    pump.register("tool", tool, Ask)
    async with running(pump):
        pump.register_dispatch_hook(broken)
        pump.register_dispatch_hook(Recorder(log))
        for _ in range(3):
            with pytest.raises(PipelineError):
                await pump.request("tool", Ask(), timeout=5)
        await pump.wait_idle()
    assert [kind for kind, _ in log if kind == "failed"] == ["failed"] * 3


# -- registering


async def test_registering_twice_and_leaving():
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", silent, Ask)
    pump.register_dispatch_hook(hook)
    pump.register_dispatch_hook(hook)
    assert pump.dispatch_hooks == (hook,)
    pump.unregister_dispatch_hook(hook)
    assert pump.dispatch_hooks == ()
    async with running(pump):
        await pump.inject("tool", Ask())
        await pump.wait_idle()
    assert hook.log == []


async def test_one_that_leaves_in_the_middle_still_hears_the_end():
    gate = Gate()
    hook = Recorder()
    pump = StreamPump()
    pump.register("tool", gate, Ask)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        await pump.inject("tool", Ask())
        await gate.until_begun(1)
        pump.unregister_dispatch_hook(hook)
        gate.open()
        await pump.wait_idle()
    assert hook.log == call("tool", 1, "acknowledged")


async def test_hooks_need_only_the_methods_they_want():
    told = []

    class OnlyComplete:
        async def on_thread_complete(self, thread_id):
            told.append(thread_id)

    pump = StreamPump()
    pump.register("tool", echo, Ask)
    async with running(pump):
        pump.register_dispatch_hook(OnlyComplete())
        pump.register_dispatch_hook(object())
        thread = await pump.inject("tool", Ask())
        assert await pump.wait(thread) == Reply()
    assert told == [thread]


# -- hooks that take their time


class Asking(Recorder):
    """Asks its own pump in one of its calls, whenever that is about the tool."""

    def __init__(self, pump, where):
        super().__init__()
        self._pump, self._where, self.answers = pump, where, []

    async def _ask(self, where, about):
        if where == self._where and about.startswith("tool"):
            self.answers.append(await self._pump.request("audit", Ask(where), timeout=5))

    async def on_intent(self, *, thread_id, from_id, to_id, payload_type, payload_bytes):
        await self._ask("on_intent", to_id)
        return await super().on_intent(
            thread_id=thread_id, from_id=from_id, to_id=to_id, payload_type=payload_type, payload_bytes=payload_bytes
        )

    async def on_dispatched(self, entry_id):
        await self._ask("on_dispatched", entry_id)
        await super().on_dispatched(entry_id)

    async def on_acknowledged(self, entry_id):
        await self._ask("on_acknowledged", entry_id)
        await super().on_acknowledged(entry_id)

    async def on_failed(self, entry_id, error):
        await self._ask("on_failed", entry_id)
        await super().on_failed(entry_id, error)


@pytest.mark.parametrize("where", ["on_intent", "on_dispatched", "on_acknowledged", "on_failed"])
async def test_a_hook_may_ask_its_own_pump(where):
    """There is one slot in all, and the message that it is about has it."""
    pump = StreamPump(max_concurrent_handlers=1)

    async def tool(payload, metadata):
        if where == "on_failed":
            raise ValueError
        return HandlerResponse.respond(Reply(payload.text))

    pump.register("tool", tool, Ask, concurrency=1)
    pump.register("audit", echo, Ask)
    hook = Asking(pump, where)
    async with running(pump):
        pump.register_dispatch_hook(hook)
        for number in range(3):
            (answer,) = await asyncio.gather(pump.request("tool", Ask(str(number))), return_exceptions=True)
            assert isinstance(answer, PipelineError) if where == "on_failed" else answer == Reply(str(number))
        await until(lambda: len(hook.answers) == 3)
        await pump.wait_idle()
        pump.unregister_dispatch_hook(hook)
        gate = Gate()
        pump.register("gate", gate, Ask)
        asking = [asyncio.create_task(pump.request("gate", Ask())) for _ in range(3)]
        await gate.until_begun(1)
        await quiesce()
        assert gate.running == 1  # what was lent has been given back
        gate.open()
        await asyncio.gather(*asking)
    assert hook.answers == [Reply(where)] * 3


async def test_the_listeners_time_counts_from_before_on_intent():
    """A hook that never ends costs a message its time, and no slot."""
    never = asyncio.Event()
    begun = []
    pump = StreamPump(max_concurrent_handlers=1)

    async def tool(payload, metadata):
        begun.append(payload.text)
        return HandlerResponse.respond(Reply(payload.text))

    class Stuck:
        async def on_intent(self, *, payload_bytes, **fields):
            if b"stuck" in payload_bytes:
                await never.wait()
            return "entry"

    pump.register("tool", tool, Ask, timeout=0.03)
    async with running(pump):
        pump.register_dispatch_hook(Stuck())
        for _ in range(2):
            with pytest.raises(DeadlineExceeded) as caught:
                await pump.request("tool", Ask("stuck"), timeout=GUARD / 2)
            assert "'tool'" in caught.value.detail
        assert await pump.request("tool", Ask("x"), timeout=GUARD / 2) == Reply("x")
        assert pump.statistics().running == 0
    assert begun == ["x"]


@pytest.mark.parametrize("where", ["on_acknowledged", "on_failed"])
async def test_a_hook_that_never_ends_costs_no_slot(where, monkeypatch, caplog):
    monkeypatch.setattr("xml_pipeline.message_bus.turns._HOOK_PATIENCE", 0.02)
    never = asyncio.Event()
    pump = StreamPump(max_concurrent_handlers=1)

    async def tool(payload, metadata):
        if where == "on_failed":
            raise ValueError
        return HandlerResponse.respond(Reply(payload.text))

    class Stuck(Recorder):
        async def on_acknowledged(self, entry_id):
            await never.wait()

        async def on_failed(self, entry_id, error):
            await never.wait()

    pump.register("tool", tool, Ask)
    async with running(pump):
        hook = Stuck()
        pump.register_dispatch_hook(hook)
        for _ in range(3):
            (answer,) = await asyncio.gather(pump.request("tool", Ask("x"), timeout=GUARD / 2), return_exceptions=True)
            assert isinstance(answer, HandlerError) if where == "on_failed" else answer == Reply("x")
        await until(lambda: len([entry for entry in hook.log if entry[0] == "complete"]) == 3)
        assert pump.statistics().running == 0
    assert "hooks did not end" in caplog.text
