"""Signed twins of SEV-SNP evidence: whole reports, certificates and lists that break one rule each.

Kinds that no public vector exists for are here: revocation lists with entries, VLEK on Genoa and Turin, masked chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from kakoi.attest.report import Collateral, Evidence
from kakoi.attest.snp.parse import POLICY_BITS, Firmware, SigningKey
from kakoi.conformance.base import Base, anchor, base, parts, plain_trial
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.rules import Rule, both, put, rule_groups
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.trial import Trial
from kakoi.core import der
from kakoi.core.x509 import parse_certificate
from kakoi.evidence import mint
from kakoi.testing import amd_vendor as amd
from kakoi.testing import x509_kit as kit

_POLICY: Final = 0x3001F
_PLATFORM: Final = 0x25


@dataclass(kw_only=True)
class Shop:
    """A product line, a chip, and what they make for one trial."""

    vendor: amd.AmdVendor
    chip: amd.Chip
    version: int = 5
    fields: dict[str, Any] = field(default_factory=lambda: {"report_data": HONEST})
    statement: bytes = b""
    pieces: dict[str, bytes | None] = field(default_factory=dict)
    crl: bytes | None = None

    def collateral(self) -> dict[str, bytes]:
        """The parts, with the changed ones."""
        found: dict[str, bytes | None] = {**self.vendor.collateral(self.chip, crl=self.crl), **self.pieces}
        return {name: data for name, data in found.items() if data is not None}

    def report(self) -> bytes:
        """The signed report."""
        return self.statement or self.vendor.signed(self.chip, **{"version": self.version, **self.fields})

    def trial(self) -> Trial:
        """A trial of genuineness, as the shop is now."""
        evidence = Evidence(platform="snp", statement=self.report(), parts=())
        root = anchor(self.vendor.ark.der, self.vendor.product)
        return plain_trial("snp", evidence, Collateral(parts=parts(self.collateral())), [root], kit.NOW)

    def tcb(self, **versions: int) -> bytes:
        """A TCB version of this chip with other components."""
        return amd.pack_tcb(self.vendor.product, {**self.chip.tcb, **versions})


Change = Callable[[Shop], None]


def shop(product: amd.Product, key: SigningKey = "VCEK", version: int = 5) -> Shop:
    """A product line with a new chip."""
    vendor = amd.vendor(product)
    return Shop(vendor=vendor, chip=vendor.chip(key), version=version)


def good(product: amd.Product, key: SigningKey = "VCEK", version: int = 5) -> Base:
    """A good report of a new chip."""
    return base(f"minted-{product}-{key}-v{version}".lower(), shop(product, key, version).trial())


def twin(product: amd.Product, key: SigningKey, change: Change) -> Trial:
    """What ``change`` makes of a new chip's evidence, with the policy drafted before it."""
    made = shop(product, key)
    before = base("before", made.trial()).trial
    change(made)
    return replace(made.trial(), policy=before.policy, report_data=before.report_data)


def _report(**fields: Any) -> Change:
    """A report with other fields, signed by the chip."""
    return lambda made: made.fields.update(fields)


def _tcb(name: str, **steps: int) -> Change:
    """A TCB version in which some components are higher or lower by a step."""

    def change(made: Shop) -> None:
        made.fields[name] = made.tcb(**{part: made.chip.tcb[part] + step for part, step in steps.items()})

    return change


def _chip(**options: Any) -> Change:
    """A certificate with other options for the same chip; the report is signed by the certificate's key."""

    def change(made: Shop) -> None:
        given = {"key": made.chip.key, "hwid": made.chip.hwid or None, **options}
        chip = made.vendor.chip(made.chip.kind, **given)
        made.pieces[made.chip.kind.lower()] = chip.certificate

    return change


def _other_key(made: Shop) -> None:
    """A report that another chip's key signed."""
    made.statement = made.vendor.sign(
        replace(made.vendor.report(made.chip), report_data=HONEST), mint.EcKey.generate("P-384")
    )


def _crl(**options: Any) -> Change:
    def change(made: Shop) -> None:
        made.crl = made.vendor.crl(**options)

    return change


def _revoked(*before: int) -> Change:
    def change(made: Shop) -> None:
        serial = made.vendor.intermediate(made.chip.kind).certificate.serial
        made.crl = made.vendor.crl(revoked=[*before, serial])

    return change


