"""The ``mesh`` section of an organism file, and what is wrong with it, each thing with its place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from xml_pipeline.config import InvalidConfiguration, OrganismConfig
from xml_pipeline.config.mesh import (
    ExposeConfig,
    KVConfig,
    MeshAgentConfig,
    MeshConfig,
    SubjectConfig,
    agent_name_fault,
    fields_in,
    pattern_matches,
)
from xml_pipeline.config.mesh_rules import MeshNames, _may_fit

from .conftest import Organism

LISTENERS = """organism: {name: test}
listeners:
- {name: greeter, AND}
- {name: other, AND}
- {name: group.one, broadcast: true, AND}
- {name: "free name", AND}
peer_tables:
- {name: narrow, entries: []}
mesh:
""".replace("AND", "payload_class: handlers.Greeting, handler: handlers.greet, description: d")
"""What follows begins in line 10, column 3."""

SHORT = {
    "CLASS": "payload_class: handlers.Greeting",
    "OUTPUT": "output_class: handlers.Answer",
    "KEY": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "SEGMENTS": "is not made of segments of letters, digits, '_' and '-'",
    "ADDRESSES": "must be 'local', or addresses like nats://host:4222 or tls://host:4222, separated by commas",
    "FOR AGENTS": "names that begin with 'mesh:' are reserved for mesh agents",
    "FROM S": "to: greeter, payload_class: handlers.Greeting, stream: s",
    "BOTH": "each needs one of its own",
    "NEEDS AS": "needs 'as', the name that it has on the mesh:",
}

WRONG = """
url: localhost:4222
    10:8 mesh.url: ADDRESSES
url: nats://
    10:8 mesh.url: ADDRESSES
url: nats://a b
    10:8 mesh.url: ADDRESSES
url: nats://a:99999
    10:8 mesh.url: ADDRESSES
url: nats://a, nats://b:x
    10:8 mesh.url: ADDRESSES
url: nats://a:4222, http://b
    10:8 mesh.url: ADDRESSES
url: 5
    10:8 mesh.url: must be text, not 5
creds: 5
    10:10 mesh.creds: must be text, not 5
creds: gone.creds
    10:10 mesh.creds: there is no file 'gone.creds'; paths begin at the directory of this file
tls_ca: .
    10:11 mesh.tls_ca: there is no file '.'; paths begin at the directory of this file
tls_key: me.creds
    10:12 mesh.tls_key: needs 'tls_cert', the certificate that it is the key of
urls: local
    10:3 mesh.urls: unknown key, did you mean 'url'?
expose: 5
    10:11 mesh.expose: must be a list, not 5
events: 1
    10:11 mesh.events: must be true or false, not 1
signatures: maybe
    10:15 mesh.signatures: must be 'require', 'accept' or 'ignore', not the text 'maybe'
extra: 1
    10:3 mesh.extra: unknown key
expose: [{}]
    10:12 mesh.expose[0].listener: is missing: the listener's name
expose: [{listener: nobody}]
    10:23 mesh.expose[0].listener: no listener is called 'nobody'
expose: [{listener: greter}]
    10:23 mesh.expose[0].listener: no listener is called 'greter', did you mean 'greeter'?
expose: [{listener: group}]
    10:23 mesh.expose[0].listener: 'group' is a broadcast group; list its members
expose: [{listener: greeter, as: 'a b'}]
    10:36 mesh.expose[0].as: 'a b' SEGMENTS, joined by dots
expose: [{listener: greeter, as: 'a.*'}]
    10:36 mesh.expose[0].as: 'a.*' SEGMENTS, joined by dots
expose: [{listener: greeter, as: 'a..b'}]
    10:36 mesh.expose[0].as: 'a..b' SEGMENTS, joined by dots
expose: [{listener: free name}]
    10:23 mesh.expose[0].listener: NEEDS AS 'test.free name' SEGMENTS, joined by dots
expose: [{listener: greeter}, {listener: greeter}]
    10:44 mesh.expose[1].listener: the name 'test.greeter' is that of expose[0] too
expose: [{listener: greeter, as: x}, {listener: other, as: x}]
    10:62 mesh.expose[1].as: the name 'x' is that of expose[0] too
expose: [{listener: greeter, timeout: 0}]
    10:41 mesh.expose[0].timeout: must be greater than 0, not 0
expose: [{listener: greeter, timeout: -1}]
    10:41 mesh.expose[0].timeout: must be greater than 0, not -1
expose: [{listener: greeter, max_concurrency: 0}]
    10:49 mesh.expose[0].max_concurrency: must be at least 1, not 0
expose: [{listener: greeter, max_queue: x}]
    10:43 mesh.expose[0].max_queue: must be a whole number, not the text 'x'
expose: [{listener: greeter, peer_table: narow}]
    10:44 mesh.expose[0].peer_table: no peer table is called 'narow', did you mean 'narrow'?
expose: [{listener: greeter, tags: [5]}]
    10:39 mesh.expose[0].tags[0]: must be text, not 5
expose: [{listener: greeter, name: x}]
    10:32 mesh.expose[0].name: unknown key, did you mean 'as'?
expose: [{listener: greeter, as: x, name: y}]
    10:39 mesh.expose[0].name: unknown key
