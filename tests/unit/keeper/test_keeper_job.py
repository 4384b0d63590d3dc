"""From an agreement to a job: the engine learns what the contract allows, and owners who disagree get no job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kakoi.contract.approve import Agreement
from kakoi.contract.model import Analysis, Code, Column, DatasetManifest, TableUse
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused
from kakoi.enclave.job import Job
from kakoi.enclave.keeper.job import job_for
from kakoi.testing.world import TestParty, World, column
from kakoi.wire.messages import RunRequest

Change = Callable[[DatasetManifest], DatasetManifest]


class Owners(World):
    """A world in which each owner's manifest, and the analysis, can be changed."""

    changes: dict[str, Change]
    reads: tuple[TableUse, ...]

    def manifest(self, owner: TestParty) -> Envelope:
        record = DatasetManifest.decode(super().manifest(owner).payload)
        change = self.changes.get(owner.name)
        return seal(change(record) if change else record, owner.signing)

    def analysis(self) -> Envelope:
        record = Analysis.decode(super().analysis().payload)
        return seal(replace(record, reads=self.reads or record.reads), self.analyst.signing)


def world(changes: dict[str, Change] | None = None, reads: tuple[TableUse, ...] = ()) -> Owners:
    made = Owners()
    made.changes, made.reads = changes or {}, reads
    return made


def job(made: World) -> Job:
    agreement = made.agreement()
    return job_for(agreement, RunRequest.decode(made.request(agreement).payload))


def with_column(name: str, **fields: object) -> Change:
    """The manifest with one column changed."""

    def change(manifest: DatasetManifest) -> DatasetManifest:
        columns: list[Column] = [
            replace(item, **fields) if item.name == name else item  # type: ignore[arg-type]
            for item in manifest.columns
        ]
        return replace(manifest, columns=tuple(columns))

    return change


def refused(made: World) -> str:
    with pytest.raises(Refused) as caught:
        job(made)
    assert "kakoi dataset inspect" in caught.value.hint
    return caught.value.code


def test_the_job_is_what_the_contract_says() -> None:
    made = job(world())
    assert (made.engine, made.source.split()[0]) == ("sql", "SELECT")
    (table,) = made.tables
    assert table.name == "trial"
    assert [(item.name, item.readable) for item in table.columns] == [("age", True), ("sex", True)]
    assert [part.site for part in table.parts] == ["North", "East", "South"]
    assert [(item.name, item.value) for item in made.parameters] == [("minimum_age", 40)]
    assert [output.name for output in made.outputs] == ["counts"]


def test_columns_that_the_analysis_does_not_read_are_not_told() -> None:
    (table,) = job(world()).tables
    assert "days" not in [item.name for item in table.columns]


def test_the_site_is_not_a_column_of_any_file() -> None:
    made = world(reads=(TableUse(table="trial", columns=("site", "age", "sex")),))
    (table,) = job(made).tables
    assert [item.name for item in table.columns] == ["age", "sex"]
    assert table.readable[0] == "site"


def person(name: str) -> Change:
    def change(manifest: DatasetManifest) -> DatasetManifest:
        return replace(manifest, columns=(*manifest.columns, column("patient", "string")), person_column=name)

    return change


def test_the_person_column_comes_along_and_is_not_readable() -> None:
    """The engine counts people by it; the analysis, which did not ask for it, does not see it."""
    (table,) = job(world(dict.fromkeys(("North", "East", "South"), person("patient")))).tables
    assert table.person_column == "patient"
    assert [(item.name, item.readable) for item in table.columns][-1] == ("patient", False)
    assert "patient" not in table.readable


def test_owners_who_count_people_differently_get_no_job() -> None:
    everybody: dict[str, Change] = dict.fromkeys(("North", "East", "South"), person("patient"))
    assert refused(world({**everybody, "East": person("sex")})) == "contract.person-column"


@pytest.mark.parametrize(
    "change",
    [with_column("age", unit="mo"), with_column("age", identifier="join-key")],
    ids=["unit", "identifier"],
)
def test_owners_whose_columns_differ_get_no_job(change: Change) -> None:
    """Years at one owner and months at the other would be added up without anybody noticing."""
    assert refused(world({"East": change})) == "contract.schemas"


def test_a_difference_in_a_column_that_nobody_reads_does_not_matter() -> None:
    assert job(world({"East": with_column("days", unit="mo")})).tables


def codes(*values: str) -> Change:
    return with_column("sex", codes=tuple(Code(value=value, label="") for value in values), missing=())


def declared(agreement: Agreement) -> dict[str, tuple[str, ...]]:
    made = job_for(agreement, RunRequest.decode(World().request(agreement).payload))
    return {item.name: item.codes for item in made.tables[0].columns}


def test_codes_of_all_owners_are_joined() -> None:
    made = world({"North": codes("1", "2"), "East": codes("2", "3"), "South": codes("1")})
    assert declared(made.agreement())["sex"] == ("1", "2", "3")


def test_one_free_declaration_makes_the_column_free() -> None:
    """Labels of a column with any free part come from the data, and the gate must treat them so."""
    made = world({"North": codes("1", "2"), "East": codes("1")})
    assert declared(made.agreement())["sex"] == ()
