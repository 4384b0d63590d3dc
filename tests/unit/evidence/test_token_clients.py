"""Clients of attestation services: what they send, and answers that are slow to end, huge, cut, empty or no tokens."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from kakoi.attest.report import Evidence, Part, token_binding
from kakoi.core.errors import Misuse, Unavailable
from kakoi.evidence import tokens
from kakoi.evidence.tokens import AzureAttestation, ConfidentialSpace, IntelTrustAuthority, WithTokens
from support.token_services import Service, serving

BOUND = bytes(range(64))
TOKEN = b"aa.bb.cc"
SGX = Evidence(platform="sgx", statement=b"quote \xff", parts=())


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as running:
        running.answer = lambda body: json.dumps({"token": TOKEN.decode()}).encode()
        yield running


def test_azure(service: Service) -> None:
    client = AzureAttestation(url=service.url + "/")
    assert client.token(SGX, BOUND) == TOKEN
    path, _, body = service.asked.pop()
    assert path == "/attest/SgxEnclave?api-version=2022-08-01"
    assert body == {"quote": base64.urlsafe_b64encode(SGX.statement).rstrip(b"=").decode()}
    client.token(Evidence(platform="tdx", statement=b"td", parts=()), BOUND)
    assert service.asked.pop()[0].startswith("/attest/TdxVm?")
    with pytest.raises(Misuse):
        client.token(Evidence(platform="azure-snp", statement=b"hcl", parts=()), BOUND)


def test_azure_gets_the_chips_certificates(service: Service) -> None:
    """From the host's table, in the order that a chain has."""
    wanted = {"c0b406a4-a803-4952-9743-3fb6014cd0ae": b"root", "63da758d-e664-4564-adc5-f4b93be8accd": b"chip"}
    header, body = b"", b""
    for guid, der in wanted.items():
        header += struct.pack("<16sII", UUID(guid).bytes, 24 * (len(wanted) + 1) + len(body), len(der))
        body += der
    table = header + bytes(24) + body
    snp = Evidence(platform="snp", statement=b"report", parts=(Part(name="certificates", data=table),))
    AzureAttestation(url=service.url).token(snp, BOUND)
    path, _, sent = service.asked.pop()
    assert path.startswith("/attest/SevSnpVm?")
    inner = json.loads(_unb64url(sent["report"]))
    assert _unb64url(inner["SnpReport"]) == b"report"
    pem = _unb64url(inner["VcekCertChain"]).decode()
    assert [base64.b64decode(block.split("-----")[0]) for block in pem.split("CERTIFICATE-----\n")[1::2]] == [
        b"chip",
        b"root",
    ]


def _unb64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_intel(service: Service) -> None:
    client = IntelTrustAuthority(url=service.url, key="secret")
    assert client.token(SGX, BOUND) == TOKEN
    path, headers, body = service.asked.pop()
    assert (path, headers["x-api-key"]) == ("/appraisal/v1/attest", "secret")
    assert body == {"quote": base64.b64encode(SGX.statement).decode(), "token_signing_alg": "PS384"}
    guest = Evidence(platform="azure-tdx", statement=b"hcl", parts=(Part(name="td-quote", data=b"td"),))
    client.token(guest, BOUND)
    assert base64.b64decode(service.asked.pop()[2]["quote"]) == b"td"


def test_google(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as launcher:
        launcher.answer = lambda body: TOKEN + b"\n"
        client = ConfidentialSpace(audience="hospitals", socket=launcher.url)
        assert client.token(SGX, BOUND) == TOKEN
        nonce = token_binding("google-confidential-space", BOUND).hex()
        path, _, body = launcher.asked.pop()
        assert path == "/v1/token"
        assert body == {"audience": "hospitals", "token_type": "PKI", "nonces": [nonce]}
    with pytest.raises(Unavailable) as caught:
        client.token(SGX, BOUND)
    assert caught.value.code == "evidence.token"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, b""),
        (200, b"[]"),
        (200, b"{"),
        (200, b'{"token": 1}'),
        (200, b'{"token": "no token"}'),
        (200, '{"token": "\u00e9.b.c"}'.encode()),
        (200, b'{"token": "' + b"a" * 70_000 + b'.b.c"}'),
        (200, b"[" * 50_000),
        (500, b'{"token": "a.b.c"}'),
        (302, b'{"token": "a.b.c"}'),
    ],
)
def test_wrong_answers(service: Service, status: int, answer: bytes) -> None:
    service.status, service.answer = status, lambda body: answer
    with pytest.raises(Unavailable) as caught:
        AzureAttestation(url=service.url).token(SGX, BOUND)
    assert caught.value.code == "evidence.token"


@dataclass
class Hardware:
    asked: list[bytes] = field(default_factory=list)

    def evidence(self, report_data: bytes) -> Evidence:
        self.asked.append(report_data)
        return SGX


def test_only_what_a_contract_demands_is_asked(service: Service) -> None:
    clients = tokens.clients([f"azure-maa={service.url}", f"intel-trust-authority={service.url}"], "key")
    hardware = Hardware()

    def made(*wanted: tuple[str, str]) -> list[str]:
        producer = WithTokens(inner=hardware, clients=clients, wanted=frozenset(wanted))  # type: ignore[arg-type]
        return [part.name for part in producer.evidence(BOUND).parts]

    assert made(("sgx", "azure-maa")) == ["token.azure-maa"]
    assert len(service.asked) == 1
    assert made(("tdx", "azure-maa"), ("sgx", "google-confidential-space")) == []
    assert made(("sgx", "azure-maa"), ("sgx", "intel-trust-authority")) == [
        "token.azure-maa",
        "token.intel-trust-authority",
    ]
    assert hardware.asked == [BOUND] * 3


@pytest.mark.parametrize(
    "entries",
    [
        ["azure-maa"], ["azure-maa="], ["nobody=https://x"], ["azure-maa=https://a", "azure-maa=https://b"],
        ["intel-trust-authority=https://a"],
    ],
)  # fmt: skip
def test_wrong_options(entries: list[str]) -> None:
    with pytest.raises(Misuse) as caught:
        tokens.clients(entries, "")
    assert caught.value.code == "evidence.token-service"


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "", "https:"])
def test_no_plain_http_beyond_loopback(url: str) -> None:
    with pytest.raises((Misuse, Unavailable)):
        AzureAttestation(url=url).token(SGX, BOUND)
