"""A whole result whose every signer's key the test holds: the session's, the parties', the log's.

``Resigner.sign_again`` takes a passport in which one leaf was altered and signs every envelope around that leaf anew, with the
keys it is given; then it puts the passport into a log of its own. What still refuses it is a check behind the signatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kakoi.attest.registry import judge
from kakoi.attest.software.admit import with_software
from kakoi.attest.software.verify import reference_policy
from kakoi.contract.approve import Agreement
from kakoi.contract.sign import seal
from kakoi.core import crypto, dsse, encoding
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import Json, sha256
from kakoi.core.ids import ObjectId
from kakoi.core.records import from_value, to_value
from kakoi.evidence import software
from kakoi.testing.world import NOW, TestParty, World, seeded
from kakoi.tlog import checkpoint
from kakoi.tlog.leaf import PASSPORT_KIND, leaf_hash
from kakoi.tlog.proof import LogProof
from kakoi.wire.messages import (
    Challenge,
    GateDecision,
    GrantedKey,
    GrantedList,
    KeyGrant,
    LeftOut,
    Passport,
    Predicate,
    Release,
    ReleaseRequest,
    Session,
    Subject,
    SubjectDigest,
    grant_info,
    report_data,
)
from kakoi.wire.released import Released, ReleasedColumn, ReleasedTable
from kakoi.wire.result import OutputPayload, ResultFile

SESSION: Final = ".passport"
"""Where the session's own envelope around everything is."""
_MRENCLAVE: Final = bytes.fromhex("ab" * 32)


@dataclass
class Whole:
    """One owner, one analyst, one session on the software platform: a genuine result."""

    directory: Path
    world: World = field(default_factory=World)
    signing: SigningKey = field(default_factory=lambda: SigningKey(seeded("session/signing", crypto.SIGNING_SECRET)))
    sealing: SealingKey = field(default_factory=lambda: SealingKey(seeded("session/sealing", crypto.SEALING_SECRET)))

    epsilon: str = "none"
    """The noise that the owner demands."""
    asked: tuple[str, ObjectId | None] = ("none", None)
    """The noise that the session says it added."""
    noised: tuple[str, ...] = ()
    """Rules of noise that the gate says it applied."""

    def __post_init__(self) -> None:
        software.create(self.directory)
        self.platform = software.SoftwarePlatform.load(self.directory)
        entry = reference_policy(mrenclave=_MRENCLAVE.hex(), root=self.platform.root_spki_sha256)
        self.world.owners = self.world.owners[:1]
        budget = "none" if self.epsilon == "none" else "10"
        self.world.change_contract = lambda c: replace(
            c,
            platforms=replace(c.platforms, accepted=(entry,)),
            data=tuple(
                replace(d, rules=replace(d.rules, epsilon_per_run=self.epsilon, epsilon_budget=budget)) for d in c.data
            ),
        )
        self.agreement: Agreement = self.world.agreement()
        self.request = self.world.request(self.agreement)
        self.owner: TestParty = self.world.owners[0]

    @property
    def run(self) -> ObjectId:
        """Id of the run."""
        return self.request.payload_id

    def file(self, *, lists: tuple[GrantedList, ...] = (), left_out: tuple[LeftOut, ...] = ()) -> ResultFile:
        """The result as its recipient keeps it. ``lists``: opt-outs that the owner granted; ``left_out``: what the passport says of them."""
        challenge = seal(self._challenge(), self.owner.signing)
        session = self._session((challenge.payload_id,))
        gate = (
            GateDecision(output="counts", rule="minimum-cell", action="suppressed-cells"),
            *(GateDecision(output="counts", rule=rule, action="noised") for rule in self.noised),
        )
        output = OutputPayload(
            run=self.run, contract=self.agreement.id, salt=seeded("salt", 32), released=_released(gate).encode()
        ).encode()
        asked = self._asked(session)
        predicate = Predicate(
            run=self.run,
            contract=self.agreement.id,
            request=self.request,
            bundle=self.agreement.bundle,
            challenges=(challenge,),
            session=session,
            grants=(self._grant(session, lists),),
            renewals=(),
            last_renewal=None,
            opt_outs=left_out,
            release_request=asked,
            releases=(self._release(session, asked),),
            gate=gate,
            missing_layers=(),
            protected_by_hardware=False,
            notice="NOT PROTECTED BY HARDWARE",
        )
        subject = (Subject(name="output", digest=SubjectDigest(sha256=ObjectId(sha256(output).hex()))),)
        passport = Passport(
            _type="https://in-toto.io/Statement/v1",
            predicateType="urn:kakoi:passport:v1",
            subject=subject,
            predicate=predicate,
        )
        signed = dsse.sign(passport.encode(), self.signing, payload_type=dsse.IN_TOTO_TYPE)
        return ResultFile(passport=signed, output=output, log=self.log(signed.payload_id))

    def _challenge(self) -> Challenge:
        return Challenge(
            run=self.run,
            attempt=1,
            renewal=0,
            contract=self.agreement.id,
            owner=self.owner.id,
            nonce=seeded("nonce", 32),
            issued_at=NOW,
        )

    def _session(self, challenges: tuple[ObjectId, ...]) -> Envelope:
        public = self.signing.verifying_key
        common: dict[str, Any] = {
            "run": self.run,
            "attempt": 1,
            "contract": self.agreement.id,
            "challenges": challenges,
            "sealing": self.sealing.sealing_public,
            "missing_layers": (),
        }
        bound = report_data(signing=public, **common)
        evidence = self.platform.quote(bound, _MRENCLAVE)
        record = Session(signing_ed25519=public.ed25519, signing_mldsa65=public.mldsa65, evidence=evidence, **common)
        return seal(record, self.signing)

    def _grant(self, session: Envelope, lists: tuple[GrantedList, ...]) -> Envelope:
        record, collateral = Session.decode(session.payload), self.platform.collateral(NOW)
        policy = self.agreement.contract.platforms
        verdict = judge(
            record.evidence,
            collateral,
            policy,
            report_data=record.report_data,
            now=NOW,
            verifiers=with_software(policy),
        )
        (entry,) = self.agreement.data_of(self.owner.id)
        names = {"run": self.run, "attempt": 1, "contract": self.agreement.id, "session": session.payload_id}
        info = grant_info(owner=self.owner.id, manifest=entry.manifest, **names)  # type: ignore[arg-type]
        sealed = crypto.seal(self.world.data_key(self.owner), record.sealing, info=info)
        grant = KeyGrant(
            owner=self.owner.id,
            keys=(GrantedKey(manifest=entry.manifest, sealed=sealed),),
            opt_outs=lists,
            verdict=verdict,
            collateral=collateral,
            issued_at=NOW,
            lease_until=NOW + 200,
            **names,  # type: ignore[arg-type]
        )
        return seal(grant, self.owner.signing)

    def _asked(self, session: Envelope) -> Envelope:
        record = ReleaseRequest(
            run=self.run,
            attempt=1,
            contract=self.agreement.id,
            session=session.payload_id,
            cohorts=seeded("cohorts", 4096),
            output_kilobytes=1,
            epsilon=self.asked[0],
            noise=self.asked[1],
        )
        return seal(record, self.signing)

    def _release(self, session: Envelope, asked: Envelope) -> Envelope:
        record = Release(
            run=self.run,
            attempt=1,
            contract=self.agreement.id,
            session=session.payload_id,
            owner=self.owner.id,
            request=asked.payload_id,
            earlier=ObjectId(sha256(b"earlier").hex()),
            position=1,
            head=ObjectId(sha256(b"head").hex()),
            released_at=NOW,
        )
        return seal(record, self.owner.signing)

    def log(self, passport: ObjectId) -> bytes:
        """A log of this one entry, by the contract's log key."""
        root = leaf_hash(PASSPORT_KIND, passport)
        note = checkpoint.sign(origin="log.test", size=1, root=root, secret=seeded("log", 32))
        return LogProof(index=0, hashes=(), checkpoint=note).encode()

    def signers(self) -> dict[str, SigningKey]:
        """Who signed the envelope at each path of a result file."""
        inside = f"{SESSION}.payload/.predicate"
        parties = (*self.world.owners, self.world.analyst)
        found = {
            SESSION: self.signing,
            f"{inside}.session": self.signing,
            f"{inside}.request": self.world.analyst.signing,
            f"{inside}.challenges[0]": self.owner.signing,
            f"{inside}.grants[0]": self.owner.signing,
            f"{inside}.release_request": self.signing,
            f"{inside}.releases[0]": self.owner.signing,
            f"{inside}.bundle.contract": self.world.analyst.signing,
            f"{inside}.bundle.analyses[0]": self.world.analyst.signing,
            f"{inside}.bundle.manifests[0]": self.owner.signing,
        }
        for number, party in enumerate(parties):
            found[f"{inside}.bundle.cards[{number}]"] = party.signing
            found[f"{inside}.bundle.approvals[{number}]"] = party.signing
        return found


