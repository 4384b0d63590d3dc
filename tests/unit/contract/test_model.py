"""The rules between fields of the signed objects, each with the twin that breaks it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Unchecked
from kakoi.contract.model import (
    Analysis,
    Approval,
    Assertion,
    Code,
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
    Person,
    SealedFile,
    TableUse,
    Withdrawal,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import Malformed
from kakoi.core.ids import ObjectId, PartyId
from kakoi.core.records import Record
from support.strategies import OPENERS, SIGNERS

MIB = 1024 * 1024


def oid(n: int) -> ObjectId:
    return ObjectId(f"{n:064x}")


def pid(n: int) -> PartyId:
    return PartyId(f"{n:064x}")


PERSON = Person(name="Dr. A", credential_id=bytes(16), public_key=bytes(32))
CARD = PartyCard(
    name="Hospital 東京",
    ed25519=SIGNERS[0].verifying_key.ed25519,
    mldsa65=SIGNERS[0].verifying_key.mldsa65,
    sealing=OPENERS[0].sealing_public,
    people=(PERSON,),
    approvals_required=1,
    relying_party="console.hospital.example",
    created=1,
)
COLUMN = Column(
    name="ecog",
    type="integer",
    unit="",
    codes=(Code(value="0", label="fully active"), Code(value="1", label="restricted")),
    missing=("", "NA"),
    minimum="0",
    maximum="5",
    identifier="no",
    description="ECOG performance status",
)
FILE = SealedFile(name="part-0", blob=oid(1), size=MIB + 20, segment_digests=bytes(64))
MANIFEST = DatasetManifest(
    owner=pid(1),
    dataset="0" * 32,
    version=1,
    table="lung",
    title="Lung cancer trial",
    person_column=None,
    columns=(COLUMN, dataclasses.replace(COLUMN, name="age")),
    rows=None,
    format="tink-aes256-gcm-hkdf-1mb/parquet",
    key_commitment=bytes(32),
    files=(FILE,),
    created=1,
)
NUMBER = Parameter(name="age", type="number", minimum="0", maximum="99.5", choices=())
CHOICE = Parameter(name="sex", type="string", minimum=None, maximum=None, choices=("f", "m"))
TABLE = Output(
    name="cells",
    shape="table",
    columns=(OutputColumn(name="sex", role="group"), OutputColumn(name="n", role="count")),
    parameters=0,
    max_rows=10,
)
STATISTICS = Output(
    name="cox", shape="statistics", columns=(OutputColumn(name="age", role="value"),), parameters=1, max_rows=1
)
ANALYSIS = Analysis(
    author=pid(2),
    name="table",
    title="Patients by sex",
    engine="sql",
    source="SELECT sex, count(*) AS n\n\tFROM lung\nGROUP BY sex -- 男女\n",
    sealed_code=None,
    reads=(TableUse(table="lung", columns=("sex",)),),
    parameters=(NUMBER, CHOICE),
    outputs=(TABLE,),
)
RULES = DisclosureRules(
    minimum_cell=3,
    minimum_contributors=3,
    parameters_per_person="0.33",
    max_digits=6,
    max_output_bytes=1000,
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
LOG = LogKey(origin="log.example/kakoi", ed25519=SIGNERS[1].verifying_key.ed25519)
PLATFORM = PlatformPolicy(
    platform="software",
    roots=(oid(9),),
    measurements=(ReferenceValue(name="mrenclave", accepted=("00" * 32,)),),
    statuses=("UpToDate",),
    advisories=(),
    grace=None,
    minimum_tcb=Unchecked(reason="the software platform has no TCB"),
    minimum_tcb_evaluation_number=1,
    platforms=Unchecked(reason="any machine of the demonstration"),
    refused_products=(),
    settings=(),
    collateral_max_age=86400,
)
CONTRACT = Contract(
    title="Lung study",
    purpose="Survival by ECOG status.\nNothing else.",
    version=1,
    supersedes=None,
    drafter=pid(2),
    parties=(ContractParty(party=pid(1), roles=("owner",)), ContractParty(party=pid(2), roles=("analyst",))),
    data=(ContractData(manifest=oid(3), owner=pid(1), rules=RULES),),
    analyses=(ContractAnalysis(analysis=oid(4), max_runs=2),),
    code=(),
    recipients=(pid(2),),
    platforms=AttestationPolicy(accepted=(PLATFORM,)),
    accepted_weaknesses=("engine.no-seccomp",),
    limits=Limits(wall_seconds=60, memory_megabytes=512, lease_seconds=300, grain_milliseconds=100),
    log=LOG,
    not_before=10,
    expires=20,
)
ASSERTION = Assertion(credential_id=bytes(16), authenticator_data=bytes(37), client_data=b"{}", signature=bytes(64))
APPROVAL = Approval(contract=oid(5), party=pid(1), assertions=(ASSERTION,), approved_at=11)
WITHDRAWAL = Withdrawal(party=pid(1), contract=oid(5), dataset=None, reason="Consent was withdrawn.", withdrawn_at=12)

GOOD: list[Record] = [
    CARD,
    MANIFEST,
    ANALYSIS,
    CONTRACT,
    APPROVAL,
    WITHDRAWAL,
    dataclasses.replace(MANIFEST, person_column="age", rows=0),
    dataclasses.replace(CARD, people=(), approvals_required=0, relying_party=""),
    dataclasses.replace(ANALYSIS, engine="python", outputs=(TABLE, STATISTICS)),
    dataclasses.replace(CONTRACT, version=2, supersedes=oid(7)),
    dataclasses.replace(CONTRACT, recipients=(pid(1), pid(2))),
    dataclasses.replace(WITHDRAWAL, contract=None, dataset=oid(3)),
]


@pytest.mark.parametrize("record", GOOD, ids=lambda record: type(record).__name__)
def test_good_objects_come_back(record: Record) -> None:
    assert type(record).decode(record.encode()) == record


def _twin(record: Record, code: str, **changes: Any) -> Any:
    return pytest.param(record, changes, code, id=f"{type(record).__name__}-{'-'.join(changes)}-{code}")


SIGNING_KEY_ANYBODY_HAS = b"\x01" + bytes(31)
BAD = [
    _twin(CARD, "card.approvals", approvals_required=2),
    _twin(CARD, "card.relying-party", relying_party=""),
    _twin(CARD, "card.relying-party", people=(), approvals_required=0),
    _twin(CARD, "record.field", relying_party="https://hospital.example"),
    _twin(CARD, "record.field", name="Hospital\u202eA"),
    _twin(CARD, "record.repeated", people=(PERSON, dataclasses.replace(PERSON, name="Dr. B"))),
    _twin(CARD, "crypto.public-key", ed25519=SIGNING_KEY_ANYBODY_HAS),
    _twin(CARD, "crypto.public-key", sealing=CARD.sealing[:1184] + bytes(32)),
    _twin(CARD, "record.field", mldsa65=CARD.mldsa65[:-1]),
    _twin(COLUMN, "record.range", minimum="5.5"),
    _twin(COLUMN, "column.range", type="string"),
    _twin(COLUMN, "record.repeated", codes=(*COLUMN.codes, Code(value="0", label="again"))),
    _twin(COLUMN, "record.repeated", missing=("0",)),
    _twin(COLUMN, "record.field", missing=("NA", "NA")),
    _twin(COLUMN, "record.field", minimum="-0"),
    _twin(COLUMN, "record.field", description="a\x1b[2J"),
    _twin(FILE, "manifest.segments", segment_digests=bytes(32)),
    _twin(FILE, "manifest.segments", segment_digests=bytes(65)),
    _twin(FILE, "manifest.segments", size=MIB),
    _twin(FILE, "dataset.layout", size=MIB + 16),
    _twin(FILE, "dataset.layout", size=55, segment_digests=bytes(32)),
    _twin(FILE, "dataset.layout", size=2**44),
    _twin(MANIFEST, "record.repeated", columns=(COLUMN, COLUMN)),
    _twin(MANIFEST, "record.repeated", columns=(COLUMN, dataclasses.replace(COLUMN, name="ECOG"))),
    _twin(MANIFEST, "record.repeated", files=(FILE, dataclasses.replace(FILE, blob=oid(2)))),
    _twin(MANIFEST, "manifest.site", columns=(COLUMN, dataclasses.replace(COLUMN, name="Site"))),
    _twin(MANIFEST, "manifest.person-column", person_column="Age"),
    _twin(MANIFEST, "record.field", dataset="0" * 31 + "G"),
    _twin(MANIFEST, "record.field", files=()),
    _twin(NUMBER, "parameter.limits", minimum=None),
    _twin(NUMBER, "parameter.limits", maximum=None),
    _twin(NUMBER, "parameter.limits", choices=("1",)),
    _twin(NUMBER, "record.range", minimum="100"),
    _twin(CHOICE, "parameter.limits", choices=()),
    _twin(CHOICE, "parameter.limits", minimum="0"),
    _twin(CHOICE, "record.field", choices=("f", "f")),
    _twin(TABLE, "output.count", columns=TABLE.columns[:1]),
    _twin(TABLE, "output.count", columns=(*TABLE.columns, OutputColumn(name="m", role="count"))),
    _twin(TABLE, "record.repeated", columns=(*TABLE.columns, OutputColumn(name="SEX", role="value"))),
    _twin(TABLE, "output.parameters", parameters=1),
    _twin(STATISTICS, "output.statistics", columns=TABLE.columns),
    _twin(ANALYSIS, "analysis.outputs", outputs=(TABLE, STATISTICS)),
    _twin(ANALYSIS, "analysis.outputs", outputs=(STATISTICS,)),
    _twin(ANALYSIS, "record.repeated", reads=(*ANALYSIS.reads, TableUse(table="Lung", columns=("age",)))),
    _twin(ANALYSIS, "record.repeated", parameters=(NUMBER, NUMBER)),
    _twin(ANALYSIS, "record.repeated", engine="python", outputs=(TABLE, TABLE)),
    _twin(ANALYSIS, "record.field", source="SELECT 1 -- \u202e"),
    _twin(ANALYSIS, "record.field", source="SELECT 1\r\n"),
    _twin(ANALYSIS, "analysis.code", source=""),
    _twin(ANALYSIS, "analysis.code", sealed_code="0" * 64),
    _twin(ANALYSIS, "analysis.code", source="", sealed_code="0" * 64),
    _twin(ANALYSIS.reads[0], "record.repeated", columns=("sex", "Sex")),
    _twin(RULES, "rules.share", parameters_per_person="1.01"),
    _twin(RULES, "rules.share", parameters_per_person="-0.1"),
    _twin(RULES, "rules.epsilon", epsilon_per_run="0.5"),
    _twin(RULES, "rules.epsilon", epsilon_budget="5"),
    _twin(RULES, "rules.epsilon", epsilon_per_run="0", epsilon_budget="5"),
    _twin(RULES, "rules.epsilon", epsilon_per_run="2", epsilon_budget="1.9"),
    _twin(RULES, "rules.epsilon", epsilon_per_run="21", epsilon_budget="100"),
    _twin(RULES, "record.field", minimum_cell=0),
    _twin(LOG, "crypto.public-key", ed25519=SIGNING_KEY_ANYBODY_HAS),
    _twin(LOG, "record.field", origin="log example"),
    _twin(LOG, "record.field", origin="log+example"),
    _twin(CONTRACT, "record.repeated", parties=CONTRACT.parties[:1] * 2),
    _twin(CONTRACT, "record.repeated", data=CONTRACT.data * 2),
    _twin(CONTRACT, "record.repeated", analyses=CONTRACT.analyses * 2),
    _twin(CONTRACT, "contract.owner", data=(dataclasses.replace(CONTRACT.data[0], owner=pid(2)),)),
    _twin(CONTRACT, "contract.owner", data=(dataclasses.replace(CONTRACT.data[0], owner=pid(3)),)),
    _twin(CONTRACT, "contract.parties", recipients=(pid(3),)),
    _twin(CONTRACT, "contract.parties", drafter=pid(3)),
    _twin(CONTRACT, "contract.dates", not_before=20),
    _twin(CONTRACT, "contract.dates", expires=9),
    _twin(CONTRACT, "contract.version", version=2),
    _twin(CONTRACT, "contract.version", supersedes=oid(7)),
    _twin(CONTRACT, "record.field", accepted_weaknesses=("No Sandbox",)),
    _twin(CONTRACT, "record.field", recipients=(pid(2), pid(2))),
    _twin(CONTRACT, "record.field", recipients=()),
    _twin(CONTRACT, "record.field", data=()),
    _twin(CONTRACT.parties[0], "record.field", roles=("owner", "owner")),
    _twin(CONTRACT.parties[0], "record.field", roles=("root",)),
    _twin(APPROVAL, "record.repeated", assertions=(ASSERTION, dataclasses.replace(ASSERTION, client_data=b"{ }"))),
    _twin(WITHDRAWAL, "withdrawal.object", dataset=oid(3)),
    _twin(WITHDRAWAL, "withdrawal.object", contract=None),
]


@pytest.mark.parametrize(("record", "changes", "code"), BAD)
def test_bad_twins_are_refused(record: Record, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(Malformed) as error:
        dataclasses.replace(record, **changes)
    assert error.value.code == code


def test_the_id_is_the_digest_of_what_is_signed() -> None:
    assert CONTRACT.id == Contract.decode(CONTRACT.encode()).id
    assert CONTRACT.id != dataclasses.replace(CONTRACT, expires=21).id


def test_a_card_gives_its_verifying_key() -> None:
    assert CARD.verifying_key == SIGNERS[0].verifying_key


def test_an_object_of_another_kind_is_refused() -> None:
    for record in (CARD, MANIFEST, ANALYSIS, CONTRACT, APPROVAL, WITHDRAWAL):
        for cls in (PartyCard, DatasetManifest, Analysis, Contract, Approval, Withdrawal):
            if not isinstance(record, cls):
                with pytest.raises(Malformed):
                    cls.decode(record.encode())
