"""A real deployment: hub, brokers and enclave as processes, as the demo starts them. One for all tests of a session.

Tests that use the fixture carry ``pytestmark = on_deployment``, so that with several workers only one starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.broker.ledger import Ledger
from kakoi.cli.demo.attacks import Scene
from kakoi.cli.demo.cast import Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.demo.voices import Voices
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Contract
from kakoi.core.ids import ObjectId
from kakoi.enclave import machine
from kakoi.enclave.keeper.drive import CLAIM_SECONDS
from kakoi.party.home import PartyHome
from kakoi.sdk.run import Opened, await_run, load_agreement, open_result
from kakoi.wire.messages import SealedResult, Session

on_deployment = pytest.mark.xdist_group("deployment")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that gave a result: its id, the sealed result as the hub has it, and what the analyst opened."""

    run: ObjectId
    sealed: SealedResult
    opened: Opened


@dataclass(slots=True, kw_only=True)
class Deployment:
    """Running programs with everything around them that a test needs."""

    stage: Stage
    cast: Cast
    client: Voices
    contract: Contract
    scene: Scene
    claim_seconds: int = CLAIM_SECONDS
    brokers: dict[str, PartyHome] = field(default_factory=dict)
    """Owners by the name of their broker's process."""
    _enclave: bool = False
    _finished: list[Finished] = field(default_factory=list)

    @property
    def agreement(self) -> Agreement:
        """The contract in force."""
        return load_agreement(self.client, self.cast.contract)

    @property
    def hub_directory(self) -> Path:
        """Where the hub keeps everything."""
        return self.stage.directory / "hub"

    def enclave(self, *, running: bool) -> None:
        """Have the honest enclave running, or not."""
        if running and not self._enclave:
            image, platform = self.cast.image, self.cast.platform
            self.stage.start_enclave("enclave", image, platform, claim_seconds=self.claim_seconds)
        elif self._enclave and not running:
            self.stage.stop("enclave")
        self._enclave = running

    def start_broker(self, name: str) -> None:
        """Start one owner's broker."""
        self.stage.start_broker(name, self.brokers[name].path, self.cast.collateral)

    def ask(self, analysis: str = "counts", **values: int) -> ObjectId:
        """The analyst asks for a run."""
        return self.scene.request(self.agreement, analysis, **values)

    def finish(self, run: ObjectId, *, seconds: int = 90) -> Finished:
        """Wait for a run's result and open it."""
        quiet = lambda kind, who: None  # noqa: E731
        sealed = await_run(self.client, self.agreement, run, clock=SystemClock(), seconds=seconds, tell=quiet)
        opened = open_result(self.client, self.cast.researcher, sealed, verifiers=with_software)
        return Finished(run=run, sealed=sealed, opened=opened)

    @property
    def honest(self) -> Finished:
        """The result of one honest run of ``counts``, made once; its session is recorded for the attacks."""
        if not self._finished:
            self.enclave(running=True)
            self._finished.append(self.finish(self.ask()))
            page = self.client.feed(kinds=(Session.KIND,), refs={"run": self._finished[0].run})
            self.scene.recorded = Session.decode(self.client.get_object(page.items[0].id).payload)
        return self._finished[0]

    @property
    def second(self) -> Finished:
        """The result of another honest run of the same analysis, made once."""
        if len(self._finished) < 2:
            assert self.honest.run
            self.enclave(running=True)
            self._finished.append(self.finish(self.ask()))
        return self._finished[1]

    def decisions(self, owner: str, run: str) -> list[dict[str, Any]]:
        """What an owner's decision log says about a run. ``owner`` is the party's name."""
        home = next(h for h in self.cast.hospitals if h.card.record.name == owner)
        ledger = Ledger(home.path / "ledger.sqlite")
        try:
            return [line for line in ledger.decisions() if line["run"] == run]
        finally:
            ledger.close()

    def runs(self) -> list[ObjectId]:
        """All runs that the hub knows, oldest change first."""
        return [item.run for item in self.client.runs(limit=1000).items]


@contextmanager
def deployed(
    directory: Path,
    *,
    hospitals: int = 3,
    claim_seconds: int = CLAIM_SECONDS,
    make_stage: Callable[[Path], Stage] = Stage,
) -> Iterator[Deployment]:
    """Hub, brokers and a signed contract in ``directory``. The enclave is started when a test wants it."""
    cast = Cast(directory=directory)
    files = write_hospitals(directory)[:hospitals]
    cast.make_parties(files)
    cast.make_enclave()
    with make_stage(directory) as stage:
        client = stage.start_hub()
        for home, item in zip(cast.hospitals, files, strict=True):
            cast.seal_and_upload(client, home, item)
        contract = cast.draft(client, log_key(directory / "hub"), machine.missing(), max_runs=100)
        cast.agreed = cast.publish(client, contract)
        scene = Scene(stage=stage, cast=cast, client=client, contract=contract, files=files)
        brokers = {item.path.parent.name: home for home, item in zip(cast.hospitals, files, strict=True)}
        made = Deployment(
            stage=stage,
            cast=cast,
            client=client,
            contract=contract,
            scene=scene,
            claim_seconds=claim_seconds,
            brokers=brokers,
        )
        for name in brokers:
            made.start_broker(name)
        yield made
        client.close()
