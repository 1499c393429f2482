"""The JSON Schema, held against the loader: both must accept the same files, as far as a schema can see."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from xml_pipeline.config import ConfigLoader, InvalidConfiguration, organism_json_schema
from xml_pipeline.config.yaml_source import read_yaml

SCHEMA = organism_json_schema()
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}
KNOWN = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "allOf", "enum", "const", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "minLength", "minItems", "maxItems", "uniqueItems"),
    *("$ref", "$defs", "$schema"),
    *("title", "description", "default"),
}


def has_type(value: Any, name: str) -> bool:
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return bool(isinstance(value, TYPES[name]))


def fits(value: Any, schema: dict[str, Any] | bool) -> bool:
    """Whether ``value`` fits ``schema``, for the part of JSON Schema that is used here."""
    if isinstance(schema, bool):
        return schema
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema and not fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]):
        return False
    if "anyOf" in schema and not any(fits(value, option) for option in schema["anyOf"]):
        return False
    if not all(fits(value, part) for part in schema.get("allOf", [])):
        return False
    if "type" in schema and not has_type(value, schema["type"]):
        return False
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        return False
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
    if isinstance(value, list):
        return fits_list(value, schema)
    if isinstance(value, dict):
        return fits_object(value, schema)
    return value is None or isinstance(value, bool) or in_range(value, schema)


def fits_list(value: list[Any], schema: dict[str, Any]) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    if schema.get("uniqueItems") and len(set(value)) < len(value):
        return False
    return all(fits(item, schema.get("items", {})) for item in value)


def fits_object(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    if not set(schema.get("required", [])) <= set(value):
        return False
    if schema.get("additionalProperties") is False and not set(value) <= set(properties):
        return False
    return all(fits(item, properties[key]) for key, item in value.items() if key in properties)


def in_range(value: float, schema: dict[str, Any]) -> bool:
    low, high, above = schema.get("minimum", value), schema.get("maximum", value), schema.get("exclusiveMinimum")
    return bool(low <= value <= high and (above is None or value > above))


MINIMAL = "organism: {name: a}\nlisteners: []\n"
AGENT = "{name: a, agent: true, prompt: p, model: m, description: d"
LISTENER = "{name: a, payload_class: a.B, handler: a.b, description: d"


def with_agent(rest: str) -> str:
    return f"organism: {{name: a}}\nllm: {{backends: [{{provider: ollama}}]}}\nlisteners: [{AGENT}{rest}}}]\n"


def with_backend(rest: str) -> str:
    return f"{MINIMAL}llm: {{backends: [{{{rest}}}]}}\n"


def with_table(rest: str) -> str:
    return f"organism: {{name: a}}\nlisteners: [{LISTENER}}}]\npeer_tables: [{{{rest}}}]\n"


def with_listener(rest: str) -> str:
    return f"organism: {{name: a}}\nlisteners: [{LISTENER}{rest}}}]\n"


def with_mesh(rest: str) -> str:
    return f"organism: {{name: a}}\nlisteners: [{LISTENER}}}]\nmesh: {{{rest}}}\n"


CLASS = "payload_class: a.B"
KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

GOOD = [
    MINIMAL,
    "organism: {name: a}\n",
    "organism: {name: a, port: 1, description: d, version: '2'}\n",
    "organism: {name: a, port: '${PORT:-80}'}\n",
    f"{MINIMAL}max_hops: 5\ntimeout: 0.5\nmax_conversation_seconds: null\nthread_idle_ttl: 0\nrate: 10/s\n",
    f"{MINIMAL}max_hops: ${{A:-5}}\nmax_conversation_seconds: ${{A:-1.5}}\nrate: 2.5\n",
    f"{MINIMAL}thread_scheduling: depth-first\nbackend: {{type: memory}}\nimport_roots: [app, lib.x]\n",
    with_listener(""),
    with_listener(", agent: true, peers: [], prompt: p, timeout: 5"),
    with_listener(", peers: , broadcast: group, timeout_seconds: 5, concurrency: 2"),
    with_listener(", rate: 100/min, ordered: false, cpu_bound: false, output_class: a.C, repair: lenient"),
    with_listener(f", handler_sha256: '{'0a' * 32}', peers: [a, system.todo], broadcast: false"),
    f"{MINIMAL}max_tokens_per_thread: 5\n",
    "organism: {name: a, max_tokens_per_thread: '${TOKENS:-5}'}\n",
    with_listener(", agent: true, peers: [], model: grok-4"),
    with_agent(""),
    with_agent(", payload_class: a.B, output_class: a.C, temperature: 0"),
    with_agent(
        ", temperature: 2, max_tokens: 100, max_model_calls: '${CALLS:-3}', max_history_chars: 0, timeout: 60"
        ", peers: [system.buffer]"
    ),
    with_agent(", temperature: null, max_tokens: null").replace("agent: true", "agent: '${AGENT:-true}'"),
    f"{MINIMAL}llm: {{}}\n",
    f"{MINIMAL}llm: {{strategy: least-loaded, model: m, retries: 0, retry_base_delay: 0, backends: []}}\n",
    f"{MINIMAL}llm: {{completion_allowance: 0}}\n",
    f"{MINIMAL}llm: {{completion_allowance: '${{TOKENS:-5}}'}}\n",
    with_backend("provider: xai, name: a, api_key: k, priority: -1, rate_limit_tpm: 5, rate_limit_rpm: 5"),
    with_backend("provider: anthropic, api_key_env: A_KEY, max_concurrent: 2, timeout: 5, models: [a, b]"),
    with_backend("provider: openai-compatible, base_url: 'http://${HOST:-x}:8000/v1', supported_models: []"),
    with_backend("provider: scripted, script: [{text: hello}, {}], rate_limit_rpm: null"),
    with_backend("provider: ollama, script: [], api_key: null, api_key_env: ''"),
    with_table("name: t"),
    with_table("name: t, parent: null, entries: []"),
    with_mesh(""),
    with_mesh("url: 'nats://${HOST:-x}:4222', creds: c, tls_cert: c, tls_key: k, tls_ca: a, events: true, expose: []"),
    with_mesh("expose: [{listener: a}], signatures: require, trust: [{key: KEY, organism: b}]".replace("KEY", KEY)),
    with_mesh("expose: [{listener: a, as: b.c, tags: [], version: '', timeout: null, max_queue: 1, peer_table: null}]"),
    with_mesh("agents: [{name: b}, {pattern: c.*}, {name: d, as: e, payload_class: a.B, output_class: null}]"),
    with_mesh(f"agents: [{{subscribe: b, to: a, {CLASS}}}, {{name: c, timeout: 5, idempotent: '${{A:-true}}'}}]"),
    with_mesh(f"kv: [{{watch: '{{x}}.>', to: a, resume: r, {CLASS}}}, {{put: 'b.{{x}}', listener: l, {CLASS}}}]"),
    with_mesh(f"subjects: [{{subscribe: b, to: a, {CLASS}, durable: d, max_deliver: 1, ack_wait: 0.5}}]"),
    with_mesh(f"subjects: [{{subscribe: b, to: a, {CLASS}, queue: q}}, {{publish: c, listener: l, {CLASS}}}]"),
    with_mesh(f"subjects: [{{subscribe: b, to: a, {CLASS}, durable: d, echo: true}}]"),
    with_table("name: t, entries: [{listener: a, peers: [a]}, {listener: system.buffer, peers: }]"),
    with_listener(", agent: '${AGENT:-true}', concurrency: null, rate: null").replace("a.B", "[a.B, 'a:C']"),
]

BAD = [
    "{}\n",
    "organism: {}\n",
    "organism: {name: ''}\n",
    "organism: {name: 5}\n",
    "organism: {name: a, port: 0}\n",
    "organism: {name: a, port: 65536}\n",
    "organism: {name: a, port: '80'}\n",
    "organism: {name: a, identity: 5}\n",
    "organism: {name: a}\nlisteners:\n",
    "organism: {name: a}\nlisteners: {}\n",
    *(
        f"{MINIMAL}{line}\n"
        for line in (
            *("max_hops: 0", "max_hops: 1.5", "max_hops: true", "max_hops: x", "max_hops: 1000000001", "max_hop: 1"),
            *("timeout: 0", "timeout: -1", "timeout: null", "thread_idle_ttl: -1", "max_conversation_seconds: 0"),
            *("rate: 0", "rate: fast", "rate: true", "thread_scheduling: deep", "backend: {type: redis}"),
            *("backend: {redis_url: x}", "import_roots: app", "import_roots: ['']", "llm:", "oob: {}"),
            *("llm: []", "llm: {strategy: random}", "llm: {retries: -1}", "llm: {backend: []}", "llm: {timeout: 0}"),
            *("llm: {backends: }", "llm: {model: 5}", "llm: {retry_max_delay: -1}", "llm: {backends: [x]}"),
            *("llm: {completion_allowance: -1}", "llm: {completion_allowance: null}"),
            *("peer_tables: {}", "peer_tables: [x]", "peer_tables: [{}]", "peer_tables:", "max_tokens_per_thread: 0"),
        )
    ),
    *(
        with_listener(f", {pair}")
        for pair in (
            *("peerz: []", "peers: x", "peers: [5]", "peers: ['']", "agent: 1", "agent: yes", "broadcast: 5"),
            *("broadcast: ''", "timeout: 0", "timeout: x", "concurrency: 0", "cpu_bound: true", "output_class: ''"),
            *("repair: x", "handler_sha256: abc", "prompt: 5", "ordered: off", "rate: []", "trusted: true"),
        )
    ),
    "organism: {name: a, max_tokens_per_thread: 0}\n",
    *(
        with_backend(keys)
        for keys in (
            *("name: a", "provider: gpt", "provider: xai, api_key: 5", "provider: xai, api_key: ''"),
            *(
                "provider: xai, api_key_env: sk-1",
                "provider: xai, priority: 1.5",
                "provider: xai, rate_limit_tpm: null",
            ),
            *("provider: xai, models: m", "provider: xai, models: [5]", "provider: xai, keys: []"),
            *("provider: xai, script: [{}]", "provider: scripted, script: [x]", "provider: openai-compatible"),
        )
    ),
    *(
        with_table(keys)
        for keys in (
            *(
                "entries: []",
                "name: t, parent: 5",
                "name: t, entries: {}",
                "name: t, entries: [x]",
                "name: t, peers: []",
            ),
            *("name: t, entries: [{listener: a}]", "name: t, entries: [{peers: []}]"),
            *("name: t, entries: [{listener: a, peers: x}]", "name: t, entries: [{listener: a, peers: [], x: 1}]"),
        )
    ),
    *(
        with_mesh(keys)
        for keys in (
            *("urll: x", "url: 5", "events: 1", "signatures: no", "expose: {}", "agents: x", "kv: [x]", "trust: [{}]"),
            *("expose: [{}]", "expose: [{listener: 5}]", "expose: [{listener: a, max_queue: 0}]"),
            *(
                "expose: [{listener: a, tags: x}]",
                "expose: [{listener: a, timeout: 0}]",
                "expose: [{listener: a, x: 1}]",
            ),
            *("agents: [{}]", "agents: [{as: b}]", "agents: [{subscribe: b}]", f"agents: [{{to: a, {CLASS}}}]"),
            *("agents: [{name: b, timeout: null}]", "agents: [{name: b, payload_class: ''}]", "agents: [{name: 5}]"),
            *("kv: [{}]", "kv: [{watch: b, to: a}]", f"kv: [{{watch: b, {CLASS}}}]", f"kv: [{{put: b, {CLASS}}}]"),
            *(f"kv: [{{watch: b, to: a, echo: 1, {CLASS}}}]", f"subjects: [{{to: a, {CLASS}}}]", "subjects: [{}]"),
            f"subjects: [{{subscribe: b, to: a, durable: d, max_deliver: 0, {CLASS}}}]",
            f"subjects: [{{subscribe: b, to: a, echo: 1, {CLASS}}}]",
            f"trust: [{{key: {KEY}, organism: b, policy: maybe}}]",
            *("expose: [{listener: a, name: b}]", "expose: [{listener: a, as: b, name: b}]"),
            *("agents: [{name: b, local_name: c}]", "agents: [{name: b, as: c, local_name: c}]"),
        )
    ),
    *(
        with_agent(keys)
        for keys in (
            *(", temperature: 2.1", ", temperature: -1", ", max_tokens: 0", ", max_model_calls: null", ", handler:"),
            *(", max_history_chars: -1", ", max_history_chars: null", ", max_history_chars: 1.5"),
            *(", handler: a.b", f", handler_sha256: '{'0' * 64}'", ", payload_class: []", ", peers: 5"),
        )
    ),
    with_agent("").replace(", prompt: p", ""),
    with_agent("").replace("prompt: p", "prompt: ''"),
    with_agent("").replace("agent: true, ", ""),
    with_agent("").replace("agent: true", "agent: false"),
    with_listener(", model: m"),
    with_listener(", temperature: 1"),
    with_listener(", agent: true, max_model_calls: 5"),
    with_listener(", agent: true, max_history_chars: 5"),
    with_listener("").replace("payload_class: a.B, ", ""),
    with_listener("").replace("a.B", "[]"),
    with_listener("").replace("a.B", "[a.B, a.B]"),
    with_listener("").replace("a.B", "5"),
    with_listener("").replace("handler: a.b, ", ""),
    with_listener("").replace("description: d", "description: ''"),
    with_listener("").replace("description: d", "description: "),
]


@pytest.mark.parametrize("text", GOOD)
def test_schema_and_loader_accept_good_files(text: str) -> None:
    ConfigLoader.loads(text, environment={})
    assert fits(read_yaml(text).data, SCHEMA)


@pytest.mark.parametrize("text", BAD)
def test_schema_and_loader_refuse_bad_files(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        ConfigLoader.loads(text, environment={})
    assert not fits(read_yaml(text).data, SCHEMA)


def test_it_is_json_of_the_right_dialect_and_a_new_copy_each_time() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    organism_json_schema()["$defs"]["ListenerSection"]["anyOf"].clear()
    assert organism_json_schema() == SCHEMA


def test_all_objects_are_closed_and_all_keys_described() -> None:
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        assert section["additionalProperties"] is False
        for key, value in section["properties"].items():
            assert value.get("description"), key


def test_all_references_lead_somewhere() -> None:
    for reference in re.findall(r'"\$ref": "([^"]*)"', json.dumps(SCHEMA)):
        assert reference.removeprefix("#/$defs/") in SCHEMA["$defs"]


def test_keys_are_those_of_the_file_and_defaults_are_told() -> None:
    listener = SCHEMA["$defs"]["ListenerSection"]
    assert listener["required"] == ["name", "description"]
    assert "default" not in listener["properties"]["handler"]
    assert {"agent", "peers", "timeout_seconds", "handler_sha256", "repair"} <= set(listener["properties"])
    assert "payload_class_path" not in listener["properties"]
    assert listener["properties"]["repair"]["enum"] == ["strict", "lenient"]
    assert SCHEMA["properties"]["max_queue"]["default"] == 10_000
    assert SCHEMA["required"] == ["organism"]
