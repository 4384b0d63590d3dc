"""The security page: what happened, what the rules made of it, and a chain that shows when it is broken."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Route, sync_playwright

from e2e.theatre import CHROMIUM, FLAGS, looking, screenshot
from kakoi.broker.feed import ledger_feed
from kakoi.console.feed import people_feed
from kakoi.console.trends import Bucket, trend
from kakoi.guard.detect import Detector
from kakoi.guard.happening import Happening
from kakoi.guard.sigma.rules import shipped
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Watch
from support.console_desk import Desk, open_desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        home, clock = made.setting.home, made.setting.clock.now
        stream = Stream(home.path / FILE, name="Own", component="console", signer=home.keys.signer(), now=clock())
        feeds = [ledger_feed(home.path / "ledger.sqlite", None), people_feed(home.path / "people.sqlite")]
        watch = Watch(stream, component="console", clock=clock, feeds=feeds, detector=Detector(stream, shipped()))
        made.console.watch = watch
        try:
            yield made
        finally:
            watch.close()


def commit_crimes(desk: Desk) -> None:
    now = desk.setting.clock.now()
    stream = desk.console.watch.stream  # type: ignore[union-attr]
    stream.append(
        *(
            Happening(
                what="console.sign-in",
                at=now + n,
                component="console",
                outcome="failure",
                code="passkey.challenge-used",
                address="192.0.2.9",
            )
            for n in range(12)
        )
    )


def test_the_page_shows_stream_alerts_and_trend(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    commit_crimes(desk)
    page = aoki.page("/security")
    assert "Password-less brute force against a console" in page
    assert "passkey enrolled" in page
    assert "Dr. Aoki" in page
    assert "192.0.2.9" in page
    assert "they are exported nowhere" in page.lower()
    assert re.search(
        r'<svg class="plot"[^>]*aria-label="The last 24 hours\. as it should be: \d+; refused: 12; alerts: \d+"', page
    )
    assert not re.search(r"\b(?:style|onclick)=", page)


def test_both_languages(desk: Desk) -> None:
    aoki = desk.enrol("青木医師")
    commit_crimes(desk)
    aoki.client.post("/language", data={"language": "ja", "back": "/security"})
    page = aoki.page("/security")
    assert "コンソールへのパスキーの総当たり" in page
    assert "青木医師" in page
    assert "Password-less" not in page


def test_a_broken_chain_stands_first(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    assert "All " in aoki.page("/security")
    with closing(sqlite3.connect(desk.setting.home.path / FILE)) as database:
        database.execute("delete from event where seq = 2")
        database.commit()
    page = aoki.page("/security")
    assert "The chain of events is broken" in page
    assert "event.gap" in page


def test_older_events_are_a_page_away(desk: Desk) -> None:
    aoki = desk.enrol("Dr. Aoki")
    aoki.page("/security")
    stream = desk.console.watch.stream  # type: ignore[union-attr]
    now = desk.setting.clock.now()
    stream.append(*(Happening(what="broker.note", at=now, component="broker", outcome="failure") for _ in range(60)))
    page = aoki.page("/security")
    (link,) = re.findall(r"/security\?before=(\d+)", page)
    assert "passkey enrolled" not in page
    assert "passkey enrolled" in aoki.page(f"/security?before={link}")


def test_without_a_stream_the_page_says_so(tmp_path: Path) -> None:
    with open_desk(tmp_path) as desk:
        assert "Nothing was written down yet" in desk.enrol("Dr. Aoki").page("/security")


def test_a_trend_of_nothing_and_of_much() -> None:
    empty = [Bucket(label="00", ordinary=0, refused=0, alerts=0)] * 24
    assert "polygon" not in trend(empty, label="x", words=("a", "b", "c"))
    much = [Bucket(label="00", ordinary=10**6, refused=3, alerts=1)]
    text = trend(much, label="<x>", words=("a", "b", "c"))
    assert "polygon" in text
    assert "&lt;x&gt;" in text


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_page_is_sound_in_a_browser(desk: Desk, language: str) -> None:
    """Real Chromium, the application behind it without a network; axe finds nothing serious, nothing scrolls sideways."""
    if not CHROMIUM:
        pytest.skip("needs Debian's packages chromium and fonts-noto-cjk (scripts/system-packages.sh test)")
    aoki = desk.enrol("青木医師" if language == "ja" else "Dr. Aoki")
    desk.publish()
    commit_crimes(desk)
    aoki.client.post("/language", data={"language": language, "back": "/security"})

    document = aoki.client.get("/security")
    paths = {"/security", *re.findall(r'(?:href|src)="(/static/[^"]+)"', document.text)}
    answers = {path: aoki.client.get(path) for path in paths}

    def serve(route: Route) -> None:
        answer = answers["/" + route.request.url.split("/", 3)[3]]
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.route("**/*", serve)
        page.goto("http://localhost:8443/security")
        assert page.locator("h1").count() == 1
        screenshot(page, f"security-{language}")
        found = Axe().run(page).response["violations"]
        assert not [
            f"{v['id']}: {v['nodes'][0]['html'][:160]}" for v in found if v["impact"] in ("serious", "critical")
        ]
        with looking(page, width=390):
            screenshot(page, f"security-{language}-390")
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        with looking(page, dark=True):
            screenshot(page, f"security-{language}-dark")
        browser.close()
