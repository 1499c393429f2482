"""Key pairs and public keys: RFC 8032's vectors, files, and what is kept to itself."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import logging
import os
import pickle

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.crypto.identity import (
    Identity,
    IdentityError,
    decode_public_key,
    encode_public_key,
    generate_identity,
    key_id_of,
    load_public_key,
    verify_with_public_key,
)

from .kit import BANK, SHOP

# RFC 8032, section 7.1: secret key, public key, message, signature
VECTORS = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b589"
        "09351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


def of(secret: str) -> Identity:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    return Identity(key, key.public_key())


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS.values(), ids=list(VECTORS))
def test_the_vectors_of_the_rfc(secret, public, message, signature):
    identity = of(secret)
    data, expected = bytes.fromhex(message), bytes.fromhex(signature)
    assert identity.public_key.public_bytes_raw().hex() == public
    assert identity.sign(data) == expected
    assert identity.sign_base64(data) == base64.b64encode(expected).decode()
    assert identity.verify(expected, data)
    key = decode_public_key(base64.b64encode(bytes.fromhex(public)).decode())
    assert verify_with_public_key(key, expected, data)
    assert not verify_with_public_key(key, expected, data + b"\0")


def test_a_signature_is_the_keys_and_the_datas():
    signature = SHOP.sign(b"data")
    assert len(signature) == 64
    assert SHOP.verify(signature, b"data")
    assert not SHOP.verify(signature, b"Data")
    assert not BANK.verify(signature, b"data")


@pytest.mark.parametrize("signature", [b"", b"\0", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_what_is_no_signature_is_not_one(signature):
    assert not SHOP.verify(signature, b"data")


def test_a_second_signature_cannot_be_made_of_a_good_one():
    """RFC 8032, 5.1.7: S must be below the order of the curve; S plus the order would verify otherwise."""
    signature = SHOP.sign(b"data")
    s = int.from_bytes(signature[32:], "little") + 2**252 + 27742317777372353535851937790883648493
    assert not SHOP.verify(signature[:32] + s.to_bytes(32, "little"), b"data")


def test_each_new_identity_is_another():
    one, other = Identity.generate(), generate_identity()
    assert one != other and one.key_id != other.key_id
    assert one.path == other.path == "<generated>"


def test_identities_are_equal_when_their_public_keys_are():
    twin = Identity(SHOP.private_key, SHOP.public_key, "elsewhere")
    assert twin == SHOP and hash(twin) == hash(SHOP) and twin != BANK and twin != "shop"


# -- secrets


def private_forms(identity: Identity) -> list[bytes]:
    raw = identity.private_key.private_bytes_raw()
    return [raw, raw.hex().encode(), base64.b64encode(raw), base64.b16encode(raw), repr(raw).encode()]


def test_the_private_key_does_not_show_itself(caplog):
    # one whose bytes are not all zeroes, of which there are many everywhere
    identity = Identity.generate()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("loaded %s %r", identity, [identity])
    shown = f"{identity} {identity!r} {identity!s:>90} {vars(identity)} {caplog.text}".encode()
    assert identity.key_id.encode() in shown
    assert not [form for form in private_forms(identity) if form in shown]


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_not_pickled_or_copied(leave):
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        leave(SHOP)


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SHOP.private_key = BANK.private_key  # type: ignore[misc]


# -- files


def test_what_is_saved_is_loaded(tmp_path):
    identity = Identity.generate()
    identity.save(tmp_path / "me.key")
    loaded = Identity.load(tmp_path / "me.key")
    assert loaded == identity and loaded.sign(b"data") == identity.sign(b"data")
    assert loaded.path == str(tmp_path / "me.key")
    assert load_public_key(tmp_path / "me.pub") == identity.public_key
    assert (tmp_path / "me.key").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["me.key", "me.pub"]


def test_the_public_key_goes_where_it_is_told(tmp_path):
    SHOP.save(tmp_path / "me.key", tmp_path / "shown.pem")
    assert load_public_key(tmp_path / "shown.pem") == SHOP.public_key
    assert sorted(os.listdir(tmp_path)) == ["me.key", "shown.pem"]


@pytest.mark.parametrize("there", ["me.key", "me.pub"])
def test_nothing_is_overwritten_unless_it_is_said(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(IdentityError, match=f"{there} exists already"):
        SHOP.save(tmp_path / "me.key")
    assert os.listdir(tmp_path) == [there] and (tmp_path / there).read_text() == "mine"
    SHOP.save(tmp_path / "me.key", overwrite=True)
    assert Identity.load(tmp_path / "me.key") == SHOP
    assert load_public_key(tmp_path / "me.pub") == SHOP.public_key


def test_a_private_key_is_not_overwritten_by_its_public_one(tmp_path):
    with pytest.raises(IdentityError, match="cannot hold the private and the public key"):
        SHOP.save(tmp_path / "me.pub")
    assert os.listdir(tmp_path) == []


def pem(key: object, password: bytes | None = None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "Failed to load .* no private key in PEM"),
        (b"not a key", "Failed to load .* no private key in PEM"),
        (b"\0\xff" * 100, "Failed to load .* no private key in PEM"),
        (pem(SHOP.private_key)[:60], "Failed to load .* no private key in PEM"),
        (SHOP.get_public_key_pem().encode(), "Failed to load .* no private key in PEM"),
        (pem(SHOP.private_key, b"secret"), "Failed to load .* locked with a passphrase"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "not Ed25519"),
        (pem(X25519PrivateKey.generate()), "not Ed25519"),
        (b"-----BEGIN PRIVATE KEY-----\n" * 10_000, "too large to be a key"),
    ],
)
def test_a_file_that_holds_no_identity(tmp_path, content, told):
    path = tmp_path / "me.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=told) as caught:
        Identity.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300 + len(str(path))


def test_a_file_that_is_not_there(tmp_path):
    told = r"not found: .*me\.key; make one with: xml-pipeline keygen --output .*me\.key$"
    with pytest.raises(IdentityError, match=told):
        Identity.load(tmp_path / "me.key")
    with pytest.raises(IdentityError, match=r"not found: [^;]*me\.pub$"):
        load_public_key(tmp_path / "me.pub")


@pytest.mark.parametrize("content", [b"", b"x", pem(SHOP.private_key)])
def test_a_file_that_holds_no_public_key(tmp_path, content):
    (tmp_path / "it.pub").write_bytes(content)
    with pytest.raises(IdentityError, match="Failed to load the public key"):
        load_public_key(tmp_path / "it.pub")


def test_a_public_key_of_another_kind(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "it.pub").write_bytes(text)
    with pytest.raises(IdentityError, match="not Ed25519"):
        load_public_key(tmp_path / "it.pub")


# -- public keys as text


def test_the_key_id_is_the_hash_of_the_key():
    raw = SHOP.public_key.public_bytes_raw()
    padded = SHOP.key_id + "="
    assert base64.urlsafe_b64decode(padded) == hashlib.sha256(raw).digest()
    assert key_id_of(SHOP.public_key) == SHOP.key_id and len(SHOP.key_id) == 43


@given(st.binary(min_size=32, max_size=32))
def test_public_keys_survive_being_written(seed):
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    text = encode_public_key(key)
    assert len(text) == 44 and decode_public_key(f" {text}\n") == key
    assert Identity(Ed25519PrivateKey.from_private_bytes(seed), key).get_public_key_base64() == text


def test_pem_is_a_public_key_too():
    assert decode_public_key(f"\n{SHOP.get_public_key_pem()}\n") == SHOP.public_key


def other_spelling(text: str) -> str:
    """Decodes to the same bytes: two bits of the last character before the padding mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    changed = text[:42] + alphabet[alphabet.index(text[42]) ^ 1] + "="
    assert base64.b64decode(changed) == base64.b64decode(text)
    return changed


PUBLIC = SHOP.get_public_key_base64()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PUBLIC[:-1],
        PUBLIC + "=",
        PUBLIC[:20] + "\n" + PUBLIC[20:],
        "é" * 44,
        "A" * 100_000,
        other_spelling(PUBLIC),
    ],
)
def test_a_text_that_is_no_public_key(text):
    with pytest.raises(IdentityError, match="base64 of 32 bytes, 44 characters, or PEM"):
        decode_public_key(text)


def test_a_private_key_that_is_given_as_a_public_one_is_not_quoted():
    secret = pem(SHOP.private_key).decode()
    with pytest.raises(IdentityError) as caught:
        decode_public_key(secret)
    assert secret.splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize("raw", [bytes(32), (1).to_bytes(32, "little"), b"\xff" * 32], ids=["zero", "one", "ones"])
def test_a_key_that_anybody_can_sign_for_is_refused(raw):
    with pytest.raises(IdentityError, match="no point of prime order"):
        decode_public_key(base64.b64encode(raw).decode())
