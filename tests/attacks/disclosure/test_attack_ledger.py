"""What lies in an owner's ledger, seen by that owner, by another and by the hub."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kakoi.core.errors import Refused
from kakoi.core.ids import object_id
from kakoi.dataset.open import check_data_key
from kakoi.enclave.gate.cohorts import Cohorts, Population
from kakoi.enclave.keeper.data import DataKeys
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.testing.world import World, seeded
from kakoi.wire.release import data_id

RUN = object_id(b"run")


def secret(world: World, *, known: str = "") -> DataSecret:
    """The secret of a world's data, with the real keys; if ``known`` is set, with zeros for every other owner's key."""
    agreement = world.agreement()
    keys = DataKeys(agreement.manifests)
    names = {owner.id: owner for owner in world.owners}
    for identity, manifest in agreement.manifests.items():
        owner = names[manifest.record.owner]
        keys.take(identity, bytes(bytearray(world.data_key(owner) if known in ("", owner.name) else bytearray(32))))
    with keys:
        analysis = next(iter(agreement.analyses))
        return DataSecret(keys, tuple(agreement.manifests), data_id(agreement, analysis))


def cohorts(count: int) -> Cohorts:
    flat = tuple(i % 1000 for i in range(6 * count))
    return Cohorts(run=RUN, populations=(Population(table="t", terms=6, sums=flat),))


def test_what_a_broker_sees_of_a_cohort() -> None:
    """Nothing but a rough size: not how many cells there were, not whether two cohorts are the same, not with its own key either."""
    world = World()
    sealing = secret(world)
    few, more = sealing.seal(cohorts(2)), sealing.seal(cohorts(40))
    assert len(few) == len(more)
    again = sealing.seal(cohorts(2))
    same = sum(a == b for a, b in zip(few, again, strict=True))
    assert same < len(few) / 64  # as many as chance gives: one byte in 256
    for owner in world.owners:
        with pytest.raises(Refused, match=r"ledger\.unreadable"):
            secret(world, known=owner.name).open(few)
    assert secret(World()).open(few) == cohorts(2)


def test_a_broken_or_foreign_entry_stops_the_release() -> None:
    """A ledger that cannot be read is not the same as an empty one."""
    sealing = secret(World())
    sealed = sealing.seal(cohorts(2))
    for twin in (sealed[:-1], bytes(len(sealed)), sealed[:50] + bytes([sealed[50] ^ 1]) + sealed[51:], sealed[::-1]):
        with pytest.raises(Refused, match=r"ledger\.unreadable"):
            sealing.open(twin)
    other = World(owners=World().owners[:2])
    with pytest.raises(Refused, match=r"ledger\.unreadable"):
        secret(other).open(sealed)


def test_no_owner_chooses_the_secret() -> None:
    """Another data key gives another secret, but it is refused long before: everybody signed the commitment to the first."""
    world = World()
    owner = world.owners[0]
    manifest = next(m.record for m in world.agreement().manifests.values() if m.record.owner == owner.id)
    check_data_key(
        world.data_key(owner), commitment=manifest.key_commitment, dataset=manifest.dataset, version=manifest.version
    )
    with pytest.raises(Refused):
        check_data_key(
            seeded("another", 32),
            commitment=manifest.key_commitment,
            dataset=manifest.dataset,
            version=manifest.version,
        )


def test_the_same_data_give_the_same_secret_under_every_contract() -> None:
    world, later = World(), World()
    later.change_contract = lambda contract: replace(contract, title="The next version", version=1)
    assert world.agreement().id != later.agreement().id
    assert secret(world).key(b"x") == secret(later).key(b"x") != secret(world).key(b"y")
