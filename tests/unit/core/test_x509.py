"""Certificates and revocation lists: every rule has a chain that breaks exactly it."""

from __future__ import annotations

import base64
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from kakoi.core import der
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.keys import Curve, ec_key, from_spki, rsa_key
from kakoi.core.x509 import (
    Certificate,
    NoRevocation,
    Revocation,
    VerifiedChain,
    parse_certificate,
    parse_crl,
    parse_pem_chain,
    verify_chain,
)
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.testing import x509_kit as kit

SHARED = Path(os.environ.get("KAKOI_SHARED", "../shared"))


class World:
    """A root, a CA and a leaf, with the lists that cover them."""

    def __init__(self) -> None:
        self.root = kit.root()
        self.ca = self.root.child("Kakoi test CA")
        self.key = mint.EcKey.generate()
        self.leaf = self.ca.leaf("Kakoi test leaf", key=self.key.public)

    def judge(
        self,
        *,
        chain: list[bytes] | None = None,
        now: int = kit.NOW,
        lists: list[bytes] | None = None,
        roots: set[str] | None = None,
    ) -> VerifiedChain:
        ders = chain or [self.leaf, *self.ca.chain]
        crls = [self.ca.crl(), self.root.crl()] if lists is None else lists
        return verify_chain(
            [parse_certificate(d) for d in ders],
            roots=roots or {self.root.certificate.spki_sha256},
            now=now,
            revocation=Revocation(lists=[parse_crl(c) for c in crls]),
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refused) as caught:
        call()
    return caught.value.code


def test_good_chain(world: World) -> None:
    verified = world.judge()
    assert verified.leaf.common_name == "Kakoi test leaf"
    assert verified.root_spki_sha256 == world.root.certificate.spki_sha256
    assert verified.valid_until == kit.NOW + 30 * 86400
    assert verified.valid_from == kit.NOW - 86400
    assert verified.unchecked == ""


def test_chain_of_a_ca(world: World) -> None:
    chain = [parse_certificate(d) for d in world.ca.chain]
    roots = {world.root.certificate.spki_sha256}
    lists = Revocation(lists=[world.root.parsed_crl()])
    assert verify_chain(chain, roots=roots, now=kit.NOW, revocation=lists, leaf="ca").leaf is chain[0]
    long = [parse_certificate(d) for d in (world.leaf, *world.ca.chain)]
    both = Revocation(lists=[world.root.parsed_crl(), world.ca.parsed_crl()])
    assert refusal(lambda: verify_chain(long, roots=roots, now=kit.NOW, revocation=both, leaf="ca")) == "x509.ca"


def test_verified_chain_has_no_public_constructor(world: World) -> None:
    import dataclasses

    with pytest.raises(TypeError):
        VerifiedChain(certificates=(), verified_at=0, valid_from=0, valid_until=0, unchecked="")
    with pytest.raises(TypeError):
        dataclasses.replace(world.judge(), verified_at=1)


def test_missing_revocation_carries_its_reason(world: World) -> None:
    chain = [parse_certificate(d) for d in (world.leaf, *world.ca.chain)]
    roots = {world.root.certificate.spki_sha256}
    verified = verify_chain(chain, roots=roots, now=kit.NOW, revocation=NoRevocation(reason="no list is published"))
    assert verified.unchecked == "no list is published"


def test_leaf_without_list_needs_a_reason(world: World) -> None:
    chain = [parse_certificate(d) for d in (world.leaf, *world.ca.chain)]
    roots = {world.root.certificate.spki_sha256}
    lists = [world.root.parsed_crl()]
    assert refusal(lambda: world.judge(lists=[world.root.crl()])) == "x509.crl-missing"
    ok = verify_chain(
        chain, roots=roots, now=kit.NOW, revocation=Revocation(lists=lists, uncovered_leaf="issuer publishes none")
    )
    assert ok.unchecked == "issuer publishes none"
    no_lists = Revocation(lists=[], uncovered_leaf="issuer publishes none")
    assert refusal(lambda: verify_chain(chain, roots=roots, now=kit.NOW, revocation=no_lists)) == "x509.crl-missing"


def test_wrong_root(world: World) -> None:
    assert refusal(lambda: world.judge(roots={"0" * 64})) == "x509.root"


