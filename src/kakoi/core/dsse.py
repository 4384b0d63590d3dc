"""DSSE envelopes with the hybrid signature (secure-systems-lab/dsse, protocol and envelope v1.0.2).

What is signed is the exact payload bytes; they are parsed after verification and never re-serialised.
An envelope has one signer and exactly two entries, named by key id: first its Ed25519, then its ML-DSA-65 signature.
Fixed number and order leave no second envelope that holds the same signatures. The Ed25519 half is an ordinary DSSE
signature, which any DSSE library can check; only ``verify`` checks what Kakoi relies on: both halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from kakoi.core.crypto import Signature, Signer, VerifyingKey
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId, object_id
from kakoi.core.records import Limit, Record

PAYLOAD_TYPE: Final = "application/vnd.kakoi+json"
IN_TOTO_TYPE: Final = "application/vnd.in-toto+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding: what is signed. Lengths in front of both parts keep it unambiguous."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Record):
    """One signature of an envelope."""

    keyid: Annotated[str, Limit(least=64, most=64, pattern=r"[0-9a-f]{64}", form="64 lower-case hex digits")]
    sig: Annotated[bytes, Limit(least=64, most=4096)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope(Record):
    """A signed payload. ``payloadType`` keeps the specification's spelling."""

    MAX_BYTES: ClassVar[int] = 24 * 1024 * 1024

    payload: Annotated[bytes, Limit(least=2, most=16 * 1024 * 1024)]
    payloadType: Annotated[str, Limit(least=1, most=80, pattern=r"[!-~]+", form="a media type")]  # noqa: N815 - DSSE's own name
    signatures: Annotated[tuple[Entry, ...], Limit(least=2, most=2)]

    @property
    def payload_id(self) -> ObjectId:
        """SHA-256 of the payload: the id of the object inside."""
        return object_id(self.payload)


def sign(payload: bytes, signer: Signer, *, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """An envelope of ``payload`` signed by ``signer``."""
    signature = signer.sign(pae(payload_type, payload))
    key = signer.verifying_key
    return Envelope(
        payload=payload,
        payloadType=payload_type,
        signatures=(
            Entry(keyid=key.ed25519_keyid, sig=signature.ed25519),
            Entry(keyid=key.mldsa65_keyid, sig=signature.mldsa65),
        ),
    )


def verify(envelope: Envelope, key: VerifyingKey, *, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """The payload, if exactly ``key`` signed it with both algorithms.

    1. the payload type is the expected one (no cross-type confusion);
    2. the entries stand under the key ids of ``key``: Ed25519 first, ML-DSA-65 second;
    3. both verify over the pre-authentication encoding.

    Raises Malformed for 1, Refused for 2 and 3.
    """
    if envelope.payloadType != payload_type:
        raise Malformed("envelope.type", f"expected payload type {payload_type}, got another")
    first, second = envelope.signatures
    if (first.keyid, second.keyid) != (key.ed25519_keyid, key.mldsa65_keyid):
        raise Refused(
            "signature.signer",
            "expected the Ed25519 and then the ML-DSA-65 signature of the named party, got others",
            hint="compare the party card with the one its owner shows you",
        )
    key.verify(pae(payload_type, envelope.payload), Signature(ed25519=first.sig, mldsa65=second.sig))
    return envelope.payload
