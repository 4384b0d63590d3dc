"""Attacks on a result after it was made: on the passport, on the log it stands in, on what its digest gives away."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path

import pytest

from kakoi.attest.software.admit import with_software
from kakoi.contract.model import Analysis
from kakoi.contract.sign import open_signed, seal
from kakoi.core import crypto, dsse, encoding
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import sha256
from kakoi.core.errors import Fatal, Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from kakoi.sdk.run import open_result
from kakoi.sdk.verify import VerifiedResult, verify_result
from kakoi.tlog import checkpoint as checkpoints
from kakoi.wire.messages import (
    GateDecision,
    KeyGrant,
    LastRenewal,
    LeftOut,
    Passport,
    Predicate,
    Renewed,
    Session,
    Subject,
    SubjectDigest,
)
from kakoi.wire.result import OutputPayload, ResultFile
from support.deployment import Deployment, on_deployment
from support.hub_client import client_of
from support.leaves import altered_leaves

pytestmark = on_deployment


@pytest.fixture(scope="module")
def file(deployment: Deployment) -> bytes:
    """A real ``result.kakoi``."""
    return deployment.honest.opened.file


def verified(data: bytes) -> VerifiedResult:
    return verify_result(data, verifiers=with_software)


def refusal(data: bytes) -> str:
    """The code with which ``verify_result`` refuses. Any other error than ours, or none, fails the test."""
    with pytest.raises((Refused, Malformed)) as caught:
        verified(data)
    return caught.value.code


# -- T11: altered fields


@pytest.mark.slow
def test_every_field_altered_is_caught(file: bytes) -> None:
    """T11: each leaf of the whole structure in turn, also inside envelopes' payloads, the output and the log's proof."""
    verified(file)
    codes: Counter[str] = Counter()
    paths: set[str] = set()
    for path, changed in altered_leaves(file):
        assert changed != file, path
        try:
            codes[refusal(changed)] += 1
        except pytest.fail.Exception:
            raise AssertionError(f"accepted with another {path}") from None
        paths.add(path)
    print(f"{len(paths)} leaves altered, each refused: {dict(codes)}")
    assert len(paths) == codes.total() > 1000
    for part in (
        ".passport.payload/.predicate.bundle.contract.payload/.expires",
        ".passport.payload/.predicate.session.payload/.evidence.statement",
        ".passport.payload/.predicate.grants[0].payload/.verdict.claims.debug",
        ".passport.payload/.subject[0].digest.sha256",
        ".output/.released/.outputs[0].columns[0].cells[0]",
        ".log/1",
    ):
        assert part in paths, "the walk does not reach what it should"
    assert codes["signature.invalid"] > 900, "what one session signed is caught by its signature"
    assert {"passport.output", "log.inclusion"} <= set(codes)


def test_parts_left_out_doubled_or_exchanged_are_caught(file: bytes) -> None:
    """T11: without altering a leaf: lists are cut, lengthened and turned round, members left out and added."""
    value = encoding.loads(file)
    passport = encoding.loads(encoding.unb64(value["passport"]["payload"]))
    tried = 0
    for changed in _reshaped(passport):
        payload = encoding.b64(encoding.dumps(changed))
        bad = encoding.dumps({**value, "passport": {**value["passport"], "payload": payload}})
        assert refusal(bad)
        tried += 1
    for changed in _reshaped(value):
        assert refusal(encoding.dumps(changed))
        tried += 1
    assert tried > 60


def _reshaped(value: encoding.Json) -> Iterator[encoding.Json]:
    """The value with one list or object in it shortened, lengthened or reordered."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: changed} for changed in _reshaped(item))
        yield {**value, "more": None}
    elif isinstance(value, list):
        if value:
            yield value[1:]
            yield [*value, value[0]]
        if len(value) > 1:
            yield value[::-1]
        for number, item in enumerate(value):
            yield from ([*value[:number], changed, *value[number + 1 :]] for changed in _reshaped(item))


