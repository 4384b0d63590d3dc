"""Invented data fit the schema they are invented from, and nothing but that decides them."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.contract.model import Code, Column, DatasetManifest
from kakoi.rehearse.twin import invent
from kakoi.testing.world import World, column

WORLD = World()


def manifest(*columns: Column, owner: int = 0, table: str = "t", person: str | None = None) -> DatasetManifest:
    made = DatasetManifest.decode(WORLD.manifest(WORLD.owners[owner]).payload)
    return replace(made, table=table, columns=columns, person_column=person)


def coded(name: str, kind: str, *codes: str, missing: tuple[str, ...] = ()) -> Column:
    return replace(column(name, kind), codes=tuple(Code(value=c, label="") for c in codes), missing=missing)


def twin(people: int = 200, **manifests: DatasetManifest) -> dict[str, Any]:
    return {name: pq.read_table(io.BytesIO(data)) for name, data in invent(manifests, people).items()}


def test_codes_limits_and_types_are_the_declared_ones() -> None:
    table = twin(
        a=manifest(
            coded("sex", "string", "F", "M"),
            coded("grade", "integer", "1", "2", "3", missing=("NA",)),
            replace(column("age"), minimum="18", maximum="90", missing=()),
            replace(column("weight", "number"), minimum="0.5", maximum="3", missing=()),
            column("seen", "date"),
            column("at", "datetime"),
            column("dead", "boolean"),
            column("note", "string"),
        )
    )["a"]
    assert table.num_rows == 200
    assert set(table["sex"].to_pylist()) == {"F", "M"}
    assert set(table["grade"].to_pylist()) == {1, 2, 3, None}
    ages = table["age"].to_pylist()
    assert (min(ages) >= 18, max(ages) <= 90, len(set(ages)) > 20) == (True, True, True)
    assert all(0.5 <= value <= 3 for value in table["weight"].to_pylist())
    assert [str(field.type) for field in table.schema][4:7] == ["date32[day]", "timestamp[us]", "bool"]


def test_rare_codes_give_small_cells() -> None:
    codes = [str(i) for i in range(8)]
    counts = [twin(a=manifest(coded("c", "string", *codes)))["a"]["c"].to_pylist().count(code) for code in codes]
    assert counts[0] > 3 * counts[-1] > 0


def test_tables_and_owners_know_the_same_people() -> None:
    """A registry of everybody and two clinics: each clinic's people are in the registry, and in no other clinic."""
    key = column("id", identifier="join-key")
    made = twin(
        50,
        registry=manifest(key, column("age"), table="people"),
        north=manifest(key, column("x"), owner=1, table="visits", person="id"),
        south=manifest(key, column("x"), owner=2, table="visits", person="id"),
    )
    registry, north, south = ({*made[name]["id"].to_pylist()} for name in ("registry", "north", "south"))
    assert (len(registry), len(north), len(south)) == (100, 50, 50)
    assert north | south == registry
    assert made["north"].num_rows > 50


def test_only_the_manifest_decides() -> None:
    one = manifest(column("age"), coded("sex", "string", "F", "M"))
    assert invent({"a": one}, 40) == invent({"a": one}, 40)
    other = replace(one, dataset="f" * 32)
    assert invent({"a": one}, 40) != invent({"a": other}, 40)


KINDS = st.sampled_from(["integer", "number", "string", "boolean", "date", "datetime"])
LIMITS = st.one_of(st.none(), st.integers(-(10**6), 10**6).map(str))


@settings(max_examples=40, deadline=None)
@given(KINDS, LIMITS, LIMITS, st.sampled_from(["no", "join-key"]), st.integers(1, 20))
def test_any_schema_can_be_invented(kind: str, low: str | None, high: str | None, flag: str, people: int) -> None:
    if kind not in ("integer", "number"):
        low = high = None
    if low is not None and high is not None and int(low) > int(high):
        low, high = high, low
    made = replace(column("c", kind, flag), minimum=low, maximum=high)
    table = twin(people, a=manifest(made))["a"]
    assert table.num_rows == people
    if flag == "no" and kind == "integer":
        for value in filter(None, table["c"].to_pylist()):
            assert low is None or value >= int(low)
            assert high is None or value <= int(high)
