"""What a stream keeps, told from its configuration, compared with what the server keeps in it."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from xml_pipeline.mesh.errors import ConnectionDenied
from xml_pipeline.mesh.stream_content import content_of
from xml_pipeline.mesh.subject_patterns import holds

TOKENS = ("a", "b", "no-pattern-names-this")
SUBJECTS = [".".join(each) for length in (1, 2) for each in product(TOKENS, repeat=length)]
PATTERNS = [".".join(each) for length in (1, 2) for each in product(("a", "b", "*", ">"), repeat=length)]
PATTERNS = [each for each in PATTERNS if not each.startswith(">.")]


def copying(name="ORIGIN", **more):
    return {"name": name, **more}


STREAMS = {
    "one subject": {"subjects": ["a"]},
    "several": {"subjects": ["a", "b.*"]},
    "all of them": {"subjects": ["a.*", "b.*", "*"]},
    "a mirror": {"mirror": copying()},
    "a mirror of a part": {"mirror": copying(filter_subject="a.*")},
    "a mirror of what is not there": {"mirror": copying(filter_subject="x.*")},
    "a mirror of parts": {
        "mirror": copying(subject_transforms=[{"src": "a.*", "dest": ""}, {"src": "b.b", "dest": "b.b"}])
    },
    "a source": {"sources": [copying()]},
    "parts of a source": {"sources": [copying(filter_subject="a.a"), copying(filter_subject="a.b")]},
    "a source beside subjects": {"subjects": ["own.>"], "sources": [copying(filter_subject="*")]},
}


async def until_it_has(jetstream, name, expected):
    while True:
        found = await jetstream.api(f"STREAM.INFO.{name}", {"subjects_filter": ">"})
        kept = set(found["state"].get("subjects") or ())
        if kept == expected:
            return
        await asyncio.sleep(0.01)


ORIGIN = ["*", "a.*", "b.*"]


def copied(source):
    rules = source.get("subject_transforms") or [{"src": source.get("filter_subject") or ">"}]
    return {each for each in SUBJECTS for rule in rules if holds([rule["src"]], each) and holds(ORIGIN, each)}


def published(config):
    sources = [config["mirror"]] if "mirror" in config else config.get("sources")
    if sources is None:
        return {each for each in SUBJECTS if holds(config["subjects"], each)}
    return set().union(*map(copied, sources))


@pytest.mark.parametrize("name", STREAMS)
async def test_it_keeps_a_subject_if_it_keeps_all_that_the_subject_fits(mesh, name):
    jetstream, config = mesh.parts.jetstream, STREAMS[name]
    if "mirror" in config or "sources" in config:
        await jetstream.api("STREAM.CREATE.ORIGIN", {"name": "ORIGIN", "subjects": ORIGIN})
    kept_as = (await jetstream.api("STREAM.CREATE.IT", {"name": "IT", **config}))["config"]
    expected = published(config)
    for subject in SUBJECTS:
        if holds(ORIGIN, subject) and ("ORIGIN" in str(config) or subject in expected):
            await jetstream.publish(subject, b"")
    await until_it_has(jetstream, "IT", expected)
    for pattern in PATTERNS:
        content = await content_of(jetstream, kept_as, pattern)
        wanted = {each for each in SUBJECTS if holds([pattern], each)}
        longer = pattern.endswith(">")  # than any subject that was published
        assert content.holds(pattern) == (wanted <= expected and not longer), (pattern, str(content))
        assert content.is_all


RENAMING = {
    "subjects": ["orders.*", "bills.*"],
    "subject_transform": {"src": "orders.*", "dest": "old.{{wildcard(1)}}"},
}


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("bills.*", True),
        ("bills.new", True),
        ("orders.*", False),
        ("orders.new", False),
        ("old.*", True),
        ("old.new", True),
        ("old.>", False),
        ("*.new", False),
    ],
)
async def test_what_is_renamed_is_kept_under_its_new_name(mesh, subject, expected):
    jetstream = mesh.parts.jetstream
    config = (await jetstream.api("STREAM.CREATE.IT", {"name": "IT", **RENAMING}))["config"]
    for each in ("orders.new", "bills.new"):
        await jetstream.publish(each, b"")
    await until_it_has(jetstream, "IT", {"old.new", "bills.new"})
    content = await content_of(jetstream, config, subject)
    assert content.holds(subject) is expected
    assert str(content) == "bills.* without orders.*, old.*"


@pytest.mark.parametrize(("subject", "expected"), [("orders.>", False), ("orders.old.*", False), ("orders.new", True)])
async def test_so_is_a_part_of_a_subject(mesh, subject, expected):
    change = {"src": "orders.old.*", "dest": "archive.{{wildcard(1)}}"}
    content = await content_of(mesh.parts.jetstream, {"subjects": ["orders.>"], "subject_transform": change}, subject)
    assert content.holds(subject) is expected
    assert str(content) == "orders.> without orders.old.*, archive.*"


async def test_copies_of_copies_are_looked_into(mesh):
    jetstream = mesh.parts.jetstream
    await jetstream.api("STREAM.CREATE.A", {"name": "A", "subjects": ["a.*", "b.*"]})
    await jetstream.api("STREAM.CREATE.B", {"name": "B", "mirror": {"name": "A", "filter_subject": "a.*"}})
    found = await jetstream.api("STREAM.CREATE.C", {"name": "C", "sources": [{"name": "B"}]})
    content = await content_of(jetstream, found["config"], "*.*")
    assert (str(content), content.is_all) == ("a.*", True)
    assert content.holds("a.x")
    assert not content.holds("b.x")


@pytest.mark.parametrize(
    "config",
    [
        {"mirror": {"name": "A", "external": {"api": "$JS.other.API"}}},
        {"sources": [{"name": "GONE"}], "subjects": ["b"]},
        {"subjects": ["a.*.*"], "subject_transform": {"src": "a.*.*", "dest": "x.{{splitfromleft(1,2)}}"}},
    ],
)
async def test_what_cannot_be_looked_into_is_said_to_be_so(mesh, config):
    jetstream = mesh.parts.jetstream
    await jetstream.api("STREAM.CREATE.A", {"name": "A", "subjects": ["x.>"]})  # not the one elsewhere of this name
    content = await content_of(jetstream, config, "x.>")
    assert not content.is_all
    assert not content.holds("x.>")


async def test_copies_that_go_round_have_an_end():
    class Round:
        async def stream(self, name):
            return {"config": {"sources": [{"name": "A"}]}}

    content = await content_of(Round(), {"sources": [{"name": "A"}]}, "x")
    assert not content.is_all


async def test_nor_is_what_may_not_be_looked_into(mesh):
    class Forbidding:
        async def stream(self, name):
            raise ConnectionDenied(name)

    content = await content_of(Forbidding(), {"subjects": ["a"], "mirror": {"name": "A"}}, "b")
    assert (str(content), content.is_all) == ("a, and what it copies from elsewhere", False)
