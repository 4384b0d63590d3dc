"""The gate: no request reaches an address of the API unless it is known who signed it, and no body unless it is what was signed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kakoi.core.errors import Fatal, Malformed, Refused
from kakoi.hub.budgets import Budgets, Identity
from kakoi.hub.http import error_answer
from kakoi.hub.identify import Authenticator, Principal
from kakoi.hub.policy import Policies
from kakoi.net.signature import parse_digest

OPEN: Final = frozenset({("GET", "/v1/health")})
"""What everybody may ask."""
_PRINCIPAL: Final = "kakoi.principal"


class Gate:
    """ASGI: identifies, then lets in."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, budgets: Budgets, policies: Policies) -> None:
        self._app, self._authenticator = app, authenticator
        self._budgets, self._policies = budgets, policies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) not in OPEN:
            try:
                scope[_PRINCIPAL] = await self._identify(scope)
            except Refused as error:
                if error.code != "hub.signature-time":
                    raise
                time = {"Kakoi-Time": str(self._authenticator.clock())}
                await error_answer(error, time)(scope, receive, send)
                return
            if scope[_PRINCIPAL].kind == "newcomer" and not _is_object(scope):
                raise Refused(
                    "hub.key-unknown",
                    "expected the sender's own card as its first object, got another request",
                    hint="upload the party card first",
                )
            self._policies.require(scope[_PRINCIPAL], _action(scope))
            receive = digest_checked(scope, receive)
        await self._app(scope, receive, send)

    async def _identify(self, scope: Scope) -> Principal:
        """Who asks; from now on budgets and quotas count for that party and no longer for its network."""
        who: Identity = scope["state"]["who"]
        self._budgets.may_verify(who)
        try:
            found = await self._authenticator.identify(scope)
        except Refused as error:
            if error.code == "signature.request":
                self._budgets.wrong_signature(who)
            raise
        scope["state"]["who"] = replace(who, party=found.card)
        return found


_ACTIONS: Final = (
    ("PUT", re.compile(r"/v1/objects/[^/]+\Z"), "send"),
    ("GET", re.compile(r"/v1/objects/[^/]+\Z"), "fetch"),
    ("GET", re.compile(r"/v1/feed\Z"), "list"),
    ("PUT", re.compile(r"/v1/blobs/.+\Z"), "upload"),
    ("POST", re.compile(r"/v1/blobs/.+\Z"), "upload"),
    ("GET", re.compile(r"/v1/blobs/.+\Z"), "download"),
    ("HEAD", re.compile(r"/v1/blobs/.+\Z"), "download"),
    ("POST", re.compile(r"/v1/claims\Z"), "claim"),
    ("POST", re.compile(r"/v1/claims/.+\Z"), "report"),
    ("GET", re.compile(r"/v1/runs(/.*)?\Z"), "watch"),
    ("GET", re.compile(r"/v1/log/.+\Z"), "audit"),
)


def _action(scope: Scope) -> str:
    """What policies call this request."""
    if scope[_PRINCIPAL].kind == "newcomer":
        return "introduce"
    found = (name for method, path, name in _ACTIONS if method == scope["method"] and path.match(scope["path"]))
    return next(found, "unknown")


def _is_object(scope: Scope) -> bool:
    return (scope["method"], str(scope["path"]).startswith("/v1/objects/")) == ("PUT", True)


def principal(request: Request) -> Principal:
    """Who signed the request. Raises Fatal where the gate did not stand before."""
    found = request.scope.get(_PRINCIPAL)
    if not isinstance(found, Principal):
        raise Fatal("hub.internal", "expected a request that passed the gate, got one that did not")
    return found


def digest_checked(scope: Scope, receive: Receive) -> Receive:
    """``receive``, which gives the last piece of a body only if all of it has the signed digest (RFC 9530)."""
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        raise Malformed("hub.length-required", "expected a Content-Length, got a Transfer-Encoding")
    signed = headers.get(b"content-digest")
    if signed is None:
        if headers.get(b"content-length", b"0").strip() != b"0":
            raise Malformed("hub.digest-missing", "expected Content-Digest with a body, got none")
        return receive
    expected, digest = parse_digest(signed.decode("ascii").strip()), hashlib.sha256()

    async def checked() -> Message:
        message = await receive()
        if message["type"] == "http.request":
            digest.update(message.get("body", b""))
            if not message.get("more_body", False) and digest.digest() != expected:
                raise Refused(
                    "hub.digest",
                    "expected the body that was signed, got another",
                    hint="something between client and hub alters requests",
                )
        return message

    return checked
