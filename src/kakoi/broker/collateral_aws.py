"""AWS's revocation lists for Nitro: what to ask, and whether it is AWS's.

The certificates of a document say where their lists are. Nobody has signed for these addresses yet when they are read,
so only two forms of address are known, and each is written anew from a region's name and a UUID: nothing that an
enclave could write makes a broker call another host. AWS writes ``http``; the same hosts speak ``https``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kakoi.attest.nitro.parse import parse
from kakoi.broker.collateral_http import Get
from kakoi.broker.collateral_pieces import HOUR, Anchors, Services, base_of, exactly
from kakoi.core import der
from kakoi.core.errors import Malformed
from kakoi.core.x509 import Certificate, NoRevocation, parse_certificate, parse_crl, verify_chain

VENDOR: Final = ""
"""AWS has one host for the root and one for each region; an address given instead is a mirror of all."""
_CRL_POINTS: Final = "2.5.29.31"
_URI: Final = 0x86
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_REGION: Final = r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}"
_ROOT_LIST: Final = re.compile(rf"https?://aws-nitro-enclaves-crl\.s3\.amazonaws\.com/crl/({_UUID})\.crl")
_REGION_LIST: Final = re.compile(
    rf"https?://crl-({_REGION})-aws-nitro-enclaves\.s3\.({_REGION})\.amazonaws\.com/crl/({_UUID})\.crl"
)
_TYPES: Final = ("application/octet-stream", "application/pkix-crl", "application/x-pkcs7-crl", "binary/octet-stream")
_MOST: Final = 1024 * 1024
_NOT_JUDGED: Final = NoRevocation(reason="the lists themselves are what is fetched; the verifier judges with them")


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsLists:
    """The lists of the root and of one regional CA."""

    region: str
    root_list: str
    region_list: str
    """UUIDs."""
    issuers: tuple[bytes, bytes] | None = None
    """DER of the regional CA and of the root, from the document. None: only a kept answer will do."""

    @property
    def asked(self) -> str:
        """``aws/eu-central-1/<uuid>/<uuid>``."""
        return f"aws/{self.region}/{self.root_list}/{self.region_list}"

    @property
    def refresh(self) -> int:
        """AWS issues them for about a month."""
        return 12 * HOUR

    def fetch(self, get: Get, services: Services) -> dict[str, bytes]:
        """Both lists and the certificates of their issuers. Raises Unavailable."""
        mirror = base_of(services, "aws")
        root_host = mirror or "https://aws-nitro-enclaves-crl.s3.amazonaws.com"
        region_host = mirror or f"https://crl-{self.region}-aws-nitro-enclaves.s3.{self.region}.amazonaws.com"
        if self.issuers is None:
            raise Malformed("collateral.piece", "expected the document whose lists are wanted, got none")
        return {
            "crl-root": get(f"{root_host}/crl/{self.root_list}.crl", most=_MOST, types=_TYPES).body,
            "crl-region": get(f"{region_host}/crl/{self.region_list}.crl", most=_MOST, types=_TYPES).body,
            "region": self.issuers[0],
            "root": self.issuers[1],
        }

    def check(self, parts: Mapping[str, bytes], now: int, anchors: Anchors) -> tuple[int, ...]:
        """See ``Want``: dates of both lists."""
        exactly(parts, "crl-root", "crl-region", "region", "root")
        chain = [parse_certificate(parts[name]) for name in ("region", "root")]
        verify_chain(chain, roots=anchors.aws, now=now, revocation=_NOT_JUDGED, leaf="ca")
        lists = [parse_crl(parts[name]) for name in ("crl-region", "crl-root")]
        for crl, issuer in zip(lists, chain, strict=True):
            crl.verify(issuer, now)
        return lists[1].this_update, lists[0].this_update

    def collateral(self, parts: Mapping[str, bytes]) -> dict[str, bytes]:
        """The lists."""
        return {name: parts[name] for name in ("crl-root", "crl-region")}


def aws_lists(document: bytes) -> AwsLists | None:
    """The lists that a Nitro document's certificates point to; None if they point to none of AWS's. Raises Malformed."""
    bundle = parse(document).cabundle
    if len(bundle) < 3:
        return None
    root, regional, zonal = bundle[:3]
    above = _ROOT_LIST.fullmatch(_address(parse_certificate(regional)))
    below = _REGION_LIST.fullmatch(_address(parse_certificate(zonal)))
    if above is None or below is None or below[1] != below[2]:
        return None
    return AwsLists(region=below[1], root_list=above[1], region_list=below[3], issuers=(regional, root))


def _address(certificate: Certificate) -> str:
    """The only address in CRLDistributionPoints (RFC 5280 §4.2.1.13); empty text for any other form."""
    if _CRL_POINTS not in certificate.extensions:
        return ""
    names = der.sequence(certificate.extension(_CRL_POINTS))
    for expected in (der.SEQUENCE, 0xA0, 0xA0, _URI):
        if len(names) != 1 or names[0][0] != expected:
            return ""
        if expected == _URI:
            break
        names = der.items(names[0][1])
    return names[0][1].decode("ascii", "replace")
