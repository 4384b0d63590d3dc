"""T105, T185: whoever asks for an exception must not get it by asking, nor speak on the owners' page in another voice than its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.contract.approve import agree
from kakoi.contract.ask import ExceptionRequest
from kakoi.contract.model import Approval
from kakoi.contract.sign import seal
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.sdk.ask import amended
from kakoi.sdk.terms import Terms
from kakoi.testing.world import NOW, TestParty, World
from support.console_desk import Desk, open_desk


def test_an_exception_that_nobody_signed_is_none() -> None:
    """Signed by nobody, by all but the owner whose rule it is, with approvals of the version before: no agreement."""
    world = World()
    bundle = world.bundle()
    before = world.agreement()
    terms = Terms(
        id=before.id,
        contract=before.contract,
        cards=before.cards,
        manifests=before.manifests,
        analyses=before.analyses,
    )
    made = amended(terms, drafter=world.analyst.id, rules={"minimum_cell": 1}, owners=["South"])
    contract = seal(made.contract, world.analyst.signing)
    parties = (*world.owners, world.analyst)
    approvals = {
        party.name: seal(
            Approval(contract=contract.payload_id, party=party.id, assertions=(), approved_at=NOW), party.signing
        )
        for party in parties
    }
    for given, code in (
        ((), "contract.approval-missing"),
        (tuple(a for name, a in approvals.items() if name != "South"), "contract.approval-missing"),
        (tuple(a for name, a in approvals.items() if name != "North"), "contract.approval-missing"),
        (bundle.approvals, "approval.contract"),
    ):
        with pytest.raises(Refused) as caught:
            agree(replace(bundle, contract=contract, approvals=given))
        assert caught.value.code == code
    agreed = agree(replace(bundle, contract=contract, approvals=tuple(approvals.values())))
    assert [entry.rules.minimum_cell for entry in agreed.contract.data] == [3, 3, 1]
    # The version before stands as it was, whatever is asked.
    assert [entry.rules.minimum_cell for entry in agree(bundle).contract.data] == [3, 3, 3]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def asks(desk: Desk, by: TestParty, amendment: ObjectId, reason: str) -> ExceptionRequest:
    """A request for this version, signed by ``by``, at the hub."""
    request = ExceptionRequest(
        contract=ObjectId("1" * 64),
        amendment=amendment,
        party=by.id,
        owners=(desk.setting.world.owners[0].id,),
        reason=reason,
        run=None,
        code=None,
        asked_at=NOW,
    )
    desk.hub.put_object(seal(request, by.signing))
    desk.console.library.look_again()
    return request


MARKUP = {
    "script": "<script>fetch('/contracts/x/approve', {method: 'POST'})</script>",
    "a button of its own": '</blockquote><form action="/contracts/x/approve" method="post"><button>OK</button></form>',
    "a template": "{{ session.csrf }} {% include 'settings.html' %}",
    "an attribute": "\" onfocus='alert(1)' autofocus x=\"",
    "a link": "<a href='https://kakoi.example.org/'>sign here</a>",
}


@pytest.mark.parametrize("name", MARKUP)
def test_a_reason_is_text_whatever_is_written_in_it(desk: Desk, name: str) -> None:
    """On the home page and in the review, in both languages: the same elements as with a harmless reason, and the text readable."""
    aoki = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    contract = desk.publish().contract.payload_id
    asks(desk, desk.setting.world.analyst, contract, "x")
    pages, reason = ("/", f"/contracts/{contract}"), MARKUP[name]
    for language in ("en", "ja"):
        aoki.client.cookies.set("kakoi-language", language)
        harmless = [tags(aoki.get(path).text) for path in pages]
        asks(desk, desk.setting.world.analyst, contract, reason)
        assert [tags(aoki.get(path).text) for path in pages] == harmless
        assert all(reason in aoki.page(path) for path in pages)
        asks(desk, desk.setting.world.analyst, contract, "x")


def tags(page: str) -> list[str]:
    """The elements of a page and their attributes, without what is different in every answer."""
    return [re.sub(r'value="[0-9a-f]{64}"', "", tag) for tag in re.findall(r"<[a-zA-Z/!][^>]*>", page)]


def test_a_reason_cannot_steer_what_shows_it(desk: Desk) -> None:
    """Control and bidirectional characters do not even become a request."""
    for reason in ("\x1b[2J", "approve \u202e this", "\x00", "   "):
        with pytest.raises(Malformed):
            asks(desk, desk.setting.world.analyst, ObjectId("0" * 64), reason)


def test_nobody_gives_a_reason_in_anothers_name_or_for_another_version(desk: Desk) -> None:
    """A stranger's request, one under an owner's name, one for another version: none is shown."""
    aoki = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    world = desk.setting.world
    contract = desk.publish().contract.payload_id
    stranger = TestParty.named("Stranger")
    asks(desk, stranger, contract, "Said by a stranger.")
    asks(desk, world.analyst, ObjectId("0" * 64), "Said of another version.")
    forged = ExceptionRequest(
        contract=ObjectId("1" * 64),
        amendment=contract,
        party=world.owners[1].id,
        owners=(world.owners[0].id,),
        reason="Said in the name of East.",
        run=None,
        code=None,
        asked_at=NOW,
    )
    desk.hub.put_object(seal(forged, world.analyst.signing))
    desk.console.library.look_again()
    for path in ("/", f"/contracts/{contract}"):
        assert "Said " not in aoki.page(path)
    asks(desk, world.analyst, contract, "Said by the analyst.")
    assert "Said by the analyst." in aoki.page(f"/contracts/{contract}")
