"""A schema from a REDCap data dictionary (the CSV of 18 columns), for REDCap's raw CSV export.

What REDCap states is taken over: names, choices, validation, limits, ``Identifier?``. Fields that it marks as identifiers, uploaded
files and signatures are left out. With the header of the export, columns that REDCap adds (data access group, event, repeat
instance, survey stamps) are recognised; without it only form status columns are expected.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

from kakoi.contract.model import Code, Column
from kakoi.core.errors import KakoiError, Malformed, Misuse
from kakoi.sdk.ingest.convert import FORMS
from kakoi.sdk.ingest.draft import TOP, Draft, column_names, one_line
from kakoi.sdk.ingest.schema import Schema, SourceColumn

HEADERS: Final = {
    "Variable / Field Name": "field_name",
    "Form Name": "form_name",
    "Section Header": "section_header",
    "Field Type": "field_type",
    "Field Label": "field_label",
    "Choices, Calculations, OR Slider Labels": "select_choices_or_calculations",
    "Field Note": "field_note",
    "Text Validation Type OR Show Slider Number": "text_validation_type_or_show_slider_number",
    "Text Validation Min": "text_validation_min",
    "Text Validation Max": "text_validation_max",
    "Identifier?": "identifier",
    "Branching Logic (Show field only if...)": "branching_logic",
    "Required Field?": "required_field",
    "Custom Alignment": "custom_alignment",
    "Question Number (surveys only)": "question_number",
    "Matrix Group Name": "matrix_group_name",
    "Matrix Ranking?": "matrix_ranking",
    "Field Annotation": "field_annotation",
}
"""The columns of the dictionary as REDCap's page and as its interface for programs name them."""
MAX_BYTES: Final = 32 * 1024 * 1024
_STATUS: Final = {"0": "Incomplete", "1": "Unverified", "2": "Complete"}
_YES_NO: Final = {"1": "Yes", "0": "No"}
_TRUE_FALSE: Final = {"1": "True", "0": "False"}
_BOX: Final = {"0": "unchecked", "1": "checked"}
_PERSONAL: Final = ("email", "phone", "postalcode", "zipcode", "ssn", "mrn", "vmrn")
_INTEGER: Final = re.compile(FORMS["integer"].replace(r"\z", r"\Z"))
Entry = Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class _Building:
    """The draft as it grows, entry by entry."""

    columns: list[SourceColumn] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, header: str, kind: str, *notes: str, codes: Mapping[str, str] | None = None, **more: Any) -> None:
        """A column; ``notes`` are for the person who checks the draft."""
        fields: dict[str, Any] = {"minimum": None, "maximum": None, "identifier": "no", "description": "", **more}
        column = Column(
            name="x",
            type=kind,  # type: ignore[arg-type]
            unit="",
            codes=tuple(Code(value=value, label=label) for value, label in (codes or {}).items()),
            missing=fields.pop("missing", ("",)),
            **fields,
        )
        self.columns.append(SourceColumn(column=column, header=header))
        if notes:
            self.notes[header] = notes

    def named(self) -> tuple[SourceColumn, ...]:
        """The columns, each under a name of its own."""
        names = column_names(c.header for c in self.columns)
        self.notes = {names.get(header, header): notes for header, notes in self.notes.items()}
        return tuple(replace(c, column=replace(c.column, name=names[c.header])) for c in self.columns)


def from_redcap(dictionary: Path, *, header: Sequence[str] | None = None, table: str = "redcap") -> Draft:
    """The draft for exports of the project with this ``dictionary``.

    Raises Misuse if there is no such file and Malformed if it is no REDCap data dictionary.
    """
    entries = _read(dictionary)
    building = _Building()
    for i, entry in enumerate(entries):
        try:
            _entry(building, entry, first=i == 0)
        except KakoiError as error:
            raise Malformed(
                "redcap.field",
                f"{dictionary.name}: field {entry['field_name']!r}: {error.message}",
                hint="correct the dictionary in REDCap and export it again",
            ) from None
    for form in dict.fromkeys(entry["form_name"] for entry in entries):
        building.add(f"{form}_complete", "integer", codes=_STATUS, description=f"Status of the form {form}")
    remarks = (
        _fit(building, header)
        if header is not None
        else ["check: columns that REDCap adds are not listed (give the header)"]
    )
    columns = building.named()
    building.notes[TOP] = (
        f"From the REDCap data dictionary {dictionary.name}, for the raw CSV export.",
        "Codes, limits and descriptions are published in the manifest.",
        *([f"left out as identifiers, files or unknown: {', '.join(building.left_out)}"] if building.left_out else []),
        *remarks,
    )
    record = next((c.column.name for c in columns if c.header == entries[0]["field_name"]), None)
    schema = Schema(
        table=table,
        title=one_line(f"REDCap {dictionary.stem}", 120),
        person_column=record,
        columns=columns,
        leave_out=tuple(building.left_out),
    )
    return Draft(schema=schema, notes=building.notes)


