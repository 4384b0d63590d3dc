"""Twins of DCAP evidence that only the vendor's keys can make: each is whole and signed, and breaks one rule.

Kinds that no public vector exists for are here: revoked PCK certificates and authorities, each TCB status at each
place, a quoting enclave in debug mode. Each twin has a vendor of its own; its policy was drafted from the good
evidence of the same vendor, before the change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kakoi.attest.dcap.parse import BodyKind
from kakoi.attest.report import Evidence
from kakoi.conformance.base import Base, anchor, base, plain_trial
from kakoi.conformance.rules import Rule
from kakoi.conformance.sessions import HONEST
from kakoi.conformance.trial import Anchor, Kind, Trial
from kakoi.core.encoding import sha256
from kakoi.core.x509 import parse_certificate
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit
from kakoi.testing.dcap_vendor import DAY, NOW, SGX_OID, Vendor, as_collateral, intel_name, sgx_body, td_body

Json = dict[str, Any]
_UNKNOWN_CRITICAL: Final = ("1.3.6.1.4.1.99999.1", True, b"\x05\x00")
_TDX_SVN: Final = [3, 1, 5, *[0] * 13]


@dataclass(kw_only=True)
class Shop:
    """A vendor, and what it makes for one trial. A change spoils any of it."""

    vendor: Vendor
    body_kind: BodyKind
    body: bytes = b""
    statement: bytes = b""
    parts: dict[str, bytes] = field(default_factory=dict)
    anchors: list[Anchor] = field(default_factory=list)
    now: int = NOW

    @property
    def sgx(self) -> bool:
        """Whether the evidence is an enclave's."""
        return self.body_kind == "sgx"

    @property
    def format(self) -> Kind:
        """The kind of trial."""
        return "sgx" if self.sgx else "tdx"

    def good_body(self, report_data: bytes = HONEST) -> bytes:
        """A good body that binds the session."""
        return sgx_body(report_data=report_data) if self.sgx else td_body(self.body_kind, report_data=report_data)

    def trial(self) -> Trial:
        """A trial of genuineness, as the shop is now."""
        statement = self.statement or self.vendor.quote(self.body or self.good_body(), kind=self.body_kind)
        collateral = as_collateral({**self.vendor.parts(self.body_kind), **self.parts})
        evidence = Evidence(platform="sgx" if self.sgx else "tdx", statement=statement, parts=())
        anchors = self.anchors or [anchor(self.vendor.root.der)]
        return plain_trial(self.format, evidence, collateral, anchors, self.now)

    def sign(self, what: str, value: Json) -> None:
        """A changed TCB information or QE identity, signed by the vendor."""
        self.parts |= self.vendor.sign(what, value)

    def info(self, **changes: Any) -> None:
        """TCB information with some members changed."""
        self.sign("tcb_info", {**self.vendor.tcb_info(self.body_kind), **changes})

    def identity(self, **changes: Any) -> None:
        """QE identity with some members changed."""
        self.sign("qe_identity", {**self.vendor.qe_identity(self.body_kind), **changes})


Change = Callable[[Shop], None]


def good(body_kind: BodyKind) -> Base:
    """A good quote of this kind under a new vendor."""
    return base(f"minted-{body_kind}", Shop(vendor=Vendor(), body_kind=body_kind).trial())


def twin(body_kind: BodyKind, change: Change) -> Trial:
    """What ``change`` makes of a new vendor's evidence, with the policy drafted before it."""
    shop = Shop(vendor=Vendor(), body_kind=body_kind)
    before = base("before", shop.trial()).trial
    shop.vendor.renew()
    change(shop)
    after = shop.trial()
    return replace(after, policy=before.policy, report_data=before.report_data)


# --- certificates ----------------------------------------------------------------------------------------------------


def _pck(shop: Shop, **options: Any) -> None:
    """A PCK certificate with other options of ``Authority.leaf``."""
    vendor = shop.vendor
    given: Json = {"name": intel_name("Intel SGX PCK Certificate"), "key": vendor.pck_key.public}
    more = options.pop("more", (_extension(shop),))
    issuer = vendor.root if options.pop("by_root", False) else vendor.ca
    vendor._pck = issuer.leaf("", **{**given, "more": more, **options})


def _extension(shop: Shop) -> mint.ExtensionSpec:
    return (SGX_OID, False, shop.vendor.sgx_extension())


def _set(**changes: Any) -> Change:
    def change(shop: Shop) -> None:
        for name, value in changes.items():
            setattr(shop.vendor, name, value)

    return change


def _ca(**options: Any) -> Change:
    """Another PCK CA, of the same name unless told otherwise."""

    def change(shop: Shop) -> None:
        vendor = shop.vendor
        key = mint.EcKey.generate()
        extensions = options.get("extensions")
        given = {"name": vendor.ca.name, "key": key, "path_length": 0, **options}
        if callable(extensions):
            given["extensions"] = extensions(key, vendor)
        vendor.ca = vendor.root.child("", **given)
        vendor.renew()

    return change


