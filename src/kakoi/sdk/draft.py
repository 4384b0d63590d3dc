"""From files that people write (TOML) to analyses and contracts that parties sign.

docs/formats/drafts.md describes both files. Everything has a stated value: what is left out is refused, except
the disclosure rules, whose defaults are DataSHIELD's.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

from kakoi.attest.policy import PRODUCT, AttestationPolicy, PlatformPolicy, Setting
from kakoi.contract.code import CodeManifest
from kakoi.contract.model import (
    Analysis,
    Contract,
    ContractAnalysis,
    ContractCode,
    ContractData,
    ContractParty,
    DatasetManifest,
    Limits,
    LogKey,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.core import encoding
from kakoi.core.errors import Malformed, Misuse
from kakoi.core.ids import PartyId, parse_id
from kakoi.core.records import Record, from_value, to_value

DATASHIELD_RULES: Final = DisclosureRules(
    minimum_cell=3,
    minimum_contributors=3,
    parameters_per_person="0.33",
    max_digits=6,
    max_output_bytes=1_000_000,
    dominance_contributors=2,
    dominance_percent=85,
    p_percent=10,
    rounding_base=1,
    cohort_difference=3,
    python_settings=1,
    budget_runs=1000,
    budget_kilobytes=100_000,
    epsilon_per_run="none",
    epsilon_budget="none",
    rows_per_person=1,
)
"""nfilter.tab 3, nfilter.subset 3 (also between the cohorts of two runs) and nfilter.glm 0.33; the others are Kakoi's own.
Dominance is as statistical offices have it (Hundepool et al., Statistical Disclosure Control, 2012, 4.2): n = 2, k = 85, p = 10."""
GRACE_DAYS: Final = 14
"""Days of grace unless the parties agree otherwise (ADR 0153)."""
_DAY: Final = 86400
_HEX: Final = re.compile(r"[0-9A-Fa-f]+")
_LIMITS: Final[Mapping[str, int]] = {"grain_milliseconds": 1000}
"""Limits that a draft may leave out: the stricter value costs half a second of each run."""
R = TypeVar("R", bound=Record)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file of at most 256 KiB. Raises Misuse or Malformed with the line of the error."""
    try:
        data = path.read_bytes()
    except OSError:
        raise Misuse("file.missing", f"expected the file {path}, found none", hint="check the path") from None
    if len(data) > 256 * 1024:
        raise Malformed("draft.size", f"expected at most 256 KiB in {path.name}", hint="is this the right file?")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Malformed(
            "draft.toml", f"{path.name}: expected TOML, got an error: {error}", hint="correct that line"
        ) from None


def analysis_from_file(path: Path, author: PartyId) -> Analysis:
    """An analysis from its TOML description; the source lies in the file it names, beside it, or is sealed code's id."""
    value = read_toml(path)
    source, sealed = value.pop("source", None), value.pop("sealed_code", None)
    if isinstance(source, str) == isinstance(sealed, str):
        raise Malformed(
            "draft.source",
            f'{path.name}: expected either source = "file name" or sealed_code = "id of a code manifest"',
        )
    text = _source(path, source) if isinstance(source, str) else ""
    value = _parameters_with_defaults(value)
    code = {"source": text, "sealed_code": sealed}
    return _record(Analysis, {"kind": Analysis.KIND, **value, "author": author, **code}, path.name)


def _source(path: Path, source: str) -> str:
    try:
        return (path.parent / source).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise Misuse("file.missing", f"expected the source file {source} beside {path.name}, in UTF-8") from None


def _parameters_with_defaults(value: dict[str, Any]) -> dict[str, Any]:
    empty: dict[str, Any] = {"minimum": None, "maximum": None, "choices": []}
    value["parameters"] = _each_with(empty, value.get("parameters", []))
    value["outputs"] = _each_with({"parameters": 0}, value.get("outputs", []))
    return value


def _each_with(defaults: dict[str, Any], entries: Any) -> Any:
    """Tables of a list with defaults below them. Whatever else stands there is left for the strict decoder to refuse."""
    if not isinstance(entries, list):
        return entries
    return [{**defaults, **entry} if isinstance(entry, dict) else entry for entry in entries]


