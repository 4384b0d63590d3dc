"""Contracts: the list, the review in sentences, approval, withdrawal with its receipt, the next version."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from starlette.responses import Response

from kakoi.broker.consent import WithdrawalReceipt
from kakoi.console import review
from kakoi.console.ceremony import read_assertion, request_options
from kakoi.console.contracts import Standing, all_standings, earlier_versions, standing
from kakoi.console.drafting import Wishes, next_version, published, successors
from kakoi.console.library import Whole
from kakoi.console.memory import Memory
from kakoi.console.visit import Visit
from kakoi.contract.rules import DisclosureRules
from kakoi.core import encoding
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import parse_id
from kakoi.core.records import from_value, to_value
from kakoi.net import log as logs
from kakoi.sdk.preview import outputs_shown

_TEXT_RULES: Final = ("parameters_per_person", "epsilon_per_run", "epsilon_budget")
"""Rules that are written as a decimal number or a word."""


def contracts_page(visit: Visit) -> Response:
    """Every contract that names this party."""
    return visit.page("contracts.html", standings=all_standings(visit.console))


def contract_page(visit: Visit) -> Response:
    """One contract, in sentences."""
    item = _standing(visit)
    return visit.page("contract.html", **_review(visit, item))


def _standing(visit: Visit) -> Standing:
    """The contract of the address. Raises Refused if it does not name this party."""
    whole = visit.console.library.whole(visit.path("contract"))
    if not {party.party for party in whole.contract.parties} & set(visit.console.home.ids):
        raise Refused("contract.not-party", "expected a contract that names this party, got one that does not")
    newer = {
        item.contract.supersedes: item.id for item in visit.console.library.contracts() if item.contract.supersedes
    }
    item = standing(visit.console, whole)
    if whole.id in newer and standing(visit.console, visit.console.library.whole(newer[whole.id])).status == "in-force":
        return standing(visit.console, whole, replaced_by=newer[whole.id])
    return item


def _review(visit: Visit, item: Standing) -> dict[str, Any]:
    whole, library = item.whole, visit.console.library
    before: Whole | None = None
    if whole.contract.supersedes:
        before = library.whole(whole.contract.supersedes)
    return {
        "item": item,
        "whole": whole,
        "contract": whole.contract,
        "quarantine": [entry for entry in Memory(visit.console.home).quarantine() if entry.contract == whole.id],
        "now": visit.console.clock.now(),
        "warnings": review.warnings(whole),
        "before": before,
        "changes": review.changes(before, whole) if before is not None else (),
        "outputs": review.output_sentences,
        "parameter": review.parameter_sentence,
        "reviews": partial(library.reviews, whole),
        "analysts": [whole.name(party) for party in whole.parties_with("analyst")],
        "recipients": [whole.name(party) for party in whole.contract.recipients],
        "owners": list(dict.fromkeys(whole.name(entry.owner) for entry in whole.contract.data)),
        "software": any(policy.platform == "software" for policy in whole.contract.platforms.accepted),
        "asked": library.asked(whole),
        "previews": library.previews(whole),
        "example": review.example,
        "shown": outputs_shown,
        "raw": _pretty(whole),
    }


def _pretty(whole: Whole) -> str:
    """The signed bytes themselves, indented for reading."""
    return json.dumps(encoding.loads(whole.envelope.payload), indent=2, ensure_ascii=False)


def raw_contract(visit: Visit) -> Response:
    """The signed document, byte for byte: its SHA-256 is the id."""
    whole = visit.console.library.whole(visit.path("contract"))
    headers = {"content-disposition": f'attachment; filename="contract-{whole.id[:12]}.json"'}
    return Response(whole.envelope.payload, media_type="application/octet-stream", headers=headers)


def log_part(visit: Visit) -> Response:
    """Whether the contract is in the transparency log, proven now."""
    whole = visit.console.library.whole(visit.path("contract"))
    try:
        proof, newest = logs.prove(
            visit.console.library.hub, whole.contract.log, kind=whole.contract.KIND, digest=whole.id, seen=None
        )
    except KakoiError as error:
        return visit.error(error)
    return visit.page("log.html", whole=whole, index=proof.index, entries=newest.size, origin=newest.origin)


# Approval -------------------------------------------------------------------------------------------------------------


def approve_options(visit: Visit) -> Response:
    """Options for saying yes: the challenge is the id of the contract that the page showed."""
    visit.require_csrf()
    contract = parse_id(visit.path("contract"))
    own = [device.credential_id for device in visit.console.people.devices(visit.who.member.id)]
    on_card = visit.console.assent.approvers()
    allowed = [identity for identity in own if not on_card or identity in on_card]
    if not allowed:
        raise Refused(
            "approval.not-on-card",
            "expected a passkey that this party's card names, got one that it does not name yet",
            hint="publish the party's next card first (People), and use it in the contract's next version",
        )
    options = request_options(
        relying_party=visit.console.settings.name, challenge=bytes.fromhex(contract), allowed=allowed
    )
    return visit.options(options)


def approve(visit: Visit) -> Response:
    """One person's yes."""
    item = _standing(visit)
    if visit.field("shown", most=64) != item.whole.id:
        raise Refused("approval.contract", "expected an approval of this contract, got one of another")
    visit.console.assent.approve(visit.who, item.whole.id, read_assertion(visit.field("answer", most=32768)))
    return visit.go(f"/contracts/{item.whole.id}")


