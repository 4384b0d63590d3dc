"""Which objects the hub takes, who must have signed them, and what it can find them by.

The hub checks this to keep rubbish out and to give early, clear errors. Nobody relies on it: every receiver checks
signatures, parties and contents again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kakoi.contract import code, model
from kakoi.contract.ask import ExceptionRequest
from kakoi.core import encoding
from kakoi.core.dsse import IN_TOTO_TYPE, PAYLOAD_TYPE, Envelope
from kakoi.core.errors import Malformed
from kakoi.core.ids import HEX_DIGEST
from kakoi.core.records import Record
from kakoi.tlog.leaf import LOGGED_KINDS, PASSPORT_KIND
from kakoi.wire import collateral, messages, preview

SignerRule = Literal["itself", "party", "session"]
"""Whose key: the object's own (it introduces the key), a known party's, or that of a session."""
MAX_REFERENCES: Final = 4096
_MEMBER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class KindRule:
    """What the hub demands of one kind."""

    name: str
    most: int
    """Bytes of payload."""
    signer: SignerRule
    named_by: str = ""
    """Member that must hold the signing party's id."""
    of_contract: bool = False
    """True if the signing party must be a party of the contract that the member ``contract`` names."""
    of_run: bool = False
    """True if the member ``run`` must name a run of that contract."""

    @property
    def logged(self) -> bool:
        """True if the object goes into the transparency log."""
        return self.name in LOGGED_KINDS

    @property
    def fenced(self) -> bool:
        """True if only the holder of the run's live claim may store it: a session, and all that it signs."""
        return self.name == messages.Session.KIND or self.signer == "session"


def _rule(cls: type[Record], signer: SignerRule, named_by: str = "", **more: bool) -> KindRule:
    return KindRule(name=cls.KIND, most=cls.MAX_BYTES, signer=signer, named_by=named_by, **more)


