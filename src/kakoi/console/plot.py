"""Plots of released numbers as SVG, drawn on the server: no script, no style attribute, colours by class (dark mode works). Pure.

What is drawn follows from the declared roles alone. A group column of many numbers is an axis: lines, with a band where columns ``low`` and
``high`` stand beside them. Otherwise bars of the count. Statistics with ``x_coefficient`` and ``x_error`` are a
forest of 95 % intervals. Numbers that the gate holds back are marked, never drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from kakoi.say.locale import number
from kakoi.sdk.released import intervals
from kakoi.wire.released import ReleasedColumn, ReleasedStatistics, ReleasedTable

_WIDTH, _HEIGHT = 720, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 20, 52
_MANY: Final = 5
_MOST_SERIES: Final = 6
_MOST_BARS: Final = 60
_BAND: Final = ("low", "high")
_INTERVAL: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A linear axis from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers from low to high, about five."""
        step = _round_step((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        return [round(n * step, 12) for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if rough <= power * factor * (1 + 1e-9))


def _axis(values: Sequence[float], start: float, end: float, *, zero: bool) -> Axis:
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = low - 1, high + 1
    step = _round_step((high - low) / 5)
    return Axis(
        low=math.floor(low / step + 1e-9) * step, high=math.ceil(high / step - 1e-9) * step, start=start, end=end
    )


def plot(output: ReleasedTable | ReleasedStatistics, *, held_back: str) -> Markup | None:
    """An SVG of an output, or None if there is nothing to draw. ``held_back`` is the word for what the gate keeps."""
    if isinstance(output, ReleasedStatistics):
        return _forest(output)
    rows = _rows(output)
    groups = [column for column in output.columns if column.role == "group"]
    along = next((column for column in reversed(groups) if _is_axis(column, rows)), None)
    return _lines(output, rows, groups, along) if along is not None else _bars(output, rows, groups, held_back)


def _rows(output: ReleasedTable) -> list[int]:
    """Rows that are no margin."""
    count = len(output.columns[0].cells)
    return [i for i in range(count) if not output.margins or output.margins[i] == 0]


def _is_axis(column: ReleasedColumn, rows: Sequence[int]) -> bool:
    values = [_value(column, row) for row in rows]
    return None not in values and len(set(values)) >= _MANY


def _value(column: ReleasedColumn, row: int) -> float | None:
    """A cell as a number, if it has one that was let out."""
    text = column.cells[row]
    if text is None or row in column.held_back:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# Lines ----------------------------------------------------------------------------------------------------------------


def _lines(
    output: ReleasedTable, rows: Sequence[int], groups: Sequence[ReleasedColumn], along: ReleasedColumn
) -> Markup | None:
    named = {column.name: column for column in output.columns}
    tall = next((c for c in output.columns if c.role == "value" and c.name not in (*_BAND, "error")), None)
    tall = tall or next(c for c in output.columns if c.role == "count")
    band = [named[name] for name in _BAND if name in named and tall.role == "value"]
    others = [column for column in groups if column is not along]
    series: dict[str, list[int]] = {}
    for row in rows:
        if _value(tall, row) is not None:
            label = ", ".join(f"{column.name} {_label(column, row)}" for column in others)
            series.setdefault(label, []).append(row)
    if not series or len(series) > _MOST_SERIES:
        return None
    shown = [row for part in series.values() for row in part]
    values = [v for column in (tall, *band) for row in shown if (v := _value(column, row)) is not None]
    across = _axis([v for row in shown if (v := _value(along, row)) is not None], _LEFT, _WIDTH - _RIGHT, zero=False)
    up = _axis(values, _HEIGHT - _BOTTOM, _TOP, zero=min(values) >= 0)
    body = [_frame(across, up, along.name, tall.name)]
    for place, (label, part) in enumerate(series.items(), start=1):
        points = sorted((x, row) for row in part if (x := _value(along, row)) is not None)
        body += _one_line(points, tall, band, across, up, place)
        body.append(_legend(label, place))
    return _svg(body, f"{tall.name} / {along.name}: " + "; ".join(series))


def _one_line(
    points: Sequence[tuple[float, int]],
    tall: ReleasedColumn,
    band: Sequence[ReleasedColumn],
    across: Axis,
    up: Axis,
    place: int,
) -> Iterable[Markup]:
    if len(band) == len(_BAND):
        both = [
            (x, low, high)
            for x, row in points
            if (low := _value(band[0], row)) is not None and (high := _value(band[1], row)) is not None
        ]
        outline = [(x, low) for x, low, _ in both] + [(x, high) for x, _, high in reversed(both)]
        path = " ".join(f"{across.place(x):.1f},{up.place(y):.1f}" for x, y in outline)
        yield Markup('<polygon class="band s{}" points="{}"/>').format(place, path)
    dots = [(across.place(x), up.place(y)) for x, row in points if (y := _value(tall, row)) is not None]
    yield Markup('<polyline class="line s{}" points="{}"/>').format(
        place, " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    )
    for x, y in dots:
        yield Markup('<circle class="dot s{}" cx="{}" cy="{}" r="2.6"/>').format(place, f"{x:.1f}", f"{y:.1f}")


# Bars -----------------------------------------------------------------------------------------------------------------


def _bars(
    output: ReleasedTable, rows: Sequence[int], groups: Sequence[ReleasedColumn], held_back: str
) -> Markup | None:
    count = next(column for column in output.columns if column.role == "count")
    values = [value for row in rows if (value := _value(count, row)) is not None]
    if not groups or not values or len(rows) > _MOST_BARS:
        return None
    inner, ends = groups[-1], _ends(output, count)
    values += [end for row in rows for end in ends.get(row, ())]
    clusters: dict[str, list[int]] = {}
    for row in rows:
        label = ", ".join(f"{column.name} {_label(column, row)}" for column in groups[:-1])
        clusters.setdefault(label, []).append(row)
    up = _axis(values, _HEIGHT - _BOTTOM, _TOP, zero=True)
    across = Axis(low=0, high=len(rows) + 0.6 * (len(clusters) - 1), start=_LEFT + 8, end=_WIDTH - _RIGHT)
    body = [_frame(None, up, "", count.name)]
    place = 0.0
    for number_, (label, part) in enumerate(clusters.items(), start=1):
        begin = place
        for row in part:
            series = (number_ - 1) % _MOST_SERIES + 1
            body.append(_bar(count, inner, row, across, up, place, series, held_back, ends.get(row)))
            place += 1
        middle = across.place((begin + place) / 2)
        body.append(_text(middle, _HEIGHT - 12, label or inner.name, "label", "middle"))
        place += 0.6
    return _svg(body, f"{count.name}: " + ", ".join(column.name for column in groups))


def _ends(output: ReleasedTable, column: ReleasedColumn) -> dict[int, tuple[float, float]]:
    """By row the interval of a number with noise."""
    low, high = intervals(output).get(column.name, ((), ()))
    return {row: (float(a), float(b)) for row, (a, b) in enumerate(zip(low, high, strict=True)) if a and b}


def _whisker(ends: tuple[float, float] | None, middle: float, up: Axis) -> Markup:
    if ends is None:
        return Markup("")
    bottom, top = (f"{up.place(end):.1f}" for end in ends)
    left, right = f"{middle - 4:.1f}", f"{middle + 4:.1f}"
    path = f"M{left} {top}H{right}M{middle:.1f} {top}V{bottom}M{left} {bottom}H{right}"
    return Markup('<path class="whisker" d="{}"/>').format(path)


def _bar(
    count: ReleasedColumn,
    inner: ReleasedColumn,
    row: int,
    across: Axis,
    up: Axis,
    place: float,
    series: int,
    held_back: str,
    ends: tuple[float, float] | None,
) -> Markup:
    left, right = across.place(place + 0.1), across.place(place + 0.9)
    floor, middle = up.place(0), (left + right) / 2
    text = _text(middle, up.start + 16, _label(inner, row), "tick", "middle")
    value = _value(count, row)
    if value is None:
        mark = Markup('<rect class="held" x="{}" y="{}" width="{}" height="26" rx="2"><title>{}</title></rect>').format(
            f"{left:.1f}", f"{floor - 26:.1f}", f"{right - left:.1f}", held_back
        )
        return text + mark
    top = up.place(value)
    # A count with noise can be negative: then the bar hangs from the line.
    bar = Markup('<rect class="bar s{}" x="{}" y="{}" width="{}" height="{}" rx="2"/>').format(
        series, f"{left:.1f}", f"{min(top, floor):.1f}", f"{right - left:.1f}", f"{max(abs(floor - top), 0.5):.1f}"
    )
    over = min([top, floor, *(up.place(end) for end in ends or ())])
    said = _text(middle, over - 6, number(str(count.cells[row])), "value", "middle")
    return text + bar + _whisker(ends, middle, up) + said


def _label(column: ReleasedColumn, row: int) -> str:
    cell = column.cells[row]
    return "—" if cell is None else cell


# Forest ---------------------------------------------------------------------------------------------------------------


def _forest(output: ReleasedStatistics) -> Markup | None:
    given = {value.name: value.number for value in output.values}
    found: list[tuple[str, float, float]] = []
    for name, text in given.items():
        stem = name.removesuffix("_coefficient")
        error = given.get(f"{stem}_error")
        if stem != name and text is not None and error is not None:
            found.append((stem, float(text), _INTERVAL * float(error)))
    if not found:
        return None
    ends = [end for _, middle, half in found for end in (middle - half, middle + half)]
    height = _TOP + 44 * len(found) + 44
    across = _axis(ends, 150, _WIDTH - _RIGHT, zero=True)
    body = [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            f"{across.place(tick):.1f}", _TOP, height - 40
        )
        + _text(across.place(tick), height - 22, _tick(tick), "tick", "middle")
        for tick in across.ticks()
    ]
    zero = f"{across.place(0):.1f}"
    body.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(zero, _TOP, height - 40))
    for place, (name, middle, half) in enumerate(found):
        y = _TOP + 22 + 44 * place
        body.append(_text(138, y + 4, name, "label", "end"))
        body.append(
            Markup('<line class="line s1" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
                f"{across.place(middle - half):.1f}", f"{across.place(middle + half):.1f}", y=y
            )
        )
        body.append(Markup('<circle class="dot s1" cx="{}" cy="{}" r="5"/>').format(f"{across.place(middle):.1f}", y))
    body.append(_text(_WIDTH - _RIGHT, height - 4, "95 %", "tick", "end"))
    return _svg(body, "95 %: " + ", ".join(name for name, _, _ in found), height)


# Parts ----------------------------------------------------------------------------------------------------------------


def _frame(across: Axis | None, up: Axis, below: str, beside: str) -> Markup:
    parts = [
        Markup('<line class="grid" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(
            _LEFT, _WIDTH - _RIGHT, y=f"{up.place(tick):.1f}"
        )
        + _text(_LEFT - 8, up.place(tick) + 4, _tick(tick), "tick", "end")
        for tick in up.ticks()
    ]
    parts.append(_text(_LEFT - 8, 12, beside, "label", "start"))
    if across is not None:
        parts += [_text(across.place(tick), _HEIGHT - 32, _tick(tick), "tick", "middle") for tick in across.ticks()]
        parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 12, below, "label", "end"))
    return Markup("").join(parts)


