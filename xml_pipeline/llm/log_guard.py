"""Keeps a key out of what the HTTP library logs.

The library never logs what is sent, but it does log what comes back: at level INFO the reason phrase of an answer, at
DEBUG all its headers. A server, or a proxy before it, that repeats the key there would put it into the log.
"""

from __future__ import annotations

import logging
from typing import Final

from xml_pipeline.llm.secret import Secret

__all__ = ["LogGuard"]

_LOGGERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


class LogGuard(logging.Filter):
    """Masks a key in the HTTP library's records, while it is installed.

    Args:
        secret: the key.
    """

    def __init__(self, secret: Secret) -> None:
        super().__init__()
        self._secret = secret

    def install(self) -> None:
        """Begin; once is enough, and twice does no harm."""
        if self._secret:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Cease."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, masked."""
        text = record.getMessage()
        masked = self._secret.scrub(text)
        if masked != text:
            record.msg, record.args = masked, None
        return True
