from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kakoi.attest.report import AppraisalRefused, Check, Collateral, Evidence, Verdict
from kakoi.broker.desk import CollateralSource
from kakoi.broker.ledger import Decision, Ledger
from kakoi.broker.service import Broker
from kakoi.contract.approve import Agreement
from kakoi.contract.model import DatasetManifest
from kakoi.contract.sign import open_card, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.world import NOW, TestParty, World, seeded
from kakoi.wire.messages import Challenge, Session, SessionRenewal
from support.conversation import verdict


@dataclass
class Clock:
    time: int = NOW

    def now(self) -> int:
        return self.time


class NoCollateral:
    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        return Collateral(parts=())


@dataclass
class Setting:
    """A broker in a real directory, with a world around it whose first owner it is."""

    path: Path
    world: World
    home: PartyHome
    hub: MemoryHub = field(default_factory=MemoryHub)
    clock: Clock = field(default_factory=Clock)
    told: list[Decision] = field(default_factory=list)
    good: bool = True
    refuse: bool = False
    collateral: CollateralSource = field(default_factory=NoCollateral)
    evaluation_number: int | None = None
    floors: list[dict[str, int]] = field(default_factory=list)
    """What ``judge`` was told of earlier evaluation numbers."""

    def broker(self) -> Broker:
        """A fresh process over the same directory."""
        return Broker(
            home=self.home,
            ledger=Ledger(self.path / "ledger.sqlite"),
            hub=self.hub,
            collateral=self.collateral,
            judge=self.judge,
            clock=self.clock,
            tell=self.told.append,
        )

    def judge(
        self,
        evidence: Evidence,
        collateral: Collateral,
        agreement: Agreement,
        report_data: bytes,
        now: int,
        floors: Mapping[str, int],
    ) -> Verdict:
        """Plays ``attest.registry.judge``, which has tests of its own."""
        self.floors.append(dict(floors))
        good = verdict(report_data, now)
        if self.evaluation_number is not None:
            claims = replace(good.claims, tcb_evaluation_number=self.evaluation_number, product="00906ed50000")
            good = replace(good, claims=claims)
        if self.refuse:
            bad = Check(name="measurement", outcome="failed", expected="aa", got="bb", mender="enclave-author")
            raise AppraisalRefused(
                Verdict(
                    claims=good.claims,
                    protected_by_hardware=False,
                    checks=(*good.checks, bad),
                    evaluated_at=now,
                    collateral=(),
                    collateral_issued_at=None,
                )
            )
        return good

    def publish(self) -> Agreement:
        """All objects of the contract on the hub, approved by this owner's own record."""
        bundle = self.world.bundle()
        for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract, *bundle.approvals):
            self.hub.put_object(envelope)
        ledger = Ledger(self.path / "ledger.sqlite")
        ledger.approve(bundle.contract.payload_id, NOW)
        ledger.close()
        return self.world.agreement()

    def challenges(self, request: ObjectId, attempt: int, renewal: int = 0) -> list[ObjectId]:
        """Ids of the challenges on the hub for this run, attempt and renewal."""
        found = [
            (envelope.payload_id, Challenge.decode(envelope.payload)) for envelope in self.hub.of_kind(Challenge.KIND)
        ]
        wanted = (request, attempt, renewal)
        return [identity for identity, asked in found if (asked.run, asked.attempt, asked.renewal) == wanted]

    def renewal(self, session: Envelope, number: int, *, keys: str = "session") -> Envelope:
        """Fresh evidence of a session, in answer to every challenge on the hub of this number."""
        of = Session.decode(session.payload)
        record = SessionRenewal(
            run=of.run,
            attempt=of.attempt,
            renewal=number,
            contract=of.contract,
            session=session.payload_id,
            challenges=tuple(sorted(self.challenges(of.run, of.attempt, number))),
            evidence=Evidence(platform="software", statement=b"fresh quote %d" % number, parts=()),
        )
        return seal(record, SigningKey(seeded(keys + "/signing", crypto.SIGNING_SECRET)))

    def session(self, request: ObjectId, agreement: Agreement, *, attempt: int = 1, keys: str = "session") -> Envelope:
        """A session that answers every challenge on the hub for this run and attempt."""
        signing = SigningKey(seeded(keys + "/signing", crypto.SIGNING_SECRET))
        sealing = SealingKey(seeded(keys + "/sealing", crypto.SEALING_SECRET))
        challenges = self.challenges(request, attempt)
        record = Session(
            run=request,
            attempt=attempt,
            contract=agreement.id,
            challenges=tuple(sorted(challenges)),
            signing_ed25519=signing.verifying_key.ed25519,
            signing_mldsa65=signing.verifying_key.mldsa65,
            sealing=sealing.sealing_public,
            missing_layers=(),
            evidence=Evidence(platform="software", statement=b"quote", parts=()),
        )
        return seal(record, signing)


def make_setting(tmp_path: Path, world: World | None = None) -> Setting:
    """The first owner of the world gets a real directory under ``tmp_path``."""
    new_key_file(tmp_path / "key")
    home = PartyHome.create(tmp_path / "party", name="Own", unlock=Unlock(key_file=tmp_path / "key"), created=NOW)
    me = TestParty(
        name="Own",
        signing=home.keys.signer(),  # type: ignore[arg-type]
        sealing=home.keys.opener(),  # type: ignore[arg-type]
        card=open_card(home.card.envelope),
    )
    world = world or World()
    world.owners = (me, *world.owners[1:])
    made = Setting(path=home.path, world=world, home=home)
    manifest = world.manifest(me)
    home.store_dataset(DatasetManifest.decode(manifest.payload), world.data_key(me))
    return made
