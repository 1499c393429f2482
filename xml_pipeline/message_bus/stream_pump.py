"""`StreamPump`: the public face of the engine. Lifecycle and verbs; what they do stands in the engine's parts."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast, overload

from xml_pipeline.config import ConfigLoader, Limits, ListenerConfig, LLMConfig, OrganismConfig, Rate
from xml_pipeline.errors import (
    ConfigurationError,
    ConversationCancelled,
    PipelineError,
    PumpStopped,
    ValidationError,
)
from xml_pipeline.message_bus import pipeline
from xml_pipeline.message_bus.attachment import Attachment
from xml_pipeline.message_bus.dead_letters import DeadLetters
from xml_pipeline.message_bus.engine import Engine
from xml_pipeline.message_bus.events import (
    AgentStateEvent,
    EventCallback,
    EventStream,
    MessageReceivedEvent,
    MessageSentEvent,
    OutcomeEvent,
    PumpEvent,
    ReloadEvent,
    ThreadEvent,
)
from xml_pipeline.message_bus.exchange import Exchange
from xml_pipeline.message_bus.lane import SlotGauge
from xml_pipeline.message_bus.lifecycle import Lifecycle, PumpState
from xml_pipeline.message_bus.listener import Handler, Listener, RepairMode, make_generic_listener, make_listener
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.model_calls import ModelCalls
from xml_pipeline.message_bus.orchestration import map_payloads, run_sequence
from xml_pipeline.message_bus.patience import Patience
from xml_pipeline.message_bus.peer_tables import PeerTable
from xml_pipeline.message_bus.reload import configured_listener, configured_peer_tables, reload_config
from xml_pipeline.message_bus.routing import RoutingTable
from xml_pipeline.message_bus.signer import load_identity
from xml_pipeline.message_bus.singleton import get_stream_pump, has_stream_pump, reset_stream_pump, set_stream_pump
from xml_pipeline.message_bus.statistics import PumpStatistics, ShutdownReport, collect
from xml_pipeline.message_bus.steps.c14n import c14n
from xml_pipeline.message_bus.steps.deserialization import make_deserialization
from xml_pipeline.message_bus.steps.envelope_validation import validate_envelope
from xml_pipeline.message_bus.steps.fan_out import extract_payloads
from xml_pipeline.message_bus.steps.payload_validation import make_xsd_validation
from xml_pipeline.message_bus.steps.step import wrap_step
from xml_pipeline.message_bus.steps.thread_assignment import assign_thread
from xml_pipeline.message_bus.system_listeners import system_listeners
from xml_pipeline.primitives.boot import Boot
from xml_pipeline.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from xml_pipeline.crypto import Identity

__all__ = [
    "AgentStateEvent",
    "ConfigLoader",
    "Listener",
    "ListenerConfig",
    "MessageReceivedEvent",
    "MessageSentEvent",
    "OrganismConfig",
    "OutcomeEvent",
    "PumpEvent",
    "ReloadEvent",
    "ShutdownReport",
    "StreamPump",
    "ThreadEvent",
    "bootstrap",
    "extract_payloads",
    "get_stream_pump",
    "make_deserialization",
    "make_xsd_validation",
    "reset_stream_pump",
    "set_stream_pump",
    "wrap_step",
]

_END: Any = object()
_UP_TO_DISPATCH = (
    "build_pipeline",
    "_queue_source",
    "_repair_step",
    "_c14n_step",
    "_envelope_validation_step",
    "_payload_extraction_step",
    "_thread_assignment_step",
    "_fan_out_step",
    "_validate_and_deserialize",
    "_route_step",
    "_handle_errors",
    "_dispatch_to_handlers",
)
"""What makes the pipeline before handlers run; see `StreamPump.has_plain_pipeline`."""

H = TypeVar("H", bound=Callable[..., Any])


class StreamPump:
    """A message pump: listeners, and the pipeline that every message between them goes through.

    ::

        pump = StreamPump(name="demo")
        pump.register("greeter", greet, Greeting)
        async with pump:
            answer = await pump.request("greeter", Greeting("Ada"))

    Args:
        config: an organism's configuration, as `ConfigLoader.load` gives it; its listeners are registered by
            `register_all`. Without one, the keywords make one.
        config_path: the file that `reload_config` reads.
        name: the organism's name.
        port: kept for the organism's servers.
        llm_config: the model back ends, as a `LLMConfig` or a mapping with the keys of the ``llm`` section.
        identity_path: a file with the private key that signs what leaves the organism; empty for none.
        **limits: see `Limits`, e.g. ``max_concurrent_handlers=50``.

    Raises:
        ConfigurationError: an argument is unknown or out of range, or the identity cannot be loaded.
    """

    def __init__(
        self,
        config: OrganismConfig | None = None,
        config_path: str = "",
        *,
        name: str = "organism",
        port: int = 8765,
        llm_config: LLMConfig | Mapping[str, Any] | None = None,
        identity_path: str = "",
        **limits: Any,
    ) -> None:
        if config is None:
            Limits.of(**limits)  # refuses unknown names in the words of this call
            models = cast("LLMConfig", llm_config or {})  # which the model makes of a mapping
            config = OrganismConfig(name=name, port=port, identity_path=identity_path, llm_config=models, **limits)
        elif limits:
            config = config.with_limits(**limits)
        self._config = config
        self._config_path = str(config_path)
        self._identity = load_identity(config, self._config_path)
        self.runtime = Runtime(config.name)
        self.engine = Engine(config.limits, self.runtime)
        self._dispatcher = self.engine.dispatcher
        self.models = ModelCalls(self.runtime, config.llm_config)
        self.attachments: tuple[Attachment, ...] = ()
        """What joins it to the world outside; see `attach`."""
        self._lifecycle = Lifecycle(self.engine, lambda: pipeline.drive(self), self._quiesce, self._close)
        self.runtime.put(self, StreamPump)

    @classmethod
    async def from_yaml(cls, path: str | Path, *, mesh_url: str | None = None) -> Self:
        """Make a pump from a file, register its listeners, and start it. `run` it, or enter it, afterwards.

        Args:
            path: the organism's file.
            mesh_url: of the mesh's server, in the place of the file's; ``None``, the default, for that.

        Raises:
            ConfigurationError: everything that is wrong with the file, each with its place; or the mesh cannot be
                joined.
        """
        from xml_pipeline.organism import start_from_file  # the composition root stands above the engine

        return await start_from_file(cls, path, mesh_url=mesh_url)

    # -- registration -------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        handler: Handler,
        payload_class: type | Sequence[type],
        *,
        description: str = "",
        agent: bool = False,
        peers: Sequence[str] | None = None,
        broadcast: bool | str = False,
        prompt: str = "",
        timeout: float | None = None,
        concurrency: int | None = None,
        rate: Rate | str | float | None = None,
        ordered: bool = True,
        cpu_bound: bool = False,
        output_class: type | None = None,
        repair: RepairMode = "strict",
        joins: bool = False,
        model: str = "",
    ) -> Listener:
        """Register a listener.

        Args:
            name: any text; dots, spaces and all languages are fine. Unique, also in lower case.
            handler: ``async def handler(payload, metadata)``, an async generator function, an object with an async
                ``__call__``, or a partial of these.
            payload_class: the dataclass or pydantic model it accepts, or a list or tuple of several.
            description: told to agents that may call it.
            agent: it is an agent: it reaches only its peers, and gets errors and answers of every class.
            peers: names of listeners and groups it may call.
            broadcast: ``True``: member of the group named by its name up to the last dot; or the group's name.
            prompt: an agent's system prompt.
            timeout: seconds a call may take; default: the pump's ``timeout``, 30.
            concurrency: handlers of it running at once; default: ``max_concurrent_per_agent`` for an agent, else no
                limit but the pump's.
            rate: how often it may be called, e.g. ``"10/s"``.
            ordered: one message of a frame at a time, in order.
            cpu_bound: not supported in this version.
            output_class: the class it answers with; every answer is checked.
            repair: ``"lenient"`` mends external envelopes to it that are not well-formed.
            joins: answers and errors of its calls are delivered to it whatever their class, as to an agent; for a tool
                that waits for several calls, see `Join`.
            model: the model that an agent uses; default: that of ``llm_config``.

        Returns:
            The listener.

        Raises:
            TypeError: the handler is not async, or a class is neither dataclass nor pydantic model.
            ConfigurationError: the name is taken or reserved, there is no class, or a value is out of range.
        """
        listener = make_listener(
            name,
            handler,
            payload_class,
            description=description,
            agent=agent,
            peers=peers,
            broadcast=broadcast,
            prompt=prompt,
            timeout=self._config.timeout if timeout is None else timeout,
            concurrency=concurrency,
            rate=rate,
            ordered=ordered,
            cpu_bound=cpu_bound,
            output_class=output_class,
            repair=repair,
            joins=joins,
            model=model,
        )
        return self._add(listener)

    def listener(self, name: str, payload_class: type | Sequence[type], **options: Any) -> Callable[[H], H]:
        """`register` as a decorator: ``@pump.listener("greeter", Greeting)``; returns the handler unchanged."""

        def decorate(handler: H) -> H:
            self.register(name, handler, payload_class, **options)
            return handler

        return decorate

    def register_listener(self, config: ListenerConfig) -> Listener:
        """Register a listener from its configuration, imports resolved."""
        return self._add(configured_listener(config, self._config.timeout_of(config)))

    def register_all(self) -> None:
        """Register all listeners of the configuration, or none.

        Raises:
            ConfigurationError: one of them cannot be registered.
        """
        known = self.engine.table.listeners
        added = [
            configured_listener(config, self._config.timeout_of(config))
            for config in self._config.listeners
            if config.name not in known
        ]
        self._swap(RoutingTable([*known.values(), *added]))

    def register_generic_listener(self, name: str, handler: Handler, description: str = "") -> Listener:
        """Register a listener that receives any payload, as an lxml element.

        Raises:
            TypeError: the handler is not async.
            ConfigurationError: the name is taken or reserved.
        """
        return self._add(make_generic_listener(name, handler, description, timeout=self._config.timeout))

    def unregister_listener(self, name: str) -> bool:
        """Remove a listener; calls that it is working on are finished. Returns whether it was registered."""
        if name not in self.engine.table.listeners:
            return False
        self._swap(self.engine.table.without(name))
        return True

    def _add(self, listener: Listener) -> Listener:
        self._swap(self.engine.table.with_listener(listener))
        return listener

    def _swap(self, table: RoutingTable) -> None:
        self.engine.swap(table)

    # -- peer tables --------------------------------------------------------------------------------------------

    def register_peer_table(
        self, name: str, peers: Mapping[str, Iterable[str]], parent: str | None = None
    ) -> PeerTable:
        """Register a peer table, for the ``routing_table`` of `inject` and its kin. See `PeerTables`.

        Args:
            name: any text that a listener could be called.
            peers: for each listener, whom it may call, out of its own peers or its list in the parent. An empty list
                means nobody; so does no list, but for tools that declare no peers.
            parent: the name of a registered table that bounds this one.

        Raises:
            KeyError: the name is taken, or the parent is not registered.
            ValueError: a peer exceeds the ceiling, or the parent is below this table.
            TypeError: ``peers`` is not a mapping from names to lists of names.
        """
        return self.engine.peer_tables.register_peer_table(name, peers, parent)

    def modify_peer_table(
        self,
        name: str,
        listener_name: str,
        *,
        grant: Iterable[str] | None = None,
        revoke: Iterable[str] | None = None,
    ) -> list[str]:
        """Change whom a listener may call in the conversations under a table, from their next call on.

        Emits a `ReloadEvent`. The agent's usage instructions follow.

        Args:
            name: the table.
            listener_name: whose list.
            grant: names to add, within the ceiling.
            revoke: names to take away; it wins over ``grant``.

        Returns:
            The listener's peers in this table, as they are now.

        Raises:
            KeyError: the table is not registered.
            ValueError: a granted peer exceeds the ceiling; nothing was changed.
            TypeError: an argument is not a list of names.
        """
        return self.engine.peer_tables.modify_peer_table(name, listener_name, grant=grant, revoke=revoke)

    @property
    def peer_tables(self) -> Mapping[str, PeerTable]:
        """Peer tables by name; read-only, a snapshot."""
        return self.engine.peer_tables.tables

    # -- messages -----------------------------------------------------------------------------------------------

    @overload
    async def inject(
        self,
        target: str | None,
        payload: Any,
        *,
        from_id: str = "external",
        thread_id: str | None = None,
        routing_table: str | None = None,
    ) -> str: ...

    @overload
    async def inject(
        self,
        target: bytes,
        payload: str | None = None,
        from_id: str = "external",
        /,
        *,
        routing_table: str | None = None,
    ) -> str: ...

    async def inject(
        self,
        target: str | bytes | None,
        payload: Any = None,
        from_id: str = "external",
        *,
        thread_id: str | None = None,
        routing_table: str | None = None,
    ) -> str:
        """Send a message from outside; waits while the queues are full.

        Two forms: ``inject(target, payload, from_id=..., thread_id=...)``, and ``inject(raw, thread_id, from_id)`` for
        a finished envelope, which must agree with both.

        Args:
            target: a listener's or a broadcast group's name; ``None`` for a class that only one group takes.
            payload: an instance of a payload class of the target.
            from_id: the sender's name, anything but ``system``, ``system.*`` and names of listeners.
            thread_id: ``None`` begins a conversation. A new version-4 UUID begins one with that id. The id of a
                conversation of the same sender, open or complete for less than ``thread_idle_ttl`` seconds, continues
                it.
            routing_table: a peer table that narrows the conversation, for as long as it lives. A next turn is held to
                it without naming it; naming another one is refused.

        Returns:
            The conversation's id. Give it to `wait`, `cancel`, or to the next `inject`.

        Raises:
            TypeError: the payload is no payload.
            ForgedMessage: ``from_id`` or ``thread_id`` is not the sender's.
            ValidationError: the payload cannot be written in XML, or is larger than ``max_message_bytes``.
            RoutingError: there is no such peer table, or the conversation that is continued has another one.
            PumpStopped: the pump is stopping or has stopped.
        """
        exchange = await self._admit(target, payload, from_id, thread_id, routing_table)
        return exchange.conversation_id

    async def inject_nowait(
        self,
        target: str | bytes | None,
        payload: Any = None,
        from_id: str = "external",
        *,
        thread_id: str | None = None,
        routing_table: str | None = None,
    ) -> str:
        """`inject`, but refused instead of waiting.

        Raises:
            Overloaded: the target's queue, or the whole admission lane, is full. Otherwise as `inject`.
        """
        exchange = await self._admit(target, payload, from_id, thread_id, routing_table, wait=False)
        return exchange.conversation_id

    async def request(
        self,
        target: str | None,
        payload: Any,
        *,
        from_id: str = "external",
        thread_id: str | None = None,
        timeout: float | None = 30.0,
        routing_table: str | None = None,
    ) -> Any:
        """Send a message and return the first answer. Arguments and admission errors as `inject`.

        Handlers may use it too: it is a conversation of its own, and never a deadlock.

        Args:
            timeout: seconds, waiting for admission included; then the conversation is cancelled. ``None``: no limit but
                the listeners' own.

        Returns:
            The payload of the first answer.

        Raises:
            PipelineError: what failed: the class tells the code, ``detail`` the cause.
            NoAnswer: the conversation completed without an answer.
            DeadlineExceeded: no answer in time.
        """
        async with Patience(timeout, f"no answer from {target!r} in {timeout} s") as deadline:
            exchange = await self._admit(target, payload, from_id, thread_id, routing_table)
            deadline.on_failure = lambda error: self._cancel(exchange.conversation_id, error)
            with self._dispatcher.lender.lending():
                return await exchange.first()

    async def stream(
        self,
        target: str | None,
        payload: Any,
        *,
        from_id: str = "external",
        thread_id: str | None = None,
        timeout: float = 30.0,
        routing_table: str | None = None,
    ) -> AsyncIterator[Any]:
        """Send a message and yield every answer until the conversation is complete. Leaving the loop early cancels it.

        Args:
            timeout: seconds without an answer; also how long admission may take.

        Raises:
            PipelineError: what failed.
            DeadlineExceeded: no answer for ``timeout`` seconds.
        """
        async with Patience(timeout, f"no room for {target!r} in {timeout} s"):
            exchange = await self._admit(target, payload, from_id, thread_id, routing_table, stream=True)
        answers = exchange.stream(timeout)
        try:
            while True:
                with self._dispatcher.lender.lending():
                    answer = await anext(answers, _END)
                if answer is _END:
                    return
                yield answer
        finally:
            if not exchange.is_complete:
                self.cancel(exchange.conversation_id)

    async def sequence(
        self,
        steps: Iterable[str],
        payload: Any,
        *,
        timeout: float = 30.0,
        from_id: str = "external",
        thread_id: str | None = None,
        routing_table: str | None = None,
    ) -> Any:
        """Run listeners one after another: each step's answer is what the next one is given.

        ``answer = await pump.sequence(["extract", "translate"], Document(text))``. The other arguments as `inject`.

        Args:
            steps: the listeners' names, in order.
            payload: what the first step is given.
            timeout: seconds for all steps together; 0 for no limit but the listeners' own.

        Returns:
            The payload that the last step answered.

        Raises:
            PipelineError: the error of the step that did not end well, as `request` would raise it; ``target`` names
                the step, ``detail`` says which of the steps it is, and what happened. Later steps have not been run.
            TypeError: the steps are not names.
        """
        sender = {"from_id": from_id, "thread_id": thread_id, "routing_table": routing_table}
        return await run_sequence(self, steps, payload, timeout, **sender)

    async def map(
        self,
        target: str,
        payloads: Iterable[Any],
        *,
        max_parallel: int = 10,
        timeout: float = 0.0,
        item_timeout: float = 30.0,
        return_exceptions: bool = False,
        from_id: str = "external",
        thread_id: str | None = None,
        routing_table: str | None = None,
    ) -> list[Any]:
        """Send many payloads to one listener in parallel, in one conversation. The other arguments as `inject`.

        Args:
            target: the listener's name.
            payloads: what it is sent, one after another.
            max_parallel: how many are under way at a time.
            timeout: seconds for all together; what has not ended then fails with `DeadlineExceeded`. 0 for no limit.
            item_timeout: seconds for each, from when it is sent; 0 for no limit but the listener's own.
            return_exceptions: give the errors of payloads that failed in their places, like `asyncio.gather`.

        Returns:
            The answers, in the order of the payloads.

        Raises:
            PipelineError: the first payload's error, in their order, once all have ended, unless
                ``return_exceptions``; or why the target could not be asked at all. ``detail`` says which payload's it
                is, and what happened, as `request` would.
        """
        return await map_payloads(
            self,
            target,
            payloads,
            max_parallel=max_parallel,
            timeout=timeout,
            item_timeout=item_timeout,
            return_exceptions=return_exceptions,
            from_id=from_id,
            thread_id=thread_id,
            routing_table=routing_table,
        )

    async def wait(self, thread: str, timeout: float = 30.0) -> Any:
        """What `request` returns or raises, for a conversation begun by `inject`: its latest message's first answer.

        Args:
            thread: what `inject` returned.
            timeout: seconds; then the conversation is cancelled.

        Raises:
            ValidationError: there is no such conversation, or not any more.
            PipelineError, NoAnswer, DeadlineExceeded: as `request`.
        """
        conversation = self.engine.registry.find(thread)
        if conversation is None or not conversation.exchanges:
            raise ValidationError(f"there is no conversation {thread!r}, or it is no longer remembered", step="wait")
        async with Patience(timeout, f"no answer on {thread!r} in {timeout} s") as deadline:
            deadline.on_failure = lambda error: self._cancel(thread, error)
            with self._dispatcher.lender.lending():
                return await conversation.exchanges[-1].first()

    def cancel(self, thread: str) -> bool:
        """Cancel a conversation, or the call with this ``metadata.thread_id``: running handlers are cancelled, what is
        queued is dropped, and whoever waits gets `ConversationCancelled`.

        Returns:
            Whether there was something to cancel.
        """
        return self._cancel(thread, ConversationCancelled("cancelled by request", step="cancel"))

    def _cancel(self, thread: str, error: PipelineError) -> bool:
        return self.engine.cancel(thread, error)

    def _admit(
        self,
        target: str | bytes | None,
        payload: Any,
        from_id: str,
        thread_id: str | None,
        routing_table: str | None,
        *,
        wait: bool = True,
        stream: bool = False,
    ) -> Coroutine[Any, Any, Exchange]:
        """The way in, to be awaited."""
        ingress = self.engine.ingress
        if isinstance(target, bytes):
            thread = payload if payload is not None else thread_id
            return ingress.admit_raw(target, thread, from_id, routing_table=routing_table, wait=wait, stream=stream)
        if payload is None:
            raise TypeError("inject(target, payload): the payload is missing")
        if target is not None and not isinstance(target, str):
            raise TypeError(f"the target must be a name, not {type(target).__name__}")
        return ingress.admit(
            target, payload, from_id=from_id, thread_id=thread_id, routing_table=routing_table, wait=wait, stream=stream
        )

    def add_source(
        self,
        source: AsyncIterable[Any],
        from_id: str = "external",
        *,
        name: str = "",
        routing_table: str | None = None,
    ) -> str:
        """Take messages from an async iterable too: envelopes as bytes, or ``(target, payload)``.

        They are admitted like everything from outside. A source that fails is reported as `SourceEvent`; the others go
        on. Reading starts when the pump runs. With a ``routing_table``, each is admitted as by `inject` with it.

        Returns:
            The source's name in events.
        """
        return self.engine.sources.add(source, from_id=from_id, name=name, routing_table=routing_table)

    # -- lifecycle ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Register the system listeners and the configuration's peer tables, open the root frame, and queue the boot
        message. Safe twice.

        Raises:
            ConfigurationError: a peer table does not fit the listeners; nothing was started.
            PumpStopped: it has stopped before; a pump starts once.
        """
        if self._lifecycle.state in (PumpState.DRAINING, PumpState.STOPPED):
            raise PumpStopped("a pump that has stopped cannot start again; make a new one", step="start")
        if self._lifecycle.state is not PumpState.NEW:
            return
        if self._config.mesh is not None and not self.attachments:
            raise ConfigurationError(
                "the configuration has a mesh section, and nothing carries it out: make the pump with "
                "StreamPump.from_yaml or bootstrap, or attach a Bridge"
            )
        known = self.engine.table.listeners
        changes = [attachment.plan(self._config) for attachment in self.attachments]
        attached = [listener for change in changes for listener in change.listeners]
        own = [each for each in system_listeners() if each.name not in known]
        table = RoutingTable([*known.values(), *own, *attached])
        peer_tables = configured_peer_tables(self.engine.peer_tables, self._config, table.listeners)
        self._lifecycle.state = PumpState.STARTED
        self._swap(table)
        self.engine.peer_tables.install(peer_tables)
        for change in changes:
            change.apply()
        await self._open_attachments()
        self.engine.registry.initialize_root(self._config.name)
        users = sum(not listener.is_system for listener in self.engine.table.listeners.values())
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.engine.ingress.begin_system("system.boot", Boot(self._config.name, now, users))
        if not has_stream_pump():
            set_stream_pump(self)

    def attach(self, attachment: Attachment) -> None:
        """Join the pump to the world outside, from its start to its end; see `Attachment`.

        Raises:
            RuntimeError: the pump has started.
        """
        if self._lifecycle.state is not PumpState.NEW:
            raise RuntimeError("attach to a pump before it starts")
        self.attachments = (*self.attachments, attachment)

    async def _open_attachments(self) -> None:
        """Open all of them, or none; a pump that could not be started can be shut down only."""
        try:
            for attachment in self.attachments:
                await attachment.open()
        except BaseException:
            await self._lifecycle.shutdown(0.0)
            raise

    async def _quiesce(self, timeout: float) -> None:
        for attachment in self.attachments:
            await attachment.quiesce(timeout)

    async def _close(self) -> None:
        try:
            for attachment in reversed(self.attachments):
                await attachment.close()
        finally:
            await self.models.close()

    async def run(self) -> None:
        """Process messages until `shutdown`; starts the pump if that was not done.

        Raises:
            PumpStopped: it has stopped before; a pump runs once.
            RuntimeError: it is running already.
        """
        await self.start()
        await self._lifecycle.run()

    async def shutdown(self, timeout: float = 30.0) -> ShutdownReport:
        """Stop: refuse new messages, finish what was accepted, and after ``timeout`` seconds cancel the rest.

        Safe twice (the second call gets the first one's report), and before `run`. When it returns, every message has
        its outcome, everybody who waited was told, and every event callback was called.
        """
        report = await self._lifecycle.shutdown(timeout)
        reset_stream_pump(self)
        return report

    async def __aenter__(self) -> Self:
        await self.start()
        self._lifecycle.run_in_background()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.shutdown()
        broken = self._lifecycle.broken
        if broken is not None and exc[0] is None:
            raise broken

    async def wait_idle(self) -> None:
        """Wait until no message is queued or running."""
        await self._lifecycle.wait_idle()

    def reload_config(self, config_path: str | None = None) -> ReloadEvent:
        """Read the configuration again: all of it takes effect, or nothing does. Never raises for what is in the file.

        Calls that are open keep the listener they were opened with; peers and timeouts are those in force. Listeners
        that the program registered stay.

        Args:
            config_path: another file; default: the one the pump was made from.

        Returns:
            What changed, or the error, with its place in the file; also emitted.
        """
        event = reload_config(self, config_path or self._config_path)
        if self.engine.events.active:
            self.engine.events.emit(event)
        return event

    def apply_config(self, config: OrganismConfig, identity: Identity | None) -> None:
        """Replace `config` and `identity`; `reload_config` does it when the new table is in force."""
        self._config = config
        self._identity = identity

    # -- watching -----------------------------------------------------------------------------------------------

    def subscribe_events(self, callback: EventCallback) -> None:
        """Call ``callback`` with every event from now on; see `EventHub.subscribe`."""
        self.engine.events.subscribe(callback)

    def unsubscribe_events(self, callback: EventCallback) -> None:
        """Stop calling ``callback``."""
        self.engine.events.unsubscribe(callback)

    def events(self, maxsize: int = 10_000) -> EventStream:
        """Every event from now on: ``async for event in pump.events()``. The oldest are dropped beyond ``maxsize``."""
        return self.engine.events.events(maxsize)

    def register_dispatch_hook(self, hook: Any) -> None:
        """Have a `DispatchHook` called around every handler."""
        self.engine.hooks.register(hook)

    def unregister_dispatch_hook(self, hook: Any) -> None:
        """Stop calling a hook."""
        self.engine.hooks.unregister(hook)

    def statistics(self) -> PumpStatistics:
        """What the pump is doing, in numbers."""
        return collect(self.engine, str(self._lifecycle.state))

    @property
    def dead_letters(self) -> DeadLetters:
        """Messages that failed while nobody was waiting."""
        return self.engine.dead_letters

    @property
    def config(self) -> OrganismConfig:
        """The configuration in force."""
        return self._config

    @property
    def config_path(self) -> str:
        """The file that `reload_config` reads; empty for a pump made without one."""
        return self._config_path

    @property
    def identity(self) -> Identity | None:
        """The identity that signs what leaves the node; ``None`` for none. It shows its public key and its key id."""
        return self._identity

    @property
    def listeners(self) -> Mapping[str, Listener]:
        """Listeners by name; read-only, a snapshot."""
        return self.engine.table.listeners

    @property
    def routing_table(self) -> Mapping[str, list[Listener]]:
        """Listeners by ``lower(name).lower(class)``; read-only, a snapshot."""
        return self.engine.table.routes

    @property
    def agent_semaphores(self) -> Mapping[str, SlotGauge]:
        """The slots of each agent; read-only."""
        listeners = self.engine.table.listeners.items()
        return MappingProxyType(
            {name: SlotGauge(self._dispatcher.lanes.of(each)) for name, each in listeners if each.is_agent}
        )

    @property
    def queue(self) -> Any:
        """The scheduler's lanes; read-only: ``queue.waiting``, ``queue.queued``, ``queue.inside``."""
        return self.engine.scheduler

    @property
    def dispatch_hooks(self) -> tuple[Any, ...]:
        """The registered hooks."""
        return self.engine.hooks.registered

    # -- the pipeline's stages; override them, or `build_pipeline` -----------------------------------------------

    def build_pipeline(self, source: AsyncIterable[list[MessageState]]) -> Any:
        """The stream from batches of messages to what their handlers sent. Called by `run`, once.

        Override it to add, replace or tap stages with the operators of `xml_pipeline.message_bus.operators`.
        """
        return pipeline.build_pipeline(self, source)

    def _queue_source(self) -> Any:
        return pipeline.queue_source(self)

    @property
    def has_plain_pipeline(self) -> bool:
        """Whether the stages up to dispatch, and the steps in them, are those of this class: none suspends, none sets
        what is meant for one task, and messages are dispatched when they are read."""
        own = {name: getattr(StreamPump, name) for name in _UP_TO_DISPATCH}
        return all(getattr(each := getattr(self, name), "__func__", each) is own[name] for name in own)

    def _repair_step(self, state: MessageState) -> MessageState:
        return self.engine.reception.repair(state)

    _c14n_step = staticmethod(c14n)
    _envelope_validation_step = staticmethod(validate_envelope)
    _thread_assignment_step = staticmethod(assign_thread)

    def _payload_extraction_step(self, state: MessageState) -> MessageState:
        return self.engine.reception.payload_extraction(state)

    def _fan_out_step(self, state: MessageState) -> MessageState | list[MessageState]:
        return self.engine.reception.fan_out(state)

    def _validate_and_deserialize(self, state: MessageState) -> MessageState:
        return self.engine.reception.validate_and_deserialize(state)

    def _route_step(self, state: MessageState) -> MessageState | list[MessageState]:
        return self.engine.reception.route(state)

    def _handle_errors(self, state: MessageState) -> None:
        """Give a message that failed in the pipeline its outcome."""
        if state.failure is not None:
            self.engine.ledger.fail(state, state.failure)

    def _dispatch_to_handlers(self, batch: list[MessageState]) -> None:
        self._dispatcher.accept(batch)

    def _reinject_responses(self, batch: list[MessageState]) -> None:
        self.engine.scheduler.push(batch)

    own_stages: ClassVar[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
        {
            "_route_step": pipeline.route,
            "_handle_errors": pipeline.handle_errors,
            "_dispatch_to_handlers": pipeline.dispatch,
            "_reinject_responses": pipeline.reinject,
        }
    )
    """Methods that are stages rather than functions of one message. In a pipeline of one's own they stand where they
    always stood, whatever operator they are given to."""

    direct_steps: ClassVar[Mapping[Any, str]] = MappingProxyType(
        {
            _repair_step: "repair",
            _payload_extraction_step: "payload_extraction",
            _fan_out_step: "fan_out",
            _validate_and_deserialize: "validate_and_deserialize",
            _route_step: "route",
            _reinject_responses: "",
        }
    )
    """Methods of this class that only pass a message on, and the step of `Reception` behind each."""

    def split(self, state: MessageState) -> MessageState:
        """A further message with the content of ``state``, for a `flatmap` stage of your own."""
        return self.engine.reception.split(state)


async def bootstrap(path: str | Path = "config/organism.yaml", *, mesh_url: str | None = None) -> StreamPump:
    """Make a pump from a file and start it; it becomes the program's main pump. See `StreamPump.from_yaml`."""
    from xml_pipeline.organism import bootstrap as start  # the composition root stands above the engine

    return await start(path, mesh_url=mesh_url)
