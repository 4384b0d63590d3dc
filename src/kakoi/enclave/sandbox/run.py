"""Run one job in a sandbox and return the engine's answer. The only function that a keeper needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

from kakoi.contract.model import Limits
from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.enclave.failures import Stopped, of_failure
from kakoi.enclave.job import Failure, Job, PartFd
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.box import BASE_MEGABYTES, MAX_PARTS, PROCESSES, Box, Outcome, Settings
from kakoi.enclave.sandbox.pool import Pool

DEFAULT_ANSWER_BYTES: Final = 16 * 1024 * 1024
_MAX_THREADS: Final = 8


def run_job(
    job: Job,
    parts: Sequence[PartFd],
    limits: Limits,
    accepted_weaknesses: Iterable[str],
    *,
    pool: Pool | None = None,
    answer_bytes: int = DEFAULT_ANSWER_BYTES,
    stopped: Callable[[], bool] = lambda: False,
) -> bytes:
    """The encoded ``Result`` of a job, as untrusted as its source: the gate judges it.

    ``parts`` are the job's parts in any order, as sealed memory files; they stay open. ``stopped`` is asked five times a
    second and ends the job (a lease that expired). Raises Refused: ``sandbox.layer-missing``, ``sandbox.timeout``,
    ``sandbox.answer-bytes``, ``sandbox.stopped`` and the codes of ``enclave.failures``; Unavailable: ``sandbox.start``.
    """
    without = layers.require(accepted_weaknesses)
    descriptors = _in_order(job, parts)
    box = pool.take(job.engine) if pool is not None else Box(engine=job.engine, without=without)
    try:
        outcome = box.run(
            job.encode(),
            descriptors,
            settings_for(limits, descriptors),
            seconds=limits.wall_seconds,
            answer_bytes=answer_bytes,
            memory_bytes=(BASE_MEGABYTES + limits.memory_megabytes) << 20,
            stopped=stopped,
        )
    finally:
        box.close()
    return _answer(outcome, job.engine)


def settings_for(limits: Limits, descriptors: Sequence[int]) -> Settings:
    """What the sandbox is told about the limits of a contract."""
    threads = max(1, min(_MAX_THREADS, os.cpu_count() or 1))
    memory = (BASE_MEGABYTES + limits.memory_megabytes) << 20
    mapped = sum(os.fstat(descriptor).st_size for descriptor in descriptors)
    return Settings(
        rlimits={
            "RLIMIT_DATA": memory,
            "RLIMIT_AS": memory + 2 * mapped + (8 << 30),
            "RLIMIT_CPU": limits.wall_seconds * threads + 2,
            "RLIMIT_NPROC": PROCESSES,
            "RLIMIT_NOFILE": len(descriptors) + 64,
        },
        threads=threads,
        milliseconds=limits.wall_seconds * 1000,
        engine_megabytes=limits.memory_megabytes,
    )


def _in_order(job: Job, parts: Sequence[PartFd]) -> list[int]:
    """Descriptors in the job's order, sealed code last. Raises Misuse unless they are exactly the job's."""
    given = {(part.manifest, part.file): part.descriptor for part in parts}
    wanted = [(part.manifest, part.file) for table in job.tables for part in table.parts]
    wanted += [(file.manifest, file.file) for file in job.files]
    if len(given) != len(parts) or set(given) != set(wanted) or len(wanted) > MAX_PARTS:
        raise Misuse("sandbox.parts", "expected exactly one descriptor for each part of the job")
    return [given[name] for name in wanted]


def _answer(outcome: Outcome, engine: str) -> bytes:
    if outcome.status == "timeout":
        _refuse("sandbox.timeout", "the analysis took longer than the contract's wall_seconds", "ask for less")
    if outcome.status == "stopped":
        _refuse("sandbox.stopped", "the job was stopped from outside, because a lease ended", "run it again")
    if outcome.status == "too-much":
        _refuse("sandbox.answer-bytes", "the answer is larger than the owners' max_output_bytes allow", "ask for less")
    if outcome.status == "died" or not outcome.answer:
        raise Stopped("engine.failed")
    if len(outcome.answer) <= Failure.MAX_BYTES:
        try:
            failure = Failure.decode(outcome.answer)
        except Malformed:
            return outcome.answer
        raise of_failure(failure, engine=engine)
    return outcome.answer


def _refuse(code: str, what: str, hint: str) -> NoReturn:
    raise Refused(code, what, hint=hint)
