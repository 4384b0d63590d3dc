"""Vendors' answers made of anything: only our own errors, and signed bytes exactly as they stand."""

from __future__ import annotations

import contextlib
import json
import string
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.report import Evidence, Part
from kakoi.broker.collateral_amd import AmdChain, AmdList, AmdVcek
from kakoi.broker.collateral_aws import AwsLists
from kakoi.broker.collateral_http import Reply
from kakoi.broker.collateral_intel import IntelWant, signed_member
from kakoi.broker.collateral_pieces import Services, Want
from kakoi.broker.collateral_wants import want_of, wants
from kakoi.core.errors import KakoiError, Malformed
from kakoi.testing import amd_vendor
from kakoi.testing.collateral_servers import Canned, amd_routes, aws_routes, intel_routes, listed_nitro
from kakoi.testing.dcap_vendor import NOW
from kakoi.wire.collateral import Bundle, Piece
from support.collateral import INTEL, anchors

SERVICES = Services(intel="https://x", amd="https://x", aws="https://x")
GENOA = amd_vendor.vendor("Genoa")
CHIP = GENOA.chip()
NITRO = listed_nitro()
EVERY: tuple[Want, ...] = (
    IntelWant(tee="sgx", fmspc="00906ed50000", ca="platform"),
    AmdChain(product="Genoa", key="vcek"),
    AmdList(product="Genoa", key="vcek"),
    AmdVcek(product="Genoa", hwid=CHIP.hwid.hex(), tcb=tuple(CHIP.tcb.values())),
    *wants(Evidence(platform="nitro", statement=NITRO.document(), parts=()))[0],
)
ROUTES: Mapping[str, Canned] = intel_routes(INTEL) | amd_routes(GENOA, CHIP) | aws_routes(NITRO)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
BLANKS = st.text(alphabet=" \t\r\n", max_size=3)
ANYTHING = st.binary(max_size=300) | st.text(max_size=200).map(str.encode) | JSON.map(lambda v: json.dumps(v).encode())


def _good(url: str) -> Reply:
    canned = ROUTES[url.removeprefix("https://x")]
    return Reply(body=canned.body, headers={name.lower(): value for name, value in canned.headers.items()})


def _users() -> dict[str, list[Want]]:
    """Which questions are answered with which of the routes."""
    found: dict[str, list[Want]] = {path: [] for path in ROUTES}
    for want in EVERY:

        def get(url: str, *, most: int, types: Collection[str], want: Want = want) -> Reply:
            found[url.removeprefix("https://x")].append(want)
            return _good(url)

        want.fetch(get, SERVICES)
    return found


USERS = _users()


def attempt(want: Want, replies: list[Reply]) -> None:
    """Fetch and check with these replies in turn, then good ones."""
    left = list(replies)

    def get(url: str, *, most: int, types: Collection[str]) -> Reply:
        return left.pop(0) if left else _good(url)

    with contextlib.suppress(KakoiError):
        want.check(want.fetch(get, SERVICES), NOW, anchors())


def test_good_answers_are_good() -> None:
    def get(url: str, *, most: int, types: Collection[str]) -> Reply:
        return _good(url)

    for want in EVERY:
        assert want.check(want.fetch(get, SERVICES), NOW, anchors())


@pytest.mark.parametrize("want", EVERY, ids=lambda want: type(want).__name__)
@given(replies=st.lists(st.builds(Reply, body=ANYTHING, headers=st.just({})), min_size=1, max_size=4))
def test_anything_as_an_answer(want: Want, replies: list[Reply]) -> None:
    attempt(want, replies)


@pytest.mark.parametrize("path", sorted(ROUTES))
@given(data=st.data())
def test_good_answers_with_a_few_bytes_changed(path: str, data: st.DataObject) -> None:
    body = bytearray(ROUTES[path].body)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for changed in (bytes(body), bytes(body[:cut])):

        def get(url: str, *, most: int, types: Collection[str], changed: bytes = changed) -> Reply:
            good = _good(url)
            return Reply(body=changed, headers=good.headers) if url.endswith(path) else good

        for want in USERS[path]:
            with contextlib.suppress(KakoiError):
                want.check(want.fetch(get, SERVICES), NOW, anchors())


