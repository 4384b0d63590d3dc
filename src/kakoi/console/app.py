"""The console as an ASGI application: which address leads to which page, and who may see it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import jinja2
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from kakoi.console import pages_contracts as contracts
from kakoi.console import pages_door as door
from kakoi.console import pages_draft as draft
from kakoi.console import pages_other as other
from kakoi.console import pages_people as people
from kakoi.console import pages_runs as runs
from kakoi.console import pages_security as security
from kakoi.console import pages_settings as settings_pages
from kakoi.console.assent import Assent
from kakoi.console.feed import refused, turned_away
from kakoi.console.library import Library
from kakoi.console.people import People
from kakoi.console.runs import Results
from kakoi.console.sessions import Attempts, Sessions
from kakoi.console.settings import Settings
from kakoi.console.store import Store
from kakoi.console.visit import Access, Console, Handler, Visit
from kakoi.core.clock import Clock
from kakoi.core.encoding import b64, sha256
from kakoi.core.errors import Fatal, KakoiError, Malformed, Refused
from kakoi.guard.browser import BrowserPerimeter, Site
from kakoi.guard.watch import Watch
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.sdk.verify import Verifiers

logger = logging.getLogger(__name__)
STATIC: Final = {
    "console.css": "text/css",
    "passkey.js": "text/javascript",
    "live.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address. Forms of people who are signed in need the session's token, whatever they do."""

    method: str
    path: str
    handler: Handler
    access: Access = "session"


def _get(path: str, handler: Handler, access: Access = "session") -> Route:
    return Route(method="GET", path=path, handler=handler, access=access)


def _post(path: str, handler: Handler, access: Access = "session") -> Route:
    return Route(method="POST", path=path, handler=handler, access=access)


ROUTES: Final = (
    _get("/sign-in", door.sign_in_page, "open"),
    _post("/sign-in/options", door.sign_in_options, "open"),
    _post("/sign-in", door.sign_in, "open"),
    _post("/sign-out", door.sign_out),
    _get("/enrol/{token}", door.enrol_page, "open"),
    _post("/enrol/{token}/options", door.enrol_options, "open"),
    _post("/enrol/{token}", door.enrol, "open"),
    _post("/language", door.choose_language, "open"),
    _get("/", other.home_page),
    _get("/parties", other.parties_page),
    _get("/data", other.data_page),
    _get("/data/{manifest}", other.dataset_page),
    _post("/data/{manifest}/withdraw", other.prepare_data_withdrawal),
    _get("/decisions", other.decisions_page),
    _get("/decisions/{number}/proof", other.decision_proof),
    _get("/security", security.security_page),
    _get("/settings", settings_pages.settings_page),
    _post("/settings/mail", settings_pages.set_mailbox),
    _post("/settings/webhook", settings_pages.set_webhook, "administrator"),
    _post("/settings/test", settings_pages.test_notification, "administrator"),
    _get("/analyst", other.analyst_page),
    _post("/analyst/publish", other.publish),
    _get("/contracts", contracts.contracts_page),
    _get("/contracts/new", draft.new_contract_page),
    _post("/contracts/new", draft.new_contract),
    _get("/contracts/{contract}", contracts.contract_page),
    _get("/contracts/{contract}/raw", contracts.raw_contract),
    _get("/contracts/{contract}/log", contracts.log_part),
    _post("/contracts/{contract}/approve/options", contracts.approve_options),
    _post("/contracts/{contract}/approve", contracts.approve),
    _get("/contracts/{contract}/withdraw", contracts.withdraw_page),
    _post("/contracts/{contract}/withdraw", contracts.prepare_withdrawal),
    _get("/contracts/{contract}/receipt", contracts.receipt_page),
    _get("/contracts/{contract}/receipt/file", contracts.receipt_file),
    _get("/contracts/{contract}/amend", contracts.amend_page),
    _post("/contracts/{contract}/amend", contracts.amend),
    _get("/contracts/{contract}/run/{analysis}", runs.ask_page),
    _post("/contracts/{contract}/run/{analysis}", runs.ask),
    _get("/withdrawals/{subject}", contracts.withdrawal_page),
    _post("/withdrawals/{subject}/options", contracts.withdrawal_options),
    _post("/withdrawals/{subject}", contracts.withdraw),
    _get("/runs", runs.runs_page),
    _get("/runs/{run}", runs.run_page),
    _get("/runs/{run}/part", runs.run_part),
    _get("/runs/{run}/events", runs.run_events),
    _get("/runs/{run}/passport", runs.passport_page),
    _get("/runs/{run}/result.kakoi", runs.result_file),
    _get("/runs/{run}/output/{file}", runs.output_file),
    _get("/people", people.people_page),
    _post("/confirm/options", Visit.confirm_options),
    _post("/people/invite", people.invite, "administrator"),
    _post("/people/device", people.add_device),
    _post("/people/recovery", people.ask_recovery, "administrator"),
    _post("/people/recovery/second", people.second_recovery),
    _post("/people/remove", people.remove, "administrator"),
    _post("/people/device/remove", people.remove_device),
    _post("/people/card", people.propose_card, "administrator"),
    _post("/people/card/{subject}/options", people.card_options),
    _post("/people/card/{subject}", people.approve_card),
)


