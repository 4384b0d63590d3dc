"""Five families, a code each, and nothing lost on the way."""

from __future__ import annotations

import copy
import pickle

import pytest

from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable, cannot_open
from kakoi.core.ids import object_id, parse_id

FAMILIES: tuple[type[KakoiError], ...] = (Misuse, Malformed, Refused, Unavailable, Fatal)


def test_each_family_has_its_exit_code() -> None:
    assert [family.exit_code for family in FAMILIES] == [2, 3, 4, 5, 6]
    assert KakoiError.exit_code == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_cross_processes_whole(family: type[KakoiError]) -> None:
    error = family("a.b-c", "expected one, got two", hint="try one")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(twin) is family
        assert (twin.code, twin.message, twin.hint) == ("a.b-c", "expected one, got two", "try one")
    assert str(error) == "expected one, got two [a.b-c]"


@pytest.mark.parametrize("code", ["", "A.b", "a b", "a.", ".a", "a..b", "a.b\n", "é.b", "a_b"])
def test_codes_have_one_form(code: str) -> None:
    with pytest.raises(ValueError, match="not an error code"):
        Malformed(code, "text")


def test_the_opaque_error_is_always_the_same() -> None:
    assert str(cannot_open()) == str(cannot_open())
    assert isinstance(cannot_open(), Refused)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "0" * 64 + "\n", "A" * 64, "g" * 64, "０" * 64])
def test_ids_have_one_form(text: str) -> None:
    with pytest.raises(Malformed) as error:
        parse_id(text)
    assert error.value.code == "encoding.id"


def test_an_object_id_is_the_digest_of_its_bytes() -> None:
    assert parse_id(object_id(b"abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