def _legend(label: str, place: int) -> Markup:
    if not label:
        return Markup("")
    y = _TOP + 4 + 18 * (place - 1)
    return Markup('<rect class="bar s{}" x="{}" y="{}" width="12" height="12" rx="2"/>').format(
        place, _WIDTH - 150, y
    ) + _text(_WIDTH - 132, y + 10, label, "label", "start")


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, f"{x:.1f}", f"{y:.1f}", anchor, text if len(text) <= 40 else text[:39] + "…"
    )


def _tick(value: float) -> str:
    return number(f"{value:.10g}") if abs(value) < 1e7 else f"{value:.3g}"


def _svg(body: Iterable[Markup], label: str, height: int = _HEIGHT) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, height, escape(label[:300]), Markup("").join(body)
    )


_STYLE: Final = (
    "text{fill:#444;font:12px sans-serif}.label{fill:#111}.value{fill:#111;font-weight:600}"
    ".grid{stroke:#ddd}.zero{stroke:#888;stroke-dasharray:4 4}.line{fill:none;stroke-width:2.2}"
    ".held{fill:none;stroke:#888;stroke-dasharray:3 3}.whisker{fill:none;stroke:#111;stroke-width:1.4}"
    + "".join(
        f".bar.s{i},.dot.s{i}{{fill:{colour}}}.line.s{i}{{stroke:{colour}}}.band.s{i}{{fill:{colour};opacity:.13}}"
        for i, colour in enumerate(("#0b6e8e", "#c05a1c", "#4f7a28", "#8a3b8f", "#a08000", "#555f8f"), start=1)
    )
)


def picture(drawn: Markup) -> str:
    """A plot as a file of its own: with its namespace and colours, and still without script, link or anything from elsewhere."""
    opening, _, rest = str(drawn).partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{rest}\n'
