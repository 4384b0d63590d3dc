"""Vectors, and the groups of twins made of each.

A group is indexed, not a list: twin ``i`` is made when somebody asks for it, so a corpus of a million twins costs no
memory, and one twin can be made again from its id: ``<vector>/<group>/<index>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from kakoi.conformance.trial import Kind, Trial

Layer = Literal["verify", "appraise"]
"""``verify``: to be refused whatever anybody wants. ``appraise``: genuine, and refused by this policy, for this session."""
Family = Literal[
    "good", "form", "signature", "chain", "window", "revocation", "binding", "tcb", "debug", "policy", "session"
]
FAMILIES: Final[dict[Family, str]] = {
    "good": "not a bad twin: refusing it is the mistake",
    "form": "the bytes are not of the format: cut, extended, reserved bits, lengths that lie",
    "signature": "signed by nobody, by somebody else, or changed after signing",
    "chain": "a certificate that may not stand where it stands: root, issuer, name, CA flag, key usage, order",
    "window": "a certificate, list or statement before or after its time",
    "revocation": "a certificate that is on its issuer's list, or a list that is missing, stale or of another issuer",
    "binding": "pieces that are each genuine and do not belong together",
    "tcb": "a platform below what the vendor supports or the owners want",
    "debug": "an enclave or guest whose memory its host can read",
    "policy": "genuine, and not what the owners accept",
    "session": "genuine, and of another session: replayed, relayed, or bound to something else",
}
Make = Callable[[int], tuple[str, Trial]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Twins that break the same rule in the same way. ``make(i)`` gives what was changed, and the trial."""

    name: str
    family: Family
    layer: Layer
    size: int
    make: Make
    reasons: tuple[str, ...] = ()
    """What our own verifiers give as reason (patterns); empty: anything. Others are not held to it."""

    @property
    def good(self) -> bool:
        """Whether these have to be accepted."""
        return self.family == "good"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector:
    """One piece of evidence and everything made of it."""

    name: str
    kind: Kind
    recorded: bool
    """Of a real machine; else minted under a test root."""
    groups: Sequence[Group]


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One member of a group."""

    vector: Vector
    group: Group
    index: int

    @property
    def id(self) -> str:
        """Stable for recorded vectors; minted ones have fresh keys each time, and the same changes."""
        return f"{self.vector.name}/{self.group.name}/{self.index}"


def one(
    name: str, family: Family, layer: Layer, make: Callable[[], Trial], changed: str = "", reasons: Sequence[str] = ()
) -> Group:
    """A group of a single twin."""
    label = changed or name.rpartition(".")[2].replace("-", " ")
    return Group(name=name, family=family, layer=layer, size=1, make=lambda _: (label, make()), reasons=tuple(reasons))


def several(
    name: str,
    family: Family,
    layer: Layer,
    makers: Iterable[tuple[str, Callable[[], Trial]]],
    reasons: Sequence[str] = (),
) -> list[Group]:
    """A group of named twins; none if there are none."""
    listed = list(makers)

    def make(index: int) -> tuple[str, Trial]:
        label, maker = listed[index]
        return label, maker()

    if not listed:
        return []
    return [Group(name=name, family=family, layer=layer, size=len(listed), make=make, reasons=tuple(reasons))]


def chosen(vector: Vector, group: Group, sample: int | None) -> Sequence[int]:
    """The indices to try: all, or ``sample`` of them, spread evenly from a start that depends on the group only."""
    if sample is None or group.size <= sample:
        return range(group.size)
    start = int.from_bytes(hashlib.sha256(f"{vector.kind}/{group.name}".encode()).digest()[:4], "big")
    return sorted({(start + i * group.size // sample) % group.size for i in range(sample)})


def twins(vectors: Iterable[Vector], *, sample: int | None, layers: Sequence[Layer]) -> Iterator[Twin]:
    """All twins to try, vector by vector."""
    for vector in vectors:
        for group in vector.groups:
            if group.good or group.layer in layers:
                for index in chosen(vector, group, sample):
                    yield Twin(vector=vector, group=group, index=index)


def count(vectors: Iterable[Vector], *, sample: int | None, layers: Sequence[Layer]) -> int:
    """How many ``twins`` gives."""
    return sum(
        len(chosen(vector, group, sample))
        for vector in vectors
        for group in vector.groups
        if group.good or group.layer in layers
    )
