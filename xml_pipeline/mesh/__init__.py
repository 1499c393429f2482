"""The mesh: agents that discover and call each other over NATS, from any process.

::

    from xml_pipeline.mesh import AgentMesh, AgentSpec

What its parts are, from the wire up; a line may use those above it:

==================================  ===================================================================================
``payload headers subjects``        values and bytes; the names on the wire
``seconds``                         time limits
``errors protocol``                 every failure, every message: read and written, without input or output
``url pointer credentials``         URLs as they may be shown; the files that tell where the mesh is, and who we are
``options place``                   how to connect; where, for who was not told
``refusals``                        what it means when the server does not take us, or not what we do
``setbacks``                        what the log says of it
``commands arrivals``               what goes over a connection, as bytes
``message connection link``         the connection: one of them, and the lasting link made of many
``deadlines``                       one timer for many of them
``replies jetstream``               asking and being answered; what the server stores
``kv_entry bucket``                 keys and values
``once``                            names that are taken once
``delivered bucket_watch``          following them
``kv_value kv_write kv_watch``      what stands under a key, writing it surely, following it at one's own pace
``kv_cursor``                       following with a place that the server remembers
``subject_patterns``                what patterns of subjects fit
``stream_content``                  under which subjects a stream keeps messages
``durable_stream durable_consumer`` what a durable subject needs on the server
``durable``                         its messages, until they are handled
``spec mesh_message shapes``        what an agent is: said by its author, and by its signature
``sources conditions``              what calls it beside those who ask, and when it serves
``strict_schema tools card``        a contract in the words of models' tools and of A2A
``contract agent``                  what others are told; all of it
``preflight slots job usage tally`` serving: who may ask how, how many at once, one request, what it has cost; figures
``log_levels log_events agent_log`` what is said about an agent, and how much of it
``journal``                         that of all agents of a host
``credit outflow``                  one stream, and how far its producer may be ahead
``feeds watches``                   loops that end before the agent that is in them, or the host does
``subject_feed source_input``       what comes on a subject, what a handler gets of it or of a change
``source_runner reactions``         one source, all of them
``answers``                         what is sent to those who asked
``service emitter``                 an agent that is asked, one that is not
``micro_document micro``            agents as NATS micro services
``host gates``                      all agents; those that are not always on
``catalog registry instances``      what everybody knows
``deaths burial leases``            who is gone, what is done about it, and how it is noticed on any server
``membership roster``               becoming known, staying known, leaving
``directory typed inbound inflow``  using: what is known of an agent, what came from it
``gap event_feed catalog_feed``     what comes on a subject, and what was missed; what changes in the catalog
``permits``                         hearing that a message was refused that nobody answers
``client listening sending``        calls and streams, subscriptions, requests nobody waits for
``observe``                         listening to what is said about agents, and setting how much it is
``fetching``                        reading what a stream holds
``kv_cas kv``                       keys and values for everybody
``object_store workspace``          files for everybody
``parts mesh``                      all of it together
``server monitor local running``    a server of one's own, and who looks after its dead; running as a program
==================================  ===================================================================================
"""

from __future__ import annotations

from xml_pipeline.mesh.catalog import CatalogChange
from xml_pipeline.mesh.catalog_entry import CatalogEntry
from xml_pipeline.mesh.conditions import Condition, KVCondition, SubjectCondition
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
    Unconfirmed,
)
from xml_pipeline.mesh.gap import Gap
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.log_events import LogEvent
from xml_pipeline.mesh.log_levels import ObserveConfig
from xml_pipeline.mesh.mesh import AgentMesh
from xml_pipeline.mesh.mesh_message import MeshMessage
from xml_pipeline.mesh.monitor import Monitor
from xml_pipeline.mesh.server import EmbeddedServer
from xml_pipeline.mesh.sources import KVSource, SubjectSource
from xml_pipeline.mesh.spec import AgentSpec
from xml_pipeline.mesh.usage import Usage, collect_usage, report_usage

__all__ = [
    "AgentContract",
    "AgentDied",
    "AgentMesh",
    "AgentSpec",
    "CallCancelled",
    "CatalogChange",
    "CatalogEntry",
    "ChunkSequenceError",
    "Condition",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConnectionLost",
    "DeathNotice",
    "EmbeddedServer",
    "Gap",
    "HandlerError",
    "InvalidInput",
    "InvalidReply",
    "InvocationMismatch",
    "KVCondition",
    "KVConflict",
    "KVEntry",
    "KVInvalidKey",
    "KVKeyExists",
    "KVKeyNotFound",
    "KVSource",
    "LogEvent",
    "MeshError",
    "MeshMessage",
    "MeshTimeout",
    "Monitor",
    "NotAvailable",
    "NotFound",
    "ObjectNotFound",
    "ObserveConfig",
    "Overloaded",
    "PayloadTooLarge",
    "ServerMissing",
    "StorageError",
    "SubjectCondition",
    "SubjectSource",
    "Unconfirmed",
    "Usage",
    "collect_usage",
    "report_usage",
]
