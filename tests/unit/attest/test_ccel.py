"""Event logs: a log explains registers only after it replays to the signed ones, all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.ccel import parse, replay
from kakoi.attest.dcap.parse import TdReport
from kakoi.attest.dcap.parse import parse as parse_td_quote
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.testing import attest_kit, recorded
from kakoi.testing import azure_vendor_log as log

FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"
LOCALITY = b"StartupLocality\0"


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


GOOD = (
    log.first() + log.event(1, b"a") + log.event(2, b"b") + log.event(1, b"c") + log.event(1, b"x", kind=log.NO_ACTION)
)


@pytest.mark.parametrize("filler", [b"", b"\xff" * 100, b"\xff" * 3, bytes(64)])
def test_replay(filler: bytes) -> None:
    parsed = parse.parse(GOOD + filler)
    assert parsed.algorithms == (log.SHA256, log.SHA384)
    for name, size in (("sha256", 32), ("sha384", 48)):
        registers = replay.replay(parsed, name)  # type: ignore[arg-type]
        expected = {1: log.extended(name, bytes(size), b"a", b"c"), 2: log.extended(name, bytes(size), b"b")}
        assert registers == expected
        replay.check_registers(parsed, {**expected, 3: bytes(size)}, name, "PCR")  # type: ignore[arg-type]


def test_every_register_is_compared() -> None:
    parsed = parse.parse(GOOD)
    good = replay.replay(parsed, "sha256")
    for index in (1, 2, 3):
        with pytest.raises(Refused) as caught:
            replay.check_registers(parsed, {**good, 3: bytes(32), index: b"\1" * 32}, "sha256", "PCR")
        assert (caught.value.code, f"{index}: {'01' * 32}" in caught.value.message) == ("ccel.replay", True)
    with pytest.raises(Refused) as both:
        replay.check_registers(parsed, {1: bytes(32), 2: bytes(32)}, "sha256", "PCR")
    assert all(f"{i}: " in both.value.message for i in (1, 2))


def test_registers_begin_as_the_specification_says() -> None:
    start = log.event(0, LOCALITY + b"\3", kind=log.NO_ACTION)
    registers = replay.replay(parse.parse(log.first() + start + log.event(0, b"a") + log.event(17, b"d")), "sha256")
    assert registers == {
        0: log.extended("sha256", bytes(31) + b"\3", b"a"),
        17: log.extended("sha256", b"\xff" * 32, b"d"),
    }
    late = parse.parse(log.first() + log.event(0, b"a") + start)
    assert code(lambda: replay.replay(late, "sha256")) == "evidence.malformed"
    odd = parse.parse(log.first() + log.event(0, LOCALITY + b"\5", kind=log.NO_ACTION))
    assert code(lambda: replay.replay(odd, "sha256")) == "evidence.malformed"
    assert code(lambda: replay.replay(parse.parse(log.first((log.SHA384,))), "sha256")) == "evidence.malformed"


def test_rtmrs() -> None:
    data = log.first((log.SHA384,)) + log.event(3, b"kernel", algorithms=(log.SHA384,))
    rtmrs = (bytes(48), bytes(48), log.extended("sha384", bytes(48), b"kernel"), bytes(48))
    replay.check_rtmrs(parse.parse(data), rtmrs)
    assert code(lambda: replay.check_rtmrs(parse.parse(data), rtmrs[::-1])) == "ccel.replay"
    assert code(lambda: replay.check_rtmrs(parse.parse(data), rtmrs[:3])) == "evidence.malformed"
    mrtd = parse.parse(data + log.event(0, b"x", algorithms=(log.SHA384,)))
    assert code(lambda: replay.check_rtmrs(mrtd, rtmrs)) == "evidence.malformed"


def test_data_is_the_writers_word_unless_its_hash_was_measured() -> None:
    digests = [b"\1" * 32, b"\1" * 48]
    true, told = parse.parse(log.first() + log.event(1, b"a") + log.event(1, b"a", digests=digests)).events
    assert replay.proven_data(true, "sha256") == b"a"
    assert code(lambda: replay.proven_data(told, "sha256")) == "ccel.data"
    assert code(lambda: replay.proven_data(true, "sha512")) == "ccel.data"


BAD: dict[str, bytes] = {
    "empty": b"",
    "no specification event": log.event(1, b"a"),
    "another specification": log.first(signature=b"Spec ID Event02\0"),
    "version 1": log.first(version=b"\0\1\0"),
    "no algorithm": log.first(()),
    "unknown algorithm": log.first((log.SHA256,), sizes=[31]),
    "an algorithm twice": log.first((log.SHA256, log.SHA256)),
    "nine algorithms": log.first((log.SHA256,) * 9),
    "a digest less": log.first() + log.event(1, b"a", algorithms=(log.SHA256,)),
    "a digest twice": log.first() + log.event(1, b"a", algorithms=(log.SHA256, log.SHA256)),
    "register 32": log.first() + log.event(32, b"a"),
    "no register": log.first() + log.event(0xFFFFFFFF, b"a"),
    "bytes after the end": GOOD + b"\xff" * 50 + b"\0",
    "cut": GOOD[:-1],
    "too long": GOOD + bytes(parse.MAX_BYTES),
    "too many events": log.first((log.SHA256,)) + log.event(1, b"", algorithms=(log.SHA256,)) * (parse.MAX_EVENTS + 1),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed(name: str) -> None:
    assert code(partial(parse.parse, BAD[name])) == "evidence.malformed"


def test_sp800_155_event_extends_nothing() -> None:
    parsed = parse.parse(GOOD + log.event(0xFFFFFFFF, b"reference manifest", kind=log.NO_ACTION))
    assert sorted(replay.replay(parsed, "sha256")) == [1, 2]


def test_every_flipped_bit_of_what_was_measured_is_refused() -> None:
    """Bits of types and data are the writer's word and bound by nothing, so only the measured digests count."""
    signed = replay.replay(parse.parse(GOOD), "sha256")
    used = len(log.first())
    digest_bytes = {used + 12 + 2 + i for i in range(32)}
    for at, twin in attest_kit.flips(GOOD):
        try:
            replay.check_registers(parse.parse(twin), {**signed, 3: bytes(32)}, "sha256", "PCR")
        except (Malformed, Refused):
            continue
        assert at not in digest_bytes


@given(st.binary(max_size=600))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for start in (b"", log.first(), GOOD):
        try:
            replay.replay(parse.parse(start + data), "sha256")
        except Malformed:
            continue


VECTORS = recorded.load(FOLDER, "eventlog")


@pytest.mark.skipif(not VECTORS, reason="recorded evidence is not here (KAKOI_SHARED)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_recorded(vector: recorded.Recorded) -> None:
    parsed = parse.parse(vector.read("evidence"))
    body = parse_td_quote(vector.read("quote")).body
    assert isinstance(body, TdReport)
    if vector.expect["verdict"] == "replays to RTMR0-3 of the quote":
        replay.check_rtmrs(parsed, body.rtmr)
        spoilt = (*body.rtmr[:3], b"\1" * 48)
        assert code(lambda: replay.check_rtmrs(parsed, spoilt)) == "ccel.replay"
        return
    assert vector.expect["verdict"] == "RTMR0,1,3 replay; RTMR2 does not"
    with pytest.raises(Refused) as caught:
        replay.check_rtmrs(parsed, body.rtmr)
    assert caught.value.message.count("replayed") == 1
    assert f"3: {body.rtmr[2].hex()}" in caught.value.message
