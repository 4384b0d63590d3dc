"""The demo's parties, data and contract: everything that happens before the first run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Final

from kakoi.attest.dcap.roots import INTEL
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Unchecked
from kakoi.attest.sgx import settings as sgx_settings
from kakoi.cli.contract import approve
from kakoi.cli.dataset import seal_file, upload_dataset
from kakoi.cli.demo.data import HospitalFile
from kakoi.cli.demo.voices import Voices
from kakoi.cli.serve import software_policy
from kakoi.cli.ui import SystemClock
from kakoi.contract.model import Contract, ContractAnalysis, ContractData, ContractParty, Limits, LogKey
from kakoi.contract.sign import seal
from kakoi.core.ids import ObjectId, PartyId
from kakoi.enclave import image
from kakoi.evidence import software
from kakoi.evidence.software import SoftwarePlatform
from kakoi.party.files import write_private
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.sdk.draft import DATASHIELD_RULES, analysis_from_file

ASSETS: Final = Path(str(resources.files("kakoi.cli.demo").joinpath("assets")))
SCHEMA: Final = ASSETS / "lung.toml"
ANALYSES: Final = ("counts", "survival", "oldest")
_SGX_EVALUATION: Final = 18
"""TCB recovery of 2025: older endorsements are refused."""


@dataclass(slots=True)
class Cast:
    """Parties with their directories, the platform, the enclave's image, the contract."""

    directory: Path
    hospitals: list[PartyHome] = field(default_factory=list)
    analyst: PartyHome | None = None
    analyses: dict[str, ObjectId] = field(default_factory=dict)
    agreed: ObjectId | None = None

    @property
    def contract(self) -> ObjectId:
        """The contract in force, once all have signed."""
        if self.agreed is None:
            raise RuntimeError("no contract was signed yet")
        return self.agreed

    @property
    def image(self) -> Path:
        """The enclave's image."""
        return self.directory / "enclave" / "image"

    @property
    def platform(self) -> Path:
        """The software platform that plays the hardware."""
        return self.directory / "enclave" / "platform"

    @property
    def collateral(self) -> Path:
        """The vendor's endorsements, as each owner fetched them."""
        return self.directory / "enclave" / "collateral.json"

    @property
    def researcher(self) -> PartyHome:
        """The analyst, once made."""
        if self.analyst is None:
            raise RuntimeError("the analyst was not made yet")
        return self.analyst

    def make_parties(self, files: list[HospitalFile]) -> None:
        """A directory with keys for each hospital and for the analyst."""
        self.hospitals = [self._party(item.path.parent / "party", item.name) for item in files]
        self.analyst = self._party(self.directory / "analyst" / "party", "Trial Research Group")

    def _party(self, path: Path, name: str) -> PartyHome:
        path.mkdir(parents=True)
        new_key_file(path / "key")
        return PartyHome.create(path, name=name, unlock=Unlock(key_file=path / "key"), created=SystemClock().now())

    def seal_and_upload(self, client: Voices, home: PartyHome, item: HospitalFile) -> None:
        """One hospital seals its file and uploads ciphertext."""
        seal_file(home, item.path, SCHEMA, quiet=True)
        client.speak_for(home)
        client.put_object(home.card.envelope)
        for signed in home.datasets().values():
            upload_dataset(client, home, signed)

    def make_enclave(self) -> bytes:
        """Build the image and the software platform; returns the measurement."""
        measurement = image.build(self.image)
        software.create(self.platform)
        platform = SoftwarePlatform.load(self.platform)
        write_private(self.collateral, platform.collateral(SystemClock().now()).encode())
        return measurement

    def draft(self, client: Voices, log: LogKey, weaknesses: tuple[str, ...], *, max_runs: int = 10) -> Contract:
        """The contract that all parties will sign."""
        home = self.researcher
        client.speak_for(home)
        client.put_object(home.card.envelope)
        for name in ANALYSES:
            envelope = seal(analysis_from_file(ASSETS / f"{name}.toml", PartyId(home.card.id)), home.keys.signer())
            client.put_object(envelope)
            self.analyses[name] = envelope.payload_id
        now = SystemClock().now()
        return Contract(
            title="Survival in advanced lung cancer, three hospitals",
            purpose="Reproduce the published analyses of the NCCTG trial without showing a row to anybody.",
            version=1,
            supersedes=None,
            drafter=PartyId(home.card.id),
            parties=(
                *(ContractParty(party=PartyId(h.card.id), roles=("owner",)) for h in self.hospitals),
                ContractParty(party=PartyId(home.card.id), roles=("analyst",)),
            ),
            data=tuple(
                ContractData(manifest=newest_manifest(h), owner=PartyId(h.card.id), rules=DATASHIELD_RULES)
                for h in self.hospitals
            ),
            analyses=tuple(ContractAnalysis(analysis=self.analyses[name], max_runs=max_runs) for name in ANALYSES),
            code=(),
            recipients=(PartyId(home.card.id),),
            platforms=accepted_platforms(image.measure(self.image), SoftwarePlatform.load(self.platform)),
            accepted_weaknesses=weaknesses,
            limits=Limits(wall_seconds=120, memory_megabytes=2048, lease_seconds=300, grain_milliseconds=100),
            log=log,
            not_before=now - 60,
            expires=now + 30 * 86400,
        )

    def publish(self, client: Voices, contract: Contract, *, silent: PartyHome | None = None) -> ObjectId:
        """Sign the contract as its drafter; every party but ``silent`` approves it."""
        envelope = seal(contract, self.researcher.keys.signer())
        client.speak_for(*self.hospitals, self.researcher)
        client.put_object(envelope)
        for home in (*self.hospitals, self.researcher):
            if home is not silent:
                approve(client, home, envelope.payload_id)
        return envelope.payload_id


def accepted_platforms(measurement: bytes, platform: SoftwarePlatform) -> AttestationPolicy:
    """Two kinds: the software platform that the demo runs on, and Intel SGX, on which nothing of the demo runs.

    The second shows how a contract names real hardware, and that relabelled evidence does not pass for it. Its reference
    value is the image's digest, which stands in for the MRENCLAVE that Gramine computes when an image is built for SGX.
    """
    sgx = PlatformPolicy(
        platform="sgx",
        roots=tuple(ObjectId(root) for root in sorted(INTEL)),
        measurements=(
            ReferenceValue(name="mrenclave", accepted=(measurement.hex(),)),
            ReferenceValue(name="mrsigner", accepted=Unchecked(reason="mrenclave alone says which code runs")),
        ),
        statuses=("UpToDate",),
        advisories=(),
        grace=None,
        minimum_tcb=Unchecked(reason="Intel's status bounds every component of the platform"),
        minimum_tcb_evaluation_number=_SGX_EVALUATION,
        platforms=Unchecked(reason="any machine that Intel certifies; nobody has named the operator's yet"),
        refused_products=(),
        settings=sgx_settings.RECOMMENDED,
        collateral_max_age=30 * 86400,
    )
    return AttestationPolicy(accepted=(*software_policy(measurement, platform).accepted, sgx))


def newest_manifest(home: PartyHome) -> ObjectId:
    """The id of the newest version of a hospital's only data set."""
    signed = max(home.datasets().values(), key=lambda item: item.record.version)
    return signed.id


def other_version(contract: Contract, **changes: object) -> Contract:
    """The next version of a contract."""
    return replace(contract, version=contract.version + 1, **changes)  # type: ignore[arg-type]