def contract_from_file(
    path: Path,
    *,
    drafter: PartyId,
    manifests: Mapping[str, DatasetManifest],
    code: Mapping[str, CodeManifest],
    platforms: AttestationPolicy,
    log: LogKey,
    now: int,
) -> Contract:
    """A contract from its TOML draft. ``manifests`` and ``code`` hold the data sets and the sealed code that it names, by id.

    Raises Malformed, naming the member, for anything missing, unknown or out of range.
    """
    value = read_toml(path)
    days = value.pop("days", None)
    if type(days) is not int or days < 1:
        raise Malformed("draft.days", f"{path.name}: expected days as a whole number from 1, got another value or none")
    try:
        parties = [ContractParty(party=_party(p["id"]), roles=tuple(p["roles"])) for p in value.pop("party")]
        data = [_data(entry, manifests) for entry in value.pop("data")]
        analyses = [ContractAnalysis(analysis=parse_id(a["id"]), max_runs=a["max_runs"]) for a in value.pop("analysis")]
        contract = Contract(
            title=value.pop("title"),
            purpose=value.pop("purpose"),
            version=value.pop("version", 1),
            supersedes=value.pop("supersedes", None),
            drafter=drafter,
            parties=tuple(parties),
            data=tuple(data),
            analyses=tuple(analyses),
            code=tuple(_code(entry, code) for entry in value.pop("code", [])),
            recipients=tuple(_party(r) for r in value.pop("recipients")),
            platforms=platforms,
            accepted_weaknesses=tuple(value.pop("accepted_weaknesses", ())),
            limits=_record(Limits, {**_LIMITS, **value.pop("limits")}, f"{path.name}: limits"),
            grace_days=value.pop("grace_days", GRACE_DAYS),
            log=log,
            not_before=now - 60,
            expires=now + _DAY * days,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(
            "draft.member",
            f"{path.name}: expected every member of a contract draft, got an error at {error}",
            hint="docs/formats/drafts.md lists them",
        ) from None
    if value:
        raise Malformed(
            "draft.unknown", f"{path.name}: a member that a draft does not have: {', '.join(sorted(value))}"
        )
    return contract


def policy_from_file(path: Path) -> AttestationPolicy:
    """Accepted platforms from JSON, as ``kakoi enclave policy`` writes it and people edit it. Raises Malformed."""
    return from_value(AttestationPolicy, encoding.loads(encoding.dumps(policy_value(path))), path.name)


def pinned(policy: AttestationPolicy, products: Sequence[str], machines: Sequence[str]) -> AttestationPolicy:
    """The policy, narrowed to these products and machines: ``KIND=VALUE`` entries, as people type them.

    A product is a FMSPC (12 hex digits) or one of AMD's lines (``Genoa``), a machine a PPID or chip id in hex. An earlier list of
    machines is replaced; a kind without an entry stays as it is. Raises Misuse ``draft.pin``; Malformed for values of another form.
    """
    by_product, by_machine = _pins(policy, products), _pins(policy, machines)
    entries = [
        _narrowed(entry, by_product.get(entry.platform), by_machine.get(entry.platform)) for entry in policy.accepted
    ]
    return replace(policy, accepted=tuple(entries))


def _pins(policy: AttestationPolicy, entries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    kinds = [entry.platform for entry in policy.accepted]
    for text in entries:
        kind, given, value = text.partition("=")
        if kind not in kinds or not given or not value:
            raise Misuse(
                "draft.pin",
                f"expected KIND=VALUE with a kind that the policy accepts ({', '.join(kinds)}), got another",
                hint="for instance --only-product sgx=00906ed50000; kakoi attest verify shows product and platform-identity",
            )
        value = value.lower() if _HEX.fullmatch(value) else value
        found[kind] = tuple(dict.fromkeys((*found.get(kind, ()), value)))
    return found


def _narrowed(
    entry: PlatformPolicy, products: tuple[str, ...] | None, machines: tuple[str, ...] | None
) -> PlatformPolicy:
    if products is not None:
        others = tuple(setting for setting in entry.settings if setting.name != PRODUCT)
        entry = replace(entry, settings=(*others, Setting(name=PRODUCT, accepted=products)))
    return entry if machines is None else replace(entry, platforms=machines)


def policy_value(path: Path) -> Any:
    """The JSON of a policy file, not yet judged. Raises Misuse ``file.missing``."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        raise Misuse("file.missing", f"expected a platform policy in JSON in {path}, found none") from None


def merged_rules(overrides: Mapping[str, Any]) -> DisclosureRules:
    """DataSHIELD's defaults with an owner's own values in place."""
    return _record(DisclosureRules, {**to_value(DATASHIELD_RULES), **overrides}, "rules")


def _data(entry: Mapping[str, Any], manifests: Mapping[str, DatasetManifest]) -> ContractData:
    identity = parse_id(entry["manifest"])
    if identity not in manifests:
        raise Misuse(
            "draft.manifest", "expected a data set that the hub has, got an unknown id", hint="kakoi dataset upload"
        )
    return ContractData(
        manifest=identity, owner=PartyId(manifests[identity].owner), rules=merged_rules(entry.get("rules", {}))
    )


def _code(entry: Mapping[str, Any], code: Mapping[str, CodeManifest]) -> ContractCode:
    identity = parse_id(entry["manifest"])
    if identity not in code:
        raise Misuse("draft.code", "expected sealed code that the hub has, got an unknown id", hint="kakoi code upload")
    reviewers = tuple(_party(reviewer) for reviewer in entry.get("reviewers", []))
    return ContractCode(manifest=identity, owner=PartyId(code[identity].owner), reviewers=reviewers)


def _party(text: str) -> PartyId:
    return PartyId(parse_id(text))


def _record(cls: type[R], value: Mapping[str, Any], where: str) -> R:
    # The same strict decoder that reads signed objects reads drafts, so a draft cannot say what an object cannot.
    return from_value(cls, encoding.loads(encoding.dumps(dict(value))), where)
