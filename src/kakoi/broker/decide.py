"""The decision: does this owner's key go to this session? Pure, and the heart of the product.

Nobody else decides this. Each function raises Refused with the rule that failed, or returns what it established.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal as Number

from kakoi.attest.report import Verdict
from kakoi.contract.approve import Agreement, in_force
from kakoi.contract.rules import DisclosureRules, bounded
from kakoi.contract.sign import Signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.wire.enclave_run import MAX_CLOCK_DIFFERENCE
from kakoi.wire.messages import Challenge, ReleaseRequest, RunRequest, Session, SessionRenewal
from kakoi.wire.release import epsilon_of
from kakoi.wire.request import open_request

MAX_REQUEST_AGE = 24 * 3600
MAX_CHALLENGE_AGE = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the owner's own ledger knows. Nothing in it comes from the hub."""

    approved: frozenset[str]
    """Contracts this owner approved, by its own record."""
    withdrawn: frozenset[str]
    """Contracts and manifests this owner withdrew."""
    granted_runs: int
    """Other runs of the same analysis under the same contract that got a key."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Contracts that this owner put in quarantine and whose grace is over, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What the owner's disclosure ledger says other runs have used up, under whatever contract."""

    runs: int
    kilobytes: int
    epsilon: Number
    """Privacy loss of everything that left with noise."""
    noises: frozenset[str]
    """What that noise belongs to: who asks the same again learns nothing new."""
    settings: frozenset[str]
    """Settings that the same analysis was released with (``setting_of``)."""


Judge = Callable[[Session], Verdict]
"""Verifies and appraises a session's evidence against the contract's policy; raises Refused with every mismatch."""


JudgeRenewal = Callable[[SessionRenewal], Verdict]
"""The same for the fresh evidence of a renewal."""


def decide_request(
    *, agreement: Agreement, owner: str, request: Envelope, facts: Facts, now: int
) -> Signed[RunRequest]:
    """Is this run worth a challenge?

    1. this owner approved the contract, by its own record and not only by a signature somebody shows;
    2. nothing that takes part was withdrawn;
    3. the contract is in force at the owner's own time;
    4. the request is an analyst's, recent, and within the contract;
    5. the budget of runs is not used up.
    """
    _consented(agreement, owner, facts)
    in_force(agreement, now)
    signed = open_request(request, agreement)
    if not now - MAX_REQUEST_AGE <= signed.record.requested_at <= now + MAX_CLOCK_DIFFERENCE:
        raise Refused(
            "request.time",
            "expected a request of the last 24 hours, by this owner's clock",
            hint="check the clock of the analyst's machine, and ask again",
        )
    if facts.granted_runs >= agreement.max_runs(signed.record.analysis):
        raise Refused(
            "decision.budget",
            "expected a run within the agreed number of runs; all of them are used",
            hint="the parties can approve a new version of the contract with more runs",
        )
    return signed


def decide_grant(
    *,
    agreement: Agreement,
    owner: str,
    request: Envelope,
    challenge: Signed[Challenge],
    session: Signed[Session],
    facts: Facts,
    judge: Judge,
    now: int,
) -> Verdict:
    """May the owner's keys be sealed to this session? The verdict that says yes, or Refused.

    1. everything ``decide_request`` asks holds now, not only when the challenge was issued;
    2. the session is for this run and contract, and answers this owner's fresh challenge;
    3. every isolation layer that the machine lacks was accepted in the contract by name;
    4. the evidence verifies, is appraised by the contract's policy, and binds exactly this session.
    """
    signed = decide_request(agreement=agreement, owner=owner, request=request, facts=facts, now=now)
    record = session.record
    if (record.run, record.contract) != (signed.id, agreement.id):
        raise Refused("session.replayed", "expected a session of this run and contract, got one of another")
    if challenge.id not in record.challenges or challenge.record.attempt != record.attempt:
        raise Refused("session.challenge", "expected a session that answers this owner's challenge, got another")
    if not challenge.record.issued_at <= now <= challenge.record.issued_at + MAX_CHALLENGE_AGE:
        raise Refused(
            "session.stale",
            f"expected a session within {MAX_CHALLENGE_AGE} seconds of the challenge, got a later one",
            hint="the run can be asked for again",
        )
    _layers_accepted(agreement, record)
    return judge(record)


def decide_going_on(*, agreement: Agreement, owner: str, facts: Facts, now: int) -> None:
    """May a session keep what it got? Raises Refused once this owner has withdrawn, or the contract has ended."""
    _consented(agreement, owner, facts)
    in_force(agreement, now)


