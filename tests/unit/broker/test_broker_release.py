"""Releases: written down before they are said, within budgets, once; and a ledger that cannot be put back unnoticed."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Contract, ContractAnalysis
from kakoi.contract.sign import open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.testing.world import NOW, seeded
from kakoi.wire.messages import Denial, EarlierCohorts, KeyGrant, Release, ReleaseRequest
from support.broker_setting import Setting


def rules_of(contract: Contract, **changes: Any) -> Contract:
    """The contract with other rules of every owner, and many runs."""
    return replace(
        contract,
        data=tuple(replace(entry, rules=replace(entry.rules, **changes)) for entry in contract.data),
        analyses=tuple(ContractAnalysis(analysis=item.analysis, max_runs=1000) for item in contract.analyses),
    )


@dataclass
class Released:
    """One run that was asked for, with a session that got the key."""

    setting: Setting
    agreement: Agreement
    run: ObjectId
    session: Envelope

    @classmethod
    def make(cls, setting: Setting, *, nonce: str = "1", minimum_age: int = 40) -> Released:
        agreement = setting.publish()
        request = setting.world.request(agreement, nonce=nonce, minimum_age=minimum_age)
        setting.hub.put_object(request)
        setting.broker().step(wait=0)
        session = setting.session(request.payload_id, agreement)
        setting.hub.put_object(session)
        setting.broker().step(wait=0)
        assert any(KeyGrant.decode(g.payload).run == request.payload_id for g in setting.hub.of_kind(KeyGrant.KIND))
        return cls(setting=setting, agreement=agreement, run=request.payload_id, session=session)

    def ask(
        self,
        *,
        kilobytes: int = 1,
        cohorts: str = "cohorts",
        keys: str = "session",
        epsilon: str = "none",
        noise: ObjectId | None = None,
    ) -> Envelope:
        record = ReleaseRequest(
            run=self.run,
            attempt=1,
            contract=self.agreement.id,
            session=self.session.payload_id,
            cohorts=seeded(cohorts + self.run, 4096),
            output_kilobytes=kilobytes,
            epsilon=epsilon,
            noise=noise,
        )
        envelope = seal(record, SigningKey(seeded(keys + "/signing", crypto.SIGNING_SECRET)))
        self.setting.hub.put_object(envelope)
        return envelope


def releases(setting: Setting) -> list[Release]:
    return [open_signed(Release, e, setting.home.card).record for e in setting.hub.of_kind(Release.KIND)]


def denials(setting: Setting) -> list[str]:
    return [open_signed(Denial, e, setting.home.card).record.code for e in setting.hub.of_kind(Denial.KIND)]


def test_a_release_is_written_down_and_says_what_left_earlier(setting: Setting) -> None:
    first = Released.make(setting)
    asked = first.ask()
    setting.broker().step(wait=0)
    second = Released.make(setting, nonce="2")
    second.ask()
    setting.broker().step(wait=0)
    one, two = releases(setting)
    assert (one.position, two.position) == (1, 2)
    assert one.request == asked.payload_id
    earlier = {e.payload_id: EarlierCohorts.decode(e.payload) for e in setting.hub.of_kind(EarlierCohorts.KIND)}
    assert earlier[one.earlier].cohorts == ()
    assert earlier[two.earlier].cohorts == (ReleaseRequest.decode(asked.payload).cohorts,)
    assert [entry["run"] for entry in Ledger(setting.path / "ledger.sqlite").releases.entries()] == [
        first.run,
        second.run,
    ]


def test_asked_again_it_says_nothing_twice(setting: Setting) -> None:
    case = Released.make(setting)
    case.ask()
    for _ in range(3):
        setting.broker().step(wait=0)
    assert len(releases(setting)) == 1


def test_a_second_request_of_the_session_is_not_answered(setting: Setting) -> None:
    case = Released.make(setting)
    case.ask()
    case.ask(cohorts="others")
    setting.broker().step(wait=0)
    assert len(releases(setting)) == 1
    assert setting.told[-1].code == "session.second"


def test_only_the_session_that_got_the_key_is_answered(setting: Setting) -> None:
    case = Released.make(setting)
    case.ask(keys="thief")
    setting.broker().step(wait=0)
    assert releases(setting) == []
    assert setting.told[-1].code == "signature.signer"


def test_an_attempt_that_died_does_not_count_against_the_next_one(setting: Setting) -> None:
    """The cohorts of the same run are not held against itself, and the run counts once."""
    setting.world.change_contract = lambda c: rules_of(c, budget_runs=1)
    case = Released.make(setting)
    case.ask()
    setting.broker().step(wait=0)
    ledger = Ledger(setting.path / "ledger.sqlite")
    (entry,) = ledger.releases.entries()
    spent = ledger.releases.spent([str(item) for item in entry["datasets"]], str(entry["analysis"]), besides=case.run)
    assert (spent.runs, spent.kilobytes, spent.settings) == (0, 0, frozenset())
    assert ledger.releases.earlier(str(ledger.releases.entries()[0]["data"]), besides=case.run) == ()


@pytest.mark.parametrize(
    ("changes", "kilobytes"), [({"budget_runs": 2}, 1), ({"budget_kilobytes": 20}, 10)], ids=["runs", "kilobytes"]
)
def test_a_budget_that_is_used_up_denies(setting: Setting, changes: dict[str, int], kilobytes: int) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **changes)
    for number in range(3):
        case = Released.make(setting, nonce=str(number))
        case.ask(kilobytes=kilobytes)
        setting.broker().step(wait=0)
    assert len(releases(setting)) == 2
    assert denials(setting) == ["ledger.budget"]
    assert setting.told[-1].outcome == "no"
    # Nothing in the message is a number of the ledger.
    assert not any(c.isdigit() for c in setting.told[-1].message + setting.told[-1].hint)


NOISY = {"epsilon_per_run": "0.5", "epsilon_budget": "1.2"}


def noise(number: int) -> ObjectId:
    return ObjectId(f"{number:064x}")


def let_go(setting: Setting, *numbers: int, epsilon: str = "0.5") -> None:
    """Runs one after another whose noise belongs to these."""
    for at, number in enumerate(numbers):
        Released.make(setting, nonce=f"{at}/{number}").ask(epsilon=epsilon, noise=noise(number))
        setting.broker().step(wait=0)


def test_privacy_loss_adds_up_until_the_budget_is_used(setting: Setting) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    let_go(setting, 1, 2, 3)
    assert len(releases(setting)) == 2
    assert denials(setting) == ["ledger.epsilon"]
    assert "rule epsilon_budget" in setting.told[-1].message
    assert not any(c.isdigit() for c in setting.told[-1].message + setting.told[-1].hint)


def test_the_same_noise_costs_once_also_when_nothing_is_left(setting: Setting) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    let_go(setting, 1, 1, 1, 2, 2, 3, 1)
    assert len(releases(setting)) == 6
    assert denials(setting) == ["ledger.epsilon"]


def test_thousandths_add_up_exactly(setting: Setting) -> None:
    """Ten times 0.1 is 1, whatever floats say, and 0.10 is 0.1."""
    setting.world.change_contract = lambda c: rules_of(c, epsilon_per_run="0.10", epsilon_budget="0.3")
    let_go(setting, 1, 2, 3, 4, epsilon="0.10")
    assert len(releases(setting)) == 3


def test_privacy_loss_counts_over_contracts(setting: Setting) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    let_go(setting, 1, 2)
    setting.world.change_contract = lambda c: replace(rules_of(c, **NOISY), title="The next version")
    let_go(setting, 3)
    assert denials(setting) == ["ledger.epsilon"]


def test_what_left_before_a_budget_was_demanded_counts(setting: Setting) -> None:
    """Another owner demanded noise: this owner's ledger noted the loss, and its own later budget starts there."""
    others = {**NOISY, "epsilon_budget": "1000"}
    setting.world.change_contract = lambda c: rules_of(c, **others)
    let_go(setting, 1, 2)
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    let_go(setting, 3)
    assert denials(setting) == ["ledger.epsilon"]


