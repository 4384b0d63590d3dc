"""One GET at a vendor's service, or at a cache of it in the owner's network: bounded in size and time, never trusted.

https only, but for loopback. No redirects, no proxies from the environment, no cookies, no compression. Whatever goes
wrong is ``Unavailable``: a service that lies about form is as good as one that is down, and is asked again later.

The standard library does the talking, with the timed reader of ``net.transport`` (docs/adr/0085): the time-outs of
HTTP libraries are per ``recv``, so that a server may drip an answer for hours. Not bounded here: the system's resolver,
which has time-outs of its own.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import SplitResult, urlsplit

from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.net.transport import BLOCK, TimedReader, TimedSocket

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 8.0
TOTAL_SECONDS: Final = 15.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_URL: Final = re.compile(r"[!-~]{1,2000}")
_OK: Final = 200
_LATER: Final = "the vendor's service, or the owner's cache of it, answers wrongly; it is asked again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The body of a 200 answer, and its headers by lower-case name."""

    body: bytes
    headers: Mapping[str, str]


class Get(Protocol):
    """Fetch one address."""

    def __call__(self, url: str, *, most: int, types: Collection[str]) -> Reply:
        """At most ``most`` bytes of one of the media ``types``. Raises Unavailable for everything else."""
        ...


def service_url(text: str) -> str:
    """The base address of a service, without a slash at its end. Raises Misuse for plain http to another machine."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise _bad_url() from None
    plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if not _URL.fullmatch(text) or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise _bad_url()
    if parts.scheme != "https" and not plain:
        raise _bad_url()
    return text.rstrip("/")


def _bad_url() -> Misuse:
    return Misuse(
        "collateral.url",
        "expected a service's address as https://host[:port][/path] (http on this machine only), got something else",
        hint="vendors and caches of their services speak https; the address has no user, query or fragment",
    )


class HttpGet:
    """``Get`` over the network. ``tls`` None: the system's certificate authorities."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        connect: float = CONNECT_SECONDS,
        idle: float = IDLE_SECONDS,
        total: float = TOTAL_SECONDS,
    ) -> None:
        self._tls, self._connect, self._idle, self._total = tls, connect, idle, total

    def __call__(self, url: str, *, most: int, types: Collection[str]) -> Reply:
        """See ``Get``. Raises Unavailable ``collateral.unreachable``, ``.timeout``, ``.tls``, ``.answer``."""
        parts = urlsplit(url)
        where = parts.hostname or ""
        deadline = time.monotonic() + self._total
        with _translated(where), closing(self._connection(parts)) as connection:
            connection.connect()
            connection.sock.settimeout(self._idle)
            reader = TimedReader(connection.sock, self._idle, deadline)
            with closing(reader), closing(_ask(connection, parts, reader)) as response:
                return _read(response, where, most, types)

    def _connection(self, parts: SplitResult) -> http.client.HTTPConnection:
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self._connect)
        tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=self._connect, context=tls)


def _ask(connection: http.client.HTTPConnection, parts: SplitResult, reader: TimedReader) -> http.client.HTTPResponse:
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.putrequest("GET", target or "/", skip_accept_encoding=True)
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("Connection", "close")
    connection.endheaders()
    connection.response_class = lambda _sock, **named: http.client.HTTPResponse(TimedSocket(reader), **named)  # type: ignore[assignment,arg-type]
    return connection.getresponse()


def _read(response: http.client.HTTPResponse, where: str, most: int, types: Collection[str]) -> Reply:
    if response.status != _OK:
        raise _answer(where, "status 200", _status(response.status))
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise _answer(where, "no compression", "some")
    media = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
    if media and media not in types:
        raise _answer(where, f"content of type {' or '.join(sorted(types))}", media[:60])
    length = response.length
    if length is None and not response.chunked:
        raise _answer(where, "an answer whose end can be seen", "neither Content-Length nor chunks")
    if length is not None and length > most:
        raise _answer(where, f"at most {most} bytes", f"{length}")
    body = bytearray()
    while block := response.read(min(BLOCK, most + 1 - len(body))):
        body += block
        if len(body) > most:
            raise _answer(where, f"at most {most} bytes", "more")
    if length is not None and len(body) != length:
        raise _answer(where, f"{length} bytes", f"{len(body)}")
    return Reply(body=bytes(body), headers={name.lower(): value for name, value in response.getheaders()})


def _status(status: int) -> str:
    said = {404: "it does not know this platform", 429: "it was asked too often", 503: "it is overloaded"}
    if 300 <= status < 400:
        return f"a redirect ({status}), which is never followed"
    return f"{status} ({said[status]})" if status in said else str(status)


def _answer(where: str, expected: str, got: str) -> Unavailable:
    return Unavailable("collateral.answer", f"answer of {where}: expected {expected}, got {got}", hint=_LATER)


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Network errors as ours."""
    try:
        yield
    except KakoiError:
        raise
    except ssl.SSLError:
        raise Unavailable(
            "collateral.tls",
            f"expected a TLS certificate for {where} that this machine trusts, got another, or no TLS",
            hint="check the address; a cache with a certificate of its own needs --collateral-ca",
        ) from None
    except TimeoutError:
        raise Unavailable(
            "collateral.timeout",
            f"expected an answer of {where} in time, got none",
            hint="the service is slow or cut off; what is kept goes on being used while it is good",
        ) from None
    except OSError as error:
        raise Unavailable(
            "collateral.unreachable",
            f"expected to reach {where}, got: {error.strerror or type(error).__name__}",
            hint="may this machine reach it? a signed bundle needs no connection: kakoi collateral import",
        ) from None
    except (http.client.HTTPException, ValueError) as error:
        raise _answer(where, "HTTP/1.1", type(error).__name__) from None