def decide_renewal(
    *,
    agreement: Agreement,
    owner: str,
    challenge: Signed[Challenge],
    session: Signed[Session],
    renewal: Signed[SessionRenewal],
    facts: Facts,
    judge: JudgeRenewal,
    now: int,
) -> Verdict:
    """May the session that holds this owner's keys go on? The verdict that says yes, or Refused.

    1. the owner still agrees, by its own record, and the contract is in force at the owner's own time;
    2. the renewal is of that session, and answers this owner's fresh challenge of its number;
    3. every isolation layer that the machine lacks is accepted in the contract by name;
    4. the fresh evidence verifies with today's endorsements, is appraised by the contract's policy, and binds exactly
       this renewal of this session.

    The request and the budget were judged when the keys were granted: they cannot change any more.
    """
    decide_going_on(agreement=agreement, owner=owner, facts=facts, now=now)
    record, asked = renewal.record, challenge.record
    if (record.session, record.contract, record.run) != (session.id, agreement.id, session.record.run):
        raise Refused("session.replayed", "expected a renewal of this session and contract, got one of another")
    if challenge.id not in record.challenges or (asked.attempt, asked.renewal) != (record.attempt, record.renewal):
        raise Refused("session.challenge", "expected a renewal that answers this owner's challenge, got another")
    if not asked.issued_at <= now:
        raise Refused("session.stale", "expected a clock that goes forward, got a time before the challenge")
    _layers_accepted(agreement, session.record)
    return judge(record)


def _layers_accepted(agreement: Agreement, session: Session) -> None:
    for layer in session.missing_layers:
        if layer not in agreement.contract.accepted_weaknesses:
            raise Refused(
                "session.layer-missing",
                f"expected the isolation layer {layer}, which the enclave's machine lacks",
                hint="the operator can add it (kakoi doctor), or all parties accept its absence by name",
            )


def _consented(agreement: Agreement, owner: str, facts: Facts) -> None:
    if agreement.id not in facts.approved:
        raise Refused(
            "decision.not-approved",
            "expected a contract that this owner approved, by the owner's own record",
            hint="its people can read and approve it: kakoi contract sign",
        )
    if (reason := facts.quarantined.get(agreement.id)) is not None:
        raise Refused(
            "decision.quarantined",
            f"expected a contract that is not in quarantine; this owner put it there: {reason}",
            hint="the operator mends what is known, the parties approve a new version, or the owner lifts it: kakoi quarantine lift",
        )
    for identity in (agreement.id, *agreement.objects_of(owner)):
        if identity in facts.withdrawn:
            raise Refused(
                "decision.withdrawn",
                "expected a contract and data that are not withdrawn; this owner has withdrawn",
                hint="ask the owner; a new contract is needed",
            )


def decide_release(
    *,
    agreement: Agreement,
    owner: str,
    request: RunRequest,
    setting: str,
    asked: ReleaseRequest,
    facts: Facts,
    spent: Spent,
    now: int,
) -> None:
    """May what the gate let through leave? Raises Refused.

    1. the owner still agrees, by its own record, and the contract is in force at the owner's own time;
    2. the budgets of every data set of this owner have room: runs, and kilobytes, over all contracts;
    3. where an owner demands noise, the enclave says that it was added, with what the contract allows one run to tell, and the
       budget of privacy loss has room; the same noise costs it once;
    4. an analysis in Python, whose cohorts nobody else can see, was not released with too many settings: of its parameters, and of who opted out (``setting_of``).

    Whose numbers they are the enclave compares itself, with what it gets of every owner's ledger.
    """
    decide_going_on(agreement=agreement, owner=owner, facts=facts, now=now)
    rules = [entry.rules for entry in agreement.data_of(owner)]
    if not rules:  # the owner of sealed code has no data that could be used up
        return
    if spent.runs >= min(rule.budget_runs for rule in rules):
        raise _used_up("budget_runs", "runs whose results may leave")
    if spent.kilobytes + asked.output_kilobytes > min(rule.budget_kilobytes for rule in rules):
        raise _used_up("budget_kilobytes", "kilobytes that may leave")
    _tells_little(epsilon_of(agreement), asked, rules, spent)
    if agreement.analyses[request.analysis].record.engine == "python":
        settings = spent.settings | {setting}
        if len(settings) > min(rule.python_settings for rule in rules):
            raise Refused(
                "ledger.python-settings",
                "expected one of the settings (parameters, opt-outs) that this Python analysis was released with: rule python_settings",
                hint="write the analysis in SQL, where cohorts are compared; or this owner can change the rule in a new contract version",
            )


def _tells_little(epsilon: str, asked: ReleaseRequest, rules: Sequence[DisclosureRules], spent: Spent) -> None:
    if asked.epsilon != epsilon:
        raise Refused(
            "session.release-noise",
            f"expected a result with the noise of epsilon_per_run {epsilon} that the contract demands, got one with other noise or none",
            hint="the enclave and this owner read the contract differently: compare their versions",
        )
    loss = bounded(epsilon)
    if loss is None or asked.noise in spent.noises:
        return
    budgets = [budget for rule in rules if (budget := bounded(rule.epsilon_budget)) is not None]
    if budgets and spent.epsilon + loss > min(budgets):
        raise Refused(
            "ledger.epsilon",
            "expected room within the privacy loss that may leave from this owner's data; it is used up: rule epsilon_budget",
            hint="ask again what was asked before, which costs nothing; or this owner can raise the budget in a new contract version",
        )


def _used_up(rule: str, what: str) -> Refused:
    return Refused(
        "ledger.budget",
        f"expected room within the {what} from this owner's data; the budget is used up: rule {rule}",
        hint="this owner can raise it in a new contract version: kakoi broker ledger shows what was used",
    )
