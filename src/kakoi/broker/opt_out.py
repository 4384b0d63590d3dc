"""What a key grant says about people who opted out: this owner's present lists, sealed to the session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from kakoi.contract.approve import Agreement
from kakoi.contract.model import DatasetManifest
from kakoi.contract.opt_out import require_column
from kakoi.contract.sign import Signed
from kakoi.core import crypto
from kakoi.core.errors import Refused
from kakoi.core.ids import PartyId
from kakoi.party.home import KeptList, PartyHome
from kakoi.wire.messages import GrantedList, Session, list_info


class Memory(Protocol):
    """What the ledger remembers of lists, so that an earlier one is never taken for the present one."""

    def cursor(self, name: str) -> int:
        """The highest number that was seen."""
        ...

    def move_cursor(self, name: str, value: int) -> None:
        """Remember it."""
        ...


def _name(dataset: str) -> str:
    return f"opt-out/{dataset}"


def remember(memory: Memory, kept: KeptList) -> None:
    """From now on no earlier list of this data set is granted."""
    memory.move_cursor(_name(kept.dataset), max(kept.number, memory.cursor(_name(kept.dataset))))


def present(home: PartyHome, memory: Memory, dataset: str) -> KeptList | None:
    """The list to grant. Raises Refused if this owner's directory holds an earlier one than its ledger has seen."""
    kept = home.opt_outs(dataset)
    seen = memory.cursor(_name(dataset))
    if (kept.number if kept is not None else 0) < seen:
        raise Refused(
            "opt-out.rolled-back",
            "expected this owner's present list of people who opted out, found an earlier one or none",
            hint="the owner's directory was restored from an old copy: make the list anew, kakoi dataset opt-out",
        )
    return kept


def granted_lists(
    home: PartyHome, memory: Memory, agreement: Agreement, me: PartyId, analysis: str, session: Signed[Session]
) -> Iterator[GrantedList]:
    """The present list of each of this owner's data sets that the run reads and people opted out of.

    Raises Refused: without a list no key either.
    """
    for identity in agreement.keys_of(me, analysis):
        if identity not in agreement.manifests:
            continue
        manifest: DatasetManifest = agreement.manifests[identity].record
        kept = present(home, memory, manifest.dataset)
        if kept is None:
            continue
        require_column(manifest, kept.column)
        remember(memory, kept)
        record = session.record
        info = list_info(
            run=record.run,
            attempt=record.attempt,
            contract=agreement.id,
            session=session.id,
            owner=me,
            manifest=identity,
            name=kept.name,
        )
        yield GrantedList(
            manifest=identity,
            name=kept.name,
            column=kept.column,
            blob=kept.file.blob,
            size=kept.file.size,
            segment_digests=kept.file.segment_digests,
            key_commitment=kept.key_commitment,
            sealed=crypto.seal(home.opt_out_key(kept), record.sealing, info=info),
        )