@pytest.mark.parametrize("epsilon", ["none", "0.4", "5"])
def test_another_noise_than_the_contract_s_is_refused(setting: Setting, epsilon: str) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    Released.make(setting).ask(epsilon=epsilon, noise=None if epsilon == "none" else noise(1))
    setting.broker().step(wait=0)
    assert (releases(setting), denials(setting)) == ([], ["session.release-noise"])


def test_noise_that_nobody_demands_is_refused(setting: Setting) -> None:
    Released.make(setting).ask(epsilon="0.5", noise=noise(1))
    setting.broker().step(wait=0)
    assert (releases(setting), denials(setting)) == ([], ["session.release-noise"])


def test_a_cost_without_noise_is_malformed(setting: Setting) -> None:
    setting.world.change_contract = lambda c: rules_of(c, **NOISY)
    Released.make(setting).ask(epsilon="0.5", noise=None)
    setting.broker().step(wait=0)
    assert releases(setting) == []
    assert setting.told[-1].code == "release-request.noise"


def test_budgets_count_over_contracts(setting: Setting) -> None:
    """Another version of the contract over the same data has no new budget."""
    setting.world.change_contract = lambda c: rules_of(c, budget_runs=1)
    Released.make(setting).ask()
    setting.broker().step(wait=0)
    setting.world.change_contract = lambda c: replace(rules_of(c, budget_runs=1), title="The next version")
    Released.make(setting, nonce="2").ask()
    setting.broker().step(wait=0)
    assert denials(setting) == ["ledger.budget"]


