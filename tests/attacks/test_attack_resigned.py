"""T11 behind the signatures: every leaf of a passport altered, and signed again by whoever signed it before.

``test_attack_passport`` shows that nobody alters a field without the keys. Here the attacker has them: first the session's, that
is, the enclave is broken; then everybody's at once, and the log's. A field is either caught by another check, or it is in
``OWN_WORD``, with the reason why only its signer can say it. LIMITATIONS.md says the same to readers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.core import dsse
from kakoi.core.encoding import sha256
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.sdk.verify import verify_result
from kakoi.wire.messages import Passport, SubjectDigest
from kakoi.wire.result import OutputPayload, ResultFile
from support.leaves import altered_leaves
from support.resigned import SESSION, Resigner, Whole

INSIDE = f"{SESSION}.payload/.predicate"
OWN_WORD: dict[str, str] = {
    r"\.notice": "the session's: a sentence for people who open the file by hand; our programs show their own instead",
    r"\.grants\[0\]\.payload/\.keys\[0\]\.sealed": "the owner's: which ciphertext it sent; only the session could open it",
    r"\.grants\[0\]\.payload/\.(issued_at|lease_until)": "the owner's: its own clock, as long as it fits the dates",
    r"\.releases\[0\]\.payload/\.(earlier|position|head|released_at)": "the owner's: its ledger and its own clock",
    r"\.bundle\.approvals\[\d\]\.payload/\.approved_at": "the party's: when it agreed",
}
"""Fields that rest on their signer's word alone, below the predicate."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole") / "platform")


def outcome(data: bytes) -> str:
    """The code of the refusal; empty if the file is accepted."""
    try:
        verify_result(data, verifiers=with_software)
    except (Refused, Malformed) as error:
        return error.code
    return ""


def leaves(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Altered leaves of the passport, but for signatures: those are made again."""
    for path, changed in altered_leaves(data):
        if path.startswith(SESSION) and ".signatures[" not in path:
            yield path, changed


def resigned(whole: Whole, resigner: Resigner) -> dict[str, str]:
    """Path of each altered leaf → what became of it."""
    found: dict[str, str] = {}
    for path, changed in leaves(whole.file().encode()):
        try:
            found[path] = outcome(resigner.sign_again(changed))
        except (Malformed, Refused) as error:
            found[path] = error.code
    return found


def expected(path: str) -> bool:
    return any(re.fullmatch(re.escape(INSIDE) + pattern, path) for pattern in OWN_WORD)


def test_the_genuine_result_is_accepted_and_signed_again_too(whole: Whole) -> None:
    file = whole.file().encode()
    assert outcome(file) == ""
    assert outcome(Resigner(whole, whole.signers()).sign_again(file)) == ""


@pytest.mark.slow
def test_a_broken_enclave_alters_the_passport_it_signs(whole: Whole) -> None:
    """Only the session's envelopes are signed again: what others signed is caught there, the rest by what it must agree with."""
    signers = {path: key for path, key in whole.signers().items() if path in (SESSION, f"{INSIDE}.session")}
    found = resigned(whole, Resigner(whole, signers))
    assert {path for path, code in found.items() if not code} == {f"{INSIDE}.notice"}
    codes = Counter(found.values())
    print(f"{len(found)} leaves, signed again by the session: {dict(codes)}")
    assert codes["passport.contradiction"] > 5


@pytest.mark.slow
def test_everybody_signs_again(whole: Whole) -> None:
    """No signature refuses any more. Everything but the fields that are their signer's own word is caught by another check."""
    found = resigned(whole, Resigner(whole, whole.signers()))
    accepted = {path for path, code in found.items() if not code}
    assert not {path for path in accepted if not expected(path)}
    for pattern in OWN_WORD:
        assert any(re.fullmatch(re.escape(INSIDE) + pattern, path) for path in accepted), pattern
    codes = Counter(code for code in found.values() if code)
    print(f"{len(found)} leaves, signed again by everybody: {dict(codes)}; accepted: {sorted(accepted)}")
    assert len(found) > 300
    assert codes["signature.invalid"] == 0, "no signature caught anything: the checks behind them did"


def test_a_broken_enclave_says_any_number(whole: Whole) -> None:
    """The limit of every attested computation: what the measured code computed is its own word, and nobody else's."""
    file = whole.file()
    passport, output = Passport.decode(file.passport.payload), OutputPayload.decode(file.output)
    other = OutputPayload(
        run=output.run,
        contract=output.contract,
        salt=output.salt,
        released=output.released.replace(b'"28"', b'"29"'),
    ).encode()
    forged = ResultFile(passport=file.passport, output=other, log=file.log)
    assert outcome(forged.encode()) == "passport.output", "without its key not even that"
    altered = _with_subject(whole, passport, other, file)
    assert outcome(altered.encode()) == ""


def _with_subject(whole: Whole, passport: Passport, output: bytes, file: ResultFile) -> ResultFile:
    (subject,) = passport.subject
    mine = replace(subject, digest=SubjectDigest(sha256=ObjectId(sha256(output).hex())))
    signed = dsse.sign(replace(passport, subject=(mine,)).encode(), whole.signing, payload_type=dsse.IN_TOTO_TYPE)
    return replace(file, passport=signed, output=output, log=whole.log(signed.payload_id))
