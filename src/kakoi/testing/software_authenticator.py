"""An authenticator in software, for tests and demonstrations only. It plays a security key: **it protects nothing**.

It makes WebAuthn registrations (attestation ``none``) and assertions in the standard's own bytes, and can be told to make
each kind of bad one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from kakoi.contract.model import Assertion, Person
from kakoi.contract.passkey import Algorithm, PasskeyKey, challenge_text
from kakoi.core.encoding import sha256
from kakoi.testing.world import seeded

_RSA: dict[str, rsa.RSAPrivateKey] = {}
"""RSA keys are slow to make; one for each name is enough for a process."""
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass(slots=True)
class SoftwareAuthenticator:
    """One device of one person. The same name gives the same key (but for RSA)."""

    name: str
    relying_party: str = "localhost"
    origin: str = "http://localhost:8443"
    algorithm: Algorithm = "ES256"
    counter: int = 0
    _key: Any = field(init=False)

    def __post_init__(self) -> None:
        seed = seeded(f"authenticator/{self.name}", 32)
        if self.algorithm == "ES256":
            self._key = ec.derive_private_key(int.from_bytes(seed, "big") >> 1 or 1, ec.SECP256R1())
        elif self.algorithm == "EdDSA":
            self._key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        else:
            if self.name not in _RSA:
                _RSA[self.name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            self._key = _RSA[self.name]

    @property
    def credential_id(self) -> bytes:
        """The credential's id."""
        return seeded(f"credential/{self.name}", 32)

    @property
    def public_key(self) -> PasskeyKey:
        """The public key."""
        public = self._key.public_key()
        if self.algorithm == "ES256":
            numbers = public.public_numbers()
            parts: tuple[bytes, ...] = (numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big"))
        elif self.algorithm == "EdDSA":
            parts = (public.public_bytes_raw(),)
        else:
            parts = (public.public_numbers().n.to_bytes(256, "big"), b"\x01\x00\x01")
        return PasskeyKey(algorithm=self.algorithm, parts=parts)

    def person(self, name: str) -> Person:
        """The entry of a party card."""
        return Person(name=name, credential_id=self.credential_id, public_key=self.public_key.encode())

    def assertion(
        self,
        challenge: bytes,
        *,
        flags: int = PRESENT | VERIFIED,
        relying_party: str = "",
        change: Mapping[str, object] | None = None,
        client_data: bytes = b"",
        extra: bytes = b"",
    ) -> Assertion:
        """A signature over ``challenge``. The other arguments make bad ones, each signed correctly all the same."""
        self.counter += 1
        data = client_data or self._client_data("webauthn.get", challenge, change or {})
        authenticator = sha256((relying_party or self.relying_party).encode()) + bytes([flags])
        authenticator += self.counter.to_bytes(4, "big") + extra
        return Assertion(
            credential_id=self.credential_id,
            authenticator_data=authenticator,
            client_data=data,
            signature=self._sign(authenticator + sha256(data)),
        )

    def registration(self, challenge: bytes, *, change: Mapping[str, object] | None = None) -> dict[str, Any]:
        """What a browser sends after ``navigator.credentials.create()`` (RegistrationResponseJSON)."""
        key = self.public_key.encode()
        attested = bytes(16) + len(self.credential_id).to_bytes(2, "big") + self.credential_id + key
        authenticator = (
            sha256(self.relying_party.encode()) + bytes([PRESENT | VERIFIED | ATTESTED]) + bytes(4) + attested
        )
        statement = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": authenticator})
        client = self._client_data("webauthn.create", challenge, change or {})
        identity = challenge_text(self.credential_id)
        return {
            "id": identity,
            "rawId": identity,
            "type": "public-key",
            "clientExtensionResults": {},
            "response": {"clientDataJSON": challenge_text(client), "attestationObject": challenge_text(statement)},
        }

    def _client_data(self, ceremony: str, challenge: bytes, change: Mapping[str, object]) -> bytes:
        value: dict[str, object] = {
            "type": ceremony,
            "challenge": challenge_text(challenge),
            "origin": self.origin,
            "crossOrigin": False,
        }
        return json.dumps({**value, **change}, separators=(",", ":")).encode()

    def _sign(self, message: bytes) -> bytes:
        if self.algorithm == "ES256":
            signed = self._key.sign(message, ec.ECDSA(hashes.SHA256()))
        elif self.algorithm == "EdDSA":
            signed = self._key.sign(message)
        else:
            signed = self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return bytes(signed)


def assertion_json(assertion: Assertion) -> dict[str, Any]:
    """What a browser sends after ``navigator.credentials.get()`` (AuthenticationResponseJSON)."""
    identity = challenge_text(assertion.credential_id)
    return {
        "id": identity,
        "rawId": identity,
        "type": "public-key",
        "clientExtensionResults": {},
        "response": {
            "clientDataJSON": challenge_text(assertion.client_data),
            "authenticatorData": challenge_text(assertion.authenticator_data),
            "signature": challenge_text(assertion.signature),
        },
    }
