"""WebAuthn ceremonies of the console: options for the browser, and what the browser sends back.

Registrations are verified by the library ``webauthn``. Assertions are verified twice: by ``contract.passkey``, which the enclave
uses, and by the library; both must agree. Source: WebAuthn Level 3 §7.1, §7.2.

Every challenge but an approval's begins with its purpose and is longer than an id, so that no sign-in can be passed off as
an approval, nor the other way round.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import webauthn
from webauthn.helpers import base64url_to_bytes, options_to_json
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from kakoi.contract.model import Assertion, Person
from kakoi.contract.passkey import PasskeyKey, Vouched, parse_key, verify_assertion
from kakoi.core.errors import Malformed, Refused

Purpose = Literal["sign-in", "enrol", "confirm"]
_ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
_MOST_JSON: Final = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A passkey that was just made."""

    credential_id: bytes
    key: PasskeyKey
    counter: int
    backed_up: bool


def fresh_challenge(purpose: Purpose) -> bytes:
    """An unpredictable challenge that can serve one purpose only."""
    return f"kakoi/{purpose}/v1/".encode() + secrets.token_bytes(32)


def creation_options(
    *, relying_party: str, party: str, person: str, handle: str, challenge: bytes, known: Sequence[bytes]
) -> str:
    """Options for ``navigator.credentials.create()``, as JSON. Devices in ``known`` are not enrolled twice."""
    options = webauthn.generate_registration_options(
        rp_id=relying_party,
        rp_name=f"Kakoi · {party}",
        user_id=bytes.fromhex(handle),
        user_name=person,
        user_display_name=person,
        challenge=challenge,
        supported_pub_key_algs=_ALGORITHMS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=identity) for identity in known],
    )
    return options_to_json(options)


def request_options(*, relying_party: str, challenge: bytes, allowed: Sequence[bytes] = ()) -> str:
    """Options for ``navigator.credentials.get()``, as JSON; ``allowed`` empty: any passkey of this site."""
    options = webauthn.generate_authentication_options(
        rp_id=relying_party,
        challenge=challenge,
        allow_credentials=[PublicKeyCredentialDescriptor(id=identity) for identity in allowed],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options)


def read_registration(text: str, *, challenge: bytes, relying_party: str, origin: str) -> NewKey:
    """A new passkey from the browser's answer. Raises Malformed or Refused."""
    try:
        verified = webauthn.verify_registration_response(
            credential=_json(text),
            expected_challenge=challenge,
            expected_rp_id=relying_party,
            expected_origin=origin,
            require_user_verification=True,
            supported_pub_key_algs=_ALGORITHMS,
        )
        key = _canonical_key(verified.credential_public_key)
    except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError):
        # The library tells in English and in detail; the person needs to know only that it did not work.
        raise Refused(
            "passkey.registration",
            "expected a new passkey for this invitation, made at this console with user verification, got another",
            hint="try again from the invitation's link; set a PIN on the security key if it has none",
        ) from None
    return NewKey(
        credential_id=verified.credential_id,
        key=key,
        counter=verified.sign_count,
        backed_up=bool(verified.credential_backed_up),
    )


def _canonical_key(cose: bytes) -> PasskeyKey:
    """Authenticators may spell a key otherwise; on the card there is one spelling."""
    import cbor2

    members = cbor2.loads(cose)
    names = {-7: (1, 3, -1, -2, -3), -8: (1, 3, -1, -2), -257: (1, 3, -1, -2)}[members[3]]
    canonical = {name: members[name] for name in names}
    return parse_key(cbor2.dumps(canonical, canonical=True))


def read_assertion(text: str) -> Assertion:
    """The browser's answer to ``navigator.credentials.get()``. Nothing is verified yet. Raises Malformed."""
    value = _json(text)
    try:
        response = value["response"]
        return Assertion(
            credential_id=_bytes(value["rawId"]),
            authenticator_data=_bytes(response["authenticatorData"]),
            client_data=_bytes(response["clientDataJSON"]),
            signature=_bytes(response["signature"]),
        )
    except (KeyError, TypeError, AttributeError):
        raise _unreadable() from None


def challenge_of(assertion: Assertion) -> bytes:
    """The challenge that an unverified assertion claims: only good for looking up what was asked. Raises Malformed."""
    return _challenge_in(assertion.client_data)


def challenge_of_registration(text: str) -> bytes:
    """The challenge that an unverified registration claims: only good for looking up what was asked. Raises Malformed."""
    try:
        data = _json(text)["response"]["clientDataJSON"]
    except (KeyError, TypeError):
        raise _unreadable() from None
    return _challenge_in(_bytes(data))


def _challenge_in(client_data: bytes) -> bytes:
    try:
        return _bytes(json.loads(client_data.decode("utf-8"))["challenge"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _unreadable() from None


def verify_twice(
    assertion: Assertion, *, person: Person, relying_party: str, origin: str, challenge: bytes, counter: int
) -> Vouched:
    """An assertion that both verifiers accept, whose counter has grown (§6.1.1). Raises Malformed or Refused.

    ``counter`` is the last one seen; 0 for authenticators without.
    """
    vouched = verify_assertion(assertion, person=person, relying_party=relying_party, challenge=challenge)
    if (vouched.counter or counter) and vouched.counter <= counter:
        raise Refused(
            "passkey.counter",
            "expected a signature counter that has grown, got one that has not: this passkey may have been copied",
            hint="remove this device and enrol a new one; tell the security officer",
        )
    try:
        webauthn.verify_authentication_response(
            credential=_as_json(assertion),
            expected_challenge=challenge,
            expected_rp_id=relying_party,
            expected_origin=origin,
            credential_public_key=person.public_key,
            credential_current_sign_count=counter,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError):
        raise Refused(
            "passkey.second-verifier", "expected an assertion that both verifiers accept, got one that only ours does"
        ) from None
    return vouched


def _as_json(assertion: Assertion) -> dict[str, Any]:
    from kakoi.contract.passkey import challenge_text as text

    identity = text(assertion.credential_id)
    response = {
        "clientDataJSON": text(assertion.client_data),
        "authenticatorData": text(assertion.authenticator_data),
        "signature": text(assertion.signature),
    }
    return {"id": identity, "rawId": identity, "type": "public-key", "response": response, "clientExtensionResults": {}}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if len(text) <= _MOST_JSON else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unreadable()
    return value


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise _unreadable()
    try:
        return base64url_to_bytes(text)
    except ValueError:
        raise _unreadable() from None


def _unreadable() -> Malformed:
    return Malformed(
        "passkey.answer",
        "expected the browser's answer with a passkey, got none",
        hint="reload the page and try again; the browser must support passkeys and scripts must be allowed",
    )
