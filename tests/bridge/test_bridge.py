"""The bridge as a whole: from a file, from start to end, and through a reload."""

from __future__ import annotations

import asyncio
import sys
import textwrap

import pytest

from tests.bridge.kit import Ask, Told, echo, organism
from tests.mesh.kit import echo_on, spin, until, until_names
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump
from xml_pipeline.bridge import Bridge, bridge
from xml_pipeline.bridge.event_feed import EventFeed
from xml_pipeline.config import OrganismConfig
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.errors import ConfigurationError, PumpStopped
from xml_pipeline.mesh import AgentMesh, EmbeddedServer, NotFound

MODULE = """
import asyncio
from dataclasses import dataclass
from xml_pipeline import HandlerResponse

@dataclass
class Ask:
    message: str

@dataclass
class Told:
    reply: str

async def echo(ask, metadata):
    return HandlerResponse.respond(Told(ask.message))

async def shout(ask, metadata):
    return HandlerResponse.respond(Told(ask.message.upper()))

taken = []

async def take(ask, metadata):
    taken.append(ask.message)

async def hand_on(ask, metadata):
    return HandlerResponse(ask, "out")

go = asyncio.Event()

async def hold(ask, metadata):
    taken.append(ask.message)
    await go.wait()
    return HandlerResponse.respond(Told(ask.message))
"""


class File:
    """An organism file that can be changed."""

    def __init__(self, directory, url):
        self.path = directory / "organism.yaml"
        self.url = url
        (directory / "bridged_app.py").write_text(MODULE)

    def write(self, mesh, listeners="[echo]", version="0.1.0"):
        names = yaml_names(listeners)
        said = "".join(
            f"- {{name: {name}, description: d, payload_class: bridged_app.Ask, handler: bridged_app.{name}}}\n"
            for name in names
        )
        text = f"organism: {{name: org, version: {version}}}\nlisteners:\n{said}mesh:\n  url: {self.url}\n"
        self.path.write_text(text + textwrap.indent(textwrap.dedent(mesh), "  "))
        return str(self.path)


def yaml_names(text):
    return [name.strip() for name in text.strip("[]").split(",")]


