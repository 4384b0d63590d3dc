"""Requests with patience: signatures, retries, pauses, and the hub's errors as ours."""

from __future__ import annotations

import hashlib
import io
import random
import re
import secrets
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from kakoi.core.dsse import Envelope
from kakoi.core.encoding import b64
from kakoi.core.errors import KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.records import Record
from kakoi.net.answers import ErrorAnswer
from kakoi.net.identity import Identity
from kakoi.net.posture import FIELD, own
from kakoi.net.signature import LIFETIME, NONCE_BYTES, Message, Parameters, base, content_digest, fields_of
from kakoi.net.transport import BLOCK, Answer, Body, Request, Stale, Transport

R = TypeVar("R", bound=Record)
T = TypeVar("T")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_HEADER: Final = re.compile(r"[ -~]*\Z")
_RETRY_AFTER_MOST: Final = 60
TICKET: Final = "Kakoi-Ticket"
"""What a hub under attack knows its clients by: it gives it, and the client sends it along. It is worth nothing to others."""
_TICKET: Final = re.compile(r"[0-9a-z.]{1,200}\Z")
_WAIT_MOST: Final = 60
_TIME: Final = ("hub.signature-time", "hub.status-401")
"""The answer to a HEAD has no body, so no code."""
_SPENT: Final = "hub.rate"
"""A spent budget is no reason to spend another hub's."""
_REPAIRS: Final = 3
"""A call is sent so often while the hub names what is missing: its time, then the card."""


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
    digest: bytes = b""
    """SHA-256 of a ``Body``, if it is known beforehand; else the body is read twice."""
    introduces: bool = False
    """True if the object in the body is signed by the client's own key: a hub that does not know the key can learn it."""


class _Again(Unavailable):
    """An Unavailable for which the hub named the time to come back: the request was certainly not carried out."""

    def __init__(self, error: Unavailable, after: int) -> None:
        super().__init__(error.code, error.message, hint=error.hint)
        self.after = after


class _Signatures:
    """Signs calls. Its clock follows the hub's, which alone judges a signature's age."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._offset = 0.0

    def follow(self, hub_time: int) -> None:
        """Go by the hub's time from now on. A hub that lies about it gets signatures that only itself would take."""
        self._offset = hub_time - time.time()

    def over(self, call: Call, authority: str, target: str, headers: Mapping[str, str]) -> dict[str, str]:
        """The header fields that ``call`` needs besides ``headers``."""
        mine = {}
        if call.introduces:
            mine["Kakoi-Key"] = f":{b64(self.identity.public)}:"
        path, _, query = target.partition("?")
        message = Message(
            method=call.method,
            authority=authority,
            path=path,
            query=query,
            fields={name.lower(): value for name, value in {**headers, **mine}.items()},
        )
        created = int(time.time() + self._offset)
        nonce = urlsafe_b64encode(secrets.token_bytes(NONCE_BYTES)).decode().rstrip("=")
        parameters = Parameters(created=created, keyid=self.identity.keyid, expires=created + LIFETIME, nonce=nonce)
        return {**mine, **fields_of(message, parameters, self.identity.sign(base(message, parameters)))}


def introduction(card: Envelope) -> Call:
    """The call that gives a hub the caller's own card."""
    return Call(
        method="PUT",
        target=f"/v1/objects/{card.payload_id}",
        headers={"Content-Type": "application/json"},
        body=card.encode(),
        introduces=True,
    )


def _digest(body: Body) -> bytes:
    """SHA-256 of a body, which then stands where it stood."""
    start, left, digest = body.source.tell(), body.length, hashlib.sha256()
    while left and (block := body.source.read(min(BLOCK, left))):
        digest.update(block)
        left -= len(block)
    body.source.seek(start)
    return digest.digest()


