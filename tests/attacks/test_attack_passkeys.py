"""Attacks on people's approvals and on their console, each really tried. THREAT_MODEL.md T40–T59."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kakoi.broker import consent
from kakoi.broker.ledger import Ledger
from kakoi.console.app import ROUTES
from kakoi.console.settings import Settings
from kakoi.contract.approve import agree
from kakoi.contract.model import Analysis, Approval, Code, Contract, DatasetManifest
from kakoi.contract.sign import open_card, seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing.software_authenticator import PRESENT, assertion_json
from kakoi.testing.world import NOW, TestParty, World
from support.console_desk import ORIGIN, Desk, Visitor, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def pair(desk: Desk) -> tuple[Visitor, Visitor]:
    """Two people, both needed by their party's card."""
    people = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba")
    desk.card_with(2)
    return people


def code(answer: object) -> str:
    text = str(getattr(answer, "text", answer))
    return text.partition('<p class="quiet mono">')[2].partition("</p>")[0]


def own_approvals(desk: Desk) -> list[Approval]:
    found = [Approval.decode(envelope.payload) for envelope in desk.hub.of_kind(Approval.KIND)]
    return [approval for approval in found if approval.party in desk.setting.home.ids]


def version(desk: Desk, number: int) -> ObjectId:
    """A contract that waits for this party; each number is another."""
    desk.setting.world.change_contract = lambda contract: replace(contract, purpose=f"Purpose {number}.")
    return desk.publish().contract.payload_id


# The assertion itself --------------------------------------------------------------------------------------------------


def test_the_honest_way_works(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """Without this, every refusal below could be for a wrong reason."""
    contract = version(desk, 1)
    for person in pair:
        assert person.approve(contract).status_code == 303
    (approval,) = own_approvals(desk)
    assert len(approval.assertions) == 2
    agreed = desk.setting.world.bundle()
    own = next(e for e in desk.hub.of_kind(Approval.KIND) if Approval.decode(e.payload).party in desk.setting.home.ids)
    assert agree(replace(agreed, approvals=(own, *agreed.approvals))).id == contract


def test_replayed_assertion(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """What somebody recorded of an earlier approval is no yes to the next version."""
    aoki, _ = pair
    first, second = version(desk, 1), version(desk, 2)
    recorded = aoki.device.assertion(bytes.fromhex(first))
    assert aoki.approve(first, recorded).status_code == 303
    assert code(aoki.approve(second, recorded)) == "passkey.challenge"
    assert code(aoki.approve(first, recorded)) == "passkey.counter"


def test_assertion_for_another_contract(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    aoki, _ = pair
    first, second = version(desk, 1), version(desk, 2)
    assert code(aoki.approve(first, aoki.device.assertion(bytes.fromhex(second)))) == "passkey.challenge"


def test_sign_in_passed_off_as_approval(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """The challenge of a sign-in never is an id, and an assertion over an id never signs in."""
    aoki, _ = pair
    contract = version(desk, 1)
    options = desk.client().post("/sign-in/options", data={"_": ""}).json()
    assert len(options["challenge"]) > 43
    answer = json.dumps(assertion_json(aoki.device.assertion(bytes.fromhex(contract))))
    assert code(desk.client().post("/sign-in", data={"answer": answer})) == "passkey.challenge-used"


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"change": {"origin": "http://localhost.evil.example:8443"}}, "passkey.origin"),
        ({"change": {"origin": "https://evil.example"}}, "passkey.origin"),
        ({"relying_party": "evil.example"}, "passkey.relying-party"),
        ({"flags": PRESENT}, "passkey.user-verification"),
        ({"flags": 0x04}, "passkey.presence"),
        ({"change": {"crossOrigin": True}}, "passkey.cross-origin"),
    ],
)
def test_assertion_made_elsewhere_or_by_nobody(
    desk: Desk, pair: tuple[Visitor, Visitor], bad: dict[str, object], expected: str
) -> None:
    """A false console, another relying party, an authenticator that did not verify its user."""
    aoki, _ = pair
    contract = version(desk, 1)
    forged = aoki.device.assertion(bytes.fromhex(contract), **bad)  # type: ignore[arg-type]
    assert code(aoki.approve(contract, forged)) == expected