def _other_vendor_list(made: Shop) -> None:
    made.crl = amd.vendor(made.vendor.product, which=1).crl()


def _forged_list(made: Shop) -> None:
    """A list in the root's name, by the key of the intermediate."""
    signer = made.vendor.intermediate(made.chip.kind).key
    made.crl = mint.revocation_list(
        issuer=made.vendor.ark.name, signer=signer, window=(kit.NOW - 9, kit.NOW + 9), revoked=[]
    )


def _other_root(made: Shop) -> None:
    """All of it by somebody who calls themselves AMD, for the same chip key."""
    other = amd.vendor(made.vendor.product, which=1)
    chip = other.chip(made.chip.kind, key=made.chip.key, hwid=made.chip.hwid or None)
    made.pieces |= other.collateral(chip)


def _other_intermediate(made: Shop) -> None:
    made.pieces["intermediate"] = made.vendor.intermediate("VLEK" if made.chip.kind == "VCEK" else "VCEK").der


def _wrong_intermediate(made: Shop) -> None:
    """A certificate under the intermediate of the other kind of key, and that intermediate."""
    other = made.vendor.intermediate("VLEK" if made.chip.kind == "VCEK" else "VCEK")
    _chip(issuer=other)(made)
    made.pieces["intermediate"] = other.der


def _intermediate(**options: Any) -> Change:
    """Another ASK or ASVK of the same name, and a certificate of the chip under it."""

    def change(made: Shop) -> None:
        good = made.vendor.intermediate(made.chip.kind)
        own: dict[str, Any] = dict(options)
        if "extensions" in own:
            own["extensions"] = own["extensions"](good.key.public, made.vendor.ark.key.public)
        ca = made.vendor.ark.child("", **{"name": good.name, "key": good.key, **own})
        _chip(issuer=ca)(made)
        made.pieces["intermediate"] = ca.der

    return change


def _usage(bits: bytes | None) -> Callable[..., list[mint.ExtensionSpec]]:
    def make(key: Any, issuer: Any) -> list[mint.ExtensionSpec]:
        rest = [e for e in mint.ca_extensions(key, issuer, 0) if e[0] != mint.KEY_USAGE]
        return rest if bits is None else [*rest, (mint.KEY_USAGE, True, bits)]

    return make


def _leaf_is_ca(made: Shop) -> None:
    key, issuer = made.chip.key.public, made.vendor.intermediate(made.chip.kind)
    amd_extensions = [
        (oid, e.critical, e.value) for oid, e in parse_certificate(made.chip.certificate).extensions.items()
    ]
    made.pieces[made.chip.kind.lower()] = issuer.leaf(
        "", key=key, serial=0, name=amd.amd_name(f"SEV-{made.chip.kind}"),
        extensions=[*mint.ca_extensions(key, issuer.key.public, 0), *amd_extensions],
    )  # fmt: skip


