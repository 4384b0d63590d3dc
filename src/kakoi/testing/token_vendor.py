"""Pretend attestation services: key sets, certificate chains, and tokens of any form."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from kakoi.attest import jose
from kakoi.attest.tokens.verify import Service
from kakoi.core.keys import PublicKey
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

KID: Final = "key-1"
REPORT_DATA: Final = bytes(range(64))
_ISSUERS: Final[dict[Service, str]] = {
    "azure-maa": "https://example.weu.attest.azure.net",
    "google-confidential-space": "https://confidentialcomputing.googleapis.com",
    "intel-trust-authority": "Intel Trust Authority",
}


def jwk(key: PublicKey, **more: Any) -> dict[str, Any]:
    """A JSON web key; ``more`` adds or replaces members."""
    if key.kind == "RSA":
        n, e = key.rsa_numbers()
        numbers = {name: jose.b64url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for name, v in (("n", n), ("e", e))}
        return {"kty": "RSA", "kid": KID, **numbers, **more}
    point = key.point
    half = len(point) // 2
    return {
        "kty": "EC",
        "crv": key.kind,
        "kid": KID,
        "x": jose.b64url(point[:half]),
        "y": jose.b64url(point[half:]),
        **more,
    }


def key_set(*keys: dict[str, Any]) -> bytes:
    """A key set."""
    return json.dumps({"keys": list(keys)}).encode()


def x5c(*chain: bytes) -> list[str]:
    """Certificates as a header or a key set carries them."""
    return [base64.b64encode(der).decode() for der in chain]


def compact(header: bytes, claims: bytes, signer: kit.RsaKey | mint.EcKey) -> bytes:
    """A token of any header and claims."""
    signed = f"{jose.b64url(header)}.{jose.b64url(claims)}".encode()
    signature = signer.sign(signed) if isinstance(signer, kit.RsaKey) else signer.sign_raw(signed)
    return signed + b"." + jose.b64url(signature).encode()


@lru_cache(maxsize=8)
def rsa(pss: bool, which: int = 0) -> kit.RsaKey:
    """A signing key: PS384 if ``pss``, else RS256."""
    return kit.RsaKey(2048, pss=pss)


_TIMES: Final = {"iat": kit.NOW - 10, "nbf": kit.NOW - 10, "exp": kit.NOW + 3590}


def azure_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a guest on SNP, as Azure Attestation writes them; ``...`` removes one."""
    snp = {
        "launchmeasurement": "11" * 48, "hostdata": "00" * 32, "familyId": "00" * 16, "imageId": "00" * 16,
        "idkeydigest": "22" * 48, "authorkeydigest": "00" * 48, "bootloader-svn": 4, "tee-svn": 0, "snpfw-svn": 24,
        "microcode-svn": 219, "guestsvn": 10, "reportdata": "33" * 64, "reportid": "44" * 32, "is-debuggable": False,
        "migration-allowed": False, "smt-allowed": True, "vmpl": 0,
    }  # fmt: skip
    configuration = {"console-enabled": True, "secure-boot": True, "tpm-enabled": True, "vmUniqueId": "11-22"}
    tee = {
        "x-ms-attestation-type": "sevsnpvm",
        "x-ms-compliance-status": "azure-compliant-cvm",
        "x-ms-runtime": {"keys": [], "vm-configuration": configuration},
        **{f"x-ms-sevsnpvm-{name}": value for name, value in snp.items()},
    }
    nonce = base64.b64encode(REPORT_DATA).decode()
    found = {
        "iss": _ISSUERS["azure-maa"], **_TIMES, "jti": "1", "secureboot": True, "x-ms-attestation-type": "azurevm",
        "x-ms-azurevm-bootdebug-enabled": False, "x-ms-azurevm-attested-pcrs": [0, 1, 2], "x-ms-isolation-tee": tee,
        "x-ms-policy-hash": "abc", "x-ms-runtime": {"client-payload": {"nonce": nonce}, "keys": []}, "x-ms-ver": "1.0",
        **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not ...}


