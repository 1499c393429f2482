"""URLs of servers as they may be shown: without what nobody else is to know."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["check_port", "is_loopback", "without_password"]

# Up to the last `@` before a comma or a space: a password may itself have a slash or an `@` in it.
_WHO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)?[^,\s]*@")
_HOST = re.compile(r"(?:[^:/]+://)?(?:[^,]*@)?(?P<host>\[[^\]]*\]|[^:/,]*)")


def without_password(url: str) -> str:
    """The URL as it may stand in a log or an error: user, password and token are left out.

    Args:
        url: one, or several separated by commas; also a text that is no URL.
    """
    return _WHO.sub(lambda found: f"{found['scheme'] or ''}***@", url)


def check_port(url: str) -> None:
    """Refuse a URL whose port is none, or whose user and password hide where its host begins.

    Raises:
        ValueError: the text says why.
    """
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.hostname and (parts.port is None or parts.port > 0):
            return
    except ValueError:
        pass  # its text may have a part of a password in it
    raise ValueError(f"{without_password(url)!r} is not the URL of a mesh: host and port as in nats://localhost:4222")


def is_loopback(url: str) -> bool:
    """Whether every server named is on this machine, and reached without a network."""
    hosts = [found["host"].strip("[]").lower() for part in url.split(",") if (found := _HOST.match(part.strip()))]
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)
