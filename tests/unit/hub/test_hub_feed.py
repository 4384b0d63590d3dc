"""What a feed shows, to whom, and what it costs: compared with the plain reading of all objects, one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, insert, update

from kakoi.core.errors import KakoiError
from kakoi.hub import feed, schema
from kakoi.hub.concern import NAMES, is_listed
from kakoi.hub.database import Database
from kakoi.hub.kinds import RULES
from kakoi.hub.notify import Notifier

CARD, CONTRACT, ANALYSIS = "kakoi/party-card/v1", "kakoi/contract/v1", "kakoi/analysis/v1"
REQUEST, GRANT, SESSION, APPROVAL = (f"kakoi/{k}/v1" for k in ("run-request", "key-grant", "session", "approval"))
PARTIES = [letter * 64 for letter in "abc"]


@dataclass
class Thing:
    seq: int
    kind: str
    refs: frozenset[tuple[str, str]]

    @property
    def id(self) -> str:
        return f"{self.seq:064x}"


@dataclass
class Shelf:
    """A hub's objects, in memory and in a database."""

    connection: Connection
    things: list[Thing] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, *refs: tuple[str, str]) -> str:
        thing = Thing(len(self.things) + 1, kind, frozenset(refs))
        self.things.append(thing)
        row = {"seq": thing.seq, "id": thing.id, "kind": kind, "signer": "", "received": 1, "envelope": b""}
        self.connection.execute(insert(schema.objects), row)
        for member, value in thing.refs:
            self.connection.execute(
                insert(schema.refs), {"member": member, "value": value, "kind": kind, "seq": thing.seq}
            )
        self.connection.execute(update(schema.head).values(seq=thing.seq))
        return thing.id

    def register(self, keyid: str) -> str:
        card = self.add(CARD)
        row = {"ed25519_keyid": keyid, "mldsa65_keyid": keyid, "object": card, "ed25519": b"", "mldsa65": b""}
        self.connection.execute(insert(schema.keys), row)
        return card

    def run(self, run: str, contract: str) -> str:
        """The run's contract: the one it was first asked for."""
        if run not in self.runs:
            self.runs[run] = contract
            numbers = dict.fromkeys(("seq", "change", "attempt", "lease_seconds", "lease_until"), 1)
            row = {"run": run, "contract": contract, "state": "done", "enclave": "", "token": b"", **numbers}
            self.connection.execute(insert(schema.runs), row)
        return self.runs[run]

    def visible(self, reader: str, cards: set[str], thing: Thing, wanted: frozenset[tuple[str, str]]) -> bool:
        """The rule in plain words: it is listed for all, names the reader, or belongs to a contract that does."""
        contracts = {
            one.id
            for one in self.things
            if one.kind == CONTRACT and any(m in NAMES and v in cards for m, v in one.refs)
        }
        return (
            not reader
            or is_listed(thing.kind, sorted(wanted))
            or any(m in NAMES and v in cards for m, v in thing.refs)
            or any(m == "contract" and v in contracts for m, v in thing.refs)
        )

    def plain(
        self, reader: str, cards: set[str], kinds: frozenset[str], wanted: frozenset[tuple[str, str]], after: int
    ) -> list[str]:
        return [
            thing.id
            for thing in self.things
            if thing.seq > after
            and (not kinds or thing.kind in kinds)
            and wanted <= thing.refs
            and self.visible(reader, cards, thing, wanted)
        ]


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    yield from _shelf()


def _shelf() -> Iterator[Shelf]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        schema.metadata.create_all(connection)
        connection.execute(insert(schema.head), {"id": 1, "seq": 0, "change": 0, "size": 0})
        yield Shelf(connection)
    engine.dispose()


def ask(shelf: Shelf, *, reader: str = "", after: int = 0, limit: int = 3, **named: Any) -> list[str]:
    """All pages."""
    found: list[str] = []
    given = {"kinds": frozenset[str](), "references": frozenset[tuple[str, str]](), **named}
    while True:
        page = feed.page(shelf.connection, after=after, limit=limit, reader=reader, **given)
        assert all(one.seq < two.seq for one, two in pairwise(page.items))
        found += [item.id for item in page.items]
        if page.next == after:
            return found
        after = page.next


