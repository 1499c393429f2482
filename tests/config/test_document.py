from __future__ import annotations

from xml_pipeline.config.document import BackendSection, ListenerSection, OrganismDocument, OrganismSection
from xml_pipeline.config.limits import LimitFields, Limits
from xml_pipeline.config.model import ListenerConfig


def test_every_limit_is_a_key_of_the_file_with_the_same_default() -> None:
    document = OrganismDocument(organism=OrganismSection(name="x"))
    assert {name: getattr(document, name) for name in LimitFields.model_fields} == Limits().model_dump()


def test_every_key_is_described() -> None:
    for model in (OrganismDocument, OrganismSection, ListenerSection, BackendSection):
        assert all(field.description for field in model.model_fields.values())


def test_defaults_of_a_listener_are_those_of_programs() -> None:
    section = ListenerSection(name="a", payload_class=("a.B",), handler="a.b", description="d")
    config = ListenerConfig(name="a", payload_class_path="a.B", handler_path="a.b", description="d")
    same = set(ListenerSection.model_fields) & set(ListenerConfig.model_fields) - {"payload_class", "handler"}
    same -= {"timeout", "output_class"}
    assert len(same) > 8
    assert {name: getattr(section, name) for name in same} == {name: getattr(config, name) for name in same}
