"""The hub's parts by themselves: batches that partly fail, waiters, references, files, and the page that describes it."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from kakoi.core import dsse
from kakoi.core.crypto import SigningKey
from kakoi.core.encoding import dumps
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.hub import files, schema
from kakoi.hub.database import Database, Transaction
from kakoi.hub.hub import open_hub
from kakoi.hub.kinds import RULES, describe
from kakoi.hub.notify import News, Notifier, ObjectNews, RunNews
from kakoi.hub.settings import Settings
from support.tree import ROOT

A, B = "a" * 64, "b" * 64


# -- the writer


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = Database(f"sqlite:///{tmp_path / 'x.sqlite'}", queue_length=64, now=lambda: 1)
    yield one
    one.close()


def row(transaction: Transaction, name: str) -> str:
    """One change: a row in ``meta``."""
    transaction.write(insert(schema.meta), {"name": name, "value": "x"})
    return name


def names(database: Database) -> set[str]:
    return set(database.read_now(lambda c: c.execute(select(schema.meta.c.name)).scalars().all()))


def together(database: Database, *jobs: Callable[[Transaction], Any]) -> list[Any]:
    """Results or errors of jobs that are all in the queue before the writer starts, so that they share a batch."""

    async def go() -> list[Any]:
        waiting = [asyncio.ensure_future(database.write(job)) for job in jobs]
        await asyncio.sleep(0)
        database.start()
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(go())


def refuse(transaction: Transaction) -> str:
    raise Refused("test.no", "no")


def refuse_late(transaction: Transaction) -> str:
    row(transaction, "half")
    raise Refused("test.late", "no")


def break_database(transaction: Transaction) -> str:
    row(transaction, "whole-2")
    row(transaction, "whole-2")
    return "never"


def crash(transaction: Transaction) -> str:
    row(transaction, "crashed")
    raise ZeroDivisionError


def test_a_change_that_refuses_leaves_the_others_alone(database: Database) -> None:
    first, no, last = together(database, lambda t: row(t, "one"), refuse, lambda t: row(t, "two"))
    assert (first, last, no.code) == ("one", "two", "test.no")
    assert names(database) == {"one", "two"}


@pytest.mark.parametrize("bad", [refuse_late, break_database, crash])
def test_a_change_that_fails_half_way_is_undone_and_the_others_are_done(
    database: Database, bad: Callable[[Transaction], str]
) -> None:
    first, error, last = together(database, lambda t: row(t, "one"), bad, lambda t: row(t, "two"))
    assert (first, last) == ("one", "two")
    assert isinstance(error, (Refused, Unavailable, ZeroDivisionError))
    assert names(database) == {"one", "two"}


def test_places_of_an_undone_batch_are_used_again(database: Database) -> None:
    def numbered(transaction: Transaction) -> int:
        return transaction.next_seq()

    results = together(database, numbered, crash, numbered, numbered)
    assert [x for x in results if isinstance(x, int)] == [1, 2, 3]
    assert database.read_now(lambda c: c.execute(select(schema.head.c.seq)).scalar_one()) == 3


def test_the_log_of_an_undone_batch_is_forgotten(database: Database) -> None:
    def append(number: int) -> Callable[[Transaction], int]:
        return lambda t: t.append(bytes([number]) * 32, kind="k", digest=f"{number:064x}")

    results = together(database, append(1), crash, append(2), append(3))
    assert [x for x in results if isinstance(x, int)] == [0, 1, 2]
    count = select(func.count()).select_from(schema.nodes)
    assert database.read_now(lambda c: c.execute(count).scalar_one()) == 4


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}", queue_length=1, now=lambda: 1)

    async def go() -> None:
        first = asyncio.ensure_future(database.write(lambda t: row(t, "one")))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as caught:
            await database.write(lambda t: row(t, "two"))
        assert caught.value.code == "hub.busy"
        database.start()
        assert await first == "one"

    asyncio.run(go())
    database.close()
    assert names_of(tmp_path / "x.sqlite") == {"one"}


def names_of(path: Path) -> set[str]:
    again = Database(f"sqlite:///{path}", queue_length=1, now=lambda: 1)
    try:
        return names(again)
    finally:
        again.close()


# -- waiters


def news(kind: str = "k", **references: str) -> ObjectNews:
    return ObjectNews(kind=kind, references=frozenset(references.items()))


@pytest.mark.parametrize(
    ("kinds", "references", "what", "woken"),
    [
        ((), {}, news(), True),
        (("k",), {}, news(), True),
        (("j",), {}, news(), False),
        (("j", "k"), {}, news(), True),
        ((), {"run": A}, news(run=A), True),
        ((), {"run": A}, news(run=B), False),
        ((), {"run": A}, news(contract=A), False),
        ((), {"run": A, "owner": B}, news(run=A), False),
        ((), {"run": A, "owner": B}, news(run=A, owner=B, more=A), True),
        (("k",), {"run": A}, news("j", run=A), False),
        ((), {}, RunNews(contract=A, queued=True), False),
    ],
)
def test_waiters_wake_for_what_they_asked(
    kinds: tuple[str, ...], references: dict[str, str], what: News, woken: bool
) -> None:
    async def go() -> bool:
        notifier = Notifier(5)
        with notifier.objects(frozenset(kinds), frozenset(references.items())) as listener:
            notifier.publish([what])
            waiting = asyncio.ensure_future(listener.wait(0.02))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return waiting.done()

    assert asyncio.run(go()) is woken


def test_waiters_are_counted_and_leave_nothing_behind() -> None:
    async def go() -> None:
        notifier = Notifier(2)
        with notifier.runs(A) as listener, notifier.queue() as queue:
            with pytest.raises(Unavailable), notifier.queue():
                pass
            notifier.publish([RunNews(contract=A, queued=False)])
            await listener.wait(0)
            woken = asyncio.ensure_future(queue.wait(5))
            await asyncio.sleep(0)
            assert not woken.done()
            notifier.close()
            await woken
        assert notifier.waiting == 0
        assert notifier._listeners == {}

    asyncio.run(go())


# -- what is read in an object

KEY = SigningKey(bytes(64))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from([A, B]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=6), st.sampled_from(sorted(RULES)), st.booleans())
def test_any_payload_is_described_or_malformed(members: dict[str, Any], kind: str, passport: bool) -> None:
    value = {**members, "kind": kind}
    if passport:
        value = {"predicateType": "urn:kakoi:passport:v1", "predicate": members, "subject": members.get("s")}
    payload_type = dsse.IN_TOTO_TYPE if passport else dsse.PAYLOAD_TYPE
    try:
        what = describe(dsse.sign(dumps(value), KEY, payload_type=payload_type))
    except Malformed:
        return
    for member, identity in what.references:
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", member)
        assert re.fullmatch(r"[0-9a-f]{64}", identity)


def test_references_come_from_members_lists_and_listed_objects() -> None:
    payload = {
        "kind": "kakoi/withdrawal/v1",
        "one": A,
        "many": [A, B, "x"],
        "objects": [{"inner": B, "deeper": {"no": A}}, {"inner": A}],
        "object": {"no": A},
        "nested": [[A]],
        "bad name": A,
        "short": "abc",
        "upper": A.upper(),
        "none": None,
    }
    found = describe(dsse.sign(dumps(payload), KEY)).references
    assert found == {("one", A), ("many", A), ("many", B), ("inner", A), ("inner", B)}


# -- files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.write_whole(path, b"old", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unavailable) as caught:
        files.write_whole(path, b"new")
    assert caught.value.code == "hub.storage-full"
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "family", "code"),
    [
        (errno.ENOSPC, Unavailable, "hub.storage-full"),
        (errno.EDQUOT, Unavailable, "hub.storage-full"),
        (errno.EACCES, Misuse, "hub.directory"),
        (errno.EROFS, Misuse, "hub.directory"),
        (errno.ENOENT, Misuse, "hub.directory"),
        (errno.EIO, Unavailable, "hub.disk"),
    ],
)
def test_the_operating_systems_errors_are_ours(
    tmp_path: Path, number: int, family: type[KakoiError], code: str
) -> None:
    error = files.translate(OSError(number, "text"), tmp_path)
    assert (type(error), error.code) == (family, code)


def test_a_hub_that_cannot_open_lets_go_of_its_directory(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "hub", log_origin="two words")
    with pytest.raises(KakoiError):
        open_hub(settings)
    open_hub(Settings(directory=tmp_path / "hub")).release()


# -- the page

PAGE = (ROOT / "docs/formats/hub-api.md").read_text("utf-8")


def test_every_kind_and_its_rule_is_on_the_page() -> None:
    described = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4 and cells[3] in ("", "yes"):
            for kind in re.findall(r"`([a-z-]+)`", cells[0]):
                described[f"kakoi/{kind}/v1"] = (cells[1], cells[3] == "yes")
    assert set(described) == set(RULES)
    for kind, (signer, logged) in described.items():
        rule = RULES[kind]
        assert logged == rule.logged, kind
        assert (f"the party in `{rule.named_by}`" == signer) == (rule.signer == "party"), kind
        assert signer.startswith("a session") == (rule.signer == "session"), kind


def test_every_address_is_on_the_page(tmp_path: Path) -> None:
    from kakoi.hub.app import app_of

    hub = open_hub(Settings(directory=tmp_path))
    try:
        app = app_of(hub, lambda _: None)
        paths = {re.sub(r"\{.*?\}", "", getattr(route, "path", "")) for route in app.routes}
    finally:
        hub.release()
    stated = {re.sub(r"\{.*?\}|<.*", "", path) for path in re.findall(r"`(?:[A-Z]+ )?(/v1/[a-z/{}0-9]*)", PAGE)}
    assert paths
    assert paths == {path.split("?")[0] for path in stated}
