"""Somebody opts out of a running study: from the hospital's command line to a passport, through hub, broker and enclave."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.cli.demo import cast as demo_cast
from kakoi.cli.demo.data import HospitalFile
from kakoi.core.errors import Refused
from kakoi.wire.released import ReleasedTable
from support.command_line import runner
from support.deployment import Deployment, Finished, deployed

pytestmark = pytest.mark.slow


def with_numbers(path: Path) -> None:
    """The hospital's export has patient numbers too."""
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["mrn", *header], *([f"{i:04d}", *row] for i, row in enumerate(rows))])


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two hospitals whose data hold a column that is there for opt-outs."""
    directory = tmp_path_factory.mktemp("opt-outs")
    schema = directory / "lung.toml"
    schema.write_text(demo_cast.SCHEMA.read_text() + '\n[columns.mrn]\ntype = "string"\nidentifier = "opt-out"\n')
    write = demo_cast.Cast.seal_and_upload

    def seal(self: demo_cast.Cast, client: object, home: object, item: HospitalFile) -> None:
        with_numbers(item.path)
        write(self, client, home, item)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_cast, "SCHEMA", schema)
        patch.setattr(demo_cast.Cast, "seal_and_upload", seal)
        with deployed(directory, hospitals=2) as made:
            made.enclave(running=True)
            yield made


def women(room: Deployment, finished: Finished) -> dict[str, int]:
    """Patients by sex, over all cells that were shown."""
    from kakoi.sdk.released import released

    (table,) = (o for o in released(finished.opened.verified).outputs if isinstance(o, ReleasedTable))
    columns = {column.name: column.cells for column in table.columns}
    counts: dict[str, int] = {}
    for sex, patients in zip(columns["sex"], columns["patients"], strict=True):
        if sex is not None and patients is not None:
            counts[sex] = counts.get(sex, 0) + int(patients)
    return counts


def test_who_opted_out_is_in_no_result_and_the_passport_says_so(
    room: Deployment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KAKOI_LANG", "en")
    run = runner(capsys)
    north = room.brokers["north"]
    source = room.scene.files[0].path
    with source.open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [row for row in rows if row["sex"] == "2" and row["ph_ecog"] == "1"][:7]
    assert len(chosen) == 7

    people = tmp_path / "people.txt"
    people.write_text("".join(f"{row['mrn']}\n" for row in chosen) + "9999\n")
    party = ("--party", north.path, "--key-file", north.path / "key", "--hub", room.stage.hub_url)
    told = run("dataset", "opt-out", "add", people, *party)
    assert told.code == 0, told.err
    assert "7 of 8 have rows" in told.err.replace("\n", " ")
    assert "lines 8" in told.err.replace("\n", " ")
    shown = run("dataset", "opt-out", "show", *party[:4])
    assert "mrn" in shown.out
    assert "8" in shown.out

    finished = room.finish(room.ask())
    verified = finished.opened.verified
    expected = len([r for r in rows if r["sex"] == "2" and r not in chosen])
    with room.scene.files[1].path.open(newline="") as file:
        expected += len([r for r in csv.DictReader(file) if r["sex"] == "2"])
    held = [d for d in verified.passport.gate if d.action == "suppressed-cells"]
    assert women(room, finished)["2"] <= expected
    assert women(room, finished)["2"] >= expected - 3 * len(held) - 3
    (left_out,) = verified.passport.opt_outs
    assert left_out.people_at_least == 6, "seven, in steps of three"
    assert any("at least 6" in str(said) for said in verified.proven)
    for row in chosen:
        assert f'"{row["mrn"]}"'.encode() not in finished.opened.file

    # Not fewer by accident; the owner's ledger then holds the next list.
    people.write_text(f"{chosen[0]['mrn']}\n")
    assert run("dataset", "opt-out", "set", people, *party).error == "opt-out.shrinks"
    assert run("dataset", "opt-out", "set", people, "--shrink", *party).code == 0
    assert north.opt_outs(next(iter(north.datasets().values())).record.dataset).number == 2  # type: ignore[union-attr]


def test_a_directory_from_an_old_copy_gives_no_key(room: Deployment) -> None:
    """The list that the ledger has seen is gone: the broker refuses the run, and says why."""
    north = room.brokers["north"]
    (dataset,) = {signed.record.dataset for signed in north.datasets().values()}
    kept = north.opt_outs(dataset)
    assert kept is not None
    record = north.opt_out_file(kept).parent / "list.json"
    data = record.read_bytes()
    record.unlink()
    try:
        with pytest.raises(Refused) as caught:
            room.finish(room.ask())
        assert caught.value.code == "opt-out.rolled-back"
        assert "North" in caught.value.message
    finally:
        record.write_bytes(data)
