"""One person opts out between two runs: the difference of the results is that person. Tried against the ledger, in SQL and in Python."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from attacks.disclosure.disclosure_setting import COLUMNS, DEFAULT, OPEN, Victim, everybody, heart, victims
from attacks.test_attack_opt_out import Registered
from kakoi.broker.ledger import Ledger
from kakoi.broker.opt_out import remember
from kakoi.contract.model import Analysis, DatasetManifest
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.sdk.opt_out import column_for, seal_list
from kakoi.testing.world import NOW
from kakoi.wire.messages import Binding, RunRequest
from kakoi.wire.request import setting_of
from support.broker_setting import make_setting
from support.clinic import Clinic, Holding, col, needs_shared, output, shared_engine
from unit.broker.test_broker_release import Released, denials, releases, rules_of
from unit.keeper.test_opt_outs import applied

QUERY = "SELECT count(*) AS people, avg(chol) AS mean FROM heart WHERE chol > 0"


def hospitals(*, on: bool) -> Clinic:
    """The heart data, each row with a number that opt-outs find it by."""
    holdings = []
    for place, frame in heart().items():
        numbered = frame.assign(mrn=[f"{place}/{i}" for i in range(len(frame))])
        columns = (*COLUMNS, col("mrn", "string", identifier="opt-out"))
        holdings.append(Holding(owner=place, table="heart", frame=numbered, columns=columns))
    return Clinic(holdings=holdings, rules=DEFAULT if on else OPEN, ledger=[] if on else None)


def number_of(victim: Victim) -> tuple[str, str]:
    """Hospital and number of a patient whom age, sex and pain single out."""
    for place, frame in heart().items():
        found = frame.query("age == @victim.age and sex == @victim.sex and cp == @victim.cp")
        if len(found):
            return place, f"{place}/{frame.index.get_loc(found.index[0])}"
    raise LookupError(victim)


def recovered(victim: Victim, *, on: bool) -> float | None:
    """The victim's cholesterol, as what the same query gives before and after."""
    clinic = hospitals(on=on)
    place, number = number_of(victim)
    reads = {"heart": [column.name for column in COLUMNS]}
    analysis = clinic.analysis(QUERY, output("o", "count:people", "value:mean"), engine="sql", reads=reads)
    clinic.analyses, totals = [analysis], []
    for people in ([], [number]):
        with applied(clinic, {place: people} if people else {}, column="mrn") as clinic.opt_outs:
            (row,) = clinic.run(shared_engine(), analysis).rows()
        if row["people"] is None or row["mean"] is None:
            return None
        totals.append(float(row["people"]) * float(row["mean"]))
    return totals[0] - totals[1]


class InPython(Registered):
    """Hospitals with a column for opt-outs, and an analysis in Python."""

    def analysis(self) -> Envelope:
        record = Analysis.decode(super().analysis().payload)
        source = "def analyse(tables, parameters):\n    return {}\n"
        return seal(replace(record, engine="python", source=source), self.analyst.signing)


@needs_shared
@pytest.mark.parametrize("victim", victims(2) if not needs_shared.args[0] else [], ids=str)
def test_the_same_query_before_and_after_somebody_opted_out(victim: Victim) -> None:
    """Rows keep their numbers when others are left out, so the ledger still knows whose they are."""
    assert len(everybody()) == 920
    assert recovered(victim, on=False) == pytest.approx(victim.chol, abs=1e-3)
    assert recovered(victim, on=True) is None


def test_a_python_analysis_is_not_released_again_under_another_list(tmp_path: Path) -> None:
    """Nobody sees its cohorts, so a list that changed is a setting that changed."""
    world = InPython(change_contract=rules_of)
    setting = make_setting(tmp_path, world)
    Released.make(setting).ask()
    setting.broker().step(wait=0)
    assert len(releases(setting)) == 1
    manifest = DatasetManifest.decode(world.manifest(world.owners[0]).payload)
    kept = seal_list(setting.home, manifest, column_for(manifest), ["p001"], now=NOW)
    with closing(Ledger(setting.path / "ledger.sqlite")) as ledger:
        remember(ledger, kept)
    Released.make(setting, nonce="2").ask()
    setting.broker().step(wait=0)
    assert denials(setting) == ["ledger.python-settings"]
    assert len(releases(setting)) == 1


def test_lists_are_part_of_a_setting() -> None:
    request = RunRequest(
        contract="0" * 64,  # type: ignore[arg-type]
        analysis="1" * 64,  # type: ignore[arg-type]
        parameters=(Binding(name="age", value=40),),
        party="2" * 64,  # type: ignore[arg-type]
        nonce=bytes(32),
        requested_at=0,
    )
    one, other = "a" * 32, "b" * 32
    assert setting_of(request) == setting_of(replace(request, nonce=bytes([1]) * 32))
    assert len({setting_of(request), setting_of(request, [one]), setting_of(request, [other])}) == 3
    assert setting_of(request, [one, other]) == setting_of(request, [other, one])
