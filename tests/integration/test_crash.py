"""kill -9 of hub, broker or enclave at every step of a run, then restart: the run ends, and nothing is lost or done twice."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.cli.demo.cast import other_version
from kakoi.cli.ui import SystemClock
from kakoi.contract.sign import open_signed
from kakoi.core.errors import Unavailable
from kakoi.core.ids import ObjectId
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.sdk.run import RunDenied, await_run, load_agreement
from kakoi.testing.world import NOW, World
from kakoi.tlog import checkpoint as checkpoints
from kakoi.tlog.checkpoint import VerifiedCheckpoint
from kakoi.tlog.leaf import LOGGED_KINDS, PASSPORT_KIND, leaf_data
from kakoi.wire.messages import Challenge, Denial, KeyGrant, RunFailure, RunRequest, SealedResult, Session
from support.broker_setting import Clock
from support.deployment import Deployment, Finished, deployed
from support.hub_client import client_of

pytestmark = pytest.mark.xdist_group("crash")
CLAIM_SECONDS: Final = 4
HOUR: Final = 3600
NOBODY: Final = ObjectId("")
STEPS: Final = (
    "idle",
    "run-request",
    "challenge",
    "claim",
    "session",
    "key-grant",
    "download",
    "renew",
    "upload",
    "passport",
    "result",
    "finish",
)
"""Those of ``test_fault_matrix``, and before all of them."""
KINDS: Final = {
    "run-request": RunRequest.KIND,
    "challenge": Challenge.KIND,
    "session": Session.KIND,
    "key-grant": KeyGrant.KIND,
    "passport": PASSPORT_KIND,
    "result": SealedResult.KIND,
}
VICTIMS: Final = ("hub", "broker", "enclave")
QUICK: Final = {("hub", "session"), ("broker", "challenge"), ("enclave", "key-grant")}
"""One cell for each victim; the whole matrix is slow."""
MATRIX: Final = [
    pytest.param(victim, step, marks=() if (victim, step) in QUICK else pytest.mark.slow, id=f"{victim}-{step}")
    for victim in VICTIMS
    for step in STEPS
]


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two hospitals, and an enclave whose claims are short."""
    with deployed(tmp_path_factory.mktemp("crash"), hospitals=2, claim_seconds=CLAIM_SECONDS) as made:
        made.enclave(running=True)
        yield made


@dataclass(slots=True)
class Cell:
    """One run with one death in it."""

    deployment: Deployment
    victim: str
    step: str
    run: ObjectId = NOBODY

    def kill(self) -> None:
        """kill -9, and at once start the victim again."""
        stage, name = self.deployment.stage, self._process
        died = stage.process_id(name)
        os.kill(died, 0)  # raises if it is dead already, and nothing would be tried
        stage.stop(name, kill=True)
        if self.victim == "hub":
            stage.start_hub().close()
        elif self.victim == "broker":
            self.deployment.start_broker(name)
        else:
            assert engines_of(self.deployment) == [], "an engine outlived its keeper"
            self.deployment._enclave = False
            self.deployment.enclave(running=True)
        assert stage.process_id(name) != died

    @property
    def _process(self) -> str:
        return sorted(self.deployment.brokers)[0] if self.victim == "broker" else self.victim

    def until_step(self) -> None:
        """Ask for the run, and return as soon as the step is reached."""
        reached = self._told if self.step in KINDS else self._seen()
        self.run = self.deployment.ask()
        deadline = time.monotonic() + 60
        with self._brokers_asleep() if self.step == "renew" else nullcontext():
            while not reached():
                assert time.monotonic() < deadline, f"the run never reached {self.step}"

    @contextmanager
    def _brokers_asleep(self) -> Iterator[None]:
        """Without keys a run waits, and lives on by renewals: a quick one would end before the first."""
        asleep = [self.deployment.stage.process_id(name) for name in self.deployment.brokers]
        for process in asleep:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in asleep:
                os.kill(process, signal.SIGCONT)

    def _told(self) -> bool:
        """The hub's feed says it."""
        kind = KINDS[self.step]
        refs = {"run": self.run}
        return kind == RunRequest.KIND or bool(self.deployment.client.feed(kinds=(kind,), refs=refs, wait=10).items)

    def _seen(self) -> Callable[[], bool]:
        """What leaves no object is seen in the hub's directory, as it was before the run was asked for."""
        if self.step == "upload":
            blobs = len(blobs_of(self.deployment))
            look: Callable[[], bool] = lambda: len(blobs_of(self.deployment)) > blobs  # noqa: E731
        elif self.step == "download":
            look = asked_for(self.deployment)
        else:
            look = partial(self._claim_is_at, self.step, [])

        def slowly() -> bool:
            time.sleep(0.002)
            return look()

        return slowly

    def _claim_is_at(self, step: str, first: list[int]) -> bool:
        """The run is claimed, or its first lease is longer than it was, or it is done; as the hub's database has it."""
        place = f"file:{self.deployment.hub_directory / 'hub.sqlite'}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=10)) as connection:
            (row,) = connection.execute("SELECT state, lease_until FROM runs WHERE run = ?", (self.run,)).fetchall()
        state, until = row
        if state == "claimed" and not first:
            first.append(until)
        if step == "finish":
            return bool(state == "done")
        return bool(first) and (step == "claim" or until > first[0])

    def finished(self) -> Finished:
        """The result, by an analyst who asks again when the hub was away."""
        deadline = time.monotonic() + 100
        while True:
            try:
                return self.deployment.finish(self.run, seconds=60)
            except Unavailable as error:
                if error.code == "run.ended" or time.monotonic() > deadline:
                    raise


