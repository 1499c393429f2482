from __future__ import annotations

import pytest

from third_party.xmlable import XError
from third_party.xmlable.names import checked, is_xml_name, pascal


@pytest.mark.parametrize(
    ("field", "element"),
    [
        ("text", "Text"),
        ("n", "N"),
        ("user_id", "UserId"),
        ("html_body", "HtmlBody"),
        ("field_12", "Field12"),
        ("ab_c", "AbC"),
        ("a_bc", "ABc"),
        ("userID", "UserID"),
        ("camelCase", "CamelCase"),
        ("URL", "URL"),
        ("MAX_SIZE", "MAX_SIZE"),
        ("a_b", "A_B"),
        ("x2_y", "X2_Y"),
        ("a1_b2", "A1_B2"),
        ("a__b", "A__B"),
        ("_x", "_X"),
        ("_private_name", "PrivateName"),
        ("trailing_", "Trailing"),
        ("retry-allowed", "RetryAllowed"),
        ("größe_über", "GrößeÜber"),
        ("名_前", "名_前"),
    ],
)
def test_pascal(field: str, element: str) -> None:
    assert pascal(field) == element


@pytest.mark.parametrize("name", ["Text", "_x", "a-b.c", "Größe", "名前", "Item-1"])
def test_xml_names(name: str) -> None:
    assert is_xml_name(name)


@pytest.mark.parametrize("name", ["", "1a", "-a", "a b", "a:b", "a<b", "a'", "a{b}", "a\n", "a\\", "Box[int]"])
def test_other_names(name: str) -> None:
    assert not is_xml_name(name)


def test_checked_says_what_to_do() -> None:
    assert checked("Text", of="its element") == "Text"
    with pytest.raises(XError, match=r"its element would be called '1st', which is no XML name; .*xml_name"):
        checked("1st", of="its element")
