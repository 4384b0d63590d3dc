"""Plaintext lies in sealed memory or nowhere: whatever is wrong with key or ciphertext, no descriptor stays open."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from kakoi.contract.model import DatasetManifest, SealedFile
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey
from kakoi.core.errors import KakoiError, Refused, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.dataset.format import associated_data
from kakoi.dataset.seal import SealingWriter
from kakoi.enclave.keeper.data import SealedObject, open_file, open_keys
from kakoi.testing.world import World, seeded
from kakoi.wire.messages import GrantedKey, KeyGrant
from support.conversation import Conversation

PLAINTEXT = bytes(range(256)) * 12_000  # three segments


Stored = tuple[SealedObject, SealedFile, bytes, bytes]


@dataclass
class Blob:
    """Storage with one blob, in blocks of odd sizes."""

    content: bytes
    fails_at: int = -1

    def blob(self, blob: str, *, size: int) -> Iterator[bytes]:
        for at in range(0, len(self.content), 100_003):
            if 0 <= self.fails_at <= at:
                raise Unavailable("net.cut", "expected more")
            yield self.content[at : at + 100_003]


@pytest.fixture(scope="module")
def stored() -> Stored:
    """What was sealed, its file, ciphertext and key."""
    world = World()
    owner = world.owners[0]
    manifest, key = DatasetManifest.decode(world.manifest(owner).payload), world.data_key(owner)
    out = io.BytesIO()
    with SealingWriter(
        out,
        data_key=key,
        associated_data=associated_data(manifest.dataset, manifest.version, "part0"),
        salt=seeded("salt", 32),
        nonce_prefix=seeded("prefix", 7),
    ) as writer:
        writer.write(PLAINTEXT)
    found = writer.summary
    file = SealedFile(name="part0", blob=ObjectId(found.blob), size=found.size, segment_digests=found.segment_digests)
    sealed = SealedObject(
        sealed_as=manifest.dataset, version=manifest.version, commitment=manifest.key_commitment, files=(file,)
    )
    return sealed, file, out.getvalue(), key


@pytest.fixture(autouse=True)
def no_leak() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before, "a descriptor stayed open"


def test_plaintext_in_memory_that_nobody_can_change(stored: Stored) -> None:
    manifest, file, ciphertext, key = stored
    descriptor = open_file(Blob(ciphertext), manifest, file, key)
    try:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == 0
        with os.fdopen(os.dup(descriptor), "rb") as reader:
            assert reader.read() == PLAINTEXT
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        assert seals & wanted == wanted
        assert not os.get_inheritable(descriptor)
        with pytest.raises(OSError, match="not permitted"):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("place", ["first", "middle", "last byte", "cut", "longer", "empty", "swapped"])
def test_ciphertext_that_is_another(place: str, stored: Stored) -> None:
    manifest, file, good, key = stored
    segment = 1024 * 1024
    at = {"first": 0, "middle": len(good) // 2, "last byte": len(good) - 1}.get(place)
    bad = {
        "cut": good[:-1],
        "longer": good + b"\0",
        "empty": b"",
        "swapped": good[:segment] + good[segment * 2 :] + good[segment : segment * 2],
    }.get(place, b"")
    if at is not None:
        bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    with pytest.raises(KakoiError) as caught:
        open_file(Blob(bad), manifest, file, key)
    assert caught.value.code.startswith("dataset.")


def test_another_key_version_or_name_does_not_open_it(
    stored: Stored,
) -> None:
    manifest, file, good, key = stored
    attempts: list[tuple[SealedObject, SealedFile, bytes]] = [
        (manifest, file, bytes(32)),
        (replace(manifest, version=2), file, key),
        (replace(manifest, sealed_as="0" * 32), file, key),
        (manifest, replace(file, name="part1"), key),
    ]
    said = set()
    for other, named, tried in attempts:
        with pytest.raises(Refused) as caught:
            open_file(Blob(good), other, named, tried)
        said.add(str(caught.value))
    assert len(said) == 1, "one opaque answer to all of them"


def test_storage_that_breaks_off(stored: Stored) -> None:
    manifest, file, good, key = stored
    for at in (0, 1_500_000):
        with pytest.raises(Unavailable) as caught:
            open_file(Blob(good, fails_at=at), manifest, file, key)
        assert caught.value.code == "net.cut"


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOSPC])
def test_no_memory_left(number: int, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, file, good, key = stored

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("kakoi.enclave.keeper.data.os.write", full)
    with pytest.raises(Unavailable) as caught:
        open_file(Blob(good), manifest, file, key)
    assert caught.value.code == "enclave.memory"


# -- keys


Change = Callable[[KeyGrant], KeyGrant]


def grants(talk: Conversation, change: Change = lambda same: same) -> tuple[Signed[KeyGrant], ...]:
    """All owners' grants; the first one changed, and signed by its owner."""
    out = []
    for number, owner in enumerate(talk.world.owners):
        record = KeyGrant.decode(talk.grant(owner).payload)
        envelope = seal(change(record) if number == 0 else record, owner.signing)
        out.append(open_signed(KeyGrant, envelope, owner.card))
    return tuple(out)


def test_keys_by_data_set() -> None:
    talk = Conversation()
    with open_keys(grants(talk), talk.agreement, talk.sealing) as keys:
        for owner in talk.world.owners:
            manifest = talk.agreement.data_of(owner.id)[0].manifest
            with keys.key(manifest) as key:
                assert bytes(key) == talk.world.data_key(owner)


def resealed(secret: bytes) -> Change:
    """The grant with another secret in it, sealed to the right session in the right context."""

    def change(grant: KeyGrant) -> KeyGrant:
        from kakoi.wire.messages import grant_info

        context = {name: getattr(grant, name) for name in ("run", "attempt", "contract", "session", "owner")}
        talk = Conversation()
        manifest = grant.keys[0].manifest
        again = crypto.seal(secret, talk.sealing.sealing_public, info=grant_info(**context, manifest=manifest))
        return replace(grant, keys=(GrantedKey(manifest=manifest, sealed=again),))

    return change


@pytest.mark.parametrize(
    "change",
    [
        resealed(bytes(32)),
        resealed(b"short"),
        resealed(bytes(33)),
        lambda grant: replace(grant, run="0" * 64),
        lambda grant: replace(grant, session="0" * 64),
        lambda grant: replace(grant, attempt=2),
        lambda grant: replace(grant, keys=(replace(grant.keys[0], sealed=bytes(1184)),)),
    ],
    ids=["another key", "short", "long", "run", "session", "attempt", "noise"],
)
def test_keys_that_are_not_the_manifests(change: Change) -> None:
    """Wrong keys, wrong lengths and wrong contexts are one and the same answer, and no key stays behind."""
    talk = Conversation()
    with pytest.raises(Refused) as caught:
        open_keys(grants(talk, change), talk.agreement, talk.sealing)
    assert caught.value.code == "crypto.cannot-open"


def test_another_sessions_key_opens_none() -> None:
    talk = Conversation()
    thief = SealingKey(seeded("thief", crypto.SEALING_SECRET))
    with pytest.raises(Refused) as caught:
        open_keys(grants(talk), talk.agreement, thief)
    assert caught.value.code == "crypto.cannot-open"
