"""Twins of attestation services' tokens, recorded and minted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast

from kakoi.attest import jose
from kakoi.attest.report import Collateral, Evidence, PlatformKind
from kakoi.attest.tokens.verify import Service
from kakoi.conformance import spoil
from kakoi.conformance.base import Base, anchor, base, key_anchor, parts, plain_trial
from kakoi.conformance.corpus import Group, several
from kakoi.conformance.layouts import token_spans
from kakoi.conformance.rules import Rule, put, rule_groups
from kakoi.conformance.sessions import HONEST, RELAYED
from kakoi.conformance.spoil import Blob
from kakoi.conformance.trial import Anchor, Kind, Trial
from kakoi.testing import token_vendor as vendor
from kakoi.testing import x509_kit as kit

Named = tuple[str, Callable[[], Trial]]
SERVICES: Final[tuple[Service, ...]] = ("azure-maa", "google-confidential-space", "intel-trust-authority")
_PLATFORM: Final[dict[str, PlatformKind]] = {
    "azure-maa": "azure-snp", "google-confidential-space": "tdx", "intel-trust-authority": "sgx",
}  # fmt: skip
_CLAIMS: Final[dict[Service, Callable[..., dict[str, Any]]]] = {
    "azure-maa": vendor.azure_claims,
    "google-confidential-space": vendor.google_claims,
    "intel-trust-authority": vendor.intel_claims,
}


# --- any token -------------------------------------------------------------------------------------------------------


def byte_groups(base: Base, *, every_bit: bool) -> list[Group]:
    """Everything that can be done to a token and its key set without the service's key."""
    trial = base.trial
    raw = trial.evidence.statement
    blob = Blob(name="token", data=raw, rebuild=trial.with_statement, spans=token_spans(raw))
    found = [*spoil.everything(blob, every_bit=every_bit), *_spelled(trial, raw), *_unsigned(trial, raw)]
    if trial.collateral.parts:
        keys = trial.piece("jwks")
        jwks = Blob(name="jwks", data=keys, rebuild=lambda data: trial.with_collateral({"jwks": data}), text=True)
        found += [*spoil.truncations(jwks), spoil.absent("jwks", partial(trial.with_collateral, {"jwks": None}))]
    unknown = ("a part of an unknown name", partial(trial.with_collateral, {"more": b"x"}))
    return [*found, *several("collateral.unknown-part", "form", "verify", [unknown]), *_times(base)]


def _spelled(trial: Trial, raw: bytes) -> list[Group]:
    """Other texts of the same signed bytes, and bytes around them."""
    header, claims, signature = raw.split(b".")
    decoded = jose.unb64url(signature.decode(), "token")
    options = {
        "padding after the signature": raw + b"=",
        "the signature in standard base64": b".".join([header, claims, base64.b64encode(decoded)]),
        "the signature a byte shorter": b".".join([header, claims, jose.b64url(decoded[:-1]).encode()]),
        "the signature with a zero before it": b".".join([header, claims, jose.b64url(b"\0" + decoded).encode()]),
        "a fourth part": raw + b"." + claims,
        "quotes around it": b'"' + raw + b'"',
        "a word before it": b"Bearer " + raw,
        "a space before it": b" " + raw,
        "a line end after it": raw + b"\n",
        "header and claims exchanged": b".".join([claims, header, signature]),
    }
    named = [(f"token: {what}", partial(trial.with_statement, twin)) for what, twin in options.items() if twin != raw]
    return several("token.spelling", "form", "verify", named)


