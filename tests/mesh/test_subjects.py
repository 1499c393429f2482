from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh import subjects

NAME = st.from_regex(r"[A-Za-z0-9_-]{1,12}(\.[A-Za-z0-9_-]{1,12}){0,4}", fullmatch=True)
BUILDERS = [
    subjects.agent_subject,
    subjects.queue_group,
    subjects.events_subject,
    subjects.channel_subject,
    subjects.errors_subject,
    subjects.death_subject,
    subjects.logs_subject,
]
BUILDERS_OF_IDS = [
    subjects.stream_subject,
    subjects.results_subject,
    subjects.cancel_subject,
    subjects.credit_subject,
]


def test_the_subjects_of_the_protocol():
    assert subjects.agent_subject("demo.echo") == "mesh.agent.demo.echo"
    assert subjects.queue_group("demo.echo") == "q.demo.echo"
    assert subjects.events_subject("demo.pub") == "mesh.agent.demo.pub.events"
    assert subjects.channel_subject("demo") == "mesh.agent.demo.>"
    assert subjects.errors_subject("demo.echo") == "mesh.errors.demo.echo"
    assert subjects.death_subject("demo.echo") == "mesh.death.demo.echo"
    assert subjects.logs_subject("demo.echo") == "mesh.logs.demo.echo"
    assert subjects.stream_subject("ab12") == "mesh.stream.ab12"
    assert subjects.results_subject("ab12") == "mesh.results.ab12"
    assert subjects.cancel_subject("ab12") == "mesh.cancel.ab12"
    assert subjects.credit_subject("ab12") == "mesh.credit.ab12"


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "a\n", "a\r\nPUB x 0", "ä", "a/b", "x" * 201, None, 7]
)
@pytest.mark.parametrize("build", BUILDERS)
def test_what_is_no_name_becomes_no_subject(build, name):
    with pytest.raises(ValueError, match="name of an agent"):
        build(name)


@given(NAME)
def test_a_name_adds_no_token_of_its_own_making(name):
    assert subjects.check_agent_name(name) == name
    assert subjects.agent_subject(name).split(".")[2:] == name.split(".")


@given(st.text())
def test_any_text_is_a_name_or_refused(text):
    for build in BUILDERS:
        try:
            subject = build(text)
        except ValueError:
            continue
        assert re.fullmatch(r"[A-Za-z0-9_.>-]+", subject)
        assert text in subject


@given(st.text())
def test_an_id_is_one_token_or_refused(text):
    for build in BUILDERS_OF_IDS:
        try:
            subject = build(text)
        except ValueError:
            assert not subjects.is_request_id(text)
            continue
        assert len(subject.split(".")) == 3
        assert subjects.is_request_id(text)


def test_new_ids_are_ids_and_differ():
    ids = {subjects.new_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", one) and subjects.is_request_id(one) for one in ids)


@pytest.mark.parametrize("subject", ["a", "a.b-c_d", "mesh.x.1"])
def test_subjects_to_publish_to(subject):
    assert subjects.check_subject(subject) == subject


@pytest.mark.parametrize("subject", ["", "a.*", "a.>", "a..b", "a b", "a\n", "$JS.API", "_INBOX.a.", None])
def test_subjects_not_to_publish_to(subject):
    with pytest.raises(ValueError, match="publish"):
        subjects.check_subject(subject)


@pytest.mark.parametrize("subject", ["a", "a.*.c", "a.>", ">", "*", "$SYS.x", "_INBOX.abc.>"])
def test_subjects_to_subscribe_to(subject):
    assert subjects.check_filter(subject) == subject


@pytest.mark.parametrize("subject", ["", "a.>.b", "a.b*", "a..b", "a b", ".a", "a.", "a\n", None, "a\x00"])
def test_subjects_not_to_subscribe_to(subject):
    with pytest.raises(ValueError, match="subscribe"):
        subjects.check_filter(subject)


@pytest.mark.parametrize(
    ("subject", "is_one"),
    [("_INBOX.a.b", True), ("_INBOX.", False), ("_INBOX.>", False), ("_INBOX.a b", False), ("mesh.stream.x", False)],
)
def test_where_answers_may_go_on_a_peers_word(subject, is_one):
    assert subjects.is_inbox(subject) is is_one


@pytest.mark.parametrize(
    ("name", "within"), [("a", True), ("a.b", True), ("a.b.c", True), ("ab", False), ("b.a", False)]
)
def test_channels(name, within):
    assert subjects.is_within(name, "a") is within
