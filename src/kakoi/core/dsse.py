"""DSSE envelopes with the hybrid signature (secure-systems-lab/dsse, protocol and envelope v1.0.2).

What is signed is the exact payload bytes; they are parsed after verification and never re-serialised.
An envelope holds one or more signers; each signer contributes exactly two entries, its Ed25519 and
its ML-DSA-65 signature, named by key id. An entry that belongs to no expected signer is refused.
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
    """DSSE pre-authentication encoding: what is signed."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Record):
    """One signature of an envelope."""

    keyid: Annotated[str, Limit(least=64, most=64, pattern=r"[0-9a-f]{64}\Z")]
    sig: Annotated[bytes, Limit(least=64, most=4096)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope(Record):
    """A signed payload. ``payloadType`` keeps the specification's spelling."""

    MAX_BYTES: ClassVar[int] = 24 * 1024 * 1024

    payload: Annotated[bytes, Limit(least=2, most=16 * 1024 * 1024)]
    payloadType: Annotated[str, Limit(least=1, most=80)]  # noqa: N815 - DSSE's own name
    signatures: Annotated[tuple[Entry, ...], Limit(least=2, most=64)]

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
    2. there are exactly two entries, one under each key id of ``key``;
    3. both verify over the pre-authentication encoding.

    Raises Malformed for 1 and 2, Refused for 3 and for another signer.
    """
    if envelope.payloadType != payload_type:
        raise Malformed("envelope.type", f"expected payload type {payload_type}, got another")
    found = {entry.keyid: entry.sig for entry in envelope.signatures}
    if len(envelope.signatures) != 2 or len(found) != 2:
        raise Malformed("envelope.signatures", "expected exactly one Ed25519 and one ML-DSA-65 signature")
    if set(found) != {key.ed25519_keyid, key.mldsa65_keyid}:
        raise Refused(
            "signature.signer",
            "expected the signatures of the named party, got those of another key",
            hint="compare the party card with the one its owner shows you",
        )
    key.verify(
        pae(payload_type, envelope.payload),
        Signature(ed25519=found[key.ed25519_keyid], mldsa65=found[key.mldsa65_keyid]),
    )
    return envelope.payload
