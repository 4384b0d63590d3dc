"""Clients of attestation services, inside the enclave: they show the hardware's evidence and get a token about it.

| service | asked | source |
|---|---|---|
| Azure Attestation | ``POST /attest/SgxEnclave``, ``/attest/TdxVm``, ``/attest/SevSnpVm`` | Microsoft, "Azure Attestation REST API" |
| Intel Trust Authority | ``POST /appraisal/v1/attest`` with ``x-api-key`` | Intel, "Attestation API" |
| Google Confidential Space | the launcher's socket, ``POST /v1/token`` | Google, "Implement custom attestation tokens" |

Nothing that comes back is believed here: the owners' brokers judge the token, and a service that lies, or somebody in its
place, can at most keep a session from getting one. The service sees the evidence, which holds measurements and hashes only.
Azure's guests (``azure-snp``, ``azure-tdx``) get tokens from a protocol of Azure's own that is not spoken here.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from kakoi.attest.report import TOKEN, Evidence, Part, TokenService, token_binding
from kakoi.core.errors import Misuse, Unavailable

LAUNCHER: Final = "/run/container_launcher/teeserver.sock"
_MAX_TOKEN: Final = 64 * 1024
_SECONDS: Final = 15
_JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_ENTRY: Final = 24
_GUIDS: Final = tuple(
    UUID(text).bytes
    for text in (
        "63da758d-e664-4564-adc5-f4b93be8accd",  # VCEK
        "a8074bc2-a25a-483e-aae6-39c045a0b8a1",  # VLEK
        "4ab7b379-bbac-4fe4-a02f-05aef327c782",  # ASK
        "c0b406a4-a803-4952-9743-3fb6014cd0ae",  # ARK
    )
)
_AZURE_PATHS: Final = {
    "sgx": "SgxEnclave?api-version=2022-08-01",
    "tdx": "TdxVm?api-version=2025-06-01",
    "snp": "SevSnpVm?api-version=2022-08-01",
}


class TokenClient(Protocol):
    """One service."""

    def token(self, evidence: Evidence, report_data: bytes) -> bytes:
        """A token about ``evidence``, which is bound to ``report_data``. Raises Unavailable."""
        ...


class Producer(Protocol):
    """Whoever asks the hardware: ``enclave.keeper.session.Producer``."""

    def evidence(self, report_data: bytes) -> Evidence:
        """Evidence over these 64 bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WithTokens:
    """A producer that brings tokens along, of the services that the contract demands for this kind of platform."""

    inner: Producer
    clients: Mapping[TokenService, TokenClient]
    wanted: frozenset[tuple[str, TokenService]]
    """Pairs of a kind of platform and a service."""

    def evidence(self, report_data: bytes) -> Evidence:
        """Evidence with its tokens. A demanded one that this machine has no client for is left out: the owners say no, by name.

        Raises what the hardware raises, and Unavailable if a service does not answer.
        """
        made = self.inner.evidence(report_data)
        tokens = [
            Part(name=f"{TOKEN}{service}", data=client.token(made, report_data))
            for service, client in sorted(self.clients.items())
            if (made.platform, service) in self.wanted
        ]
        return replace(made, parts=(*made.parts, *tokens)) if tokens else made


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureAttestation:
    """An instance of Azure Attestation, at ``https://NAME.REGION.attest.azure.net``."""

    url: str

    def token(self, evidence: Evidence, report_data: bytes) -> bytes:
        """A token about SGX, TDX or bare SNP. Raises Unavailable; Misuse for a kind that this API does not take."""
        path = _AZURE_PATHS.get(evidence.platform)
        if path is None:
            raise Misuse("evidence.token-kind", "expected SGX, TDX or SNP evidence for Azure Attestation, got another")
        body = {"report": _snp(evidence)} if evidence.platform == "snp" else {"quote": _b64url(evidence.statement)}
        return _post(self.url, f"/attest/{path}", body, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelTrustAuthority:
    """Intel Trust Authority. ``key``: the operator's API key, which names whoever pays and gives no say over a verdict."""

    url: str
    key: str

    def token(self, evidence: Evidence, report_data: bytes) -> bytes:
        """A token about SGX or TDX, signed with PS384. Raises Unavailable, Misuse."""
        quotes = {"azure-tdx": next((p.data for p in evidence.parts if p.name == "td-quote"), b"")}
        quote = quotes.get(evidence.platform, evidence.statement)
        body = {"quote": base64.b64encode(quote).decode("ascii"), "token_signing_alg": "PS384"}
        return _post(self.url, "/appraisal/v1/attest", body, {"x-api-key": self.key})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidentialSpace:
    """Google's launcher beside the workload, which asks Google for a token about its own evidence of this machine."""

    audience: str
    socket: str = LAUNCHER

    def token(self, evidence: Evidence, report_data: bytes) -> bytes:
        """A token with certificates (``PKI``) whose one nonce stands for the session. Raises Unavailable."""
        nonce = token_binding("google-confidential-space", report_data).hex()
        body = {"audience": self.audience, "token_type": "PKI", "nonces": [nonce]}
        data = _exchange(_UnixConnection(self.socket), "/v1/token", body, {})
        return _plausible(data)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _snp(evidence: Evidence) -> str:
    """Report and certificates as Azure Attestation takes them: base64url of JSON with base64url members."""
    table = next((part.data for part in evidence.parts if part.name == "certificates"), b"")
    pems = "".join(f"{_BEGIN}\n{base64.encodebytes(der).decode('ascii')}{_END}\n" for der in _chain(table))
    inner = {"SnpReport": _b64url(evidence.statement), "VcekCertChain": _b64url(pems.encode("ascii"))}
    return _b64url(json.dumps(inner).encode("ascii"))


def _chain(table: bytes) -> list[bytes]:
    """The chip's certificate, AMD's intermediate and root, of the host's table (GHCB specification 2.0, 4.1.8.1)."""
    found: dict[bytes, bytes] = {}
    for at in range(0, len(table) - _ENTRY + 1, _ENTRY):
        guid, offset, size = struct.unpack_from("<16sII", table, at)
        if guid == bytes(16):
            break
        found[guid] = table[offset : offset + size]
    return [found[guid] for guid in _GUIDS if guid in found]


def _post(url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
    """The member ``token`` of the answer. Plain HTTP is taken for loopback only."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=_SECONDS)
    elif parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1"):
        connection = http.client.HTTPConnection(host, parts.port, timeout=_SECONDS)
    else:
        raise Misuse("evidence.token-service", "expected an https address of an attestation service, got another")
    data = _exchange(connection, parts.path.rstrip("/") + path, body, headers)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _wrong() from None
    token = value.get("token") if isinstance(value, dict) else None
    if not isinstance(token, str) or not token.isascii():
        raise _wrong()
    return _plausible(token.encode("ascii"))


def _exchange(
    connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> bytes:
    with closing(connection):
        try:
            connection.request("POST", path, body=json.dumps(body).encode("ascii"), headers={**_JSON, **headers})
            with connection.getresponse() as response:
                data = response.read(_MAX_TOKEN + 1024)
        except (OSError, http.client.HTTPException, ValueError):
            raise _wrong() from None
    if response.status != 200:
        raise _wrong()
    return data


def _plausible(token: bytes) -> bytes:
    """A token as it came: three parts, no blanks, not too long. What it says is for others to judge."""
    bare = token.strip()
    if not 0 < len(bare) <= _MAX_TOKEN or bare.count(b".") != 2:
        raise _wrong()
    return bare


def _wrong() -> Unavailable:
    return Unavailable(
        "evidence.token",
        "expected an attestation service to answer with a token, got no answer or another one",
        hint="--attest-with names the services; is this one reachable from the enclave, and is its key still good?",
    )


def clients(entries: Iterable[str], key: str) -> dict[TokenService, TokenClient]:
    """Clients for ``SERVICE=WHERE`` entries: an address, or for Confidential Space the audience. Raises Misuse.

    ``key`` is Intel's API key, empty if there is none.
    """
    found: dict[TokenService, TokenClient] = {}
    for entry in entries:
        name, given, where = entry.partition("=")
        if not given or not where or name in found:
            raise _misuse()
        if name == "azure-maa":
            found["azure-maa"] = AzureAttestation(url=where)
        elif name == "google-confidential-space":
            found["google-confidential-space"] = ConfidentialSpace(audience=where)
        elif name == "intel-trust-authority":
            if not key:
                raise Misuse("evidence.token-service", "expected an API key for Intel Trust Authority, got none")
            found["intel-trust-authority"] = IntelTrustAuthority(url=where, key=key)
        else:
            raise _misuse()
    return found


def _misuse() -> Misuse:
    return Misuse(
        "evidence.token-service",
        "expected azure-maa=URL, intel-trust-authority=URL or google-confidential-space=AUDIENCE, each once; got another",
    )
