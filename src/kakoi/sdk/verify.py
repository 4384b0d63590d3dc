"""``kakoi verify``: what one result file proves, checked offline and without trusting operator or vendor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kakoi.attest import registry
from kakoi.attest.policy import AttestationPolicy
from kakoi.attest.registry import Verifier
from kakoi.attest.report import PlatformKind, Verdict
from kakoi.contract.approve import Agreement, agree, in_force
from kakoi.contract.opt_out import at_least
from kakoi.contract.sign import Signed
from kakoi.core import dsse
from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.core.sealed import Sealed
from kakoi.sdk.passport_parts import one_of_each, wrong
from kakoi.sdk.verify_noise import check_noise, noise_of
from kakoi.sdk.verify_renewals import check_renewals
from kakoi.tlog import proof as log_proof
from kakoi.tlog.checkpoint import VerifiedCheckpoint
from kakoi.tlog.leaf import PASSPORT_KIND, leaf_hash
from kakoi.wire.analyst_run import open_session
from kakoi.wire.enclave_run import MAX_CLOCK_DIFFERENCE
from kakoi.wire.messages import Challenge, KeyGrant, Passport, Predicate, Release, RunRequest, Session
from kakoi.wire.release import open_release_request
from kakoi.wire.released import Released
from kakoi.wire.request import open_request
from kakoi.wire.result import OutputPayload, ResultFile

Verifiers = Callable[[AttestationPolicy], Mapping[PlatformKind, Verifier]]
"""The verifiers to judge with, given the contract's policy: ``attest.software.admit.with_software`` for reading results,
because whoever reads one must be told what it is, and reading releases no key."""


SENTENCES: Final[Mapping[str, str]] = {
    "verify.proven.contract": "All {parties} parties signed exactly this contract, its data sets and its analyses",
    "verify.proven.request": "The analyst asked for exactly this run, within the contract",
    "verify.proven.evidence": "Each owner's broker judged the enclave's evidence ({platforms}); judged again here with the same collateral, all {checks} checks agree",
    "verify.proven.keys": "All {owners} owners gave their keys to exactly this session, and to no other of this run",
    "verify.proven.renewed": "The owners renewed their leases {times} times while it computed; the last fresh evidence was judged again here too",
    "verify.proven.opt-outs": "Before anything else, people who opted out were left out of {table} of {owner}: at least {people}",
    "verify.proven.opt-outs-few": "Before anything else, people who opted out were left out of {table} of {owner}: fewer than {least}, or none",
    "verify.proven.releases": "All {owners} owners wrote this release into their ledgers and let it go, within their budgets",
    "verify.proven.noise": "Every number has noise of differential privacy: of one person this run told at most ε = {epsilon}, counting at most {rows} row(s) of a person",
    "verify.proven.output": "The output is the one that this enclave sealed",
    "verify.proven.log": "The passport is in the transparency log {origin}, among {size} entries",
    "verify.not-proven.hardware": "Nothing about the machine: the software platform plays the hardware, and whoever holds its files can forge all of this",
    "verify.not-proven.vendor": "That the hardware vendor's keys and chips are unbroken; an advisory after this date is not known here",
    "verify.not-proven.data-true": "That the owners' data are true",
    "verify.not-proven.cards": "Whose the party cards are: compare their ids with the parties",
    "verify.not-proven.sealed-code": "What the sealed code {digest} computes, and that it counts people truly: its author answers for that, and whoever reviewed it ({reviewers})",
    "verify.not-proven.skipped": "Checks that the contract skips by name: {checks}",
    "verify.not-proven.layers": "Isolation layers that the machine lacked and the contract accepted: {layers}",
}
"""What ``verify_result`` says, in English. The command line's catalogue has the same sentences (tested), and others' languages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A sentence for people: a key of ``SENTENCES`` and its parameters."""

    key: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)

    def __str__(self) -> str:
        return SENTENCES[self.key].format(**self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedResult(metaclass=Sealed):
    """A result whose passport holds. Only ``verify_result`` makes one."""

    agreement: Agreement
    request: RunRequest
    passport: Predicate
    output: OutputPayload
    verdicts: tuple[Verdict, ...]
    checkpoint: VerifiedCheckpoint
    proven: tuple[Said, ...]
    not_proven: tuple[Said, ...]

    @property
    def protected_by_hardware(self) -> bool:
        """Whether real hardware made the evidence. False for the ``software`` platform."""
        return self.passport.protected_by_hardware


def verify_result(data: bytes, *, verifiers: Verifiers) -> VerifiedResult:
    """What ``result.kakoi`` proves.

     0. the file and everything in it parses strictly;
     1. the session's key signed the passport (in-toto Statement in DSSE), and the session signed itself;
     2. the contract is whole: every party's card, every manifest and analysis, every party's approval;
     3. the run request is the analyst's and within the contract;
     4. each owner, and nobody else, gave one challenge and one key grant to exactly this session, in the contract's dates
        and at times that agree;
     5. the evidence, judged again with the collateral and at the time that each owner used, gives each owner's verdict,
        and binds this run, this contract, these challenges and these keys;
     6. renewed leases: the last fresh evidence is judged again (``verify_renewals``);
     7. every list of opt-outs that an owner granted for the data of this analysis was applied, and is counted in the owner's steps only;
     8. missing isolation layers are those that the contract accepts by name;
     9. each owner released exactly this session's request, in the contract's dates, not before its grant; where an owner demands noise, the
        request says the contract's epsilon and belongs to this question about these data, and so do the gate's decisions;
    10. the output's digest is the passport's subject, the output is of this run, and the gate's decisions in both agree;
    10. the passport is in the transparency log that the contract names;
    11. the passport says about hardware what the verdicts say.

     Raises Malformed or Refused at the first that fails.
    """
    file = ResultFile.decode(data)
    unverified = Passport.decode(file.passport.payload)
    session = open_session(unverified.predicate.session)
    dsse.verify(file.passport, session.record.verifying_key, payload_type=dsse.IN_TOTO_TYPE)
    predicate = unverified.predicate

    agreement = agree(predicate.bundle)
    request = open_request(predicate.request, agreement)
    _same_run(predicate, agreement, request, session)
    owners = agreement.owners_of(request.record.analysis)
    challenges = one_of_each(Challenge, predicate.challenges, agreement, owners)
    grants = one_of_each(KeyGrant, predicate.grants, agreement, owners)
    _conversation(agreement, request.record, session, challenges, grants)
    verdicts = tuple(_judge_again(agreement, session.record, grant.record, verifiers) for grant in grants)
    renewed = check_renewals(predicate, agreement, session, grants, verifiers)
    _opt_outs(predicate, agreement, grants)
    _layers(predicate, session.record, agreement)
    _releases(predicate, agreement, session, grants, owners)
    check_noise(predicate, agreement, request.record, session, grants)
    output = _output(file, unverified, request)
    checkpoint = log_proof.verify(
        log_proof.decode(file.log), agreement.contract.log, leaf=leaf_hash(PASSPORT_KIND, file.passport.payload_id)
    )
    _hardware(predicate, (*verdicts, *renewed))
    return VerifiedResult._seal(
        agreement=agreement,
        request=request.record,
        passport=predicate,
        output=output,
        verdicts=verdicts,
        checkpoint=checkpoint,
        proven=_proven(agreement, verdicts, checkpoint, predicate),
        not_proven=_not_proven(predicate, verdicts, agreement, request.record.analysis),
    )


def _same_run(
    predicate: Predicate, agreement: Agreement, request: Signed[RunRequest], session: Signed[Session]
) -> None:
    if predicate.contract != agreement.id or session.record.contract != agreement.id:
        raise wrong("expected one contract throughout")
    if predicate.run != request.id or session.record.run != request.id:
        raise wrong("expected one run throughout")


def _conversation(
    agreement: Agreement,
    request: RunRequest,
    session: Signed[Session],
    challenges: tuple[Signed[Challenge], ...],
    grants: tuple[Signed[KeyGrant], ...],
) -> None:
    record = session.record
    if tuple(sorted(challenge.id for challenge in challenges)) != record.challenges:
        raise wrong("expected the session to answer exactly the owners' challenges")
    times: list[int] = []
    messages: list[Challenge | KeyGrant] = [*(c.record for c in challenges), *(g.record for g in grants)]
    for message in messages:
        if (message.run, message.attempt, message.contract) != (record.run, record.attempt, record.contract):
            raise wrong("expected challenges and grants of this run and attempt")
        in_force(agreement, message.issued_at)
        times.append(message.issued_at)
    for grant in (signed.record for signed in grants):
        if grant.session != session.id:
            raise wrong("expected key grants for this session")
        needed = set(agreement.keys_of(grant.owner, request.analysis))
        if {key.manifest for key in grant.keys} != needed or len(grant.keys) != len(needed):
            raise wrong("expected a key for each of the owner's objects that the run needed")
        if not 0 < grant.lease_until - grant.issued_at <= agreement.contract.limits.lease_seconds:
            raise wrong("expected leases within the contract's limit")
    if max(times) - min(times) > MAX_CLOCK_DIFFERENCE + agreement.contract.limits.lease_seconds:
        raise wrong("expected owners' times that agree")


def _judge_again(agreement: Agreement, session: Session, grant: KeyGrant, verifiers: Verifiers) -> Verdict:
    verdict = registry.judge(
        session.evidence,
        grant.collateral,
        agreement.contract.platforms,
        report_data=session.report_data,
        now=grant.verdict.evaluated_at,
        verifiers=verifiers(agreement.contract.platforms),
    )
    if verdict != grant.verdict:
        raise wrong("expected the evidence to give the verdict that the owner recorded")
    if abs(grant.verdict.evaluated_at - grant.issued_at) > MAX_CLOCK_DIFFERENCE:
        raise wrong("expected the evidence to be judged when the grant was made")
    return verdict


def _opt_outs(predicate: Predicate, agreement: Agreement, grants: tuple[Signed[KeyGrant], ...]) -> None:
    granted = sorted(item.manifest for grant in grants for item in grant.record.opt_outs)
    if [item.manifest for item in predicate.opt_outs] != granted or len(set(granted)) != len(granted):
        raise wrong("expected every list of opt-outs that was granted to be applied, once, and no other")
    rules = {entry.manifest: entry.rules for entry in agreement.contract.data}
    for item in predicate.opt_outs:
        if item.manifest not in rules or at_least(item.people_at_least, rules[item.manifest]) != item.people_at_least:
            raise wrong("expected people who opted out to be counted in the steps of their owner's rules")


def _layers(predicate: Predicate, session: Session, agreement: Agreement) -> None:
    if predicate.missing_layers != session.missing_layers:
        raise wrong("expected the missing layers that the session declared")
    if not set(session.missing_layers) <= set(agreement.contract.accepted_weaknesses):
        raise wrong("expected only missing layers that the contract accepts by name")


def _releases(
    predicate: Predicate,
    agreement: Agreement,
    session: Signed[Session],
    grants: tuple[Signed[KeyGrant], ...],
    owners: Sequence[str],
) -> None:
    asked = open_release_request(predicate.release_request, session)
    granted = {grant.record.owner: grant.record.issued_at for grant in grants}
    for release in (signed.record for signed in one_of_each(Release, predicate.releases, agreement, owners)):
        named = (release.run, release.attempt, release.contract, release.session, release.request)
        record = asked.record
        if named != (record.run, record.attempt, record.contract, record.session, asked.id):
            raise wrong("expected releases of this session's request")
        in_force(agreement, release.released_at)
        if release.released_at < granted[release.owner]:
            raise wrong("expected owners' times that go forward")


def _output(file: ResultFile, passport: Passport, request: Signed[RunRequest]) -> OutputPayload:
    if passport.subject[0].name != "output":
        raise wrong("expected a passport about an output")
    if sha256(file.output).hex() != passport.subject[0].digest.sha256:
        raise Refused(
            "passport.output",
            "expected the output that the passport names, got another",
            hint="the output was altered after the enclave sealed it",
        )
    output = OutputPayload.decode(file.output)
    if (output.run, output.contract) != (request.id, request.record.contract):
        raise wrong("expected an output of this run")
    if Released.decode(output.released).decisions != passport.predicate.gate:
        raise wrong("expected the gate's decisions that came with the output")
    return output


def _hardware(predicate: Predicate, verdicts: tuple[Verdict, ...]) -> None:
    if predicate.protected_by_hardware != all(verdict.protected_by_hardware for verdict in verdicts):
        raise wrong("expected the passport to say about hardware what the verdicts say")


def _left_out(agreement: Agreement, predicate: Predicate) -> Iterator[Said]:
    rules = {entry.manifest: entry.rules for entry in agreement.contract.data}
    for item in predicate.opt_outs:
        manifest = agreement.manifests[item.manifest].record
        said = {"owner": agreement.cards[manifest.owner].record.name, "table": manifest.table}
        least = max(rules[item.manifest].minimum_contributors, rules[item.manifest].minimum_cell)
        if item.people_at_least:
            yield Said(key="verify.proven.opt-outs", parameters={**said, "people": item.people_at_least})
        else:
            yield Said(key="verify.proven.opt-outs-few", parameters={**said, "least": least})


def _proven(
    agreement: Agreement, verdicts: tuple[Verdict, ...], checkpoint: VerifiedCheckpoint, predicate: Predicate
) -> tuple[Said, ...]:
    renewals = len(predicate.renewals)
    kinds = ", ".join(sorted({verdict.claims.platform for verdict in verdicts}))
    checks = min(len(verdict.checks) for verdict in verdicts)
    return (
        Said(key="verify.proven.contract", parameters={"parties": len(agreement.cards)}),
        Said(key="verify.proven.request"),
        Said(key="verify.proven.evidence", parameters={"platforms": kinds, "checks": checks}),
        Said(key="verify.proven.keys", parameters={"owners": len(verdicts)}),
        *_left_out(agreement, predicate),
        *([Said(key="verify.proven.renewed", parameters={"times": renewals})] if renewals else []),
        Said(key="verify.proven.releases", parameters={"owners": len(verdicts)}),
        *([Said(key="verify.proven.noise", parameters=noise_of(agreement))] if noise_of(agreement) else []),
        Said(key="verify.proven.output"),
        Said(key="verify.proven.log", parameters={"origin": checkpoint.origin, "size": checkpoint.size}),
    )


def _not_proven(
    predicate: Predicate, verdicts: tuple[Verdict, ...], agreement: Agreement, analysis: str
) -> tuple[Said, ...]:
    out = [Said(key="verify.not-proven.data-true"), Said(key="verify.not-proven.cards")]
    if not predicate.protected_by_hardware:
        out.insert(0, Said(key="verify.not-proven.hardware"))
    else:
        out.insert(0, Said(key="verify.not-proven.vendor"))
    sealed = agreement.analyses[analysis].record.sealed_code
    if sealed is not None:
        names = [agreement.cards[review.record.reviewer].record.name for review in agreement.reviews[sealed]]
        reviewers = ", ".join(names) or "-"
        out.append(Said(key="verify.not-proven.sealed-code", parameters={"digest": sealed, "reviewers": reviewers}))
    skipped = sorted({check.name for verdict in verdicts for check in verdict.checks if check.outcome == "skipped"})
    if skipped:
        out.append(Said(key="verify.not-proven.skipped", parameters={"checks": ", ".join(skipped)}))
    if predicate.missing_layers:
        out.append(Said(key="verify.not-proven.layers", parameters={"layers": ", ".join(predicate.missing_layers)}))
    return tuple(out)
