"""The language of canonical JSON, case by case."""

from __future__ import annotations

import enum
import hashlib
import os
import subprocess
import sys
from collections import OrderedDict, UserDict
from typing import Any

import pytest

from kakoi.core import encoding
from kakoi.core.errors import Malformed

ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "null": (b"null", None),
    "true": (b"true", True),
    "zero": (b"0", 0),
    "negative": (b"-7", -7),
    "largest": (b"9007199254740991", 2**53 - 1),
    "smallest": (b"-9007199254740991", -(2**53) + 1),
    "empty object": (b"{}", {}),
    "sorted by code point": ('{"A":1,"a":2,"\u00e9":3,"\uff5e":4,"\U0001f3e5":5}'.encode(), None),
    "text stays as it is": ('"é東"'.encode(), "é東"),
    "no normalisation": (b'"e\xcc\x81"', "e\u0301"),
    "escapes of control characters": (b'"\\b\\t\\n\\f\\r\\u0000\\u001f"', "\b\t\n\f\r\x00\x1f"),
    "quote and backslash": (rb'"\"\\"', '"\\'),
    "delete and line separators stay": ('"\x7f\u2028\u2029"'.encode(), "\x7f\u2028\u2029"),
}

REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "space": b" 1",
    "new line at the end": b"1\n",
    "two values": b"1 2",
    "byte order mark": b"\xef\xbb\xbf1",
    "UTF-16": "1".encode("utf-16"),
    "broken UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "lone surrogate escaped": b'"\\ud800"',
    "pair of surrogates escaped": b'"\\ud83c\\udfe5"',
    "escaped letter": b'"\\u0041"',
    "escaped slash": b'"\\/"',
    "upper-case escape": b'"\\u001F"',
    "control character in the clear": b'"\x01"',
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key, one escaped": b'{"a":1,"\\u0061":1}',
    "unsorted keys": b'{"b":1,"a":2}',
    "sorted by UTF-16 unit": '{"\U0001f3e5":1,"\uff5e":2}'.encode(),
    "key that is no text": b"{1:2}",
    "float": b"1.5",
    "float that is whole": b"1.0",
    "exponent": b"1e5",
    "exponent without fraction": b"1E0",
    "minus zero": b"-0",
    "leading zero": b"01",
    "plus": b"+1",
    "hexadecimal": b"0x1",
    "too large": b"9007199254740992",
    "too small": b"-9007199254740992",
    "far too large": b"1" + b"0" * 4000,
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "trailing comma": b"[1,]",
    "comment": b"/**/1",
    "single quotes": b"'a'",
    "too deep": b"[" * 26 + b"]" * 26,
    "very deep": b"[" * 200_000 + b"]" * 200_000,
    "unclosed": b'{"a":1',
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    data, value = ACCEPTED[name]
    parsed = encoding.loads(data)
    assert encoding.dumps(parsed) == data
    if value is not None:
        assert parsed == value


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(Malformed) as error:
        encoding.loads(REFUSED[name])
    assert error.value.code == "encoding.json"


def test_bool_and_integer_do_not_mix() -> None:
    assert encoding.loads(b"[true,1]")[0] is True
    assert type(encoding.loads(b"[true,1]")[1]) is int


def test_deepest_accepted() -> None:
    deep = b"[" * 25 + b"]" * 25
    assert encoding.dumps(encoding.loads(deep)) == deep


def test_size_limit_is_exact() -> None:
    assert encoding.loads(b'"abc"', limit=5) == "abc"
    with pytest.raises(Malformed) as error:
        encoding.loads(b'"abcd"', limit=5)
    assert error.value.code == "encoding.size"
    assert encoding.dumps("abc", limit=5) == b'"abc"'
    with pytest.raises(Malformed):
        encoding.dumps("abcd", limit=5)


def test_many_small_items_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(Malformed):
        encoding.loads(b"[" + b"[]," * (encoding.MAX_ITEMS // 2) + b"[]]")


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    """Prints as something else."""

    __slots__ = ()


FOREIGN: dict[str, Any] = {
    "float": 1.0,
    "nan": float("nan"),
    "bytes": b"a",
    "set": {1},
    "enum": Number.ONE,
    "subclass of str": Word("a"),
    "subclass of dict": OrderedDict(a=1),
    "user dict": UserDict(a=1),
    "integer key": {1: 2},
    "null key": {None: 2},
    "range": range(3),
    "too large": 2**53,
    "lone surrogate": "\ud800",
    "lone surrogate in a key": {"\udfff": 1},
    "object": object(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_values_are_not_written(name: str) -> None:
    with pytest.raises(Malformed):
        encoding.dumps([FOREIGN[name]])


def test_a_cycle_is_not_followed_for_ever() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(Malformed):
        encoding.dumps(cycle)


def test_long_numbers_cost_nothing_even_without_the_interpreters_limit() -> None:
    """An environment variable lifts Python's limit on digits; conversion is quadratic without it."""
    code = (
        "import sys; from kakoi.core import encoding, errors\n"
        "assert sys.get_int_max_str_digits() == 0\n"
        "try: encoding.loads(b'9' * 4_000_000)\n"
        "except errors.Malformed: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONINTMAXSTRDIGITS": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert done.stdout == "refused\n"


def test_messages_do_not_repeat_what_they_refuse() -> None:
    with pytest.raises(Malformed) as error:
        encoding.loads(b'{"secret":"patient 4711","secret":"x"}')
    assert "4711" not in str(error.value)
    assert "secret" not in str(error.value)


def test_sha256_and_framed() -> None:
    assert encoding.sha256(b"a", b"bc") == hashlib.sha256(b"abc").digest()
    assert encoding.framed(b"", b"ab") == bytes(8) + bytes(7) + b"\x02ab"