expose: [{listener: greeter, name: x, tagz: []}, 5, {listener: greeter, name: x}]
    10:32 mesh.expose[0].name: unknown key, did you mean 'as'?
    10:41 mesh.expose[0].tagz: unknown key, did you mean 'tags'?
    10:52 mesh.expose[1]: must be a mapping of keys to values, not 5
    10:75 mesh.expose[2].name: unknown key, did you mean 'as'?
agents: [{name: a, local_name: b}]
    10:22 mesh.agents[0].local_name: unknown key, did you mean 'as'?
expose: [{listener: greeter, tagz: []}]
    10:32 mesh.expose[0].tagz: unknown key, did you mean 'tags'?
agents: [{}]
    10:12 mesh.agents[0]: needs exactly one of 'name', 'pattern' and 'subscribe'
agents: [{name: a, pattern: b}]
    10:12 mesh.agents[0]: needs exactly one of 'name', 'pattern' and 'subscribe'
agents: [{name: a, subscribe: b}]
    10:12 mesh.agents[0]: needs exactly one of 'name', 'pattern' and 'subscribe'
agents: [{name: 'a b'}]
    10:19 mesh.agents[0].name: 'a b' SEGMENTS, joined by dots
agents: [{pattern: 'a.>.b'}]
    10:22 mesh.agents[0].pattern: 'a.>.b' SEGMENTS, '*', '>', joined by dots
agents: [{pattern: 'a*'}]
    10:22 mesh.agents[0].pattern: 'a*' SEGMENTS, '*', '>', joined by dots
agents: [{name: a, to: greeter}]
    10:26 mesh.agents[0].to: is only for 'subscribe'
agents: [{subscribe: a}]
    10:12 mesh.agents[0]: 'subscribe' needs 'to' and 'payload_class'
agents: [{subscribe: a, to: greeter}]
    10:12 mesh.agents[0]: 'subscribe' needs 'to' and 'payload_class'
agents: [{subscribe: a, to: greter, CLASS}]
    10:31 mesh.agents[0].to: no listener is called 'greter', did you mean 'greeter'?
agents: [{subscribe: a, to: greeter, payload_class: handlers.Answer}]
    10:55 mesh.agents[0].payload_class: is not a class that the listener 'greeter' takes
agents: [{pattern: 'a.*', as: b}]
    10:33 mesh.agents[0].as: is not for a 'pattern'
agents: [{pattern: 'a.*', CLASS, output_class: handlers.Answer, description: x}]
    10:44 mesh.agents[0].payload_class: is not for a 'pattern'
    10:77 mesh.agents[0].output_class: is not for a 'pattern'
    10:107 mesh.agents[0].description: is not for a 'pattern'
agents: [{name: a, payload_class: 5}]
    10:37 mesh.agents[0].payload_class: must be an import path
agents: [{name: a, payload_class: handlers.Gone}]
    10:37 mesh.agents[0].payload_class: module 'handlers' has no attribute 'Gone'
agents: [{name: a, payload_class: handlers.NotAPayload}]
    10:37 mesh.agents[0].payload_class: NotAPayload is not a dataclass or pydantic model
agents: [{name: a, payload_class: 'no path'}]
    10:37 mesh.agents[0].payload_class: an import path consists of dotted Python identifiers: 'no path'
agents: [{name: a, output_class: handlers.number}]
    10:36 mesh.agents[0].output_class: a payload class must be a class, not a value of type int
agents: [{name: greeter}]
    10:19 mesh.agents[0].name: the name 'greeter' is taken by listeners[0]
agents: [{name: Greeter, as: other}]
    10:32 mesh.agents[0].as: the name 'other' is taken by listeners[1]
agents: [{name: a, as: GROUP}]
    10:26 mesh.agents[0].as: the name 'GROUP' is taken by a broadcast group
agents: [{name: a}, {name: b, as: A}]
    10:37 mesh.agents[1].as: the name 'A' is taken by mesh.agents[0]
agents: [{name: a, as: system.x}]
    10:26 mesh.agents[0].as: the name 'system' and names that begin with 'system.' are reserved: 'system.x'
agents: [{name: a, as: external}]
    10:26 mesh.agents[0].as: the name 'external' is reserved for senders outside the organism
agents: [{name: a, as: 'mesh:x'}]
    10:26 mesh.agents[0].as: FOR AGENTS: 'mesh:x'
agents: [{name: a, timeout: x}]
    10:31 mesh.agents[0].timeout: must be a number, not the text 'x'
agents: [{name: a, idempotent: 1}]
    10:34 mesh.agents[0].idempotent: must be true or false, not 1
agents: [{name: a, as: ' b'}]
    10:26 mesh.agents[0].as: a name must not begin or end with white space: ' b'
kv: [{}]
    10:8 mesh.kv[0]: needs either 'watch' or 'put'
kv: [{watch: a, put: b}]
    10:8 mesh.kv[0]: needs either 'watch' or 'put'
kv: [{watch: a}]
    10:8 mesh.kv[0]: 'watch' needs 'to'
    10:8 mesh.kv[0].payload_class: is missing
kv: [{put: a}]
    10:8 mesh.kv[0]: 'put' needs 'listener'
    10:8 mesh.kv[0].payload_class: is missing
kv: [{watch: a, to: greeter}]
    10:8 mesh.kv[0].payload_class: is missing