# --- the dictionary --------------------------------------------------------------------------------------------------


def _read(path: Path) -> list[Entry]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Misuse("redcap.file", f"expected a data dictionary at {path}, got: {error.strerror}") from None
    try:
        if len(data) > MAX_BYTES:
            raise ValueError
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (ValueError, csv.Error):
        raise _not_one(path) from None
    titles = [HEADERS.get(title.strip(), title.strip()) for title in rows[0]] if rows else []
    body = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    if sorted(titles) != sorted(HEADERS.values()) or not body or any(len(row) != len(titles) for row in body):
        raise _not_one(path)
    entries: list[Entry] = [{title: cell.strip() for title, cell in zip(titles, row, strict=True)} for row in body]
    if not all(entry["field_name"] and entry["form_name"] and entry["field_type"] for entry in entries):
        raise _not_one(path)
    return entries


def _not_one(path: Path) -> Malformed:
    return Malformed(
        "redcap.dictionary",
        f"{path.name}: expected a REDCap data dictionary, a UTF-8 CSV of {len(HEADERS)} columns and at least one field",
        hint="in REDCap: Project Setup, Data Dictionary, Download the current Data Dictionary",
    )


def choices(text: str) -> dict[str, str]:
    """The codes of ``1, Male | 2, Female``. Raises Malformed for anything else."""
    found: dict[str, str] = {}
    for part in re.split(r"\||\n", text):
        if not part.strip():
            continue
        code, comma, label = part.partition(",")
        code = code.strip()
        if not comma or not code or code in found:
            raise Malformed("redcap.choices", "expected choices such as '1, Male | 2, Female', each code once")
        found[code] = one_line(label, 200)
    if not found:
        raise Malformed("redcap.choices", "expected at least one choice, got none")
    return found


# --- one field -------------------------------------------------------------------------------------------------------


def _entry(building: _Building, entry: Entry, *, first: bool) -> None:
    name, kind = entry["field_name"], entry["field_type"].lower()
    if kind == "descriptive":
        return
    if kind == "file" or (entry["identifier"].lower() == "y" and not first):
        building.left_out += _headers(entry)
        return
    make = _MAKERS.get(kind)
    if make is None:
        raise Malformed("redcap.field-type", f"expected a field type of REDCap, got {kind!r}")
    if first:
        note = "REDCap marks it as an identifier: joined on, or replaced before the export?"
        marked = entry["identifier"].lower() == "y"
        building.add(
            name,
            "string",
            *([note] if marked else []),
            missing=(),
            identifier="direct" if marked else "no",
            description=one_line(entry["field_label"], 400),
        )
        return
    make(building, entry)


def _headers(entry: Entry) -> list[str]:
    """The columns of the export that hold this field."""
    if entry["field_type"].lower() != "checkbox":
        return [entry["field_name"]]
    return [_box(entry["field_name"], code) for code in choices(entry["select_choices_or_calculations"])]


def _box(name: str, code: str) -> str:
    return f"{name}___{re.sub('[^a-z0-9]', '_', code.lower())}"


def _described(entry: Entry) -> str:
    return one_line(entry["field_label"], 400)


def _choice(building: _Building, entry: Entry) -> None:
    codes = choices(entry["select_choices_or_calculations"])
    kind = "integer" if all(_INTEGER.match(code) for code in codes) else "string"
    building.add(entry["field_name"], kind, codes=codes, description=_described(entry))


