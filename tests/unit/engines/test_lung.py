"""The lung example against what R's survival documentation prints: over three hospitals' parts, through the engines."""

from __future__ import annotations

import csv
import os
import warnings
from functools import cache
from pathlib import Path

import pytest

from kakoi.enclave.engines import harness, sql_engine
from kakoi.enclave.engines.frames import frames
from kakoi.enclave.job import Result, ResultStatistics, ResultTable
from unit.engines.parts import COUNTS, SURVIVAL, job, lung_parts, lung_table, part_fds

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/lung"
SHARED = Path(os.environ.get("KAKOI_SHARED", ROOT / ".." / "shared"))
EXPECTED = SHARED / "data/expected.csv"

MEDIANS = {"n": "patients", "events": "deaths", "median": "median", "0.95LCL": "low", "0.95UCL": "high"}
CURVE = {"S": "survival", "se": "error", "lo": "low", "hi": "high"}
COX = {
    "LRT": "likelihood_ratio",
    "Wald": "wald",
    "Score": "score",
    "concordance": "concordance",
    "age coef": "age_coefficient",
    "age se": "age_error",
    "sex coef": "sex_coefficient",
    "sex se": "sex_error",
    "ecog coef": "ph_ecog_coefficient",
    "ecog se": "ph_ecog_error",
}


@cache
def survival() -> Result:
    made = job((EXAMPLE / "survival.py").read_text("utf-8"), [lung_table()], SURVIVAL, engine="python")
    # lifelines calls pandas in a way that pandas announces to change; the engine does not stop for warnings either.
    with part_fds(made, lung_parts()) as parts, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return harness.run(made, lambda: frames(made, [part.descriptor for part in parts]))


def rows(name: str) -> list[dict[str, str | None]]:
    found = next(o for o in survival().outputs if o.name == name)
    assert isinstance(found, ResultTable)
    return [{c.name: c.cells[i] for c in found.columns} for i in range(len(found.rows))]


def statistic(output: str, name: str) -> float:
    found = next(o for o in survival().outputs if o.name == output)
    assert isinstance(found, ResultStatistics)
    return float(next(v.number for v in found.values if v.name == name) or "nan")


def ours(line: dict[str, str]) -> float:
    """What the example says for a line of the published values."""
    quantity = line["quantity"]
    if line["id"] == "L1":
        group, _, what = quantity.removeprefix("ecog=").partition(" ")
        return float(next(r for r in rows("medians") if r["ph_ecog"] == group)[MEDIANS[what]] or "nan")
    if line["id"] == "L1b":
        day, _, what = quantity.removeprefix("t=").partition(" ")
        row = next(r for r in rows("curves") if r["ph_ecog"] == "1" and r["day"] == day)
        return float(row[CURVE[what]] or "nan")
    output = "cox_age_sex" if line["id"] == "L2" else "cox_ecog_age"
    if quantity == "HR sex":
        return float(2.718281828459045 ** statistic(output, "sex_coefficient"))
    return statistic(output, COX[quantity])


def published() -> list[dict[str, str]]:
    if not EXPECTED.exists():
        return []
    with EXPECTED.open(encoding="utf-8", newline="") as file:
        return [line for line in csv.DictReader(file) if line["id"] in ("L1", "L1b", "L2", "L3")]


@pytest.mark.skipif(not EXPECTED.exists(), reason="shared/data/expected.csv is not here (KAKOI_SHARED)")
def test_there_are_published_values() -> None:
    assert len(published()) == 37


@pytest.mark.parametrize("line", published(), ids=lambda line: f"{line['id']}-{line['quantity']}".replace(" ", "-"))
def test_the_published_value_comes_out(line: dict[str, str]) -> None:
    assert abs(ours(line) - float(line["published"])) <= float(line["tolerance"]) + 1e-12


def test_the_medians_of_the_documentation() -> None:
    """The three that everybody knows, also where the shared file is missing."""
    assert [(r["ph_ecog"], r["median"]) for r in rows("medians")][:3] == [("0", "394"), ("1", "306"), ("2", "199")]


def test_counts_by_sex_and_ecog() -> None:
    made = job((EXAMPLE / "counts.sql").read_text("utf-8"), [lung_table()], [COUNTS])
    with part_fds(made, lung_parts()) as parts:
        descriptors = [part.descriptor for part in parts]
        found = sql_engine.run(made, descriptors, memory_megabytes=256, threads=2, milliseconds=10_000).outputs[0]
    assert isinstance(found, ResultTable)
    assert found.people == (36, 71, 29, 1, 27, 42, 21)
    assert [c.cells for c in found.columns][3:] == [
        ("28", "54", "28", "1", "9", "28", "16"),
        ("311.5", "221", "166", "118", "292", "350.5", "208"),
    ]
