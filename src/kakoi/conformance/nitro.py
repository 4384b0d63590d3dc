"""Twins of AWS Nitro documents, recorded and minted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from kakoi.attest.nitro.parse import PROTECTED
from kakoi.attest.report import Collateral, Evidence
from kakoi.conformance import spoil
from kakoi.conformance.base import Base, anchor, base, parts, plain_trial
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.layouts import cbor_spans
from kakoi.conformance.rules import Rule, both, put, rule_groups
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.spoil import Blob, Span
from kakoi.conformance.trial import Trial
from kakoi.core.encoding import sha256
from kakoi.core.x509 import parse_crl
from kakoi.evidence import mint
from kakoi.testing import nitro_vendor as aws
from kakoi.testing import x509_kit as kit

Named = tuple[str, Callable[[], Trial]]
_TAG: Final = 0xD2


def document_spans(raw: bytes) -> list[Span]:
    """Heads and contents of COSE_Sign1, and of the payload inside it."""
    outer, _ = cbor_spans(raw)
    payload = next(span for span in outer if span.name.endswith("/2 content") or span.name.endswith("/0/2 content"))
    inner, _ = cbor_spans(raw[payload.start : payload.end])
    moved = [Span(name=f"payload{s.name}", start=s.start + payload.start, end=s.end + payload.start) for s in inner]
    return sorted([span for span in outer if span != payload] + moved, key=lambda span: span.start)


def byte_groups(base: Base, others: Sequence[Base], *, every_bit: bool) -> list[Group]:
    """Everything that can be done to a document without any key."""
    trial = base.trial
    raw = trial.evidence.statement
    blob = Blob(name="document", data=raw, rebuild=trial.with_statement, spans=document_spans(raw), order="big")
    found = spoil.everything(blob, every_bit=every_bit)
    for part in trial.collateral.parts:
        piece = Blob(name=part.name, data=part.data, rebuild=partial(_with_list, trial, part.name))
        found += spoil.flips(piece, every_bit=every_bit)
        found += spoil.truncations(piece, step=3)
        found += spoil.extensions(piece)
        found += spoil.der_values(part.name, part.data, piece.rebuild)
        found.append(spoil.absent(part.name, partial(trial.with_collateral, {part.name: None})))
    unknown = ("a part of an unknown name", partial(trial.with_parts, {"more": b"x"}))
    return [
        *found,
        *several("parts.unknown", "form", "verify", [unknown]),
        *_times(base),
        *_exchange(base, others),
    ]


def _with_list(trial: Trial, name: str, data: bytes) -> Trial:
    return trial.with_collateral({name: data})


def _times(base: Base) -> list[Group]:
    trial = base.trial
    edges = {0: "1970", trial.now + 50 * 365 * 86400: "in fifty years", trial.now + 86400: "a day later",
             trial.now - 86400: "a day earlier"}  # fmt: skip
    for part in trial.collateral.parts:
        crl = parse_crl(part.data)
        edges[crl.this_update - 1] = f"a second before {part.name} begins"
        edges[crl.next_update + 1] = f"a second after {part.name} ends"
    named = [(f"judged {what}", partial(replace, trial, now=at)) for at, what in sorted(edges.items())]
    return several("time.window", "window", "verify", named, ("x509.window", "x509.crl-window"))


def _exchange(base: Base, others: Sequence[Base]) -> list[Group]:
    """The lists of another AWS, and its documents under this one's anchors."""
    trial, named = base.trial, []
    for other in others:
        if other.trial.format == "nitro" and other.trial.anchors != trial.anchors:
            named.append((f"document of {other.name}", partial(trial.with_statement, other.trial.evidence.statement)))
            for part in other.trial.collateral.parts:
                change: dict[str, bytes | None] = {part.name: part.data}
                if trial.collateral.parts:
                    named.append((f"{part.name} of {other.name}", partial(trial.with_collateral, change)))
    return several("exchange", "binding", "verify", named)


# --- minted ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Shop:
    """A pretend AWS and one document of an enclave in it."""

    vendor: aws.NitroVendor
    members: dict[Any, Any]
    statement: bytes = b""
    lists: dict[str, bytes] | None = None

    def trial(self) -> Trial:
        """A trial of genuineness, as the shop is now."""
        statement = self.statement or self.vendor.document(**self.members)
        lists = self.vendor.lists() if self.lists is None else self.lists
        evidence = Evidence(platform="nitro", statement=statement, parts=())
        root = anchor(self.vendor.root.der)
        return plain_trial("nitro", evidence, Collateral(parts=parts(lists)), [root], kit.NOW)

    def payload(self) -> bytes:
        """The signed bytes of the document."""
        return aws.encode(self.vendor.members(**self.members))


