"""Agents, and a caller, written with the ``openagentmesh`` package alone: ``python words.py nats://localhost:4222``."""

# ruff: noqa: T201

import asyncio
import sys

from openagentmesh import AgentMesh, AgentSpec
from pydantic import BaseModel

mesh = AgentMesh(sys.argv[1])


class Word(BaseModel):
    text: str


class Spelling(BaseModel):
    letters: list[str]


class Tick(BaseModel):
    number: int


@mesh.agent(AgentSpec(name="words.speller", description="Spells words."))
async def spell(word: Word) -> Spelling:
    if not word.text.isalpha():
        raise ValueError(f"{word.text!r} is no word")
    return Spelling(letters=list(word.text))


@mesh.agent(AgentSpec(name="words.clock", description="Says a number every now and then."))
async def tick() -> Tick:
    number = 0
    while True:
        number += 1
        yield Tick(number=number)
        await asyncio.sleep(0.1)


async def main() -> None:
    async with mesh:
        # The package follows the catalog, and tells nobody when it has changed; its `kv.watch` sees other keys only.
        while not any(entry.name == "desk.clerk" for entry in await mesh.catalog()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        contract = await mesh.contract("desk.clerk")
        print(f"found desk.clerk: {contract.description}")
        for subject in ("mesh", "4 you"):
            answer = await mesh.call("desk.clerk", {"subject": subject})
            print(f"asked about {subject!r}, and was told: {answer['text']}")
        try:
            await mesh.call("desk.clerk", {"object": "mesh"})
        except Exception as error:
            print(f"asked wrongly, and was told: {getattr(error, 'code', '')}")


asyncio.run(main())
