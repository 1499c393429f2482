"""Where the mesh is, for whoever was not told: the environment, and the nearest ``.oam-url``.

The first that says something decides; an empty text says nothing:

=========== ============= ============= ===================== =========================
What        given         environment   file                  else
=========== ============= ============= ===================== =========================
URL         ``--url``     ``OAM_URL``   ``.oam-url``          ``nats://localhost:4222``
credentials ``--creds``   ``OAM_CREDS`` ``creds`` in the same none
=========== ============= ============= ===================== =========================
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from xml_pipeline.mesh.options import DEFAULT_URL, find_credentials
from xml_pipeline.mesh.pointer import check_url, nearest_pointer

__all__ = ["Place", "find_place"]

_URL = "OAM_URL"


@dataclass(frozen=True, slots=True)
class Place:
    """Where to connect, and as whom.

    Args:
        url: of the server; several separated by commas.
        creds: path of a credentials file; empty for none.
        source: who said so, for errors; empty where the caller did.
    """

    url: str
    creds: str = ""
    source: str = ""


def find_place(url: str = "", creds: str = "") -> Place:
    """Where the mesh is.

    Args:
        url: what the caller was told; empty for nothing.
        creds: the same, of credentials.

    Raises:
        ValueError: what was given, or stands in the environment, is no URL.
        ConnectionFailed: the nearest ``.oam-url`` is needed, and makes no sense.
    """
    told, source = (url, "") if url else (os.environ.get(_URL, "").strip(), _URL)
    if told:
        try:
            check_url(told)
        except ValueError as error:
            raise ValueError(f"{source}: {error}" if source else str(error)) from error
        return Place(told, creds or find_credentials(), source)
    pointer = nearest_pointer()
    creds = creds or find_credentials()
    if pointer is None or not pointer.url:
        return Place(DEFAULT_URL, creds, "the default")
    return Place(pointer.url, creds, str(pointer.path))
