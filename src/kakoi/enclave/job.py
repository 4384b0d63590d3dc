"""What the keeper tells an engine, and what the engine may answer. ``docs/formats/engine.md`` is the human description.

This module is loaded by the keeper and by the engine's process, so it needs nothing but ``core``. An answer is
input of the least trusted kind: where the engine is ``python``, the analyst's code shares the process that writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal as Number
from decimal import InvalidOperation
from typing import Annotated, ClassVar, Final, Literal

from kakoi.core.errors import Malformed
from kakoi.core.limits import Decimal, Digest, Limit, Name, Title
from kakoi.core.records import Record
from kakoi.enclave.decimals import of_number
from kakoi.enclave.exact import ExactTable

SITE_COLUMN: Final = "site"
"""Injected from the owner's card, never read from a file."""
PLACE_COLUMN: Final = "kakoi place"
"""In a part from which rows were left out: which row of the owner's file each one was, from 0. No declared column has such a name."""
MAX_JOB_BYTES: Final = 4 * 1024 * 1024
MAX_RESULT_BYTES: Final = 64 * 1024 * 1024
MAX_CELL: Final = 120
"""Characters of one cell: room for a site's name, not for a note."""
MAX_ROWS: Final = 100_000
"""Of a result table, those that will not leave among them."""

COHORT_PRIME: Final = 2**31 - 1
MAX_COHORT_TERMS: Final = 32
ColumnType = Literal["integer", "number", "string", "boolean", "date", "datetime"]
Label = Annotated[str, Limit(least=1, most=MAX_CELL)]
Cell = Annotated[str, Limit(most=MAX_CELL)] | None
Count = Annotated[int, Limit(most=2**48)]
Mask = Annotated[int, Limit(most=2**32)]


