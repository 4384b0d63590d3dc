"""Who a client of the hub is: the key that signs its requests, and how the hub gets to know it.

Parties (owners, analysts, code owners, auditors) sign with the Ed25519 half of their card's key; their card introduces it.
Enclaves sign with a key that both they and the hub derive from the operator's token and the enclave's name: the token
itself never travels. Session keys sign what lasts (session, passport) and no request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kakoi.core.crypto import RequestKey, RequestSigner, ed25519_keyid, hkdf_sha256
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse

ENCLAVE: Final = "enclave/"
ENCLAVE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A key that signs requests."""

    keyid: str
    """Of a party: the key id of its Ed25519 key. Of an enclave: ``enclave/`` and its name."""
    public: bytes
    sign: Callable[[bytes], bytes] = field(repr=False)
    """64 bytes of Ed25519 over a signature base."""
    card: Envelope | None = None
    """A party's card: shown to a hub that does not know the key yet."""


def party_identity(signer: RequestSigner, card: Envelope) -> Identity:
    """A party, by the keys of its card."""
    public = signer.verifying_key.ed25519
    return Identity(keyid=ed25519_keyid(public), public=public, sign=signer.sign_request, card=card)


def enclave_identity(name: str, token: str) -> Identity:
    """An enclave, by its operator's token. Raises Misuse for a name that is none."""
    key = enclave_key(name, token.encode("utf-8", "surrogateescape"))
    return Identity(keyid=ENCLAVE + name, public=key.public, sign=key.sign_request)


def enclave_key(name: str, token: bytes) -> RequestKey:
    """The key of one enclave; the hub derives the same (HKDF-SHA256, RFC 5869)."""
    if not ENCLAVE_NAME.match(name):
        raise Misuse("net.enclave-name", "expected 1 to 80 letters, digits, dots, dashes or underscores as a name")
    return RequestKey(hkdf_sha256(token, salt=b"kakoi/enclave-requests/v1", info=name.encode(), length=32))