Change = Callable[[Shop], None]


def shop(which: int = 0, *, lists: bool = True, tpm: bool = False) -> Shop:
    """A new enclave's document; ``tpm``: a guest with NitroTPM instead."""
    vendor = aws.vendor(which)
    members: dict[Any, Any] = {"user_data": HONEST}
    if tpm:
        members |= {"pcrs": ..., "nitrotpm_pcrs": vendor.members()["pcrs"]}
    return Shop(vendor=vendor, members=members, lists=None if lists else {})


def good(name: str = "minted-nitro", **options: Any) -> Base:
    """A good document."""
    return base(name, shop(**options).trial())


def twin(change: Change) -> Trial:
    """What ``change`` makes of a document, with the policy drafted before it."""
    made = shop()
    before = base("before", made.trial()).trial
    change(made)
    return replace(made.trial(), policy=before.policy, report_data=before.report_data)


def _members(**changes: Any) -> Change:
    """Other members, signed by the enclave's key."""
    return lambda made: made.members.update(changes)


def _leaf(name: str = f"{aws.MODULE}.{aws.REGION}.aws", **options: Any) -> Change:
    return lambda made: made.members.update(certificate=made.vendor.leaf(name, **options))


def _bundle(*order: int) -> Change:
    def change(made: Shop) -> None:
        made.members["cabundle"] = aws.reordered(made.vendor.members()["cabundle"], *order)

    return change


def _leaf_is_ca(made: Shop) -> None:
    """A leaf that may sign certificates."""
    key = made.vendor.key.public
    made.members["certificate"] = made.vendor.leaf(extensions=mint.ca_extensions(key, key, 0))


def _zeros(*indices: int) -> Change:
    """Registers of an enclave in debug mode."""
    return _pcrs(lambda found: {**found, **dict.fromkeys(indices, bytes(48))})


def _other_pcr(index: int) -> Change:
    return _pcrs(lambda found: {**found, index: b"\xa5" * 48})


def _with_signature(value: bytes) -> Change:
    return _signed(lambda _, payload: aws.encode([PROTECTED, {}, payload, value]))


def _signed(make: Callable[[aws.NitroVendor, bytes], bytes]) -> Change:
    """Another envelope around the same payload."""

    def change(made: Shop) -> None:
        made.statement = make(made.vendor, made.payload())

    return change


def _pcrs(changed: Callable[[dict[int, bytes]], dict[int, bytes]]) -> Change:
    return lambda made: made.members.update(pcrs=changed(made.vendor.members()["pcrs"]))


def _context(vendor: aws.NitroVendor, payload: bytes, context: str, key: mint.EcKey | None = None) -> bytes:
    signature = (key or vendor.key).sign_raw(aws.signed_bytes(payload, context=context))
    return aws.encode([PROTECTED, {}, payload, signature])


def _lists(make: Callable[[aws.NitroVendor], dict[str, bytes]]) -> Change:
    def change(made: Shop) -> None:
        made.lists = {**made.vendor.lists(), **make(made.vendor)}

    return change


def _revoked(vendor: aws.NitroVendor, which: str, *before: int) -> dict[str, bytes]:
    """Lists in which the regional or the zonal authority stands."""
    issuer, below = (vendor.root, vendor.regional) if which == "crl-root" else (vendor.regional, vendor.zonal)
    return {which: _list(issuer, [*before, below.certificate.serial])}


def _list(issuer: kit.Authority, revoked: Sequence[int] = (), **options: Any) -> bytes:
    window = options.get("window", (kit.NOW - 86400, kit.NOW + 86400))
    return mint.revocation_list(
        issuer=issuer.name, signer=options.get("signer", issuer.key), window=window, revoked=revoked
    )


def _other_aws(made: Shop) -> None:
    """All of it by somebody who calls themselves AWS."""
    other = aws.vendor(3)
    made.statement, made.lists = other.document(**made.members), other.lists()


_PAST: Final = (kit.NOW - 9, kit.NOW - 1)
_FUTURE: Final = (kit.NOW + 1, kit.NOW + 9)
_MALFORMED: Final = ("nitro.malformed", "evidence.malformed")

