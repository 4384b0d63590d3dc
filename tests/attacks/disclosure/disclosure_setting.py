"""Real patients for attacks on what leaves: the four hospitals of the UCI heart disease data, and an analyst who may ask anything."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from kakoi.contract.model import Analysis, Column, Parameter
from kakoi.contract.rules import DisclosureRules
from support.clinic import RULES, SHARED, Answer, Clinic, Holding, col, output, shared_engine

if TYPE_CHECKING:
    import pandas as pd

NAMES: Final = [
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
    "num",
]
OPEN: Final = replace(
    RULES,
    minimum_cell=1,
    minimum_contributors=1,
    parameters_per_person="1",
    max_digits=15,
    dominance_percent=100,
    p_percent=0,
    cohort_difference=1,
    python_settings=10**6,
)
"""The gate off: as much as rules can be loosened. Shapes, labels and bytes stay as declared: nothing turns those off."""
DEFAULT: Final = replace(RULES, max_digits=6)
COLUMNS: Final[tuple[Column, ...]] = (
    replace(col("age"), minimum="18", maximum="100"),
    col("sex", codes=("0", "1")),
    col("cp", codes=("1", "2", "3", "4")),
    replace(col("chol", "number"), minimum="0", maximum="700"),
    replace(col("thalach", "number"), minimum="40", maximum="240"),
    col("num", codes=("0", "1", "2", "3", "4")),
)


@cache
def heart() -> dict[str, pd.DataFrame]:
    """Patients by hospital."""
    import pandas as pd

    found = {}
    for place in ("cleveland", "hungarian", "switzerland", "va"):
        frame = pd.read_csv(
            SHARED / "data/uci-heart" / f"processed.{place}.data", header=None, names=NAMES, na_values="?"
        )
        kept = frame[[column.name for column in COLUMNS]].copy()
        for name in ("age", "sex", "cp", "num"):
            kept[name] = kept[name].astype("Int64")
        found[place.capitalize()] = kept
    return found


@dataclass
class Attacker:
    """An analyst who knows everything about a person but one value, and the schema. ``on``: the owners' rules are the defaults."""

    on: bool
    rules: DisclosureRules | None = None
    engine: str = "sql"
    asked: int = 0
    clinic: Clinic = field(init=False)

    def __post_init__(self) -> None:
        holdings = [
            Holding(owner=place, table="heart", frame=frame, columns=COLUMNS) for place, frame in heart().items()
        ]
        rules = self.rules or (DEFAULT if self.on else OPEN)
        self.clinic = Clinic(holdings=holdings, rules=rules, ledger=[] if self.on else None)

    def ask(self, source: str, *columns: str, parameters: tuple[Parameter, ...] = (), **values: int | str) -> Answer:
        """What leaves of one query. Raises what engine and gate refuse."""
        self.asked += 1
        return self.clinic.run(shared_engine(), self.analysis(source, *columns, parameters=parameters), **values)

    def analysis(self, source: str, *columns: str, parameters: tuple[Parameter, ...] = ()) -> Analysis:
        """An analysis of the heart table with one output."""
        return self.clinic.analysis(
            source, output("o", *columns), engine=self.engine, name="attack", parameters=parameters
        )


def everybody() -> pd.DataFrame:
    """All patients, with their hospital."""
    import pandas as pd

    return pd.concat([frame.assign(site=place) for place, frame in heart().items()], ignore_index=True)


@dataclass(frozen=True, slots=True)
class Victim:
    """A patient whom age, sex and kind of pain single out, and whose cholesterol is to be learned."""

    age: int
    sex: int
    cp: int
    chol: float

    @property
    def sql(self) -> str:
        """The condition that is true for this person alone."""
        return f"age = {self.age} AND sex = {self.sex} AND cp = {self.cp}"


def victims(count: int) -> list[Victim]:
    """Patients who are alone in their combination, the same ones each time."""
    people = everybody()
    alone = people.groupby(["age", "sex", "cp"]).filter(lambda group: len(group) == 1)
    known = alone[alone["chol"].notna() & (alone["chol"] > 0)].sort_values(["age", "sex", "cp"])
    step = max(1, len(known) // count)
    rows: list[dict[Any, Any]] = known.iloc[::step].head(count).to_dict("records")
    return [Victim(int(r["age"]), int(r["sex"]), int(r["cp"]), float(r["chol"])) for r in rows]


def total(answer: Answer, people: str = "people", value: str = "mean") -> tuple[float, float] | None:
    """People and the sum of values over all rows; None if any number was held back."""
    rows = answer.rows()
    if any(row[people] is None or row[value] is None for row in rows):
        return None
    counts = [(float(row[people] or 0), float(row[value] or 0)) for row in rows]
    return sum(n for n, _ in counts), sum(n * mean for n, mean in counts)
