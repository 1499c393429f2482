"""What a nats-server that we start is told: the text of its configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

__all__ = ["MESH_USER", "SYSTEM_USER", "ServerConfig"]

MESH_USER = "oam-app"
SYSTEM_USER = "oam-sys"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server of the mesh: everybody who reaches it is a member, and a system account sees who leaves.

    Args:
        store: directory of JetStream's files.
        password: of the system account's user, and of the mesh account's, which nobody needs to give.
        host: the address it listens on.
        port: ``-1`` for any that is free.
        sync_always: write every change to the disk before it is acknowledged, so that a power failure loses none.
    """

    store: str
    password: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = -1
    sync_always: bool = False

    def text(self) -> str:
        """The file. Strings are quoted as in JSON, which this format reads."""
        quoted = {name: json.dumps(value) for name, value in (("store", self.store), ("password", self.password))}
        return f"""\
host: {json.dumps(self.host)}
port: {self.port}
ping_interval: "10s"
ping_max: 2
write_deadline: "10s"
jetstream {{
  store_dir: {quoted["store"]}
  sync_interval: {"always" if self.sync_always else '"2m"'}
}}
accounts {{
  APP: {{ jetstream: enabled, users: [{{user: {MESH_USER}, password: {quoted["password"]}}}] }}
  SYS: {{ users: [{{user: {SYSTEM_USER}, password: {quoted["password"]}}}] }}
}}
no_auth_user: {MESH_USER}
system_account: SYS
"""
