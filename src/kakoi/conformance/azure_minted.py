"""Signed twins of Azure confidential VMs: a paravisor, a virtual TPM and hardware of the tests' own, on SNP and TDX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from kakoi.attest.azure.verify import TD_FIELDS
from kakoi.attest.report import Collateral, Evidence
from kakoi.conformance.base import Base, anchor, base, parts, plain_trial
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.rules import Rule, both, put, rule_groups
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.trial import Kind, Trial
from kakoi.core.encoding import sha256
from kakoi.testing import azure_vendor as azure
from kakoi.testing import azure_vendor_log as logs
from kakoi.testing import x509_kit as kit
from kakoi.testing.azure_vendor_tpm import SHA1, SHA384, select
from kakoi.testing.dcap_vendor import Vendor, as_collateral, td_body

_BODY_AT: Final = {"mrtd": 136, "mrconfigid": 184, "mrowner": 232, "mrownerconfig": 280, "rtmr0": 328, "rtmr1": 376,
                   "rtmr2": 424, "rtmr3": 472}  # fmt: skip


@dataclass(kw_only=True)
class Shop:
    """A guest and what it presents in one trial."""

    format: Kind
    guest: azure.Guest
    intel: Vendor | None
    """The maker of the TD quote; None on SNP."""
    nonce: bytes = HONEST
    quote: bytes | None = None
    pieces: dict[str, bytes | None] = field(default_factory=dict)
    claims: bytes | None = None
    signed_report_data: bytes | None = None
    copy_report_data: bytes | None = None
    copy_registers: dict[str, bytes] = field(default_factory=dict)
    td: dict[str, Any] = field(default_factory=dict)
    hcl_kind: int | None = None

    def _claims(self) -> bytes:
        return self.claims if self.claims is not None else self.guest.claim_bytes()

    def _report_data(self) -> bytes:
        return self.signed_report_data if self.signed_report_data is not None else self.guest.report_data()

    def _td_body(self) -> bytes:
        return td_body("td-1.0", **{"report_data": self._report_data(), **self.td})

    def statement(self) -> bytes:
        """The HCL report."""
        hash_name = self.guest.hash_name
        if self.intel is None:
            report = self.guest.vendor.signed(
                self.guest.chip, **{"report_data": self._report_data(), **self.guest.report_changes}
            )
            return azure.hcl(report, self._claims(), kind=self.hcl_kind or 2, hash_name=hash_name)
        body = self._td_body()
        registers = {name: body[at : at + 48] for name, at in _BODY_AT.items()} | self.copy_registers
        copy = azure.td_report(self.copy_report_data or self._report_data(), registers)
        return azure.hcl(copy, self._claims(), kind=self.hcl_kind or 4, hash_name=hash_name)

    def trial(self) -> Trial:
        """A trial of genuineness, as the shop is now."""
        quote = self.quote if self.quote is not None else self.guest.tpm.attest(self.nonce)
        found: dict[str, bytes | None] = {
            "tpm-quote": quote, "tpm-signature": self.guest.tpm.sign(quote), "pcrs": b"".join(self.guest.tpm.pcrs),
        }  # fmt: skip
        if self.intel is None:
            collateral = Collateral(parts=parts(self.guest.vendor.collateral(self.guest.chip)))
            root = anchor(self.guest.vendor.ark.der, self.guest.vendor.product)
        else:
            found["td-quote"] = self.intel.quote(self._td_body(), kind="td-1.0")
            collateral, root = as_collateral(self.intel.parts("td-1.0")), anchor(self.intel.root.der)
        given = {name: data for name, data in (found | self.pieces).items() if data is not None}
        platform: Any = self.format
        evidence = Evidence(platform=platform, statement=self.statement(), parts=parts(given))
        return plain_trial(self.format, evidence, collateral, [root], kit.NOW)

    def select(
        self, selections: Sequence[bytes], values: Sequence[bytes], shown: Sequence[bytes] | None = None
    ) -> None:
        """A signed quote over other selections, with the digest of ``values``; ``shown`` are the values presented."""
        self.quote = self.guest.tpm.attest(self.nonce, selections=selections, digest=sha256(*values))
        self.pieces["pcrs"] = b"".join(shown or values).ljust(32 * 24, b"\0")


Change = Callable[[Shop], None]


def shop(kind: Kind, log: bool = False) -> Shop:
    """A new guest, with an event log that replays or without one."""
    guest = azure.guest("Milan")
    made = Shop(format=kind, guest=guest, intel=Vendor() if kind == "azure-tdx" else None)
    if log:
        made.pieces["event-log"] = logs.first() + b"".join(logs.event(i, bytes([i])) for i in range(8))
        for i in range(8):
            guest.tpm.pcrs[i] = logs.extended("sha256", bytes(32), bytes([i]))
    return made


def good(kind: Kind, *, log: bool = False) -> Base:
    """A good guest."""
    return base(f"minted-{kind}{'-log' if log else ''}", shop(kind, log).trial())


def twin(kind: Kind, log: bool, change: Change) -> Trial:
    """What ``change`` makes of a new guest's evidence, with the policy drafted before it."""
    made = shop(kind, log)
    before = base("before", made.trial()).trial
    change(made)
    return replace(made.trial(), policy=before.policy, report_data=before.report_data)


