"""Reloading: on SIGHUP, and with ``run --reload`` when files change."""

from __future__ import annotations

import signal

import pytest

from .conftest import HANDLERS, ORGANISM

EXTRA = "  - {name: extra, payload_class: handlers.Ping, handler: handlers.echo, description: Extra.}\n"

UNTIL_DRAINING = """
            from xml_pipeline.message_bus.stream_pump import get_stream_pump
            pump = get_stream_pump()
            print("working", flush=True)
            while pump.statistics().state != "draining":
                await asyncio.sleep(0.01)
            return HandlerResponse.respond(Pong("finished"))
"""


@pytest.fixture
def changed(organism):
    """Change a file of the organism."""

    def change(name, text):
        # As editors do: a new file in place of the old one, never half of it.
        new = organism / f"{name}.new"
        new.write_text(text)
        new.rename(organism / name)

    return change


def test_a_hangup_reloads_a_good_file_and_keeps_the_old_one_for_a_bad_one(start, organism, changed):
    running = start("run")
    running.wait_for("is running")

    changed("organism.yaml", ORGANISM + EXTRA)
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded organism.yaml: added extra")

    changed("organism.yaml", ORGANISM.replace("handlers.echo", "handlers.eco", 1))
    running.signal(signal.SIGHUP)
    running.wait_for("organism.yaml was not reloaded, the old configuration is in force")
    assert running.err[0].startswith("organism.yaml:4:")
    assert "did you mean 'echo'?" in running.err[0]
    assert len(running.err) == 2, running

    changed("organism.yaml", ORGANISM.replace("Answers.", "Answers again."))
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded organism.yaml: removed extra; updated echo")

    changed("organism.yaml", ORGANISM.replace("Answers.", "Answers again."))
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded organism.yaml: no listener changed")

    running.signal(signal.SIGTERM)
    assert running.end() == 0, running
    assert len(running.err) == 2, running


def test_a_hangup_during_the_start_does_not_end_it_and_is_made_up_for(start, organism, changed):
    changed("handlers.py", f"import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n{HANDLERS}")
    running = start("run")
    running.wait_for("is running")
    running.wait_for("reloaded organism.yaml: no listener changed")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_changed_configuration_is_reloaded(start, organism, changed):
    running = start("run", "--reload")
    running.wait_for("is running")
    changed("organism.yaml", ORGANISM + EXTRA)
    running.wait_for("reloaded organism.yaml: added extra")
    changed("organism.yaml", "organism: {name: [}")
    running.wait_for("organism.yaml was not reloaded")
    changed("organism.yaml", ORGANISM)
    running.wait_for("reloaded organism.yaml: removed extra")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_changed_source_drains_and_starts_anew(start, organism, changed):
    running = start("run", "--reload", "--send", "echo", '{"text": "hi"}')
    running.wait_for("answer: Pong(text='echo hi')")
    pid = running.process.pid

    changed("handlers.py", HANDLERS.replace("echo {", "new echo {"))
    running.wait_for("stopping (handlers.py changed): no messages to finish")
    running.wait_for("everything was finished")
    running.wait_for("answer: Pong(text='new echo hi')")
    assert running.process.pid == pid
    assert running.process.poll() is None

    running.signal(signal.SIGTERM)
    assert running.end() == 0, running
    assert running.err == []


