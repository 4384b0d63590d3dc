"""What a Python analysis states about who adds how much to a sum or mean."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from kakoi.enclave.engines.collect import collect
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import ResultTable
from unit.engines.parts import output

OUT = output("o", "group:g", "count:n", "value:v")


def collected(stated: Any, *, largest: int = 2) -> ResultTable:
    frame = pd.DataFrame({"g": ["a", "b"], "n": [3, 1], "v": [60.0, -5.0]})
    if stated is not None:
        frame.attrs["contributions"] = stated
    found = collect({"o": frame}, [OUT], largest=largest).outputs[0]
    assert isinstance(found, ResultTable)
    return found


def test_totals_and_the_largest_are_taken_without_sign() -> None:
    (found,) = collected({"v": [[10.0, 20, 30], [-5]]}).columns[2].magnitudes
    assert found.totals == ("60", "5")
    assert found.largest == ("30", "20", "5", None)


def test_nothing_is_stated_where_nothing_is_asked_or_said() -> None:
    assert collected(None).columns[2].magnitudes == ()
    assert collected({"v": [[1], [1]]}, largest=0).columns[2].magnitudes == ()


@pytest.mark.parametrize(
    "wrong",
    [[], {"n": [[1], [1]]}, {"v": [[1]]}, {"v": [1, 2]}, {"v": [["x"], [1]]}, {"v": ([1], [1])}, {"other": [[1], [1]]}],
)
def test_anything_else_stops(wrong: Any) -> None:
    with pytest.raises(Stopped, match=r"python\.output"):
        collected(wrong)