# Withdrawal -----------------------------------------------------------------------------------------------------------


def withdraw_page(visit: Visit) -> Response:
    """Why, and what it will do."""
    item = _standing(visit)
    return visit.page("withdraw.html", earlier=earlier_versions(visit.console, item.whole), **_review(visit, item))


def prepare_withdrawal(visit: Visit) -> Response:
    """Write the withdrawal down, then show it to be signed."""
    item = _standing(visit)
    subject = visit.console.assent.prepare_withdrawal(visit.who, item.whole.id, visit.field("reason"))
    return visit.go(f"/withdrawals/{subject}")


def withdrawal_page(visit: Visit) -> Response:
    """Exactly what the passkey will sign."""
    subject = parse_id(visit.path("subject"))
    withdrawal = visit.console.assent.withdrawal(subject)
    whole = visit.console.library.whole(withdrawal.contract) if withdrawal.contract else None
    data = visit.console.home.datasets()[withdrawal.dataset].record if withdrawal.dataset else None
    return visit.page("withdrawal.html", subject=subject, withdrawal=withdrawal, whole=whole, data=data)


def withdrawal_options(visit: Visit) -> Response:
    """Options for signing the withdrawal."""
    visit.require_csrf()
    subject = parse_id(visit.path("subject"))
    visit.console.assent.withdrawal(subject)
    allowed = [device.credential_id for device in visit.console.people.devices(visit.who.member.id)]
    return visit.options(
        request_options(relying_party=visit.console.settings.name, challenge=bytes.fromhex(subject), allowed=allowed)
    )


def withdraw(visit: Visit) -> Response:
    """Withdraw."""
    subject = parse_id(visit.path("subject"))
    answer = read_assertion(visit.field("answer", most=32768))
    console = visit.console
    withdrawal = console.assent.withdrawal(subject)
    if withdrawal.contract is None:
        console.assent.withdraw(visit.who, subject, answer, earlier=())
        return visit.go(f"/data/{withdrawal.dataset}")
    whole = console.library.whole(withdrawal.contract)
    earlier = [(item.id, item.contract) for item in earlier_versions(console, whole)]
    console.assent.withdraw(visit.who, subject, answer, earlier=earlier)
    return visit.go(f"/contracts/{whole.id}/receipt")


def receipt_page(visit: Visit) -> Response:
    """The signed receipt, made from what is known now."""
    item, made = _standing(visit), visit.console.assent.receipt(parse_id(visit.path("contract")))
    record = WithdrawalReceipt.decode(made.payload)
    return visit.page("receipt.html", item=item, whole=item.whole, receipt=record, now=visit.console.clock.now())


