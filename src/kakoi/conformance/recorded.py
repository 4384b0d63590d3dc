"""Recorded evidence of real machines as vectors: a folder with ``vectors.json`` (docs/conformance.md).

Good ones become bases of twins; what its source documents as bad is tried as it is.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from kakoi.attest import jose
from kakoi.attest.policy import Setting
from kakoi.attest.report import Collateral, Evidence, Part, PlatformKind
from kakoi.conformance.base import Base, anchor, base, key_anchor, parts, plain_trial, wanted
from kakoi.conformance.corpus import Family, Group, Layer, Vector, one, several
from kakoi.conformance.devices import log_trial, nvidia_trial
from kakoi.conformance.trial import Anchor, Kind, Trial
from kakoi.core.errors import Misuse
from kakoi.core.x509_fields import pem_bodies
from kakoi.sdk.evidence_files import read_collateral
from kakoi.testing import recorded as files
from kakoi.testing.recorded import Recorded

_DAY: Final = 86400
_LIMIT: Final = 16 * 1024
_NVIDIA_AT: Final = 1_760_000_000
_PRODUCTS: Final = {"milan": "Milan", "genoa": "Genoa", "turin": "Turin"}
_AZURE_SNP_AT: Final = 1_760_000_000
"""When to judge recorded Azure guests on SNP: their sources name no time, and their certificates live for years."""
_MAA_EAST_US_2: Final[dict[str, Any]] = {
    # Public key of Azure Attestation in East US 2, as its service published it in 2025.
    "kty": "RSA",
    "kid": "J0pAPdfXXHqWWimgrH853wMIdh5/fLe1z6uSXYPXCa0=",
    "e": "AQAB",
    "n": "2NBrEQdwXUzVy2p-SZ7sBjxbVd4iTGNEQJu_Ot_C0NCzXIDT6DMEAeVZLSoWWcW6oXQ81h-yQWtw-jFW_SPgG4FGSL1UnVO8Zak80thovQk0"
    "dbZDo-9lsoOnOfXfPUL0T9AgHtqJpUr3tCfyRRLdC0MgF1tAyjZbMj8bHe2ZmJ9GLTJT5v9E0i5l3S4WZY52vMzZaVpfxw-0_s5tRzcoPGqIrMOn"
    "X_7kv5j7sisqZKNq6fP-4MHvLb_tXyHCkW6FzX8mUlwyRNzBP3R4xaXBvykzJMaAiCW_Yr_TxycdnmwsTR7he1Q78q12KnYqLvUVjg_v39_RWGSb"
    "FnaP1YX5Hw",
}


@dataclass(kw_only=True)
class Shelf:
    """What a folder holds."""

    good: list[Base] = field(default_factory=list)
    bad: list[Vector] = field(default_factory=list)
    devices: dict[str, Trial] = field(default_factory=dict)
    """Reports of NVIDIA devices."""
    logs: dict[str, Trial] = field(default_factory=dict)
    """Event logs with the quotes that they explain."""


def _name(vector: Recorded) -> str:
    return f"{Path(vector.fields['evidence']).name}@{vector.fields.get('at', 'other')}"


def _dcap_trial(vector: Recorded, kind: Kind) -> Trial:
    statement = vector.read("evidence")
    return _dcap(kind, statement, vector.folder, vector.fields["collateral"], vector.at)


def _dcap(kind: Kind, statement: bytes, folder: Path, collateral: str, at: int) -> Trial:
    given = read_collateral([(folder / collateral).read_bytes()], "sgx")
    evidence = Evidence(platform=cast(PlatformKind, kind), statement=statement, parts=())
    return plain_trial(kind, evidence, given, [_intel(given)], at)


def _intel(collateral: Collateral) -> Anchor:
    chain = next(part.data for part in collateral.parts if part.name == "pck_crl_issuer_chain")
    return anchor(pem_bodies(chain, 2, _LIMIT)[-1])


def _snp_trial(vector: Recorded) -> Trial:
    evidence, collateral = files.snp(vector)
    product = _PRODUCTS[vector.expect["product"]]
    return plain_trial("snp", evidence, collateral, [_amd(collateral, product)], vector.at)


def _amd(collateral: Collateral, product: str) -> Anchor:
    return anchor(next(part.data for part in collateral.parts if part.name == "root"), product)


def _azure_trial(vector: Recorded) -> Trial:
    evidence, chip = files.azure(vector)
    if vector.fields["hw"] == "tdx":
        path = vector.fields["dcap_vectors"][0]
        issued = datetime.strptime(path.split(".")[-3], "%Y-%m-%d").replace(tzinfo=UTC)
        given = read_collateral([(vector.folder / path).read_bytes()], "azure-tdx")
        return plain_trial("azure-tdx", evidence, given, [_intel(given)], int(issued.timestamp()) + 2 * _DAY)
    product = "Genoa" if "genoa" in vector.name else "Milan"
    roots = (vector.folder / f"snp/roots_ask_ark_{product.lower()}.pem").read_bytes()
    intermediate, root = files.certificates(roots)
    collateral = Collateral(parts=parts({**chip, "intermediate": intermediate, "root": root}))
    return plain_trial("azure-snp", evidence, collateral, [_amd(collateral, product)], _AZURE_SNP_AT)


def _nitro_trial(vector: Recorded) -> Trial:
    data = vector.read("evidence")
    statement = base64.b64decode(data) if vector.fields["evidence"].endswith(".b64") else data
    evidence = Evidence(platform="nitro", statement=statement, parts=())
    root = anchor(files.certificates(vector.read("root"))[0])
    return plain_trial("nitro", evidence, Collateral(parts=()), [root], vector.at)


def _token_trial(vector: Recorded) -> Trial:
    token, name = vector.read("evidence").strip(), Path(vector.fields["evidence"]).name
    keys: bytes | None = None
    if name.startswith("google"):
        kind, platform = "google-confidential-space", "tdx"
        root = anchor(files.certificates(vector.read("keys"))[0])
    elif name.startswith("ita"):
        kind, platform, keys = "intel-trust-authority", "sgx", vector.read("keys")
        known = json.loads((vector.folder / "tokens/ita_validJwks.json").read_bytes())["keys"][0]["x5c"][-1]
        root = anchor(base64.b64decode(known))
    else:
        kind, platform = "azure-maa", "azure-snp"
        keys = json.dumps({"keys": [_MAA_EAST_US_2]}).encode()
        root = key_anchor(jose.public_key(_MAA_EAST_US_2).spki_sha256)
    evidence = Evidence(platform=cast(PlatformKind, platform), statement=token, parts=())
    given = () if keys is None else (Part(name="jwks", data=keys),)
    return plain_trial(cast(Kind, kind), evidence, Collateral(parts=given), [root], vector.at)


_TRIALS: Final[dict[str, Callable[[Recorded], Trial]]] = {
    "sgx": lambda vector: _dcap_trial(vector, "sgx"),
    "tdx": lambda vector: _dcap_trial(vector, "tdx"),
    "snp": _snp_trial,
    "azure": _azure_trial,
    "nitro": _nitro_trial,
    "token": _token_trial,
}


def _documented(vector: Recorded) -> tuple[Family, Layer] | None:
    """The family of refusal that the vector's source documents; None for a good one."""
    expect = vector.expect
    if vector.kind in ("sgx", "tdx"):
        if expect["errors"]:
            return "tcb", "verify"
        return ("debug", "verify") if "DEBUG" in expect["attributes"] else None
    verdict = str(expect.get("verdict", "accept"))
    if verdict.startswith("reject: debug"):
        return "debug", "verify"
    if verdict.startswith("reject:"):
        return "chain", "verify"
    return None


