"""Schemas of the tables of the OMOP Common Data Model 5.4.

Source: OHDSI CommonDataModel, OMOP_CDMv5.4_Field_Level.csv (2026 main branch): names, data types and required fields are in
``omop54.json`` ("!" marks a required field). A table's primary key is the field that is named after it, and a ``…_source_value``
is mapped to the ``…_concept_id`` beside it, as that file has it (a cohort definition's id is no key there). What is left out by default, because it names or locates people, is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any, Final

from kakoi.contract.model import Column
from kakoi.core.errors import Misuse
from kakoi.sdk.ingest.draft import TOP, Draft
from kakoi.sdk.ingest.schema import Schema, SourceColumn

IDENTIFYING: Final = {
    "person": ("person_source_value",),
    "provider": ("provider_name", "npi", "dea", "provider_source_value"),
    "location": ("address_1", "address_2", "latitude", "longitude", "location_source_value"),
    "note": ("note_title", "note_text", "note_source_value"),
    "note_nlp": ("snippet", "lexical_variant"),
    "specimen": ("specimen_source_id",),
    "payer_plan_period": ("family_source_value",),
    "device_exposure": ("unique_device_id",),
}
"""Fields that name, locate or quote people. They are left out of a draft."""


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, str]]:
    text = resources.files("kakoi.sdk.ingest").joinpath("omop54.json").read_text("utf-8")
    tables: dict[str, dict[str, str]] = json.loads(text)
    return tables


def table_names() -> tuple[str, ...]:
    """The tables of OMOP CDM 5.4, in the specification's order."""
    return tuple(_tables())


def omop_schema(table: str) -> Draft:
    """The schema of an OMOP table. Raises Misuse for a table that CDM 5.4 does not have."""
    fields = _tables().get(table)
    if fields is None:
        raise Misuse(
            "omop.table",
            f"expected a table of OMOP CDM 5.4, got {table!r}",
            hint="the tables are: " + ", ".join(_tables()),
        )
    left_out = IDENTIFYING.get(table, ())
    columns = tuple(_column(name, kind, fields) for name, kind in fields.items() if name not in left_out)
    events = "person_id" in fields and table != "person"
    notes = {
        TOP: (
            f"OMOP CDM 5.4, table {table}: names, types and required fields of the specification.",
            "check: fields that your CDM does not have must go; fields of your own must be declared or left out",
            *((f"left out because they name, locate or quote people: {', '.join(left_out)}",) if left_out else ()),
        ),
    }
    schema = Schema(
        table=table,
        title=f"OMOP {table}",
        person_column="person_id" if events else None,
        columns=columns,
        leave_out=left_out,
        primary_key=(f"{table}_id",) if f"{table}_id" in fields and table != "cohort_definition" else (),
    )
    return Draft(schema=schema, notes=notes)


def _column(name: str, kind: str, fields: Mapping[str, str]) -> SourceColumn:
    required = kind.endswith("!")
    declared: Any = kind.rstrip("!")
    column = Column(
        name=name,
        type=declared,
        unit="",
        codes=(),
        missing=() if required else ("",),
        minimum=None,
        maximum=None,
        identifier="no",
        description="",
    )
    concept = name.removesuffix("_source_value") + "_concept_id"
    mapped = name.endswith("_source_value") and concept in fields
    return SourceColumn(column=column, header=name, required=required, mapped_to=concept if mapped else None)
