"""How loops end when the mesh object is left."""

from __future__ import annotations

import asyncio

import pytest

from xml_pipeline.mesh import AgentMesh, AgentSpec


async def test_a_loop_that_waits_ends(server):
    async with AgentMesh(server.url) as mesh:
        begun = asyncio.Event()

        async def read(resume: str) -> str:
            async for _ in mesh.kv.watch(">", resume=resume):
                begun.set()
            return "ended"

        readers = [asyncio.create_task(read(resume)) for resume in ("", "me")]
        await mesh.kv.put("a", "1")
        await begun.wait()
    assert await asyncio.gather(*readers) == ["ended", "ended"]


@pytest.mark.parametrize("resume", ["", "me"])
async def test_a_loop_that_works_finishes_what_it_is_at(server, resume):
    at_work, go, finished = asyncio.Event(), asyncio.Event(), []
    async with AgentMesh(server.url) as mesh:

        async def read() -> None:
            async for value in mesh.kv.watch("k.*", resume=resume):
                at_work.set()
                await go.wait()
                await mesh.kv.put("out", value)  # it may still use the mesh
                finished.append(value)

        reader = asyncio.create_task(read())
        for number in range(3):
            await mesh.kv.put(f"k.{number}", str(number))
        await at_work.wait()
        leaving = asyncio.create_task(mesh.__aexit__(None, None, None))
        await asyncio.sleep(0)
        assert not leaving.done()
        go.set()
        await leaving
        await reader
    assert finished == ["0"]
    async with AgentMesh(server.url) as mesh:
        async for value in mesh.kv.watch("k.*", resume="me"):
            assert value == ("1" if resume else "0")  # what it finished counts as handled
            break
        assert await mesh.kv.get("out") == "0"


async def test_a_loop_that_does_not_finish_is_given_up_and_what_it_had_is_handed_back(server):
    at_work = asyncio.Event()
    async with AgentMesh(server.url, drain_timeout=0.05) as mesh:

        async def read() -> None:
            async for _ in mesh.kv.watch("k", resume="me"):
                at_work.set()
                await asyncio.Event().wait()

        reader = asyncio.create_task(read())
        await mesh.kv.put("k", "1")
        await at_work.wait()
    async with AgentMesh(server.url) as mesh:
        async with asyncio.timeout(5):
            async for value in mesh.kv.watch("k", resume="me"):
                assert value == "1"
                break
    reader.cancel()
    await asyncio.wait([reader])


async def test_a_loop_of_the_leaving_task_is_not_waited_for(server):
    """It could not go on before the mesh object is left."""
    async with asyncio.timeout(20):  # less than the time to drain
        async with AgentMesh(server.url) as mesh:
            await mesh.kv.put("k", "1")
            left_open = mesh.kv.watch("k", resume="me")
            assert await anext(left_open) == "1"
        async with AgentMesh(server.url) as mesh:
            async for value in mesh.kv.watch("k", resume="me"):
                assert value == "1"
                break
    await left_open.aclose()


@pytest.mark.parametrize("resume", ["", "me"])
async def test_a_loop_may_be_left_while_it_is_given_up(server, resume):
    async with AgentMesh(server.url, drain_timeout=0.0) as mesh:
        await mesh.kv.put("k", "1")
        values = mesh.kv.watch("k", resume=resume)
        assert await anext(values) == "1"
        leaving = asyncio.create_task(mesh.__aexit__(None, None, None))
        await asyncio.gather(leaving, values.aclose())


async def test_a_loop_that_begins_while_it_is_left_has_nothing(server):
    entered, go, seen = asyncio.Event(), asyncio.Event(), []
    async with AgentMesh(server.url) as mesh:

        @mesh.agent(AgentSpec(name="slow", description="Answers late"))
        async def slow(number: int) -> int:
            entered.set()
            await go.wait()
            seen.extend([value async for value in mesh.kv.watch(">")])
            return number

        await mesh.kv.put("k", "1")
        calling = asyncio.create_task(mesh.call("slow", 1))
        await entered.wait()
        leaving = asyncio.create_task(mesh.__aexit__(None, None, None))
        await asyncio.sleep(0)
        go.set()
        await leaving
        assert await calling == 1
    assert seen == []


async def test_no_task_is_left_behind(server):
    before = asyncio.all_tasks()
    async with AgentMesh(server.url) as mesh:
        await mesh.kv.put("k", "1")
        for resume in ("", "me"):
            async for _ in mesh.kv.watch("k", resume=resume):
                break
        await mesh.kv.list(">")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
