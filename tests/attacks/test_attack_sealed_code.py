"""Attacks on sealed code: swap it, run it without its owner's yes, vouch for it falsely, read it, or have it carry its secret out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from kakoi.broker.ledger import Ledger
from kakoi.contract.approve import Agreement, agree
from kakoi.contract.code import CodeReview
from kakoi.contract.model import Contract
from kakoi.contract.sign import open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey
from kakoi.core.errors import KakoiError, Refused
from kakoi.core.ids import parse_id
from kakoi.enclave import machine
from kakoi.enclave.gate.model import Released, ReleasedTable
from kakoi.enclave.keeper.data import open_file, open_keys, sealed_object
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.net.bundle import fetch_bundle
from kakoi.testing.memory_hub import MemoryHub
from kakoi.testing.world import NOW, TestParty, seeded
from kakoi.wire.enclave_run import Compute, MessageArrived
from kakoi.wire.messages import Challenge, Denial, GrantedKey, KeyGrant, RunRequest, grant_info
from kakoi.wire.request import open_request
from support.broker_setting import Setting
from support.clinic import shared_engine
from support.conversation import Conversation
from support.vendor import MARK, MODEL, SOURCE, Storage, Vendor, VendorWorld, make_vendor, vendor_setting
from unit.engines.parts import parquet, sealed


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return make_vendor(Path(tmp_path_factory.mktemp("vendor")) / "v")


@pytest.fixture(scope="module")
def world(vendor: Vendor) -> VendorWorld:
    return VendorWorld(
        vendor=vendor, change_sealed=lambda contract: replace(contract, accepted_weaknesses=machine.missing())
    )


@pytest.fixture(scope="module")
def agreement(world: VendorWorld) -> Agreement:
    return world.agreement()


# -- T165: another code than the one whose digest was approved


def test_swapped_bundle(agreement: Agreement, vendor: Vendor, tmp_path: Path) -> None:
    """Storage hands out other ciphertext: of another sealing, of the other file, changed, cut, or empty."""
    key = vendor.home.code_key(vendor.manifest)
    place = sealed_object(agreement, vendor.sealed.payload_id)
    source, model = place.files
    good = vendor.ciphertext("analysis.py")
    other = make_vendor(tmp_path / "other").ciphertext("analysis.py")
    twins = [other, vendor.ciphertext("model.txt"), good[:-1], good + b"\0", b"", bytes(len(good))]
    twins += [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 7)]
    for twin in twins:
        with pytest.raises(KakoiError) as caught:
            open_file(Storage(twin), place, source, key)
        assert caught.value.code in ("dataset.size", "dataset.segment-digest"), "before anything is decrypted"
    with pytest.raises(KakoiError):
        open_file(Storage(vendor.ciphertext("model.txt")), place, replace(model, name="analysis.py"), key)
    os.close(open_file(Storage(good), place, source, key))


def test_code_passed_off_as_data_and_data_as_code(agreement: Agreement, vendor: Vendor) -> None:
    """The same digests under a data set's id: what a file is bound to says which of the two it is."""
    key = vendor.home.code_key(vendor.manifest)
    place = sealed_object(agreement, vendor.sealed.payload_id)
    for sealed_as in (vendor.manifest.code, f"code/{'0' * 32}"):
        with pytest.raises(Refused) as caught:
            open_file(
                Storage(vendor.ciphertext("analysis.py")), replace(place, sealed_as=sealed_as), place.files[0], key
            )
        assert caught.value.code == "crypto.cannot-open"


# -- T166: run it without its owner's yes


class Said(Conversation):
    """The conversation of a run of the sealed code, with the vendor as one more owner."""

    world: VendorWorld

    def __post_init__(self) -> None:
        super().__post_init__()
        self.request = open_request(self.world.ask(self.agreement.id), self.agreement)

    @property
    def everybody(self) -> tuple[TestParty, ...]:
        return (*self.world.owners, self.world.vendor.party)

    def granted(self, owner: TestParty, keys: Mapping[str, bytes]) -> KeyGrant:
        signed = self.session(tuple(sorted(self.challenge(o).payload_id for o in self.everybody)))
        sealed_keys = []
        for identity, key in keys.items():
            info = grant_info(
                run=self.request.id,
                attempt=self.attempt,
                contract=self.agreement.id,
                session=signed.id,
                owner=owner.id,
                manifest=identity,
            )
            sealed_keys.append(
                GrantedKey(manifest=parse_id(identity), sealed=crypto.seal(key, signed.record.sealing, info=info))
            )
        like = KeyGrant.decode(self.grant(self.world.owners[0]).payload)
        return replace(like, session=signed.id, owner=owner.id, keys=tuple(sealed_keys))

    def keys(self, owner: TestParty) -> dict[str, bytes]:
        """What an honest owner grants this run."""
        vendor = self.world.vendor
        if owner.id == vendor.party.id:
            return {vendor.sealed.payload_id: vendor.home.code_key(vendor.manifest)}
        return {self.agreement.data_of(owner.id)[0].manifest: self.world.data_key(owner)}


