"""Brokers and an enclave of a test build, which take recorded hardware evidence for that of a running session.

The override is here and nowhere else: ``Replayed`` wraps a real verifier, which judges the recording at the time it was
made, and then takes the report data of the session from a part that production refuses as unknown.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.attest.registry import HARDWARE, Verifier
from kakoi.attest.report import Check, Collateral, Evidence, PlatformKind, VerifiedEvidence
from kakoi.attest.software.admit import with_software
from kakoi.broker.collateral import FileCollateral
from kakoi.broker.ledger import Decision, Ledger
from kakoi.broker.service import Broker
from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.demo.voices import Voices
from kakoi.cli.hub import log_key
from kakoi.cli.serve import judge_with
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Contract
from kakoi.core.errors import Unavailable
from kakoi.core.ids import ObjectId
from kakoi.enclave.sandbox import layers
from kakoi.party.home import PartyHome
from kakoi.sdk.connect import connect
from kakoi.sdk.run import Opened, await_run, bindings, load_agreement, open_result, request_run
from kakoi.testing import recorded as recordings
from kakoi.testing.dcap_vendor_corpus import EVIDENCE, recorded_collateral
from support import replaying_producers
from support.replaying_producers import OVERRIDE, REPLAY

DAY = 86400
AGE = 20 * 365 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Real evidence with the endorsements and the time it was recorded with."""

    evidence: Evidence
    collateral: Collateral
    at: int

    @classmethod
    def load(cls, file: str) -> Recording:
        """The first vector with this evidence file."""
        vector = next(v for v in recordings.load(EVIDENCE, "sgx", "tdx", "snp") if v.fields["evidence"] == file)
        if vector.kind == "snp":
            evidence, collateral = recordings.snp(vector)
        else:
            platform: PlatformKind = "sgx" if vector.kind == "sgx" else "tdx"
            evidence = Evidence(platform=platform, statement=vector.read("evidence"), parts=())
            collateral = recorded_collateral(vector.fields["collateral"])
        return cls(evidence=evidence, collateral=collateral, at=vector.at)

    @property
    def policy(self) -> PlatformPolicy:
        """Exactly what this machine showed."""
        verified = HARDWARE[self.evidence.platform].verify(self.evidence, self.collateral, now=self.at)
        return draft(verified, collateral_max_age=AGE)


class Replayed:
    """A real verifier, looking at a recording as of the day it was made."""

    def __init__(self, inner: Verifier, at: int) -> None:
        self._inner, self._at = inner, at

    def verify(self, evidence: Evidence, collateral: Collateral, *, now: int) -> VerifiedEvidence:
        override = [part.data for part in evidence.parts if part.name == OVERRIDE]
        rest = tuple(part for part in evidence.parts if part.name != OVERRIDE)
        genuine = self._inner.verify(replace(evidence, parts=rest), collateral, now=self._at)
        made: VerifiedEvidence = VerifiedEvidence._seal(
            claims=replace(genuine.claims, report_data=override[0].hex()),
            checks=genuine.checks,
            collateral=genuine.collateral,
            collateral_issued_at=genuine.collateral_issued_at,
            protected_by_hardware=genuine.protected_by_hardware,
            bounded=genuine.bounded,
            author_settings=genuine.author_settings,
        )
        return made

    def appraise(self, verified: VerifiedEvidence, policy: PlatformPolicy) -> tuple[Check, ...]:
        return self._inner.appraise(verified, policy)


class Shelf:
    """Endorsements of the recordings by kind; the software platform's from its file."""

    def __init__(self, software: Path) -> None:
        self._software = FileCollateral(software)
        self.recorded: dict[str, Collateral] = {}

    def collateral(self, evidence: Evidence, now: int) -> Collateral:
        if evidence.platform == "software":
            return self._software.collateral(evidence, now)
        return self.recorded[evidence.platform]


class ReplayBroker(threading.Thread):
    """An owner's broker as ``kakoi broker serve`` makes it, but for its verifiers and endorsements."""

    def __init__(self, home: PartyHome, url: str, world: ReplayWorld) -> None:
        super().__init__(daemon=True)
        self._home, self._url, self._world = home, url, world
        self._stop_it = threading.Event()
        self.decisions: list[Decision] = []

    def run(self) -> None:
        client = connect(self._url, self._home)
        broker = Broker(
            home=self._home,
            ledger=Ledger(self._home.path / "ledger.sqlite"),
            hub=client,
            collateral=self._world.shelf,
            judge=judge_with(self._world.verifiers),
            clock=SystemClock(),
            tell=self.decisions.append,
        )
        while not self._stop_it.is_set():
            try:
                broker.step(wait=1)
            except Unavailable:
                time.sleep(0.1)
        client.close()

    def stop(self) -> None:
        self._stop_it.set()
        self.join(timeout=20)


