"""Posture: every control passes on good facts and fails on bad ones; facts are gathered from real directories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kakoi.cli.posture import gather
from kakoi.core.errors import Misuse
from kakoi.guard.happening import Finding, Happening
from kakoi.guard.posture import CONTROLS, DAY, ContractFacts, Facts, stand
from kakoi.guard.stream import FILE, Stream
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from support.command_line import Run, runner
from support.console_desk import Desk, open_desk

NOW = 1_800_000_000
OPEN = "0.0.0.0"  # noqa: S104 - what must be found
CONTRACT = ContractFacts(
    id="ab" * 32,
    platforms=("sgx",),
    floors=(),
    lax_statuses=(),
    collateral_seconds=7 * DAY,
    minimum_cell=5,
    minimum_contributors=5,
    weaknesses=(),
    witnesses=2,
)
GOOD = Facts(
    now=NOW,
    role="party",
    devices={"Aoki": 2, "Baba": 3},
    people_on_card=2,
    approvals_required=2,
    contracts=(CONTRACT,),
    collateral_age=DAY,
    collateral_known=True,
    tcb_status="UpToDate",
    keys_since=NOW - 100 * DAY,
    listeners=(),
    exports=1,
    export_lag=3,
    restored_at=NOW - 20 * DAY,
    chain="",
    alerts=0,
    hours=True,
    key_beside=False,
    warned_packages=(),
    unseen=(),
    readable=(),
)


def contract(**changes: Any) -> dict[str, Any]:
    return {"contracts": (CONTRACT, replace(CONTRACT, id="cd" * 32, **changes))}


BAD: dict[str, list[dict[str, Any]]] = {
    "people-two-passkeys": [{"devices": {"Aoki": 2, "Baba": 1}}, {"devices": {}}],
    "two-people-approve": [{"approvals_required": 1}, {"people_on_card": 0, "approvals_required": 0}],
    "protected-by-hardware": [contract(platforms=("sgx", "software"))],
    "fresh-endorsements": [
        contract(collateral_seconds=None),
        contract(collateral_seconds=90 * DAY),
        {"collateral_age": 40 * DAY},
    ],
    "tcb-floor": [contract(floors=("sgx",)), contract(lax_statuses=("OutOfDate",)), {"tcb_status": "OutOfDate"}],
    "isolation-layers": [contract(weaknesses=("seccomp",))],
    "disclosure-thresholds": [contract(minimum_cell=1), contract(minimum_contributors=2)],
    "log-witness": [contract(witnesses=0)],
    "key-rotation": [{"keys_since": NOW - 800 * DAY}],
    "key-apart": [{"key_beside": True}],
    "secrets-private": [{"readable": ("secrets.json",)}],
    "no-open-listeners": [{"listeners": ("0.0.0.0 port 8443",)}],
    "events-whole": [{"chain": "event.gap"}],
    "events-exported": [{"exports": 0}, {"export_lag": 5000}],
    "alerts-looked-after": [{"alerts": 2}],
    "no-warned-packages": [{"warned_packages": ("duckdb==2.0.1",)}],
    "weaknesses-looked-for": [{"unseen": ("no advisories.json",)}],
    "release-hours": [{"hours": False}],
    "backup-restored": [{"restored_at": None}, {"restored_at": NOW - 300 * DAY}, {"restored_at": NOW + 2 * DAY}],
}


def state(facts: Facts, control: str) -> str:
    return next(item.state for item in stand(facts).judged if item.control.id == control)


def test_everything_good_is_a_hundred() -> None:
    found = stand(GOOD)
    assert {item.state for item in found.judged} == {"passed"}
    assert found.score == 100


def test_every_control_is_here_with_its_ids() -> None:
    assert set(BAD) == {control.id for control in CONTROLS}
    assert {control.azure for control in CONTROLS} <= set(range(1, 11))
    assert all(control.cis.count(".") == 1 and control.weight > 0 for control in CONTROLS)


@pytest.mark.parametrize(("control", "changes"), [(name, change) for name, all_ in BAD.items() for change in all_])
def test_each_control_passes_and_fails(control: str, changes: dict[str, Any]) -> None:
    assert state(GOOD, control) == "passed"
    worse = replace(GOOD, **changes)
    assert state(worse, control) == "failed"
    assert stand(worse).score < 100
    (item,) = [item for item in stand(worse).judged if item.control.id == control]
    assert item.evidence


def test_what_is_not_known_does_not_pass_and_what_is_no_concern_does_not_count() -> None:
    nothing = stand(Facts(now=NOW, role="party"))
    assert nothing.score == 0
    assert "unknown" in {item.state for item in nothing.judged}
    analyst = replace(GOOD, contracts=(replace(CONTRACT, minimum_cell=None, minimum_contributors=None),))
    assert state(analyst, "disclosure-thresholds") == "not-concerned"
    assert stand(analyst).score == 100
    hub = stand(replace(GOOD, role="hub"))
    assert {item.control.id for item in hub.judged} == {c.id for c in CONTROLS if "hub" in c.roles}


# -- gathered from real directories


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def test_a_partys_directory_is_looked_through(desk: Desk, tmp_path: Path) -> None:
    home = desk.setting.home
    desk.enrol("Dr. Aoki")
    facts = gather(home.path, None, NOW)
    assert facts.devices == {"Dr. Aoki": 1}
    assert (facts.people_on_card, facts.approvals_required, facts.key_beside, facts.readable) == (0, 0, False, ())
    assert (facts.exports, facts.restored_at, facts.chain, facts.contracts) == (0, None, None, ())
    desk.enrol("Ms. Baba")
    desk.card_with(2)
    (home.path / "secrets.json").chmod(0o644)
    (home.path / "key").write_bytes(bytes(32))
    (home.path / "guard.toml").write_text(f'export = ["jsonl:{tmp_path / "x"}"]\n[hours]\ntimezone = "Asia/Tokyo"\n')
    with closing(
        Stream(home.path / FILE, name="Own", component="broker", signer=home.keys.signer(), now=NOW)
    ) as stream:
        finding = Finding(
            rule="035b6df9-328a-5fe8-b1a0-7ec817090855", title="x", level="high", first=1, last=1, events=1
        )
        stream.append(Happening(what="guard.alert", at=NOW, component="guard", outcome="other", finding=finding))
    facts = gather(home.path, None, NOW)
    assert (facts.people_on_card, facts.approvals_required) == (2, 2)
    assert (facts.readable, facts.key_beside, facts.hours) == (("secrets.json",), True, True)
    assert (facts.exports, facts.export_lag, facts.chain, facts.alerts) == (1, 2, "", 1)


def test_contracts_are_read_from_the_hub_and_judged(desk: Desk) -> None:
    agreement = desk.setting.publish()
    assert gather(desk.setting.home.path, None, NOW).contracts is None
    (found,) = gather(desk.setting.home.path, desk.hub, NOW).contracts or ()
    assert found.id == agreement.id
    assert (found.platforms, found.floors, found.minimum_cell) == (("software",), ("software",), 3)
    assert (found.collateral_seconds, found.witnesses) == (86400, 0)


def test_a_hubs_directory(tmp_path: Path, run: Run) -> None:
    with running(Settings(directory=tmp_path / "hub", port=0)):
        pass
    said = run("posture", "--directory", tmp_path / "hub", "--json")
    assert said.code == 0, said.err
    told = json.loads(said.out)
    states = {control["id"]: control["state"] for control in told["controls"]}
    assert states["events-whole"] == states["secrets-private"] == states["no-open-listeners"] == "passed"
    assert states["events-exported"] == states["backup-restored"] == "failed"
    assert 0 < told["score"] < 100
    assert all(control["mend"] for control in told["controls"])
    assert run("posture", "--directory", tmp_path / "hub", "--fail-under", "100").error == "posture.score"
    shown = run("posture", "--directory", tmp_path / "hub")
    assert "FAILED" in shown.out
    assert "docs/monitoring.md" in shown.out.replace("\n", "")


def test_another_directory_is_none(tmp_path: Path) -> None:
    with pytest.raises(Misuse):
        gather(tmp_path, None, NOW)
