"""A small world for tests: parties with keys, sealed-looking data, an analysis and a contract, all really signed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Unchecked
from kakoi.contract.approve import Agreement, ContractBundle, agree
from kakoi.contract.model import (
    Analysis,
    Approval,
    Column,
    Contract,
    ContractAnalysis,
    ContractData,
    ContractParty,
    DatasetManifest,
    Limits,
    LogKey,
    Output,
    OutputColumn,
    Parameter,
    PartyCard,
    SealedFile,
    TableUse,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.contract.sign import Signed, open_card, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.ids import ObjectId, PartyId, object_id
from kakoi.dataset.format import sealed_key_commitment
from kakoi.wire.messages import Binding, RunRequest

NOW = 1_800_000_000
RULES = DisclosureRules(
    minimum_cell=3,
    minimum_contributors=3,
    parameters_per_person="0.33",
    max_digits=6,
    max_output_bytes=100_000,
    dominance_contributors=2,
    dominance_percent=85,
    p_percent=10,
    rounding_base=1,
    cohort_difference=3,
    python_settings=1,
    budget_runs=100,
    budget_kilobytes=1000,
    epsilon_per_run="none",
    epsilon_budget="none",
    rows_per_person=1,
)


def seeded(name: str, length: int) -> bytes:
    """Bytes that are the same for the same name: tests are repeatable."""
    return crypto.hkdf_sha256(name.encode(), salt=b"kakoi/testing", info=b"", length=length)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestParty:
    """A party whose keys come from its name."""

    __test__ = False

    name: str
    signing: SigningKey
    sealing: SealingKey
    card: Signed[PartyCard]

    @classmethod
    def named(cls, name: str) -> TestParty:
        """The party of this name."""
        signing = SigningKey(seeded(name + "/signing", crypto.SIGNING_SECRET))
        sealing = SealingKey(seeded(name + "/sealing", crypto.SEALING_SECRET))
        card = PartyCard(
            name=name,
            ed25519=signing.verifying_key.ed25519,
            mldsa65=signing.verifying_key.mldsa65,
            sealing=sealing.sealing_public,
            people=(),
            approvals_required=0,
            relying_party="",
            created=NOW,
        )
        return cls(name=name, signing=signing, sealing=sealing, card=open_card(seal(card, signing)))

    @property
    def id(self) -> PartyId:
        """Id of the party's card."""
        return PartyId(self.card.id)


def column(name: str, kind: str = "integer", identifier: str = "no") -> Column:
    """A plain column."""
    return Column(
        name=name,
        type=kind,  # type: ignore[arg-type]
        unit="",
        codes=(),
        missing=("",),
        minimum=None,
        maximum=None,
        identifier=identifier,  # type: ignore[arg-type]
        description="",
    )


def policy() -> AttestationPolicy:
    """A policy for the software platform; its values are made up."""
    return AttestationPolicy(
        accepted=(
            PlatformPolicy(
                platform="software",
                roots=(object_id(b"root"),),
                measurements=(ReferenceValue(name="mrenclave", accepted=("ab" * 32,)),),
                statuses=("UpToDate",),
                advisories=(),
                grace=None,
                minimum_tcb=Unchecked(reason="a test needs no floor"),
                minimum_tcb_evaluation_number=Unchecked(reason="a test needs no floor"),
                platforms=Unchecked(reason="a test runs anywhere"),
                refused_products=(),
                settings=(),
                collateral_max_age=86400,
            ),
        )
    )