def blobs_of(deployment: Deployment) -> list[Path]:
    """Whole blobs that the hub holds."""
    return [path for path in (deployment.hub_directory / "blobs").rglob("*") if len(path.name) == 64]


def asked_for(deployment: Deployment) -> Callable[[], bool]:
    """Whether somebody has asked for a blob since: the hub notes that on blobs that nobody asked for in an hour, as all are now."""
    paths = blobs_of(deployment)
    assert paths
    long_ago = time.time() - 2 * HOUR
    for path in paths:
        os.utime(path, (long_ago, long_ago))
    return lambda: any(path.stat().st_mtime > long_ago + HOUR for path in paths)


def engines_of(deployment: Deployment) -> list[str]:
    """Processes of sandboxes that run from the deployment's image; those that are about to end get two seconds."""
    mark, found = str(deployment.cast.image).encode(), [""]
    deadline = time.monotonic() + 2
    while found and time.monotonic() < deadline:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                command = path.read_bytes()
                if mark in command and int(path.parent.name) != os.getpid():
                    found.append(command.replace(b"\0", b" ").decode())
        time.sleep(0.05)
    return found


@pytest.mark.parametrize(("victim", "step"), MATRIX)
def test_killed_and_restarted(crashing: Deployment, victim: str, step: str) -> None:
    """The run gives a verified result, whoever dies when."""
    seen = checkpoints.verify(crashing.client.log_checkpoint(), crashing.contract.log)
    budget = granted(crashing)
    cell = Cell(crashing, victim, step)
    if step == "idle":
        cell.kill()
        cell.run = crashing.ask()
    else:
        cell.until_step()
        cell.kill()
    finished = cell.finished()
    assert finished.opened.verified.passport.run == cell.run
    assert ended(crashing, cell.run) == "done"
    check_messages(crashing, cell.run)
    assert granted(crashing) == {name: count + 1 for name, count in budget.items()}, "one run of the budget"
    check_log(crashing, seen)


def ended(deployment: Deployment, run: ObjectId) -> str:
    """State of the run once it stops changing: the enclave says that it is done after everybody has the result."""
    deadline = time.monotonic() + 60
    while (state := deployment.client.run(run).state) in ("queued", "claimed") and time.monotonic() < deadline:
        time.sleep(0.1)
    return state


def granted(deployment: Deployment) -> dict[str, int]:
    """Runs of the analysis that count in each owner's own ledger."""
    out = {}
    for name, home in deployment.brokers.items():
        ledger = Ledger(home.path / "ledger.sqlite")  # opening it checks the chain of decisions
        out[name] = ledger.granted_runs(deployment.cast.contract, deployment.cast.analyses["counts"], besides="")
        ledger.close()
    return out


