"""What an owner has been warned of by others: indicators that name code, machines or keys. They only ever make a broker refuse more.

``indicators.json`` in the party's directory is written by commands and looked at before every decision. A damaged file refuses, because
nobody knows what it said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kakoi.attest.report import Verdict
from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed
from kakoi.core.crypto import VerifyingKey
from kakoi.core.errors import Refused
from kakoi.guard.intel.index import Index, Shelf
from kakoi.guard.intel.indicator import Kind
from kakoi.guard.registers import code_of


def not_indicated(shelf: Shelf, verdict: Verdict, now: int) -> Verdict:
    """The verdict, unless an indicator that acts names its code or its machine. Raises Refused (``decision.indicator``), Malformed."""
    known, claims = shelf.index(), verdict.claims
    _require(known, "measurement", code_of(claims), now)
    _require(known, "platform", {claims.platform_identity} - {""}, now)
    return verdict


def keys_not_indicated(shelf: Shelf, keys: Iterable[VerifyingKey], ids: Iterable[str], now: int) -> None:
    """Raise Refused if an indicator that acts names one of these keys by its fingerprint, or a party by its id."""
    names = {name for key in keys for name in fingerprints(key)}
    _require(shelf.index(), "key", {*names, *ids}, now)


def parties_not_indicated(shelf: Shelf, cards: Mapping[str, Signed[PartyCard]], now: int) -> None:
    """Raise Refused if an indicator that acts names a key of any of these parties."""
    keys_not_indicated(shelf, (card.record.verifying_key for card in cards.values()), cards, now)


def fingerprints(key: VerifyingKey) -> tuple[str, str]:
    """The names of both halves of a signature key, as signatures carry them."""
    return key.ed25519_keyid, key.mldsa65_keyid


def _require(known: Index, kind: Kind, values: Iterable[str], now: int) -> None:
    found = known.find(kind, values, now)
    if found is not None:
        raise Refused(
            "decision.indicator",
            f"expected a {kind} that nobody warns of, got one that {found.id} names",
            hint="kakoi intel list shows the indicator and its source; the source or this owner can take it back",
        )
