from __future__ import annotations

from typing import Any

import pytest

from xml_pipeline.config import Importer, InvalidConfiguration, ListenerConfig
from xml_pipeline.config.entries import Entry, import_entry, resolve_listener

from .conftest import Organism


@pytest.fixture
def importer(organism: Organism, monkeypatch: pytest.MonkeyPatch) -> Importer:
    monkeypatch.syspath_prepend(organism.directory)
    return Importer()


def entry(*faulty: str, **raw: Any) -> Entry:
    return Entry(3, raw, None, {("listeners", 3, key) for key in faulty})


def test_only_what_is_sound_is_imported(importer: Importer) -> None:
    one = entry(
        "output_class", handler="handlers.greet", output_class="no.such.Class", payload_class=["handlers.Order"]
    )
    assert one.sound("output_class") is None
    assert import_entry(one, importer) == []
    assert sorted(one.objects) == ["handler", "payload_class"]
    assert one.arguments()["handler"].__name__ == "greet"
    assert one.arguments()["payload_class"][0].__name__ == "Order"


def test_what_is_wrong_with_an_object_is_told_at_its_path(importer: Importer) -> None:
    one = entry(
        handler="handlers.sync", payload_class=["handlers.Order", "handlers.number"], output_class="handlers.No"
    )
    assert [str(problem) for problem in import_entry(one, importer)] == [
        "listeners[3].payload_class[1]: a payload class must be a class, not a value of type int",
        "listeners[3].handler: the handler must be async: write 'async def sync'",
        "listeners[3].output_class: module 'handlers' has no attribute 'No'",
    ]
    assert one.objects == {}


def listener(**changes: Any) -> ListenerConfig:
    arguments = {"name": "a", "payload_class_path": "handlers.Greeting", "handler_path": "handlers.greet"}
    return ListenerConfig(**{**arguments, **changes})


def test_paths_of_a_listener_are_resolved_in_place(importer: Importer) -> None:
    one = listener(output_class_path="handlers.Answer")
    resolve_listener(one, importer)
    assert getattr(one.handler, "__name__", "") == "greet"
    assert [cls.__name__ for cls in one.payload_classes] == ["Greeting"]
    assert one.output_class is not None
    assert one.output_class.__name__ == "Answer"


def test_what_a_listener_has_is_kept_and_checked(importer: Importer) -> None:
    cls = importer.resolve("handlers.Order")
    one = listener(payload_class=cls, payload_class_path="no.such.Class")
    resolve_listener(one, importer)
    assert one.payload_class is cls
    with pytest.raises(InvalidConfiguration, match="listener 'a': NotAPayload is not a dataclass or pydantic model"):
        resolve_listener(listener(payload_class=importer.resolve("handlers.NotAPayload")), importer)
    with pytest.raises(InvalidConfiguration, match="must be async"):
        resolve_listener(listener(handler=importer.resolve("handlers.sync")), importer)
    with pytest.raises(InvalidConfiguration, match="Handler integrity check failed"):
        resolve_listener(listener(handler=importer.resolve("handlers.greet"), handler_sha256="0" * 64), importer)


def test_a_listener_is_not_half_resolved(importer: Importer) -> None:
    one = listener(payload_class_path=("handlers.Greeting", "handlers.Nothing"), handler_path="handlers.missing")
    with pytest.raises(InvalidConfiguration) as caught:
        resolve_listener(one, importer)
    assert str(caught.value).splitlines() == [
        "payload_class: listener 'a': module 'handlers' has no attribute 'Nothing'",
        "handler: listener 'a': module 'handlers' has no attribute 'missing'",
    ]
    assert one.handler is None
    assert one.payload_class is None
