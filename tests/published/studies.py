"""Real data sets as hospitals would hold them: split by their own sites, in the files of ``assets``' schemas.

Where a data set names its sites (or comes in one file for each), they are the hospitals, several small ones together if there are
more than four. nwtco is split by its two trials; veteran and diabetes130 name no site: their rows are dealt in turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support.tree import ROOT

if TYPE_CHECKING:
    import pandas as pd

DATA: Final = Path(os.environ.get("KAKOI_SHARED", ROOT / ".." / "shared")) / "data"
ASSETS: Final = Path(__file__).parent / "assets"
LUNG: Final = ROOT / "src/kakoi/cli/demo/assets"
HOSPITALS: Final = ("North Hospital", "East Hospital", "South Hospital", "West Hospital")
Parts = list["pd.DataFrame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One data set and the analyses of it."""

    name: str
    schema: Path
    analyses: tuple[Path, ...]
    parts: Callable[[], Parts]
    """The files of the first hospitals, in order; every cell is text."""


def _read(path: str, **more: object) -> pd.DataFrame:
    import pandas as pd

    frame: pd.DataFrame = pd.read_csv(DATA / path, dtype=str, keep_default_na=False, **more)  # type: ignore[call-overload]
    return frame


def _split(frame: pd.DataFrame, column: str, sites: tuple[frozenset[str], ...]) -> Parts:
    """By the values of a column; one more part takes all others."""
    listed = frozenset[str]().union(*sites)
    parts = [frame[frame[column].isin(site)] for site in sites]
    return [*parts, frame[~frame[column].isin(listed)]]


def _dealt(frame: pd.DataFrame, hospitals: int) -> Parts:
    return [frame.iloc[place::hospitals] for place in range(hospitals)]


def lung() -> Parts:
    """18 institutions. Status is recoded as the package ``lifelines`` ships it: 1 died."""
    frame = _read("survival/lung.csv").rename(columns={"ph.ecog": "ph_ecog", "pat.karno": "pat_karno"})
    frame["status"] = frame["status"].map({"1": "0", "2": "1"})
    frame = frame[["time", "status", "age", "sex", "ph_ecog", "inst", "pat_karno"]]
    return _split(frame, "inst", (frozenset({"1", "3", "11"}), frozenset({"12", "13", "16", "22"})))


def cgd() -> Parts:
    """13 centres."""
    frame = _read("survival/cgd.csv")
    europe = frozenset({"Amsterdam", "Univ. of Zurich", "Copenhagen"})
    parts = _split(frame, "center", (frozenset({"NIH"}), europe))
    return [part[["id", "treat", "enum", "tstop", "status"]] for part in parts]


def nwtco() -> Parts:
    """The third and the fourth trial of the group."""
    frame = _read("survival/nwtco.csv")
    return [part[["instit", "histol", "rel", "edrel"]] for part in _split(frame, "study", (frozenset({"3"}),))]


def veteran() -> Parts:
    """No site is named."""
    columns = ["trt", "celltype", "time", "status", "karno", "diagtime", "age", "prior"]
    return _dealt(_read("survival/veteran.csv")[columns], 3)


def cnsim() -> Parts:
    """Three studies, a file each."""
    names = {"PM_BMI_CONTINUOUS": "bmi", "PM_BMI_CATEGORICAL": "bmi_class", "DIS_DIAB": "diabetes", "GENDER": "gender"}
    columns = ["lab_tsc", "lab_trig", "lab_hdl", "bmi", "bmi_class", "diabetes", "gender"]
    found = []
    for study in (1, 2, 3):
        frame = _read(f"datashield/CNSIM{study}.csv").rename(columns=str.strip)
        found.append(frame.rename(columns=names).rename(columns=str.lower)[columns])
    return found


def heart() -> Parts:
    """Four hospitals, a file each, without header."""
    names = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"]
    every = [*names, "slope", "ca", "thal", "num"]
    files = ("cleveland", "hungarian", "switzerland", "va")
    return [_read(f"uci-heart/processed.{name}.data", header=None, names=every)[[*names, "num"]] for name in files]


def diabetes() -> Parts:
    """130 hospitals, merged by who published them: encounters are dealt in turn, so patients are at several hospitals."""
    frame = _read("diabetes130/diabetic_data.csv").rename(columns={"A1Cresult": "a1cresult"})
    columns = ["encounter_id", "patient_nbr", "discharge_disposition_id", "a1cresult", "readmitted"]
    return _dealt(frame[columns], 3)


def indo() -> Parts:
    """Four centres."""
    sites = tuple(frozenset({site}) for site in ("1_UM", "2_IU", "3_UK"))
    frame = _read("medicaldata/indo_rct.csv")
    return [part[["rx", "outcome", "pdstent", "sod"]] for part in _split(frame, "site", sites)]


def _study(name: str, parts: Callable[[], Parts], *analyses: str) -> Study:
    directory = ASSETS / name
    paths = tuple(directory / f"{analysis}.toml" for analysis in analyses)
    return Study(name=name, schema=directory / "schema.toml", analyses=paths, parts=parts)


_LUNG: Final = _study("lung", lung, "tests")
STUDIES: Final = (
    Study(name="lung", schema=_LUNG.schema, analyses=(*_LUNG.analyses, LUNG / "survival.toml"), parts=lung),
    _study("cgd", cgd, "trial"),
    _study("nwtco", nwtco, "deviance"),
    _study("veteran", veteran, "cox"),
    _study("cnsim", cnsim, "models"),
    _study("heart", heart, "classes", "complete"),
    _study("diabetes", diabetes, "cohort"),
    _study("indo", indo, "outcome"),
)