kv: [{watch: a, to: greeter, listener: x, CLASS}]
    10:42 mesh.kv[0].listener: is only for 'put'
kv: [{put: a, listener: x, to: greeter, CLASS}]
    10:34 mesh.kv[0].to: is only for 'watch'
kv: [{put: 'a.*', listener: x, CLASS}]
    10:14 mesh.kv[0].put: 'a.*' SEGMENTS, '{field}', joined by dots
kv: [{put: 'a.{b c}', listener: x, CLASS}]
    10:14 mesh.kv[0].put: 'a.{b c}' SEGMENTS, '{field}', joined by dots
kv: [{put: 'a.{name}.{name}', listener: x, CLASS}]
    10:14 mesh.kv[0].put: 'a.{name}.{name}' has the field 'name' twice
kv: [{watch: 'a.{name}.{name}', to: greeter, CLASS}]
    10:16 mesh.kv[0].watch: 'a.{name}.{name}' has the field 'name' twice
kv: [{watch: 'a.>.b', to: greeter, CLASS}]
    10:16 mesh.kv[0].watch: 'a.>.b' SEGMENTS, '*', '>', '{field}', joined by dots
kv: [{watch: a, to: greeter, payload_class: handlers.Answer}]
    10:47 mesh.kv[0].payload_class: is not a class that the listener 'greeter' takes
kv: [{watch: a, to: nobody, CLASS}]
    10:23 mesh.kv[0].to: no listener is called 'nobody'
kv: [{put: a, listener: greeter, CLASS}]
    10:27 mesh.kv[0].listener: the name 'greeter' is taken by listeners[0]
kv: [{put: a, listener: x, CLASS},{put: b, listener: X, CLASS}]
    10:83 mesh.kv[1].listener: the name 'X' is taken by mesh.kv[0]
kv: [{watch: a, to: greeter, CLASS, resume: r},{watch: b, to: greeter, CLASS, resume: r}]
    10:143 mesh.kv[1].resume: 'r' is that of kv[0] too; each needs one of its own
kv: [{watch: a, to: greeter, CLASS, resume: 'r s'}]
    10:74 mesh.kv[0].resume: 'r s' SEGMENTS, joined by dots
kv: [{watch: a, to: greeter, CLASS, echo: maybe}]
    10:72 mesh.kv[0].echo: must be true or false, not the text 'maybe'
kv: [{put: 'a.{nobody}', listener: x, CLASS}]
    10:14 mesh.kv[0].put: Greeting has no field 'nobody'
kv: [{put: a, listener: x, CLASS, resume: r, echo: true}]
    10:72 mesh.kv[0].resume: is only for 'watch'
    10:81 mesh.kv[0].echo: is only for 'watch'
kv: [{watch: a, to: greeter, CLASS, description: x}]
    10:79 mesh.kv[0].description: is only for 'put'
kv: [{watch: a, to: greeter, CLASS, timeout: 5}]
    10:75 mesh.kv[0].timeout: is only for 'put'
kv: [{put: a, listener: x, CLASS, timeout: 0}]
    10:73 mesh.kv[0].timeout: must be greater than 0, not 0
subjects: [{subscribe: a, to: greeter, CLASS, durable: d, timeout: 5}]
    10:97 mesh.subjects[0].timeout: is only for 'publish'
subjects: [{publish: a, listener: x, CLASS, timeout: x}]
    10:83 mesh.subjects[0].timeout: must be a number, not the text 'x'
subjects: [{}]
    10:14 mesh.subjects[0]: needs either 'subscribe' or 'publish'
subjects: [{subscribe: a, publish: b}]
    10:14 mesh.subjects[0]: needs either 'subscribe' or 'publish'
subjects: [{subscribe: a, to: greeter, CLASS, queue: q, durable: d}]
    10:14 mesh.subjects[0]: has both 'queue' and 'durable'; nodes that share a 'durable' share the work anyway
subjects: [{subscribe: a, to: greeter, CLASS, durable: d, dead_letters: 'x.{name}'}]
    10:102 mesh.subjects[0].dead_letters: 'x.{name}' SEGMENTS, joined by dots
subjects: [{subscribe: a, to: greeter, CLASS, durable: d},{subscribe: b, to: greeter, CLASS, durable: d}]
    10:159 mesh.subjects[1].durable: 'd' is that of subjects[0] too; each needs one of its own
subjects: [{subscribe: a, to: greeter, CLASS, durable: d.e},{subscribe: b, to: greeter, CLASS, durable: d_e}]
    10:161 mesh.subjects[1].durable: 'd_e', and 'd.e' of subjects[0], are both 'd_e' on the server; BOTH
subjects: [{subscribe: a, to: greeter, CLASS, durable: d.e, stream: s},{subscribe: b, to: greeter, CLASS, durable: d_e}]
    10:172 mesh.subjects[1].durable: 'd_e', and 'd.e' of subjects[0], are both 'd_e' on the server; BOTH
subjects: [{subscribe: a, FROM S, durable: d_e},{subscribe: b, FROM S, durable: d.e}]
    10:183 mesh.subjects[1].durable: 'd.e', and 'd_e' of subjects[0], are both 'd_e' on the server; BOTH
