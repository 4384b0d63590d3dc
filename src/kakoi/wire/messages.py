"""The messages of one run. Each is signed by whoever sends it; sessions sign with keys of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from kakoi.attest.report import Check, Collateral, Evidence, Verdict
from kakoi.contract.approve import ContractBundle
from kakoi.contract.model import MAX_RENEWALS, SealedFile
from kakoi.contract.opt_out import FILE
from kakoi.contract.rules import Epsilon
from kakoi.core.crypto import ED25519_PUBLIC, MLDSA65_PUBLIC, SEALING_PUBLIC, VerifyingKey, session_binding
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed, sha256
from kakoi.core.ids import ObjectId
from kakoi.core.records import Digest, Limit, Name, PartyRef, Record, Seconds, Slug
from kakoi.core.text import TEXT, TEXT_FORM
from kakoi.dataset.format import DIGEST_BYTES

Attempt = Annotated[int, Limit(least=1, most=5)]
Renewal = Annotated[int, Limit(least=1, most=MAX_RENEWALS)]
"""Which renewal of the leases of an attempt, from 1."""
Nonce = Annotated[bytes, Limit(least=32, most=32)]
Note = Annotated[str, Limit(most=2000, pattern=TEXT, form=TEXT_FORM)]
MAX_EARLIER: Final = 4096
"""Earlier releases that one release is compared with."""
SealedCohorts = Annotated[bytes, Limit(least=4096, most=1024 * 1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding(Record):
    """A parameter's value. Numbers with a fraction are decimal text."""

    name: Name
    value: Annotated[str, Limit(most=80)] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest(Record):
    """An analyst asks for one run. Its id is the run's id."""

    KIND: ClassVar[str] = "kakoi/run-request/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    contract: Digest
    analysis: Digest
    parameters: Annotated[tuple[Binding, ...], Limit(most=64)]
    party: PartyRef
    nonce: Nonce
    requested_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge(Record):
    """An owner's fresh nonce for one attempt, or for a renewal of its leases, with the owner's own time."""

    KIND: ClassVar[str] = "kakoi/challenge/v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    run: Digest
    attempt: Attempt
    renewal: Annotated[int, Limit(most=MAX_RENEWALS)]
    """0 for the session itself, from 1 on for the renewals."""
    contract: Digest
    owner: PartyRef
    nonce: Nonce
    issued_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial(Record):
    """An owner's no: the rule, and who can change it. Nothing in it depends on data.

    It ends the run, also while the analysis runs: the owner's lease is not renewed, and what it granted is taken back.
    """

    KIND: ClassVar[str] = "kakoi/denial/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    owner: PartyRef
    code: Slug
    message: Note
    hint: Note
    checks: Annotated[tuple[Check, ...], Limit(most=512)]
    """Failed checks of the evidence, if that was the reason."""
    denied_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Record):
    """An enclave's fresh keys for one attempt, with evidence that binds them. Signed by the session's own key."""

    KIND: ClassVar[str] = "kakoi/session/v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    challenges: Annotated[tuple[Digest, ...], Limit(least=1, most=64, unique=True)]
    """Ids of all owners' challenges, sorted."""
    signing_ed25519: Annotated[bytes, Limit(least=ED25519_PUBLIC, most=ED25519_PUBLIC)]
    signing_mldsa65: Annotated[bytes, Limit(least=MLDSA65_PUBLIC, most=MLDSA65_PUBLIC)]
    sealing: Annotated[bytes, Limit(least=SEALING_PUBLIC, most=SEALING_PUBLIC)]
    missing_layers: Annotated[tuple[Annotated[str, Limit(least=1, most=80)], ...], Limit(most=32, unique=True)]
    """Isolation layers that this machine lacks; each must be accepted by the contract by name."""
    evidence: Evidence

    @property
    def verifying_key(self) -> VerifyingKey:
        """The session's signature key."""
        return VerifyingKey(ed25519=self.signing_ed25519, mldsa65=self.signing_mldsa65)

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the hardware must have signed for exactly this session."""
        return report_data(
            run=self.run,
            attempt=self.attempt,
            contract=self.contract,
            challenges=self.challenges,
            signing=self.verifying_key,
            sealing=self.sealing,
            missing_layers=self.missing_layers,
        )


def report_data(
    *,
    run: str,
    attempt: int,
    contract: str,
    challenges: tuple[str, ...],
    signing: VerifyingKey,
    sealing: bytes,
    missing_layers: tuple[str, ...],
) -> bytes:
    """What evidence must bind: run, attempt, contract, every owner's challenge, and both session keys. 64 bytes.

    The challenges are ids of signed objects that hold 32 random bytes each, so the value is fresh for every owner.
    """
    return session_binding(
        b"kakoi/session/v1",
        bytes.fromhex(run),
        attempt.to_bytes(4, "big"),
        bytes.fromhex(contract),
        framed(*(bytes.fromhex(item) for item in challenges)),
        signing.ed25519,
        signing.mldsa65,
        sealing,
        framed(*(item.encode("utf-8") for item in missing_layers)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedKey(Record):
    """One key of a data set or of sealed code, HPKE-sealed to the session."""

    manifest: Digest
    sealed: Annotated[bytes, Limit(least=1100, most=2048)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedList(Record):
    """An owner's present list of people who opted out of one of its data sets, and its key, HPKE-sealed to the session.

    That it is the present one rests on the grant alone, which is fresh for each session.
    """

    manifest: Digest
    """The data set, in the version that takes part."""
    name: Annotated[str, Limit(least=32, most=32, pattern=r"[0-9a-f]{32}\Z")]
    """Random name of this list; the next one has another."""
    column: Name
    blob: Digest
    """SHA-256 of the list's ciphertext."""
    size: Annotated[int, Limit(least=1, most=2**27)]
    segment_digests: Annotated[bytes, Limit(least=DIGEST_BYTES, most=DIGEST_BYTES * 128)]
    key_commitment: Annotated[bytes, Limit(least=32, most=32)]
    sealed: Annotated[bytes, Limit(least=1100, most=2048)]

    def check(self) -> None:
        """The list is a sealed file like any other."""
        self.file()

    def file(self) -> SealedFile:
        """How it was sealed."""
        return SealedFile(name=FILE, blob=self.blob, size=self.size, segment_digests=self.segment_digests)


