"""Taking, finding and giving objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select

from kakoi.contract.model import Contract, PartyCard
from kakoi.core import dsse
from kakoi.core.crypto import VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.hub import feed, schema
from kakoi.hub.budgets import Budgets, Identity
from kakoi.hub.concern import concerns, is_shared
from kakoi.hub.database import Database, Transaction
from kakoi.hub.identify import Principal
from kakoi.hub.kinds import RULES, Described, describe, names_software
from kakoi.hub.notify import ObjectNews, RunNews
from kakoi.hub.policy import Policies
from kakoi.hub.quota import count_object
from kakoi.hub.settings import Limits
from kakoi.hub.warned import Warned
from kakoi.net.answers import FeedItem, FeedPage
from kakoi.tlog.leaf import leaf_hash
from kakoi.wire.messages import RunFailure, RunRequest, SealedResult, Session

_REMEMBERED: Final = 4096
"""Keys (about 3 KB each) that are kept in memory."""
_BEGINNING: Final = b'{"payload":"'
"""How canonical envelopes begin: nothing else is worth parsing."""
_STRANGERS_MOST: Final = 256 * 1024
"""Bytes of payload that are read before it is known who signed them."""
_ENDS: Final = (SealedResult.KIND, RunFailure.KIND)
"""What ends a run for its analyst: a run has one of them, once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A key, and who introduced it: a party's card, or a session of one attempt at one run."""

    key: VerifyingKey
    objects: frozenset[str]
    """Ids of the cards (or the session) that introduced the key."""
    run: str
    """Empty for a party."""
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An object whose signature was verified, ready to be stored."""

    id: ObjectId
    envelope: bytes
    what: Described
    holder: Holder
    token: str
    keeper: str
    """Whose quota it counts against; empty for what runs make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of an object: its place in the feed, whether it is new, and who helped a run at work along with it."""

    item: FeedItem
    new: bool
    helps: str


class Objects:
    """The hub's objects."""

    def __init__(
        self, database: Database, budgets: Budgets, limits: Limits, policies: Policies, warned: Warned
    ) -> None:
        self._database, self._budgets, self._limits, self._policies = database, budgets, limits, policies
        self._warned = warned
        self._holders: OrderedDict[tuple[str, ...], Holder] = OrderedDict()

    async def put(self, object_id: ObjectId, body: bytes, token: str, who: Identity, sender: Principal) -> Taken:
        """Store an object. Cheap checks come first.

        1. whoever sends it has not sent too many that were wrong;
        2. the envelope is canonical, its payload has the id, and nobody warns of its keys;
        3. both signatures verify, if the signer is known; if not, it is small enough to introduce one;
        4. kind, size and references are acceptable, and the signer may sign this kind;
        5. it is within the budgets of new cards and of objects;
        6. in one transaction: unless the object is there already, contract, run and claim fit, and object, references,
           key, run and log entry are written, and counted against the signer's quota.

        Raises Malformed, Refused or, beyond a budget, Later.
        """
        envelope, verified = await self._read(object_id, body, token, who)
        what = describe(envelope)
        if what.rule.name == PartyCard.KIND:
            found = await self._database.read(lambda connection: _find(connection, object_id))
            if found is not None:
                return Taken(item=found, new=False, helps="")  # everybody sends a card before anything else
        holder = await self._verified(envelope, what, who, verified)
        own = holder.key.ed25519 == sender.public
        about: dict[str, str | bool] = {
            "kind": what.rule.name,
            "shared": is_shared(what.rule),
            "own": own,
            "concerned": own,
            "state": await self._state(what),
            "software": names_software(what),
        }
        self._policies.require(sender, "put", object_id=object_id, attributes=about)
        admitted = Admitted(
            id=object_id, envelope=body, what=what, holder=holder, token=token, keeper=_keeper(what, who)
        )
        return await self._database.write(
            lambda transaction: store(transaction, admitted, self._limits), vital=who.vital
        )

    async def _read(
        self, object_id: ObjectId, body: bytes, token: str, who: Identity
    ) -> tuple[Envelope, VerifyingKey | None]:
        """The envelope, and the key that was found to have signed it if it is one the hub knows.

        Reading a payload can cost far more than verifying its signatures, so strangers' payloads are read only if they are
        small, as those are that introduce somebody.
        """
        self._budgets.may_verify(who)
        try:
            if not body.startswith(_BEGINNING):
                raise Malformed("hub.envelope", "expected an envelope, got something else")
            envelope = Envelope.decode(body)
            if envelope.payload_id != object_id:
                raise Malformed("hub.object-id", "expected a payload with the id in the address, got another")
            self._warned.require_keys(*(entry.keyid for entry in envelope.signatures))
            holder = await self._known_signer(envelope)
            if holder is not None:
                dsse.verify(envelope, holder.key, payload_type=envelope.payloadType)
            elif len(envelope.payload) > _STRANGERS_MOST and not (who.vital or token):
                raise _unknown()
        except (Malformed, Refused):
            self._budgets.wrong_signature(who)
            raise
        return envelope, None if holder is None else holder.key

    async def _known_signer(self, envelope: Envelope) -> Holder | None:
        try:
            return await self._look_up(tuple(sorted(entry.keyid for entry in envelope.signatures)), "")
        except Refused:
            return None

    async def _verified(
        self, envelope: Envelope, what: Described, who: Identity, verified: VerifyingKey | None
    ) -> Holder:
        try:
            holder = await self._holder(envelope, what)
            if holder.key != verified:
                dsse.verify(envelope, holder.key, payload_type=what.payload_type)
        except (Malformed, Refused):
            self._budgets.wrong_signature(who)
            raise
        if what.rule.name == PartyCard.KIND:
            self._budgets.card(who)
        elif what.rule.signer == "party":
            self._budgets.object(what.hex_member(what.rule.named_by), who)
        return holder

    async def get(self, object_id: ObjectId, reader: Principal) -> bytes:
        """An object's envelope, as it was put. Raises Refused if there is none, or none for this reader."""
        query = select(schema.objects.c.envelope, schema.objects.c.kind).where(schema.objects.c.id == object_id)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        if row is None:
            raise Refused("hub.not-found", "expected the id of an object that is here, got another")
        data, shared, concerned = bytes(row.envelope), is_shared(RULES[row.kind]), False
        if reader.kind == "party" and not shared:
            references = describe(Envelope.decode(data)).references
            concerned = await self._database.read(lambda connection: concerns(connection, reader.id, references))
        about: dict[str, str | bool] = {
            "kind": row.kind,
            "shared": shared,
            "own": False,
            "concerned": concerned,
            "state": "",
            "software": False,
        }
        self._policies.require(reader, "get", object_id=object_id, attributes=about)
        return data

    async def page(
        self,
        *,
        after: int,
        kinds: frozenset[str],
        references: frozenset[tuple[str, str]],
        limit: int,
        reader: str = "",
        vital: bool = True,
    ) -> FeedPage:
        """Objects behind ``after`` (``hub.feed``); those that are not ``vital`` wait for each other."""
        return await self._database.read(
            lambda c: feed.page(c, after=after, kinds=kinds, references=references, limit=limit, reader=reader),
            vital=vital,
        )

    async def _state(self, what: Described) -> str:
        """Of the run that an object belongs to; empty for none, and for a run that is not here."""
        if not what.rule.of_run:
            return ""
        query = select(schema.runs.c.state).where(schema.runs.c.run == what.hex_member("run"))
        return await self._database.read(lambda connection: connection.execute(query).scalar()) or ""

    async def _holder(self, envelope: Envelope, what: Described) -> Holder:
        if what.rule.signer == "itself":
            return _introduced(envelope.payload_id, what)
        named = what.hex_member(what.rule.named_by) if what.rule.named_by else ""
        holder = await self._look_up(tuple(sorted(entry.keyid for entry in envelope.signatures)), named)
        if (what.rule.signer == "session") != bool(holder.run):
            raise Refused(
                "hub.signer", f"expected {what.rule.name} to be signed by a {what.rule.signer}'s key, got another"
            )
        if named and named not in holder.objects:
            raise Refused(
                "hub.signer", f"expected {what.rule.name} to be signed by the party it names, got another signer"
            )
        if holder.run and what.hex_member("run") != holder.run:
            raise Refused("hub.signer", "expected a session to sign for its own run, got another run")
        return holder

    async def _look_up(self, keyids: tuple[str, ...], named: str) -> Holder:
        """Who holds these keys, from memory if possible: keys never change hands, they only gain cards."""
        found = self._holders.get(keyids)
        if found is None or (named and named not in found.objects):
            found = await self._database.read(lambda connection: _known(connection, keyids))
            self._holders[keyids] = found
            if len(self._holders) > _REMEMBERED:
                self._holders.popitem(last=False)
        return found


