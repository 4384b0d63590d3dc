"""The console's pages: until Chromium paints something meaningful, and how much processor time one page costs the server.

Everything runs in processes of their own, as at a hospital: hub, broker with console, browser with a virtual authenticator. Wall times
of a busy machine say what else it does; so the least of several is given as well as the median, and processor time beside them.
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, sync_playwright

from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.console.people import People
from kakoi.console.store import Store
from kakoi.enclave import machine
from kakoi.party.home import PartyHome

ROUNDS: Final = 15
Row = tuple[str, float, str]
_PAINT: Final = """new Promise(done => {
  const found = () => performance.getEntriesByName('first-contentful-paint')[0];
  const look = () => found() ? done(found().startTime) : setTimeout(look, 5);
  look();
})"""
_AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def run() -> list[Row]:
    """Start a deployment, sign somebody in, load pages; milliseconds."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return [("skipped", 0.0, "needs Debian's package chromium")]
    with tempfile.TemporaryDirectory() as name, Stage(Path(name)) as stage, sync_playwright() as playwright:
        cast = _deployed(Path(name), stage)
        home = cast.hospitals[0]
        _console(stage, home)
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_context(locale="en-GB").new_page()
        address = _signed_in(page, home)
        pages = {"home": "/", "contracts": "/contracts", "review of a contract": f"/contracts/{cast.contract}"}
        pages |= {"people": "/people", "new contract": "/contracts/new", "settings": "/settings"}
        server = stage.process_id("console")
        rows = [row for what, path in pages.items() for row in _measured(page, what, address + path, server)]
        browser.close()
    return rows


def _deployed(directory: Path, stage: Stage) -> Cast:
    files = write_hospitals(directory)
    cast = Cast(directory=directory)
    cast.make_parties(files)
    cast.make_enclave()
    client = stage.start_hub()
    for home, item in zip(cast.hospitals, files, strict=True):
        cast.seal_and_upload(client, home, item)
    contract = cast.draft(client, log_key(directory / "hub"), machine.missing())
    cast.agreed = cast.publish(client, contract)
    return cast


def _console(stage: Stage, home: PartyHome) -> None:
    command = ["console", "serve", "--party", str(home.path), "--hub", stage.hub_url]
    stage.start("console", [*command, "--console-port", "0", "--key-file", str(home.path / "key")])


def _signed_in(page: Page, home: PartyHome) -> str:
    path, deadline = home.path / "console.address", time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, "the console did not start"
        time.sleep(0.05)
    address = path.read_text().strip()
    store = Store(home.path / "people.sqlite")
    token = People(store, SystemClock(), invitation_seconds=600).invite("Dr. Aoki", "administrator", by="bench")
    store.close()
    cdp = page.context.new_cdp_session(page)
    cdp.send("WebAuthn.enable")
    cdp.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})
    page.goto(f"{address}/enrol/{token}")
    page.get_by_role("button", name="Make a passkey").click()
    page.get_by_role("heading", name="Your passkey is ready").wait_for()
    page.goto(f"{address}/sign-in")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.get_by_role("heading", name="Good day").wait_for()
    return address


def _measured(page: Page, what: str, url: str, server: int) -> list[Row]:
    paints: list[float] = []
    answers: list[float] = []
    page.goto(url)
    before = _processor(server)
    for _ in range(ROUNDS):
        page.goto(url)
        paints.append(float(page.evaluate(_PAINT)))
        timing: dict[str, Any] = page.evaluate("performance.getEntriesByType('navigation')[0].toJSON()")
        answers.append(float(timing["responseEnd"]) - float(timing["requestStart"]))
    spent = (_processor(server) - before) / ROUNDS * 1000
    paint = f"least {min(paints):.0f}, most {max(paints):.0f} of {ROUNDS}"
    answer = f"median until the answer is whole {statistics.median(answers):.0f} ms, least {min(answers):.0f}"
    return [
        (f"{what}: first contentful paint, ms", statistics.median(paints), paint),
        (f"{what}: the server's processor time, ms", spent, answer),
    ]


def _processor(process: int) -> float:
    """Seconds of processor time that a process has used, all its threads together."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