class Caller:
    """Sends calls to a hub, which may have several addresses: of hubs on one database, in the order in which they are tried.

    One address is used until it fails; the next call, or the next try of this one, goes to the next. Safe to use from several threads.
    """

    def __init__(
        self,
        base_url: str,
        *,
        patience: Patience,
        tls: ssl.SSLContext | None,
        insecure_plain_http: bool,
        pause: Callable[[float], object] | None,
        chance: Callable[[], float] | None,
        identity: Identity | None = None,
        software: bool = False,
    ) -> None:
        self.patience = patience
        self._posture = {FIELD: own(software=software).text()} if identity is not None else {}
        self._signatures = None if identity is None else _Signatures(identity)
        self._transports = [
            Transport(url, connect_seconds=patience.connect, tls=tls, plain_http=insecure_plain_http)
            for url in base_url.split(",")
        ]
        self._at = 0
        """Which of them is used."""
        self.closed = threading.Event()
        self._ticket: Mapping[str, str] = {}
        self._pause = self.closed.wait if pause is None else pause
        self._chance = random.SystemRandom().random if chance is None else chance

    def close(self) -> None:
        """Close connections; pauses end, and nothing is tried again."""
        self.closed.set()
        for transport in self._transports:
            transport.close()

    @contextmanager
    def once(self, call: Call) -> Iterator[Answer]:
        """The answer to one sending of ``call``, whatever its status but 401.

        A hub that says what is missing gets it, and the call once more: its time, or the party's card.
        """
        if not 0 <= call.wait <= _WAIT_MOST:
            raise Misuse("net.wait", f"expected to wait from 0 to {_WAIT_MOST} seconds")
        if not all(_HEADER.match(value) for value in call.headers.values()):
            raise Misuse(
                "net.header", "expected printable ASCII in a header, got other characters", hint="check the token"
            )
        body = call.body
        if isinstance(body, bytes):
            body = Body(source=io.BytesIO(body), length=len(body))
        at = self._at
        try:
            with self._sent(call, body, self._transports[at]) as answer:
                yield answer
        except Unavailable as error:
            if self._at == at and not isinstance(error, Stale) and error.code != _SPENT:
                self._at = (at + 1) % len(self._transports)
            raise

    @contextmanager
    def _sent(self, call: Call, body: Body, transport: Transport) -> Iterator[Answer]:
        start = body.source.tell()
        for _ in range(_REPAIRS):
            with transport.exchange(self._request(call, body, transport)) as answer:
                ticket = answer.header(TICKET)
                if ticket and _TICKET.match(ticket):
                    self._ticket = {TICKET: ticket}
                if answer.status != 401 or self._signatures is None:
                    yield answer
                    return
                now, refused = answer.header("Kakoi-Time"), error_of(answer)
            self._repair(call, refused, now)
            body.source.seek(start)
        raise refused

    def _request(self, call: Call, body: Body, transport: Transport) -> Request:
        """``call`` with everything that is sent, signed now, for the hub at that address."""
        patience, target = self.patience, transport.path + call.target
        headers = {**call.headers, **self._posture}
        if call.method in ("PUT", "POST"):
            headers["Content-Length"] = str(body.length)
        if self._signatures is not None:
            if body.length:
                headers["Content-Digest"] = content_digest(call.digest or _digest(body))
            headers |= self._signatures.over(call, transport.authority, target, headers)
        return Request(
            method=call.method,
            target=target,
            headers={"Accept": "application/json", **self._ticket, **headers},
            body=body,
            idle=patience.idle + call.wait,
            total=patience.total + call.wait + call.extra + body.length / patience.slowest,
            fresh=call.once,
        )

    def _repair(self, call: Call, refused: KakoiError, now: str) -> None:
        """Do what the hub asks for before it takes the call. Raises ``refused`` if that is nothing we can do."""
        signatures = self._signatures
        if signatures is not None and refused.code in _TIME and re.fullmatch(r"[0-9]{1,11}", now):
            signatures.follow(int(now))
        elif signatures is not None and refused.code == "hub.key-unknown" and signatures.identity.card is not None:
            if call.introduces:
                raise refused
            self.read(introduction(signatures.identity.card), ErrorAnswer.MAX_BYTES)
        else:
            raise refused

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
        if error.code != _SPENT and tries % len(self._transports):
            return  # another address is tried before anybody waits
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