def _once(names: Sequence[str], what: str) -> None:
    if len({name.lower() for name in names}) != len(names):
        raise Malformed("job.repeated", f"expected each {what} once, whatever its case, got a repetition")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobColumn(Record):
    """A declared column. ``readable`` columns are shown to the analysis; the others serve the engine's own counting."""

    name: Name
    type: ColumnType
    identifier: Literal["no", "direct", "join-key", "opt-out"]
    codes: Annotated[tuple[Label, ...], Limit(most=4096)]
    """Declared values; empty where any value of the type may occur."""
    readable: bool
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    """Declared limits of a number: to them values are clamped where noise is demanded."""
    may_be_missing: bool = True
    """An owner declares texts that mean missing. Otherwise a group of the missing needs no row where noise is demanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPart(Record):
    """One Parquet file of one owner. Its bytes come as a sealed memory file beside the job, in the job's order."""

    site: Title
    manifest: Digest
    file: Name
    first_unit: Annotated[int, Limit(most=COHORT_PRIME - 2)]
    """Where the numbers of its rows start when cohorts are compared: the same in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTable(Record):
    """A logical table: the union of its parts, with the site column in front."""

    name: Name
    person_column: Name | None
    columns: Annotated[tuple[JobColumn, ...], Limit(least=1, most=2000)]
    parts: Annotated[tuple[JobPart, ...], Limit(least=1, most=4096)]

    def check(self) -> None:
        """Names are unique whatever their case (SQL folds it); nobody declares the site column."""
        names = [column.name for column in self.columns]
        _once([*names, SITE_COLUMN], "column (and 'site', which the enclave adds)")
        if self.person_column is not None and self.person_column not in names:
            raise Malformed("job.person-column", "expected the person column among the columns, got none of that name")

    @property
    def readable(self) -> tuple[str, ...]:
        """What the analysis may name, the site column first."""
        return (SITE_COLUMN, *(column.name for column in self.columns if column.readable))

    @property
    def sites(self) -> tuple[str, ...]:
        """The owners' labels, each once."""
        return tuple(dict.fromkeys(part.site for part in self.parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobParameter(Record):
    """A value the analyst chose, already within the contract's limits. Numbers with a fraction are decimal text."""

    name: Name
    type: Literal["integer", "number", "string"]
    value: Annotated[str, Limit(most=80)] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutputColumn(Record):
    """A column that an output must have, at this place."""

    name: Name
    role: Literal["group", "count", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutput(Record):
    """An output that the analysis must produce."""

    name: Name
    shape: Literal["table", "statistics"]
    columns: Annotated[tuple[JobOutputColumn, ...], Limit(least=1, most=256)]
    max_rows: Annotated[int, Limit(least=1, most=100000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile(Record):
    """One file of sealed code. Its bytes come as a sealed memory file, after those of the parts."""

    manifest: Digest
    file: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """One analysis over one set of parts. Nothing in it is secret; nothing else reaches the engine but the parts and sealed code."""

    KIND: ClassVar[str] = "kakoi/job/v1"
    MAX_BYTES: ClassVar[int] = MAX_JOB_BYTES

    engine: Literal["sql", "python"]
    source: Annotated[str, Limit(most=256 * 1024)]
    """Empty where the code is sealed: then it is the first of ``files``."""
    files: Annotated[tuple[JobFile, ...], Limit(most=64)]
    tables: Annotated[tuple[JobTable, ...], Limit(least=1, most=64)]
    parameters: Annotated[tuple[JobParameter, ...], Limit(most=64)]
    outputs: Annotated[tuple[JobOutput, ...], Limit(least=1, most=64)]
    cohort_terms: Annotated[int, Limit(most=MAX_COHORT_TERMS)]
    """How many power sums describe the people behind each cell of an SQL result (``engines.sql_cohort``); 0: none."""
    rows_per_person: Annotated[int, Limit(most=10**4)] = 0
    """Owners demand noise: the SQL engine answers with exact sums for the gate (``enclave.exact``), in which so many rows of a person count. 0: no noise."""
    largest_contributors: Annotated[int, Limit(most=10)]
    """How many of the largest contributors to a sum or mean the engine states (``ResultMagnitude``); 0: none."""

    def check(self) -> None:
        """Names are unique; code is open or sealed."""
        if bool(self.source) == bool(self.files) or (self.files and self.engine != "python"):
            raise Malformed("job.code", "expected either a source or, for the python engine, files of sealed code")
        _once([file.file for file in self.files], "file")
        _once([table.name for table in self.tables], "table")
        _once([parameter.name for parameter in self.parameters], "parameter")
        _once([output.name for output in self.outputs], "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyingColumn(Record):
    """A column that the engine will get. Of a ``keyed`` one it gets tokens, as text."""

    name: Name
    type: ColumnType
    keyed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyingJob(Record):
    """The files of one owner's part, to be written anew with these columns, identifiers replaced by tokens, and without the rows of people who opted out.

    The first descriptor beside it holds the key, the next one the owner's list if ``left_out`` names a column, the others the files in order.
    The answer is a row of chunks, each behind its length as 4 bytes big-endian; an empty chunk ends a file. With a list, a last chunk of
    8 bytes says how many different people of the list had rows.
    """

    KIND: ClassVar[str] = "kakoi/keying-job/v1"
    MAX_BYTES: ClassVar[int] = MAX_JOB_BYTES

    table: Name
    columns: Annotated[tuple[KeyingColumn, ...], Limit(least=1, most=2000)]
    left_out: KeyingColumn | None
    """The column that says whose a row is, if people opted out. Its ``keyed`` counts for nothing."""
    files: Annotated[int, Limit(least=1, most=256)]


KEYING_CHUNK: Final = 1 << 20
"""Most bytes of one chunk."""
KEYING_KEY: Final = 32
KEYING_COUNT: Final = 8
"""Bytes of the count behind the last file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFd:
    """A part's plaintext as a descriptor of this process: a memory file sealed against writing and resizing."""

    manifest: str
    file: str
    descriptor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultMagnitude(Record):
    """Who adds how much to a sum or mean, for the gate alone: contributions of people, without their sign."""

    totals: Annotated[tuple[Cell, ...], Limit(most=100000)]
    """For each row the sum of all contributions; None if it is no number."""
    largest: Annotated[tuple[Cell, ...], Limit(most=100000 * 10)]
    """For each row its largest contributions, the largest first, as many as the job asks for; None where there are fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultColumn(Record):
    """A column of a result table. Numbers are text in their one spelling; None is a missing value or label.

    ``support_rows`` and ``support_people`` say, for each row of a value column, how many rows and people are behind that
    one number, where it is fewer than behind the row: the others have no value there. Empty means: as behind the row.
    ``domain`` lists the labels that a group column can have whatever the data are (codes, sites, constants of the source);
    empty means that labels come from the data. ``magnitudes`` has one entry for each sum or mean that a value column is made of,
    if the job asks for largest contributors: from Python what the analysis states, if it does.
    """

    name: Name
    cells: Annotated[tuple[Cell, ...], Limit(most=100000)]
    support_rows: Annotated[tuple[Count, ...], Limit(most=100000)]
    support_people: Annotated[tuple[Count, ...], Limit(most=100000)]
    domain: Annotated[tuple[Label, ...], Limit(most=4096)]
    magnitudes: Annotated[tuple[ResultMagnitude, ...], Limit(most=16)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCohorts(Record):
    """The people of one table behind each row of a result: for each row ``Job.cohort_terms`` power sums, one row after another."""

    table: Name
    sums: Annotated[tuple[Annotated[int, Limit(most=COHORT_PRIME - 1)], ...], Limit(most=100000 * MAX_COHORT_TERMS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultTable(Record):
    """Cells of people. ``rows`` and ``people`` say how many stand behind each row of the table."""

    KIND: ClassVar[str] = "table"

    name: Name
    columns: Annotated[tuple[ResultColumn, ...], Limit(least=1, most=256)]
    rows: Annotated[tuple[Count, ...], Limit(most=100000)]
    people: Annotated[tuple[Count, ...], Limit(most=100000)]
    margins: Annotated[tuple[Mask, ...], Limit(most=100000)]
    """For each row, a bit for each group column that was summed over (the first column is bit 0); empty if none ever is."""
    cohorts: Annotated[tuple[ResultCohorts, ...], Limit(most=64)] = ()
    """One for each table that was read; for the keeper alone. Empty for Python, whose word on it would be worth nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultValue(Record):
    """One named number of a statistics output; None where it could not be computed."""

    name: Name
    number: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultStatistics(Record):
    """Named numbers computed from ``basis`` people."""

    KIND: ClassVar[str] = "statistics"

    name: Name
    values: Annotated[tuple[ResultValue, ...], Limit(least=1, most=256)]
    basis: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Result(Record):
    """What an engine answers when the analysis ran."""

    KIND: ClassVar[str] = "kakoi/engine-result/v1"
    MAX_BYTES: ClassVar[int] = MAX_RESULT_BYTES

    outputs: Annotated[tuple[ResultTable | ResultStatistics | ExactTable, ...], Limit(least=1, most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Record):
    """What an engine answers when it did not. ``FAILURES`` holds the only words that a code ever becomes."""

    KIND: ClassVar[str] = "kakoi/engine-failure/v1"
    MAX_BYTES: ClassVar[int] = 4096

    code: Annotated[str, Limit(least=1, most=80)]
    subject: Annotated[str, Limit(most=120)]
    """A word of the analysis that the code is about. Believed from the SQL engine only: it comes from the source alone."""


def code_labels(column: JobColumn) -> tuple[str, ...]:
    """The labels that a column's declared codes become; numbers in their one spelling. Empty without codes."""
    if column.type == "boolean":
        return ("true", "false")
    if column.type not in ("integer", "number"):
        return column.codes
    return tuple(_number_label(code) for code in column.codes)


def _number_label(code: str) -> str:
    try:
        return of_number(Number(code)) or code
    except InvalidOperation:
        return code
