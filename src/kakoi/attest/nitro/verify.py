"""AWS Nitro: which enclave, on which instance, asked for a document.

``verify`` is the only way to a ``VerifiedDocument``. Its steps (AWS docs/attestation_process.md 3.2.3; RFC 9052 §4.4):

1. The chain is the document's leaf, then ``cabundle`` from last to first. Its root's **public key** is the pinned one of
   AWS Nitro Enclaves; ``cabundle[0]`` is only believed to the extent that this key signed it. Names, signatures
   (ECDSA P-384, SHA-384), CA flags, path lengths, key usage and windows hold at ``now`` (a leaf lives three hours).
2. Revocation of the regional and zonal CAs, for which AWS publishes lists: signed by the issuer, in their window. Without
   them the step is skipped and shows as the fact ``revocation`` = ``not checked``. Instance and leaf certificates live
   a day or less and have no list.
3. The leaf is a P-384 key, named after ``module_id``; the document's time lies in the leaf's window.
4. The COSE signature is the leaf's, over Sig_structure with context ``Signature1`` and empty external data.
5. An enclave's PCR0 to PCR2 are present. If one of them is zero the enclave runs in debug mode (``claims.debug``): such
   documents verify like others, and upstream test files called valid are of this kind.

The session's report data is ``user_data``. Not checked here: the document's age, which the common appraisal judges by
``collateral_max_age`` (its date is the document's), and ``nonce`` and ``public_key``, which are facts for the policy:
challenge and key are already inside the report data.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from kakoi.attest.nitro.parse import Document
from kakoi.attest.report import refusal
from kakoi.core.errors import Malformed
from kakoi.core.sealed import Sealed
from kakoi.core.x509 import (
    Certificate,
    NoRevocation,
    Revocation,
    RevocationList,
    VerifiedChain,
    parse_certificate,
    parse_crl,
    verify_chain,
)

ROOTS: Final = frozenset({"f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225"})
"""SHA-256 of the public key of ``aws.nitro-enclaves`` (AWS_NitroEnclaves_Root-G1, commercial regions)."""
NO_LIST: Final = "no revocation lists were given"
SHORT_LIVED: Final = "AWS publishes no lists for instance and enclave certificates, which live a day at most"
_ZERO: Final = bytes(48)
_NAME: Final = re.compile(r"(?P<module>.+)\.(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]+)\.aws(?:\.[a-z-]+)?")
_LISTED: Final = 2
"""CAs between the root and the instance: regional, then zonal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedDocument(metaclass=Sealed):
    """A document whose signature leads to AWS's root."""

    document: Document
    chain: VerifiedChain
    region: str
    debug: bool
    crls_issued_at: int | None
    """When the older of the lists used was issued; None if revocation was not checked."""


def verify(document: Document, crls: Collection[bytes], *, now: int, roots: frozenset[str] = ROOTS) -> VerifiedDocument:
    """The document with what is proved about it, after the numbered steps of this module.

    ``crls``: DER lists of the root and of the regional CA, or nothing. Raises Malformed ``nitro.malformed``, ``x509.*``,
    ``der.*``; Refused ``x509.*``, ``nitro.key``, ``nitro.module``, ``nitro.timestamp``, ``nitro.registers``.
    """
    certificates = [parse_certificate(der) for der in (document.certificate, *reversed(document.cabundle))]
    chain = verify_chain(certificates, roots=roots, now=now, revocation=NoRevocation(reason=NO_LIST))  # step 1
    lists = [parse_crl(data) for data in crls]
    if lists:
        _check_revocation(certificates, lists, now, roots)  # step 2
    region = _check_leaf(chain.leaf, document)  # step 3
    chain.leaf.public_key.verify_ecdsa_raw(  # step 4
        document.signature, document.signed, "the Nitro document", hash_name="sha384"
    )
    return VerifiedDocument._seal(
        document=document,
        chain=chain,
        region=region,
        debug=_debug(document),
        crls_issued_at=min((crl.this_update for crl in lists), default=None),
    )


def _check_revocation(
    certificates: list[Certificate], lists: list[RevocationList], now: int, roots: frozenset[str]
) -> None:
    """The part of the chain that AWS publishes lists for, judged with them: zonal, regional, root."""
    upper = certificates[-1 - _LISTED :]
    if len(certificates) < _LISTED + 2:
        raise Malformed("nitro.malformed", f"Nitro chain: expected at least {_LISTED + 2} certificates, got fewer")
    verify_chain(upper, roots=roots, now=now, revocation=Revocation(lists=lists), leaf="ca")


def _check_leaf(leaf: Certificate, document: Document) -> str:
    """The region in the leaf's name, after name, key and time were found to fit the document."""
    if leaf.public_key.kind != "P-384":
        raise refusal("nitro.key", "key of the document", "an ECDSA key on P-384", leaf.public_key.kind, "nobody")
    name = _NAME.fullmatch(leaf.common_name)
    if name is None or name["module"] != document.module_id:
        raise refusal(
            "nitro.module",
            "name of the document's certificate",
            f"one of {document.module_id}",
            leaf.common_name,
            "nobody",
        )
    seconds = document.timestamp // 1000
    if not leaf.not_before <= seconds <= leaf.not_after:
        window = f"{leaf.not_before} to {leaf.not_after}"
        raise refusal(
            "nitro.timestamp", "time of the document", f"in the certificate's window {window}", str(seconds), "nobody"
        )
    return name["region"]


def _debug(document: Document) -> bool:
    """Step 5. A NitroTPM has no debug mode of its own: its registers are the guest's boot."""
    if document.device == "nitrotpm":
        return False
    if not {0, 1, 2} <= document.pcrs.keys():
        raise refusal("nitro.registers", "registers of the enclave", "PCR0, PCR1 and PCR2", "fewer", "nobody")
    return any(document.pcrs[index] == _ZERO for index in (0, 1, 2))