def load(folder: Path) -> Shelf:
    """Everything in ``folder``. Raises Misuse if there is no ``vectors.json``."""
    if not (folder / "vectors.json").is_file():
        raise Misuse(
            "conformance.vectors",
            f"expected a folder with vectors.json, found none in {folder}",
            hint="docs/conformance.md says what such a folder holds",
        )
    shelf = Shelf()
    for vector in files.load(folder, *_TRIALS, "eventlog", "nvidia"):
        if vector.kind not in _TRIALS or (vector.kind == "azure" and "hw" not in vector.fields):
            continue  # below, when the good ones are there
        trial, documented = _TRIALS[vector.kind](vector), _documented(vector)
        if documented is None:
            shelf.good.append(base(_name(vector), trial))
        else:
            shelf.bad.append(_bad(_name(vector), trial, *documented))
    for vector in files.load(folder, "nvidia"):
        _device(shelf, vector)
    for vector in files.load(folder, "eventlog"):
        _log(shelf, vector)
    for vector in files.load(folder, "azure"):
        if "hw" not in vector.fields:
            shelf.bad.append(_foreign_quote(vector, [b for b in shelf.good if b.kind.startswith("azure-s")]))
    for vector in files.load(folder, "negative"):
        shelf.bad.append(_negative(vector, [b for b in shelf.good if b.kind in ("sgx", "tdx")]))
    return shelf