def _unsigned(trial: Trial, raw: bytes) -> list[Group]:
    """Header or claims changed under the old signature, the oldest attacks on this format (RFC 8725 §2.1)."""
    header_text, claim_text, signature = raw.split(b".")
    header = json.loads(jose.unb64url(header_text.decode(), "token"))
    claims = json.loads(jose.unb64url(claim_text.decode(), "token"))

    def part(value: object) -> bytes:
        return jose.b64url(json.dumps(value, separators=(",", ":")).encode()).encode()

    headers = {f"algorithm {name}": {**header, "alg": name} for name in ("none", "None", "HS256", "RS512", "ES384")}
    headers |= {"a critical member": {**header, "crit": ["exp"]}, "another key id": {**header, "kid": "other"}}
    found = {f"header: {what}": b".".join([part(value), claim_text, signature]) for what, value in headers.items()}
    found["no algorithm, no signature"] = b".".join([part({**header, "alg": "none"}), claim_text, b""])
    found["no signature"] = b".".join([header_text, claim_text, b""])
    others = {"a later expiry": {**claims, "exp": claims["exp"] + 3600}, "another issuer": {**claims, "iss": "x"},
              "spelled anew": claims, "no expiry": {k: v for k, v in claims.items() if k != "exp"}}  # fmt: skip
    found |= {f"claims: {what}": b".".join([header_text, part(value), signature]) for what, value in others.items()}
    named = [(f"token, {what}", partial(trial.with_statement, twin)) for what, twin in found.items() if twin != raw]
    return several("token.unsigned", "signature", "verify", named)


def _times(base: Base) -> list[Group]:
    trial = base.trial
    claims = json.loads(jose.unb64url(trial.evidence.statement.split(b".")[1].decode(), "token"))
    edges = {claims["exp"]: "in the second of its expiry", claims["exp"] + 86400: "a day after its expiry",
             claims["iat"] - 61: "61 seconds before it was issued", 0: "in 1970"}  # fmt: skip
    named = [(f"judged {what}", partial(replace, trial, now=at)) for at, what in sorted(edges.items())]
    return several("time.window", "window", "verify", named, ("token.time", "x509.window"))


# --- minted ----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Shop:
    """A pretended service and one token of it."""

    service: Service
    claims: dict[str, Any]
    header: dict[str, Any] = field(default_factory=dict)
    token: bytes = b""
    keys: bytes | None = None
    anchors: list[Anchor] = field(default_factory=list)

    def made(self) -> vendor.Signed:
        """The service's token and key set."""
        return vendor.make(self.service, self.claims, **self.header)

    def trial(self) -> Trial:
        """A trial of genuineness, as the shop is now."""
        signed = self.made()
        keys = self.keys if self.keys is not None else signed.keys
        collateral = Collateral(parts=parts({} if keys is None else {"jwks": keys}))
        evidence = Evidence(platform=_PLATFORM[self.service], statement=self.token or signed.token, parts=())
        anchors = self.anchors or ([_google()] if self.google else [key_anchor(next(iter(signed.anchors)))])
        return plain_trial(cast(Kind, self.service), evidence, collateral, anchors, kit.NOW)

    @property
    def google(self) -> bool:
        """Whether the key comes with a certificate chain in the token."""
        return self.service == "google-confidential-space"

    @property
    def key(self) -> kit.RsaKey:
        """The service's signing key."""
        return vendor.rsa(self.service == "intel-trust-authority")

    @property
    def other_key(self) -> kit.RsaKey:
        """Somebody else's key of the same kind."""
        return vendor.rsa(self.service == "intel-trust-authority", 1)


Change = Callable[[Shop], None]


def _google() -> Anchor:
    return anchor(vendor.google_chain()[0].der)


def _bound(service: Service, report_data: bytes, **changes: Any) -> dict[str, Any]:
    """Good claims that bind this report data."""
    nonce = base64.b64encode(report_data).decode()
    where: dict[str, Any] = {
        "azure-maa": {"x-ms-runtime": {"client-payload": {"nonce": nonce}, "keys": []}},
        "google-confidential-space": {"eat_nonce": jose.b64url(report_data)},
        "intel-trust-authority": {"sgx_report_data": report_data.hex()},
    }
    return _CLAIMS[service](**{**where[service], **changes})


def shop(service: Service) -> Shop:
    """A good token for the honest session."""
    return Shop(service=service, claims=_bound(service, HONEST))


def good(service: Service) -> Base:
    """A good token."""
    return base(f"minted-{service}", shop(service).trial())


def twin(service: Service, change: Change) -> Trial:
    """What ``change`` makes of a token, with the policy drafted before it."""
    made = shop(service)
    before = base("before", made.trial()).trial
    change(made)
    after = made.trial()
    return replace(after, policy=before.policy, report_data=before.report_data)


def _header(**members: Any) -> Change:
    return lambda made: made.header.update(members)


