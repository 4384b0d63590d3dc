"""The red team's own parties on a deployment that belongs to somebody: two owners with brokers, an analyst, a contract of their own.

Nothing of anybody else is touched: no run, contract, blob or claim of others. What was made is taken back at the end: runs are ended,
contracts withdrawn, files removed. Signed objects stay at the hub, where nothing is ever deleted; their titles say what they are.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

from kakoi.attest.report import Collateral, Evidence
from kakoi.broker import consent, devmode
from kakoi.broker.ledger import Ledger
from kakoi.broker.service import Broker
from kakoi.cli.demo.voices import Voices
from kakoi.cli.redteam.attack import NotTried, Through, quietly
from kakoi.cli.redteam.objects import analysis_of, contract_of, manifest_of
from kakoi.cli.serve import judge_with
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Contract
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Unavailable
from kakoi.core.ids import ObjectId, PartyId, object_id
from kakoi.enclave.keeper.session import SessionKeys
from kakoi.evidence import software
from kakoi.evidence.software import SoftwarePlatform
from kakoi.net.answers import Claim
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity, party_identity
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.sdk.connect import connect
from kakoi.wire.messages import Binding, Challenge, Denial, KeyGrant, RunRequest, Session

T = TypeVar("T")
SECONDS: Final = 60
"""How long one answer of a broker of the red team's own is waited for."""
CLAIM_SECONDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the red team was given, as an attacker of that role would have it."""

    hub: str
    token_file: Path | None = None
    storage: Path | None = None
    console: str = ""


@dataclass(slots=True, kw_only=True)
class Ground:
    """Everything that attacks need. Made by ``ground_on``."""

    means: Means
    directory: Path
    client: HubClient
    owner: PartyHome
    rival: PartyHome
    analyst: PartyHome
    stranger: PartyHome
    platform: SoftwarePlatform
    measurement: bytes
    blob: ObjectId
    blob_bytes: bytes
    analysis: ObjectId
    contract: ObjectId
    record: Contract
    contracts: dict[ObjectId, Contract] = field(default_factory=dict)
    """Every contract that was published: all of them are withdrawn at the end."""
    honest: tuple[Session, Envelope, KeyGrant] | None = None
    _machine: list[HubClient] = field(default_factory=list)

    # -- contracts

    def publish(self, record: Contract, *, silent: PartyHome | None = None) -> ObjectId:
        """Sign a contract; everybody but ``silent`` approves it."""
        envelope = seal(record, self.analyst.keys.signer())
        self.client.put_object(envelope)
        self.contracts[envelope.payload_id] = record
        for home in (self.owner, self.rival, self.analyst):
            if home is not silent:
                with ledger(home) as book:
                    consent.approve(
                        home=home,
                        ledger=book,
                        hub=self.client,
                        contract=envelope.payload_id,
                        assertions=(),
                        now=SystemClock().now(),
                    )
        return envelope.payload_id

    def another(self, **changes: Any) -> Contract:
        """The contract with something changed, as a version of its own."""
        return replace(self.record, title=f"Red team exercise {secrets.token_hex(4)}", **changes)

    # -- runs

    def request(self, *, contract: ObjectId | None = None, signer: PartyHome | None = None, **changes: Any) -> ObjectId:
        """A signed run request, sent to the hub whatever the analyst's own client would say."""
        record = RunRequest(
            contract=contract or self.contract,
            analysis=self.analysis,
            parameters=(Binding(name="minimum_age", value=40),),
            party=PartyId(self.analyst.card.id),
            nonce=secrets.token_bytes(32),
            requested_at=SystemClock().now(),
        )
        envelope = seal(replace(record, **changes), (signer or self.analyst).keys.signer())
        self.client.put_object(envelope)
        return envelope.payload_id

    def denial(self, run: ObjectId, *, besides: int = 0) -> str:
        """The code of an owner's denial. Raises ``Through`` if a key was granted instead."""

        def look() -> str:
            if len(self.of_run(run, KeyGrant.KIND)) > besides:
                raise Through("an owner's key was released")
            found = self.of_run(run, Denial.KIND)
            return Denial.decode(self.client.get_object(found[0]).payload).code if found else ""

        return until(look, "an owner's answer")

    def of_run(self, run: ObjectId, kind: str) -> list[ObjectId]:
        """Objects of a run at the hub."""
        return [item.id for item in self.client.feed(kinds=(kind,), refs={"run": run}).items]

    @property
    def machine(self) -> HubClient:
        """The hub as an enclave of the operator sees it. Raises ``NotTried`` without the operator's token."""
        if not self._machine:
            identity = enclave_identity("red-team", self.token())
            self._machine.append(HubClient(self.means.hub, identity=identity, patience=Patience(attempts=3)))
        return self._machine[0]

    def close(self) -> None:
        """Give back connections."""
        for client in self._machine:
            client.close()

    # -- an enclave of one's own making, as an operator can play one

    def claim(self, run: ObjectId) -> Claim:
        """Take a run of one's own with the operator's token. Somebody else's is given back at once by letting it go."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            claim = self.machine.claim(enclave="red-team", seconds=CLAIM_SECONDS, wait=5)
            if claim is not None and claim.run == run:
                return claim
            if claim is not None:
                self._let_go(claim)
        raise NotTried("the hub did not give the red team its own run: an enclave was faster")

    def _let_go(self, claim: Claim) -> None:
        if claim.run not in self.runs():
            raise NotTried(f"runs of others are queued; the claim ends by itself within {CLAIM_SECONDS} seconds")
        self.machine.fail(claim)

    def runs(self, *states: str) -> set[ObjectId]:
        """Runs under contracts of the red team's own, of some states or all."""
        return {
            item.run
            for contract in self.contracts
            for item in self.client.runs(contract=contract, limit=1000).items
            if not states or item.state in states
        }

    def token(self) -> str:
        """The operator's token. Raises ``NotTried`` if it was not given."""
        if self.means.token_file is None:
            raise NotTried("needs the operator's token: --token-file")
        return self.means.token_file.read_text("ascii").strip()

    def challenges(self, run: ObjectId) -> tuple[ObjectId, ...]:
        """The challenges of both owners."""

        def look() -> tuple[ObjectId, ...]:
            found = self.of_run(run, Challenge.KIND)
            return tuple(sorted(found)) if len(found) == 2 else ()

        return until(look, "the owners' challenges")

    def session(
        self,
        run: ObjectId,
        claim: Claim,
        produce: Callable[[bytes], Evidence],
        *,
        missing: tuple[str, ...] = (),
        challenges: tuple[ObjectId, ...] | None = None,
        contract: ObjectId | None = None,
    ) -> Envelope:
        """A session with evidence of the attacker's choice, delivered to the hub."""
        made = SessionKeys().session(
            _Producer(produce),
            run=run,
            attempt=claim.attempt,
            contract=contract or self.contract,
            challenges=challenges if challenges is not None else self.challenges(run),
            missing_layers=missing,
        )
        self.machine.put_object(made, claim=claim.token)
        return made

    def quote(self, bound: bytes) -> Evidence:
        """Evidence as the accepted enclave on the accepted platform would give it."""
        return self.platform.quote(bound, self.measurement)

    def whole_run(self) -> tuple[Session, Envelope, KeyGrant]:
        """One run that owners accept, made once: what others record and play again."""
        if self.honest is None:
            run = self.request()
            claim = self.claim(run)
            envelope = self.session(run, claim, self.quote)
            granted = until(lambda: self.of_run(run, KeyGrant.KIND), "a key for an honest session")
            grant = KeyGrant.decode(self.client.get_object(granted[0]).payload)
            self.honest = (Session.decode(envelope.payload), envelope, grant)
            self.machine.fail(claim)
        return self.honest


