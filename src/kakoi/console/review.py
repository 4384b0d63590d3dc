"""A contract as people read it: sentences, what changed since the version before, and warnings for weak choices. Pure.

Sentences are keys of the console's catalogue with parameters, so that both languages say the same. Every parameter comes from the signed
object itself; nothing of the hub's is in between.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, Unchecked
from kakoi.console.library import Whole
from kakoi.contract.model import Analysis, Contract, Parameter
from kakoi.contract.rules import DisclosureRules, bounded
from kakoi.sdk.verify import Said
from kakoi.wire.preview import AnalysisPreview, Rehearsal

_LEAST_PEOPLE: Final = 3
_MOST_DIGITS: Final = 6
_MOST_SHARE: Final = Decimal("0.33")
_MOST_EPSILON: Final = 3
_MOST_RUNS: Final = 1000
_LONG_SECONDS: Final = 366 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference to the version before; ``diff`` has the changed lines of a source."""

    said: Said
    diff: tuple[tuple[str, str], ...] = ()
    """Pairs of a sign (``+``, ``-`` or blank) and a line."""


def warnings(whole: Whole) -> tuple[Said, ...]:
    """Choices that protect less than they could. The parties may make them; nobody should overlook them."""
    return tuple(_warnings(whole))


def _warnings(whole: Whole) -> Iterator[Said]:
    contract = whole.contract
    if any(policy.platform == "software" for policy in contract.platforms.accepted):
        yield Said(key="warning.software")
    for layer in contract.accepted_weaknesses:
        yield Said(key="warning.layer", parameters={"layer": layer})
    for entry in contract.data:
        yield from _rule_warnings(whole.name(entry.owner), entry.rules)
    for analysis in contract.analyses:
        yield from _analysis_warnings(whole, whole.analyses[analysis.analysis].record, analysis.max_runs)
    yield from _people_warnings(whole)
    yield from _attestation_warnings(contract.platforms)
    if contract.expires - contract.not_before > _LONG_SECONDS:
        yield Said(key="warning.long", parameters={"days": (contract.expires - contract.not_before) // 86400})


def _attestation_warnings(policy: AttestationPolicy) -> Iterator[Said]:
    for entry in policy.accepted:
        if entry.platform != "software":
            yield from _platform_warnings(entry)
    for token in policy.tokens:
        yield Said(key="warning.token", parameters={"platform": token.accompanies, "service": token.service})
        yield from _platform_warnings(token.claims)


def _analysis_warnings(whole: Whole, analysis: Analysis, runs: int) -> Iterator[Said]:
    if runs > _MOST_RUNS:
        yield Said(key="warning.runs", parameters={"title": analysis.title, "runs": runs})
    if analysis.sealed_code is not None:
        yield from _sealed_warnings(whole, analysis.title, analysis.sealed_code)
    elif analysis.engine == "python":
        yield Said(key="warning.python", parameters={"title": analysis.title})


def _sealed_warnings(whole: Whole, title: str, code: str) -> Iterator[Said]:
    owner = whole.name(whole.code[code].record.owner)
    yield Said(key="warning.sealed", parameters={"title": title, "owner": owner})
    if not any(entry.reviewers for entry in whole.contract.code if entry.manifest == code):
        yield Said(key="warning.sealed-unread", parameters={"title": title, "owner": owner})


def _platform_warnings(policy: PlatformPolicy) -> Iterator[Said]:
    kind = policy.platform
    unchecked: list[tuple[str, object]] = [
        ("minimum TCB", policy.minimum_tcb),
        ("TCB recovery", policy.minimum_tcb_evaluation_number),
        ("machines", policy.platforms),
        ("age of endorsements", policy.collateral_max_age),
        *((value.name, value.accepted) for value in policy.measurements),
        *((setting.name, setting.accepted) for setting in policy.settings),
    ]
    for status in policy.statuses:
        if status != "UpToDate":
            yield Said(key="warning.status", parameters={"platform": kind, "status": status})
    for advisory in policy.advisories:
        yield Said(key="warning.advisory", parameters={"platform": kind, "advisory": advisory})
    if policy.grace is not None:
        yield Said(key="warning.grace", parameters={"platform": kind, "statuses": ", ".join(policy.grace.statuses)})
    left_out = [f"{name} ({value.reason})" for name, value in unchecked if isinstance(value, Unchecked)]
    if left_out:
        checks = "; ".join(left_out)
        yield Said(key="warning.unchecked", parameters={"platform": kind, "count": len(left_out), "checks": checks})


def _rule_warnings(owner: str, rules: DisclosureRules) -> Iterator[Said]:
    if rules.minimum_cell < _LEAST_PEOPLE:
        yield Said(key="warning.cell", parameters={"owner": owner, "least": rules.minimum_cell})
    if rules.minimum_contributors < _LEAST_PEOPLE:
        yield Said(key="warning.contributors", parameters={"owner": owner, "least": rules.minimum_contributors})
    if rules.max_digits > _MOST_DIGITS:
        yield Said(key="warning.digits", parameters={"owner": owner, "digits": rules.max_digits})
    if Decimal(rules.parameters_per_person) > _MOST_SHARE:
        yield Said(key="warning.share", parameters={"owner": owner, "share": rules.parameters_per_person})
    if rules.cohort_difference < _LEAST_PEOPLE:
        yield Said(key="warning.difference", parameters={"owner": owner, "least": rules.cohort_difference})
    if rules.python_settings > 1:
        yield Said(key="warning.settings", parameters={"owner": owner, "settings": rules.python_settings})
    epsilon = bounded(rules.epsilon_per_run)
    if epsilon is not None and epsilon > _MOST_EPSILON:
        yield Said(key="warning.epsilon", parameters={"owner": owner, "epsilon": rules.epsilon_per_run})


def _people_warnings(whole: Whole) -> Iterator[Said]:
    for signed in whole.cards.values():
        card = signed.record
        if card.approvals_required == 0:
            yield Said(key="warning.no-people", parameters={"party": card.name})
        elif card.approvals_required == 1:
            yield Said(key="warning.one-person", parameters={"party": card.name})
        if card.relying_party == "localhost":
            yield Said(key="warning.localhost", parameters={"party": card.name})


def parameter_sentence(parameter: Parameter) -> Said:
    """What the analyst may choose."""
    if parameter.type == "string":
        return Said(key="review.choices", parameters={"name": parameter.name, "choices": ", ".join(parameter.choices)})
    return Said(
        key="review.range",
        parameters={"name": parameter.name, "least": str(parameter.minimum), "most": str(parameter.maximum)},
    )


def output_sentences(analysis: Analysis) -> tuple[Said, ...]:
    """What may leave."""
    made = []
    for output in analysis.outputs:
        groups = ", ".join(column.name for column in output.columns if column.role == "group")
        values = ", ".join(column.name for column in output.columns if column.role != "group")
        key = "review.statistics" if output.shape == "statistics" else "review.table" if groups else "review.table-one"
        made.append(
            Said(
                key=key,
                parameters={
                    "name": output.name,
                    "groups": groups,
                    "values": values,
                    "rows": output.max_rows,
                    "parameters": output.parameters,
                },
            )
        )
    return tuple(made)


def example(preview: AnalysisPreview) -> Rehearsal | None:
    """The rehearsal to show: of the size in the middle, or of the nearest larger one from which something left."""
    left = [item for item in preview.rehearsals if item.outputs]
    middle = preview.rehearsals[len(preview.rehearsals) // 2].people
    return next((item for item in left if item.people >= middle), left[-1] if left else None)


# What changed ---------------------------------------------------------------------------------------------------------


def changes(before: Whole, after: Whole) -> tuple[Change, ...]:
    """Every difference between two versions, in the order of the page. Parties are the same if their keys are."""
    return tuple(
        change
        for part in (_text_changes, _party_changes, _data_changes, _analysis_changes, _rest_changes)
        for change in part(before, after)
    )


def _change(key: str, **parameters: str | int) -> Change:
    return Change(said=Said(key=f"change.{key}", parameters=parameters))


def _text_changes(before: Whole, after: Whole) -> Iterator[Change]:
    old, new = before.contract, after.contract
    if old.title != new.title:
        yield _change("title", old=old.title, new=new.title)
    if old.purpose != new.purpose:
        yield Change(said=Said(key="change.purpose"), diff=_diff(old.purpose, new.purpose))


def _by_key(whole: Whole) -> dict[bytes, str]:
    return {signed.record.ed25519 + signed.record.mldsa65: identity for identity, signed in whole.cards.items()}


def _party_changes(before: Whole, after: Whole) -> Iterator[Change]:
    old, new = _by_key(before), _by_key(after)
    for key in sorted(new.keys() - old.keys()):
        yield _change("party-new", party=after.name(new[key]))
    for key in sorted(old.keys() - new.keys()):
        yield _change("party-gone", party=before.name(old[key]))
    for key in [key for key in new if key in old]:
        mine, theirs = before.cards[old[key]], after.cards[new[key]]
        if mine.id != theirs.id:
            yield _change(
                "card",
                party=theirs.record.name,
                people=len({person.name for person in theirs.record.people}),
                required=theirs.record.approvals_required,
            )
        was, now = _roles(before.contract, old[key]), _roles(after.contract, new[key])
        if was != now:
            yield _change("roles", party=theirs.record.name, old=was, new=now)
    was, now = _names(before, before.contract.recipients), _names(after, after.contract.recipients)
    if was != now:
        yield _change("recipients", old=was, new=now)


def _roles(contract: Contract, party: str) -> str:
    return ", ".join(sorted(role for entry in contract.parties if entry.party == party for role in entry.roles))


def _names(whole: Whole, parties: tuple[str, ...]) -> str:
    return ", ".join(sorted(whole.name(party) for party in parties))


def _data_changes(before: Whole, after: Whole) -> Iterator[Change]:
    old = {before.manifests[entry.manifest].record.dataset: entry for entry in before.contract.data}
    new = {after.manifests[entry.manifest].record.dataset: entry for entry in after.contract.data}
    for dataset in sorted(new.keys() - old.keys()):
        manifest = after.manifests[new[dataset].manifest].record
        yield _change("data-new", owner=after.name(manifest.owner), table=manifest.table)
    for dataset in sorted(old.keys() - new.keys()):
        manifest = before.manifests[old[dataset].manifest].record
        yield _change("data-gone", owner=before.name(manifest.owner), table=manifest.table)
    for dataset in [dataset for dataset in new if dataset in old]:
        was = before.manifests[old[dataset].manifest].record
        now = after.manifests[new[dataset].manifest].record
        owner = after.name(now.owner)
        if was.version != now.version:
            yield _change("data-version", owner=owner, table=now.table, old=was.version, new=now.version)
        if was.columns != now.columns:
            yield Change(
                said=Said(key="change.columns", parameters={"owner": owner, "table": now.table}),
                diff=_diff("\n".join(c.name for c in was.columns), "\n".join(c.name for c in now.columns)),
            )
        yield from _rule_changes(owner, old[dataset].rules, new[dataset].rules)


def _rule_changes(owner: str, old: DisclosureRules, new: DisclosureRules) -> Iterator[Change]:
    for name in DisclosureRules.__slots__:
        was, now = getattr(old, name), getattr(new, name)
        if was != now:
            yield _change(f"rule.{name}", owner=owner, old=str(was), new=str(now))


def _analysis_changes(before: Whole, after: Whole) -> Iterator[Change]:
    old = {before.analyses[entry.analysis].record.name: entry for entry in before.contract.analyses}
    new = {after.analyses[entry.analysis].record.name: entry for entry in after.contract.analyses}
    for name in sorted(new.keys() - old.keys()):
        yield _change("analysis-new", title=after.analyses[new[name].analysis].record.title)
    for name in sorted(old.keys() - new.keys()):
        yield _change("analysis-gone", title=before.analyses[old[name].analysis].record.title)
    for name in [name for name in new if name in old]:
        was, now = before.analyses[old[name].analysis].record, after.analyses[new[name].analysis].record
        if was.source != now.source:
            yield Change(
                said=Said(key="change.source", parameters={"title": now.title}), diff=_diff(was.source, now.source)
            )
        if was.sealed_code != now.sealed_code:
            yield _change("sealed-code", title=now.title, old=was.sealed_code or "–", new=now.sealed_code or "–")
        if (was.reads, was.parameters, was.outputs) != (now.reads, now.parameters, now.outputs):
            yield _change("declared", title=now.title)
        if old[name].max_runs != new[name].max_runs:
            yield _change("runs", title=now.title, old=old[name].max_runs, new=new[name].max_runs)


def _rest_changes(before: Whole, after: Whole) -> Iterator[Change]:
    old, new = before.contract, after.contract
    if old.platforms != new.platforms:
        yield Change(said=Said(key="change.platforms"), diff=_diff(_policy_lines(old), _policy_lines(new)))
    if old.accepted_weaknesses != new.accepted_weaknesses:
        yield _change(
            "weaknesses",
            old=", ".join(old.accepted_weaknesses) or "–",
            new=", ".join(new.accepted_weaknesses) or "–",
        )
    for name in ("wall_seconds", "memory_megabytes", "lease_seconds", "grain_milliseconds"):
        was, now = getattr(old.limits, name), getattr(new.limits, name)
        if was != now:
            yield _change(f"limit.{name}", old=was, new=now)
    if old.grace_days != new.grace_days:
        yield _change("grace", old=old.grace_days, new=new.grace_days)
    if old.log != new.log:
        yield _change("log", old=old.log.origin, new=new.log.origin)
    if old.expires != new.expires:
        yield _change("expires", old=old.expires, new=new.expires)


def _policy_lines(contract: Contract) -> str:
    lines = []
    for policy in contract.platforms.accepted:
        for name in policy.__slots__:
            lines.append(f"{policy.platform} {name}: {_plain(getattr(policy, name))}")
    for token in contract.platforms.tokens:
        for name in token.claims.__slots__:
            lines.append(f"{token.accompanies} + {token.service} {name}: {_plain(getattr(token.claims, name))}")
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A policy's value in one line."""
    if isinstance(value, tuple):
        return ", ".join(_plain(part) for part in value)
    if isinstance(value, Unchecked):
        return f"unchecked ({value.reason})"
    slots = getattr(type(value), "__slots__", None)
    if slots:
        return " ".join(_plain(getattr(value, name)) for name in slots)
    return str(value)


def _diff(old: str, new: str) -> tuple[tuple[str, str], ...]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return tuple((line[:1], line[1:]) for line in lines if not line.startswith("@@"))
