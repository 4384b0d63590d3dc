"""How many cells the gate holds back on real tables, beside the fewest that an integer program finds."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from kakoi.enclave.gate.complement import Row, protect
from support.clinic import SHARED, needs_shared
from unit.gate.optimal import fewest, interval

if TYPE_CHECKING:
    import pandas as pd

pytestmark = needs_shared


def cube(frame: pd.DataFrame, keys: list[str]) -> list[Row]:
    """A table of people by these columns with all its margins, as GROUP BY CUBE gives it."""
    rows = []
    for size in range(len(keys) + 1):
        for kept in itertools.combinations(range(len(keys)), size):
            mask = sum(1 << i for i in range(len(keys)) if i not in kept)
            names = [keys[i] for i in kept]
            cells = frame.groupby(names, dropna=False).size().items() if names else [((), len(frame))]
            for label, people in cells:
                values = dict(zip(kept, label if isinstance(label, tuple) else (label,), strict=True))
                labels = tuple(str(values[i]) if i in values else None for i in range(len(keys)))
                rows.append(Row(labels=labels, mask=mask, people=int(people)))
    return rows


def tables() -> dict[str, tuple[pd.DataFrame, list[str]]]:
    import pandas as pd

    from attacks.disclosure.disclosure_setting import everybody

    hearts = everybody()
    hearts["band"] = pd.cut(hearts["age"].astype(float), [0, 40, 50, 60, 70, 120]).astype(str)
    veterans = pd.read_csv(SHARED / "data/survival/veteran.csv")
    veterans["karnofsky"] = veterans["karno"] // 20
    lung = pd.read_csv(SHARED / "data/survival/lung.csv")
    trial = pd.read_csv(SHARED / "data/medicaldata/indo_rct.csv")
    return {
        "heart: site, pain": (hearts, ["site", "cp"]),
        "heart: pain, disease": (hearts, ["cp", "num"]),
        "heart: age, disease": (hearts, ["band", "num"]),
        "heart: site, sex, pain": (hearts, ["site", "sex", "cp"]),
        "veterans: cell type, Karnofsky": (veterans, ["celltype", "karnofsky"]),
        "lung: institution, sex": (lung, ["inst", "sex"]),
        "trial: site, sex": (trial, ["site", "gender"]),
        "trial: site, outcome, sex": (trial, ["site", "outcome", "gender"]),
    }


def test_no_more_cells_than_an_optimal_choice_and_a_fifth() -> None:
    found = {}
    for name, (frame, keys) in tables().items():
        for least in (3, 5) if len(keys) == 2 else (3,):  # the integer program is slow, not the gate
            rows = cube(frame, keys)
            held = frozenset(i for i, row in enumerate(rows) if row.people < least)
            best = fewest(rows, held, least) if held else None
            if best is not None:
                hidden = protect(rows, held, least)
                found[name, least] = (len(hidden), best)
                for place in held:
                    low, high = interval(rows, hidden, place)
                    assert high - low > 0.5, (name, least, "a held-back cell is known")
    assert len(found) >= 10
    assert all(mine <= 1.2 * best for mine, best in found.values()), found
    assert sum(mine for mine, _ in found.values()) <= 1.05 * sum(best for _, best in found.values())


@pytest.mark.parametrize("least", [3, 5])
def test_nothing_is_held_back_that_need_not_be(least: int) -> None:
    """Giving any one of the additional cells back would make a held-back cell computable, or a small one visible as a sum."""
    frame, keys = tables()["heart: age, disease"]
    rows = cube(frame, keys)
    held = frozenset(i for i, row in enumerate(rows) if row.people < least)
    hidden = protect(rows, held, least)
    assert held < hidden
    assert protect(rows, hidden, least) == hidden
