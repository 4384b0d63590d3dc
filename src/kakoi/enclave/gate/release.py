"""The last judgement before anything leaves: declared outputs only, enough people behind every number, few digits, few bytes.

 1. the answer is one canonical record, with exactly the declared outputs, columns and row limits;
 2. a row with too few rows or people is not there: neither its label nor a limit tells whether there was one (docs/adr/0114);
    a single number with too little support of its own is held back;
 3. so is a sum or mean that few people make up (``dominance``);
 4. group labels are declared (codes, sites, constants of the source) or not many; labels that come from the data are shown only
    where enough people share them and some number is;
 5. where tables have margins, or share classifications, more is held back until nothing can be computed back (``complement``);
 6. a statistic with too few people, or too many parameters for them, refuses the whole release;
 7. numbers are rounded (``rounding``); the whole has at most so many bytes;
 8. beside what other runs released, a number over nearly the same people as an earlier one is held back (``cohorts``).

Nothing here depends on a number in any message: a denial says which rule, whose, and how to change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Final

from kakoi.contract.model import Analysis, Output
from kakoi.contract.rules import DisclosureRules, demands_noise
from kakoi.core.errors import Malformed, Refused
from kakoi.enclave import decimals
from kakoi.enclave.exact import ExactTable
from kakoi.enclave.gate.cohorts import Earlier, Population, populations
from kakoi.enclave.gate.linked import complete
from kakoi.enclave.gate.model import (
    Released,
    ReleasedStatistics,
    ReleasedTable,
    ReleasedValue,
)
from kakoi.enclave.gate.private import Noised
from kakoi.enclave.gate.rounding import precise
from kakoi.enclave.gate.rules import Bench, strictest
from kakoi.enclave.gate.table import Domains, Table, rounded, undeclared
from kakoi.enclave.job import SITE_COLUMN, Job, Result, ResultStatistics, ResultTable, code_labels
from kakoi.wire.messages import GateDecision

_SHAPES: Final = {"table": "table", "statistics": "statistics", "exact-table": "table"}


def apply(
    result: bytes,
    analysis: Analysis,
    rules: Sequence[DisclosureRules],
    *,
    job: Job | None = None,
    owners: Sequence[str] = (),
) -> Released:
    """What may leave of an engine's answer. ``rules``: every owner's; the strictest wins. Its ``decisions`` go into the passport.

    ``job`` supplies the declared labels of group columns: without it every label counts as one that the data chose.
    ``owners`` are the names to give in a denial, in the order of ``rules``. Raises Refused (``gate.…``).
    What other runs released is not considered: ``judge`` gives an object that does.
    """
    return judge(result, analysis, rules, job=job, owners=owners).released


def judge(
    result: bytes,
    analysis: Analysis,
    rules: Sequence[DisclosureRules],
    *,
    job: Job | None = None,
    owners: Sequence[str] = (),
    noise_key: bytes = b"",
) -> Judged | Noised:
    """An engine's answer, judged by itself; then it can be held against what other runs released. As ``apply`` otherwise.

    ``noise_key`` is needed where an owner demands noise (``private``).
    """
    bench = Bench(rules=strictest(rules), each=tuple(rules), owners=tuple(owners))
    answer = _answer(result)
    if [(o.name, _SHAPES[o.KIND]) for o in answer.outputs] != [(o.name, o.shape) for o in analysis.outputs]:
        undeclared("outputs")
    if demands_noise([bench.rules]):
        return Noised(_exact(answer, analysis, bench), analysis, bench, noise_key)
    outputs = [found for found in answer.outputs if not isinstance(found, ExactTable)]
    if len(outputs) != len(answer.outputs):
        undeclared("outputs")
    return Judged(
        outputs=outputs,
        analysis=analysis,
        bench=bench,
        domains=tuple(_domains(found, analysis, job) if isinstance(found, ResultTable) else {} for found in outputs),
        terms=job.cohort_terms if job is not None else 0,
    )


def _exact(answer: Result, analysis: Analysis, bench: Bench) -> ExactTable:
    """The one table that noise can be added to. Raises Refused."""
    found = answer.outputs[0]
    # Analysts' own code could write whatever reach it likes into such an answer.
    if analysis.engine != "sql" or len(answer.outputs) != 1 or not isinstance(found, ExactTable):
        raise bench.deny(
            "gate.noise",
            "epsilon_per_run",
            "no noise can be added to this output",
            "write the analysis in SQL, with counts, sums, averages and quantiles of declared columns",
        )
    if [(c.name, c.role) for c in found.columns] != [(c.name, c.role) for c in analysis.outputs[0].columns]:
        undeclared(f"columns of {found.name}")
    return found


class Judged:
    """One answer that the gate has judged. ``released`` is what could leave if nothing had left before."""

    def __init__(
        self,
        *,
        outputs: Sequence[ResultTable | ResultStatistics],
        analysis: Analysis,
        bench: Bench,
        domains: Sequence[Domains],
        terms: int,
    ) -> None:
        self._outputs, self._analysis, self._bench = outputs, analysis, bench
        self._domains, self._terms = domains, terms
        self.released, self._tables = self._release({})

    def _release(self, more: Mapping[str, frozenset[int]]) -> tuple[Released, list[Table]]:
        """``more``: rows of outputs that are held back besides."""
        tables = [
            Table(found=found, declared=declared, bench=self._bench, domains=domains, analysis=self._analysis)
            for found, declared, domains in zip(self._outputs, self._analysis.outputs, self._domains, strict=True)
            if isinstance(found, ResultTable)
        ]
        for table in tables:
            table.hold(more.get(table.name, frozenset()))
        complete(tables, self._bench)
        made: dict[str, ReleasedTable] = {table.name: table.release() for table in tables}
        acted = {table.name: table.acted for table in tables}
        outputs: list[ReleasedTable | ReleasedStatistics] = []
        decisions: list[GateDecision] = []
        for found, declared in zip(self._outputs, self._analysis.outputs, strict=True):
            numbers = isinstance(found, ResultStatistics) and _statistics(found, declared, self._bench)
            outputs.append(numbers or made[declared.name])
            decisions += [_decision(declared.name, did) for did in acted.get(declared.name, ["released", "rounded"])]
        released = Released(outputs=tuple(outputs), decisions=tuple(decisions))
        if len(released.encode()) > self._bench.rules.max_output_bytes:
            raise self._bench.deny(
                "gate.output-bytes",
                "max_output_bytes",
                "the output is larger than it may be",
                "ask for fewer rows or columns",
            )
        return released, tables

    def populations(self) -> tuple[Population, ...]:
        """Whose numbers ``released`` tells, for the owners' ledgers."""
        return populations((item for table in self._tables for item in table.told(self._terms)), self._terms)

    def left_out(self) -> dict[str, int]:
        """Numbers in rows that are not in each table. Tells about data: for rehearsals on invented ones."""
        return {table.name: table.left_out for table in self._tables}

    def against(self, earlier: Earlier) -> Released:
        """What may leave beside everything that left earlier: cells that conflict are held back, the smallest first."""
        more: dict[str, frozenset[int]] = {}
        released, tables = self.released, self._tables
        while True:
            conflicts = {
                table.name: row for table in tables if (row := table.conflict(earlier, self._terms)) is not None
            }
            if not conflicts:
                return released
            for name, row in conflicts.items():
                more[name] = more.get(name, frozenset()) | {row}
            released, tables = self._release(more)


