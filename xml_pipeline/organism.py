"""The composition root: from a file to a started pump."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from xml_pipeline.config import ConfigLoader, InvalidConfiguration, place_problems
from xml_pipeline.message_bus.singleton import set_stream_pump
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["bootstrap", "start_from_file"]

P = TypeVar("P", bound=StreamPump)


async def start_from_file(cls: type[P], path: str | Path) -> P:
    """Load a configuration, register its listeners on a new pump, and start it.

    Args:
        cls: the pump's class.
        path: the organism's file.

    Raises:
        ConfigurationError: everything that is wrong with the file, each with its place.
    """
    config = ConfigLoader.load(path)
    try:
        pump = cls(config, str(path))
        pump.register_all()
    except InvalidConfiguration as error:
        raise InvalidConfiguration(place_problems(path, error.problems)) from error
    await pump.start()
    return pump


async def bootstrap(path: str | Path = "config/organism.yaml") -> StreamPump:
    """Make the pump of a file and start it; it becomes the program's main pump. `StreamPump.run` it afterwards.

    Args:
        path: the organism's file.

    Raises:
        ConfigurationError: everything that is wrong with the file, each with its place.
    """
    pump = await start_from_file(StreamPump, path)
    set_stream_pump(pump)
    return pump
