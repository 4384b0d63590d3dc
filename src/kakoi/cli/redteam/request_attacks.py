"""What whoever sits between clients and hub tries with signed requests (RFC 9421): again, altered, for somewhere else, for later."""

from __future__ import annotations

import re
import secrets
import socket
import ssl
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from kakoi.cli.redteam.attack import Attack, NotTried, Through
from kakoi.cli.redteam.ground import Ground
from kakoi.cli.ui import SystemClock
from kakoi.core.crypto import RequestKey, ed25519_keyid
from kakoi.core.encoding import b64, loads, sha256
from kakoi.core.errors import KakoiError
from kakoi.core.ids import object_id
from kakoi.net.identity import Identity, party_identity
from kakoi.net.signature import Message, Parameters, authority, base, content_digest, fields_of
from kakoi.party.home import PartyHome
from kakoi.wire.messages import Challenge

_SECONDS: Final = 20.0
_FEED: Final = "/v1/feed?after=0"
_MOST: Final = 1024 * 1024


def identity_of(home: PartyHome) -> Identity:
    """Under which key a party's requests are signed."""
    return party_identity(home.keys.request_signer(), home.card.envelope)


def signed(
    ground: Ground,
    method: str = "GET",
    target: str = _FEED,
    *,
    body: bytes = b"",
    who: Identity | None = None,
    claimed: str = "",
    host: str = "",
    at: int = 0,
    lifetime: int = 60,
    shown: bytes = b"",
) -> bytes:
    """The bytes of a request of the red team's stranger, signed; ``claimed`` is another's key id, ``host`` another hub's name,
    ``shown`` a key that is introduced.
    """
    parts = urlsplit(ground.means.hub)
    name = host or authority(parts.hostname or "", parts.port, tls=parts.scheme == "https")
    fields = [("Connection", "close")]
    if shown:
        fields.append(("Kakoi-Key", f":{b64(shown)}:"))
    if body:
        fields += [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Content-Digest", content_digest(sha256(body))),
        ]
    path, _, query = target.partition("?")
    message = Message(
        method=method, authority=name, path=path, query=query, fields={key.lower(): value for key, value in fields}
    )
    one, now = who or identity_of(ground.stranger), at or SystemClock().now()
    made = Parameters(created=now, keyid=claimed or one.keyid, expires=now + lifetime, nonce=secrets.token_urlsafe(16))
    fields += fields_of(message, made, one.sign(base(message, made))).items()
    lines = [f"{method} {target} HTTP/1.1", f"Host: {name}", *(f"{key}: {value}" for key, value in fields)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def connected(ground: Ground) -> socket.socket:
    """A connection to the hub. Raises ``NotTried`` if there is none to be had."""
    parts = urlsplit(ground.means.hub)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        plain: socket.socket = socket.create_connection((parts.hostname or "", port), timeout=_SECONDS)
        if parts.scheme != "https":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)
    except OSError as error:
        raise NotTried(f"the hub did not answer: {type(error).__name__}") from None


def answered(ground: Ground, data: bytes) -> tuple[int, str]:
    """Status and error code of the answer to exactly these bytes. Raises ``NotTried`` if there is none."""
    answer = b""
    try:
        with closing(connected(ground)) as connection:
            connection.sendall(data)
            while len(answer) < _MOST and (more := connection.recv(65536)):
                answer += more
    except OSError:
        pass  # a hub that refuses a body hangs up; the answer may be there all the same
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1."):
        raise NotTried("the hub did not answer")
    status = int(head.split(b" ", 2)[1])
    try:
        return status, str(loads(body)["code"]) if status >= 400 else ""
    except (KakoiError, KeyError, TypeError):
        return status, ""


def refused(ground: Ground, data: bytes, *codes: str) -> str:
    """The code with which these bytes are refused, which must be one of ``codes``. Raises ``Through`` if they are not."""
    status, code = answered(ground, data)
    if status >= 500 or status == 429:
        raise NotTried(f"answered {status}")
    if status < 400 or code not in codes:
        raise Through(f"answered {status} {code}".rstrip())
    return code


def _good(ground: Ground) -> bytes:
    """A request that the hub answers, and its answer as the proof that the twins differ only in what was changed."""
    data = signed(ground)
    status, code = answered(ground, data)
    if status != 200:
        raise NotTried(f"the honest request was answered {status} {code}".rstrip())
    return data


