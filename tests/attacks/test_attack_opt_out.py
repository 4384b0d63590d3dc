"""T101-T104: bring back somebody who opted out, by another list, an earlier one, a false key, or by leaving the list away."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.broker.opt_out import granted_lists, present, remember
from kakoi.contract.model import DatasetManifest
from kakoi.contract.sign import Signed, open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.dataset.opt_out import decode_list
from kakoi.enclave.keeper.data import open_file
from kakoi.enclave.keeper.opt_out import open_list_keys, sealed_list
from kakoi.party.home import KeptList, PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.sdk.opt_out import column_for, seal_list
from kakoi.testing.world import NOW, TestParty, World, column, seeded
from kakoi.wire.enclave_run import CloseFailed, MessageArrived, SessionMade
from kakoi.wire.messages import Challenge, GrantedList, KeyGrant, list_info
from support.conversation import Conversation

PEOPLE = ["p001", "p007"]


class Registered(World):
    """Owners whose tables have a column that is there for opt-outs."""

    def manifest(self, owner: TestParty) -> Envelope:
        record = DatasetManifest.decode(super().manifest(owner).payload)
        return seal(
            replace(record, columns=(*record.columns, column("mrn", "string", "opt-out"))),
            owner.signing,
        )


@dataclass(slots=True)
class Case:
    """One owner's directory and ledger, and a conversation with an enclave."""

    home: PartyHome
    ledger: Ledger
    talk: Conversation

    @property
    def manifest(self) -> DatasetManifest:
        owner = self.talk.world.owners[0]
        return self.talk.agreement.manifests[self.talk.agreement.data_of(owner.id)[0].manifest].record

    def listed(self, people: list[str] = PEOPLE) -> KeptList:
        """The owner's people opt out."""
        kept = seal_list(self.home, self.manifest, column_for(self.manifest), people, now=NOW)
        remember(self.ledger, kept)
        return kept

    def granted(self) -> tuple[GrantedList, ...]:
        """What the broker puts into its grant."""
        owner = self.talk.world.owners[0]
        analysis = self.talk.request.record.analysis
        return tuple(
            granted_lists(self.home, self.ledger, self.talk.agreement, owner.id, analysis, self.talk.session())
        )

    def grant(self, *lists: GrantedList) -> Envelope:
        """The owner's signed grant with these lists."""
        owner = self.talk.world.owners[0]
        record = KeyGrant.decode(self.talk.grant(owner).payload)
        return seal(replace(record, opt_outs=lists), owner.signing)

    def opened(self, item: GrantedList, ciphertext: bytes) -> frozenset[str]:
        """Who the enclave leaves out, when storage gives it these bytes."""
        owner = self.talk.world.owners[0]
        grant: Signed[KeyGrant] = open_signed(KeyGrant, self.grant(item), owner.card)

        class Storage:
            def blob(self, blob: str, *, size: int) -> Iterator[bytes]:
                yield ciphertext

        with open_list_keys((grant,), self.talk.agreement, self.talk.sealing) as keys, keys.key(item.manifest) as key:
            descriptor = open_file(Storage(), sealed_list(self.talk.agreement, item), item.file(), key)
        with io.FileIO(descriptor) as file:
            return decode_list(file.readall())


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    new_key_file(tmp_path / "key")
    home = PartyHome.create(tmp_path / "home", name="North", unlock=Unlock(key_file=tmp_path / "key"), created=NOW)
    with closing(Ledger(home.path / "ledger.sqlite")) as ledger:
        yield Case(home=home, ledger=ledger, talk=Conversation(world=Registered()))


def ciphertext(case: Case, kept: KeptList) -> bytes:
    return case.home.opt_out_file(kept).read_bytes()


def refusal(case: Case, item: GrantedList, data: bytes) -> str:
    with pytest.raises((Refused, Malformed)) as caught:
        case.opened(item, data)
    return caught.value.code


def test_the_honest_way(case: Case) -> None:
    assert case.granted() == ()
    kept = case.listed()
    (item,) = case.granted()
    assert case.opened(item, ciphertext(case, kept)) == frozenset(PEOPLE)
    assert PEOPLE[0].encode() not in ciphertext(case, kept)


# -- T101: an earlier list


def test_an_earlier_list_again(case: Case, tmp_path: Path) -> None:
    """Storage hands out the list before; the owner's directory is restored from an old copy; the list is deleted."""
    before = case.listed(PEOPLE[:1])
    (old,) = case.granted()
    kept = case.listed()
    (item,) = case.granted()
    assert refusal(case, item, ciphertext(case, before)) in ("crypto.cannot-open", "dataset.segment-digest")
    # A grant's list is bound to its session: the owner's own earlier words open nothing in another one.
    other = Conversation(world=Registered(), attempt=2)
    with pytest.raises(Refused):
        Case(home=case.home, ledger=case.ledger, talk=other).opened(old, ciphertext(case, before))

    for path in case.home.opt_out_file(kept).parent.iterdir():
        path.unlink()
    for gone in (False, True):
        if gone:
            (case.home.opt_out_file(before).parent / "list.json").unlink()
        with pytest.raises(Refused) as caught:
            case.granted()
        assert caught.value.code == "opt-out.rolled-back"
        with pytest.raises(Refused):
            present(case.home, case.ledger, case.manifest.dataset)


