"""Evidence and collateral from files, as people have them: our records, or what devices and vendors hand out.

Reading judges nothing; whatever comes out is unverified. Raw evidence may be binary, hex or base64 (none of the binary
formats is text). Raw collateral: the JSON of dcap-qvl (``sgx``, ``tdx``, ``azure-tdx``); PEM or DER certificates and
revocation lists (``snp``, ``azure-snp``, ``nitro``), told apart by what they are; a key set (tokens).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from kakoi.attest.report import Collateral, Evidence, Part, PlatformKind
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.records import from_value
from kakoi.core.x509 import parse_certificate, parse_crl
from kakoi.core.x509_fields import common_name

_HEX: Final = re.compile(rb"[0-9A-Fa-f]+")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+=*")
_BEGIN: Final = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----")
_MOST: Final = 8 * 1024 * 1024
_DCAP_TEXT: Final = (
    "pck_crl_issuer_chain", "tcb_info_issuer_chain", "tcb_info", "qe_identity_issuer_chain", "qe_identity",
)  # fmt: skip
_DCAP_HEX: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_RSASSA_SHA256: Final = b"\x00\x14\x00\x0b"
Azure = Literal["azure-snp", "azure-tdx"]


def _bad(what: str, expected: str, got: str) -> Malformed:
    return Malformed(
        "evidence.file", f"{what}: expected {expected}, got {got}", hint="docs/formats says what each kind needs"
    )


def binary(data: bytes) -> bytes:
    """The bytes of a file that holds them as they are, in hex, or in base64."""
    packed = data.translate(None, b" \t\r\n")
    if len(packed) % 2 == 0 and _HEX.fullmatch(packed):
        return bytes.fromhex(packed.decode("ascii"))
    if _BASE64.fullmatch(packed):
        text = packed.decode("ascii").replace("-", "+").replace("_", "/").rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            return data
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise _bad(what, "JSON", "something else") from None
    if not isinstance(value, dict):
        raise _bad(what, "a JSON object", "something else")
    return value


def evidence_record(data: bytes) -> Evidence:
    """``kakoi/evidence/v1`` from a file, with or without a line end. Raises Malformed."""
    return from_value(Evidence, encoding.loads(data.rstrip(b"\r\n"), limit=Evidence.MAX_BYTES), "Evidence")


def read_evidence(data: bytes, platform: PlatformKind | None) -> tuple[Evidence, Mapping[str, bytes]]:
    """Evidence, and collateral that came in the same file. ``platform`` None: the file is our record. Raises Malformed."""
    if len(data) > _MOST:
        raise _bad("evidence", f"at most {_MOST} bytes", str(len(data)))
    if platform is None:
        return evidence_record(data), {}
    if platform in ("azure-snp", "azure-tdx"):
        return azure(_object(data, "Azure evidence"))
    return Evidence(platform=platform, statement=binary(data), parts=()), {}


# --- Azure -----------------------------------------------------------------------------------------------------------


def _octets(value: object, what: str) -> bytes:
    """Bytes written as a list of numbers, as hex, or as base64 of either alphabet."""
    if isinstance(value, list) and all(isinstance(item, int) and 0 <= item <= 255 for item in value):
        return bytes(value)
    if not isinstance(value, str) or not value.isascii():
        raise _bad("Azure evidence", f"{what} as a list of bytes, hex or base64", "another value or none")
    return binary(value.encode("ascii"))


def azure(found: Mapping[str, Any]) -> tuple[Evidence, dict[str, bytes]]:
    """Evidence of an Azure guest from the JSON that attesters write, and the chip certificate if it holds one.

    Members: ``hcl_report`` or ``report``; ``tpm_quote`` or ``quote`` with ``message``, ``signature`` (raw RSA) and
    ``pcrs``; ``td_quote`` on TDX; ``vcek`` on SNP. Raises Malformed.
    """
    quote = found.get("tpm_quote") or found.get("quote")
    if not isinstance(quote, dict) or not isinstance(quote.get("pcrs"), list):
        raise _bad("Azure evidence", "a TPM quote with message, signature and pcrs", "none")
    signature = _octets(quote.get("signature"), "signature")
    pieces = {
        "tpm-quote": _octets(quote.get("message"), "message"),
        "tpm-signature": _RSASSA_SHA256 + struct.pack(">H", min(len(signature), 0xFFFF)) + signature,
        "pcrs": b"".join(_octets(value, "a PCR") for value in quote["pcrs"]),
    }
    if "td_quote" in found:
        pieces["td-quote"] = _octets(found["td_quote"], "td_quote")
    platform: Azure = "azure-tdx" if "td-quote" in pieces else "azure-snp"
    hcl = _octets(found.get("hcl_report") or found.get("report"), "hcl_report")
    chip = found.get("vcek")
    given = {} if chip is None else {"vcek": _one_certificate(chip)}
    return Evidence(platform=platform, statement=hcl, parts=parts(pieces)), given


def _one_certificate(chip: object) -> bytes:
    text = chip.encode() if isinstance(chip, str) and "-----BEGIN" in chip else None
    return ders(text)[0] if text else _octets(chip, "vcek")


def parts(values: Mapping[str, bytes]) -> tuple[Part, ...]:
    """Parts by name."""
    return tuple(Part(name=name, data=data) for name, data in values.items())


# --- collateral ------------------------------------------------------------------------------------------------------


def ders(data: bytes) -> list[bytes]:
    """DER certificates and revocation lists of a PEM or DER file. Raises Malformed."""
    found, at = [], 0
    while (begin := _BEGIN.search(data, at)) is not None:
        ending = b"-----END " + begin.group(1) + b"-----"
        end = data.find(ending, begin.end())
        if end < 0:
            raise _bad("collateral", "PEM that ends", "a beginning without an end")
        try:
            packed = data[begin.end() : end].translate(None, b" \t\r\n")
            found.append(base64.b64decode(packed, validate=True))
        except binascii.Error:
            raise _bad("collateral", "base64 inside PEM", "something else") from None
        at = end + len(ending)
    return found or [data]


def read_collateral(
    files: Sequence[bytes], platform: PlatformKind, given: Mapping[str, bytes] | None = None
) -> Collateral:
    """One collateral record from any number of files, and from pieces that came with the evidence. Raises Malformed."""
    found: dict[str, bytes] = dict(given or {})
    for data in files:
        for name, piece in _pieces(data, platform).items():
            if found.get(name, piece) != piece and name not in (given or {}):
                raise _bad("collateral", "each piece once", f"two different ones named {name}")
            found[name] = piece
    return Collateral(parts=parts(found))


def _pieces(data: bytes, platform: PlatformKind) -> dict[str, bytes]:
    if data.lstrip().startswith(b"{"):
        members = _object(data, "collateral")
        if members.get("kind") == Collateral.KIND:
            record = from_value(Collateral, encoding.loads(encoding.dumps(members)), "Collateral")
            return {part.name: part.data for part in record.parts}
        return _dcap(members)
    if platform in ("sgx", "tdx", "azure-tdx", "software"):
        raise _bad("collateral", "JSON", "something else")
    name_of = _nitro_name if platform == "nitro" else _amd_name
    return {name_of(der): der for der in ders(data)}


def _dcap(members: Mapping[str, Any]) -> dict[str, bytes]:
    """QuoteCollateralV3 as dcap-qvl writes it: texts as they are, lists and signatures in hex."""
    if set(members) - {"pck_certificate_chain"} != {*_DCAP_TEXT, *_DCAP_HEX}:
        raise _bad("collateral", "the members of QuoteCollateralV3", "others")
    if not all(isinstance(members[name], str) for name in (*_DCAP_TEXT, *_DCAP_HEX)):
        raise _bad("collateral", "texts as members of QuoteCollateralV3", "other values")
    try:
        raw = {name: bytes.fromhex(members[name]) for name in _DCAP_HEX}
    except ValueError:
        raise _bad("collateral", "lists and signatures in hex", "something else") from None
    return {name: members[name].encode("utf-8", "replace") for name in _DCAP_TEXT} | raw


def _certificate_name(der: bytes) -> str:
    try:
        return parse_certificate(der).common_name
    except KakoiError:
        return ""


def _list_issuer(der: bytes) -> str:
    try:
        return common_name(parse_crl(der).issuer)
    except KakoiError:
        raise _bad("collateral", "certificates and revocation lists", "something else") from None


def _amd_name(der: bytes) -> str:
    """``vcek``, ``vlek``, ``intermediate``, ``root`` or ``crl``, by the common name that AMD gives."""
    name = _certificate_name(der)
    kinds: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("vcek", lambda n: n == "SEV-VCEK"),
        ("vlek", lambda n: n == "SEV-VLEK"),
        ("root", lambda n: n.startswith("ARK-")),
        ("intermediate", lambda n: n.startswith("SEV-")),
    )
    for kind, fits in kinds:
        if fits(name):
            return kind
    _list_issuer(der)
    return "crl"


def _nitro_name(der: bytes) -> str:
    return "crl-root" if _list_issuer(der) == "aws.nitro-enclaves" else "crl-region"
