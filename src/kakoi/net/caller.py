"""Requests with patience: retries, pauses, and the hub's errors as ours."""

from __future__ import annotations

import io
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.records import Record
from kakoi.net.answers import ErrorAnswer
from kakoi.net.transport import Answer, Body, Request, Stale, Transport

R = TypeVar("R", bound=Record)
T = TypeVar("T")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HEADER: Final = re.compile(r"[ -~]*\Z")
_RETRY_AFTER_MOST: Final = 60
_WAIT_MOST: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the client waits, in seconds, and how often it tries."""

    connect: float = 5
    idle: float = 20
    """Longest silence within one exchange."""
    total: float = 60
    """Longest exchange, besides the time that a blob of its size may take at ``slowest`` and a long poll may wait."""
    slowest: int = 64 * 1024
    """Bytes per second below which the transfer of a blob is given up."""
    attempts: int = 6
    backoff: float = 0.2
    """The n-th pause is random between 0 and ``backoff * 2**n``, at most ``backoff_most``."""
    backoff_most: float = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to the hub. It is sent again after a failure, unless ``once``: so it must be idempotent."""

    method: str
    target: str
    """Path and query behind the hub's own path."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body = b""
    """A ``Body`` must be seekable."""
    extra: float = 0
    """Seconds that this call may take besides ``Patience.total`` and the transfer of its body."""
    wait: int = 0
    """Seconds of silence that are agreed on (long poll)."""
    once: bool = False


class _Again(Unavailable):
    """An Unavailable for which the hub named the time to come back: the request was certainly not carried out."""

    def __init__(self, error: Unavailable, after: int) -> None:
        super().__init__(error.code, error.message, hint=error.hint)
        self.after = after


class Caller:
    """Sends calls to one hub. Safe to use from several threads."""

    def __init__(
        self,
        base_url: str,
        *,
        patience: Patience,
        tls: ssl.SSLContext | None,
        insecure_plain_http: bool,
        pause: Callable[[float], object] | None,
        chance: Callable[[], float] | None,
    ) -> None:
        self.patience = patience
        self._transport = Transport(base_url, connect_seconds=patience.connect, tls=tls, plain_http=insecure_plain_http)
        self.closed = threading.Event()
        self._pause = self.closed.wait if pause is None else pause
        self._chance = random.SystemRandom().random if chance is None else chance

    def close(self) -> None:
        """Close connections; pauses end, and nothing is tried again."""
        self.closed.set()
        self._transport.close()

    @contextmanager
    def once(self, call: Call) -> Iterator[Answer]:
        """The answer to one sending of ``call``, whatever its status."""
        if not 0 <= call.wait <= _WAIT_MOST:
            raise Misuse("net.wait", f"expected to wait from 0 to {_WAIT_MOST} seconds")
        if not all(_HEADER.match(value) for value in call.headers.values()):
            raise Misuse(
                "net.header", "expected printable ASCII in a header, got other characters", hint="check the token"
            )
        body = call.body
        if isinstance(body, bytes):
            body = Body(source=io.BytesIO(body), length=len(body))
        patience = self.patience
        request = Request(
            method=call.method,
            target=self._transport.path + call.target,
            headers={"Accept": "application/json", **call.headers},
            body=body,
            idle=patience.idle + call.wait,
            total=patience.total + call.wait + call.extra + body.length / patience.slowest,
            fresh=call.once,
        )
        with self._transport.exchange(request) as answer:
            yield answer

    def retry(self, call: Call, use: Callable[[Answer], T]) -> T:
        """What ``use`` makes of the answer; after Unavailable the call is sent again, ``Patience.attempts`` times in all."""
        start = 0 if isinstance(call.body, bytes) else call.body.source.tell()
        tries = 0
        while True:
            try:
                with self.once(call) as answer:
                    return use(answer)
            except Unavailable as error:
                tries += not isinstance(error, Stale)
                if call.once and not isinstance(error, _Again):
                    raise
                self.before_retry(error, tries)
                if not isinstance(call.body, bytes):
                    call.body.source.seek(start)

    def before_retry(self, error: Unavailable, tries: int) -> None:
        """Pause before the next try, as long as the hub asked and a random bit more; raise ``error`` if it was the last."""
        if isinstance(error, Stale) and not self.closed.is_set():
            return  # there are only so many kept connections, so this ends
        if tries >= self.patience.attempts or self.closed.is_set():
            raise error
        after = error.after if isinstance(error, _Again) else 0
        # Everybody who was told the same time would come back at the same moment: half as much again, by chance.
        self.pause(tries, least=after * (1 + self._chance() / 2))
        if self.closed.is_set():
            raise error

    def pause(self, tries: int, *, least: float = 0) -> None:
        """Wait at least ``least`` seconds and a random time that grows with ``tries``."""
        most = min(self.patience.backoff_most, self.patience.backoff * (1 << min(tries, 16)))
        self._pause(least + self._chance() * most)

    def read(self, call: Call, limit: int) -> bytes:
        """Body of a successful answer, at most ``limit`` bytes."""

        def use(answer: Answer) -> bytes:
            expect(answer, 200, 201)
            return answer.read(limit)

        return self.retry(call, use)

    def record(self, call: Call, cls: type[R]) -> R:
        """A successful answer as a record."""
        return cls.decode(self.read(call, cls.MAX_BYTES))


def expect(answer: Answer, *statuses: int) -> None:
    """Raise the hub's error unless the answer has one of ``statuses``."""
    if answer.status not in statuses:
        raise error_of(answer)


def error_of(answer: Answer) -> KakoiError:
    """The hub's own error as one of ours, by its status; its text is bounded and cannot steer a terminal."""
    status = answer.status
    code, message, hint = f"hub.status-{status}", f"expected success, got HTTP status {status}", ""
    if status >= 400 and answer.length:
        try:
            said = ErrorAnswer.decode(answer.read(ErrorAnswer.MAX_BYTES))
            code, message, hint = said.code, _CONTROL.sub(" ", said.message), _CONTROL.sub(" ", said.hint)
        except Malformed:
            hint = "the answer is not a Kakoi hub's: is the address right?"
    if status in (429, 503):
        after = answer.header("Retry-After")
        seconds = min(int(after), _RETRY_AFTER_MOST) if re.fullmatch(r"[0-9]{1,6}", after) else 0
        return _Again(Unavailable(code, message, hint=hint), seconds)
    if status == 408 or status >= 500:
        return Unavailable(code, message, hint=hint)
    if status in (400, 411, 413, 414, 415, 422, 431):
        return Malformed(code, message, hint=hint)
    if 400 <= status < 500:
        return Refused(code, message, hint=hint)
    return Malformed(code, message, hint="is this a Kakoi hub?")
