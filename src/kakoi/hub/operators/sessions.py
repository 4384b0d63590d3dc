"""Sign-ins that have begun, and operators who are signed in. In memory: when the hub ends, so do all sessions."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.hub.operators.settings import Operator, OperatorSettings

BEGUN_SECONDS: Final = 300
"""For so long a browser may be at the issuer."""
_MOST_BEGUN: Final = 512
_MOST_SESSIONS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A sign-in that a browser began."""

    state: str
    nonce: str
    verifier: str
    """PKCE (RFC 7636)."""
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who is signed in."""

    operator: Operator
    csrf: str
    agent: str
    begun: float
    seen: float


class Sessions:
    """``clock`` is monotonic: no jump of the machine's time lengthens a session."""

    def __init__(self, settings: OperatorSettings, clock: Callable[[], float]) -> None:
        self._settings, self._clock = settings, clock
        self._begun: OrderedDict[str, Begun] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self) -> tuple[str, Begun]:
        """A sign-in, and the secret that binds it to the browser which began it (its cookie)."""
        now = self._clock()
        while self._begun and (len(self._begun) >= _MOST_BEGUN or next(iter(self._begun.values())).until <= now):
            self._begun.popitem(last=False)
        cookie, state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        begun = Begun(state=state, nonce=nonce, verifier=verifier, until=now + BEGUN_SECONDS)
        self._begun[_hashed(cookie)] = begun
        return cookie, begun

    def take(self, cookie: str, state: str) -> Begun:
        """The sign-in that this browser began, once. Raises Refused for another's, a used or an old one."""
        begun = self._begun.pop(_hashed(cookie), None)
        if begun is None or not secrets.compare_digest(_hashed(begun.state), _hashed(state)):
            raise _no_sign_in()
        if begun.until <= self._clock():
            raise _no_sign_in()
        return begun

    def open(self, operator: Operator, agent: str) -> str:
        """Sign somebody in; the token for the cookie. A browser's earlier session is another's: tokens never come from outside."""
        now, token = self._clock(), secrets.token_urlsafe(32)
        self._sessions[_hashed(token)] = Session(
            operator=operator, csrf=secrets.token_urlsafe(32), agent=_hashed(agent), begun=now, seen=now
        )
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def session(self, token: str, agent: str) -> Session | None:
        """The session of a cookie, if it lives. One that comes from another browser than it began in is ended."""
        key, now = _hashed(token), self._clock()
        found = self._sessions.get(key)
        if found is None:
            return None
        over = now - found.begun > self._settings.session_seconds or now - found.seen > self._settings.idle_seconds
        if over or found.agent != _hashed(agent):
            del self._sessions[key]
            return None
        self._sessions[key] = replace(found, seen=now)
        return found

    def close(self, token: str) -> None:
        """Sign out."""
        self._sessions.pop(_hashed(token), None)


def require_csrf(session: Session, given: str) -> None:
    """Raise Refused unless a form carries the session's own token."""
    if not secrets.compare_digest(_hashed(session.csrf), _hashed(given)):
        raise Refused(
            "session.csrf",
            "expected a form that this session's own page sent, got another",
            hint="reload the page and try again",
        )


def _hashed(text: str) -> str:
    return sha256(b"kakoi/operators/v1", text.encode("utf-8", "replace")).hex()


def _no_sign_in() -> Refused:
    return Refused(
        "operators.state",
        "expected the answer to a sign-in that this browser began a moment ago, got another or a used one",
        hint="begin again at the sign-in page",
    )
