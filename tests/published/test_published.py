"""Published results, reproduced from data that stay sealed: one test for each line of ``shared/data/expected.csv``.

Where a published number rests on fewer people than the owners' minimum, it must not come out: that is tested too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Final

import pytest

from kakoi.sdk.released import Shown
from published.rooms import Rooms, opened
from published.studies import DATA, HOSPITALS, STUDIES
from unit.engines.test_lung import COX, CURVE, MEDIANS

pytestmark = [
    pytest.mark.skipif(not DATA.exists(), reason="shared/data is not here (KAKOI_SHARED)"),
    pytest.mark.xdist_group("published"),
    pytest.mark.timeout(600),
]
Line = dict[str, str]
BY_DATASET: Final = {
    "lung": "lung",
    "cgd": "cgd",
    "nwtco": "nwtco",
    "veteran": "veteran",
    "CNSIM": "cnsim",
    "uci-heart": "heart",
    "diabetes130": "diabetes",
    "indo_rct": "indo",
}
TOO_FEW: Final = {("L4", "inst=33"), ("L5", "karno=30"), ("L5", "karno=40")}
"""Published groups of two patients."""


def lines() -> list[Line]:
    """The lines of these data sets, in the file's order."""
    if not DATA.exists():
        return []
    with (DATA / "expected.csv").open(encoding="utf-8", newline="") as file:
        return [line for line in csv.DictReader(file) if line["dataset"] in BY_DATASET]


class Answers:
    """Each study is run when its first line asks, once."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._found: dict[str, dict[str, Shown]] = {}

    def output(self, dataset: str, name: str) -> Shown:
        study = BY_DATASET[dataset]
        if study not in self._found:
            self._found[study] = self._rooms.answers(next(item for item in STUDIES if item.name == study))
        return self._found[study][name]

    def number(self, dataset: str, output: str, name: str) -> str | None:
        """One of the numbers of statistics."""
        return next(number for label, number in self.output(dataset, output).rows if label == name)

    def cell(self, dataset: str, output: str, column: str, **labels: str) -> str | None:
        """One number of a table, by the labels of its row. None if the gate held it back."""
        shown = self.output(dataset, output)
        rows = [dict(zip(shown.columns, row, strict=True)) for row in shown.rows]
        found = [row[column] for row in rows if labels.items() <= row.items()]
        assert len(found) <= 1
        if not found:
            assert shown.rows_withheld, f"no row of {output} has {labels}"
        return found[0] if found else None


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    with opened(tmp_path_factory.mktemp("published")) as made:
        yield made


@pytest.fixture(scope="session")
def answers(rooms: Rooms) -> Answers:
    return Answers(rooms)


def word(quantity: str) -> str:
    """A quantity as a name."""
    return re.sub(r"[^a-z0-9]+", "_", quantity.lower()).strip("_")


def table_cell(line: Line, answers: Answers) -> str | None:
    """Where a line's number stands in the tables and statistics of the analyses."""
    identity, quantity, dataset = line["id"], line["quantity"], line["dataset"]
    first, _, rest = quantity.partition(" ")
    if identity == "L1":
        return answers.cell(dataset, "medians", MEDIANS[rest], ph_ecog=first.removeprefix("ecog="))
    if identity == "L1b":
        return answers.cell(dataset, "curves", CURVE[rest], ph_ecog="1", day=first.removeprefix("t="))
    if identity == "L4" and first.startswith("inst="):
        return answers.cell(dataset, "l4_groups", rest.removeprefix("weighted "), inst=first.removeprefix("inst="))
    if identity == "L5" and first.startswith("karno="):
        return answers.cell(dataset, "l5_groups", rest, karno=first.removeprefix("karno="))
    return trial_cell(line, answers)


def trial_cell(line: Line, answers: Answers) -> str | None:
    identity, quantity, dataset = line["id"], line["quantity"], line["dataset"]
    if identity == "G1" and quantity != "patients":
        return answers.cell(dataset, "g1", "patients", treat=quantity)
    if identity in ("G2", "G3"):
        return answers.cell(dataset, "g2", {"G2": "patients", "G3": "infections"}[identity], treat=quantity)
    if identity == "S2":
        return answers.cell(dataset, "s2", "encounters", readmitted=quantity)
    if identity in ("P1", "P2", "P3") and (arm := arm_of(identity, quantity)) is not None:
        return answers.cell(dataset, "arms", arm[2], subgroup=arm[0], rx=arm[1])
    return study_cell(line, answers)


