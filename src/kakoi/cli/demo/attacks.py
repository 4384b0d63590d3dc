"""Six attacks that the demo really carries out, each with the means its attacker has. Every one must be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kakoi.attest.report import Evidence
from kakoi.attest.software.admit import with_software
from kakoi.cli.dataset import seal_file, upload_dataset
from kakoi.cli.demo.cast import SCHEMA, Cast, newest_manifest, other_version
from kakoi.cli.demo.data import HospitalFile
from kakoi.cli.demo.show import table_of
from kakoi.cli.demo.stage import Stage
from kakoi.cli.demo.voices import Voices
from kakoi.cli.ui import SystemClock
from kakoi.contract.approve import Agreement
from kakoi.contract.model import Contract, ContractData
from kakoi.contract.sign import seal
from kakoi.core.errors import Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.enclave.keeper.session import SessionKeys
from kakoi.net.answers import Claim
from kakoi.sdk.run import RunDenied, await_run, bindings, load_agreement, open_result, request_run
from kakoi.wire.messages import Challenge, RunRequest, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Who refused, by which rule, with which code."""

    who: str
    rule: str
    code: str


class NotRefusedError(Exception):
    """An attack went through. The demo ends with an error then."""


@dataclass(slots=True)
class Scene:
    """What the attacks happen in."""

    stage: Stage
    cast: Cast
    client: Voices
    contract: Contract
    files: list[HospitalFile]
    recorded: Session | None = None
    """A session of an honest run, as anybody who can read the hub has it."""

    def request(self, agreement: Agreement, analysis: str, **values: int) -> ObjectId:
        """The analyst asks for a run."""
        home, identity = self.cast.researcher, self.cast.analyses[analysis]
        return request_run(self.client, home, agreement, identity, bindings(values), SystemClock().now())

    def outcome(self, agreement: Agreement, run: ObjectId) -> Refusal:
        """Wait for a refusal of a run."""
        try:
            await_run(self.client, agreement, run, clock=SystemClock(), seconds=60, tell=lambda kind, who: None)
        except RunDenied as denied:
            return Refusal(who=denied.owner, rule=_rule(denied), code=denied.code)
        except Refused as refused:
            return Refusal(who="enclave", rule=refused.message, code=refused.code)
        raise NotRefusedError("the run gave a result")

    def claim(self, run: ObjectId) -> Claim:
        """Take the run with the operator's token, as a malicious operator can."""
        claim = self.client.claim(enclave="attacker", seconds=60, wait=10)
        if claim is None or claim.run != run:
            raise NotRefusedError("the attacker could not even take the run")
        return claim

    def challenges(self, run: ObjectId) -> tuple[ObjectId, ...]:
        """Wait for all owners' challenges."""
        after = 0
        found: set[ObjectId] = set()
        while len(found) < len(self.cast.hospitals):
            page = self.client.feed(after=after, kinds=(Challenge.KIND,), refs={"run": run}, wait=10)
            found |= {item.id for item in page.items}
            after = page.next
        return tuple(sorted(found))


def _rule(denied: RunDenied) -> str:
    failed = [f"{check.name}: {check.expected[:20]}… ≠ {check.got[:20]}…" for check in denied.denial.checks]
    return "; ".join(failed) or denied.denial.message


def changed_code(scene: Scene) -> Refusal:
    """The operator starts an enclave whose code differs by one byte, in a comment even."""
    changed = scene.cast.directory / "enclave" / "image-changed"
    shutil.copytree(scene.cast.image, changed)
    gate = next(
        path for path in sorted((changed / "kakoi" / "enclave" / "gate").glob("*.py")) if b"\n" in path.read_bytes()
    )
    data = bytearray(gate.read_bytes())
    data[4] ^= 0x20
    gate.write_bytes(bytes(data))
    scene.stage.start_enclave("enclave-changed", changed, scene.cast.platform)
    try:
        agreement = load_agreement(scene.client, scene.cast.contract)
        return scene.outcome(agreement, scene.request(agreement, "counts"))
    finally:
        scene.stage.stop("enclave-changed")


def no_evidence(scene: Scene) -> Refusal:
    """Somebody with the operator's token asks for the keys with a session that no hardware vouches for."""
    return _forged_session(scene, Evidence(platform="software", statement=b"trust me", parts=()))


def replayed_evidence(scene: Scene) -> Refusal:
    """The evidence of an honest run is presented again, with the attacker's own keys."""
    if scene.recorded is None:
        raise RuntimeError("no honest session was recorded")
    return _forged_session(scene, scene.recorded.evidence)