def test_another_port_of_this_machine(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """Offline nobody can tell ports apart, but the party's own console can: its second verifier knows its origin."""
    aoki, _ = pair
    contract = version(desk, 1)
    elsewhere = aoki.device.assertion(bytes.fromhex(contract), change={"origin": "http://localhost:9999"})
    assert code(aoki.approve(contract, elsewhere)) == "passkey.second-verifier"


def test_counter_going_back(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """A copied authenticator, whose counter lags behind, is noticed."""
    aoki, _ = pair
    contract = version(desk, 1)
    aoki.device.counter = 0
    assert code(aoki.approve(contract)) == "passkey.counter"
    aoki.device.counter = 0
    assert code(aoki.sign_in()) == "passkey.counter"


# Who says yes ----------------------------------------------------------------------------------------------------------


def test_party_key_alone(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """Whoever has the party's keys, its own administrator even, approves nothing: here, and at everybody else's."""
    contract = version(desk, 1)
    ledger = Ledger(desk.setting.home.path / "ledger.sqlite")
    with pytest.raises(Refused) as caught:
        consent.approve(
            home=desk.setting.home, ledger=ledger, hub=desk.setting.hub, contract=contract, assertions=(), now=NOW
        )
    ledger.close()
    assert caught.value.code == "approval.people"
    bundle = desk.setting.world.bundle()
    forged = Approval(contract=contract, party=desk.setting.home.ids[0], assertions=(), approved_at=NOW)
    signed = seal(forged, desk.setting.home.keys.signer())
    with pytest.raises(Refused) as caught:
        agree(replace(bundle, approvals=(signed, *bundle.approvals)))
    assert caught.value.code == "approval.people"


def test_one_person_with_two_devices(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    aoki, _ = pair
    page = aoki.confirmed("/people/device")
    token = page.text.partition('id="link">')[2].partition("</p>")[0].rpartition("/")[2]
    phone = Visitor(desk=desk, device=desk.device("phone"), name="Dr. Aoki")
    phone.use_invitation(token)
    phone.sign_in()
    desk.card_with(2)
    contract = version(desk, 1)
    assert aoki.approve(contract).status_code == 303
    assert phone.approve(contract).status_code == 303
    assert not own_approvals(desk)


def test_cloned_session(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """A stolen cookie looks for a while, but approves, withdraws and invites nothing; from another browser it ends."""
    aoki, baba = pair
    contract = version(desk, 1)
    thief = Visitor(desk=desk, device=desk.device("thief"), name="thief")
    thief.client.cookies = aoki.client.cookies
    assert thief.get("/").status_code == 200
    assert code(thief.approve(contract)) == "approval.not-on-card"
    assert code(thief.confirmed("/people/invite", name="Mallory", role="administrator")) == "people.device-unknown"
    # The person next door, with a passkey that is good, does not approve in somebody else's session either.
    thief.device = baba.device
    assert code(thief.approve(contract)) == "session.other-person"
    elsewhere = desk.client(agent="Another browser")
    elsewhere.cookies = aoki.client.cookies
    assert elsewhere.get("/").headers["location"] == "/sign-in"
    assert aoki.get("/").headers["location"] == "/sign-in"


def test_removed_person(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """Signed out at once, what they signed counts no more, and contracts with the earlier card are not approved."""
    aoki, baba = pair
    contract = version(desk, 1)
    assert baba.approve(contract).status_code == 303
    identity = next(m.id for m in desk.console.people.members() if m.name == "Ms. Baba")
    cookies = baba.client.cookies
    assert aoki.confirmed("/people/remove", person=identity).status_code == 303
    baba.client.cookies = cookies
    assert baba.get("/").headers["location"] == "/sign-in"
    assert code(baba.sign_in()) == "people.device-unknown"
    assert aoki.approve(contract).status_code == 303
    assert not own_approvals(desk)
    yes = [person.device.assertion(bytes.fromhex(contract)) for person in pair]
    desk.enrol("Prof. Chiba")
    desk.setting.home.adopt(
        desk.setting.home.next_card(
            people=desk.console.people.for_card(), approvals_required=2, relying_party="localhost", created=NOW
        )
    )
    ledger = Ledger(desk.setting.home.path / "ledger.sqlite")
    with pytest.raises(Refused) as caught:
        consent.approve(
            home=desk.setting.home, ledger=ledger, hub=desk.setting.hub, contract=contract, assertions=yes, now=NOW
        )
    ledger.close()
    assert caught.value.code == "contract.earlier-card"


def test_passkey_that_is_not_on_the_card(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """Somebody who slipped into the console's database is still nobody on the card that the others hold."""
    contract = version(desk, 1)
    mallory = desk.enrol("Mallory")
    assert code(mallory.approve(contract)) == "approval.not-on-card"


# What is shown is what is signed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Contract, DatasetManifest, Analysis])
def test_hub_alters_what_is_shown(desk: Desk, pair: tuple[Visitor, Visitor], kind: type[Contract]) -> None:
    """Another text under the id that was asked for, with the original signatures or with the attacker's own."""
    aoki, _ = pair
    contract = version(desk, 1)
    for name, envelope in desk.hub.objects:
        if name == kind.KIND:
            altered = (
                envelope.payload.replace(b"People", b"Nobody").replace(b"trial", b"fairy").replace(b"Trial", b"Fairy")
            )
            assert altered != envelope.payload
            desk.hub.lies[envelope.payload_id] = replace(envelope, payload=altered)
    page = aoki.get(f"/contracts/{contract}")
    assert code(page) == "hub.object-altered"
    assert "fairy" not in page.text.lower()
    assert code(aoki.approve(contract)) == "hub.object-altered"
    assert not own_approvals(desk)


def test_signature_of_a_stranger_is_not_shown(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """A contract in the name of a drafter who did not sign it, correctly addressed: it is not even listed."""
    aoki, _ = pair
    genuine = Contract.decode(desk.publish().contract.payload)
    forged = seal(replace(genuine, title="Signed by nobody you know"), TestParty.named("Mallory").signing)
    desk.hub.put_object(forged)
    desk.console.library.look_again()
    assert "Signed by nobody you know" not in aoki.page("/contracts")
    assert code(aoki.get(f"/contracts/{forged.payload_id}")) == "signature.signer"
    assert code(aoki.approve(forged.payload_id)) == "signature.signer"


def test_contract_swapped_between_view_and_sign(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    """The form carries what was shown; sending it to another contract's address is refused, whatever was signed."""
    aoki, _ = pair
    shown, swapped = version(desk, 1), version(desk, 2)
    assert code(aoki.approve(swapped, shown=shown)) == "approval.contract"
    options = aoki.post(f"/contracts/{shown}/approve/options").json()
    assert options["challenge"] == _text(bytes.fromhex(shown))
    assert options["userVerification"] == "required"


def _text(data: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# The pages --------------------------------------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"
QUOTE = "\"' onmouseover=alert(1) x='"


class Elements(HTMLParser):
    """What a browser would make of a page: elements and attributes that could run something, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.dangerous: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        scripted = tag == "script" and not str(given.get("src", "")).startswith("/static/")
        handlers = [name for name in given if name.startswith("on") or name in ("style", "srcdoc")]
        links = [v for n, v in attrs if n in ("href", "src", "action") and v and not v.startswith(("/", "#"))]
        if scripted or handlers or links or tag in ("img", "iframe", "object", "embed", "style", "base"):
            self.dangerous.append(f"{tag} {attrs}")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("poison", [SCRIPT, QUOTE, "{{ 7919*7927 }}", "{contract}", "<img src=x onerror=alert(1)>"])
def test_texts_of_strangers_stay_texts(
    desk: Desk, pair: tuple[Visitor, Visitor], poison: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Party name, titles, purpose, column descriptions, codes, source and reasons are shown as text and nothing else."""
    aoki, _ = pair
    world = desk.setting.world
    stranger = world.owners[1]
    card = replace(stranger.card.record, name=poison)
    world.owners = (world.owners[0], replace(stranger, card=open_card(seal(card, stranger.signing))), *world.owners[2:])
    world.change_contract = lambda contract: replace(contract, title=f"T {poison}", purpose=poison)
    poison_objects(monkeypatch, poison)
    bundle = desk.publish()
    contract = bundle.contract.payload_id
    pages = [aoki.get(path) for path in ("/", "/contracts", f"/contracts/{contract}", "/parties", "/data", "/analyst")]
    pages += [aoki.get(f"/contracts/{contract}/amend"), aoki.get(f"/data/{bundle.manifests[1].payload_id}")]
    for page in pages:
        assert page.status_code == 200
        found = Elements()
        found.feed(page.text)
        assert not found.dangerous
        assert "62773913" not in found.text
    told = " ".join(unescape(page.text) for page in pages)
    assert poison in told


def poison_objects(monkeypatch: pytest.MonkeyPatch, poison: str) -> None:
    """Every text that a stranger writes into a data set or an analysis."""
    manifest, analysis = World.manifest, World.analysis

    def bad_manifest(self: World, owner: TestParty) -> Envelope:
        record = DatasetManifest.decode(manifest(self, owner).payload)
        code = Code(value="1", label=poison[:200])
        column = replace(record.columns[0], description=poison, unit=poison[:40], codes=(code,))
        return seal(replace(record, title=f"T {poison}", columns=(column, *record.columns[1:])), owner.signing)

    def bad_analysis(self: World) -> Envelope:
        record = Analysis.decode(analysis(self).payload)
        return seal(replace(record, title=f"A {poison}", source=f"SELECT 1 -- {poison}"), self.analyst.signing)

    monkeypatch.setattr(World, "manifest", bad_manifest)
    monkeypatch.setattr(World, "analysis", bad_analysis)


FORMS = [route for route in ROUTES if route.method == "POST" and route.access != "open"]


@pytest.mark.parametrize("route", FORMS, ids=lambda route: route.path)
def test_every_form_needs_the_sessions_own_token(
    desk: Desk, pair: tuple[Visitor, Visitor], route: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cross-site request forgery: without the token, with another session's, with a wrong one."""
    aoki, baba = pair
    assert isinstance(route, type(ROUTES[0]))
    contract = version(desk, 1)
    path = re.sub(r"\{(contract|subject|analysis)\}", contract, route.path)
    for token in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": baba.csrf}):
        refused = aoki.client.post(path, data={"x": "y", **token})
        assert refused.status_code == 403
        assert "session.csrf" in refused.text


@pytest.mark.parametrize("route", [r for r in ROUTES if r.method == "POST"], ids=lambda route: route.path)
def test_every_form_comes_from_the_consoles_own_pages(desk: Desk, route: object) -> None:
    """Another site's page, or a sandboxed one, posts nothing: not to sign in, not to choose a language."""
    assert isinstance(route, type(ROUTES[0]))
    path = re.sub(r"\{[a-z]+\}", "00" * 32, route.path)
    for origin in ("https://evil.example", "null", "http://localhost:9999", "http://localhost"):
        assert desk.client(origin=origin).post(path, data={"csrf": "x"}).status_code == 403
    crossed = desk.client().post(path, data={"csrf": "x"}, headers={"sec-fetch-site": "cross-site"})
    assert crossed.status_code == 403
    assert desk.client().post(path, json={"csrf": "x"}).status_code == 415


def test_every_page_needs_somebody_who_is_signed_in(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    version(desk, 1)
    stranger = desk.client()
    closed = [route for route in ROUTES if route.access != "open"]
    assert len(closed) > 30
    for route in closed:
        path = re.sub(r"\{[a-z]+\}", "00" * 32, route.path)
        answer = stranger.get(path) if route.method == "GET" else stranger.post(path, data={"x": "y"})
        assert answer.status_code in (303, 403)
        assert answer.headers.get("location", "/sign-in") == "/sign-in"


def test_no_other_site_frames_scripts_or_reads_a_page(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    aoki, _ = pair
    for page in (aoki.get("/"), aoki.get("/sign-in"), aoki.get("/nowhere"), aoki.get("/static/console.css")):
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
    for path in ("/", "/people", "/settings", "/contracts"):
        text = aoki.get(path).text
        assert not re.search(
            r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|https?://(?!localhost)", text
        )


def test_cookie_is_out_of_reach(desk: Desk, pair: tuple[Visitor, Visitor]) -> None:
    aoki, _ = pair
    cookie = aoki.sign_in().headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    from kakoi.console.visit import session_cookie

    with_tls = replace_tls()
    assert session_cookie(with_tls, "t").startswith("__Host-kakoi-")
    assert "Secure" in session_cookie(with_tls, "t")


def replace_tls() -> Settings:
    return Settings(
        host="0.0.0.0",  # noqa: S104 - what is tested
        name="console.hospital.example",
        tls_certificate=Path("certificate.pem"),
        tls_key=Path("key.pem"),
    )


def test_another_name_for_this_machine(desk: Desk) -> None:
    """DNS rebinding: a stranger's name that points at loopback gets no page."""
    for host in ("evil.example", "evil.example:8443", "localhost:9999", "127.0.0.1.evil.example:8443"):
        assert desk.client().get("/sign-in", headers={"host": host}).status_code in (307, 421)
    assert desk.client().get("/x//evil.example", headers={"host": "127.0.0.1:8443"}).headers["location"] == ORIGIN + "/"


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example", "/\\evil.example", "/x//evil.example", "/%0d%0aSet-Cookie: a=b", ""],
)
def test_no_redirect_leads_elsewhere(desk: Desk, back: str) -> None:
    answer = desk.client().post("/language", data={"language": "ja", "back": back})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    assert "a=b" not in answer.headers["set-cookie"]


def test_large_and_odd_forms(desk: Desk) -> None:
    client = desk.client()
    assert client.post("/sign-in", data={"answer": "x" * 400_000}).status_code == 413
    odd = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"\xff\xfe", b"&&&", b"a" * 10, b"=&" * 5000):
        assert client.post("/language", content=body, headers=odd).status_code == 400
    for answer in ("", "[]", "{}", "[" * 30_000, '{"rawId": 1, "response": {}}', '{"rawId": "AA", "response": "x"}'):
        assert client.post("/sign-in", data={"answer": answer}).status_code == 400


@pytest.mark.parametrize(
    "make",
    [
        lambda: Settings(host="0.0.0.0"),  # noqa: S104 - what is tested
        lambda: Settings(host="10.0.0.1"),
        lambda: Settings(name="console.hospital.example"),
        lambda: Settings(tls_certificate=Path("certificate.pem")),
        lambda: Settings(name="10.0.0.1", tls_certificate=Path("c"), tls_key=Path("k")),
    ],
)
def test_nothing_but_loopback_without_tls(make: Callable[[], Settings]) -> None:
    with pytest.raises(Misuse):
        make()


def test_downloads_start_no_formula(desk: Desk) -> None:
    """A label that a spreadsheet would run is written as text."""
    from kakoi.console.runs import as_csv
    from kakoi.wire.released import ReleasedColumn, ReleasedTable

    labels = ReleasedColumn(name="site", role="group", cells=("=cmd|'/c calc'!A1", "-5", "@SUM(1)"), held_back=())
    counts = ReleasedColumn(name="n", role="count", cells=("5", "6", None), held_back=(2,))
    text = as_csv(ReleasedTable(name="t", columns=(labels, counts), margins=(), rows_withheld=False)).decode(
        "utf-8-sig"
    )
    assert [line.split(",")[0] for line in text.splitlines()[1:]] == ["'=cmd|'/c calc'!A1", "-5", "'@SUM(1)"]
    assert text.splitlines()[3].endswith(",n")


def test_errors_of_handlers_are_ours(desk: Desk) -> None:
    """Nothing of the inside of the program is in an error page."""
    aoki = desk.enrol("Dr. Aoki")
    for path in ("/contracts/zz", "/runs/" + "0" * 64, "/data/%00", "/contracts/" + "0" * 63, "/enrol/" + "x" * 5000):
        page = aoki.get(path)
        assert page.status_code in (400, 403, 404)
        assert "Traceback" not in page.text
        assert "/home.py" not in page.text


def test_visits_are_judged_before_handlers_run() -> None:
    """The form's token is checked where forms are dispatched, so that no new form can forget it."""
    import inspect

    from kakoi.console import app

    source = inspect.getsource(app._answer)
    assert source.index("require_csrf") < source.index("route.handler(visit)")