_FACTS: Final[dict[str, Change]] = {
    **{
        f"guest policy: {name}": _report(policy=_POLICY ^ 1 << bit)
        for name, bit in POLICY_BITS.items()
        if name != "debug"
    },
    **{f"platform information: bit {bit}": _report(platform_info=_PLATFORM ^ 1 << bit) for bit in range(8)},
    **{f"VMPL {level}": _report(vmpl=level) for level in (1, 2, 3)},
    "asked for by the host": _report(vmpl=0xFFFFFFFF),
    "an older version of the report": put(version=4),
    "chip key masked": _report(mask_chip_key=True),
    "an author key": _report(author_key_en=True),
    "a migration agent": _report(report_id_ma=b"\x01" * 32),
    "fewer mitigations now": _report(current_mitigations=0),
    "fewer mitigations at launch": _report(launch_mitigations=0),
    "provisional firmware": _report(current_firmware=Firmware(major=1, minor=55, build=44)),
}
_MEASURED: Final[dict[str, Change]] = {
    "measurement": _report(measurement=b"\x11" * 47 + b"\x10"),
    "host data": _report(host_data=b"\x01" + bytes(31)),
    "family": _report(family_id=b"\x01" + bytes(15)),
    "image": _report(image_id=b"\x01" + bytes(15)),
    "id key": _report(id_key_digest=b"\x01" + bytes(47)),
    "author key": _report(author_key_en=True, author_key_digest=b"\x01" + bytes(47)),
}
_LOWER: Final[dict[str, Change]] = {
    "launch TCB: microcode": _tcb("launch_tcb", microcode=-1),
    "launch TCB: SNP firmware": _tcb("launch_tcb", snp=-1),
    "launch TCB: boot loader": _tcb("launch_tcb", **{"boot-loader": -1}),
    "committed firmware": _report(committed_firmware=Firmware(major=1, minor=55, build=42)),
    "guest SVN": _report(guest_svn=2),
    "minimum ABI of the guest policy": _report(policy=_POLICY - 1),
}
_FORM: Final[dict[str, Change]] = {
    **{f"version {n}": _report(version=n) for n in (0, 1, 6, 0xFFFFFFFF)},
    "VMPL 4": _report(vmpl=4),
    "guest policy without bit 17": _report(policy=_POLICY & ~(1 << 17)),
    **{f"guest policy bit {bit}": _report(policy=_POLICY | 1 << bit) for bit in (26, 40, 63)},
    **{f"platform information bit {bit}": _report(platform_info=_PLATFORM | 1 << bit) for bit in (8, 31, 63)},
    "author key digest without an author key": _report(author_key_digest=b"\1" * 48),
    "mitigations before version 5": _report(version=4, current_mitigations=0, launch_mitigations=1),
    "CPUID before version 3": _report(version=2, cpuid=(0x19, 0x01, 1)),
}
_CERTIFICATE: Final[dict[str, Change]] = {
    "product of another line": _chip(product_name="Naples"),
    "no product name": _chip(spoil={"2": None}),
    "an empty product name": _chip(spoil={"2": der.write(der.IA5_STRING)}),
    "structure version 2": _chip(spoil={"1": der.write_integer(2)}),
    "no microcode version": _chip(spoil={"3.8": None}),
    "a version beyond a byte": _chip(spoil={"3.8": der.write_integer(256)}),
    "a negative version": _chip(spoil={"3.8": der.write_integer(-1)}),
    "a reserved version": _chip(spoil={"3.5": der.write_integer(1)}),
    "an unknown AMD extension": _chip(spoil={"6": der.write_integer(0)}),
    "bytes after a version": _chip(spoil={"3.8": der.write_integer(84) + b"\0"}),
}
_HWID: Final[dict[str, Change]] = {
    "no chip id": _chip(spoil={"4": None}),
    "a short chip id": _chip(spoil={"4": bytes(63)}),
    "another chip id": _chip(hwid=b"\x77" * 64),
    "a cloud provider in a chip's certificate": _chip(spoil={"5": der.write(der.IA5_STRING, b"x")}),
}

