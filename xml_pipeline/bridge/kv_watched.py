"""`KVWatched`: the values of keys as messages.

With ``resume`` a change counts as handled when everything that its message began is over: done, or failed and kept as
a dead letter. Where the node is killed before, the change comes again, here or at another node that shares the name.
Several changes are under way at a time, those of one key one after the other; here, an older value never follows a
newer one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from third_party.xmlable import codec_of
from xml_pipeline.bridge.extensions import entry_element
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.bridge.kept import keep
from xml_pipeline.bridge.templates import Template
from xml_pipeline.errors import ConversationCancelled, PipelineError, PumpStopped, ValidationError
from xml_pipeline.mesh import KVEntry, KVKeyNotFound, MeshError
from xml_pipeline.message_bus.gateway import Arrival, Gateway

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from xml_pipeline.config.mesh import KVConfig
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.dead_letters import DeadLetters
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["AT_A_TIME", "KVWatched"]

logger = logging.getLogger(__name__)

_SENDER: Final = "mesh:kv"
AT_A_TIME: Final = 32
"""Changes under way; the next one waits."""
_PAUSE: Final = 1.0
"""Seconds after which a watch that failed begins again."""
_MOST_KEYS: Final = 10_000


class KVWatched:
    """One entry of ``mesh.kv`` with ``watch``.

    Args:
        entry: what the configuration says, with its class.
        gateway: the way into the pump.
        dead_letters: where values are kept that are no payload.
        is_own: says whether a change was made by this organism.
    """

    listeners: Sequence[Listener] = ()

    def __init__(
        self,
        entry: KVConfig,
        gateway: Gateway,
        dead_letters: DeadLetters,
        is_own: Callable[[KVEntry[bytes]], bool],
    ) -> None:
        assert isinstance(entry.payload_class, type) and entry.to is not None
        self.entry = entry
        self._target = entry.to
        self._gateway = gateway
        self._dead_letters = dead_letters
        self._is_own = is_own
        self._template = Template(entry.watch)
        self._form = JsonForm([codec_of(entry.payload_class)])
        self._readers: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._mesh: AgentMesh | None = None
        self._keys: OrderedDict[str, _Key] = OrderedDict()

    async def start(self, mesh: AgentMesh) -> None:
        """Begin to follow."""
        self._stopping.clear()
        self._mesh = mesh
        for _ in range(AT_A_TIME if self.entry.resume else 1):
            self._readers.add(asyncio.create_task(self._read(mesh)))

    async def refresh(self) -> None:
        """Nothing of it depends on the listeners but where messages go, which is looked up for each."""

    async def stop(self, timeout: float) -> None:
        """Ask for nothing more, finish what is under way, and hand the rest back."""
        self._stopping.set()
        deadline = asyncio.get_running_loop().time() + timeout
        for tasks in (self._readers, self._working):  # those that read begin the others
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            if tasks:
                await asyncio.wait(set(tasks), timeout=left)
        given_up = [*self._readers, *self._working]
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        self._readers.clear()

    # -- following

    async def _read(self, mesh: AgentMesh) -> None:
        """Follow for ever; what ends a watch is logged, and it begins again."""
        while not self._stopping.is_set():
            try:
                await self._follow(mesh)
                return
            except PumpStopped:
                return  # what was not handled was handed back
            except MeshError as error:
                logger.error("mesh.kv: watching %s: %s", self.entry.watch, error)
                await asyncio.sleep(_PAUSE)
            except Exception:
                logger.exception("mesh.kv: watching %s", self.entry.watch)
                await asyncio.sleep(_PAUSE)

    async def _follow(self, mesh: AgentMesh) -> None:
        changes: AsyncGenerator[KVEntry[bytes], None]
        changes = mesh.kv.watch_entries(self._template.pattern, resume=self.entry.resume, until=self._stopping)
        async with aclosing(changes):
            async for change in changes:
                if self.entry.resume:
                    await self._handle(change)  # before the next one is asked for, which says that this one was
                else:
                    await self._begin(change)

    async def _begin(self, change: KVEntry[bytes]) -> None:
        while len(self._working) >= AT_A_TIME:
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._handle(change))
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._stopping.is_set():
            logger.error("mesh.kv: a change of %s", self.entry.watch, exc_info=task.exception())

    # -- one change

    async def _handle(self, change: KVEntry[bytes]) -> None:
        values = self._template.values(change.key)
        if values is None or change.is_deleted or (not self.entry.echo and self._is_own(change)):
            return
        key = self._key(change.key)
        async with key.turn:
            if change.revision < key.revision and not await self._is_newest(change):
                return  # a newer value of it was handled meanwhile
            await self._deliver(change, values)
            key.revision = change.revision

    async def _is_newest(self, change: KVEntry[bytes]) -> bool:
        """Whether there is no newer value: then the bucket is another one by now, whose revisions begin anew."""
        assert self._mesh is not None
        try:
            return (await self._mesh.kv.entry(change.key)).revision <= change.revision
        except KVKeyNotFound:
            return False

    def _key(self, name: str) -> _Key:
        key = self._keys.setdefault(name, _Key())
        self._keys.move_to_end(name)
        while len(self._keys) > _MOST_KEYS:
            oldest, known = next(iter(self._keys.items()))
            if known.turn.locked():
                break
            del self._keys[oldest]
        return key

    async def _deliver(self, change: KVEntry[bytes], values: dict[str, str]) -> None:
        try:
            payload = self._form.read(change.value, values)
        except ValidationError as error:
            logger.error("mesh.kv: the value of %s is no %s: %s", change.key, self._form.names, error.detail)
            self._keep(change, error)
            return
        element = entry_element(change.key, change.revision, change.operation)
        begun: list[str] = []
        arrival = Arrival(self._target, payload, _SENDER, (element,), wait=True, on_begin=begun.append)
        try:
            await self._gateway.deliver(arrival)
        except PumpStopped:
            raise  # nobody has handled it
        except PipelineError as error:
            logger.warning("mesh.kv: %s: %s", change.key, error.detail or error)
            if not begun or isinstance(error, ConversationCancelled):
                self._keep(change, error)  # the pump keeps only what fails later

    def _keep(self, change: KVEntry[bytes], error: PipelineError) -> None:
        """Nobody will handle it: keep it where somebody can look at it."""
        place = f"{change.key}, revision {change.revision}"
        keep(self._dead_letters, error, change.value, place=place, sender=_SENDER, target=self._target)


class _Key:
    """What is known of one key."""

    __slots__ = ("revision", "turn")

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.revision: Any = 0
