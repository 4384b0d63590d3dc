"""HTTP at the hub's edge: errors as answers, strict queries, bodies within limits, and how much at a time."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import ObjectId, parse_id
from kakoi.core.records import Record
from kakoi.hub.budgets import Budgets, Identity, Later, prefix_of
from kakoi.hub.gauge import Gauge
from kakoi.hub.listen import admits, networks
from kakoi.hub.settings import Limits
from kakoi.hub.tickets import HEADER, Tickets
from kakoi.net.answers import ErrorAnswer
from kakoi.net.signature import ACCEPT_SIGNATURE

logger = logging.getLogger("kakoi.hub")
_STATUS: Final = {
    "encoding.size": 413,
    "hub.busy": 503,
    "hub.claim": 409,
    "hub.contract-unknown": 409,
    "hub.disconnected": 408,
    "hub.head-too-large": 431,
    "hub.length-required": 411,
    "hub.method": 405,
    "hub.not-found": 404,
    "hub.parts-missing": 409,
    "hub.rate": 429,
    "hub.range": 416,
    "hub.run-ended": 409,
    "hub.run-unknown": 409,
    "hub.storage-full": 507,
    "hub.timeout": 408,
    "hub.too-large": 413,
    "hub.authority": 421,
    "hub.digest-missing": 411,
    "hub.key-unknown": 401,
    "hub.replay": 401,
    "hub.signature-time": 401,
    "hub.unsigned": 401,
    "signature.request": 401,
    "run.claim-lost": 409,
}
_FAMILIES: Final[tuple[tuple[type[KakoiError], int], ...]] = (
    (Malformed, 400),
    (Refused, 403),
    (Unavailable, 503),
    (Misuse, 400),
    (Fatal, 500),
)
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_MOST_INTEGER: Final = 2**53 - 1


def answer(record: Record, *, status: int = 200) -> Response:
    """A record as canonical JSON."""
    return Response(record.encode(), status, _HEADERS, "application/json")


def error_answer(error: KakoiError, more: Mapping[str, str] | None = None, *, close: bool = False) -> Response:
    """An error as canonical JSON, with the status that its code or family has, and ``more`` header fields; ``close``: the
    connection ends with it.
    """
    status = _STATUS.get(error.code) or next((number for family, number in _FAMILIES if isinstance(error, family)), 500)
    body = ErrorAnswer(code=error.code, message=error.message[:2000], hint=error.hint[:2000]).encode()
    headers = {**_HEADERS, **(more or {})}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(getattr(error, "after", 1))))
    if close or error.code == "hub.transfer-encoding":  # what follows on such a connection is nobody's request
        headers["Connection"] = "close"
    if status == 401:
        headers["Accept-Signature"] = ACCEPT_SIGNATURE
    return Response(body, status, headers, "application/json")


def http_error(error: HTTPException) -> KakoiError:
    """The framework's own errors as ours."""
    if error.status_code == 404:
        return Refused("hub.not-found", "expected an address of the hub's API, got another")
    if error.status_code == 405:
        return Malformed("hub.method", "expected a method that this address takes, got another")
    return Malformed("hub.request", "expected a request that the API knows, got another")


