"""One decision of a broker, shown to somebody else without the others: an inclusion proof under a head that the party signed.

The ledger chains decisions by hash, which shows edits to whoever holds all of them. For everybody else the same decisions are the
leaves of a Merkle tree (RFC 9162 §2.1): a head names its root and size, a proof has one decision and the path to that root. Two
proofs under one root are of one log; a party that signed two roots of one size has shown two logs.
docs/formats/decisions.md is the human description.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from kakoi.broker.ledger import Ledger
from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed, open_signed, require_signer, seal
from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.core.records import Digest, Limit, PartyRef, Record, Seconds
from kakoi.party.home import PartyHome
from kakoi.tlog import merkle
from kakoi.tlog.merkle import MAX_PROOF, NodeId

_DOMAIN: Final = b"kakoi/decision-leaf/v1"
_MOST_BODY: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionHead(Record):
    """All decisions of a broker so far, as one root. Signed by the party."""

    KIND: ClassVar[str] = "kakoi/decision-head/v1"
    MAX_BYTES: ClassVar[int] = 4096

    party: PartyRef
    size: Annotated[int, Limit(least=1, most=2**53 - 1)]
    root: Digest
    made_at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionProof(Record):
    """One decision and its path to a head. The signature is the head's."""

    KIND: ClassVar[str] = "kakoi/decision-proof/v1"
    MAX_BYTES: ClassVar[int] = 2 * _MOST_BODY

    at: Seconds
    body: Annotated[bytes, Limit(least=2, most=_MOST_BODY)]
    """The decision as the ledger keeps it: canonical JSON."""
    index: Annotated[int, Limit(most=2**53 - 2)]
    """From 0; the decision's number in the log less one."""
    path: Annotated[tuple[Digest, ...], Limit(most=MAX_PROOF)]
    head: Envelope

    def check(self) -> None:
        """The decision lies within the log."""
        if self.index >= DecisionHead.decode(self.head.payload).size:
            raise Malformed("decision.index", "expected a decision within the log of the head, got one behind its end")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenDecision:
    """A decision that a party has committed itself to. Made by ``verify`` only."""

    head: DecisionHead
    number: int
    at: int
    body: dict[str, Any]


def _leaf(at: int, body: bytes) -> bytes:
    return merkle.leaf_hash(framed(_DOMAIN, at.to_bytes(8, "big"), body))


def _tree(ledger: Ledger) -> dict[NodeId, bytes]:
    """Every complete subtree over all decisions."""
    level = [_leaf(at, body) for at, body in ledger.decision_bodies()]
    nodes: dict[NodeId, bytes] = {}
    height = 0
    while level:
        nodes |= {NodeId(height, place): digest for place, digest in enumerate(level)}
        level = [merkle.node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        height += 1
    return nodes


def head(home: PartyHome, ledger: Ledger, *, now: int) -> Signed[DecisionHead]:
    """The signed head over every decision so far. Raises Refused while there is none."""
    return _head(home, _tree(ledger), now)


def _head(home: PartyHome, nodes: dict[NodeId, bytes], now: int) -> Signed[DecisionHead]:
    size = sum(1 for node in nodes if node.level == 0)
    if size == 0:
        raise Refused("decision.none", "expected a broker that has decided something, got one that has not")
    root = merkle.compact_range(size, nodes.__getitem__).root
    record = DecisionHead(party=home.ids[0], size=size, root=ObjectId(root.hex()), made_at=now)
    return open_signed(DecisionHead, seal(record, home.keys.signer()), home.card)


def prove(home: PartyHome, ledger: Ledger, number: int, *, now: int) -> DecisionProof:
    """A proof for the decision with this number (from 1). Raises Refused if there is none."""
    nodes, bodies = _tree(ledger), ledger.decision_bodies()
    if not 1 <= number <= len(bodies):
        raise Refused(
            "decision.unknown",
            "expected the number of a decision in the log, got another",
            hint="kakoi broker log prints them in order, from 1",
        )
    at, body = bodies[number - 1]
    path = merkle.inclusion_proof(number - 1, len(bodies), nodes.__getitem__)
    return DecisionProof(
        at=at,
        body=body,
        index=number - 1,
        path=tuple(ObjectId(digest.hex()) for digest in path),
        head=_head(home, nodes, now).envelope,
    )


def verify(data: bytes, card: Signed[PartyCard]) -> ProvenDecision:
    """Check a proof against the party's card: the head's signature, then the path. Raises Malformed or Refused."""
    proof = DecisionProof.decode(data)
    signed = open_signed(DecisionHead, proof.head, card).record
    require_signer(signed.party, card, "decision head")
    merkle.verify_inclusion(
        leaf=_leaf(proof.at, proof.body),
        index=proof.index,
        size=signed.size,
        proof=[bytes.fromhex(digest) for digest in proof.path],
        root=bytes.fromhex(signed.root),
    )
    body = encoding.loads(proof.body, limit=_MOST_BODY)
    if not isinstance(body, dict):
        raise Malformed("decision.body", "expected a decision as a JSON object, got something else")
    return ProvenDecision(head=signed, number=proof.index + 1, at=proof.at, body=body)
