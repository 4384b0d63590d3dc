"""Canonical JSON: ``dumps(loads(x)) == x`` for whatever is accepted, and only our error for whatever is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kakoi.core import encoding
from kakoi.core.errors import Malformed

WHOLE = st.integers(-encoding.MAX_INTEGER, encoding.MAX_INTEGER)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_values_come_back(value: Any) -> None:
    encoded = encoding.dumps(value)
    assert encoding.loads(encoded) == value
    assert encoding.dumps(encoding.loads(encoded)) == encoded


@given(VALUES)
def test_every_json_reader_reads_it_alike(value: Any) -> None:
    assert json.loads(encoding.dumps(value)) == value


@given(st.binary(max_size=80) | TEXT.map(lambda text: text.encode("utf-8")))
@example(b"")
@example(b"1e5")
@example(b"-0")
@example(b'"\\ud800"')
@example(b"[" * 100_000)
@example(b'{"a":' * 5000)
@example(b"9" * 5000)
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = encoding.loads(data)
    except Malformed:
        return
    assert encoding.dumps(value) == data


@given(VALUES, st.data())
def test_other_spellings_of_a_value_are_refused(value: Any, data: st.DataObject) -> None:
    canonical = encoding.dumps(value)
    other = data.draw(
        st.sampled_from(
            [
                json.dumps(value).encode(),
                json.dumps(value, indent=1, ensure_ascii=False).encode(),
                canonical + b" ",
                b"\n" + canonical,
            ]
        )
    )
    if other == canonical:
        return
    with pytest.raises(Malformed):
        encoding.loads(other)


@given(st.binary(max_size=60))
def test_base64_comes_back(data: bytes) -> None:
    assert encoding.unb64(encoding.b64(data)) == data


@given(st.text(max_size=24) | st.text(st.sampled_from("ABab01+/=-_ \n"), max_size=12))
@example("QQ=")
@example("QR==")
@example("QQ==\n")
@example("QUJD====")
@example("Q-_=")
def test_any_text_is_canonical_base64_or_refused(text: str) -> None:
    try:
        data = encoding.unb64(text)
    except Malformed:
        return
    assert encoding.b64(data) == text


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
def test_different_lists_are_framed_differently(a: list[bytes], b: list[bytes]) -> None:
    assert (encoding.framed(*a) == encoding.framed(*b)) == (a == b)
