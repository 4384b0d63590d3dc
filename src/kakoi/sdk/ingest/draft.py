"""A schema as TOML for a person to correct, with a note at every place where somebody must decide."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kakoi.contract.model import SITE, Column
from kakoi.core.text import LINE
from kakoi.sdk.ingest.schema import FileOptions, Plausible, Schema, SourceColumn

TOP: Final = ""
"""The key of notes on the table as a whole."""
_ALLOWED: Final = re.compile(LINE)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A schema that nobody has approved yet. ``notes`` say why, by column name."""

    schema: Schema
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def to_check(self) -> int:
        """How many notes a person must act on."""
        return sum(note.startswith("check") for notes in self.notes.values() for note in notes)

    def to_toml(self) -> str:
        """Text that ``parse_schema`` reads back as the same schema; every note is a comment."""
        schema = self.schema
        lines = [f"# {note}" for note in self.notes.get(TOP, ())]
        lines += [f"table = {_text(schema.table)}", f"title = {_text(schema.title)}"]
        if schema.person_column is not None:
            lines.append(f"person_column = {_text(schema.person_column)}")
        if schema.primary_key:
            lines.append(f"primary_key = {_values(schema.primary_key)}")
        if schema.leave_out:
            lines += ["leave_out = [", *(f"    {_text(h)}," for h in schema.leave_out), "]"]
        lines += _file(schema.file)
        for column in schema.columns:
            lines += ["", *self._column(column)]
        for rule in schema.plausible:
            lines += ["", *_plausible(rule)]
        return "\n".join(lines) + "\n"

    def _column(self, source: SourceColumn) -> list[str]:
        column = source.column
        lines = [f"[columns.{_key(column.name)}]"]
        lines += [f"# {note}" for note in self.notes.get(column.name, ())]
        lines.append(f"type = {_text(column.type)}")
        if source.header != column.name:
            lines.append(f"header = {_text(source.header)}")
        for key, value in (("unit", column.unit), ("description", column.description)):
            if value:
                lines.append(f"{key} = {_text(value)}")
        if column.identifier != "no":
            lines.append(f"identifier = {_text(column.identifier)}")
        if source.required:
            lines.append("required = true")
        if source.after is not None:
            lines.append(f"after = {_text(source.after)}")
        if source.mapped_to is not None:
            lines.append(f"mapped_to = {_text(source.mapped_to)}")
        if column.missing:
            lines.append(f"missing = [{', '.join(_text(text) for text in column.missing)}]")
        lines += [
            f"{key} = {value}" for key, value in (("min", column.minimum), ("max", column.maximum)) if value is not None
        ]
        return lines + _codes(column)


def _codes(column: Column) -> list[str]:
    if not column.codes:
        return []
    if not any(code.label for code in column.codes):
        return [f"codes = [{', '.join(_text(code.value) for code in column.codes)}]"]
    return [f"[columns.{_key(column.name)}.codes]", *(f"{_text(c.value)} = {_text(c.label)}" for c in column.codes)]


def _plausible(rule: Plausible) -> list[str]:
    where = ", ".join(f"{_key(name)} = {_values(held)}" for name, held in rule.where)
    lines = [
        "[[plausible]]",
        f"check = {_text(rule.check)}",
        f"column = {_text(rule.column)}",
        f"where = {{ {where} }}",
    ]
    if rule.limit is None:
        return [*lines, f"values = {_values(rule.values)}"]
    return [*lines, f"{'min' if rule.check == 'plausibleValueLow' else 'max'} = {rule.limit}"]


def _values(values: Iterable[str | int]) -> str:
    return f"[{', '.join(_text(v) if isinstance(v, str) else str(v) for v in values)}]"


def _file(options: FileOptions) -> list[str]:
    plain = FileOptions()
    pairs: list[tuple[str, Any]] = [
        (name, getattr(options, name))
        for name in FileOptions.__slots__
        if getattr(options, name) != getattr(plain, name)
    ]
    if not pairs:
        return []
    words = {True: "true", False: "false"}
    return ["", "[file]", *(f"{k} = {words[v] if isinstance(v, bool) else _text(v)}" for k, v in pairs)]


def _key(name: str) -> str:
    return name if _BARE.match(name) else _text(name)


def _text(text: str) -> str:
    """A TOML basic string."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'


def one_line(text: str, most: int) -> str:
    """``text`` as the format allows it in one line: without markup, control and invisible characters, cut to ``most``."""
    plain = re.sub(r"<[^<>]*>", " ", text)
    return " ".join("".join(c if _ALLOWED.fullmatch(c) else " " for c in plain).split())[:most].strip()


def column_names(headers: Iterable[str]) -> dict[str, str]:
    """A name that the format allows for each header: the header itself where it can be."""
    taken, names = {SITE}, {}
    for header in headers:
        name = re.sub(r"[^A-Za-z0-9_]+", "_", header.strip()).strip("_")[:56] or "column"
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,55}", header):
            name = header
        elif name[0].isdigit():
            name = f"c_{name}"
        number, unique = 2, name
        while unique.lower() in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique.lower())
        names[header] = unique
    return names
