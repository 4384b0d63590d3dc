"""People's approvals: WebAuthn assertions, verified offline by brokers, the enclave and auditors alike.

Source: W3C Web Authentication Level 3, §6.1 (authenticator data), §5.8.1 (client data), §7.2 (verifying an assertion); COSE_Key of
RFC 9052 with the algorithms of RFC 9053 and RFC 8812. ``docs/formats/passkey.md`` is the human description.

A person's key stands on the party's card. An approval's challenge **is** the 32 bytes of the contract's id, so that what
the authenticator signs is the contract and nothing else; no server's word is needed to check it. Challenges
of a sign-in are longer (``console``), so neither can ever stand for the other.

Deliberately not checked here: that a signature counter grows, which needs memory (the party's own console has it); where an
authenticator comes from (attestation), which the party decides when it puts a key on its card; the port of an origin, which
a browser does not keep apart either.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kakoi.contract.model import Assertion, PartyCard, Person
from kakoi.core import crypto
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.core.keys import ec_key, rsa_key
from kakoi.core.sealed import Sealed

Algorithm = Literal["ES256", "EdDSA", "RS256"]
ALGORITHMS: Final[dict[int, Algorithm]] = {-7: "ES256", -8: "EdDSA", -257: "RS256"}
_KTY, _ALG, _CRV, _X, _Y, _N, _E = 1, 3, -1, -2, -3, -1, -2
_COORDINATE: Final = 32
_RSA_BYTES: Final = range(256, 513)
_RSA_EXPONENT: Final = b"\x01\x00\x01"
_PRESENT, _VERIFIED, _BACKUP_ELIGIBLE, _BACKED_UP = 0x01, 0x04, 0x08, 0x10
_ALLOWED_FLAGS: Final = _PRESENT | _VERIFIED | _BACKUP_ELIGIBLE | _BACKED_UP
_AUTHENTICATOR_DATA: Final = 37
_PORT: Final = re.compile(r"(?::(?:[1-9][0-9]{0,4}))?")
_MOST_PORT: Final = 65535


# Keys -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyKey:
    """A public key as WebAuthn carries it. ``parts``: x (Ed25519), x and y (P-256), or modulus and exponent (RSA)."""

    algorithm: Algorithm
    parts: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The one COSE_Key of this key: CTAP2 canonical CBOR, no optional member."""
        if self.algorithm == "ES256":
            members: list[tuple[int, int | bytes]] = [(_KTY, 2), (_ALG, -7), (_CRV, 1), (_X, self.parts[0])]
            members.append((_Y, self.parts[1]))
        elif self.algorithm == "EdDSA":
            members = [(_KTY, 1), (_ALG, -8), (_CRV, 6), (_X, self.parts[0])]
        else:
            members = [(_KTY, 3), (_ALG, -257), (_N, self.parts[0]), (_E, self.parts[1])]
        return _head(5, len(members)) + b"".join(_integer(key) + _item(value) for key, value in members)

    def check(self) -> None:
        """Raise Malformed unless this is a key that can verify: a point on the curve, a modulus of 2048 to 4096 bits."""
        if self.algorithm == "ES256":
            ec_key("P-256", b"".join(self.parts))
        elif self.algorithm == "EdDSA":
            crypto.require_ed25519_public(self.parts[0])
        else:
            rsa_key(int.from_bytes(self.parts[0], "big"), int.from_bytes(self.parts[1], "big"))

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise Refused unless ``signature`` is this key's over ``message``."""
        try:
            if self.algorithm == "ES256":
                ec_key("P-256", b"".join(self.parts)).verify_ecdsa(signature, message, "sha256", "the contract")
            elif self.algorithm == "EdDSA":
                crypto.ed25519_verify(self.parts[0], message, signature)
            else:
                key = rsa_key(int.from_bytes(self.parts[0], "big"), int.from_bytes(self.parts[1], "big"))
                key.verify_rsa_pkcs1(signature, message, "sha256", "the contract")
        except KakoiError:
            raise Refused(
                "passkey.signature",
                "expected a signature of the passkey on the party's card, got another",
                hint="the assertion was altered, or made with another key",
            ) from None


