"""SEV-SNP: who signed a report, on which product, with which chip and firmware.

``verify`` is the only way to a ``VerifiedReport``. Its steps, with the clause or the mistake they answer:

1. The chain is VCEK or VLEK ← ASK or ASVK ← ARK, the ARK's key is one of AMD's pinned product roots; signatures
   (RSASSA-PSS, SHA-384), windows at ``now``, CA flags, path length and key usage as RFC 5280 wants (57230 §2).
2. Names: ARK-*product*, SEV-*product* or SEV-VLEK-*product*, SEV-VCEK or SEV-VLEK, AMD's location. The kind of key
   follows SIGNING_KEY of the report; a check keyed to a name that never occurs would never run
   (trustee compares with ``VCEK``, genuine certificates say ``SEV-VCEK``).
3. Revocation: a list signed by the ARK, in its window, that holds neither ASK nor ASVK. Without a list the step is
   skipped, which shows as the fact ``revocation`` = ``not checked``: only a policy that accepts it by name passes.
   A list outside its window refuses: stale is not the same as absent.
4. Product: CPUID of the report (version 3 on), the certificate's product name and the pinned root agree.
5. TCB layout: reserved bytes of all four TCB versions are zero in that product's layout (Turin has its own; a report
   read in the other layout is how virtee/sev #307 went wrong).
6. The certificate was issued for REPORTED_TCB: all components equal (go-sev-guest #72, #73).
7. The certificate was issued for CHIP_ID: equal to its HWID (64 bytes; on Turin 8 bytes and zeros). A masked chip id
   (zeros) cannot be compared; that shows as the fact ``chip-id`` = ``masked``.
8. The report's signature: ECDSA P-384, SHA-384, over its first 672 bytes (56860, ATTESTATION_REPORT).
9. Order of TCB versions: REPORTED ≤ CURRENT and COMMITTED ≤ CURRENT in every component, and the committed firmware is
   not newer than the current one.

Not checked, and why: the stepping in product names such as ``Milan-B0`` (genuine certificates name a stepping that
CPUID contradicts); LAUNCH_TCB ≤ CURRENT_TCB (provisional firmware may be rolled back after launch; policies set
minima for both); revocation of a VCEK or VLEK itself (AMD publishes no list for them and replaces them by TCB
version); the certificate's serial number (AMD writes 0); REPORT_ID (random for each guest, so no policy can name it;
REPORT_ID_MA is a fact). Everything else in a report becomes a claim or a fact that a policy has to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kakoi.attest.report import refusal
from kakoi.attest.snp import endorsement
from kakoi.attest.snp.endorsement import ROOTS, Endorsement, Tcb, check_name, product_of_cpuid, split_tcb
from kakoi.attest.snp.parse import ZERO_CHIP_ID, Product, Report, SigningKey
from kakoi.core.errors import Malformed
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import (
    Certificate,
    NoRevocation,
    Revocation,
    VerifiedChain,
    parse_certificate,
    parse_crl,
    verify_chain,
)

NO_LIST_FOR_LEAF: Final = "AMD publishes no revocation list for chip keys; their TCB version replaces them"
NO_LIST: Final = "no revocation list was given"
_RSA_PSS_SHA384: Final = bytes.fromhex("06092a864886f70d01010a")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """Collateral for one report, DER. ``crl`` is the ARK's list; None if there is none, which policies must accept."""

    endorsement_key: bytes
    intermediate: bytes
    root: bytes
    crl: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReport(metaclass=Sealed):
    """A report whose signature leads to one of AMD's roots."""

    report: Report
    product: Product
    endorsement: Endorsement
    reported_tcb: Tcb
    current_tcb: Tcb
    committed_tcb: Tcb
    launch_tcb: Tcb
    chip_id_masked: bool
    chain: VerifiedChain
    crl_issued_at: int | None
    """When the revocation list used was issued; None if revocation was not checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endorsed:
    """Steps 1 to 3 and what the certificate says; good for every second of the chain's window."""

    chain: VerifiedChain
    product: Product
    endorsement: Endorsement
    crl_issued_at: int | None


@lru_cache(maxsize=64)
def _kept(key: tuple[Endorsements, SigningKey, frozenset[tuple[str, Product]]]) -> list[_Endorsed]:
    """The place where the outcome for exactly these bytes and roots is kept, empty at first.

    A pure function's result may be kept: the same certificates lead to the same chain, at any time in its window.
    """
    return []


def _endorse(endorsements: Endorsements, signing_key: SigningKey, now: int, roots: Mapping[str, Product]) -> _Endorsed:
    kept = _kept((endorsements, signing_key, frozenset(roots.items())))
    if kept and kept[0].chain.valid_from <= now <= kept[0].chain.valid_until:
        return kept[0]
    certificates = [
        parse_certificate(der) for der in (endorsements.endorsement_key, endorsements.intermediate, endorsements.root)
    ]
    crl = None if endorsements.crl is None else parse_crl(endorsements.crl)
    revocation = Revocation(lists=[crl], uncovered_leaf=NO_LIST_FOR_LEAF) if crl else NoRevocation(reason=NO_LIST)
    chain = verify_chain(certificates, roots=roots.keys(), now=now, revocation=revocation)  # steps 1, 3
    product = roots[chain.root_spki_sha256]
    _check_certificates(certificates, signing_key, product)  # steps 1, 2
    kept[:] = [
        _Endorsed(
            chain=chain,
            product=product,
            endorsement=endorsement.read(chain.leaf, signing_key, product),
            crl_issued_at=crl.this_update if crl else None,
        )
    ]
    return kept[0]


