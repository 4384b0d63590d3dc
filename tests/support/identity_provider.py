"""A real OpenID provider for tests: authlib's authorization server over HTTP, with people who have a password and an authenticator app.

How somebody signed in is in ``acr`` and ``amr`` because it happened: the page asks for a password, and takes a code (RFC 6238) beside it.
``twist`` changes the token that it issues, for bad twins.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import flask
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, grants
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc.jwk import ECKey, Key, KeySet, RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server

PASSWORD_ONLY: Final = "urn:example:password"
TWO_FACTORS: Final = "urn:example:two-factors"
CLIENT: Final = "kakoi-hub"
SECRET: Final = "not-so-secret-in-a-test"
_HASHES: Final = {"RS256": hashes.SHA256(), "RS512": hashes.SHA512()}
_PAGE: Final = """<!doctype html><html lang="en"><title>Hospital sign-on</title><style>body{{font:17px system-ui;max-width:22rem;
margin:4rem auto}}input{{display:block;width:100%;font:inherit;padding:.4rem;margin:.2rem 0 1rem}}</style><h1>Hospital sign-on</h1>
<p>{problem}</p><form method="post"><label>Name<input name="name"></label><label>Password<input name="password" type="password"></label>
<label>Code of your authenticator<input name="code" inputmode="numeric"></label><button>Sign in</button></form></html>"""
Twist = Callable[[dict[str, Any], dict[str, Any]], str | None]
"""Gets header and claims, which it may change; gives a whole token instead, or None."""


@dataclass
class Person:
    """Somebody with an account."""

    subject: str
    password: str
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(20))

    def code(self, at: float | None = None) -> str:
        """What the authenticator shows (RFC 6238, six digits, 30 seconds)."""
        counter = struct.pack(">Q", int(time.time() if at is None else at) // 30)
        digest = hmac.digest(self.seed, counter, hashlib.sha1)
        place = digest[-1] & 15
        return f"{(int.from_bytes(digest[place : place + 4]) & 0x7FFFFFFF) % 1_000_000:06d}"


class Client(ClientMixin):  # type: ignore[misc]
    """The hub, as it is registered."""

    def __init__(self) -> None:
        self.redirects: set[str] = set()

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str) -> str:
        return "openid" if "openid" in scope.split() else ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirects

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(client_secret, SECRET)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc]
    """One authorization code."""

    code: str
    subject: str
    redirect_uri: str
    nonce: str
    code_challenge: str
    code_challenge_method: str
    amr: list[str]
    acr: str
    auth_time: int

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return "openid"

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_amr(self) -> list[str]:
        return self.amr

    def get_acr(self) -> str:
        return self.acr


@dataclass
class SignedIn:
    """A person who has just signed in, and how."""

    person: Person
    amr: list[str]
    acr: str


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        """Requests are not news."""


class Provider:
    """The issuer at ``issuer``; ``people`` by the names they type."""

    def __init__(self) -> None:
        self.people: dict[str, Person] = {}
        self.client, self.codes = Client(), dict[str, Code]()
        self.twist: Twist | None = None
        self.key: Key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}, private=True)
        self.published: list[Key] = [self.key]
        self.asked_for_keys = 0
        self._server = make_server("127.0.0.1", 0, self._application(), threaded=True, request_handler=_Quiet)
        self.issuer = f"http://localhost:{self._server.server_port}"

    def rotate(self, *, kind: str = "RSA") -> None:
        """A new key signs from now on, and only it is published."""
        kid = secrets.token_hex(4)
        self.key = (
            RSAKey.generate_key(2048, {"kid": kid}, private=True)
            if kind == "RSA"
            else ECKey.generate_key("P-256", {"kid": kid}, private=True)
        )
        self.published = [self.key]

    @property
    def algorithm(self) -> str:
        return "RS256" if self.key.key_type == "RSA" else "ES256"

    @property
    def public_pem(self) -> bytes:
        """What everybody can know of the key."""
        assert isinstance(self.key, RSAKey)
        return bytes(self.key.as_pem(private=False))

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # -- what it answers

    def _application(self) -> flask.Flask:
        app = flask.Flask(__name__)
        app.logger.disabled = True
        server = AuthorizationServer(app, query_client=self._query, save_token=lambda token, request: None)
        server.register_grant(_grant(self), [_tokens(self), CodeChallenge(required=True)])
        app.add_url_rule("/.well-known/openid-configuration", view_func=self._describe)
        app.add_url_rule("/keys", view_func=self._keys)
        app.add_url_rule("/token", view_func=server.create_token_response, methods=["POST"])
        app.add_url_rule(
            "/authorize", endpoint="authorize", view_func=lambda: self._authorize(server), methods=["GET", "POST"]
        )
        app.add_url_rule("/logout", endpoint="logout", view_func=lambda: "You have signed out at the hospital, too.")
        return app

    def _query(self, client_id: str) -> Client | None:
        return self.client if client_id == CLIENT else None

    def _describe(self) -> Mapping[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": self.issuer + "/authorize",
            "token_endpoint": self.issuer + "/token",
            "jwks_uri": self.issuer + "/keys",
            "end_session_endpoint": self.issuer + "/logout",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "acr_values_supported": [PASSWORD_ONLY, TWO_FACTORS],
        }

    def _keys(self) -> Mapping[str, Any]:
        self.asked_for_keys += 1
        return dict(KeySet(self.published).as_dict(private=False))

    def _authorize(self, server: Any) -> Any:
        try:
            grant = server.get_consent_grant(end_user=None)
        except OAuth2Error as error:
            return f"{error.error}: {error.description}", 400
        if flask.request.method == "GET":
            return _PAGE.format(problem="")
        form = flask.request.form
        person = self.people.get(form["name"])
        if person is None or not hmac.compare_digest(person.password, form["password"]):
            return _PAGE.format(problem="That was not right."), 403
        second = form.get("code", "") in {person.code(), person.code(time.time() - 30)}
        how = SignedIn(
            person=person,
            amr=["pwd", "otp", "mfa"] if second else ["pwd"],
            acr=TWO_FACTORS if second else PASSWORD_ONLY,
        )
        return server.create_authorization_response(grant_user=how, grant=grant)


def _grant(provider: Provider) -> type:
    class Grant(grants.AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code: str, request: Any) -> None:
            how: SignedIn = request.user
            asked = request.payload.data
            provider.codes[code] = Code(
                code=code,
                subject=how.person.subject,
                redirect_uri=asked["redirect_uri"],
                nonce=asked.get("nonce", ""),
                code_challenge=asked.get("code_challenge", ""),
                code_challenge_method=asked.get("code_challenge_method", ""),
                amr=how.amr,
                acr=how.acr,
                auth_time=int(time.time()),
            )

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            provider.codes.pop(authorization_code.code, None)

        def authenticate_user(self, authorization_code: Code) -> str:
            return authorization_code.subject

    return Grant


def _tokens(provider: Provider) -> OpenIDCode:
    class Tokens(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return False

        def generate_user_info(self, user: str, scope: str) -> dict[str, Any]:
            return {"sub": user}

        def encode_id_token(self, token: Any, request: Any) -> str:
            now = int(time.time())
            header: dict[str, Any] = {"alg": provider.algorithm, "kid": provider.key.kid, "typ": "JWT"}
            claims = {
                "iss": provider.issuer,
                "aud": [CLIENT],
                "iat": now,
                "exp": now + 300,
                **self.get_authorization_code_claims(request.authorization_code),
                **self.generate_user_info(request.user, "openid"),
            }
            whole = provider.twist(header, claims) if provider.twist is not None else None
            return whole if whole is not None else signed(header, claims, provider.key)

    return Tokens(require_nonce=True)


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key) -> str:
    """A token under a key, by the algorithm in its header. By hand: libraries refuse to make most of what tests need."""

    def sign(data: bytes) -> bytes:
        private = key.private_key
        if isinstance(private, rsa.RSAPrivateKey):
            return private.sign(data, padding.PKCS1v15(), _HASHES[header["alg"]])
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

    return _token(header, claims, sign)


def with_hmac(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """A token under HS256, as who mistakes a public key for a secret would take it (CVE-2015-9235)."""
    return _token({**header, "alg": "HS256"}, claims, lambda data: hmac.digest(secret, data, hashlib.sha256))


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A token with alg none (RFC 7515, appendix A.5)."""
    return _token({**header, "alg": "none"}, claims, lambda data: b"")


def _token(header: Mapping[str, Any], claims: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> str:
    head = {name: value for name, value in header.items() if value is not None}
    data = ".".join(_b64url(json.dumps(part).encode()) for part in (head, claims))
    return f"{data}.{_b64url(sign(data.encode()))}"


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider in a thread; it has stopped when the block ends."""
    made = Provider()
    thread = threading.Thread(target=made.run, name="issuer", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