@pytest.fixture
def file(tmp_path, server, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield File(tmp_path, server.url)
    sys.modules.pop("bridged_app", None)


async def test_a_file_puts_an_organism_on_the_mesh(file, mesh):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        assert await mesh.call("org.echo", {"message": "hi"}) == {"reply": "hi"}
    await until_names(mesh)


async def test_a_server_of_its_own():
    pump = organism("local", expose=[{"listener": "echo"}])
    pump.register("echo", echo, Ask)
    async with pump:
        own = pump.attachments[0].mesh
        async with AgentMesh(own.url) as other:
            await until_names(other, "org.echo")
            assert await other.call("org.echo", {"message": "hi"}) == {"reply": "hi"}


async def test_without_a_server_the_pump_does_not_start():
    pump = organism("nats://127.0.0.1:1", expose=[{"listener": "echo"}])
    pump.register("echo", echo, Ask)
    with pytest.raises(ConfigurationError, match="mesh: "):
        await pump.start()
    with pytest.raises(PumpStopped):
        await pump.request("echo", Ask("x"))


async def test_a_mesh_section_that_nobody_carries_out_is_told():
    pump = StreamPump(OrganismConfig(name="org", mesh=MeshConfig()))
    with pytest.raises(ConfigurationError, match="attach a Bridge"):
        await pump.start()


async def test_nothing_can_be_attached_to_a_pump_that_runs(server):
    pump = organism(server.url)
    async with pump:
        with pytest.raises(RuntimeError, match="before it starts"):
            pump.attach(Bridge(pump))


async def test_a_pump_that_never_ran_leaves_the_mesh_too(server, mesh):
    pump = organism(server.url, expose=[{"listener": "echo"}])
    pump.register("echo", echo, Ask)
    await pump.start()
    await until_names(mesh, "org.echo")
    await pump.shutdown()
    await until_names(mesh)


async def test_enter_and_exit_may_be_in_different_tasks(server, mesh):
    pump = organism(server.url, expose=[{"listener": "echo"}])
    pump.register("echo", echo, Ask)
    await asyncio.create_task(pump.__aenter__())
    assert await mesh.call("org.echo", {"message": "hi"}, idempotent=True) == {"reply": "hi"}
    await asyncio.create_task(pump.__aexit__(None, None, None))


async def test_what_was_called_from_inside_at_the_end_is_still_answered(server, mesh):
    begun, go = asyncio.Event(), asyncio.Event()
    echo_on(mesh)
    pump = organism(
        server.url,
        expose=[{"listener": "asks"}],
        agents=[{"name": "demo.echo", "payload_class": Ask, "output_class": Told}],
    )

    async def asks(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        begun.set()
        await go.wait()
        return HandlerResponse.delegate(ask, "demo.echo")

    pump.register("asks", asks, Ask)
    async with pump:
        await until_names(mesh, "demo.echo", "org.asks")
        call = asyncio.create_task(mesh.call("org.asks", {"message": "hi"}))
        await begun.wait()
        stopping = asyncio.create_task(pump.shutdown())
        await asyncio.sleep(0)
        go.set()
        assert await call == {"reply": "hi"}
        await stopping


# --- reload -----------------------------------------------------------------------------------------------------------


async def test_what_is_exposed_can_be_changed(file, mesh):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        file.write("expose: [{listener: shout, as: new.name}]\n", "[echo, shout]")
        assert pump.reload_config().success
        await until_names(mesh, "new.name")
        assert await mesh.call("new.name", {"message": "hi"}) == {"reply": "HI"}
        with pytest.raises(NotFound):
            await mesh.call("org.echo", {"message": "hi"})


async def test_another_handler_behind_the_same_name(file, mesh):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo, as: it}]\n"))
    async with pump:
        await until_names(mesh, "it")
        file.write("expose: [{listener: shout, as: it}]\n", "[shout]")
        assert pump.reload_config().success
        await spin_until_shouted(mesh)


async def spin_until_shouted(mesh):
    while await mesh.call("it", {"message": "hi"}, idempotent=True) != {"reply": "HI"}:
        pass


async def test_another_version_of_the_organism_is_told_in_the_contracts(file, mesh):
    section = "expose: [{listener: echo}, {listener: echo, as: fixed, version: 7.0.0}]\n"
    pump = await StreamPump.from_yaml(file.write(section, version="1.0.0"))
    async with pump:
        await until_names(mesh, "fixed", "org.echo")
        assert [(await mesh.contract(name)).version for name in ("org.echo", "fixed")] == ["1.0.0", "7.0.0"]
        before = [part for _, part in pump.attachments[0]._parts]
        file.write(section, version="1.1.0")
        assert pump.reload_config().success
        while (await mesh.contract("org.echo")).version != "1.1.0":
            pass
        assert (await mesh.contract("fixed")).version == "7.0.0"
        after = [part for _, part in pump.attachments[0]._parts]
        assert [known is part for known, part in zip(before, after, strict=True)] == [False, True]
        assert await mesh.call("org.echo", {"message": "hi"}) == {"reply": "hi"}


async def test_a_broken_file_changes_nothing(file, mesh):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        file.write("expose: [{listener: nobody}]\n")
        event = pump.reload_config()
        assert not event.success
        assert "no listener is called 'nobody'" in event.error
        assert await mesh.call("org.echo", {"message": "hi"}) == {"reply": "hi"}


async def test_agents_come_and_go(file, mesh):
    echo_on(mesh)
    entry = "{name: demo.echo, payload_class: bridged_app.Ask, output_class: bridged_app.Told}"
    pump = await StreamPump.from_yaml(file.write("agents: []\n"))
    async with pump:
        assert "demo.echo" not in pump.listeners
        file.write(f"agents: [{entry}]\n")
        assert pump.reload_config().success
        import bridged_app

        await spin(lambda: pump.attachments[0]._parts[0][1]._mesh)
        assert await pump.request("demo.echo", bridged_app.Ask("hi")) == bridged_app.Told("hi")
        file.write("agents: []\n")
        assert pump.reload_config().success
        assert "demo.echo" not in pump.listeners


