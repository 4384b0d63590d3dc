"""T105: whoever asks for an exception must not get it by asking."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kakoi.contract.approve import agree
from kakoi.contract.model import Approval
from kakoi.contract.sign import seal
from kakoi.core.errors import Refused
from kakoi.sdk.ask import amended
from kakoi.sdk.terms import Terms
from kakoi.testing.world import NOW, World


def test_an_exception_that_nobody_signed_is_none() -> None:
    """Signed by nobody, by all but the owner whose rule it is, with approvals of the version before: no agreement."""
    world = World()
    bundle = world.bundle()
    before = world.agreement()
    terms = Terms(
        id=before.id,
        contract=before.contract,
        cards=before.cards,
        manifests=before.manifests,
        analyses=before.analyses,
    )
    made = amended(terms, drafter=world.analyst.id, rules={"minimum_cell": 1}, owners=["South"])
    contract = seal(made.contract, world.analyst.signing)
    parties = (*world.owners, world.analyst)
    approvals = {
        party.name: seal(
            Approval(contract=contract.payload_id, party=party.id, assertions=(), approved_at=NOW), party.signing
        )
        for party in parties
    }
    for given, code in (
        ((), "contract.approval-missing"),
        (tuple(a for name, a in approvals.items() if name != "South"), "contract.approval-missing"),
        (tuple(a for name, a in approvals.items() if name != "North"), "contract.approval-missing"),
        (bundle.approvals, "approval.contract"),
    ):
        with pytest.raises(Refused) as caught:
            agree(replace(bundle, contract=contract, approvals=given))
        assert caught.value.code == code
    agreed = agree(replace(bundle, contract=contract, approvals=tuple(approvals.values())))
    assert [entry.rules.minimum_cell for entry in agreed.contract.data] == [3, 3, 1]
    # The version before stands as it was, whatever is asked.
    assert [entry.rules.minimum_cell for entry in agree(bundle).contract.data] == [3, 3, 3]
