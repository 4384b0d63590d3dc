"""Ask owners for an exception: the next version of the contract with the rule as it is wished, and why. Never a switch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from kakoi.contract.ask import ExceptionRequest
from kakoi.contract.model import Contract, ContractAnalysis, ContractData, PartyCard
from kakoi.contract.rules import DisclosureRules
from kakoi.contract.sign import Signed, open_signed
from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import from_value, to_value
from kakoi.net.bundle import ObjectSource
from kakoi.sdk.terms import Terms
from kakoi.wire.messages import Denial, RunFailure

RULES: Final = tuple(field.name for field in fields(DisclosureRules))
"""Rules that can be asked about."""
ASKABLE: Final = ("gate.", "ledger.", "decision.budget")
"""Beginnings of codes that a rule of an owner, or a limit of the contract, stands behind."""
_NAMED: Final = re.compile(r"\brule ([a-z_]+)")


def can_be_asked(code: str) -> bool:
    """Whether owners could agree otherwise to what was denied with this code."""
    return code.startswith(ASKABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """What a run was denied with, as the hub shows it. A reason to ask, and nothing that anybody relies on."""

    run: ObjectId
    code: str
    rules: tuple[str, ...]
    """Rules that its message names."""


def denied_run(source: ObjectSource, run: ObjectId) -> Denied:
    """The denial or failure of a run. Raises Refused if it has none."""
    page = source.feed(kinds=(Denial.KIND, RunFailure.KIND), refs={"run": run})
    for item in page.items:
        payload = source.get_object(item.id).payload
        try:
            said: Denial | RunFailure = (
                Denial.decode(payload) if item.kind == Denial.KIND else RunFailure.decode(payload)
            )
        except Malformed:
            continue
        named = tuple(rule for rule in dict.fromkeys(_NAMED.findall(said.message)) if rule in RULES)
        return Denied(run=run, code=said.code, rules=named)
    raise Refused(
        "ask.not-denied", "expected a run that was denied, got one without a denial", hint="kakoi result open"
    )


def wished_rules(texts: Sequence[str], denied: Denied | None = None) -> dict[str, Any]:
    """Rules as ``name=value``. Raises Misuse for an unknown name, naming those that the denial is about."""
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or name not in RULES:
            known = ", ".join(denied.rules if denied is not None and denied.rules else RULES)
            raise Misuse(
                "ask.rule", f"expected a rule as name=value, with a name of {known}", hint="for example minimum_cell=3"
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    """Whole numbers, truth values and null as such; numbers with a fraction and everything else as text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, (float, dict, list)) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """A next version, and whose rules or limits it changes."""

    contract: Contract
    owners: tuple[PartyId, ...]


def amended(
    terms: Terms,
    *,
    drafter: PartyId,
    rules: Mapping[str, Any],
    owners: Sequence[str] = (),
    runs: Mapping[str, int] | None = None,
) -> Amendment:
    """The next version of a contract with other rules at these owners (by name or id; without any, at all), and other numbers of runs.

    Raises Misuse for a name that the contract does not know, Malformed for a value that a rule cannot have, Refused if nothing would change.
    """
    chosen = _owners(terms, owners)
    data = tuple(_under(entry, rules) if entry.owner in chosen else entry for entry in terms.contract.data)
    analyses = tuple(_with_runs(terms, entry, runs or {}) for entry in terms.contract.analyses)
    _known_analyses(terms, runs or {})
    touched = [n.owner for o, n in zip(terms.contract.data, data, strict=True) if o != n]
    if analyses != terms.contract.analyses:
        touched += [entry.owner for entry in terms.contract.data]
    if not touched:
        raise Refused("ask.nothing", "expected a wish that changes the contract, got what it says already")
    contract = replace(
        terms.contract,
        version=terms.contract.version + 1,
        supersedes=terms.id,
        drafter=drafter,
        data=data,
        analyses=analyses,
    )
    return Amendment(contract=contract, owners=tuple(dict.fromkeys(touched)))


