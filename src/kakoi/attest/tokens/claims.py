"""What a verified token says, in the words of raw evidence: the same measurements, statuses and components.

Every claim that matters becomes a measurement, a component or a fact, and a policy has to judge each of them. A service's
own claims of a known prefix that this module has never heard of become facts too, so that none is ignored by accident.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kakoi.attest import jose
from kakoi.attest.jose import Members
from kakoi.attest.report import PlatformKind
from kakoi.attest.tokens.verify import VerifiedToken
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed

_HEX: Final = re.compile(r"(?:[0-9a-f]{2}){0,64}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_NONCES: Final = (32, 48, 64)
_WHAT: Final = "token claims"


class Said:
    """What a token says. Filled while its claims are read; names may not repeat. Debug until told otherwise."""

    __slots__ = (
        "advisories",
        "components",
        "debug",
        "facts",
        "measurements",
        "platform",
        "product",
        "report_data",
        "status",
    )

    def __init__(self, platform: PlatformKind, product: str) -> None:
        self.platform: Final = platform
        self.product: Final = product
        self.report_data = b""
        self.debug = True
        self.status = "NotPublished"
        self.advisories: tuple[str, ...] = ()
        self.measurements: dict[str, str] = {}
        self.components: dict[str, int] = {}
        self.facts: dict[str, str] = {}

    def fact(self, name: str, value: object) -> None:
        """A flag, a whole number or a text; a text that is too long for a fact is shown by its hash."""
        if isinstance(value, bool):
            shown = "true" if value else "false"
        elif isinstance(value, int | str):
            shown = str(value)
        else:
            raise jose.bad(_WHAT, f"a flag, a number or a text as {name[:64]}", "another value")
        if len(shown) > 100 or not shown.isascii() or not shown.isprintable():
            shown = f"sha256:{sha256(shown.encode('utf-8', 'replace')).hex()}"
        if not _NAME.fullmatch(name) or name in self.facts:
            raise jose.bad(_WHAT, "claims with distinct plain names", "another")
        self.facts[name] = shown or "none"

    def hashed(self, name: str, value: object) -> None:
        """Any JSON value, shown by the hash of its canonical text: arguments, environment, lists."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        self.facts[name] = f"sha256:{sha256(text.encode()).hex()}"

    def measure(self, name: str, claims: Members, claim: str) -> None:
        """A measurement in hex, as the services write it."""
        self.measurements[name] = hex_text(claims, claim)

    def component(self, name: str, claims: Members, claim: str) -> None:
        """A security version number."""
        self.components[name] = jose.number(claims, claim, _WHAT)


def hex_text(claims: Members, name: str) -> str:
    """Lower-case hex of at most 64 bytes."""
    value = claims.get(name)
    if not isinstance(value, str) or not _HEX.fullmatch(value.lower()):
        raise jose.bad(_WHAT, f"hex of at most 64 bytes as {name}", "another value or none")
    return value.lower()


def flag(claims: Members, name: str) -> bool:
    """A claim that must be there and be true or false."""
    value = claims.get(name)
    if not isinstance(value, bool):
        raise jose.bad(_WHAT, f"true or false as {name}", "another value or none")
    return value


def texts(claims: Members, name: str) -> tuple[str, ...]:
    """A list of short texts; missing means empty."""
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and 1 <= len(item) <= 64 for item in value):
        raise jose.bad(_WHAT, f"a list of short texts as {name}", "another value")
    return tuple(value)


def _rest(said: Said, claims: Members, prefix: str, shown: str, used: Iterable[str]) -> None:
    """All other claims with ``prefix`` as facts named ``shown`` + rest."""
    for name in sorted(claims.keys() - set(used)):
        if name.startswith(prefix):
            value = claims[name]
            if isinstance(value, bool | int | str):
                said.fact(shown + name.removeprefix(prefix), value)
            else:
                said.hashed(shown + name.removeprefix(prefix), value)


# --- Azure -----------------------------------------------------------------------------------------------------------

_SNP: Final = "x-ms-sevsnpvm-"
_SNP_MEASURES: Final = {
    "measurement": "launchmeasurement",
    "host-data": "hostdata",
    "family-id": "familyId",
    "image-id": "imageId",
    "id-key-digest": "idkeydigest",
    "author-key-digest": "authorkeydigest",
}
_SNP_COMPONENTS: Final = {
    "reported.boot-loader": "bootloader-svn",
    "reported.tee": "tee-svn",
    "reported.snp": "snpfw-svn",
    "reported.microcode": "microcode-svn",
    "guest-svn": "guestsvn",
}
_SNP_SKIPPED: Final = ("reportdata", "reportid", "is-debuggable")
_SGX: Final = "x-ms-sgx-"
_VM: Final = "x-ms-azurevm-"