def test_a_grant_without_the_codes_key_and_one_with_too_many(world: VendorWorld) -> None:
    """What the run needs of each owner is exact: no less of the vendor, no more of anybody."""
    talk = Said(world=world)
    vendor, hospital = world.vendor.party, world.owners[0]
    run = talk.run()
    code = talk.keys(vendor)
    good = {owner.id: talk.keys(owner) for owner in talk.everybody}
    bad: tuple[tuple[TestParty, dict[str, bytes]], ...] = (
        (vendor, {}),
        (vendor, {**code, **good[hospital.id]}),
        (vendor, {talk.agreement.data_of(hospital.id)[0].manifest: bytes(32)}),
        (hospital, {**good[hospital.id], **code}),
        (hospital, code),
    )
    for owner, keys in bad:
        with pytest.raises(Refused) as caught:
            run._grant_is_whole(talk.granted(owner, keys))
        assert caught.value.code == "session.grant-keys"
    for owner in talk.everybody:
        run._grant_is_whole(talk.granted(owner, good[owner.id]))


def test_another_key_for_the_code(world: VendorWorld) -> None:
    """The vendor releases a key that opens something else than what was approved: its commitment says so."""
    talk = Said(world=world)
    vendor = world.vendor.party
    opener = SealingKey(seeded("session/sealing", crypto.SEALING_SECRET))
    grant = seal(talk.granted(vendor, {world.vendor.sealed.payload_id: bytes(32)}), vendor.signing)
    with pytest.raises(Refused) as caught:
        open_keys((open_signed(KeyGrant, grant, vendor.card),), talk.agreement, opener)
    assert caught.value.code == "crypto.cannot-open"
    good = seal(talk.granted(vendor, talk.keys(vendor)), vendor.signing)
    open_keys((open_signed(KeyGrant, good, vendor.card),), talk.agreement, opener).wipe()


def published(setting: Setting) -> Agreement:
    bundle = setting.world.bundle()
    everything = (*bundle.cards, *bundle.manifests, *bundle.analyses, *bundle.code, *bundle.reviews)
    for envelope in (*everything, bundle.contract, *bundle.approvals):
        setting.hub.put_object(envelope)
    return agree(bundle)


def asked(setting: Setting, agreement: Agreement) -> None:
    """A run of the sealed code is asked for, a session answers every challenge."""
    assert isinstance(setting.world, VendorWorld)
    request = setting.world.ask(agreement.id)
    setting.hub.put_object(request)
    setting.broker().step(wait=0)
    if setting.challenges(request.payload_id, 1):
        setting.hub.put_object(setting.session(request.payload_id, agreement))
        setting.broker().step(wait=0)


def denied(setting: Setting) -> list[str]:
    return [Denial.decode(envelope.payload).code for envelope in setting.hub.of_kind(Denial.KIND)]


def test_the_vendors_own_broker_decides(tmp_path: Path) -> None:
    """Not approved by its own record: no key. Approved: one grant, with the code's key alone, for this session alone."""
    setting = vendor_setting(make_vendor(tmp_path / "v"))
    agreement = published(setting)
    asked(setting, agreement)
    assert (denied(setting), setting.hub.of_kind(KeyGrant.KIND)) == (["decision.not-approved"], [])
    setting = vendor_setting(make_vendor(tmp_path / "w"))
    agreement = published(setting)
    with_yes = Ledger(setting.path / "ledger.sqlite")
    with_yes.approve(agreement.id, NOW)
    with_yes.close()
    asked(setting, agreement)
    (grant,) = [KeyGrant.decode(envelope.payload) for envelope in setting.hub.of_kind(KeyGrant.KIND)]
    assert [key.manifest for key in grant.keys] == list(agreement.code)


