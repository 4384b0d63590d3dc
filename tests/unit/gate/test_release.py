"""What leaves, what is held back and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Refused
from kakoi.enclave.gate.release import apply
from kakoi.enclave.gate.table import MAX_OPEN_LABELS
from kakoi.enclave.job import Result
from kakoi.wire.released import Released, ReleasedStatistics, ReleasedTable
from unit.engines.parts import column as job_column
from unit.engines.parts import job as make_job
from unit.engines.parts import output as job_output
from unit.engines.parts import table as job_table
from unit.gate.gate_setting import (
    NUMBERS,
    RULES,
    TABLE,
    analysis,
    column,
    declared,
    encoded,
    rules,
    statistics,
    table,
)


def release(found: Any, *, engine: str = "sql", source: str = "SELECT 1", **more: Any) -> ReleasedTable:
    made = apply(encoded(found), analysis(TABLE, engine=engine, source=source), [RULES], **more)
    assert Released.decode(made.encode()) == made
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    return one


def shown(found: ReleasedTable) -> list[tuple[str | None, ...]]:
    return list(zip(*(column.cells for column in found.columns), strict=True))


def test_enough_people_are_released() -> None:
    found = release(table([("a", 3, "1.5"), ("b", 100, "-0.25")]))
    assert shown(found) == [("a", "3", "1.5"), ("b", "100", "-0.25")]
    assert all(not column.held_back for column in found.columns)


def test_too_few_look_like_nobody() -> None:
    """A row of two people is not there, whatever its label; nor does anything say that there was one."""
    made = [
        apply(encoded(table([("a", 5, "1"), *rows])), analysis(TABLE), [RULES])
        for rows in ([], [("b", 2, "2")], [("b", 2, "2"), (None, 1, "3")])
    ]
    assert len({released.encode() for released in made}) == 1
    (found,) = made[0].outputs
    assert isinstance(found, ReleasedTable)
    assert shown(found) == [("a", "5", "1")]
    assert found.rows_withheld, "rows may be missing"


def test_a_table_of_one_total_stays_one_row() -> None:
    """There is a total whatever the data are."""
    total = declared("o", "count:n", "value:v")
    for people in (0, 1, 2):
        found = replace(table([("a", people, "1")]), columns=table([("a", people, "1")]).columns[1:])
        (one,) = apply(encoded(found), analysis(total), [RULES]).outputs
        assert isinstance(one, ReleasedTable)
        assert shown(one) == [(None, None)]
        assert not one.rows_withheld


def test_no_limit_counts_rows_of_few_people() -> None:
    """Whether there is one more of them would be the answer to a question about one person."""
    narrow = declared("o", "group:g", "count:n", "value:v", max_rows=1)
    many = [(f"19{i // 12:02d}-{i % 12 + 1:02d}-01", 1, "1") for i in range(400)]
    for rows in ([("b", 2, "2")], many, [("made up", 1, "1")], [("b", 1, "2"), ("b", 2, "2")]):
        found = table([("a", 5, "1"), *rows], domain=("a",))
        for engine in ("sql", "python"):
            made = apply(encoded(found), analysis(narrow, engine=engine, source="'a'"), [RULES])
            assert shown(made.outputs[0]) == [("a", "5", "1")]  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"gate\.undeclared"):
        apply(encoded(table([("a", 5, "1"), ("b", 3, "2")])), analysis(narrow), [RULES])


def test_many_rows_of_few_people_are_a_small_cell() -> None:
    found = release(table([("a", 500, "1"), ("b", 500, "2")], people=[2, 3]))
    assert shown(found) == [("b", "3", "2")]


def test_a_number_with_too_little_support_is_held_back_alone() -> None:
    found = release(table([("a", 9, "1"), ("b", 9, "2")], support=[2, 9]))
    assert shown(found) == [("a", "9", None), ("b", "9", "2")]
    assert found.columns[2].held_back == (0,)


def test_a_missing_value_is_not_held_back() -> None:
    found = release(table([("a", 9, None)]))
    assert shown(found) == [("a", "9", None)]
    assert found.columns[2].held_back == ()


def test_labels_from_the_data_disappear_with_their_cells() -> None:
    found = release(table([("1950-01-01", 1, "1"), ("1960-01-01", 4, "2")], domain=()))
    assert shown(found) == [("1960-01-01", "4", "2")]
    assert found.rows_withheld


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        ("1.23456789", 6, "1.23457"),
        ("123456789", 6, "123457000"),
        ("0.000123456789", 3, "0.000123"),
        ("2.5", 1, "2"),
        ("1e-9", 3, "1e-9"),
        ("0", 1, "0"),
    ],
)
def test_numbers_are_rounded(number: str, digits: int, text: str) -> None:
    made = apply(encoded(table([("a", 5, number)])), analysis(TABLE), [rules(max_digits=digits)])
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[2].cells == (text,)


def test_statistics_leave_without_their_basis() -> None:
    made = apply(encoded(statistics("0.0170453", 228)), analysis(NUMBERS, engine="python"), [RULES])
    (one,) = made.outputs
    assert isinstance(one, ReleasedStatistics)
    assert one.values[0].number == "0.0170453"
    assert b"228" not in made.encode()


@pytest.mark.parametrize(
    ("basis", "code"), [(0, "gate.statistics-people"), (2, "gate.statistics-people"), (6, "gate.statistics-parameters")]
)
def test_statistics_of_few_people_are_refused(basis: int, code: str) -> None:
    with pytest.raises(Refused) as caught:
        apply(encoded(statistics("1", basis)), analysis(NUMBERS, engine="python"), [RULES], owners=["North"])
    assert caught.value.code == code
    assert "North" in caught.value.message
    assert apply(encoded(statistics("1", 7)), analysis(NUMBERS, engine="python"), [RULES]).outputs


def test_decisions_name_rules_and_no_numbers() -> None:
    """And of held-back cells exactly where the table shows that there are some."""
    always = [("o", "declared-output", "released"), ("o", "max-digits", "rounded")]
    for support, more in (((), []), ((1, 9), [("o", "minimum-cell-and-contributors", "suppressed-cells")])):
        found = table([("a", 5, "1"), ("b", 9, "2"), ("c", 2, "2")], support=(*support, 2)[: len(support) and 3])
        made = apply(encoded(found), analysis(TABLE), [RULES])
        assert [(d.output, d.rule, d.action) for d in made.decisions] == always + more


def test_the_output_has_a_size() -> None:
    with pytest.raises(Refused) as caught:
        apply(
            encoded(table([("a", 5, "1")])),
            analysis(TABLE),
            [RULES, rules(max_output_bytes=10)],
            owners=["North", "Coast"],
        )
    assert caught.value.code == "gate.output-bytes"
    assert "Coast" in caught.value.message
    assert "North" not in caught.value.message


GOOD = table([("a", 5, "1"), ("b", 6, "2")])


@pytest.mark.parametrize(
    ("twin", "code"),
    [
        (replace(GOOD, name="other"), "gate.undeclared"),
        (replace(GOOD, columns=GOOD.columns[:2]), "gate.undeclared"),
        (replace(GOOD, columns=(*GOOD.columns, column("w", ["1", "2"]))), "gate.undeclared"),
        (replace(GOOD, columns=(GOOD.columns[0], GOOD.columns[2], GOOD.columns[1])), "gate.undeclared"),
        (replace(GOOD, columns=(GOOD.columns[0], GOOD.columns[1], column("w", ["1", "2"]))), "gate.undeclared"),
        (replace(GOOD, rows=(5,)), "gate.undeclared"),
        (replace(GOOD, people=(5, 6, 7)), "gate.undeclared"),
        (replace(GOOD, people=(50, 60)), "gate.undeclared"),
        (replace(GOOD, margins=(0,)), "gate.undeclared"),
        (replace(GOOD, margins=(0, 2)), "gate.undeclared"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1"]))), "gate.undeclared"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1", "2"], support=[9]))), "gate.undeclared"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1", "Smith"]))), "gate.value"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1", "2.50"]))), "gate.value"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1", "-0"]))), "gate.value"),
        (replace(GOOD, columns=(*GOOD.columns[:2], column("v", ["1", "NaN"]))), "gate.value"),
        (replace(GOOD, columns=(column("g", ["a", "a"]), *GOOD.columns[1:])), "gate.repeated-row"),
        (statistics("1", 10), "gate.undeclared"),
    ],
)
def test_what_was_not_declared_is_refused(twin: Any, code: str) -> None:
    assert apply(encoded(GOOD), analysis(TABLE), [RULES])
    with pytest.raises(Refused) as caught:
        apply(encoded(twin), analysis(TABLE), [RULES])
    assert caught.value.code == code


def test_outputs_must_be_exactly_the_declared_ones() -> None:
    two = analysis(TABLE, NUMBERS, engine="python")
    source = "the labels 'a' and 'b'"
    assert apply(encoded(GOOD, statistics("1", 10)), replace(two, source=source), [RULES])
    for found in ((GOOD,), (statistics("1", 10), GOOD), (GOOD, statistics("1", 10), GOOD)):
        with pytest.raises(Refused, match=r"gate\.undeclared"):
            apply(encoded(*found), replace(two, source=source), [RULES])


def test_too_many_rows_are_refused() -> None:
    small = analysis(declared("o", "group:g", "count:n", "value:v", max_rows=1))
    with pytest.raises(Refused, match=r"gate\.undeclared"):
        apply(encoded(GOOD), small, [RULES])


def test_too_many_labels_that_nobody_foresaw() -> None:
    many = table([(str(i), 5, "1") for i in range(MAX_OPEN_LABELS + 1)], domain=())
    with pytest.raises(Refused, match=r"gate\.labels"):
        release(many)
    assert release(table([(str(i), 5, "1") for i in range(MAX_OPEN_LABELS)], domain=())).columns[0].cells


# --- the Python engine: the whole answer is the analyst's ------------------------------------------------------------------------

PYTHON_JOB = make_job(
    "x",
    [job_table("t", [job_column("g", "string", codes=("a", "b"))], ["North", "Coast"])],
    [job_output("o", "group:g", "count:n", "value:v")],
    engine="python",
)


def test_a_domain_that_python_claims_is_not_believed() -> None:
    lying = table([("secret", 5, "1")], domain=("secret",))
    with pytest.raises(Refused, match=r"gate\.label"):
        release(lying, engine="python", job=PYTHON_JOB)


def test_declared_codes_and_sites_are_python_s_labels() -> None:
    assert shown(release(table([("a", 5, "1"), ("b", 1, "2")], domain=()), engine="python", job=PYTHON_JOB)) == [
        ("a", "5", "1"),
    ]
    by_site = analysis(declared("o", "group:site", "count:n", "value:v"), engine="python")
    found = table([("North", 4, "1")], support=[1], domain=())
    found = replace(found, columns=(replace(found.columns[0], name="site"), *found.columns[1:]))
    (one,) = apply(encoded(found), by_site, [RULES], job=PYTHON_JOB).outputs
    assert isinstance(one, ReleasedTable)
    assert shown(one) == [("North", "4", None)]


def test_without_a_job_no_label_is_foreseen() -> None:
    found = release(table([("a", 1, "1"), ("b", 9, "2")], domain=("a", "b")), engine="python", source="('a', 'b')")
    assert shown(found) == [("b", "9", "2")]
    assert found.rows_withheld


def test_labels_that_the_source_names_are_words_of_the_source() -> None:
    found = table([("women over 60", 5, "1")], domain=())
    assert release(found, engine="python", source="label = 'women over 60'")
    for source in ("label = secret", "# women over 60", "label = 'women over 60 or 70'"):
        with pytest.raises(Refused, match=r"gate\.label"):
            release(found, engine="python", source=source)


def test_python_cannot_tell_by_order() -> None:
    rows = [("10", 5, "1"), ("9", 5, "2"), ("b", 5, "3"), ("a", 5, "4"), (None, 5, "5")]
    found = release(table(rows, domain=()), engine="python", job=PYTHON_JOB)
    assert found.columns[0].cells == ("9", "10", "a", "b", None)
    again = release(table(rows[::-1], domain=()), engine="python", job=PYTHON_JOB)
    assert again == found


# --- properties ------------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(KakoiError) as caught:
        apply(data, analysis(TABLE), [RULES])
    assert caught.value.code == "gate.answer"


@given(st.integers(0, len(encoded(GOOD)) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_widens_what_leaves(place: int, flip: int) -> None:
    data = bytearray(encoded(GOOD))
    data[place] ^= flip
    try:
        made = apply(bytes(data), analysis(TABLE), [RULES])
    except KakoiError:
        return
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    assert [column.name for column in one.columns] == ["g", "n", "v"]
    counts = Result.decode(bytes(data)).outputs[0]
    assert counts.KIND == "table"


COUNTS = st.lists(st.integers(0, 8), min_size=1, max_size=4)


@given(COUNTS, st.integers(1, 6), st.integers(1, 6))
def test_no_small_count_ever_leaves(counts: list[int], cell: int, contributors: int) -> None:
    found = table([("abcd"[i], count, str(count * 10)) for i, count in enumerate(counts)])
    made = apply(encoded(found), analysis(TABLE), [rules(minimum_cell=cell, minimum_contributors=contributors)])
    (one,) = made.outputs
    assert isinstance(one, ReleasedTable)
    enough = [("abcd"[i], str(n), str(n * 10)) for i, n in enumerate(counts) if n >= max(cell, contributors)]
    assert shown(one) == enough


@given(st.integers(0, 2), st.integers(0, 2))
def test_neighbouring_data_give_the_same_answer(one: int, other: int) -> None:
    """A cell below the threshold looks the same whatever it holds: label, nulls, marks, decisions, bytes."""
    first = apply(encoded(table([("a", 9, "1"), ("b", one, str(one))])), analysis(TABLE), [RULES])
    second = apply(encoded(table([("a", 9, "1"), ("b", other, str(other * 7))])), analysis(TABLE), [RULES])
    assert first.encode() == second.encode()


@given(st.integers(0, 2), st.integers(0, 2))
def test_denials_are_the_same_for_neighbouring_data(one: int, other: int) -> None:
    texts = set()
    for basis in (one, other):
        with pytest.raises(Refused) as caught:
            apply(encoded(statistics(str(basis), basis)), analysis(NUMBERS, engine="python"), [RULES])
        texts.add((caught.value.code, caught.value.message, caught.value.hint))
    assert len(texts) == 1