OBJECTS = st.lists(
    st.tuples(
        st.sampled_from((CONTRACT, ANALYSIS, REQUEST, GRANT, SESSION, APPROVAL)),
        st.integers(0, 2),
        st.sampled_from(("party", "owner", "recipients", "author")),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, st.integers(0, 2), st.integers(0, 8), st.data())
def test_every_question_is_answered_as_by_reading_everything(
    objects: list[tuple[str, int, str, int, bool]], who: int, after: int, data: st.DataObject
) -> None:
    for shelf in _shelf():
        cards = [shelf.register(keyid) for keyid in PARTIES]
        for kind, party, member, contract, of_run in objects:
            contracts = [one.id for one in shelf.things if one.kind == CONTRACT]
            refs = {(member, cards[party])}
            under, run = contracts[contract % len(contracts)] if contracts else "", f"{contract % 3:064x}"
            if of_run and contracts:
                refs.add(("run", run))
                of = shelf.run(run, under)
                under = of if RULES[kind].of_run else under  # what belongs to a run belongs to its contract
            if kind != CONTRACT and contracts:
                refs.add(("contract", under))
            shelf.add(kind, *refs)
        known = sorted({ref for thing in shelf.things for ref in thing.refs})
        wanted = frozenset(data.draw(st.lists(st.sampled_from(known), max_size=2))) if known else frozenset()
        kinds = data.draw(st.frozensets(st.sampled_from((CONTRACT, REQUEST, GRANT, APPROVAL, ANALYSIS)), max_size=3))
        for reader in ("", PARTIES[who], "d" * 64):
            mine = {cards[who]} if reader == PARTIES[who] else set()
            found = ask(shelf, reader=reader, kinds=kinds, references=wanted, after=after)
            assert found == shelf.plain(reader, mine, kinds, wanted, after)


def statements(shelf: Shelf, **question: Any) -> int:
    asked: list[str] = []

    def note(_c: object, _u: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(shelf.connection.engine, "before_cursor_execute", note)
    try:
        ask(shelf, limit=1000, **question)
    finally:
        event.remove(shelf.connection.engine, "before_cursor_execute", note)
    return len(asked)


def test_a_strangers_question_costs_a_few_statements_however_it_is_put(shelf: Shelf) -> None:
    """Asking for all kinds with references that nothing has once cost one wide statement for each of the kinds."""
    card = shelf.register(PARTIES[0])
    for number in range(30):
        shelf.add(GRANT, ("contract", "e" * 64), ("owner", card), ("run", f"{number:064x}"))
    nothing = frozenset((f"m{n}", f"{n:064x}") for n in range(4))
    assert statements(shelf, reader="d" * 64, references=nothing) <= 5
    assert statements(shelf, reader="", references=nothing) <= 5
    assert statements(shelf, reader="") <= 5
    assert statements(shelf, reader="d" * 64) <= 10
    assert statements(shelf, reader="d" * 64, references=frozenset({("contract", "e" * 64)})) <= 7


def test_a_runs_objects_are_its_parties_and_what_only_names_a_run_is_not(shelf: Shelf) -> None:
    card, run = shelf.register(PARTIES[0]), "1" * 64
    mine, others = shelf.add(CONTRACT, ("party", card)), shelf.add(CONTRACT, ("party", "9" * 64))
    shelf.run(run, mine)
    grant = shelf.add(GRANT, ("run", run), ("contract", mine))
    shelf.add(REQUEST, ("run", run), ("contract", others))
    asked: dict[str, Any] = {"references": frozenset({("run", run)}), "kinds": frozenset({GRANT, REQUEST})}
    assert ask(shelf, reader=PARTIES[0], **asked) == [grant]
    assert ask(shelf, reader=PARTIES[1], **asked) == []


def test_a_reader_is_answered_in_windows(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_WINDOW", 4)
    card = shelf.register(PARTIES[0])
    for number in range(200):
        shelf.add(GRANT, ("owner", card if number % 50 == 49 else "9" * 64))
    assert len(ask(shelf, reader=PARTIES[0], kinds=frozenset({GRANT}))) == 4
    assert ask(shelf, reader=PARTIES[1], kinds=frozenset({GRANT})) == []


def test_whoever_takes_part_does_not_wait_behind_strangers_questions(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'hub.sqlite'}", queue_length=4, now=lambda: 1)
    hold = threading.Event()

    async def both() -> None:
        slow = [asyncio.create_task(database.read(lambda _: hold.wait(60), vital=False)) for _ in range(40)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            assert await database.read(lambda _: "at once") == "at once"
        assert not any(task.done() for task in slow)
        hold.set()
        assert all(await asyncio.gather(*slow))

    try:
        asyncio.run(both())
    finally:
        hold.set()
        database.close()


def test_some_places_to_wait_are_for_those_who_take_part() -> None:
    notifier = Notifier(4, reserve=0.25)
    waiting = [notifier.objects(frozenset(), frozenset(), vital=False) for _ in range(3)]
    for one in waiting:
        one.__enter__()
    with pytest.raises(KakoiError) as caught, notifier.runs("", vital=False):
        pass
    assert caught.value.code == "hub.busy"
    with notifier.objects(frozenset(), frozenset()):
        with pytest.raises(KakoiError), notifier.queue():
            pass
        assert notifier.waiting == 4
    waiting.pop().__exit__(None, None, None)
    with notifier.runs("", vital=False):
        assert notifier.waiting == 3
