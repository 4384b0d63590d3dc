"""Signatures of requests: a strict profile of HTTP Message Signatures (RFC 9421) for the hub. Both sides use this module.

A request is signed over its method, the hub's name, path and query, and every header field that changes its meaning, the
digest of its body (RFC 9530) among them. There is one spelling: components stand in the order of ``components``, parameters in
that of ``parameters``, one signature per request. docs/formats/hub-api.md has an example, ADR 0130 the reasons.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.core.encoding import unb64
from kakoi.core.errors import Malformed

TAG: Final = "kakoi-hub-v1"
LABEL: Final = "kakoi"
LIFETIME: Final = 60
"""Seconds for which a client's signature is good."""
DERIVED: Final = ("@method", "@authority", "@path", "@query")
FIELDS: Final = (
    "content-digest",
    "content-length",
    "content-type",
    "kakoi-claim",
    "kakoi-key",
    "kakoi-posture",
    "range",
)
"""Header fields that must be signed when a request has them. What else it has, the hub does not act on."""
NONCE_BYTES: Final = 16
ACCEPT_SIGNATURE: Final = f'{LABEL}=("@method" "@authority" "@path" "@query" "content-digest");created;keyid;alg="ed25519";expires;nonce;tag="{TAG}"'
"""What a hub answers to a request without a good signature (RFC 9421 §5.1)."""
_PARAMETERS: Final = re.compile(
    r'(?P<components>\("@method" "@authority" "@path" "@query"(?: "[a-z-]{1,40}"){0,16}\))'
    r';created=(?P<created>[1-9][0-9]{0,11});keyid="(?P<keyid>[A-Za-z0-9/_.-]{1,100})";alg="ed25519"'
    r';expires=(?P<expires>[1-9][0-9]{0,11});nonce="(?P<nonce>[A-Za-z0-9_-]{22})";tag="kakoi-hub-v1"\Z'
)
_SIGNATURE: Final = re.compile(r"kakoi=:([A-Za-z0-9+/]{86}==):\Z")
_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is signed of one request. ``fields`` has lower-case names; those that are not in ``FIELDS`` are not signed."""

    method: str
    authority: str
    """The hub's name as RFC 9421 §2.2.3 writes it: lower case, no default port."""
    path: str
    """As sent, percent-encoding and all."""
    query: str
    """As sent, without the question mark."""
    fields: Mapping[str, str]

    @property
    def components(self) -> tuple[str, ...]:
        """Names of what must be signed, in order."""
        return DERIVED + tuple(name for name in FIELDS if name in self.fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameters of a signature. Times are seconds since the epoch."""

    created: int
    keyid: str
    expires: int
    nonce: str
    """16 random bytes, base64url without padding."""

    def text(self, components: tuple[str, ...]) -> str:
        """The value of ``@signature-params`` (§2.3)."""
        names = " ".join(f'"{name}"' for name in components)
        return (
            f'({names});created={self.created};keyid="{self.keyid}";alg="ed25519"'
            f';expires={self.expires};nonce="{self.nonce}";tag="{TAG}"'
        )


def base(message: Message, parameters: Parameters) -> bytes:
    """The signature base (§2.5): what is signed."""
    derived = {
        "@method": message.method,
        "@authority": message.authority,
        "@path": message.path,
        "@query": f"?{message.query}",
    }
    components = message.components
    values = [(name, derived.get(name) or message.fields[name].strip()) for name in components]
    return lines([*values, ("@signature-params", parameters.text(components))])


def lines(values: Iterable[tuple[str, str]]) -> bytes:
    """Components with their values as lines (§2.5)."""
    return "\n".join(f'"{name}": {value}' for name, value in values).encode("ascii")


def fields_of(message: Message, parameters: Parameters, signature: bytes) -> dict[str, str]:
    """The two header fields of a signed request."""
    return {
        "Signature-Input": f"{LABEL}={parameters.text(message.components)}",
        "Signature": f"{LABEL}=:{b64encode(signature).decode()}:",
    }


def parse(signature_input: str, signature: str, components: tuple[str, ...]) -> tuple[Parameters, bytes]:
    """Parameters and the 64 bytes of a signature over exactly ``components``. Verifies nothing.

    Raises Malformed for another spelling, other components, or a second signature.
    """
    label, _, rest = signature_input.partition("=")
    match, found = _PARAMETERS.match(rest), _SIGNATURE.match(signature)
    if label != LABEL or match is None or found is None:
        raise Malformed(
            "hub.signature-form",
            f"expected one signature named {LABEL} in the form of the hub's profile, got something else",
            hint="docs/formats/hub-api.md, Signatures",
        )
    parameters = Parameters(
        created=int(match["created"]), keyid=match["keyid"], expires=int(match["expires"]), nonce=match["nonce"]
    )
    if rest != parameters.text(components):
        raise Malformed(
            "hub.signature-covers",
            f"expected a signature over {' '.join(components)} in this order, got one over something else",
        )
    return parameters, unb64(found[1])


def content_digest(sha256: bytes) -> str:
    """The value of Content-Digest (RFC 9530)."""
    return f"sha-256=:{b64encode(sha256).decode()}:"


def parse_digest(text: str) -> bytes:
    """The SHA-256 in a Content-Digest. Raises Malformed for another algorithm, or more than one."""
    match = _DIGEST.match(text)
    if match is None:
        raise Malformed("hub.digest-form", "expected Content-Digest with one sha-256, got something else")
    return unb64(match[1])


def authority(host: str, port: int | None, *, tls: bool) -> str:
    """A hub's name in a signature: lower case, brackets around an IPv6 address, no default port."""
    name = f"[{host}]" if ":" in host else host
    return name.lower() if port in (None, 443 if tls else 80) else f"{name.lower()}:{port}"