def _released(gate: tuple[GateDecision, ...]) -> Released:
    sex = ReleasedColumn(name="sex", role="group", cells=("1", "2"), held_back=())
    people = ReleasedColumn(name="people", role="count", cells=("28", None), held_back=(1,))
    table = ReleasedTable(name="counts", columns=(sex, people), margins=(), rows_withheld=False)
    return Released(outputs=(table,), decisions=gate)


class Resigner:
    """Signs altered results again."""

    def __init__(self, whole: Whole, keys: Mapping[str, SigningKey]) -> None:
        self._whole, self._keys = whole, keys
        self._known: dict[str, Json] = {}
        self._remember(to_value(whole.file()), "")

    def _remember(self, value: Json, path: str) -> None:
        """The envelopes of the genuine result, by path."""
        for where, item in _children(value, path):
            if path in self._keys and where.endswith(".payload") and isinstance(item, str):
                self._known[path] = item
                self._remember(encoding.loads(encoding.unb64(item), limit=len(item)), where + "/")
            else:
                self._remember(item, where)

    def sign_again(self, data: bytes) -> bytes:
        """The file with every changed envelope signed by its own signer, and the passport in a log again."""
        value = self._again(encoding.loads(data, limit=len(data)), "")
        file = from_value(ResultFile, value, "file")
        return replace(file, log=self._whole.log(file.passport.payload_id)).encode()

    def _again(self, value: Json, path: str) -> Json:
        if isinstance(value, list):
            return [self._again(item, where) for where, item in _children(value, path)]
        if not isinstance(value, dict):
            return value
        if path not in self._keys:
            return {key: self._again(item, f"{path}.{key}") for key, item in value.items()}
        inner = self._again(encoding.loads(encoding.unb64(value["payload"]), limit=2**26), f"{path}.payload/")
        payload = encoding.dumps(inner, limit=2**26)
        if encoding.b64(payload) == self._known[path] and value["payloadType"] in (
            dsse.PAYLOAD_TYPE,
            dsse.IN_TOTO_TYPE,
        ):
            return value
        return to_value(dsse.sign(payload, self._keys[path], payload_type=value["payloadType"]))


def _children(value: Json, path: str) -> list[tuple[str, Json]]:
    if isinstance(value, dict):
        return [(f"{path}.{key}", item) for key, item in value.items()]
    if isinstance(value, list):
        return [(f"{path}[{number}]", item) for number, item in enumerate(value)]
    return []
