"""Replacing a running pump's configuration: all of it, or nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from xml_pipeline.config import ListenerConfig, OrganismConfig, diff, load_report
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.events import ReloadEvent
from xml_pipeline.message_bus.listener import Listener, make_listener
from xml_pipeline.message_bus.routing import RoutingTable
from xml_pipeline.message_bus.usage import update_usage

if TYPE_CHECKING:
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["configured_listener", "reload_config"]

logger = logging.getLogger(__name__)


def configured_listener(config: ListenerConfig, timeout: float) -> Listener:
    """The listener that a configuration describes.

    Args:
        config: with its imports resolved.
        timeout: seconds, the listener's own or the organism's default.

    Raises:
        ConfigurationError: the configuration is not usable.
        TypeError: the handler or a class is not.
    """
    if config.handler is None or not config.payload_classes:
        raise ConfigurationError(
            f"listener {config.name!r}: handler and payload_class are not imported; load the configuration with "
            "ConfigLoader.load"
        )
    return make_listener(
        config.name,
        config.handler,
        config.payload_classes,
        description=config.description,
        agent=config.is_agent,
        peers=config.peers,
        broadcast=config.broadcast,
        prompt=config.prompt,
        timeout=timeout,
        concurrency=config.concurrency,
        rate=config.rate,
        ordered=config.ordered,
        cpu_bound=config.cpu_bound,
        output_class=config.output_class,
        repair=config.repair,
        configured=True,
    )


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
    table = _table(pump.engine.table, pump.config, new, {*changes.added, *changes.updated})
    update_usage(table)
    if new.thread_scheduling != pump.config.thread_scheduling:
        logger.warning("reload: thread_scheduling stays %r until the next start", pump.config.thread_scheduling)
        new = new.with_limits(thread_scheduling=pump.config.thread_scheduling)
    pump.engine.apply(new.limits)
    pump.engine.swap(table)
    for listener in table.listeners.values():
        pump.engine.dispatcher.lanes.configure(listener)
    pump.apply_config(new)
    return ReloadEvent(True, list(changes.added), list(changes.removed), list(changes.updated))


def _table(old: RoutingTable, before: OrganismConfig, after: OrganismConfig, changed: set[str]) -> RoutingTable:
    """The new table: what did not change keeps its listener, what did not come from the file stays."""
    configured = {config.name: config for config in after.listeners}
    known_before = {config.name for config in before.listeners}
    listeners = [
        listener
        for name, listener in old.listeners.items()
        if not listener.configured or (name in configured and name not in changed)
    ]
    kept = {listener.name for listener in listeners}
    for name, config in configured.items():
        if name in kept:
            if not old.listeners[name].configured and name not in known_before:
                raise ConfigurationError(f"listener {name!r} is registered by the program already")
            continue
        listeners.append(configured_listener(config, after.timeout_of(config)))
    return RoutingTable(listeners)
