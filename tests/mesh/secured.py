"""Servers that ask who somebody is: certificates, keys and configurations, all made here and thrown away."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xml_pipeline.mesh import EmbeddedServer

__all__ = ["Authority", "ConfiguredServer", "NKey", "creds_of", "jwt_of", "operator_config"]


class ConfiguredServer(EmbeddedServer):
    """A server with a configuration of its own; address, port and store are added."""

    def __init__(self, config: str, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.config = config

    def _prepare(self) -> Path:
        folder = super()._prepare()
        (folder / "nats.conf").write_text(self.text(), encoding="utf-8")
        return folder

    def text(self) -> str:
        """The whole file."""
        store = f'jetstream {{ store_dir: "{self._folder}/store" }}\n'
        return f'host: "127.0.0.1"\nport: {self.port or -1}\n{store}{self.config}'

    def url_of(self, user: str, password: str = "pw") -> str:
        """Where this user connects."""
        return f"nats://{user}:{password}@127.0.0.1:{self.port}"


# -- certificates


class Authority:
    """Somebody who signs certificates; its own is in ``ca``."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca = folder / f"{name}.pem"
        self._write(self.ca, certificate.sign(self._key, hashes.SHA256()))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def issue(self, name: str, *, address: str = "127.0.0.1") -> tuple[Path, Path]:
        """A certificate and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        )
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        self._write(files[0], certificate.sign(self._key, hashes.SHA256()))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    @staticmethod
    def _write(path: Path, certificate: x509.Certificate) -> None:
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


# -- keys and tokens of NATS, by the format that its documentation describes

_SEED = 18 << 3
PREFIXES = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


def _checked(raw: bytes) -> str:
    crc = 0
    for byte in raw:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021) & 0xFFFF if crc & 0x8000 else (crc << 1) & 0xFFFF
    return base64.b32encode(raw + crc.to_bytes(2, "little")).decode().rstrip("=")


class NKey:
    """A key pair of an operator, an account or a user."""

    def __init__(self, kind: str) -> None:
        self._key = ed25519.Ed25519PrivateKey.generate()
        raw = self._key.private_bytes_raw()
        prefix = PREFIXES[kind]
        self.public = _checked(bytes([prefix]) + self._key.public_key().public_bytes_raw())
        self.seed = _checked(bytes([_SEED | (prefix >> 5), (prefix & 31) << 3]) + raw)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def jwt_of(issuer: NKey, subject: NKey, name: str, nats: dict[str, Any], lasts: int = 3600) -> str:
    """A token that says what the subject may, signed by whoever grants it."""
    now = int(time.time())
    claims = {"iss": issuer.public, "sub": subject.public, "name": name, "iat": now, "exp": now + lasts, "nats": nats}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    head = _part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_part(json.dumps(claims).encode())}"
    return f"{signed}.{_part(issuer.sign(signed.encode()))}"


def creds_of(jwt: str, user: NKey) -> str:
    """The text of a credentials file."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )


def operator_config() -> tuple[str, NKey]:
    """The configuration of a server that trusts an operator, and the key of the account whose users it takes."""
    operator, account, system = NKey("operator"), NKey("account"), NKey("account")
    limits: dict[str, Any] = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1}
    limits |= {"leaf": -1, "wildcards": True}
    stores = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    tokens = {
        account: jwt_of(operator, account, "APP", {"limits": limits | stores, "type": "account", "version": 2}),
        system: jwt_of(operator, system, "SYS", {"limits": limits, "type": "account", "version": 2}),
    }
    own = jwt_of(operator, operator, "OP", {"type": "operator", "version": 2})
    preload = "\n".join(f"  {key.public}: {token}" for key, token in tokens.items())
    config = (
        f"operator: {own}\nsystem_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n{preload}\n}}\n"
    )
    return config, account