def _checkbox(building: _Building, entry: Entry) -> None:
    for code, label in choices(entry["select_choices_or_calculations"]).items():
        text = one_line(f"{_described(entry)}: {label}", 400)
        building.add(_box(entry["field_name"], code), "integer", codes=_BOX, description=text)


def _fixed(codes: Mapping[str, str]) -> Callable[[_Building, Entry], None]:
    return lambda building, entry: building.add(
        entry["field_name"], "integer", codes=codes, description=_described(entry)
    )


def _number(building: _Building, entry: Entry) -> None:
    note = "check: unit (UCUM); a calculation may also give text"
    building.add(entry["field_name"], "number", note, description=_described(entry))


def _slider(building: _Building, entry: Entry) -> None:
    low, high = _limit(entry["text_validation_min"]) or "0", _limit(entry["text_validation_max"]) or "100"
    building.add(entry["field_name"], "integer", minimum=low, maximum=high, description=_described(entry))


def _free(building: _Building, entry: Entry) -> None:
    note = "check: free text may name people: leave it out unless the study needs it"
    building.add(entry["field_name"], "string", note, description=_described(entry), identifier="direct")


def _text(building: _Building, entry: Entry) -> None:
    validation = entry["text_validation_type_or_show_slider_number"].lower()
    name, description = entry["field_name"], _described(entry)
    limits: dict[str, Any] = {
        "minimum": _limit(entry["text_validation_min"]),
        "maximum": _limit(entry["text_validation_max"]),
    }
    if validation.startswith("datetime"):
        building.add(name, "datetime", description=description)
    elif validation.startswith("date"):
        building.add(name, "date", description=description)
    elif validation == "integer":
        building.add(name, "integer", "check: unit (UCUM)", description=description, **limits)
    elif validation.startswith("number") and "comma" not in validation:
        building.add(name, "number", "check: unit (UCUM)", description=description, **limits)
    elif validation.startswith(_PERSONAL):
        note = f"check: validated as {validation}, but not marked as an identifier"
        building.add(name, "string", note, description=description, identifier="direct")
    elif validation:
        building.add(name, "string", f"check: validated as {validation}, kept as text", description=description)
    else:
        _free(building, entry)


def _limit(text: str) -> str | None:
    """A validation limit as a decimal; None where there is none or where it is a date or another field."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return format(number if number else abs(number), "f") if number.is_finite() else None


_MAKERS: Final[dict[str, Callable[[_Building, Entry], None]]] = {
    "text": _text,
    "notes": _free,
    "textarea": _free,
    "radio": _choice,
    "dropdown": _choice,
    "select": _choice,
    "checkbox": _checkbox,
    "yesno": _fixed(_YES_NO),
    "truefalse": _fixed(_TRUE_FALSE),
    "calc": _number,
    "slider": _slider,
    "sql": lambda building, entry: building.add(entry["field_name"], "string", description=_described(entry)),
}


# --- the export ------------------------------------------------------------------------------------------------------


def _fit(building: _Building, header: Sequence[str]) -> list[str]:
    """Keep what the export has, and place what REDCap adds. Returns remarks."""
    absent = [c.header for c in building.columns if c.header not in header]
    building.columns = [c for c in building.columns if c.header in header]
    building.left_out = [h for h in building.left_out if h in header]
    known = {c.header for c in building.columns} | set(building.left_out)
    for name in header:
        if name not in known:
            _added(building, name)
    order = {name: i for i, name in enumerate(header)}
    building.columns.sort(key=lambda c: order[c.header])
    return [f"check: in the dictionary, but not in the export: {_shown(absent)}"] if absent else []


def _added(building: _Building, name: str) -> None:
    if name == "redcap_data_access_group":
        note = "REDCap's data access group; the site in results comes from the owner's identity, not from here"
        building.add(name, "string", note, description="Data access group")
    elif name in ("redcap_event_name", "redcap_repeat_instrument"):
        building.add(name, "string", description=name.replace("_", " "))
    elif name == "redcap_repeat_instance":
        building.add(name, "integer", minimum="1", description="Repeat instance")
    else:
        # A survey identifier or stamp, or a column of another program.
        building.left_out.append(name)


def _shown(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