class ReplayWorld:
    """Hub, two owners' brokers, an honest enclave on the software platform and one that replays recordings."""

    def __init__(self, stage: Stage, cast: Cast, client: Voices) -> None:
        self.stage, self.cast, self.client = stage, cast, client
        self.shelf = Shelf(cast.collateral)
        self.brokers: list[ReplayBroker] = []
        self._times: dict[PlatformKind, int] = {}
        self._template: Contract | None = None
        self._running = ""

    def verifiers(self, policy: AttestationPolicy) -> Mapping[PlatformKind, Verifier]:
        """What the test build's brokers and readers judge with."""
        judges = dict(with_software(policy))
        for kind, at in self._times.items():
            judges[kind] = Replayed(HARDWARE[kind], at)
        return MappingProxyType(judges)

    def contract(self, *entries: PlatformPolicy, software: bool = True) -> ObjectId:
        """A contract that accepts these platforms (and the demo's), signed by everybody."""
        if self._template is None:
            key = log_key(self.cast.directory / "hub")
            self._template = self.cast.draft(self.client, key, layers.missing(), max_runs=100)
        template = self._template
        own = [entry for entry in template.platforms.accepted if software and entry.platform == "software"]
        platforms = AttestationPolicy(accepted=(*own, *entries))
        return self.cast.publish(self.client, replace(template, platforms=platforms))

    def replay(self, recording: Recording) -> None:
        """What the replaying enclave presents from now on."""
        kind = recording.evidence.platform
        self._times[kind] = recording.at
        self.shelf.recorded[kind] = recording.collateral
        (self._image.parent / REPLAY).write_bytes(recording.evidence.encode())
        self._enclave("replaying", self._image, ["--platform", "tsm"])

    def software(self) -> None:
        """Let the honest enclave take the next runs."""
        options = ["--platform", "software", "--platform-directory", str(self.cast.platform)]
        self._enclave("honest", self.cast.image, options)

    @property
    def _image(self) -> Path:
        return self.cast.directory / "replaying" / "image"

    def build(self) -> None:
        """The test build: the enclave's image with another producer."""
        shutil.copytree(self.cast.image, self._image)
        shutil.copyfile(replaying_producers.__file__, self._image / "kakoi/enclave/keeper/producers.py")

    def _enclave(self, name: str, image: Path, options: list[str]) -> None:
        if self._running == name:
            return
        if self._running:
            self.stage.stop(self._running)
        before = len(self.stage.log(name))
        command = ["enclave", "serve", "--image", str(image), "--hub", self.stage.hub_url, "--name", name]
        self.stage.start(name, [*command, "--token-file", str(self.stage.token_file), *options])
        deadline = time.monotonic() + 60
        while "ready" not in self.stage.log(name)[before:]:
            if time.monotonic() > deadline:
                raise AssertionError(self.stage.log(name)[before:])
            time.sleep(0.05)
        self._running = name

    def ask(self, contract: ObjectId) -> ObjectId:
        """The analyst asks for a run of ``counts``."""
        agreement = load_agreement(self.client, contract)
        identity = self.cast.analyses["counts"]
        return request_run(self.client, self.cast.researcher, agreement, identity, bindings({}), SystemClock().now())

    def result(self, contract: ObjectId, run: ObjectId) -> tuple[Opened, bytes]:
        """The opened result, and its file. Raises RunDenied."""
        agreement = load_agreement(self.client, contract)
        quiet = lambda kind, who: None  # noqa: E731
        sealed = await_run(self.client, agreement, run, clock=SystemClock(), seconds=90, tell=quiet)
        opened = open_result(self.client, self.cast.researcher, sealed, verifiers=self.verifiers)
        return opened, opened.file

    def log(self, run: ObjectId) -> list[list[Decision]]:
        """What each broker decided about a run."""
        return [[d for d in broker.decisions if d.run == run] for broker in self.brokers]


@contextmanager
def replaying(directory: Path, *, hospitals: int = 2) -> Iterator[ReplayWorld]:
    """A deployment of the test build in ``directory``."""
    cast = Cast(directory=directory)
    files = write_hospitals(directory)[:hospitals]
    cast.make_parties(files)
    cast.make_enclave()
    with Stage(directory) as stage:
        client = stage.start_hub()
        for home, item in zip(cast.hospitals, files, strict=True):
            cast.seal_and_upload(client, home, item)
        world = ReplayWorld(stage, cast, client)
        world.build()
        world.brokers = [ReplayBroker(home, stage.hub_url, world) for home in cast.hospitals]
        for broker in world.brokers:
            broker.start()
        try:
            yield world
        finally:
            for broker in world.brokers:
                broker.stop()
            client.close()
