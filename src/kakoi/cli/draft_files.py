"""A contract's draft file together with what the hub has of the objects that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kakoi.attest.policy import AttestationPolicy, PlatformPolicy, ReferenceValue, Unchecked
from kakoi.contract.code import CodeManifest
from kakoi.contract.model import Contract, DatasetManifest, LogKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import PartyId, parse_id
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.sdk.draft import contract_from_file, read_toml
from kakoi.sdk.terms import Terms, draft_terms

_UNDECIDED: Final = Unchecked(reason="not decided yet: this contract is rehearsed, and no party gets to see it")
_NO_PLATFORM: Final = AttestationPolicy(
    accepted=(
        PlatformPolicy(
            platform="software",
            roots=(parse_id("0" * 64),),
            measurements=(ReferenceValue(name="undecided", accepted=("00",)),),
            statuses=("UpToDate",),
            advisories=(),
            grace=None,
            minimum_tcb=_UNDECIDED,
            minimum_tcb_evaluation_number=_UNDECIDED,
            platforms=_UNDECIDED,
            refused_products=(),
            settings=(),
            collateral_max_age=_UNDECIDED,
        ),
    )
)
"""Stands where a contract has its platforms while it is rehearsed: its measurement is that of no machine."""


def read_draft(
    client: HubClient, file: Path, *, drafter: PartyId, platforms: AttestationPolicy, log: LogKey, now: int
) -> Contract:
    """The contract that a draft describes. Raises Misuse for what it names and nobody has uploaded; Malformed for the rest."""
    contract = contract_from_file(
        file,
        drafter=drafter,
        manifests=_manifests(client, file),
        code=_code(client, file),
        platforms=platforms,
        log=log,
        now=now,
    )
    _require_known(client, contract)
    return contract


def terms_of_draft(client: HubClient, file: Path, home: PartyHome, now: int) -> Terms:
    """What a draft would have the parties agree to, for a rehearsal: platforms and log need not be decided for it.

    Nothing is signed and nothing is sent. Raises what ``read_draft`` raises.
    """
    card = home.card.record
    contract = read_draft(
        client,
        file,
        drafter=PartyId(home.card.id),
        platforms=_NO_PLATFORM,
        log=LogKey(origin="undecided", ed25519=card.ed25519),
        now=now,
    )
    return draft_terms(client, contract)


def _manifests(client: HubClient, draft: Path) -> dict[str, DatasetManifest]:
    """The data sets that a draft names, as far as the hub has them."""
    found: dict[str, DatasetManifest] = {}
    for entry in read_toml(draft).get("data", []):
        identity = entry.get("manifest") if isinstance(entry, dict) else None
        envelope = _at_hub(client, identity) if isinstance(identity, str) else None
        if envelope is not None:
            found[envelope.payload_id] = DatasetManifest.decode(envelope.payload)
    return found


def _code(client: HubClient, draft: Path) -> dict[str, CodeManifest]:
    """The sealed code that a draft names, as far as the hub has it."""
    found: dict[str, CodeManifest] = {}
    for entry in read_toml(draft).get("code", []):
        identity = entry.get("manifest") if isinstance(entry, dict) else None
        envelope = _at_hub(client, identity) if isinstance(identity, str) else None
        if envelope is not None:
            found[envelope.payload_id] = CodeManifest.decode(envelope.payload)
    return found


def _at_hub(client: HubClient, identity: str) -> Envelope | None:
    """The object with this id; None if the hub has none."""
    try:
        return client.get_object(parse_id(identity))
    except Refused as error:
        if error.code != "hub.not-found":
            raise
        return None


def _require_known(client: HubClient, contract: Contract) -> None:
    """Raise Misuse for what a draft names and nobody has uploaded: the others could not even read such a contract."""
    for entry in contract.parties:
        if _at_hub(client, entry.party) is None:
            raise Misuse(
                "draft.unknown-party",
                "expected parties whose cards the hub has, got an unknown id",
                hint="a party's card is uploaded with its first data set or analysis; compare the id: kakoi party show",
            )
    for item in contract.analyses:
        if _at_hub(client, item.analysis) is None:
            raise Misuse(
                "draft.unknown-analysis",
                "expected analyses that the hub has, got an unknown id",
                hint="kakoi analysis publish prints it",
            )
