"""The owners' lists of people who opted out, during one run: opened, applied before anything else, counted."""

from __future__ import annotations

from dataclasses import dataclass

from kakoi.contract.approve import Agreement
from kakoi.contract.opt_out import at_least, require_column, sealed_as
from kakoi.contract.sign import Signed
from kakoi.core.crypto import Opener
from kakoi.core.errors import Refused, cannot_open
from kakoi.core.ids import ObjectId
from kakoi.dataset.format import DATA_KEY_BYTES
from kakoi.dataset.open import check_data_key
from kakoi.enclave.keeper.data import DataKeys, SealedObject
from kakoi.wire.messages import GrantedList, KeyGrant, LeftOut, list_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One list, decrypted: a descriptor of sealed memory, and the column that it is about."""

    column: str
    descriptor: int
    name: str
    """Random name of this list; the next one has another."""


class OptOuts:
    """The lists of one run, by the data sets that they belong to. Counts are kept here and leave only in steps."""

    def __init__(self) -> None:
        self._lists: dict[str, Listed] = {}
        self._people: dict[str, int] = {}

    def add(self, manifest: str, listed: Listed) -> None:
        """A list that was opened."""
        self._lists[manifest] = listed

    def of(self, manifest: str) -> Listed | None:
        """The list of a data set."""
        return self._lists.get(manifest)

    @property
    def names(self) -> tuple[str, ...]:
        """Which lists they are."""
        return tuple(listed.name for listed in self._lists.values())

    def applied(self, manifest: str, people: int) -> None:
        """It was applied, and so many different people of it had rows."""
        self._people[manifest] = people

    def said(self, agreement: Agreement) -> tuple[LeftOut, ...]:
        """What the passport says. Raises Refused if a list was not applied: then no result may leave."""
        if self._people.keys() != self._lists.keys():
            raise Refused(
                "opt-out.not-applied", "expected every owner's list of opt-outs to be applied, got one that was not"
            )
        rules = {entry.manifest: entry.rules for entry in agreement.contract.data}
        return tuple(
            LeftOut(manifest=ObjectId(manifest), people_at_least=at_least(people, rules[ObjectId(manifest)]))
            for manifest, people in sorted(self._people.items())
        )


def sealed_list(agreement: Agreement, item: GrantedList) -> SealedObject:
    """How a list was sealed. Raises Refused (``opt-out.column``) unless it is about a column of its data set that names people."""
    manifest = agreement.manifests[item.manifest].record
    require_column(manifest, item.column)
    return SealedObject(
        sealed_as=sealed_as(manifest.dataset, item.name),
        version=1,
        commitment=item.key_commitment,
        files=(item.file(),),
    )


def open_list_keys(grants: tuple[Signed[KeyGrant], ...], agreement: Agreement, opener: Opener) -> DataKeys:
    """Keys of the owners' lists by data set, opened with the session's key. The caller wipes them.

    Raises the opaque ``crypto.cannot-open`` for a key of another list, data set, session or owner.
    """
    items = [(grant.record, item) for grant in grants for item in grant.record.opt_outs]
    keys = DataKeys(item.manifest for _, item in items)
    try:
        for grant, item in items:
            info = list_info(
                run=grant.run,
                attempt=grant.attempt,
                contract=grant.contract,
                session=grant.session,
                owner=grant.owner,
                manifest=item.manifest,
                name=item.name,
            )
            opened = opener.open(item.sealed, info=info)
            if len(opened) != DATA_KEY_BYTES:
                raise cannot_open()
            keys.take(item.manifest, opened)
            sealed = sealed_list(agreement, item)
            with keys.key(item.manifest) as key:
                check_data_key(key, commitment=sealed.commitment, dataset=sealed.sealed_as, version=sealed.version)
    except BaseException:
        keys.wipe()
        raise
    return keys