def test_a_withdrawal_stops_the_release(setting: Setting) -> None:
    case = Released.make(setting)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.withdraw(case.agreement.id, NOW)
    ledger.close()
    case.ask()
    setting.broker().step(wait=0)
    assert releases(setting) == []
    assert "decision.withdrawn" in denials(setting)


STEPS = ("put_object", "get_object", "feed", "run")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 10))
def test_death_at_every_request_releases_once(setting: Setting, when: str, nth: int) -> None:
    """The process dies before or after its nth request to the hub; a new one over the same ledger goes on."""
    case = Released.make(setting)
    case.ask()
    counter = itertools.count(1)

    def die(step: str) -> None:
        if next(counter) == nth:
            raise Unavailable("hub.unreachable", f"died {when} {step}")

    setattr(setting.hub, when, die)
    try:
        setting.broker().step(wait=0)
    except Unavailable:
        pass
    finally:
        setattr(setting.hub, when, lambda step: None)
    for _ in range(2):
        setting.broker().step(wait=0)
    (one,) = releases(setting)
    entries = Ledger(setting.path / "ledger.sqlite").releases.entries()
    assert [entry["run"] for entry in entries] == [case.run]
    assert one.position == 1


def twice(setting: Setting, keep: Path) -> None:
    """A release, a copy of the ledger, and another release."""
    Released.make(setting).ask()
    setting.broker().step(wait=0)
    keep.mkdir()
    for path in setting.path.glob("ledger.*"):
        shutil.copy(path, keep)
    Released.make(setting, nonce="2").ask()
    setting.broker().step(wait=0)
    assert len(releases(setting)) == 2


def put_back(setting: Setting, keep: Path, *names: str) -> None:
    for path in setting.path.glob("ledger.sqlite*"):
        path.unlink()
    for name in names:
        for path in keep.glob(name):
            shutil.copy(path, setting.path)


def test_an_old_copy_of_the_database_is_found_out(setting: Setting, tmp_path: Path) -> None:
    twice(setting, tmp_path / "keep")
    put_back(setting, tmp_path / "keep", "ledger.sqlite*")
    with pytest.raises(Fatal, match=r"ledger\.rolled-back"):
        Ledger(setting.path / "ledger.sqlite")


def test_a_forged_release_does_not_stop_a_broker(setting: Setting) -> None:
    """Nobody but the owner can say that its ledger lost something."""
    case = Released.make(setting)
    case.ask()
    setting.broker().step(wait=0)
    (real,) = setting.hub.of_kind(Release.KIND)
    forged = replace(Release.decode(real.payload), position=99)
    setting.hub.put_object(seal(forged, setting.world.analyst.signing))
    setting.broker().step(wait=0)


@pytest.mark.parametrize(
    "edit",
    [
        "update release set body = replace(cast(body as text), '\"kilobytes\":1', '\"kilobytes\":0')",
        "update release set cohorts = zeroblob(4096)",
        "update release set seq = 7",
        "delete from release",
        "update release set hash = zeroblob(32)",
    ],
)
def test_an_edited_release_does_not_open(setting: Setting, edit: str) -> None:
    Released.make(setting).ask()
    setting.broker().step(wait=0)
    with sqlite3.connect(setting.path / "ledger.sqlite") as database:
        database.execute(edit)
    with pytest.raises(Fatal, match=r"ledger\.(chain|rolled-back)"):
        Ledger(setting.path / "ledger.sqlite")
