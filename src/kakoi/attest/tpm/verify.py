"""TPM 2.0: a quote, its signature and the PCR values it covers.

``verify`` is the only way to a ``VerifiedQuote``:

1. The signature over the exact TPMS_ATTEST is the attestation key's, with the scheme and hash that go with the key
   (RSASSA or ECDSA). Magic and type were checked by the parser: a restricted key signs no foreign message that begins
   with TPM_GENERATED_VALUE (Part 1, 25.1.5).
2. The **signed** selection is exactly one bank, SHA-256, with a bit map of three bytes, and not empty. A quote over several
   selections makes a resettable PCR appear at a wanted place for verifiers that hash a supplied list without looking
   at the selection (attestation-rs PR #69, attestation-go PR #16, and others).
3. If the caller demands a selection, the signed one equals it.
4. The digest is that of the given values in ascending order; there is exactly one value of 32 bytes per selected PCR.

The names of registers in ``pcrs`` come from the signed selection, never from the sender's list. ``extra_data`` is
compared with the challenge by the caller, over its full length. Not checked: clock and counters (the challenge is the
freshness; ``safe`` and the counts are returned for policies), and the qualified signer, whose Name depends on the parent.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kakoi.attest.report import refusal
from kakoi.attest.tpm.parse import ALGORITHMS, Quote, Signature
from kakoi.core.encoding import sha256
from kakoi.core.keys import PublicKey
from kakoi.core.sealed import Sealed

ALL_PCRS: Final = tuple(range(24))
_SELECT_BYTES: Final = 3
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedQuote(metaclass=Sealed):
    """A quote that the attestation key signed, and the PCR values it covers, by index."""

    quote: Quote
    pcrs: Mapping[int, bytes]
    key: PublicKey


def _show(pcrs: Sequence[int]) -> str:
    return ",".join(map(str, pcrs)) or "none"


def verify(
    quote: Quote, signature: Signature, key: PublicKey, values: Sequence[bytes], *, selection: Sequence[int] | None
) -> VerifiedQuote:
    """The quote and its PCRs, after the steps of this module. ``values`` are in ascending order of PCR index.

    ``selection`` is what must have been selected; None takes any, and leaves it to the policy to name each PCR.
    Raises Refused ``x509.signature``, ``tpm.scheme``, ``tpm.selection``, ``tpm.values``, ``tpm.digest``.
    """
    _check_signature(quote, signature, key)  # step 1
    pcrs = _selected(quote)  # step 2
    if selection is not None and pcrs != tuple(selection):  # step 3
        raise refusal("tpm.selection", "PCR selection", f"sha256:{_show(selection)}", f"sha256:{_show(pcrs)}", "nobody")
    if len(values) != len(pcrs) or any(len(value) != _DIGEST for value in values):  # step 4
        raise refusal(
            "tpm.values", "PCR values", f"{len(pcrs)} of {_DIGEST} bytes", f"{len(values)}, or of other sizes", "nobody"
        )
    if not hmac.compare_digest(sha256(*values), quote.pcr_digest):
        got = sha256(*values).hex()
        raise refusal("tpm.digest", "digest of the PCR values", quote.pcr_digest.hex(), got, "nobody")
    return VerifiedQuote._seal(quote=quote, pcrs=MappingProxyType(dict(zip(pcrs, values, strict=True))), key=key)


def _check_signature(quote: Quote, signature: Signature, key: PublicKey) -> None:
    scheme = {"RSA": "rsassa", "P-256": "ecdsa"}.get(key.kind, "no scheme")
    if (signature.scheme, signature.hash_name) != (scheme, "sha256"):
        got = f"{signature.scheme} with {signature.hash_name}"
        raise refusal("tpm.scheme", "signature of the quote", f"{scheme} with sha256", got, "nobody")
    if signature.scheme == "rsassa":
        key.verify_rsa_pkcs1(signature.value, quote.signed, "sha256", "the TPM quote")
    else:
        key.verify_ecdsa_raw(signature.value, quote.signed, "the TPM quote", hash_name="sha256")


def _selected(quote: Quote) -> tuple[int, ...]:
    selections = quote.selections
    banks = [(s.hash_algorithm, s.width) for s in selections]
    if banks != [(ALGORITHMS["sha256"], _SELECT_BYTES)] or not selections[0].pcrs:
        got = "; ".join(f"{s.hash_algorithm:#06x}:{_show(s.pcrs)} in {s.width} bytes" for s in selections) or "none"
        raise refusal("tpm.selection", "PCR selection", "one of the SHA-256 bank in 3 bytes", got, "nobody")
    return selections[0].pcrs