def _keeper(what: Described, who: Identity) -> str:
    if what.rule.name == PartyCard.KIND:
        return who.name
    return Identity(prefix="", party=what.hex_member(what.rule.named_by)).name if what.rule.signer == "party" else ""


def _introduced(object_id: ObjectId, what: Described) -> Holder:
    """The key that a party card or a session brings along."""
    session = what.rule.name == Session.KIND
    prefix = "signing_" if session else ""
    key = VerifyingKey(ed25519=what.bytes_member(f"{prefix}ed25519"), mldsa65=what.bytes_member(f"{prefix}mldsa65"))
    run = what.hex_member("run") if session else ""
    attempt = what.integer_member("attempt") if session else 0
    return Holder(key=key, objects=frozenset({object_id}), run=run, attempt=attempt)


def _known(connection: Connection, keyids: Sequence[str]) -> Holder:
    columns = schema.keys.c
    query = select(schema.keys).where(columns.ed25519_keyid.in_(keyids), columns.mldsa65_keyid.in_(keyids))
    rows = connection.execute(query).all()
    if not rows or len({(row.ed25519_keyid, row.mldsa65_keyid, row.run) for row in rows}) != 1:
        raise _unknown()
    return Holder(
        key=VerifyingKey(ed25519=bytes(rows[0].ed25519), mldsa65=bytes(rows[0].mldsa65)),
        objects=frozenset(row.object for row in rows),
        run=rows[0].run or "",
        attempt=rows[0].attempt or 0,
    )