def _selections() -> dict[str, Change]:
    """Signed selections other than SHA-256, PCR 0 to 23. A guest chooses the value of PCR 16 and 23."""

    def moved(made: Shop) -> None:
        """Three selections of one bank: the value of PCR 16 appears at the place of PCR 4."""
        pcrs = made.guest.tpm.pcrs
        values = [*pcrs[:4], pcrs[16], *pcrs[5:]]
        made.select([select(range(4)), select([16]), select(range(5, 24))], values)

    def of(*selections: bytes) -> Change:
        return lambda made: made.select(selections, made.guest.tpm.pcrs)

    def fewer(*chosen: int) -> Change:
        return lambda made: made.select([select(chosen)], [made.guest.tpm.pcrs[i] for i in chosen])

    return {
        "PCR 16 at the place of PCR 4, by three selections": moved,
        "in two halves": of(select(range(12)), select(range(12, 24))),
        "the SHA-1 bank": of(select(range(24), bank=SHA1)),
        "the SHA-384 bank": of(select(range(24), bank=SHA384)),
        "an empty selection before it": of(select([]), select(range(24))),
        "an empty selection after it": of(select(range(24)), select([])),
        "a bank twice": of(select(range(24)), select(range(24))),
        "a bit map of four bytes": of(select(range(24), width=4)),
        "no selection": of(),
        "an empty selection": of(select([])),
        "without PCR 4": fewer(*range(4), *range(5, 24)),
        "without PCR 23": fewer(*range(23)),
        "PCR 0 only": fewer(0),
    }  # fmt: skip


def _quote(**options: Any) -> Change:
    """A signed quote with other options."""

    def change(made: Shop) -> None:
        made.quote = made.guest.tpm.attest(made.nonce, **options)

    return change


def _report(**fields: Any) -> Change:
    """A hardware report (SNP) with other fields."""
    return lambda made: made.guest.report_changes.update(fields)


def _debug(made: Shop) -> None:
    """Hardware that lets the host read the guest."""
    if made.intel is None:
        made.guest.report_changes["policy"] = 0xB001F
    else:
        made.td["attributes"] = 1 << 28 | 1


def _other_hardware(made: Shop) -> None:
    """The HCL report says that it holds hardware of the other kind."""
    made.hcl_kind = 4 if made.intel is None else 2


def _pcr(index: int) -> Change:
    """Another value in one register."""

    def change(made: Shop) -> None:
        made.guest.tpm.pcrs[index] = b"\xa5" * 32

    return change


def _other_digest(made: Shop) -> None:
    made.quote = made.guest.tpm.attest(made.nonce, digest=sha256(*made.guest.tpm.pcrs[::-1]))


def _other_tpm(made: Shop) -> None:
    """A TPM of the attacker: quote and signature by a key that the claims do not name."""
    tpm = replace(made.guest.tpm, key=azure.key(1))
    quote = tpm.attest(made.nonce)
    made.quote, made.pieces["tpm-signature"] = quote, tpm.sign(quote)


def _claims(**changes: Any) -> Change:
    """Other claims that the hardware does not vouch for."""

    def change(made: Shop) -> None:
        made.claims = replace(made.guest, claims=azure.claims(azure.key(), **changes)).claim_bytes()

    return change


def _vouched(**changes: Any) -> Change:
    """Other claims that the hardware vouches for."""

    def change(made: Shop) -> None:
        made.guest.claims = azure.claims(azure.key(), **changes)

    return change


def _swapped_key(made: Shop) -> None:
    """Claims that name the attacker's key, and a quote by it; the hardware's report is as before."""
    made.signed_report_data = made.guest.report_data()
    made.guest.claims = azure.claims(azure.key(1))
    _other_tpm(made)


def _report_data(at: int) -> Change:
    def change(made: Shop) -> None:
        good = made.guest.report_data()
        made.signed_report_data = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]

    return change


def _key(**changes: Any) -> dict[str, Any]:
    return {"keys": [{**azure.jwk(azure.key(), "HCLAkPub", "sign"), **changes}]}


def _register(name: str) -> Change:
    return lambda made: made.copy_registers.update({name: b"\xa5" * 48})


def _fraction(made: Shop) -> None:
    made.guest.claims = azure.claims(azure.key(), **{"vm-configuration": {"secure-boot": 1.5}})


_CONFIGURATION: Final = azure.claims(azure.key())["vm-configuration"]


