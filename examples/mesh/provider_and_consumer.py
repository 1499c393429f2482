"""One process offers agents, another one finds and uses them; neither knows where the other is.

Run it: ``python examples/mesh/provider_and_consumer.py``. It starts a server and both of them.
"""

# ruff: noqa: T201

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from xml_pipeline.mesh import AgentMesh, AgentSpec, InvalidInput


class Text(BaseModel):
    text: str = Field(min_length=1)


class Summary(BaseModel):
    text: str
    shortened: int


# -- the provider


def provide(url: str) -> None:
    """Offer two agents until it is told to stop."""
    mesh = AgentMesh(url)

    @mesh.agent(AgentSpec(name="text.summarizer", tags=["text"]))
    async def summarize(request: Text) -> Summary:
        """Keeps the first sentence."""
        first = request.text.partition(".")[0] + "."
        return Summary(text=first, shortened=len(request.text) - len(first))

    @mesh.agent(AgentSpec(name="text.speller", tags=["text"]))
    async def spell(request: Text) -> AsyncIterator[str]:
        """Says a text letter by letter."""
        for letter in request.text:
            yield letter

    mesh.run()


# -- the consumer


async def appear(mesh: AgentMesh, *names: str) -> None:
    """Wait until these agents are there, in whatever order the processes were started."""
    missing = set(names)
    async for change in mesh.catalog_changes():
        missing.discard(change.name)
        if not missing:
            break


async def consume(url: str) -> None:
    """Find the agents, and use them."""
    async with AgentMesh(url) as mesh:
        await appear(mesh, "text.summarizer", "text.speller")
        for entry in await mesh.catalog(channel="text"):
            print(f"found {entry.name}: {entry.description}")

        contract = await mesh.contract("text.summarizer")
        print(f"it takes {', '.join(contract.input_schema['properties'])}")
        text = "The mesh carries calls. It also carries streams, keys and files."
        summary = await mesh.call("text.summarizer", Text(text=text), result_type=Summary)
        print(f"call: {summary.text!r}, {summary.shortened} characters less")

        letters = [letter async for letter in mesh.stream("text.speller", Text(text="mesh"))]
        print(f"stream: {' '.join(letters)}")

        try:
            await mesh.call("text.summarizer", {"text": ""})
        except InvalidInput as error:
            print(f"error: {error.code}: {error.message}")


# -- both of them


async def main() -> None:
    async with AgentMesh.local() as mesh:
        consumer = await asyncio.create_subprocess_exec(sys.executable, __file__, "consumer", mesh.url)
        provider = await asyncio.create_subprocess_exec(sys.executable, __file__, "provider", mesh.url)
        consumed = await consumer.wait()
        provider.terminate()  # it finishes what it is at, and leaves
        provided = await provider.wait()
        left = await mesh.catalog()
    print(f"summary: the consumer ended with {consumed}, the provider with {provided}; {len(left)} agents are left")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        asyncio.run(main())
    elif sys.argv[1] == "provider":
        provide(sys.argv[2])
    else:
        asyncio.run(consume(sys.argv[2]))
