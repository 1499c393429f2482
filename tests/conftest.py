"""For all tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.examples import examples

if TYPE_CHECKING:
    from tests.cli.forked import Zygote
    from tests.mesh.shared_server import SharedServer

# A machine that is busy is no reason to fail.
settings.register_profile("suite", deadline=None, max_examples=examples(60))
settings.load_profile("suite")


def pytest_configure() -> None:
    """Have Ctrl-C, which tests send to commands, heard by them: what a shell starts in the background ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Thousands of tests and modules are there to the end. Each look at them by the garbage collector takes half a second,
# and many are asked for; so it is spared what there is before the first test, and what each file's tests leave.


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        freeze_garbage_collector()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and nextitem.path != item.path:
        freeze_garbage_collector()


def freeze_garbage_collector() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Starts commands of ``xml-pipeline``."""
    from tests.cli.forked import Zygote  # imported where it is needed, as it is by few

    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SharedServer]:
    """The nats-server of all tests that neither stop it nor look at all of it; they take it as `server`."""
    from tests.mesh.shared_server import SharedServer

    server = SharedServer()
    yield server
    server.close()