class _Producer:
    """Plays a hardware."""

    def __init__(self, produce: Callable[[bytes], Evidence]) -> None:
        self._produce = produce

    def evidence(self, report_data: bytes) -> Evidence:
        """Whatever the attacker wants."""
        return self._produce(report_data)


def until(look: Callable[[], T], what: str) -> T:
    """What ``look`` finds as soon as it is something. Raises ``NotTried`` if it never is."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise NotTried(f"{what} did not come within {SECONDS} seconds")


@contextmanager
def ledger(home: PartyHome) -> Iterator[Ledger]:
    """A party's ledger while the block lasts."""
    book = Ledger(home.path / "ledger.sqlite")
    try:
        yield book
    finally:
        book.close()


class _Endorsements:
    """The red team's platform endorses itself."""

    def __init__(self, platform: SoftwarePlatform) -> None:
        self._platform = platform

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        """Fresh ones."""
        return self._platform.collateral(now)


@contextmanager
def ground_on(means: Means) -> Iterator[Ground]:
    """The red team's parties, brokers and contract on a deployment; taken back when the block ends."""
    with tempfile.TemporaryDirectory(prefix="kakoi-redteam-") as name, ExitStack() as stack:
        directory = Path(name)
        ground = _parties(means, directory, stack)
        stack.callback(ground.close)
        stop = threading.Event()
        threads = [_broker(home, means.hub, ground.platform, stop) for home in (ground.owner, ground.rival)]
        try:
            yield ground
        finally:
            quietly(lambda: _take_back(ground))
            stop.set()
            for thread in threads:
                thread.join(15)


