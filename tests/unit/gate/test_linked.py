"""Tables of one Python run held against one another."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kakoi.enclave.gate.complement import Equation
from kakoi.enclave.gate.linked import totals
from kakoi.enclave.gate.release import apply
from kakoi.enclave.job import ResultTable
from kakoi.wire.released import Released, ReleasedTable
from unit.gate.gate_setting import RULES, analysis, column, declared, encoded, rules

SITES, SEXES = ("a", "b", "c"), ("1", "2")
SOURCE = "('a', 'b', 'c', 'total')"


def python_table(name: str, names: list[str], rows: list[tuple[tuple[str | None, ...], int]]) -> ResultTable:
    groups = [column(group, [labels[i] for labels, _ in rows]) for i, group in enumerate(names)]
    people = tuple(n for _, n in rows)
    return ResultTable(
        name=name, columns=(*groups, column("n", list(map(str, people)))), rows=people, people=people, margins=()
    )


def crossed(counts: list[int]) -> ResultTable:
    labels = [(site, sex) for site in SITES for sex in SEXES]
    return python_table("both", ["site", "sex"], list(zip(labels, counts, strict=True)))


def by_site(counts: list[int]) -> ResultTable:
    return python_table("sites", ["site"], [((s,), counts[2 * i] + counts[2 * i + 1]) for i, s in enumerate(SITES)])


BOTH = declared("both", "group:site", "group:sex", "count:n")
ONE = declared("sites", "group:site", "count:n")


def release(*found: ResultTable) -> Released:
    outputs = [BOTH if one.name == "both" else ONE for one in found]
    return apply(encoded(*found), analysis(*outputs, engine="python", source=SOURCE), [RULES])


def shown(made: Released) -> list[dict[tuple[str | None, ...], str | None]]:
    """The counts of each table by their labels: what is held back is not there."""
    found = []
    for one in made.outputs:
        assert isinstance(one, ReleasedTable)
        *groups, counts = (column.cells for column in one.columns)
        found.append({labels: n for *labels_, n in zip(*groups, counts, strict=True) if n for labels in [(*labels_,)]})
    return found


def test_a_cell_is_not_the_difference_of_another_table_and_what_is_shown() -> None:
    counts = [2, 9, 8, 7, 9, 9]
    both, sites = shown(release(crossed(counts), by_site(counts)))
    assert ("a", "1") not in both
    assert ("a", "2") not in both or ("a",) not in sites
    alone = shown(release(crossed(counts)))[0]
    assert len(alone) == 5, "by itself the table tells nothing about the cell"


@settings(max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=6, max_size=6))
def test_no_held_back_cell_is_a_difference(counts: list[int]) -> None:
    both, sites = shown(release(crossed(counts), by_site(counts)))
    for site in SITES:
        known = [(site, "1") in both, (site, "2") in both, (site,) in sites]
        assert sum(known) != 2


def test_tables_of_other_people_are_not_tied() -> None:
    counts = [2, 9, 8, 7, 9, 9]
    others = python_table("sites", ["site"], [(("a",), 50), (("b",), 60), (("c",), 70)])
    both, sites = shown(release(crossed(counts), others))
    assert (len(both), len(sites)) == (5, 3)


def test_the_same_cell_in_two_tables_is_held_back_in_both() -> None:
    counts = [2, 9, 8, 7, 9, 9]
    twice = crossed(counts)
    again = ResultTable(
        name="again", columns=twice.columns, rows=twice.rows, people=twice.people, margins=twice.margins
    )
    outputs = (BOTH, declared("again", "group:site", "group:sex", "count:n"), ONE)
    made = apply(encoded(twice, again, by_site(counts)), analysis(*outputs, engine="python", source=SOURCE), [rules()])
    first, second, _ = shown(made)
    assert first == second


def test_a_row_of_totals_is_a_margin() -> None:
    labels = [("a",), ("b",), ("c",), ("total",)]
    assert totals(labels, [2, 8, 9, 19]) == [Equation(left=(3,), right=(0, 1, 2))]
    assert totals(labels, [2, 8, 9, 20]) == []
    assert totals([(None, "1"), ("a", "1"), ("b", "1")], [11, 4, 7]) == [Equation(left=(0,), right=(1, 2))]
    found = python_table("sites", ["site"], list(zip(labels, [2, 8, 9, 19], strict=True)))
    (cells,) = shown(release(found))
    assert len(cells) == 2


def test_an_sql_table_says_itself_what_its_margins_are() -> None:
    """Three groups of which one happens to be as large as the others together."""
    found = python_table("sites", ["site"], [(("a",), 2), (("b",), 8), (("c",), 10)])
    made = apply(encoded(found), analysis(ONE, engine="sql"), [RULES])
    assert len(shown(made)[0]) == 2
