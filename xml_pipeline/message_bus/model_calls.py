"""The pump's model router: made of the ``llm`` configuration, replaced on reload, closed with the pump."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from xml_pipeline.config.llm import LLMConfig
from xml_pipeline.runtime import Runtime

if TYPE_CHECKING:
    from xml_pipeline.llm import LLMRouter

__all__ = ["ModelCalls"]

logger = logging.getLogger(__name__)


class ModelCalls:
    """Keeps the router of one pump in its runtime, where handlers find it (`xml_pipeline.llm.get_router`).

    A pump without configured back ends has none of this loaded; a router that the program puts into the runtime itself
    stays, and is the program's to close.

    Args:
        runtime: the pump's.
        config: how the router is made.

    Raises:
        ConfigurationError: a back end cannot be made.
    """

    def __init__(self, runtime: Runtime, config: LLMConfig) -> None:
        self._runtime = runtime
        self._router: LLMRouter | None = None
        self._retiring: dict[asyncio.Task[None], LLMRouter] = {}
        """Routers at which calls still run, the one replaced last at the end."""
        self._put(self.prepare(config))

    def prepare(self, config: LLMConfig) -> LLMRouter | None:
        """The router of a configuration, not in force yet; ``None`` without back ends.

        Raises:
            ConfigurationError: a back end cannot be made.
        """
        if not config.backends:
            return None
        from xml_pipeline.llm import make_router  # loaded by organisms that call models, and no others

        return make_router(config)

    def swap(self, router: LLMRouter | None) -> None:
        """Put another router in force. Calls that run at the old one end there; then it is closed. Meanwhile, the
        limits of back ends that both have hold for both together."""
        old = self._router
        if router is not None:
            for before in (*self._retiring.values(), *([] if old is None else [old])):
                router.take_over(before)
        self._put(router)
        if old is None:
            return
        if router is None:
            self._runtime.discard(type(old))
        try:
            task = asyncio.get_running_loop().create_task(self._retire(old))
        except RuntimeError:
            return  # no loop runs: nothing was opened in one either
        self._retiring[task] = old
        task.add_done_callback(self._retiring.pop)

    async def close(self) -> None:
        """End all calls, and close all back ends."""
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._router is not None:
            await self._router.close()

    def _put(self, router: LLMRouter | None) -> None:
        self._router = router
        if router is not None:
            self._runtime.put(router)

    async def _retire(self, router: LLMRouter) -> None:
        try:
            await router.drain()
        finally:
            await router.close()