# -- T102: a list of another data set


def test_a_list_of_another_data_set(case: Case) -> None:
    """Its ciphertext, and its ciphertext with its key: a list opens as the one that it was sealed as."""
    kept = case.listed()
    (item,) = case.granted()
    other = replace(case.manifest, dataset="f" * 32)
    foreign = seal_list(case.home, other, column_for(other), ["p002"], now=NOW)
    foreign_bytes = case.home.opt_out_file(foreign).read_bytes()
    assert refusal(case, item, foreign_bytes) in ("crypto.cannot-open", "dataset.segment-digest")
    forged = replace(
        item,
        name=foreign.name,
        blob=foreign.file.blob,
        size=foreign.file.size,
        segment_digests=foreign.file.segment_digests,
        key_commitment=foreign.key_commitment,
        sealed=resealed(case, item.manifest, foreign.name, case.home.opt_out_key(foreign)),
    )
    assert refusal(case, forged, foreign_bytes) == "crypto.cannot-open"
    assert case.opened(item, ciphertext(case, kept)) == frozenset(PEOPLE)


def resealed(case: Case, manifest: str, name: str, key: bytes) -> bytes:
    talk = case.talk
    info = list_info(
        run=talk.request.id,
        attempt=talk.attempt,
        contract=talk.agreement.id,
        session=talk.session().id,
        owner=talk.world.owners[0].id,
        manifest=manifest,
        name=name,
    )
    return crypto.seal(key, talk.session().record.sealing, info=info)


def test_a_list_for_data_of_somebody_else_or_twice(case: Case) -> None:
    """An owner speaks for its own data sets; a grant that names others ends the run."""
    case.listed()
    (item,) = case.granted()
    talk = case.talk
    others = talk.agreement.data_of(talk.world.owners[1].id)[0].manifest
    for lists in ((replace(item, manifest=others),), (item, item)):
        machine = talk.run()
        for owner in talk.world.owners:
            machine.handle(MessageArrived(kind=Challenge.KIND, envelope=talk.challenge(owner)))
        machine.handle(SessionMade(session=talk.session().id))
        (end,) = machine.handle(MessageArrived(kind=KeyGrant.KIND, envelope=case.grant(*lists)))
        assert isinstance(end, CloseFailed)
        assert end.error.code == "session.grant-lists"


# -- T103: a wrong key, altered bytes, another column


def test_wrong_keys_and_altered_lists(case: Case) -> None:
    kept = case.listed()
    (item,) = case.granted()
    good = ciphertext(case, kept)
    wrong = replace(item, sealed=resealed(case, item.manifest, item.name, seeded("wrong", 32)))
    assert refusal(case, wrong, good) == "crypto.cannot-open"
    stranger = SealingKey(seeded("stranger", crypto.SEALING_SECRET))
    for sealed in (
        crypto.seal(case.home.opt_out_key(kept), stranger.sealing_public, info=b""),
        bytes(len(item.sealed)),
    ):
        assert refusal(case, replace(item, sealed=sealed), good) == "crypto.cannot-open"
    for place in (0, 41, len(good) // 2, len(good) - 1):
        altered = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        with pytest.raises(KakoiError):
            case.opened(item, altered)
    for data in (b"", good[:-1], good + b"x"):
        with pytest.raises(KakoiError):
            case.opened(item, data)


def test_a_list_by_a_column_that_names_nobody(case: Case) -> None:
    """By age nobody in particular is left out: refused at the broker and in the enclave."""
    kept = case.listed()
    (item,) = case.granted()
    for name in ("age", "gone"):
        assert refusal(case, replace(item, column=name), ciphertext(case, kept)) == "opt-out.column"


# -- T104: the owner's directory


def test_what_says_which_list_it_is_cannot_be_edited(case: Case) -> None:
    """Another column, fewer people, another file: the list's key opens only with the record as it was kept."""
    kept = case.listed()
    path = case.home.opt_out_file(kept).parent / "list.json"
    for edited in (replace(kept, column="age"), replace(kept, number=9), replace(kept, created=0)):
        path.write_bytes(edited.encode())
        if edited.number != kept.number:
            continue
        with pytest.raises(Refused) as caught:
            case.granted()
        assert caught.value.code in ("crypto.cannot-open", "opt-out.column")
    path.write_bytes(b"{}")
    with pytest.raises(Malformed):
        case.granted()


def test_a_thief_of_the_directory_reads_nobody(case: Case) -> None:
    case.listed()
    for path in (case.home.path / "optouts").rglob("*"):
        if path.is_file():
            assert not any(person.encode() in path.read_bytes() for person in PEOPLE), path
