"""A console over a party's real directory and a hub in memory, and people with software authenticators at it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path
from typing import Any, cast

import httpx

from kakoi.console.app import app_of, console_of
from kakoi.console.settings import Settings
from kakoi.console.visit import Console
from kakoi.contract.approve import ContractBundle
from kakoi.contract.model import Assertion
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import b64
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.hub.kinds import describe
from kakoi.net.answers import FeedItem, FeedPage
from kakoi.net.client import HubClient
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.software_authenticator import SoftwareAuthenticator, assertion_json
from kakoi.testing.world import TestParty, World
from support.broker_setting import Setting, make_setting

ORIGIN = "http://localhost:8443"
AGENT = "Browser/1"


class Browser:
    """Sends requests straight to an application and keeps cookies. It follows no redirect and runs no script."""

    def __init__(self, app: Any, *, agent: str, origin: str) -> None:
        self._transport = httpx.ASGITransport(app=app)
        self._headers = {"user-agent": agent, "origin": origin}
        self.cookies = httpx.Cookies()

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **what: Any
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url=ORIGIN, cookies=self.cookies, headers=self._headers
            ) as client:
                answer = await client.request(method, path, headers=headers, **what)
                self.cookies = client.cookies
                return answer

        return asyncio.run(send())

    def get(self, path: str, **what: Any) -> httpx.Response:
        return self.request("GET", path, **what)

    def post(self, path: str, **what: Any) -> httpx.Response:
        return self.request("POST", path, **what)


class ReferringHub(MemoryHub):
    """Finds objects by every reference that a real hub indexes. ``lies``: what it delivers in an object's place."""

    def __init__(self) -> None:
        super().__init__()
        self.lies: dict[str, Envelope] = {}

    def get_object(self, object_id: ObjectId) -> Envelope:
        """As ``HubClient`` hands it on: with the id computed again."""
        envelope = self.lies.get(object_id) or super().get_object(object_id)
        if envelope.payload_id != object_id:
            raise Refused("hub.object-altered", "expected the object with the id asked for, got another")
        return envelope

    def feed(
        self,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        refs: Mapping[str, str] | None = None,
        wait: int = 0,
        limit: int = 100,
    ) -> FeedPage:
        self.before("feed")
        wanted = set((refs or {}).items())
        items = [
            FeedItem(seq=seq, id=envelope.payload_id, kind=kind)
            for seq, (kind, envelope) in enumerate(self.objects, start=1)
            if seq > after and (not kinds or kind in kinds) and wanted <= describe(envelope).references
        ][:limit]
        return FeedPage(items=tuple(items), next=items[-1].seq if items else after)


@dataclass
class Desk:
    """One party's console with everything around it."""

    setting: Setting
    console: Console
    people: dict[str, Visitor] = field(default_factory=dict)

    @property
    def hub(self) -> ReferringHub:
        return cast("ReferringHub", self.setting.hub)

    def enrol(self, name: str, role: str = "administrator") -> Visitor:
        """Invite and enrol somebody; they are signed in afterwards."""
        token = self.console.people.invite(name, cast("Any", role), by="test")
        visitor = Visitor(desk=self, device=self.device(name), name=name)
        visitor.use_invitation(token)
        visitor.sign_in()
        self.people[name] = visitor
        return visitor

    def device(self, name: str) -> SoftwareAuthenticator:
        return SoftwareAuthenticator(name=name, relying_party="localhost", origin=ORIGIN)

    def card_with(self, required: int) -> None:
        """Everybody who is enrolled gets onto the party's card, by the party's keys."""
        home = self.setting.home
        home.adopt(
            home.next_card(
                people=self.console.people.for_card(),
                approvals_required=required,
                relying_party="localhost",
                created=self.setting.clock.now(),
            )
        )
        me = self.setting.world.owners[0]
        mine = replace_card(me, self.setting)
        self.setting.world.owners = (mine, *self.setting.world.owners[1:])

    def publish(self, *, silent: Sequence[str] = ("Own",)) -> ContractBundle:
        """A contract with everything it names on the hub; all but the silent have approved."""
        self.setting.world.silent = silent
        bundle = self.setting.world.bundle()
        self.put(bundle)
        return bundle

    def put(self, bundle: ContractBundle) -> None:
        named = (*bundle.cards, *bundle.manifests, *bundle.code, *bundle.analyses)
        for envelope in (*named, bundle.contract, *bundle.approvals):
            self.hub.put_object(envelope)
        self.console.library.look_again()

    def client(self, *, agent: str = AGENT, origin: str = ORIGIN) -> Browser:
        return Browser(app_of(self.console), agent=agent, origin=origin)


def replace_card(party: TestParty, setting: Setting) -> TestParty:
    return replace(party, card=setting.home.card)


@dataclass
class Visitor:
    """Somebody at a browser that does what the pages' script does."""

    desk: Desk
    device: SoftwareAuthenticator
    name: str
    client: Browser = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.desk.client()

    def use_invitation(self, token: str) -> Any:
        options = self.client.post(f"/enrol/{token}/options", data={"_": ""}).json()
        answer = self.device.registration(_bytes(options["challenge"]))
        return self.client.post(f"/enrol/{token}", data={"label": "laptop", "answer": json.dumps(answer)})

    def sign_in(self) -> Any:
        challenge = _bytes(self.client.post("/sign-in/options", data={"_": ""}).json()["challenge"])
        answer = json.dumps(assertion_json(self.device.assertion(challenge)))
        return self.client.post("/sign-in", data={"answer": answer})

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.get("/settings").text)
        assert found is not None
        return found[1]

    def get(self, path: str) -> Any:
        return self.client.get(path)

    def post(self, path: str, **fields: str | list[str]) -> Any:
        return self.client.post(path, data={"csrf": self.csrf, **fields})

    def confirmed(self, path: str, **fields: str) -> Any:
        """Send a form that needs a fresh confirmation."""
        options = self.post("/confirm/options", _path=path, **fields).json()
        answer = json.dumps(assertion_json(self.device.assertion(_bytes(options["challenge"]))))
        return self.post(path, answer=answer, **fields)

    def approve(self, contract: str, assertion: Assertion | None = None, *, shown: str = "") -> Any:
        made = assertion or self.device.assertion(bytes.fromhex(contract))
        answer = json.dumps(assertion_json(made))
        return self.post(f"/contracts/{contract}/approve", shown=shown or contract, answer=answer)

    def page(self, path: str) -> str:
        """The text of a page, with its entities resolved."""
        return unescape(self.get(path).text)


@contextmanager
def open_desk(tmp_path: Path, world: World | None = None) -> Iterator[Desk]:
    """A console whose party is the first owner of the world."""
    setting = make_setting(tmp_path, world)
    setting.hub = ReferringHub()
    console = console_of(
        settings=Settings(),
        home=setting.home,
        hub=cast("HubClient", setting.hub),
        clock=setting.clock,
        verifiers=lambda policy: {},
        broker=True,
    )
    try:
        yield Desk(setting=setting, console=console)
    finally:
        console.store.close()


def _bytes(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def identity(bundle: ContractBundle) -> ObjectId:
    return bundle.contract.payload_id


def device_field(device: SoftwareAuthenticator) -> str:
    return b64(device.credential_id)
