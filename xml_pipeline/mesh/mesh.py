"""`AgentMesh`: agents that discover and call each other, from any process.

It holds its parts and has no logic of its own: see `parts.Parts` for what they are. Nothing that is entered when it is
entered belongs to a task, so that entering and leaving may happen in different ones.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, contextmanager
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeVar

from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.catalog_feed import CatalogFeed
from xml_pipeline.mesh.conditions import KVCondition, SubjectCondition
from xml_pipeline.mesh.errors import ConnectionFailed
from xml_pipeline.mesh.local import Local
from xml_pipeline.mesh.options import DEFAULT_URL, ConnectionOptions
from xml_pipeline.mesh.parts import Parts
from xml_pipeline.mesh.roster import Roster
from xml_pipeline.mesh.running import serve_until_told
from xml_pipeline.mesh.seconds import check_seconds
from xml_pipeline.mesh.sources import KVSource, SubjectSource
from xml_pipeline.mesh.spec import check_spec
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from xml_pipeline.mesh.catalog import CatalogChange
    from xml_pipeline.mesh.catalog_entry import CatalogEntry
    from xml_pipeline.mesh.conditions import Condition
    from xml_pipeline.mesh.contract import AgentContract
    from xml_pipeline.mesh.errors import MeshError
    from xml_pipeline.mesh.gap import Gap
    from xml_pipeline.mesh.kv import KV
    from xml_pipeline.mesh.observe import Observe
    from xml_pipeline.mesh.sources import OnInit, Source
    from xml_pipeline.mesh.spec import AgentSpec
    from xml_pipeline.mesh.workspace import Workspace

__all__ = ["AgentMesh"]

F = TypeVar("F", bound="Callable[..., Any]")

_DRAIN_TIMEOUT = 30.0


class AgentMesh:
    """A member of the mesh: it serves agents, and uses those of others.

    ::

        mesh = AgentMesh()

        @mesh.agent(AgentSpec(name="hello.greeter"))
        async def greet(name: str) -> str:
            \"\"\"Greets by name.\"\"\"
            return f"Hello, {name}!"

        mesh.run()                                                  # serve until SIGTERM

        async with AgentMesh() as other:                            # in another process
            await other.call("hello.greeter", "Ada")

    Args:
        url: of the server; several separated by commas.
        creds: path of a credentials file; ``None`` for the one that ``OAM_CREDS`` or the nearest ``.oam-url`` names.
        tls_cert: path of a client certificate.
        tls_key: path of its key.
        tls_ca: path of the authorities to trust.
        drain_timeout: seconds that requests have to end when this is left.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        creds: str | PathLike[str] | None = None,
        tls_cert: str | PathLike[str] | None = None,
        tls_key: str | PathLike[str] | None = None,
        tls_ca: str | PathLike[str] | None = None,
        drain_timeout: float = _DRAIN_TIMEOUT,
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"the URL of a mesh is a str, e.g. {DEFAULT_URL!r}, not {type(url).__name__}")
        self._instance_id = new_id()
        self._options = ConnectionOptions(
            url=url,
            name=f"oam-host-{self._instance_id}",
            creds=fspath(creds or ""),
            ambient=creds is None,
            tls_cert=fspath(tls_cert or ""),
            tls_key=fspath(tls_key or ""),
            tls_ca=fspath(tls_ca or ""),
        )
        self._drain_timeout = check_seconds(drain_timeout, "drain_timeout")
        self._roster = Roster()
        self._parts: Parts | None = None

    local = Local()
    """``async with AgentMesh.local() as mesh``, or ``async with mesh.local()``: on a server of its own."""

    def __repr__(self) -> str:
        parts = self._parts
        state = "not connected" if parts is None else "connected" if parts.link.is_up else "reconnecting"
        return f"<AgentMesh {self._instance_id} {state}, {len(self._roster.agents)} agents>"

    @property
    def url(self) -> str:
        """Of the server."""
        return self._options.url

    @property
    def instance_id(self) -> str:
        """This mesh object, as others see it."""
        return self._instance_id

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._parts is not None and self._parts.link.is_up

    @property
    def parts(self) -> Parts:
        """What it consists of while it is connected, for extensions.

        Raises:
            ConnectionFailed: it is not entered.
        """
        if self._parts is None:
            raise ConnectionFailed("There is no connection to the mesh yet: use `async with mesh:` first.")
        return self._parts

    # -- agents

    def agent(
        self,
        spec: AgentSpec,
        *,
        sources: Iterable[Source] | None = None,
        active_when: Condition | None = None,
        mcp: bool | None = None,
    ) -> Callable[[F], F]:
        """Register the decorated function as an agent; while connected, it is served at once.

        Args:
            spec: what it is called, and how it is served.
            sources: what calls it, beside those who ask: see `subject_source` and `kv_source`.
            active_when: when it is served: see `kv_condition` and `subject_condition`; ``None`` for always.
            mcp: whether it is to be offered to MCP clients; ``None`` to leave that to who offers.

        Returns:
            The decorator, which returns the function as it is.

        Raises:
            TypeError: (when it decorates) the function cannot be a handler, or not with these sources.
        """
        check_spec(spec)

        def register(function: F) -> F:
            self._roster.add(Agent.of(spec, function, sources=sources, active_when=active_when, mcp=mcp))
            return function

        return register

    async def offer(self, agent: Agent) -> None:
        """Register an agent that is made already, and wait until it is served and known, if this is connected.

        Args:
            agent: in the place of an earlier one of its name; see `Agent.of` and `raw.raw_agent`.

        Raises:
            ConnectionDenied: the server does not permit it.
            MeshError: it could not be done; it is tried again by the next operation.
        """
        await self._roster.offer(agent)

    async def withdraw(self, name: str, timeout: float = _DRAIN_TIMEOUT) -> None:
        """Serve an agent no more. One that is not registered: nothing happens.

        It leaves the catalog first, unless others serve it too; then it takes no more requests, and finishes those that
        it has.

        Args:
            name: of the agent.
            timeout: seconds that the requests it has may take; what is left then is cancelled, and answered.
        """
        await self._roster.withdraw(name, timeout)

    def registered(self, name: str) -> Agent | None:
        """The agent that is registered here under this name."""
        return self._roster.agents.get(name)

    @staticmethod
    def subject_source(
        subject: str, *, queue_group: str | None = None, max_waiting: int = SubjectSource.max_waiting
    ) -> SubjectSource:
        """A source of an agent: the messages of a subject, one after the other.

        What is sent while there is no connection, or the agent is not served, is lost.

        Args:
            subject: with wildcards or without.
            queue_group: a name; sources of the same name share the messages. ``None``: each gets all.
            max_waiting: messages that may wait; beyond that, the oldest of them are dropped.

        Raises:
            ValueError: one cannot subscribe to this.
        """
        return SubjectSource(subject, queue_group, max_waiting)

    @staticmethod
    def kv_source(
        pattern: str, *, queue_group: str | None = None, on_init: OnInit = "replay", resume: str | None = None
    ) -> KVSource:
        """A source of an agent: the changes of keys, one after the other, as `KV.watch_entries` yields them.

        Args:
            pattern: a key, or a pattern of keys.
            queue_group: the same as ``resume``.
            on_init: ``replay``: first the keys there are when it begins; ``skip``: only what changes from then on.
                With ``resume``, it begins when the name is used for the first time.
            resume: a name under which the server remembers what was handled, so that the agent goes on from there when
                it is served again; sources of the same name and pattern share the changes. ``None``: it begins each
                time, and every source gets everything.

        Raises:
            KVInvalidKey: it is no pattern of keys.
            ValueError: ``on_init`` is something else, a name is too long, or both names are given.
        """
        return KVSource(pattern, queue_group, on_init, resume)

    @staticmethod
    def kv_condition(
        key: str,
        predicate: Callable[[bytes | None], bool],
        *,
        initial: bool = False,
        drain_timeout: float = KVCondition.drain_timeout,
    ) -> KVCondition:
        """When an agent is served: as the value of a key says. It is read before the agent is served at all.

        Args:
            key: see `kv`.
            predicate: gets the value, or ``None`` where there is none; a plain function. What it raises is logged, and
                changes nothing.
            initial: what holds while the value cannot be read.
            drain_timeout: seconds that requests and events have to end when it is served no more.

        Raises:
            KVInvalidKey: it is no key.
        """
        return KVCondition(key, predicate, initial, drain_timeout)

    @staticmethod
    def subject_condition(
        subject: str,
        predicate: Callable[[bytes], bool],
        *,
        initial: bool = False,
        drain_timeout: float = SubjectCondition.drain_timeout,
    ) -> SubjectCondition:
        """When an agent is served: as the last message of a subject says.

        Args:
            subject: with wildcards or without.
            predicate: gets the body of each message; as for `kv_condition`.
            initial: what holds before the first message.
            drain_timeout: as for `kv_condition`.

        Raises:
            ValueError: one cannot subscribe to this.
        """
        return SubjectCondition(subject, predicate, initial, drain_timeout)

    # -- from entering to leaving

    async def __aenter__(self) -> AgentMesh:
        if self._parts is not None:
            raise RuntimeError("this mesh object is entered already")
        parts = Parts(self._options, self._instance_id, self._roster.agents, self._roster.settle)
        await parts.open()
        self._parts = parts
        self._roster.attach(parts)
        try:
            await self._roster.settle()
        except BaseException:
            await self._leave(0.0)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._leave(self._drain_timeout)

    async def _leave(self, timeout: float) -> None:
        parts = self._parts
        if parts is None:
            return
        await self._roster.detach()
        try:
            await parts.close(timeout)  # handlers that end meanwhile may still ask others
        finally:
            self._parts = None

    @contextmanager
    def connecting_to(self, url: str) -> Iterator[None]:
        """Use another server, and none of the credentials around, until this is left."""
        options = self._options
        self._options = replace(options, url=url, creds="", ambient=False, tls_cert="", tls_key="", tls_ca="")
        try:
            yield
        finally:
            self._options = options

    def run(self) -> None:
        """Connect, and serve until SIGINT or SIGTERM; then finish what runs, and leave."""
        try:
            asyncio.run(serve_until_told(self))
        except KeyboardInterrupt:
            return

    async def _ready(self) -> Parts:
        parts = self.parts
        await self._roster.settle()
        return parts

    # -- what everybody shares

    @property
    def kv(self) -> KV:
        """Keys and values.

        Raises:
            ConnectionFailed: it is not entered.
        """
        return self.parts.kv

    @property
    def workspace(self) -> Workspace:
        """Files.

        Raises:
            ConnectionFailed: it is not entered.
        """
        return self.parts.workspace

    @property
    def observe(self) -> Observe:
        """Log events, and their levels.

        Raises:
            ConnectionFailed: it is not entered.
        """
        return self.parts.observe

    # -- using agents

    async def call(
        self,
        name: str,
        payload: Any = None,
        timeout: float = 30.0,
        *,
        result_type: Any = None,
        idempotent: bool = False,
    ) -> Any:
        """Ask an agent, and wait for its answer.

        For the first two seconds after a lost connection is back, others may not be back yet. So where the server says
        then that nobody takes requests for an agent that is in the catalog, the call is made again, every tenth of a
        second, as long as these two seconds and the timeout last; as nobody has heard it, it is not done twice. Any
        other failure is raised at once, unless the call is ``idempotent``.

        Args:
            name: of the agent.
            payload: a model, anything that can be put into JSON, bytes that are JSON already, or ``None`` for none.
            timeout: in seconds; the agent's host is told, and gives up too.
            result_type: what to read the answer as; ``None`` for plain JSON.
            idempotent: whether to ask again, within the timeout, when the connection or the host was lost, nobody
                serves the agent at the moment, or it has left the catalog less than half a minute ago.

        Returns:
            The answer; ``{}`` for one without content.

        Raises:
            NotFound: there is no such agent.
            NotAvailable: nobody serves it at the moment; right after a reconnection, still not after two seconds.
            InvocationMismatch: it does not answer calls.
            InvalidInput: it does not take this payload.
            HandlerError: it failed.
            MeshTimeout: there was no answer in time.
            AgentDied: the host that had the request is gone.
            ConnectionLost: the connection is lost; what became of the request is unknown.
            InvalidReply: the answer is not JSON, or not of ``result_type``.
            MeshError: what the agent raised.
            TypeError: the payload cannot be put into JSON.
        """
        parts = await self._ready()
        return await parts.client.call(name, payload, timeout, result_type=result_type, idempotent=idempotent)

    async def stream(
        self, name: str, payload: Any = None, timeout: float = 60.0, *, result_type: Any = None
    ) -> AsyncGenerator[Any, None]:
        """Ask an agent that answers in chunks. Leaving the loop tells the host that no more are wanted.

        Where nobody takes requests for the agent yet right after a reconnection, it is asked again, as by `call`; a
        stream that somebody has heard of never is.

        Args:
            name: of the agent.
            payload: as for `call`.
            timeout: seconds without a chunk after which it is given up.
            result_type: what to read each chunk as; ``None`` for plain JSON.

        Yields:
            The chunks.

        Raises:
            ChunkSequenceError: a chunk is missing.
            MeshError: as `call`.
        """
        parts = await self._ready()
        async with aclosing(parts.client.stream(name, payload, timeout, result_type=result_type)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def send(
        self,
        name: str,
        payload: Any = None,
        *,
        on_reply: Callable[[Any], Any] | None = None,
        on_error: Callable[[MeshError], Any] | None = None,
        reply_to: str | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Ask an agent without waiting.

        Args:
            name: of the agent.
            payload: as for `call`.
            on_reply: called with the answer; a function or a coroutine function.
            on_error: called with the `MeshError` there was instead, as `call` raises it; without it, that is logged.
            reply_to: the subject that gets the answer instead; not together with ``on_reply``.
            timeout: seconds that ``on_reply`` waits.

        Raises:
            InvocationMismatch: the agent takes no requests.
            ConnectionLost: there is no connection; nothing was sent.
            ValueError: ``on_reply`` and ``reply_to`` are both given, or ``reply_to`` is no subject.
        """
        parts = await self._ready()
        await parts.sending.send(
            name, payload, on_reply=on_reply, on_error=on_error, reply_to=reply_to, timeout=timeout
        )

    async def subscribe(
        self,
        *,
        agent: str | None = None,
        channel: str | None = None,
        subject: str | None = None,
        timeout: float | None = None,
        result_type: Any = None,
        on_gap: Callable[[Gap], Any] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Follow a publisher, all publishers of a channel, or a subject, until the loop or this mesh object is left.

        What is published while there is no connection is lost, and the loop goes on when there is one again. After
        every lost connection ``on_gap`` is called, as soon as events come again: with `Gap.missed` ``None``, for nobody
        knows what there was. Publishers number their events, and when numbers are missing, for whatever reason, it is
        called with how many. What must not be missed belongs under a key: see `KV.watch`.

        Args:
            agent: a publisher; the loop ends with it.
            channel: all agents below this prefix.
            subject: any subject, with wildcards or without; not together with ``agent``.
            timeout: seconds without an event after which `MeshTimeout` is raised; ``None`` for never.
            result_type: what to read each event as; ``None`` for plain JSON.
            on_gap: called with every gap, before the next event; a plain function. Without it, the first one is logged.

        Yields:
            The events.

        Raises:
            NotFound: there is no such agent.
            InvocationMismatch: it does not publish.
            ConnectionDenied: the server does not permit it.
            MeshError: what ended the publisher.
            ValueError: not exactly what is described above was given.
        """
        parts = await self._ready()
        events = parts.listening.subscribe(
            agent=agent, channel=channel, subject=subject, timeout=timeout, result_type=result_type, on_gap=on_gap
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def publish(self, subject: str, payload: Any, headers: dict[str, str] | None = None) -> None:
        """Publish to a subject of one's own choice.

        Args:
            subject: without wildcards.
            payload: a model, bytes, or a str.
            headers: more headers, or others in the place of ours.

        Raises:
            ValueError: one cannot publish to this subject.
            TypeError: the payload, or a header, is something else.
            ConnectionLost: there is no connection; nothing was sent.
        """
        parts = await self._ready()
        await parts.listening.publish(subject, payload, headers)

    # -- finding agents

    async def catalog(
        self,
        channel: str | None = None,
        tags: list[str] | None = None,
        streaming: bool | None = None,
        invocable: bool | None = None,
    ) -> list[CatalogEntry]:
        """The agents there are; answered from what is known here.

        Args:
            channel: only those of this name or below it.
            tags: only those that have all of them.
            streaming: only those that do, or do not, yield chunks or events.
            invocable: only those that do, or do not, take requests.
        """
        parts = await self._ready()
        entries = parts.catalog.entries.values()
        return [entry for entry in entries if entry.matches(channel, tags, streaming, invocable)]

    async def catalog_changes(self) -> AsyncGenerator[CatalogChange, None]:
        """First every agent there is, then every change, until the loop or this mesh object is left."""
        parts = await self._ready()
        async with aclosing(parts.watches.follow(CatalogFeed(parts.catalog))) as changes:
            async for change in changes:
                yield change

    async def contract(self, name: str) -> AgentContract:
        """The agent's contract.

        Raises:
            NotFound: there is no such agent.
        """
        parts = await self._ready()
        parts.client.subject_of(name)  # a key of the registry has more characters than a name may have
        return await parts.directory.contract(name)

    async def discover(self, channel: str | None = None) -> list[AgentContract]:
        """The contracts of all agents, or of those of a channel; those that cannot be read are left out."""
        parts = await self._ready()
        names = [entry.name for entry in await self.catalog(channel)]
        return await parts.registry.get_all(names)