def test_a_source_with_a_mistake_does_not_stop_it(start, organism, changed):
    running = start("run", "--reload", "--send", "echo", '{"text": "hi"}')
    running.wait_for("answer: Pong(text='echo hi')")

    changed("handlers.py", f"{HANDLERS}\ndef broken(:\n")  # cannot be compiled: the old code runs on
    running.wait_for("not restarted, the old code is running")
    lines = HANDLERS.count("\n") + 2
    assert running.err[0].endswith(f"handlers.py:{lines}:12 SyntaxError: invalid syntax"), running

    changed("handlers.py", f"{HANDLERS}\nundefined\n")  # can be compiled, and not imported
    running.wait_for("not started; waiting for a change")
    running.wait_for("NameError: name 'undefined' is not defined")

    changed("handlers.py", HANDLERS.replace("echo {", "mended echo {"))
    running.wait_for("answer: Pong(text='mended echo hi')")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_message_at_work_is_finished_with_the_old_code(start, organism, changed):
    changed("handlers.py", HANDLERS.replace("            await asyncio.Event().wait()", UNTIL_DRAINING))
    running = start("run", "--reload", "--send", "echo", '{"text": "hang"}')
    running.wait_for("working")
    changed("handlers.py", HANDLERS.replace('case "hang"', 'case "never"'))
    running.wait_for("answer: Pong(text='echo hang')")
    answers = [line for line in running.out if line.startswith("answer: ")]
    assert answers == ["answer: Pong(text='finished')", "answer: Pong(text='echo hang')"], running
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_files_that_do_not_belong_to_it_change_nothing(start, organism, changed):
    running = start("run", "--reload")
    running.wait_for("is running")
    changed("unrelated.py", "x = 1\n")
    changed("notes.txt", "hello")
    changed("organism.yaml", ORGANISM + EXTRA)
    running.wait_for("reloaded organism.yaml: added extra")
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running
    assert not any("stopping (unrelated" in line for line in running.out)


def test_a_broken_file_at_the_very_start_ends_it_even_with_reload(cli, organism, changed):
    changed("organism.yaml", "organism: {}")
    assert cli("run", "--reload").code == 3


RESTARTING = """
import os, signal, sys
from xml_pipeline.cli import loop
from xml_pipeline.cli.main import main

sys.orig_argv = [sys.executable, "-m", "xml_pipeline.cli", *sys.argv[1:]]
"""

TOLD_AFTER_THE_LOOP = """
serve = loop.run_coroutine

def run_coroutine(*args, **options):
    code = serve(*args, **options)
    os.kill(os.getpid(), signal.SIGTERM)
    return code

loop.run_coroutine = run_coroutine
sys.exit(main())
"""

TOLD_AT_THE_LAST_MOMENT = """
become = os.execv

def execv(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    become(*args)

os.execv = execv
sys.exit(main())
"""

TOLD = """
import asyncio, signal

async def until_told():
    gate = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gate.set)
    print("working", flush=True)
    await gate.wait()
"""

WORKING = HANDLERS.replace("await asyncio.Event().wait()", "from told import until_told; await until_told()")


def at_work(start, changed):
    """Start it, and have it work at a message until SIGUSR1."""
    changed("told.py", TOLD)
    changed("handlers.py", WORKING)
    running = start("run", "--reload", "--send", "echo", '{"text": "hang"}')
    running.wait_for("working")
    return running