RULES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="chain.window", family="window", reasons=("x509.window",), changes={
        "chip certificate expired": _chip(validity=(kit.EPOCH, kit.NOW - 1)),
        "chip certificate not yet valid": _chip(validity=(kit.NOW + 1, kit.NOW + kit.YEAR)),
        "intermediate expired": _intermediate(validity=(kit.EPOCH, kit.NOW - 1)),
        "intermediate not yet valid": _intermediate(validity=(kit.NOW + 1, kit.NOW + kit.YEAR)),
    }),
    Rule(name="chain.root", family="chain", reasons=("x509.root",), changes={"a root that is not pinned": _other_root}),
    Rule(name="chain.name", family="chain", reasons=("snp.name", "x509.*"), changes={
        "common name without SEV-": _chip(common_name="VCEK"),
        "common name of nobody": _chip(common_name="SEV-VXEK"),
        "intermediate of the other kind of key": _other_intermediate,
        "issued by the other kind of intermediate": _wrong_intermediate,
        "issued by the root": lambda made: _chip(issuer=made.vendor.ark)(made),
    }),
    Rule(name="chain.use", family="chain", reasons=("x509.*", "snp.*"), changes={
        "intermediate without key usage": _intermediate(extensions=_usage(None)),
        "intermediate for digital signatures only": _intermediate(extensions=_usage(mint.DIGITAL_SIGNATURE)),
        "intermediate that is no CA": _intermediate(extensions=mint.leaf_extensions),
        "chip certificate that is a CA": _leaf_is_ca,
    }),
    Rule(name="revocation.revoked", family="revocation", reasons=("x509.revoked",), changes={
        "intermediate revoked": _revoked(),
        "intermediate revoked, last of a thousand": _revoked(*range(10_000, 11_000)),
    }),
    Rule(name="revocation.list", family="revocation", reasons=("x509.*",), changes={
        "list expired": _crl(window=(kit.NOW - 9, kit.NOW - 1)),
        "list from tomorrow": _crl(window=(kit.NOW + 1, kit.NOW + 9)),
        "list of another root of the same name": _other_vendor_list,
        "list that the intermediate signed": _forged_list,
    }),
    Rule(name="signature.key", family="signature", reasons=("x509.signature",), changes={
        "signed by another key": _other_key,
    }),
    Rule(name="binding.certificate", family="form", reasons=("snp.*", "x509.malformed", "der.*"), changes=_CERTIFICATE),
    Rule(name="binding.chip", family="binding", reasons=("snp.*", "x509.malformed"), changes=_HWID, only=("VCEK",)),
    Rule(name="binding.chip-id", family="binding", reasons=("snp.chip-id",), only=("VCEK",), changes={
        "chip id of another chip": _report(chip_id=b"\x09" * 64),
        "chip id off by a bit": lambda made: made.fields.update(chip_id=bytes([made.chip.hwid[0] ^ 1])
                                                               + made.chip.hwid.ljust(64, b"\0")[1:]),
    }),
    Rule(name="binding.product", family="binding", reasons=("snp.product",), changes={
        "CPUID of an unknown family": _report(cpuid=(0x17, 0x01, 1)),
        "CPUID of an unknown model": _report(cpuid=(0x19, 0x30, 1)),
        "CPUID of another line": lambda made: made.fields.update(
            cpuid=(0x1A, 0x02, 1) if made.vendor.product != "Turin" else (0x19, 0x01, 1)),
    }),
    Rule(name="binding.tcb", family="binding", reasons=("snp.tcb", "snp.endorsement"), changes={
        "reported TCB below the certificate's": _tcb("reported_tcb", microcode=-1),
        "reported TCB above the certificate's": _tcb("reported_tcb", snp=1),
        "certificate of an older TCB": lambda made: _chip(
            tcb={**made.chip.tcb, "microcode": made.chip.tcb["microcode"] - 1})(made),
        "a reserved byte of the launch TCB": lambda made: made.fields.update(
            launch_tcb=made.tcb()[:4] + b"\1" + made.tcb()[5:]),
        "a reserved byte of the reported TCB": lambda made: made.fields.update(
            reported_tcb=made.tcb()[:5] + b"\1" + made.tcb()[6:]),
    }),
    Rule(name="tcb.order", family="tcb", reasons=("snp.tcb-order",), changes={
        "reported above current": both(_tcb("current_tcb", snp=-1), _tcb("committed_tcb", snp=-1)),
        "committed above current": _tcb("committed_tcb", microcode=1),
        "committed firmware above current": _report(committed_firmware=Firmware(major=1, minor=55, build=44)),
    }),
    Rule(name="debug.guest", family="debug", reasons=("appraisal.debug",), changes={
        "guest policy allows debugging": _report(policy=_POLICY | 1 << 19),
    }),
    Rule(name="form.report", family="form", reasons=("snp.malformed",), changes=_FORM),
    Rule(name="policy.fact", family="policy", layer="appraise", reasons=("appraisal.*",), changes=_FACTS),
    Rule(name="policy.measured", family="policy", layer="appraise", reasons=("appraisal.measurement.*",),
         changes=_MEASURED),
    Rule(name="policy.lower", family="policy", layer="appraise", reasons=("appraisal.minimum-tcb.*",), changes=_LOWER),
    Rule(name="policy.masked", family="policy", layer="appraise", reasons=("appraisal.platform-identity",),
         only=("VCEK",), changes={"chip id masked": _report(chip_id=bytes(64))}),
    Rule(name="session.relay", family="session", layer="appraise", reasons=("appraisal.report-data",), changes={
        what: _report(report_data=value) for what, value in RELAYED.items()
    }),
)  # fmt: skip


def groups(product: amd.Product, key: SigningKey) -> list[Group]:
    """Everything that only AMD's and the chip's keys can make."""
    found = rule_groups(RULES, partial(twin, product, key), key)
    found += several("binding.kind", "binding", "verify", [
        (f"presented as {name}", partial(_called, product, key, name))
        for name in ("sgx", "tdx", "azure-snp", "azure-tdx", "nitro")
    ])  # fmt: skip
    return found


def _called(product: amd.Product, key: SigningKey, name: Any) -> Trial:
    return twin(product, key, lambda _: None).called(name, name)
