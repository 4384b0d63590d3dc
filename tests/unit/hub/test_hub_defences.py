"""What a hub lets go of, and when: the rules that end connections, and the queue that does not grow, each alone and without waiting."""

from __future__ import annotations

import asyncio
import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kakoi.core.errors import Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.database import Database
from kakoi.hub.http import chunks
from kakoi.hub.protocol import _LimitedProtocol
from kakoi.hub.serve import HubServer
from kakoi.hub.settings import Limits
from kakoi.net.caller import Patience
from support.hub_client import client_of

NOW = 1_000_000.0
LIMITS = Limits(head_seconds=10, stall_seconds=20, keep_alive_seconds=15)


class Pipe:
    """A transport that remembers being cut."""

    def __init__(self, *, closing: bool = False) -> None:
        self.closing, self.cut = closing, False

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.cut = True


def swept(what: str, seconds: float, *, pressed: bool = False, vital: bool = False, is_closing: bool = False) -> bool:
    """Is a connection cut that began ``what`` so many seconds ago?"""
    connection: Any = _LimitedProtocol.__new__(_LimitedProtocol)
    connection.transport = pipe = Pipe(closing=is_closing)
    connection.hub_limits, connection.hub_crowd = LIMITS, SimpleNamespace(pressed=pressed)
    connection.scope = {"state": {"who": SimpleNamespace(vital=vital)}}
    for name in ("head", "stall", "closing", "idle"):
        setattr(connection, f"_{name}_since", NOW - seconds if name == what else None)
    connection.sweep(NOW)
    return pipe.cut


@pytest.mark.parametrize(("name", "seconds"), [("head", 10), ("stall", 20)])
def test_what_takes_too_long_is_cut_and_five_times_sooner_when_there_is_no_room(name: str, seconds: float) -> None:
    assert not swept(name, seconds - 0.1)
    assert swept(name, seconds + 0.1)
    assert not swept(name, seconds / 5 - 0.1, pressed=True)
    assert swept(name, seconds / 5 + 0.1, pressed=True)


@pytest.mark.parametrize(("name", "seconds"), [("head", 10), ("stall", 20)])
def test_whoever_helps_a_run_along_has_its_time_even_then(name: str, seconds: float) -> None:
    assert not swept(name, seconds - 0.1, pressed=True, vital=True)
    assert swept(name, seconds + 0.1, pressed=True, vital=True)


def test_idle_connections_go_first_when_there_is_no_room_and_only_then() -> None:
    assert not swept("idle", 1000), "that is uvicorn's own timer"
    assert not swept("idle", 2.9, pressed=True)
    assert swept("idle", 3.1, pressed=True)
    assert not swept("idle", 1000, pressed=True, vital=True)


def test_a_connection_that_is_closing_and_does_not_end_is_cut() -> None:
    assert not swept("", 0, is_closing=True), "it has only begun"
    assert not swept("closing", 1.9, is_closing=True)
    assert swept("closing", 2.1, is_closing=True)


def test_the_queue_of_changes_is_bounded_and_its_last_quarter_is_for_runs(tmp_path: Path) -> None:
    """The writer is not started: what is asked for stays in the queue."""

    async def fill() -> tuple[list[str], int]:
        database = Database(f"sqlite:///{tmp_path / 'hub.sqlite'}", queue_length=8, now=lambda: 1)
        said = []

        async def write(*, vital: bool) -> None:
            try:
                await asyncio.wait_for(database.write(lambda _: None, vital=vital), 0.01)
            except TimeoutError:
                said.append("waits")
            except Unavailable as error:
                said.append(error.code)

        for vital in (False,) * 8 + (True,) * 3:
            await write(vital=vital)
        waiting = database._jobs.qsize()
        database.close()
        return said, waiting

    said, waiting = asyncio.run(fill())
    assert said == ["waits"] * 7 + ["hub.busy"] + ["waits"] + ["hub.busy"] * 2
    assert waiting == 8


def test_a_body_that_trickles_in_is_given_up_however_steadily() -> None:
    """Each piece comes in time; all of them together are slower than bodies may be."""

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def read() -> int:
        limits, count = Limits(stall_seconds=0.3, slowest=10**9), 0
        async for _ in chunks(SimpleNamespace(receive=receive), 100, limits):  # type: ignore[arg-type]
            count += 1
            assert count < 100, "two seconds, and nobody minds"
        return count

    with pytest.raises(Unavailable) as caught:
        asyncio.run(read())
    assert caught.value.code == "hub.timeout"


def test_more_downloads_than_places_are_asked_to_come_again(server: HubServer) -> None:
    data = b"sealed" * 1000
    blob = BlobId(hashlib.sha256(data).hexdigest())
    with client_of(server, patience=Patience(attempts=1)) as hub:
        hub.put_blob(blob, io.BytesIO(data), len(data))
        with server.hub.downloads.take(server.hub.settings.limits.downloads), pytest.raises(Unavailable) as caught:
            list(hub.stream_blob(blob, most=len(data)))
        assert caught.value.code == "hub.busy"
        assert b"".join(hub.stream_blob(blob, most=len(data))) == data