def test_root_that_is_pinned_but_did_not_sign(world: World) -> None:
    other = kit.root(name=world.root.name)
    ca = other.child("Kakoi test CA", name=world.ca.name)
    leaf = ca.leaf("leaf", key=world.key.public)
    chain = [leaf, ca.der, world.root.der]
    assert refusal(lambda: world.judge(chain=chain)) == "x509.signature"


def test_root_copy_with_broken_self_signature(world: World) -> None:
    bad = world.root.der[:-1] + bytes([world.root.der[-1] ^ 1])
    assert refusal(lambda: world.judge(chain=[world.leaf, world.ca.der, bad])) == "x509.signature"


@pytest.mark.parametrize("now", [kit.EPOCH - 1, kit.EPOCH + 2 * kit.YEAR + 1])
def test_window(world: World, now: int) -> None:
    assert refusal(lambda: world.judge(now=now)) == "x509.window"


@pytest.mark.parametrize("edge", [kit.EPOCH, kit.EPOCH + 2 * kit.YEAR])
def test_window_edges_are_inside(world: World, edge: int) -> None:
    window = (edge - 10, edge + 10)
    lists = [world.ca.crl(window=window), world.root.crl(window=window)]
    assert world.judge(now=edge, lists=lists).verified_at == edge


def test_expired_intermediate(world: World) -> None:
    ca = world.root.child("old CA", validity=(kit.EPOCH, kit.NOW - 1))
    leaf = ca.leaf("leaf", key=world.key.public)
    assert refusal(lambda: world.judge(chain=[leaf, *ca.chain], lists=[ca.crl(), world.root.crl()])) == "x509.window"


def test_leaf_used_as_ca(world: World) -> None:
    rogue = kit.Authority(
        key=world.key, name=parse_certificate(world.leaf).subject, der=world.leaf, above=world.ca.chain
    )
    leaf = rogue.leaf("rogue", key=mint.EcKey.generate().public)
    lists = [rogue.crl(), world.ca.crl(), world.root.crl()]
    assert refusal(lambda: world.judge(chain=[leaf, *rogue.chain], lists=lists)) == "x509.ca"


def test_ca_as_leaf(world: World) -> None:
    assert refusal(lambda: world.judge(chain=list(world.ca.chain), lists=[world.root.crl()])) == "x509.ca"


def test_path_length(world: World) -> None:
    deep = world.ca.child("one too many")
    leaf = deep.leaf("leaf", key=world.key.public)
    lists = [deep.crl(), world.ca.crl(), world.root.crl()]
    assert refusal(lambda: world.judge(chain=[leaf, *deep.chain], lists=lists)) == "x509.path-length"


def test_ca_that_may_not_sign_certificates(world: World) -> None:
    key = mint.EcKey.generate()
    extensions = [e for e in mint.ca_extensions(key.public, world.root.key.public, 0) if e[0] != mint.KEY_USAGE]
    for usage in ([], [(mint.KEY_USAGE, True, b"\x03\x02\x01\x02")]):
        ca = world.root.child("CA", key=key, extensions=[*extensions, *usage])
        chain = [ca.leaf("leaf", key=world.key.public), *ca.chain]
        with pytest.raises(Refused) as caught:
            world.judge(chain=chain, lists=[ca.crl(), world.root.crl()])
        assert caught.value.code == "x509.key-usage"


def test_leaf_that_may_not_sign(world: World) -> None:
    extensions = [(mint.KEY_USAGE, True, b"\x03\x02\x05\x20")]
    leaf = world.ca.leaf("leaf", key=world.key.public, extensions=extensions)
    assert refusal(lambda: world.judge(chain=[leaf, *world.ca.chain])) == "x509.key-usage"


def test_unknown_critical_extension(world: World) -> None:
    leaf = world.ca.leaf("leaf", key=world.key.public, more=(("1.2.3.4", True, b"\x05\x00"),))
    assert refusal(lambda: world.judge(chain=[leaf, *world.ca.chain])) == "x509.critical-extension"
    harmless = world.ca.leaf("leaf", key=world.key.public, more=(("1.2.3.4", False, b"\x05\x00"),))
    assert world.judge(chain=[harmless, *world.ca.chain]).leaf.extension("1.2.3.4") == b"\x05\x00"


