"""What tests of the client share: a client that is closed afterwards, servers of one answer, errors that are caught."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kakoi.core import dsse
from kakoi.core.crypto import SigningKey
from kakoi.core.errors import KakoiError
from kakoi.core.ids import BlobId
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient

Serve = Callable[[Callable[[Any], None]], Any]
SIGNER = SigningKey(bytes(range(64)))
ENVELOPE = dsse.sign(b'{"kind":"kakoi/x/v1"}', SIGNER)
QUICK = Patience(connect=1, idle=0.5, total=1, attempts=3, backoff=0.01)
BLOB = bytes(range(256)) * 4096
BLOB_ID = BlobId(hashlib.sha256(BLOB).hexdigest())
ZERO = BlobId("0" * 64)


class Pauses(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


MADE: list[HubClient] = []


@pytest.fixture(autouse=True)
def closed_afterwards() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def client(server: Any, *, pauses: Pauses | None = None, patience: Patience = QUICK) -> HubClient:
    pause = pauses if pauses is not None else Pauses()
    MADE.append(HubClient(server.url, patience=patience, pause=pause, chance=lambda: 0.5))
    return MADE[-1]


def always(body: bytes = b"", *, status: int = 200, headers: str = "") -> Callable[[Any], None]:
    def script(peer: Any) -> None:
        while True:
            line, sent = peer.request()
            if not line:
                return
            peer.body(int(sent.get("content-length", 0)))
            peer.answer(body, status=status, headers=headers)

    return script


def raises(call: Callable[[], object]) -> KakoiError:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value
