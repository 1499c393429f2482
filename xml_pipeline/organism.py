"""The composition root: from a file to a started pump."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from xml_pipeline.config import ConfigLoader, InvalidConfiguration, place_problems
from xml_pipeline.message_bus.singleton import set_stream_pump
from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["attach_bridge", "bootstrap", "own_mesh_url", "start_from_file"]

P = TypeVar("P", bound=StreamPump)


async def start_from_file(cls: type[P], path: str | Path, *, mesh_url: str | None = None, intake: bool = True) -> P:
    """Load a configuration, register its listeners on a new pump, and start it.

    Args:
        cls: the pump's class.
        path: the organism's file.
        mesh_url: of the mesh's server, in the place of the configuration's; ``None``, the default, for that.
        intake: whether anything comes in from the mesh; see `Bridge`.

    Raises:
        ConfigurationError: everything that is wrong with the file, each with its place; or the mesh cannot be joined.
    """
    config = ConfigLoader.load(path)
    try:
        pump = cls(config, str(path))
        pump.register_all()
        if config.mesh is not None:
            attach_bridge(pump, mesh_url, intake=intake)
        elif mesh_url is not None:
            raise InvalidConfiguration("there is no 'mesh' section, so the organism has nothing to do on a mesh")
    except InvalidConfiguration as error:
        raise InvalidConfiguration(place_problems(path, error.problems)) from error
    await pump.start()
    return pump


def attach_bridge(pump: StreamPump, url: str | None = None, *, intake: bool = True) -> None:
    """Have a pump that has not started do what the ``mesh`` section of its configuration says.

    Args:
        pump: made with a configuration that has the section.
        url: of the server, in the place of the configuration's; ``None``, the default, for that.
        intake: whether anything comes in; see `Bridge`.
    """
    # Late: only organisms on the mesh pay for importing it.
    from xml_pipeline.bridge import Bridge

    pump.attach(Bridge(pump, url=url, intake=intake))


def own_mesh_url(pump: StreamPump) -> str:
    """Where the mesh's server is that the organism has started for itself; empty if it has none.

    Args:
        pump: that runs.
    """
    from xml_pipeline.bridge import Bridge

    return next((each.own_url for each in pump.attachments if isinstance(each, Bridge)), "")


async def bootstrap(
    path: str | Path = "config/organism.yaml", *, mesh_url: str | None = None, intake: bool = True
) -> StreamPump:
    """Make the pump of a file and start it; it becomes the program's main pump. `StreamPump.run` it afterwards.

    Args:
        path: the organism's file.
        mesh_url: see `start_from_file`.
        intake: see `start_from_file`.

    Raises:
        ConfigurationError: everything that is wrong with the file, each with its place.
    """
    pump = await start_from_file(StreamPump, path, mesh_url=mesh_url, intake=intake)
    set_stream_pump(pump)
    return pump