def parse_key(data: bytes) -> PasskeyKey:
    """A COSE_Key in its one spelling, for ES256 on P-256, EdDSA on Ed25519, or RS256 with exponent 65537.

    Raises Malformed for every other key, member, order or length: ``parse_key(x).encode() == x``.
    """
    members = _read_map(data)
    kind, algorithm = members.get(_KTY), members.get(_ALG)
    names = tuple(members)
    if (kind, algorithm, members.get(_CRV), names) == (2, -7, 1, (_KTY, _ALG, _CRV, _X, _Y)):
        key = PasskeyKey(algorithm="ES256", parts=(_bytes(members, _X), _bytes(members, _Y)))
    elif (kind, algorithm, members.get(_CRV), names) == (1, -8, 6, (_KTY, _ALG, _CRV, _X)):
        key = PasskeyKey(algorithm="EdDSA", parts=(_bytes(members, _X),))
    elif (kind, algorithm, names) == (3, -257, (_KTY, _ALG, _N, _E)):
        key = PasskeyKey(algorithm="RS256", parts=(_bytes(members, _N), _bytes(members, _E)))
    else:
        raise _bad_key("another kind of key or another order of members")
    _lengths(key)
    key.check()
    if key.encode() != data:
        raise _bad_key("another spelling of one")
    return key


def _lengths(key: PasskeyKey) -> None:
    if key.algorithm == "RS256":
        modulus, exponent = key.parts
        if len(modulus) not in _RSA_BYTES or modulus[:1] < b"\x80" or exponent != _RSA_EXPONENT:
            raise _bad_key("an RSA modulus outside 2048 to 4096 bits or another exponent")
    elif any(len(part) != _COORDINATE for part in key.parts):
        raise _bad_key("a coordinate that is not 32 bytes")


def _bad_key(got: str) -> Malformed:
    return Malformed(
        "passkey.key",
        f"expected a canonical COSE_Key for ES256, EdDSA or RS256, got {got}",
        hint="the person can enrol another device",
    )


# A COSE_Key is a flat map of integers to integers and byte strings: this much CBOR (RFC 8949) and no more.


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    size = 1 if argument < 0x100 else 2
    return bytes([major << 5 | (23 + size)]) + argument.to_bytes(size, "big")


def _integer(value: int) -> bytes:
    return _head(0, value) if value >= 0 else _head(1, -1 - value)


def _item(value: int | bytes) -> bytes:
    return _integer(value) if isinstance(value, int) else _head(2, len(value)) + value


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, argument, and the place behind them."""
    if at >= len(data):
        raise _bad_key("a cut one")
    major, argument = data[at] >> 5, data[at] & 31
    if argument < 24:
        return major, argument, at + 1
    size = {24: 1, 25: 2}.get(argument)
    if size is None or at + 1 + size > len(data):
        raise _bad_key("a length of more than two bytes, or a cut one")
    return major, int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def _read_map(data: bytes) -> dict[int, int | bytes]:
    major, count, at = _read_head(data, 0)
    if major != 5 or count > 5:
        raise _bad_key("something that is no map of at most five members")
    members: dict[int, int | bytes] = {}
    for _ in range(count):
        major, argument, at = _read_head(data, at)
        if major not in (0, 1):
            raise _bad_key("a member whose name is no integer")
        name = argument if major == 0 else -1 - argument
        major, argument, at = _read_head(data, at)
        if major == 2:
            members[name] = data[at : at + argument]
            at += argument
        elif major in (0, 1):
            members[name] = argument if major == 0 else -1 - argument
        else:
            raise _bad_key("a member that is neither integer nor bytes")
    if at != len(data):
        raise _bad_key("a cut one, or bytes behind it")
    return members


def _bytes(members: dict[int, int | bytes], name: int) -> bytes:
    value = members[name]
    if not isinstance(value, bytes):
        raise _bad_key("an integer where bytes belong")
    return value


# Assertions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched(metaclass=Sealed):
    """A person said yes with a passkey. Only ``verify_assertion`` makes one."""

    person: str
    """The name on the card."""
    credential_id: bytes
    counter: int
    """The authenticator's signature counter; 0 for those that have none. Whoever has memory compares it."""
    backed_up: bool
    """The key is kept by a service of the authenticator's vendor, not by one device."""


def verify_assertion(assertion: Assertion, *, person: Person, relying_party: str, challenge: bytes) -> Vouched:
    """A person's signature over ``challenge`` (WebAuthn Level 3 §7.2; the numbers are that section's steps).

    1. the credential is the person's (5, 6) and its key one of ours;
    2. the client data are JSON without repeated members, of type ``webauthn.get`` (9–11);
    3. its challenge is exactly ``challenge`` (12);
    4. its origin is the relying party's own site over https, in no frame of another (13–15);
    5. the authenticator data are of this relying party (16), a person was present (17) **and verified** (18), flags
       and length are those of an assertion without extensions (19, 20);
    6. the signature is the passkey's, over authenticator data and the hash of client data (21).

    Raises Malformed or Refused.
    """
    if assertion.credential_id != person.credential_id:
        raise Refused("passkey.credential", "expected an assertion of this person's passkey, got another's")
    key = parse_key(person.public_key)
    _judge_client_data(assertion.client_data, relying_party, challenge)
    counter, backed_up = _judge_authenticator_data(assertion.authenticator_data, relying_party)
    key.verify(assertion.authenticator_data + sha256(assertion.client_data), assertion.signature)
    return Vouched._seal(
        person=person.name, credential_id=assertion.credential_id, counter=counter, backed_up=backed_up
    )


