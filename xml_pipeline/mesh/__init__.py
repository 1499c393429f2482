"""The mesh: agents that discover and call each other over NATS, from any process.

::

    from xml_pipeline.mesh import AgentMesh, AgentSpec

What its parts are, from the wire up; a line may use those above it:

==================================  ===================================================================================
``payload headers subjects``        values and bytes; the names on the wire
``errors protocol``                 every failure, every message: read and written, without input or output
``message options connection link`` the connection: one of them, and the lasting link made of many
``replies jetstream``               asking and being answered; what the server stores
``kv_entry bucket bucket_watch``    keys and values, and following them
``spec shapes contract agent``      what an agent is: said by its author, by its signature, and told to others
``preflight slots job``             serving: who may ask how, how many at once, one request
``credit outflow``                  one stream, and how far its producer may be ahead
``service emitter host``            an agent that is asked, one that is not, all of them
``catalog registry instances``      what everybody knows
``deaths burial leases``            who is gone, what is done about it, and how it is noticed on any server
``membership roster``               becoming known, staying known, leaving
``directory typed inbound inflow``  using: what is known of an agent, what came from it
``client listening sending``        calls and streams, subscriptions, requests nobody waits for
``delivered fetching``              reading what a stream holds
``watches kv_watch kv_cursor``      loops over changes: with a pace of their own; with a place that the server remembers
``kv_value kv_write kv_cas kv``     keys and values for everybody
``object_store workspace``          files for everybody
``parts mesh``                      all of it together
``server monitor local running``    a server of one's own, and who looks after its dead; running as a program
==================================  ===================================================================================
"""

from __future__ import annotations

from xml_pipeline.mesh.catalog import CatalogChange
from xml_pipeline.mesh.catalog_entry import CatalogEntry
from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.deaths import DeathNotice
from xml_pipeline.mesh.errors import (
    AgentDied,
    CallCancelled,
    ChunkSequenceError,
    ConnectionDenied,
    ConnectionFailed,
    ConnectionLost,
    HandlerError,
    InvalidInput,
    InvalidReply,
    InvocationMismatch,
    KVConflict,
    KVInvalidKey,
    KVKeyExists,
    KVKeyNotFound,
    MeshError,
    MeshTimeout,
    NotAvailable,
    NotFound,
    ObjectNotFound,
    Overloaded,
    PayloadTooLarge,
    ServerMissing,
    StorageError,
)
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.mesh import AgentMesh
from xml_pipeline.mesh.monitor import Monitor
from xml_pipeline.mesh.server import EmbeddedServer
from xml_pipeline.mesh.spec import AgentSpec

__all__ = [
    "AgentContract",
    "AgentDied",
    "AgentMesh",
    "AgentSpec",
    "CallCancelled",
    "CatalogChange",
    "CatalogEntry",
    "ChunkSequenceError",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConnectionLost",
    "DeathNotice",
    "EmbeddedServer",
    "HandlerError",
    "InvalidInput",
    "InvalidReply",
    "InvocationMismatch",
    "KVConflict",
    "KVEntry",
    "KVInvalidKey",
    "KVKeyExists",
    "KVKeyNotFound",
    "MeshError",
    "MeshTimeout",
    "Monitor",
    "NotAvailable",
    "NotFound",
    "ObjectNotFound",
    "Overloaded",
    "PayloadTooLarge",
    "ServerMissing",
    "StorageError",
]
