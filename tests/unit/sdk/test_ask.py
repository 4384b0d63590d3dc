"""An exception is asked for as a next version that everybody has to sign; the request itself changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kakoi.contract.approve import agree
from kakoi.contract.ask import ExceptionRequest
from kakoi.contract.sign import seal
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.net.answers import FeedItem, FeedPage
from kakoi.sdk.ask import (
    RULES,
    amended,
    asked_for,
    can_be_asked,
    denied_run,
    rule_changes,
    wished_rules,
)
from kakoi.sdk.terms import Terms
from kakoi.testing.world import NOW, World
from kakoi.wire.messages import Denial
from support.conversation import Conversation
from unit.rehearse.test_rehearse import Hub

WORLD = World()


def terms() -> Terms:
    agreement = WORLD.agreement()
    return Terms(
        id=agreement.id,
        contract=agreement.contract,
        cards=agreement.cards,
        manifests=agreement.manifests,
        analyses=agreement.analyses,
    )


def test_one_owners_rule_as_wished_and_all_else_as_before() -> None:
    found = terms()
    made = amended(found, drafter=WORLD.analyst.id, rules={"minimum_cell": 2}, owners=["East"])
    assert made.owners == (WORLD.owners[1].id,)
    assert (made.contract.version, made.contract.supersedes) == (2, found.id)
    assert rule_changes(found.contract, made.contract) == ((1, "minimum_cell", "3", "2"),)
    undone = replace(made.contract, version=1, supersedes=None, data=found.contract.data)
    assert undone == found.contract


def test_without_names_all_owners_are_asked_and_runs_concern_all() -> None:
    found = terms()
    every = amended(found, drafter=WORLD.analyst.id, rules={"parameters_per_person": "0.5"})
    assert set(every.owners) == {owner.id for owner in WORLD.owners}
    more = amended(found, drafter=WORLD.analyst.id, rules={}, runs={"counts": 9})
    assert more.contract.analyses[0].max_runs == 9
    assert set(more.owners) == {owner.id for owner in WORLD.owners}
    assert rule_changes(found.contract, more.contract)[0][2:] == ("2", "9")


def test_asking_switches_nothing() -> None:
    """Nobody has approved the amendment, so no enclave and no broker takes it for a contract."""
    found = terms()
    made = amended(found, drafter=WORLD.analyst.id, rules={"minimum_cell": 1})
    bundle = WORLD.bundle()
    with pytest.raises(Refused) as caught:
        agree(replace(bundle, contract=seal(made.contract, WORLD.analyst.signing)))
    assert caught.value.code == "approval.contract"
    with pytest.raises(Refused) as missing:
        agree(replace(bundle, contract=seal(made.contract, WORLD.analyst.signing), approvals=()))
    assert missing.value.code == "contract.approval-missing"


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"rules": {"minimum_cell": 3}}, "ask.nothing"),
        ({"rules": {"minimum_cell": 2}, "owners": ["West"]}, "ask.owner"),
        ({"rules": {"minimum_cell": 0}}, "ask.value"),
        ({"rules": {"minimum_cell": "few"}}, "ask.value"),
        ({"rules": {"parameters_per_person": "2"}}, "ask.value"),
        ({"rules": {}, "runs": {"other": 3}}, "run.analysis"),
    ],
)
def test_what_cannot_be_asked(wish: dict[str, object], code: str) -> None:
    with pytest.raises((Refused, Misuse, Malformed)) as caught:
        amended(terms(), drafter=WORLD.analyst.id, **wish)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_rules_are_read_as_they_are_written() -> None:
    assert wished_rules(["minimum_cell=2", "parameters_per_person=0.5"]) == {
        "minimum_cell": 2,
        "parameters_per_person": "0.5",
    }
    for text in ("minimum_cell", "cell=3", "=3"):
        with pytest.raises(Misuse) as caught:
            wished_rules([text])
        assert caught.value.code == "ask.rule"


def test_a_denied_run_names_its_rule() -> None:
    talk = Conversation()
    denial = replace(
        Denial.decode(talk.denial(WORLD.owners[0]).payload),
        code="gate.statistics-people",
        message="model rests on too few people: rule minimum_contributors of North",
    )

    class Denials(Hub):
        def feed(self, **query: object) -> FeedPage:
            items = tuple(FeedItem(seq=1, id=ObjectId(i), kind=Denial.KIND) for i in self.order)
            return FeedPage(items=items, next=1)

    found = denied_run(Denials(seal(denial, WORLD.owners[0].signing)), denial.run)
    assert (found.code, found.rules) == ("gate.statistics-people", ("minimum_contributors",))
    with pytest.raises(Misuse) as caught:
        wished_rules(["cell=3"], found)
    assert caught.value.message.endswith("minimum_contributors")
    with pytest.raises(Refused):
        denied_run(Denials(), denial.run)
    assert [
        can_be_asked(code) for code in ("gate.output-bytes", "decision.budget", "sql.table", "decision.withdrawn")
    ] == [
        True,
        True,
        False,
        False,
    ]


def request(**changes: object) -> ExceptionRequest:
    made = ExceptionRequest(
        contract=ObjectId("1" * 64),
        amendment=terms().id,
        party=WORLD.analyst.id,
        owners=(PartyId("2" * 64),),
        reason="Rare, but the question is about them.",
        run=None,
        code=None,
        asked_at=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_reason_is_who_signed_its() -> None:
    class Requests(Hub):
        def feed(self, **query: object) -> FeedPage:
            items = tuple(FeedItem(seq=1, id=ObjectId(i), kind=ExceptionRequest.KIND) for i in self.order)
            return FeedPage(items=items, next=1)

    mine = seal(request(), WORLD.analyst.signing)
    forged = seal(request(reason="The board has agreed."), WORLD.owners[0].signing)
    stranger = seal(request(party=PartyId("3" * 64)), WORLD.analyst.signing)
    found = asked_for(Requests(mine, forged, stranger), terms())
    assert [(item.by, item.request) for item in found] == [("Analyst", request())]


@pytest.mark.parametrize(
    "changes", [{"reason": " "}, {"run": ObjectId("4" * 64)}, {"code": "gate.label"}, {"owners": ()}]
)
def test_bad_twins(changes: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        request(**changes)


def test_every_rule_can_be_asked_about() -> None:
    assert {"minimum_cell", "minimum_contributors", "max_digits"} <= set(RULES)