def verify_people(card: PartyCard, subject: ObjectId, assertions: Sequence[Assertion]) -> tuple[Vouched, ...]:
    """What the card's people say about the object ``subject`` (a contract, a withdrawal, the party's next card).

    1. every assertion is by a passkey of the card and verifies, with the subject's id as its challenge;
    2. no passkey is used twice;
    3. they are of at least as many *different people* as the card demands: several devices of one person count once.

    Raises Malformed or Refused.
    """
    known = {person.credential_id: person for person in card.people}
    vouched: list[Vouched] = []
    for assertion in assertions:
        person = known.get(assertion.credential_id)
        if person is None:
            raise Refused(
                "passkey.unknown",
                "expected only passkeys of people on the party's card, got another",
                hint="the person may have been removed, or enrolled after this card was made",
            )
        vouched.append(
            verify_assertion(
                assertion, person=person, relying_party=card.relying_party, challenge=bytes.fromhex(subject)
            )
        )
    if len({item.credential_id for item in vouched}) != len(vouched):
        raise Malformed("passkey.repeated", "expected each passkey once, got a repetition")
    if len({item.person for item in vouched}) < card.approvals_required:
        raise Refused(
            "approval.people",
            f"expected the passkeys of {card.approvals_required} different people, as the party's card demands, got fewer",
            hint="the party's people approve in its console",
        )
    return tuple(vouched)


def challenge_text(challenge: bytes) -> str:
    """A challenge as client data carry it: base64url without padding."""
    return base64.urlsafe_b64encode(challenge).rstrip(b"=").decode("ascii")


def judge_origin(origin: object, relying_party: str) -> None:
    """Raise Refused unless ``origin`` is https at exactly the relying party's name, or http where that is localhost."""
    schemes = ("https", "http") if relying_party == "localhost" else ("https",)
    if isinstance(origin, str) and relying_party:
        for scheme in schemes:
            rest = origin.removeprefix(f"{scheme}://{relying_party}")
            if rest != origin and _PORT.fullmatch(rest) and int(rest[1:] or 1) <= _MOST_PORT:
                return
    raise Refused(
        "passkey.origin",
        "expected an assertion made at the party's own console, got one made at another site",
        hint="somebody may have been lured to a false console: tell the party's security officer",
    )


def _judge_client_data(data: bytes, relying_party: str, challenge: bytes) -> None:
    value = _client_data(data)
    if value.get("type") != "webauthn.get":
        raise Refused("passkey.type", "expected an assertion (webauthn.get), got another ceremony")
    if value.get("challenge") != challenge_text(challenge):
        raise Refused(
            "passkey.challenge",
            "expected an assertion over exactly this object, got one over another",
            hint="an approval holds for one version of one contract only",
        )
    judge_origin(value.get("origin"), relying_party)
    if value.get("crossOrigin", False) is not False or "topOrigin" in value:
        raise Refused("passkey.cross-origin", "expected an assertion made in no other site's frame, got one made there")


def _client_data(data: bytes) -> dict[str, Any]:
    """Browsers may add members (§5.8.1); none of them is interpreted."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Malformed("passkey.client-data", "expected client data as JSON without repeated members, got other bytes")
    return value


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(items)
    if len(out) != len(items):
        raise ValueError("a repeated member")
    return out


def _judge_authenticator_data(data: bytes, relying_party: str) -> tuple[int, bool]:
    """Counter, and whether the key is backed up."""
    if len(data) != _AUTHENTICATOR_DATA:
        raise Malformed(
            "passkey.authenticator-data",
            f"expected {_AUTHENTICATOR_DATA} bytes of authenticator data without extensions, got another length",
        )
    flags = data[32]
    if data[:32] != sha256(relying_party.encode("ascii")):
        raise Refused(
            "passkey.relying-party", "expected an assertion for the party's own site (RP id), got one for another"
        )
    if not flags & _PRESENT:
        raise Refused("passkey.presence", "expected that a person was present, got an assertion without")
    if not flags & _VERIFIED:
        raise Refused(
            "passkey.user-verification",
            "expected that the authenticator verified its user (PIN, fingerprint, face), got an assertion without",
            hint="set a PIN on the security key",
        )
    if flags & ~_ALLOWED_FLAGS or (flags & _BACKED_UP and not flags & _BACKUP_ELIGIBLE):
        raise Malformed("passkey.flags", "expected the flags of an assertion without extensions, got others")
    return int.from_bytes(data[33:37], "big"), bool(flags & _BACKED_UP)