subjects: [{subscribe: a, to: greeter, CLASS, durable: d, max_deliver: 0, max_in_flight: -1, ack_wait: 0}]
    10:101 mesh.subjects[0].max_deliver: must be at least 1, not 0
    10:119 mesh.subjects[0].max_in_flight: must be at least 1, not -1
    10:133 mesh.subjects[0].ack_wait: must be greater than 0, not 0
subjects: [{subscribe: a, to: greeter, CLASS, stream: s, max_deliver: 3}]
    10:84 mesh.subjects[0].stream: is only for 'durable'
    10:100 mesh.subjects[0].max_deliver: is only for 'durable'
subjects: [{publish: a, listener: x, CLASS, queue: q}]
    10:81 mesh.subjects[0].queue: is only for 'subscribe'
subjects: [{publish: a, listener: x, CLASS, echo: true}]
    10:80 mesh.subjects[0].echo: is only for 'subscribe'
subjects: [{subscribe: a, to: greeter, CLASS, echo: maybe}]
    10:82 mesh.subjects[0].echo: must be true or false, not the text 'maybe'
subjects: [{publish: 'a.>', listener: x, CLASS}]
    10:24 mesh.subjects[0].publish: 'a.>' SEGMENTS, '{field}', joined by dots
subjects: [{subscribe: 'a. b', to: greeter, CLASS}]
    10:26 mesh.subjects[0].subscribe: 'a. b' SEGMENTS, '*', '>', '{field}', joined by dots
subjects: [{publish: a, listener: x}]
    10:14 mesh.subjects[0].payload_class: is missing
trust: [{}]
    10:11 mesh.trust[0].key: is missing
    10:11 mesh.trust[0].organism: is missing: an organism has at least a name
trust: [{key: abc, organism: x}]
    10:17 mesh.trust[0].key: a public key is the base64 of 32 bytes, 44 characters, or PEM
trust: [{key: KEY, organism: x},{key: KEY, organism: y}]
    10:82 mesh.trust[1].key: is the same as that of trust[0]
trust: [{key: KEY, organism: 'a*'}]
    10:73 mesh.trust[0].organism: an organism's name has no '*'
trust: [{key: KEY, organism: x, policy: no}]
    10:84 mesh.trust[0].policy: must be 'require', 'accept' or 'ignore', not the text 'no'
agents: [{name: 5}]
    10:19 mesh.agents[0].name: must be text, not 5
agents: [{name: a, as: 5}]
    10:26 mesh.agents[0].as: must be text, not 5
agents: [{subscribe: a, to: greeter, CLASS, as: b, OUTPUT, timeout: 5, idempotent: true, description: x}]
    10:78 mesh.agents[0].as: is not for 'subscribe'
    10:95 mesh.agents[0].output_class: is not for 'subscribe'
    10:121 mesh.agents[0].timeout: is not for 'subscribe'
    10:136 mesh.agents[0].idempotent: is not for 'subscribe'
    10:155 mesh.agents[0].description: is not for 'subscribe'
kv: 5
    10:7 mesh.kv: must be a list, not 5
kv: [5]
    10:8 mesh.kv[0]: must be a mapping of keys to values, not 5
agents: [{name: a, timeout: 0}]
    10:31 mesh.agents[0].timeout: must be greater than 0, not 0
url: ''
    10:8 mesh.url: ADDRESSES
trust: [{key: KEY, organism: ' '}]
    10:73 mesh.trust[0].organism: a name must not be empty
subjects: [{subscribe: 'a.{nobody}', to: greeter, CLASS}]
    10:26 mesh.subjects[0].subscribe: Greeting has no field 'nobody'
subjects: [{subscribe: a, to: greeter, CLASS, publis: b}]
    10:76 mesh.subjects[0].publis: unknown key, did you mean 'publish'?
expose: [{listener: 5}]
    10:23 mesh.expose[0].listener: must be text, not 5
expose: [{listener: greeter, description: 5}]
    10:45 mesh.expose[0].description: must be text, not 5
subjects: [{publish: a, listener: greeter, CLASS}, {subscribe: b, to: gone, CLASS}]
    10:37 mesh.subjects[0].listener: the name 'greeter' is taken by listeners[0]
    10:100 mesh.subjects[1].to: no listener is called 'gone', did you mean 'group.one'?
