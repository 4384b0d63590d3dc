"""Identifiers out, tokens in, people who opted out gone: such parts are written anew in sandboxes of their own before the engine gets them.

One sandbox for each owner's part, so that a file made to break its reader meets no other owner's identifiers. The key is gone when the
last part is written. For Python it is drawn for one run; for SQL it is derived from the data's secret (docs/adr/0101).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from kakoi.contract.approve import Agreement
from kakoi.contract.model import DatasetManifest, Limits
from kakoi.contract.opt_out import require_column
from kakoi.core.errors import Refused
from kakoi.enclave.failures import Stopped, of_failure
from kakoi.enclave.job import (
    KEYING_CHUNK,
    KEYING_COUNT,
    KEYING_KEY,
    Failure,
    Job,
    JobTable,
    KeyingColumn,
    KeyingJob,
    PartFd,
)
from kakoi.enclave.keeper.data import sealed_memory
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.enclave.keeper.opt_out import OptOuts
from kakoi.enclave.keeper.secret import SecretMemory
from kakoi.enclave.sandbox.box import BASE_MEGABYTES
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import settings_for

ENGINE: Final = "keying"
_LEAST_BYTES: Final = 64 << 20
_MOST_TIMES: Final = 32
"""How much larger than what was read a part may become."""


def columns_of(job: Job, table: JobTable, agreement: Agreement) -> tuple[KeyingColumn, ...]:
    """The columns that the engine needs of a table, identifiers as tokens."""
    needed = [column for column in table.columns if column.readable or job.engine == "sql"]
    declared = {
        c.name: c for m in agreement.manifests.values() if m.record.table == table.name for c in m.record.columns
    }
    return tuple(KeyingColumn(name=c.name, type=declared[c.name].type, keyed=c.identifier != "no") for c in needed)


def holds_identifiers(manifest: DatasetManifest) -> bool:
    """Whether files of a data set hold an identifier, read or not: then no engine gets them as they are."""
    return any(column.identifier != "no" for column in manifest.columns)


class Keying:
    """Writes one run's parts anew. ``parts`` returns descriptors that ``stack`` closes."""

    def __init__(
        self,
        job: Job,
        agreement: Agreement,
        limits: Limits,
        *,
        opt_outs: OptOuts,
        pool: Pool,
        stopped: Callable[[], bool],
        secret: DataSecret,
    ) -> None:
        self._secret = secret
        self._job, self._agreement, self._limits = job, agreement, limits
        self._opt_outs, self._pool, self._stopped = opt_outs, pool, stopped

    def parts(self, given: Sequence[PartFd], stack: ExitStack) -> list[PartFd]:
        """The engine's parts: those with identifiers or with a list of opt-outs written anew, the others as they are.

        Raises Refused (``sandbox.…``, ``engine.…``) and Unavailable.
        """
        by_place = {(part.manifest, part.file): part for part in given}
        out: list[PartFd] = []
        # SQL can join tokens and count them, nothing else: there they may last, so that cohorts of different runs can be compared.
        with _key(self._secret if self._job.engine == "sql" else None) as key:
            for table in self._job.tables:
                mine = [by_place[part.manifest, part.file] for part in table.parts]
                out += self._table(table, columns_of(self._job, table, self._agreement), mine, key, stack)
        return out + [by_place[file.manifest, file.file] for file in self._job.files]

    def _table(
        self,
        table: JobTable,
        columns: tuple[KeyingColumn, ...],
        parts: Sequence[PartFd],
        key: int,
        stack: ExitStack,
    ) -> list[PartFd]:
        out: list[PartFd] = []
        for manifest in dict.fromkeys(part.manifest for part in parts):
            files = [part for part in parts if part.manifest == manifest]
            if not self._must_be_written_anew(manifest):
                out += files
                continue
            listed = self._opt_outs.of(manifest)
            job = KeyingJob(
                table=table.name,
                columns=columns,
                left_out=None if listed is None else self._column(manifest, listed.column),
                files=len(files),
            )
            lists = [] if listed is None else [listed.descriptor]
            made, people = self._run(job, [key, *lists, *(part.descriptor for part in files)], stack)
            if listed is not None:
                self._opt_outs.applied(manifest, people)
            out += [
                PartFd(manifest=part.manifest, file=part.file, descriptor=descriptor)
                for part, descriptor in zip(files, made, strict=True)
            ]
        return out

    def _must_be_written_anew(self, manifest: str) -> bool:
        return self._opt_outs.of(manifest) is not None or holds_identifiers(self._agreement.manifests[manifest].record)

    def _column(self, manifest: str, name: str) -> KeyingColumn:
        column = require_column(self._agreement.manifests[manifest].record, name)
        return KeyingColumn(name=name, type=column.type, keyed=True)

    def _run(self, job: KeyingJob, descriptors: Sequence[int], stack: ExitStack) -> tuple[list[int], int]:
        """Descriptors of the new files, and how many people were left out."""
        read = sum(os.fstat(descriptor).st_size for descriptor in descriptors)
        files = Files(job.files, counted=job.left_out is not None)
        stack.callback(files.close)
        box = self._pool.take(ENGINE)
        try:
            outcome = box.run(
                job.encode(),
                descriptors,
                settings_for(self._limits, descriptors),
                seconds=self._limits.wall_seconds,
                answer_bytes=max(_LEAST_BYTES, _MOST_TIMES * read),
                memory_bytes=(BASE_MEGABYTES + self._limits.memory_megabytes) << 20,
                stopped=self._stopped,
                sink=files.take,
            )
        finally:
            box.close()
        if outcome.status == "stopped":
            raise Refused(
                "sandbox.stopped", "the job was stopped from outside, because a lease ended", hint="run it again"
            )
        if outcome.status != "answered" or not files.is_whole:
            raise files.failure() or Stopped("engine.failed")
        return files.descriptors, files.count


