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
