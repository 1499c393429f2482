"""How to connect: where, as whom, and how patiently."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xml_pipeline.mesh.credentials import read_credentials
from xml_pipeline.mesh.errors import ConnectionFailed
from xml_pipeline.mesh.pointer import check_url, nearest_pointer
from xml_pipeline.mesh.url import check_port, without_password

if TYPE_CHECKING:
    from xml_pipeline.mesh.credentials import Credentials

__all__ = ["DEFAULT_URL", "ConnectionOptions", "find_credentials"]

DEFAULT_URL = "nats://localhost:4222"


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Where to connect, as whom, and how patiently.

    Args:
        url: ``nats://host:port`` or ``tls://host:port``, several separated by commas.
        name: what the server calls this connection.
        creds: path of a credentials file; empty for none.
        ambient: whether the surroundings may name one where none is given; see `find_credentials`.
        tls_cert: path of a client certificate; empty for none.
        tls_key: path of its key.
        tls_ca: path of the authorities to trust; empty for those of the machine.
        connect_timeout: seconds for one attempt to connect to one server.
        ping_interval: seconds between signs of life.
        ping_timeout: seconds to wait for one; after two missing ones the connection counts as lost.
        first_delay: seconds before the second attempt to reconnect; doubled after each.
        longest_delay: most seconds between two attempts.
        lease: seconds after which a host that serves agents says again that it is there; one that has not for three
            times that long is taken for dead. Several hosts need not agree on it.
        high_water: bytes waiting to be written beyond which a publisher waits.
    """

    url: str = field(default=DEFAULT_URL, repr=False)  # it may have a password in it
    name: str = ""
    creds: str = ""
    ambient: bool = False
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
        """The single URLs.

        Raises:
            ConnectionFailed: one of them is none.
        """
        try:
            check_url(self.url)
            urls = [url.strip() for url in self.url.split(",") if url.strip()]
            for url in urls:
                check_port(url)
        except ValueError as error:
            raise ConnectionFailed(str(error)) from None
        return urls

    @property
    def place(self) -> str:
        """The URL as it may be shown."""
        return without_password(self.url)

    @property
    def credentials_path(self) -> str:
        """Where the credentials are; empty for none.

        Raises:
            ConnectionFailed: the nearest ``.oam-url`` is to say so, and cannot be read.
        """
        return self.creds or (find_credentials() if self.ambient else "")

    @property
    def is_open(self) -> bool:
        """Whether nothing says who we are: neither credentials nor certificate, nor a user in the URL."""
        return not (self.credentials_path or self.tls_cert or "@" in self.url)

    @property
    def must_encrypt(self) -> bool:
        """Whether TLS is asked for, so that nothing may be said without it."""
        return bool(self.tls_cert or self.tls_key or self.tls_ca) or any(
            part.strip().lower().startswith(("tls://", "wss://")) for part in self.url.split(",")
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """What TLS needs, or ``None`` where nothing asks for it.

        Raises:
            ConnectionFailed: a file cannot be read, or is no certificate.
        """
        if not self.must_encrypt:
            return None
        if self.tls_key and not self.tls_cert:
            raise ConnectionFailed(f"The key {self.tls_key} is of no use without its certificate: give tls_cert, too.")
        try:
            context = ssl.create_default_context(cafile=self.tls_ca or None)
            if self.tls_cert:
                # Else it would ask for one at the terminal, and wait.
                context.load_cert_chain(self.tls_cert, self.tls_key or None, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(name for name in (self.tls_ca, self.tls_cert, self.tls_key) if name)
            raise ConnectionFailed(f"The files for TLS cannot be used ({files}): {error}") from error
        return context

    def credentials(self) -> Credentials | None:
        """What says who we are, if a file does.

        Raises:
            ConnectionFailed: it does not exist, or is no credentials file.
        """
        path = self.credentials_path
        return read_credentials(Path(path).expanduser()) if path else None


def _no_password() -> str:
    raise OSError("the key is encrypted, which is not supported")


def find_credentials() -> str:
    """The credentials that the surroundings name: ``OAM_CREDS``, else the nearest ``.oam-url``; or nothing.

    A ``.oam-url`` that has only a URL names none.

    Raises:
        ConnectionFailed: the nearest ``.oam-url`` cannot be read, so that it is not known what it names.
    """
    named = os.environ.get("OAM_CREDS", "")
    if named:
        return named
    pointer = nearest_pointer()
    return pointer.creds if pointer is not None else ""
