"""``xml-pipeline send``."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from xml_pipeline.cli.console import complain, console, write
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.options import FileOption, JsonFlag, LogLevel, MeshOption, seconds

if TYPE_CHECKING:
    from xml_pipeline.cli.conversation import Message
    from xml_pipeline.cli.signals import Watchdog
    from xml_pipeline.cli.views import View
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["send"]

_BEAT: Final = 0.25
"""Seconds between two signs of life of the event loop."""


def send(
    listener: Annotated[str, typer.Argument(metavar="LISTENER", help="A listener's or a broadcast group's name.")],
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="A JSON object, an XML element, or - for stdin.")],
    file: FileOption = None,
    class_name: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="Which class, for a listener that takes several.")
    ] = None,
    from_id: Annotated[str, typer.Option("--from", metavar="NAME", help="In whose name it is sent.")] = "external",
    timeout: Annotated[
        float,
        typer.Option("--timeout", "-t", metavar="SECONDS", parser=seconds, help="Seconds to wait for an answer."),
    ] = 30.0,
    all_answers: Annotated[
        bool, typer.Option("--stream", "--all", help="Wait for every answer; --timeout is for each of them.")
    ] = False,
    mesh: MeshOption = None,
    json: JsonFlag = False,
    xml: Annotated[
        bool, typer.Option("--xml", help="Print the answers as XML, and malformed XML's answer, <huh>.")
    ] = False,
    log_level: LogLevel = "critical",
) -> int:
    """Start the organism, send one message, and show the conversation as it grows, then the answer.

    Each line is a message: when it was sent, who sent it to whom, its payload, what became of it, and how long its
    handler took. With --json, every event and the answer is a JSON object on a line of its own.

    An organism with a 'mesh' section joins the mesh for as long as this takes: its listeners can call agents there, but
    nothing comes in, so that it takes no work from those that run.

    Exit code 0 for an answer, 1 for an error, 124 when it took too long. What a handler raised is logged with
    --log-level error.

    \b
    Examples:
      xml-pipeline send greeter '{"name": "Ada"}'
      xml-pipeline send greeter '<Greeting><Name>Ada</Name></Greeting>' --xml
      xml-pipeline send greeter '{"name": "Ada"}' --mesh nats://host:4222
      echo '{"name": "Ada"}' | xml-pipeline send greeter - --json | jq 'select(.event == "answer")'
    """
    if json and xml:
        raise typer.BadParameter("--json and --xml cannot both be had")
    from xml_pipeline.cli.conversation import Message
    from xml_pipeline.cli.logs import log_to_stderr
    from xml_pipeline.cli.loop import run_coroutine
    from xml_pipeline.cli.organism_file import load_organism
    from xml_pipeline.cli.payloads import MalformedXml, read_message, read_payload

    log_to_stderr(log_level)
    path, pump = load_organism(file)
    raw = read_message(message)
    try:
        payload = read_payload(pump, listener, raw, class_name)
    except MalformedXml as error:
        if xml:
            from xml_pipeline.message_bus.huh import huh

            write(huh(error.original).decode())
        raise
    wanted = Message(listener, payload, from_id, timeout, all_answers)
    return run_coroutine(_send(path, wanted, mesh, json=json, xml=xml))


async def _send(path: str, message: Message, mesh_url: str | None, *, json: bool, xml: bool) -> Exit:
    import asyncio

    from xml_pipeline.cli.conversation import converse
    from xml_pipeline.errors import ConfigurationError
    from xml_pipeline.organism import bootstrap

    with _stdout_is_ours(json or xml):
        try:
            pump = await bootstrap(path, mesh_url=mesh_url, intake=False)
        except ConfigurationError as error:
            raise CommandFailed(f"error: {error}", code=Exit.FAILED) from error
        with _view(pump, message, json=json, xml=xml) as view, _guarded(pump, message.timeout):
            async with pump:
                try:
                    code = await converse(pump, message, view)
                    # What the answer left unfinished is finished, and shown, for as long as an answer is waited for.
                    await pump.shutdown(message.timeout if code is Exit.OK else 0.0)
                except asyncio.CancelledError:  # by a signal; nobody else knows this task
                    await pump.shutdown(0.0)
                    return Exit.INTERRUPTED
    return code


@contextlib.contextmanager
def _guarded(pump: StreamPump, timeout: float) -> Iterator[None]:
    """End the process even if a handler blocks the event loop: at a signal, or for longer than an answer may take."""
    import asyncio

    from xml_pipeline.cli.signals import GRACE, StopSignals, Watchdog

    def busy() -> list[str]:
        return [listener.name for listener in pump.statistics().listeners if listener.running]

    command = asyncio.current_task()
    assert command is not None
    cancel = command.cancel

    def stop(name: str) -> None:
        cancel()

    too_slow = Watchdog(timeout + GRACE, busy, complain, Exit.TIMEOUT)
    told = Watchdog(GRACE, busy, complain, Exit.INTERRUPTED)
    signals = StopSignals(stop, told)
    signals.install()
    too_slow.start()
    beat = asyncio.create_task(_beat(too_slow))
    try:
        yield
    finally:
        beat.cancel()
        too_slow.cancel()
        told.cancel()
        signals.restore()


async def _beat(watchdog: Watchdog) -> None:
    import asyncio

    while True:
        watchdog.feed()
        await asyncio.sleep(_BEAT)


def _view(pump: StreamPump, message: Message, *, json: bool, xml: bool) -> View:
    from xml_pipeline.cli.views import JsonView, TextView, XmlView

    if json:
        return JsonView()
    return XmlView() if xml else TextView(pump, message.from_id)


def _stdout_is_ours(wanted: bool) -> contextlib.AbstractContextManager[Any]:
    """What handlers print must not get into what programs read."""
    console()  # keeps the stdout there is now
    return contextlib.redirect_stdout(sys.stderr) if wanted else contextlib.nullcontext()