def _snp(said: Said, claims: Members) -> None:
    for name, claim in _SNP_MEASURES.items():
        said.measure(name, claims, _SNP + claim)
    for name, claim in _SNP_COMPONENTS.items():
        said.component(name, claims, _SNP + claim)
    said.debug = flag(claims, f"{_SNP}is-debuggable")
    used = [*_SNP_MEASURES.values(), *_SNP_COMPONENTS.values(), *_SNP_SKIPPED]
    _rest(said, claims, _SNP, "sevsnpvm.", (_SNP + name for name in used))
    said.report_data = bytes.fromhex(hex_text(claims, f"{_SNP}reportdata"))


def _sgx_maa(said: Said, claims: Members) -> None:
    for name in ("mrenclave", "mrsigner"):
        said.measure(name, claims, _SGX + name)
    for name, claim in (("isvprodid", "product-id"), ("isvsvn", "svn")):
        said.component(name, claims, _SGX + claim)
    said.debug = flag(claims, f"{_SGX}is-debuggable")
    used = ("mrenclave", "mrsigner", "product-id", "svn", "is-debuggable", "report-data", "ehd", "collateral")
    _rest(said, claims, _SGX, "sgx.", (_SGX + name for name in used))
    said.report_data = bytes.fromhex(hex_text(claims, f"{_SGX}report-data"))


_TDX_MEASURES: Final = (
    "mrtd", "mrseam", "mrsignerseam", "mrconfigid", "mrowner", "mrownerconfig", "rtmr0", "rtmr1", "rtmr2", "rtmr3",
)  # fmt: skip


def _tdx(said: Said, claims: Members, debug: str) -> None:
    for name in _TDX_MEASURES:
        said.measure(name, claims, f"tdx_{name}")
    said.debug = flag(claims, debug)
    said.report_data = bytes.fromhex(hex_text(claims, "tdx_report_data"))
    used = (*(f"tdx_{name}" for name in _TDX_MEASURES), debug, "tdx_report_data", "tdx_collateral")
    _rest(said, claims, "tdx_", "tdx.", used)


def _status(said: Said, claims: Members) -> None:
    if "attester_tcb_status" in claims:
        said.status = jose.text(claims, "attester_tcb_status", _WHAT, most=64)
        said.advisories = texts(claims, "attester_advisory_ids")


_AZURE_HARDWARE: Final[Mapping[str, PlatformKind]] = {"sevsnpvm": "azure-snp", "tdxvm": "azure-tdx", "sgx": "sgx"}


