"""The plaintext of a list of people who opted out: one spelling, padded, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core.errors import KakoiError, Malformed
from kakoi.dataset.opt_out import HEADING, PADDING, decode_list, encode_list

TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)


@given(st.sets(TEXTS, max_size=30))
def test_what_is_written_is_read(people: set[str]) -> None:
    data = encode_list(people)
    assert decode_list(data) == people
    assert len(data) % PADDING == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_our_error(data: bytes) -> None:
    for body in (data, HEADING + data, HEADING + data + bytes(-len(HEADING + data) % PADDING)):
        try:
            people = decode_list(body)
        except KakoiError:
            continue
        assert encode_list(people) == body


def test_its_length_does_not_tell_how_many() -> None:
    assert len({len(encode_list([f"{i:05d}" for i in range(count)])) for count in (0, 1, 2, 500, 5000)}) == 1


@pytest.mark.parametrize("text", ["", " 7", "7 ", "a\nb", "a\x00b", "a\u2028b", "x" * 201])
def test_what_no_cell_can_match_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        encode_list([text])
    assert caught.value.code == "opt-out.identifier"
    assert "7" not in caught.value.message.replace("1 to 200", "")


@pytest.mark.parametrize(
    "twin",
    [
        lambda data: data[:-1],
        lambda data: data + bytes(PADDING),
        lambda data: (
            data.replace(b"b\na\n", b"a\nb\n", 1) if b"b\na\n" in data else data.replace(b"a\nb\n", b"b\na\n", 1)
        ),
        lambda data: data.replace(b"a\nb\n", b"a\na\n", 1),
        lambda data: b"x" + data[1:],
        lambda data: data.replace(b"b\n", b"b\x00", 1),
        lambda data: bytes(PADDING),
        lambda data: b"",
    ],
)
def test_bad_twins(twin: object) -> None:
    good = encode_list(["a", "b"])
    with pytest.raises(Malformed):
        decode_list(twin(good))  # type: ignore[operator]
