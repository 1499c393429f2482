"""Agents that come, go, and take each other's place while they are at work."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.mesh.kit import spin, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, CallCancelled, NotAvailable, NotFound, roster
from xml_pipeline.mesh.agent import Agent


class Desk:
    """An agent whose requests wait to be let go."""

    def __init__(self, name, reply):
        self.begun = 0
        self.go = asyncio.Event()

        async def hold(text: str) -> str:
            self.begun += 1
            await self.go.wait()
            return f"{text}: {reply}"

        self.agent = Agent.of(AgentSpec(name=name), hold)

    async def ask(self, mesh, text):
        """A call that it has begun with."""
        before = self.begun
        call = asyncio.create_task(mesh.call(self.agent.name, text, timeout=60.0))
        await spin(lambda: self.begun > before)
        return call


async def test_what_has_begun_is_finished_though_another_one_has_its_place(host, mesh):
    async with host:
        calls, desks = [], []
        for reply in ("one", "two", "three"):
            desks.append(Desk("a.desk", reply))
            await host.offer(desks[-1].agent)
            await until_names(mesh, "a.desk")
            calls.append(await desks[-1].ask(mesh, "x"))
        assert [desk.begun for desk in desks] == [1, 1, 1]
        for desk in reversed(desks):
            desk.go.set()
        assert await asyncio.gather(*calls) == ["x: one", "x: two", "x: three"]


async def test_who_gives_up_such_a_call_ends_it(host, mesh):
    async with host:
        one, two = Desk("a.desk", "one"), Desk("a.desk", "two")
        await host.offer(one.agent)
        await until_names(mesh, "a.desk")
        call = await one.ask(mesh, "x")
        await host.offer(two.agent)
        call.cancel()
        await asyncio.wait([call])
        await spin(lambda: not host.parts.host._leaving)


async def test_one_that_is_at_work_holds_up_no_other(host, mesh):
    async with host:
        slow, quick = Desk("a.slow", "slow"), Desk("a.quick", "quick")
        await host.offer(slow.agent)
        await host.offer(quick.agent)
        await until_names(mesh, "a.slow", "a.quick")
        call, other = await slow.ask(mesh, "x"), await quick.ask(mesh, "y")
        leaving = asyncio.create_task(host.withdraw("a.slow", 60.0))
        going = asyncio.create_task(host.withdraw("a.quick", 60.0))
        quick.go.set()
        await going
        assert await other == "y: quick"
        await host.offer(Desk("a.third", "third").agent)
        assert not leaving.done()
        slow.go.set()
        assert await call == "x: slow"
        await leaving
        await until_names(mesh, "a.third")


async def test_one_that_goes_is_in_the_catalog_no_more_while_it_finishes_what_it_has(host, mesh):
    async with host:
        desk = Desk("a.desk", "one")
        await host.offer(desk.agent)
        await until_names(mesh, "a.desk")
        call = await desk.ask(mesh, "x")
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await until_names(mesh)
        # Who looks after the dead has to know of it, should the host die now.
        assert await mesh.parts.instances.all() == {host.instance_id: {"a.desk"}}
        assert (await mesh.contract("a.desk")).name == "a.desk"
        assert not leaving.done()
        desk.go.set()
        assert await call == "x: one"
        await leaving
        assert await mesh.parts.instances.all() == {}
        with pytest.raises(NotFound):
            await mesh.contract("a.desk")


async def test_it_takes_requests_until_it_has_left_the_catalog(host, mesh, monkeypatch):
    async with host:
        desk = Desk("a.desk", "one")
        desk.go.set()
        await host.offer(desk.agent)
        await until_names(mesh, "a.desk")
        is_to_go, deactivate, listed = asyncio.Event(), host.parts.host.deactivate, []

        async def late(*args):
            listed.append(host.parts.catalog.entry("a.desk"))
            await is_to_go.wait()
            await deactivate(*args)

        monkeypatch.setattr(host.parts.host, "deactivate", late)
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await until_names(mesh)
        assert await mesh.call("a.desk", "x") == "x: one"
        is_to_go.set()
        await leaving
        assert listed == [None]


async def test_it_is_served_no_more_though_nobody_waited_until_it_was_out_of_the_catalog(host, mesh, monkeypatch):
    async with host:
        desk = Desk("a.desk", "one")
        desk.go.set()
        await host.offer(desk.agent)
        await until_names(mesh, "a.desk")
        begun = asyncio.Event()

        async def held_up(names, timeout):
            begun.set()
            await asyncio.Event().wait()

        service = host.parts.host.service("a.desk")
        monkeypatch.setattr(host.parts.membership, "unlist", held_up)
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await begun.wait()
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        await spin(lambda: service._subscription is None)  # it has left the group: nothing comes any more
        with pytest.raises(NotAvailable):
            await mesh.call("a.desk", "x")
    await until_names(mesh)


async def test_what_others_serve_too_stays_in_the_catalog(host, mesh, server):
    async with host, AgentMesh(server.url) as other:
        one, two = Desk("a.desk", "one"), Desk("a.desk", "two")
        await host.offer(one.agent)
        call = await one.ask(mesh, "x")
        await other.offer(two.agent)
        changes, told = [], asyncio.Event()

        async def follow():
            async with aclosing(mesh.catalog_changes()) as found:
                async for change in found:
                    changes.append((change.name, change.after is not None))
                    told.set()

        following = asyncio.create_task(follow())
        await told.wait()
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await spin(lambda: host.registered("a.desk") is None)
        one.go.set()
        two.go.set()
        assert await call == "x: one"
        await leaving
        await other.offer(Desk("a.last", "last").agent)
        await spin(lambda: ("a.last", True) in changes)
        following.cancel()
        assert changes == [("a.desk", True), ("a.last", True)]
        assert await mesh.call("a.desk", "y") == "y: two"


async def test_one_that_cannot_leave_the_catalog_in_time_finishes_all_the_same(host, mesh, monkeypatch, caplog):
    async with host:
        desk = Desk("a.desk", "one")
        await host.offer(desk.agent)
        await until_names(mesh, "a.desk")
        call = await desk.ask(mesh, "x")
        monkeypatch.setattr(roster, "_UNLISTED_WITHIN", 0.0)
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await spin(lambda: not host.parts.host.names)
        desk.go.set()
        assert await call == "x: one"
        await leaving
        await until_names(mesh)
    assert "leaving the mesh" not in caplog.text


async def test_one_that_comes_back_before_it_has_gone_stays_known(host, mesh):
    async with host:
        one, two = Desk("a.desk", "one"), Desk("a.desk", "two")
        await host.offer(one.agent)
        await until_names(mesh, "a.desk")
        call = await one.ask(mesh, "x")
        leaving = asyncio.create_task(host.withdraw("a.desk", 60.0))
        await spin(lambda: host.registered("a.desk") is None)
        await host.offer(two.agent)
        again = await two.ask(mesh, "y")
        one.go.set()
        two.go.set()
        assert await asyncio.gather(call, again) == ["x: one", "y: two"]
        await leaving
        assert [entry.name for entry in await mesh.catalog()] == ["a.desk"]
        assert await mesh.call("a.desk", "z") == "z: two"


async def test_at_the_end_all_that_had_the_name_are_given_up(host, mesh):
    async with host:
        one, two = Desk("a.desk", "one"), Desk("a.desk", "two")
        await host.offer(one.agent)
        await until_names(mesh, "a.desk")
        calls = [await one.ask(mesh, "x")]
        await host.offer(two.agent)
        calls.append(await two.ask(mesh, "y"))
        await host.withdraw("a.desk", 0.0)
        for call in calls:
            with pytest.raises(CallCancelled):
                await call
        await until_names(mesh)
        with pytest.raises(NotFound):
            await mesh.call("a.desk", "z")
    assert not host._roster.agents
