"""Payload classes and handlers of the research desk; see ``organism.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, field

from third_party.xmlable import parse_element
from xml_pipeline import HandlerMetadata, HandlerResponse
from xml_pipeline.message_bus.message_state import SystemError
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.primitives import (
    BufferComplete,
    BufferStart,
    SequenceComplete,
    SequenceStart,
    TextInput,
    TextOutput,
    TodoClosed,
    TodoComplete,
    TodoRegistered,
    TodoUntil,
    parse_payloads,
    payload_text,
)

LIBRARY = {
    "almanac": "The moon raises the tides.",
    "atlas": "Tides come twice a day.",
    "diary": "The moon raises the tides.",
}
SOURCES = ("almanac", "atlas", "lost scroll", "diary")


@dataclass
class Assignment:
    """Write about this."""

    topic: str


@dataclass
class Article:
    """What came of it.

    Args:
        text: the article.
        translation: in French, if there was budget for it.
        remarks: what the desk has to say about its work.
    """

    text: str
    translation: str = ""
    remarks: list[str] = field(default_factory=list)


@dataclass
class Source:
    """Read this."""

    title: str


@dataclass
class Excerpt:
    """What a source says."""

    title: str
    text: str


@dataclass
class Notes:
    """Excerpts as they came."""

    excerpts: list[str]


@dataclass
class CleanNotes:
    """Excerpts, each once."""

    excerpts: list[str]


@dataclass
class Outline:
    """What is to be written."""

    points: list[str]


@dataclass
class Claim:
    """Does this hold?"""

    claim: str


@dataclass
class Verdict:
    """It does, or it does not."""

    holds: bool
    text: str


@dataclass
class Draft:
    """Read this before it is published."""

    text: str


@dataclass
class Review:
    """What the reviewer thinks."""

    verdict: str


# -- tools --------------------------------------------------------------------------------------------------------


async def read(source: Source, metadata: HandlerMetadata) -> HandlerResponse:
    """Read a source. A title that the library does not have is a failure, on purpose."""
    if source.title not in LIBRARY:
        raise LookupError(f"the library has no {source.title!r}")
    return HandlerResponse.respond(Excerpt(source.title, LIBRARY[source.title]))


async def clean(notes: Notes, metadata: HandlerMetadata) -> HandlerResponse:
    """Sort, and drop doubles."""
    return HandlerResponse.respond(CleanNotes(sorted(set(notes.excerpts))))


async def outline(notes: CleanNotes, metadata: HandlerMetadata) -> HandlerResponse:
    """One point for each note."""
    return HandlerResponse.respond(Outline(notes.excerpts))


async def check(claim: Claim, metadata: HandlerMetadata) -> HandlerResponse:
    """Check a claim; all claims of this example hold."""
    return HandlerResponse.respond(Verdict(True, f"It holds: {claim.claim}"))


async def review(draft: Draft, metadata: HandlerMetadata) -> HandlerResponse:
    """Read a draft."""
    return HandlerResponse.respond(Review("good" if "moon" in draft.text else "off the topic"))


# -- the editor ---------------------------------------------------------------------------------------------------


@dataclass
class Work:
    """What the editor has in hand for one assignment."""

    topic: str
    text: str = ""
    translation: str | None = None
    todo: str = ""
    verdict: str = ""
    remarks: list[str] = field(default_factory=list)


class Editor:
    """The editor's handler. Each message is a turn of its own, so what belongs together is kept by the frame's id.

    Answers come one at a time, however many calls are open: nothing here needs a lock.
    """

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}

    async def __call__(
        self, message: object, metadata: HandlerMetadata
    ) -> HandlerResponse | list[HandlerResponse] | None:
        """Decide what comes next."""
        if isinstance(message, Assignment):
            return self._begin(message, metadata)
        work = self._works[metadata.thread_id]
        match message:
            case TodoRegistered():
                work.todo = message.id
            case BufferComplete():
                return self._have_notes_sorted(message, work)
            case SequenceComplete():
                return self._have_text_written(message, work)
            case TextOutput() if metadata.tag == "text":
                return self._have_text_checked(message, work)
            case TextOutput():
                work.translation = message.text
            case SystemError() if metadata.tag == "translation":
                work.translation = ""
                work.remarks.append(f"there is no translation: {message.message}")
            case SystemError():
                return HandlerResponse.respond(Article(work.text, "", [*work.remarks, message.message]))
            case Review() if metadata.todo_nudge:  # the reminder is there for as long as the todo is open
                work.verdict = message.verdict
                return HandlerResponse(TodoComplete(work.todo), "system.todo")
            case TodoClosed():
                work.remarks.append(f"the reviewer says: {work.verdict}")
                work.todo = ""
        if work.verdict and not work.todo and work.translation is not None:
            return HandlerResponse.respond(Article(work.text, work.translation, sorted(work.remarks)))
        return None

    def _begin(self, assignment: Assignment, metadata: HandlerMetadata) -> list[HandlerResponse]:
        """Ask to be reminded of the review, and have all sources read."""
        self._works[metadata.thread_id] = Work(assignment.topic)
        get_registry().on_close(metadata.thread_id, lambda: self._works.pop(metadata.thread_id))
        items = "\n".join(payload_text(Source(title)) for title in SOURCES)
        return [
            HandlerResponse(TodoUntil("Review", "reviewer", "Note what the reviewer says."), "system.todo"),
            HandlerResponse(BufferStart(target="library", items=items, item_timeout=5.0), "system.buffer"),
        ]

    def _have_notes_sorted(self, done: BufferComplete, work: Work) -> HandlerResponse:
        """Some sources may have failed: go on with the others."""
        if done.successful < done.total:
            work.remarks.append(f"{done.total - done.successful} of {done.total} sources could not be read")
        (results,) = parse_payloads(done.results)
        excerpts = [parse_element(Excerpt, item[0]) for item in results if item.get("success") == "true"]
        notes = payload_text(Notes([excerpt.text for excerpt in excerpts]))
        return HandlerResponse(SequenceStart("notes.clean, notes.outline", notes, timeout=5.0), "system.sequence")

    def _have_text_written(self, done: SequenceComplete, work: Work) -> HandlerResponse:
        (outline,) = parse_payloads(done.final_result)
        points = " ".join(parse_element(Outline, outline).points)
        return HandlerResponse(TextInput(f"Write about {work.topic}: {points}"), "writer", tag="text")

    def _have_text_checked(self, answer: TextOutput, work: Work) -> list[HandlerResponse]:
        """Both at the same time."""
        work.text = answer.text
        return [
            HandlerResponse(Draft(answer.text), "reviewer"),
            HandlerResponse(TextInput(answer.text), "translator", tag="translation"),
        ]


edit = Editor()
