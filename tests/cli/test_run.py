"""``run``: serves until it is told to stop, and then ends as it should, whatever the handlers do."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys

import pytest

from .conftest import DEADLINE, IMPATIENT, ORGANISM
from .forked import ENVIRONMENT

GATE = """
import signal
from xml_pipeline.message_bus.stream_pump import get_stream_pump

running = 0
gate = asyncio.Event()

async def flood(payload, metadata):
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gate.set)
    for number in range(payload.count):
        await get_stream_pump().inject("slow", Note(str(number)))
    return HandlerResponse.respond(Pong("flooded"))

async def slow(payload, metadata):
    global running
    running += 1
    if running == 20:
        print("twenty are running", flush=True)
    await gate.wait()
"""

FLOOD = """
  - {name: flood, payload_class: handlers.Ping, handler: handlers.flood, description: Sends many.}
  - {name: slow, payload_class: handlers.Note, handler: handlers.slow, description: Waits for a signal.}
"""

HEAP = """
import gc
MADE_AT_THE_START = [[]]

async def echo(payload, metadata):
    looked_at = any(each is MADE_AT_THE_START for each in gc.get_objects())
    return HandlerResponse.respond(Pong(f"is looked at: {looked_at}"))
"""

BLOCK = """
async def block(payload, metadata):
    import time
    print("blocking", flush=True)
    while True:
        time.sleep(60)
