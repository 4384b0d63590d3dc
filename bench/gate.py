"""What the gate costs on ten million generated rows, as a share of the query, in one run.

    gate proper     judging the engine's answer in the keeper: labels, support, dominance, complementary suppression, rounding of
                    numbers; at most 0.05 of the query wanted
    ledger          holding it against cohorts of earlier runs, each cohort against fifty of the same size and other people: the most that
                    comparing can take, since cohorts of other sizes are not looked at
    hidden counts   what the engine adds to the query so that the gate can judge: rows and people behind each number
    contributors    the largest contributors to each sum and mean, for the rules on dominance
    cohorts         power sums of the people behind each cell, for the owners' ledgers

The query is the one of ``bench engine``, written plainly, by DuckDB on the plain file; and the same with all margins. The engine's shares are of CPU time
(differences of two measurements, so a busy machine moves them); the gate proper does nothing but compute, in one process.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.engine import QUERY, ROWS, Row, _Cost, _generate, _job, _plain_sql
from kakoi.contract.model import Analysis, Output, OutputColumn, TableUse
from kakoi.core.ids import PartyId
from kakoi.enclave.engines import sql_engine
from kakoi.enclave.gate.cohorts import Earlier
from kakoi.enclave.gate.release import Judged, judge
from kakoi.enclave.job import COHORT_PRIME, Job, Result
from kakoi.sdk.draft import DATASHIELD_RULES

_CUBE: Final = QUERY.replace("GROUP BY sex, ward", "GROUP BY CUBE (sex, ward)")
_EARLIER: Final = 50
"""Earlier cohorts of the same size for each cohort of this run, of other people: the most work that comparing makes."""


def _analysis(job: Job) -> Analysis:
    (output,) = job.outputs
    return Analysis(
        author=PartyId("0" * 64),
        name="bench",
        title="Bench",
        engine="sql",
        source=job.source,
        sealed_code=None,
        reads=(TableUse(table="visits", columns=tuple(column.name for column in job.tables[0].columns)),),
        parameters=(),
        outputs=(
            Output(
                name=output.name,
                shape=output.shape,
                columns=tuple(OutputColumn(name=column.name, role=column.role) for column in output.columns),
                parameters=0,
                max_rows=output.max_rows,
            ),
        ),
    )


class _Bench:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def engine(self, job: Job) -> Result:
        return sql_engine.run(
            job, [self._descriptor], memory_megabytes=4096, threads=os.cpu_count() or 1, milliseconds=300_000
        )

    def cost(self, job: Job) -> _Cost:
        return _Cost(lambda: self.engine(job), 5)

    def gate(self, job: Job) -> tuple[_Cost, _Cost]:
        """Judging one answer; and holding it against what earlier runs released."""
        answer, analysis = self.engine(job).encode(), _analysis(job)
        first = judge(answer, analysis, [DATASHIELD_RULES], job=job)
        if not isinstance(first, Judged):
            raise TypeError("the bench measured something else")
        earlier = Earlier(DATASHIELD_RULES.cohort_difference)
        for population in first.populations():
            for sums in population.cohorts():
                for _ in range(_EARLIER):
                    other = (sums[0], *(secrets.randbelow(COHORT_PRIME) for _ in sums[1:]))
                    earlier.add(replace(population, sums=other))

        alone = _Cost(lambda: judge(answer, analysis, [DATASHIELD_RULES], job=job), 5)
        return alone, _Cost(lambda: first.against(earlier), 5)


def run(rows: int = ROWS) -> list[Row]:
    """Shares of the plain query's CPU time."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "visits.parquet")
        _generate(path, rows)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            bench = _Bench(path, descriptor)
            plain = _Cost(lambda: _plain_sql(path), 5)
            full = _job("sql", QUERY)
            bare = bench.cost(replace(full, cohort_terms=0, largest_contributors=0))
            dominance = bench.cost(replace(full, cohort_terms=0))
            whole = bench.cost(full)
            gates = {"": bench.gate(full), ", all margins": bench.gate(replace(full, source=_CUBE))}
        finally:
            os.close(descriptor)
    query = f"the query takes CPU {plain.cpu:.3f} s, wall {plain.wall:.3f} s"
    found: list[Row] = []
    for what, (alone, ledger) in gates.items():
        found.append((f"gate proper{what} / query", alone.cpu / plain.cpu, f"CPU {alone.cpu * 1000:.1f} ms; {query}"))
        found.append(
            (f"ledger{what} / query", ledger.cpu / plain.cpu, f"CPU {ledger.cpu * 1000:.1f} ms, in the keeper")
        )
    parts = (("hidden counts", bare, plain), ("contributors", dominance, bare), ("cohorts", whole, dominance))
    found += [
        (
            f"{what} / query",
            (cost.cpu - before.cpu) / plain.cpu,
            f"CPU {before.cpu:.3f} s to {cost.cpu:.3f} s, in the engine",
        )
        for what, cost, before in parts
    ]
    return [
        *found,
        ("all of the engine / query", whole.cpu / plain.cpu, f"wall {whole.wall:.3f} s / {plain.wall:.3f} s"),
    ]
