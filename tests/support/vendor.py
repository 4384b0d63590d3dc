"""The small world with a vendor whose sealed model may be run on the owners' data, and an auditor who has read it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from kakoi.contract.approve import ContractBundle
from kakoi.contract.code import CodeManifest, CodeReview
from kakoi.contract.model import (
    Analysis,
    Approval,
    Contract,
    ContractAnalysis,
    ContractCode,
    ContractParty,
    Output,
    OutputColumn,
    TableUse,
)
from kakoi.contract.sign import open_card, seal
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.sdk.sealed_code import seal_code
from kakoi.testing.world import NOW, TestParty, World, seeded
from kakoi.wire.messages import RunRequest
from support.broker_setting import Setting

MARK: Final = "coefficient-of-the-secret-model"
SOURCE: Final = f'''
def analyse(tables, parameters, files):
    """{MARK}"""
    weight = float(files["model.txt"])
    frame = tables["trial"]
    frame["high"] = (frame["age"] * weight > 30).astype("Int64")
    return {{"risk": frame.groupby("high", as_index=False).agg(people=("age", "size"))}}
'''
MODEL: Final = b"0.6180339887"


@dataclass(slots=True, kw_only=True)
class Vendor:
    """Whoever owns the code, with a real directory that holds it sealed."""

    party: TestParty
    home: PartyHome
    sealed: Envelope

    @property
    def manifest(self) -> CodeManifest:
        return CodeManifest.decode(self.sealed.payload)

    def ciphertext(self, name: str) -> bytes:
        """A file as storage has it."""
        manifest = self.manifest
        file = next(file for file in manifest.files if file.name == name)
        return (self.home.code_directory(manifest.code, manifest.version) / f"{file.blob}.sealed").read_bytes()


def make_vendor(directory: Path) -> Vendor:
    """A vendor that has sealed a source and a model."""
    directory.mkdir()
    new_key_file(directory / "key")
    home = PartyHome.create(directory / "party", name="Vendor", unlock=Unlock(key_file=directory / "key"), created=NOW)
    (directory / "score.py").write_text(SOURCE)
    (directory / "model.txt").write_bytes(MODEL)
    sealed = seal_code(
        home,
        directory / "score.py",
        [directory / "model.txt"],
        title="Risk score",
        description="Counts people at high risk.",
        created=NOW,
    )
    party = TestParty(
        name="Vendor",
        signing=home.keys.signer(),  # type: ignore[arg-type]
        sealing=home.keys.opener(),  # type: ignore[arg-type]
        card=open_card(home.card.envelope),
    )
    return Vendor(party=party, home=home, sealed=sealed)


@dataclass(slots=True, kw_only=True)
class VendorWorld(World):
    """The world's contract with one more analysis, whose code is the vendor's secret."""

    vendor: Vendor
    auditor: TestParty = field(default_factory=lambda: TestParty.named("Auditor"))
    reviewed: bool = True
    change_sealed: Callable[[Contract], Contract] = lambda contract: contract
    change_analysis: Callable[[Analysis], Analysis] = lambda analysis: analysis

    def sealed_analysis(self) -> Envelope:
        """The vendor's analysis: declared inputs and outputs, and a digest in the place of the source."""
        columns = (OutputColumn(name="high", role="group"), OutputColumn(name="people", role="count"))
        record = Analysis(
            author=self.vendor.party.id,
            name="risk",
            title="People at high risk",
            engine="python",
            source="",
            sealed_code=self.vendor.sealed.payload_id,
            reads=(TableUse(table="trial", columns=("age",)),),
            parameters=(),
            outputs=(Output(name="risk", shape="table", columns=columns, parameters=0, max_rows=2),),
        )
        return seal(self.change_analysis(record), self.vendor.party.signing)

    def review(self, **changes: object) -> Envelope:
        """The auditor's review, with some fields changed."""
        record = CodeReview(
            code=self.vendor.sealed.payload_id,
            reviewer=self.auditor.id,
            statement="It counts people and keeps nothing.",
            reviewed_at=NOW,
        )
        return seal(replace(record, **changes), self.auditor.signing)  # type: ignore[arg-type]

    def _with_code(self, contract: Contract) -> Contract:
        more = (
            ContractParty(party=self.vendor.party.id, roles=("code-owner",)),
            ContractParty(party=self.auditor.id, roles=("auditor",)),
        )
        code = ContractCode(
            manifest=self.vendor.sealed.payload_id,
            owner=self.vendor.party.id,
            reviewers=(self.auditor.id,) if self.reviewed else (),
        )
        analysis = ContractAnalysis(analysis=self.sealed_analysis().payload_id, max_runs=2)
        return self.change_sealed(
            replace(
                contract,
                parties=(*contract.parties, *more),
                analyses=(*contract.analyses, analysis),
                code=(code,),
            )
        )

    def bundle(self) -> ContractBundle:
        """The contract with everything, approved by vendor and auditor too."""
        self.change_contract = self._with_code
        made = World.bundle(self)
        parties = (self.vendor.party, self.auditor)
        approvals = (
            seal(
                Approval(contract=made.contract.payload_id, party=party.id, assertions=(), approved_at=NOW),
                party.signing,
            )
            for party in parties
        )
        return replace(
            made,
            cards=(*made.cards, *(party.card.envelope for party in parties)),
            analyses=(*made.analyses, self.sealed_analysis()),
            code=(self.vendor.sealed,),
            reviews=(self.review(),) if self.reviewed else (),
            approvals=(*made.approvals, *approvals),
        )

    def ask(self, contract: ObjectId, *, nonce: str = "1") -> Envelope:
        """The analyst's request for a run of the sealed code."""
        record = RunRequest(
            contract=contract,
            analysis=self.sealed_analysis().payload_id,
            parameters=(),
            party=self.analyst.id,
            nonce=seeded("nonce/" + nonce, 32),
            requested_at=NOW,
        )
        return seal(record, self.analyst.signing)


def vendor_setting(vendor: Vendor) -> Setting:
    """The vendor's own broker, in the world with its code."""
    return Setting(path=vendor.home.path, world=VendorWorld(vendor=vendor), home=vendor.home)


class Storage:
    """Storage of ciphertext that hands out whatever the test put there."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def blob(self, blob: str, *, size: int) -> Iterator[bytes]:
        while chunk := self._content.read(65536):
            yield chunk