def test_withdrawn_code_runs_no_more(tmp_path: Path) -> None:
    setting = vendor_setting(make_vendor(tmp_path / "v"))
    agreement = published(setting)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.approve(agreement.id, NOW)
    ledger.withdraw(next(iter(agreement.code)), NOW)
    ledger.close()
    asked(setting, agreement)
    assert (denied(setting), setting.hub.of_kind(KeyGrant.KIND)) == (["decision.withdrawn"], [])


def test_refused_evidence_gets_no_code(tmp_path: Path) -> None:
    """The vendor's broker appraises the enclave as a hospital's does: an unknown measurement gets nothing."""
    setting = vendor_setting(make_vendor(tmp_path / "v"))
    agreement = published(setting)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.approve(agreement.id, NOW)
    ledger.close()
    setting.refuse = True
    asked(setting, agreement)
    assert len(denied(setting)) == 1
    assert setting.hub.of_kind(KeyGrant.KIND) == []


def test_a_run_of_another_analysis_gets_no_code(tmp_path: Path) -> None:
    """The vendor is not asked, says nothing, and gives nothing."""
    setting = vendor_setting(make_vendor(tmp_path / "v"))
    agreement = published(setting)
    ledger = Ledger(setting.path / "ledger.sqlite")
    ledger.approve(agreement.id, NOW)
    ledger.close()
    request = setting.world.request(agreement)
    setting.hub.put_object(request)
    before = len(setting.hub.objects)
    setting.broker().step(wait=0)
    assert len(setting.hub.objects) == before


# -- T167: a review that nobody gave


def test_a_hub_that_makes_reviews_up(world: VendorWorld) -> None:
    """Forged reviews are passed over, and without a genuine one the contract does not bind."""
    hub = MemoryHub()
    bundle = world.bundle()
    for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, *bundle.code, bundle.contract):
        hub.put_object(envelope)
    for envelope in bundle.approvals:
        hub.put_object(envelope)
    genuine = bundle.reviews[0]
    words = replace(CodeReview.decode(genuine.payload), statement="It is perfect.")
    for forged in (
        seal(words, world.vendor.party.signing),
        replace(genuine, payload=words.encode()),
        replace(genuine, payload=genuine.payload.replace(b"keeps nothing", b"sends nothing")),
    ):
        hub.objects.append((CodeReview.KIND, forged))
    with pytest.raises(Refused) as caught:
        agree(fetch_bundle(hub, bundle.contract.payload_id))
    assert caught.value.code == "code.review-missing"
    hub.put_object(genuine)
    agreed = agree(fetch_bundle(hub, bundle.contract.payload_id))
    (reviews,) = agreed.reviews.values()
    assert [review.record.statement for review in reviews] == ["It counts people and keeps nothing."]


# -- T168: carry the secret, or people, out


@contextmanager
def opened(agreement: Agreement, source: str, model: bytes = MODEL) -> Iterator[dict[str, tuple[int, ...]]]:
    """What the keeper has after decryption: three hospitals' parts, and this code in the place of the vendor's."""
    with ExitStack() as stack:

        def descriptor(content: bytes) -> int:
            made = sealed(content)
            stack.callback(os.close, made)
            return made

        rows = pa.table({"age": [30, 40, 50, 60, 70], "sex": [1, 2, 1, 2, 1], "days": [1, 2, 3, 4, 5]})
        found = {identity: (descriptor(parquet(rows)),) for identity in agreement.manifests}
        code = next(iter(agreement.code))
        yield {**found, code: (descriptor(source.encode()), descriptor(model))}


def run(agreement: Agreement, world: VendorWorld, source: str, model: bytes = MODEL) -> Released:
    request = RunRequest.decode(world.ask(agreement.id).payload)
    with opened(agreement, source, model) as given:
        secret = DataSecret.drawn()
        try:
            return (
                shared_engine()
                .compute(agreement, request, given, secret=secret, seconds=60, stopped=lambda: False)
                .released
            )
        finally:
            secret.wipe()


def test_honest_sealed_code_gives_what_was_declared(agreement: Agreement, world: VendorWorld) -> None:
    (table,) = run(agreement, world, SOURCE).outputs
    assert isinstance(table, ReleasedTable)
    assert [column.cells for column in table.columns] == [("0", "1"), ("6", "9")]


_PREDICTS = """
import pickle

def analyse(tables, parameters, files):
    frame = tables["trial"]
    frame["high"] = pickle.loads(files["model.txt"]).predict(frame[["age"]].to_numpy(int)).astype(int)
    return {"risk": frame.groupby("high", as_index=False).agg(people=("age", "size"))}
"""