def _claim(**members: Any) -> Change:
    """Other claims, signed by the service; ``...`` removes one."""

    def change(made: Shop) -> None:
        made.claims = {k: v for k, v in {**made.claims, **members}.items() if v is not ...}

    return change


def _compact(made: Shop, key: kit.RsaKey, **header: Any) -> bytes:
    members = {"alg": "PS384" if key.pss else "RS256", "typ": "JWT", "kid": vendor.KID, **header}
    return vendor.compact(json.dumps(members).encode(), json.dumps(made.claims).encode(), key)


def _stranger(made: Shop) -> None:
    """Signed by somebody else, who sends a key set of the right form along."""
    made.token, made.keys = _compact(made, made.other_key), vendor.key_set(vendor.jwk(made.other_key.public))
    made.anchors = [_google()] if made.google else [key_anchor(made.key.public.spki_sha256)]


def _embedded(made: Shop) -> None:
    """Signed by somebody else, whose key stands in the token itself."""
    made.token = _compact(made, made.other_key, jwk=vendor.jwk(made.other_key.public))


def _embedded_chain(made: Shop) -> None:
    """Signed by somebody else, whose certificate stands in the token itself, under a root of their own."""
    root = kit.root("Pretend Confidential Space Root CA", key=kit.RsaKey(2048, pss=False))
    leaf = root.leaf("Pretend leaf", key=made.other_key.public)
    made.token = _compact(made, made.other_key, x5c=vendor.x5c(leaf, root.der))


def _keys(make: Callable[[Shop], bytes]) -> Change:

    def change(made: Shop) -> None:
        made.keys = make(made)

    return change


def _chain(make: Callable[[Shop, kit.Authority, kit.Authority], list[bytes]]) -> Change:
    """Another certificate chain in the header (Google)."""

    def change(made: Shop) -> None:
        root, intermediate = vendor.google_chain()
        made.header["x5c"] = vendor.x5c(*make(made, root, intermediate))

    return change


def _nested(claims: dict[str, Any], *path: str, value: Any) -> dict[str, Any]:
    """Claims with one nested member changed; ``...`` removes it."""
    head, rest = path[0], path[1:]
    inner = _nested(claims[head], *rest, value=value) if rest else value
    return {k: v for k, v in {**claims, head: inner}.items() if v is not ...}


def _deep(*path: str, value: Any) -> Change:

    def change(made: Shop) -> None:
        made.claims = _nested(made.claims, *path, value=value)

    return change


_TEE: Final = "x-ms-isolation-tee"
_NOW: Final = kit.NOW

