"""AMD's Key Distribution Service (KDS): what to ask, and whether it is AMD's.

Source: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230), chapter 4.
VLEK certificates are given to cloud providers only; they come in the host's certificate table, and only what stands
above them is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.attest.report import refusal
from kakoi.attest.snp import endorsement
from kakoi.attest.snp.endorsement import TCB_LAYOUT
from kakoi.attest.snp.parse import Product
from kakoi.broker.collateral_http import Get
from kakoi.broker.collateral_pieces import DAY, HOUR, Anchors, Services, base_of, exactly
from kakoi.core.x509 import Certificate, NoRevocation, parse_certificate, parse_crl, parse_pem_chain, verify_chain

VENDOR: Final = "https://kdsintf.amd.com"
KeyKind = Literal["vcek", "vlek"]
_MOST: Final = 64 * 1024
_MOST_LIST: Final = 1024 * 1024
_TYPES: Final = (
    "application/octet-stream",
    "application/pem-certificate-chain",
    "application/pkix-cert",
    "application/pkix-crl",
    "application/x-pem-file",
    "application/x-pkcs7-crl",
    "application/x-x509-ca-cert",
    "binary/octet-stream",
    "text/plain",
)
_PARAMETER: Final = {"fmc": "fmcSPL", "boot-loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
_NOT_JUDGED: Final = NoRevocation(reason="the list itself is fetched too; the verifier judges with it")


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdChain:
    """The intermediate (ASK or ASVK) and root (ARK) of a product line."""

    product: Product
    key: KeyKind

    @property
    def asked(self) -> str:
        """``amd/Genoa/vlek/chain``."""
        return f"amd/{self.product}/{self.key}/chain"

    @property
    def refresh(self) -> int:
        """These certificates live for decades."""
        return 30 * DAY

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """``intermediate`` and ``root``. Raises Unavailable and Malformed."""
        return _chain(get, base_of(services, "amd"), self.key, self.product)

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """See ``Want``: the date of the intermediate."""
        exactly(parts, "intermediate", "root")
        chain = [parse_certificate(parts[name]) for name in ("intermediate", "root")]
        verify_chain(chain, roots=anchors.amd.keys(), now=now, revocation=_NOT_JUDGED, leaf="ca")
        _above(chain[0], chain[1], self.key, self.product, anchors)
        return (chain[0].not_before,)

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """All of it."""
        return dict(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdVcek:
    """The certificate of one chip at one TCB version, with what stands above it."""

    product: Product
    hwid: str
    """Hex: 64 bytes, on Turin 8."""
    tcb: tuple[int, ...]
    """In the order of the product's layout."""

    @property
    def asked(self) -> str:
        """``amd/Turin/vcek/<hwid>/1.2.1.3.71``."""
        return f"amd/{self.product}/vcek/{self.hwid}/{'.'.join(map(str, self.tcb))}"

    @property
    def refresh(self) -> int:
        """A chip and a TCB version have one certificate; AMD issues it again at times."""
        return 90 * DAY

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """``vcek``, ``intermediate`` and ``root``. Raises Unavailable and Malformed."""
        base = base_of(services, "amd")
        versions = zip(TCB_LAYOUT[self.product], self.tcb, strict=True)
        query = "&".join(f"{_PARAMETER[name]}={version}" for name, version in versions)
        url = f"{base}/vcek/v1/{self.product}/{self.hwid}?{query}"
        vcek = get(url, most=_MOST, types=_TYPES).body
        return {"vcek": parse_certificate(vcek).der, **_chain(get, base, "vcek", self.product)}

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """See ``Want``: the date of the certificate."""
        exactly(parts, "vcek", "intermediate", "root")
        chain = [parse_certificate(parts[name]) for name in ("vcek", "intermediate", "root")]
        verify_chain(chain, roots=anchors.amd.keys(), now=now, revocation=_NOT_JUDGED)
        _above(chain[1], chain[2], "vcek", self.product, anchors)
        endorsement.check_name(chain[0].subject, "SEV-VCEK", "the chip's certificate")
        said = endorsement.read(chain[0], "VCEK", self.product)
        got = f"amd/{self.product}/vcek/{said.hwid.hex()}/{'.'.join(map(str, said.tcb.values()))}"
        if got != self.asked:
            raise refusal("collateral.other", "answer", f"one about {self.asked}", got, "platform-operator")
        return (chain[0].not_before,)

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """All of it."""
        return dict(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdList:
    """The root's revocation list."""

    product: Product
    key: KeyKind

    @property
    def asked(self) -> str:
        """``amd/Genoa/vcek/crl``."""
        return f"amd/{self.product}/{self.key}/crl"

    @property
    def refresh(self) -> int:
        """AMD issues lists for months; news in them is what counts."""
        return 12 * HOUR

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """``crl`` and the ``root`` that signed it. Raises Unavailable and Malformed."""
        base = base_of(services, "amd")
        crl = get(f"{base}/{self.key}/v1/{self.product}/crl", most=_MOST_LIST, types=_TYPES).body
        return {"crl": crl, "root": _chain(get, base, self.key, self.product)["root"]}

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """See ``Want``: the date of the list."""
        exactly(parts, "crl", "root")
        root, crl = parse_certificate(parts["root"]), parse_crl(parts["crl"])
        _root(root, self.product, anchors)
        root.signed_by(root)
        crl.verify(root, now)
        return (crl.this_update,)

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """The list."""
        return {"crl": parts["crl"]}


def _chain(get: Get, base: str, key: KeyKind, product: Product) -> dict[str, bytes]:
    pem = get(f"{base}/{key}/v1/{product}/cert_chain", most=_MOST, types=_TYPES).body
    intermediate, root = parse_pem_chain(pem, 2)
    return {"intermediate": intermediate.der, "root": root.der}


def _root(root: Certificate, product: Product, anchors: Anchors) -> None:
    got = anchors.amd.get(root.spki_sha256)
    if got != product:
        raise refusal(
            "collateral.other", "root of the answer", f"AMD's for {product}", got or "an unknown one", "nobody"
        )


def _above(intermediate: Certificate, root: Certificate, key: KeyKind, product: Product, anchors: Anchors) -> None:
    """The intermediate is the one for this kind of key, under the root of this product."""
    _root(root, product, anchors)
    name = f"SEV-{product}" if key == "vcek" else f"SEV-VLEK-{product}"
    endorsement.check_name(intermediate.subject, name, "the intermediate")
