"""Intel's collateral: TCB information, QE identity, revocation lists and their signers, verified under a pinned root.

Verified collateral is kept by the bytes it was made from: it is a pure function of those and the roots, and every use
checks that the time still lies in the window that all its parts share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from kakoi.attest.dcap.own import tcb
from kakoi.attest.dcap.own.kept import Unkeyed
from kakoi.attest.report import Collateral, CollateralDigest, refusal
from kakoi.core.errors import Malformed
from kakoi.core.ids import object_id
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import (
    Certificate,
    Revocation,
    RevocationList,
    VerifiedChain,
    parse_crl,
    parse_pem_chain,
    utc,
    verify_chain,
)

PARTS: Final = (
    "pck_crl_issuer_chain",
    "root_ca_crl",
    "pck_crl",
    "tcb_info_issuer_chain",
    "tcb_info",
    "tcb_info_signature",
    "qe_identity_issuer_chain",
    "qe_identity",
    "qe_identity_signature",
)
"""Names of the parts of a ``Collateral``: the fields of dcap-qvl's QuoteCollateralV3. Chains are PEM, lists DER,
signatures 64 raw bytes, the two JSON texts exactly as Intel signed them."""
TCB_SIGNER: Final = "Intel SGX TCB Signing"
ROOT_CA: Final = "Intel SGX Root CA"
PCK_CAS: Final = ("Intel SGX PCK Processor CA", "Intel SGX PCK Platform CA")
_KEPT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifiedCollateral(metaclass=Sealed):
    """Collateral whose every part is signed up to a pinned root. Compared by identity."""

    tcb_info: tcb.TcbInfo
    qe_identity: tcb.QeIdentity
    root: Certificate
    root_crl: RevocationList
    pck_crl: RevocationList
    pck_ca: Certificate
    """Issuer of ``pck_crl``."""
    valid_from: int
    valid_until: int
    issued_at: int
    """The oldest of TCB information, QE identity and PCK revocation list. Not the root's list, which lives a year."""
    digests: tuple[CollateralDigest, ...]
    parts: Mapping[str, bytes]


def named_parts(collateral: Collateral) -> tuple[bytes, ...]:
    """The nine parts in the order of ``PARTS``. Raises Malformed ``dcap.collateral`` for others, missing or repeated."""
    found = {part.name: part.data for part in collateral.parts}
    if len(found) != len(collateral.parts) or set(found) != set(PARTS):
        raise Malformed(
            "dcap.collateral",
            f"collateral: expected the parts {', '.join(PARTS)}, each once, got others",
            hint="fetch the collateral again; the sender speaks another version of this format",
        )
    return tuple(found[name] for name in PARTS)


def verify(collateral: Collateral, *, roots: frozenset[str], now: int) -> VerifiedCollateral:
    """Collateral that is good at ``now`` and signed up to one of ``roots``.

    1. Exactly the nine parts.
    2. Root CA revocation list and its window; chains of the TCB signer and of the PCK CA end in the same pinned root,
       are in their windows and not revoked; their names are Intel's.
    3. PCK revocation list signed by the PCK CA, in its window.
    4. TCB information and QE identity signed over their exact bytes by the TCB signer; well-formed; in their windows.

    Raises Malformed and Refused from ``core.x509``; Refused ``dcap.collateral-*``; Malformed ``dcap.vendor-json``.
    """
    parts = named_parts(collateral)
    kept = _verified(parts, roots, Unkeyed(now))
    if not kept.valid_from <= now <= kept.valid_until:
        kept = _verify(parts, roots, now)
    return kept


@lru_cache(maxsize=_KEPT)
def _verified(parts: tuple[bytes, ...], roots: frozenset[str], now: Unkeyed[int]) -> VerifiedCollateral:
    return _verify(parts, roots, now.value)


def _named(chain: VerifiedChain, names: tuple[str, ...], what: str) -> None:
    got = tuple(certificate.common_name for certificate in chain.certificates)
    if got[0] not in names or got[-1] != ROOT_CA:
        expected = f"{' or '.join(names)} under {ROOT_CA}"
        raise refusal("dcap.collateral-signer", f"signer of {what}", expected, " under ".join(got), "nobody")


def _window(what: str, start: int, end: int, now: int) -> None:
    if not start <= now <= end:
        raise refusal(
            "dcap.collateral-window",
            f"window of the {what}",
            f"one that contains {utc(now)}",
            f"{utc(start)} to {utc(end)}",
            "platform-operator",
        )


def _verify(parts: tuple[bytes, ...], roots: frozenset[str], now: int) -> VerifiedCollateral:
    by_name = dict(zip(PARTS, parts, strict=True))
    root_crl, pck_crl = parse_crl(by_name["root_ca_crl"]), parse_crl(by_name["pck_crl"])
    revocation = Revocation(lists=[root_crl])
    pck_ca = verify_chain(
        parse_pem_chain(by_name["pck_crl_issuer_chain"], 2), roots=roots, now=now, revocation=revocation, leaf="ca"
    )
    _named(pck_ca, PCK_CAS, "the PCK revocation list")
    pck_crl.verify(pck_ca.leaf, now)
    chains = [pck_ca]
    for name in ("tcb_info", "qe_identity"):
        signer = verify_chain(
            parse_pem_chain(by_name[f"{name}_issuer_chain"], 2), roots=roots, now=now, revocation=revocation
        )
        _named(signer, (TCB_SIGNER,), name)
        signer.leaf.public_key.verify_ecdsa_raw(by_name[f"{name}_signature"], by_name[name], name)
        chains.append(signer)
    if len({chain.root_spki_sha256 for chain in chains}) != 1:
        raise refusal("dcap.collateral-root", "root of the collateral", "one for all parts", "several", "nobody")
    info, identity = tcb.parse_tcb_info(by_name["tcb_info"]), tcb.parse_qe_identity(by_name["qe_identity"])
    _window("TCB information", info.issued, info.next_update, now)
    _window("QE identity", identity.issued, identity.next_update, now)
    return VerifiedCollateral._seal(
        tcb_info=info,
        qe_identity=identity,
        root=pck_ca.certificates[-1],
        root_crl=root_crl,
        pck_crl=pck_crl,
        pck_ca=pck_ca.leaf,
        valid_from=max(pck_crl.this_update, info.issued, identity.issued, *(c.valid_from for c in chains)),
        valid_until=min(pck_crl.next_update, info.next_update, identity.next_update, *(c.valid_until for c in chains)),
        issued_at=min(info.issued, identity.issued, pck_crl.this_update),
        digests=tuple(CollateralDigest(name=name, digest=object_id(by_name[name])) for name in PARTS),
        parts=by_name,
    )
