"""Studies through everything: hospitals seal and upload, all sign, brokers judge and release, the enclave computes, the analyst
opens and verifies. Hub, brokers and enclave are processes of their own, as in the demo.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kakoi.attest.software.admit import with_software
from kakoi.cli.contract import approve
from kakoi.cli.dataset import seal_file, upload_dataset
from kakoi.cli.demo.cast import Cast, accepted_platforms
from kakoi.cli.demo.data import HospitalFile
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Contract, ContractAnalysis, ContractData, ContractParty, Limits, LogKey
from kakoi.contract.sign import seal
from kakoi.core.ids import ObjectId, PartyId
from kakoi.enclave import image, machine
from kakoi.evidence.software import SoftwarePlatform
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.sdk.draft import DATASHIELD_RULES, analysis_from_file
from kakoi.sdk.released import Shown, outputs_of
from kakoi.sdk.run import await_run, load_agreement, open_result, request_run
from published.studies import HOSPITALS, Study

RULES: Final = replace(DATASHIELD_RULES, max_digits=10)
"""DataSHIELD's, but for the digits: published values have up to eight, and every owner allows them here."""
RUN_SECONDS: Final = 150


@dataclass(slots=True, kw_only=True)
class Rooms:
    """A running deployment in which one contract after another is made."""

    cast: Cast
    client: HubClient
    log: LogKey

    def answers(self, study: Study) -> dict[str, Shown]:
        """What left of all of a study's analyses, by the outputs' names."""
        contract, analyses = self._agreed(study)
        agreement = load_agreement(self.client, contract)
        found: dict[str, Shown] = {}
        for analysis in analyses:
            clock = SystemClock()
            run = request_run(self.client, self.cast.researcher, agreement, analysis, (), clock.now())
            quiet = lambda kind, who: None  # noqa: E731
            sealed = await_run(self.client, agreement, run, clock=clock, seconds=RUN_SECONDS, tell=quiet)
            opened = open_result(self.client, self.cast.researcher, sealed, verifiers=with_software)
            found |= {output.name: output for output in outputs_of(opened.verified)}
        return found

    def _agreed(self, study: Study) -> tuple[ObjectId, list[ObjectId]]:
        """Seal, upload, draft, sign."""
        data = [
            ContractData(manifest=self._sealed(home, study, place), owner=PartyId(home.card.id), rules=RULES)
            for place, home in enumerate(self.cast.hospitals[: len(study.parts())])
        ]
        analyst = self.cast.researcher
        drafts = [
            seal(analysis_from_file(path, PartyId(analyst.card.id)), analyst.keys.signer()) for path in study.analyses
        ]
        for envelope in drafts:
            self.client.put_object(envelope)
        analyses = [envelope.payload_id for envelope in drafts]
        contract = seal(self._contract(study, tuple(data), analyses), analyst.keys.signer())
        self.client.put_object(contract)
        for home in (*self.cast.hospitals[: len(data)], analyst):
            approve(self.client, home, contract.payload_id)
        return contract.payload_id, analyses

    def _sealed(self, home: PartyHome, study: Study, place: int) -> ObjectId:
        part = study.parts()[place]
        path = self.cast.directory / str(place) / f"{study.name}.csv"
        part.to_csv(path, index=False, lineterminator="\n")
        envelope = seal_file(home, path, study.schema, quiet=True)
        upload_dataset(self.client, home, home.datasets()[envelope.payload_id])
        return envelope.payload_id

    def _contract(self, study: Study, data: tuple[ContractData, ...], analyses: list[ObjectId]) -> Contract:
        now, analyst = SystemClock().now(), PartyId(self.cast.researcher.card.id)
        measurement, platform = image.measure(self.cast.image), SoftwarePlatform.load(self.cast.platform)
        return Contract(
            title=f"Published results: {study.name}",
            purpose="Reproduce what was published without showing a row to anybody.",
            version=1,
            supersedes=None,
            drafter=analyst,
            parties=(
                *(ContractParty(party=item.owner, roles=("owner",)) for item in data),
                ContractParty(party=analyst, roles=("analyst",)),
            ),
            data=data,
            analyses=tuple(ContractAnalysis(analysis=analysis, max_runs=2) for analysis in analyses),
            code=(),
            recipients=(analyst,),
            platforms=accepted_platforms(measurement, platform),
            accepted_weaknesses=machine.missing(),
            limits=Limits(wall_seconds=120, memory_megabytes=2048, lease_seconds=300, grain_milliseconds=100),
            log=self.log,
            not_before=now - 60,
            expires=now + 86400,
        )


@contextmanager
def opened(directory: Path) -> Iterator[Rooms]:
    """Hub, four hospitals' brokers and an enclave in ``directory``."""
    cast = Cast(directory=directory)
    files = [
        HospitalFile(name=name, path=directory / str(place) / "files", rows=0) for place, name in enumerate(HOSPITALS)
    ]
    cast.make_parties(files)
    cast.make_enclave()
    with Stage(directory) as stage:
        client = stage.start_hub()
        for home in (*cast.hospitals, cast.researcher):
            client.put_object(home.card.envelope)
        for place, home in enumerate(cast.hospitals):
            stage.start_broker(f"broker-{place}", home.path, cast.collateral)
        stage.start_enclave("enclave", cast.image, cast.platform)
        yield Rooms(cast=cast, client=client, log=log_key(directory / "hub"))
        client.close()
