"""Replacing a running pump's configuration: all of it, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from xml_pipeline.config import (
    InvalidConfiguration,
    ListenerConfig,
    OrganismConfig,
    diff,
    load_report,
    place_problems,
)
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.events import ReloadEvent
from xml_pipeline.message_bus.listener import Handler, Listener, make_listener
from xml_pipeline.message_bus.peer_tables import PeerTable, PeerTables
from xml_pipeline.message_bus.routing import RoutingTable
from xml_pipeline.message_bus.signer import load_identity

if TYPE_CHECKING:
    from xml_pipeline.crypto import Identity
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["configured_listener", "configured_peer_tables", "reload_config"]

logger = logging.getLogger(__name__)


def configured_listener(config: ListenerConfig, timeout: float) -> Listener:
    """The listener that a configuration describes; an agent without a handler gets the built-in model call.

    Args:
        config: with its imports resolved.
        timeout: seconds, the listener's own or the organism's default.

    Raises:
        ConfigurationError: the configuration is not usable.
        TypeError: the handler or a class is not.
    """
    handler = _model_agent(config) if config.is_model_agent else config.handler
    if handler is None or not config.payload_classes:
        raise ConfigurationError(
            f"listener {config.name!r}: handler and payload_class are not imported; load the configuration with "
            "ConfigLoader.load"
        )
    return make_listener(
        config.name,
        handler,
        config.payload_classes,
        description=config.description,
        agent=config.is_agent,
        peers=config.peers,
        broadcast=config.broadcast,
        prompt=config.prompt,
        model=config.model,
        timeout=timeout,
        concurrency=config.concurrency,
        rate=config.rate,
        ordered=config.ordered,
        joins=config.joins,
        cpu_bound=config.cpu_bound,
        output_class=config.output_class,
        repair=config.repair,
        configured=True,
    )


def _model_agent(config: ListenerConfig) -> Handler:
    # Late: only organisms that call models pay for importing it.
    from xml_pipeline.platform.model_agent import make_model_agent

    return make_model_agent(config)


def configured_peer_tables(
    tables: PeerTables, config: OrganismConfig, listeners: Mapping[str, Listener]
) -> dict[str, PeerTable]:
    """What a configuration makes of a pump's peer tables, for `PeerTables.install`.

    Raises:
        ConfigurationError: a table does not fit the others, or the listeners.
    """
    try:
        return tables.prepare(config.peer_tables, listeners)
    except (KeyError, ValueError) as exc:
        raise ConfigurationError(f"peer_tables: {exc.args[0]}") from exc


def reload_config(pump: StreamPump, path: str) -> ReloadEvent:
    """Read the file again and swap the routing table. Never raises; a file that is wrong changes nothing."""
    try:
        event = _reload(pump, path)
    except (ConfigurationError, TypeError) as exc:
        event = ReloadEvent(False, error=str(exc))
    except Exception as exc:
        logger.exception("reload failed")
        event = ReloadEvent(False, error=f"{type(exc).__name__}: {exc}")
    if event.success:
        logger.info("reloaded %s: %s", path, event)
    else:
        logger.error("reload of %s failed, nothing was changed: %s", path, event.error)
    return event


def _reload(pump: StreamPump, path: str) -> ReloadEvent:
    if not path:
        return ReloadEvent(False, error="No config path: give one, or make the pump from a file")
    report = load_report(path)
    if report.config is None:
        return ReloadEvent(False, error="\n".join(str(problem) for problem in report.problems))
    new = report.config
    changes = diff(pump.config, new)
    outside = [attachment.plan(new) for attachment in pump.attachments]
    attached = [listener for change in outside for listener in change.listeners]
    table = _table(pump.engine.table, pump.config, new, {*changes.added, *changes.updated}, attached)
    peer_tables = configured_peer_tables(pump.engine.peer_tables, new, table.listeners)
    other_models = "llm_config" in changes.settings
    try:
        router = pump.models.prepare(new.llm_config) if other_models else None
    except InvalidConfiguration as error:
        raise InvalidConfiguration(place_problems(path, error.problems)) from error
    identity = _identity(new, path)
    new, warnings = _without_what_needs_a_start(pump.config, new)
    pump.engine.apply(new.limits)
    pump.engine.swap(table)
    pump.engine.peer_tables.install(peer_tables)
    if other_models:
        pump.models.swap(router)
    for listener in table.listeners.values():
        pump.engine.dispatcher.lanes.configure(listener)
    for change in outside:
        change.apply()
    pump.apply_config(new, identity)
    return ReloadEvent(True, list(changes.added), list(changes.removed), list(changes.updated), warnings=warnings)


def _without_what_needs_a_start(old: OrganismConfig, new: OrganismConfig) -> tuple[OrganismConfig, list[str]]:
    """The new configuration as far as it can be in force now, and what is said of the rest, each time it is read."""
    if new.thread_scheduling == old.thread_scheduling:
        return new, []
    warning = f"thread_scheduling stays {old.thread_scheduling!r} until the next start"
    logger.warning("reload: %s", warning)
    return new.with_limits(thread_scheduling=old.thread_scheduling), [warning]


def _identity(config: OrganismConfig, path: str) -> Identity | None:
    """Read again: the file may have another key by now."""
    try:
        return load_identity(config, path)
    except InvalidConfiguration as error:
        raise InvalidConfiguration(place_problems(path, error.problems)) from error


def _table(
    old: RoutingTable, before: OrganismConfig, after: OrganismConfig, changed: set[str], attached: list[Listener]
) -> RoutingTable:
    """The new table: what did not change keeps its listener, what did not come from the file stays."""
    configured = {config.name: config for config in after.listeners}
    known_before = {config.name for config in before.listeners}
    listeners = [
        listener
        for name, listener in old.listeners.items()
        if not listener.is_attached and (not listener.configured or (name in configured and name not in changed))
    ]
    kept = {listener.name for listener in listeners}
    for name, config in configured.items():
        if name in kept:
            if not old.listeners[name].configured and name not in known_before:
                raise ConfigurationError(f"listener {name!r} is registered by the program already")
            continue
        listeners.append(configured_listener(config, after.timeout_of(config)))
    return RoutingTable([*listeners, *attached])