def receipt_file(visit: Visit) -> Response:
    """The receipt as a signed file."""
    made = visit.console.assent.receipt(parse_id(visit.path("contract")))
    headers = {"content-disposition": f'attachment; filename="receipt-{visit.path("contract")[:12]}.dsse"'}
    return Response(made.encode(), media_type="application/octet-stream", headers=headers)


# The next version -----------------------------------------------------------------------------------------------------


def amend_page(visit: Visit) -> Response:
    """A form with everything as it is now."""
    return _amend_page(visit, _standing(visit), None)


def _amend_page(visit: Visit, item: Standing, wrong: KakoiError | None) -> Response:
    """The form; after an error with what was typed."""
    whole = item.whole
    known = {entry.analysis: entry.max_runs for entry in whole.contract.analyses}
    names = {whole.analyses[identity].record.name for identity in known}
    offered = [
        (identity, analysis, known.get(identity, 10), identity in known)
        for identity, analysis in [
            *((i, whole.analyses[i].record) for i in known),
            *((i, a) for i, a in published(visit.console.library, visit.console.home) if i not in known),
        ]
        if identity in known or analysis.name not in names or visit.request.query_params.get("with") == identity
    ]
    mine = next((entry for entry in whole.contract.data if entry.owner == item.mine), None)
    cards = successors(visit.console.library, whole)
    return visit.page(
        "amend.html",
        status=200 if wrong is None else 400,
        item=item,
        wrong=wrong,
        form=visit.form,
        ticked=set(visit.form.get("analysis", "").split("\n")) if visit.form else None,
        whole=whole,
        contract=whole.contract,
        offered=offered,
        chosen=visit.request.query_params.get("with", ""),
        mine=mine,
        moved=[(whole.name(old), card.record) for old, card in cards.items() if card.id != whole.cards[old].id],
        expires=datetime.fromtimestamp(whole.contract.expires, tz=UTC).date().isoformat(),
    )


def amend(visit: Visit) -> Response:
    """Sign the next version as its drafter, and give it to the hub. It approves nothing."""
    item, console = _standing(visit), visit.console
    try:
        envelope = next_version(
            console.library, console.home, item.whole, _wishes(visit, item), now=console.clock.now()
        )
    except (Malformed, Refused) as error:
        return _amend_page(visit, item, error)
    console.library.hub.put_object(console.home.card.envelope)
    console.library.hub.put_object(envelope)
    console.store.note(console.clock.now(), visit.who.member.name, "drafted", envelope.payload_id)
    return visit.go(f"/contracts/{envelope.payload_id}")


def _wishes(visit: Visit, item: Standing) -> Wishes:
    chosen = visit.form.get("analysis", "").split("\n") if visit.form.get("analysis") else []
    return Wishes(
        title=visit.field("title", most=120),
        purpose=visit.field("purpose"),
        expires=_expires(visit.field("expires", most=10), item.whole.contract.expires),
        analyses=[(parse_id(i), visit.number(f"runs-{i}", least=1, most=100_000)) for i in chosen],
        rules=_rules(visit, item),
    )


def _rules(visit: Visit, item: Standing) -> DisclosureRules | None:
    mine = next((entry for entry in item.whole.contract.data if entry.owner == item.mine), None)
    if mine is None:
        return None
    changed: dict[str, str | int] = {
        name: visit.number(name, least=0, most=10**9)
        for name in (
            "minimum_cell",
            "minimum_contributors",
            "max_digits",
            "max_output_bytes",
            "dominance_contributors",
            "dominance_percent",
            "p_percent",
            "rounding_base",
            "cohort_difference",
            "budget_runs",
            "budget_kilobytes",
            "rows_per_person",
        )
        if name in visit.form
    }
    changed |= {name: visit.field(name, most=8) for name in _TEXT_RULES if name in visit.form}
    return from_value(DisclosureRules, {**to_value(mine.rules), **changed}, "rules")


def _expires(text: str, before: int) -> int:
    """The end of the chosen day, in UTC; exactly as before if the day was left as it is."""
    if text == datetime.fromtimestamp(before, tz=UTC).date().isoformat():
        return before
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise Malformed("console.form", "expected a date such as 2027-03-31") from None
    return int(day.timestamp()) + 86399
