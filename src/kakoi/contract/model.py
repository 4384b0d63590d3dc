"""The signed objects of DESIGN §3: party card, data set manifest, analysis, contract, approval, withdrawal.

Everything is a ``Record``: canonical JSON with a ``kind``, inside a DSSE envelope, named by the SHA-256 of its
payload. ``docs/formats/objects.md`` is the human description; a test keeps both in step.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from decimal import Decimal as Number
from typing import Annotated, ClassVar, Final, Literal

from kakoi.attest.policy import AttestationPolicy
from kakoi.contract.rules import DisclosureRules
from kakoi.core.crypto import (
    ED25519_PUBLIC,
    MLDSA65_PUBLIC,
    SEALING_PUBLIC,
    VerifyingKey,
    require_ed25519_public,
    require_sealing_public,
)
from kakoi.core.errors import Malformed
from kakoi.core.records import Decimal, Digest, Limit, Name, PartyRef, Prose, Record, Seconds, Slug, Title
from kakoi.core.text import LINE, LINE_FORM, TEXT, TEXT_FORM
from kakoi.dataset.format import DIGEST_BYTES, MAX_SEGMENTS, layout

Role = Literal["owner", "analyst", "code-owner", "auditor"]
ColumnType = Literal["integer", "number", "string", "boolean", "date", "datetime"]
CellText = Annotated[str, Limit(most=80, pattern=LINE, form=LINE_FORM)]
"""A cell as it stands in the data."""
MAX_RENEWALS: Final = 4096
"""Renewals of the leases of one attempt at one run. The passport lists them all."""
SITE: Final = "site"
"""The column that a logical table adds: whose part a row is from. Taken from the owner's identity, never from a file."""


def each_once(entries: Iterable[Hashable], what: str) -> None:
    """Raise Malformed if an entry is repeated."""
    found = list(entries)
    if len(set(found)) != len(found):
        raise Malformed("record.repeated", f"expected each {what} once, got a repetition")


def each_name_once(names: Iterable[str], what: str) -> None:
    """Raise Malformed if two names are equal but for case: SQL engines fold it, so they would be one name there."""
    each_once((name.lower() for name in names), f"{what} (capitals do not count)")


