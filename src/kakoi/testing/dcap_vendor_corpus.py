"""What the DCAP tests share: recorded evidence, a pretended vendor's evidence, and how it is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kakoi.attest.dcap.parse import BodyKind
from kakoi.attest.registry import Verifier
from kakoi.attest.report import Collateral, Evidence, VerifiedEvidence
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.attest.tdx.verify import TdxVerifier
from kakoi.core.errors import KakoiError
from kakoi.testing.dcap_vendor import NOW, Vendor, as_collateral

EVIDENCE = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
KINDS: tuple[BodyKind, ...] = ("sgx", "td-1.0", "td-1.5", "td-1.5ex")
_BINARY = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")


def vectors(*kinds: str) -> list[dict[str, Any]]:
    """Recorded vectors of these kinds; empty where the recorded evidence is missing."""
    index = EVIDENCE / "vectors.json"
    if not index.is_file():
        return []
    return [vector for vector in json.loads(index.read_text()) if vector["kind"] in kinds]


def recorded_collateral(path: str) -> Collateral:
    """A recorded collateral file as our record."""
    parts = json.loads((EVIDENCE / path).read_text())
    return as_collateral(
        {name: bytes.fromhex(text) if name in _BINARY else text.encode() for name, text in parts.items()}
    )


def verifier_of(kind: BodyKind, roots: frozenset[str] | None = None) -> Verifier:
    """The verifier of this kind of body."""
    cls = SgxVerifier if kind == "sgx" else TdxVerifier
    return cls() if roots is None else cls(roots)


def verify(
    vendor: Vendor,
    *,
    kind: BodyKind = "sgx",
    evidence: Evidence | None = None,
    collateral: Collateral | None = None,
    now: int = NOW,
) -> VerifiedEvidence:
    """What the verifiers say about a pretended vendor's evidence; good unless something is changed."""
    return verifier_of(kind, vendor.roots).verify(
        evidence or vendor.evidence(kind=kind), collateral or vendor.collateral(kind), now=now
    )


def refused(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The code with which ``call`` refuses; fails if it accepts or raises anything but our errors."""
    try:
        call(*args, **kwargs)
    except KakoiError as error:
        if not error.message:
            raise AssertionError("expected a refusal that says why, got one without a message") from error
        return error.code
    raise AssertionError("expected a refusal, got an acceptance")


def raw_evidence(kind: BodyKind, statement: bytes) -> Evidence:
    """Any bytes as evidence of this kind."""
    return Evidence(platform="sgx" if kind == "sgx" else "tdx", statement=statement, parts=())