def google_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a Confidential Space workload on TDX; ``...`` removes one."""
    container = {
        "image_reference": "registry.example/kakoi", "image_digest": "sha256:" + "55" * 32, "restart_policy": "Never",
        "env": {"A": "1"}, "args": ["/run"],
    }  # fmt: skip
    found = {
        "iss": _ISSUERS["google-confidential-space"], **_TIMES, "aud": "kakoi", "sub": "x", "secboot": True,
        "eat_nonce": jose.b64url(REPORT_DATA), "hwmodel": "GCP_INTEL_TDX", "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["250800"], "dbgstat": "disabled-since-boot", "tdx": {"gcp_attester_tcb_status": "UpToDate"},
        "submods": {
            "confidential_space": {"support_attributes": ["STABLE", "LATEST"], "monitoring_enabled": {"memory": False}},
            "container": container,
            "gce": {"zone": "us-west1-b", "project_id": "p"},
        },
        "google_service_accounts": ["a@b"],
        **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not ...}


def intel_claims(**changes: Any) -> dict[str, Any]:
    """Claims of an SGX enclave, as Intel Trust Authority writes them; ``...`` removes one."""
    found = {
        "iss": _ISSUERS["intel-trust-authority"], **_TIMES, "ver": "1.0.0", "attester_type": "SGX",
        "sgx_mrenclave": "66" * 32, "sgx_mrsigner": "77" * 32, "sgx_isvprodid": 1, "sgx_isvsvn": 2,
        "sgx_is_debuggable": False, "sgx_report_data": REPORT_DATA.hex(), "attester_tcb_status": "UpToDate",
        "attester_advisory_ids": [], "dbgstat": "disabled", "policy_ids_unmatched": [],
        **changes,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not ...}


def intel_tdx_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a TDX guest, version 2: the hardware's under their own name."""
    names = (
        "mrtd",
        "mrseam",
        "mrsignerseam",
        "mrconfigid",
        "mrowner",
        "mrownerconfig",
        "rtmr0",
        "rtmr1",
        "rtmr2",
        "rtmr3",
    )
    tdx: dict[str, Any] = {f"tdx_{name}": f"{i:02x}" * 48 for i, name in enumerate(names)}
    tdx |= {"tdx_is_debuggable": False, "tdx_report_data": REPORT_DATA.hex(), "tdx_seamsvn": 3}
    status = {"attester_tcb_status": "UpToDate", "attester_advisory_ids": [], "attester_type": "TDX"}
    base = {name: value for name, value in intel_claims().items() if not name.startswith(("sgx_", "attester_"))}
    return {**base, "ver": "2.0.0", "tdx": {**tdx, **status}, **changes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A token with the key set and the anchors that belong to it."""

    service: Service
    token: bytes
    keys: bytes | None
    anchors: frozenset[str]


@lru_cache(maxsize=2)
def google_chain(which: int = 0) -> tuple[kit.Authority, kit.Authority]:
    """Root and intermediate of a pretend Google."""
    root = kit.root("Pretend Confidential Space Root CA", key=kit.RsaKey(2048, pss=False))
    return root, root.child("Pretend intermediate", key=kit.RsaKey(2048, pss=False))


def make(service: Service, claims: dict[str, Any], **header: Any) -> Signed:
    """A good token of a service for any claims; ``header`` adds or replaces header members."""
    signer = rsa(service == "intel-trust-authority")
    members: dict[str, Any] = {"alg": "PS384" if signer.pss else "RS256", "typ": "JWT", "kid": KID}
    keys: bytes | None = key_set(jwk(signer.public))
    anchors = frozenset({signer.public.spki_sha256})
    if service == "google-confidential-space":
        root, intermediate = google_chain()
        leaf = intermediate.leaf("Pretend leaf", key=signer.public)
        members["x5c"] = x5c(leaf, *intermediate.chain)
        keys, anchors = None, frozenset({root.certificate.spki_sha256})
    members |= header
    token = compact(json.dumps(members).encode(), json.dumps(claims).encode(), signer)
    return Signed(service=service, token=token, keys=keys, anchors=anchors)