async def test_no_call_is_lost_by_a_reload(file, mesh):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        calls = [asyncio.create_task(mesh.call("org.echo", {"message": str(number)})) for number in range(200)]
        for number in range(3):
            file.write(f"expose: [{{listener: echo, tags: [t{number}]}}]\n")
            assert pump.reload_config().success
            await asyncio.sleep(0.01)  # in the middle of the calls
        answers = await asyncio.gather(*calls)
        assert answers == [{"reply": str(number)} for number in range(200)]


async def begun(mesh, *messages):
    """Calls that their handler holds until it is told to go on."""
    calls = [asyncio.create_task(mesh.call("org.hold", {"message": message}, timeout=60)) for message in messages]
    await spin(lambda: set(messages) <= set(taken()))
    return calls


async def until_tagged(mesh, name, *tags):
    await until(mesh, lambda entries: name in entries and entries[name].tags == list(tags))


async def test_what_runs_is_finished_by_the_entry_as_it_was(file, mesh):
    async with await StreamPump.from_yaml(file.write("expose: [{listener: hold}]\n", "[hold]")) as pump:
        await until_names(mesh, "org.hold")
        calls = await begun(mesh, "a", "b")
        for tag in ("x", "y"):
            file.write(f"expose: [{{listener: hold, tags: [{tag}]}}]\n", "[hold]")
            assert pump.reload_config().success
            await until_tagged(mesh, "org.hold", tag)
            calls += await begun(mesh, tag)
        assert not any(call.done() for call in calls)
        go().set()
        assert await asyncio.gather(*calls) == [{"reply": message} for message in ("a", "b", "x", "y")]


async def test_what_runs_holds_up_no_later_reload(file, mesh):
    async with await StreamPump.from_yaml(file.write("expose: [{listener: hold}]\n", "[hold, echo]")) as pump:
        await until_names(mesh, "org.hold")
        (call,) = await begun(mesh, "a")
        for name in ("one", "two"):
            file.write(f"expose: [{{listener: echo, as: {name}}}]\n", "[hold, echo]")
            assert pump.reload_config().success
            await until(mesh, lambda entries, name=name: name in entries)
        assert not call.done()
        go().set()
        assert await call == {"reply": "a"}
        await until_names(mesh, "two")


async def test_what_is_exposed_no_more_leaves_the_catalog_before_its_calls_end(file, mesh):
    async with await StreamPump.from_yaml(file.write("expose: [{listener: hold}]\n", "[hold]")) as pump:
        await until_names(mesh, "org.hold")
        (call,) = await begun(mesh, "a")
        file.write("expose: []\n", "[hold]")
        assert pump.reload_config().success
        await until_names(mesh)
        assert not call.done()
        go().set()
        assert await call == {"reply": "a"}


async def test_at_the_end_of_the_pump_too(file, mesh):
    async with await StreamPump.from_yaml(file.write("expose: [{listener: hold}]\n", "[hold]")) as pump:
        await until_names(mesh, "org.hold")
        (call,) = await begun(mesh, "a")
        ending = asyncio.create_task(pump.shutdown(60.0))
        await until_names(mesh)
        assert not call.done() and not ending.done()
        go().set()
        assert await call == {"reply": "a"}
        await ending


def go():
    import bridged_app

    return bridged_app.go


async def test_the_server_stays_the_same_until_the_next_start(file, mesh, caplog):
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        file.url = "nats://127.0.0.1:1"
        file.write("expose: [{listener: echo}]\n")
        assert pump.reload_config().success
        assert "stays the same until the next start" in caplog.text
        assert await mesh.call("org.echo", {"message": "hi"}) == {"reply": "hi"}


CLASS = "payload_class: bridged_app.Ask"
BOTH = "[echo, take]"


def taken():
    import bridged_app

    return bridged_app.taken