def _unknown() -> Refused:
    return Refused(
        "hub.signer-unknown",
        "expected the signature of a party or session that the hub knows, got another's",
        hint="upload the party card first",
    )


def _find(connection: Connection, object_id: str) -> FeedItem | None:
    columns = schema.objects.c
    row = connection.execute(select(columns.seq, columns.kind).where(columns.id == object_id)).first()
    return None if row is None else FeedItem(seq=row.seq, id=ObjectId(object_id), kind=row.kind)


# -- writing


def store(transaction: Transaction, item: Admitted, limits: Limits) -> Taken:
    """Write an object with all that hangs on it. Refuses before it writes."""
    found = _find(transaction.connection, item.id)
    if found is not None:
        return Taken(item=found, new=False, helps="")
    what = item.what
    if what.rule.of_contract:
        _check_party(transaction.connection, item)
    helps = _check_run(transaction, item) if what.rule.of_run else ""
    if item.keeper:
        count_object(transaction, item.keeper, len(item.envelope), limits)
    seq = transaction.next_seq()
    kind = what.rule.name
    row = {"seq": seq, "id": item.id, "kind": kind, "signer": item.holder.key.ed25519_keyid}
    transaction.write(insert(schema.objects), {**row, "received": transaction.now, "envelope": item.envelope})
    if what.references:
        rows = [{"member": m, "value": v, "kind": kind, "seq": seq} for m, v in sorted(what.references)]
        transaction.write(insert(schema.refs), rows)
    if what.rule.signer == "itself":
        _store_key(transaction, item)
    if kind == RunRequest.KIND:
        helps = _known_analyst(transaction.connection, item)
        _store_run(transaction, item, seq)
    if what.rule.logged:
        transaction.append(leaf_hash(kind, item.id), kind=kind, digest=item.id)
    transaction.news.append(ObjectNews(kind=kind, references=what.references))
    return Taken(item=FeedItem(seq=seq, id=item.id, kind=kind), new=True, helps=helps)


