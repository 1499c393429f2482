"""Publishing where no answer is expected, and hearing of it nevertheless if the server does not permit it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

from xml_pipeline.mesh.refusals import PUBLISH, is_about

if TYPE_CHECKING:
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link

__all__ = ["Permits"]

T = TypeVar("T")

_MOST = 1024


class Permits:
    """What the server lets us publish to, as far as it was asked.

    A server says nothing about a message that it takes, and complains about one that it does not. So the first message
    to a subject is followed by a question, whose answer comes after any complaint; later ones are not. Where nobody
    says who they are, everybody may do everything, and nothing is asked.

    Args:
        link: the connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asks = not link.options.is_open
        self._known: dict[str, None] = {}
        self._denied: dict[str, tuple[int, ConnectionDenied]] = {}  # how often, and the last time
        link.on_denied.append(self._complained)
        link.on_restored.append(self._known.clear)  # somebody else may have told the server other rules

    async def publish(self, subject: str, body: bytes, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Publish; arguments and errors as `Link.publish`, and:

        Raises:
            ConnectionDenied: the server does not permit it.
        """
        before = self._denied.get(subject)
        await self._link.publish(subject, body, reply, headers)
        if not self._asks or subject in self._known:
            return
        await self._link.flush()
        after = self._denied.get(subject)
        if after is not None and after != before:
            raise copy.copy(after[1])
        _remember(self._known, subject, None)

    def _complained(self, subject: str, error: ConnectionDenied) -> None:
        if is_about(error, PUBLISH):
            self._known.pop(subject, None)
            count, _ = self._denied.pop(subject, (0, error))
            _remember(self._denied, subject, (count + 1, error))


def _remember(among: dict[str, T], subject: str, what: T) -> None:
    among[subject] = what
    if len(among) > _MOST:
        del among[next(iter(among))]