@dataclass(slots=True, kw_only=True)
class World:
    """Three owners, an analyst, one contract. Change a part, then call ``agreement``."""

    owners: tuple[TestParty, ...] = field(
        default_factory=lambda: tuple(TestParty.named(name) for name in ("North", "East", "South"))
    )
    analyst: TestParty = field(default_factory=lambda: TestParty.named("Analyst"))
    change_contract: Callable[[Contract], Contract] = lambda contract: contract
    silent: Sequence[str] = ()
    """Names of parties that do not approve."""

    def data_key(self, owner: TestParty) -> bytes:
        """An owner's data key."""
        return seeded(owner.name + "/data", 32)

    def manifest(self, owner: TestParty) -> Envelope:
        """An owner's signed manifest of table ``trial``."""
        dataset = seeded(owner.name + "/dataset", 16).hex()
        record = DatasetManifest(
            owner=owner.id,
            dataset=dataset,
            version=1,
            table="trial",
            title=f"Trial at {owner.name}",
            person_column=None,
            columns=(column("age"), column("sex"), column("days")),
            rows=None,
            format="tink-aes256-gcm-hkdf-1mb/parquet",
            key_commitment=sealed_key_commitment(self.data_key(owner), dataset=dataset, version=1),
            files=(
                SealedFile(
                    name="part0", blob=object_id(owner.name.encode()), size=100, segment_digests=sha256(b"segment")
                ),
            ),
            created=NOW,
        )
        return seal(record, owner.signing)

    def analysis(self) -> Envelope:
        """The analyst's signed analysis with one integer parameter."""
        record = Analysis(
            author=self.analyst.id,
            name="counts",
            title="People by sex",
            engine="sql",
            source="SELECT sex, count(*) AS people FROM trial WHERE age >= $minimum_age GROUP BY sex",
            sealed_code=None,
            reads=(TableUse(table="trial", columns=("age", "sex")),),
            parameters=(Parameter(name="minimum_age", type="integer", minimum="0", maximum="120", choices=()),),
            outputs=(
                Output(
                    name="counts",
                    shape="table",
                    columns=(OutputColumn(name="sex", role="group"), OutputColumn(name="people", role="count")),
                    parameters=0,
                    max_rows=10,
                ),
            ),
        )
        return seal(record, self.analyst.signing)

    def bundle(self) -> ContractBundle:
        """The contract with everything, approved by all but the silent."""
        manifests = [self.manifest(owner) for owner in self.owners]
        analysis = self.analysis()
        parties = (*self.owners, self.analyst)
        contract = self.change_contract(
            Contract(
                title="A trial in three hospitals",
                purpose="To show that it works.",
                version=1,
                supersedes=None,
                drafter=self.analyst.id,
                parties=(
                    *(ContractParty(party=owner.id, roles=("owner",)) for owner in self.owners),
                    ContractParty(party=self.analyst.id, roles=("analyst",)),
                ),
                data=tuple(
                    ContractData(manifest=envelope.payload_id, owner=owner.id, rules=RULES)
                    for owner, envelope in zip(self.owners, manifests, strict=True)
                ),
                analyses=(ContractAnalysis(analysis=analysis.payload_id, max_runs=2),),
                code=(),
                recipients=(self.analyst.id,),
                platforms=policy(),
                accepted_weaknesses=(),
                limits=Limits(wall_seconds=60, memory_megabytes=512, lease_seconds=300, grain_milliseconds=100),
                log=LogKey(origin="log.test", ed25519=crypto.ed25519_public(seeded("log", 32))),
                not_before=NOW - 1000,
                expires=NOW + 100_000,
            )
        )
        envelope = seal(contract, self.analyst.signing)
        approvals = tuple(
            seal(Approval(contract=envelope.payload_id, party=party.id, assertions=(), approved_at=NOW), party.signing)
            for party in parties
            if party.name not in self.silent
        )
        return ContractBundle(
            contract=envelope,
            cards=tuple(party.card.envelope for party in parties),
            manifests=tuple(manifests),
            analyses=(analysis,),
            code=(),
            reviews=(),
            approvals=approvals,
        )

    def agreement(self) -> Agreement:
        """The agreement; raises what ``agree`` raises."""
        return agree(self.bundle())

    def request(
        self, agreement: Agreement, *, minimum_age: int | str = 40, at: int = NOW, nonce: str = "1"
    ) -> Envelope:
        """The analyst's signed run request."""
        record = RunRequest(
            contract=agreement.id,
            analysis=ObjectId(next(iter(agreement.analyses))),
            parameters=(Binding(name="minimum_age", value=minimum_age),),
            party=self.analyst.id,
            nonce=seeded("nonce/" + nonce, 32),
            requested_at=at,
        )
        return seal(record, self.analyst.signing)


def with_changes(contract: Contract, **changes: object) -> Contract:
    """A contract with some fields changed."""
    return replace(contract, **changes)  # type: ignore[arg-type]
