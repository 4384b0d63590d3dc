"""The demo's data: the NCCTG lung cancer trial (Loprinzi 1994), as the package ``lifelines`` ships it, split by institution."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COLUMNS: Final = ("time", "status", "age", "sex", "ph_ecog")
HOSPITALS: Final[dict[str, frozenset[int]]] = {
    "North Hospital": frozenset({1, 3, 11}),
    "East Hospital": frozenset({12, 13, 16, 22}),
    "South Hospital": frozenset(),
}
"""Institution numbers of each hospital; the last takes all others."""

PUBLISHED: Final[dict[str, float]] = {
    "median.0": 394,
    "median.1": 306,
    "median.2": 199,
    "age_sex.age": 0.017045,
    "age_sex.sex": -0.513219,
    "ecog_age.ph_ecog": 0.443485,
    "ecog_age.age": 0.011281,
}
"""What R's package survival prints for the whole trial (tests/Examples/survival-Ex.Rout.save)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HospitalFile:
    """One hospital's export."""

    name: str
    path: Path
    rows: int


def write_hospitals(directory: Path) -> list[HospitalFile]:
    """Write one CSV for each hospital, as its own system might export it."""
    from lifelines.datasets import load_lung

    frame = load_lung()
    listed = frozenset().union(*HOSPITALS.values())
    out = []
    for name, institutions in HOSPITALS.items():
        mine = frame["inst"].isin(institutions) if institutions else ~frame["inst"].isin(listed)
        part = frame[mine].rename(columns={"ph.ecog": "ph_ecog"})
        path = directory / name.split(" ", maxsplit=1)[0].lower() / "lung.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in part[list(COLUMNS)].itertuples(index=False):
                writer.writerow(["" if value != value else int(value) for value in row])
        out.append(HospitalFile(name=name, path=path, rows=len(part)))
    return out
