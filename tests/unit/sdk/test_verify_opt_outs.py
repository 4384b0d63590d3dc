"""What a passport says about opt-outs is held against what the owners granted, whoever signed it."""

from __future__ import annotations

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId
from kakoi.sdk.verify import verify_result
from kakoi.wire.messages import GrantedList, LeftOut
from support.resigned import Whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole") / "platform")


def granted(whole: Whole) -> GrantedList:
    (entry,) = whole.agreement.contract.data
    return GrantedList(
        manifest=entry.manifest,
        name="0" * 32,
        column="pid",
        blob=ObjectId("1" * 64),
        size=65_600,
        segment_digests=sha256(b"segment"),
        key_commitment=bytes(32),
        sealed=bytes(1200),
    )


def said(whole: Whole, people: int) -> LeftOut:
    return LeftOut(manifest=granted(whole).manifest, people_at_least=people)


@pytest.mark.parametrize(("people", "word"), [(0, "fewer than 3"), (3, "at least 3"), (300, "at least 300")])
def test_what_was_granted_is_said(whole: Whole, people: int, word: str) -> None:
    file = whole.file(lists=(granted(whole),), left_out=(said(whole, people),))
    verified = verify_result(file.encode(), verifiers=with_software)
    assert [word in str(item) for item in verified.proven].count(True) == 1


def test_bad_twins(whole: Whole) -> None:
    """A list that was not applied, one that nobody granted, twice, and counts between the steps: each refused, though signed well."""
    one, other = granted(whole), LeftOut(manifest=ObjectId("2" * 64), people_at_least=0)
    for lists, left_out in (
        ((one,), ()),
        ((), (said(whole, 3),)),
        ((one,), (said(whole, 3), other)),
        ((one,), (said(whole, 3), said(whole, 3))),
        ((one, one), (said(whole, 3), said(whole, 3))),
        ((one,), (other,)),
        ((one,), (said(whole, 1),)),
        ((one,), (said(whole, 4),)),
    ):
        with pytest.raises(Refused) as caught:
            verify_result(whole.file(lists=lists, left_out=left_out).encode(), verifiers=with_software)
        assert caught.value.code == "passport.contradiction"