def test_bytes_cut_or_appended_are_caught(file: bytes) -> None:
    """T11: the file has one spelling."""
    for bad in (file[:-1], file + b"\n", b" " + file, file.replace(b'":"', b'": "', 1), b"", file[: len(file) // 2]):
        assert refusal(bad).startswith(("encoding.", "record."))


# -- T11: the attacker signs with a session key of its own making


class Thief:
    """Session keys that no hardware vouches for."""

    def __init__(self) -> None:
        self.signing = SigningKey(secrets.token_bytes(crypto.SIGNING_SECRET))
        self.sealing = SealingKey(secrets.token_bytes(crypto.SEALING_SECRET))

    def passport(self, passport: Passport) -> Envelope:
        """The passport, signed as if by the session."""
        return dsse.sign(passport.encode(), self.signing, payload_type=dsse.IN_TOTO_TYPE)

    def session(self, session: Session, **changes: object) -> Envelope:
        """The session with the thief's keys, signed by itself, as sessions are."""
        key = self.signing.verifying_key
        mine = replace(
            session, signing_ed25519=key.ed25519, signing_mldsa65=key.mldsa65, sealing=self.sealing.sealing_public
        )
        return seal(replace(mine, **changes), self.signing)  # type: ignore[arg-type]


def parts_of(file: bytes) -> tuple[ResultFile, Passport, Predicate]:
    whole = ResultFile.decode(file)
    passport = Passport.decode(whole.passport.payload)
    return whole, passport, passport.predicate


def test_foreign_session_key_on_the_real_session(file: bytes) -> None:
    """T11: the passport is signed again, altered or not, but the session in it names its own key."""
    whole, passport, predicate = parts_of(file)
    thief = Thief()
    for changed in (predicate, replace(predicate, notice="All is well."), replace(predicate, gate=())):
        signed = thief.passport(replace(passport, predicate=changed))
        assert refusal(replace(whole, passport=signed).encode()) == "signature.signer"


def other_output(whole: ResultFile) -> bytes:
    """The output with another number in it."""
    output = OutputPayload.decode(whole.output)
    return replace(output, released=output.released.replace(b'"28"', b'"29"')).encode()


def test_own_session_under_an_altered_passport(file: bytes) -> None:
    """T11: the thief's session takes the real one's place, with the real evidence, and signs what it likes."""
    whole, passport, predicate = parts_of(file)
    thief, session = Thief(), Session.decode(predicate.session.payload)
    output = other_output(whole)
    assert output != whole.output
    mine = replace(
        passport,
        predicate=replace(predicate, session=thief.session(session)),
        subject=(Subject(name="output", digest=SubjectDigest(sha256=ObjectId(sha256(output).hex()))),),
    )
    forged = replace(whole, passport=thief.passport(mine), output=output).encode()
    assert refusal(forged) == "passport.contradiction", "the owners' grants name the session they were given to"


def test_every_part_of_the_predicate_under_an_own_session(file: bytes) -> None:
    """T11: with its own session the thief can sign any predicate; each part that it changes besides is refused too."""
    whole, passport, predicate = parts_of(file)
    thief, session = Thief(), Session.decode(predicate.session.payload)
    own = replace(predicate, session=thief.session(session))
    changes: dict[str, list[object]] = {
        "run": ["0" * 64],
        "contract": ["0" * 64],
        "request": [predicate.bundle.contract],
        "bundle": [replace(predicate.bundle, approvals=predicate.bundle.approvals[1:])],
        "challenges": [predicate.challenges[1:], (*predicate.challenges, predicate.challenges[0])],
        "session": [
            thief.session(session, attempt=2),
            thief.session(session, challenges=session.challenges[1:]),
            thief.session(session, run="0" * 64),
            thief.session(session, missing_layers=("seccomp",)),
        ],
        "grants": [
            predicate.grants[1:],
            predicate.grants[::-1],
            tuple(thief_grant(thief, grant, own.session.payload_id) for grant in predicate.grants),
        ],
        "renewals": [(Renewed(renewal=1, evidence=ObjectId("0" * 64), leases=ObjectId("0" * 64)),)],
        "last_renewal": [
            LastRenewal(challenges=predicate.challenges, evidence=own.session, leases=predicate.grants),
        ],
        "opt_outs": [(LeftOut(manifest=ObjectId("0" * 64), people_at_least=0),)],
        "release_request": [predicate.session, predicate.release_request],
        "releases": [predicate.releases[1:], predicate.releases, predicate.grants],
        "gate": [(), (GateDecision(output="counts", rule="none", action="released"),)],
        "missing_layers": [("seccomp",)],
        "protected_by_hardware": [True],
        "notice": [""],
    }
    assert set(changes) == {item.name for item in fields(Predicate)}
    for name, values in changes.items():
        for value in values:
            changed = replace(own, **{name: value})  # type: ignore[arg-type]
            signed = thief.passport(replace(passport, predicate=changed))
            assert refusal(replace(whole, passport=signed).encode()), name


def thief_grant(thief: Thief, grant: Envelope, session: ObjectId) -> Envelope:
    """A grant to the thief's session, with the thief's signature under it."""
    return seal(replace(KeyGrant.decode(grant.payload), session=session), thief.signing)


def test_passport_of_another_run(deployment: Deployment, file: bytes) -> None:
    """T11: output, passport and log proof of two honest runs are exchanged for one another."""
    whole, other = ResultFile.decode(file), ResultFile.decode(deployment.second.opened.file)
    assert refusal(replace(whole, output=other.output).encode()) == "passport.output"
    assert refusal(replace(whole, passport=other.passport).encode()) == "passport.output"
    assert refusal(replace(whole, log=other.log).encode()) == "log.inclusion"
    mixed = replace(whole, passport=other.passport, output=other.output)
    assert refusal(mixed.encode()) == "log.inclusion"


# -- T21: guessing the output


def test_output_cannot_be_guessed_from_its_digest(deployment: Deployment, file: bytes) -> None:
    """T21: who knows the right numbers cannot confirm it: salts differ, are secret, and lie nowhere on the hub."""
    whole, passport, predicate = parts_of(file)
    output = OutputPayload.decode(whole.output)
    digest = passport.subject[0].digest.sha256
    other = OutputPayload.decode(ResultFile.decode(deployment.second.opened.file).output)
    assert other.released == output.released, "both runs computed the same numbers"
    assert other.salt != output.salt
    assert len(output.salt) == 32
    # The hub knows run and contract, and guesses the numbers; every salt it has ever seen is wrong.
    stored = everything_on(deployment.hub_directory)
    for salt in (bytes(32), other.salt, sha256(output.released), predicate.run.encode()[:32]):
        guess = OutputPayload(run=predicate.run, contract=predicate.contract, salt=salt, released=output.released)
        assert sha256(guess.encode()).hex() != digest
    assert sha256(replace(output, salt=output.salt).encode()).hex() == digest, "with the salt the guess is confirmed"
    for form in (output.salt, output.salt.hex().encode(), encoding.b64(output.salt).rstrip("=").encode()):
        assert form not in stored
    for form in (output.released, encoding.b64(output.released)[:-4].encode()):
        assert form not in stored, "nor does the output itself lie there"
    assert digest.encode() in stored, "the digest does: this search finds what is there"


def everything_on(hub: Path) -> bytes:
    """All bytes of the hub's directory, and all payloads in its database decoded."""
    with closing(sqlite3.connect(f"file:{hub / 'hub.sqlite'}?mode=ro", uri=True)) as database:
        rows = database.execute("select envelope from objects").fetchall()
    payloads = [Envelope.decode(bytes(row[0])).payload for row in rows]
    return b"\n".join([*payloads, *(path.read_bytes() for path in hub.rglob("*") if path.is_file())])


# -- T12: the log


def copy_of(hub: Path, target: Path) -> Path:
    """The hub's directory as a backup would have it at this moment: whole, with checkpoint and key."""
    target.mkdir()
    with (
        closing(sqlite3.connect(hub / "hub.sqlite")) as source,
        closing(sqlite3.connect(target / "hub.sqlite")) as to,
    ):
        source.backup(to)
    for name in ("checkpoint", "log-key.json", "operator.token"):
        shutil.copy(hub / name, target / name)
    shutil.copytree(hub / "blobs", target / "blobs")
    return target


def grow(client: HubClient, home: PartyHome, analysis: Analysis, name: str) -> None:
    """One more entry in the log: an analysis of another name."""
    client.put_object(seal(replace(analysis, name=name), home.keys.signer()))


def test_log_rolled_back(deployment: Deployment, tmp_path: Path) -> None:
    """T12: the operator puts the hub's directory back from a copy: shorter, then of equal length, then longer."""
    honest, home = deployment.honest, deployment.cast.researcher
    shutil.copytree(home.path, tmp_path / "analyst")
    mine = PartyHome.load(tmp_path / "analyst", Unlock(key_file=home.path / "key"))
    (remembered,) = mine.path.glob("log.*.checkpoint")
    log = deployment.contract.log
    old = copy_of(deployment.hub_directory, tmp_path / "old")
    size = checkpoints.verify(deployment.client.log_checkpoint(), log).size
    analysis = next(iter(deployment.agreement.analyses.values())).record

    def look(client: HubClient) -> int:
        """The analyst opens the result once more, and with it the log; returns the size it now remembers."""
        opened = open_result(client, mine, honest.sealed, verifiers=with_software)
        assert opened.verified.passport.run == honest.run
        return checkpoints.verify(remembered.read_bytes(), log).size

    analysis = open_signed(Analysis, deployment.client.get_object(deployment.cast.analyses["counts"]), home.card).record
    for name in ("seen_a", "seen_b"):
        grow(deployment.client, home, analysis, name)
    assert look(deployment.client) == size + 2
    before = remembered.read_bytes()
    settings = Settings(directory=old, port=0, operator_token_file=old / "operator.token")
    with running(settings) as server, client_of(server) as rolled_back:
        for step, code in enumerate(("log.rollback", "log.rollback", "log.fork", "log.inconsistent")):
            if step:
                grow(rolled_back, home, analysis, f"forked_{step}")
            with pytest.raises(Refused) as caught:
                look(rolled_back)
            assert caught.value.code == code, step
            assert "keep both checkpoints" in caught.value.hint
            assert remembered.read_bytes() == before, "what was seen stays remembered"
    assert look(deployment.client) == size + 2, "the honest log still holds"


def test_hub_does_not_start_on_a_database_older_than_its_checkpoint(deployment: Deployment, tmp_path: Path) -> None:
    """T12: only the database is put back; the honest program notices at once and signs no second history."""
    old = copy_of(deployment.hub_directory, tmp_path / "old")
    home = deployment.cast.researcher
    analysis = open_signed(Analysis, deployment.client.get_object(deployment.cast.analyses["counts"]), home.card).record
    grow(deployment.client, home, analysis, "after_the_backup")
    deployment.client.log_checkpoint()
    shutil.copy(deployment.hub_directory / "checkpoint", old / "checkpoint")
    settings = Settings(directory=old, port=0, operator_token_file=old / "operator.token")
    with pytest.raises(Fatal) as caught, running(settings):
        pass
    assert caught.value.code == "log.rolled-back"
