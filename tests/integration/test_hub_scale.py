"""A hub with years of work in it: every question is still answered from an index, within milliseconds, on both databases.

What is asserted is independent of how busy the machine is: no statement reads a whole table, none sorts more than a page's worth, and none
touches more rows than a page and its neighbourhood; on SQLite also its processor time. Wall time is printed by ``bench``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, update

from kakoi.core.ids import ObjectId
from kakoi.hub import schema
from kakoi.hub.database import Transaction, node_number
from kakoi.hub.hub import open_hub
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.tlog.leaf import leaf_hash
from kakoi.tlog.merkle import CompactRange
from support.hub_client import client_of
from support.postgresql import cluster
from unit.hub.hubkit import Party, World, put_all

CONTRACTS, RUNS, ENTRIES, PER_RUN = 1000, 10_000, 100_000, 5
CONTRACT, REQUEST = "kakoi/contract/v1", "kakoi/run-request/v1"
QUEUED, WAITING, AT_WORK = 2000, 200, 40
"""Runs that wait, the contracts they are of, and runs at work, besides the many that have ended."""
MOST_MILLISECONDS = 50
MOST_ROWS = 25_000
"""Rows that one statement may touch: what is looked up for each of the thousand contracts of a party to all of them; not the tables."""
FEW_ROWS = 10
"""A table of so few rows PostgreSQL reads from end to end, rightly."""
_SMALL = re.compile(
    r"SCAN (head|anon_[0-9]+|places|kinds|CONSTANT ROW|[0-9]+ CONSTANT ROWS?|\(.*|.* USING COVERING INDEX runs_turn.*)"
)
"""What SQLite reads from end to end: results of inner questions, which are bounded, and the one row of ``head``."""
BUSY, NOBODY = Party("Busy"), Party("Nobody")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hub-scale"), pytest.mark.timeout(400)]


def name(kind: str, number: int) -> str:
    return f"{kind}{number:0{64 - len(kind)}x}"


def fill(transaction: Transaction) -> None:
    """Rows as ``objects.store`` would write them; the envelopes are empty, because nobody reads them here."""
    objects: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []

    def add(identity: str, kind: str, **named: str) -> int:
        seq = transaction.next_seq()
        objects.append({"seq": seq, "id": identity, "kind": kind, "signer": "", "received": 1, "envelope": b""})
        refs.extend({"member": m, "value": v, "kind": kind, "seq": seq} for m, v in named.items())
        return seq

    for party in (BUSY, NOBODY):
        add(party.id, "kakoi/party-card/v1")
        public = party.key.verifying_key
        named = {"ed25519_keyid": public.ed25519_keyid, "mldsa65_keyid": public.mldsa65_keyid, "object": party.id}
        transaction.write(insert(schema.keys), {**named, "ed25519": public.ed25519, "mldsa65": public.mldsa65})
    for number in range(CONTRACTS):
        add(name("c", number), CONTRACT, party=name("a", number % 50), drafter=BUSY.id)
    runs, keys = [], []
    for number in range(RUNS):
        key = {"ed25519_keyid": name("8", number), "mldsa65_keyid": name("9", number), "object": name("7", number)}
        keys.append({**key, "ed25519": b"", "mldsa65": b"", "run": name("f", number), "attempt": 1})
        run, contract = name("f", number), name("c", number % 10)  # most work is done under few contracts
        row = {"run": run, "contract": contract, "seq": add(run, REQUEST, contract=contract, party=name("a", 1))}
        more = {"state": "done", "attempt": 1, "enclave": "e", "token": b"", "lease_seconds": 9, "lease_until": 9}
        runs.append({**row, **more, "change": transaction.next_change()})
        for part in range(PER_RUN):
            kind = ("challenge", "challenge", "session", "key-grant", "result")[part]
            add(name("e", number * PER_RUN + part), f"kakoi/{kind}/v1", run=run, contract=contract)
    for number in range(QUEUED + AT_WORK):
        run, contract = name("d", number), name("c", number % WAITING)
        row = {"run": run, "contract": contract, "seq": add(run, REQUEST, contract=contract, party=name("a", 1))}
        state = "queued" if number < QUEUED else "claimed"
        more = {"state": state, "attempt": int(number >= QUEUED), "enclave": "e", "token": b"", "lease_seconds": 3600}
        runs.append({**row, **more, "lease_until": transaction.now + 3600, "change": transaction.next_change()})
    for rows, table in ((objects, schema.objects), (refs, schema.refs), (runs, schema.runs), (keys, schema.keys)):
        transaction.write(insert(table), rows)
    tree, leaves, nodes = CompactRange(), [], []
    for number in range(ENTRIES):
        leaf = leaf_hash(CONTRACT, name("b", number))
        tree, new = tree.append(leaf)
        leaves.append({"position": number, "hash": leaf, "kind": CONTRACT, "object": name("b", number)})
        nodes += [{"id": node_number(node), "hash": digest} for node, digest in new]
    transaction.write(insert(schema.leaves), leaves)
    transaction.write(insert(schema.nodes), nodes)
    transaction.write(update(schema.head).values(size=ENTRIES))
    transaction._size = ENTRIES


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[HubServer]:
    with ExitStack() as stack:
        url = ""
        if request.param == "postgresql":
            url = stack.enter_context(cluster(tmp_path_factory.mktemp("cluster"))).database()
        settings = Settings(directory=tmp_path_factory.mktemp("scale"), port=0, database_url=url)
        hub = open_hub(settings)
        hub.database.write_now(fill)
        if url:
            hub.database.read_now(lambda connection: connection.exec_driver_sql("ANALYZE") and None)
        hub.release()
        yield stack.enter_context(running(settings))


LAST = 2 + CONTRACTS + RUNS * (PER_RUN + 1) + QUEUED + AT_WORK
QUESTIONS: dict[str, Callable[[HubClient], object]] = {
    "newest objects": lambda hub: hub.feed(after=LAST - 50, limit=100),
    "oldest objects": lambda hub: hub.feed(after=0, limit=100),
    "contracts of a party": lambda hub: hub.feed(kinds=[CONTRACT], refs={"party": name("a", 7)}),
    "all contracts": lambda hub: hub.feed(kinds=[CONTRACT], limit=1000),
    "first requests under a busy contract": lambda hub: hub.feed(kinds=[REQUEST], refs={"contract": name("c", 3)}),
    "last requests under a busy contract": lambda hub: hub.feed(
        after=LAST - 600, kinds=[REQUEST], refs={"contract": name("c", 3)}
    ),
    "everything of a run": lambda hub: hub.feed(refs={"run": name("f", 7777)}),
    "one kind of a run": lambda hub: hub.feed(kinds=["kakoi/result/v1"], refs={"run": name("f", 7777)}),
    "a run under its contract": lambda hub: hub.feed(refs={"run": name("f", 7777), "contract": name("c", 7)}),
    "nothing of a rare kind": lambda hub: hub.feed(kinds=["kakoi/denial/v1"]),
    "references that nothing has": lambda hub: hub.feed(refs={f"m{n}": name("1", n) for n in range(4)}),
    "first 1000 runs": lambda hub: hub.runs(limit=1000),
    "last runs": lambda hub: hub.runs(after=RUNS - 100),
    "runs of a contract": lambda hub: hub.runs(contract=name("c", 3), limit=100),
    "runs of a contract without runs": lambda hub: hub.runs(contract=name("c", 900)),
    "a run's state": lambda hub: hub.run(ObjectId(name("f", 5000))),
    "checkpoint": lambda hub: hub.log_checkpoint(),
    "inclusion": lambda hub: hub.log_inclusion(leaf_hash(CONTRACT, name("b", 77_777)), ENTRIES),
    "consistency": lambda hub: hub.log_consistency(54_321, ENTRIES),
    "1000 log entries": lambda hub: hub.log_entries(50_000, 51_000),
}


PARTIES = {"enclave": None, "party to everything": BUSY, "party to nothing": NOBODY}


def statements_of(server: HubServer, ask: Callable[[], object]) -> list[tuple[str, Any]]:
    """What is asked of the database meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
        if "nonces" not in statement:
            statements.append((statement, parameters))

    engines = (server.hub.database._reader_engine, server.hub.database._writer_engine)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)
    return statements


