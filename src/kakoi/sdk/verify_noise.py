"""What a passport says about the noise of its numbers, held against the contract and the conversation."""

from __future__ import annotations

from collections.abc import Sequence

from kakoi.contract.approve import Agreement
from kakoi.contract.rules import NO_EPSILON
from kakoi.contract.sign import Signed
from kakoi.sdk.passport_parts import wrong
from kakoi.wire.messages import KeyGrant, Predicate, RunRequest, Session
from kakoi.wire.release import epsilon_of, noise_id, open_release_request


def check_noise(
    predicate: Predicate,
    agreement: Agreement,
    request: RunRequest,
    session: Signed[Session],
    grants: Sequence[Signed[KeyGrant]],
) -> None:
    """Raise Refused unless the owners were asked for exactly the noise that the contract demands, and the gate says that it added it.

    What the noise belongs to is computed again from contract, request, data and the lists of opt-outs that were granted.
    """
    asked, epsilon = open_release_request(predicate.release_request, session).record, epsilon_of(agreement)
    lists = [item.name for grant in grants for item in grant.record.opt_outs]
    belongs = None if epsilon == NO_EPSILON else noise_id(agreement, request, lists)
    if (asked.epsilon, asked.noise) != (epsilon, belongs):
        raise wrong("expected a release request with the noise that the contract demands")
    noised = [decision.rule for decision in predicate.gate if decision.action == "noised"]
    if (_rule(agreement) in noised) != (belongs is not None) or (noised and belongs is None):
        raise wrong("expected the gate to have added the noise that the contract demands")


def noise_of(agreement: Agreement) -> dict[str, str | int]:
    """Epsilon and rows of a person that count, for people; empty where numbers have no noise."""
    epsilon = epsilon_of(agreement)
    return {} if epsilon == NO_EPSILON else {"epsilon": epsilon, "rows": _rows(agreement)}


def _rows(agreement: Agreement) -> int:
    return min(entry.rules.rows_per_person for entry in agreement.contract.data)


def _rule(agreement: Agreement) -> str:
    return f"differential-privacy epsilon={epsilon_of(agreement)} rows-per-person={_rows(agreement)}"
