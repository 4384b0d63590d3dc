"""A manifest for a person to read. No key is needed: it holds nothing but what the owner publishes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from kakoi.contract.model import Column, DatasetManifest

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnLine:
    """One column in words."""

    name: str
    type: str
    unit: str
    values: str
    """Codes or limits."""
    missing: str
    identifier: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact: a key for its label, and a text; ``words`` is a key for texts that are not the owner's own."""

    label: str
    text: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Facts about the data set and its columns."""

    title: str
    facts: tuple[Fact, ...]
    columns: tuple[ColumnLine, ...]


def overview(manifest: DatasetManifest) -> Overview:
    """What ``manifest`` says, in words. Its texts are safe to print: records refuse control and bidirectional characters."""
    size = sum(file.size for file in manifest.files)
    sealed = dt.datetime.fromtimestamp(manifest.created, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = (
        Fact(label="table", text=manifest.table),
        Fact(label="dataset", text=manifest.dataset),
        Fact(label="version", text=str(manifest.version)),
        Fact(label="manifest", text=manifest.id),
        Fact(label="owner", text=manifest.owner),
        Fact(label="sealed", text=sealed),
        Fact(label="rows", words="rows-secret")
        if manifest.rows is None
        else Fact(label="rows", text=f"{manifest.rows:,}"),
        Fact(label="one-row", words="row-event", text=manifest.person_column)
        if manifest.person_column
        else Fact(label="one-row", words="row-person"),
        Fact(label="format", text=manifest.format),
        Fact(label="size", text=f"{_size(size)} ({len(manifest.files)})"),
        Fact(label="commitment", text=manifest.key_commitment.hex()),
        *(Fact(label="file", text=f"{file.name}  {file.blob}.sealed  {file.size:,}") for file in manifest.files),
    )
    return Overview(title=manifest.title, facts=facts, columns=tuple(_line(c) for c in manifest.columns))


def _line(column: Column) -> ColumnLine:
    return ColumnLine(
        name=column.name,
        type=column.type,
        unit=column.unit,
        values=_values(column),
        missing=", ".join(_quoted(text) for text in column.missing),
        identifier="" if column.identifier == "no" else column.identifier,
        description=column.description,
    )


def _values(column: Column) -> str:
    parts = [f"{c.value} = {c.label}" if c.label else c.value for c in column.codes[:12]]
    if len(column.codes) > len(parts):
        parts.append(f"and {len(column.codes) - len(parts)} more")
    if column.minimum is not None or column.maximum is not None:
        parts.append(f"{column.minimum or 'any'} to {column.maximum or 'any'}")
    return "; ".join(parts)


def _quoted(text: str) -> str:
    return text or '""'


def _size(size: int) -> str:
    number, unit = float(size), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{size:,} bytes" if unit == 0 else f"{number:.1f} {_UNITS[unit]}"
