"""Legitimate clients beside an attack: clinics with an owner's broker and an analyst, and an enclave; each from an address of its own.

What is timed is the release of a key: the enclave stores its session, the owner's broker sees it and answers with a key grant, and the
grant reaches the enclave, all through the hub. Objects have the members that a hub reads, and real signatures.

The load is open: releases are due at fixed times, whether or not earlier ones have ended, and a release's time counts from when it was
due, not from when somebody got round to it. So a hub that stalls is measured with all that would have come in that time (what is
called coordinated omission is not omitted). The runs for it are asked for and claimed beforehand.
"""

from __future__ import annotations

import http.client
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kakoi.contract.model import PartyCard
from kakoi.core import dsse
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import b64, dumps, loads, sha256
from kakoi.core.errors import KakoiError, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.net.answers import Claim
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity, party_identity
from kakoi.net.transport import Transport

SECONDS = 2.0
"""Within which a key must reach its enclave."""
LONGEST = 15.0
"""After which nobody waits for it any more."""
HANDS = 12
"""Releases that one machine has under way at a time; those that are due then wait, and their time runs."""
_PATIENCE = Patience(connect=2, idle=10, total=20, attempts=8, backoff=0.05, backoff_most=1)


class From(Transport):
    """A transport whose connections come from one address of loopback."""

    def __init__(self, url: str, source: str) -> None:
        super().__init__(url, connect_seconds=2, tls=None, plain_http=True)
        self._source = source

    def _take(self, fresh: bool) -> http.client.HTTPConnection:
        made = super()._take(fresh)
        if made.sock is None:
            made.source_address = (self._source, 0)  # type: ignore[attr-defined]
        return made


def client(url: str, source: str, identity: Identity | None = None) -> HubClient:
    """A hub's client at an address of loopback."""
    made = HubClient(url, patience=_PATIENCE, identity=identity)
    made._caller._transports = [From(url, source)]
    return made


