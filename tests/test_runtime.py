"""`xml_pipeline.runtime`: registries per pump, and which runtime is current."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from xml_pipeline.runtime import (
    Runtime,
    current_runtime,
    default_runtime,
    reset_default_runtime,
    set_default_runtime,
    use_runtime,
)


class Registry:
    pass


@pytest.fixture(autouse=True)
def _fresh_default() -> Iterator[None]:
    reset_default_runtime()
    yield
    reset_default_runtime()


def test_get_makes_one_instance_per_type_and_runtime() -> None:
    one, other = Runtime(), Runtime()
    assert isinstance(one.get(Registry), Registry)
    assert one.get(Registry) is one.get(Registry)
    assert one.get(Registry) is not other.get(Registry)


def test_put_replaces_and_can_stand_in_for_a_base_class() -> None:
    class Stub(Registry):
        pass

    runtime = Runtime()
    stub = Stub()
    runtime.put(stub, Registry)
    assert runtime.get(Registry) is stub
    assert Stub not in runtime
    plain = Registry()
    runtime.put(plain)
    assert runtime.get(Registry) is plain


def test_discard_makes_the_next_get_start_afresh() -> None:
    runtime = Runtime()
    first = runtime.get(Registry)
    assert Registry in runtime
    assert runtime.discard(Registry)
    assert not runtime.discard(Registry)
    assert runtime.get(Registry) is not first


def test_a_constructor_may_ask_for_another_registry_of_the_same_runtime() -> None:
    runtime = Runtime()

    class Dependent:
        def __init__(self) -> None:
            self.registry = current_runtime().get(Registry)

    with use_runtime(runtime):
        assert runtime.get(Dependent).registry is runtime.get(Registry)


def test_a_failing_constructor_leaves_nothing_behind() -> None:
    failures = iter([ValueError("no"), None])

    class Fussy:
        def __init__(self) -> None:
            failure = next(failures)
            if failure is not None:
                raise failure

    runtime = Runtime()
    with pytest.raises(ValueError, match="no"):
        runtime.get(Fussy)
    assert Fussy not in runtime
    assert isinstance(runtime.get(Fussy), Fussy)


def test_threads_that_come_together_get_the_same_instance() -> None:
    runtime = Runtime()
    together = threading.Barrier(8)
    made: list[object] = []

    class Slow:
        def __init__(self) -> None:
            made.append(self)
            # Gives the other threads every opportunity to come in.
            threading.Event().wait(0.01)

    found: list[Slow] = []

    def ask() -> None:
        together.wait()
        found.append(runtime.get(Slow))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert set(map(id, found)) == {id(made[0])}


def test_order_of_precedence() -> None:
    process = current_runtime()
    assert process is default_runtime()
    main, inner = Runtime("main"), Runtime("inner")
    set_default_runtime(main)
    assert current_runtime() is main
    with use_runtime(inner) as entered:
        assert entered is inner
        assert current_runtime() is inner
        assert default_runtime() is main
    assert current_runtime() is main
    set_default_runtime(None)
    assert current_runtime() is process


def test_reset_forgets_both_the_chosen_and_the_made_runtime() -> None:
    process = default_runtime()
    set_default_runtime(Runtime())
    reset_default_runtime()
    assert default_runtime() is not process
    assert default_runtime() is default_runtime()


def test_nested_use_restores_the_outer_one_also_after_an_exception() -> None:
    outer, inner = Runtime(), Runtime()
    with use_runtime(outer):
        with pytest.raises(RuntimeError), use_runtime(inner):
            raise RuntimeError
        assert current_runtime() is outer


async def test_tasks_inherit_the_runtime_and_do_not_disturb_each_other() -> None:
    one, other = Runtime(), Runtime()

    async def look() -> Runtime:
        await asyncio.sleep(0)
        return current_runtime()

    with use_runtime(one):
        first = asyncio.create_task(look())
        with use_runtime(other):
            second = asyncio.create_task(look())
        third = asyncio.create_task(look())
    assert list(await asyncio.gather(first, second, third)) == [one, other, one]


def test_a_runtime_is_freed_with_its_registries() -> None:
    gc.collect()
    gc.disable()
    try:
        runtime = Runtime()
        registry = weakref.ref(runtime.get(Registry))
        with use_runtime(runtime):
            pass
        del runtime
        assert registry() is None
    finally:
        gc.enable()


def test_repr_names_the_runtime_and_what_it_keeps() -> None:
    runtime = Runtime("shop")
    runtime.get(Registry)
    assert repr(runtime) == "<Runtime 'shop': Registry>"
    assert repr(Runtime()) == "<Runtime: >"