RULES: Final[tuple[Rule[Shop], ...]] = (
    Rule(name="form.header", family="form", reasons=("evidence.malformed", "token.*"), changes={
        **{f"algorithm {name}": _header(alg=name) for name in ("none", "HS256", "RS512", "EdDSA", "ES384")},
        "a critical member": _header(crit=["exp"]),
        "an embedded key": _header(jwk={}),
        "a certificate address": _header(x5u="https://example.org"),
        "another type": _header(typ="JOSE"),
        "a key id that is a number": _header(kid=1),
        "an empty chain": _header(x5c=[]),
        "a chain in base64url": _header(x5c=["_w"]),
    }),
    Rule(name="signature.key", family="signature", reasons=("token.*", "x509.*", "evidence.malformed"), changes={
        "signed by somebody else, with their key set": _stranger,
        "signed by somebody else, with their key in the token": _embedded,
        "signed by somebody else, with their certificates in the token": _embedded_chain,
    }),
    Rule(name="chain.keys", family="chain", reasons=("token.*", "evidence.malformed", "x509.*"),
         only=("azure-maa", "intel-trust-authority"), changes={
        "another key": _keys(lambda m: vendor.key_set(vendor.jwk(m.other_key.public))),
        "another key id": _keys(lambda m: vendor.key_set(vendor.jwk(m.key.public, kid="key-2"))),
        "the key id twice": _keys(lambda m: vendor.key_set(vendor.jwk(m.key.public), vendor.jwk(m.other_key.public))),
        "a key for encryption": _keys(lambda m: vendor.key_set(vendor.jwk(m.key.public, use="enc"))),
        "a key for another algorithm": _keys(lambda m: vendor.key_set(vendor.jwk(m.key.public, alg="PS256"))),
        "a private key": _keys(lambda m: vendor.key_set(vendor.jwk(m.key.public, d="AQ"))),
        "a symmetric key": _keys(lambda m: vendor.key_set({"kty": "oct", "kid": vendor.KID, "k": "AQ"})),
        "no keys": _keys(lambda m: b'{"keys":[]}'),
        "keys twice": _keys(lambda m: b'{"keys":[1],"keys":[2]}'),
    }),
    Rule(name="chain.certificates", family="chain", reasons=("x509.*", "token.*"),
         only=("google-confidential-space",), changes={
        "leaf expired": _chain(lambda m, r, i: [
            i.leaf("l", key=m.key.public, validity=(kit.EPOCH, _NOW - 1)), *i.chain]),
        "leaf not yet valid": _chain(lambda m, r, i: [
            i.leaf("l", key=m.key.public, validity=(_NOW + 1, _NOW + 9)), *i.chain]),
        "without the intermediate": _chain(lambda m, r, i: [i.leaf("l", key=m.key.public), r.der]),
        "backwards": _chain(lambda m, r, i: [r.der, i.der, i.leaf("l", key=m.key.public)]),
        "the leaf only": _chain(lambda m, r, i: [i.leaf("l", key=m.key.public)]),
        "leaf of another key": _chain(lambda m, r, i: [i.leaf("l", key=m.other_key.public), *i.chain]),
        "leaf below a leaf": _chain(lambda m, r, i: [
            i.leaf("l", key=m.key.public), i.leaf("m", key=m.other_key.public), *i.chain]),
    }),
    Rule(name="window.time", family="window", reasons=("token.time", "evidence.malformed"), changes={
        "expired": _claim(iat=_NOW - 7200, nbf=_NOW - 7200, exp=_NOW - 1),
        "expires now": _claim(exp=_NOW),
        "expired a month ago": _claim(iat=_NOW - 31 * 86400, nbf=_NOW - 31 * 86400, exp=_NOW - 30 * 86400),
        "not before later": _claim(nbf=_NOW + 61),
        "issued in the future": _claim(iat=_NOW + 61, nbf=_NOW + 61, exp=_NOW + 3600),
        "lives for a year": _claim(exp=_NOW + 365 * 86400),
        "expires before it was issued": _claim(iat=_NOW - 10, exp=_NOW - 20),
        "no expiry": _claim(exp=...),
        "no issue time": _claim(iat=...),
        "expiry as text": _claim(exp=str(_NOW + 3600)),
        "expiry as a fraction": _claim(exp=_NOW + 3600.5),
    }),
    Rule(name="binding.issuer", family="binding", reasons=("token.issuer", "evidence.malformed"), changes={
        "another issuer": _claim(iss="https://example.org"),
        "no issuer": _claim(iss=...),
        "an issuer as list": _claim(iss=["https://confidentialcomputing.googleapis.com"]),
        "an issuer that only begins alike": _claim(
            iss="https://confidentialcomputing.googleapis.com.example.org"),
        "an issuer that only ends alike": _claim(iss="https://example.org/x.attest.azure.net"),
    }),
    Rule(name="debug.azure", family="debug", reasons=("appraisal.debug", "evidence.malformed"), only=("azure-maa",), changes={
        "is-debuggable": _deep(_TEE, "x-ms-sevsnpvm-is-debuggable", value=True),
        "is-debuggable left out": _deep(_TEE, "x-ms-sevsnpvm-is-debuggable", value=...),
        "is-debuggable as text": _deep(_TEE, "x-ms-sevsnpvm-is-debuggable", value="false"),
    }),
    Rule(name="debug.google", family="debug", reasons=("appraisal.debug", "evidence.malformed"),
         only=("google-confidential-space",), changes={
        "dbgstat enabled": _claim(dbgstat="enabled"),
        "dbgstat disabled only later": _claim(dbgstat="disabled-since-boot-"),
        "dbgstat left out": _claim(dbgstat=...),
    }),
    Rule(name="debug.intel", family="debug", reasons=("appraisal.debug", "evidence.malformed"),
         only=("intel-trust-authority",), changes={
        "is_debuggable": _claim(sgx_is_debuggable=True),
        "is_debuggable left out": _claim(sgx_is_debuggable=...),
        "dbgstat enabled": _claim(dbgstat="enabled"),
    }),
    Rule(name="policy.azure", family="policy", layer="appraise", reasons=("appraisal.*", "evidence.malformed"),
         only=("azure-maa",), changes={
        "another measurement": _deep(_TEE, "x-ms-sevsnpvm-launchmeasurement", value="12" * 48),
        "older microcode": _deep(_TEE, "x-ms-sevsnpvm-microcode-svn", value=218),
        "not compliant": _deep(_TEE, "x-ms-compliance-status", value="azure-uncompliant"),
        "VMPL 2": _deep(_TEE, "x-ms-sevsnpvm-vmpl", value=2),
        "migration allowed": _deep(_TEE, "x-ms-sevsnpvm-migration-allowed", value=True),
        "secure boot off": _claim(secureboot=False),
        "boot debugging": _claim(**{"x-ms-azurevm-bootdebug-enabled": True}),
        "a claim that the policy does not name": _claim(**{"x-ms-azurevm-new": True}),
        "another policy of the service": _claim(**{"x-ms-policy-hash": "abd"}),
    }),
    Rule(name="policy.google", family="policy", layer="appraise", reasons=("appraisal.*", "evidence.malformed"),
         only=("google-confidential-space",), changes={
        "another image": _deep("submods", "container", "image_digest", value="sha256:" + "56" * 32),
        "another audience": _claim(aud="somebody"),
        "hardware without integrity": _claim(hwmodel="GCP_AMD_SEV", tdx=...),
        "an older status": _deep("tdx", "gcp_attester_tcb_status", value="OutOfDate"),
        "secure boot off": _claim(secboot=False),
        "other arguments": _deep("submods", "container", "args", value=["/run", "--debug"]),
        "another environment": _deep("submods", "container", "env", value={"A": "2"}),
        "memory is monitored": _deep("submods", "confidential_space", "monitoring_enabled", value={"memory": True}),
        "no longer supported": _deep("submods", "confidential_space", "support_attributes", value=[]),
    }),
    Rule(name="policy.intel", family="policy", layer="appraise", reasons=("appraisal.*", "evidence.malformed"),
         only=("intel-trust-authority",), changes={
        "another enclave": _claim(sgx_mrenclave="67" * 32),
        "another signer": _claim(sgx_mrsigner="78" * 32),
        "a lower SVN": _claim(sgx_isvsvn=1),
        "OutOfDate": _claim(attester_tcb_status="OutOfDate"),
        "an advisory": _claim(attester_advisory_ids=["INTEL-SA-00001"]),
        "Revoked": _claim(attester_tcb_status="Revoked"),
        "an unmatched policy": _claim(policy_ids_unmatched=[{"id": "x"}]),
        "no status": _claim(attester_tcb_status=...),
    }),
)  # fmt: skip


def _relays(service: Service) -> list[Named]:
    named: list[Named] = [
        (what, partial(twin, service, put(claims=_bound(service, value)))) for what, value in RELAYED.items()
    ]
    if service == "google-confidential-space":
        nonce, other_nonce = jose.b64url(HONEST), jose.b64url(bytes(64))
        named += [
            ("the nonce among several", partial(twin, service, _claim(eat_nonce=[other_nonce, nonce]))),
            ("the nonce in hex", partial(twin, service, _claim(eat_nonce=HONEST.hex()))),
            ("no nonce", partial(twin, service, _claim(eat_nonce=...))),
        ]
    return named


def minted_groups(service: Service) -> list[Group]:
    """Everything that only the service's key can make."""
    found = rule_groups(RULES, partial(twin, service), service)
    found += several("session.relay", "session", "appraise", _relays(service), ("appraisal.report-data",))
    others = [
        (f"presented as a token of {name}", partial(_called, service, name)) for name in SERVICES if name != service
    ]
    return [*found, *several("binding.service", "binding", "verify", others)]


def _called(service: Service, name: Service) -> Trial:
    return replace(twin(service, lambda _: None), format=cast(Kind, name))
