"""The testing kit: what a test sees of an organism, and that it fails when it must."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from xml_pipeline.errors import (
    DeadlineExceeded,
    HandlerError,
    NoAnswer,
    RoutingError,
)
from xml_pipeline.message_bus.message_state import HandlerResponse, SystemError
from xml_pipeline.testing import TestPump

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Question:
    text: str


@dataclass
class Answer:
    text: str


async def answer(payload, metadata):
    if payload.text == "bad":
        raise ValueError("bad question")
    return HandlerResponse.respond(Answer(payload.text.upper()))


async def ask_tool(payload, metadata):
    """An agent that asks the tool, and hands on what comes back."""
    if isinstance(payload, Question):
        return HandlerResponse(payload, "tool")
    if isinstance(payload, SystemError):
        return HandlerResponse.respond(Answer("it failed"))
    return HandlerResponse.respond(payload)


async def hang(payload, metadata):
    await asyncio.Event().wait()


async def wrong(payload, metadata):
    return "not an answer"


async def many(payload, metadata):
    yield HandlerResponse.respond(Answer("one"))
    raise ValueError("after the first")


async def say_nothing(payload, metadata):
    return None


def make(**options) -> TestPump:
    pump = TestPump(**options)
    pump.register("tool", answer, Question)
    pump.register("agent", ask_tool, Question, agent=True, peers=["tool"])
    pump.register("hang", hang, Question)
    pump.register("wrong", wrong, Question)
    pump.register("many", many, Question)
    pump.register("silent", say_nothing, Question)
    return pump


# ---- asking


async def test_a_question_is_answered():
    async with make() as pump:
        assert await pump.ask("agent", Question("hi")) == Answer("HI")


async def test_an_organism_file_is_enough(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "kit_handlers.py").write_text(
        "from dataclasses import dataclass\n"
        "from xml_pipeline import HandlerResponse\n"
        "@dataclass\nclass Ping:\n    text: str\n"
        "async def echo(payload, metadata): return HandlerResponse.respond(Ping(payload.text * 2))\n"
    )
    (tmp_path / "organism.yaml").write_text(
        "organism: {name: kit}\nlisteners:\n"
        "- {name: echo, payload_class: kit_handlers.Ping, handler: kit_handlers.echo, description: Doubles.}\n"
    )
    for organism in (tmp_path / "organism.yaml", str(tmp_path / "organism.yaml")):
        async with TestPump(organism) as pump:
            import kit_handlers

            assert await pump.ask("echo", kit_handlers.Ping("a")) == kit_handlers.Ping("aa")
            assert pump.config.name == "kit"


async def test_ask_takes_what_request_takes():
    async with make() as pump:
        thread = "1f0e1c9e-8d5b-4f43-9a53-2d8f0d6b7c11"
        await pump.ask("tool", Question("a"), from_id="me", thread_id=thread)
        assert [record.id for record in pump.conversations] == [thread]
        assert pump.conversations[0].messages[0].from_id == "me"


# ---- failures


async def test_an_asker_gets_the_error_with_the_handlers_exception_behind_it():
    async with make() as pump:
        with pytest.raises(HandlerError) as caught:
            await pump.ask("tool", Question("bad"))
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(caught.value.__cause__) == "bad question"


async def test_the_error_shows_the_conversation():
    async with make() as pump:
        with pytest.raises(HandlerError) as caught:
            await pump.ask("tool", Question("bad"))
    notes = "\n".join(caught.value.__notes__)
    assert "external -> tool  Question(text='bad')  [failed in " in notes
    assert "handler: handler of 'tool' raised ValueError: bad question]" in notes


async def test_an_error_that_is_no_handlers_keeps_its_class():
    async with make() as pump:
        with pytest.raises(RoutingError) as caught:
            await pump.ask("nobody", Question("a"))
        assert caught.value.__cause__ is None
        with pytest.raises(NoAnswer):
            await pump.ask("silent", Question("a"))


async def test_a_failure_that_nobody_asked_about_is_raised_when_idle():
    async with make() as pump:
        await pump.inject("tool", Question("bad"))
        with pytest.raises(HandlerError) as caught:
            await pump.until_idle()
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.detail == "handler of 'tool' raised ValueError: bad question"
        await pump.until_idle()  # it has been raised, once


async def test_a_failure_that_nobody_asked_about_is_raised_on_leaving():
    with pytest.raises(HandlerError) as caught:
        async with make() as pump:
            await pump.inject("tool", Question("bad"))
    assert isinstance(caught.value.__cause__, ValueError)
    assert any("external -> tool" in note for note in caught.value.__notes__)


async def test_a_failure_that_an_agent_coped_with_is_raised_too():
    with pytest.raises(HandlerError) as caught:
        async with make() as pump:
            assert await pump.ask("agent", Question("bad")) == Answer("it failed")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_failures_that_are_meant_can_be_allowed_or_taken():
    async with make(raise_errors=False) as pump:
        assert await pump.ask("agent", Question("bad")) == Answer("it failed")
        await pump.until_idle()
        assert [(failure.listener, failure.code) for failure in pump.failures] == [("tool", "handler")]

    async with make() as pump:
        assert await pump.ask("agent", Question("bad")) == Answer("it failed")
        (failure,) = pump.forget_failures()
        assert (failure.listener, str(failure.exception)) == ("tool", "bad question")
        assert failure.conversation_id == pump.conversations[0].id
        assert pump.forget_failures() == []


async def test_several_failures_are_told_together():
    with pytest.raises(HandlerError) as caught:
        async with make() as pump:
            await pump.inject("tool", Question("bad"))
            await pump.inject("wrong", Question("x"))
    notes = "\n".join(caught.value.__notes__)
    assert "and: " in notes
    assert "external -> tool" in notes
    assert "external -> wrong" in notes


async def test_a_wrong_return_value_is_a_failure_without_exception():
    async with make() as pump:
        with pytest.raises(HandlerError, match="could not be processed") as caught:
            await pump.ask("wrong", Question("a"))
    assert caught.value.__cause__ is None
    assert "returned str" in caught.value.detail


async def test_a_failure_of_a_generator_after_its_first_answer_is_raised():
    with pytest.raises(HandlerError) as caught:
        async with make() as pump:
            assert await pump.ask("many", Question("a")) == Answer("one")
    assert str(caught.value.__cause__) == "after the first"


async def test_a_message_that_reached_nobody_is_a_failure():
    async with make() as pump:
        await pump.inject("nobody", Question("a"))
        with pytest.raises(RoutingError) as caught:
            await pump.until_idle()
        assert "nobody" in caught.value.detail


async def test_a_payload_that_cannot_be_sent_is_its_senders_failure():
    async def sends_junk(payload, metadata):
        return HandlerResponse(object(), "tool")

    async with make() as pump:
        pump.register("junk", sends_junk, Question)
        with pytest.raises(HandlerError):
            await pump.ask("junk", Question("a"))
        assert pump.failures[0].listener == "junk"


async def test_what_a_cancelled_handler_was_doing_is_not_its_failure():
    async def calls_both(payload, metadata):
        return [HandlerResponse(payload, "hang"), HandlerResponse(Question("bad"), "tool")]

    async with make() as pump:
        pump.register("both", calls_both, Question)  # a tool: the failure of one call ends it, and the other call
        with pytest.raises(HandlerError):
            await pump.ask("both", Question("a"))
        await pump.until_idle()
        assert [failure.listener for failure in pump.failures] == ["tool"]


# ---- the test's own failure


async def test_a_failing_test_is_shown_its_conversations():
    with pytest.raises(AssertionError) as caught:
        async with make() as pump:
            assert await pump.ask("agent", Question("hi")) == Answer("something else")
    notes = "\n".join(caught.value.__notes__)
    assert "external -> agent  Question(text='hi')  [forwarded in " in notes
    assert "agent -> tool  Question(text='hi')  [answered in " in notes
    assert "agent -> external  Answer(text='HI')  [handled" in notes


async def test_a_failing_test_is_not_hidden_by_a_handler_that_failed_or_hangs():
    with pytest.raises(AssertionError, match="the test's own"):
        async with make() as pump:
            await pump.inject("tool", Question("bad"))
            await pump.inject("hang", Question("a"))
            raise AssertionError("the test's own")


def test_pytest_shows_the_conversation_of_a_failing_test(tmp_path):
    (tmp_path / "test_shown.py").write_text(
        "import asyncio\n"
        "from dataclasses import dataclass\n"
        "from xml_pipeline import HandlerResponse\n"
        "from xml_pipeline.testing import TestPump\n"
        "@dataclass\nclass Ping:\n    text: str\n"
        "async def echo(payload, metadata): return HandlerResponse.respond(payload)\n"
        "def test_it():\n"
        "    async def run():\n"
        "        async with TestPump() as pump:\n"
        "            pump.register('echo', echo, Ping)\n"
        "            assert await pump.ask('echo', Ping('a')) == Ping('b')\n"
        "    asyncio.run(run())\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout, result.stdout  # and `TestPump` was not collected as a test
    assert "external -> echo  Ping(text='a')  [answered in " in result.stdout
    assert "warning" not in result.stdout.lower()


# ---- waiting


async def test_until_idle_waits_for_everything():
    gate = asyncio.Event()
    done = []

    async def slow(payload, metadata):
        await gate.wait()
        done.append(payload.text)

    async with make() as pump:
        pump.register("slow", slow, Question)
        for number in range(3):
            await pump.inject("slow", Question(str(number)))
        waiting = asyncio.ensure_future(pump.until_idle())
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        await waiting
        assert sorted(done) == ["0", "1", "2"]
        assert Counter(event.outcome for event in pump.outcomes) == {"handled": 3}


async def test_what_does_not_become_idle_is_named():
    async with make(timeout=0.05, raise_errors=False) as pump:
        thread = await pump.inject("hang", Question("a"))
        with pytest.raises(DeadlineExceeded) as caught:
            await pump.until_idle()
        assert caught.value.detail == "not idle after 0.05 s: 'hang' (running 1, waiting 0)"
        assert any("external -> hang  Question(text='a')  [running]" in note for note in caught.value.__notes__)
        pump.cancel(thread)


async def test_leaving_with_something_undone_fails_and_names_it():
    with pytest.raises(DeadlineExceeded) as caught:
        async with make(timeout=0.05) as pump:
            await pump.inject("hang", Question("a"))
    assert caught.value.detail == "not done after 0.05 s, and cancelled: 'hang'"


async def test_asking_what_hangs_fails_in_time():
    async with make(timeout=0.05) as pump:
        with pytest.raises(DeadlineExceeded):
            await pump.ask("hang", Question("a"))


# ---- what happened


async def test_conversations_list_messages_and_path():
    async with make() as pump:
        await pump.ask("agent", Question("one"))
        await pump.ask("tool", Question("two"))
        await pump.until_idle()
        first, second = pump.conversations
    assert first.path == ["agent", "tool", "agent"]
    assert second.path == ["tool"]
    assert first.status == second.status == "completed"
    assert [(message.from_id, message.to_id, message.payload) for message in first.messages] == [
        ("external", "agent", Question("one")),
        ("agent", "tool", Question("one")),
        ("tool", "agent", Answer("ONE")),
        ("agent", "external", Answer("ONE")),
    ]
    assert [message.outcome for message in first.messages] == ["forwarded", "answered", "answered", "handled"]
    assert [event.outcome for event in pump.outcomes[-2:]] == ["answered", "handled"]


async def test_what_the_pump_itself_sends_is_left_out():
    async with make() as pump:
        await pump.until_idle()
        assert (pump.conversations, pump.outcomes, pump.failures) == ([], [], [])


async def test_listeners_can_be_added_and_replaced_inside():
    async def other(payload, metadata):
        return HandlerResponse.respond(Answer("replaced"))

    async with make() as pump:
        pump.unregister_listener("tool")
        pump.register("tool", other, Question)
        assert await pump.ask("agent", Question("hi")) == Answer("replaced")


async def test_two_pumps_know_nothing_of_each_other():
    async with make() as one, make() as two:
        await one.ask("tool", Question("a"))
        assert len(one.conversations) == 1
        assert two.conversations == []