def console_of(
    *,
    settings: Settings,
    home: PartyHome,
    hub: HubClient,
    clock: Clock,
    verifiers: Verifiers,
    broker: bool,
    watch: Watch | None = None,
) -> Console:
    """A console over one party's directory. Opens (and if need be makes) its database."""
    store = Store(home.path / "people.sqlite")
    folk = People(store, clock, invitation_seconds=settings.invitation_seconds)
    sessions = Sessions(store, folk, settings, clock)
    library = Library(hub, home)
    assent = Assent(
        store=store, people=folk, sessions=sessions, home=home, hub=hub, clock=clock, relying_party=settings.name
    )
    return Console(
        settings=settings,
        home=home,
        clock=clock,
        store=store,
        people=folk,
        sessions=sessions,
        assent=assent,
        library=library,
        results=Results(library, home, verifiers),
        attempts=Attempts(settings.sign_in_attempts, clock),
        pages=_pages(),
        broker=broker,
        watch=watch,
    )


def _pages() -> jinja2.Environment:
    """Templates: everything is escaped, and a name that does not exist is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kakoi.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["b64"] = b64
    environment.tests["numeric"] = _numeric
    environment.globals["asset"] = {name: f"/static/{name}?{_digest(name)}" for name in STATIC}
    return environment


def _numeric(cell: str | None) -> bool:
    """Whether a cell of an output stands with the numbers; empty ones do."""
    try:
        return cell is None or float(cell) is not None
    except ValueError:
        return False


def _static(name: str) -> bytes:
    return resources.files("kakoi.console").joinpath("static", name).read_bytes()


def _digest(name: str) -> str:
    return sha256(_static(name)).hex()[:12]


def app_of(console: Console) -> ASGIApp:
    """The application, with its perimeter around it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for route in ROUTES:
        app.router.add_route(route.path, _endpoint(console, route), methods=[route.method])
    app.router.add_route("/static/{name}", _serve_static, methods=["GET"])
    app.router.add_route("/{rest:path}", _endpoint(console, _get("/{rest:path}", _nowhere)), methods=["GET", "POST"])

    def tell(status: int, address: str) -> None:
        if console.watch is not None:
            console.watch.hear(turned_away(status, address, console.clock.now()))

    site = Site(origin=console.settings.origin, body_bytes=console.settings.body_bytes)
    return BrowserPerimeter(app, site, tell)


def _nowhere(visit: Visit) -> Response:
    raise Refused("console.not-found", "expected the address of a page of this console, got another")


def _serve_static(request: Request) -> Response:
    name = str(request.path_params["name"])
    if name not in STATIC:
        return PlainTextResponse("expected a file of the console", 404)
    return Response(
        _static(name), media_type=STATIC[name], headers={"cache-control": "public, max-age=31536000, immutable"}
    )


def _endpoint(console: Console, route: Route) -> Callable[[Request], Response]:
    """A handler as an endpoint. It is no coroutine, so it runs in a thread and may wait for hub and disk."""

    def endpoint(request: Request) -> Response:
        try:
            visit = Visit(console, request)
        except KakoiError as error:
            return PlainTextResponse(str(error), 400)
        try:
            return _answer(visit, route)
        except KakoiError as error:
            if isinstance(error, Fatal):
                logger.critical("%s", error)
            _tell(visit, error)
            return visit.error(error)
        except Exception:
            logger.exception("unexpected error")
            return visit.error(
                Fatal(
                    "console.internal", "expected to answer, got an error of our own", hint="the console's log has more"
                )
            )

    return endpoint


def _tell(visit: Visit, error: KakoiError) -> None:
    """What was refused becomes an event. What a hub does not have, or does not answer, is nobody's attempt."""
    watch = visit.console.watch
    if watch is None or not (isinstance(error, Refused | Malformed) or error.code == "console.attempts"):
        return
    if error.code in ("console.not-found", "hub.not-found"):
        return
    watch.hear(
        refused(
            path=visit.request.url.path,
            code=error.code,
            address=visit.address,
            person=visit.session.member.name if visit.session else None,
            now=visit.console.clock.now(),
        )
    )


def _answer(visit: Visit, route: Route) -> Response:
    if route.access != "open":
        if visit.session is None:
            if route.method == "GET":
                return visit.go("/sign-in")
            raise Refused("session.none", "expected somebody who is signed in, got nobody", hint="sign in again")
        if route.method == "POST":
            visit.require_csrf()
        if route.access == "administrator" and visit.session.member.role != "administrator":
            raise Refused("people.not-administrator", "expected an administrator, got another person")
    answer = route.handler(visit)
    if route.method == "POST":
        visit.console.library.look_again()
    return answer