def test_revoked_leaf_and_intermediate() -> None:
    for which in ("leaf", "intermediate"):
        world = World()
        if which == "leaf":
            world.ca.revoked.append(parse_certificate(world.leaf).serial)
        else:
            world.root.revoked.append(world.ca.certificate.serial)
        assert refusal(world.judge) == "x509.revoked"


def test_lists(world: World) -> None:
    ca, root = world.ca.crl(), world.root.crl()
    other = kit.root(name=world.ca.name).crl()
    late = world.ca.crl(window=(kit.NOW - 10, kit.NOW - 1))
    early = world.ca.crl(window=(kit.NOW + 1, kit.NOW + 10))
    stranger = kit.root("somebody else").crl()
    assert refusal(lambda: world.judge(lists=[ca])) == "x509.crl-missing"
    assert refusal(lambda: world.judge(lists=[root])) == "x509.crl-missing"
    assert refusal(lambda: world.judge(lists=[other, root])) == "x509.signature"
    assert refusal(lambda: world.judge(lists=[late, root])) == "x509.crl-window"
    assert refusal(lambda: world.judge(lists=[early, root])) == "x509.crl-window"
    assert refusal(lambda: world.judge(lists=[ca, root, stranger])) == "x509.crl-issuer"


def test_every_flipped_byte_of_the_chain_is_refused(world: World) -> None:
    chain = [world.leaf, *world.ca.chain]
    for which, good in enumerate(chain):
        for at in range(len(good)):
            bad = bytearray(good)
            bad[at] ^= 1
            with pytest.raises((Malformed, Refused)):
                world.judge(chain=[*chain[:which], bytes(bad), *chain[which + 1 :]])


def test_every_flipped_byte_of_a_list_is_refused(world: World) -> None:
    good, other = world.ca.crl(), world.root.crl()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        with pytest.raises((Malformed, Refused)):
            world.judge(lists=[bytes(bad), other])


def test_cut_and_extended_certificates(world: World) -> None:
    for size in range(0, len(world.leaf), 7):
        with pytest.raises(Malformed):
            parse_certificate(world.leaf[:size])
    with pytest.raises(Malformed):
        parse_certificate(world.leaf + b"\x00")


def test_pem_chain_is_exact(world: World) -> None:
    text = to_pem(world.leaf, *world.ca.chain)
    assert [c.der for c in parse_pem_chain(text, 3)] == [world.leaf, *world.ca.chain]
    for bad in (text + b"x", b" " + text, text.replace(b"\n-----END", b"\n\n ----END"), text[:-30], text + text, b""):
        with pytest.raises(Malformed):
            parse_pem_chain(bad, 3)
    for count in (2, 4):
        with pytest.raises(Malformed):
            parse_pem_chain(text, count)


@pytest.mark.parametrize("curve", ["P-256", "P-384", "P-521"])
def test_raw_ecdsa(curve: Curve) -> None:
    key = mint.EcKey.generate(curve)
    raw = key.sign_raw(b"message")
    again = ec_key(curve, key.public.point)
    again.verify_ecdsa_raw(raw, b"message", "a message")
    zeros = bytes(len(raw))
    for bad in (raw[:-1], raw + b"\0", zeros, raw[:-1] + bytes([raw[-1] ^ 1])):
        with pytest.raises(Refused):
            again.verify_ecdsa_raw(bad, b"message", "a message")
    with pytest.raises(Refused):
        again.verify_ecdsa_raw(raw, b"other", "a message")
    with pytest.raises(Refused):
        again.verify_rsa_pss(raw, b"message", "sha256", "a message")


@pytest.mark.parametrize("pss", [True, False])
def test_rsa_chain(pss: bool) -> None:
    root = kit.root(key=kit.RsaKey(pss=pss))
    leaf = root.leaf("leaf", key=mint.EcKey.generate("P-384").public, serial=0)
    verified = verify_chain(
        [parse_certificate(leaf), root.certificate],
        roots={root.certificate.spki_sha256},
        now=kit.NOW,
        revocation=Revocation(lists=[root.parsed_crl()]),
    )
    assert verified.leaf.serial == 0
    assert rsa_key(*root.certificate.public_key.rsa_numbers()).spki == root.certificate.public_key.spki