def replayed(ground: Ground) -> str:
    """A recorded request, sent again."""
    return refused(ground, _good(ground), "hub.replay")


def altered_body(ground: Ground) -> str:
    """The body of somebody's request is exchanged on the way."""
    card = ground.stranger.card.envelope.encode()
    data = signed(ground, "PUT", f"/v1/objects/{object_id(ground.stranger.card.envelope.payload)}", body=card)
    return refused(ground, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "hub.digest")


def altered_target(ground: Ground) -> str:
    """Method, path or query of a signed request are exchanged on the way."""
    _good(ground)
    for old, new in ((b"GET", b"PUT"), (b"/v1/feed", b"/v1/runs"), (b"after=0", b"after=1"), (b"?after=0", b"")):
        found = refused(ground, signed(ground).replace(old, new, 1), "signature.request")
    return found


def stripped(ground: Ground) -> str:
    """A part that must be signed is taken out of what the signature covers, or a header is added."""
    _good(ground)
    less = re.sub(rb'"@query"', b"", signed(ground), count=1).replace(b'"@path" )', b'"@path")')
    found = refused(ground, less, "hub.signature-form", "hub.signature-covers", "signature.request")
    more = signed(ground).replace(b"Connection: close", b"Range: bytes=0-1\r\nConnection: close", 1)
    refused(ground, more, "hub.signature-covers")
    return found


def for_later(ground: Ground) -> str:
    """A signature made for tomorrow, one of yesterday, and one for a year."""
    now = SystemClock().now()
    _good(ground)
    refused(ground, signed(ground, at=now + 86400), "hub.signature-time")
    refused(ground, signed(ground, at=now, lifetime=365 * 86400), "hub.signature-lifetime")
    return refused(ground, signed(ground, at=now - 86400), "hub.signature-time")


def anothers_key(ground: Ground) -> str:
    """A request under an owner's key id, signed by the stranger."""
    _good(ground)
    return refused(ground, signed(ground, claimed=identity_of(ground.owner).keyid), "signature.request")


def moved_signature(ground: Ground) -> str:
    """The signature of one request on another."""
    _good(ground)
    one, other = signed(ground), signed(ground, target="/v1/log/checkpoint")
    taken = {name: re.search(name + rb": [^\r]+", one) for name in (b"(?i)signature-input", b"(?i)\nsignature")}
    for name, found in taken.items():
        if found is not None:
            other = re.sub(name + rb": [^\r]+", found[0].replace(b"\\", b"\\\\"), other, count=1)
    return refused(ground, other, "signature.request")


def for_another_hub(ground: Ground) -> str:
    """A request that was signed for another hub."""
    _good(ground)
    return refused(ground, signed(ground, host="other.example"), "hub.authority")


def introduced(ground: Ground) -> str:
    """Read on the strength of introducing a key that the hub has never seen."""
    key = RequestKey(secrets.token_bytes(32))
    who = Identity(keyid=ed25519_keyid(key.public), public=key.public, sign=key.sign_request)
    return refused(ground, signed(ground, who=who, shown=key.public), "hub.key-unknown")


def others_conversation(ground: Ground) -> str:
    """A party reads what was said under a contract that does not name it."""
    ground.challenges(ground.request())
    seen = ground.client.feed(kinds=(Challenge.KIND,), refs={"contract": ground.contract}).items
    if not seen:
        raise NotTried("nothing was said under the red team's contract")
    return refused(ground, signed(ground, target=f"/v1/objects/{seen[0].id}"), "hub.denied", "hub.not-found")


ATTACKS: Final = (
    Attack(name="replayed-request", role="network", threat="T121", carry_out=replayed),
    Attack(name="altered-body", role="network", threat="T122", carry_out=altered_body),
    Attack(name="altered-target", role="network", threat="T123", carry_out=altered_target),
    Attack(name="stripped-component", role="network", threat="T124", also=("T187",), carry_out=stripped),
    Attack(name="for-later", role="network", threat="T125", carry_out=for_later),
    Attack(name="anothers-key", role="outsider", threat="T126", carry_out=anothers_key),
    Attack(name="moved-signature", role="network", threat="T127", carry_out=moved_signature),
    Attack(name="for-another-hub", role="outsider", threat="T128", carry_out=for_another_hub),
    Attack(name="introduced", role="outsider", threat="T129", carry_out=introduced),
    Attack(name="others-conversation", role="outsider", threat="T130", carry_out=others_conversation),
)
