"""TPM quotes: the signed selection is the only one that counts, and every structure is read to its last byte."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kakoi.attest.tpm import parse
from kakoi.attest.tpm.verify import ALL_PCRS, VerifiedQuote, verify
from kakoi.core.encoding import sha256
from kakoi.core.errors import KakoiError, Malformed
from kakoi.core.keys import PublicKey, from_spki
from kakoi.evidence.mint import EcKey
from kakoi.testing import attest_kit, azure_vendor
from kakoi.testing import azure_vendor_tpm as vendor
from kakoi.testing.x509_kit import RsaKey

RSA = azure_vendor.key()
EC = EcKey.generate()
NONCE = bytes(range(64))
FOLDER = Path(os.environ.get("KAKOI_SHARED", "../shared")) / "evidence"


def code(call: Callable[[], object]) -> str:
    with pytest.raises(KakoiError) as caught:
        call()
    return caught.value.code


def judge(
    tpm: vendor.Tpm,
    message: bytes,
    *,
    signature: bytes | None = None,
    key: PublicKey | None = None,
    values: Sequence[bytes] | None = None,
    selection: Sequence[int] | None = ALL_PCRS,
) -> VerifiedQuote:
    return verify(
        parse.parse_quote(message),
        parse.parse_signature(tpm.sign(message) if signature is None else signature),
        key or tpm.key.public,
        tpm.pcrs if values is None else values,
        selection=selection,
    )


@pytest.mark.parametrize("key", [RSA, EC])
def test_good(key: RsaKey | EcKey) -> None:
    tpm = vendor.Tpm(key=key)
    verified = judge(tpm, tpm.attest(NONCE))
    assert verified.pcrs == dict(enumerate(tpm.pcrs))
    assert verified.quote.extra_data == NONCE
    assert verified.quote.safe


def test_register_names_come_from_the_signed_selection() -> None:
    tpm = vendor.Tpm(key=EC)
    chosen = [tpm.pcrs[i] for i in (4, 7, 11)]
    message = tpm.attest(NONCE, selections=[vendor.select([11, 4, 7])], digest=sha256(*chosen))
    verified = judge(tpm, message, values=chosen, selection=None)
    assert list(verified.pcrs) == [4, 7, 11]
    assert code(lambda: judge(tpm, message, values=chosen[::-1], selection=None)) == "tpm.digest"
    assert code(lambda: judge(tpm, message, values=chosen, selection=(4, 7, 9))) == "tpm.selection"


def test_a_quote_over_several_selections_is_refused() -> None:
    """A resettable PCR moved to a wanted place: the digest of the list fits, the selection does not (CHECKS 3.7)."""
    tpm = vendor.Tpm(key=RSA)
    moved = [*tpm.pcrs[:4], tpm.pcrs[16], *tpm.pcrs[5:]]
    selections = [vendor.select(range(4)), vendor.select([16]), vendor.select(range(5, 24))]
    message = tpm.attest(NONCE, selections=selections, digest=sha256(*moved))
    assert code(lambda: judge(tpm, message, values=moved)) == "tpm.selection"
    assert code(lambda: judge(tpm, message, values=moved, selection=None)) == "tpm.selection"


SELECTIONS: dict[str, list[bytes]] = {
    "none": [],
    "empty": [vendor.select([])],
    "SHA-1": [vendor.select(range(24), bank=vendor.SHA1)],
    "SHA-384": [vendor.select(range(24), bank=vendor.SHA384)],
    "an empty second bank": [vendor.select(range(24)), vendor.select([], bank=vendor.SHA384)],
    "the same twice": [vendor.select(range(24))] * 2,
    "wider map": [vendor.select(range(24), width=4)],
    "narrower map": [vendor.select(range(16), width=2)],
    "without PCR 0": [vendor.select(range(1, 24))],
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_another_selection_is_refused(name: str) -> None:
    tpm = vendor.Tpm(key=EC)
    message = tpm.attest(NONCE, selections=SELECTIONS[name])
    assert code(lambda: judge(tpm, message)) == "tpm.selection"


FORMS: dict[str, Callable[[vendor.Tpm], bytes]] = {
    "magic": lambda tpm: tpm.attest(NONCE, magic=0xFF544348),
    "type certify": lambda tpm: tpm.attest(NONCE, kind=0x8017),
    "safe 2": lambda tpm: tpm.attest(NONCE, safe=2),
    "long nonce": lambda tpm: tpm.attest(bytes(67)),
    "17 banks": lambda tpm: tpm.attest(NONCE, selections=[vendor.select([1])] * 17),
    "map of 5 bytes": lambda tpm: tpm.attest(NONCE, selections=[vendor.select([1], width=5)]),
    "map of 0 bytes": lambda tpm: tpm.attest(NONCE, selections=[vendor.select([], width=0)]),
    "long digest": lambda tpm: tpm.attest(NONCE, digest=bytes(65)),
    "a byte more": lambda tpm: tpm.attest(NONCE) + b"\0",
}


@pytest.mark.parametrize("name", FORMS)
def test_malformed_quote(name: str) -> None:
    tpm = vendor.Tpm(key=EC)
    assert code(lambda: judge(tpm, FORMS[name](tpm))) == "evidence.malformed"


def test_values_and_keys() -> None:
    tpm = vendor.Tpm(key=RSA)
    message = tpm.attest(NONCE)
    assert code(lambda: judge(tpm, message, values=tpm.pcrs[:-1])) == "tpm.values"
    assert code(lambda: judge(tpm, message, values=[*tpm.pcrs, bytes(32)])) == "tpm.values"
    assert code(lambda: judge(tpm, message, values=[*tpm.pcrs[:-1], tpm.pcrs[-1] + b"\0"])) == "tpm.values"
    assert code(lambda: judge(tpm, message, values=[*tpm.pcrs[:-1], bytes(32)])) == "tpm.digest"
    assert code(lambda: judge(tpm, message, key=azure_vendor.key(1).public)) == "x509.signature"
    assert code(lambda: judge(tpm, message, key=EC.public)) == "tpm.scheme"
    assert code(lambda: judge(tpm, message, key=EcKey.generate("P-384").public)) == "tpm.scheme"
    weak = tpm.sign(message)[:2] + b"\0\x0c" + tpm.sign(message)[4:]
    assert code(lambda: judge(tpm, message, signature=weak)) == "tpm.scheme"


@pytest.mark.parametrize("key", [RSA, EC])
def test_every_flipped_bit_is_refused(key: RsaKey | EcKey) -> None:
    tpm = vendor.Tpm(key=key)
    message = tpm.attest(NONCE)
    signature = tpm.sign(message)
    for at, twin in attest_kit.flips(message):
        assert code(partial(judge, tpm, twin, signature=signature)), at
    for at, twin in attest_kit.flips(signature):
        assert code(partial(judge, tpm, message, signature=twin)), at
    for twin in attest_kit.cuts(message):
        assert code(partial(parse.parse_quote, twin)) == "evidence.malformed"
    for twin in attest_kit.cuts(signature):
        assert code(partial(parse.parse_signature, twin)) == "evidence.malformed"


@pytest.mark.parametrize("key", [RSA, EC])
def test_public_area(key: RsaKey | EcKey) -> None:
    data = vendor.Tpm(key=key).public()
    area = parse.parse_public(data)
    assert parse.check_attestation_key(area).spki == key.public.spki
    assert area.name == b"\0\x0b" + sha256(data)
    for twin in attest_kit.cuts(data):
        assert code(partial(parse.parse_public, twin)) == "evidence.malformed"


@pytest.mark.parametrize(
    "attributes",
    [vendor.AK_ATTRIBUTES ^ 1 << bit for bit in (1, 4, 5, 16, 17, 18)],
)
def test_a_key_that_signs_anything_is_no_attestation_key(attributes: int) -> None:
    area = parse.parse_public(vendor.Tpm(key=EC).public(attributes=attributes))
    assert code(lambda: parse.check_attestation_key(area)) == "tpm.key"


def test_only_the_verifier_makes_verified_quotes() -> None:
    with pytest.raises(TypeError):
        VerifiedQuote()  # type: ignore[call-arg]


@given(st.binary(max_size=400))
def test_any_bytes_give_only_our_errors(data: bytes) -> None:
    for read in (parse.parse_quote, parse.parse_signature, parse.parse_public):
        for start in (b"", b"\xff\x54\x43\x47\x80\x18", b"\0\x14\0\x0b", b"\0\1\0\x0b", b"\0\x23\0\x0b"):
            try:
                read(start + data)
            except Malformed:
                continue


@pytest.mark.skipif(not FOLDER.is_dir(), reason="recorded evidence is not here (KAKOI_SHARED)")
def test_recorded_selection_swap_is_refused() -> None:
    """The synthetic vector of vectors.json: three selections whose concatenation passes others' formula."""
    vector = json.loads((FOLDER / "azure/synthetic_neg_pcr_selection_swap.json").read_bytes())
    quote, pem = vector["tpm_quote"], vector["ak_pub_pem"].replace("PUBLIC KEY", "CERTIFICATE")
    from kakoi.testing.recorded import certificates

    message, signature = (bytes.fromhex(quote[name]) for name in ("message", "signature"))
    values = [bytes.fromhex(value) for value in quote["pcrs"]]
    key = from_spki(certificates(pem.encode())[0])
    wrapped = parse.parse_signature(b"\0\x14\0\x0b" + vendor.sized(signature))
    key.verify_rsa_pkcs1(wrapped.value, message, "sha256", "the quote is genuine")
    assert sha256(*values) == parse.parse_quote(message).pcr_digest
    judged = partial(verify, parse.parse_quote(message), wrapped, key, values)
    assert code(partial(judged, selection=ALL_PCRS)) == "tpm.selection"
    assert code(partial(judged, selection=None)) == "tpm.selection"
