"""How to connect: where, as whom, and how patiently."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from xml_pipeline.mesh.errors import ConnectionFailed

__all__ = ["DEFAULT_URL", "ConnectionOptions", "find_credentials"]

DEFAULT_URL = "nats://localhost:4222"
_POINTER = ".oam-url"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where to connect, as whom, and how patiently.

    Args:
        url: ``nats://host:port`` or ``tls://host:port``, several separated by commas.
        name: what the server calls this connection.
        creds: path of a credentials file; empty for none.
        tls_cert: path of a client certificate; empty for none.
        tls_key: path of its key.
        tls_ca: path of the authorities to trust; empty for those of the machine.
        connect_timeout: seconds for one attempt.
        ping_interval: seconds between signs of life.
        ping_timeout: seconds to wait for one; after two missing ones the connection counts as lost.
        first_delay: seconds before the second attempt to reconnect; doubled after each.
        longest_delay: most seconds between two attempts.
        lease: seconds after which a host that serves agents says again that it is there; one that has not for three
            times that long is taken for dead. Several hosts need not agree on it.
        high_water: bytes waiting to be written beyond which a publisher waits.
    """

    url: str = DEFAULT_URL
    name: str = ""
    creds: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    connect_timeout: float = 2.0
    ping_interval: float = 5.0
    ping_timeout: float = 4.0
    first_delay: float = 0.05
    longest_delay: float = 1.0
    lease: float = 4.0
    high_water: int = 1 << 20

    @property
    def urls(self) -> list[str]:
        """The single URLs."""
        return [url.strip() for url in self.url.split(",") if url.strip()]

    @property
    def is_open(self) -> bool:
        """Whether nothing says who we are: neither credentials nor certificate, nor a user in the URL."""
        return not (self.creds or self.tls_cert or "@" in self.url)

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs, or ``None`` where nothing asks for it.

        Raises:
            ConnectionFailed: a file cannot be read, or is no certificate.
        """
        wanted = self.tls_cert or self.tls_key or self.tls_ca or self.url.startswith("tls://")
        if not wanted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                context.load_cert_chain(self.tls_cert, self.tls_key or None)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.tls_ca, self.tls_cert, self.tls_key) if name)
            raise ConnectionFailed(f"The files for TLS cannot be used ({files}): {error}") from error
        return context

    def credentials_file(self) -> Path | None:
        """The credentials file, if there is to be one.

        Raises:
            ConnectionFailed: it does not exist.
        """
        if not self.creds:
            return None
        path = Path(self.creds).expanduser()
        if not path.is_file():
            raise ConnectionFailed(f"The credentials file {path} does not exist.")
        return path


def find_credentials() -> str:
    """The credentials that the surroundings name: ``OAM_CREDS``, else the nearest ``.oam-url``; or nothing.

    A ``.oam-url`` that has only a URL names none. A relative path in it is relative to the file.
    """
    named = os.environ.get("OAM_CREDS", "")
    if named:
        return named
    for folder in (Path.cwd(), *Path.cwd().parents):
        pointer = folder / _POINTER
        if pointer.is_file():
            return _credentials_in(pointer)
    return ""


def _credentials_in(pointer: Path) -> str:
    import tomllib

    try:
        named = tomllib.loads(pointer.read_text(encoding="utf-8")).get("creds", "")
    except (OSError, ValueError):  # the older form: a URL, which is no TOML
        return ""
    return str(pointer.parent / named) if isinstance(named, str) and named else ""
