"""Enrolment, devices, recovery, removal, and the party's next card."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.contract.model import DatasetManifest
from kakoi.core.errors import Refused
from support.console_desk import Desk, Visitor, device_field, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def code(answer: object) -> str:
    """The error code on an error page."""
    text = str(getattr(answer, "text", answer))
    return text.partition('<p class="quiet mono">')[2].partition("</p>")[0]


def test_an_invitation_works_once(desk: Desk) -> None:
    token = desk.console.people.invite("Dr. Aoki", "administrator", by="test")
    aoki = Visitor(desk=desk, device=desk.device("Aoki"), name="Dr. Aoki")
    assert "Welcome, Dr. Aoki" in aoki.page(f"/enrol/{token}")
    assert "Your passkey is ready" in aoki.use_invitation(token).text
    assert code(aoki.client.get(f"/enrol/{token}")) == "people.invitation"


def test_an_invitation_expires(desk: Desk) -> None:
    token = desk.console.people.invite("Dr. Aoki", "administrator", by="test")
    desk.setting.clock.time += 3 * 24 * 3600
    assert code(desk.client().get(f"/enrol/{token}")) == "people.invitation"


def test_a_registration_needs_the_challenge_that_was_given(desk: Desk) -> None:
    import json

    token = desk.console.people.invite("Dr. Aoki", "administrator", by="test")
    answer = json.dumps(desk.device("Aoki").registration(b"kakoi/enrol/v1/" + bytes(32)))
    refused = desk.client().post(f"/enrol/{token}", data={"label": "x", "answer": answer})
    assert code(refused) == "passkey.challenge-used"


@pytest.mark.parametrize("change", [{"origin": "https://evil.example"}, {"type": "webauthn.get"}])
def test_a_registration_made_elsewhere_is_refused(desk: Desk, change: dict[str, object]) -> None:
    import base64
    import json

    token = desk.console.people.invite("Dr. Aoki", "administrator", by="test")
    client = desk.client()
    options = client.post(f"/enrol/{token}/options", data={"_": ""}).json()
    challenge = base64.urlsafe_b64decode(options["challenge"] + "==")
    answer = json.dumps(desk.device("Aoki").registration(challenge, change=change))
    assert code(client.post(f"/enrol/{token}", data={"label": "x", "answer": answer})) == "passkey.registration"
    assert not desk.console.people.devices()


def test_names_are_never_used_twice(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    desk.enrol("Ms. Baba")
    assert aoki.confirmed("/people/remove", person=member(desk, "Ms. Baba")).status_code == 303
    assert code(aoki.confirmed("/people/invite", name="Ms. Baba", role="member")) == "people.name-taken"


def member(desk: Desk, name: str) -> str:
    return next(m.id for m in desk.console.people.members() if m.name == name)


def test_a_member_invites_and_removes_nobody(desk: Desk) -> None:
    desk.enrol("Dr. Aoki")
    baba = desk.enrol("Ms. Baba", role="member")
    assert code(baba.confirmed("/people/invite", name="Mallory", role="administrator")) == "people.not-administrator"
    assert code(baba.confirmed("/people/remove", person=member(desk, "Dr. Aoki"))) == "people.not-administrator"
    assert code(baba.post("/people/card", required="1")) == "people.not-administrator"


def test_the_last_administrator_and_the_last_device_stay(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    assert code(aoki.confirmed("/people/remove", person=member(desk, "Dr. Aoki"))) == "people.last-administrator"
    removal = aoki.confirmed("/people/device/remove", device=device_field(aoki.device))
    assert code(removal) == "people.last-device"


def test_another_device_needs_one_that_is_there(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    page = aoki.confirmed("/people/device")
    token = page.text.partition('id="link">')[2].partition("</p>")[0].rpartition("/")[2]
    phone = Visitor(desk=desk, device=desk.device("phone"), name="Dr. Aoki")
    phone.use_invitation(token)
    assert phone.sign_in().status_code == 303
    assert len(desk.console.people.devices(member(desk, "Dr. Aoki"))) == 2
    assert aoki.confirmed("/people/device/remove", device=device_field(phone.device)).status_code == 303
    assert code(phone.sign_in()) == "people.device-unknown"


def test_recovery_needs_two_others(desk: Desk) -> None:
    aoki, baba, chiba = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba"), desk.enrol("Prof. Chiba", role="member")
    lost = member(desk, "Ms. Baba")
    assert aoki.confirmed("/people/recovery", person=lost).status_code == 303
    (waiting,) = desk.console.people.waiting_recoveries()
    for person in (aoki, baba):
        assert code(person.confirmed("/people/recovery/second", invitation=waiting.id)) == "people.second-person"
    page = chiba.confirmed("/people/recovery/second", invitation=waiting.id)
    token = page.text.partition('id="link">')[2].partition("</p>")[0].rpartition("/")[2]
    anew = Visitor(desk=desk, device=desk.device("new laptop"), name="Ms. Baba")
    anew.use_invitation(token)
    assert anew.sign_in().status_code == 303
    assert code(baba.sign_in()) == "people.device-unknown"
    assert baba.get("/").headers["location"] == "/sign-in"


def test_nobody_recovers_themselves(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    with pytest.raises(Refused) as caught:
        desk.console.people.ask_recovery(
            member(desk, "Dr. Aoki"), by=desk.console.people.member(member(desk, "Dr. Aoki"))
        )
    assert caught.value.code == "people.recovery"
    assert aoki.get("/people").status_code == 200


def test_the_first_card_needs_one_administrator_the_next_two_people(desk: Desk) -> None:
    aoki, baba = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba")
    first = desk.setting.home.card.id
    sign_card(desk, aoki, propose(desk, aoki, required="2"))
    second = desk.setting.home.card
    assert second.id != first
    assert {person.name for person in second.record.people} == {"Dr. Aoki", "Ms. Baba"}
    subject = propose(desk, aoki, required="1")
    sign_card(desk, aoki, subject)
    assert desk.setting.home.card.id == second.id
    sign_card(desk, baba, subject)
    assert desk.setting.home.card.record.approvals_required == 1
    assert [card.id for card in desk.setting.home.earlier_cards] == [first, second.id]


def propose(desk: Desk, visitor: Visitor, *, required: str) -> str:
    desk.setting.clock.time += 1
    assert visitor.post("/people/card", required=required).status_code == 303
    proposed = desk.console.assent.proposed_card()
    assert proposed is not None
    return proposed[0]


def sign_card(desk: Desk, visitor: Visitor, subject: str) -> object:
    import json

    from kakoi.testing.software_authenticator import assertion_json

    answer = json.dumps(assertion_json(visitor.device.assertion(bytes.fromhex(subject))))
    return visitor.post(f"/people/card/{subject}", answer=answer)


def test_somebody_who_is_not_on_the_card_does_not_change_it(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    baba = desk.enrol("Ms. Baba")
    subject = propose(desk, aoki, required="1")
    assert code(sign_card(desk, baba, subject)) == "card.not-on-card"


def test_data_are_signed_anew_under_the_next_card(desk: Desk) -> None:
    desk.enrol("Dr. Aoki")
    before = desk.setting.home.datasets()
    desk.card_with(1)
    home = desk.setting.home
    after = [item for item in home.datasets().values() if item.record.owner == home.ids[0]]
    assert len(after) == len(before) == 1
    (old,) = before.values()
    assert after[0].id != old.id
    assert {f for f in DatasetManifest.__slots__ if getattr(after[0].record, f) != getattr(old.record, f)} == {"owner"}
    assert home.data_key(after[0].record) == home.data_key(old.record)


def test_signing_in_too_often_is_slowed_down(desk: Desk) -> None:
    desk.enrol("Dr. Aoki")
    client = desk.client()
    answers = [client.post("/sign-in/options", data={"_": ""}).status_code for _ in range(30)]
    assert answers[0] == 200
    assert answers[-1] == 429
    desk.setting.clock.time += 61
    assert client.post("/sign-in/options", data={"_": ""}).status_code == 200


def test_sessions_are_short(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    assert aoki.get("/").status_code == 200
    desk.setting.clock.time += 16 * 60
    assert aoki.get("/").headers["location"] == "/sign-in"
    aoki.sign_in()
    for _ in range(40):
        desk.setting.clock.time += 14 * 60
        answer = aoki.get("/")
    assert answer.headers.get("location") == "/sign-in"


def test_decisions_are_shown_whatever_their_step(desk: Desk) -> None:
    from kakoi.broker.ledger import Decision, Ledger

    aoki = desk.enrol("Dr. Aoki")
    ledger = Ledger(desk.setting.home.path / "ledger.sqlite")
    for name in ("challenge", "lease.3", "something-new"):
        ledger.note(Decision(at=1, run="", attempt=1, step=name, outcome="no", code="x.y", message="m", hint="h"))
    ledger.close()
    text = aoki.page("/decisions")
    assert "The chain of all 3 decisions is unbroken." in text
    for shown in ("Challenge", "Lease renewed", "something-new"):
        assert shown in text
