"""The objects of the red team's own parties: small, really signed, and labelled."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.software.verify import reference_policy
from kakoi.contract.model import (
    Analysis,
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
    SealedFile,
    TableUse,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.core import crypto
from kakoi.core.encoding import sha256
from kakoi.core.ids import ObjectId, PartyId
from kakoi.dataset.format import sealed_key_commitment
from kakoi.evidence.software import SoftwarePlatform
from kakoi.party.home import PartyHome

TITLE: Final = "Red team exercise"
RULES: Final = DisclosureRules(
    minimum_cell=5,
    minimum_contributors=5,
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
MOST_RUNS: Final = 12


def _column(name: str) -> Column:
    return Column(
        name=name,
        type="integer",
        unit="",
        codes=(),
        missing=("",),
        minimum=None,
        maximum=None,
        identifier="no",
        description="",
    )


def manifest_of(home: PartyHome, blob: ObjectId, data: bytes, now: int) -> tuple[DatasetManifest, bytes]:
    """A data set of random bytes, and its key."""
    dataset, key = secrets.token_hex(16), secrets.token_bytes(32)
    record = DatasetManifest(
        owner=PartyId(home.card.id),
        dataset=dataset,
        version=1,
        table="exercise",
        title=TITLE,
        person_column=None,
        columns=(_column("age"), _column("sex")),
        rows=None,
        format="tink-aes256-gcm-hkdf-1mb/parquet",
        key_commitment=sealed_key_commitment(key, dataset=dataset, version=1),
        files=(SealedFile(name="part0", blob=blob, size=len(data), segment_digests=sha256(data)),),
        created=now,
    )
    return record, key


def analysis_of(home: PartyHome) -> Analysis:
    """One question with one parameter."""
    return Analysis(
        author=PartyId(home.card.id),
        name="exercise",
        title=TITLE,
        engine="sql",
        sealed_code=None,
        source="SELECT sex, count(*) AS people FROM exercise WHERE age >= $minimum_age GROUP BY sex",
        reads=(TableUse(table="exercise", columns=("age", "sex")),),
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


def contract_of(
    analysis: ObjectId,
    manifests: Sequence[tuple[ObjectId, PartyHome]],
    analyst: PartyHome,
    platform: SoftwarePlatform,
    measurement: bytes,
    now: int,
) -> Contract:
    """A contract among the red team's own parties. Its log key is made up: none of these runs has a result."""
    owners = [home for _, home in manifests]
    return Contract(
        title=f"{TITLE} {secrets.token_hex(4)}",
        purpose="An exercise of the security team. It concerns no patient, and may be ignored.",
        version=1,
        supersedes=None,
        drafter=PartyId(analyst.card.id),
        parties=(
            *(ContractParty(party=PartyId(home.card.id), roles=("owner",)) for home in owners),
            ContractParty(party=PartyId(analyst.card.id), roles=("analyst",)),
        ),
        data=tuple(ContractData(manifest=i, owner=PartyId(home.card.id), rules=RULES) for i, home in manifests),
        analyses=(ContractAnalysis(analysis=analysis, max_runs=MOST_RUNS),),
        code=(),
        recipients=(PartyId(analyst.card.id),),
        platforms=AttestationPolicy(
            accepted=(reference_policy(mrenclave=measurement.hex(), root=platform.root_spki_sha256),)
        ),
        accepted_weaknesses=(),
        limits=Limits(wall_seconds=60, memory_megabytes=512, lease_seconds=60, grain_milliseconds=100),
        log=LogKey(origin="red-team.invalid", ed25519=crypto.ed25519_public(secrets.token_bytes(32))),
        not_before=now - 60,
        expires=now + 3600,
    )
