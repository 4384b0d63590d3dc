"""From plaintext in sealed memory to what may leave: the job, the sandboxed engine, the gate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from kakoi.contract.approve import Agreement
from kakoi.core.errors import Refused
from kakoi.enclave.gate.private import Noised
from kakoi.enclave.gate.release import Judged, judge
from kakoi.enclave.job import PartFd
from kakoi.enclave.keeper.data import sealed_object
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.enclave.keeper.job import job_for
from kakoi.enclave.keeper.keying import Keying
from kakoi.enclave.keeper.opt_out import OptOuts
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import run_job
from kakoi.wire.messages import RunRequest
from kakoi.wire.release import noise_id

_ASK_SECONDS: Final = 0.2


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
        opened: Mapping[str, tuple[int, ...]],
        *,
        secret: DataSecret,
        opt_outs: OptOuts | None = None,
        seconds: int,
        stopped: Callable[[], bool],
    ) -> Judged | Noised:
        """The output, judged by the gate. ``opened``: descriptors of the plaintext files by manifest id; ``opt_outs``: lists, applied first.

        ``stopped`` is asked five times a second and kills the job. Whatever the end is, it shows at a multiple of the contract's grain.
        """
        begun = time.monotonic()
        try:
            return self._compute(
                agreement, request, opened, opt_outs or OptOuts(), secret=secret, seconds=seconds, stopped=stopped
            )
        finally:
            wait_for_grain(begun, agreement.contract.limits.grain_milliseconds / 1000, stopped)

    def _compute(
        self,
        agreement: Agreement,
        request: RunRequest,
        opened: Mapping[str, tuple[int, ...]],
        opt_outs: OptOuts,
        *,
        secret: DataSecret,
        seconds: int,
        stopped: Callable[[], bool],
    ) -> Judged | Noised:
        job = job_for(agreement, request)
        contract = agreement.contract
        layers.require(contract.accepted_weaknesses)
        given = [
            PartFd(manifest=identity, file=file.name, descriptor=descriptor)
            for identity, descriptors in opened.items()
            for file, descriptor in zip(sealed_object(agreement, identity).files, descriptors, strict=True)
        ]
        limits = replace(contract.limits, wall_seconds=min(contract.limits.wall_seconds, seconds))
        with ExitStack() as stack:
            keying = Keying(job, agreement, limits, opt_outs=opt_outs, pool=self._pool, stopped=stopped, secret=secret)
            parts = keying.parts(given, stack)
            answer = run_job(job, parts, limits, contract.accepted_weaknesses, pool=self._pool, stopped=stopped)
        key = secret.key(b"kakoi/noise/v1", bytes.fromhex(noise_id(agreement, request, opt_outs.names)))
        return judge(
            answer,
            agreement.analyses[request.analysis].record,
            [entry.rules for entry in contract.data],
            job=job,
            owners=[agreement.cards[entry.owner].record.name for entry in contract.data],
            noise_key=key,
        )


def wait_for_grain(begun: float, grain: float, stopped: Callable[[], bool]) -> None:
    """Return at the next multiple of ``grain`` seconds after ``begun`` (monotonic clock), so that how long a job took tells little.

    Raises Refused (``sandbox.stopped``) once ``stopped`` says so: what ended within a lease must not wait beyond it.
    """
    end = begun + math.ceil((time.monotonic() - begun) / grain) * grain
    while (left := end - time.monotonic()) > 0:
        if stopped():
            raise Refused(
                "sandbox.stopped", "the job was stopped from outside, because a lease ended", hint="run it again"
            )
        time.sleep(min(left, _ASK_SECONDS))
