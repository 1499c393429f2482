from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh import CatalogEntry
from xml_pipeline.mesh.catalog_document import elements_of, entries_of, merged, value_of

NAMES = st.sampled_from(["a", "b", "c", "d"])
ENTRIES = st.builds(CatalogEntry, name=NAMES, description=st.text(max_size=3))
JSON = st.recursive(st.none() | st.integers() | NAMES, lambda x: st.lists(x, max_size=2), max_leaves=3)
ELEMENTS = st.lists(
    ENTRIES.map(CatalogEntry.model_dump) | JSON | st.builds(dict, name=NAMES) | st.builds(dict, name=JSON)
)


@given(ELEMENTS, st.dictionaries(NAMES, st.text(max_size=3)), st.sets(NAMES))
def test_changing_our_own_entries(elements, wanted, gone):
    over = wanted.keys()
    gone -= wanted.keys()
    mine = [CatalogEntry(name=name, description=text) for name, text in wanted.items()]
    changed = merged(elements, mine, gone, over)

    def is_foreign(element):
        return not (isinstance(element, dict) and element.get("name") in [*wanted, *gone])

    # what is not ours stays, in its order
    assert [one for one in changed if is_foreign(one)] == [one for one in elements if is_foreign(one)]
    # ours are there once, as they are to be, and those that are gone are gone
    assert sorted((one["name"], one["description"]) for one in changed if not is_foreign(one)) == sorted(wanted.items())
    # and that is all there was to do
    assert merged(changed, mine, gone, over) is changed
    assert elements_of(value_of(changed)) == changed


def test_nothing_to_do_is_the_same_list():
    entry = CatalogEntry(name="a", description="")
    elements = [{"broken": 1}, entry.model_dump()]
    assert merged(elements, [entry], [], ["a"]) is elements
    assert merged(elements, [], ["b"], []) is elements


def test_an_element_that_makes_no_sense_hides_only_itself():
    elements = [{"name": "a", "description": "x"}, {"name": "b"}, 7, None, {"name": "c", "description": "y", "more": 1}]
    assert list(entries_of(elements)) == ["a", "c"]


@pytest.mark.parametrize("value", [b"", b"{nope", b"{}", b"7", b"null", b"\xff", b"[" * 100_000])
def test_a_value_that_is_no_array_is_none_at_all(value):
    assert elements_of(value) == []


def test_the_value_is_as_peers_expect_it():
    value = value_of(
        merged([], [CatalogEntry(name="demo.echo", description="Echoes", version="1.2.3", tags=["a"])], [], [])
    )
    assert json.loads(value) == [
        {
            "name": "demo.echo",
            "description": "Echoes",
            "version": "1.2.3",
            "tags": ["a"],
            "invocable": True,
            "streaming": False,
        }
    ]


def test_what_another_host_wrote_for_the_same_agent_stays_unless_ours_is_new():
    theirs = CatalogEntry(name="a", description="theirs").model_dump()
    ours = CatalogEntry(name="a", description="ours")
    assert merged([theirs], [ours], [], []) == [theirs]
    assert merged([theirs], [ours], [], ["a"]) == [ours.model_dump()]
    assert merged([], [ours], [], []) == [ours.model_dump()]
    assert merged([{"name": "a"}], [ours], [], []) == [ours.model_dump()], "it makes no sense, so nobody would find us"
