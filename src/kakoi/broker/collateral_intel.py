"""Intel's Provisioning Certification Service, version 4, and caches of it (PCCS): what to ask, and whether it is Intel's.

Source: Intel, "SGX and TDX Provisioning Certification Service API" v4; "Design Guide for SGX PCCS" for the root's list,
which Intel itself publishes at another host than the rest, and which a PCCS hands out in hex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from kakoi.attest.dcap.own import pck, tcb
from kakoi.attest.dcap.own.collateral import PARTS, PCK_CAS, ROOT_CA, TCB_SIGNER
from kakoi.attest.dcap.parse import parse
from kakoi.attest.report import refusal
from kakoi.broker.collateral_http import Get, Reply
from kakoi.broker.collateral_pieces import HOUR, Anchors, Services, base_of, exactly
from kakoi.core.errors import Malformed
from kakoi.core.x509 import (
    NoRevocation,
    VerifiedChain,
    parse_crl,
    parse_pem_chain,
    utc,
    verify_chain,
)
from kakoi.core.x509_fields import common_name

VENDOR: Final = "https://api.trustedservices.intel.com"
_VENDOR_ROOT_LIST: Final = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
_MOST: Final = 1024 * 1024
_MOST_LIST: Final = 4 * 1024 * 1024
_JSON: Final = ("application/json",)
_BINARY: Final = (
    "application/octet-stream",
    "application/pkix-crl",
    "application/x-pem-file",
    "application/x-pkcs7-crl",
    "application/x-x509-ca-cert",
    "binary/octet-stream",
    "text/plain",
)
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_SIGNATURE: Final = re.compile(r"[0-9A-Fa-f]{128}")
_HEX: Final = re.compile(rb"(?:[0-9A-Fa-f]{2})+")
_NOT_JUDGED: Final = NoRevocation(reason="the lists themselves are what is fetched; the verifier judges with them")
Tee = Literal["sgx", "tdx"]
Ca = Literal["processor", "platform"]
_CA_NAMES: Final[dict[Ca, str]] = {"processor": PCK_CAS[0], "platform": PCK_CAS[1]}


def _bad(what: str, expected: str, got: str) -> Malformed:
    return Malformed(
        "collateral.intel", f"{what}: expected {expected}, got {got}", hint="the service is no PCS or PCCS"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelWant:
    """Everything about one family of platforms: both lists, TCB information, identity of the quoting enclave."""

    tee: Tee
    fmspc: str
    """12 lower-case hex digits."""
    ca: Ca

    @property
    def asked(self) -> str:
        """``intel/sgx/00906ed50000/platform``."""
        return f"intel/{self.tee}/{self.fmspc}/{self.ca}"

    @property
    def refresh(self) -> int:
        """Intel issues TCB information anew every day or so; it is good for a month."""
        return 6 * HOUR

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """The nine parts of DCAP collateral, the signed JSON members byte for byte. Raises Unavailable and Malformed."""
        base = base_of(services, "intel")
        list_url = f"{base}/sgx/certification/v4/pckcrl?ca={self.ca}&encoding=der"
        root_url = _VENDOR_ROOT_LIST if base == VENDOR else f"{base}/sgx/certification/v4/rootcacrl"
        pck_list = get(list_url, most=_MOST_LIST, types=_BINARY)
        root_list = get(root_url, most=_MOST_LIST, types=_BINARY)
        info = get(f"{base}/{self.tee}/certification/v4/tcb?fmspc={self.fmspc.upper()}", most=_MOST, types=_JSON)
        identity = get(f"{base}/{self.tee}/certification/v4/qe/identity", most=_MOST, types=_JSON)
        tcb_info, tcb_signature = signed_member(info.body, "tcbInfo")
        qe_identity, qe_signature = signed_member(identity.body, "enclaveIdentity")
        return {
            "pck_crl_issuer_chain": _chain(pck_list, "SGX-PCK-CRL-Issuer-Chain"),
            "root_ca_crl": _list(root_list.body),
            "pck_crl": _list(pck_list.body),
            "tcb_info_issuer_chain": _chain(info, "TCB-Info-Issuer-Chain"),
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_signature,
            "qe_identity_issuer_chain": _chain(identity, "SGX-Enclave-Identity-Issuer-Chain"),
            "qe_identity": qe_identity,
            "qe_identity_signature": qe_signature,
        }

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """See ``Want``: dates of TCB information, identity, PCK list and root list."""
        exactly(parts, *PARTS)
        ca = self._issuer(parts, "pck_crl", anchors, now, (_CA_NAMES[self.ca], ROOT_CA))
        pck_list, root_list = parse_crl(parts["pck_crl"]), parse_crl(parts["root_ca_crl"])
        pck_list.verify(ca.leaf, now)
        root_list.verify(ca.certificates[-1], now)
        for name in ("tcb_info", "qe_identity"):
            signer = self._issuer(parts, name, anchors, now, (TCB_SIGNER, ROOT_CA))
            signer.leaf.public_key.verify_ecdsa_raw(parts[f"{name}_signature"], parts[name], name)
        info, identity = tcb.parse_tcb_info(parts["tcb_info"]), tcb.parse_qe_identity(parts["qe_identity"])
        got = f"intel/{info.id.lower()}/{info.fmspc.hex()}"
        if got != f"intel/{self.tee}/{self.fmspc}" or identity.id != ("QE" if self.tee == "sgx" else "TD_QE"):
            raise _other(f"intel/{self.tee}/{self.fmspc}", f"{got} with identity {identity.id}")
        for what, dated in (("TCB information", info), ("QE identity", identity)):
            if not dated.issued <= now <= dated.next_update:
                window = f"{utc(dated.issued)} to {utc(dated.next_update)}"
                raise refusal(
                    "collateral.window", f"window of the {what}", f"one that contains {utc(now)}", window, "vendor"
                )
        return info.issued, identity.issued, pck_list.this_update, root_list.this_update

    def _issuer(
        self, parts: Mapping[str, bytes], name: str, anchors: Anchors, now: int, names: tuple[str, str]
    ) -> VerifiedChain:
        chain = verify_chain(
            parse_pem_chain(parts[f"{name}_issuer_chain"], 2),
            roots=anchors.intel,
            now=now,
            revocation=_NOT_JUDGED,
            leaf="ca" if name == "pck_crl" else "end-entity",
        )
        got = tuple(certificate.common_name for certificate in chain.certificates)
        if got != names:
            raise _other(" under ".join(names), " under ".join(got))
        return chain

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """All of it."""
        return dict(parts)


def _other(expected: str, got: str) -> Exception:
    return refusal("collateral.other", "answer", f"one about {expected}", got, "platform-operator")


def intel_want(quote: bytes) -> IntelWant:
    """What to ask for this quote, whose PCK certificate names family and CA. Raises Malformed."""
    parsed = parse(quote)
    leaf = parse_pem_chain(parsed.pck_chain.removesuffix(b"\0"), 3)[0]
    issuer = common_name(leaf.issuer)
    for ca, name in _CA_NAMES.items():
        if issuer == name:
            tee: Tee = "sgx" if parsed.tee == "sgx" else "tdx"
            return IntelWant(tee=tee, fmspc=pck.parse(leaf).fmspc.hex(), ca=ca)
    raise _bad("issuer of the PCK certificate", " or ".join(PCK_CAS), "another")


def signed_member(body: bytes, name: str) -> tuple[bytes, bytes]:
    """The bytes of member ``name`` exactly as they stand in ``body``, and the 64 bytes of ``signature``.

    Intel signs the text of the member, not its meaning: parsing and writing it again would break the signature.
    ``body`` is one JSON object with these two members, each once. Raises Malformed ``collateral.intel``.
    """
    try:
        found = _members(body.decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError, IndexError):
        raise _bad(name, "JSON", "something else") from None
    if [key for key, _ in found] not in ([name, "signature"], ["signature", name]):
        raise _bad(name, f"an object with {name} and signature, each once", "another")
    texts = dict(found)
    signature = texts["signature"].strip('"')
    if not _SIGNATURE.fullmatch(signature):
        raise _bad("signature", "64 bytes in hex", "something else")
    return texts[name].encode("utf-8"), bytes.fromhex(signature)


def _members(text: str) -> list[tuple[str, str]]:
    """Members of the object that ``text`` is, each value as its own text. Raises ValueError."""
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: pairs)

    def blank(at: int) -> int:
        match = _BLANK.match(text, at)
        return match.end() if match else at

    def expect(at: int, mark: str) -> int:
        at = blank(at)
        if not text.startswith(mark, at):
            raise ValueError(mark)
        return blank(at + 1)

    found: list[tuple[str, str]] = []
    at, after = expect(0, "{"), ","
    while after == ",":
        key, at = decoder.raw_decode(text, at)
        if type(key) is not str or len(found) == 8:
            raise ValueError("name")
        start = expect(at, ":")
        _, at = decoder.raw_decode(text, start)
        found.append((key, text[start:at]))
        at = blank(at)
        after = text[at : at + 1]
        at = blank(at + 1)
    if after != "}" or at != len(text):
        raise ValueError("end")
    return found


def _chain(reply: Reply, header: str) -> bytes:
    """The PEM chain in a header, which is percent-encoded."""
    value = reply.headers.get(header.lower(), "")
    if not value or not value.isascii():
        raise _bad(f"header {header}", "a certificate chain", "none")
    chain = unquote_to_bytes(value)
    parse_pem_chain(chain, 2)
    return chain


def _list(body: bytes) -> bytes:
    """A revocation list as DER; a PCCS gives it in hex."""
    text = body.strip()
    return bytes.fromhex(text.decode("ascii")) if _HEX.fullmatch(text) else body
