"""Plots: what is drawn follows from the declared roles; held-back numbers are marked and never drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kakoi.console.plot import picture, plot
from kakoi.console.runs import as_csv, as_parquet
from kakoi.wire.released import ReleasedColumn, ReleasedNoise, ReleasedStatistics, ReleasedTable, ReleasedValue


def column(name: str, role: str, *cells: str | None, held: tuple[int, ...] = ()) -> ReleasedColumn:
    return ReleasedColumn(name=name, role=role, cells=cells, held_back=held)  # type: ignore[arg-type]


def table(*columns: ReleasedColumn, margins: tuple[int, ...] = ()) -> ReleasedTable:
    return ReleasedTable(name="t", columns=columns, margins=margins, rows_withheld=False)


def count(svg: object, kind: str) -> int:
    return str(svg).count(f'class="{kind}')


def test_bars_of_the_count_and_a_mark_for_what_is_held_back() -> None:
    svg = plot(
        table(column("sex", "group", "1", "2", "3"), column("n", "count", "40", None, "7", held=(1,))),
        held_back="held back",
    )
    assert count(svg, "bar s1") == 2
    assert count(svg, "held") == 1
    assert "<title>held back</title>" in str(svg)
    ET.fromstring(str(svg))  # noqa: S314 - our own text


def noisy() -> ReleasedTable:
    cells = ("70", "3", "-2", "12")
    noise = ReleasedNoise(
        column="n",
        mechanism="discrete-laplace",
        epsilon="1/2",
        off_by="number",
        at_most="5",
        low=tuple(str(int(cell) - 5) for cell in cells),
        high=tuple(str(int(cell) + 5) for cell in cells),
    )
    return replace(table(column("sex", "group", "1", "2", "3", None), column("n", "count", *cells)), noise=(noise,))


def test_numbers_with_noise_stand_above_their_intervals_and_labels_below_the_line() -> None:
    svg = ET.fromstring(picture(plot(noisy(), held_back="")))  # type: ignore[arg-type]  # noqa: S314 - our own text
    name = "{http://www.w3.org/2000/svg}"
    tops = [float(path.get("d", "").split(" ")[1].partition("H")[0]) for path in svg.iter(f"{name}path")]
    values = [float(text.get("y", "")) for text in svg.iter(f"{name}text") if text.get("class") == "value"]
    assert len(tops) == len(values) == 4
    assert all(value < top for value, top in zip(values, tops, strict=True))
    bars = [float(bar.get("y", "")) + float(bar.get("height", "")) for bar in svg.iter(f"{name}rect")]
    labels = {
        str(text.text): float(text.get("y", "")) for text in svg.iter(f"{name}text") if text.get("class") == "tick"
    }
    assert all(labels[label] > max(bars) for label in ("1", "2", "3", "—"))
    assert "None" not in labels


def test_lines_with_a_band_along_a_group_of_many_numbers() -> None:
    days = [str(10 * day) for day in range(6)]
    svg = plot(
        table(
            column("arm", "group", *["a"] * 6, *["b"] * 6),
            column("day", "group", *days, *days),
            column("n", "count", *["9"] * 12),
            column("survival", "value", *["1", "0.9", "0.8", "0.7", "0.6", None] * 2),
            column("low", "value", *["0.9"] * 12),
            column("high", "value", *["1"] * 12),
        ),
        held_back="",
    )
    assert count(svg, "line s") == 2
    assert count(svg, "band s") == 2
    assert count(svg, "dot s") == 10
    ET.fromstring(str(svg))  # noqa: S314 - our own text


def test_margins_are_no_bars() -> None:
    groups = column("sex", "group", "1", "2", None)
    svg = plot(table(groups, column("n", "count", "4", "5", "9"), margins=(0, 0, 1)), held_back="")
    assert count(svg, "bar s1") == 2


def test_intervals_of_coefficients() -> None:
    values = [("age_coefficient", "0.02"), ("age_error", "0.01"), ("sex_coefficient", "-0.5"), ("sex_error", None)]
    svg = plot(
        ReleasedStatistics(name="s", values=tuple(ReleasedValue(name=n, number=v) for n, v in values)), held_back=""
    )
    assert count(svg, "dot s1") == 1
    assert ">age<" in str(svg)


def test_nothing_to_draw() -> None:
    assert plot(table(column("n", "count", "5")), held_back="") is None
    assert plot(ReleasedStatistics(name="s", values=(ReleasedValue(name="mean", number="3"),)), held_back="") is None


CELL = st.one_of(st.none(), st.from_regex(r"-?[0-9]{1,6}(\.[0-9]{1,4})?", fullmatch=True), st.text(max_size=8))
NUMBER = st.one_of(st.none(), st.from_regex(r"-?[0-9]{1,9}(\.[0-9]{1,4})?", fullmatch=True))


@given(st.lists(st.tuples(CELL, CELL, NUMBER, NUMBER, st.booleans()), min_size=1, max_size=14))
def test_any_table_gives_a_picture_or_none_and_never_a_held_back_number(rows: list[tuple[object, ...]]) -> None:
    a, b, n, v, kept = (tuple(row[i] for row in rows) for i in range(5))
    held = tuple(i for i, flag in enumerate(kept) if flag)
    secret = tuple("987654321" if flag else cell for cell, flag in zip(n, kept, strict=True))
    made = table(
        column("a", "group", *a),  # type: ignore[arg-type]
        column("b", "group", *b),  # type: ignore[arg-type]
        column("n", "count", *secret, held=held),  # type: ignore[arg-type]
        column("v", "value", *v, held=held),  # type: ignore[arg-type]
    )
    svg = plot(made, held_back="held")
    assert svg is None or "987,654,321" not in svg
    assert svg is None or "style=" not in svg
    assert as_csv(made).startswith(b"\xef\xbb\xbfa,b,n,v,held_back")
    assert as_parquet(made)[:4] == b"PAR1"


HOSTILE = ("<script>alert(1)</script>", '"onload="x', "</text><image href='//x'/>", "]]>&<!--", "url(//x)")


def test_a_file_of_its_own_has_no_script_link_or_handler_whatever_the_labels_are() -> None:
    """A label is text. What a reader opens in a browser runs nothing and fetches nothing."""
    drawn = plot(
        table(column("g", "group", *HOSTILE), column("n", "count", *["5"] * len(HOSTILE))), held_back=HOSTILE[0]
    )
    assert drawn is not None
    tree = ET.fromstring(picture(drawn))  # noqa: S314 - our own text
    names = {element.tag.removeprefix("{http://www.w3.org/2000/svg}") for element in tree.iter()}
    assert names <= {"svg", "style", "g", "text", "rect", "line", "polyline", "polygon", "circle", "title"}
    attributes = {name for element in tree.iter() for name in element.attrib}
    assert not {name for name in attributes if name.startswith("on") or "href" in name or name in ("src", "style")}
    texts = {element.text for element in tree.iter() if element.tag.endswith("text")}
    assert HOSTILE[0] in texts
    (style,) = [element.text or "" for element in tree.iter() if element.tag.endswith("style")]
    assert "url" not in style
    assert "@import" not in style


def test_a_picture_has_only_numbers_that_were_let_out() -> None:
    """What is held back is in no attribute and no text, although the record of a careless gate would still have it."""
    drawn = plot(
        table(column("g", "group", "a", "b"), column("n", "count", "40", "31415", held=(1,))), held_back="held back"
    )
    assert drawn is not None
    assert "31415" not in picture(drawn)
