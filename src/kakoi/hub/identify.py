"""Whose request is this? Verifying the signature that every request but one carries (RFC 9421, ADR 0130)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, select
from starlette.types import Scope

from kakoi.core.crypto import RequestVerifier, ed25519_keyid
from kakoi.core.encoding import unb64
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import HEX_DIGEST
from kakoi.hub import schema
from kakoi.hub.database import Database
from kakoi.hub.networks import PartyNetworks
from kakoi.hub.protocol import CERTIFICATE_NAMES
from kakoi.hub.replay import Nonces
from kakoi.hub.warned import Warned
from kakoi.net.identity import ENCLAVE, ENCLAVE_NAME, enclave_key
from kakoi.net.posture import UNDECLARED, Posture
from kakoi.net.posture import parse as read_posture
from kakoi.net.signature import FIELDS, Message, Parameters, base, parse

LONGEST_LIFETIME: Final = 300
"""Seconds between ``created`` and ``expires`` of a signature."""
SKEW: Final = 30
"""Seconds by which ``created`` may lie ahead of the hub's time."""
_REMEMBERED: Final = 8192
CERTIFICATE_NAME: Final = "urn:kakoi:enclave:"
"""Before an enclave's name, in a URI (subjectAltName) of the certificate that it shows."""
Kind = Literal["party", "enclave", "newcomer", "operator"]
_SINGLE: Final = frozenset({*FIELDS, "host", "signature", "signature-input"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who signed a request."""

    kind: Kind
    """A newcomer's key is in no card that the hub has; the request says which key it is. Operators sign in and sign no requests."""
    id: str
    """A key id of a party, an enclave's name, an operator's subject."""
    public: bytes
    """Ed25519 public key."""
    card: str
    """Id of a party's first card; empty for others."""
    address: str
    """Where the request came from; empty if it did not come over a network."""
    posture: Posture = UNDECLARED
    """What its program says of itself, under its signature."""
    role: str = ""
    """Of an operator: ``viewer`` or ``administrator``."""


class Authenticator:
    """Knows keys, hub names and nonces. For use from one event loop."""

    def __init__(
        self,
        database: Database,
        token: bytes,
        nonces: Nonces,
        clock: Callable[[], int],
        networks: PartyNetworks,
        warned: Warned,
        *,
        enclaves_show_certificates: bool = False,
    ) -> None:
        self._database, self._token, self._nonces, self._networks = database, token, nonces, networks
        self._warned = warned
        self.enclaves_show_certificates = enclaves_show_certificates
        self.clock = clock
        self.names: frozenset[str] = frozenset()
        """Authorities by which clients call this hub."""
        self._known: OrderedDict[str, tuple[RequestVerifier, str]] = OrderedDict()

    async def identify(self, scope: Scope) -> Principal:
        """Who signed this request. The body is not read: ``digest_checked`` compares it with the digest that is signed here.

        Cheap steps first:

        1. no header field that matters stands twice, and the request is for this hub (no signature for another hub);
        2. one signature, over exactly what must be covered (RFC 9421 §3.2), with every parameter (§2.3);
        3. it is neither from the future nor expired, and not made for longer than five minutes;
        4. nobody warns of the key or its party, and it is known, or is the one in Kakoi-Key;
        5. it comes from where its holder may ask from: a party from its networks, an enclave with its certificate;
        6. the signature verifies;
        7. its nonce was not used.

        Raises Malformed or Refused.
        """
        fields = _fields(scope)
        if "signature" not in fields or "signature-input" not in fields:
            raise Refused("hub.unsigned", "expected a signed request, got one without a signature", hint="RFC 9421")
        if fields.get("host", "").lower() not in self.names:
            raise Refused(
                "hub.authority",
                "expected a request for this hub by its name, got one for another name",
                hint="the operator tells the hub its public names with --name",
            )
        message = Message(
            method=scope["method"],
            authority=fields["host"].lower(),
            path=scope["raw_path"].decode("ascii"),
            query=scope["query_string"].decode("ascii"),
            fields=fields,
        )
        parameters, signature = parse(fields["signature-input"], fields["signature"], message.components)
        self._check_time(parameters)
        self._warned.require_keys(parameters.keyid)
        kind, verifier, card = await self._key(parameters.keyid, fields.get("kakoi-key", ""))
        self._warned.require_keys(card)
        await self._check_place(scope, kind, parameters.keyid, card)
        verifier.verify(base(message, parameters), signature)
        await self._nonces.use(parameters.keyid, parameters.nonce, expires=parameters.expires, now=self.clock())
        self._remember(parameters.keyid, kind, verifier, card)
        return Principal(
            kind=kind,
            id=parameters.keyid.removeprefix(ENCLAVE),
            public=verifier.public,
            card=card,
            address=_address(scope),
            posture=read_posture(fields.get("kakoi-posture", "")),
        )

    async def _check_place(self, scope: Scope, kind: Kind, keyid: str, card: str) -> None:
        if kind == "party":
            await self._networks.require(card, _address(scope))
        elif kind == "enclave" and self.enclaves_show_certificates:
            name = keyid.removeprefix(ENCLAVE)
            if CERTIFICATE_NAME + name not in scope.get("state", {}).get(CERTIFICATE_NAMES, ()):
                raise Refused(
                    "hub.enclave-certificate",
                    "expected an enclave's request over a connection with its certificate, got one without or another's",
                    hint=f"the certificate names the enclave as URI {CERTIFICATE_NAME}NAME",
                )

    def _check_time(self, parameters: Parameters) -> None:
        now = self.clock()
        if not 0 < parameters.expires - parameters.created <= LONGEST_LIFETIME:
            raise Malformed(
                "hub.signature-lifetime", f"expected a signature good for 1 to {LONGEST_LIFETIME} seconds, got another"
            )
        if parameters.created > now + SKEW or parameters.expires <= now:
            raise Refused(
                "hub.signature-time",
                "expected a signature made now by the hub's time, got one that is expired or from the future",
                hint="the answer's Kakoi-Time is the hub's time",
            )

    async def _key(self, keyid: str, shown: str) -> tuple[Kind, RequestVerifier, str]:
        enclave = keyid.startswith(ENCLAVE)
        known = self._known.get(keyid)
        if known is not None:
            return "enclave" if enclave else "party", *known
        if enclave and ENCLAVE_NAME.match(keyid.removeprefix(ENCLAVE)):
            return "enclave", RequestVerifier(enclave_key(keyid.removeprefix(ENCLAVE), self._token).public), ""
        if HEX_DIGEST.match(keyid):
            found = await self._database.read(lambda connection: _party_key(connection, keyid))
            if found is not None:
                return "party", RequestVerifier(found[0]), found[1]
            if shown:
                return "newcomer", _shown(shown, keyid), ""
        raise Refused(
            "hub.key-unknown",
            "expected a request signed by a key that the hub knows, got another's",
            hint="upload the party card first",
        )

    def _remember(self, keyid: str, kind: Kind, verifier: RequestVerifier, card: str) -> None:
        """Keys never change hands, so what was verified once need not be looked up again."""
        if kind != "newcomer":
            self._known[keyid] = (verifier, card)
            self._known.move_to_end(keyid)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _address(scope: Scope) -> str:
    """Where a request came from; empty if it did not come over a network."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _fields(scope: Scope) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("ascii", "replace")
        if key in _SINGLE:
            if key in fields or not value.isascii():
                raise Malformed("hub.signature-field", f"expected one {key} of ASCII, got more or other bytes")
            fields[key] = value.decode("ascii").strip()
    return fields


def _party_key(connection: Connection, keyid: str) -> tuple[bytes, str] | None:
    """A party's public key and its first card."""
    keys, objects = schema.keys.c, schema.objects.c
    query = (
        select(keys.ed25519, keys.object)
        .join_from(schema.keys, schema.objects, objects.id == keys.object)
        .where(keys.ed25519_keyid == keyid, keys.run.is_(None))
        .order_by(objects.seq)
        .limit(1)
    )
    found = connection.execute(query).first()
    return None if found is None else (bytes(found.ed25519), str(found.object))


def _shown(text: str, keyid: str) -> RequestVerifier:
    """The key that a newcomer shows."""
    if not (text.startswith(":") and text.endswith(":") and len(text) > 2):
        raise Malformed("hub.signature-field", "expected Kakoi-Key as a byte sequence, got something else")
    public = unb64(text[1:-1])
    if ed25519_keyid(public) != keyid:
        raise Refused("hub.key-unknown", "expected the key with the signature's key id in Kakoi-Key, got another")
    return RequestVerifier(public)