def test_keys_are_refused_early() -> None:
    with pytest.raises(Malformed):
        ec_key("P-256", bytes(64))
    with pytest.raises(Malformed):
        ec_key("P-256", bytes(63))
    with pytest.raises(Malformed):
        rsa_key(3233, 17)
    with pytest.raises(Malformed):
        from_spki(b"\x30\x00")


@given(st.binary(max_size=400))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for parse in (parse_certificate, parse_crl, from_spki, lambda d: parse_pem_chain(d, 3)):
        with pytest.raises(KakoiError):
            parse(data)


@given(st.integers(min_value=0, max_value=10**4), st.binary(min_size=1, max_size=3))
def test_any_mutation_gives_only_our_errors(at: int, new: bytes) -> None:
    world = _FIXED
    at %= len(world.leaf)
    bad = world.leaf[:at] + new + world.leaf[at + len(new) :]
    if bad != world.leaf:
        with pytest.raises(KakoiError):
            world.judge(chain=[bad, *world.ca.chain])


_FIXED = World()


@given(st.integers(min_value=-(2**70), max_value=2**70))
def test_der_integers_round_trip(number: int) -> None:
    assert der.integer(der.one(der.write_integer(number), der.INTEGER)) == number


@given(st.lists(st.integers(min_value=0, max_value=2**40), min_size=1, max_size=8))
def test_der_identifiers_round_trip(arcs: list[int]) -> None:
    dotted = ".".join(map(str, [1, 2, *arcs]))
    assert der.oid(der.one(der.write_oid(dotted), der.OID)) == dotted


def recorded() -> dict[bytes, str]:
    """Every certificate in the recorded evidence."""
    found: dict[bytes, str] = {}
    for path in sorted((SHARED / "evidence").rglob("*")):
        if path.is_dir() or "bad" in path.name:
            continue
        data = path.read_bytes()
        for text in re.findall(rb"-----BEGIN CERTIFICATE-----(.*?)-----END", data.replace(b"\\n", b"\n"), re.DOTALL):
            found.setdefault(base64.b64decode(text), path.name)
        if path.suffix == ".der" and data.startswith(b"\x30"):
            found.setdefault(data, path.name)
    return found


@pytest.mark.skipif(not (SHARED / "evidence").is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
def test_own_reading_agrees_with_the_library_on_recorded_certificates() -> None:
    checked = 0
    for data, where in recorded().items():
        ours = parse_certificate(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = reference.load_der_x509_certificate(data)
            assert ours.serial == theirs.serial_number, where
        _compare(ours, theirs, where)
        checked += 1
    assert checked > 50


def _compare(ours: Certificate, theirs: reference.Certificate, where: str) -> None:
    assert ours.signed == theirs.tbs_certificate_bytes, where
    assert ours.signature == theirs.signature, where
    assert ours.not_before == int(theirs.not_valid_before_utc.timestamp()), where
    assert ours.not_after == int(theirs.not_valid_after_utc.timestamp()), where
    assert der.write(der.SEQUENCE, ours.subject) == theirs.subject.public_bytes(), where
    assert der.write(der.SEQUENCE, ours.issuer) == theirs.issuer.public_bytes(), where
    spki = theirs.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert ours.public_key.spki == spki, where
    assert set(ours.extensions) == {e.oid.dotted_string for e in theirs.extensions}, where
    try:
        constraints = theirs.extensions.get_extension_for_class(reference.BasicConstraints).value
    except reference.ExtensionNotFound:
        assert not ours.is_ca
    else:
        assert (ours.is_ca, ours.path_length) == (constraints.ca, constraints.path_length), where


def test_sizes_are_limited_before_anything_is_read() -> None:
    with pytest.raises(Malformed, match="at most"):
        parse_certificate(bytes(17 * 1024))
    with pytest.raises(Malformed, match="at most"):
        parse_crl(bytes(5 * 1024 * 1024))
    with pytest.raises(Malformed, match="at most"):
        parse_pem_chain(bytes(200 * 1024), 3)
    chain = [_FIXED.root.certificate] * 17
    roots = {_FIXED.root.certificate.spki_sha256}
    with pytest.raises(Malformed):
        verify_chain(chain, roots=roots, now=kit.NOW, revocation=NoRevocation(reason="too long a chain"))
    with pytest.raises(Malformed):
        verify_chain(chain[:1], roots=roots, now=kit.NOW, revocation=NoRevocation(reason="no leaf"))
