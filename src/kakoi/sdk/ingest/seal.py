"""From a source file to a sealed data set: one pass, bounded memory, all or nothing on disk."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from kakoi.contract.model import DatasetManifest, SealedFile
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import ObjectId, PartyId
from kakoi.dataset.format import (
    DATA_KEY_BYTES,
    NONCE_PREFIX_BYTES,
    SALT_BYTES,
    associated_data,
    ciphertext_size,
    sealed_key_commitment,
)
from kakoi.dataset.seal import SealedSummary, SealingWriter
from kakoi.sdk.ingest.across import Whole, across
from kakoi.sdk.ingest.convert import ARROW, convert
from kakoi.sdk.ingest.opening import open_source
from kakoi.sdk.ingest.report import Report, Tally
from kakoi.sdk.ingest.schema import Schema
from kakoi.sdk.ingest.source import Source

Progress = Callable[[int, int], None]
"""Called with how many bytes of the source are read, and its size."""
ROW_GROUP_ROWS: Final = 100_000
ROW_GROUP_BYTES: Final = 24 * 1024 * 1024
"""Of values in memory: wide tables get row groups of fewer rows."""
FILE_BYTES: Final = 4 * 1024**3
"""Of plaintext after which a data set continues in another file."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_progress(done: int, total: int) -> None:
    """Show nothing."""


def no_report(report: Report) -> None:
    """Show nothing."""


def arrow_schema(schema: Schema) -> Any:
    """The physical schema of the sealed Parquet: the declared columns in their order, all nullable."""
    return pa.schema([pa.field(c.column.name, ARROW[c.column.type]) for c in schema.columns])


def validate(source: Path, schema: Schema, *, accept: Iterable[str] = (), progress: Progress = no_progress) -> Report:
    """Check every cell without sealing anything. ``accept``: checks that may fail, by name (``check:column``).

    Raises Malformed for a file that is not the declared table, Refused if the schema has a direct identifier. Cells
    that break a rule do not raise: they are in the report.
    """
    with _opened(source, schema) as rows:
        tally = Tally(schema, source.name, accept)
        for _ in _validated(source, rows, schema, tally, progress):
            pass
        return _sound_table(tally, source).report()