"""


@pytest.fixture
def flooded(organism):
    with (organism / "handlers.py").open("a") as file:
        file.write(GATE)
    with (organism / "organism.yaml").open("a") as file:
        file.write(FLOOD)
    return organism


def hang(organism, how="await asyncio.Event().wait()"):
    """Have the handler of ``echo`` say that it hangs, and then hang in the way given."""
    text = (organism / "handlers.py").read_text()
    (organism / "handlers.py").write_text(
        text.replace("await asyncio.Event().wait()", f'print("hanging", flush=True)\n            {how}')
    )
    return "--send", "echo", '{"text": "hang"}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_it_exits_0(start, organism, number):
    running = start("run")
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    running.wait_for(f"organism 'test' is running: 4 listeners from organism.yaml ({loop}); Ctrl-C stops it")
    running.signal(number)
    assert running.end() == 0, running
    assert running.err == []
    assert running.out[1].startswith(f"stopping ({number.name}): ")
    assert running.out[1].endswith(" to finish, at most 30 s")
    assert running.out[2].startswith("stopped after 0.")
    assert "everything was finished; messages: " in running.out[2]


def test_what_was_there_at_the_start_is_no_business_of_the_garbage_collector(start, organism):
    with (organism / "handlers.py").open("a") as file:
        file.write(HEAP)
    running = start("run", "--send", "echo", '{"text": "hi"}')
    running.wait_for("answer: Pong(text='is looked at: False')")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_first_message_is_sent_and_shown_and_then_it_serves(start, organism):
    running = start("run", "--send", "echo", '{"text": "hi"}')
    running.wait_for("answer: Pong(text='echo hi')")
    assert any("external -> echo" in line for line in running.out)
    assert running.process.poll() is None
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_first_message_that_fails_is_told_and_then_it_serves(start, organism):
    running = start("run", "--send", "echo", '{"text": "crash"}')
    running.wait_for("error: handler: The message could not be processed. (handler of 'echo' raised ValueError")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_first_message_that_cannot_be_sent_keeps_it_from_starting(cli, organism):
    assert "there is no listener 'ecko', did you mean 'echo'?" in cli("run", "--send", "ecko", "{}").complaint(1)
    assert "Ping.text: the key 'text' is missing" in cli("run", "--send", "echo", "{}").complaint(1)


def test_with_500_queued_and_20_running_it_drains_and_exits_0(start, flooded):
    running = start("run", "--send", "flood", '{"text": "", "count": 520}')
    running.wait_for("answer: Pong(text='flooded')")
    running.wait_for("twenty are running")
    running.signal(signal.SIGTERM)
    running.wait_for("stopping (SIGTERM): 520 messages to finish")
    running.signal(signal.SIGUSR1)
    assert running.end() == 0, running
    assert running.err == []
    # The flood's own message was answered; its answer, the boot message and the 520 were handled.
    assert running.out[-1].endswith("everything was finished; messages: 1 answered, 522 handled"), running


def test_what_is_not_finished_in_time_is_reported_with_names_and_it_exits_1(start, flooded):
    running = start("run", "--timeout", "0.3", "--send", "flood", '{"text": "", "count": 520}')
    running.wait_for("answer: Pong(text='flooded')")
    running.wait_for("twenty are running")
    running.signal(signal.SIGTERM)
    assert running.end() == 1, running
    running.wait_for("error: 520 messages were not finished in 0.3 s; still at work: 'slow'")
    assert "520 cancelled" in running.out[-1]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("await asyncio.Event().wait()", id="waits"),
        pytest.param("await asyncio.shield(asyncio.Event().wait()); await asyncio.sleep(60)", id="shields"),
        pytest.param("while True: await asyncio.gather(asyncio.sleep(60), return_exceptions=True)", id="ignores"),
        pytest.param("import time; await asyncio.to_thread(time.sleep, 60)", id="in a thread"),
    ],
)
def test_a_handler_that_hangs_is_named_and_it_exits_1_at_the_deadline(start, organism, how):
    running = start("run", "--timeout", "0.3", *hang(organism, how))
    running.wait_for("hanging")
    running.signal(signal.SIGTERM)
    assert running.end() == 1, running
    running.wait_for("error: 1 message was not finished in 0.3 s; still at work: 'echo'")
    assert not any("not done" in line for line in running.err), running  # it is told once


def test_a_handler_that_blocks_the_loop_is_named_and_it_exits_1(start, organism):
    running = start("run", "--timeout", "0", *hang(organism, "import time; time.sleep(60)"), program=IMPATIENT)
    running.wait_for("hanging")
    running.signal(signal.SIGTERM)
    assert running.end() == 1, running
    running.wait_for("error: not stopped in time, the event loop is blocked; running: 'echo'")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(start, organism, second):
    running = start("run", *hang(organism))
    running.wait_for("hanging")
    running.signal(signal.SIGTERM)
    running.wait_for("stopping (SIGTERM): 1 message to finish, at most 30 s")
    running.signal(second)
    assert running.end() == 130, running
    assert running.err == ["stopped at once"]


def test_a_second_signal_ends_it_even_when_a_handler_blocks_the_loop(start, organism):
    running = start("run", *hang(organism, "while True: print('tick', flush=True)"))
    running.wait_for("hanging")
    running.signal(signal.SIGTERM)
    running.wait_for("tick", times=len(running.out) + 5)  # the first one has been taken
    running.signal(signal.SIGTERM)
    assert running.end() == 130, running


def test_a_pump_that_a_handler_stops_ends_the_command(start, organism):
    how = "asyncio.ensure_future(__import__('xml_pipeline').message_bus.stream_pump.get_stream_pump().shutdown())"
    running = start("run", *hang(organism, how))
    assert running.end() == 0, running
    assert "everything was finished" in running.out[-1]


def test_a_reader_that_goes_away_does_not_keep_it_from_draining(organism):
    with (organism / "handlers.py").open("a") as file:
        file.write(GATE)
    (organism / "organism.yaml").write_text(ORGANISM + FLOOD)
    arguments = ["run", "--timeout", "20", "--send", "flood", '{"text": "", "count": 30}']
    with subprocess.Popen(
        [sys.executable, "-m", "xml_pipeline.cli", *arguments],
        cwd=organism,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "answer:" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        process.send_signal(signal.SIGUSR1)  # thirty lines that nobody reads
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def test_logs_are_on_stderr_from_the_level_asked_for(start, organism):
    for level, shown in (("critical", False), ("error", True)):
        running = start("run", "--log-level", level, "--send", "echo", '{"text": "crash"}')
        running.wait_for("error: handler: ")
        running.signal(signal.SIGTERM)
        assert running.end() == 0, running
        assert any(line == "ValueError: it crashed" for line in running.err) == shown, running
