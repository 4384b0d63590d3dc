"""How much happened, hour by hour, as an SVG drawn on the server: bars of what went well and what was refused, a mark for alerts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

_WIDTH, _HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 34, 26
_EVERY: Final = 3
"""Every so many bars a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One hour."""

    label: str
    ordinary: int
    refused: int
    alerts: int


def _round_up(value: int) -> int:
    """The next of 4, 8, 12, 20, 40, 80, 120, 200 …: four steps of whole numbers."""
    power = 1
    while True:
        for step in (4, 8, 12, 20):
            if value <= step * power:
                return step * power
        power *= 10


def trend(buckets: Sequence[Bucket], *, label: str, words: Sequence[str]) -> Markup:
    """The picture. ``words`` name what went well, what was refused and alerts, for the legend."""
    top = _round_up(max((b.ordinary + b.refused for b in buckets), default=0))
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(buckets))
    high = _HEIGHT - _TOP - _BOTTOM
    body = [_grid(top, high)]
    for number, bucket in enumerate(buckets):
        body.append(_bar(bucket, _LEFT + number * width, width, high / top, label=number % _EVERY == 0))
    body.append(_legend(words))
    sums = [sum(getattr(b, name) for b in buckets) for name in ("ordinary", "refused", "alerts")]
    told = f"{label}. " + "; ".join(f"{word}: {count}" for word, count in zip(words, sums, strict=True))
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, told, Markup("").join(body)
    )


def _grid(top: int, high: float) -> Markup:
    lines = Markup("")
    for step in range(5):
        y = _HEIGHT - _BOTTOM - high * step / 4
        lines += Markup('<line class="grid" x1="{}" y1="{:.1f}" x2="{}" y2="{:.1f}"/>').format(
            _LEFT, y, _WIDTH - _RIGHT, y
        )
        lines += Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(_LEFT - 6, y + 4, top * step // 4)
    return lines


def _bar(bucket: Bucket, x: float, width: float, scale: float, *, label: bool) -> Markup:
    made, base = Markup(""), float(_HEIGHT - _BOTTOM)
    for count, series in ((bucket.ordinary, 1), (bucket.refused, 2)):
        if count:
            base -= count * scale
            made += Markup('<rect class="bar s{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                series, x + width * 0.14, base, width * 0.72, count * scale
            )
    if bucket.alerts:
        middle, y = x + width / 2, base - 5
        made += Markup('<polygon class="dot s5" points="{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}"/>').format(
            middle - 5, y - 8, middle + 5, y - 8, middle, y
        )
    if label:
        made += Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            x + width / 2, _HEIGHT - 8, bucket.label
        )
    return made


def _legend(words: Sequence[str]) -> Markup:
    made, x = Markup(""), float(_LEFT)
    for word, series in zip(words, (1, 2, 5), strict=True):
        made += Markup('<rect class="bar s{}" x="{:.1f}" y="8" width="11" height="11"/>').format(series, x)
        made += Markup('<text class="label" x="{:.1f}" y="18">{}</text>').format(x + 17, word)
        x += 40 + sum(13 if ord(char) > 0x2E7F else 7 for char in word)
    return made
