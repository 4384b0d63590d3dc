"""Every shipped rule looks for what is really emitted: a code, event or mark that was renamed would leave a rule that never fires."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from attacks.test_attack_monitoring import alerts, answer, stream_of
from attacks.test_attack_requests import get, send
from kakoi.attest.report import Check, Verdict
from kakoi.guard.happening import KINDS, Happening
from kakoi.guard.recorder import Recorder
from kakoi.guard.sigma.rules import shipped_texts
from kakoi.guard.stream import FILE, Stream
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.sdk.alarm import FORKS
from support.broker_setting import Setting
from support.error_codes import Scan
from support.hub_client import signed
from support.tree import ROOT

DOCUMENTS: list[dict[str, Any]] = [
    document for text in shipped_texts().values() for document in yaml.safe_load_all(text) if document
]
CODES = {*Scan().codes, *(f"quarantine.{what}" for what in ("begun", "over", "cleared", "lifted"))}
"""Codes of errors, and those that only events have."""
SOURCES = {path: path.read_text("utf-8") for path in (ROOT / "src/kakoi").rglob("*.py")}


def known(field: str) -> set[str]:
    """Every value that a field of an event can have here."""
    name = field.partition("|")[0]
    if name == "metadata.event_code":
        return set(KINDS)
    if name == "status_code":
        return CODES
    if name in ("unmapped.kakoi.marks", "unmapped.kakoi.failed"):
        return {word for text in SOURCES.values() for word in re.findall(r'"([a-z][a-z.-]{2,40})"', text)}
    return set()


def searched(detection: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields and single values that a rule's selections look for."""
    for name, selection in detection.items():
        if name == "condition":
            continue
        for part in selection if isinstance(selection, list) else [selection]:
            for field, values in part.items():
                for value in values if isinstance(values, list) else [values]:
                    yield field, str(value)


def missing(documents: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """What rules look for and nothing emits."""
    found = []
    for document in documents:
        for field, value in searched(document.get("detection", {})):
            emitted = known(field)
            if emitted and not any(fnmatchcase(one, value) for one in emitted):
                found.append((str(document["title"]), field, value))
    return found


def test_what_rules_look_for_is_emitted() -> None:
    assert missing(DOCUMENTS) == []
    assert sum(1 for document in DOCUMENTS for field, _ in searched(document.get("detection", {})) if known(field)) > 40


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status_code", "session.replaid"),
        ("status_code", "overlap.*"),
        ("metadata.event_code", "broker.grand"),
        ("unmapped.kakoi.marks", "first-seem"),
        ("unmapped.kakoi.failed", "report-dada"),
    ],
)
def test_a_renamed_one_is_found(field: str, value: str) -> None:
    document = {"title": "x", "detection": {"selection": {field: [value]}, "condition": "selection"}}
    assert missing([document]) == [("x", field, value)]


def test_every_alert_has_a_test_that_commits_the_crime() -> None:
    """By its title: rules below low are halves of others."""
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    alerts = [str(document["title"]) for document in DOCUMENTS if document.get("level") not in (None, "informational")]
    assert len(alerts) > 15
    assert [title for title in alerts if title not in tests] == []


def test_a_log_that_does_not_fit_is_looked_for_under_every_code_that_says_so() -> None:
    (document,) = [item for item in DOCUMENTS if "forked or rolled back" in str(item["title"])]
    assert set(FORKS) == {value for field, value in searched(document["detection"]) if field == "status_code"}


def test_the_first_key_for_a_measurement_is_told_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    original = setting.judge

    def judge(*arguments: Any) -> Verdict:
        good = original(*arguments)
        check = Check(
            name="measurement.mrenclave", outcome="passed", expected="ab" * 32, got="ab" * 32, mender="nobody"
        )
        return replace(good, checks=(*good.checks, check))

    monkeypatch.setattr(setting, "judge", judge)
    agreement = setting.publish()
    for number in range(2):
        answer(setting, agreement, str(number))
    with stream_of(setting) as stream:
        assert alerts(stream).count("Key released to a measurement for the first time") == 1


def test_who_floods_a_program_with_events_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kakoi.guard.recorder.QUEUE", 4)
    gate = threading.Event()
    with closing(Stream(tmp_path / FILE, name="N", component="hub", now=1)) as stream:
        recorder = Recorder(stream, component="hub", clock=lambda: 1000, watch=gate.wait)
        for number in range(50):
            recorder.hear(
                Happening(what="hub.refused", at=1000, component="hub", outcome="failure", actor=f"stranger {number}")
            )
        gate.set()
        recorder.stop()
        assert "Events were lost" in alerts(stream)


def test_replays_at_a_hub_burst(tmp_path: Path) -> None:
    """A recorded request, sent three times more."""
    settings = Settings(directory=tmp_path / "hub", port=0)
    with running(settings) as server:
        request = signed(server, get())
        assert [send(server, request)[0] for _ in range(4)] == [200, 401, 401, 401]
    with closing(Stream(settings.directory / FILE, name="hub", component="hub", now=0)) as stream:
        assert [e["status_code"] for e in stream.newest(what="hub.identity")][:1] == ["hub.replay"]
        assert "Burst of replays" in alerts(stream)
