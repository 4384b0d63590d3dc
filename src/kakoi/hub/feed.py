"""Finding objects: what lies behind a place, of some kinds, with some references, and of concern to whoever reads.

The cost of an answer is bounded by what the reader may see and by the page, not by what the hub keeps or by how a question is put:
a stranger's question among a million objects costs as much as among ten. Every statement is answered from one index, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, TextClause, and_, exists, select, text, union

from kakoi.core.ids import ObjectId
from kakoi.hub import schema
from kakoi.hub.concern import NAMES, cards_of, concerns, contracts_of, is_listed, names_contract
from kakoi.hub.kinds import RULES
from kakoi.net.answers import FeedItem, FeedPage

References = Sequence[tuple[str, str]]
Found = Row[tuple[int, str, str]]
_WINDOW: Final = 10_000
"""Places that are looked at for one reader's own objects in one statement, at first ..."""
_WIDER: Final = 8
"""... and so many times more in the next: who has a page of them is answered from the first, who has none after a few."""


def page(
    connection: Connection,
    *,
    after: int,
    kinds: frozenset[str],
    references: frozenset[tuple[str, str]],
    limit: int,
    reader: str,
) -> FeedPage:
    """At most ``limit`` objects behind ``after``, in order; those that concern ``reader`` (a party's key id), if there is one.

    ``next`` is the end of what was looked at, so that a reader skips it next time.
    """
    last = int(connection.execute(select(schema.head.c.seq)).scalar_one())
    if last <= after:
        return FeedPage(items=(), next=after)
    rows = _Search(connection, after, last, limit, references).rows(kinds, reader)
    rows.sort(key=lambda row: row.seq)
    items = tuple(FeedItem(seq=row.seq, id=ObjectId(row.id), kind=row.kind) for row in rows[:limit])
    return FeedPage(items=items, next=items[-1].seq if len(items) == limit else last)


class _Search:
    """One question."""

    def __init__(
        self, connection: Connection, after: int, last: int, limit: int, references: frozenset[tuple[str, str]]
    ) -> None:
        self._connection, self._after, self._last, self._limit = connection, after, last, limit
        # A contract or party is named by thousands of objects, a run or session by a few: start from the few.
        self._references = sorted(references, key=lambda ref: (ref[0] in ("contract", "party", "owner"), ref))

    def rows(self, kinds: frozenset[str], reader: str) -> list[Found]:
        """What matches, in pieces that are each in order and no longer than a page.

        1. kinds of which nothing has the first reference are left out, all in one statement;
        2. kinds that are listed for everybody, and everything of a contract, run or party that is the reader's, need no more questions;
        3. whatever else is asked for is looked for among what concerns the reader.
        """
        if not kinds and not self._references and not reader:
            return self._everything()
        wanted = kinds & RULES.keys() if kinds else frozenset(RULES)
        if self._references:
            wanted &= self._named(*self._references[0])
        private = frozenset(kind for kind in wanted if reader and not is_listed(kind, self._references))
        if private:
            private -= self._settled(private, reader)
        rows = self._of_kinds(wanted - private)
        return rows + self._of_reader(private, reader) if private else rows

    def _everything(self) -> list[Found]:
        objects = schema.objects.c
        query = select(objects.seq, objects.id, objects.kind).where(
            objects.seq > self._after, objects.seq <= self._last
        )
        return list(self._connection.execute(query.order_by(objects.seq).limit(self._limit)))

    def _named(self, member: str, value: str) -> frozenset[str]:
        """Kinds of which something has this reference."""
        given = {"member": member, "value": value, "after": self._after, "last": self._last}
        return frozenset(row[0] for row in self._connection.execute(_kinds_with(), given))

    def _settled(self, kinds: frozenset[str], reader: str) -> frozenset[str]:
        """Of ``kinds``, those of which everything with these references concerns the reader, because one of them is its own."""

        if concerns(self._connection, reader, frozenset(self._references)):
            return kinds
        runs = [value for member, value in self._references if member == "run"]
        under = select(schema.runs.c.contract).where(schema.runs.c.run.in_(runs))
        if runs and names_contract(self._connection, reader, self._connection.execute(under).scalars().all()):
            return frozenset(kind for kind in kinds if RULES[kind].of_run)  # those are of their run's contract
        return frozenset()

    def _of_kinds(self, kinds: Iterable[str]) -> list[Found]:
        """One range of an index for each kind."""
        rows: list[Found] = []
        for kind in kinds:
            rows += self._connection.execute(self._of_kind(kind)).all()
        return rows

    def _of_kind(self, kind: str) -> Select[tuple[int, str, str]]:
        objects, refs = schema.objects.c, schema.refs.c
        if not self._references:
            query = select(objects.seq, objects.id, objects.kind).where(objects.kind == kind)
            place = objects.seq
        else:
            (member, value), *others = self._references
            query = select(refs.seq, objects.id, objects.kind).join_from(
                schema.refs, schema.objects, objects.seq == refs.seq
            )
            query = query.where(refs.member == member, refs.value == value, refs.kind == kind)
            query = query.where(*(_also(number, *other) for number, other in enumerate(others)))
            place = refs.seq
        return query.where(place > self._after, place <= self._last).order_by(place).limit(self._limit)

    def _of_reader(self, kinds: frozenset[str], reader: str) -> list[Found]:
        """What names the reader, or belongs to a contract that does: from the references to it, however much else there is.

        In windows of places, because a reader with years of work behind it must not have all of it sorted for each page.
        """
        start, width = self._after, _WINDOW
        rows: list[Found] = []
        while start < self._last and len(rows) < self._limit:
            end = min(self._last, start + width)
            rows += self._connection.execute(_own(kinds, reader, self._references, start, end, self._limit)).all()
            start, width = end, width * _WIDER
        return rows


@cache
def _kinds_with() -> TextClause:
    """The kinds of which something has a reference: one look into the index for each, in one statement."""
    kinds = " UNION ALL ".join(f"SELECT '{kind}' AS kind" for kind in RULES)  # names of ours
    return text(
        f"SELECT kinds.kind FROM ({kinds}) AS kinds WHERE EXISTS (SELECT 1 FROM refs WHERE refs.member = :member"  # noqa: S608
        " AND refs.value = :value AND refs.kind = kinds.kind AND refs.seq > :after AND refs.seq <= :last)"
    )


def _also(number: int, member: str, value: str) -> Any:
    """SQL: the object has another reference too."""
    refs, other = schema.refs.c, schema.refs.alias(f"other{number}").c
    return exists().where(other.member == member, other.value == value, other.kind == refs.kind, other.seq == refs.seq)


def _own(
    kinds: frozenset[str], reader: str, references: References, start: int, end: int, limit: int
) -> Select[tuple[int, str, str]]:
    refs, objects = schema.refs.c, schema.objects.c
    here = and_(refs.kind.in_(sorted(kinds)), refs.seq > start, refs.seq <= end)
    also = [_also(number, *reference) for number, reference in enumerate(references)]
    found = union(
        select(refs.seq).where(refs.member == "contract", refs.value.in_(contracts_of(reader)), here, *also),
        select(refs.seq).where(refs.member.in_(NAMES), refs.value.in_(cards_of(reader)), here, *also),
    )
    places = found.order_by("seq").limit(limit).subquery("places")
    return (
        select(objects.seq, objects.id, objects.kind)
        .join_from(places, schema.objects, objects.seq == places.c.seq)
        .order_by(objects.seq)
    )