def check_messages(deployment: Deployment, run: ObjectId) -> None:
    """Of each owner at most one challenge and one grant in each attempt; one session in each; one result in all."""
    client, agreement = deployment.client, deployment.agreement
    said: Counter[tuple[str, int, str]] = Counter()
    sessions: dict[int, str] = {}
    results = 0
    for item in client.feed(refs={"run": run}, limit=1000).items:
        envelope = client.get_object(item.id)
        assert item.kind not in (Denial.KIND, RunFailure.KIND)
        if item.kind in (Challenge.KIND, KeyGrant.KIND):
            cls = Challenge if item.kind == Challenge.KIND else KeyGrant
            record = cls.decode(envelope.payload)
            open_signed(cls, envelope, agreement.cards[record.owner])
            said[item.kind, record.attempt, record.owner] += 1
        elif item.kind == Session.KIND:
            record_of_session = Session.decode(envelope.payload)
            assert record_of_session.attempt not in sessions
            sessions[record_of_session.attempt] = item.id
        results += item.kind == SealedResult.KIND
    assert set(said.values()) == {1}
    assert results == 1
    for name, home in deployment.brokers.items():
        ledger = Ledger(home.path / "ledger.sqlite")
        assert ledger.unsent() == [], name
        decided = Counter((line["attempt"], line["step"]) for line in ledger.decisions() if line["run"] == run)
        ledger.close()
        assert set(decided.values()) == {1}, "every decision once"


def check_log(deployment: Deployment, seen: VerifiedCheckpoint) -> None:
    """The whole log, entry by entry, has the signed root; it extends what was seen; it holds every object once."""
    client, log = deployment.client, deployment.contract.log
    new = checkpoints.verify(client.log_checkpoint(), log)
    proof = client.log_consistency(seen.size, new.size) if 0 < seen.size < new.size else ()
    checkpoints.advance(seen, new, proof)
    entries = [
        (entry.kind, entry.id) for start in range(0, new.size, 1000) for entry in client.log_entries(start, new.size)
    ]
    assert len(entries) == len(set(entries)) == new.size
    assert tree_hash([leaf_data(kind, identity) for kind, identity in entries]) == new.root
    held = {(item.kind, item.id) for item in client.feed(kinds=sorted(LOGGED_KINDS), limit=1000).items}
    assert held == set(entries)


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, as it stands there: a second opinion on the hub's tree."""
    if len(leaves) < 2:
        return hashlib.sha256(b"\0" + leaves[0] if leaves else b"").digest()
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + tree_hash(leaves[:half]) + tree_hash(leaves[half:])).digest()


# -- runs that cannot finish end where the analyst sees it


def test_withdrawn_while_the_broker_was_dead(crashing: Deployment) -> None:
    """The owner withdraws while its broker is down; when it is back, it denies, and the analyst is told."""
    name, home = sorted(crashing.brokers.items())[0]
    draft = other_version(crashing.contract, supersedes=crashing.cast.contract)
    contract = crashing.cast.publish(crashing.client, draft)
    agreement = load_agreement(crashing.client, contract)
    run = crashing.scene.request(agreement, "counts")
    crashing.stage.stop(name, kill=True)
    ledger = Ledger(home.path / "ledger.sqlite")
    ledger.withdraw(contract, SystemClock().now())
    ledger.close()
    crashing.start_broker(name)
    with pytest.raises(RunDenied) as caught:
        await_run(crashing.client, agreement, run, clock=SystemClock(), seconds=60, tell=lambda kind, who: None)
    assert (caught.value.code, caught.value.owner) == ("decision.withdrawn", home.card.record.name)
    assert ended(crashing, run) == "failed"


def test_abandoned_after_five_attempts(tmp_path: Path) -> None:
    """Every enclave that takes the run dies: the hub gives up after five, and the analyst hears of it."""
    world, clock = World(), Clock()
    bundle = world.bundle()
    request = world.request(world.agreement())
    settings = Settings(directory=tmp_path / "hub", port=0)
    with running(settings, now=clock.now) as server, client_of(server) as client:
        for envelope in (
            *bundle.cards,
            *bundle.manifests,
            *bundle.analyses,
            bundle.contract,
            *bundle.approvals,
            request,
        ):
            client.put_object(envelope)
        for attempt in range(1, 6):
            claim = client.claim(enclave="mortal", seconds=30, wait=5)
            assert claim is not None
            assert (claim.run, claim.attempt) == (request.payload_id, attempt)
            clock.time += 31
        with pytest.raises(Unavailable) as caught:
            await_run(
                client, world.agreement(), request.payload_id, clock=SystemClock(), seconds=30, tell=lambda k, w: None
            )
        assert caught.value.code == "run.ended"
        assert client.run(request.payload_id).state == "abandoned"
        assert client.claim(enclave="late", seconds=30, wait=0) is None
    assert clock.now() > NOW
