"""Every group of bad twins of the conformance corpus, shown to a running broker: each is denied, with the reason on record.

What is the test's own is the override of report data: evidence of the corpus is bound to the corpus's session, not to the run's.
Everything else is the product's: the broker, its ledger, its decisions, the verifiers under the corpus's anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.report import Collateral, Evidence, Verdict
from kakoi.broker.ledger import Ledger
from kakoi.broker.service import Broker
from kakoi.conformance import build, own
from kakoi.conformance.corpus import Group, Vector
from kakoi.conformance.trial import Kind, Trial
from kakoi.contract.approve import Agreement
from kakoi.contract.sign import open_signed, seal
from kakoi.core.crypto import SIGNING_SECRET, SigningKey
from kakoi.core.errors import KakoiError
from kakoi.net.answers import RunState
from kakoi.testing.world import seeded
from kakoi.wire.messages import Denial, KeyGrant, Session
from support.broker_setting import Setting, make_setting

KINDS: tuple[Kind, ...] = ("sgx", "tdx", "snp", "azure-snp", "azure-tdx", "nitro")
QUICK = 6
"""Groups of each kind that every test run tries; the rest is slow."""


@dataclass
class Shelf:
    """What the broker is shown next: plays its judge's time and report data, and the vendor's answers."""

    trial: Trial | None = None

    @property
    def shown(self) -> Trial:
        assert self.trial is not None
        return self.trial

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        return self.shown.collateral

    def judge(
        self,
        evidence: Evidence,
        collateral: Collateral,
        agreement: Agreement,
        report_data: bytes,
        now: int,
        floors: Mapping[str, int],
    ) -> Verdict:
        """``registry.judge`` with the trial's policy, time and report data. What the broker hands over is the trial's own."""
        trial = self.shown
        assert (evidence, collateral) == (trial.evidence, trial.collateral)
        assert trial.policy is not None
        return registry.judge(
            evidence,
            collateral,
            trial.policy,
            report_data=bytes.fromhex(trial.report_data),
            now=trial.now,
            verifiers=own._chosen(trial),
            evaluation_floor=trial.evaluation_floor,
        )


@dataclass
class Owner:
    """One owner's broker, under a contract that accepts every kind of the corpus."""

    setting: Setting
    agreement: Agreement
    shelf: Shelf = field(default_factory=Shelf)
    runs: int = 0

    def __post_init__(self) -> None:
        self.broker = Broker(
            home=self.setting.home,
            ledger=Ledger(self.setting.path / "ledger.sqlite"),
            hub=self.setting.hub,
            collateral=self.shelf,
            judge=self.shelf.judge,
            clock=self.setting.clock,
            tell=self.setting.told.append,
        )

    def show(self, trial: Trial) -> Denial | KeyGrant:
        """A run whose session presents this trial's evidence; the broker's answer."""
        self.shelf.trial, self.runs = trial, self.runs + 1
        hub = self.setting.hub
        request = self.setting.world.request(self.agreement, nonce=str(self.runs))
        hub.put_object(request)
        self.broker.step(wait=0)
        honest = Session.decode(self.setting.session(request.payload_id, self.agreement).payload)
        signing = SigningKey(seeded("session/signing", SIGNING_SECRET))
        hub.put_object(seal(replace(honest, evidence=trial.evidence), signing))
        self.broker.step(wait=0)
        hub.states[request.payload_id] = RunState(state="failed", attempt=1)
        denials, grants = hub.of_kind(Denial.KIND), hub.of_kind(KeyGrant.KIND)
        if denials and Denial.decode(denials[-1].payload).run == request.payload_id:
            return open_signed(Denial, denials[-1], self.setting.home.card).record
        assert grants, "the broker said nothing"
        return open_signed(KeyGrant, grants[-1], self.setting.home.card).record


def richest(kind: Kind) -> Vector:
    """The minted vector with most groups."""
    return max(build.vectors([kind], None), key=lambda vector: len(vector.groups))


@pytest.fixture(scope="module")
def corpus() -> dict[str, Vector]:
    """One minted vector of each kind."""
    return {kind: richest(kind) for kind in KINDS}


@pytest.fixture
def owner(tmp_path: Path, corpus: dict[str, Vector]) -> Owner:
    setting = make_setting(tmp_path)
    entries = tuple(vector.groups[0].make(0)[1].entry for vector in corpus.values())
    policy = AttestationPolicy(accepted=entries)
    setting.world.change_contract = lambda contract: replace(contract, platforms=policy)
    return Owner(setting=setting, agreement=setting.publish())


def refused(owner: Owner, vector: Vector, group: Group) -> None:
    """One twin of the group is denied, for what our verifiers say about it, and the ledger has it word for word."""
    changed, trial = group.make(group.size // 2)
    name = f"{vector.name}/{group.name}: {changed}"
    if trial.policy is None:
        return
    with pytest.raises(KakoiError) as caught:
        own.judge(trial)
    before = len(owner.setting.told)
    answer = owner.show(trial)
    assert isinstance(answer, Denial), name
    said = [decision for decision in owner.setting.told[before:] if decision.outcome == "no"]
    assert said, name
    assert (said[-1].code, answer.code) == (caught.value.code, caught.value.code), name
    failed = {check["name"] for check in said[-1].checks if check["outcome"] == "failed"}
    assert failed == {check.name for check in answer.checks}, name
    assert not group.reasons or failed or caught.value.code, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_good_one_gets_a_key_and_some_twins_do_not(owner: Owner, corpus: dict[str, Vector], kind: str) -> None:
    """One group of each family."""
    vector = corpus[kind]
    assert isinstance(owner.show(vector.groups[0].make(0)[1]), KeyGrant)
    families: dict[str, Group] = {}
    for group in vector.groups:
        if not group.good and group.size and group.family not in families:
            families[group.family] = group
    for group in families.values():
        refused(owner, vector, group)
    assert len(families) >= QUICK
    grants = owner.setting.hub.of_kind(KeyGrant.KIND)
    assert len(grants) == 1, "nobody but the good one got a key"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_twin_of_every_group_is_denied_with_its_reason(owner: Owner, corpus: dict[str, Vector], kind: str) -> None:
    vector = corpus[kind]
    groups = [group for group in vector.groups if not group.good and group.size]
    for group in groups:
        refused(owner, vector, group)
    print(f"{kind}: {len(groups)} groups, each denied with its reason")
    assert len(groups) > 30
    assert not owner.setting.hub.of_kind(KeyGrant.KIND)
    ledger = Ledger(owner.setting.path / "ledger.sqlite")
    assert sum(1 for decision in ledger.decisions() if decision["step"] == "denial") == owner.runs
    ledger.close()
