"""Parties, objects and hubs for the hub's tests. The hub reads few members of an object, so the objects here have few."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from kakoi.contract.model import PartyCard
from kakoi.core import dsse
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import IN_TOTO_TYPE, Envelope
from kakoi.core.encoding import b64, dumps, sha256
from kakoi.hub.audit import Audit, audit
from kakoi.net.client import HubClient
from support.hub_client import known

ZERO = "0" * 64


def seed(name: str, length: int) -> bytes:
    """Repeatable secret bytes."""
    return b"".join(sha256(name.encode(), bytes([n])) for n in range(length // 32))


class Party:
    """Somebody with keys and a card."""

    def __init__(self, name: str) -> None:
        self.key, sealing = SigningKey(seed(name, 64)), SealingKey(seed(name + "/seal", 96))
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

    def sign(self, kind: str, **members: Any) -> Envelope:
        """An object of ``kind`` with these members."""
        return dsse.sign(dumps({"kind": f"kakoi/{kind}/v1", **members}), self.key)


@dataclass
class World:
    """An owner, an analyst and their contract."""

    owner: Party = field(default_factory=lambda: Party("Hospital"))
    analyst: Party = field(default_factory=lambda: Party("Analyst"))
    stranger: Party = field(default_factory=lambda: Party("Stranger"))

    def __post_init__(self) -> None:
        parties = [{"party": p.id, "roles": [r]} for p, r in ((self.owner, "owner"), (self.analyst, "analyst"))]
        self.manifest = self.owner.sign("dataset-manifest", owner=self.owner.id, files=[{"blob": "f" * 64}])
        self.analysis = self.analyst.sign("analysis", author=self.analyst.id, source="select 1")
        data = [{"manifest": self.manifest.payload_id, "owner": self.owner.id}]
        self.contract = self.analyst.sign(
            "contract",
            drafter=self.analyst.id,
            parties=parties,
            data=data,
            supersedes=None,
            recipients=[self.analyst.id],
        )
        self.cards = [self.owner.card, self.analyst.card, self.stranger.card]
        self.setup = [*self.cards, self.manifest, self.analysis, self.contract]

    def approval(self, party: Party, number: int = 0) -> Envelope:
        return party.sign("approval", contract=self.contract.payload_id, party=party.id, approved_at=number)

    def request(self, number: int = 0) -> Envelope:
        return self.analyst.sign(
            "run-request",
            contract=self.contract.payload_id,
            party=self.analyst.id,
            nonce=b64(number.to_bytes(32, "big")),
        )

    def answer(self, kind: str, run: str, attempt: int = 1, party: Party | None = None) -> Envelope:
        who = party or self.owner
        return who.sign(kind, run=run, attempt=attempt, contract=self.contract.payload_id, owner=who.id)

    def session(self, run: str, attempt: int = 1, name: str = "session") -> tuple[SigningKey, Envelope]:
        key = SigningKey(seed(f"{name}/{run}/{attempt}", 64))
        payload = {
            "kind": "kakoi/session/v1",
            "run": run,
            "attempt": attempt,
            "contract": self.contract.payload_id,
            "signing_ed25519": b64(key.verifying_key.ed25519),
            "signing_mldsa65": b64(key.verifying_key.mldsa65),
        }
        return key, dsse.sign(dumps(payload), key)

    def passport(self, key: SigningKey, run: str, **changes: Any) -> Envelope:
        statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "urn:kakoi:passport:v1",
            "subject": [{"digest": {"sha256": "d" * 64}, "name": "output"}],
            "predicate": {"run": run, "contract": self.contract.payload_id},
            **changes,
        }
        return dsse.sign(dumps(statement), key, payload_type=IN_TOTO_TYPE)


_SERVE = """
import importlib, os, pathlib, signal, sys
from kakoi.hub.serve import serve
from kakoi.hub.settings import Settings
directory, database_url, die = sys.argv[1:]
if die:
    where, name, when, left = die.split(":")
    module = importlib.import_module(where)
    owner, _, attribute = name.rpartition(".")
    holder = getattr(module, owner) if owner else module
    original, count = getattr(holder, attribute), int(left)
    def dying(*args, **named):
        global count
        count -= 1
        if count == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **named)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(holder, attribute, dying)
serve(Settings(directory=pathlib.Path(directory), port=0, database_url=database_url))
"""


class HubProcess:
    """A hub in a process of its own, that can be killed and started again."""

    def __init__(self, directory: Path, database_url: str = "") -> None:
        self.directory, self.database_url = directory, database_url
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, die: str = "") -> str:
        """Start it and return its address. With ``die`` it kills itself at ``module:function:before|after:n-th call``."""
        address = self.directory / "address"
        address.unlink(missing_ok=True)
        self.process = subprocess.Popen([sys.executable, "-c", _SERVE, str(self.directory), self.database_url, die])
        deadline = time.monotonic() + 60
        while not address.exists():
            assert self.process.poll() is None, "the hub ended at once"
            assert time.monotonic() < deadline, "the hub did not start"
            time.sleep(0.02)
        return known(address.read_text().strip(), self.directory)

    def died(self) -> None:
        """Wait for it to have killed itself."""
        assert self.process is not None
        assert self.process.wait(timeout=30) == -signal.SIGKILL

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def audit(self) -> Audit:
        """Re-verify the database while no hub runs."""
        return audit_file(self.directory)

    @property
    def token(self) -> str:
        return (self.directory / "operator.token").read_text().strip()


def audit_file(directory: Path) -> Audit:
    engine = create_engine(f"sqlite:///{directory / 'hub.sqlite'}")
    try:
        with engine.connect() as connection:
            return audit(connection)
    finally:
        engine.dispose()


def put_all(hub: HubClient, envelopes: list[Envelope]) -> None:
    for envelope in envelopes:
        hub.put_object(envelope)


def random_blob(size: int) -> bytes:
    return os.urandom(size)
