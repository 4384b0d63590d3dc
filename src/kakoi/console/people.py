"""The people of one party: invited, enrolled with one or more devices, recovered, removed.

Rules (docs/adr/0071): names are never used twice; an invitation works once and for three days; a new device for oneself needs a
device one has; recovery, which replaces lost devices, needs two other people; the last administrator stays.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal, cast

from kakoi.console.ceremony import NewKey
from kakoi.console.store import Store
from kakoi.contract.model import Person
from kakoi.core.clock import Clock
from kakoi.core.encoding import sha256
from kakoi.core.errors import Misuse, Refused

Role = Literal["administrator", "member"]
InvitationPurpose = Literal["enrol", "device", "recovery"]
MOST_DEVICES: Final = 8
MOST_PEOPLE: Final = 64
_DEVICE: Final = "credential, person, label, public_key, counter, created, used, backed_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person of this party. ``id`` is the WebAuthn user handle (32 hex digits)."""

    id: str
    name: str
    role: Role
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One passkey of a person."""

    credential_id: bytes
    person: str
    label: str
    public_key: bytes
    counter: int
    created: int
    used: int | None
    backed_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """An open invitation: for whom, to what."""

    id: str
    person: Member
    purpose: InvitationPurpose
    by: str
    expires: int


class People:
    """Who may sign in here."""

    def __init__(self, store: Store, clock: Clock, *, invitation_seconds: int) -> None:
        self._store, self._clock, self._seconds = store, clock, invitation_seconds

    # -- reading

    def members(self) -> list[Member]:
        """Everybody who is not removed, by name."""
        rows = self._store.rows("select id, name, role, created from person where removed is null order by name")
        return [Member(id=i, name=n, role=cast("Role", r), created=c) for i, n, r, c in rows]

    def member(self, identity: str) -> Member:
        """A person. Raises Refused if there is none or they were removed."""
        for member in self.members():
            if member.id == identity:
                return member
        raise Refused("people.unknown", "expected a person of this party, got an unknown or removed one")

    def devices(self, person: str = "") -> list[Device]:
        """Devices in use, of one person or of all, oldest first."""
        rows = self._store.rows(
            f"select {_DEVICE} from device where removed is null and (? = '' or person = ?) order by created, credential",  # noqa: S608 - a constant
            person,
            person,
        )
        return [_device(row) for row in rows]

    def device(self, credential_id: bytes) -> Device:
        """A device in use, of a person who is not removed. Raises Refused otherwise."""
        row = self._store.row(
            f"select {_DEVICE} from device where credential = ? and removed is null",  # noqa: S608 - a constant
            credential_id,
        )
        if row is None:
            raise Refused(
                "people.device-unknown",
                "expected a passkey that is enrolled here, got another or a removed one",
                hint="ask an administrator of this party for an invitation",
            )
        device = _device(row)
        self.member(device.person)
        return device

    def as_person(self, device: Device) -> Person:
        """A device as the party's card names it."""
        return Person(
            name=self.member(device.person).name, credential_id=device.credential_id, public_key=device.public_key
        )

    def for_card(self) -> tuple[Person, ...]:
        """Everybody with every device, as the next card would name them."""
        found = [self.as_person(device) for device in self.devices()]
        return tuple(sorted(found, key=lambda person: (person.name, person.credential_id)))

    # -- invitations

    def invite(self, name: str, role: Role, *, by: str) -> str:
        """Invite a new person; the link's token. Raises Refused for a name that is or was in use."""
        Person(name=name, credential_id=bytes(16), public_key=bytes(32))  # the same rules as on the card
        if role not in ("administrator", "member"):
            raise Misuse("people.role", "expected the role administrator or member, got another")
        if len(self.members()) >= MOST_PEOPLE:
            raise Refused("people.full", f"expected at most {MOST_PEOPLE} people, got one more")
        identity, now = secrets.token_hex(16), self._clock.now()
        with self._store.transaction():
            if self._store.row("select 1 from person where name = ?", name):
                raise Refused(
                    "people.name-taken",
                    "expected a name that nobody here has or had, got one in use",
                    hint="add something that tells the two people apart",
                )
            self._store.run("insert into person values (?, ?, ?, ?, null)", identity, name, role, now)
            self._store.note(now, by, "invited", name)
            return self._invitation(identity, "enrol", by)

    def invite_device(self, person: Member) -> str:
        """A link with which a person adds a device of their own."""
        if len(self.devices(person.id)) >= MOST_DEVICES:
            raise Refused("people.devices", f"expected at most {MOST_DEVICES} devices of one person, got one more")
        with self._store.transaction():
            self._store.note(self._clock.now(), person.name, "device-wanted")
            return self._invitation(person.id, "device", person.name)

    def ask_recovery(self, person: str, *, by: Member) -> str:
        """An administrator asks for a person's recovery; nothing can be done with it until a second person agrees."""
        member = self.member(person)
        if by.role != "administrator" or by.id == member.id:
            raise Refused("people.recovery", "expected another person, an administrator, to ask for a recovery")
        now, identity = self._clock.now(), secrets.token_hex(16)
        self._store.run(
            "insert into invitation values (?, null, ?, 'recovery', ?, null, ?, ?, null)",
            identity,
            member.id,
            by.name,
            now,
            now + self._seconds,
        )
        self._store.note(now, by.name, "recovery-asked", member.name)
        return identity

    def second_recovery(self, invitation: str, *, by: Member) -> str:
        """A second person agrees to a recovery; the link's token. Raises Refused for the first or the lost person."""
        now = self._clock.now()
        with self._store.transaction():
            row = self._store.row(
                "select person, by from invitation where id = ? and purpose = 'recovery' and seconded is null "
                "and expires > ?",
                invitation,
                now,
            )
            if row is None or by.name == row[1] or by.id == row[0]:
                raise Refused(
                    "people.second-person",
                    "expected a second person, neither the one who asked nor the one who lost their devices",
                    hint="ask a colleague to confirm it in their own console session",
                )
            token = secrets.token_urlsafe(32)
            self._store.run(
                "update invitation set token = ?, seconded = ? where id = ?", _hashed(token), by.name, invitation
            )
            self._store.note(now, by.name, "recovery-agreed", self.member(row[0]).name)
            return token

    def waiting_recoveries(self) -> list[Invitation]:
        """Recoveries that wait for a second person."""
        rows = self._store.rows(
            "select id, person, purpose, by, expires from invitation where purpose = 'recovery' and seconded is null "
            "and expires > ? order by created",
            self._clock.now(),
        )
        return [self._read(row) for row in rows]

    def _invitation(self, person: str, purpose: InvitationPurpose, by: str) -> str:
        token, now = secrets.token_urlsafe(32), self._clock.now()
        self._store.run(
            "insert into invitation values (?, ?, ?, ?, ?, null, ?, ?, null)",
            secrets.token_hex(16),
            _hashed(token),
            person,
            purpose,
            by,
            now,
            now + self._seconds,
        )
        return token

    def invitation(self, token: str) -> Invitation:
        """The open invitation of a link. Raises Refused if it was used, has expired, or never was."""
        row = self._store.row(
            "select id, person, purpose, by, expires from invitation where token = ? and used is null and expires > ?",
            _hashed(token),
            self._clock.now(),
        )
        if row is None:
            raise Refused(
                "people.invitation",
                "expected an invitation that is open, got one that was used, has expired or never was",
                hint="ask an administrator of this party for a new one",
            )
        return self._read(row)

    def _read(self, row: tuple[object, ...]) -> Invitation:
        identity, person, purpose, by, expires = row
        return Invitation(
            id=str(identity),
            person=self.member(str(person)),
            purpose=cast("InvitationPurpose", purpose),
            by=str(by),
            expires=int(str(expires)),
        )

    def enrol(self, token: str, new: NewKey, *, label: str) -> Member:
        """Use an invitation up for a new device. A recovery removes the person's other devices. Raises Refused."""
        now = self._clock.now()
        with self._store.transaction():
            invitation = self.invitation(token)
            if self._store.row("select 1 from device where credential = ?", new.credential_id):
                raise Refused(
                    "people.device-known", "expected a passkey that is new here, got one that was enrolled before"
                )
            if invitation.purpose == "recovery":
                for device in self.devices(invitation.person.id):
                    self._drop(device, now)
            self._store.run("update invitation set used = ? where id = ?", now, invitation.id)
            self._store.run(
                f"insert into device ({_DEVICE}) values (?, ?, ?, ?, ?, ?, null, ?)",  # noqa: S608 - a constant
                new.credential_id,
                invitation.person.id,
                label[:80],
                new.key.encode(),
                new.counter,
                now,
                int(new.backed_up),
            )
            self._store.note(now, invitation.person.name, "enrolled", label[:80])
            return invitation.person

    # -- changes

    def used(self, device: Device, counter: int) -> None:
        """Remember a device's counter and when it was used."""
        self._store.run(
            "update device set counter = max(counter, ?), used = ? where credential = ?",
            counter,
            self._clock.now(),
            device.credential_id,
        )

    def remove(self, person: str, *, by: Member) -> None:
        """Remove a person: devices, sessions, open invitations and signatures that are not yet part of an approval."""
        member, now = self.member(person), self._clock.now()
        administrators = [m for m in self.members() if m.role == "administrator" and self.devices(m.id)]
        if by.role != "administrator":
            raise Refused("people.not-administrator", "expected an administrator, got another person")
        if member.role == "administrator" and len(administrators) <= 1 and self.devices(member.id):
            raise Refused("people.last-administrator", "expected another administrator to remain, got the last one")
        with self._store.transaction():
            for device in self.devices(member.id):
                self._drop(device, now)
            self._store.run("update person set removed = ? where id = ?", now, member.id)
            self._store.run("update invitation set expires = ? where person = ?", now, member.id)
            self._store.run("delete from mailbox where person = ?", member.id)
            self._store.run("delete from outbox where person = ?", member.id)
            self._store.note(now, by.name, "removed", member.name)

    def remove_device(self, credential_id: bytes, *, by: Member) -> None:
        """Remove one device of oneself, or as an administrator of anybody; not a person's last one."""
        device, now = self.device(credential_id), self._clock.now()
        if device.person != by.id and by.role != "administrator":
            raise Refused("people.not-administrator", "expected one's own device or an administrator, got neither")
        if len(self.devices(device.person)) <= 1:
            raise Refused(
                "people.last-device",
                "expected another device of this person to remain, got the last one",
                hint="add another device first, or remove the person",
            )
        with self._store.transaction():
            self._drop(device, now)
            self._store.note(now, by.name, "device-removed", f"{self.member(device.person).name}: {device.label}")

    def _drop(self, device: Device, now: int) -> None:
        self._store.run("update device set removed = ? where credential = ?", now, device.credential_id)
        self._store.run("delete from session where credential = ?", device.credential_id)
        self._store.run("delete from vouched where credential = ?", device.credential_id)


def _device(row: tuple[object, ...]) -> Device:
    credential, person, label, public_key, counter, created, used, backed_up = row
    return Device(
        credential_id=cast("bytes", credential),
        person=str(person),
        label=str(label),
        public_key=cast("bytes", public_key),
        counter=cast("int", counter),
        created=cast("int", created),
        used=cast("int | None", used),
        backed_up=bool(backed_up),
    )


def _hashed(token: str) -> str:
    return sha256(b"kakoi/invitation/v1", token.encode("utf-8", "replace")).hex()
