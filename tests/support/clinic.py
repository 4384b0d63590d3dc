"""Owners with real tables, one analysis over them, and the enclave's own engine and gate, in one process: everything between the
decrypted data and what leaves is the real thing; hub, brokers and sealing have tests of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from kakoi.contract.approve import Agreement, ContractBundle, agree
from kakoi.contract.model import (
    Analysis,
    Approval,
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
    SealedFile,
    TableUse,
)
from kakoi.contract.rules import DisclosureRules
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.encoding import sha256
from kakoi.core.ids import object_id
from kakoi.dataset.format import sealed_key_commitment
from kakoi.enclave import machine
from kakoi.enclave.gate.cohorts import Cohorts, Earlier
from kakoi.enclave.gate.model import Released, ReleasedStatistics, ReleasedTable
from kakoi.enclave.gate.private import Noised
from kakoi.enclave.gate.release import Judged
from kakoi.enclave.keeper.compute import SandboxedEngine
from kakoi.enclave.keeper.data import DataKeys
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.enclave.keeper.opt_out import OptOuts
from kakoi.testing.world import NOW, TestParty, policy, seeded
from kakoi.wire.messages import Binding, RunRequest
from kakoi.wire.release import data_id, data_read
from support.tree import ROOT
from unit.engines.parts import parquet, sealed

if TYPE_CHECKING:
    import pandas as pd

SHARED: Final = Path(os.environ.get("KAKOI_SHARED", ROOT / ".." / "shared"))
needs_shared = pytest.mark.skipif(not (SHARED / "data").exists(), reason="shared/data is not here (KAKOI_SHARED)")
RULES: Final = DisclosureRules(
    minimum_cell=3,
    minimum_contributors=3,
    parameters_per_person="0.33",
    max_digits=12,
    max_output_bytes=1_000_000,
    dominance_contributors=2,
    dominance_percent=85,
    p_percent=10,
    rounding_base=1,
    cohort_difference=3,
    python_settings=100,
    budget_runs=100,
    budget_kilobytes=100_000,
    epsilon_per_run="none",
    epsilon_budget="none",
    rows_per_person=1,
)
"""DataSHIELD's, but for the digits: published values have up to eight."""


def col(name: str, kind: str = "integer", *, codes: Sequence[str] = (), identifier: str = "no") -> Column:
    """A declared column."""
    return Column(
        name=name,
        type=kind,  # type: ignore[arg-type]
        unit="",
        codes=tuple(Code(value=code, label="") for code in codes),
        missing=("",),
        minimum=None,
        maximum=None,
        identifier=identifier,  # type: ignore[arg-type]
        description="",
    )


def output(name: str, *columns: str, shape: str = "table", parameters: int = 0, max_rows: int = 1000) -> Output:
    """Columns as ``group:sex``, ``count:n``, ``value:mean``; statistics as plain names."""
    pairs = [column.split(":") if ":" in column else ["value", column] for column in columns]
    return Output(
        name=name,
        shape=shape,  # type: ignore[arg-type]
        columns=tuple(OutputColumn(name=what, role=role) for role, what in pairs),  # type: ignore[arg-type]
        parameters=parameters,
        max_rows=max_rows,
    )


def data_secret(agreement: Agreement) -> DataSecret:
    """The secret of a contract's data, whose data keys come from the data sets' ids."""
    keys = DataKeys(agreement.manifests)
    for identity, manifest in agreement.manifests.items():
        keys.take(identity, seeded("key/" + manifest.record.dataset, 32))
    with keys:
        analysis = next(iter(agreement.analyses))
        return DataSecret(keys, data_read(agreement, analysis), data_id(agreement, analysis))


