"""A run as its page tells it: renewals as rounds, what strangers say left out, news noticed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from kakoi.console import pages_runs, runs
from kakoi.console.visit import Visit
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.net.answers import RunState
from support.console_desk import Desk, Visitor, open_desk

LEASE = 300


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


def granted(desk: Desk) -> tuple[ObjectId, Envelope]:
    """A run whose session holds this owner's key."""
    setting = desk.setting
    agreement = setting.publish()
    request = setting.world.request(agreement)
    desk.hub.put_object(request)
    setting.broker().step(wait=0)
    session = setting.session(request.payload_id, agreement)
    desk.hub.put_object(session)
    setting.broker().step(wait=0)
    return request.payload_id, session


def renewed(desk: Desk, session: Envelope, number: int) -> None:
    setting = desk.setting
    setting.clock.time += LEASE // 2
    setting.broker().step(wait=0)
    desk.hub.put_object(setting.renewal(session, number))
    setting.broker().step(wait=0)
    setting.broker().step(wait=0)
    desk.console.library.look_again()


def test_renewals_are_rounds_of_the_timeline(desk: Desk) -> None:
    aoki: Visitor = desk.enrol("Dr. Aoki")
    run, session = granted(desk)
    before = runs.view(desk.console.library, run)
    assert [step.kind for step in before.steps] == ["challenge", "session", "key-grant"]
    for number in (1, 2, 3):
        renewed(desk, session, number)
    now = runs.view(desk.console.library, run)
    assert now.said > before.said
    assert [(step.kind, step.renewal) for step in now.steps[3:]] == [("renewal", 1), ("renewal", 2), ("renewal", 3)]
    for step in now.steps[3:]:
        assert [part.kind for part in step.parts] == ["challenge", "session-renewal", "lease"]
        assert step.until == desk.setting.clock.time - (3 - step.renewal) * (LEASE // 2) + LEASE
        assert step.parts[-1].checks
    page = aoki.page(f"/runs/{run}")
    assert page.count("Renewal of the leases") == 3
    assert "Verified anew, lease renewed" in page
    assert "checks passed" in page
    part = aoki.page(f"/runs/{run}/part")
    assert part.count("Renewal of the leases") == 3


def test_a_renewal_signed_by_another_session_is_not_shown(desk: Desk) -> None:
    run, session = granted(desk)
    desk.setting.clock.time += LEASE // 2
    desk.setting.broker().step(wait=0)
    desk.hub.put_object(desk.setting.renewal(session, 1, keys="thief"))
    desk.console.library.look_again()
    shown = runs.view(desk.console.library, run)
    assert [part.kind for step in shown.steps for part in step.parts] == ["challenge"]


def test_the_page_says_whom_a_run_waits_for(desk: Desk) -> None:
    """Before anybody answers, with one of three answers, with evidence, and not of a run that has ended."""
    aoki: Visitor = desk.enrol("Dr. Aoki")
    setting = desk.setting
    agreement = setting.publish()
    request = setting.world.request(agreement)
    run = request.payload_id
    desk.hub.put_object(request)
    assert "No enclave has taken the run yet." in aoki.page(f"/runs/{run}")

    setting.hub.states[run] = RunState(state="claimed", attempt=2)
    assert "It waits for an answer of " in aoki.page(f"/runs/{run}/part")
    assert "This is attempt 2." in aoki.page(f"/runs/{run}/part")
    setting.hub.states[run] = RunState(state="claimed", attempt=1)
    names = [setting.world.owners[place].card.record.name for place in range(3)]
    setting.broker().step(wait=0)
    desk.console.library.look_again()
    page = aoki.page(f"/runs/{run}/part")
    assert f"It waits for an answer of {', '.join(names[1:])}." in page
    found = runs.waiting(desk.console.library, runs.view(desk.console.library, run))
    assert found is not None
    assert (found.what, found.names) == ("owners", tuple(names[1:]))

    setting.hub.states[run] = RunState(state="abandoned", attempt=5)
    ended = runs.view(desk.console.library, run)
    assert ended.state == "abandoned"
    assert runs.waiting(desk.console.library, ended) is None
    assert "waits for" not in aoki.page(f"/runs/{run}/part")


def test_a_change_of_what_a_run_waits_for_is_told_to_a_page_that_follows(desk: Desk) -> None:
    """Nobody signed anything: the hub said that an enclave took the run, and the page is to show it."""
    desk.enrol("Dr. Aoki")
    setting = desk.setting
    agreement = setting.publish()
    request = setting.world.request(agreement)
    desk.hub.put_object(request)
    view = runs.view(desk.console.library, request.payload_id)
    visit = cast("Visit", SimpleNamespace(console=desk.console))
    told = cast("Generator[str, None, None]", pages_runs._events(visit, view))
    assert "retry" in next(told)
    setting.hub.states[request.payload_id] = RunState(state="claimed", attempt=1)
    assert next(told).startswith("event: changed")
    told.close()
    assert desk.console.streams == []