RULES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="chain.window", family="window", reasons=("x509.window",), changes={
        "leaf expired": _leaf(validity=_PAST),
        "leaf not yet valid": _leaf(validity=_FUTURE),
    }),
    Rule(name="chain.root", family="chain", reasons=("x509.root",), changes={
        "a root that is not pinned": _other_aws,
        "the bundle without the root": _bundle(1, 2, 3),
        "the bundle backwards": _bundle(3, 2, 1, 0),
        "another root in the bundle": lambda made: made.members.update(
            cabundle=[aws.vendor(3).root.der, *made.vendor.members()["cabundle"][1:]]),
    }),
    Rule(name="chain.order", family="chain", reasons=("x509.*",), changes={
        "without the regional CA": _bundle(0, 2, 3),
        "without the instance CA": _bundle(0, 1, 2),
        "two CAs exchanged": _bundle(0, 2, 1, 3),
        "a CA twice": _bundle(0, 1, 1, 2, 3),
        "the root only": _bundle(0),
    }),
    Rule(name="chain.use", family="chain", reasons=("x509.*", "nitro.*"), changes={
        "leaf that is a CA": _leaf_is_ca,
        "leaf for key agreement only": _leaf(
            extensions=[("2.5.29.19", True, b"\x30\0"), ("2.5.29.15", True, b"\x03\x02\x03\x08")]),
        "leaf with an unknown critical extension": _leaf(more=(("1.3.6.1.4.1.99999.1", True, b"\x05\0"),)),
        "leaf on another curve": _leaf(key=mint.EcKey.generate().public),
    }),
    Rule(name="binding.module", family="binding", reasons=("nitro.module",), changes={
        "leaf of another module": _leaf(f"i-0-enc0.{aws.REGION}.aws"),
        "leaf without a region": _leaf(aws.MODULE),
        "another module in the document": _members(module_id="i-0-enc1"),
    }),
    Rule(name="binding.time", family="window", reasons=("nitro.timestamp",), changes={
        "document from before its certificate": _members(timestamp=1000 * (kit.NOW - aws.HOUR) - 1),
        "document from after its certificate": _members(timestamp=1000 * (kit.NOW + 2 * aws.HOUR + 1)),
        "time in seconds": _members(timestamp=kit.NOW),
    }),
    Rule(name="revocation.revoked", family="revocation", reasons=("x509.revoked",), changes={
        "regional CA revoked": _lists(lambda vendor: _revoked(vendor, "crl-root")),
        "regional CA revoked, last of a thousand": _lists(
            lambda vendor: _revoked(vendor, "crl-root", *range(10_000, 11_000))),
        "zonal CA revoked": _lists(lambda vendor: _revoked(vendor, "crl-region")),
    }),
    Rule(name="revocation.list", family="revocation", reasons=("x509.*",), changes={
        "root's list expired": _lists(lambda v: {"crl-root": _list(v.root, window=_PAST)}),
        "root's list from tomorrow": _lists(lambda v: {"crl-root": _list(v.root, window=_FUTURE)}),
        "region's list expired": _lists(lambda v: {"crl-region": _list(v.regional, window=_PAST)}),
        "region's list of another AWS": _lists(lambda v: {"crl-region": aws.vendor(3).regional.crl()}),
        "region's list that somebody else signed": _lists(
            lambda v: {"crl-region": _list(v.regional, signer=mint.EcKey.generate("P-384"))}),
        "the root's list twice": _lists(lambda v: {"crl-region": v.root.crl()}),
    }),
    Rule(name="signature.cose", family="signature", reasons=("x509.signature",), changes={
        "signed by another key": _signed(
            lambda v, p: _context(v, p, "Signature1", mint.EcKey.generate("P-384"))),
        "context Signature": _signed(lambda v, p: _context(v, p, "Signature")),
        "context CounterSignature": _signed(lambda v, p: _context(v, p, "CounterSignature")),
        **{f"signature {what}": _with_signature(value)
           for what, value in {"of zeros": bytes(96), "r = s = 1": (bytes(47) + b"\1") * 2}.items()},
    }),
    Rule(name="form.envelope", family="form", reasons=_MALFORMED, changes={
        "ES256": _signed(lambda v, p: v.sign(p, protected=bytes.fromhex("a10126"))),
        "a critical header": _signed(lambda v, p: v.sign(p, protected=bytes.fromhex("a2013822028101"))),
        "no protected header": _signed(lambda v, p: v.sign(p, protected=b"")),
        "an unprotected header": _signed(lambda v, p: v.sign(p, unprotected={4: b"kid"})),
        "an algorithm in the unprotected header": _signed(lambda v, p: v.sign(p, protected=b"", unprotected={1: -35})),
        "tag 17": _signed(lambda v, p: b"\xd1" + v.sign(p)),
        "the tag twice": _signed(lambda v, p: b"\xd2" + v.sign(p, tag=True)),
        "a detached payload": _signed(lambda v, p: aws.encode([PROTECTED, {}, None, bytes(96)])),
        "a payload that is a list": _signed(lambda v, p: v.sign(aws.encode([1]))),
        "a byte after the payload": _signed(lambda v, p: v.sign(p + b"\0")),
        "a member twice": _signed(lambda v, p: v.sign(bytes([p[0] + 1]) + p[1:] + aws.encode("nonce") + b"\x41x")),
    }),
    Rule(name="form.members", family="form", reasons=(*_MALFORMED, "nitro.registers", "der.encoding"), changes={
        **{f"no {name}": _members(**{name: ...})
           for name in ("module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle")},
        "SHA256": _members(digest="SHA256"),
        "time zero": _members(timestamp=0),
        "empty registers": _members(pcrs={}),
        "register 32": _members(pcrs={32: bytes(48)}),
        "registers of 32 bytes": _members(pcrs=dict.fromkeys(range(16), b"\x01" * 32)),
        "no PCR2": _pcrs(lambda p: {i: v for i, v in p.items() if i != 2}),
        "registers of two devices": lambda made: made.members.update(nitrotpm_pcrs=made.vendor.members()["pcrs"]),
        "an empty bundle": _members(cabundle=[]),
        "a long bundle": _members(cabundle=[b"x"] * 9),
        "an empty certificate": _members(certificate=b""),
        "user data of 513 bytes": _members(user_data=bytes(513)),
        "an unknown member": _members(more=1),
    }),
    Rule(name="debug.enclave", family="debug", reasons=("appraisal.debug",), changes={
        f"PCR {', '.join(map(str, zero))} zero": _zeros(*zero)
        for zero in ((0,), (1,), (2,), (0, 1, 2))
    }),
    Rule(name="policy.pcr", family="policy", layer="appraise", reasons=("appraisal.measurement.*",), changes={
        **{f"another PCR {i}": _other_pcr(i) for i in range(16)},
        "a PCR that the policy does not name": _pcrs(lambda p: p | {16: bytes(48)}),
    }),
    Rule(name="policy.device", family="policy", layer="appraise", reasons=("appraisal.*",), changes={
        "a guest with NitroTPM": lambda made: made.members.update(
            {"pcrs": ..., "nitrotpm_pcrs": made.vendor.members()["pcrs"]}),
        "a nonce that nobody asked for": _members(nonce=b"old"),
        "a public key that nobody asked for": _members(public_key=b"key"),
        "another instance": both(
            _members(module_id="i-1-enc1"), _leaf(f"i-1-enc1.{aws.REGION}.aws")),
        "another region": _leaf(f"{aws.MODULE}.us-east-1.aws"),
        "without revocation lists": put(lists={}),
    }),
    Rule(name="session.relay", family="session", layer="appraise", reasons=("appraisal.report-data",), changes={
        **{what: _members(user_data=value) for what, value in RELAYED.items()},
        "no user data": _members(user_data=None),
        "user data of 300 bytes": _members(user_data=(sha256(HONEST) * 10)[:300]),
        "report data with more after it": _members(user_data=HONEST + b"\0"),
        "report data as nonce only": _members(user_data=bytes(64), nonce=HONEST),
        "report data as public key only": _members(user_data=None, public_key=HONEST),
    }),
)  # fmt: skip


def minted_groups() -> list[Group]:
    """Everything that only AWS's and the enclave's keys can make."""
    found = rule_groups(RULES, twin, "")
    names: Sequence[Any] = ("sgx", "tdx", "snp", "azure-snp", "azure-tdx")
    called = [(f"presented as {name}", partial(_called, name)) for name in names]
    return [*found, *several("binding.kind", "binding", "verify", called)]


def _called(name: Any) -> Trial:
    return twin(lambda _: None).called(name, name)
