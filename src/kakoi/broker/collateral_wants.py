"""From evidence to questions, and from the text of a question back to it. Reads evidence; trusts nothing in it."""

from __future__ import annotations

import re
from typing import Final, cast

from kakoi.attest.azure.parse import parse as parse_hcl
from kakoi.attest.report import Evidence
from kakoi.attest.snp import parse as snp
from kakoi.attest.snp.endorsement import TCB_LAYOUT, product_of_cpuid, read, split_tcb
from kakoi.attest.snp.parse import Product, Report
from kakoi.broker.collateral_amd import AmdChain, AmdList, AmdVcek, KeyKind
from kakoi.broker.collateral_aws import AwsLists, aws_lists
from kakoi.broker.collateral_intel import Ca, IntelWant, Tee, intel_want
from kakoi.broker.collateral_pieces import Want
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.x509 import Certificate, parse_certificate
from kakoi.core.x509_fields import common_name

_INTEL: Final = re.compile(r"intel/(sgx|tdx)/([0-9a-f]{12})/(processor|platform)")
_AMD: Final = re.compile(r"amd/(Milan|Genoa|Turin)/(vcek|vlek)/(chain|crl)")
_VCEK: Final = re.compile(
    r"amd/(Milan|Genoa|Turin)/vcek/([0-9a-f]{16}|[0-9a-f]{128})/([0-9]{1,3}(?:\.[0-9]{1,3}){3,4})"
)
_AWS: Final = re.compile(r"aws/([a-z0-9-]{5,30})/([0-9a-f-]{36})/([0-9a-f-]{36})")
_HWID_BYTES: Final = {"Milan": 64, "Genoa": 64, "Turin": 8}
_BEFORE_CPUID: Final[tuple[Product, ...]] = ("Milan", "Genoa")
"""Product lines whose firmware wrote reports of version 2, which do not say which they are of."""


def wants(evidence: Evidence) -> tuple[tuple[Want, ...], ...]:
    """What to ask for this evidence: alternatives, each a set that is needed whole; the first that is answered will do.

    Nothing for ``software``, and for what has no endorsements. Raises Malformed and Refused for evidence that cannot be read.
    """
    if evidence.platform in ("sgx", "tdx"):
        return ((intel_want(evidence.statement),),)
    given = {part.name: part.data for part in evidence.parts}
    if evidence.platform == "azure-tdx":
        return ((intel_want(given.get("td-quote", b"")),),)
    if evidence.platform == "snp":
        table = snp.parse_certificate_table(given["certificates"]) if "certificates" in given else {}
        keys = {"vcek": table.get(snp.VCEK_GUID), "vlek": table.get(snp.VLEK_GUID)}
        return _amd(snp.parse(evidence.statement), keys)
    if evidence.platform == "azure-snp":
        report = snp.parse(parse_hcl(evidence.statement).statement)
        return _amd(report, {"vcek": given.get("vcek"), "vlek": None})
    if evidence.platform == "nitro":
        lists = aws_lists(evidence.statement)
        return ((lists,),) if lists else ()
    return ()


def _amd(report: Report, host: dict[str, bytes | None]) -> tuple[tuple[Want, ...], ...]:
    """The host's own certificate is used if it is for this chip and version; AMD's service is asked otherwise."""
    key = cast(KeyKind, report.signing_key.lower())
    certificate = _parsed(host[key])
    product = product_of_cpuid(report) or _line(certificate)
    alternatives = []
    for line in _BEFORE_CPUID if product is None else (product,):
        vcek = None if key == "vlek" else _vcek(report, line)
        chain: Want = AmdChain(product=line, key=key)
        if vcek is not None and not _fits(certificate, vcek):
            chain = vcek
        alternatives.append((chain, AmdList(product=line, key=key)))
    return tuple(alternatives)


def _parsed(certificate: bytes | None) -> Certificate | None:
    try:
        return None if certificate is None else parse_certificate(certificate)
    except KakoiError:
        return None


def _line(certificate: Certificate | None) -> Product | None:
    """The product line in the name of a certificate's issuer, ``SEV-Milan`` or ``SEV-VLEK-Milan``."""
    name = "" if certificate is None else common_name(certificate.issuer)
    return next((line for line in _BEFORE_CPUID if name in (f"SEV-{line}", f"SEV-VLEK-{line}")), None)


def _vcek(report: Report, product: Product) -> AmdVcek | None:
    """The chip's certificate to ask for; None if the chip id is masked, or is none of this line's."""
    size = _HWID_BYTES[product]
    if any(report.chip_id[size:]) or not any(report.chip_id):
        return None
    tcb = split_tcb(report.reported_tcb, product, "REPORTED_TCB")
    return AmdVcek(product=product, hwid=report.chip_id[:size].hex(), tcb=tuple(tcb.values()))


def _fits(certificate: Certificate | None, wanted: AmdVcek) -> bool:
    """Whether the host's certificate says what is wanted. Whether AMD says so too is judged by the verifier."""
    if certificate is None:
        return False
    try:
        said = read(certificate, "VCEK", wanted.product)
    except KakoiError:
        return False
    return (said.hwid.hex(), tuple(said.tcb.values())) == (wanted.hwid, wanted.tcb)


def want_of(asked: str) -> Want:
    """The question whose text is ``asked``. Raises Malformed ``collateral.asked``."""
    if match := _INTEL.fullmatch(asked):
        return IntelWant(tee=cast(Tee, match[1]), fmspc=match[2], ca=cast(Ca, match[3]))
    if match := _AMD.fullmatch(asked):
        product, key = cast(Product, match[1]), cast(KeyKind, match[2])
        return AmdChain(product=product, key=key) if match[3] == "chain" else AmdList(product=product, key=key)
    if match := _VCEK.fullmatch(asked):
        product, tcb = cast(Product, match[1]), tuple(map(int, match[3].split(".")))
        vcek = AmdVcek(product=product, hwid=match[2], tcb=tcb)
        if len(tcb) == len(TCB_LAYOUT[product]) and len(match[2]) == 2 * _HWID_BYTES[product] and vcek.asked == asked:
            return vcek
    if match := _AWS.fullmatch(asked):
        return AwsLists(region=match[1], root_list=match[2], region_list=match[3])
    raise Malformed(
        "collateral.asked",
        "expected a question that this version knows, got another",
        hint="docs/collateral.md lists them; the sender may be newer",
    )