class _Recorded:
    """Plays a hardware that always gives the same answer."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def evidence(self, report_data: bytes) -> Evidence:
        return self._evidence


def _forged_session(scene: Scene, evidence: Evidence) -> Refusal:
    agreement = load_agreement(scene.client, scene.cast.contract)
    run = scene.request(agreement, "counts")
    claim = scene.claim(run)
    session = SessionKeys().session(
        _Recorded(evidence),
        run=run,
        attempt=claim.attempt,
        contract=agreement.id,
        challenges=scene.challenges(run),
        missing_layers=(),
    )
    scene.client.put_object(session, claim=claim.token)
    try:
        return scene.outcome(agreement, run)
    finally:
        scene.client.fail(claim)


def missing_signature(scene: Scene) -> Refusal:
    """A run under a contract that one hospital has not signed. The analyst's own client would refuse; this one asks anyway."""
    silent = scene.cast.hospitals[-1]
    draft = other_version(scene.contract, supersedes=scene.cast.contract)
    contract = scene.cast.publish(scene.client, draft, silent=silent)
    home = scene.cast.researcher
    request = RunRequest(
        contract=contract,
        analysis=scene.cast.analyses["counts"],
        parameters=(),
        party=PartyId(home.card.id),
        nonce=bytes(32),
        requested_at=SystemClock().now(),
    )
    envelope = seal(request, home.keys.signer())
    scene.client.put_object(envelope)
    return scene.outcome(load_agreement(scene.client, scene.cast.contract), envelope.payload_id)


def swapped_chunk(scene: Scene) -> Refusal:
    """The storage serves a chunk of the version before, encrypted under the same owner's care and just as long."""
    home, item = scene.cast.hospitals[0], scene.files[0]
    old = home.datasets()[newest_manifest(home)]
    seal_file(home, item.path, SCHEMA, quiet=True, replaces=old.id)
    new = home.datasets()[newest_manifest(home)]
    upload_dataset(scene.client, home, new)
    data = tuple(
        ContractData(manifest=new.id, owner=entry.owner, rules=entry.rules) if entry.manifest == old.id else entry
        for entry in scene.contract.data
    )
    draft = other_version(scene.contract, data=data, supersedes=scene.cast.contract)
    contract = scene.cast.publish(scene.client, draft)
    swap(scene.stage.directory / "hub", old.record.files[0].blob, new.record.files[0].blob)
    agreement = load_agreement(scene.client, contract)
    return scene.outcome(agreement, scene.request(agreement, "counts"))


def swap(hub: Path, source: str, target: str) -> None:
    """Put the bytes of one stored blob in the place of another, as whoever runs the storage can."""
    found = {name: [p for p in hub.rglob("*") if p.is_file() and p.name == name] for name in (source, target)}
    if not all(found.values()):
        raise NotRefusedError("the storage's files were not found")
    found[target][0].write_bytes(found[source][0].read_bytes())


def small_cell(scene: Scene) -> Refusal:
    """The analyst chooses a parameter that leaves hardly anybody in the table."""
    agreement = load_agreement(scene.client, scene.cast.contract)
    run = scene.request(agreement, "oldest", minimum_age=82)
    try:
        sealed = await_run(scene.client, agreement, run, clock=SystemClock(), seconds=60, tell=lambda kind, who: None)
    except Refused as refused:
        return Refusal(who="enclave", rule=refused.message, code=refused.code)
    opened = open_result(scene.client, scene.cast.researcher, sealed, verifiers=with_software)
    table = table_of(opened.verified, "oldest")
    numbers = [cell for column in table.columns if column.role != "group" for cell in column.cells]
    if any(cell is not None for cell in numbers) or not table.rows_withheld:
        raise NotRefusedError("a small cell left the enclave")
    return Refusal(who="enclave", rule="rows of too few people are not in the table", code="gate.suppressed")


Attack = Callable[[Scene], Refusal]
"""Carries out one attack; returns who refused, raises if nobody did."""

WITHOUT_ENCLAVE: tuple[tuple[str, Attack], ...] = (
    ("code", changed_code),
    ("no-evidence", no_evidence),
    ("replay", replayed_evidence),
    ("signature", missing_signature),
)
"""Attacks while no honest enclave runs: the attacker is in its place."""
WITH_ENCLAVE: tuple[tuple[str, Attack], ...] = (("chunk", swapped_chunk), ("cell", small_cell))
