"""Ways to spoil bytes, whatever they mean: turned bits, cuts, insertions, lengths that lie."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from kakoi.conformance.corpus import Family, Group, Layer, one, several
from kakoi.conformance.trial import Trial
from kakoi.core import der

Rebuild = Callable[[bytes], Trial]
_HUGE: Final = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A named range of bytes. ``length`` marks a number that says how long something is."""

    name: str
    start: int
    end: int
    length: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes with their fields, and how to put changed ones back into a trial."""

    name: str
    data: bytes
    rebuild: Rebuild
    spans: Sequence[Span] = ()
    padding: int = 0
    """So many zero bytes may follow: what differs only in them is no bad twin."""
    blind: Collection[int] = ()
    """Bytes that nobody but the hardware can judge (docs/conformance.md)."""
    order: Literal["little", "big"] = "little"
    """Byte order of the lengths."""
    text: bool = False
    """Line ends may follow (PEM)."""
    same: Callable[[bytes], bool] = lambda _: False
    """Whether other bytes say the same by a tolerance of the format."""

    def place(self, at: int) -> str:
        """The field that byte ``at`` lies in."""
        starts = [span.start for span in self.spans]
        found = bisect_right(starts, at) - 1
        inside = found >= 0 and at < self.spans[found].end
        return self.spans[found].name if inside else "between fields" if self.spans else ""

    @property
    def content(self) -> bytes:
        """Without padding or line ends."""
        return self.data.rstrip(b"\0") if self.padding else self.data.rstrip(b"\r\n") if self.text else self.data

    def is_good(self, twin: bytes) -> bool:
        """Whether ``twin`` says the same as the original."""
        if twin == self.data or self.same(twin):
            return True
        if self.text:
            return twin.rstrip(b"\r\n") == self.content
        padded = self.padding and len(twin) <= len(self.content) + self.padding
        return bool(padded) and twin.rstrip(b"\0") == self.content


def consecutive(*fields: tuple[str, int], start: int = 0) -> list[Span]:
    """Fields that follow each other; a name that ends in ``#`` is a length."""
    found = []
    for name, size in fields:
        found.append(Span(name=name.removesuffix("#"), start=start, end=start + size, length=name.endswith("#")))
        start += size
    return found