def verify(
    report: Report, endorsements: Endorsements, *, now: int, roots: Mapping[str, Product] = ROOTS
) -> VerifiedReport:
    """The report with what is proved about it, after the numbered steps of this module.

    ``roots`` maps the SHA-256 of accepted root keys to their product; only tests pass others than AMD's.
    Raises Malformed ``snp.*``, ``x509.*``, ``der.*``; Refused ``x509.*``, ``snp.name``, ``snp.key``, ``snp.product``,
    ``snp.tcb``, ``snp.chip-id``, ``snp.tcb-order``.
    """
    endorsed = _endorse(endorsements, report.signing_key, now, roots)  # steps 1 to 3
    product, certificate = endorsed.product, endorsed.endorsement
    _check_product(report, certificate, product)  # step 4
    tcbs = {  # step 5
        name: split_tcb(raw, product, name)
        for name, raw in (
            ("REPORTED_TCB", report.reported_tcb),
            ("CURRENT_TCB", report.current_tcb),
            ("COMMITTED_TCB", report.committed_tcb),
            ("LAUNCH_TCB", report.launch_tcb),
        )
    }
    reported = tcbs["REPORTED_TCB"]
    if certificate.tcb != reported:  # step 6
        expected = f"the certificate's {_show(certificate.tcb)}"
        raise refusal("snp.tcb", "REPORTED_TCB", expected, _show(reported), "nobody")
    masked = _check_chip_id(report, certificate)  # step 7
    key = endorsed.chain.leaf.public_key
    key.verify_ecdsa_raw(report.signature, report.signed, "the SNP report", hash_name="sha384")  # step 8
    _check_order(report, tcbs)  # step 9
    return VerifiedReport._seal(
        report=report,
        product=product,
        endorsement=certificate,
        reported_tcb=reported,
        current_tcb=tcbs["CURRENT_TCB"],
        committed_tcb=tcbs["COMMITTED_TCB"],
        launch_tcb=tcbs["LAUNCH_TCB"],
        chip_id_masked=masked,
        chain=endorsed.chain,
        crl_issued_at=endorsed.crl_issued_at,
    )


def _show(tcb: Tcb) -> str:
    return ", ".join(f"{name} {version}" for name, version in tcb.items())


def _check_certificates(chain: list[Certificate], signing_key: SigningKey, product: Product) -> None:
    leaf, intermediate, root = chain
    if any(not certificate.algorithm.startswith(_RSA_PSS_SHA384) for certificate in chain):
        raise Malformed("snp.endorsement", "AMD certificates: expected RSASSA-PSS signatures, got another algorithm")
    if leaf.public_key.kind != "P-384":
        raise refusal("snp.key", "endorsement key", "an ECDSA key on P-384", leaf.public_key.kind, "nobody")
    middle = f"SEV-{product}" if signing_key == "VCEK" else f"SEV-VLEK-{product}"
    check_name(leaf.subject, f"SEV-{signing_key}", "the endorsement key")
    check_name(intermediate.subject, middle, "the intermediate")
    check_name(root.subject, f"ARK-{product}", "the root")


def _check_product(report: Report, endorsed: Endorsement, product: Product) -> None:
    named = endorsed.product_name.split("-", 1)[0]
    if named != product:
        raise refusal("snp.product", "product of the certificate", product, named, "nobody")
    measured = product_of_cpuid(report)
    if measured not in (None, product):
        raise refusal("snp.product", "CPUID of the report", product, str(measured), "nobody")


def _check_chip_id(report: Report, endorsed: Endorsement) -> bool:
    """Whether the chip id is masked, after comparing it with the certificate's if it is not."""
    if report.chip_id == ZERO_CHIP_ID:
        return True
    if endorsed.kind == "VCEK" and endorsed.hwid.ljust(len(report.chip_id), b"\0") != report.chip_id:
        raise refusal(
            "snp.chip-id", "CHIP_ID", f"the certificate's {endorsed.hwid.hex()}", report.chip_id.hex(), "nobody"
        )
    return False


def _check_order(report: Report, tcbs: Mapping[str, Tcb]) -> None:
    current = tcbs["CURRENT_TCB"]
    for lower in ("REPORTED_TCB", "COMMITTED_TCB"):
        if any(version > current[name] for name, version in tcbs[lower].items()):
            raise refusal("snp.tcb-order", lower, f"at most {_show(current)}", _show(tcbs[lower]), "platform-operator")
    if report.committed_firmware.number > report.current_firmware.number:
        raise refusal(
            "snp.tcb-order",
            "committed firmware",
            f"at most {report.current_firmware}",
            str(report.committed_firmware),
            "platform-operator",
        )