class Load:
    """Sends messages without a pause, and counts them.

    Args:
        send: sends the one of a number.
    """

    def __init__(self, send):
        self._send = send
        self.sent = 0
        self._is_over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        while not self._is_over:
            await self._send(self.sent)
            self.sent += 1

    async def some(self, count=20):
        """Until so many more were sent."""
        until = self.sent + count
        await spin(lambda: self.sent >= until or self._task.done())

    async def end(self):
        """Send no more; what was sent."""
        self._is_over = True
        await self._task
        return {str(number) for number in range(self.sent)}


async def reloaded_under_load(pump, file, load, sections, listeners=BOTH):
    """Reload the file with each section while messages come; what was sent."""
    for section in sections:
        await load.some()
        file.write(section, listeners)
        event = pump.reload_config()
        assert event.success, event.error
    await load.some()
    return await load.end()


async def test_changed_watches_lose_no_change(file, mesh):
    def kv(more):
        return f"kv: [{{watch: 'doc.{{message}}', to: take, resume: r, {CLASS}{more}}}]\n"

    pump = await StreamPump.from_yaml(file.write(kv(""), BOTH))
    async with pump:
        load = Load(lambda number: mesh.kv.put(f"doc.{number}", "{}"))
        sections = [kv(", echo: true"), "kv: []\n", kv(""), kv(", echo: true")]
        sent = await reloaded_under_load(pump, file, load, sections)
        await spin(lambda: sent <= set(taken()))
        assert len(taken()) == len(sent)  # nor is one handled twice


async def test_changed_durable_subjects_lose_no_message(file, mesh, peer):
    def subjects(more):
        return f"subjects: [{{subscribe: orders, to: take, durable: clerk, {CLASS}{more}}}]\n"

    pump = await StreamPump.from_yaml(file.write(subjects(""), BOTH))
    async with pump:
        js = peer.jetstream()
        load = Load(lambda number: js.publish("orders", b'{"message": "%d"}' % number))
        sections = [subjects(", max_in_flight: 2"), "subjects: []\n", subjects(""), subjects(", max_deliver: 9")]
        sent = await reloaded_under_load(pump, file, load, sections)
        await spin(lambda: sent <= set(taken()))


async def test_a_durable_name_that_follows_another_subject_loses_no_message(file, mesh, peer):
    def subjects(subscribe):
        return f"subjects: [{{subscribe: '{subscribe}', to: take, durable: clerk, {CLASS}}}]\n"

    pump = await StreamPump.from_yaml(file.write(subjects("orders.*"), BOTH))
    async with pump:
        js = peer.jetstream()
        load = Load(lambda number: js.publish("orders.new", b'{"message": "%d"}' % number))
        sections = [subjects("orders.>"), subjects("orders.new"), subjects("{message}.*"), subjects("orders.*")]
        sent = await reloaded_under_load(pump, file, load, sections)
        await spin(lambda: sent <= set(taken()))


@pytest.mark.parametrize("queue", ["", ", queue: q"])
async def test_changed_subjects_lose_no_message(file, peer, queue):
    def subjects(more):
        return f"subjects: [{{subscribe: prices, to: take, {CLASS}{queue}{more}}}]\n"

    pump = await StreamPump.from_yaml(file.write(subjects(""), BOTH))
    async with pump:

        async def send(number):
            await peer.publish("prices", b'{"message": "%d"}' % number)
            await peer.flush()

        load = Load(send)
        sent = await reloaded_under_load(pump, file, load, [subjects(f", max_in_flight: {n}") for n in (5, 6, 7)])
        await spin(lambda: sent <= set(taken()))
        if queue:
            assert len(taken()) == len(sent)


@pytest.mark.parametrize("kind", ["kv", "subjects"])
async def test_changed_puts_and_publications_lose_nothing(file, mesh, peer, kind):
    def section(more):
        out = "put: 'out.{message}'" if kind == "kv" else "publish: 'out.{message}'"
        return f"{kind}: [{{{out}, listener: out, {CLASS}{more}}}]\n"

    subscription = await peer.subscribe("$KV.mesh-context.out.*" if kind == "kv" else "out.*")
    await peer.flush()
    arrived = set()
    listeners = "[echo, hand_on]"
    pump = await StreamPump.from_yaml(file.write(section(""), listeners))
    async with pump:
        import bridged_app

        load = Load(lambda number: pump.inject("hand_on", bridged_app.Ask(str(number))))
        sections = [section(", description: a"), section(", description: b"), section("")]
        sent = await reloaded_under_load(pump, file, load, sections, listeners)
        while arrived != sent:
            arrived.add((await subscription.next_msg(timeout=30)).subject.rpartition(".")[2])
        await pump.wait_idle()
        assert pump.dead_letters.list() == []


