"""Who speaks: identities, and signatures of envelopes that leave an organism and enter another.

The modules, from the bottom up; each may use those above its line::

    refusals      why not: the errors, and the machine-readable reasons
    curve         whether a public key is one that somebody can have made
    key_file      files with keys: who may read them, and how they are written
    identity      Ed25519 key pairs, public keys, key ids; the only module that knows the library
    signature     what is signed, and where the signature stands in an envelope; why so
    signing       signs an envelope
    trust         which keys may speak for whom, and what is asked of everybody
    replay        what came in already, in memory
    replay_file   the same, across restarts
    verification  the door: all of this in the one order that is safe

It knows nothing of the pump and of the mesh: bytes come in, and bytes go out.
"""

from __future__ import annotations

from xml_pipeline.crypto.identity import (
    Identity,
    decode_public_key,
    encode_public_key,
    generate_identity,
    key_id_of,
    load_public_key,
)
from xml_pipeline.crypto.refusals import IdentityError, Reason, SignatureError, SignatureRefused
from xml_pipeline.crypto.replay import ReplayGuard, ReplayWindow, Seen
from xml_pipeline.crypto.replay_file import ReplayFile
from xml_pipeline.crypto.signing import sign, sign_envelope, verify_envelope
from xml_pipeline.crypto.trust import Policy, TrustedKey, TrustStore
from xml_pipeline.crypto.verification import Verified, Verifier, may_be_signed

__all__ = [
    "Identity",
    "IdentityError",
    "Policy",
    "Reason",
    "ReplayFile",
    "ReplayGuard",
    "ReplayWindow",
    "Seen",
    "SignatureError",
    "SignatureRefused",
    "TrustStore",
    "TrustedKey",
    "Verified",
    "Verifier",
    "decode_public_key",
    "encode_public_key",
    "generate_identity",
    "key_id_of",
    "load_public_key",
    "may_be_signed",
    "sign",
    "sign_envelope",
    "verify_envelope",
]
