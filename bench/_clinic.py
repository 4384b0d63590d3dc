"""Legitimate clients beside an attack: clinics with an owner's broker and an analyst, and an enclave; each from an address of its own.

What is timed is the release of a key: from the moment the enclave has stored its session to the moment the owner's key grant has
reached it through the hub. Objects have the members that a hub reads, and real signatures.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from kakoi.contract.model import PartyCard
from kakoi.core import dsse
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import b64, dumps, sha256
from kakoi.core.errors import KakoiError, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.net.answers import Claim
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity, party_identity
from kakoi.net.transport import Transport

SECONDS = 2.0
"""Within which a key must reach its enclave."""
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
    made._caller._transport = From(url, source)
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
    """What happened. ``releases`` holds when each session was stored, and the seconds until its key came (None: it never did)."""

    releases: list[tuple[float, float | None]] = field(default_factory=list)
    confirmed: list[Envelope] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, begun: float, seconds: float | None) -> None:
        with self._lock:
            self.releases.append((begun, seconds))

    def between(self, start: float, end: float) -> list[float | None]:
        """Of the sessions that were stored in this time."""
        with self._lock:
            return [seconds for begun, seconds in self.releases if start <= begun < end]


class Clinic:
    """One owner, one analyst, their contract; a thread for each."""

    def __init__(self, number: int, url: str, numbers: Numbers, stop: threading.Event, pause: float) -> None:
        self.owner, self.analyst = Party(f"Owner {number}"), Party(f"Analyst {number}")
        self._stop, self._numbers, self._pause, self._number = stop, numbers, pause, number
        self._at_owner = client(url, f"127.10.{number}.1", self.owner.identity)
        self._at_analyst = client(url, f"127.11.{number}.1", self.analyst.identity)
        parties = [{"party": p.id, "roles": [r]} for p, r in ((self.owner, "owner"), (self.analyst, "analyst"))]
        self.contract = self.analyst.sign("contract", drafter=self.analyst.id, parties=parties, data=[])
        self._at_owner.put_object(self.owner.card)
        self._at_analyst.put_object(self.analyst.card)
        self._at_analyst.put_object(self.contract)
        numbers.confirmed += [self.owner.card, self.analyst.card, self.contract]
        self.clients = (self._at_owner, self._at_analyst)
        self.threads = [
            threading.Thread(target=self._ask, daemon=True),
            threading.Thread(target=self._release, daemon=True),
        ]

    def _ask(self) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            nonce = b64(count.to_bytes(32, "big"))
            request = self.analyst.sign(
                "run-request", contract=self.contract.payload_id, party=self.analyst.id, nonce=nonce
            )
            self._put(self._at_analyst, request)
            self._stop.wait(self._pause)

    def _release(self) -> None:
        """A broker: polls for sessions under its contract, and answers each with a key grant."""
        after = 0
        while not self._stop.is_set():
            try:
                page = self._at_owner.feed(
                    after=after, kinds=("kakoi/session/v1",), refs={"contract": self.contract.payload_id}, wait=5
                )
                for item in page.items:
                    session = self._at_owner.get_object(item.id)
                    run = _member(session, "run")
                    grant = self.owner.sign(
                        "key-grant",
                        run=run,
                        attempt=1,
                        contract=self.contract.payload_id,
                        owner=self.owner.id,
                        sealed="A" * 1600,
                    )
                    self._put(self._at_owner, grant)
                    after = item.seq
                after = max(after, page.next)
            except KakoiError as error:
                self._numbers.errors.append(f"broker {error.code}")

    def _put(self, hub: HubClient, envelope: Envelope) -> None:
        try:
            hub.put_object(envelope)
            self._numbers.confirmed.append(envelope)
        except KakoiError as error:
            self._numbers.errors.append(f"{self._number} {error.code}")


def _member(envelope: Envelope, name: str) -> ObjectId:
    from kakoi.core.encoding import loads

    value: ObjectId = loads(envelope.payload, limit=100_000)[name]
    return value


class Machine:
    """An enclave: claims, stores a session, waits for the key, says it is done."""

    def __init__(self, number: int, url: str, token: str, numbers: Numbers, stop: threading.Event) -> None:
        self.hub = client(url, f"127.20.{number}.1", enclave_identity(f"e{number}", token))
        self._numbers, self._stop, self._name = numbers, stop, f"e{number}"
        self.threads = [threading.Thread(target=self._work, daemon=True)]

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                claim = self.hub.claim(enclave=self._name, seconds=60, wait=5)
                if claim is not None:
                    self._carry_out(claim)
            except KakoiError as error:
                self._numbers.errors.append(f"enclave {error.code}")
                self._stop.wait(0.2)

    def _carry_out(self, claim: Claim) -> None:
        request = self.hub.get_object(ObjectId(claim.run))
        contract = _member(request, "contract")
        key = SigningKey(_seed(f"{claim.run}/{claim.attempt}", 64))
        members = {"run": claim.run, "attempt": claim.attempt, "contract": contract}
        keys = {
            "signing_ed25519": b64(key.verifying_key.ed25519),
            "signing_mldsa65": b64(key.verifying_key.mldsa65),
        }
        session = dsse.sign(dumps({"kind": "kakoi/session/v1", **members, **keys}), key)
        begun = time.monotonic()
        try:
            self.hub.put_object(session, claim=claim.token)
            self._numbers.confirmed.append(session)
            while time.monotonic() < begun + 15:
                if self.hub.feed(kinds=("kakoi/key-grant/v1",), refs={"run": claim.run}, wait=5).items:
                    self._numbers.add(begun, time.monotonic() - begun)
                    break
            else:
                raise Unavailable("bench.no-key", "the key did not come")
        except KakoiError:
            self._numbers.add(begun, None)
            raise
        self.hub.finish(claim)