def _parties(means: Means, directory: Path, stack: ExitStack) -> Ground:
    now = SystemClock().now()
    homes = []
    for name in ("analyst", "owner", "rival", "stranger"):
        key = directory / f"{name}.key"
        new_key_file(key)
        homes.append(
            PartyHome.create(
                directory / name, name=f"Red team {name} (exercise)", unlock=Unlock(key_file=key), created=now
            )
        )
    analyst, owner, rival, stranger = homes
    # The analyst's connection speaks for the others too: a hub takes objects from their signers.
    voice = party_identity(analyst.keys.request_signer(), analyst.card.envelope)
    client = stack.enter_context(Voices(means.hub, voice, patience=Patience(attempts=3)))
    client.speak_for(*homes)
    for home in homes:
        client.put_object(home.card.envelope)
    blob_bytes = secrets.token_bytes(4096)
    blob = object_id(blob_bytes)
    client.put_blob(blob, BytesIO(blob_bytes), len(blob_bytes))  # type: ignore[arg-type]
    platform, measurement = software.create(directory / "platform"), secrets.token_bytes(32)
    manifests = []
    for home in (owner, rival):
        record, key_bytes = manifest_of(home, blob, blob_bytes, now)
        envelope = home.store_dataset(record, key_bytes)
        client.put_object(envelope)
        manifests.append((envelope.payload_id, home))
    analysis = seal(analysis_of(analyst), analyst.keys.signer())
    client.put_object(analysis)
    contract = contract_of(analysis.payload_id, manifests, analyst, platform, measurement, now)
    ground = Ground(
        means=means,
        directory=directory,
        client=client,
        owner=owner,
        rival=rival,
        analyst=analyst,
        stranger=stranger,
        platform=platform,
        measurement=measurement,
        blob=blob,
        blob_bytes=blob_bytes,
        analysis=analysis.payload_id,
        contract=contract.id,
        record=contract,
    )
    ground.publish(contract)
    return ground


def _broker(home: PartyHome, hub: str, platform: SoftwarePlatform, stop: threading.Event) -> threading.Thread:
    """An owner's real broker, in a thread of this process."""
    consented = {**os.environ, devmode.VARIABLE: devmode.CONSENT}
    verifiers = devmode.verifiers(flag=True, environment=consented)

    def run() -> None:
        with ledger(home) as book, connect(hub, home, patience=Patience(attempts=3)) as client:
            broker = Broker(
                home=home,
                ledger=book,
                hub=client,
                collateral=_Endorsements(platform),
                judge=judge_with(verifiers),
                clock=SystemClock(),
                tell=lambda decision: None,
            )
            while not stop.is_set():
                try:
                    broker.step(wait=1)
                except Unavailable:
                    stop.wait(1)

    thread = threading.Thread(target=run, name=f"redteam-{home.path.name}", daemon=True)
    thread.start()
    return thread


def _take_back(ground: Ground) -> None:
    """Withdraw every contract; end the runs that are still queued, if the token was given."""
    now, reason = SystemClock().now(), "The exercise is over."
    for identity, record in ground.contracts.items():
        for home in (ground.owner, ground.rival):
            with ledger(home) as book:
                wanted = consent.withdrawal_of(home, record, identity, reason=reason, now=now)
                consent.withdraw(home=home, ledger=book, hub=ground.client, withdrawal=wanted)
    if ground.means.token_file is None:
        return
    queued = ground.runs("queued")
    for _ in range(len(queued)):
        claim = ground.machine.claim(enclave="red-team", seconds=CLAIM_SECONDS)
        if claim is None or claim.run not in queued:
            return
        ground.machine.fail(claim)
