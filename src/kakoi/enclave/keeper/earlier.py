"""What the owners' ledgers hold of earlier releases, as each owner signed it."""

from __future__ import annotations

from collections.abc import Iterator

from kakoi.contract.approve import Agreement
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.errors import Refused
from kakoi.enclave.gate.cohorts import Cohorts
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.net.client import HubClient
from kakoi.wire.messages import EarlierCohorts, Release


def earlier_cohorts(
    hub: HubClient, agreement: Agreement, releases: tuple[Signed[Release], ...], secret: DataSecret
) -> Iterator[Cohorts]:
    """Cohorts from every owner's ledger; most come several times, once from each owner. Raises Refused, Unavailable."""
    opened: set[bytes] = set()
    for release in releases:
        envelope = hub.get_object(release.record.earlier)
        said = open_signed(EarlierCohorts, envelope, agreement.cards[release.record.owner]).record
        record = release.record
        if (said.session, said.request, said.owner) != (record.session, record.request, record.owner):
            raise Refused("session.release", "expected the earlier cohorts of this release, got those of another")
        for sealed in said.cohorts:
            if sealed not in opened:
                opened.add(sealed)
                yield secret.open(sealed)