class Query:
    """A request's query, read strictly: unknown and repeated names are refused, not ignored."""

    def __init__(self, request: Request, *names: str, repeatable: tuple[str, ...] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            if name not in names and name not in repeatable:
                raise Malformed(
                    "hub.query", f"expected only {', '.join((*names, *repeatable))} in the query, got another name"
                )
            self._values.setdefault(name, []).append(value)
        if any(len(self._values.get(name, ())) > 1 for name in names):
            raise Malformed("hub.query", "expected each name once in the query, got a repetition")

    def integer(self, name: str, *, default: int | None = None, most: int = _MOST_INTEGER) -> int:
        """A number from 0 to ``most``. Required if there is no default."""
        text = self.text(name, default="" if default is not None else None)
        if text == "" and default is not None:
            return default
        return self.number(text, name, most=most)

    @staticmethod
    def number(text: str, name: str, *, most: int = _MOST_INTEGER) -> int:
        """A number from 0 to ``most``, spelt in one way. Raises Malformed."""
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
            raise Malformed("hub.query", f"expected a number from 0 to {most} as {name}, got something else")
        return int(text)

    def text(self, name: str, *, default: str | None = None) -> str:
        """A text. Required if there is no default."""
        values = self._values.get(name)
        if values:
            return values[0]
        if default is None:
            raise Malformed("hub.query", f"expected {name} in the query, got none")
        return default

    def identity(self, name: str, *, default: str | None = None) -> str:
        """An id, or the default."""
        text = self.text(name, default=default)
        return text if text == default else parse_id(text)

    def all(self, name: str, most: int) -> list[str]:
        """All values of a repeatable name."""
        values = self._values.get(name, [])
        if len(values) > most:
            raise Malformed("hub.query", f"expected {name} at most {most} times, got more")
        return values


def who_asks(request: Request) -> Identity:
    """The identity that the perimeter found: its party is empty unless the request's signature was verified."""
    who: Identity = request.state.who
    return who


def path_id(request: Request) -> ObjectId:
    """The id at the end of the address."""
    return parse_id(str(request.path_params["identity"]))


class Budget:
    """So much of something at the same time; whoever comes when it is spent is asked to come again."""

    def __init__(self, most: int, what: str, *, reserve: float = 0) -> None:
        self._left, self._what, self._kept = most, what, int(most * reserve)
        self._most = most

    @property
    def used(self) -> int:
        """How much of it is in use."""
        return self._most - self._left

    @contextmanager
    def take(self, amount: int = 1, *, vital: bool = True) -> Iterator[None]:
        """Use some of it. Raises Unavailable if there is not enough; who is not ``vital`` cannot use what is in reserve."""
        if amount > self._left - (0 if vital else self._kept):
            raise Unavailable("hub.busy", f"expected room for more {self._what}, got none", hint="try again later")
        self._left -= amount
        try:
            yield
        finally:
            self._left += amount

    @contextmanager
    def give_back(self, amount: int = 1) -> Iterator[None]:
        """Lend out what was taken, while waiting without using it."""
        self._left += amount
        try:
            yield
        finally:
            self._left -= amount


def announced(request: Request, most: int) -> int:
    """The body's announced length, from 1 to ``most``. Raises Malformed."""
    text = request.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise Malformed("hub.length-required", "expected a Content-Length, got none")
    if int(text) > most:
        raise Malformed("hub.too-large", f"expected a body of at most {most} bytes, got a larger one")
    if int(text) == 0:
        raise Malformed("hub.empty", "expected a body, got none")
    return int(text)


async def chunks(request: Request, length: int, limits: Limits) -> AsyncIterator[bytes]:
    """A body as it comes, if it comes fast enough. Raises Unavailable for a slow or vanished sender."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + limits.stall_seconds + length / limits.slowest
    more = True
    while more:
        try:
            async with asyncio.timeout(max(0, min(limits.stall_seconds, deadline - clock()))):
                message = await request.receive()
        except TimeoutError:
            raise Unavailable("hub.timeout", "expected the body in time, got too little of it") from None
        if message["type"] != "http.request":
            raise Unavailable("hub.disconnected", "expected the whole body, got only its beginning")
        more = message.get("more_body", False)
        if message.get("body"):
            yield message["body"]


async def read_body(request: Request, most: int, limits: Limits, budget: Budget) -> bytes:
    """A whole body of at most ``most`` bytes."""
    length = announced(request, most)
    with budget.take(length, vital=who_asks(request).vital):
        return b"".join([chunk async for chunk in chunks(request, length, limits)])


def _with_hsts(send: Send) -> Send:
    """``send``, with Strict-Transport-Security (RFC 6797) on every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"strict-transport-security", b"max-age=31536000")]
        await send(message)

    return sending


