from __future__ import annotations

import pytest

from xml_pipeline.config.problems import KeyPath
from xml_pipeline.config.scope import out_of_scope


@pytest.mark.parametrize(
    "path",
    [
        ("gateways",),
        ("process_pool",),
        ("organism", "tls"),
        ("backend", "redis_url"),
        ("backend_type",),
    ],
)
def test_what_is_not_built_yet_says_so(path: KeyPath) -> None:
    assert out_of_scope(path) == "not supported in this version"


@pytest.mark.parametrize("path", [("oob",), ("shell",), ("listeners", 3, "trusted"), ("oob_port",)])
def test_what_will_not_be_built_says_so(path: KeyPath) -> None:
    assert out_of_scope(path) == "not supported, and out of scope for good"


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("llm",),
        ("peer_tables",),
        ("max_tokens_per_thread",),
        ("peerz",),
        ("organism", "llm"),
        ("listeners", 0, "oob"),
        ("a", "b", "c", "d"),
    ],
)
def test_other_keys_are_merely_unknown(path: KeyPath) -> None:
    assert out_of_scope(path) is None


def test_what_is_called_otherwise_says_so() -> None:
    assert out_of_scope(("llm_backends",)) == "not supported: describe them under 'llm', as its 'backends'"
    assert out_of_scope(("peer_table_configs",)) == "is called 'peer_tables' now"
    assert out_of_scope(("peer_tables", 0, "os_user")) == "not supported, and out of scope for good"
