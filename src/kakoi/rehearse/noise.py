"""Can noise be added to what a contract's analyses compute? Judged from source and declarations, before anybody signs."""

from __future__ import annotations

from importlib.util import find_spec

from kakoi.contract.approve import noise_is_possible
from kakoi.contract.rules import demands_noise
from kakoi.enclave.keeper.job import job_for
from kakoi.rehearse.run import middle
from kakoi.rehearse.world import stage
from kakoi.sdk.terms import Terms
from kakoi.wire.messages import RunRequest


def require_noise_possible(terms: Terms) -> None:
    """Raise Refused for an analysis that the enclave would refuse because an owner demands noise: what, and what to change.

    Queries are judged only where DuckDB is installed: an owner's machine need not have it, and the enclave judges again.
    """
    if not demands_noise(entry.rules for entry in terms.contract.data):
        return
    noise_is_possible(terms.contract, [analysis.record for analysis in terms.analyses.values()])
    if find_spec("duckdb") is None:
        return
    from kakoi.enclave.engines import sql_engine

    agreement = stage(terms).agreement
    for analysis in agreement.analyses.values():
        request = RunRequest(
            contract=agreement.id,
            analysis=analysis.id,
            parameters=middle(analysis.record),
            party=agreement.contract.drafter,
            nonce=bytes(32),
            requested_at=agreement.contract.not_before,
        )
        sql_engine.check(job_for(agreement, request))