@pytest.mark.parametrize("who", PARTIES)
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_is_answered_from_an_index(server: HubServer, question: str, who: str) -> None:
    party = PARTIES[who]
    identity = {} if party is None else {"identity": party_identity(party.key, party.card)}
    with client_of(server) as enclave, HubClient(server.url, **identity) as other:  # type: ignore[arg-type]
        asked = statements_of(server, lambda: QUESTIONS[question](other if identity else enclave))
    assert asked
    with server.hub.database._reader_engine.connect() as connection:
        for statement, parameters in asked:
            examine(connection, statement, parameters)


def test_whose_turn_it_is_is_read_from_an_index(server: HubServer) -> None:
    """The statement of fair shares, and all others of a claim, with many runs that ended and many that wait."""
    with client_of(server) as hub:
        asked = statements_of(server, lambda: hub.claim(enclave="e", seconds=60))
    reading = [one for one in asked if one[0].lstrip().startswith("SELECT") and "FOR UPDATE" not in one[0]]
    assert any("count(*)" in statement for statement, _ in reading), "whose turn it is"
    with server.hub.database._reader_engine.connect() as connection:
        for statement, parameters in reading:
            examine(connection, statement, parameters)


def examine(connection: Connection, statement: str, parameters: Any) -> None:
    """Raise AssertionError for a statement that reads a table from end to end, or much more than it gives."""
    if connection.dialect.name == "postgresql":
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
        (plan,) = json.loads(explained) if isinstance(explained, str) else explained
        nodes = list(all_nodes(plan["Plan"]))
        whole = [node for node in nodes if node["Node Type"] == "Seq Scan" and touched(node) > FEW_ROWS]
        assert not whole, (statement, plan)
        assert sum(map(touched, nodes)) <= MOST_ROWS, (statement, plan)
        return
    plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    whole = [step for step in plan if step.startswith("SCAN") and not _SMALL.match(step)]
    assert not whole, (statement, plan)
    times = []
    for _ in range(3):
        started = time.thread_time()
        connection.exec_driver_sql(statement, parameters).all()
        times.append(time.thread_time() - started)
    assert min(times) * 1000 < MOST_MILLISECONDS, statement


def all_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from all_nodes(part)


def touched(node: dict[str, Any]) -> int:
    """Rows that a node read from a table or index, with those that it read for nothing."""
    if "Relation Name" not in node and "Index Name" not in node:
        return 0
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return int(rows * node["Actual Loops"])


def test_storing_costs_the_same_as_in_an_empty_hub(server: HubServer) -> None:
    """No statement that stores an object touches more rows for what is there already."""
    with client_of(server) as hub:
        world = World()
        asked = statements_of(server, lambda: put_all(hub, world.setup))
    reading = [one for one in asked if one[0].lstrip().startswith("SELECT") and "FOR UPDATE" not in one[0]]
    assert reading
    with server.hub.database._reader_engine.connect() as connection:
        for statement, parameters in reading:
            examine(connection, statement, parameters)