def _store_key(transaction: Transaction, item: Admitted) -> None:
    key = item.holder.key
    row = {
        "ed25519_keyid": key.ed25519_keyid,
        "mldsa65_keyid": key.mldsa65_keyid,
        "object": item.id,
        "ed25519": key.ed25519,
        "mldsa65": key.mldsa65,
        "run": item.holder.run or None,
        "attempt": item.holder.attempt or None,
    }
    transaction.write(insert(schema.keys), row)


def _store_run(transaction: Transaction, item: Admitted, seq: int) -> None:
    contract = item.what.hex_member("contract")
    row = {
        "run": item.id,
        "contract": contract,
        "seq": seq,
        "change": transaction.next_change(),
        "state": "queued",
        "attempt": 0,
        "enclave": "",
        "token": b"",
        "lease_seconds": 0,
        "lease_until": 0,
    }
    transaction.write(insert(schema.runs), row)
    transaction.news.append(RunNews(contract=contract, queued=True))


def _check_party(connection: Connection, item: Admitted) -> None:
    """The contract is here, and the signer is one of its parties."""
    contract = item.what.hex_member("contract")
    signer = item.what.hex_member(item.what.rule.named_by)
    query = select(schema.objects.c.seq).where(schema.objects.c.id == contract, schema.objects.c.kind == Contract.KIND)
    seq = connection.execute(query).scalar()
    if seq is None:
        raise Refused(
            "hub.contract-unknown",
            "expected the id of a contract that is here, got another",
            hint="upload the contract first",
        )
    columns = schema.refs.c
    named = select(columns.seq).where(
        columns.member == "party", columns.value == signer, columns.kind == Contract.KIND, columns.seq == seq
    )
    if connection.execute(named).first() is None:
        raise Refused("hub.not-a-party", f"expected {item.what.rule.name} from a party of the contract, got another's")


def _check_run(transaction: Transaction, item: Admitted) -> str:
    """The run is here and belongs to the contract; whatever a session says comes with the token of its run's live claim.
    Returns who helps a run along that an enclave holds at this moment: a party's id, or ``enclave``; or nothing.

    The claim is compared in the transaction that stores the object, with the head's row locked: an enclave that slept
    while its run went to another one can publish nothing any more, however late its request arrives.
    """
    query = select(schema.runs).where(schema.runs.c.run == item.what.hex_member("run"))
    run = transaction.connection.execute(query).first()
    if run is None:
        raise Refused("hub.run-unknown", "expected the id of a run that is here, got another")
    if run.contract != item.what.hex_member("contract"):
        raise Refused("hub.run-contract", "expected the contract of the run, got another")
    if item.what.rule.fenced:
        _check_claim(transaction, item, run)
    if item.what.rule.name in _ENDS and _ended(transaction.connection, run.run):
        raise Refused("hub.run-ended", "expected a run without a result or failure, got one that has ended")
    if run.state != "claimed":
        return ""
    return "enclave" if item.what.rule.fenced else item.what.hex_member(item.what.rule.named_by)


def _known_analyst(connection: Connection, item: Admitted) -> str:
    """The signer of a request under a contract that an enclave has worked for before; or nothing."""
    columns = schema.runs.c
    worked = select(columns.run).where(columns.contract == item.what.hex_member("contract"), columns.attempt > 0)
    if connection.execute(worked.limit(1)).first() is None:
        return ""
    return item.what.hex_member(item.what.rule.named_by)


def _check_claim(transaction: Transaction, item: Admitted, run: Row[Any]) -> None:
    token = sha256(item.token.encode("utf-8", "surrogateescape"))
    live = run.state == "claimed" and run.lease_until > transaction.now and run.attempt == item.holder.attempt
    if not (compare_digest(token, bytes(run.token)) and live):
        raise Refused(
            "hub.claim",
            "expected a session's object with the token of its run's live claim, got another or none",
            hint="claim the run again",
        )


def _ended(connection: Connection, run: str) -> bool:
    columns = schema.refs.c
    said = select(columns.seq).where(columns.member == "run", columns.value == run, columns.kind.in_(_ENDS))
    return connection.execute(said.limit(1)).first() is not None