"""
"""A line of the section, and below it what is said about it."""


def written_out(text: str) -> str:
    for short, long in SHORT.items():
        text = text.replace(short, long)
    return text


def cases() -> list[Any]:
    found: list[tuple[str, list[str]]] = []
    for line in WRONG.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].append(written_out(line.strip()))
        else:
            found.append((written_out(line), []))
    return [pytest.param(line, expected, id=line[:60]) for line, expected in found]


def problems(organism: Organism, *lines: str) -> list[str]:
    return organism.problems(LISTENERS + "".join(f"  {line}\n" for line in lines))


@pytest.mark.parametrize(("line", "expected"), cases())
def test_what_is_wrong_is_told_with_its_place(organism: Organism, line: str, expected: list[str]) -> None:
    assert expected
    assert problems(organism, line) == expected


VARIANTS: dict[str, tuple[type[BaseModel], str, str, str]] = {
    "a listener that is called": (ExposeConfig, "expose: [{listener: greeter}]", "*", ""),
    "a listener that is only shown": (
        ExposeConfig,
        "expose: [{listener: greeter, invocable: false}]",
        "as description tags version",
        "is only for what others may call",
    ),
    "an agent": (
        MeshAgentConfig,
        "agents: [{name: a}]",
        "as payload_class output_class description timeout idempotent",
        "is only for 'subscribe'",
    ),
    "agents by a pattern": (
        MeshAgentConfig,
        "agents: [{pattern: 'a.*'}]",
        "timeout idempotent",
        "is not for a 'pattern', to: is only for 'subscribe'",
    ),
    "a publisher": (MeshAgentConfig, "agents: [{subscribe: a, to: greeter, CLASS}]", "", "is not for 'subscribe'"),
    "a watch": (KVConfig, "kv: [{watch: a, to: greeter, CLASS}]", "resume echo", "is only for 'put'"),
    "a put": (KVConfig, "kv: [{put: a, listener: x, CLASS}]", "description timeout", "is only for 'watch'"),
    "a subscription": (
        SubjectConfig,
        "subjects: [{subscribe: a, to: greeter, CLASS}]",
        "queue durable echo max_in_flight",
        "is only for 'publish', stream max_deliver ack_wait dead_letters: is only for 'durable'",
    ),
    "a durable subscription": (
        SubjectConfig,
        "subjects: [{subscribe: a, to: greeter, CLASS, durable: d}]",
        "stream echo max_deliver max_in_flight ack_wait dead_letters queue",  # on 'queue' see below
        "is only for 'publish'",
    ),
    "a publication": (
        SubjectConfig,
        "subjects: [{publish: a, listener: x, CLASS}]",
        "description timeout",
        "is only for 'subscribe'",
    ),
}
"""Each way to use an entry: its model, what must be there, the keys that may be there, and what is said of all others,
first in general, then of some of them."""
ALTERNATIVES = {"name", "pattern", "subscribe", "publish", "watch", "put"}


def keys_of(variant: str) -> tuple[list[str], dict[str, str]]:
    """The keys that may be added to an entry, and those that may not, with what is said of each."""
    model, base, allowed, said = VARIANTS[variant]
    general, *special = said.split(", ")
    faults = {key: fault for part in special for keys, fault in [part.split(": ")] for key in keys.split()}
    keys = [field.alias or name for name, field in model.model_fields.items()]
    added = [key for key in keys if f"{key}: " not in written_out(base) and (key in allowed or key not in ALTERNATIVES)]
    if allowed == "*":
        return added, {}
    allowed_keys = allowed.split()
    return (
        [key for key in added if key in allowed_keys and not (key == "queue" and "durable" in base)],
        {key: faults.get(key, general) for key in added if key not in allowed_keys},
    )


def with_defaults(variant: str, keys: Iterable[str]) -> str:
    """The line of the variant with keys that have their defaults."""
    model, base, _, _ = VARIANTS[variant]
    defaults = {field.alias or name: field.get_default() for name, field in model.model_fields.items()}
    return written_out(base).replace("}]", "".join(f", {key}: {json.dumps(defaults[key])}" for key in keys) + "}]")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_key_that_would_not_be_heeded_is_refused_whatever_it_says(organism: Organism, variant: str) -> None:
    _, misplaced = keys_of(variant)
    line = with_defaults(variant, misplaced)
    kind = line.partition(":")[0]
    expected = {
        f"10:{line.index(f', {key}: ') + len(key) + 7} mesh.{kind}[0].{key}: {fault}"
        for key, fault in misplaced.items()
    }
    assert set(problems(organism, line)) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_key_in_its_place_may_have_its_default(organism: Organism, variant: str) -> None:
    allowed, _ = keys_of(variant)
    assert problems(organism, with_defaults(variant, allowed)) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "agents: [{name: a, pattern: ''}]",
            "12 mesh.agents[0]: needs exactly one of 'name', 'pattern' and 'subscribe'",
        ),
        ("kv: [{watch: a, put: '', to: greeter, CLASS}]", "8 mesh.kv[0]: needs either 'watch' or 'put'"),
        ("kv: [{put: ''}]", "8 mesh.kv[0]: needs either 'watch' or 'put'"),
        (
            "subjects: [{publish: a, subscribe: '', listener: x, CLASS}]",
            "14 mesh.subjects[0]: needs either 'subscribe' or 'publish'",
        ),
        (
            "subjects: [{subscribe: a, to: greeter, CLASS, durable: d, queue: ''}]",
            "14 mesh.subjects[0]: has both 'queue' and 'durable'; nodes that share a 'durable' share the work anyway",
        ),
    ],
)
def test_one_of_several_keys_stands_alone_whatever_the_other_says(organism: Organism, line: str, said: str) -> None:
    assert problems(organism, written_out(line)) == [f"10:{said}"]


def test_names_that_the_server_makes_one_are_two_on_different_streams(organism: Organism) -> None:
    names = ("d.e, stream: s", "d_e, stream: t")
    first, second = (f"{{subscribe: a, to: greeter, CLASS, durable: {name}}}" for name in names)
    assert problems(organism, written_out(f"subjects: [{first}, {second}]")) == []


def test_all_that_is_wrong_is_told_at_once(organism: Organism) -> None:
    found = problems(
        organism,
        "url: here",
        "expose:",
        "- {listener: nobody, as: 'a b'}",
        "- {listener: greeter, as: x}",
        "agents:",
        "- {}",
        "- {name: 'a b', payload_class: handlers.Gone}",
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "10:8 mesh.url",
        "12:28 mesh.expose[0].as",
        "15:5 mesh.agents[0]",
        "16:12 mesh.agents[1].name",
    ]


ALL = """url: tls://a:4222, tls://b:4222
creds: ./me.creds
tls_ca: ./ca.pem
signatures: ignore
events: true
expose:
- {listener: greeter}
- {listener: greeter, as: hello.greeter, description: d, tags: [a, b], version: "2", timeout: 5, max_concurrency: 1,
   max_queue: 2, peer_table: narrow}
