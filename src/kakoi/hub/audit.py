"""Re-verifying everything that a hub keeps, from the bytes up. For operators, and for tests after every crash.

It needs no running hub and changes nothing. It cannot know what was never stored; whether anything that was
confirmed is missing, only its sender knows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NoReturn

from sqlalchemy import Connection, func, select

from kakoi.core.dsse import Envelope
from kakoi.core.errors import Fatal, KakoiError
from kakoi.hub import schema
from kakoi.hub.database import node_number
from kakoi.hub.kinds import describe
from kakoi.hub.runs import MAX_ATTEMPTS
from kakoi.tlog.leaf import leaf_hash
from kakoi.tlog.merkle import CompactRange
from kakoi.wire.messages import RunRequest

_STEP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a sound hub holds."""

    objects: int
    runs: int
    size: int
    """Entries of the log."""
    root: bytes


def audit(connection: Connection) -> Audit:
    """Re-verify the whole database.

    1. every object's id, kind and references are those of its bytes, and no reference is left over;
    2. the log holds each object of a logged kind once, in the feed's order, and nothing else;
    3. every stored hash of the log is the one computed from its entries, and none is missing or left over;
    4. every run request has its run, in a state that exists;
    5. the head is where the rows are;
    6. what each party keeps is the sum of its blobs.

    Raises Fatal at the first contradiction.
    """
    logged = _objects(connection)
    tree = _log(connection, logged)
    runs = _runs(connection)
    head = connection.execute(select(schema.head)).one()
    last = connection.execute(select(func.coalesce(func.max(schema.objects.c.seq), 0))).scalar_one()
    change = connection.execute(select(func.coalesce(func.max(schema.runs.c.change), 0))).scalar_one()
    if (head.seq, head.size) != (last, tree.size) or head.change < change:
        _wrong("the head to be where the rows are")
    _usage(connection)
    objects = connection.execute(select(func.count()).select_from(schema.objects)).scalar_one()
    return Audit(objects=objects, runs=runs, size=tree.size, root=tree.root)


def _objects(connection: Connection) -> list[tuple[str, str]]:
    """Kind and id of each object that must be in the log, in order."""
    logged: list[tuple[str, str]] = []
    after, references = 0, 0
    while True:
        query = select(schema.objects).where(schema.objects.c.seq > after).order_by(schema.objects.c.seq).limit(_STEP)
        rows = connection.execute(query).all()
        if not rows:
            break
        found: dict[int, set[tuple[str, str, str]]] = {row.seq: set() for row in rows}
        refs = schema.refs.c
        for ref in connection.execute(select(schema.refs).where(refs.seq >= rows[0].seq, refs.seq <= rows[-1].seq)):
            found.setdefault(ref.seq, set()).add((ref.member, ref.value, ref.kind))
        for row in rows:
            try:
                envelope = Envelope.decode(bytes(row.envelope))
                what = describe(envelope)
            except KakoiError:
                _wrong("every object to be readable")
            if (envelope.payload_id, what.rule.name) != (row.id, row.kind):
                _wrong("every object under its own id and kind")
            if found[row.seq] != {(member, value, row.kind) for member, value in what.references}:
                _wrong("every object's references to be those of its bytes")
            if what.rule.logged:
                logged.append((row.kind, row.id))
        references += sum(map(len, found.values()))
        after = rows[-1].seq
    if connection.execute(select(func.count()).select_from(schema.refs)).scalar_one() != references:
        _wrong("no reference without its object")
    return logged


def _log(connection: Connection, logged: list[tuple[str, str]]) -> CompactRange:
    tree, count = CompactRange(), 0
    rows = connection.execute(select(schema.leaves).order_by(schema.leaves.c.position)).all()
    if [(row.kind, row.object) for row in rows] != logged:
        _wrong("each logged object once in the log, in order")
    stored = {row.id: bytes(row.hash) for row in connection.execute(select(schema.nodes))}
    for place, row in enumerate(rows):
        leaf = leaf_hash(row.kind, row.object)
        if (row.position, bytes(row.hash)) != (place, leaf):
            _wrong("every entry of the log at its place")
        tree, new = tree.append(leaf)
        if any(stored.get(node_number(node)) != digest for node, digest in new):
            _wrong("every stored hash of the log to follow from its entries")
        count += len(new)
    if count != len(stored):
        _wrong("no stored hash without its entries")
    return tree


def _runs(connection: Connection) -> int:
    requests = connection.execute(select(schema.objects.c.id).where(schema.objects.c.kind == RunRequest.KIND)).scalars()
    rows = connection.execute(select(schema.runs)).all()
    if Counter(requests) != Counter(row.run for row in rows):
        _wrong("one run for each run request")
    states = {"queued", "claimed", "done", "failed", "abandoned"}
    if any(row.state not in states or not 0 <= row.attempt <= MAX_ATTEMPTS for row in rows):
        _wrong("every run in a state that exists")
    return len(rows)


def _usage(connection: Connection) -> None:
    blobs, usage = schema.blobs.c, schema.usage.c
    sums = select(blobs.identity, func.count(), func.sum(blobs.size)).group_by(blobs.identity)
    kept = {row[0]: (row[1], int(row[2])) for row in connection.execute(sums)}
    said = {row.identity: (row.blobs, row.blob_bytes) for row in connection.execute(select(schema.usage))}
    if {name: amounts for name, amounts in said.items() if amounts != (0, 0)} != kept:
        _wrong("everybody's usage to be the sum of its blobs")
    if connection.execute(select(usage.identity).where((usage.objects < 0) | (usage.object_bytes < 0))).first():
        _wrong("no usage below zero")


def _wrong(what: str) -> NoReturn:
    raise Fatal(
        "hub.audit", f"expected {what}, got something else", hint="restore a backup; keep this copy as evidence"
    )
