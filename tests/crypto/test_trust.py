"""Trusted keys: names, policies, and how they are told."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.crypto.trust import Policy, TrustedKey, TrustStore
from xml_pipeline.errors import ConfigurationError

from .kit import BANK, SHOP, STRANGER, trusting

NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name.strip() == name and "*" not in name)


def key(*names: str, policy: Policy = Policy.REQUIRE) -> TrustedKey:
    return TrustedKey(SHOP.public_key, names, policy)


@pytest.mark.parametrize(
    ("names", "name", "speaks"),
    [
        (("shop",), "shop", True),
        (("shop",), "shop.clerk", False),
        (("shop",), "Shop", False),
        (("shop",), "shop ", False),
        (("shop.*",), "shop.clerk", True),
        (("shop.*",), "shop.clerk.of.the.day", True),
        (("shop.*",), "shop", False),
        (("shop.*",), "shop.", False),
        (("shop.*",), "shopping.clerk", False),
        (("shop.*",), "xshop.clerk", False),
        (("shop.*",), "Shop.clerk", False),
        (("shop", "shop.*"), "shop", True),
        (("a", "b.*"), "b.c", True),
        (("größe.*",), "größe.x", True),
        (("größe.*",), "gro\u0308ße.x", False),
        (("shop.clerk",), "shop.clerk", True),
        (("shop.clerk",), "shopXclerk", False),
        (("shop.*",), "", False),
    ],
)
def test_whom_a_key_speaks_for(names, name, speaks):
    assert key(*names).speaks_for(name) is speaks


@given(NAMES, NAMES)
def test_a_name_is_itself_and_what_is_below_it(one, two):
    assert key(one).speaks_for(one) and key(one).speaks_for(two) is (one == two)
    assert key(f"{one}.*").speaks_for(f"{one}.{two}") and not key(f"{one}.*").speaks_for(one)


@pytest.mark.parametrize("name", ["SHOP", "Shop", "shop.clerk", "SHOP.Clerk", "ſhop.x".replace("ſ", "S")])
def test_names_that_collide_are_protected_too(name):
    assert key("shop", "shop.*").protects(name)


@pytest.mark.parametrize("name", ["", "shopping", "other", "shop.", "x.shop"])
def test_others_are_not(name):
    assert not key("shop", "shop.*").protects(name)


@pytest.mark.parametrize("name", ["", " ", " shop", "shop ", "*", ".*", "a*", "*.shop", "a.*.b", "a.**", "a*.*"])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="a name"):
        key("good", name)


def test_a_key_needs_a_name():
    with pytest.raises(ValueError, match="at least one name"):
        key()
    with pytest.raises(ValueError, match="must be a text, not a int"):
        key(7)  # type: ignore[arg-type]


def test_keys_are_found_by_their_ids():
    store = trusting((SHOP, "shop", Policy.REQUIRE), (BANK, "bank", Policy.ACCEPT))
    found = store.find(BANK.key_id)
    assert found is not None and found.names == ("bank",) and found.policy is Policy.ACCEPT
    assert store.find(STRANGER.key_id) is None and store.find("") is None and store.find(SHOP.key_id[:-1]) is None


@pytest.mark.parametrize("default", Policy)
def test_what_is_asked_of_unsigned_messages(default):
    store = trusting(
        (SHOP, "a", Policy.REQUIRE), (BANK, "a b", Policy.IGNORE), (STRANGER, "a b c", Policy.ACCEPT), default=default
    )
    assert store.asked_of("a") is Policy.REQUIRE
    assert store.asked_of("A") is Policy.REQUIRE
    assert store.asked_of("b") is Policy.ACCEPT
    assert store.asked_of("c") is Policy.ACCEPT
    assert store.asked_of("d") is default


def test_without_a_word_everything_must_be_signed():
    assert TrustStore().asked_of("anybody") is Policy.REQUIRE
    assert TrustStore.from_config().default is Policy.REQUIRE
    assert TrustedKey(SHOP.public_key, ("shop",)).policy is Policy.REQUIRE


def test_a_store_does_not_change():
    store = trusting((SHOP, "shop", Policy.REQUIRE))
    for change in (
        lambda: setattr(store, "default", Policy.IGNORE),
        lambda: setattr(store, "keys", ()),
        lambda: setattr(store.keys[0], "policy", Policy.IGNORE),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    assert store == trusting((SHOP, "shop", Policy.REQUIRE)) and hash(store) == hash(
        trusting((SHOP, "shop", Policy.REQUIRE))
    )
    assert store != trusting((BANK, "shop", Policy.REQUIRE))


def test_a_key_stands_once():
    with pytest.raises(ValueError, match="there twice"):
        trusting((SHOP, "a", Policy.REQUIRE), (SHOP, "b", Policy.IGNORE))


# -- from a configuration

PUBLIC = SHOP.get_public_key_base64()


def test_what_a_configuration_says():
    store = TrustStore.from_config(
        [
            {"key": PUBLIC, "names": ["shop", "shop.*", "shop"], "policy": "accept"},
            {"key": BANK.get_public_key_pem(), "names": "bank"},
            {"key": STRANGER.get_public_key_base64(), "organism": "far", "names": "far", "policy": "ignore"},
        ],
        "ignore",
    )
    assert store == trusting(
        (SHOP, "shop shop.*", Policy.ACCEPT),
        (BANK, "bank", Policy.REQUIRE),
        (STRANGER, "far far.*", Policy.IGNORE),
        default=Policy.IGNORE,
    )


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, ["key: must be a public key", "trust[1]: must say for whom"]),
        ({"key": PUBLIC}, ["must say for whom the key may speak, with organism or names"]),
        ({"key": PUBLIC, "organism": ""}, ["organism: a name must not be empty"]),
        ({"key": PUBLIC, "organism": "shop.*"}, ["organism: an organism's name has no *"]),
        ({"key": PUBLIC, "organism": None, "names": 7}, ["organism: a name must be a text", "names: must be a name"]),
        ({"key": 7, "names": 7}, ["key: must be a public key", "names: must be a name, or a list"]),
        ({"key": "x", "names": ["a"]}, ["key: a public key is the base64 of 32 bytes"]),
        ({"key": PUBLIC, "names": []}, ["names: must be a name, or a list"]),
        ({"key": PUBLIC, "names": ["*", 7, "ok"]}, ["names: a name may have a * only", "names: a name must be a text"]),
        (
            {"key": PUBLIC, "names": "a", "policy": "requre"},
            ["policy: must be require, accept or ignore, not 'requre'"],
        ),
        ({"key": PUBLIC, "names": "a", "policy": None}, ["policy: must be require, accept or ignore, not 'None'"]),
        ({"key": PUBLIC, "names": "a", "policy": ["require"]}, ["policy: must be require"]),
        (
            {"key": PUBLIC, "names": "a", "polcy": "accept", 7: 8},
            ["the key '7' is unknown", "the key 'polcy' is unknown"],
        ),
        ("shop", ["must be a mapping"]),
        (None, ["must be a mapping"]),
    ],
)
def test_all_that_is_wrong_is_told_at_once(entry, told):
    with pytest.raises(ConfigurationError) as caught:
        TrustStore.from_config([{"key": BANK.get_public_key_base64(), "names": "bank"}, entry], "no")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(told) + 1
    assert lines[-1] == "signatures: must be require, accept or ignore, not 'no'"
    for line, text in zip(lines, told, strict=False):
        assert line.startswith("trust[1]") and text in line


def test_a_key_that_is_told_twice():
    entries = [{"key": PUBLIC, "names": "a"}, {"key": SHOP.get_public_key_pem(), "names": "b"}]
    with pytest.raises(ConfigurationError, match=r"trust\[1\].key: is the same as trust\[0\].key"):
        TrustStore.from_config(entries)


def test_the_order_of_keys_does_not_matter():
    keys = [(SHOP, "a x.*", Policy.IGNORE), (BANK, "a", Policy.REQUIRE), (STRANGER, "x.*", Policy.ACCEPT)]
    expected = [Policy.REQUIRE, Policy.ACCEPT, Policy.IGNORE]
    for _ in range(6):
        random.Random(0).shuffle(keys)
        store = trusting(*keys, default=Policy.IGNORE)
        assert [store.asked_of(name) for name in ("a", "x.y", "z")] == expected
