"""``kakoi console`` and ``kakoi contract withdraw --receipt``, against a real hub in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kakoi.broker.consent import WithdrawalReceipt
from kakoi.broker.ledger import Ledger
from kakoi.cli.main import app
from kakoi.cli.ui import SystemClock
from kakoi.console.ceremony import NewKey
from kakoi.console.people import People
from kakoi.console.store import Store
from kakoi.contract.model import Withdrawal
from kakoi.contract.sign import open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from kakoi.testing.software_authenticator import SoftwareAuthenticator
from kakoi.testing.world import NOW
from support.broker_setting import Setting, make_setting
from support.console_desk import ORIGIN
from support.hub_client import client_at, known

RUN = CliRunner()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    directory = tmp_path / "hub"
    directory.mkdir()
    with running(Settings(directory=directory, port=0), now=lambda: NOW) as server:
        yield known(server.url, directory)


@pytest.fixture
def own(tmp_path: Path) -> Setting:
    return make_setting(tmp_path)


def enrolled(own: Setting, name: str) -> None:
    store = Store(own.path / "people.sqlite")
    people = People(store, SystemClock(), invitation_seconds=600)
    device = SoftwareAuthenticator(name=name, relying_party="localhost", origin=ORIGIN)
    token = people.invite(name, "administrator", by="test")
    new = NewKey(credential_id=device.credential_id, key=device.public_key, counter=0, backed_up=False)
    people.enrol(token, new, label="laptop")
    store.close()


def test_an_invitation_by_command(own: Setting) -> None:
    done = RUN.invoke(app, ["console", "invite", "--party", str(own.path), "--name", "Dr. Aoki"])
    assert done.exit_code == 0
    assert done.output.startswith("http://localhost:8443/enrol/")
    again = RUN.invoke(app, ["console", "invite", "--party", str(own.path), "--name", "Dr. Aoki"])
    assert again.exit_code == 4
    wrong = RUN.invoke(app, ["console", "invite", "--party", str(own.path), "--name", "X", "--role", "king"])
    assert wrong.exit_code == 2


def test_the_card_by_the_partys_keys_alone(own: Setting, hub: str) -> None:
    enrolled(own, "Dr. Aoki")
    before = own.home.id
    command = ["console", "card", "--party", str(own.path), "--hub", hub, "--required", "1"]
    done = RUN.invoke(app, [*command, "--key-file", str(own.path.parent / "key")])
    assert done.exit_code == 0, done.output
    home = PartyHome.load(own.path, Unlock(key_file=own.path.parent / "key"))
    assert home.id != before
    assert home.id in done.output.replace("\n", "")
    with client_at(hub) as client:
        assert client.get_object(home.card.id).payload == home.card.envelope.payload


def test_a_console_beyond_loopback_needs_tls(own: Setting, hub: str) -> None:
    command = ["console", "serve", "--party", str(own.path), "--hub", hub, "--console-host", "0.0.0.0"]  # noqa: S104
    done = RUN.invoke(app, command)
    assert done.exit_code == 2


def versions(own: Setting, hub: str) -> list[str]:
    """Three versions of a contract, of which the first and the third were approved by this party."""
    made: list[str] = []
    ledger = Ledger(own.path / "ledger.sqlite")
    with client_at(hub) as client:
        for number in (1, 2, 3):
            before = ObjectId(made[-1]) if made else None
            own.world.change_contract = lambda c, n=number, b=before: replace(c, version=n, supersedes=b)  # type: ignore[misc]
            bundle = own.world.bundle()
            for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract):
                client.put_object(envelope)
            made.append(bundle.contract.payload_id)
    for identity in (made[0], made[2]):
        ledger.approve(identity, NOW)
    ledger.close()
    return made


def test_signing_by_command_leads_to_the_browser_where_people_approve(own: Setting, hub: str) -> None:
    """The key alone is not the party any more: the command says where people approve, and waits for them."""
    enrolled(own, "Dr. Aoki")
    keys = ["--party", str(own.path), "--hub", hub, "--key-file", str(own.path.parent / "key")]
    assert RUN.invoke(app, ["console", "card", *keys, "--required", "1"]).exit_code == 0
    bundle = own.world.bundle()
    with client_at(hub) as client:
        for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract):
            client.put_object(envelope)
    contract = bundle.contract.payload_id
    sign = ["contract", "sign", contract, *keys, "--yes", "--wait", "0"]
    assert RUN.invoke(app, sign).exit_code == 2
    (own.path / "console.address").write_text("http://localhost:8443\n")
    waited = RUN.invoke(app, sign)
    assert waited.exit_code == 5
    assert f"http://localhost:8443/contracts/{contract}" in waited.output
    ledger = Ledger(own.path / "ledger.sqlite")
    assert contract not in ledger.approved()
    ledger.approve(contract, NOW)
    ledger.close()
    assert RUN.invoke(app, sign).exit_code == 0


def withdrawn(own: Setting) -> set[str]:
    ledger = Ledger(own.path / "ledger.sqlite")
    try:
        return set(ledger.withdrawn())
    finally:
        ledger.close()


@pytest.mark.parametrize("only", [False, True])
def test_withdrawing_takes_earlier_versions_along(own: Setting, hub: str, only: bool) -> None:
    """They would still be valid; whoever wants them to stay says so, and is reminded."""
    first, second, third = versions(own, hub)
    keys = ["--party", str(own.path), "--hub", hub, "--key-file", str(own.path.parent / "key")]
    more = ["--only-this-version"] if only else []
    done = RUN.invoke(app, ["contract", "withdraw", third, *keys, "--reason", "Because.", *more])
    assert done.exit_code == 0, done.output
    assert withdrawn(own) == ({third} if only else {first, third})
    said = done.output.replace("\n", "")
    assert second not in said
    assert f"({first})" in said
    assert ("Version 1 stays in force" in said) == only
    with client_at(hub) as client:
        told = [Withdrawal.decode(client.get_object(i.id).payload) for i in client.feed(kinds=(Withdrawal.KIND,)).items]
    assert {str(item.contract) for item in told} == withdrawn(own)
    again = RUN.invoke(app, ["contract", "receipt", first, *keys])
    assert again.exit_code == (4 if only else 0)
    assert only or "No key of this party was ever released" in again.output


def test_withdrawing_a_data_set_by_command(own: Setting, hub: str) -> None:
    manifest = next(iter(own.home.datasets()))
    keys = ["--party", str(own.path), "--hub", hub, "--key-file", str(own.path.parent / "key")]
    with client_at(hub) as client:
        client.put_object(own.home.card.envelope)
    done = RUN.invoke(app, ["dataset", "withdraw", manifest, *keys, "--reason", "Because."])
    assert done.exit_code == 0, done.output
    assert withdrawn(own) == {manifest}
    with client_at(hub) as client:
        (item,) = client.feed(kinds=(Withdrawal.KIND,)).items
        assert Withdrawal.decode(client.get_object(item.id).payload).dataset == manifest
    assert RUN.invoke(app, ["dataset", "withdraw", "0" * 64, *keys, "--reason", "Because."]).exit_code == 2


def test_withdrawing_by_command_gives_a_receipt(own: Setting, hub: str, tmp_path: Path) -> None:
    bundle = own.world.bundle()
    with client_at(hub) as client:
        for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract):
            client.put_object(envelope)
    file, contract = tmp_path / "receipt.dsse", bundle.contract.payload_id
    command = ["contract", "withdraw", contract, "--party", str(own.path), "--hub", hub, "--reason", "Because."]
    done = RUN.invoke(app, [*command, "--receipt", str(file), "--key-file", str(own.path.parent / "key")])
    assert done.exit_code == 0, done.output
    record = open_signed(WithdrawalReceipt, Envelope.decode(file.read_bytes()), own.home.card).record
    assert (record.contract, record.people, record.last_lease_until) == (contract, (), None)