@pytest.mark.parametrize("kind", ["kv", "subjects"])
async def test_what_goes_out_keeps_to_a_changed_timeout_of_the_organism(file, kind):
    def write(said, more=""):
        out = "put: 'out.{message}'" if kind == "kv" else "publish: 'out.{message}'"
        file.write(f"{kind}: [{{{out}, listener: out, {CLASS}{more}}}]\n")
        file.path.write_text(f"timeout: {said}\n" + file.path.read_text())
        return str(file.path)

    pump = await StreamPump.from_yaml(write(7))
    async with pump:
        listener = pump.listeners["out"]
        assert listener.timeout == 7
        write(7, more=", timeout: 7")
        assert pump.reload_config().success
        assert pump.listeners["out"] is listener  # it says the same
        write(5)
        assert pump.reload_config().success
        assert pump.listeners["out"].timeout == 5
        write(9, more=", timeout: 2")
        assert pump.reload_config().success
        assert pump.listeners["out"].timeout == 2


async def test_a_new_peer_can_be_called_as_soon_as_it_is_there(file, mesh):
    pump = await StreamPump.from_yaml(file.write("agents: []\n"))
    async with pump:
        import bridged_app

        echo_on(mesh)
        await until_names(mesh, "demo.echo")
        agent = "{name: demo.echo, payload_class: bridged_app.Ask, output_class: bridged_app.Told}"
        file.write(f"agents: [{agent}]\nkv: [{{put: 'out.{{message}}', listener: out, {CLASS}}}]\n")
        assert pump.reload_config().success
        await pump.inject("out", bridged_app.Ask("a"))
        assert await pump.request("demo.echo", bridged_app.Ask("hi")) == bridged_app.Told("hi")
        await pump.wait_idle()
        assert await mesh.kv.get("out.a") == '{"message":"a"}'


async def test_events_can_be_switched_on_and_off(file, mesh, peer):
    subscription = await peer.subscribe("mesh.pump.org.events")
    await peer.flush()
    pump = await StreamPump.from_yaml(file.write("expose: [{listener: echo}]\n"))
    async with pump:
        await until_names(mesh, "org.echo")
        await mesh.call("org.echo", {"message": "unseen"})
        file.write("expose: [{listener: echo}]\nevents: true\n")
        assert pump.reload_config().success
        while not subscription.pending_msgs:
            await mesh.call("org.echo", {"message": "seen"})
            await peer.flush()
        file.write("expose: [{listener: echo}]\n")
        assert pump.reload_config().success
        await spin(lambda: not any(isinstance(part, EventFeed) for _, part in pump.attachments[0]._parts))
        await spin(lambda: not pump.attachments[0]._changing)
        await peer.flush()
        before = subscription.pending_msgs
        await mesh.call("org.echo", {"message": "unseen"})
        await pump.wait_idle()
        await peer.flush()
        assert subscription.pending_msgs == before


EVERYTHING = f"""
events: true
expose: [{{listener: echo}}]
agents: [{{pattern: tools.*}}]
kv: [{{watch: 'doc.{{message}}', to: take, resume: r, {CLASS}}}]
subjects:
- {{subscribe: 'plain.{{message}}', to: take, {CLASS}}}
- {{subscribe: 'kept.{{message}}', to: take, durable: d, {CLASS}}}
"""