RULES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="pcr.selection", family="binding", reasons=("tpm.selection", "tpm.values"), changes=_selections()),
    Rule(name="pcr.digest", family="binding", reasons=("tpm.digest",), changes={
        "the digest of the values backwards": _other_digest,
    }),
    Rule(name="tpm.form", family="form", reasons=("evidence.malformed",), changes={
        "another magic": _quote(magic=0xFF544346),
        "a certification instead of a quote": _quote(kind=0x8017),
        "a flag that is neither yes nor no": _quote(safe=2),
    }),
    Rule(name="signature.tpm", family="signature", reasons=("x509.signature", "azure.claims"), changes={
        "a TPM of somebody else": _other_tpm,
        "a TPM of somebody else, whose key is put into the claims": _swapped_key,
    }),
    Rule(name="binding.claims", family="binding", reasons=("azure.claims", "azure.td-report"), changes={
        "other user data": _claims(**{"user-data": "A5" * 64}),
        "another configuration": _claims(**{"vm-configuration": {**_CONFIGURATION, "secure-boot": False}}),
        **{f"report data of the hardware: bit of byte {at}": _report_data(at) for at in (0, 31, 32, 63)},
    }),
    Rule(name="form.claims", family="form", reasons=("evidence.malformed", "x509.public-key"), changes={
        "no keys": _vouched(keys=None),
        "empty keys": _vouched(keys=[]),
        "two attestation keys": _vouched(
            keys=[azure.jwk(azure.key(i), "HCLAkPub", "sign") for i in range(2)]),
        "only the encryption key": _vouched(keys=[azure.jwk(azure.key(), "HCLEkPub", "encrypt")]),
        "a key for encryption": _vouched(**_key(key_ops=["encrypt"])),
        "a private key": _vouched(**_key(d="AQ")),
        "a small key": _vouched(**_key(n="w" * 171)),
        "an even exponent": _vouched(**_key(e="AQAA")),
        "no user data": _vouched(**{"user-data": None}),
        "short user data": _vouched(**{"user-data": "00" * 63}),
        "no configuration": _vouched(**{"vm-configuration": None}),
        "a fraction in the configuration": _fraction,
        "an unknown member": _vouched(more=1),
    }),
    Rule(name="binding.vmpl", family="binding", reasons=("azure.vmpl",), only=("azure-snp",), changes={
        f"hardware report of VMPL {vmpl}": _report(vmpl=vmpl)
        for vmpl in (1, 2, 3, 0xFFFFFFFF)
    }),
    Rule(name="debug.guest", family="debug", reasons=("appraisal.debug",), changes={
        "hardware that lets the host debug": _debug,
    }),
    Rule(name="binding.td-report", family="binding", reasons=("azure.td-report",), only=("azure-tdx",), changes={
        **{f"another {name} in the copy": _register(name) for name in TD_FIELDS},
        "other report data in the copy": put(copy_report_data=bytes(64)),
    }),
    Rule(name="binding.hardware", family="binding", reasons=("azure.kind", "evidence.*", "azure.*"), changes={
        "hardware of the other kind": _other_hardware,
    }),
    Rule(name="policy.pcr", family="policy", layer="appraise", reasons=("appraisal.measurement.*",), changes={
        f"another PCR {i}": _pcr(i) for i in range(24)
    }),
    Rule(name="policy.configuration", family="policy", layer="appraise", reasons=("appraisal.setting.*",), changes={
        "secure boot off": _vouched(**{"vm-configuration": {**_CONFIGURATION, "secure-boot": False}}),
        "another virtual machine": _vouched(**{"vm-configuration": {**_CONFIGURATION, "vmUniqueId": "33-44"}}),
        "a claim that the policy does not name": _vouched(**{"vm-configuration": {**_CONFIGURATION, "new": 1}}),
        "a clock that is not safe": _quote(safe=0),
        "user data": _vouched(**{"user-data": "A5" * 64}),
    }),
    Rule(name="session.relay", family="session", layer="appraise", reasons=("appraisal.report-data",), changes={
        **{what: put(nonce=value) for what, value in RELAYED.items()},
        "half of it": put(nonce=HONEST[:32]),
        "no nonce": put(nonce=b""),
        "in the user data instead of the nonce": both(
            put(nonce=bytes(64)), _vouched(**{"user-data": HONEST.hex()})),
    }),
)  # fmt: skip


LOG_RULES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="binding.event-log", family="binding", reasons=("azure.event-log",), changes={
        "a log without its last event": lambda made: made.pieces.update({
            "event-log": logs.first() + b"".join(logs.event(i, bytes([i])) for i in range(7))}),
        "two events exchanged in one register": lambda made: made.pieces.update({
            "event-log": logs.first() + logs.event(0, b"\1") + b"".join(logs.event(i, bytes([i])) for i in range(8))}),
        "another start-up locality": lambda made: made.pieces.update({
            "event-log": logs.first() + logs.event(0, b"StartupLocality\0\3", kind=logs.NO_ACTION)
            + b"".join(logs.event(i, bytes([i])) for i in range(8))}),
    }),
)  # fmt: skip


def groups(kind: Kind, *, log: bool) -> list[Group]:
    """Everything that only the paravisor, the TPM or the hardware can make; ``log``: about event logs only."""
    found = rule_groups(LOG_RULES if log else RULES, partial(twin, kind, log), kind)
    names: Sequence[Any] = () if log else ("sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro")
    called = [(f"presented as {name}", partial(_called, kind, name)) for name in names if name != kind]
    return [*found, *several("binding.kind", "binding", "verify", called)]


def _called(kind: Kind, name: Any) -> Trial:
    return twin(kind, False, _nothing).called(name, name)


def _nothing(made: Shop) -> None:
    """No change."""
