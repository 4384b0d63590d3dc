"""Released outputs for people and for pandas: what was held back is missing and says so, never zero."""

from __future__ import annotations

import pandas as pd
import pytest

from kakoi.sdk.released import frame, shown, statistics
from kakoi.wire.released import ReleasedColumn, ReleasedStatistics, ReleasedTable, ReleasedValue


def column(name: str, role: str, *cells: str | None, held: tuple[int, ...] = ()) -> ReleasedColumn:
    return ReleasedColumn(name=name, role=role, cells=cells, held_back=held)  # type: ignore[arg-type]


def table(*columns: ReleasedColumn, withheld: bool = False) -> ReleasedTable:
    return ReleasedTable(name="counts", columns=columns, margins=(), rows_withheld=withheld)


COUNTS = table(
    column("sex", "group", "1", "2", None),
    column("town", "group", "A", "007", "x"),
    column("people", "count", "12", None, "7", held=(1,)),
    column("mean", "value", "1.25", None, None, held=(1,)),
)


def test_numbers_are_numbers_and_labels_are_labels() -> None:
    made = frame(COUNTS)
    assert list(made.columns) == ["sex", "town", "people", "mean", "held_back"]
    assert made["people"].tolist()[0] == 12
    assert made["mean"].tolist()[0] == 1.25
    assert made["town"].tolist() == ["A", "007", "x"], "a label that is no number stays as it is"


def test_what_was_held_back_is_missing_and_says_so() -> None:
    made = frame(COUNTS)
    assert made["held_back"].tolist() == [False, True, False]
    assert pd.isna(made["people"][1])
    assert pd.isna(made["mean"][1])
    assert pd.isna(made["mean"][2]), "missing in the data"
    assert not made["held_back"][2], "and that is something else than held back"
    assert made["people"].sum() == 19


def test_labels_that_are_all_numbers_can_be_compared() -> None:
    made = frame(table(column("ecog", "group", "0", "1"), column("people", "count", "5", "6")))
    assert made[made["ecog"] == 1]["people"].tolist() == [6]


def test_an_empty_table() -> None:
    made = frame(table(column("sex", "group"), column("people", "count"), withheld=True))
    assert len(made) == 0
    assert list(made.columns) == ["sex", "people", "held_back"]


def test_large_and_small_numbers_keep_their_digits() -> None:
    made = frame(table(column("people", "count", "9007199254740991"), column("p", "value", "0.000000123456")))
    assert int(made["people"][0]) == 2**53 - 1
    assert made["p"][0] == 0.000000123456


def test_for_people_cells_are_the_released_text() -> None:
    text = shown(COUNTS)
    assert text.columns == ("sex", "town", "people", "mean")
    assert text.rows == (("1", "A", "12", "1.25"), ("2", "007", None, None), (None, "x", "7", None))
    assert text.held_back == ((False,) * 4, (False, False, True, True), (False,) * 4)
    assert shown(table(column("n", "count", "5"), withheld=True)).rows_withheld


def test_statistics_by_name() -> None:
    output = ReleasedStatistics(
        name="cox", values=(ReleasedValue(name="age", number="0.017"), ReleasedValue(name="p", number=None))
    )
    assert statistics(output) == {"age": 0.017, "p": None}
    text = shown(output)
    assert text.columns == ("name", "value")
    assert text.rows == (("age", "0.017"), ("p", None))
    assert text.held_back == ((False, False), (False, False))


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "0x10", "１２"])
def test_odd_numbers_from_an_odd_enclave_do_not_crash_the_reader(text: str) -> None:
    """The gate writes decimal text only. Whatever else stood there is shown as it stands."""
    assert shown(table(column("n", "count", text))).rows == ((text,),)
