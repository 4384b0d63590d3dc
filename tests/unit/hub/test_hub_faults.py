"""Faults and noise: storage that fails, storage that lies about it, and requests made of anything."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore.exceptions import GenericError

from kakoi.core.encoding import dumps, loads
from kakoi.core.errors import Unavailable
from kakoi.core.ids import BlobId
from kakoi.hub.serve import HubServer
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from support.hub_client import client_of
from unit.hub.hubkit import World, put_all

Call = Callable[..., Awaitable[Any]]


def failing(original: Call, *, after: bool, times: int) -> Call:
    """``original``, which fails its first ``times`` calls: before doing anything, or after having done it."""
    left = times

    async def wrapped(*args: Any, **named: Any) -> Any:
        nonlocal left
        if left > 0 and not after:
            left -= 1
            raise GenericError("storage failed")
        result = await original(*args, **named)
        if left > 0:
            left -= 1
            raise GenericError("storage failed, it said")
        return result

    return wrapped


@pytest.mark.parametrize("after", [False, True], ids=["failed", "stored-but-said-failed"])
@pytest.mark.parametrize("step", ["head_async", "rename_async", "get_async"])
def test_each_step_of_storage_may_fail_or_lie(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    data = os.urandom(500_000)
    blob = BlobId(hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(obstore, step, failing(getattr(obstore, step), after=after, times=1))
    with client_of(server, patience=Patience(attempts=4, backoff=0.01)) as hub:
        hub.put_blob(blob, io.BytesIO(data), len(data))
        assert b"".join(hub.stream_blob(blob, most=len(data))) == data
    assert list((tmp_path / "hub").rglob(".incoming-*")) == []


def test_storage_that_stays_broken_is_unavailable(
    server: HubServer, hub: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obstore, "rename_async", failing(obstore.rename_async, after=False, times=99))
    data = b"data"
    with pytest.raises(Unavailable) as caught:
        hub.put_blob(BlobId(hashlib.sha256(data).hexdigest()), io.BytesIO(data), len(data))
    assert caught.value.code == "hub.storage"
    hub.health()


def test_a_checkpoint_that_cannot_be_written_is_not_given_out(
    server: HubServer, hub: HubClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(hub, world.setup)

    def broken(*_: object, **__: object) -> None:
        raise Unavailable("hub.storage-full", "no space")

    with monkeypatch.context() as patch:
        patch.setattr("kakoi.hub.log.write_whole", broken)
        with pytest.raises(Unavailable):
            hub.log_checkpoint()
    assert hub.log_checkpoint().splitlines()[1] == b"3"


word = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
part = st.one_of(
    st.sampled_from(
        ["v1", "objects", "feed", "blobs", "claims", "runs", "log", "checkpoint", "inclusion", "0" * 64, "..", ""]
    ),
    word,
)
name = st.one_of(
    st.sampled_from(["after", "wait", "kind", "ref", "limit", "size", "leaf", "old", "new", "start"]), word
)
value = st.one_of(st.sampled_from(["0", "1", "-1", "99999999999999999", "run:" + "0" * 64, "0" * 64]), word)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "PATCH", "BREW"]),
    path=st.lists(part, max_size=5),
    query=st.lists(st.tuples(name, value), max_size=3),
    headers=st.dictionaries(
        st.sampled_from(["Range", "Kakoi-Claim", "Authorization", "Content-Type", "X", "Expect"]), word, max_size=2
    ),
    body=st.one_of(st.binary(max_size=50), st.just(dumps({"enclave": "e", "seconds": 2, "wait": 0}))),
)
def test_requests_made_of_anything_get_a_clear_answer(
    server: HubServer, method: str, path: list[str], query: list[tuple[str, str]], headers: dict[str, str], body: bytes
) -> None:
    """Never an internal error, and always an error's form."""
    target = "/" + "/".join(quote(item) for item in path)
    target += "?" + "&".join(f"{quote(n)}={quote(v)}" for n, v in query if v not in ("wait",)) if query else ""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=70)
    try:
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    assert answer.status < 500, (target, data)
    if answer.status >= 400 and data and answer.getheader("Content-Type") == "application/json":
        assert set(loads(data)) == {"code", "message", "hint"}