def arm_of(identity: str, quantity: str) -> tuple[str, str, str] | None:
    """Subgroup, treatment and column of the trial of indomethacin; None for its tests."""
    if "p" in quantity.split() or quantity == "patients":
        return None
    subgroup = "no suspected SOD" if identity == "P3" else "no PD stent" if "no PD stent" in quantity else "PD stent"
    treatment = "0_placebo" if "placebo" in quantity else "1_indomethacin"
    column = "percent" if "%" in quantity else "pancreatitis" if "PEP" in quantity else "patients"
    return ("all" if identity == "P1" else subgroup, treatment, column)


def study_cell(line: Line, answers: Answers) -> str | None:
    """Tables by hospital: CNSIM's studies and the four hospitals of uci-heart."""
    identity, quantity, dataset = line["id"], line["quantity"], line["dataset"]
    first, _, rest = quantity.partition(" ")
    if identity in ("D1", "D4", "D5"):
        site = HOSPITALS[int(first[-1]) - 1]
        column = word(rest) if identity != "D5" else rest if rest == "mean" else f"q{rest.removesuffix('%')}"
        return answers.cell(dataset, identity.lower(), column, site=site)
    if identity == "D7":
        label = quantity.split()[1]
        if rest.endswith("n"):
            return answers.cell(dataset, "d7", "n", bmi_class=label)
        mean, deviation = (answers.cell(dataset, "d7", column, bmi_class=label) for column in ("mean", "sd"))
        return f"{float(mean or 'nan'):.2f}({float(deviation or 'nan'):.2f})"
    if identity in ("H1", "H2"):
        return heart_cell(identity, quantity, answers)
    return statistic(line, answers)


def heart_cell(identity: str, quantity: str, answers: Answers) -> str | None:
    names = ("Cleveland", "Hungarian", "Switzerland", "Long Beach VA")
    place = next(i for i, name in enumerate(names) if quantity.startswith(name))
    rest = quantity.removeprefix(names[place]).strip()
    if identity == "H2":
        return answers.cell("uci-heart", "h2", "patients", site=HOSPITALS[place])
    # This hospital's file has no other class than 1.
    label = "1" if rest == "1-4 total" else rest
    return answers.cell("uci-heart", "h1", "patients", site=HOSPITALS[place], num=label)


NAMES: Final = {
    ("L4", "chisq(17)"): ("l4", "chisq_17"),
    ("L4", "p"): ("l4", "p"),
    ("L5", "n"): ("l5", "n"),
    ("N1", "loglik +instit"): ("n1", "loglik_instit"),
    ("G1", "patients"): ("g4", "patients"),
    ("V2", "c-index"): ("v1", "c_index"),
    ("S1", "encounters"): ("s1", "encounters"),
    ("S1", "patients"): ("s1", "patients"),
    ("S3", "n (independent replication)"): ("s1", "cohort"),
    ("S3", "n (paper)"): ("s1", "cohort"),
    ("S4", "all"): ("s1", "measured_percent"),
    ("P1", "patients"): ("tests", "patients"),
    ("P1", "Fisher exact p"): ("tests", "fisher_exact_p"),
    ("P2", "PD stent Fisher p"): ("tests", "pd_stent_fisher_p"),
    ("P2", "no PD stent Fisher p"): ("tests", "no_pd_stent_fisher_p"),
    ("P4", "suspected SOD %"): ("tests", "suspected_sod"),
}


def statistic(line: Line, answers: Answers) -> str | None:
    identity, quantity, dataset = line["id"], line["quantity"], line["dataset"]
    if identity in ("L2", "L3"):
        output = {"L2": "cox_age_sex", "L3": "cox_ecog_age"}[identity]
        if quantity == "HR sex":
            return str(2.718281828459045 ** float(answers.number(dataset, output, "sex_coefficient") or "nan"))
        return answers.number(dataset, output, COX[quantity])
    if identity == "L5":
        return answers.number(dataset, "l5", "n" if quantity == "n" else "chisq_7")
    if identity == "D6":
        return answers.number(dataset, "d6", quantity if quantity == "mean" else f"q{quantity.removesuffix('%')}")
    output, name = NAMES.get((identity, quantity), (identity.lower(), word(quantity)))
    return answers.number(dataset, output, name)


@pytest.mark.parametrize("line", lines(), ids=lambda line: word(f"{line['id']} {line['quantity']}"))
def test_the_published_value_comes_out(line: Line, answers: Answers) -> None:
    ours = table_cell(line, answers)
    if (line["id"], line["quantity"].split()[0]) in TOO_FEW:
        assert ours is None, "two patients are fewer than every owner's minimum"
        return
    assert ours is not None
    if line["published"].replace(".", "").replace("-", "").replace("e", "").isdigit():
        assert abs(float(ours) - float(line["published"])) <= float(line["tolerance"]) + 1e-12, ours
    else:
        assert ours == line["published"]


def test_every_data_set_has_lines() -> None:
    assert {line["dataset"] for line in lines()} == set(BY_DATASET)
    assert len(lines()) > 150
