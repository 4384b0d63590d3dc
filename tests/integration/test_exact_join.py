"""Real data, split by table among owners, joined again inside the enclave on a declared key: published numbers come out."""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

from support.clinic import SHARED, Answer, Clinic, Holding, col, needs_shared, output, shared_engine

pytestmark = needs_shared
KEY = col("id", identifier="join-key")
TREATMENTS = ("placebo", "rIFN-g")


@cache
def cgd() -> tuple[Holding, ...]:
    """A trial of interferon in chronic granulomatous disease: who got what at the registry, infections at two clinics."""
    frame = pd.read_csv(SHARED / "data/survival/cgd.csv")
    people = frame.drop_duplicates("id")[["id", "treat"]]
    infections = frame[["id", "status"]]
    north = infections["id"] % 2 == 0
    columns = (KEY, col("status", codes=("0", "1")))
    return (
        Holding(
            owner="Registry",
            table="people",
            frame=people,
            columns=(KEY, col("treat", "string", codes=TREATMENTS)),
        ),
        Holding(owner="North", table="infections", frame=infections[north], columns=columns, person="id"),
        Holding(owner="South", table="infections", frame=infections[~north], columns=columns, person="id"),
    )


SQL = """
SELECT treat, count(DISTINCT i.id) AS patients, sum(i.status) AS infections
FROM people p JOIN infections i ON p.id = i.id
WHERE i.status = 1 GROUP BY treat
"""
PYTHON = """
def analyse(tables, parameters):
    both = tables["people"].merge(tables["infections"], on="id")
    ill = both[both["status"] == 1]
    return {"cells": ill.groupby("treat", as_index=False).agg(patients=("id", "nunique"), infections=("status", "sum"))}
"""


@cache
def joined(engine: str) -> Answer:
    clinic = Clinic(holdings=cgd())
    cells = output("cells", "group:treat", "count:patients", "value:infections")
    return clinic.run(shared_engine(), clinic.analysis({"sql": SQL, "python": PYTHON}[engine], cells, engine=engine))


@pytest.mark.parametrize("engine", ["sql", "python"])
def test_the_trials_numbers_come_out(engine: str) -> None:
    """Lines G2 and G3 of the published values."""
    answer = joined(engine)
    assert answer.cell("patients", treat="rIFN-g") == 14
    assert answer.cell("patients", treat="placebo") == 30
    assert answer.cell("infections", treat="placebo") == 56
    assert answer.cell("infections", treat="rIFN-g") == 20


def test_a_key_as_text_at_one_owner_and_as_number_at_another_joins_too() -> None:
    """A token is of the identifier's text: where one hospital exports it as text, it is the same person."""
    registry, *clinics = cgd()
    people = registry.frame.assign(id=registry.frame["id"].astype(str))
    other = Holding(
        owner="Registry",
        table="people",
        frame=people,
        columns=(col("id", "string", identifier="join-key"), registry.columns[1]),
    )
    clinic = Clinic(holdings=(other, *clinics))
    cells = output("cells", "group:treat", "count:patients", "value:infections")
    answer = clinic.run(shared_engine(), clinic.analysis(SQL, cells, engine="sql"))
    assert answer.cell("patients", treat="placebo") == 30


@pytest.mark.slow
def test_a_hundred_thousand_encounters_join_seventy_thousand_patients() -> None:
    """diabetes130: patients at a registry, their encounters at two hospitals. Lines S1 and S2."""
    frame = pd.read_csv(SHARED / "data/diabetes130/diabetic_data.csv", dtype=str, keep_default_na=False)
    key = col("patient_nbr", "string", identifier="join-key")
    people = frame.drop_duplicates("patient_nbr")[["patient_nbr", "gender"]]
    half = frame["encounter_id"].astype(int) % 2 == 0
    columns = (key, col("readmitted", "string", codes=("NO", ">30", "<30")))
    clinic = Clinic(
        holdings=(
            Holding(
                owner="Registry",
                table="people",
                frame=people,
                columns=(key, col("gender", "string", codes=("Female", "Male", "Unknown/Invalid"))),
            ),
            Holding(owner="East", table="encounters", frame=frame[half], columns=columns, person="patient_nbr"),
            Holding(owner="West", table="encounters", frame=frame[~half], columns=columns, person="patient_nbr"),
        )
    )
    source = """
    SELECT readmitted, count(DISTINCT e.patient_nbr) AS patients, count(gender) AS encounters
    FROM people p JOIN encounters e ON p.patient_nbr = e.patient_nbr GROUP BY ROLLUP (readmitted)
    """
    cells = output("cells", "group:readmitted", "count:patients", "value:encounters")
    answer = clinic.run(shared_engine(), clinic.analysis(source, cells, engine="sql"))
    assert {row["readmitted"]: row["encounters"] for row in answer.rows()} == {
        "NO": "54864",
        ">30": "35545",
        "<30": "11357",
        None: "101766",
    }
    assert answer.cell("patients", encounters=101766) == 71518
