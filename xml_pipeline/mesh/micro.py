"""`Micro`: the agents served here, as NATS micro services, so that the ``nats`` command and its like see them.

Who looks for services asks ``$SRV.PING``, ``$SRV.INFO`` or ``$SRV.STATS``, of all of them, or with ``.<name>`` of one
kind, or with ``.<name>.<id>`` of one instance; every service that is meant answers for itself. Here a host answers for
its agents: with two subscriptions, whatever the verb, and one more for each agent, so that the server itself says of a
service that nobody offers that nobody does.

It is a courtesy: where the server does not permit it, there is none, and nothing else is changed by that.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.errors import MeshError
from xml_pipeline.mesh.micro_document import MicroDocument
from xml_pipeline.mesh.subjects import answerable

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.service import Service

__all__ = ["Micro"]

_log = logging.getLogger(__name__)

_PREFIX = "$SRV."
_MOST_QUESTIONS = 64  # that are being answered; more are not, for anybody may ask


class Micro:
    """The services of one mesh object.

    Args:
        link: the connection.
        instance_id: this mesh object, and the id of all its services.
    """

    def __init__(self, link: Link, instance_id: str) -> None:
        self._link = link
        self._instance_id = instance_id
        self._documents: dict[str, MicroDocument] = {}
        self._names: Counter[str] = Counter()  # of services: how many agents have it
        self._subscriptions: dict[str, Subscription] = {}
        self._busy: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._is_denied = False

    async def offer(self, agent: Agent, service: Service | None) -> None:
        """An agent is served here from now on.

        Args:
            agent: which; one of its name that was offered before is replaced.
            service: what takes its requests; ``None`` for an agent that takes none.

        Raises:
            MeshError: there is no connection.
        """
        started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        document = MicroDocument(agent, service, self._instance_id, started)
        async with self._turn:
            if agent.name not in self._documents:
                self._names[document.name] += 1
            self._documents[agent.name] = document
            await self._listen_for(document.name)

    async def withdraw(self, name: str) -> None:
        """An agent is not served here any more; one that was not offered is none anyway.

        Args:
            name: of the agent.
        """
        async with self._turn:
            document = self._documents.pop(name, None)
            if document is None:
                return
            self._names[document.name] -= 1
            if not self._documents:
                await self._listen_no_more()
            elif not self._names[document.name]:
                await self._close(f"{_PREFIX}*.{document.name}")

    async def close(self) -> None:
        """Offer nothing any more, and give up what is being answered."""
        async with self._turn:
            self._documents.clear()
            self._names.clear()
            await self._listen_no_more()
        for task in self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(self._busy)

    # -- listening

    async def _listen_for(self, service: str) -> None:
        if f"{_PREFIX}*" not in self._subscriptions and not self._is_denied:
            await self._listen(f"{_PREFIX}*")
            await self._link.flush()  # by now the server has said whether it permits it
        await self._listen(f"{_PREFIX}*.*.{self._instance_id}")
        await self._listen(f"{_PREFIX}*.{service}")

    async def _listen(self, subject: str) -> None:
        if subject not in self._subscriptions and not self._is_denied:
            self._subscriptions[subject] = await self._link.subscribe(subject, self._asked, on_denied=self._denied)

    async def _listen_no_more(self) -> None:
        for subject in list(self._subscriptions):
            await self._close(subject)

    async def _close(self, subject: str) -> None:
        subscription = self._subscriptions.pop(subject, None)
        if subscription is not None:
            await subscription.close()

    def _denied(self, _: ConnectionDenied) -> None:
        if not self._is_denied:
            self._is_denied = True
            _log.info("the server does not permit to answer NATS micro discovery; everything else works without it")
            self._begin(self._give_up())

    async def _give_up(self) -> None:
        async with self._turn:
            await self._listen_no_more()

    # -- answering

    def _asked(self, message: Message) -> None:
        verb, *about = message.subject.removeprefix(_PREFIX).split(".")
        documents = [one for one in self._documents.values() if not about or one.name == about[0]]
        inbox = answerable(message.reply)
        if not inbox or not documents:
            return
        if len(self._busy) < _MOST_QUESTIONS:
            self._begin(self._answer(documents, verb, inbox))
        else:
            _log.debug("a question for services gets no answer, for there are too many at once")

    async def _answer(self, documents: list[MicroDocument], verb: str, inbox: str) -> None:
        for document in documents:
            answer = document.answer(verb)
            if answer is None:
                return
            try:
                await self._link.publish(inbox, json.dumps(answer).encode())
            except MeshError as error:
                _log.debug("answering a question for services: %s", error)
                return

    def _begin(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(step)
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
