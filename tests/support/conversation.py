"""One run's messages as a broker and an enclave would make them, for the state machine tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kakoi.attest.report import Check, Claims, Collateral, Evidence, Verdict
from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId, object_id
from kakoi.testing.world import NOW, TestParty, World, seeded
from kakoi.wire.analyst_run import open_session
from kakoi.wire.enclave_run import EnclaveRun
from kakoi.wire.messages import (
    Challenge,
    Denial,
    GrantedKey,
    KeyGrant,
    Lease,
    Release,
    ReleaseRequest,
    RunRequest,
    Session,
    SessionRenewal,
    grant_info,
)
from kakoi.wire.renewal import open_renewal
from kakoi.wire.request import open_request


def verdict(report_data: bytes, at: int) -> Verdict:
    """A verdict as a judge would give it. The state machines do not look inside."""
    return Verdict(
        claims=Claims(
            platform="software",
            measurements=(),
            report_data=report_data.hex(),
            debug=False,
            tcb_status="UpToDate",
            advisories=(),
            tcb=(),
            tcb_date=None,
            tcb_evaluation_number=None,
            platform_identity="",
            product="",
            root=object_id(b"root"),
            settings=(),
        ),
        protected_by_hardware=False,
        checks=(Check(name="quote", outcome="passed", expected="", got="", mender="nobody"),),
        evaluated_at=at,
        collateral=(),
        collateral_issued_at=None,
    )


@dataclass(slots=True)
class Conversation:
    """Everything that is said in one attempt."""

    world: World = field(default_factory=World)
    attempt: int = 1
    agreement: Agreement = field(init=False)
    request: Signed[RunRequest] = field(init=False)
    signing: SigningKey = field(init=False)
    sealing: SealingKey = field(init=False)
    grants: dict[tuple[str, int, int, str], Envelope] = field(default_factory=dict)
    leases: dict[tuple[str, int, str], Envelope] = field(default_factory=dict)
    requests: dict[str, Envelope] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agreement = self.world.agreement()
        self.request = open_request(self.world.request(self.agreement), self.agreement)
        self.signing = SigningKey(seeded("session/signing", crypto.SIGNING_SECRET))
        self.sealing = SealingKey(seeded("session/sealing", crypto.SEALING_SECRET))

    def run(self) -> EnclaveRun:
        return EnclaveRun(agreement=self.agreement, request=self.request, attempt=self.attempt)

    def challenge(
        self, owner: TestParty, *, at: int = NOW, nonce: str = "", attempt: int = 0, renewal: int = 0
    ) -> Envelope:
        record = Challenge(
            run=self.request.id,
            attempt=attempt or self.attempt,
            renewal=renewal,
            contract=self.agreement.id,
            owner=owner.id,
            nonce=seeded(f"challenge/{owner.name}/{nonce}/{renewal}", 32),
            issued_at=at,
        )
        return seal(record, owner.signing)

    def session(self, challenges: tuple[ObjectId, ...] | None = None, *, run: str = "") -> Signed[Session]:
        ids = challenges or tuple(sorted(self.challenge(o).payload_id for o in self.world.owners))
        record = Session(
            run=ObjectId(run) if run else self.request.id,
            attempt=self.attempt,
            contract=self.agreement.id,
            challenges=ids,
            signing_ed25519=self.signing.verifying_key.ed25519,
            signing_mldsa65=self.signing.verifying_key.mldsa65,
            sealing=self.sealing.sealing_public,
            missing_layers=(),
            evidence=Evidence(platform="software", statement=b"quote", parts=()),
        )
        return open_session(seal(record, self.signing))

    def grant(self, owner: TestParty, *, at: int = NOW, lease: int = 300, session: str = "") -> Envelope:
        """Sealing is randomised, so the same grant is made once and then delivered again."""
        key = (owner.name, at, lease, session)
        if key not in self.grants:
            self.grants[key] = self._grant(owner, at=at, lease=lease, session=session)
        return self.grants[key]

    def _grant(self, owner: TestParty, *, at: int, lease: int, session: str) -> Envelope:
        signed = self.session()
        manifest = self.agreement.data_of(owner.id)[0].manifest
        info = grant_info(
            run=self.request.id,
            attempt=self.attempt,
            contract=self.agreement.id,
            session=signed.id,
            owner=owner.id,
            manifest=manifest,
        )
        sealed = crypto.seal(self.world.data_key(owner), signed.record.sealing, info=info)
        record = KeyGrant(
            run=self.request.id,
            attempt=self.attempt,
            contract=self.agreement.id,
            session=ObjectId(session) if session else signed.id,
            owner=owner.id,
            keys=(GrantedKey(manifest=manifest, sealed=sealed),),
            opt_outs=(),
            verdict=verdict(signed.record.report_data, at),
            collateral=Collateral(parts=()),
            issued_at=at,
            lease_until=at + lease,
        )
        return seal(record, owner.signing)

    def renewal(self, number: int = 1) -> Signed[SessionRenewal]:
        """The session's fresh evidence, in answer to all owners' challenges of this number."""
        record = SessionRenewal(
            run=self.request.id,
            attempt=self.attempt,
            renewal=number,
            contract=self.agreement.id,
            session=self.session().id,
            challenges=tuple(sorted(self.challenge(o, renewal=number).payload_id for o in self.world.owners)),
            evidence=Evidence(platform="software", statement=b"quote %d" % number, parts=()),
        )
        return open_renewal(seal(record, self.signing), self.session())

    def lease(self, owner: TestParty, number: int = 1, **changes: object) -> Envelope:
        """An owner's lease for this renewal, with some fields changed. Signing is randomised, so each is made once."""
        key = (owner.name, number, repr(sorted(changes.items())))
        if key not in self.leases:
            renewal = self.renewal(number)
            record = Lease(
                run=self.request.id,
                attempt=self.attempt,
                renewal=number,
                contract=self.agreement.id,
                session=self.session().id,
                owner=owner.id,
                evidence=renewal.id,
                verdict=verdict(renewal.record.report_data, NOW),
                collateral=Collateral(parts=()),
                issued_at=NOW,
                lease_until=NOW + 300,
            )
            self.leases[key] = seal(replace(record, **changes), owner.signing)  # type: ignore[arg-type]
        return self.leases[key]

    def release_request(self, *, session: str = "") -> Envelope:
        """What the session asks all owners for. Signing is randomised, so it is made once."""
        if session not in self.requests:
            record = ReleaseRequest(
                run=self.request.id,
                attempt=self.attempt,
                contract=self.agreement.id,
                session=ObjectId(session) if session else self.session().id,
                cohorts=seeded("cohorts", 4096),
                output_kilobytes=1,
                epsilon="none",
                noise=None,
            )
            self.requests[session] = seal(record, self.signing)
        return self.requests[session]

    def release(self, owner: TestParty, **changes: object) -> Envelope:
        """An owner's yes to it, with some fields changed."""
        key = (owner.name, 0, repr(sorted(changes.items())) + str(id(owner.signing)))
        if key not in self.leases:
            record = Release(
                run=self.request.id,
                attempt=self.attempt,
                contract=self.agreement.id,
                session=self.session().id,
                owner=owner.id,
                request=self.release_request().payload_id,
                earlier=object_id(b"earlier"),
                position=1,
                head=object_id(b"head"),
                released_at=NOW,
            )
            self.leases[key] = seal(replace(record, **changes), owner.signing)  # type: ignore[arg-type]
        return self.leases[key]

    def denial(self, owner: TestParty) -> Envelope:
        record = Denial(
            run=self.request.id,
            attempt=self.attempt,
            contract=self.agreement.id,
            owner=owner.id,
            code="decision.budget",
            message="expected a run within the budget",
            hint="ask the owner",
            checks=(),
            denied_at=NOW,
        )
        return seal(record, owner.signing)


def reopened(cls: type[Challenge], envelope: Envelope, owner: TestParty) -> Signed[Challenge]:
    return open_signed(cls, envelope, owner.card)
