"""The OpenID provider as the hub meets it: discovery, its keys, and the exchange of a code. Every size and wait has a limit.

It is reached over TLS and believed for one thing: who signed in, and how. Whoever holds it can be any operator; no operator can read rows,
release a key or make a contract.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx

from kakoi.core.encoding import sha256
from kakoi.core.errors import Misuse, Unavailable
from kakoi.hub.operators.settings import OperatorSettings, require_safe_url
from kakoi.hub.operators.token import Key, read_keys

_SECONDS: Final = 10.0
_MOST_BYTES: Final = 256 * 1024
_DOCUMENT_SECONDS: Final = 3600
_KEYS_SECONDS: Final = 3600
"""After so long a key that the issuer withdrew is no longer taken."""
_LOOK_AGAIN_SECONDS: Final = 10
"""An unknown key is looked for again at most so often: nobody makes the hub knock at the issuer's door."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What the issuer publishes of itself (OpenID Connect Discovery 1.0 §3)."""

    authorization: str
    token: str
    keys: str
    end_session: str
    """Empty if it has none."""
    secret_in_form: bool
    """It takes the client's secret in the form only."""
    names_itself: bool
    """It says ``iss`` in its answers to the browser (RFC 9207)."""


class Provider:
    """One issuer. For use from one event loop."""

    def __init__(self, settings: OperatorSettings, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic. Raises Misuse for a CA file that is none."""
        self._settings, self._clock = settings, clock
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or type(error).__name__
            raise Misuse("operators.settings", f"expected CA certificates of the issuer, got: {reason}") from None
        self._endpoints: tuple[float, Endpoints] | None = None
        self._keys: dict[str, Key] = {}
        self._keys_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def endpoints(self) -> Endpoints:
        """Where what is. Raises Unavailable."""
        if self._endpoints is None or self._clock() - self._endpoints[0] > _DOCUMENT_SECONDS:
            address = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
            self._endpoints = (self._clock(), _endpoints(await self._get(address), self._settings.issuer))
        return self._endpoints[1]

    async def key(self, kid: str) -> Key | None:
        """The issuer's key of this id; None if it has none. Keys that it changed are found at once, those that it withdrew within the hour."""
        async with self._asking:
            now = self._clock()
            stale = now - self._keys_at > _KEYS_SECONDS
            if stale or (kid not in self._keys and now - self._asked_at > _LOOK_AGAIN_SECONDS):
                self._asked_at = now
                if stale:
                    self._keys = {}
                self._keys = read_keys(await self._get((await self.endpoints()).keys))
                self._keys_at = now
            return self._keys.get(kid)

    async def authorization_url(
        self, *, redirect: str, state: str, nonce: str, verifier: str, max_age: int, language: str
    ) -> str:
        """Where the browser goes to sign in (§3.1.2.1), with PKCE (RFC 7636, S256)."""
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect,
            "scope": "openid",
            "state": state,
            "nonce": nonce,
            "code_challenge": _b64url(sha256(verifier.encode())),
            "code_challenge_method": "S256",
            "max_age": str(max_age),
            "ui_locales": language,
        }
        if self._settings.acr:
            query["acr_values"] = " ".join(self._settings.acr)
        address = (await self.endpoints()).authorization
        return address + ("&" if "?" in address else "?") + urlencode(query)

    async def exchange(self, *, code: str, redirect: str, verifier: str) -> str:
        """The ID token for a code (§3.1.3). Raises Unavailable, also if the issuer refuses the code."""
        endpoints, settings = await self.endpoints(), self._settings
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect, "code_verifier": verifier}
        headers = {}
        if settings.client_secret and not endpoints.secret_in_form:
            both = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(both.encode()).decode()
        else:
            form["client_id"] = settings.client_id
            if settings.client_secret:
                form["client_secret"] = settings.client_secret
        token = (await self._ask("POST", endpoints.token, data=form, headers=headers)).get("id_token")
        if not isinstance(token, str):
            raise _unavailable("a token for the code")
        return token

    async def _get(self, address: str) -> dict[str, Any]:
        return await self._ask("GET", address)

    async def _ask(self, method: str, address: str, **more: Any) -> dict[str, Any]:
        # Nothing of the environment (proxies, netrc) and no redirects: what is asked is what was configured or discovered.
        client = httpx.AsyncClient(verify=self._tls, timeout=_SECONDS, follow_redirects=False, trust_env=False)
        try:
            async with asyncio.timeout(2 * _SECONDS), client, client.stream(method, address, **more) as answer:
                data = b""
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > _MOST_BYTES:
                        raise _unavailable(f"at most {_MOST_BYTES} bytes")
            if answer.status_code != 200:
                raise _unavailable(f"status 200 from the issuer, got {answer.status_code}: an answer")
            found = json.loads(data)
        except (httpx.HTTPError, TimeoutError, OSError, ValueError, RecursionError) as error:
            raise _unavailable(f"the issuer to answer ({type(error).__name__})") from None
        if not isinstance(found, dict):
            raise _unavailable("a JSON object")
        return found


def _endpoints(document: Mapping[str, Any], issuer: str) -> Endpoints:
    if document.get("issuer") != issuer:
        raise _unavailable("the configured issuer's own description (OpenID Connect Discovery §4.3)")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return Endpoints(
        authorization=_address(document, "authorization_endpoint"),
        token=_address(document, "token_endpoint"),
        keys=_address(document, "jwks_uri"),
        end_session=_address(document, "end_session_endpoint") if "end_session_endpoint" in document else "",
        secret_in_form=isinstance(methods, list) and "client_secret_basic" not in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _address(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise _unavailable(f"{name} in the issuer's description")
    try:
        require_safe_url(value)
    except Misuse:
        raise _unavailable(f"{name} with https") from None
    return value


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unavailable(what: str) -> Unavailable:
    return Unavailable(
        "operators.provider",
        f"expected {what}, got something else",
        hint="is the issuer up, and configured for this hub?",
    )