def flips(blob: Blob, *, every_bit: bool, family: Family = "signature", layer: Layer = "verify") -> list[Group]:
    """One bit turned in each byte, or each bit in turn."""
    positions = [at for at in range(len(blob.data)) if at not in blob.blind] if blob.blind else range(len(blob.data))
    per = 8 if every_bit else 1
    data = blob.data

    def make(index: int) -> tuple[str, Trial]:
        at = positions[index // per]
        bit = index % 8 if every_bit else at % 8
        twin = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        return f"{blob.name}: bit {bit} of byte {at} turned ({blob.place(at)})", blob.rebuild(twin)

    return [Group(name=f"{blob.name}.flip", family=family, layer=layer, size=per * len(positions), make=make)]


def truncations(blob: Blob, *, step: int = 1) -> list[Group]:
    """Every proper prefix but the empty one, every ``step`` bytes."""
    ends = range(1, len(blob.content), step)

    def make(index: int) -> tuple[str, Trial]:
        return f"{blob.name}: cut to {ends[index]} bytes", blob.rebuild(blob.data[: ends[index]])

    return (
        [Group(name=f"{blob.name}.truncate", family="form", layer="verify", size=len(ends), make=make)] if ends else []
    )


def extensions(blob: Blob) -> list[Group]:
    """Bytes after the end."""
    tails = {
        "a byte 01": b"\x01",
        "a zero byte": b"\0",
        "its last byte again": blob.data[-1:],
        "eight zeros and a byte 01": bytes(8) + b"\x01",
        "a copy of itself": blob.data,
        "a line end": b"\n",
        f"{_HUGE} bytes": b"\xa5" * _HUGE,
        f"{_HUGE} zeros": bytes(_HUGE),
    }
    changed = [
        (f"{blob.name}: {what} after the end", partial(blob.rebuild, blob.data + tail))
        for what, tail in tails.items()
        if not blob.is_good(blob.data + tail)
    ]
    return several(f"{blob.name}.extend", "form", "verify", changed)


def fields(blob: Blob) -> list[Group]:
    """Each field a byte shorter, a byte longer, and gone; nothing else is corrected."""

    def cut(span: Span) -> bytes:
        return blob.data[: span.end - 1] + blob.data[span.end :]

    def longer(span: Span) -> bytes:
        return blob.data[: span.end] + b"\0" + blob.data[span.end :]

    def gone(span: Span) -> bytes:
        return blob.data[: span.start] + blob.data[span.end :]

    makers = {"a byte shorter": cut, "a byte longer": longer, "left out": gone}
    changed = [
        (f"{blob.name}: {span.name} {how}", partial(lambda maker, span: blob.rebuild(maker(span)), maker, span))
        for span in blob.spans
        for how, maker in makers.items()
        if span.end > span.start and maker(span) and not blob.is_good(maker(span))
    ]
    return several(f"{blob.name}.field", "form", "verify", changed)


def lengths(blob: Blob) -> list[Group]:
    """Each length one less, one more, zero, huge."""
    changed = []
    for span in blob.spans:
        if not span.length:
            continue
        width = span.end - span.start
        value = int.from_bytes(blob.data[span.start : span.end], blob.order)
        top = (1 << 8 * width) - 1
        for lie in sorted({0, value - 1, value + 1, top, top >> 1, len(blob.data)} - {value}):
            if 0 <= lie <= top:
                number = lie.to_bytes(width, blob.order)
                twin = blob.data[: span.start] + number + blob.data[span.end :]
                changed.append((f"{blob.name}: {span.name} says {lie} instead of {value}", partial(blob.rebuild, twin)))
    return several(f"{blob.name}.length", "form", "verify", changed)


def everything(blob: Blob, *, every_bit: bool, step: int = 1) -> list[Group]:
    """All of this module's ways."""
    return [
        *flips(blob, every_bit=every_bit),
        *truncations(blob, step=step),
        *extensions(blob),
        *fields(blob),
        *lengths(blob),
    ]


# --- DER -------------------------------------------------------------------------------------------------------------

_CONSTRUCTED: Final = 0x20
_CONTEXT_ONLY: Final = 0x80
Node = tuple[int, "bytes | list[Node]"]


def _tree(data: bytes) -> list[Node]:
    return [(tag, _tree(value) if tag & _CONSTRUCTED else value) for tag, value in der.items(data)]


def _write(nodes: Sequence[Node]) -> bytes:
    return b"".join(der.write(tag, body if isinstance(body, bytes) else _write(body)) for tag, body in nodes)


def _leaves(nodes: Sequence[Node], path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    found = []
    for i, (_, body) in enumerate(nodes):
        found += [(*path, i)] if isinstance(body, bytes) else _leaves(body, (*path, i))
    return found


def _edited(nodes: Sequence[Node], path: tuple[int, ...], edit: Callable[[bytes], bytes]) -> list[Node]:
    out = list(nodes)
    tag, body = out[path[0]]
    out[path[0]] = (tag, edit(body) if isinstance(body, bytes) else _edited(body, path[1:], edit))
    return out


def _removed(nodes: Sequence[Node], path: tuple[int, ...]) -> list[Node]:
    out = list(nodes)
    if len(path) == 1:
        del out[path[0]]
        return out
    tag, body = out[path[0]]
    if isinstance(body, list):
        out[path[0]] = (tag, _removed(body, path[1:]))
    return out


_EDITS: Final[tuple[tuple[str, Callable[[bytes], bytes] | None], ...]] = (
    ("a byte shorter", lambda value: value[:-1]),
    ("a byte longer", lambda value: value + b"\0"),
    ("with a byte before it", lambda value: b"\0" + value),
    ("left out", None),
)
_MOST_LEAVES: Final = 240


def _some(paths: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """All values of a certificate; of a long revocation list its beginning, its end, and some between."""
    if len(paths) <= _MOST_LEAVES:
        return paths
    third = _MOST_LEAVES // 3
    middle = paths[third:-third]
    return [*paths[:third], *middle[:: len(middle) // third + 1], *paths[-third:]]


def der_values(name: str, data: bytes, rebuild: Rebuild) -> list[Group]:
    """Each value of a certificate or list a byte shorter, a byte longer, and gone; all lengths around it corrected."""
    tree = _tree(data)
    paths = _some(_leaves(tree))

    def make(index: int) -> tuple[str, Trial]:
        path, (how, edit) = paths[index // len(_EDITS)], _EDITS[index % len(_EDITS)]
        changed = _removed(tree, path) if edit is None else _edited(tree, path, edit)
        twin = _write(changed)
        if twin == data:  # an empty value cannot be shorter: its tag is turned instead
            twin, how = data[:-1] + bytes([data[-1] ^ 1]), "left, and the last byte turned"
        return f"{name}: value {'.'.join(map(str, path))} {how}", rebuild(twin)

    size = len(paths) * len(_EDITS)
    return [Group(name=f"{name}.value", family="form", layer="verify", size=size, make=make)]


def replaced(name: str, options: dict[str, bytes], rebuild: Rebuild, *, family: Family = "binding") -> list[Group]:
    """Something else in the place of a piece, each option in turn."""
    changed = [(f"{name}: {what} in its place", partial(rebuild, data)) for what, data in options.items()]
    return several(f"{name}.replace", family, "verify", changed)


def absent(name: str, make: Callable[[], Trial]) -> Group:
    """A piece that is missing."""
    return one(f"{name}.missing", "form", "verify", make, f"{name}: left out")
