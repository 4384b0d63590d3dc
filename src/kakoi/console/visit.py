"""One request: who asks, in which language, with which form; and how an answer is made. Handlers get a ``Visit`` and return a response."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http.cookies import SimpleCookie
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from kakoi.console.assent import Assent
from kakoi.console.ceremony import read_assertion, request_options
from kakoi.console.library import Library
from kakoi.console.people import People
from kakoi.console.runs import Results
from kakoi.console.sessions import Attempts, Session, Sessions
from kakoi.console.settings import Settings
from kakoi.console.store import Store
from kakoi.core import crypto
from kakoi.core.clock import Clock
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable
from kakoi.core.ids import parse_id
from kakoi.guard.browser import BODY
from kakoi.guard.watch import Watch
from kakoi.party.home import PartyHome
from kakoi.say import aloud, locale
from kakoi.say.catalogue import LANGUAGES, SHARED, Language, error_text, read, rule_text, text_of_code
from kakoi.sdk.verify import Said

FOLDER: Final = "console/messages"
LANGUAGE_COOKIE: Final = "kakoi-language"
_STATUS: Final[tuple[tuple[type[KakoiError], int], ...]] = (
    (Malformed, 400),
    (Refused, 403),
    (Unavailable, 503),
    (Misuse, 400),
    (Fatal, 500),
)
_FOUND: Final = {"hub.not-found": 404, "console.not-found": 404, "console.attempts": 429}
_LOCAL: Final = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9_./-]*)?\Z")
Access = Literal["open", "session", "administrator"]


@dataclass(slots=True, kw_only=True)
class Console:
    """Everything one console works with."""

    settings: Settings
    home: PartyHome
    clock: Clock
    store: Store
    people: People
    sessions: Sessions
    assent: Assent
    library: Library
    results: Results
    attempts: Attempts
    pages: jinja2.Environment
    streams: list[str] = field(default_factory=list)
    """Runs that somebody watches live."""
    broker: bool
    """Whether the party's broker runs beside it."""
    watch: Watch | None = None
    """Where events go; None for a console that nobody watches (tests)."""