def _device(shelf: Shelf, vector: Recorded) -> None:
    """NVIDIA's files are hex of a report, and its certificates in PEM; they were recorded within all windows of 2025."""
    chain = files.certificates(vector.read("certs"))
    trial = nvidia_trial(bytes.fromhex(vector.read("evidence").decode()), chain, _NVIDIA_AT)
    if str(vector.expect["verdict"]).startswith("accept"):
        shelf.devices[_name(vector)] = trial
    else:
        group = one("recorded.bad", "signature", "verify", lambda: trial, "nothing: recorded like this")
        shelf.bad.append(Vector(name=_name(vector), kind="nvidia", recorded=True, groups=[group]))


def _log(shelf: Shelf, vector: Recorded) -> None:
    """A log beside the quote that the folder has endorsements for."""
    quote = next(v for v in files.load(vector.folder, "tdx") if v.fields["evidence"] == vector.fields["quote"])
    trial = log_trial(_dcap_trial(quote, "tdx"), vector.read("evidence"))
    if str(vector.expect["verdict"]).startswith("replays"):
        shelf.logs[_name(vector)] = trial
    else:
        group = one("recorded.bad", "binding", "verify", lambda: trial, "nothing: recorded like this")
        shelf.bad.append(Vector(name=_name(vector), kind="ccel", recorded=True, groups=[group]))


def _foreign_quote(vector: Recorded, good: Sequence[Base]) -> Vector:
    """A quote of a TPM that no guest's report names, over another selection of registers, in the place of each guest's own."""
    quote = json.loads(vector.read("evidence"))["tpm_quote"]
    signature = files.octets(quote["signature"])
    pieces = {
        "tpm-quote": files.octets(quote["message"]),
        "tpm-signature": struct.pack(">HHH", 0x0014, 0x000B, len(signature)) + signature,
        "pcrs": b"".join(files.octets(value) for value in quote["pcrs"]),
    }
    named = [(f"in the place of {b.name}'s", partial(b.trial.with_parts, pieces)) for b in good]
    groups = several("recorded.negative", "binding", "verify", named)
    return Vector(name=_name(vector), kind="azure-snp", recorded=True, groups=groups)


def _bad(name: str, trial: Trial, family: Family, layer: Layer) -> Vector:
    """A vector that has to be refused as it is. Debug needs a policy of its own evidence to be refused for that alone."""
    judged = wanted(name, trial).trial if family == "debug" else trial
    reasons = ("appraisal.debug",) if family == "debug" else ()
    group = one("recorded.bad", family, layer, lambda: judged, "nothing: recorded like this", reasons)
    return Vector(name=name, kind=trial.format, recorded=True, groups=[group])


def _negative(vector: Recorded, good: Sequence[Base]) -> Vector:
    """Recorded bytes that must not pass, whatever good collateral comes with them."""
    data, name = vector.read("evidence"), Path(vector.fields["evidence"]).name
    if name.endswith(".pem"):
        named = [
            (f"as {part} of {b.name}", partial(b.trial.with_collateral, {part: data}))
            for b in good
            for part in ("tcb_info_issuer_chain", "qe_identity_issuer_chain")
        ]
        return Vector(
            name=name, kind="tdx", recorded=True, groups=several("recorded.negative", "chain", "verify", named)
        )
    kind: Kind = "tdx" if vector.fields["evidence"].startswith("tdx/") else "sgx"
    made = [(f"with the collateral of {b.name}", partial(b.trial.with_statement, data)) for b in good if b.kind == kind]
    return Vector(name=name, kind=kind, recorded=True, groups=several("recorded.negative", "chain", "verify", made))


def vmpl_group(base: Base) -> list[Group]:
    """A policy for another VMPL than the report's (Azure's paravisor, SVSM and plain guests differ in it)."""
    if base.kind != "snp" or not base.appraised:
        return []
    entry = base.trial.entry
    mine = next(s for s in entry.settings if s.name == "vmpl").accepted
    rest = tuple(s for s in entry.settings if s.name != "vmpl")
    named = [
        (f"wanted: VMPL {level}",
         partial(base.trial.with_entry, replace(entry, settings=(*rest, Setting(name="vmpl", accepted=(level,))))))
        for level in ("0", "1", "2", "3", "host")
        if mine != (level,)
    ]  # fmt: skip
    return several("policy.vmpl", "policy", "appraise", named, ("appraisal.setting.vmpl",))