- {listener: group.one, as: one}
agents:
- {name: nlp.summarizer}
- {name: nlp.other, as: second, payload_class: handlers.Greeting, output_class: handlers.Answer, timeout: 60,
   idempotent: true, description: d}
- {pattern: tools.*, timeout: 5}
- {pattern: ">"}
- {subscribe: finance.price-feed, to: greeter, payload_class: handlers.Greeting}
kv:
- {watch: "a.{name}.raw", to: greeter, payload_class: handlers.Greeting, resume: a, echo: true}
- {watch: "b.*.x.>", to: group, payload_class: handlers.Greeting}
- {watch: c, to: second, payload_class: handlers.Greeting}
- {put: "a.{name}.done", listener: kv.done, payload_class: handlers.Greeting, description: d, timeout: 5}
subjects:
- {subscribe: "prices.{name}.>", to: greeter, payload_class: handlers.Greeting, queue: q, max_in_flight: 5,
   echo: true}
- {subscribe: orders, to: greeter, payload_class: handlers.Greeting, durable: clerk, stream: s, max_deliver: 1,
   ack_wait: 1, dead_letters: dead}
- {publish: "alerts.{name}", listener: out, payload_class: handlers.Greeting, timeout: 0.5}
trust:
- {key: 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=, organism: friend, policy: accept}
"""


@pytest.fixture(autouse=True)
def files(organism: Organism) -> None:
    """Those that `ALL` names."""
    for name in ("me.creds", "ca.pem"):
        (organism.directory / name).touch()


def test_a_section_with_everything(organism: Organism) -> None:
    report = organism.report(LISTENERS + "".join(f"  {line}\n" for line in ALL.splitlines()))
    assert report.problems == ()
    assert report.config is not None and report.config.mesh is not None
    mesh = report.config.mesh
    assert (mesh.url, mesh.signatures, mesh.events) == ("tls://a:4222, tls://b:4222", "ignore", True)
    assert (mesh.creds, mesh.tls_ca) == (str(organism.directory / "me.creds"), str(organism.directory / "ca.pem"))
    assert (mesh.tls_cert, mesh.tls_key) == ("", "")
    assert [entry.name for entry in mesh.expose] == ["", "hello.greeter", "one"]
    assert [entry.listener_name for entry in mesh.agents] == ["nlp.summarizer", "second", "", "", ""]
    assert [entry.resume for entry in mesh.kv] == ["a", "", "", ""]
    assert [entry.timeout for entry in (*mesh.kv, *mesh.subjects)] == [None, None, None, 5.0, None, None, 0.5]
    given = {
        entry.payload_class.__name__ for entry in (*mesh.kv, *mesh.subjects) if isinstance(entry.payload_class, type)
    }
    assert given == {"Greeting"}


FIELDS = """
from dataclasses import dataclass
from pydantic import BaseModel

@dataclass
class Data:
    text: str
    number: int
    maybe: "int | None"
    real: float
    yes: bool
    raw: bytes
    many: list[str]

class Model(BaseModel):
    yes: bool = False

async def take(data, metadata):
    return None
"""


@pytest.mark.parametrize(
    ("cls", "field", "comes", "goes"),
    [
        ("Data", "text", True, True),
        ("Data", "number", True, True),
        ("Data", "maybe", True, True),
        ("Data", "real", True, False),  # one without a fraction may come; how one is written, nobody says
        ("Data", "yes", False, False),
        ("Data", "raw", False, False),
        ("Data", "many", False, False),
        ("Model", "yes", False, False),
    ],
)
def test_a_field_that_can_be_no_part_of_a_name(
    organism: Organism, cls: str, field: str, comes: bool, goes: bool
) -> None:
    organism.module("data", FIELDS)
    listener = f"- {{name: take, payload_class: data.{cls}, handler: data.take, description: d}}"
    text = f"""organism: {{name: test}}
listeners:
{listener}
mesh:
  kv:
  - {{watch: 'a.{{{field}}}', to: take, payload_class: data.{cls}}}
  - {{put: 'b.{{{field}}}', listener: put, payload_class: data.{cls}}}
