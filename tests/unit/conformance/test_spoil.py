"""Spoiling bytes: every twin differs from the good one, and says where."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.report import Collateral, Evidence
from kakoi.conformance import spoil
from kakoi.conformance.base import key_anchor, plain_trial
from kakoi.conformance.corpus import Group
from kakoi.conformance.spoil import Blob, Span, consecutive
from kakoi.conformance.trial import Trial
from kakoi.core import der
from kakoi.testing import x509_kit as kit

TRIAL = plain_trial(
    "snp", Evidence(platform="snp", statement=b"x", parts=()), Collateral(parts=()), [key_anchor("0" * 64)], 1
)


def blob(data: bytes, **options: object) -> Blob:
    return Blob(name="b", data=data, rebuild=TRIAL.with_statement, **options)  # type: ignore[arg-type]


def made(groups: list[Group]) -> list[tuple[str, bytes]]:
    """Label and statement of every twin."""
    found = []
    for group in groups:
        for index in range(group.size):
            label, trial = group.make(index)
            found.append((label, trial.evidence.statement))
    return found


@given(st.binary(min_size=1, max_size=60), st.booleans())
def test_flips_turn_one_bit_of_each_byte_or_each_bit(data: bytes, every_bit: bool) -> None:
    twins = [twin for _, twin in made(spoil.flips(blob(data), every_bit=every_bit))]
    assert len(twins) == len(set(twins)) == len(data) * (8 if every_bit else 1)
    for twin in twins:
        different = [a ^ b for a, b in zip(data, twin, strict=True) if a != b]
        assert len(different) == 1
        assert different[0].bit_count() == 1


def test_flips_leave_out_what_nobody_can_judge_and_name_the_field() -> None:
    spans = consecutive(("first", 2), ("size#", 1), ("rest", 3))
    twins = made(spoil.flips(blob(b"abcdef", spans=spans, blind={3, 4}), every_bit=False))
    assert len(twins) == 4
    assert ["first" in twins[0][0], "size" in twins[2][0], "rest" in twins[3][0]] == [True] * 3


@given(st.binary(min_size=2, max_size=40))
def test_truncations_are_all_proper_prefixes_of_the_content(data: bytes) -> None:
    twins = [twin for _, twin in made(spoil.truncations(blob(data)))]
    assert twins == [data[:n] for n in range(1, len(data))]


def test_padding_is_no_bad_twin() -> None:
    padded = blob(b"ab\0\0", padding=8)
    assert [twin for _, twin in made(spoil.truncations(padded))] == [b"a"]
    tails = [twin for _, twin in made(spoil.extensions(padded))]
    assert b"ab\0\0\0" not in tails
    assert b"ab" + bytes(40_002) in tails
    assert not padded.is_good(b"ab" + bytes(9))
    assert padded.is_good(b"ab" + bytes(8))


def test_line_ends_of_text_are_no_bad_twin() -> None:
    text = blob(b"abc\n", text=True)
    assert [twin for _, twin in made(spoil.truncations(text))] == [b"a", b"ab"]
    assert b"abc\n\n" not in [twin for _, twin in made(spoil.extensions(text))]
    assert text.is_good(b"abc")
    assert not text.is_good(b"abc ")


def test_fields_are_shorter_longer_and_gone() -> None:
    spans = [Span(name="one", start=0, end=2), Span(name="empty", start=2, end=2), Span(name="two", start=2, end=4)]
    twins = dict(made(spoil.fields(blob(b"abcd", spans=spans))))
    assert twins == {
        "b: one a byte shorter": b"acd",
        "b: one a byte longer": b"ab\0cd",
        "b: one left out": b"cd",
        "b: two a byte shorter": b"abc",
        "b: two a byte longer": b"abcd\0",
        "b: two left out": b"ab",
    }


@pytest.mark.parametrize("order", ["little", "big"])
def test_lengths_lie(order: str) -> None:
    spans = consecutive(("size#", 2), ("body", 3))
    data = (3).to_bytes(2, "little" if order == "little" else "big") + b"abc"
    told = {
        int.from_bytes(twin[:2], "little" if order == "little" else "big")
        for _, twin in made(spoil.lengths(blob(data, spans=spans, order=order)))
    }
    assert told == {0, 2, 4, 5, 0xFFFF, 0x7FFF}


def test_values_of_a_certificate_are_spoilt_within_correct_lengths() -> None:
    root = kit.root()
    twins = made(spoil.der_values("root", root.der, TRIAL.with_statement))
    assert len(twins) > 100
    for label, twin in twins:
        assert twin != root.der, label
        der.items(twin)  # all lengths around the spoilt value are right
    assert len({twin for _, twin in twins}) > len(twins) * 0.9


def test_long_lists_are_spoilt_at_both_ends_and_between() -> None:
    authority = kit.root()
    authority.revoked = list(range(5000, 6000))
    groups = spoil.der_values("crl", authority.crl(), TRIAL.with_statement)
    assert 900 < sum(group.size for group in groups) <= 960


def test_absent_and_replaced() -> None:
    assert spoil.absent("x", lambda: TRIAL).size == 1
    assert spoil.replaced("x", {}, TRIAL.with_statement) == []
    one = made(spoil.replaced("x", {"other": b"y"}, TRIAL.with_statement))
    assert one == [("x: other in its place", b"y")]


@pytest.mark.parametrize("way", [spoil.fields, spoil.lengths])
def test_nothing_to_do_makes_no_group(way: Callable[[Blob], list[Group]]) -> None:
    assert way(blob(b"abc")) == []


def test_trials_change_one_thing() -> None:
    assert TRIAL.with_statement(b"y").with_statement(b"x") == TRIAL
    assert TRIAL.with_parts({"p": b"1"}).with_parts({"p": None}) == TRIAL
    assert TRIAL.with_collateral({"p": b"1"}).piece("p") == b"1"
    called: Trial = TRIAL.called("tdx", "tdx")
    assert (called.evidence.platform, called.format, called.policy) == ("tdx", "tdx", None)
    with pytest.raises(ValueError, match="with a policy"):
        _ = TRIAL.entry
