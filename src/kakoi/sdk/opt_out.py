"""Lists of people who opted out, at their owner: read from a file, held against the data set, sealed."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kakoi.contract.model import Column, DatasetManifest, SealedFile
from kakoi.contract.opt_out import FILE, require_column, sealed_as, usable_columns
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.dataset.format import (
    DATA_KEY_BYTES,
    NONCE_PREFIX_BYTES,
    SALT_BYTES,
    associated_data,
    sealed_key_commitment,
)
from kakoi.dataset.open import SealedReader, open_stream
from kakoi.dataset.opt_out import decode_list, encode_list
from kakoi.dataset.seal import SealingWriter
from kakoi.party.files import read_limited
from kakoi.party.home import KeptList, PartyHome

MAX_FILE_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How a list fits a data set. For the owner's eyes."""

    listed: int
    found: int | None
    """How many of them have rows there; None if the data set's ciphertext is not here any more."""
    unknown_lines: tuple[int, ...] = ()
    """Lines of the file whose identifiers have none: misspelt, or never a patient of this data set."""


def read_identifiers(path: Path, column: Column) -> dict[str, int]:
    """The identifiers of a text file, one a line, in the spelling of the column, with their lines.

    Raises Misuse for no file, Malformed (naming the line) for what the column cannot hold: it would find nobody, in silence.
    """
    try:
        text = read_limited(path, limit=MAX_FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed(
            "opt-out.file", f"{path.name}: expected UTF-8 text, got other bytes", hint="save it as UTF-8"
        ) from None
    found: dict[str, int] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line:
            found.setdefault(_spelt(line, column, path.name, number), number)
    if not found:
        raise Malformed("opt-out.file", f"{path.name}: expected one identifier a line, got none")
    return found


def _spelt(line: str, column: Column, name: str, number: int) -> str:
    """The identifier as the enclave will spell the column's cells."""
    import pyarrow as pa

    from kakoi.sdk.ingest.convert import convert

    try:
        encode_list([line])
        made = convert(column, pa.array([line], pa.string()))
    except KakoiError as error:
        raise Malformed("opt-out.file", f"{name}, line {number}: {error.message}", hint=error.hint) from None
    if made.faults or made.missing:
        raise Malformed(
            "opt-out.file",
            f"{name}, line {number}: expected an identifier of type {column.type}, as in column {column.name}, got other text",
            hint="write it exactly as it stands in the file that was sealed",
        )
    value = made.values[0].as_py()
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def column_for(manifest: DatasetManifest, wanted: str = "") -> Column:
    """The column that a list of this data set is about. Raises Refused if none names people, or several do and none is named."""
    if wanted:
        return require_column(manifest, wanted)
    usable = usable_columns(manifest)
    if not usable:
        return require_column(manifest, "")
    flagged = [c.name for c in manifest.columns if c.identifier == "opt-out"]
    if len(flagged) > 1 or (not flagged and manifest.person_column is None and len(usable) > 1):
        raise Misuse(
            "opt-out.columns",
            f"expected one column that names people, or --column, got {', '.join(usable)}",
            hint="name the one that the file's identifiers are of",
        )
    return require_column(manifest, usable[0])


def present(home: PartyHome, dataset: str) -> frozenset[str]:
    """Who is on the present list. Raises the opaque ``crypto.cannot-open``, Malformed."""
    kept = home.opt_outs(dataset)
    if kept is None:
        return frozenset()
    bound = sealed_as(dataset, kept.name)
    plaintext = open_stream(
        [read_limited(home.opt_out_file(kept), limit=kept.file.size)],
        data_key=home.opt_out_key(kept),
        associated_data=associated_data(bound, 1, FILE),
        size=kept.file.size,
        segment_digests=kept.file.segment_digests,
    )
    return decode_list(b"".join(plaintext))


def match(home: PartyHome, manifest: DatasetManifest, column: Column, listed: dict[str, int]) -> Match:
    """How many of the list have rows in the sealed data set, read again with the party's own key."""
    directory = home.dataset_directory(manifest.dataset, manifest.version)
    if not all((directory / f"{file.blob}.sealed").exists() for file in manifest.files):
        return Match(listed=len(listed), found=None)
    seen: set[str] = set()
    for file in manifest.files:
        with (directory / f"{file.blob}.sealed").open("rb") as ciphertext:
            reader = SealedReader(
                ciphertext,
                data_key=home.data_key(manifest),
                associated_data=associated_data(manifest.dataset, manifest.version, file.name),
                size=file.size,
                segment_digests=file.segment_digests,
            )
            seen |= _occurring(reader, column.name, listed)
    unknown = sorted(line for text, line in listed.items() if text not in seen)
    return Match(listed=len(listed), found=len(seen), unknown_lines=tuple(unknown))


def _occurring(reader: Any, column: str, listed: dict[str, int]) -> set[str]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: set[str] = set()
    for batch in pq.ParquetFile(reader).iter_batches(100_000, columns=[column]):
        for value in pc.unique(batch.column(0)).to_pylist():
            text = str(value.isoformat() if hasattr(value, "isoformat") else value)
            if value is not None and text in listed:
                found.add(text)
    return found


def seal_list(
    home: PartyHome,
    manifest: DatasetManifest,
    column: Column,
    identifiers: Sequence[str],
    *,
    now: int,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> KeptList:
    """Seal the next list of a data set under a key of its own, and keep it: it counts from now on."""
    before = home.opt_outs(manifest.dataset)
    name, key = random(16).hex(), random(DATA_KEY_BYTES)
    bound = sealed_as(manifest.dataset, name)
    kept = io.BytesIO()
    writer = SealingWriter(
        kept,
        data_key=key,
        associated_data=associated_data(bound, 1, FILE),
        salt=random(SALT_BYTES),
        nonce_prefix=random(NONCE_PREFIX_BYTES),
    )
    writer.write(encode_list(identifiers))
    writer.close()
    summary = writer.summary
    made = KeptList(
        dataset=manifest.dataset,
        number=1 if before is None else before.number + 1,
        name=name,
        column=column.name,
        people=len(set(identifiers)),
        key_commitment=sealed_key_commitment(key, dataset=bound, version=1),
        file=SealedFile(
            name=FILE, blob=ObjectId(summary.blob), size=summary.size, segment_digests=summary.segment_digests
        ),
        created=now,
    )
    home.store_opt_outs(made, key, kept.getvalue())
    return made


def require_not_fewer(before: frozenset[str], after: Sequence[str], *, accepted: bool) -> None:
    """Raise Refused if somebody who opted out would be taken in again and nobody said that this is meant."""
    back = len(before - set(after))
    if back and not accepted:
        raise Refused(
            "opt-out.shrinks",
            f"expected a list with everybody who is on the present one, got one without {back} of them",
            hint="use opt-out add; or say that they take part again: --shrink",
        )
