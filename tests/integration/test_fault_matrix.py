"""Every step of a run at the hub, times every fault that is not a death (those are ``test_crash.py``'s), from a generated table.

After each cell everything is verified again: the run is done, it has one result and the passport that the result names; all that was
confirmed is there, byte for byte; the log holds each logged object once and has the root that is signed; nobody's usage is wrong.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import obstore
import pytest
from obstore.exceptions import GenericError

from integration import test_crash
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import dumps
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import BlobId, ObjectId
from kakoi.hub.database import Database, storage_full
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.answers import Claim
from kakoi.net.caller import Call, Caller, Patience
from kakoi.net.client import HubClient
from kakoi.tlog.leaf import PASSPORT_KIND
from support.hub_client import client_of
from unit.hub.conftest import Clock
from unit.hub.hubkit import World, audit_file, put_all

LEASE: Final = 20
NOBODY: Final = ObjectId("")
HOUR: Final = 3600
STEPS: Final = (
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
FAULTS: Final = (
    "storage-error",
    "stored-but-said-failed",
    "cut-before",
    "cut-after",
    "duplicate",
    "at-once",
    "reorder",
    "clock-forward",
    "clock-back",
    "disk-full",
)
QUICK: Final = {
    ("result", "stored-but-said-failed"),
    ("passport", "clock-forward"),
    ("upload", "storage-error"),
    ("finish", "cut-after"),
    ("session", "at-once"),
    ("key-grant", "disk-full"),
    ("claim", "cut-after"),
    ("run-request", "reorder"),
}
"""A sample; the whole table is slow."""


class Cell(NamedTuple):
    """A fault at a step."""

    step: str
    fault: str


TABLE: Final = [Cell(step, fault) for step in STEPS for fault in FAULTS]
PARAMETERS: Final = [
    pytest.param(cell, marks=() if cell in QUICK else pytest.mark.slow, id="-".join(cell)) for cell in TABLE
]
pytestmark = [pytest.mark.xdist_group("fault-matrix")]
_LOST: Final = ("hub.claim", "run.claim-lost", "hub.run-ended")


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[HubServer]:
    directory = tmp_path_factory.mktemp("matrix") / "hub"
    with running(Settings(directory=directory, port=0, limits=Limits(free_bytes=0)), now=clock) as one:
        yield one
    audit_file(directory)


@dataclass
class Run:
    """One run, carried out by all its parties, with one fault in it."""

    server: HubServer
    hub: HubClient
    world: World
    clock: Clock
    cell: Cell
    patch: pytest.MonkeyPatch
    data: bytes
    hit: bool = False
    injected: int = 0
    """How often the fault really came: counted where it is made, not where it was asked for."""
    id: ObjectId = NOBODY
    confirmed: list[Envelope] = field(default_factory=list)

    def step(self, name: str, call: Callable[[], Any], following: Callable[[], Any] | None = None) -> Any:
        """Do one thing, with the fault if it is this thing's turn; ``following`` is what a reordering does first."""
        if name != self.cell.step or self.hit:
            return call()
        self.hit = True
        return getattr(self, f"_{self.cell.fault.replace('-', '_')}")(call, following)

    # -- faults

    def _storage_error(self, call: Callable[[], Any], _: object, error: KakoiError | None = None) -> Any:
        with self._broken_storage(after=False, error=error):
            return call()

    def _stored_but_said_failed(self, call: Callable[[], Any], _: object) -> Any:
        with self._broken_storage(after=True):
            return call()

    def _disk_full(self, call: Callable[[], Any], _: object) -> Any:
        left, usage = [1], shutil.disk_usage

        def full(path: Any) -> Any:
            if not left:
                return usage(path)
            self.injected += left.pop()
            return usage(path)._replace(free=-1)

        with self.patch.context() as patch:
            patch.setattr(shutil, "disk_usage", full)
            return self._storage_error(call, None, storage_full())

    @contextmanager
    def _broken_storage(self, *, after: bool, error: KakoiError | None = None) -> Iterator[None]:
        """The next commit, and the next call of the blob storage, fail: before anything is done, or after all of it."""
        said = error or Unavailable("hub.database", "expected the database to answer, got none")
        text = "No space left on device" if error else "storage failed"
        commit, left = Database._commit, [1]

        def committing(database: Database, batch: Any) -> Any:
            if left and not after:
                self.injected += left.pop()
                raise said
            done = commit(database, batch)
            if left:
                self.injected += left.pop()
                raise said
            return done

        with self.patch.context() as patch:
            patch.setattr(Database, "_commit", committing)
            for name in ("rename_async", "get_async"):
                patch.setattr(obstore, name, self._failing(getattr(obstore, name), text, after=after))
            yield

    def _failing(self, original: Any, text: str, *, after: bool) -> Any:
        left = [1]

        async def wrapped(*args: Any, **named: Any) -> Any:
            if left and not after:
                self.injected += left.pop()
                raise GenericError(text)
            result = await original(*args, **named)
            if left:
                self.injected += left.pop()
                raise GenericError(text)
            return result

        return wrapped

    def _cut_before(self, call: Callable[[], Any], _: object) -> Any:
        return self._cut(call, after=False)

    def _cut_after(self, call: Callable[[], Any], _: object) -> Any:
        return self._cut(call, after=True)

    def _cut(self, call: Callable[[], Any], *, after: bool) -> Any:
        original, left = Caller.once, [1]

        @contextmanager
        def cutting(caller: Caller, sent: Call) -> Iterator[Any]:
            cut = bool(left) and left.pop()
            self.injected += cut
            if cut and not after:
                raise Unavailable("hub.cut", "expected an answer, got a closed connection")
            with original(caller, sent) as answer:
                if cut:
                    raise Unavailable("hub.cut", "expected an answer, got a closed connection")
                yield answer

        with self.patch.context() as patch:
            patch.setattr(Caller, "once", cutting)
            return call()

    @contextmanager
    def _sent(self) -> Iterator[list[Call]]:
        """What is sent to the hub meanwhile."""
        original, sent = Caller.once, list[Call]()

        @contextmanager
        def counting(caller: Caller, call: Call) -> Iterator[Any]:
            sent.append(call)
            with original(caller, call) as answer:
                yield answer

        with self.patch.context() as patch:
            patch.setattr(Caller, "once", counting)
            yield sent

    def _duplicate(self, call: Callable[[], Any], _: object) -> Any:
        first = call()
        with self._sent() as sent:
            second = call()
        self.injected += len(sent)
        if self.cell.step == "claim":
            assert (first is None, second) == (False, None), "one run is given once"
        return first

    def _at_once(self, call: Callable[[], Any], _: object) -> Any:
        with self._sent() as sent, ThreadPoolExecutor(1) as pool:
            other = pool.submit(partial(_quietly, call))
            mine = call()
            theirs = other.result(timeout=60)
        self.injected += len(sent) - 1
        if self.cell.step != "claim":
            return mine
        assert (mine is None) != (theirs is None), "one run is given once"
        return mine or theirs

    def _reorder(self, call: Callable[[], Any], following: Callable[[], Any] | None) -> Any:
        """What follows arrives first; the last two are themselves first, and what went before them comes late, or again."""
        assert following is not None
        late = self.cell.step in ("result", "finish")  # "done" ahead of its result: see LIMITATIONS
        done = call() if late else None
        with self._sent() as sent:
            _quietly(following)
        self.injected += len(sent)
        return done if late else call()

    def _clock_forward(self, call: Callable[[], Any], _: object) -> Any:
        return self._jump(call, HOUR)

    def _clock_back(self, call: Callable[[], Any], _: object) -> Any:
        return self._jump(call, -HOUR)

    def _jump(self, call: Callable[[], Any], seconds: int) -> Any:
        """From here on the hub's clock is off; it has looked at it."""
        original = Clock.__call__

        def reading(clock: Clock) -> int:
            self.injected += 1
            return original(clock)

        self.clock.offset += seconds
        with self.patch.context() as patch:
            patch.setattr(Clock, "__call__", reading)
            return call()

    # -- the run

    def put(self, envelope: Envelope, claim: str = "") -> None:
        """Store, and remember that it was confirmed."""
        self.hub.put_object(envelope, claim=claim)
        self.confirmed.append(envelope)

    def carry_out(self) -> None:
        """From the request to its end, with as many attempts as it takes."""
        request = self.world.request(int.from_bytes(os.urandom(6), "big"))
        self.id = request.payload_id
        challenge = self.world.answer("challenge", self.id)
        self.step("run-request", lambda: self.put(request), lambda: self.put(challenge))
        self.step("challenge", lambda: self.put(challenge), lambda: self.put(self.world.answer("key-grant", self.id)))
        for _ in range(4):
            try:
                claim = self._claimed()
                self._attempt(claim)
            except Refused as error:
                if error.code not in _LOST:
                    raise
                continue
            return
        raise AssertionError("four attempts were not enough")

    def _claimed(self) -> Claim:
        try:
            _, early = self.world.session(self.id, 1)
            claim = self.step(
                "claim",
                lambda: self.hub.claim(enclave="test", seconds=LEASE, wait=0),
                lambda: self.hub.put_object(early, claim="f" * 64),
            )
        except Unavailable:
            claim = None  # it may have been given, and its token lost: it ends by itself
        if claim is None:
            self.clock.offset += LEASE + 1
            claim = self.hub.claim(enclave="test", seconds=LEASE, wait=5)
        found: Claim | None = claim
        assert found is not None
        assert found.run == self.id
        return found

    def _attempt(self, claim: Claim) -> None:
        run, attempt, token = self.id, claim.attempt, claim.token
        if self.hub.feed(kinds=("kakoi/result/v1",), refs={"run": run}).items:
            self.hub.finish(claim)  # an earlier attempt told, and could not say that it had
            return
        key, session = self.world.session(run, attempt)
        grant = self.world.answer("key-grant", run, attempt)
        passport = self.world.passport(key, run, predicate=self._parts(attempt))
        blob = os.urandom(3000)
        name = BlobId(hashlib.sha256(blob).hexdigest())
        parts = {"kind": "kakoi/result/v1", "passport": passport.payload_id, "blob": name, **self._parts(attempt)}
        result = dsse.sign(dumps(parts), key)
        upload = lambda: self.hub.put_blob(name, io.BytesIO(blob), len(blob))  # noqa: E731
        self.step("session", lambda: self.put(session, token), lambda: self.put(passport, token))
        self.step("key-grant", lambda: self.put(grant), lambda: self.hub.renew(claim))
        self.step("download", self._download, lambda: self.hub.renew(claim))
        self.step("renew", lambda: self.hub.renew(claim), upload)
        self.step("upload", upload, lambda: self.put(passport, token))
        self.step("passport", lambda: self.put(passport, token), lambda: self.put(result, token))
        self.step("result", lambda: self.put(result, token), lambda: self.put(passport, token))
        self.step("finish", lambda: self.hub.finish(claim), lambda: self.hub.renew(claim))

    def _parts(self, attempt: int) -> dict[str, Any]:
        return {"run": self.id, "contract": self.world.contract.payload_id, "attempt": attempt}

    def _download(self) -> None:
        name = BlobId(hashlib.sha256(self.data).hexdigest())
        assert b"".join(self.hub.stream_blob(name, most=len(self.data))) == self.data

    # -- afterwards

    def verify(self) -> None:
        """Nothing lost, nothing twice, log consistent."""
        assert self.hit, "the step never came"
        assert self.injected > 0, "the fault never came"
        assert self.hub.run(self.id).state == "done"
        (item,) = self.hub.feed(kinds=("kakoi/result/v1", "kakoi/run-failure/v1"), refs={"run": self.id}).items
        found = self.hub.feed(kinds=(PASSPORT_KIND,), refs={"run": self.id}).items
        assert {entry.id for entry in found} >= {dsse_member(self.hub.get_object(item.id), "passport")}
        blob = BlobId(dsse_member(self.hub.get_object(item.id), "blob"))
        assert len(b"".join(self.hub.stream_blob(blob, most=3000))) == 3000
        for envelope in self.confirmed:
            assert self.hub.get_object(envelope.payload_id).payload == envelope.payload
        logged = [entry.id for entry in self.hub.log_entries(0, 1000)]
        assert len(logged) == len(set(logged))
        assert {entry.id for entry in found} <= set(logged)
        self.hub.log_checkpoint()
        audit_file(self.server.hub.settings.directory)