def _seed(name: str, length: int) -> bytes:
    return b"".join(sha256(name.encode(), bytes([n])) for n in range(length // 32))


class Party:
    """Somebody with keys and a card."""

    def __init__(self, name: str) -> None:
        self.key, sealing = SigningKey(_seed(name, 64)), SealingKey(_seed(name + "/seal", 96))
        card = PartyCard(
            name=name,
            ed25519=self.key.verifying_key.ed25519,
            mldsa65=self.key.verifying_key.mldsa65,
            sealing=sealing.sealing_public,
            people=(),
            approvals_required=0,
            relying_party="",
            created=1,
        )
        self.card = dsse.sign(card.encode(), self.key)
        self.id = self.card.payload_id
        self.identity = party_identity(self.key, self.card)

    def sign(self, kind: str, **members: Any) -> Envelope:
        """An object of ``kind`` with these members."""
        return dsse.sign(dumps({"kind": f"kakoi/{kind}/v1", **members}), self.key)


@dataclass(slots=True)
class Numbers:
    """What happened. ``releases`` holds when each key was due, and the seconds until it came (None: it never did)."""

    releases: list[tuple[float, float | None]] = field(default_factory=list)
    confirmed: list[Envelope] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    going: threading.Event = field(default_factory=threading.Event)
    """Keys are due while it is set."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, due: float, seconds: float | None) -> None:
        with self._lock:
            self.releases.append((due, seconds))

    def between(self, start: float, end: float) -> list[float | None]:
        """Of the keys that were due in this time, in this order."""
        with self._lock:
            return [seconds for due, seconds in sorted(self.releases, key=lambda one: one[0]) if start <= due < end]


class Clinic:
    """One owner, one analyst, their contract."""

    def __init__(self, number: int, url: str, numbers: Numbers, stop: threading.Event) -> None:
        self.owner, self.analyst = Party(f"Owner {number}"), Party(f"Analyst {number}")
        self._stop, self._numbers = stop, numbers
        self._at_owner = client(url, f"127.10.{number}.1", self.owner.identity)
        self._at_analyst = client(url, f"127.11.{number}.1", self.analyst.identity)
        parties = [{"party": p.id, "roles": [r]} for p, r in ((self.owner, "owner"), (self.analyst, "analyst"))]
        self.contract = self.analyst.sign("contract", drafter=self.analyst.id, parties=parties, data=[])
        self._at_owner.put_object(self.owner.card)
        self._at_analyst.put_object(self.analyst.card)
        self._at_analyst.put_object(self.contract)
        numbers.confirmed += [self.owner.card, self.analyst.card, self.contract]
        self.clients = (self._at_owner, self._at_analyst)
        self.broker = threading.Thread(target=self._release, daemon=True)

    def ask(self, runs: int) -> None:
        """Ask for so many runs."""
        for number in range(runs):
            members = {"contract": self.contract.payload_id, "party": self.analyst.id}
            request = self.analyst.sign("run-request", nonce=b64(number.to_bytes(32, "big")), **members)
            self._at_analyst.put_object(request)
            self._numbers.confirmed.append(request)

    def _release(self) -> None:
        """A broker: polls for sessions under its contract, and answers each with a key grant."""
        after = 0
        while not self._stop.is_set():
            try:
                page = self._at_owner.feed(
                    after=after, kinds=("kakoi/session/v1",), refs={"contract": self.contract.payload_id}, wait=5
                )
                for item in page.items:
                    self._answer(self._at_owner.get_object(item.id))
                    after = item.seq
                after = max(after, page.next)
            except KakoiError as error:
                self._numbers.errors.append(f"broker {error.code}")

    def _answer(self, session: Envelope) -> None:
        members = {"run": _member(session, "run"), "contract": self.contract.payload_id, "owner": self.owner.id}
        grant = self.owner.sign("key-grant", attempt=1, sealed="A" * 1600, **members)
        self._at_owner.put_object(grant)
        self._numbers.confirmed.append(grant)


def _member(envelope: Envelope, name: str) -> ObjectId:
    value: ObjectId = loads(envelope.payload, limit=100_000)[name]
    return value


class Machine:
    """Enclaves at one address, which hold claims: each stores a session when it is due, waits for the key, says it is done."""

    def __init__(
        self, number: int, url: str, token: str, numbers: Numbers, stop: threading.Event, pause: float
    ) -> None:
        self.hub = client(url, f"127.20.{number}.1", enclave_identity(f"e{number}", token))
        self._numbers, self._stop, self._pause, self._name = numbers, stop, pause, f"e{number}"
        self._ready: queue.SimpleQueue[tuple[Claim, Envelope]] = queue.SimpleQueue()
        self._due: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self._clock, daemon=True)]
        self.threads += [threading.Thread(target=self._work, daemon=True) for _ in range(HANDS)]

    def claim(self, runs: int) -> None:
        """Claim so many runs, and make their sessions: what an enclave does before it needs a key."""
        for _ in range(runs):
            claim = self.hub.claim(enclave=self._name, seconds=3600, wait=20)
            assert claim is not None, "the runs were asked for"
            request = self.hub.get_object(ObjectId(claim.run))
            self._ready.put((claim, _session(claim, _member(request, "contract"))))

    def _clock(self) -> None:
        due = time.monotonic() + self._pause
        while not self._stop.wait(max(0, due - time.monotonic())):
            if self._numbers.going.is_set():
                self._due.put(due)
            due += self._pause

    def _work(self) -> None:
        while not self._stop.is_set():
            with suppress(queue.Empty):
                due = self._due.get(timeout=0.5)
                self._release(due, *self._ready.get(timeout=0.5))

    def _release(self, due: float, claim: Claim, session: Envelope) -> None:
        try:
            self.hub.put_object(session, claim=claim.token)
            self._numbers.confirmed.append(session)
            while time.monotonic() < due + LONGEST:
                if self.hub.feed(kinds=("kakoi/key-grant/v1",), refs={"run": claim.run}, wait=5).items:
                    self._numbers.add(due, time.monotonic() - due)
                    break
            else:
                raise Unavailable("bench.no-key", "the key did not come")
        except KakoiError as error:
            self._numbers.errors.append(f"enclave {error.code}")
            self._numbers.add(due, None)
        with suppress(KakoiError):
            self.hub.finish(claim)


def _session(claim: Claim, contract: ObjectId) -> Envelope:
    key = SigningKey(_seed(f"{claim.run}/{claim.attempt}", 64))
    members = {"run": claim.run, "attempt": claim.attempt, "contract": contract}
    keys = {"signing_ed25519": b64(key.verifying_key.ed25519), "signing_mldsa65": b64(key.verifying_key.mldsa65)}
    return dsse.sign(dumps({"kind": "kakoi/session/v1", **members, **keys}), key)
