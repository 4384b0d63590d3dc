"""Operators in a real browser: sign in at the provider with a second factor, look, narrow a party's networks, sign out; in two languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from e2e.theatre import CHROMIUM
from kakoi.say.catalogue import read
from support.hub_client import client_of
from support.operators import Scene, scene
from unit.hub.hubkit import World, put_all

pytestmark = pytest.mark.slow
FOLDER = "hub/operators/messages"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if not CHROMIUM:
        pytest.skip("needs Debian's packages chromium and fonts-noto-cjk (scripts/system-packages.sh test)")
    with scene(tmp_path_factory.mktemp("operations") / "hub") as made:
        with client_of(made.server) as hub:
            put_all(hub, World().setup)
        yield made


@pytest.fixture(scope="module")
def browser(stage: Scene) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


def sign_in(stage: Scene, page: Page, *, second: bool = True) -> None:
    page.goto(stage.url + "/")
    page.click("a.primary")
    page.fill("input[name=name]", "aiko")
    page.fill("input[name=password]", stage.chief.password)
    page.fill("input[name=code]", stage.chief.code() if second else "")
    page.click("button")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_day_of_an_operator(stage: Scene, browser: Browser, language: str, tmp_path: Path) -> None:
    words = read(FOLDER, language)
    context = browser.new_context(locale=language)
    page = context.new_page()
    strange: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and message.location["url"].startswith(stage.url):
            strange.append(message.text)

    page.on("console", heard)
    sign_in(stage, page)
    page.wait_for_url(stage.url + "/")
    assert page.locator("h1").inner_text() == words["nav.overview"]
    (cookie,) = (one for one in context.cookies() if "session" in one["name"])
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Strict")
    for path in ("/", "/parties", "/activity"):
        page.goto(stage.url + path)
        assert page.locator("html").get_attribute("lang") == language
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        for width in (390, 1280):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
    page.goto(stage.url + "/parties")
    card = page.locator("section", has_text="Hospital").first
    card.locator("summary").click()
    card.locator("input[name=networks]").fill("192.0.2.0/24")
    card.locator("form[action='/parties/networks'] button").click()
    page.locator("section", has_text="Hospital").first.get_by_text("192.0.2.0/24").first.wait_for()
    page.locator(".side .who > form button").click()
    page.get_by_text(words["sign-in.out"]).wait_for()
    page.goto(stage.url + "/parties")
    assert page.url == stage.url + "/sign-in"
    assert strange == []
    context.close()


def test_a_password_alone_does_not_open_the_page(stage: Scene, browser: Browser) -> None:
    context = browser.new_context(locale="en")
    page = context.new_page()
    sign_in(stage, page, second=False)
    page.get_by_text("operators.factors").wait_for()
    page.goto(stage.url + "/")
    assert page.url == stage.url + "/sign-in"
    context.close()


def test_both_languages_say_the_same() -> None:
    english, japanese = read(FOLDER, "en"), read(FOLDER, "ja")
    assert set(english) == set(japanese)
    assert all(japanese[key].strip() for key in english)
