"""A whole deployment in processes of its own, and people with browsers: what the end-to-end tests play in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from playwright.sync_api import Browser, BrowserContext, CDPSession, Error, Page, Playwright, sync_playwright

from kakoi.broker import devmode
from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.console.people import People
from kakoi.console.store import Store
from kakoi.core.ids import ObjectId
from kakoi.enclave import machine
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from support.tree import ROOT

CHROMIUM: Final = shutil.which("chromium") or ""
FLAGS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SCREENS: Final = ROOT / "test-out" / "screens"
_AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@dataclass(slots=True)
class Person:
    """Somebody with a browser of their own and a virtual authenticator in it."""

    name: str
    context: BrowserContext
    page: Page
    cdp: CDPSession
    authenticator: str
    address: str
    errors: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        """Open a page of the person's console. A form that is still being sent is let finish first."""
        self.page.wait_for_load_state()
        try:
            self.page.goto(self.address + path)
        except Error as error:
            if "ERR_ABORTED" not in error.message:
                raise
            self.page.wait_for_load_state()
            self.page.goto(self.address + path)
        return self.page

    def credentials(self) -> list[dict[str, Any]]:
        """What the virtual authenticator holds."""
        found = self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})
        return list(found["credentials"])

    def verified(self, yes: bool) -> None:
        """Whether the authenticator verifies its user from now on."""
        self.cdp.send("WebAuthn.setUserVerified", {"authenticatorId": self.authenticator, "isUserVerified": yes})

    def enrol(self, link: str) -> None:
        """Use an invitation."""
        self.page.goto(link)
        self.page.get_by_label("Name of this device").fill(f"{self.name}'s laptop")
        self.page.get_by_role("button", name="Make a passkey").click()
        self.page.get_by_role("heading", name="Your passkey is ready").wait_for()

    def sign_in(self) -> None:
        """Sign in, and stand on the home page."""
        self.go("/sign-in")
        self.page.get_by_role("button", name="Sign in with a passkey").click()
        self.page.get_by_role("heading", name=f"Good day, {self.name}").wait_for()

    def approve(self, contract: str) -> None:
        """Approve a contract on its page."""
        self.go(f"/contracts/{contract}")
        self.page.get_by_role("button", name="Approve with my passkey").click()
        self.page.get_by_text("People who said yes:").wait_for()


class Theatre:
    """Hub, three brokers with consoles, an analyst's console, an enclave, and a browser."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self.stage = Stage(directory)
        self.cast = Cast(directory=directory)
        self.people: dict[str, Person] = {}
        self._browser: Browser | None = None

    def __enter__(self) -> Self:
        self._stack.enter_context(self.stage)
        playwright: Playwright = self._stack.enter_context(sync_playwright())
        self._browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        self._stack.callback(self._browser.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def set_up(self) -> ObjectId:
        """Everything that happens before people come in: data sealed, a first contract in force by keys alone."""
        files = write_hospitals(self.directory)
        self.cast.make_parties(files)
        self.cast.make_enclave()
        client = self._stack.enter_context(self.stage.start_hub())
        for home, item in zip(self.cast.hospitals, files, strict=True):
            self.cast.seal_and_upload(client, home, item)
        contract = self.cast.draft(client, log_key(self.directory / "hub"), machine.missing())
        self.cast.agreed = self.cast.publish(client, contract)
        for home, item in zip(self.cast.hospitals, files, strict=True):
            self._broker(item.path.parent.name, home)
        command = ["console", "serve", "--party", str(self.cast.researcher.path), "--hub", self.stage.hub_url]
        self.stage.start(
            "analyst", [*command, "--console-port", "0", "--key-file", str(self.cast.researcher.path / "key")]
        )
        self.stage.start_enclave("enclave", self.cast.image, self.cast.platform)
        for home in (*self.cast.hospitals, self.cast.researcher):
            self.address(home)
        return self.cast.contract

    def _broker(self, name: str, home: PartyHome) -> None:
        command = ["broker", "serve", "--party", str(home.path), "--hub", self.stage.hub_url]
        command += ["--collateral", str(self.cast.collateral), "--accept-software-platform"]
        command += ["--console", "--console-port", "0", "--key-file", str(home.path / "key")]
        self.stage.start(name, command, {devmode.VARIABLE: devmode.CONSENT})

    def address(self, home: PartyHome) -> str:
        """Where a party's console is, once it is there."""
        path = home.path / "console.address"
        deadline = time.monotonic() + 180
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return path.read_text().strip()

    def present(self, home: PartyHome) -> PartyHome:
        """A party's directory as it is now: its card may have changed."""
        return PartyHome.load(home.path, Unlock(key_file=home.path / "key"))

    def command(self, *arguments: str) -> str:
        """One command of kakoi; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "kakoi.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "400", "KAKOI_LANG": "en"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def invite(self, home: PartyHome, name: str, *, by_command: bool = False) -> str:
        """An administrator's first invitation; by the command itself, or by what it calls, which starts faster."""
        if by_command:
            return self.command("console", "invite", "--party", str(home.path), "--name", name).strip()
        store = Store(home.path / "people.sqlite")
        try:
            token = People(store, SystemClock(), invitation_seconds=600).invite(name, "administrator", by="operator")
        finally:
            store.close()
        return f"{self.address(home)}/enrol/{token}"

    def person(self, name: str, home: PartyHome, *, language: str = "en-GB") -> Person:
        """Somebody of a party sits down at a browser."""
        if self._browser is None:
            raise RuntimeError("no browser yet")
        context = self._browser.new_context(locale=language, viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.set_default_timeout(60_000)
        cdp = context.new_cdp_session(page)
        cdp.send("WebAuthn.enable")
        made = cdp.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})
        someone = Person(
            name=name,
            context=context,
            page=page,
            cdp=cdp,
            authenticator=str(made["authenticatorId"]),
            address=self.address(home),
        )
        page.on("console", lambda message: someone.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: someone.errors.append(str(error)))
        self.people[name] = someone
        return someone


@contextmanager
def looking(page: Page, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """The same page on another screen."""
    page.set_viewport_size({"width": width, "height": 900 if width > 500 else 844})
    page.emulate_media(color_scheme="dark" if dark else "light")
    try:
        yield page
    finally:
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of the whole page for somebody to look at."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