class Visit:
    """One request to one console."""

    def __init__(self, console: Console, request: Request) -> None:
        self.console, self.request = console, request
        self.form = _form(request)
        self.agent = request.headers.get("user-agent", "")
        self.session = console.sessions.session(self.cookie(console.settings.cookie), agent=self.agent)

    # -- what came

    def cookie(self, name: str) -> str:
        """A cookie's value, or empty text."""
        return self.request.cookies.get(name, "")

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return self.request.client.host if self.request.client else ""

    @cached_property
    def language(self) -> Language:
        """The language that was chosen, else the browser's, else English."""
        chosen = self.cookie(LANGUAGE_COOKIE)
        if chosen in LANGUAGES:
            return "ja" if chosen == "ja" else "en"
        wanted = self.request.headers.get("accept-language", "").lower()
        places = {language: wanted.find(language) for language in LANGUAGES}
        return "ja" if places["ja"] >= 0 and not 0 <= places["en"] < places["ja"] else "en"

    def path(self, name: str) -> str:
        """A part of the address."""
        return str(self.request.path_params[name])

    def field(self, name: str, *, most: int = 4000) -> str:
        """A field of the form, as one text with line feeds. Raises Malformed if it is missing or too long."""
        value = self.form.get(name)
        if value is None or len(value) > most:
            raise Malformed("console.form", f"expected a field {name} of at most {most} characters in the form")
        return value.replace("\r\n", "\n").strip("\n") if "\n" in value else value.strip()

    def number(self, name: str, *, least: int, most: int) -> int:
        """A whole number of the form. Raises Malformed."""
        text = self.field(name, most=20)
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise Malformed("console.form", f"expected a whole number from {least} to {most} in the field {name}")
        return int(text)

    @property
    def who(self) -> Session:
        """The session of whoever asks. Raises Refused if nobody is signed in."""
        if self.session is None:
            raise Refused("session.none", "expected somebody who is signed in, got nobody")
        return self.session

    def require_csrf(self) -> None:
        """Raise Refused unless the form carries the session's own token."""
        crypto.same(
            self.form.get("csrf", "").encode("utf-8", "replace"),
            self.who.csrf.encode(),
            code="session.csrf",
            message="expected a form that this session's own page sent, got another",
            hint="reload the page and try again",
        )

    # -- fresh confirmations: an assertion over a challenge that is bound to the very form

    def about_form(self, path: str) -> str:
        """A digest of what a form asks for, but for the tokens that carry it."""
        fields = sorted((n, v) for n, v in self.form.items() if n not in ("csrf", "answer", "_path"))
        parts = [part.replace("\r\n", "\n").encode("utf-8", "replace") for field in fields for part in field]
        return sha256(framed(b"kakoi/confirm-form/v1", path.encode(), *parts)).hex()

    def confirm_options(self) -> Response:
        """Options for confirming the form that is about to be sent to ``_path``."""
        about = self.about_form(self.field("_path", most=300))
        challenge = self.console.sessions.challenge("confirm", about=about, session=self.who.key)
        allowed = [device.credential_id for device in self.console.people.devices(self.who.member.id)]
        return self.options(
            request_options(relying_party=self.console.settings.name, challenge=challenge, allowed=allowed)
        )

    def require_confirmed(self) -> None:
        """Raise Refused unless the person confirmed exactly this form with a passkey just now."""
        about = self.about_form(self.request.url.path)
        self.console.sessions.confirmed(self.who, read_assertion(self.field("answer", most=32768)), about=about)

    # -- what goes back

    def text(self, key: str, **parameters: object) -> str:
        """A sentence in the visitor's language."""
        return sentence(self.language, key, **parameters)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A whole page."""
        return HTMLResponse(self.render(template, **values), status)

    def render(self, template: str, **values: Any) -> str:
        """A template in the visitor's language."""
        language = self.language

        def said(item: Said) -> str:
            return self.text(item.key, **_readable(item, language))

        def step(name: str) -> str:
            """A step of the broker's work; later versions may know more of them than this page."""
            key = f"decision.step.{name.partition('.')[0]}"
            return self.text(key) if key in read(FOLDER, language) else name

        shared = {
            "t": self.text,
            "said": said,
            "step": step,
            "lang": language,
            "session": self.session,
            "console": self.console,
            "party": self.console.home.card.record.name,
            "csrf": self.session.csrf if self.session else "",
            "path": self.request.url.path,
            "when": lambda seconds: locale.time(seconds, language),
            "day": lambda seconds: locale.day(seconds, language),
            "clock": locale.clock,
            "num": lambda value: locale.number(str(value)),
            "size": locale.size,
            "aloud": lambda identity: aloud.words(identity, language),
            "rule_text": lambda rule: rule_text(rule, language),
            "trouble": lambda code, message, hint: text_of_code(code, message, hint, language),
        }
        return self.console.pages.get_template(template).render(**shared, **values)

    def options(self, text: str) -> Response:
        """JSON that was made already."""
        return Response(text, media_type="application/json")

    def go(self, path: str) -> Response:
        """To another page of the console (303, so that reloading sends nothing twice). Never anywhere else."""
        return RedirectResponse(path if _LOCAL.match(path) and "//" not in path else "/", 303)

    def go_with(self, path: str, identity: str) -> Response:
        """To another page, with an object's id for it to use."""
        answer = self.go(path)
        answer.headers["location"] += f"?with={parse_id(identity)}"
        return answer

    def error(self, error: KakoiError) -> Response:
        """An error as a page, or as JSON for scripts that ask for options."""
        status = _FOUND.get(error.code) or next((n for family, n in _STATUS if isinstance(error, family)), 500)
        message, hint = error_text(error, self.language)
        headers = {"retry-after": "60"} if status == 429 else {}
        if self.request.url.path.endswith("/options"):
            return JSONResponse({"message": message, "hint": hint, "code": error.code}, status, headers)
        page = "error.html" if self.session else "door_error.html"
        body = self.render(page, message=message, hint=hint, code=error.code, status=status)
        return HTMLResponse(body, status, headers)


Handler = Callable[[Visit], Response]


def sentence(language: Language, key: str, **parameters: object) -> str:
    """The console's sentence for ``key``, else the shared one. An unknown key is a mistake of ours: KeyError."""
    own = read(FOLDER, language)
    return (own[key] if key in own else read(SHARED, language)[key]).format(**parameters)


def _readable(item: Said, language: Language) -> dict[str, object]:
    """Parameters of a sentence: times as dates."""
    return {
        name: locale.day(value, language) if isinstance(value, int) and value > 10**9 else value
        for name, value in item.parameters.items()
    }


def _form(request: Request) -> dict[str, str]:
    """The form's fields. Repeated names are joined by line feeds (check boxes). Raises Malformed for what is no form."""
    body = request.scope.get(BODY)
    if not body:
        return {}
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=4000
        )
    except (ValueError, UnicodeDecodeError):
        raise Malformed("console.form", "expected a form, got something else") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def session_cookie(settings: Settings, token: str) -> str:
    """The Set-Cookie header of a session: not for scripts, not from other sites, not without TLS where there is TLS."""
    jar: SimpleCookie = SimpleCookie()
    jar[settings.cookie] = token
    morsel = jar[settings.cookie]
    morsel["path"], morsel["httponly"], morsel["samesite"] = "/", True, "Strict"
    if settings.tls:
        morsel["secure"] = True
    if not token:
        morsel["max-age"] = 0
    return morsel.OutputString()


def language_cookie(settings: Settings, language: Language) -> str:
    """The Set-Cookie header of a choice of language, for a year."""
    secure = "; Secure" if settings.tls else ""
    return f"{LANGUAGE_COOKIE}={language}; Path=/; Max-Age=31536000; SameSite=Strict; HttpOnly{secure}"
