"""From plaintext in sealed memory to what may leave: the job, the sandboxed engine, the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from kakoi.contract.approve import Agreement
from kakoi.enclave.gate.release import apply
from kakoi.enclave.job import PartFd
from kakoi.enclave.keeper.job import job_for
from kakoi.enclave.keeper.keying import Keying
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import run_job
from kakoi.wire.messages import GateDecision, RunRequest


class SandboxedEngine:
    """Runs each job in a sandbox of its own, which waits with its libraries loaded, and lets the gate judge what comes out."""

    def __init__(self) -> None:
        self.missing_layers = layers.missing()
        self._pool = Pool(without=frozenset(self.missing_layers))

    def close(self) -> None:
        """Kill the waiting sandboxes."""
        self._pool.close()

    def compute(
        self,
        agreement: Agreement,
        request: RunRequest,
        tables: Mapping[str, tuple[int, ...]],
        *,
        seconds: int,
        stopped: Callable[[], bool],
    ) -> tuple[bytes, tuple[GateDecision, ...]]:
        """What the gate let out, and its decisions. ``tables``: descriptors of Parquet by manifest id.

        ``stopped`` is asked five times a second and kills the job.
        """
        job = job_for(agreement, request)
        contract = agreement.contract
        layers.require(contract.accepted_weaknesses)
        given = [
            PartFd(manifest=identity, file=file.name, descriptor=descriptor)
            for identity, descriptors in tables.items()
            for file, descriptor in zip(agreement.manifests[identity].record.files, descriptors, strict=True)
        ]
        limits = replace(contract.limits, wall_seconds=min(contract.limits.wall_seconds, seconds))
        with ExitStack() as stack:
            parts = Keying(job, agreement, limits, pool=self._pool, stopped=stopped).parts(given, stack)
            answer = run_job(job, parts, limits, contract.accepted_weaknesses, pool=self._pool, stopped=stopped)
        released = apply(
            answer,
            agreement.analyses[request.analysis].record,
            [entry.rules for entry in contract.data],
            job=job,
            owners=[agreement.cards[entry.owner].record.name for entry in contract.data],
        )
        return released.encode(), released.decisions