def starts(running):
    return sum("is running" in line for line in running.out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_drains_for_a_restart_ends_it_for_good(start, organism, changed, number):
    running = at_work(start, changed)
    changed("handlers.py", HANDLERS)
    running.wait_for("stopping (handlers.py changed): ")
    running.signal(number)
    running.wait_for(f"stopping for good ({number.name}), it is not started anew")
    running.signal(signal.SIGUSR1)
    assert running.end() == 0, running
    assert "everything was finished" in running.out[-1]
    assert starts(running) == 1, running


def test_the_second_signal_while_it_drains_for_a_restart_ends_it_at_once(start, organism, changed):
    running = at_work(start, changed)
    changed("handlers.py", HANDLERS)
    running.wait_for("stopping (handlers.py changed): ")
    running.signal(signal.SIGTERM)
    running.wait_for("stopping for good (SIGTERM)")
    running.signal(signal.SIGTERM)
    assert running.end() == 130, running


def test_a_source_that_changes_while_it_stops_does_not_start_it_anew(start, organism, changed):
    running = at_work(start, changed)
    running.signal(signal.SIGTERM)
    running.wait_for("stopping (SIGTERM)")
    changed("handlers.py", HANDLERS)
    running.wait_for("handlers.py changed, for the next start")
    running.signal(signal.SIGUSR1)
    assert running.end() == 0, running
    assert starts(running) == 1, running


def test_a_signal_between_the_drain_and_the_restart_ends_it(start, organism, changed):
    running = start("run", "--reload", program=RESTARTING + TOLD_AFTER_THE_LOOP)
    running.wait_for("is running")
    changed("handlers.py", HANDLERS + "\n")
    assert running.end() == 0, running
    assert starts(running) == 1, running


def test_a_signal_at_the_last_moment_before_the_restart_ends_it(start, organism, changed):
    running = start("run", "--reload", program=RESTARTING + TOLD_AT_THE_LAST_MOMENT)
    running.wait_for("is running")
    changed("handlers.py", HANDLERS + "\n")
    assert running.end() == -signal.SIGTERM, running
    assert starts(running) == 1, running


def waiting_for_a_change(start, changed):
    running = start("run", "--reload", "--send", "echo", '{"text": "hi"}')
    running.wait_for("answer: ")
    changed("handlers.py", f"{HANDLERS}\nundefined\n")
    running.wait_for("not started; waiting for a change")
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_for_a_change_ends_it(start, organism, changed, number):
    running = waiting_for_a_change(start, changed)
    running.signal(number)
    assert running.end() == 0, running
    assert running.out[-1] == "stopped; nothing was running"


def test_a_hangup_while_it_waits_for_a_change_has_it_try_again(start, organism, changed):
    running = waiting_for_a_change(start, changed)
    running.signal(signal.SIGHUP)
    running.wait_for("not started; waiting for a change", times=2)
    running.signal(signal.SIGTERM)
    assert running.end() == 0, running


def test_a_hangup_while_it_stops_reloads_nothing(start, organism, changed):
    running = at_work(start, changed)
    running.signal(signal.SIGTERM)
    running.wait_for("stopping (SIGTERM)")
    running.signal(signal.SIGHUP)
    running.wait_for("organism.yaml is not reloaded, for it is stopping")
    running.signal(signal.SIGUSR1)
    assert running.end() == 0, running
    assert not any(line.startswith("reloaded") for line in running.out), running


def test_a_thread_that_does_not_end_does_not_keep_it_from_starting_anew(start, organism, changed):
    changed(
        "handlers.py",
        HANDLERS.replace(
            "await asyncio.Event().wait()",
            "import threading; print('working', flush=True); await asyncio.to_thread(threading.Event().wait)",
        ),
    )
    running = start("run", "--reload", "--timeout", "0", "--send", "echo", '{"text": "hang"}')
    running.wait_for("working")
    changed("handlers.py", HANDLERS.replace('case "hang"', 'case "never"'))
    running.wait_for("answer: Pong(text='echo hang')")
    running.signal(signal.SIGTERM)
    running.end()


DISPOSITION = """
sys.orig_argv = [sys.executable, "-c", "import signal; print(repr(signal.getsignal(signal.SIGHUP)), flush=True)"]
sys.exit(main())
"""


@pytest.mark.parametrize("how", ["asyncio.Event().wait()", "asyncio.to_thread(__import__('threading').Event().wait)"])
def test_a_hangup_while_the_new_program_begins_does_not_end_it(start, organism, changed, how):
    work = f"print('working', flush=True); await {how}"
    changed("handlers.py", HANDLERS.replace("await asyncio.Event().wait()", work))
    arguments = ["run", "--reload", "--timeout", "0", "--send", "echo", '{"text": "hang"}']
    running = start(*arguments, program=RESTARTING + DISPOSITION)
    running.wait_for("working")
    changed("handlers.py", HANDLERS)
    running.wait_for("<Handlers.SIG_IGN: 1>")
    assert running.end() == 0, running


def test_a_process_that_a_restarted_organism_starts_is_not_taken_for_its_successor(cli, organism, changed):
    changed("organism.yaml", "organism: {}")
    assert cli("run", "--reload", env={"XML_PIPELINE_RESTARTED": "1"}).code == 3