_ACTIONS: Final[dict[str, tuple[str, str]]] = {
    "released": ("declared-output", "released"),
    "rounded": ("max-digits", "rounded"),
    "minimum": ("minimum-cell-and-contributors", "suppressed-cells"),
    "dominance": ("dominance", "suppressed-cells"),
    "base": ("rounding-base", "rounded"),
    "complement": ("complementary-suppression", "suppressed-cells"),
    "difference": ("cohort-difference", "suppressed-cells"),
}


def _decision(output: str, what: str) -> GateDecision:
    rule, action = _ACTIONS[what]
    return GateDecision(output=output, rule=rule, action=action)  # type: ignore[arg-type]


def _answer(result: bytes) -> Result:
    try:
        return Result.decode(result)
    except Malformed:
        # Its message could quote what an analyst's code wrote.
        raise Refused(
            "gate.answer",
            "expected a result in the engine's format, got something else",
            hint="the analysis must return what docs/formats/engine.md describes",
        ) from None


def _domains(found: ResultTable, analysis: Analysis, job: Job | None) -> Domains:
    """Labels that each group column may show whatever the data are.

    The SQL engine is ours and read the query, so its own list counts. The Python engine's answer is the analyst's: there a
    column has the codes of the declared column of the same name.
    """
    if analysis.engine == "sql":
        return {column.name: frozenset(column.domain) for column in found.columns}
    if job is None:
        return {}
    domains = {c.name: frozenset(code_labels(c)) for table in job.tables for c in table.columns if c.readable}
    return domains | {SITE_COLUMN: frozenset(site for table in job.tables for site in table.sites)}


def _statistics(found: ResultStatistics, declared: Output, bench: Bench) -> ReleasedStatistics:
    if [value.name for value in found.values] != [column.name for column in declared.columns]:
        undeclared(f"numbers of {declared.name}")
    for rule in ("minimum_contributors", "minimum_cell"):
        if found.basis < getattr(bench.rules, rule):
            raise bench.deny(
                "gate.statistics-people",
                rule,
                f"{declared.name} rests on too few people",
                "compute it over a larger group",
            )
    # As many numbers as people are the people: what was fitted is at least what is shown.
    if max(declared.parameters, len(found.values)) > Fraction(bench.rules.parameters_per_person) * found.basis:
        raise bench.deny(
            "gate.statistics-parameters",
            "parameters_per_person",
            f"{declared.name} has too many parameters or numbers for the people behind it",
            "fit and show fewer, or over a larger group",
        )
    digits = bench.rules.max_digits
    return ReleasedStatistics(
        name=found.name,
        values=tuple(
            ReleasedValue(
                name=v.name, number=_precise(rounded(v.number, digits), found.basis, bench.rules.rounding_base)
            )
            for v in found.values
        ),
    )


def _precise(number: str | None, people: int, base: int) -> str | None:
    if number is None or base == 1:
        return number
    return decimals.canonical(precise(decimals.parse(number), people, base))