"""
    fault = f"{cls}.{field} can be no part of a name: that is a text, or a whole number"
    expected = [f"6:13 mesh.kv[0].watch: {fault}"] * (not comes) + [f"7:11 mesh.kv[1].put: {fault}"] * (not goes)
    assert organism.problems(text) == expected


def test_the_organisms_own_listeners_are_found_by_nobody(organism: Organism) -> None:
    def told(more: str) -> list[str]:
        mesh = f"  expose: [{{listener: greeter}}]\n  agents:\n  - {{name: test.greeter{more}}}\n"
        return organism.problems(LISTENERS + mesh)

    assert told("") == [
        "12:12 mesh.agents[0].name: is the organism's own listener 'greeter': that one can be called anyway; "
        "with 'payload_class' it is called over the mesh"
    ]
    assert told(", payload_class: handlers.Greeting") == []


def test_without_the_section_there_is_no_mesh(organism: Organism) -> None:
    config = organism.report(LISTENERS.replace("mesh:\n", "")).config
    assert config is not None and config.mesh is None


def test_an_empty_section_is_a_node_that_does_nothing(organism: Organism) -> None:
    config = organism.report(LISTENERS.replace("mesh:\n", "mesh: {}\n")).config
    assert config is not None and config.mesh == MeshConfig()


# -- peers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["nlp.summarizer", "second", "tools.search", "kv.done", "out", "deep.down.there"])
def test_what_the_mesh_adds_may_be_listed_as_peers(organism: Organism, peer: str) -> None:
    mesh = "".join(f"  {line}\n" for line in ALL.splitlines() if peer == "deep.down.there" or '">"' not in line)
    text = LISTENERS.replace("{name: other,", f"{{name: other, agent: true, peers: ['{peer}'],") + mesh
    assert organism.problems(text) == []


@pytest.mark.parametrize("peer", ["nlp.other", "tools.a.b", "tools", "hello.greeter", "prices"])
def test_what_it_does_not_add_may_not(organism: Organism, peer: str) -> None:
    mesh = "".join(f"  {line}\n" for line in ALL.splitlines() if '">"' not in line)
    text = LISTENERS.replace("{name: other,", f"{{name: other, agent: true, peers: ['{peer}'],") + mesh
    (problem,) = organism.problems(text)
    assert f"'{peer}'" in problem and problem.startswith("4:")


@pytest.mark.parametrize(
    "raw",
    [None, 5, [], {"agents": 5}, {"agents": [5, None, {"name": 5}, {"pattern": []}]}, {"kv": {"listener": "x"}}],
)
def test_names_are_read_of_any_data(raw: Any) -> None:
    assert MeshNames.of(raw) == MeshNames()


# -- what may be meant as it is ----------------------------------------------------------------------------------------


def warned(organism: Organism, kind: str, *entries: str) -> list[str]:
    lines = [f"- {{{entry}, payload_class: handlers.Greeting}}" for entry in entries]
    report = organism.report(LISTENERS + "".join(f"  {line}\n" for line in [f"{kind}:", *lines]))
    assert report.problems == ()
    return [str(warning).removeprefix(f"{organism.file}:") for warning in report.warnings]


def warnings(organism: Organism, watch: str, put: str, more: str = "") -> list[str]:
    return warned(organism, "kv", f"watch: '{watch}', to: greeter{more}", f"put: '{put}', listener: out")


def test_files_that_a_server_of_its_own_does_not_need_are_worth_a_warning(organism: Organism) -> None:
    def told(url: str) -> list[str]:
        report = organism.report(LISTENERS + f"  {url}\n  creds: me.creds\n  tls_ca: {organism.directory / 'ca.pem'}\n")
        assert report.problems == ()
        return [str(warning).removeprefix(f"{organism.file}:") for warning in report.warnings]

    text = "is for a server that is not 'local': say 'url', or 'run --mesh'"
    assert told("url: local") == [f"11:10 mesh.creds: {text}", f"12:11 mesh.tls_ca: {text}"]
    assert told("url: tls://a") == []


def test_a_put_that_the_same_organism_watches_is_worth_a_warning(organism: Organism) -> None:
    assert warnings(organism, "a.{name}.raw", "a.{name}.raw") == [
        "11:13 mesh.kv[0].watch: what kv[1] puts may fit, and does not come back to this organism without 'echo: true'"
    ]
    assert warnings(organism, "a.{name}.raw", "a.{name}.done") == []
    assert warnings(organism, "a.{name}.raw", "a.{name}.raw", ", echo: true") == []
    assert warnings(organism, "a.{name}.raw", "a.{name}.raw", ", echo: false") == []  # it is said on purpose


@pytest.mark.parametrize("more", ["", ", queue: q", ", durable: d"])
def test_a_publication_that_the_same_organism_follows_is_worth_a_warning(organism: Organism, more: str) -> None:
    def told(follows: str, publishes: str, echo: str = "") -> list[str]:
        entries = f"subscribe: '{follows}', to: greeter{more}{echo}", f"publish: '{publishes}', listener: out"
        return warned(organism, "subjects", *entries)

    assert told("a.*", "a.{name}") == [
        "11:17 mesh.subjects[0].subscribe: what subjects[1] publishes may fit, and does not come back to this "
        "organism without 'echo: true'"
    ]
    assert told("a.*", "b.{name}") == []
    assert told("a.*", "a.{name}", ", echo: true") == []
    assert told("a.*", "a.{name}", ", echo: false") == []  # it is said on purpose


@pytest.mark.parametrize(("more", "follows"), [("", "mesh.dead.d"), (", dead_letters: gone.ones", "gone.*")])
def test_so_are_dead_letters_that_it_follows(organism: Organism, more: str, follows: str) -> None:
    def told(echo: str) -> list[str]:
        entry = f"subscribe: '{follows}', to: greeter{echo}"
        return warned(organism, "subjects", f"subscribe: a, to: greeter, durable: d{more}", entry)

    assert told("") == [
        "12:17 mesh.subjects[1].subscribe: what subjects[0] gives up may fit, and does not come back to this "
        "organism without 'echo: true'"
    ]
    assert told(", echo: true") == []


SEGMENTS = st.sampled_from(["a", "b", "ab", "b2"])
KEYS = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)


@given(KEYS, st.data())
def test_a_warning_is_given_where_there_is_a_key_for_both(key: str, data: st.DataObject) -> None:
    segments = key.split(".")
    put = [data.draw(st.sampled_from([segment, "{x}", f"{segment[0]}{{x}}"])) for segment in segments]
    watch = [data.draw(st.sampled_from([segment, "{x}", "*"])) for segment in segments]
    if data.draw(st.booleans()):
        watch = [*watch[: data.draw(st.integers(0, len(watch) - 1))], ">"]
    assert _may_fit(".".join(put), ".".join(watch))
    assert not _may_fit(".".join([*put, "zz"]), ".".join(each for each in watch if each != ">"))


# -- names and patterns ------------------------------------------------------------------------------------------------

PATTERNS = st.lists(SEGMENTS | st.just("*"), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from([".".join(parts), ".".join([*parts, ">"]), ">"])
)


def fits(pattern: list[str], name: list[str]) -> bool:
    """The rule in the words of NATS, one segment after the other."""
    if pattern == [">"]:
        return bool(name)
    if not pattern or not name:
        return not pattern and not name
    return pattern[0] in ("*", name[0]) and fits(pattern[1:], name[1:])


@given(PATTERNS, KEYS)
def test_a_pattern_fits_as_subjects_do(pattern: str, name: str) -> None:
    assert pattern_matches(pattern, name) == fits(pattern.split("."), name.split("."))


@given(KEYS)
def test_a_name_fits_itself(name: str) -> None:
    assert pattern_matches(name, name)
    assert not pattern_matches(f"{name}.>", name)
    assert not pattern_matches(f"{name}.*", name)


ANY = st.text(st.sampled_from("aZ09_-.*>{}= \n/é$"), max_size=12)


@given(ANY)
def test_what_is_a_name_is_a_subject(name: str) -> None:
    is_name = agent_name_fault(name) is None
    assert is_name == all(
        segment and all(c.isascii() and (c.isalnum() or c in "_-") for c in segment) for segment in name.split(".")
    )
    if is_name:
        assert agent_name_fault(name, wildcards=True, fields=True) is None
        assert fields_in(name) == []


@given(ANY)
def test_wildcards_are_whole_segments_and_the_second_is_the_last(name: str) -> None:
    segments = name.split(".")
    plain = [s for i, s in enumerate(segments) if s != "*" and not (s == ">" and i == len(segments) - 1)]
    expected = all(agent_name_fault(segment) is None for segment in plain)
    assert (agent_name_fault(name, wildcards=True) is None) == expected


@given(KEYS, st.sampled_from(["id", "größe", "_x", "a1"]))
def test_a_field_may_be_in_any_segment(key: str, field: str) -> None:
    template = f"{key}.x{{{field}}}-y.{{other}}"
    assert agent_name_fault(template, fields=True) is None
    assert agent_name_fault(template) is not None
    assert fields_in(template) == [field, "other"]


@pytest.mark.parametrize("template", ["a.{}", "a.{1}", "a.{b.c}", "a.{b", "a.b}", "a.{b}{", "{b!r}", "{b:d}", "{b[0]}"])
def test_what_is_no_field_is_no_template(template: str) -> None:
    assert agent_name_fault(template, fields=True) is not None


# -- in Python ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Note:
    text: str


class Other:
    """No payload class."""


def test_classes_may_be_given_as_they_are() -> None:
    entry = KVConfig(watch="a.{text}", to="x", payload_class=Note)
    assert entry.payload_class is Note
    assert SubjectConfig(publish="a", listener="x", payload_class="app.Note").payload_class == "app.Note"


@pytest.mark.parametrize(
    ("make", "arguments", "problem"),
    [
        (MeshConfig, {"urll": "local"}, "urll: unknown key, did you mean 'url'?"),
        (ExposeConfig, {"listener": "a", "name": "a b"}, "name: 'a b' is not made of segments"),
        (MeshAgentConfig, {}, "needs exactly one of 'name', 'pattern' and 'subscribe'"),
        (KVConfig, {"watch": "a", "to": "b", "payload_class": 5}, "payload_class: must be an import path"),
        (SubjectConfig, {"publish": "a", "listener": "b", "payload_class": Note, "queue": "q"}, "queue: is only for"),
    ],
)
def test_a_wrong_argument_is_refused(make: Any, arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        make(**arguments)
    assert str(caught.value).startswith(problem)


def test_rules_hold_in_programs_too() -> None:
    mesh = MeshConfig(
        kv=[KVConfig(put="a.{gone}", listener="x", payload_class=Note)], expose=[ExposeConfig(listener="a b")]
    )
    with pytest.raises(InvalidConfiguration) as caught:
        OrganismConfig(name="o", mesh=mesh)
    assert str(caught.value).splitlines() == [
        "mesh.expose[0].listener: needs 'as', the name that it has on the mesh: 'o.a b' is not made of segments of "
        "letters, digits, '_' and '-', joined by dots",
        "mesh.kv[0].put: Note has no field 'gone'",
    ]