async def test_a_reload_while_the_connection_is_away_takes_effect_when_it_is_back(file, tmp_path, monkeypatch):
    monkeypatch.setattr(bridge, "_PAUSE", 0.01)
    server = EmbeddedServer(tmp_path / "nats")
    async with server:
        file.url = server.url
        pump = await StreamPump.from_yaml(file.write("kv: []\n", BOTH))
        await pump.start()
        running = asyncio.create_task(pump.run())
    own = pump.attachments[0].mesh
    await spin(lambda: not own.is_connected)
    file.write(EVERYTHING, BOTH)
    assert pump.reload_config().success
    async with EmbeddedServer(tmp_path / "nats", port=server.port), AgentMesh(server.url) as mesh:
        echo_on(mesh, "tools.echo")
        await spin(lambda: "tools.echo" in pump.listeners)
        await until_names(mesh, "org.echo", "tools.echo")
        await spin(lambda: not pump.attachments[0]._changing)
        assert await mesh.call("org.echo", {"message": "hi"}) == {"reply": "hi"}
        await mesh.kv.put("doc.a", "{}")
        await mesh.publish("plain.b", b"{}")
        await mesh.publish("kept.c", b"{}")
        await spin(lambda: {"a", "b", "c"} <= {*taken()})
        await pump.shutdown(5.0)
        await running


async def test_what_a_reload_took_away_is_left_in_order_by_a_shutdown_right_behind_it(file):
    pump = await StreamPump.from_yaml(
        file.write(f"subjects: [{{subscribe: orders, to: take, durable: d, {CLASS}}}]\n", BOTH)
    )
    async with pump:
        ((_, part),) = pump.attachments[0]._parts
        file.write("subjects: []\n", BOTH)
        assert pump.reload_config().success
        await pump.shutdown(5.0)
        assert part._durable is None


PATTERN = "agents: [{pattern: '*'}]\n"


async def test_an_agent_that_was_found_gives_way_to_a_listener_of_its_name(file, mesh):
    echo_on(mesh, "shout")
    pump = await StreamPump.from_yaml(file.write(PATTERN))
    async with pump:
        await spin(lambda: "shout" in pump.listeners)
        file.write(PATTERN, "[echo, shout]")
        event = pump.reload_config()
        assert event.success, event.error
        import bridged_app

        assert await pump.request("shout", bridged_app.Ask("hi")) == bridged_app.Told("HI")
        await mesh.withdraw("shout")
        echo_on(mesh, "other")
        await spin(lambda: "other" in pump.listeners)
        assert await pump.request("shout", bridged_app.Ask("hi")) == bridged_app.Told("HI")
        file.write(PATTERN)
        assert pump.reload_config().success
        echo_on(mesh, "shout")
        await spin(lambda: "shout" in pump.listeners)


async def test_what_is_found_while_its_pattern_is_taken_away_is_not_offered(file, mesh):
    pump = await StreamPump.from_yaml(file.write(PATTERN))
    async with pump:
        bridge_of = pump.attachments[0]
        read, begun, go = bridge_of.mesh.parts.directory.contract, asyncio.Event(), asyncio.Event()

        async def slowly(name):
            begun.set()
            await go.wait()
            return await read(name)

        bridge_of.mesh.parts.directory.contract = slowly
        echo_on(mesh, "shout")
        await begun.wait()
        file.write("agents: []\n")
        assert pump.reload_config().success
        go.set()
        await spin(lambda: not bridge_of._changing)
        assert "shout" not in pump.listeners


@pytest.mark.parametrize("other", ["{pattern: '*', timeout: 5}", "{pattern: '>'}", "{name: shout, timeout: 5}"])
async def test_an_agent_that_was_found_is_there_all_the_time_when_its_entry_changes(file, mesh, other):
    echo_on(mesh, "shout")
    await mesh.catalog()
    pump = await StreamPump.from_yaml(file.write(PATTERN))
    async with pump:
        await spin(lambda: "shout" in pump.listeners)
        for section in (f"agents: [{other}]\n", PATTERN):
            file.write(section)
            event = pump.reload_config()
            assert event.success, event.error
            listener = pump.listeners["shout"]
            assert (await pump.request("shout", listener.payload_class(message="hi"))).reply == "hi"
            await spin(lambda: not pump.attachments[0]._changing)
            listener = pump.listeners["shout"]
            assert (await pump.request("shout", listener.payload_class(message="hi"))).reply == "hi"