def _signer(**options: Any) -> Change:
    """Another TCB signing certificate."""

    def change(shop: Shop) -> None:
        vendor = shop.vendor
        given = {"name": intel_name("Intel SGX TCB Signing"), "key": vendor.signer_key.public, **options}
        extensions = options.get("extensions")
        if callable(extensions):
            given["extensions"] = extensions(vendor.signer_key, vendor)
        vendor.signer = vendor.root.leaf("", **given)

    return change


def _usage(bits: bytes | None, *, ca: bool) -> Callable[[mint.EcKey, Vendor], list[mint.ExtensionSpec]]:
    """The usual extensions with another key usage, or without one."""

    def make(key: mint.EcKey, vendor: Vendor) -> list[mint.ExtensionSpec]:
        issuer = vendor.root.key.public
        usual = mint.ca_extensions(key.public, issuer, 0) if ca else mint.leaf_extensions(key.public, issuer)
        rest = [e for e in usual if e[0] != mint.KEY_USAGE]
        return rest if bits is None else [*rest, (mint.KEY_USAGE, True, bits)]

    return make


def _not_a_ca(key: mint.EcKey, vendor: Vendor) -> list[mint.ExtensionSpec]:
    return mint.leaf_extensions(key.public, vendor.root.key.public)


def _is_a_ca(key: mint.EcKey, vendor: Vendor) -> list[mint.ExtensionSpec]:
    return mint.ca_extensions(key.public, vendor.root.key.public, 0)


def _critical(key: mint.EcKey, vendor: Vendor) -> list[mint.ExtensionSpec]:
    return [*mint.ca_extensions(key.public, vendor.root.key.public, 0), _UNKNOWN_CRITICAL]


def _other_root(shop: Shop) -> None:
    """All of it by somebody who calls themselves the same, and whose root is not pinned."""
    shop.anchors = [anchor(shop.vendor.root.der)]
    shop.vendor = Vendor()


def _two_roots(shop: Shop) -> None:
    """The quote of one pinned vendor with the collateral of another pinned one."""
    other = Vendor()
    shop.parts = other.parts(shop.body_kind)
    shop.anchors = [anchor(shop.vendor.root.der), anchor(other.root.der)]


def _pck_from_root(shop: Shop) -> None:
    """A PCK certificate that the root issued itself."""
    _pck(shop, by_root=True)


def _pck_with(**options: Any) -> Change:
    return lambda shop: _pck(shop, **options)


def _pck_extended(*more: mint.ExtensionSpec) -> Change:
    return lambda shop: _pck(shop, more=(_extension(shop), *more))


def _pck_usage(bits: bytes) -> Change:
    return lambda shop: _pck(shop, extensions=_usage(bits, ca=False)(shop.vendor.pck_key, shop.vendor))


def _pck_ca(shop: Shop) -> None:
    key = shop.vendor.pck_key.public
    _pck(shop, extensions=mint.ca_extensions(key, shop.vendor.ca.key.public, None))


def _pck_of_somebody_else(shop: Shop) -> None:
    shop.vendor.pck()
    shop.vendor.pck_key = mint.EcKey.generate()


def _signer_below_ca(shop: Shop) -> None:
    vendor = shop.vendor
    vendor.signer = vendor.ca.leaf("", name=intel_name("Intel SGX TCB Signing"), key=vendor.signer_key.public)


def _signed_by_pck(shop: Shop) -> None:
    """TCB information signed by the platform's own key, with the PCK certificate as signer's."""
    vendor = shop.vendor
    info = vendor.parts(shop.body_kind)["tcb_info"]
    chain = to_pem(vendor.pck(), vendor.ca.der)
    shop.parts |= {"tcb_info_issuer_chain": chain, "tcb_info_signature": vendor.pck_key.sign_raw(info)}


def _signed_by_ca(shop: Shop) -> None:
    """TCB information signed by the PCK CA, with its chain as signer's."""
    vendor = shop.vendor
    key = mint.EcKey.generate()
    vendor.ca = vendor.root.child("", name=vendor.ca.name, key=key, path_length=0)
    vendor.renew()
    info = vendor.parts(shop.body_kind)["tcb_info"]
    shop.parts |= {"tcb_info_issuer_chain": to_pem(*vendor.ca.chain), "tcb_info_signature": key.sign_raw(info)}


# --- revocation ------------------------------------------------------------------------------------------------------


def _revoke(which: str, *, among: Sequence[int] = ()) -> Change:
    def change(shop: Shop) -> None:
        vendor = shop.vendor
        serials = {
            "pck": (vendor.ca, parse_certificate(vendor.pck()).serial),
            "ca": (vendor.root, vendor.ca.certificate.serial),
            "signer": (vendor.root, parse_certificate(vendor.signer).serial),
        }
        issuer, serial = serials[which]
        issuer.revoked += [*among, serial]

    return change


def _crl(name: str, make: Callable[[Vendor], bytes]) -> Change:
    def change(shop: Shop) -> None:
        shop.parts[name] = make(shop.vendor)

    return change


