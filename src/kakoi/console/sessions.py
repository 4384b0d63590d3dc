"""Who is signed in: short-lived sessions, challenges that work once, and a limit on attempts.

A session lets somebody look and prepare. It approves, withdraws and changes nobody: each of those needs a fresh passkey
assertion, so a stolen session is worth little and a stolen challenge nothing.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from kakoi.console.ceremony import Purpose, challenge_of, fresh_challenge, verify_twice
from kakoi.console.people import Device, Member, People
from kakoi.console.settings import Settings
from kakoi.console.store import Store
from kakoi.contract.model import Assertion
from kakoi.contract.passkey import Vouched
from kakoi.core.clock import Clock
from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused, Unavailable

_MOST_CEREMONIES: Final = 2000
_MOST_ADDRESSES: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person who is signed in. ``csrf`` goes into every form; ``key`` names the session in the database."""

    key: str
    csrf: str
    member: Member
    device: Device


class Sessions:
    """Sign-in, sessions, and fresh confirmations."""

    def __init__(self, store: Store, people: People, settings: Settings, clock: Clock) -> None:
        self._store, self._people, self._settings, self._clock = store, people, settings, clock

    # -- challenges

    def challenge(self, purpose: Purpose, *, about: str = "", session: str = "") -> bytes:
        """A challenge for one use, by one session if any, about one thing."""
        now = self._clock.now()
        self._store.run("delete from ceremony where expires <= ?", now)
        count = self._store.row("select count(*) from ceremony")
        if count is not None and count[0] >= _MOST_CEREMONIES:
            raise Unavailable("console.busy", "expected room for another sign-in, got none", hint="try again later")
        made = fresh_challenge(purpose)
        expires = now + self._settings.ceremony_seconds
        self._store.run("insert into ceremony values (?, ?, ?, ?, ?)", made, purpose, about, session, expires)
        return made

    def take(self, challenge: bytes, purpose: Purpose, *, about: str = "", session: str = "") -> None:
        """Use a challenge up. Raises Refused unless it was given for exactly this and not used before."""
        taken = self._store.run(
            "delete from ceremony where challenge = ? and purpose = ? and about = ? and session = ? and expires > ?",
            challenge,
            purpose,
            about,
            session,
            self._clock.now(),
        )
        if taken != 1:
            raise Refused(
                "passkey.challenge-used",
                "expected an answer to a challenge that is open, got one that was used or has expired",
                hint="reload the page and try again",
            )

    # -- signing in

    def sign_in(self, assertion: Assertion, *, agent: str) -> str:
        """Begin a session; its token for the cookie. Raises Malformed or Refused."""
        challenge = challenge_of(assertion)
        self.take(challenge, "sign-in")
        device = self._people.device(assertion.credential_id)
        self.verified(assertion, device, challenge)
        token, now = secrets.token_urlsafe(32), self._clock.now()
        member = self._people.member(device.person)
        with self._store.transaction():
            self._store.run(
                "insert into session values (?, ?, ?, ?, ?, ?)",
                _hashed(token),
                member.id,
                device.credential_id,
                now,
                now,
                _agent(agent),
            )
            self._store.note(now, member.name, "signed-in", device.label)
        return token

    def session(self, token: str, *, agent: str) -> Session | None:
        """The session of a cookie, if it lives. One that comes from another browser than it began in is ended."""
        if not token:
            return None
        key, now, settings = _hashed(token), self._clock.now(), self._settings
        row = self._store.row("select person, credential, created, seen, agent from session where token = ?", key)
        if row is None:
            return None
        person, credential, created, seen, agent_hash = row
        stale = now - seen > settings.session_idle_seconds or now - created > settings.session_seconds
        if stale or agent_hash != _agent(agent):
            self._store.run("delete from session where token = ?", key)
            return None
        try:
            member, device = self._people.member(person), self._people.device(credential)
        except Refused:
            self._store.run("delete from session where token = ?", key)
            return None
        if now - seen > 5:
            self._store.run("update session set seen = ? where token = ?", now, key)
        csrf = sha256(b"kakoi/csrf/v1", token.encode("utf-8", "replace")).hex()
        return Session(key=key, csrf=csrf, member=member, device=device)

    def sign_out(self, session: Session) -> None:
        """End a session."""
        self._store.run("delete from session where token = ?", session.key)

    # -- assertions of people who are signed in

    def confirmed(self, session: Session, assertion: Assertion, *, about: str) -> None:
        """Raise Refused unless the person of the session just confirmed ``about`` with a passkey of their own."""
        challenge = challenge_of(assertion)
        self.take(challenge, "confirm", about=about, session=session.key)
        self.verified(assertion, self.own_device(session, assertion), challenge)

    def own_device(self, session: Session, assertion: Assertion) -> Device:
        """The device that made an assertion. Raises Refused unless it belongs to the person who is signed in."""
        device = self._people.device(assertion.credential_id)
        if device.person != session.member.id:
            raise Refused(
                "session.other-person",
                "expected a passkey of the person who is signed in, got another person's",
                hint="each person approves in a session of their own",
            )
        return device

    def verified(self, assertion: Assertion, device: Device, challenge: bytes) -> Vouched:
        """An assertion by a device of this party over ``challenge``, its counter remembered. Raises Malformed, Refused."""
        vouched = verify_twice(
            assertion,
            person=self._people.as_person(device),
            relying_party=self._settings.name,
            origin=self._settings.origin,
            challenge=challenge,
            counter=device.counter,
        )
        self._people.used(device, vouched.counter)
        return vouched


class Attempts:
    """How often one address may try in a minute. In memory: a restart forgives."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most, self._clock = most, clock
        self._tried: OrderedDict[str, list[int]] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, address: str) -> None:
        """Count an attempt. Raises Unavailable if there were too many."""
        now = self._clock.now()
        with self._lock:
            recent = [at for at in self._tried.pop(address, []) if at > now - 60]
            if len(recent) >= self._most:
                self._tried[address] = recent
                raise Unavailable(
                    "console.attempts", "expected fewer attempts in a minute, got too many", hint="wait a minute"
                )
            self._tried[address] = [*recent, now]
            while len(self._tried) > _MOST_ADDRESSES:
                self._tried.popitem(last=False)


def _hashed(token: str) -> str:
    return sha256(b"kakoi/console-session/v1", token.encode("utf-8", "replace")).hex()


def _agent(agent: str) -> str:
    return sha256(b"kakoi/user-agent/v1", agent.encode("utf-8", "replace")).hex()