def test_a_real_model_gives_what_it_gives_outside(agreement: Agreement, world: VendorWorld) -> None:
    """A scikit-learn pipeline, pickled: it opens and predicts inside the sandbox as it does outside."""
    import pickle

    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ages = np.arange(20, 90).reshape(-1, 1)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ages, ages[:, 0] > 45)
    (table,) = run(agreement, world, _PREDICTS, pickle.dumps(model)).outputs
    assert isinstance(table, ReleasedTable)
    high = int(model.predict(np.array([[30], [40], [50], [60], [70]])).sum())
    assert [column.cells for column in table.columns] == [("0", "1"), (str(3 * (5 - high)), str(3 * high))]


_BODY = "def analyse(tables, parameters, files):\n    secret = files['model.txt'].decode() + files['analysis.py'].decode()\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("    raise RuntimeError(secret)", "python.failed"),
        ("    import sys; print(secret); sys.stderr.write(secret); sys.exit(secret)", "python.failed"),
        ("    return {secret: 1}", "python.output"),
        ("    return {'risk': secret}", "python.output"),
        ("    import pandas as pd; return {'risk': pd.DataFrame({'high': [secret[:100]], 'people': [15]})}", "gate.label"),
        ("    import pandas as pd; return {'risk': pd.DataFrame({'high': ['x'], 'people': [15], secret: [1]})}", "python.output"),
        ("    import pandas as pd; return {'risk': pd.DataFrame({'high': ['x', 'y', 'z'], 'people': [15] * 3})}", "engine.rows"),
        ("    import os; os.write(3, secret.encode()); os._exit(0)", "gate.answer"),
        ("    open('/tmp/out', 'w').write(secret); import os; os.execv('/bin/sh', ['sh'])", "python.failed"),
        ("    import socket; socket.socket().connect(('192.0.2.1', 9))", "python.failed"),
    ],
    ids=["exception", "print", "name", "text", "label", "column", "rows", "answer", "exec", "network"],
)  # fmt: skip
def test_sealed_code_that_says_its_secret(agreement: Agreement, world: VendorWorld, body: str, code: str) -> None:
    """Whatever it says, an error holds neither model nor source: hospitals and analyst see one code of a closed list."""
    with pytest.raises(Refused) as caught:
        run(agreement, world, f"{_BODY}{body}\n# {MARK}\n")
    assert caught.value.code == code
    said = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__} {caught.value.__context__}"
    assert MARK not in said
    assert MODEL.decode() not in said


@pytest.mark.parametrize(
    "source", ["", "def analyse(", "x = 1", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_sealed_code_that_is_no_source(agreement: Agreement, world: VendorWorld, source: str) -> None:
    with pytest.raises(Refused) as caught:
        run(agreement, world, source)
    assert caught.value.code in ("python.source", "python.failed")


def test_few_people_stay_hidden_from_sealed_code_too(agreement: Agreement, world: VendorWorld) -> None:
    """The owners' rules apply to what sealed code counts, as to any other."""
    (table,) = run(agreement, world, SOURCE.replace("> 30", "> 42")).outputs
    assert isinstance(table, ReleasedTable)
    assert [column.cells for column in table.columns] == [("0", "1"), ("12", "3")]
    strict = replace(world, change_sealed=lambda contract: _stricter(world.change_sealed(contract)))
    (table,) = run(strict.agreement(), strict, SOURCE.replace("> 30", "> 42")).outputs
    assert isinstance(table, ReleasedTable)
    assert [column.cells for column in table.columns] == [("0",), ("12",)]
    assert table.rows_withheld


def _stricter(contract: Contract) -> Contract:
    first, *others = contract.data
    return replace(contract, data=(replace(first, rules=replace(first.rules, minimum_contributors=5)), *others))


# -- T169: read the code


def test_ciphertext_and_manifest_hold_no_plaintext(vendor: Vendor) -> None:
    """What storage, hub and hospitals get: nothing of source or model in any file but the encrypted key's."""
    for path in vendor.home.path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert MARK.encode() not in data
            assert MODEL not in data


def test_compute_is_not_reached_without_the_vendor(world: VendorWorld) -> None:
    """All hospitals say yes, the vendor says nothing: the enclave waits, and decrypts nothing."""
    talk = Said(world=world)
    run = talk.run()
    made = []
    for owner in world.owners:
        made += run.handle(MessageArrived(kind=Challenge.KIND, envelope=talk.challenge(owner)))
    assert run.state != "computing"
    assert not any(isinstance(instruction, Compute) for instruction in made)
    assert world.vendor.party.id in run.owners