def _other_ca_list(vendor: Vendor) -> bytes:
    """The list of another authority of the same vendor: genuine, and not this certificate's."""
    return vendor.root.child("", name=intel_name("Intel SGX PCK Processor CA"), path_length=0).crl()


def _forged_list(vendor: Vendor) -> bytes:
    """A list in the authority's name by somebody else's key."""
    return mint.revocation_list(
        issuer=vendor.ca.name, signer=mint.EcKey.generate(), window=(NOW - DAY, NOW + DAY), revoked=[]
    )


def _later(window: tuple[int, int]) -> Callable[[Vendor], bytes]:
    return lambda vendor: vendor.ca.crl(window=window)


def _later_root(window: tuple[int, int]) -> Callable[[Vendor], bytes]:
    return lambda vendor: vendor.root.crl(window=window)


PAST: Final = (NOW - 2 * DAY, NOW - 1)
FUTURE: Final = (NOW + 1, NOW + DAY)
_LIFE: Final = (kit.EPOCH, NOW - 1)
_LATER: Final = (NOW + 1, NOW + kit.YEAR)

CERTIFICATES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="chain.window", family="window", reasons=("x509.window",), changes={
        "PCK certificate expired": _pck_with(validity=_LIFE),
        "PCK certificate not yet valid": _pck_with(validity=_LATER),
        "PCK CA expired": _ca(validity=_LIFE),
        "PCK CA not yet valid": _ca(validity=_LATER),
        "TCB signer expired": _signer(validity=_LIFE),
        "TCB signer not yet valid": _signer(validity=_LATER),
    }),
    Rule(name="chain.root", family="chain", reasons=("x509.root", "x509.signature", "dcap.*"), changes={
        "a root that is not pinned": _other_root,
        "two pinned roots mixed": _two_roots,
    }),
    Rule(name="chain.use", family="chain", reasons=("x509.key-usage", "x509.ca", "x509.critical-extension"), changes={
        "PCK CA without key usage": _ca(extensions=_usage(None, ca=True)),
        "PCK CA for digital signatures only": _ca(extensions=_usage(mint.DIGITAL_SIGNATURE, ca=True)),
        "PCK CA that may not sign lists": _ca(extensions=_usage(b"\x03\x02\x02\x04", ca=True)),
        "PCK CA that is no CA": _ca(extensions=_not_a_ca),
        "PCK CA with an unknown critical extension": _ca(extensions=_critical),
        "PCK certificate that is a CA": _pck_ca,
        "PCK certificate for key agreement only": _pck_usage(b"\x03\x02\x03\x08"),
        "PCK certificate with an unknown critical extension": _pck_extended(_UNKNOWN_CRITICAL),
        "TCB signer that is a CA": _signer(extensions=_is_a_ca),
        "TCB signer for key agreement only": _signer(extensions=_usage(b"\x03\x02\x03\x08", ca=False)),
    }),
    Rule(name="chain.name", family="chain", reasons=("dcap.*", "x509.*"), changes={
        "PCK CA of another name": _ca(name=intel_name("Intel SGX PCK Somebody CA")),
        "PCK certificate of another name": _pck_with(name=intel_name("Intel SGX TCB Signing")),
        "PCK certificate issued by the root": _pck_from_root,
        "PCK certificate without SGX extension": lambda shop: _pck(shop, more=()),
        "TCB signer of another name": _signer(name=intel_name("Intel SGX PCK Certificate")),
        "TCB signer below the PCK CA": _signer_below_ca,
        "TCB information signed by the platform": _signed_by_pck,
        "TCB information signed by the PCK CA": _signed_by_ca,
    }),
    Rule(name="revocation.revoked", family="revocation", reasons=("x509.revoked",), changes={
        "PCK certificate revoked": _revoke("pck"),
        "PCK certificate revoked, last of a thousand": _revoke("pck", among=range(10_000, 11_000)),
        "PCK CA revoked": _revoke("ca"),
        "TCB signer revoked": _revoke("signer"),
    }),
    Rule(name="revocation.list", family="revocation", reasons=("x509.crl-*", "x509.signature"), changes={
        "PCK list expired": _crl("pck_crl", _later(PAST)),
        "PCK list from tomorrow": _crl("pck_crl", _later(FUTURE)),
        "root list expired": _crl("root_ca_crl", _later_root(PAST)),
        "root list from tomorrow": _crl("root_ca_crl", _later_root(FUTURE)),
        "PCK list of another CA": _crl("pck_crl", _other_ca_list),
        "PCK list that somebody else signed": _crl("pck_crl", _forged_list),
        "root list in the place of the PCK list": _crl("pck_crl", lambda vendor: vendor.root.crl()),
        "PCK list in the place of the root list": _crl("root_ca_crl", lambda vendor: vendor.ca.crl()),
    }),
    Rule(name="signature.key", family="signature", reasons=("x509.signature", "dcap.qe-binding"), changes={
        "a PCK key that did not sign": _pck_of_somebody_else,
        "an attestation key of somebody else": _set(qe_signed_key=sha256(b"x") * 2),
    }),
)  # fmt: skip
