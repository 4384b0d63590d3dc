"""The sealed code of a contract, checked as part of the agreement: who owns it, which analysis it is, who vouches for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import Analysis, Contract, PartyCard
from kakoi.contract.sign import Signed, open_signed, require_signer
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused

Cards = Mapping[str, Signed[PartyCard]]
Reviews = dict[str, tuple[Signed[CodeReview], ...]]


def open_code(envelopes: Sequence[Envelope], contract: Contract, cards: Cards) -> dict[str, Signed[CodeManifest]]:
    """Exactly the code manifests that the contract names, each signed by the owner that it and the contract name.

    Raises Malformed or Refused.
    """
    owners = {entry.manifest: entry.owner for entry in contract.code}
    found = [envelope.payload_id for envelope in envelopes]
    if len(set(found)) != len(found) or set(found) != set(owners):
        raise _objects("the sealed code that the contract names")
    out: dict[str, Signed[CodeManifest]] = {}
    for envelope in envelopes:
        card = cards[owners[envelope.payload_id]]
        signed = open_signed(CodeManifest, envelope, card)
        require_signer(signed.record.owner, card, "sealed code")
        out[signed.id] = signed
    return out


def code_is_whose(analyses: Mapping[str, Signed[Analysis]], code: Mapping[str, Signed[CodeManifest]]) -> None:
    """Raise Refused unless every sealed analysis is by the owner of its code, and all code belongs to an analysis."""
    used = {a.record.sealed_code for a in analyses.values() if a.record.sealed_code is not None}
    if used != set(code):
        raise _objects("the sealed code that the analyses name")
    for analysis in (signed.record for signed in analyses.values()):
        if analysis.sealed_code is not None and code[analysis.sealed_code].record.owner != analysis.author:
            raise Refused(
                "code.owner",
                "expected sealed code to belong to the author of its analysis, got another party's",
                hint="the code's owner must publish the analysis",
            )


def open_reviews(envelopes: Sequence[Envelope], contract: Contract, cards: Cards) -> Reviews:
    """The reviews of each code manifest: exactly one of every reviewer that the contract names. Raises Malformed or Refused."""
    wanted = {(entry.manifest, reviewer) for entry in contract.code for reviewer in entry.reviewers}
    found: dict[tuple[str, str], Signed[CodeReview]] = {}
    for envelope in envelopes:
        claimed = CodeReview.decode(envelope.payload)
        place = (claimed.code, claimed.reviewer)
        if place not in wanted or place in found:
            raise _objects("one review of every reviewer that the contract names")
        card = cards[claimed.reviewer]
        signed = open_signed(CodeReview, envelope, card)
        require_signer(signed.record.reviewer, card, "a review")
        found[place] = signed
    missing = sorted(wanted - set(found))
    if missing:
        raise Refused(
            "code.review-missing",
            f"expected a review of sealed code by {cards[missing[0][1]].record.name}, found none",
            hint="ask that party to run: kakoi code review",
        )
    return {
        entry.manifest: tuple(found[entry.manifest, reviewer] for reviewer in entry.reviewers)
        for entry in contract.code
    }


def _objects(what: str) -> Refused:
    return Refused("contract.objects", f"expected exactly {what}", hint="fetch them again")