def dsse_member(envelope: Envelope, name: str) -> str:
    from kakoi.core.encoding import loads

    return str(loads(envelope.payload, limit=100_000)[name])


def _quietly(call: Callable[[], Any]) -> Any:
    """What it gives, or None if it is refused."""
    try:
        return call()
    except KakoiError:
        return None


@pytest.mark.parametrize("cell", PARAMETERS)
def test_a_run_with_a_fault_in_it(server: HubServer, clock: Clock, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with one result, whatever went wrong when."""
    world, data = World(), b"ciphertext" * 10_000
    with client_of(server, patience=Patience(attempts=6, backoff=0.01), pause=lambda _: None) as hub:
        put_all(hub, world.setup)
        hub.put_blob(BlobId(hashlib.sha256(data).hexdigest()), io.BytesIO(data), len(data))
        run = Run(server, hub, world, clock, cell, monkeypatch, data)
        run.carry_out()
        run.verify()


def test_the_table_is_whole() -> None:
    """Every step meets every fault here, and every death of a process in ``test_crash.py``."""
    assert len(TABLE) == len(STEPS) * len(FAULTS) == 110
    assert set(TABLE) >= QUICK
    assert set(test_crash.STEPS) == {"idle", *STEPS}
    deaths = {param.values for param in test_crash.MATRIX}
    assert deaths == {(victim, step) for victim in ("hub", "broker", "enclave") for step in test_crash.STEPS}


def test_a_cell_whose_fault_does_not_come_is_red(
    server: HubServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault counts where it is made: with nothing to do at its step, none counts, and the cell fails."""
    with client_of(server, patience=Patience(attempts=6, backoff=0.01), pause=lambda _: None) as hub:
        for fault in FAULTS:
            run = Run(server, hub, World(), clock, Cell("finish", fault), monkeypatch, b"")
            run.step("finish", lambda: None, lambda: None)
            assert run.hit
            assert run.injected <= 0, fault
            with pytest.raises(AssertionError, match="the fault never came"):
                run.verify()


def test_the_hub_keeps_its_directory_together(server: HubServer) -> None:
    """Nothing half-written is left of all that."""
    assert list(Path(server.hub.settings.directory).rglob(".incoming-*")) == []
