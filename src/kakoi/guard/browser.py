"""The outermost layer of every site of ours that browsers visit: which requests are let in, and what every answer carries. Pure ASGI.

1. Host is the site's own name, so that no other site's name can be pointed at this machine (DNS rebinding);
2. only GET, HEAD and POST; a POST comes from the site's own pages (Origin, Fetch Metadata), is a plain form and small;
3. every answer forbids scripts, styles, frames and forms that are not the site's own, caching and sniffing.

Source: OWASP Cross-Site Request Forgery Prevention; W3C Content Security Policy Level 3; W3C Fetch Metadata.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'none'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    # Not "no-referrer": with it browsers send "Origin: null" with forms, and the check below could not be strict.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "
    "microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_FORM: Final = "application/x-www-form-urlencoded"
BODY: Final = "kakoi.body"
"""Key of the scope under which a request's body lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a browser sees of it."""

    origin: str
    """Its address, without a path."""
    body_bytes: int
    """Largest form."""

    @property
    def tls(self) -> bool:
        """Whether it speaks https."""
        return self.origin.startswith("https://")

    @property
    def netloc(self) -> str:
        """What a browser sends as Host."""
        return self.origin.partition("://")[2]


class BrowserPerimeter:
    """ASGI middleware around a site's application."""

    def __init__(
        self, app: ASGIApp, site: Site, refused: Callable[[int, str], object] = lambda status, address: None
    ) -> None:
        """``refused`` hears the status of every answer that is given here, and the address of whoever asked."""
        self._app, self._site, self._refused = app, site, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge the request, then pass it on with its body read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = self._judge(scope)
        if answer is None and scope["method"] == "POST":
            scope[BODY] = await self._body(receive)
            if scope[BODY] is None:
                answer = PlainTextResponse("expected a smaller form", 413)
        guarded = self._guarded(send)
        if answer is not None:
            if answer.status_code >= 400:
                self._refused(answer.status_code, str((scope.get("client") or ("",))[0]))
            await answer(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _judge(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if host != self._site.netloc:
            name = host.rpartition(":")[0] or host
            if scope["method"] == "GET" and name in _LOOPBACK and not self._site.tls:
                # Passkeys need the name; the target is our own constant, never the request's.
                return RedirectResponse(self._site.origin + "/", 307)
            return PlainTextResponse(f"expected this site's own address: {self._site.origin}", 421)
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return PlainTextResponse("expected GET or POST", 405)
        if headers.get("origin") != self._site.origin or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("expected a request that this site's own pages made", 403)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            return PlainTextResponse("expected a plain form", 415)
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10):
            return PlainTextResponse("expected the form's length", 411)
        return None if int(length) <= self._site.body_bytes else PlainTextResponse("expected a smaller form", 413)

    async def _body(self, receive: Receive) -> bytes | None:
        data: bytes = b""
        while True:
            message = await receive()
            data += bytes(message.get("body", b""))
            if len(data) > self._site.body_bytes:
                return None
            if message["type"] != "http.request" or not message.get("more_body", False):
                return data

    def _guarded(self, send: Send) -> Send:
        extra = dict(HEADERS)
        if self._site.tls:
            extra["strict-transport-security"] = "max-age=31536000"

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                given: list[Any] = list(message.get("headers", []))
                names = {name.lower() for name, _ in given}
                given += [(n.encode(), v.encode()) for n, v in extra.items() if n.encode() not in names]
                message = {**message, "headers": given}
            await send(message)

        return tell