def require_range(minimum: str | None, maximum: str | None) -> None:
    """Raise Malformed if both limits are given and the lower is above the upper."""
    if minimum is not None and maximum is not None and Number(minimum) > Number(maximum):
        raise Malformed("record.range", "expected a minimum that is not above the maximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person(Record):
    """A person's passkey (WebAuthn credential, W3C Web Authentication Level 3 §4). A person with several devices has one
    entry for each, under the same name.
    """

    name: Title
    credential_id: Annotated[bytes, Limit(least=16, most=1023)]
    public_key: Annotated[bytes, Limit(least=32, most=1024)]
    """COSE_Key bytes (RFC 9052), as ``contract.passkey`` reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartyCard(Record):
    """A party's public keys and people. Signed by itself; its id is the party's id."""

    KIND: ClassVar[str] = "kakoi/party-card/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    name: Title
    ed25519: Annotated[bytes, Limit(least=ED25519_PUBLIC, most=ED25519_PUBLIC)]
    mldsa65: Annotated[bytes, Limit(least=MLDSA65_PUBLIC, most=MLDSA65_PUBLIC)]
    sealing: Annotated[bytes, Limit(least=SEALING_PUBLIC, most=SEALING_PUBLIC)]
    people: Annotated[tuple[Person, ...], Limit(most=64)]
    approvals_required: Annotated[int, Limit(most=64)]
    relying_party: Annotated[
        str, Limit(most=253, pattern=r"(?:[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*)?", form="a domain name in lower case")
    ]
    """WebAuthn RP id of the party's console; empty while nobody has a passkey."""
    created: Seconds

    @property
    def verifying_key(self) -> VerifyingKey:
        """The hybrid signature key."""
        return VerifyingKey(ed25519=self.ed25519, mldsa65=self.mldsa65)

    def check(self) -> None:
        """The keys are keys, each passkey counts once, and no more approvals are required than there are people."""
        each_once((person.credential_id for person in self.people), "passkey")
        if self.approvals_required > len({person.name for person in self.people}):
            raise Malformed("card.approvals", "expected at most as many required approvals as people, got more")
        if bool(self.people) != bool(self.relying_party):
            raise Malformed("card.relying-party", "expected a relying party if and only if people have passkeys")
        require_ed25519_public(self.ed25519)
        require_sealing_public(self.sealing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(Record):
    """One allowed value of a column, with its meaning."""

    value: Annotated[str, Limit(least=1, most=80, pattern=LINE, form=LINE_FORM)]
    label: Annotated[str, Limit(most=200, pattern=LINE, form=LINE_FORM)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Record):
    """A declared column. Cells are converted by this and by nothing else."""

    name: Name
    type: ColumnType
    unit: Annotated[str, Limit(most=40, pattern=LINE, form=LINE_FORM)]
    """UCUM; empty for dimensionless."""
    codes: Annotated[tuple[Code, ...], Limit(most=4096)]
    missing: Annotated[tuple[CellText, ...], Limit(most=16, unique=True)]
    """Texts that mean missing; the empty cell only if listed."""
    minimum: Decimal | None
    maximum: Decimal | None
    identifier: Literal["no", "direct", "join-key", "opt-out"]
    """``direct`` is never sealed; a ``join-key`` joins tables as tokens; ``opt-out`` finds rows to leave out, and no analysis reads it."""
    description: Annotated[str, Limit(most=400, pattern=TEXT, form=TEXT_FORM)]

    def check(self) -> None:
        """A text means one thing; limits are for numbers, and in order."""
        values = [code.value for code in self.codes]
        each_once((*values, *self.missing), "code or missing text of a column")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "number"):
            raise Malformed("column.range", "expected a minimum or maximum on columns of numbers only")
        require_range(self.minimum, self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile(Record):
    """One file of ciphertext (docs/formats/sealed-dataset.md)."""

    name: Name
    blob: Digest
    """SHA-256 of the whole ciphertext: where storage keeps it."""
    size: Annotated[int, Limit(least=1, most=2**44)]
    """Bytes of ciphertext."""
    segment_digests: Annotated[bytes, Limit(least=DIGEST_BYTES, most=DIGEST_BYTES * MAX_SEGMENTS)]
    """SHA-256 of each ciphertext segment, concatenated."""

    def check(self) -> None:
        """One digest for each segment of a file of this size."""
        if len(self.segment_digests) != DIGEST_BYTES * layout(self.size).segments:
            raise Malformed("manifest.segments", "expected one digest for each segment of the file, got another number")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest(Record):
    """One owner's part of a logical table, as sealed. Signed by the owner."""

    KIND: ClassVar[str] = "kakoi/dataset-manifest/v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024 * 1024

    owner: PartyRef
    dataset: Annotated[str, Limit(least=32, most=32, pattern=r"[0-9a-f]{32}\Z")]
    """Random id that stays the same across versions."""
    version: Annotated[int, Limit(least=1, most=2**31)]
    table: Name
    title: Title
    person_column: Name | None
    """Column that names a person where rows are events; None where each row is one person."""
    columns: Annotated[tuple[Column, ...], Limit(least=1, most=2000)]
    rows: Annotated[int, Limit(most=10**12)] | None
    """Only if the owner wants the count to be known."""
    format: Literal["tink-aes256-gcm-hkdf-1mb/parquet"]
    key_commitment: Annotated[bytes, Limit(least=32, most=32)]
    files: Annotated[tuple[SealedFile, ...], Limit(least=1, most=256)]
    created: Seconds

    def check(self) -> None:
        """Columns and files appear once, none is called ``site``, and the person column exists."""
        each_name_once((c.name for c in self.columns), "column")
        each_name_once((f.name for f in self.files), "file")
        if SITE in {c.name.lower() for c in self.columns}:
            raise Malformed(
                "manifest.site",
                "expected no column named site: that name is for the column that tells the owners apart",
                hint="rename the column in the schema",
            )
        if self.person_column is not None and self.person_column not in {c.name for c in self.columns}:
            raise Malformed("manifest.person-column", "expected the person column to be one of the columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableUse(Record):
    """Which columns of which logical table an analysis may read."""

    table: Name
    columns: Annotated[tuple[Name, ...], Limit(least=1, most=2000)]

    def check(self) -> None:
        """Columns appear once."""
        each_name_once(self.columns, "column")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter(Record):
    """A value the analyst may choose at run time, within limits."""

    name: Name
    type: Literal["integer", "number", "string"]
    minimum: Decimal | None
    maximum: Decimal | None
    choices: Annotated[tuple[CellText, ...], Limit(most=256, unique=True)]
    """For strings: the only accepted values. At least one."""

    def check(self) -> None:
        """Numbers have both limits and no choices, strings have choices and no limits: unset would mean anything."""
        numeric = self.type != "string"
        if (self.minimum is not None, self.maximum is not None, not self.choices) != (numeric, numeric, numeric):
            raise Malformed(
                "parameter.limits",
                "expected minimum and maximum for a number, and only choices for a string",
                hint="state what the analyst may choose",
            )
        require_range(self.minimum, self.maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputColumn(Record):
    """A column of a table output. ``group`` labels a cell, ``count`` is the cell's number of people, ``value`` is computed from them."""

    name: Name
    role: Literal["group", "count", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Record):
    """One thing an analysis may produce.

    ``table``: rows of cells, each with exactly one ``count`` column that the gate judges.
    ``statistics``: named numbers computed from one group of people whose size the engine states as ``basis``;
    the basis is for the gate and does not leave.
    """

    name: Name
    shape: Literal["table", "statistics"]
    columns: Annotated[tuple[OutputColumn, ...], Limit(least=1, most=256)]
    """Of a table: its columns. Of statistics: the names of the numbers, all ``value``."""
    parameters: Annotated[int, Limit(most=100000)]
    """Statistics: how many model parameters were fitted. Tables: 0."""
    max_rows: Annotated[int, Limit(least=1, most=100000)]

    def check(self) -> None:
        """A table has one count; statistics have values only."""
        each_name_once((c.name for c in self.columns), "output column")
        counts = sum(1 for c in self.columns if c.role == "count")
        if self.shape == "table" and counts != 1:
            raise Malformed("output.count", "expected exactly one count column in a table output")
        if self.shape == "statistics" and any(c.role != "value" for c in self.columns):
            raise Malformed("output.statistics", "expected only value columns in a statistics output")
        if self.shape == "table" and self.parameters != 0:
            raise Malformed("output.parameters", "expected 0 fitted parameters for a table output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis(Record):
    """Code, what it reads, what it may be told, what it may produce. Signed by its author."""

    KIND: ClassVar[str] = "kakoi/analysis/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    author: PartyRef
    name: Name
    title: Title
    engine: Literal["sql", "python"]
    source: Annotated[str, Limit(most=256 * 1024, pattern=TEXT, form=TEXT_FORM)]
    """What people approve is what runs: no character may hide or reorder others. Lines end with a line feed alone.
    Empty if the code is sealed."""
    sealed_code: Digest | None
    """The code manifest (``contract.code``), if the code is its author's secret."""
    reads: Annotated[tuple[TableUse, ...], Limit(least=1, most=64)]
    parameters: Annotated[tuple[Parameter, ...], Limit(most=64)]
    outputs: Annotated[tuple[Output, ...], Limit(least=1, most=64)]

    def check(self) -> None:
        """The source is open or sealed, not both; tables, parameters and outputs appear once; SQL has one table output."""
        if bool(self.source) == (self.sealed_code is not None):
            raise Malformed("analysis.code", "expected either a source or sealed code")
        if self.sealed_code is not None and self.engine != "python":
            raise Malformed("analysis.code", "expected sealed code for the python engine only: a query says what it is")
        each_name_once((use.table for use in self.reads), "table")
        each_name_once((p.name for p in self.parameters), "parameter")
        each_name_once((o.name for o in self.outputs), "output")
        if self.engine == "sql" and (len(self.outputs) != 1 or self.outputs[0].shape != "table"):
            raise Malformed("analysis.outputs", "expected one table output for an SQL analysis")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractParty(Record):
    """A party and what it is in this contract."""

    party: PartyRef
    roles: Annotated[tuple[Role, ...], Limit(least=1, most=4, unique=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractData(Record):
    """A data set that takes part, under its owner's rules."""

    manifest: Digest
    owner: PartyRef
    rules: DisclosureRules


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractAnalysis(Record):
    """An analysis that may run, and how often in all."""

    analysis: Digest
    max_runs: Annotated[int, Limit(least=1, most=100000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractCode(Record):
    """Sealed code that may run, whose key its owner releases as a data owner does, and who must have read it."""

    manifest: Digest
    owner: PartyRef
    reviewers: Annotated[tuple[PartyRef, ...], Limit(most=8, unique=True)]
    """Parties (role auditor) whose signed review is part of the contract. They read the code; the data owners do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Record):
    """Caps of one run, enforced by the enclave."""

    wall_seconds: Annotated[int, Limit(least=1, most=7 * 86400)]
    memory_megabytes: Annotated[int, Limit(least=64, most=2**22)]
    lease_seconds: Annotated[int, Limit(least=10, most=3600)]
    """How long the enclave may go on without fresh evidence and every owner's new yes."""
    grain_milliseconds: Annotated[int, Limit(least=100, most=3_600_000)]
    """An end of the analysis becomes visible only at multiples of this, so that its duration tells little about data."""

    def check(self) -> None:
        """Leases, each renewed when half of it is over, can cover the whole time with room to spare."""
        if self.wall_seconds > self.lease_seconds * MAX_RENEWALS // 4:
            raise Malformed(
                "limits.lease",
                "expected leases of at least wall_seconds / 1024, got shorter ones",
                hint="a week needs leases of ten minutes",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKey(Record):
    """The transparency log that passports go to: C2SP origin and Ed25519 key."""

    origin: Annotated[str, Limit(least=1, most=120, pattern=r"[!-*,-~]+", form="ASCII without blanks and '+'")]
    ed25519: Annotated[bytes, Limit(least=ED25519_PUBLIC, most=ED25519_PUBLIC)]

    def check(self) -> None:
        """The key is one under which not everybody can sign."""
        require_ed25519_public(self.ed25519)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract(Record):
    """Everything the parties agree to. In force once every party's approval of its id exists."""

    KIND: ClassVar[str] = "kakoi/contract/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    title: Title
    purpose: Prose
    version: Annotated[int, Limit(least=1, most=2**31)]
    supersedes: Digest | None
    drafter: PartyRef
    parties: Annotated[tuple[ContractParty, ...], Limit(least=2, most=64)]
    data: Annotated[tuple[ContractData, ...], Limit(least=1, most=256)]
    analyses: Annotated[tuple[ContractAnalysis, ...], Limit(least=1, most=256)]
    code: Annotated[tuple[ContractCode, ...], Limit(most=64)]
    """Sealed code of the analyses; empty if all of them are open."""
    recipients: Annotated[tuple[PartyRef, ...], Limit(least=1, most=64, unique=True)]
    platforms: AttestationPolicy
    accepted_weaknesses: Annotated[tuple[Slug, ...], Limit(most=32, unique=True)]
    """Missing isolation layers that all parties accept by name (docs/formats/objects.md)."""
    limits: Limits
    grace_days: Annotated[int, Limit(most=90)] = 14
    """Days from when an owner's broker learns of a weakness that touches the contract until it gives no more keys. 0: at once."""
    log: LogKey
    not_before: Seconds
    expires: Seconds

    def check(self) -> None:
        """Owners, recipients and drafter are parties; dates and versions are in order."""
        ids = [p.party for p in self.parties]
        each_once(ids, "party")
        each_once((d.manifest for d in self.data), "data set")
        each_once((a.analysis for a in self.analyses), "analysis")
        self._check_code()
        owners = {p.party for p in self.parties if "owner" in p.roles}
        for entry in self.data:
            if entry.owner not in owners:
                raise Malformed("contract.owner", "expected every data set's owner to be a party with role owner")
        if not {*self.recipients, self.drafter} <= set(ids):
            raise Malformed("contract.parties", "expected recipients and drafter to be parties of the contract")
        if self.not_before >= self.expires:
            raise Malformed("contract.dates", "expected not_before to lie before expires")
        if (self.version == 1) != (self.supersedes is None):
            raise Malformed(
                "contract.version", "expected version 1 to supersede nothing, and every later one to name it"
            )

    def _check_code(self) -> None:
        roles = {p.party: p.roles for p in self.parties}
        each_once((c.manifest for c in self.code), "sealed code")
        for entry in self.code:
            if "code-owner" not in roles.get(entry.owner, ()):
                raise Malformed("contract.code", "expected the owner of sealed code to be a party with role code-owner")
            if any("auditor" not in roles.get(reviewer, ()) for reviewer in entry.reviewers):
                raise Malformed("contract.code", "expected reviewers of sealed code to be parties with role auditor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion(Record):
    """A WebAuthn assertion over the contract id."""

    credential_id: Annotated[bytes, Limit(least=16, most=1023)]
    authenticator_data: Annotated[bytes, Limit(least=37, most=1024)]
    client_data: Annotated[bytes, Limit(least=1, most=4096)]
    signature: Annotated[bytes, Limit(least=32, most=1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Record):
    """One party's yes to one contract."""

    KIND: ClassVar[str] = "kakoi/approval/v1"
    MAX_BYTES: ClassVar[int] = 512 * 1024

    contract: Digest
    party: PartyRef
    assertions: Annotated[tuple[Assertion, ...], Limit(most=64)]
    approved_at: Seconds

    def check(self) -> None:
        """Nobody counts twice."""
        each_once((assertion.credential_id for assertion in self.assertions), "passkey")


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal(Record):
    """An owner takes back a contract, or one data set from every contract."""

    KIND: ClassVar[str] = "kakoi/withdrawal/v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    party: PartyRef
    contract: Digest | None
    dataset: Digest | None
    reason: Prose
    withdrawn_at: Seconds

    def check(self) -> None:
        """Exactly one thing is withdrawn."""
        if (self.contract is None) == (self.dataset is None):
            raise Malformed("withdrawal.object", "expected either a contract or a data set")
