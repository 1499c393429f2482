"""Keys that users of earlier versions, or of the documentation, will write, and that this version does not have."""

from __future__ import annotations

from typing import Final

from xml_pipeline.config.problems import KeyPath

__all__ = ["out_of_scope"]

_LATER: Final = "not supported in this version"
_NEVER: Final = "not supported, and out of scope for good"
_MOVED: Final = {
    "agents": "not supported: describe agents under 'listeners', with 'agent: true'",
    "llm_backends": "not supported: describe them under 'llm', as its 'backends'",
    "server": f"{_NEVER}: there is no HTTP server for messages",
}
_TOP: Final = {
    **dict.fromkeys(("process_pool", "meta", "gateways"), _LATER),
    **dict.fromkeys(("oob", "auth", "network", "tools", "shell", "compiler"), _NEVER),
    **_MOVED,
}
_ORGANISM: Final = {"tls": _LATER}
_LISTENER: Final = {"trusted": _NEVER}
_BACKEND: Final = dict.fromkeys(
    ("redis_url", "redis_prefix", "redis_ttl", "max_slots_per_thread", "max_threads"), _LATER
)

_TABLE: Final = {"os_user": _NEVER}

# Arguments that OrganismConfig and ListenerConfig had in earlier versions.
_ARGUMENTS: Final = {
    "peer_table_configs": "is called 'peer_tables' now",
    **dict.fromkeys(
        (
            "process_pool_workers",
            "process_pool_max_tasks_per_child",
            "process_pool_enabled",
            "backend_type",
            "backend_redis_url",
            "backend_redis_prefix",
        ),
        _LATER,
    ),
    **dict.fromkeys(
        (
            "oob_enabled",
            "oob_bind",
            "oob_port",
            "auth_totp_secret_env",
            "auth_totp_required",
            "network_ports",
            "wasm_tool_configs",
            "shell_config",
            "compiler_config",
            "trusted",
        ),
        _NEVER,
    ),
}


def out_of_scope(path: KeyPath) -> str | None:
    """Why the unknown key or argument at ``path`` is refused, if it is one that was known somewhere; else ``None``."""
    match path:
        case (str(key),):
            return _TOP.get(key) or _ARGUMENTS.get(key)
        case ("organism", str(key)):
            return _ORGANISM.get(key)
        case ("backend", str(key)):
            return _BACKEND.get(key)
        case ("peer_tables", int(), str(key)):
            return _TABLE.get(key)
        case ("listeners", int(), str(key)):
            return _LISTENER.get(key) or _ARGUMENTS.get(key)
        case _:
            return None