RULES: Final[Mapping[str, KindRule]] = {
    rule.name: rule
    for rule in (
        _rule(model.PartyCard, "itself"),
        _rule(model.DatasetManifest, "party", "owner"),
        _rule(model.Analysis, "party", "author"),
        _rule(code.CodeManifest, "party", "owner"),
        _rule(code.CodeReview, "party", "reviewer"),
        _rule(model.Contract, "party", "drafter"),
        _rule(model.Approval, "party", "party", of_contract=True),
        _rule(model.Withdrawal, "party", "party"),
        _rule(collateral.Bundle, "party", "party"),
        _rule(ExceptionRequest, "party", "party", of_contract=True),
        _rule(preview.Preview, "party", "party", of_contract=True),
        _rule(messages.RunRequest, "party", "party", of_contract=True),
        _rule(messages.Challenge, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.Denial, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.KeyGrant, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.Lease, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.Release, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.EarlierCohorts, "party", "owner", of_contract=True, of_run=True),
        _rule(messages.Session, "itself", of_run=True),
        _rule(messages.SessionRenewal, "session", of_run=True),
        _rule(messages.ReleaseRequest, "session", of_run=True),
        _rule(messages.RunFailure, "session", of_run=True),
        _rule(messages.SealedResult, "session", of_run=True),
        KindRule(name=PASSPORT_KIND, most=messages.Passport.MAX_BYTES, signer="session", of_run=True),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the hub reads in an object, before any signature was checked."""

    rule: KindRule
    payload_type: str
    members: Mapping[str, Any]
    """Members that the rule speaks about: those of the payload, or of a passport's predicate."""
    references: frozenset[tuple[str, str]]

    def hex_member(self, name: str) -> str:
        """A member that must be an id. Raises Malformed."""
        value = self.members.get(name)
        if not isinstance(value, str) or not HEX_DIGEST.match(value):
            raise Malformed("hub.member", f"expected {self.rule.name} with an id in its member {name}, got none")
        return value

    def bytes_member(self, name: str) -> bytes:
        """A member that must be base64. Raises Malformed."""
        value = self.members.get(name)
        if not isinstance(value, str):
            raise Malformed("hub.member", f"expected {self.rule.name} with base64 in its member {name}, got none")
        return encoding.unb64(value)

    def integer_member(self, name: str) -> int:
        """A member that must be an integer. Raises Malformed."""
        value = self.members.get(name)
        if type(value) is not int:
            raise Malformed("hub.member", f"expected {self.rule.name} with an integer in its member {name}, got none")
        return value


def describe(envelope: Envelope) -> Described:
    """Kind, rule and references of an object.

    1. the payload type is Kakoi's or in-toto's;
    2. the payload is canonical JSON of a known kind, within that kind's size;
    3. it has no more references than the hub is willing to index.

    Raises Malformed.
    """
    passport = envelope.payloadType == IN_TOTO_TYPE
    if not passport and envelope.payloadType != PAYLOAD_TYPE:
        raise Malformed("hub.payload-type", "expected a Kakoi object or an in-toto statement, got another payload type")
    value = encoding.loads(envelope.payload, limit=messages.Passport.MAX_BYTES)
    if not isinstance(value, dict):
        raise Malformed("hub.kind", "expected an object, got another JSON value")
    rule = RULES.get(PASSPORT_KIND if passport else _text(value.get("kind")))
    if rule is None or passport == ("kind" in value) or (rule.name == PASSPORT_KIND) != passport:
        raise Malformed(
            "hub.kind", "expected an object of a known kind, got another", hint="does the hub need an update?"
        )
    if len(envelope.payload) > rule.most:
        raise Malformed("encoding.size", f"expected {rule.name} of at most {rule.most} bytes, got a larger one")
    members, found = _passport(value) if passport else (value, frozenset(_references(value)))
    if len(found) > MAX_REFERENCES:
        raise Malformed("hub.references", f"expected at most {MAX_REFERENCES} references in one object, got more")
    return Described(rule=rule, payload_type=envelope.payloadType, members=members, references=found)


def names_software(what: Described) -> bool:
    """Whether a contract accepts the software platform, or evidence is of it. What is not in its form is not: others judge that."""
    if what.rule.name == model.Contract.KIND:
        platforms = what.members.get("platforms")
        accepted = platforms.get("accepted") if isinstance(platforms, dict) else None
        return any(_platform(entry) == "software" for entry in accepted) if isinstance(accepted, list) else False
    return _platform(what.members.get("evidence")) == "software"


def _platform(value: object) -> object:
    return value.get("platform") if isinstance(value, dict) else None


def _passport(statement: dict[str, Any]) -> tuple[dict[str, Any], frozenset[tuple[str, str]]]:
    """A passport is found by its run and contract, and by the digests of its subjects."""
    predicate, subjects = statement.get("predicate"), statement.get("subject")
    if statement.get("predicateType") != "urn:kakoi:passport:v1" or not isinstance(predicate, dict):
        raise Malformed("hub.kind", "expected a Kakoi passport, got another in-toto statement")
    found = {(name, value) for name, value in predicate.items() if _is_id(value) and _MEMBER.match(name)}
    for subject in subjects if isinstance(subjects, list) else []:
        digests = subject.get("digest") if isinstance(subject, dict) else None
        if isinstance(digests, dict) and _is_id(digests.get("sha256")):
            found.add(("subject", digests["sha256"]))
    return predicate, frozenset(found)


def _references(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Ids among the members, in lists of ids, and among the members of listed objects, each under its member's name."""
    for name, item in value.items():
        if not _MEMBER.match(name):
            continue
        for part in item if isinstance(item, list) else [item]:
            if _is_id(part):
                yield name, part
            elif isinstance(part, dict) and isinstance(item, list):
                yield from ((n, v) for n, v in part.items() if _is_id(v) and _MEMBER.match(n))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and HEX_DIGEST.match(value) is not None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
