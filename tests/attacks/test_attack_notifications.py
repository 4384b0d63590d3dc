"""Attacks through notifications, each really tried. THREAT_MODEL.md T58 and T59."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.console import notify, outgoing
from kakoi.console.herald import Herald
from kakoi.console.notify import Notify, Webhook
from kakoi.core.errors import Malformed, Refused
from support.console_desk import Desk, open_desk
from support.receivers import hook_receiver

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()
INSIDE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",  # noqa: S104 - an address to refuse
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata of a cloud
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",  # 10.0.0.1 behind NAT64
    "2002:7f00:1::",  # 127.0.0.1 as 6to4
    "ff02::1",
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def answers(monkeypatch: pytest.MonkeyPatch, *found: str) -> list[str]:
    """Names resolve to these from now on; what is asked for is noted."""
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, 1, 6, "", (a, port)) for a in found]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize("inside", INSIDE)
def test_a_web_hook_reaches_nothing_inside(monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    """A stolen administrator's console, or a name whose owner points it inwards."""
    answers(monkeypatch, "93.184.215.14", inside)
    with pytest.raises(Refused, match="public Internet"):
        outgoing.addresses("chat.example", 443, internal=("other.example",))


def test_a_name_is_looked_up_once_and_the_checked_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer would be another one."""
    asked = answers(monkeypatch, "93.184.215.14")
    called: list[object] = []

    def connect(where: object, **_: object) -> socket.socket:
        called.append(where)
        raise OSError("nobody there")

    monkeypatch.setattr("socket.create_connection", connect)
    hook = Webhook(url="https://chat.example/", secret=SECRET)
    with pytest.raises(Exception, match="nobody"):
        outgoing.post(Notify(), hook, identity="m", now=1, origin="")
    assert (asked, called) == (["chat.example"], [("93.184.215.14", 443)])


def test_a_web_hook_set_in_the_console_cannot_open_the_inside(desk: Desk) -> None:
    """The page cannot say which hosts are internal, and what a host inside answers is not shown."""
    aoki = desk.enrol("Dr. Aoki")
    with hook_receiver() as inside:
        url = f"http://127.0.0.1:{inside.port}/admin"
        assert aoki.confirmed("/settings/webhook", url=url, internal="127.0.0.1").status_code == 200
        assert notify.load(desk.console.home.path).internal == ()
        assert "notify.internal-host" in aoki.post("/settings/test").text
        Herald(desk.console).step()
        assert not inside.got


def test_a_mail_address_adds_no_recipient_and_no_line(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    for text in (
        "a@b.example\r\nBcc: all@b.example",
        "a@b.example,c@d.example",
        "<a@b.example>",
        "a@b.example\n\nText",
    ):
        assert "notify.mailbox" in aoki.post("/settings/mail", address=text).text
        with pytest.raises(Malformed):
            notify.require_mailbox(text)
    assert not desk.console.store.rows("select * from mailbox")