@cache
def party(name: str) -> TestParty:
    """A party by name; its keys are made once."""
    return TestParty.named(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One owner's part of a table."""

    owner: str
    table: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    person: str | None = None


@dataclass(slots=True, kw_only=True)
class Clinic:
    """Parties and data of one contract."""

    holdings: Sequence[Holding]
    analyses: Sequence[Analysis] = ()
    rules: DisclosureRules = RULES
    limits: Limits = field(
        default_factory=lambda: Limits(
            wall_seconds=120, memory_megabytes=2048, lease_seconds=300, grain_milliseconds=100
        )
    )
    analyst: TestParty = field(default_factory=lambda: party("Analyst"))
    ledger: list[bytes] | None = None
    """Sealed cohorts of earlier runs, if runs are to be held against one another."""
    opt_outs: OptOuts | None = None

    def analysis(
        self,
        source: str,
        *outputs: Output,
        engine: str = "python",
        reads: Mapping[str, Sequence[str]] | None = None,
        name: str = "analysis",
        parameters: Sequence[Parameter] = (),
    ) -> Analysis:
        """An analysis of everything that the holdings declare, unless ``reads`` says less."""
        found: dict[str, Sequence[str]] = dict(reads or {})
        if reads is None:
            for holding in self.holdings:
                found[holding.table] = [c.name for c in holding.columns if c.identifier != "direct"]
        return Analysis(
            author=self.analyst.id,
            name=name,
            title=name,
            engine=engine,  # type: ignore[arg-type]
            source=source,
            sealed_code=None,
            reads=tuple(TableUse(table=table, columns=tuple(columns)) for table, columns in found.items()),
            parameters=tuple(parameters),
            outputs=tuple(outputs),
        )

    def manifest(self, place: int) -> tuple[TestParty, DatasetManifest]:
        """The manifest of a holding."""
        holding = self.holdings[place]
        owner, dataset = party(holding.owner), seeded(f"{holding.owner}/{holding.table}/{place}", 16).hex()
        record = DatasetManifest(
            owner=owner.id,
            dataset=dataset,
            version=1,
            table=holding.table,
            title=holding.table,
            person_column=holding.person,
            columns=holding.columns,
            rows=None,
            format="tink-aes256-gcm-hkdf-1mb/parquet",
            key_commitment=sealed_key_commitment(bytes(32), dataset=dataset, version=1),
            files=(SealedFile(name="part0", blob=object_id(dataset.encode()), size=100, segment_digests=sha256(b"")),),
            created=NOW,
        )
        return owner, record

    def agreement(self) -> Agreement:
        """The contract, signed by all."""
        made = [self.manifest(place) for place in range(len(self.holdings))]
        owners = {owner.id: owner for owner, _ in made}
        manifests = [(owner, seal(record, owner.signing)) for owner, record in made]
        analyses = [seal(analysis, self.analyst.signing) for analysis in self.analyses]
        parties = (*owners.values(), self.analyst)
        contract = Contract(
            title="t",
            purpose="p",
            version=1,
            supersedes=None,
            drafter=self.analyst.id,
            parties=(
                *(ContractParty(party=identity, roles=("owner",)) for identity in owners),
                ContractParty(party=self.analyst.id, roles=("analyst",)),
            ),
            data=tuple(
                ContractData(manifest=envelope.payload_id, owner=owner.id, rules=self.rules)
                for owner, envelope in manifests
            ),
            analyses=tuple(ContractAnalysis(analysis=e.payload_id, max_runs=100) for e in analyses),
            code=(),
            recipients=(self.analyst.id,),
            platforms=policy(),
            accepted_weaknesses=machine.missing(),
            limits=self.limits,
            log=LogKey(origin="log.test", ed25519=crypto.ed25519_public(seeded("log", 32))),
            not_before=NOW - 1000,
            expires=NOW + 100_000,
        )
        envelope = seal(contract, self.analyst.signing)
        approvals = tuple(
            seal(Approval(contract=envelope.payload_id, party=p.id, assertions=(), approved_at=NOW), p.signing)
            for p in parties
        )
        return agree(
            ContractBundle(
                contract=envelope,
                cards=tuple(p.card.envelope for p in parties),
                manifests=tuple(e for _, e in manifests),
                analyses=tuple(analyses),
                code=(),
                reviews=(),
                approvals=approvals,
            )
        )

    def run(self, engine: SandboxedEngine, analysis: Analysis, **parameters: int | str) -> Answer:
        """What leaves when the analysis runs. Raises what engine and gate refuse."""
        self.analyses = [analysis]
        agreement = self.agreement()
        (identity,) = agreement.analyses
        request = RunRequest(
            contract=agreement.id,
            analysis=object_id(agreement.analyses[identity].envelope.payload),
            parameters=tuple(Binding(name=n, value=v) for n, v in sorted(parameters.items())),
            party=self.analyst.id,
            nonce=bytes(32),
            requested_at=NOW,
        )
        secret = data_secret(agreement)
        try:
            with self.opened(agreement) as tables:
                judged = engine.compute(
                    agreement,
                    request,
                    tables,
                    secret=secret,
                    opt_outs=self.opt_outs,
                    seconds=120,
                    stopped=lambda: False,
                )
            released = judged.released if self.ledger is None else self._remembered(agreement, secret, judged)
        finally:
            secret.wipe()
        return Answer(Released.decode(released.encode()))

    def _remembered(self, agreement: Agreement, secret: DataSecret, judged: Judged | Noised) -> Released:
        """As the keeper does it: the ledger gets the sealed cohorts first, then the result is held against the earlier ones."""
        assert self.ledger is not None
        run = object_id(b"run %d" % len(self.ledger))
        self.ledger.append(secret.seal(Cohorts(run=run, populations=judged.populations())))
        earlier = Earlier(least=max(entry.rules.cohort_difference for entry in agreement.contract.data))
        for sealed_cohorts in self.ledger[:-1]:
            for population in secret.open(sealed_cohorts).populations:
                earlier.add(population)
        return judged.against(earlier)

    @contextmanager
    def opened(self, agreement: Agreement) -> Iterator[dict[str, tuple[int, ...]]]:
        """Descriptors of the plaintext by manifest, as the keeper has them after decryption."""
        import pyarrow as pa

        with ExitStack() as stack:
            tables: dict[str, tuple[int, ...]] = {}
            for identity, holding in zip(agreement.manifests, self.holdings, strict=True):
                names = [column.name for column in holding.columns]
                descriptor = sealed(parquet(pa.Table.from_pandas(holding.frame[names], preserve_index=False)))
                stack.callback(os.close, descriptor)
                tables[identity] = (descriptor,)
            yield tables


@dataclass(frozen=True, slots=True)
class Answer:
    """What left, for comparison."""

    released: Released

    def rows(self, name: str = "") -> list[dict[str, str | None]]:
        """A table's rows as text by column."""
        table = next(o for o in self.released.outputs if isinstance(o, ReleasedTable) and name in ("", o.name))
        height = len(table.columns[0].cells)
        return [{column.name: column.cells[i] for column in table.columns} for i in range(height)]

    def cell(self, column: str, name: str = "", **labels: object) -> float:
        """One number of a table by its row's labels."""
        wanted = {key: str(value) for key, value in labels.items()}
        found = [row for row in self.rows(name) if wanted.items() <= row.items()]
        assert len(found) == 1, (labels, found)
        return float(found[0][column] or "nan")

    def number(self, name: str, output: str = "") -> float:
        """One number of a statistics output."""
        for found in self.released.outputs:
            if isinstance(found, ReleasedStatistics) and output in ("", found.name):
                for value in found.values:
                    if value.name == name:
                        return float(value.number or "nan")
        raise KeyError(name)


@cache
def shared_engine() -> SandboxedEngine:
    """One engine with its waiting sandboxes for all tests of a process."""
    return SandboxedEngine()


def text(value: Any) -> str | None:
    """A label as the gate shows it."""
    return None if value is None else str(value)