def list_info(*, run: str, attempt: int, contract: str, session: str, owner: str, manifest: str, name: str) -> bytes:
    """HPKE info of a granted list's key: as ``grant_info``, under a tag of its own and with the list's name."""
    ids = (run, contract, session, owner, manifest, name)
    return framed(b"kakoi/granted-list/v1", *(bytes.fromhex(x) for x in ids), bytes([attempt]))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant(Record):
    """An owner's yes: its keys of the data and the sealed code that the run needs, why, and until when."""

    KIND: ClassVar[str] = "kakoi/key-grant/v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    owner: PartyRef
    keys: Annotated[tuple[GrantedKey, ...], Limit(most=256)]
    """Empty if nothing of this owner's is read: its yes is needed all the same."""
    opt_outs: Annotated[tuple[GrantedList, ...], Limit(most=256)]
    """One for each of the data sets above that people opted out of."""
    verdict: Verdict
    collateral: Collateral
    issued_at: Seconds
    lease_until: Seconds


def grant_info(*, run: str, attempt: int, contract: str, session: str, owner: str, manifest: str) -> bytes:
    """HPKE info of a granted key: opening needs exactly this run, contract, session, owner and data set."""
    return framed(
        b"kakoi/key-grant/v1", *(bytes.fromhex(x) for x in (run, contract, session, owner, manifest)), bytes([attempt])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRenewal(Record):
    """Fresh evidence that a session still lives on a machine as it should be. Signed by the session's key."""

    KIND: ClassVar[str] = "kakoi/session-renewal/v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024 * 1024

    run: Digest
    attempt: Attempt
    renewal: Renewal
    contract: Digest
    session: Digest
    challenges: Annotated[tuple[Digest, ...], Limit(least=1, most=64, unique=True)]
    """Ids of all owners' challenges for this renewal, sorted."""
    evidence: Evidence

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the hardware must have signed for exactly this renewal."""
        return renewal_report_data(
            run=self.run,
            attempt=self.attempt,
            renewal=self.renewal,
            contract=self.contract,
            session=self.session,
            challenges=self.challenges,
        )


def renewal_report_data(
    *, run: str, attempt: int, renewal: int, contract: str, session: str, challenges: tuple[str, ...]
) -> bytes:
    """What the evidence of a renewal must bind: the session (its id stands for its keys and layers) and fresh challenges."""
    return session_binding(
        b"kakoi/session-renewal/v1",
        bytes.fromhex(run),
        attempt.to_bytes(4, "big"),
        renewal.to_bytes(4, "big"),
        bytes.fromhex(contract),
        bytes.fromhex(session),
        framed(*(bytes.fromhex(item) for item in challenges)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Record):
    """An owner's yes to go on: until when, and why. It holds no key: the session has what it needs."""

    KIND: ClassVar[str] = "kakoi/lease/v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024 * 1024

    run: Digest
    attempt: Attempt
    renewal: Renewal
    contract: Digest
    session: Digest
    owner: PartyRef
    evidence: Digest
    """Id of the session renewal that was judged."""
    verdict: Verdict
    collateral: Collateral
    issued_at: Seconds
    lease_until: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest(Record):
    """A session asks every owner to let its result go: the gate has judged it, nothing is published yet.

    Signed by the session's key. Nothing in it can be read without the keys of all owners' data.
    """

    KIND: ClassVar[str] = "kakoi/release-request/v1"
    MAX_BYTES: ClassVar[int] = 4 * 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    cohorts: SealedCohorts
    """Whose numbers would leave, sealed under a key that only enclaves with all owners' data keys derive."""
    output_kilobytes: Annotated[int, Limit(least=1, most=128 * 1024)]
    """Size of what would leave, rounded up: counted against the owners' budgets."""
    epsilon: Epsilon
    """Privacy loss of what would leave: the strictest owner's ``epsilon_per_run``; ``none`` if none demands noise."""
    noise: Digest | None
    """What the noise belongs to (``wire.release.noise_id``): the same question about the same data costs an owner's budget once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record):
    """An owner's yes to a result: it is written in its disclosure ledger, within its budgets."""

    KIND: ClassVar[str] = "kakoi/release/v1"
    MAX_BYTES: ClassVar[int] = 16 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    owner: PartyRef
    request: Digest
    earlier: Digest
    """Id of the owner's ``EarlierCohorts`` for this request."""
    position: Annotated[int, Limit(least=1, most=2**31)]
    """Place of this release in the owner's ledger."""
    head: Digest
    """Hash of the ledger's chain of releases up to this place: an owner whose ledger does not know it lost entries."""
    released_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierCohorts(Record):
    """What an owner's ledger holds of earlier releases from the same data, as sealed by the enclaves that asked for them."""

    KIND: ClassVar[str] = "kakoi/earlier-cohorts/v1"
    MAX_BYTES: ClassVar[int] = 8 * 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    owner: PartyRef
    request: Digest
    cohorts: Annotated[tuple[SealedCohorts, ...], Limit(most=MAX_EARLIER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailure(Record):
    """The enclave's no. Signed by the session key; nothing in it depends on data."""

    KIND: ClassVar[str] = "kakoi/run-failure/v1"
    MAX_BYTES: ClassVar[int] = 64 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    code: Slug
    message: Note
    hint: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientKey(Record):
    """The result's key, HPKE-sealed to one recipient."""

    party: PartyRef
    sealed: Annotated[bytes, Limit(least=1100, most=2048)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedResult(Record):
    """Where the encrypted output lies and who can open it. Signed by the session key."""

    KIND: ClassVar[str] = "kakoi/result/v1"
    MAX_BYTES: ClassVar[int] = 1024 * 1024

    run: Digest
    attempt: Attempt
    contract: Digest
    session: Digest
    passport: Digest
    blob: Digest
    size: Annotated[int, Limit(least=16, most=128 * 1024 * 1024)]
    keys: Annotated[tuple[RecipientKey, ...], Limit(least=1, most=64)]


def result_info(*, run: str, contract: str, session: str, party: str) -> bytes:
    """HPKE info of a result key, and (without a party) the associated data of the output's ciphertext."""
    return framed(b"kakoi/result/v1", *(bytes.fromhex(x) for x in (run, contract, session)), bytes.fromhex(party))


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision(Record):
    """What the gate did to one output, under which rule. Rules, not numbers."""

    output: Name
    rule: Annotated[str, Limit(least=1, most=80)]
    action: Literal["released", "suppressed-cells", "rounded", "noised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectDigest(Record):
    """in-toto DigestSet with SHA-256 only."""

    sha256: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject(Record):
    """in-toto ResourceDescriptor of the output."""

    digest: SubjectDigest
    name: Annotated[str, Limit(least=1, most=80)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(Record):
    """One renewal of all owners' leases, as the session saw it."""

    renewal: Renewal
    evidence: Digest
    """Id of the session renewal."""
    leases: Digest
    """SHA-256 over the ids of the owners' leases, sorted (``leases_digest``)."""


def leases_digest(leases: Iterable[str]) -> ObjectId:
    """What stands for the leases of one renewal."""
    return ObjectId(sha256(framed(b"kakoi/leases/v1", *(bytes.fromhex(item) for item in sorted(leases)))).hex())


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut(Record):
    """An owner's list of opt-outs was applied to a data set before anything else."""

    manifest: Digest
    people_at_least: Annotated[int, Limit(most=2**48)]
    """People of the list whose rows were left out, rounded down to a multiple of the fewest people that the owner's rules show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRenewal(Record):
    """The last renewal whole: a verifier judges its evidence again."""

    challenges: Annotated[tuple[Envelope, ...], Limit(least=1, most=64)]
    evidence: Envelope
    leases: Annotated[tuple[Envelope, ...], Limit(least=1, most=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate(Record):
    """Everything one needs to verify a result for ever: all objects as signed, the evidence with its collateral."""

    run: Digest
    contract: Digest
    request: Envelope
    bundle: ContractBundle
    challenges: Annotated[tuple[Envelope, ...], Limit(least=1, most=64)]
    session: Envelope
    grants: Annotated[tuple[Envelope, ...], Limit(least=1, most=64)]
    renewals: Annotated[tuple[Renewed, ...], Limit(most=MAX_RENEWALS)]
    """Every renewal in order, by ids."""
    last_renewal: LastRenewal | None
    opt_outs: Annotated[tuple[LeftOut, ...], Limit(most=256)]
    """Every list that was granted for a data set of this analysis, sorted by data set."""
    release_request: Envelope
    releases: Annotated[tuple[Envelope, ...], Limit(least=1, most=64)]
    """Every owner's yes to the result, as recorded in its disclosure ledger."""
    gate: Annotated[tuple[GateDecision, ...], Limit(most=1024)]
    missing_layers: Annotated[tuple[Annotated[str, Limit(most=80)], ...], Limit(most=32)]
    protected_by_hardware: bool
    notice: Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport(Record):
    """An in-toto Statement v1. Signed by the session key with payload type application/vnd.in-toto+json."""

    MAX_BYTES: ClassVar[int] = 16 * 1024 * 1024

    _type: Literal["https://in-toto.io/Statement/v1"]
    predicate: Predicate
    predicateType: Literal["urn:kakoi:passport:v1"]  # noqa: N815 - in-toto's own name
    subject: Annotated[tuple[Subject, ...], Limit(least=1, most=1)]