@given(header=st.text(alphabet=string.printable, max_size=80))
def test_any_chain_in_a_header(header: str) -> None:
    headers = {"sgx-pck-crl-issuer-chain": header, "tcb-info-issuer-chain": header}
    attempt(EVERY[0], [Reply(body=b"", headers=headers)] * 4)


@given(
    value=JSON, blanks=st.lists(BLANKS, min_size=8, max_size=8), last=st.booleans(), indent=st.sampled_from([None, 1])
)
def test_the_signed_member_is_taken_byte_for_byte(
    value: object, blanks: list[str], last: bool, indent: int | None
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
    b = iter(blanks)
    members = [f'"tcbInfo"{next(b)}:{next(b)}{text}', f'"signature"{next(b)}:{next(b)}"{"0f" * 64}"']
    if last:
        members.reverse()
    body = f"{next(b)}{{{next(b)}{members[0]}{next(b)},{next(b)}{members[1]}}}"
    assert signed_member(body.encode(), "tcbInfo") == (text.encode(), bytes([15] * 64))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"tcbInfo":1}',
        b'{"tcbInfo":1,"signature":"00"}',
        b'{"tcbInfo":1,"signature":"' + b"0f" * 64 + b'","more":1}',
        b'{"tcbInfo":1,"tcbInfo":2,"signature":"' + b"0f" * 64 + b'"}',
        b'{"tcbInfo":1,"signature":"' + b"0f" * 64 + b'"}{}',
        b'{"tcbInfo":1,"signature":"' + b"0f" * 64 + b'",}',
        b'{"tcbInfo":1,"signature":["' + b"0f" * 64 + b'"]}',
        b'{"qeIdentity":1,"signature":"' + b"0f" * 64 + b'"}',
        b'{"tcbInfo":' + b"[" * 100_000 + b"]" * 100_000 + b',"signature":"' + b"0f" * 64 + b'"}',
        b'\xff{"tcbInfo":1}',
    ],
)
def test_answers_of_another_form(body: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        signed_member(body, "tcbInfo")
    assert caught.value.code == "collateral.intel"


@given(data=ANYTHING)
def test_any_bytes_as_a_signed_answer(data: bytes) -> None:
    with pytest.raises(Malformed):
        signed_member(data, "tcbInfo")


@given(text=st.text(max_size=60) | st.from_regex(r"(intel|amd|aws)/[A-Za-z0-9/.-]{0,80}"))
def test_any_text_as_a_question(text: str) -> None:
    with contextlib.suppress(Malformed):
        assert want_of(text).asked == text


@given(
    asked=st.sampled_from([want.asked for want in EVERY]),
    at=st.integers(0, 2**40),
    parts=st.dictionaries(
        st.from_regex(r"[a-z][a-z_-]{0,20}", fullmatch=True), st.binary(max_size=40), min_size=1, max_size=9
    ),
)
def test_pieces_and_bundles_are_read_as_written(asked: str, at: int, parts: dict[str, bytes]) -> None:
    piece = Piece(asked=asked, fetched_at=at, parts=tuple(Part(name=n, data=d) for n, d in parts.items()))
    assert Piece.decode(piece.encode()) == piece
    bundle = Bundle(party="0" * 64, made_at=at, pieces=(piece,))  # type: ignore[arg-type]
    assert Bundle.decode(bundle.encode()) == bundle
    with contextlib.suppress(KakoiError):
        want_of(asked).check(piece.by_name, NOW, anchors())


@given(data=st.binary(max_size=400))
def test_any_bytes_as_a_piece(data: bytes) -> None:
    for cls in (Piece, Bundle):
        with pytest.raises(Malformed):
            cls.decode(data)


def test_lists_without_their_document_cannot_be_fetched() -> None:
    want = want_of(EVERY[-1].asked)
    assert isinstance(want, AwsLists)
    with pytest.raises(Malformed):
        want.fetch(lambda url, **_: _good(url), SERVICES)