class Files:
    """The answer of a keying sandbox, chunk by chunk, as files in sealed memory. Close it in any case."""

    def __init__(self, expected: int, *, counted: bool = False) -> None:
        self._expected, self._counted = expected, counted
        self._people: int | None = None
        self._pending = bytearray()
        self._open: int | None = None
        self._done: list[int] = []
        self._broken = False

    @property
    def descriptors(self) -> list[int]:
        """The files that are whole, positioned at 0."""
        return list(self._done)

    @property
    def is_whole(self) -> bool:
        """Whether every file came to its end and nothing came afterwards."""
        counted = (self._people is not None) == self._counted
        return (
            not self._broken
            and len(self._done) == self._expected
            and counted
            and not self._pending
            and self._open is None
        )

    @property
    def count(self) -> int:
        """How many people were left out; 0 without a list."""
        return self._people or 0

    def take(self, data: bytes) -> None:
        """More of the answer. What does not fit the format is kept for ``failure`` if it is short."""
        self._pending += data
        while not self._broken and len(self._pending) >= 4:
            length = int.from_bytes(self._pending[:4], "big")
            if length > KEYING_CHUNK or not self._may_follow(length):
                self._broken = True
            elif len(self._pending) < 4 + length:
                return
            else:
                self._chunk(bytes(self._pending[4 : 4 + length]))
                del self._pending[: 4 + length]
        if self._broken:
            del self._pending[Failure.MAX_BYTES :]

    def _may_follow(self, length: int) -> bool:
        """Whether a chunk of this length can come now: of a file, or the count behind the last one."""
        if len(self._done) < self._expected:
            return True
        return self._counted and self._people is None and length == KEYING_COUNT

    def _chunk(self, chunk: bytes) -> None:
        if len(self._done) == self._expected:
            self._people = int.from_bytes(chunk, "big")
            return
        if self._open is None:
            self._open = os.memfd_create("kakoi-data", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        if chunk:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._open, view) :]
            return
        sealed_memory(self._open)
        self._done.append(self._open)
        self._open = None

    def failure(self) -> Stopped | None:
        """The failure that the sandbox answered instead of files."""
        try:
            return of_failure(Failure.decode(bytes(self._pending)), engine="python")
        except Exception:  # whatever else it was
            return None

    def close(self) -> None:
        """Let go of all."""
        for descriptor in (*self._done, *([self._open] if self._open is not None else [])):
            os.close(descriptor)
        self._done, self._open = [], None


@contextmanager
def _key(lasting: DataSecret | None) -> Iterator[int]:
    """A descriptor of the key: drawn for this run, or derived from the data's secret; in a memory file only while parts are written."""
    descriptor = os.memfd_create("kakoi-key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with SecretMemory(KEYING_KEY) as memory:
            if lasting is None:
                memory.draw(0, KEYING_KEY)
            else:
                memory.take(0, lasting.key(b"kakoi/tokens/v1"))
            with memory.part(0, KEYING_KEY) as view:
                os.write(descriptor, view)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield descriptor
    finally:
        os.close(descriptor)
