"""Events: OCSF as the schema asks for it, nothing but what the type has a place for, and a chain that shows every change."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core import encoding
from kakoi.core.crypto import SigningKey
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.guard.chain import GENESIS, link, open_head, read_line, sign_head, verify_stream
from kakoi.guard.coalesce import Coalescer
from kakoi.guard.happening import KINDS, OCSF_VERSION, Finding, Happening, ocsf
from kakoi.guard.stream import FILE, Stream
from kakoi.testing.world import seeded

KEY = SigningKey(seeded("events", 64))
RULE = "035b6df9-328a-5fe8-b1a0-7ec817090855"
# ocsf-schema 1.7.0, events/*.json and objects/*.json: what is required, or of what at least one must be there.
BASE = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {
    2004: {"finding_info"},
    3001: {"user"},
    3002: {"user", "service"},
    3004: {"entity"},
    6002: {"app"},
    6003: {"actor", "api", "src_endpoint"},
}
ACTIVITIES = {
    2004: {1, 2, 3},
    3001: set(range(1, 13)),
    3002: set(range(1, 8)),
    3004: set(range(1, 14)),
    6002: set(range(1, 9)),
    6003: {1, 2, 3, 4},
}
ONE_OF = {
    "actor": {"process", "user", "invoked_by", "session", "app_name", "app_uid"},
    "user": {"account", "name", "uid"},
    "entity": {"name", "uid", "device", "group", "org", "policy", "user"},
    "src_endpoint": {"ip", "uid", "name", "hostname", "svc_name"},
    "api": {"operation"},
    "finding_info": {"uid"},
    "app": {"name", "uid"},
    "service": {"name", "uid"},
}


def happening(what: str, **more: Any) -> Happening:
    finding = (
        Finding(rule=RULE, title="A rule", level="high", first=1, last=2, events=2) if what == "guard.alert" else None
    )
    return Happening(
        **{"what": what, "at": 1000, "component": "broker", "outcome": "failure", "finding": finding, **more}
    )


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("named", [False, True])
def test_every_kind_is_a_valid_event_of_its_class(what: str, named: bool) -> None:
    more = (
        {"actor": "Dr. Aoki", "address": "192.0.2.1", "about": "Ms. Baba", "count": 3, "until": 1010} if named else {}
    )
    event = ocsf(
        happening(what, **more), stream="ab" * 32, log_name="North", sequence=7, previous="00" * 32, version="1"
    )
    number = event["class_uid"]
    assert set(event) >= BASE | REQUIRED[number]
    assert event["type_uid"] == number * 100 + event["activity_id"]
    assert event["category_uid"] == number // 1000
    assert event["activity_id"] in ACTIVITIES[number] | {0, 99}
    assert event["severity_id"] in range(7)
    assert event["metadata"]["version"] == OCSF_VERSION
    assert event["metadata"]["product"]["name"]
    assert event["metadata"]["sequence"] == 7
    for part in set(ONE_OF) & set(event):
        assert ONE_OF[part] & set(event[part]), part
    assert encoding.loads(encoding.dumps(event)) == event
    assert ("count" in event) is named


@pytest.mark.parametrize(
    "spoil", [{"what": "broker.unknown"}, {"address": "evil host"}, {"code": "Not A Code"}, {"actor": "a\nb"}]
)
def test_there_is_no_place_for_anything_else(spoil: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        happening(**{"what": "broker.note", **spoil})


def test_only_an_alert_carries_a_finding() -> None:
    with pytest.raises(Malformed):
        replace(happening("guard.alert"), finding=None)


def lines(count: int) -> list[bytes]:
    found, digest = [], GENESIS
    for number in range(1, count + 1):
        event = ocsf(
            happening("broker.note"), stream="ab" * 32, log_name="N", sequence=number, previous=digest.hex(), version=""
        )
        found.append(encoding.dumps(event))
        digest = link(digest, found[-1])
    return found


def head(found: list[bytes], size: int, key: SigningKey = KEY) -> Any:
    digest = GENESIS
    for line in found[:size]:
        digest = link(digest, line)
    return sign_head(stream=KEY.verifying_key.ed25519_keyid, size=size, digest=digest, at=5, signer=key)


def test_a_whole_stream_verifies() -> None:
    found = lines(5)
    verified = verify_stream(found, [head(found, 2), head(found, 4)], KEY.verifying_key)
    assert (verified.size, verified.signed) == (5, 4)
    assert verify_stream([], [], KEY.verifying_key).size == 0


@pytest.mark.parametrize("at", range(5))
def test_every_removed_line_shows(at: int) -> None:
    found = lines(5)
    with pytest.raises(Refused) as caught:
        verify_stream(found[:at] + found[at + 1 :], [head(found, 5)], KEY.verifying_key)
    assert caught.value.code == ("event.cut" if at == 4 else "event.gap")


@given(st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 255))
def test_every_flipped_byte_shows(line: int, at: int, mask: int) -> None:
    found = lines(4)
    signed = head(found, 4)
    data = bytearray(found[line])
    data[at % len(data)] ^= mask
    with pytest.raises((Refused, Malformed)):
        verify_stream([*found[:line], bytes(data), *found[line + 1 :]], [signed], KEY.verifying_key)


@given(st.binary(max_size=300))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    with pytest.raises(KakoiError):
        read_line(data)


def test_heads_of_others_and_of_other_streams_count_nothing() -> None:
    found, other = lines(2), SigningKey(seeded("other", 64))
    for signed, code in ((head(found, 2, other), "signature.signer"),):
        with pytest.raises(Refused) as caught:
            verify_stream(found, [signed], KEY.verifying_key)
        assert caught.value.code == code
    foreign = sign_head(stream="00" * 32, size=2, digest=bytes(32), at=1, signer=KEY)
    with pytest.raises(Refused) as caught:
        open_head(foreign, KEY.verifying_key)
    assert caught.value.code == "event.head"


def test_two_programs_write_one_stream(tmp_path: Path) -> None:
    with (
        closing(Stream(tmp_path / FILE, name="N", component="broker", signer=KEY, now=1)) as one,
        closing(Stream(tmp_path / FILE, name="N", component="console", signer=KEY, now=1)) as other,
    ):
        for number in range(5):
            assert (one, other)[number % 2].append(happening("broker.note"))
        other.sign(50, at_once=True)
        assert one.verify(KEY.verifying_key).signed == one.size == 6
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_cursor_that_moved_or_a_name_that_was_used_stores_nothing(tmp_path: Path) -> None:
    with closing(Stream(tmp_path / FILE, name="N", component="broker", now=1)) as stream:
        note = happening("broker.note")
        assert stream.append(note, moved={"x": (0, 3)})
        assert not stream.append(note, moved={"x": (0, 3)})
        assert stream.append(note, once="y")
        assert not stream.append(note, once="y")
        assert stream.size == 3
        assert stream.cursor("x") == 3


def test_a_measurement_is_new_once(tmp_path: Path) -> None:
    with closing(Stream(tmp_path / FILE, name="N", component="broker", now=1)) as stream:
        for _ in range(2):
            stream.append(happening("broker.grant", measurement="ab" * 32, outcome="success"))
        marks = [event["unmapped"]["kakoi"].get("marks") for event in stream.newest(what="broker.grant")]
        assert marks == [None, ["first-seen"]]


def test_a_flood_is_few_events_and_no_event_is_forgotten() -> None:
    coalescer, told = Coalescer(seconds=10, most=4), []
    for number in range(1000):
        address = f"192.0.2.{number % 200}" if number > 100 else "192.0.2.1"
        told += coalescer.hear(happening("hub.refused", at=1000 + number // 100, address=address, code="hub.query"))
    told += coalescer.flush(2000)
    assert len(told) < 20
    assert sum(item.count for item in told) == 1000
    assert "event.many-addresses" in {item.code for item in told}