def _azure_nonce(claims: Members) -> bytes:
    """The challenge that the guest's client put in (guest attestation 3.0): base64 of its bytes."""
    payload = jose.member(jose.member(claims, "x-ms-runtime", _WHAT), "client-payload", _WHAT)
    try:
        return base64.b64decode(jose.text(payload, "nonce", _WHAT, most=128).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise jose.bad(_WHAT, "base64 as nonce", "something else") from None


def azure(token: VerifiedToken) -> Said:
    """A token of Azure Attestation, for a guest (``azurevm``) or for bare hardware."""
    claims = token.claims
    kind = jose.text(claims, "x-ms-attestation-type", _WHAT, most=32)
    tee = jose.member(claims, "x-ms-isolation-tee", _WHAT) if kind == "azurevm" else claims
    hardware = jose.text(tee, "x-ms-attestation-type", _WHAT, most=32)
    if hardware not in _AZURE_HARDWARE:
        raise jose.bad(_WHAT, "SNP, TDX or SGX hardware", "another or none")
    said = Said(_AZURE_HARDWARE[hardware], hardware)
    said.fact("attestation-type", kind)
    if hardware == "sevsnpvm":
        _snp(said, tee)
    elif hardware == "tdxvm":
        _tdx(said, tee, "tdx_td_attributes_debug")
    else:
        _sgx_maa(said, tee)
    _status(said, tee)
    if hardware != "sgx":
        said.fact("compliance-status", jose.text(tee, "x-ms-compliance-status", _WHAT, most=64))
    if kind == "azurevm":
        said.report_data = _azure_nonce(claims)
        said.fact("secureboot", flag(claims, "secureboot"))
        _rest(said, claims, _VM, "azurevm.", ())
        runtime = jose.member(tee, "x-ms-runtime", _WHAT)
        for name, value in sorted(jose.member(runtime, "vm-configuration", _WHAT).items()):
            said.fact(f"vm.{name}", value)
    said.fact("policy-hash", jose.text(claims, "x-ms-policy-hash", _WHAT, most=64))
    return said


# --- Google ----------------------------------------------------------------------------------------------------------

_GOOGLE_HARDWARE: Final[Mapping[str, PlatformKind]] = {
    "GCP_INTEL_TDX": "tdx",
    "GCP_AMD_SEV_SNP": "snp",
    "GCP_AMD_SEV": "vtpm",
    "GCP_AMD_SEV_ES": "vtpm",
}
"""SEV without SNP protects no integrity: to policies it is a virtual TPM, and its fact ``hwmodel`` says which."""
_NO_DEBUG: Final = "disabled-since-boot"


def _eat_nonce(claims: Members) -> bytes:
    """The one nonce: base64url of the report data (86 characters for 64 bytes), or 64 hex digits for 32 bytes.

    Anything else, and several nonces, leave the report data empty, which no policy accepts.
    """
    value = claims.get("eat_nonce")
    if not isinstance(value, str):
        return b""
    if re.fullmatch(r"[0-9a-f]{64}", value):
        return bytes.fromhex(value)
    try:
        data = jose.unb64url(value, _WHAT)
    except Malformed:
        return b""
    return data if len(data) in _NONCES else b""


def _image(container: Members) -> str:
    digest = jose.text(container, "image_digest", _WHAT, most=80)
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise jose.bad(_WHAT, "a SHA-256 image digest", "another value")
    return digest.removeprefix("sha256:")


def google(token: VerifiedToken) -> Said:
    """A token of Google Confidential Space."""
    claims = token.claims
    hardware = jose.text(claims, "hwmodel", _WHAT, most=32)
    if hardware not in _GOOGLE_HARDWARE:
        raise jose.bad(_WHAT, "a known hardware model", "another")
    said = Said(_GOOGLE_HARDWARE[hardware], hardware)
    said.report_data = _eat_nonce(claims)
    said.debug = jose.text(claims, "dbgstat", _WHAT, most=64) != _NO_DEBUG
    modules = jose.member(claims, "submods", _WHAT)
    container, space = jose.member(modules, "container", _WHAT), modules.get("confidential_space", {})
    gce = jose.member(modules, "gce", _WHAT)
    said.measurements["image-digest"] = _image(container)
    if hardware == "GCP_INTEL_TDX":
        said.status = jose.text(jose.member(claims, "tdx", _WHAT), "gcp_attester_tcb_status", _WHAT, most=64)
    said.fact("audience", jose.text(claims, "aud", _WHAT, most=512))
    said.fact("hwmodel", hardware)
    said.fact("secboot", flag(claims, "secboot"))
    said.fact("swname", jose.text(claims, "swname", _WHAT, most=64))
    said.fact("swversion", ",".join(texts(claims, "swversion")))
    said.fact("support", ",".join(sorted(texts(space, "support_attributes") if isinstance(space, dict) else ())))
    said.hashed("monitoring", space.get("monitoring_enabled") if isinstance(space, dict) else None)
    said.fact("image-reference", jose.text(container, "image_reference", _WHAT, most=512))
    said.fact("restart-policy", jose.text(container, "restart_policy", _WHAT, most=32))
    for name in ("args", "cmd_override", "env", "env_override"):
        said.hashed(f"container.{name}", container.get(name))
    for name in ("project_id", "zone"):
        said.fact(f"gce.{name}", jose.text(gce, name, _WHAT, most=100))
    said.hashed("service-accounts", claims.get("google_service_accounts"))
    return said


# --- Intel -----------------------------------------------------------------------------------------------------------


def _sgx_ita(said: Said, claims: Members) -> None:
    for name in ("mrenclave", "mrsigner"):
        said.measure(name, claims, f"sgx_{name}")
    for name in ("isvprodid", "isvsvn"):
        said.component(name, claims, f"sgx_{name}")
    said.debug = flag(claims, "sgx_is_debuggable")
    said.report_data = bytes.fromhex(hex_text(claims, "sgx_report_data"))
    used = ("mrenclave", "mrsigner", "isvprodid", "isvsvn", "is_debuggable", "report_data", "collateral")
    _rest(said, claims, "sgx_", "sgx.", (f"sgx_{name}" for name in used))


def intel(token: VerifiedToken) -> Said:
    """A token of Intel Trust Authority, version 1 (flat) or 2 (claims of the hardware under its name)."""
    claims: dict[str, Any] = dict(token.claims)
    kind = jose.text(claims, "attester_type", _WHAT, most=16) if "attester_type" in claims else ""
    for nested in ("sgx", "tdx"):
        if nested in claims:
            inner = jose.member(claims, nested, _WHAT)
            if inner.keys() & claims.keys():
                raise jose.bad(_WHAT, "each claim once", "one of the hardware and of the token")
            kind = kind or str(inner.get("attester_type", nested.upper()))
            claims = {**claims, **inner}
    said = Said("tdx" if kind == "TDX" else "sgx", kind)
    if kind == "SGX":
        _sgx_ita(said, claims)
    elif kind == "TDX":
        _tdx(said, claims, "tdx_is_debuggable")
    else:
        raise jose.bad(_WHAT, "SGX or TDX as attester_type", "another or none")
    _status(said, claims)
    if "attester_tcb_status" not in claims:
        raise jose.bad(_WHAT, "attester_tcb_status", "none")
    if claims.get("dbgstat", "disabled") != "disabled":
        said.debug = True
    said.fact("version", jose.text(claims, "ver", _WHAT, most=16))
    said.hashed("policies-unmatched", claims.get("policy_ids_unmatched"))
    said.hashed("policies-matched", claims.get("policy_ids_matched"))
    return said