class Perimeter:
    """The outermost layer: how many requests at a time, and every error as an answer."""

    def __init__(
        self,
        app: ASGIApp,
        requests: Budget,
        budgets: Budgets,
        tickets: Tickets,
        gauge: Gauge,
        head_bytes: int,
        allow: tuple[str, ...],
        not_warned_of: Callable[[str], None],
        on_fatal: Callable[[Fatal], None],
        on_refused: Callable[[KakoiError, str], None] = lambda error, address: None,
    ) -> None:
        """``not_warned_of`` raises for addresses that indicators name. ``on_refused`` hears every error that is answered, and the address of whoever asked."""
        self._app, self._requests, self._budgets, self._tickets = app, requests, budgets, tickets
        self._head_bytes, self._on_fatal = head_bytes, on_fatal
        self._on_refused, self._gauge = on_refused, gauge
        self._allow, self._not_warned_of = networks(allow), not_warned_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, send = False, _with_hsts(send) if scope.get("scheme") == "https" else send

        async def tell(message: dict[str, object]) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and scope["state"].get("ticket"):
                ticket = (HEADER.lower().encode(), scope["state"]["ticket"].encode())
                message = {**message, "headers": [*message["headers"], ticket]}  # type: ignore[misc]
            started = True
            await send(message)

        try:
            self._check_network(scope)
            self._not_warned_of(str((scope.get("client") or ("",))[0]))
            self._check_head(scope)
            who = self._identify(scope)
            if not who.vital:
                self._gauge.stranger()
            self._budgets.request(who)
            with self._requests.take(vital=who.vital):
                await self._app(scope, receive, tell)  # type: ignore[arg-type]
        except KakoiError as error:
            if isinstance(error, Fatal):
                logger.critical("%s", error)
                self._on_fatal(error)
            self._on_refused(error, str((scope.get("client") or ("",))[0]))
            if started:
                raise
            # Whoever asks too much does not keep a connection to ask more.
            close = error.code == "hub.indicated" or (isinstance(error, Later) and not scope["state"]["who"].vital)
            await error_answer(error, close=close)(scope, receive, send)
        except Exception:
            logger.exception("unexpected error")
            if started:
                raise
            internal = Fatal(
                "hub.internal", "expected to answer, got an error of our own", hint="the hub's log has more"
            )
            await error_answer(internal)(scope, receive, send)

    def _identify(self, scope: Scope) -> Identity:
        prefix = prefix_of(scope["client"][0] if scope.get("client") else "")
        given = next((value for name, value in scope["headers"] if name == b"kakoi-ticket"), b"")
        ticket = given.decode("latin-1")
        who = Identity(prefix=prefix, holder=self._tickets.holder(ticket, prefix) if ticket else "")
        scope.setdefault("state", {})["who"] = who
        scope["state"]["ticket"] = self._tickets.renewed(ticket, who.holder, prefix) if who.vital else ""
        return who

    def _check_network(self, scope: Scope) -> None:
        """Only networks of the allow-list are answered, if there is one."""
        if self._allow and not admits(self._allow, str((scope.get("client") or ("",))[0])):
            raise Refused(
                "hub.network",
                "expected a request from a network that the hub answers, got one from another",
                hint="the operator names networks with --allow",
            )

    def _check_head(self, scope: Scope) -> None:
        """uvicorn bounds a head that arrives in pieces; this bounds one that arrives whole. Bodies have a length, and no
        other end: with two, a proxy and this hub could disagree where the next request begins (RFC 9112 §6.3).
        """
        if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            raise Malformed("hub.transfer-encoding", "expected a body with a Content-Length and no Transfer-Encoding")
        size = (
            len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(n) + len(v) + 4 for n, v in scope["headers"])
        )
        if size > self._head_bytes:
            raise Malformed(
                "hub.head-too-large", f"expected at most {self._head_bytes} bytes of request head, got more"
            )
