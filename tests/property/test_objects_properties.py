"""Every record of the pure rooms: one encoding per value, one value per encoding, and nothing but our errors."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kakoi
from kakoi.core import encoding
from kakoi.core.errors import Malformed
from kakoi.core.records import Record
from support.strategies import records

PURE_ROOMS = ("core", "attest", "contract", "wire")
FEW = settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def _all_records() -> list[type[Record]]:
    for module in pkgutil.walk_packages(kakoi.__path__, "kakoi."):
        if module.name.split(".")[1] in PURE_ROOMS:
            importlib.import_module(module.name)

    def below(cls: type[Record]) -> Iterator[type[Record]]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    # dataclass(slots=True) makes a second class; the first one lives on in __subclasses__.
    found = {cls for cls in below(Record) if getattr(sys.modules[cls.__module__], cls.__name__, None) is cls}
    found = {cls for cls in found if cls.__module__.split(".")[1] in PURE_ROOMS}
    return sorted(found, key=lambda cls: (cls.__module__, cls.__name__))


ALL = _all_records()
SIGNED_OR_SENT = [cls for cls in ALL if cls.KIND]
every = pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
every_kind = pytest.mark.parametrize("cls", SIGNED_OR_SENT, ids=lambda cls: cls.__name__)


def test_the_list_of_records_is_not_empty() -> None:
    assert {"PartyCard", "Contract", "Envelope", "KeyGrant"} <= {cls.__name__ for cls in ALL}


def test_kinds_are_unique_and_versioned() -> None:
    """Kinds without a slash only tell the members of one union apart."""
    kinds = [cls.KIND for cls in SIGNED_OR_SENT if "/" in cls.KIND]
    assert len(set(kinds)) == len(kinds) > 15
    assert all(kind.startswith("kakoi/") and kind.endswith("/v1") for kind in kinds)


@every
@FEW
@given(data=st.data())
def test_decode_and_encode_are_inverse(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(cls))
    encoded = record.encode()
    assert cls.decode(encoded) == record
    assert cls.decode(encoded).encode() == encoded


@every_kind
@FEW
@given(data=st.data())
def test_a_changed_byte_is_refused_or_another_object(cls: type[Record], data: st.DataObject) -> None:
    good = data.draw(records(cls)).encode()
    places = st.tuples(st.integers(0, len(good) - 1), st.integers(1, 255))
    for at, mask in data.draw(st.lists(places, min_size=12, max_size=12)):
        bad = good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :]
        try:
            changed = cls.decode(bad)
        except Malformed:
            continue
        assert changed != cls.decode(good)
        assert changed.encode() == bad


@every_kind
@FEW
@given(data=st.data())
def test_cut_and_extended_objects_are_refused(cls: type[Record], data: st.DataObject) -> None:
    good = data.draw(records(cls)).encode()
    cut = data.draw(st.integers(0, len(good) - 1))
    for bad in (good[:cut], good + b"\n", good + good, b" " + good, b"\xef\xbb\xbf" + good):
        with pytest.raises(Malformed):
            cls.decode(bad)


@every_kind
@settings(FEW, max_examples=2)
@given(data=st.data())
def test_unknown_missing_and_repeated_members_are_refused(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(cls))
    value = encoding.loads(record.encode(), limit=cls.MAX_BYTES)
    assert isinstance(value, dict)
    for where in _objects(value):
        members = dict(where)
        for name in members:
            where.pop(name)
            _refused(cls, value)
            where[name] = members[name]
        where["zz"] = 1
        _refused(cls, value)
        del where["zz"]
    encoded = record.encode()
    first = encoded[1:].split(b":", 1)[0]
    with pytest.raises(Malformed):
        cls.decode(b"{" + first + b":null," + encoded[1:])


@every_kind
@settings(FEW, max_examples=2)
@given(data=st.data())
def test_no_member_takes_a_value_of_another_type(cls: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(cls))
    value = encoding.loads(record.encode(), limit=cls.MAX_BYTES)
    strange: tuple[Any, ...] = (None, True, 0, -1, "", "\u202e", [], {}, [[]], {"kind": []}, encoding.MAX_INTEGER)
    for name in list(value):
        for foreign in strange:
            good, value[name] = value[name], foreign
            encoded = encoding.dumps(value)
            with contextlib.suppress(Malformed):
                assert cls.decode(encoded).encode() == encoded
            value[name] = good


@every_kind
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode()))
@settings(FEW, max_examples=10)
def test_any_bytes_give_only_our_error(cls: type[Record], data: bytes) -> None:
    with pytest.raises(Malformed):
        cls.decode(data)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value[:1]:
            yield from _objects(item)


def _refused(cls: type[Record], value: Any) -> None:
    with pytest.raises(Malformed):
        cls.decode(encoding.dumps(value))
