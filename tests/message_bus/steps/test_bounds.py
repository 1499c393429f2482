import pytest

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.bounds import Bounds, check_shape, check_size
from xml_pipeline.strict_xml import parse_strict

SMALL = Bounds(max_message_bytes=1000, max_element_depth=5, max_elements=20, max_attributes=4)


def nested(depth):
    return b"<a>" * depth + b"</a>" * depth


def attributes(count):
    return b" ".join([b"<a", *(b'a%d=""' % number for number in range(count))]) + b"/>"


def prefixes(levels, each):
    starts = b"".join(
        b"<a " + b" ".join(b'xmlns:p%d-%d="urn:x"' % (level, number) for number in range(each)) + b">"
        for level in range(levels)
    )
    return starts + b"</a>" * levels


FIT = {
    "depth": nested(5),
    "elements": b"<a>" + b"<b/>" * 19 + b"</a>",
    "attributes": attributes(4),
    "attributes of many elements": b"<a>" + attributes(4) * 5 + b"</a>",
    "prefixes in scope": prefixes(2, 2),
    "prefixes beside each other": b"<a>" + prefixes(1, 4) * 5 + b"</a>",
    "mark-up in CDATA": b"<a><![CDATA[" + nested(40) + attributes(40) + b"]]></a>",
    "end tags": b"<a>" + b"<b></b>" * 19 + b"</a>",
}
EXCEED = {
    "depth": (nested(6), "max_element_depth, 5"),
    "depth without end tags": (b"<a>" * 5 + b"<b/>" + b"</a>" * 5, "max_element_depth, 5"),
    "elements": (b"<a>" + b"<b/>" * 20 + b"</a>", "max_elements, 20"),
    "attributes": (attributes(5), "max_attributes, 4"),
    "attributes of the last element": (b"<a>" + attributes(4) + attributes(5) + b"</a>", "max_attributes, 4"),
    "attributes with prefixes": (
        b'<a xmlns:p="urn:p">' + attributes(5).replace(b" a", b" p:a") + b"</a>",
        "max_attributes, 4",
    ),
    "prefixes on one element": (prefixes(1, 5), "max_attributes, 4"),
    "prefixes along a path": (prefixes(3, 2), "max_attributes, 4"),
}


@pytest.mark.parametrize("raw", FIT.values(), ids=FIT)
def test_at_the_bound_is_fine(raw):
    check_shape(raw, parse_strict(raw), SMALL)


@pytest.mark.parametrize(("raw", "reason"), EXCEED.values(), ids=EXCEED)
def test_beyond_the_bound_is_refused(raw, reason):
    with pytest.raises(ValidationError) as caught:
        check_shape(raw, parse_strict(raw), SMALL)
    assert reason in caught.value.detail


def test_size():
    check_size(b"x" * 1000, SMALL)
    with pytest.raises(ValidationError) as caught:
        check_size(b"x" * 1001, SMALL)
    assert "1001 bytes" in caught.value.detail
    assert "max_message_bytes" in caught.value.detail


@pytest.mark.parametrize("bounds", [SMALL, Bounds(), Bounds(max_elements=3), Bounds(max_attributes=1)])
def test_nothing_shorter_than_the_harmless_length_exceeds_a_bound(bounds):
    smallest = [
        b"<a>" * bounds.max_element_depth + b"<a/>" + b"</a>" * bounds.max_element_depth,
        b"<a>" + b"<b/>" * (bounds.max_elements - 1) + b"<c/></a>",
        b"<a " + b" ".join(b'%s=""' % name for name in short_names(bounds.max_attributes + 1)) + b"/>",
    ]
    exceeding = 0
    for raw in smallest:
        try:
            check_shape(raw, parse_strict(raw), bounds)
        except ValidationError:
            exceeding += 1
            assert len(raw) >= bounds.harmless_length
    assert exceeding == 3


def short_names(count):
    letters = [bytes([letter]) for letter in b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"]
    return (letters + [one + two for one in letters for two in letters])[:count]


def test_the_parser_s_own_depth_ends_a_larger_bound():
    generous = Bounds(max_element_depth=1000)
    raw = nested(255)
    check_shape(raw, parse_strict(raw), generous)
    with pytest.raises(ValidationError):
        parse_strict(nested(257))