def seal_dataset(
    source: Path,
    schema: Schema,
    out: Path,
    *,
    owner: PartyId,
    data_key: bytes,
    dataset: str,
    version: int,
    created: int,
    publish_rows: bool,
    accept: Iterable[str] = (),
    reported: Callable[[Report], None] = no_report,
    progress: Progress = no_progress,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> DatasetManifest:
    """Validate ``source`` and write it sealed into the directory ``out`` as ``<blob>.sealed`` files.

    ``data_key`` is 32 fresh random bytes, ``dataset`` the random id (32 hex digits) that stays the same across versions,
    ``created`` seconds since 1970. Only when every cell was good do files appear in ``out``; ``reported`` gets the report
    before. ``accept`` names checks (``check:column``) that may fail: the cells that fail them are sealed as missing.
    Raises what ``validate`` raises; ``InvalidCells`` with the whole report if a cell breaks a rule; Unavailable
    (``disk.full``, ``disk.error``) and Misuse (``ingest.output``) for the place to write to.
    """
    if len(data_key) != DATA_KEY_BYTES:
        raise Misuse("ingest.key", f"expected a data key of {DATA_KEY_BYTES} bytes, got {len(data_key)}")
    tally = Tally(schema, source.name, accept)

    def manifest(files: tuple[SealedFile, ...]) -> DatasetManifest:
        return DatasetManifest(
            owner=owner,
            dataset=dataset,
            version=version,
            table=schema.table,
            title=schema.title,
            person_column=schema.person_column,
            columns=schema.contract_columns,
            rows=tally.rows if publish_rows else None,
            format="tink-aes256-gcm-hkdf-1mb/parquet",
            key_commitment=sealed_key_commitment(data_key, dataset=dataset, version=version),
            files=files,
            created=created,
        )

    # What the manifest would refuse is refused before hours of reading.
    _require_small(manifest((_NO_FILE,)))
    with _opened(source, schema) as rows, _Output(out, schema, data_key, dataset, version, random) as output:
        for batch in _validated(source, rows, schema, tally, progress):
            if tally.sound:
                output.write(batch)
        report = _sound_table(tally, source).report()
        reported(report)
        report.require_sound()
        made = _require_small(manifest(output.seal()))
        output.publish()
    return made


_NO_FILE: Final = SealedFile(name="part-0", blob=ObjectId("0" * 64), size=ciphertext_size(0), segment_digests=bytes(32))


def _require_small(manifest: DatasetManifest) -> DatasetManifest:
    size = len(manifest.encode())
    if size > DatasetManifest.MAX_BYTES:
        raise Refused(
            "ingest.manifest-size",
            f"expected a manifest of at most {DatasetManifest.MAX_BYTES} bytes, got {size}",
            hint="split the table, or shorten code lists and descriptions",
        )
    return manifest


def _opened(path: Path, schema: Schema) -> Source:
    schema.require_no_direct_identifier()
    source = open_source(path, schema)
    try:
        _same_columns(source, schema, path.name)
    except BaseException:
        source.close()
        raise
    return source


def _same_columns(source: Source, schema: Schema, name: str) -> None:
    """The file has the declared columns, those to leave out, and no other."""
    declared = {c.header: c.column.name for c in schema.columns}
    missing = [h for h in (*declared, *schema.leave_out) if h not in source.headers]
    unknown = [h for h in source.headers if h not in declared and h not in schema.leave_out]
    if missing:
        raise Malformed(
            "ingest.missing-column",
            f"{name}: expected the columns of the schema, got a file without {_listed(missing)}",
            hint=_same_but_for_blanks(missing, unknown) or "correct the header in the file or in the schema",
        )
    if unknown:
        raise Malformed(
            "ingest.unknown-column",
            f"{name}: expected only columns that the schema names, got also {_listed(unknown)}",
            hint="declare them under columns, or list them under leave_out",
        )


def _same_but_for_blanks(missing: list[str], unknown: list[str]) -> str:
    for header in missing:
        for other in unknown:
            if header.strip().lower() == other.strip().lower():
                return f"the file writes it {other!r}: put header = {other!r} into the schema"
    return ""


def _listed(headers: list[str]) -> str:
    shown = ", ".join(repr(h) for h in headers[:5])
    return f"{shown} and {len(headers) - 5} more" if len(headers) > 5 else shown


def _sound_table(tally: Tally, source: Path) -> Tally:
    if not tally.rows:
        raise Malformed(
            "ingest.no-rows", f"{source.name}: expected rows of data, got none", hint="was the export cut, or filtered?"
        )
    return tally


def _validated(path: Path, source: Source, schema: Schema, tally: Tally, progress: Progress) -> Iterator[Any]:
    """Batches of converted columns; ``tally`` knows after each whether all cells were good so far, and at the end what only the whole file shows."""
    physical = arrow_schema(schema)
    tally.first_row = source.first_row
    size = path.stat().st_size
    with Whole(schema) as whole:
        for portion in source.portions(schema.columns):
            arrays = []
            for column in schema.columns:
                result = convert(
                    column.column,
                    portion.cells[column.header],
                    line_breaks=schema.file.line_breaks,
                    required=schema.required(column),
                    unfit=portion.unfit.get(column.header),
                )
                tally.add(column.column.name, result.missing, result.faults)
                arrays.append(result.values)
            across(schema, arrays, tally)
            whole.add(arrays, tally.rows + tally.first_row)
            tally.advance(portion.rows)
            progress(size * min(portion.done, source.total) // source.total, size)
            yield pa.record_batch(arrays, schema=physical)
        whole.settle(tally)


class _Output:
    """Sealed Parquet files that appear together or not at all."""

    def __init__(
        self, out: Path, schema: Schema, data_key: bytes, dataset: str, version: int, random: Callable[[int], bytes]
    ) -> None:
        self._out = out
        self._physical = arrow_schema(schema)
        self._data_key = data_key
        self._dataset = dataset
        self._version = version
        self._random = random
        self._batches: list[Any] = []
        self._rows = 0
        self._bytes = 0
        self._part: _Part | None = None
        self._done: list[tuple[SealedFile, Path]] = []
        self._published: list[Path] = []

    def __enter__(self) -> Self:
        with _disk(self._out):
            self._out.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._part:
            self._part.abandon()
        leftovers = [path for _, path in self._done] + (self._published if kind else [])
        for path in leftovers:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def write(self, batch: Any) -> None:
        """Take a batch; a row group leaves when it is large enough."""
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def seal(self) -> tuple[SealedFile, ...]:
        """Write what is left and close the last file. Nothing is visible yet."""
        self._flush()
        self._finish()
        return tuple(file for file, _ in self._done)

    def publish(self) -> None:
        """Give the files their names."""
        with _disk(self._out):
            for file, path in self._done:
                target = self._out / f"{file.blob}.sealed"
                path.replace(target)
                self._published.append(target)
            _sync_directory(self._out)

    def _flush(self) -> None:
        if not self._batches:
            return
        table = pa.Table.from_batches(self._batches, schema=self._physical)
        self._batches, self._rows, self._bytes = [], 0, 0
        with _disk(self._out):
            if self._part is None:
                self._part = self._new_part()
            self._part.write(table)
        if self._part.plaintext >= FILE_BYTES:
            self._finish()

    def _new_part(self) -> _Part:
        name = f"part-{len(self._done)}"
        return _Part(
            self._out / f".{secrets.token_hex(8)}.partial",
            name,
            self._physical,
            lambda sink: SealingWriter(
                sink,
                data_key=self._data_key,
                associated_data=associated_data(self._dataset, self._version, name),
                salt=self._random(SALT_BYTES),
                nonce_prefix=self._random(NONCE_PREFIX_BYTES),
            ),
        )

    def _finish(self) -> None:
        if self._part is None:
            return
        with _disk(self._out):
            summary = self._part.close()
        file = SealedFile(
            name=self._part.name,
            blob=ObjectId(summary.blob),
            size=summary.size,
            segment_digests=summary.segment_digests,
        )
        self._done.append((file, self._part.path))
        self._part = None


class _Part:
    """One file on its way: Parquet into sealing writer into a temporary file."""

    def __init__(self, path: Path, name: str, physical: Any, sealing: Callable[[BinaryIO], SealingWriter]) -> None:
        self.path = path
        self.name = name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file: BinaryIO = os.fdopen(descriptor, "wb", buffering=0)
        try:
            self._writer = sealing(self._file)
            self._parquet = pq.ParquetWriter(self._writer, physical, compression="zstd", version="2.6")
        except BaseException:
            self._remove()
            raise

    @property
    def plaintext(self) -> int:
        """Bytes of Parquet so far."""
        return self._writer.tell()

    def write(self, table: Any) -> None:
        """One row group."""
        self._parquet.write_table(table, row_group_size=table.num_rows)

    def close(self) -> SealedSummary:
        """Write the footer and the last segment, and wait for the disk."""
        self._parquet.close()
        self._writer.close()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._writer.summary

    def abandon(self) -> None:
        """Give up and remove the file."""
        # The Parquet writer wants to write its footer; into an abandoned sealing writer it cannot.
        self._writer.abandon()
        with suppress(KakoiError, OSError, pa.ArrowException):
            self._parquet.close()
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class _disk:  # noqa: N801 - reads as a statement
    """Turns what the operating system says about a place into our errors."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in _FULL:
            raise Unavailable(
                "disk.full",
                f"expected room in {self._place}, got a full disk",
                hint="free some space, or choose another directory; nothing was left behind",
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise Misuse(
                "ingest.output",
                f"expected a directory to write to at {self._place}, got: {error.strerror}",
                hint="choose another directory",
            ) from None
        raise Unavailable(
            "disk.error", f"expected to write to {self._place}, got: {error.strerror or 'an error'}"
        ) from None


def _sync_directory(directory: Path) -> None:
    """Wait until the new names are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
