"""Answers: one inbox for everything that this mesh object waits for.

Every request has a token of its own in one wildcard subscription, so that asking costs the server nothing but the two
messages. What waits is failed with the reason as soon as it is known that no answer can come: when the connection is
lost, when the server does not permit the request, and when the host that accepted it is gone.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.deadlines import Deadlines
from xml_pipeline.mesh.errors import ConnectionFailed, MeshError, MeshTimeout
from xml_pipeline.mesh.refusals import PUBLISH, is_about

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message

__all__ = ["Expected", "Replies"]


class Expected:
    """An answer that is waited for; a context manager that ends the waiting. Made by `Replies.expect`.

    Attributes:
        inbox: where the answer is to be sent.
        subject: where the request goes.
        agent: the agent asked, or empty.
        instance_id: the host that accepted the request, as soon as it said so; empty until then.
        deadline: in the loop's time, when it has waited long enough; ``None`` before it waits.
    """

    __slots__ = ("_future", "_replies", "_timeout", "_token", "agent", "deadline", "inbox", "instance_id", "subject")

    def __init__(self, replies: Replies, token: str, inbox: str, subject: str, agent: str) -> None:
        self.inbox = inbox
        self.subject = subject
        self.agent = agent
        self.instance_id = ""
        self.deadline: float | None = None
        self._timeout = 0.0
        self._replies = replies
        self._token = token
        self._future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Expected:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._replies.forget(self._token)
        if self._future.done() and not self._future.cancelled():
            self._future.exception()  # seen, whether or not somebody still waited
        else:
            self._future.cancel()

    def deliver(self, message: Message) -> None:
        """The answer came; a second one is dropped."""
        headers = message.headers
        if headers and headers.get(h.STATUS) == h.ACCEPTED and not message.data:
            self.instance_id = headers.get(h.INSTANCE_ID, "")
        elif not self._future.done():
            self._future.set_result(message)

    def fail(self, error: MeshError) -> None:
        """No answer will come."""
        if not self._future.done():
            self._future.set_exception(error)

    def add_done_callback(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when the answer or its failure is there."""
        self._future.add_done_callback(lambda _: tell())

    @property
    def outcome(self) -> Message | MeshError | None:
        """What came, if it did."""
        if not self._future.done() or self._future.cancelled():
            return None
        error = self._future.exception()
        return error if isinstance(error, MeshError) else self._future.result()

    def begin(self, timeout: float) -> None:
        """The time in which the answer has to be there runs from now on, also while the request is not sent yet."""
        self.deadline, self._timeout = asyncio.get_running_loop().time() + timeout, timeout
        self._replies.deadlines.watch(self.deadline)

    async def wait(self) -> Message:
        """The answer, within the time of `begin`.

        Raises:
            MeshTimeout: none came in time.
            MeshError: none can come any more; see `fail`.
        """
        return await self._future

    def expire(self) -> None:
        """It has waited long enough; for `Replies`."""
        if not self._future.done():
            text = f"There was no answer from {self.agent or self.subject} within {max(0.0, self._timeout):.3g} s."
            self.fail(MeshTimeout(message=text, subject=self.subject, timeout=self._timeout, agent=self.agent))


class Replies:
    """Everything this mesh object waits for.

    Args:
        link: where the answers come from.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._expected: dict[str, Expected] = {}
        self.deadlines: Deadlines[Expected] = Deadlines(self._expected.values, Expected.expire)
        self._prefix = link.inbox() + "."
        self._count = 0
        self._subscription: Subscription | None = None
        self._deaf: ConnectionDenied | None = None

    async def open(self) -> None:
        """Begin to take answers.

        Raises:
            ConnectionDenied: the server does not permit it.
        """
        self._subscription = await self._link.subscribe(self._prefix + "*", self._arrived, on_denied=self._is_deaf)
        await self._link.flush()
        if self._deaf is not None:
            raise self._deaf
        self._link.on_lost.append(self._lost)
        self._link.on_denied.append(self._denied)

    async def close(self) -> None:
        """Fail what still waits, and take no more."""
        if self._subscription is not None:
            self._link.on_lost.remove(self._lost)
            self._link.on_denied.remove(self._denied)
            await self._subscription.close()
            self._subscription = None
        self.fail_where(lambda _: True, lambda _: ConnectionFailed("The mesh object was closed."))
        self.deadlines.close()

    def expect(self, subject: str, agent: str = "") -> Expected:
        """Begin to wait for an answer; use it as a context manager.

        Args:
            subject: where the request will go.
            agent: the agent asked, if it is one.
        """
        self._count += 1
        token = f"{self._count:x}"
        expected = Expected(self, token, self._prefix + token, subject, agent)
        self._expected[token] = expected
        if self._deaf is not None:
            expected.fail(_again(self._deaf, expected))
        return expected

    def forget(self, token: str) -> None:
        """Wait no more; for `Expected`."""
        self._expected.pop(token, None)

    async def ask(self, subject: str, body: bytes, timeout: float, headers: dict[str, str] | None = None) -> Message:
        """Send a request, and wait for its answer.

        Args:
            subject: where.
            body: the payload.
            timeout: in seconds.
            headers: of the request.

        Raises:
            MeshTimeout: no answer came in time.
            ConnectionLost: there is no connection, or it was lost meanwhile.
            ConnectionDenied: the server does not permit the request.
        """
        with self.expect(subject) as expected:
            expected.begin(timeout)
            await self._link.publish(subject, body, expected.inbox, headers, timeout=timeout)
            return await expected.wait()

    def fail_where(self, concerned: Callable[[Expected], bool], error: Callable[[Expected], MeshError]) -> None:
        """Fail what can have no answer any more.

        Args:
            concerned: which.
            error: what each is failed with.
        """
        for expected in list(self._expected.values()):
            if concerned(expected):
                expected.fail(error(expected))

    def _arrived(self, message: Message) -> None:
        expected = self._expected.get(message.subject[len(self._prefix) :])
        if expected is not None:
            expected.deliver(message)

    def _lost(self, error: MeshError) -> None:
        self._deaf = None
        self.fail_where(lambda _: True, lambda expected: _again(error, expected))

    def _denied(self, subject: str, error: ConnectionDenied) -> None:
        if is_about(error, PUBLISH):
            self.fail_where(lambda expected: expected.subject == subject, lambda expected: _again(error, expected))

    def _is_deaf(self, error: ConnectionDenied) -> None:
        """No answer can come, to whatever it is: every member of the mesh needs an inbox."""
        self._deaf = error
        self.fail_where(lambda _: True, lambda expected: _again(error, expected))


def _again(error: MeshError, expected: Expected) -> MeshError:
    """Each waiter gets its own, for an exception collects the tracebacks of whoever it is raised in."""
    again = copy.copy(error)
    again.agent = expected.agent
    return again
