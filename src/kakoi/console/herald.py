"""Tells people, outside of the console, that something waits for them; never what.

What was told is remembered, and what could not be sent waits in the database with growing pauses, so that a restart
neither repeats nor forgets. Several things that come together are one notification.
"""

from __future__ import annotations

import logging
import secrets
import threading
from dataclasses import dataclass
from typing import Final

from kakoi.console import notify, outgoing
from kakoi.console.contracts import all_standings
from kakoi.console.notify import Notify, require_mailbox
from kakoi.console.people import Member
from kakoi.console.visit import Console, sentence
from kakoi.console.waits import recent_runs, waits_for
from kakoi.core.errors import KakoiError, Misuse
from kakoi.say.catalogue import Language

logger = logging.getLogger(__name__)
LOOK_SECONDS: Final = 20
_PAUSES: Final = (30, 120, 600, 3600, 6 * 3600, 6 * 3600, 6 * 3600)
"""Seconds after each attempt that failed; after the last the notification is dropped, and the log says so."""
WEBHOOK: Final = ""
"""Whom the web hook's rows are for: nobody in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A notification that is to be sent now. ``person``: id of a member, or ``WEBHOOK``."""

    id: str
    person: str
    attempts: int
    due: int


class Herald:
    """One console's notifications."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def run(self, stop: threading.Event) -> None:
        """Look and send until ``stop``. Whatever goes wrong is logged and tried again."""
        while not stop.wait(LOOK_SECONDS):
            try:
                self.step(stop)
            except KakoiError as error:
                logger.warning("notifications: %s", error)
            except Exception:
                logger.exception("notifications: unexpected error")

    def step(self, stop: threading.Event | None = None) -> None:
        """One look at what waits, then everything that is due."""
        settings = notify.load(self._console.home.path)
        if settings.webhook is None and settings.mail is None:
            return
        self.look(settings)
        for item in self.due():
            if stop is not None and stop.is_set():
                return
            self.send(settings, item)

    # -- what is new

    def look(self, settings: Notify) -> None:
        """Put a notification into the database for everybody for whom something new waits."""
        console = self._console
        standings, recent = all_standings(console), recent_runs(console)
        anything = False
        for member in console.people.members():
            if not console.people.devices(member.id):
                continue
            new = self._new(member, waits_for(console, member.name, standings, recent).things)
            anything = anything or new
            if new and settings.mail is not None and self.mailbox(member) is not None:
                self._enqueue(member.id)
        if anything and settings.webhook is not None:
            self._enqueue(WEBHOOK)

    def _new(self, member: Member, things: frozenset[str]) -> bool:
        """Whether anything was not there before; from now on it was."""
        now = self._console.clock.now()
        added = [
            self._console.store.run("insert or ignore into told values (?, ?, ?)", member.id, thing, now)
            for thing in sorted(things)
        ]
        return any(added)

    def _enqueue(self, person: str) -> None:
        """One at a time: whoever was not reached yet need not be told twice."""
        now = self._console.clock.now()
        self._console.store.run(
            "insert into outbox select ?, ?, ?, 0, ? where not exists (select 1 from outbox where person = ?)",
            f"msg_{secrets.token_hex(16)}",
            person,
            now,
            now,
            person,
        )

    # -- sending

    def due(self) -> list[Due]:
        """What is to be sent now, oldest first."""
        rows = self._console.store.rows(
            "select id, person, attempts, due from outbox where due <= ? order by created limit 64",
            self._console.clock.now(),
        )
        return [Due(id=i, person=p, attempts=a, due=d) for i, p, a, d in rows]

    def send(self, settings: Notify, item: Due) -> None:
        """Send one, or put it off. Another console of the same party may be at it already: whoever moves it sends it."""
        store, now = self._console.store, self._console.clock.now()
        pause = _PAUSES[min(item.attempts, len(_PAUSES) - 1)]
        moved = store.run(
            "update outbox set attempts = attempts + 1, due = ? where id = ? and due = ?",
            now + pause,
            item.id,
            item.due,
        )
        if moved != 1:
            return
        try:
            self._tell(settings, item, now)
        except KakoiError as error:
            logger.warning("notifications: %s", error)
            if item.attempts + 1 < len(_PAUSES):
                return
            store.note(now, "", "not-told", error.code)
        store.run("delete from outbox where id = ?", item.id)

    def _tell(self, settings: Notify, item: Due, now: int) -> None:
        console = self._console
        if item.person == WEBHOOK:
            if settings.webhook is not None:
                outgoing.post(settings, settings.webhook, identity=item.id, now=now, origin=console.settings.origin)
            return
        member = next((member for member in console.people.members() if member.id == item.person), None)
        to = self.mailbox(member) if member is not None else None
        if to is not None and settings.mail is not None:
            address, language = to
            outgoing.send_mail(
                settings,
                settings.mail,
                to=address,
                subject=sentence(language, "notify.subject"),
                text=sentence(language, "notify.text", address=console.settings.origin),
                now=now,
            )

    # -- people's mail addresses

    def mailbox(self, member: Member) -> tuple[str, Language] | None:
        """Where a person wants mail, and in which language."""
        row = self._console.store.row("select address, language from mailbox where person = ?", member.id)
        return None if row is None else (str(row[0]), "ja" if row[1] == "ja" else "en")

    def set_mailbox(self, member: Member, address: str, language: Language) -> None:
        """Remember a person's mail address; empty: no more mail. Raises Malformed."""
        store = self._console.store
        if not address:
            store.run("delete from mailbox where person = ?", member.id)
            store.run("delete from outbox where person = ?", member.id)
            return
        store.run("insert or replace into mailbox values (?, ?, ?)", member.id, require_mailbox(address), language)

    def test(self, member: Member) -> tuple[str, ...]:
        """Send a notification now, to the web hook and to one person. What was told; raises what went wrong."""
        settings, now = notify.load(self._console.home.path), self._console.clock.now()
        told: list[str] = []
        identity = f"msg_{secrets.token_hex(16)}"
        if settings.webhook is not None:
            self._tell(settings, Due(id=identity, person=WEBHOOK, attempts=0, due=now), now)
            told.append(settings.webhook.host)
        box = self.mailbox(member)
        if settings.mail is not None and box is not None:
            self._tell(settings, Due(id=identity, person=member.id, attempts=0, due=now), now)
            told.append(box[0])
        if not told:
            raise Misuse(
                "notify.nothing",
                "expected a web hook, or a mail server and your mail address, got neither",
                hint="kakoi console notify sets the mail server",
            )
        return tuple(told)
