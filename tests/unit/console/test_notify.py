"""Notifications: settings, what is sent, when it is sent again, and that it never says what waits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kakoi.cli.main import app
from kakoi.console import notify, outgoing
from kakoi.console.herald import Herald
from kakoi.console.notify import Mail, Notify, Webhook
from kakoi.console.people import Member
from kakoi.contract.model import Withdrawal
from kakoi.contract.sign import seal
from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.testing.world import NOW
from support.console_desk import Desk, open_desk
from support.receivers import HookReceiver, certificate, hook_receiver, mail_server

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def receiver() -> Iterator[HookReceiver]:
    with hook_receiver() as made:
        yield made


def hooked(receiver: HookReceiver, path: str = "/hooks/kakoi?room=7") -> Notify:
    hook = Webhook(url=f"http://127.0.0.1:{receiver.port}{path}", secret=SECRET)
    return Notify(webhook=hook, internal=("127.0.0.1",))


def mailed(port: int, authorities: Path, directory: Path) -> Notify:
    password = directory / "password"
    password.write_text("correct horse\n")
    mail = Mail(
        server="localhost",
        port=port,
        security="starttls",
        sender="kakoi@hospital.example",
        user="kakoi",
        password_file=str(password),
    )
    return Notify(mail=mail, authorities=str(authorities))


def member(desk: Desk, name: str) -> Member:
    return next(person for person in desk.console.people.members() if person.name == name)


# Settings ---------------------------------------------------------------------------------------------------------------


def test_settings_survive_writing_and_reading(tmp_path: Path) -> None:
    assert notify.load(tmp_path) == Notify()
    mail = Mail(server="smtp.example", port=465, security="tls", sender="a@b.example", user="u", password_file='/p"\\x')
    whole = Notify(
        webhook=Webhook(url="https://chat.example/hook?a=b", secret=SECRET), mail=mail, internal=("chat.example",)
    )
    notify.save(tmp_path, whole)
    assert notify.load(tmp_path) == whole
    assert (tmp_path / notify.FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "http://chat.example/hook",
        "ftp://chat.example/hook",
        "https://user@chat.example/",
        "https://user:word@chat.example/",
        "https://chat.example/#part",
        "https://",
        "https:///path",
        "https://chat.example:0/",
        "https://chat.example:99999/",
        "https://chat.example/a b",
        "https://chat.example/a\r\nX-Other: 1",
        "https://chat.example/\u3042",
        "https://chat_example/",
        "https://[::1",
        "file:///etc/passwd",
        "https://chat.example/" + "a" * 2000,
        "",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(Malformed, match="https address"):
        Webhook(url=url, secret=SECRET)


@pytest.mark.parametrize(
    "text", ["", "a", "a@", "@b", "a@b\nBcc: c@d", "a b@c", "a@b,c@d", "a@b>", "a" * 65 + "@b", "あ@b"]
)
def test_mail_addresses_that_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        notify.require_mailbox(text)


@pytest.mark.parametrize(
    "text",
    [
        "webhook = 1",
        "[webhook]\nurl = 'https://a.example/'",
        "[webhook]\nurl = 'https://a.example/'\nsecret = 'whsec_AAAA'",
        "other = 1",
        "internal = 'a'\n[mail]\n",
        "[mail]\nserver='a'\nport='25'\nsecurity='tls'\nsender='a@b'",
        "[mail]\nserver='a'\nport=25\nsecurity='none'\nsender='a@b'",
        "[mail]\nserver='a'\nport=25\nsecurity='tls'\nsender='a@b'\nuser='x'",
        "[mail]\nserver='a'\nport=true\nsecurity='tls'\nsender='a@b'",
        "internal = ['a/b']",
        "= =",
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / notify.FILE).write_text(text)
    with pytest.raises(Malformed):
        notify.load(tmp_path)


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    directory = tmp_path_factory.mktemp("any")
    (directory / notify.FILE).write_bytes(data)
    try:
        notify.load(directory)
    except KakoiError:
        return


# The web hook -----------------------------------------------------------------------------------------------------------


def test_a_web_hook_is_signed_and_says_nothing(receiver: HookReceiver) -> None:
    settings = hooked(receiver)
    assert settings.webhook is not None
    outgoing.post(settings, settings.webhook, identity="msg_1", now=1_800_000_000, origin="http://localhost:8443")
    (got,) = receiver.got
    assert got.path == "/hooks/kakoi?room=7"
    assert json.loads(got.body) == {
        "type": "kakoi.waiting",
        "timestamp": "2027-01-15T08:00:00Z",
        "data": {"console": "http://localhost:8443"},
    }
    signed = f"msg_1.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert "cookie" not in got.headers


def test_redirects_and_refusals_are_not_followed(receiver: HookReceiver) -> None:
    settings = hooked(receiver)
    assert settings.webhook is not None
    with hook_receiver() as elsewhere:
        receiver.status, receiver.location = 307, f"http://127.0.0.1:{elsewhere.port}/"
        with pytest.raises(Unavailable, match="status 307"):
            outgoing.post(settings, settings.webhook, identity="msg_1", now=1, origin="")
        assert not elsewhere.got


def test_a_proxy_of_the_environment_is_not_asked(receiver: HookReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = hooked(receiver)
    assert settings.webhook is not None
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    outgoing.post(settings, settings.webhook, identity="msg_1", now=1, origin="")
    assert len(receiver.got) == 1


def test_a_closed_port_and_an_unknown_host() -> None:
    hook = Webhook(url="http://127.0.0.1:9/", secret=SECRET)
    with pytest.raises(Unavailable, match="nobody"):
        outgoing.post(Notify(internal=("127.0.0.1",)), hook, identity="m", now=1, origin="")
    with pytest.raises(Unavailable, match="found"):
        outgoing.addresses("no-such-host.invalid", 443, internal=())


# Mail -------------------------------------------------------------------------------------------------------------------


def test_mail_goes_through_starttls_with_a_login(tmp_path: Path) -> None:
    with mail_server(tmp_path) as server:
        settings = mailed(server.port, tmp_path / "localhost.pem", tmp_path)
        assert settings.mail is not None
        outgoing.send_mail(settings, settings.mail, to="aoki@hospital.example", subject="日本語", text="本文\n", now=1)
    (got,) = server.got
    assert (got["To"], got["From"], got["Subject"]) == ("aoki@hospital.example", "kakoi@hospital.example", "日本語")
    assert got["Auto-Submitted"] == "auto-generated"
    assert server.logins == [("kakoi", "correct horse")]


def test_mail_does_not_go_in_clear_or_to_a_stranger(tmp_path: Path) -> None:
    with mail_server(tmp_path, offer_tls=False) as server:
        settings = mailed(server.port, tmp_path / "localhost.pem", tmp_path)
        assert settings.mail is not None
        with pytest.raises(Unavailable):
            outgoing.send_mail(settings, settings.mail, to="a@b.example", subject="s", text="t", now=1)
        assert not server.got
    other, _ = certificate(tmp_path, "elsewhere.example")
    with mail_server(tmp_path) as server:
        settings = mailed(server.port, other, tmp_path)
        assert settings.mail is not None
        with pytest.raises(Unavailable, match="certificate"):
            outgoing.send_mail(settings, settings.mail, to="a@b.example", subject="s", text="t", now=1)
        assert not server.logins


# The herald -------------------------------------------------------------------------------------------------------------


def test_everybody_for_whom_something_waits_is_told_once(desk: Desk, receiver: HookReceiver, tmp_path: Path) -> None:
    aoki, baba = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba", "member")
    desk.card_with(2)
    herald = Herald(desk.console)
    with mail_server(tmp_path) as server:
        settings = mailed(server.port, tmp_path / "localhost.pem", tmp_path)
        notify.save(
            desk.console.home.path,
            Notify(
                webhook=hooked(receiver).webhook,
                mail=settings.mail,
                internal=("127.0.0.1",),
                authorities=settings.authorities,
            ),
        )
        assert aoki.post("/settings/mail", address="aoki@hospital.example").status_code == 303
        baba.client.cookies.set("kakoi-language", "ja")
        assert baba.post("/settings/mail", address="baba@hospital.example").status_code == 303
        herald.step()
        assert not receiver.got
        title = desk.publish().contract
        for _ in range(3):
            herald.step()
        assert len(receiver.got) == 1
        assert {message["To"] for message in server.got} == {"aoki@hospital.example", "baba@hospital.example"}
        assert len(server.got) == 2
    texts = [receiver.got[0].body.decode(), *(message.as_string() for message in server.got)]
    secret = json.loads(title.payload)
    for text in texts:
        assert secret["title"] not in text
        assert title.payload_id not in text
        assert "Own" not in text
    subjects = {message["To"]: message["Subject"] for message in server.got}
    assert subjects["aoki@hospital.example"] == "Something waits for you in Kakoi"
    assert subjects["baba@hospital.example"] == "Kakoi であなたを待つものがあります"


def test_what_fails_is_tried_again_with_growing_pauses_and_then_dropped(desk: Desk, receiver: HookReceiver) -> None:
    desk.enrol("Dr. Aoki")
    desk.card_with(1)
    desk.publish()
    notify.save(desk.console.home.path, hooked(receiver))
    herald, clock = Herald(desk.console), desk.setting.clock
    receiver.status = 503
    times = []
    for _ in range(200):
        before = len(receiver.got)
        herald.step()
        if len(receiver.got) > before:
            times.append(clock.time)
        clock.time += 600
    assert len(times) == 7
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert desk.console.store.rows("select person, what, about from event order by seq desc limit 1") == [
        ("", "not-told", "notify.answer")
    ]
    assert not desk.console.store.rows("select * from outbox")


def test_a_restart_neither_repeats_nor_forgets(desk: Desk, receiver: HookReceiver) -> None:
    desk.enrol("Dr. Aoki")
    desk.card_with(1)
    desk.publish()
    notify.save(desk.console.home.path, hooked(receiver))
    receiver.status = 500
    Herald(desk.console).step()
    receiver.status = 200
    desk.setting.clock.time += 31
    Herald(desk.console).step()
    desk.setting.clock.time += 10_000
    Herald(desk.console).step()
    assert [got.headers["webhook-id"] for got in receiver.got] == [receiver.got[0].headers["webhook-id"]] * 2


def test_another_partys_withdrawal_is_told_as_well(desk: Desk, receiver: HookReceiver) -> None:
    aoki = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    contract = desk.publish().contract.payload_id
    aoki.approve(contract)
    notify.save(desk.console.home.path, hooked(receiver))
    herald = Herald(desk.console)
    herald.step()
    assert not receiver.got
    east = desk.setting.world.owners[1]
    record = Withdrawal(party=east.id, contract=contract, dataset=None, reason="A pause.", withdrawn_at=NOW)
    desk.hub.put_object(seal(record, east.signing))
    desk.console.library.look_again()
    herald.step()
    herald.step()
    assert len(receiver.got) == 1
    assert b"pause" not in receiver.got[0].body


def test_a_removed_person_gets_no_mail(desk: Desk) -> None:
    desk.enrol("Dr. Aoki")
    desk.enrol("Ms. Baba")
    herald = Herald(desk.console)
    baba = member(desk, "Ms. Baba")
    herald.set_mailbox(baba, "baba@hospital.example", "en")
    desk.console.people.remove(baba.id, by=member(desk, "Dr. Aoki"))
    assert herald.mailbox(baba) is None


# Settings page and command ----------------------------------------------------------------------------------------------


def test_an_administrator_sets_the_web_hook_and_tries_it(desk: Desk, receiver: HookReceiver) -> None:
    aoki, baba = desk.enrol("Dr. Aoki"), desk.enrol("Ms. Baba", "member")
    url = f"http://127.0.0.1:{receiver.port}/"
    assert "people.not-administrator" in baba.post("/settings/webhook", url=url).text
    assert aoki.post("/settings/webhook", url=url, answer="{}").status_code == 400
    made = aoki.confirmed("/settings/webhook", url=url)
    assert made.status_code == 200
    hook = notify.load(desk.console.home.path).webhook
    assert hook is not None
    assert hook.secret in made.text
    assert hook.secret not in aoki.page("/settings")
    assert "notify.internal-host" in aoki.post("/settings/test").text
    assert not receiver.got
    notify.save(desk.console.home.path, Notify(webhook=hook, internal=("127.0.0.1",)))
    assert "Sent to 127.0.0.1." in aoki.post("/settings/test").text
    assert len(receiver.got) == 1
    assert aoki.confirmed("/settings/webhook", url="").status_code == 200
    assert notify.load(desk.console.home.path).webhook is None
    assert "notify.nothing" in aoki.post("/settings/test").text


def test_settings_by_command(desk: Desk) -> None:
    run = CliRunner()
    base = ["console", "notify", "--party", str(desk.console.home.path)]
    done = run.invoke(app, [*base, "--webhook", "https://chat.example/x", "--internal", "Chat.example"])
    assert done.exit_code == 0, done.output
    present = notify.load(desk.console.home.path)
    assert present.webhook is not None
    assert present.webhook.secret in done.output
    assert present.internal == ("chat.example",)
    mail = ["--mail-server", "smtp.example", "--mail-from", "kakoi@hospital.example"]
    assert run.invoke(app, [*base, *mail]).exit_code == 0
    assert notify.load(desk.console.home.path).webhook == present.webhook
    assert "smtp.example" in desk.enrol("Dr. Aoki").page("/settings")
    assert run.invoke(app, [*base, "--webhook", "http://chat.example/x"]).exit_code == 3
    assert run.invoke(app, [*base, "--off"]).exit_code == 0
    assert notify.load(desk.console.home.path) == Notify()


def test_settings_that_cannot_be_read_are_shown_as_such(desk: Desk) -> None:
    (desk.console.home.path / notify.FILE).write_text("= =")
    page = desk.enrol("Dr. Aoki").page("/settings")
    assert "notify.toml" in page
    with pytest.raises(Malformed):
        Herald(desk.console).step()


def test_names_that_are_internal_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(2, 1, 6, "", ("93.184.215.14", 443)), (2, 1, 6, "", ("10.0.0.7", 443))]

    monkeypatch.setattr("socket.getaddrinfo", answer)
    with pytest.raises(Refused, match="public Internet"):
        outgoing.addresses("chat.example", 443, internal=())
    assert len(outgoing.addresses("chat.example", 443, internal=("chat.example",))) == 2