def _owners(terms: Terms, wanted: Sequence[str]) -> frozenset[str]:
    mine = {entry.owner: terms.name(entry.owner) for entry in terms.contract.data}
    if not wanted:
        return frozenset(mine)
    found = {identity for identity, name in mine.items() if identity in wanted or name in wanted}
    unknown = [text for text in wanted if text not in found and text not in {mine[i] for i in found}]
    if unknown:
        raise Misuse("ask.owner", f"expected owners of the contract: {', '.join(mine.values())}, got another name")
    return frozenset(found)


def _under(entry: ContractData, rules: Mapping[str, Any]) -> ContractData:
    try:
        value = encoding.loads(encoding.dumps({**to_value(entry.rules), **rules}))
        return replace(entry, rules=from_value(DisclosureRules, value, "rules"))
    except KakoiError as error:
        raise Malformed(
            "ask.value", f"expected a value that the rule can have: {error.message}", hint=error.hint
        ) from None


def _with_runs(terms: Terms, entry: ContractAnalysis, runs: Mapping[str, int]) -> ContractAnalysis:
    for name in (entry.analysis, terms.analyses[entry.analysis].record.name):
        if name in runs:
            return replace(entry, max_runs=runs[name])
    return entry


def _known_analyses(terms: Terms, runs: Mapping[str, int]) -> None:
    known = {*terms.analyses, *(analysis.record.name for analysis in terms.analyses.values())}
    if not set(runs) <= known:
        raise Misuse("run.analysis", "expected analyses of the contract, got another name", hint="kakoi contract show")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that a party of the contract signed. The reason is that party's word."""

    request: ExceptionRequest
    by: str
    owners: tuple[str, ...]
    """Names of the parties that it says it concerns, as far as the contract knows them."""


def open_request(
    envelope: Envelope, amendment: ObjectId, cards: Mapping[str, Signed[PartyCard]]
) -> Signed[ExceptionRequest]:
    """A request for this version, signed by a party of it. Raises Malformed; Refused for a stranger's, or one for another version."""
    claimed = ExceptionRequest.decode(envelope.payload)
    if claimed.party not in cards or claimed.amendment != amendment:
        raise Refused(
            "ask.stranger",
            "expected a request of a party of this contract version, got another",
            hint="only parties of a contract can ask for an exception: kakoi contract ask",
        )
    return open_signed(ExceptionRequest, envelope, cards[claimed.party])


def asked(request: ExceptionRequest, cards: Mapping[str, Signed[PartyCard]]) -> Asked:
    """A request with the names of those whom it is about."""
    names = {party: card.record.name for party, card in cards.items()}
    return Asked(request=request, by=names[request.party], owners=tuple(names[o] for o in request.owners if o in names))


def newest_first(found: Iterable[Asked]) -> tuple[Asked, ...]:
    """Of each party the last request: a reason that was put better replaces the one before."""
    last: dict[str, Asked] = {}
    for item in sorted(found, key=lambda item: item.request.asked_at):
        last[item.request.party] = item
    return tuple(sorted(last.values(), key=lambda item: -item.request.asked_at))


def asked_for(source: ObjectSource, terms: Terms) -> tuple[Asked, ...]:
    """Requests that come with this contract version, newest first. What a stranger wrote is left out."""
    found = []
    page = source.feed(kinds=(ExceptionRequest.KIND,), refs={"amendment": terms.id})
    for item in page.items:
        try:
            record = open_request(source.get_object(item.id), terms.id, terms.cards).record
        except (Malformed, Refused):
            continue
        found.append(asked(record, terms.cards))
    return newest_first(found)


def rule_changes(before: Contract, after: Contract) -> tuple[tuple[int, str, str, str], ...]:
    """What differs in rules and numbers of runs: place in ``after.data`` (or -1), name, before, after."""
    old = {entry.manifest: entry.rules for entry in before.data}
    out = []
    for place, entry in enumerate(after.data):
        if entry.manifest in old:
            pairs = ((name, getattr(old[entry.manifest], name), getattr(entry.rules, name)) for name in RULES)
            out += [(place, name, str(was), str(now)) for name, was, now in pairs if was != now]
    runs = {entry.analysis: entry.max_runs for entry in before.analyses}
    for item in after.analyses:
        was = runs.get(item.analysis)
        if was is not None and was != item.max_runs:
            out.append((-1, item.analysis, str(was), str(item.max_runs)))
    return tuple(out)
