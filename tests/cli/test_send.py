"""``send``: one message, its conversation, its answer; and what becomes of messages that cannot be sent."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from lxml import etree

from .conftest import IMPATIENT
from .forked import ENVIRONMENT

CORE = "{https://xml-pipeline.org/ns/core/v1}"


def events_of(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_the_conversation_is_shown_and_then_the_answer(cli, organism):
    result = cli("send", "echo", '{"text": "hi"}')
    assert (result.code, result.err) == (0, "")
    asked, answered, answer = result.out.splitlines()
    assert "external -> echo" in asked
    assert "Ping(text='hi', count=1)  [answered in " in asked
    assert "echo -> external" in answered
    assert "Pong(text='echo hi')  [handled]" in answered
    assert answer == "answer: Pong(text='echo hi')"


@pytest.mark.parametrize(
    ("message", "stdin"),
    [
        ('{"text": "hi"}', b""),
        ("<Ping><Text>hi</Text></Ping>", b""),
        ("\n  <Ping>\n <Text>hi</Text></Ping>  ", b""),
        ("-", b'{"text": "hi"}\n'),
        ("-", b"\xef\xbb\xbf<Ping><Text>hi</Text></Ping>"),
    ],
)
def test_messages_are_json_or_xml_as_argument_or_from_stdin(cli, organism, message, stdin):
    result = cli("send", "echo", message, "--xml", stdin=stdin)
    assert (result.code, result.out, result.err) == (0, "<Pong><Text>echo hi</Text></Pong>\n", "")


def test_json_is_a_line_for_each_event_and_the_answer_last(cli, organism):
    result = cli("send", "echo", '{"text": "Grüße"}', "--json")
    assert (result.code, result.err) == (0, "")
    events = events_of(result)
    kinds = [event["event"] for event in events]
    assert {"thread", "agent_state", "message_received", "message_sent", "outcome", "answer"} == set(kinds)
    assert len({event["conversation_id"] for event in events if "conversation_id" in event}) == 1
    received = events[kinds.index("message_received")]
    assert (received["from_id"], received["to_id"]) == ("external", "echo")
    assert received["payload"] == {"text": "Grüße", "count": 1}
    answer = events[kinds.index("answer")]
    assert answer == {"event": "answer", "payload_type": "Pong", "payload": {"text": "echo Grüße"}}


def test_every_answer_is_awaited_when_asked_for(cli, organism):
    answers = "".join(f"<Pong><Text>{number}</Text></Pong>\n" for number in range(3))
    assert cli("send", "echo", '{"text": "many"}', "--stream", "--xml").out == answers
    assert cli("send", "echo", '{"text": "many"}', "--xml").out == answers.splitlines(keepends=True)[0]


def test_a_group_answers_once_for_each_member(cli, organism):
    result = cli("send", "all", '{"text": "x"}', "--stream")
    assert result.code == 0
    assert result.out.count("answer: Pong(text='echo x')") == 2
    assert "external -> all.one" in result.out
    assert "external -> all.other" in result.out


def test_the_class_is_found_or_chosen(cli, organism):
    assert "Ping(text='a', count=3)" in cli("send", "two", '{"text": "a", "count": 3}').out
    assert "Note(text='a')" in cli("send", "two", "<Note><Text>a</Text></Note>").out
    assert "Note(text='a')" in cli("send", "two", '{"text": "a"}', "--class", "Note").out
    line = cli("send", "two", '{"text": "a"}').complaint(1)
    assert line == "error: 'two' takes Ping and Note, and the message fits both; say which with --class NAME"


def test_the_sender_is_who_it_is_said_to_be(cli, organism):
    result = cli("send", "echo", '{"text": "sender"}', "--from", "ü & <me>", "--xml")
    assert result.out == "<Pong><Text>ü &amp; &lt;me&gt;</Text></Pong>\n"


@pytest.mark.parametrize("sender", ["system", "system.boot", "echo", "ECHO", ""])
def test_a_sender_that_nobody_outside_may_be_is_refused(cli, organism, sender):
    line = cli("send", "echo", '{"text": "x"}', "--from", sender, "--xml").complaint(1)
    assert line.startswith("error: validation: The message is not valid. (")


def test_a_handler_that_fails_is_told_with_code_text_and_cause(cli, organism):
    result = cli("send", "echo", '{"text": "crash"}')
    expected = "error: handler: The message could not be processed. (handler of 'echo' raised ValueError: it crashed)"
    assert result.complaint(1) == expected
    assert "[failed in " in result.out
    assert "Traceback" in cli("send", "echo", '{"text": "crash"}', "--log-level", "error").err


def test_an_error_is_json_too(cli, organism):
    result = cli("send", "echo", '{"text": "crash"}', "--json")
    assert result.code == 1
    error = next(event for event in events_of(result) if event["event"] == "error")
    assert error["code"] == "handler"
    assert error["message"] == "The message could not be processed."
    assert "ValueError: it crashed" in error["detail"]


def test_no_answer_is_an_error(cli, organism):
    assert "error: no-answer: " in cli("send", "echo", '{"text": "silent"}').complaint(1)
    assert "error: no-answer: " in cli("send", "echo", '{"text": "silent"}', "--stream").complaint(1)


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_what_takes_too_long_has_its_own_exit_code(cli, organism, options):
    line = cli("send", "echo", '{"text": "hang"}', "--timeout", "0.2", *options).complaint(124)
    assert line.startswith("error: timeout: The message was not processed in time. (")


def test_what_handlers_print_does_not_get_into_what_programs_read(cli, organism):
    for option in ("--json", "--xml"):
        result = cli("send", "echo", '{"text": "print"}', option)
        assert result.code == 0
        assert "printed by the handler" not in result.out
        assert result.err == "printed by the handler\n"
    assert "printed by the handler" in cli("send", "echo", '{"text": "print"}').out


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("", "the message is empty; give a JSON object or an XML element"),
        ("  ", "the message is empty"),
        ("{", "the message is not JSON: line 1, column 2"),
        ("{text: hi}", "in a shell, put it into single quotes"),
        ("[]", 'a message is a JSON object, or an XML element; expected Ping {"text": string, "count": integer'),
        ("42", "a message is a JSON object"),
        ('"hi"', "a message is a JSON object"),
        ('{"text": 1}', "Ping.text: found 1 (int), expected text"),
        ('{"txt": "a"}', "the key 'txt' is unknown; did you mean 'text'?"),
        ("{}", "Ping.text: the key 'text' is missing"),
        ('{"text": "a", "text": "b"}', "the message has the key 'text' twice"),
        ('{"text": "a", "count": 1e400}', "count"),
        ("[" * 100_000, "nested too deeply"),
        ('{"count": ' + "9" * 5_000 + "}", "the message is not usable JSON"),
        ('{"text": "a\\u0000b"}', "U+0000"),
        ('{"text": "\\ud800"}', "cannot be carried by XML"),
        ("\udcff\udcfe", "the message is not UTF-8"),
    ],
)
def test_json_that_is_wrong_is_one_line(cli, organism, message, complaint):
    result = cli("send", "echo", message)
    assert complaint in result.complaint(1)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("<Ping>", "the message is not usable XML: not well-formed: "),
        ("<Ping/>", "the message does not fit Ping: line 1: "),
        ("<Ping><Text>x</Text><Count>abc</Count></Ping>", "'abc' is not a valid value"),
        ("<Ping><Text>x</Text><More/></Ping>", "the message does not fit Ping: line 1: "),
        ("<Pnig/>", "'echo' takes <Ping>, not <Pnig>, did you mean 'Ping'?"),
        ('<Ping xmlns="urn:x"/>', "is in a namespace, and 'echo' takes <Ping>, in none"),
        ("<!DOCTYPE a><Ping/>", "a document type declaration is not allowed"),
        ('<message xmlns="https://xml-pipeline.org/ns/envelope/v1"/>', "give the payload's element alone"),
        ("<Ping><Text>\udcff</Text></Ping>", "not UTF-8"),
    ],
)
def test_xml_that_is_wrong_is_one_line_and_answered_with_huh(cli, organism, message, complaint):
    assert complaint in cli("send", "echo", message).complaint(1)
    result = cli("send", "echo", message, "--xml")
    assert complaint in result.complaint(1)
    answer = etree.fromstring(result.out)
    assert answer.tag == f"{CORE}huh"
    assert answer.findtext(f"{CORE}error") == "The message is not valid."
    assert answer.findtext(f"{CORE}original-attempt")


def test_json_that_is_wrong_is_not_answered_with_xml(cli, organism):
    result = cli("send", "echo", "{}", "--xml")
    assert (result.code, result.out) == (1, "")


def test_more_than_a_message_may_have_is_not_read(cli, organism):
    line = cli("send", "echo", "-", stdin=b" " * 1_048_577).complaint(1)
    assert line == "error: standard input has more than 1048576 bytes; a message is not that large"


def test_an_unknown_target_is_told_with_the_nearest(cli, organism):
    assert cli("send", "ecko", "{}").complaint(1) == "error: there is no listener 'ecko', did you mean 'echo'?"


def test_nobody_is_no_target(cli, organism):
    line = cli("send", "", '{"text": "x"}').complaint(1)
    assert line.startswith("error: there is no listener ''; there are: echo, two, ")


@pytest.fixture
def blocked(start, organism):
    """Start a message whose handler blocks the event loop, and wait until it does."""

    def begin(*options):
        text = (organism / "handlers.py").read_text()
        block = "print('blocking', flush=True); __import__('time').sleep(100)"
        (organism / "handlers.py").write_text(text.replace("await asyncio.Event().wait()", block))
        running = start("send", "echo", '{"text": "hang"}', *options, program=IMPATIENT)
        running.wait_for("blocking")
        return running

    return begin


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_a_handler_that_blocks_the_event_loop_is_named_and_ends_the_command_in_time(blocked, options):
    running = blocked("--timeout", "0.5", *options)
    assert running.end() == 124, running
    assert running.err == ["error: not stopped in time, the event loop is blocked; running: 'echo'"]


def test_a_signal_ends_it_even_when_a_handler_blocks_the_event_loop(blocked):
    running = blocked()
    running.signal(signal.SIGINT)
    assert running.end() == 130, running


def test_a_signal_ends_it_while_an_answer_is_awaited(start, organism):
    text = (organism / "handlers.py").read_text()
    (organism / "handlers.py").write_text(text.replace("await asyncio", "print('waiting', flush=True); await asyncio"))
    running = start("send", "echo", '{"text": "hang"}')
    running.wait_for("waiting")
    running.signal(signal.SIGINT)
    assert running.end() == 130, running
    assert running.err == []


def test_another_file_can_be_named(cli, organism):
    (organism / "organism.yaml").rename(organism / "other.yaml")
    assert cli("send", "echo", '{"text": "hi"}', "--file", "other.yaml").code == 0
    assert (
        cli("send", "echo", '{"text": "hi"}', "--file", "nope.yaml").complaint(3) == "nope.yaml: there is no such file"
    )


def test_a_handler_that_does_not_end_does_not_hold_the_command(cli, organism):
    text = (organism / "handlers.py").read_text()
    stubborn = """            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass"""
    (organism / "handlers.py").write_text(text.replace("            await asyncio.Event().wait()", stubborn))
    line = cli("send", "echo", '{"text": "hang"}', "--timeout", "0.1", program=IMPATIENT).complaint(124)
    assert line.startswith("error: timeout: ")


def test_on_a_terminal_what_is_at_work_is_shown_with_a_clock(organism):
    parent, child = pty.openpty()
    arguments = ["send", "echo", '{"text": "hang"}', "--timeout", "0.6"]
    with subprocess.Popen(
        [sys.executable, "-m", "xml_pipeline.cli", *arguments],
        cwd=organism,
        env={**ENVIRONMENT, "TERM": "xterm"},
        stdin=child,
        stdout=child,
        stderr=child,
    ) as process:
        os.close(child)
        shown = b""
        with contextlib.suppress(OSError):  # what reading a terminal ends in, once the other side is closed
            while data := os.read(parent, 4096):
                shown += data
        os.close(parent)
        assert process.wait() == 124
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"external -> echo +Ping\(text='hang', count=1\)  \[at work for \d+ ms\]", text)
    assert "error: timeout: The message was not processed in time. (no answer from 'echo' in 0.6 s)" in text
    assert "[cancelled in " in text
