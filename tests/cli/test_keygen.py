"""``keygen``: an identity that can be loaded, and nothing lost."""

from __future__ import annotations

import json
import os
import shlex

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from xml_pipeline.crypto import Identity, decode_public_key, key_id_of, load_public_key


def test_what_it_writes_can_be_loaded_and_is_what_it_shows(cli, tmp_path):
    made = cli("keygen")
    assert (made.code, made.err) == (0, "")
    identity = Identity.load(tmp_path / "identity.key")
    assert made.out.splitlines() == [
        "wrote identity.key, which only you can read, and identity.pub",
        f"public key: {identity.get_public_key_base64()}",
        f"key id: {identity.key_id}",
    ]
    assert load_public_key(tmp_path / "identity.pub") == identity.public_key
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600


def test_it_goes_where_it_is_told_and_speaks_json(cli, tmp_path):
    (tmp_path / "keys").mkdir()
    told = json.loads(cli("keygen", "-o", "keys/shop.key", "--json").out)
    assert sorted(os.listdir(tmp_path / "keys")) == ["shop.key", "shop.pub"]
    assert told["private"] == "keys/shop.key" and told["public"] == "keys/shop.pub"
    key = decode_public_key(told["public_key"])
    assert key == load_public_key(tmp_path / told["public"]) and key_id_of(key) == told["key_id"]


def test_each_time_it_makes_another(cli):
    one, two = (json.loads(cli("keygen", "-o", name, "--json").out) for name in ("one.key", "two.key"))
    assert one["public_key"] != two["public_key"]


@pytest.mark.parametrize("there", ["identity.key", "identity.pub"])
def test_it_refuses_to_overwrite_unless_forced(cli, tmp_path, there):
    (tmp_path / there).write_text("mine")
    line = cli("keygen").complaint(1)
    assert line == f"error: {there} exists already, and is not overwritten; --force overwrites"
    assert os.listdir(tmp_path) == [there] and (tmp_path / there).read_text() == "mine"
    assert cli("keygen", "--force").code == 0
    assert Identity.load(tmp_path / "identity.key").public_key == load_public_key(tmp_path / "identity.pub")


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("none/x.key", "the key file none/x.key cannot be written: No such file or directory"),
        ("x.pub", "x.pub cannot hold the private and the public key"),
        (".", "cannot hold the private and the public key"),
        ("", "cannot hold the private and the public key"),
        ("a\nb/c", "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(cli, tmp_path, output, told):
    result = cli("keygen", "--output", output)
    assert result.code == 1 and told in result.err and "Traceback" not in result.err, result
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["keys/shop.key", "a key's file", "-o.key"])
@pytest.mark.parametrize("cwd", ["", "elsewhere"])
def test_what_check_says_of_a_key_that_is_missing_can_be_copied(cli, organism, name, cwd):
    """Wherever it is called from; a key of another kind is left to whoever has to move it away."""
    (organism / "elsewhere").mkdir()
    (organism / "keys").mkdir()
    text = (organism / "organism.yaml").read_text()
    (organism / "organism.yaml").write_text(text.replace("name: test", f'name: test, identity: "{name}"'))
    file = os.path.relpath(organism / "organism.yaml", organism / cwd)

    def in_a_shell(command):
        return cli(*shlex.split(command)[1:], cwd=organism / cwd)

    def advice():
        result = cli("check", file, cwd=organism / cwd)
        assert result.code == 3, result
        told = result.err.splitlines()[0]
        assert " make one with: " in told
        return told.rpartition(" make one with: ")[2]

    command = advice()
    assert in_a_shell(command).code == 0, command
    assert (organism / name).is_file()
    assert cli("check", file, cwd=organism / cwd).code == 0
    other = ec.generate_private_key(ec.SECP256R1())
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (organism / name).write_bytes(other.private_bytes(*formats))
    assert advice() == command
    assert "exists already" in in_a_shell(command).err
    (organism / name).unlink()
    (organism / name).with_suffix(".pub").unlink()
    assert in_a_shell(command).code == 0
