"""The operations pages: which address leads to what, and who may see it. Every sign-in and every act is an event."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import jinja2
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from kakoi.core.encoding import sha256
from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import parse_id
from kakoi.guard.browser import BODY
from kakoi.guard.happening import Happening, Outcome
from kakoi.guard.watch import Watch
from kakoi.hub import networks, quota
from kakoi.hub.budgets import Buckets, Identity, prefix_of
from kakoi.hub.database import Transaction
from kakoi.hub.decisions import Decisions
from kakoi.hub.hub import Hub
from kakoi.hub.identify import Principal
from kakoi.hub.listen import networks as networks_of
from kakoi.hub.operators import facts
from kakoi.hub.operators.provider import Provider
from kakoi.hub.operators.sessions import BEGUN_SECONDS, Session, Sessions, require_csrf
from kakoi.hub.operators.settings import Operator, OperatorSettings
from kakoi.hub.operators.token import Expected, header_of, verify
from kakoi.hub.upkeep import collect
from kakoi.say import locale
from kakoi.say.catalogue import LANGUAGES, Language, error_text, read

FOLDER: Final = "hub/operators/messages"
LANGUAGE_COOKIE: Final = "kakoi-language"
SIGNED_IN: Final = "/signed-in"
"""The redirect URI to register at the issuer, behind the pages' own address."""
_FRESH_SECONDS: Final = 3600
"""Whoever signed in at the issuer longer ago does so again."""
_STATIC: Final = {"console.css": "text/css", "mark.svg": "image/svg+xml"}
"""One look for all pages of Kakoi: the console's files."""
_STATUS: Final[tuple[tuple[type[KakoiError], int], ...]] = (
    (Malformed, 400),
    (Refused, 403),
    (Unavailable, 503),
    (Misuse, 400),
    (Fatal, 500),
)
_EVENTS: Final = 40
logger = logging.getLogger("kakoi.hub")
Handler = Callable[["Visit"], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Everything the pages work with."""

    hub: Hub
    settings: OperatorSettings
    origin: str
    watch: Watch
    decisions: Decisions
    provider: Provider
    sessions: Sessions
    attempts: Buckets
    pages: jinja2.Environment
    started: float

    @property
    def tls(self) -> bool:
        """Whether the pages speak https."""
        return self.origin.startswith("https://")

    def tell(
        self, what: str, visit: Visit, operation: str, *, outcome: Outcome = "success", code: str | None = None
    ) -> None:
        """An event."""
        self.watch.hear(
            Happening(
                what=what,
                at=self.hub.now(),
                component="hub",
                outcome=outcome,
                code=code,
                actor=visit.session.operator.name if visit.session is not None else None,
                operation=operation,
                address=visit.address or None,
            )
        )


class Visit:
    """One request."""

    def __init__(self, operations: Operations, request: Request) -> None:
        self.operations, self.request = operations, request
        self.agent = request.headers.get("user-agent", "")
        self.session = operations.sessions.session(self.cookie("session"), self.agent)
        self.form: Mapping[str, str] = {}

    @property
    def address(self) -> str:
        """Where it comes from."""
        return self.request.client.host if self.request.client else ""

    @property
    def language(self) -> Language:
        """The language that was chosen, else the browser's, else English."""
        chosen = self.request.cookies.get(LANGUAGE_COOKIE, "")
        if chosen in LANGUAGES:
            return "ja" if chosen == "ja" else "en"
        wanted = self.request.headers.get("accept-language", "").lower()
        places = {language: wanted.find(language) for language in LANGUAGES}
        return "ja" if places["ja"] >= 0 and not 0 <= places["en"] < places["ja"] else "en"

    def _cookie_name(self, name: str) -> str:
        # The port is in it: browsers do not keep cookies of one host's ports apart. Secure holds on http://localhost too.
        return f"__Host-kakoi-operations-{name}-{self.request.url.port or 443}"

    def cookie(self, name: str) -> str:
        """A cookie of ours, or empty text."""
        return self.request.cookies.get(self._cookie_name(name), "")

    def set_cookie(self, answer: Response, name: str, value: str, *, seconds: int, same_site: Any = "strict") -> None:
        """Only over TLS (or on this machine), not for scripts, not from other sites. No seconds: delete it."""
        answer.set_cookie(
            self._cookie_name(name), value, max_age=seconds, path="/", secure=True, httponly=True, samesite=same_site
        )

    def text(self, key: str, **parameters: object) -> str:
        """A sentence in the visitor's language."""
        return read(FOLDER, self.language)[key].format(**parameters)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A whole page."""
        language = self.language
        shared = {
            "t": self.text,
            "lang": language,
            "session": self.session,
            "path": self.request.url.path,
            "when": lambda seconds: locale.time(seconds, language),
            "num": lambda value: locale.number(str(value)),
            "size": locale.size,
            "trouble": lambda error: error_text(error, language),
        }
        return HTMLResponse(self.operations.pages.get_template(template).render(**shared, **values), status)

    def error(self, error: KakoiError) -> Response:
        """An error as a page."""
        status = next((number for family, number in _STATUS if isinstance(error, family)), 500)
        if error.code == "operators.attempts":
            status = 429
        if self.request.url.path.endswith(".json"):
            return JSONResponse({"code": error.code, "message": error.message, "hint": error.hint}, status)
        return self.page("error.html", status=status, error=error)

    def field(self, name: str, *, most: int = 4000) -> str:
        """A field of the form. Raises Malformed."""
        value = self.form.get(name)
        if value is None or len(value) > most:
            raise Malformed("operators.form", f"expected a field {name} of at most {most} characters in the form")
        return value.strip()

    @property
    def who(self) -> Session:
        """Whoever is signed in. Raises Refused if nobody is."""
        if self.session is None:
            raise Refused("session.none", "expected somebody who is signed in, got nobody", hint="sign in again")
        return self.session

    def require(self, action: str) -> None:
        """Raise Refused unless the hub's policies permit this to the operator."""
        operator = self.who.operator
        principal = Principal(
            kind="operator", id=operator.subject, public=b"", card="", address=self.address, role=operator.role
        )
        self.operations.hub.policies.require(principal, action)


# -- signing in and out


async def sign_in_page(visit: Visit) -> Response:
    """The door."""
    return visit.page("sign_in.html", issuer=visit.operations.settings.issuer, out=False, end_session="")


async def begin(visit: Visit) -> Response:
    """To the issuer."""
    operations = visit.operations
    _count(visit)
    cookie, begun = operations.sessions.begin()
    address = await operations.provider.authorization_url(
        redirect=operations.origin + SIGNED_IN,
        state=begun.state,
        nonce=begun.nonce,
        verifier=begun.verifier,
        max_age=_FRESH_SECONDS,
        language=visit.language,
    )
    answer = RedirectResponse(address, 303)
    # Lax, because the browser comes back from another site; it carries one sign-in and nothing else.
    visit.set_cookie(answer, "begun", cookie, seconds=BEGUN_SECONDS, same_site="lax")
    return answer


async def signed_in(visit: Visit) -> Response:
    """Back from the issuer."""
    _count(visit)
    operator = await _vouched(visit)
    token = visit.operations.sessions.open(operator, visit.agent)
    visit.session = visit.operations.sessions.session(token, visit.agent)
    visit.operations.tell("operator.sign-in", visit, "sign-in")
    # A page and no redirect: the session's cookie is not sent along a chain that began at another site.
    answer = visit.page("welcome.html")
    visit.set_cookie(answer, "session", token, seconds=visit.operations.settings.session_seconds)
    visit.set_cookie(answer, "begun", "", seconds=0, same_site="lax")
    return answer


async def _vouched(visit: Visit) -> Operator:
    """The operator of a finished sign-in. Raises Malformed, Refused or Unavailable.

    1. each parameter is there once;
    2. the answer is to a sign-in that this very browser began, and that nobody answered before (``state``, RFC 6749 §10.12);
    3. it is the configured issuer's, where that says so (RFC 9207, against mix-up);
    4. the issuer did not refuse;
    5. the code is exchanged, with the verifier of this sign-in (PKCE), for a token;
    6. the token is judged (``token.verify``).
    """
    operations, pairs = visit.operations, visit.request.query_params.multi_items()
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Malformed("operators.form", "expected each parameter once, got a repetition")
    begun = operations.sessions.take(visit.cookie("begun"), query.get("state", ""))
    endpoints = await operations.provider.endpoints()
    if query.get("iss", None if endpoints.names_itself else operations.settings.issuer) != operations.settings.issuer:
        raise Refused("operators.issuer", "expected the answer of the configured issuer, got another's")
    if "error" in query or "code" not in query:
        raise Refused("operators.declined", "expected the issuer to vouch for somebody, got its refusal")
    token = await operations.provider.exchange(
        code=query["code"][:4096], redirect=operations.origin + SIGNED_IN, verifier=begun.verifier
    )
    _, kid = header_of(token)
    key = await operations.provider.key(kid)
    if key is None:
        raise Refused("operators.key", "expected a token signed by a key that the issuer publishes, got another's")
    expected = Expected(nonce=begun.nonce, max_age=_FRESH_SECONDS)
    return verify(token, key, operations.settings, expected, operations.hub.now())


async def sign_out(visit: Visit) -> Response:
    """End the session here; a link ends it at the issuer too (OpenID Connect RP-Initiated Logout 1.0)."""
    operations = visit.operations
    operations.sessions.close(visit.cookie("session"))
    operations.tell("operator.sign-in", visit, "sign-out")
    visit.session = None
    try:
        address = (await operations.provider.endpoints()).end_session
    except KakoiError:
        address = ""
    back = {"client_id": operations.settings.client_id, "post_logout_redirect_uri": operations.origin + "/sign-in"}
    link = address + ("&" if "?" in address else "?") + urlencode(back) if address else ""
    answer = visit.page("sign_in.html", issuer=operations.settings.issuer, out=True, end_session=link)
    visit.set_cookie(answer, "session", "", seconds=0)
    return answer


async def choose_language(visit: Visit) -> Response:
    """Remember a language."""
    language, back = visit.field("language"), visit.field("back")
    answer = RedirectResponse(back if back in ("/", "/parties", "/activity", "/sign-in") else "/", 303)
    if language in LANGUAGES:
        answer.set_cookie(LANGUAGE_COOKIE, language, max_age=365 * 86400, path="/", samesite="lax")
    return answer


def _count(visit: Visit) -> None:
    if visit.operations.attempts.take(prefix_of(visit.address)) > 0:
        raise Unavailable(
            "operators.attempts", "expected fewer attempts to sign in, got too many", hint="wait a minute"
        )


# -- looking


async def overview_page(visit: Visit) -> Response:
    """How the hub does."""
    return visit.page("overview.html", found=await _overview(visit), collected=None)


async def status(visit: Visit) -> Response:
    """The same as JSON."""
    return JSONResponse((await _overview(visit)).plain())


async def _overview(visit: Visit) -> facts.Overview:
    operations = visit.operations
    up = int(time.monotonic() - operations.started)
    return await facts.overview(operations.hub, operations.hub.now(), up)


async def parties_page(visit: Visit) -> Response:
    """Who keeps how much, and from where each may ask."""
    return visit.page("parties.html", parties=await facts.parties(visit.operations.hub))


async def activity_page(visit: Visit) -> Response:
    """What was decided, and what happened."""
    events = await asyncio.to_thread(visit.operations.watch.stream.newest, limit=_EVENTS)
    return visit.page("activity.html", found=facts.activity(visit.operations.decisions, events))


# -- acting


async def set_quota(visit: Visit) -> Response:
    """How much a party may keep; an empty field: as much as others."""
    party, text = parse_id(visit.field("party")), visit.field("megabytes", most=12)
    if text and not (text.isascii() and text.isdigit()):
        raise Malformed("operators.form", "expected a whole number of megabytes, got something else")
    most = int(text) * 1_000_000 if text else None
    name = Identity(prefix="", party=party).name
    await visit.operations.hub.database.write(lambda transaction: quota.allow(transaction.connection, name, most))
    return RedirectResponse("/parties", 303)


async def set_networks(visit: Visit) -> Response:
    """From where a party may ask; an empty field: from everywhere."""
    party, texts = parse_id(visit.field("party")), visit.field("networks").replace(",", " ").split()
    wanted = networks_of(texts)
    await _change(visit, lambda connection: networks.write(connection, party, wanted))
    visit.operations.hub.networks.forget()
    return RedirectResponse("/parties", 303)


async def _change(visit: Visit, change: Callable[[Connection], None]) -> None:
    def write(transaction: Transaction) -> None:
        transaction.writes += 1  # if it fails half-way, everything of it is undone
        change(transaction.connection)

    await visit.operations.hub.database.write(write)


async def collect_blobs(visit: Visit) -> Response:
    """Count old blobs that nobody names, or delete them."""
    hub, delete = visit.operations.hub, visit.field("what") == "delete"
    found = await asyncio.to_thread(collect, hub.settings, now=hub.now(), delete=delete)
    return visit.page("overview.html", found=await _overview(visit), collected=(found, delete))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One address. ``action`` is what the policies are asked; empty: open to whoever reaches the listener."""

    method: str
    path: str
    handler: Handler
    action: str


PAGES: Final = (
    Page(method="GET", path="/sign-in", handler=sign_in_page, action=""),
    Page(method="GET", path="/sign-in/begin", handler=begin, action=""),
    Page(method="GET", path=SIGNED_IN, handler=signed_in, action=""),
    Page(method="POST", path="/language", handler=choose_language, action=""),
    Page(method="POST", path="/sign-out", handler=sign_out, action="operate"),
    Page(method="GET", path="/", handler=overview_page, action="operate"),
    Page(method="GET", path="/status.json", handler=status, action="operate"),
    Page(method="GET", path="/parties", handler=parties_page, action="operate"),
    Page(method="GET", path="/activity", handler=activity_page, action="operate"),
    Page(method="POST", path="/parties/quota", handler=set_quota, action="setQuota"),
    Page(method="POST", path="/parties/networks", handler=set_networks, action="setNetworks"),
    Page(method="POST", path="/collect", handler=collect_blobs, action="collect"),
)


def app_of(operations: Operations) -> Starlette:
    """The application, without its perimeter."""
    routes = [Route(page.path, _endpoint(operations, page), methods=[page.method]) for page in PAGES]
    routes.append(Route("/static/{name}", _static, methods=["GET"]))
    routes.append(Route("/{rest:path}", _endpoint(operations, _NOWHERE), methods=["GET", "POST"]))
    return Starlette(routes=routes)


def _endpoint(operations: Operations, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit = Visit(operations, request)
        try:
            return await _answer(visit, page)
        except KakoiError as error:
            if isinstance(error, Fatal):
                logger.critical("%s", error)
            if error.code != "operators.not-found":
                what = "operator.sign-in" if page.path == SIGNED_IN else "operator.refused"
                operations.tell(what, visit, _operation(page), outcome="failure", code=error.code)
            return visit.error(error)
        except Exception:
            logger.exception("unexpected error")
            internal = Fatal(
                "hub.internal", "expected to answer, got an error of our own", hint="the hub's log has more"
            )
            return visit.error(internal)

    return endpoint


async def _answer(visit: Visit, page: Page) -> Response:
    visit.form = _form(visit.request)
    if not page.action:
        return await page.handler(visit)
    if visit.session is None and page.method == "GET" and not page.path.endswith(".json"):
        return RedirectResponse("/sign-in", 303)
    if page.method == "POST":
        require_csrf(visit.who, visit.form.get("csrf", ""))
    visit.require(page.action)
    answer = await page.handler(visit)
    if page.method == "POST" and page.handler is not sign_out:
        visit.operations.tell("operator.action", visit, _operation(page))
    return answer


def _operation(page: Page) -> str:
    return page.path.strip("/").replace("/", "-") or "overview"


async def _nowhere(visit: Visit) -> Response:
    raise Refused("operators.not-found", "expected the address of an operations page, got another")


_NOWHERE: Final = Page(method="GET", path="/nowhere", handler=_nowhere, action="")


def _form(request: Request) -> Mapping[str, str]:
    body = request.scope.get(BODY)
    if not body:
        return {}
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=64)
    except (ValueError, UnicodeDecodeError):
        raise Malformed("operators.form", "expected a form, got something else") from None
    if len(dict(pairs)) != len(pairs):
        raise Malformed("operators.form", "expected each field once, got a repetition")
    return dict(pairs)


async def _static(request: Request) -> Response:
    name = str(request.path_params["name"])
    if name not in _STATIC:
        return PlainTextResponse("expected a file of the pages", 404)
    return Response(_file(name), media_type=_STATIC[name], headers={"cache-control": "public, max-age=86400"})


def _file(name: str) -> bytes:
    return resources.files("kakoi").joinpath("console", "static", name).read_bytes()


def pages() -> jinja2.Environment:
    """Templates: everything is escaped, and a name that does not exist is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kakoi.hub.operators"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = {name: f"/static/{name}?{sha256(_file(name)).hex()[:12]}" for name in _STATIC}
    return environment
