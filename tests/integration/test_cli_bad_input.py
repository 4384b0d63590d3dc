"""Bad input at the command line: one clear error each, the exit code of its family, nothing half-written, no traceback."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from kakoi.broker.ledger import Decision, Ledger
from kakoi.contract.model import Analysis, Contract
from kakoi.contract.sign import seal
from kakoi.core.dsse import Envelope
from kakoi.core.ids import PartyId
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock, new_key_file
from kakoi.testing.world import World, with_changes
from support.command_line import Run, everything, runner, unchanged
from support.hub_client import client_of
from support.tree import ROOT

EXAMPLE: Final = ROOT / "examples/two-hospitals"
SCHEMA: Final = EXAMPLE / "visits.toml"
HEADER: Final = "patient,age,sex,smoker,pressure\n"
GOOD: Final = "N1,50,F,no,120\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without pauses, so that an absent hub is known at once."""

    class Never:
        @staticmethod
        def random() -> float:
            return 0.0

    monkeypatch.setattr("kakoi.net.caller.random.SystemRandom", Never)
    monkeypatch.setenv("KAKOI_LANG", "en")
    monkeypatch.delenv("KAKOI_PASSPHRASE", raising=False)


def make_party(directory: Path, name: str = "North Hospital") -> tuple[Path, Path]:
    """A party and its key file."""
    key = directory / f"{name}.key"
    new_key_file(key)
    home = PartyHome.create(directory / name, name=name, unlock=Unlock(key_file=key), created=1)
    return home.path, key


@pytest.fixture
def party(tmp_path: Path) -> tuple[Path, Path]:
    return make_party(tmp_path)


# -- files of a hospital


FILES: Final[dict[str, tuple[str, int, str]]] = {
    "wrong type": (HEADER + GOOD + "N2,fifty,F,no,120\n", 4, "ingest.invalid-cells"),
    "fraction for an integer": (HEADER + GOOD + "N2,50.5,F,no,120\n", 4, "ingest.invalid-cells"),
    "number out of range": (HEADER + GOOD + "N2,500,F,no,120\n", 4, "ingest.invalid-cells"),
    "unknown code": (HEADER + GOOD + "N2,50,X,no,120\n", 4, "ingest.invalid-cells"),
    "missing text nobody declared": (HEADER + GOOD + "N2,50,F,no,-\n", 4, "ingest.invalid-cells"),
    "column missing": ("patient,age,sex,smoker\nN1,50,F,no\n", 3, "ingest.missing-column"),
    "column unknown": (HEADER.replace("\n", ",phone\n") + GOOD.replace("\n", ",555\n"), 3, "ingest.unknown-column"),
    "header twice": (HEADER.replace("\n", ",age\n") + GOOD.replace("\n", ",50\n"), 3, "csv.duplicate-header"),
    "row too short": (HEADER + GOOD + "N2,50,F\n", 3, "csv.ragged"),
    "empty file": ("", 3, "ingest.empty-file"),
    "no rows": (HEADER, 3, "ingest.no-rows"),
    "other delimiter": (HEADER.replace(",", ";") + GOOD.replace(",", ";"), 3, "csv.delimiter"),
    "not text": ("\0\1\2" * 50, 3, "csv.nul"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_do_not_fit_the_schema(case: str, run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    text, code, error = FILES[case]
    (tmp_path / "visits.csv").write_text(text)
    home, key = party
    with unchanged(home):
        ran = run("dataset", "seal", tmp_path / "visits.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
    assert (ran.code, ran.error) == (code, error), ran.err
    assert ran.out == ""
    for cell in ("fifty", "50.5", "500", "555", "N2"):
        assert cell not in ran.err, "a message holds no cell of anybody's data"


SCHEMAS: Final[dict[str, tuple[str, str, int, str]]] = {
    "direct identifier": ('identifier = "opt-out"', 'identifier = "direct"', 4, "schema.direct-identifier"),
    "unknown member": ('title = "', 'colour = "red"\ntitle = "', 3, "schema.field"),
    "unknown type": ('type = "integer"', 'type = "int"', 3, "schema.field"),
    "not TOML": ("[columns.age]", "[columns.age", 3, "schema.toml"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_schemas_that_say_nonsense(case: str, run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    old, new, code, error = SCHEMAS[case]
    text = SCHEMA.read_text("utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    (tmp_path / "schema.toml").write_text(changed)
    home, key = party
    with unchanged(home):
        ran = run(
            "dataset",
            "seal",
            EXAMPLE / "north.csv",
            "--schema",
            tmp_path / "schema.toml",
            "--party",
            home,
            "--key-file",
            key,
        )
    assert (ran.code, ran.error) == (code, error), ran.err


def test_files_that_are_not_there(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key)
    with unchanged(tmp_path):
        for arguments in (
            ("dataset", "seal", tmp_path / "none.csv", "--schema", SCHEMA, *keys),
            ("dataset", "seal", EXAMPLE / "north.csv", "--schema", tmp_path / "none.toml", *keys),
            ("dataset", "inspect", tmp_path / "none"),
            ("party", "show", tmp_path / "none"),
            ("verify", tmp_path / "none.kakoi"),
            ("enclave", "measure", tmp_path / "none"),
        ):
            ran = run(*arguments)
            assert ran.code == 2, (arguments, ran.err)
            assert ran.error.endswith((".missing", ".file", ".empty")), ran.error


def test_directories_where_files_belong(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key)
    (tmp_path / "folder").mkdir()
    with unchanged(tmp_path):
        for arguments in (
            ("dataset", "seal", tmp_path / "folder", "--schema", SCHEMA, *keys),
            ("dataset", "seal", EXAMPLE / "north.csv", "--schema", tmp_path / "folder", *keys),
            ("verify", tmp_path / "folder"),
            ("party", "show", tmp_path / "folder"),
            ("party", "new", key, "--name", "X", "--key-file", key),
            ("party", "new", tmp_path / "x", "--name", "X", "--key-file", tmp_path / "folder"),
            ("platform", "new", key),
            ("platform", "collateral", tmp_path / "folder", "--out", tmp_path / "c.json"),
            ("enclave", "build", key),
        ):
            ran = run(*arguments)
            assert ran.code in (2, 5), (arguments, ran.err)
            assert ran.error


# -- keys and parties


def seal_with(run: Run, home: Path, *keys: object) -> tuple[int, str]:
    with unchanged(home):
        ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, *keys)
    return ran.code, ran.error


def test_wrong_keys(run: Run, party: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, key = party
    new_key_file(tmp_path / "other")
    assert seal_with(run, home, "--key-file", tmp_path / "other") == (4, "crypto.cannot-open")
    assert seal_with(run, home, "--key-file", tmp_path / "none") == (2, "file.missing")
    (tmp_path / "short").write_bytes(b"12345")
    (tmp_path / "short").chmod(0o600)
    assert seal_with(run, home, "--key-file", tmp_path / "short") == (2, "key.file-length")
    assert seal_with(run, home) == (2, "key.unlock"), "no terminal to ask at"
    monkeypatch.setenv("KAKOI_PASSPHRASE", "a passphrase where a key file is needed")
    assert seal_with(run, home) == (2, "key.unlock")
    key.chmod(0o644)
    assert seal_with(run, home, "--key-file", key) == (2, "key.permissions")


def test_unknown_parties(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    _, key = party
    for arguments in (
        ("broker", "log", "--party", tmp_path / "nobody"),
        ("dataset", "upload", "--party", tmp_path / "nobody", "--key-file", key, "--hub", "http://127.0.0.1:1"),
    ):
        with unchanged(tmp_path):
            ran = run(*arguments)
        assert (ran.code, ran.error) == (2, "party.missing")


def test_a_party_is_never_made_twice(run: Run, party: tuple[Path, Path]) -> None:
    home, key = party
    with unchanged(home.parent):
        ran = run("party", "new", home, "--name", "Again", "--key-file", key)
    assert (ran.code, ran.error) == (2, "key.exists")


def test_names_that_no_card_can_have(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("", " ", "x" * 200, "two\nlines", "left\u202eright"):
        with unchanged(tmp_path):
            ran = run("party", "new", tmp_path / "new", "--name", name, "--key-file", party[1])
        assert (ran.code, ran.error) == (3, "record.field"), name


def test_an_edited_card_is_refused(run: Run, party: tuple[Path, Path]) -> None:
    home, key = party
    card = Envelope.decode((home / "card.dsse").read_bytes())
    changed = replace(card, payload=card.payload.replace(b"North", b"South"))
    (home / "card.dsse").write_bytes(changed.encode())
    assert seal_with(run, home, "--key-file", key) == (4, "signature.invalid")
    ran = run("party", "show", home)
    assert (ran.code, ran.error) == (4, "signature.invalid")


def test_an_edited_ledger_is_fatal(run: Run, party: tuple[Path, Path]) -> None:
    home, _ = party
    ledger = Ledger(home / "ledger.sqlite")
    decision = Decision(at=1, run="", attempt=0, step="read", outcome="no", code="a.b", message="", hint="")
    ledger.note(decision)
    ledger.close()
    assert run("broker", "log", "--party", home).code == 0
    with closing(sqlite3.connect(home / "ledger.sqlite")) as database, database:
        database.execute("update decision set body = cast(replace(body, 'a.b', 'c.d') as blob)")
    ran = run("broker", "log", "--party", home)
    assert (ran.code, ran.error) == (6, "ledger.chain")


# -- contracts and the hub


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A hub with a world on it."""

    url: str
    client: HubClient
    world: World

    def publish(self) -> str:
        """The world's contract with everything, on the hub; its id."""
        bundle = self.world.bundle()
        for envelope in (*bundle.cards, *bundle.manifests, *bundle.analyses, bundle.contract, *bundle.approvals):
            self.client.put_object(envelope)
        return bundle.contract.payload_id


def party_of(party: tuple[Path, Path]) -> tuple[object, ...]:
    home, key = party
    return ("--party", home, "--key-file", key)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    settings = Settings(directory=tmp_path_factory.mktemp("hub"), port=0)
    with running(settings) as server, client_of(server) as client:
        yield Setting(url=server.url, client=client, world=World())


def test_an_expired_contract(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    hub.world.change_contract = lambda contract: with_changes(contract, not_before=1, expires=2)
    ran = run("contract", "verify", hub.publish(), "--hub", hub.url, *party_of(party))
    assert (ran.code, ran.error) == (4, "contract.expired")


def test_a_contract_that_has_not_begun(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    hub.world.change_contract = lambda contract: with_changes(contract, not_before=2**39, expires=2**40)
    ran = run("contract", "verify", hub.publish(), "--hub", hub.url, *party_of(party))
    assert (ran.code, ran.error) == (4, "contract.not-yet")


def test_a_contract_that_somebody_has_not_signed(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    hub.world.silent = ("East",)
    ran = run("contract", "verify", hub.publish(), "--hub", hub.url, *party_of(party))
    assert (ran.code, ran.error) == (4, "contract.approval-missing")
    assert "East has not approved" in ran.err


def test_ids_that_lead_nowhere(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    for command in (("show",), ("verify",)):
        ran = run("contract", *command, "0" * 64, "--hub", hub.url, *party_of(party))
        assert (ran.code, ran.error) == (4, "hub.not-found")
        ran = run("contract", *command, "short", "--hub", hub.url, *party_of(party))
        assert (ran.code, ran.error) == (3, "encoding.id")


def remembered(home: Path) -> frozenset[str]:
    """Contracts that the party's own ledger knows."""
    with closing(Ledger(home / "ledger.sqlite")) as ledger:
        return ledger.approved() | ledger.withdrawn()


def test_signing_for_a_party_that_the_contract_does_not_name(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    home, key = party
    contract = hub.publish()
    ran = run("contract", "sign", contract, "--yes", "--party", home, "--key-file", key, "--hub", hub.url)
    assert (ran.code, ran.error) == (4, "contract.not-party")
    assert remembered(home) == frozenset()


def test_withdrawing_from_a_contract_that_does_not_name_the_party(
    run: Run, hub: Setting, party: tuple[Path, Path]
) -> None:
    """A mistyped id must not look like a withdrawal: the right contract would go on."""
    home, key = party
    keys = ("--party", home, "--key-file", key, "--hub", hub.url)
    for identity, error in ((hub.publish(), "contract.not-party"), ("0" * 64, "hub.not-found")):
        ran = run("contract", "withdraw", identity, "--reason", "enough", *keys)
        assert (ran.code, ran.error) == (4, error)
        assert "Withdrawn" not in ran.out
        assert remembered(home) == frozenset()


def test_a_hostile_title_hides_nothing(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    """Whoever drafts a contract cannot steer the terminal of who reads it."""
    hub.world.change_contract = lambda contract: with_changes(
        contract, title="Nice [conceal]and [/]", purpose="[/bold] x [0m"
    )
    shown = run("contract", "show", hub.publish(), "--hub", hub.url, *party_of(party))
    assert shown.code == 0, shown.err
    assert "Nice [conceal]and [/]" in shown.out
    assert "[/bold] x [0m" in shown.out


DRAFTS: Final[dict[str, tuple[str, str, int, str]]] = {
    "not TOML": ("days = 30", "days = ", 3, "draft.toml"),
    "unknown member": ("days = 30", "days = 30\ncolour = 'red'", 3, "draft.unknown"),
    "member missing": ("purpose =", "# purpose =", 3, "draft.member"),
    "days as text": ("days = 30", "days = 'many'", 3, "draft.days"),
    "days that never end": ("days = 30", "days = 99999999", 3, "record.field"),
    "no days": ("days = 30", "", 3, "draft.days"),
    "zero days": ("days = 30", "days = 0", 3, "draft.days"),
    "unknown role": ('"analyst"', '"king"', 3, "record.field"),
    "unknown rule": ("minimum_cell", "minimum_cells", 3, "record.unknown-field"),
    "rule out of range": ("minimum_cell = 5", "minimum_cell = 0", 3, "record.field"),
    "unknown party": (
        'roles = ["analyst"]',
        'roles = ["analyst"]\n\n[[party]]\nid = "' + "1" * 64 + '"\nroles = ["auditor"]',
        2,
        "draft.unknown-party",
    ),
    "unknown analysis": ("ANALYSIS", "2" * 64, 2, "draft.unknown-analysis"),
    "unknown data set": ("MANIFEST", "3" * 64, 2, "draft.manifest"),
    "short id": ("ANALYSIS", "22", 3, "encoding.id"),
    "stranger as recipient": ('recipients = ["PARTY"]', 'recipients = ["' + "4" * 64 + '"]', 3, "contract.parties"),
}


def draft_text() -> str:
    """The contract of docs/formats/drafts.md."""
    page = (ROOT / "docs/formats/drafts.md").read_text("utf-8")
    return page.split("```toml contract\n")[1].split("```")[0]


def draft(run: Run, hub: Setting, party: tuple[Path, Path], text: str, tmp_path: Path) -> tuple[int, str]:
    home, key = party
    owner = hub.world.owners[0]
    drafter = PartyHome.load(home, Unlock(key_file=key))
    card = drafter.card
    hub.client.put_object(card.envelope)
    manifest = hub.world.manifest(owner)
    analysis = seal(
        replace(Analysis.decode(hub.world.analysis().payload), author=PartyId(card.id)), drafter.keys.signer()
    )
    for envelope in (owner.card.envelope, manifest, analysis):
        hub.client.put_object(envelope)
    for mark, identity in (
        ("PARTY", card.id),
        ("OWNER", owner.id),
        ("MANIFEST", manifest.payload_id),
        ("ANALYSIS", analysis.payload_id),
    ):
        text = text.replace(f'"{mark}"', f'"{identity}"')
    (tmp_path / "contract.toml").write_text(text)
    before = hub.client.feed(kinds=(Contract.KIND,)).items
    ran = run(
        *("contract", "draft", tmp_path / "contract.toml", "--party", home, "--key-file", key, "--hub", hub.url),
        *("--platforms", platforms(tmp_path), "--log", log_key(tmp_path)),
    )
    if ran.code == 0:
        return 0, ""
    assert hub.client.feed(kinds=(Contract.KIND,)).items == before, "nothing was sent"
    return ran.code, ran.error


def platforms(directory: Path) -> Path:
    """A policy that a contract can name."""
    import json

    from kakoi.core.records import to_value
    from kakoi.testing.world import policy

    path = directory / "platforms.json"
    path.write_text(json.dumps(to_value(policy())))
    return path


def log_key(directory: Path) -> Path:
    path = directory / "log.json"
    contract = Contract.decode(World().bundle().contract.payload)
    path.write_bytes(contract.log.encode())
    return path


def test_the_documented_draft_is_good(run: Run, hub: Setting, party: tuple[Path, Path], tmp_path: Path) -> None:
    assert draft(run, hub, party, draft_text(), tmp_path) == (0, "")


@pytest.mark.parametrize("case", DRAFTS)
def test_drafts_that_say_nonsense(case: str, run: Run, hub: Setting, party: tuple[Path, Path], tmp_path: Path) -> None:
    old, new, code, error = DRAFTS[case]
    text = draft_text()
    assert old in text
    assert draft(run, hub, party, text.replace(old, new), tmp_path) == (code, error)


ANALYSES: Final[dict[str, tuple[str, str, int, str]]] = {
    "source missing": ('source = "pressure.sql"', 'source = "none.sql"', 2, "file.missing"),
    "no source": ('source = "pressure.sql"\n', "", 3, "draft.source"),
    "unknown engine": ('engine = "sql"', 'engine = "perl"', 3, "record.field"),
    "unknown member": ('engine = "sql"', 'engine = "sql"\nspeed = 1', 3, "record.unknown-field"),
    "two counts": ('role = "value"', 'role = "count"', 3, "output.count"),
    "number without limits": ('maximum = "80"\n', "", 3, "parameter.limits"),
}


@pytest.mark.parametrize("case", ANALYSES)
def test_analyses_that_say_nonsense(
    case: str, run: Run, hub: Setting, party: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new, code, error = ANALYSES[case]
    shutil.copytree(EXAMPLE, tmp_path / "example")
    path = tmp_path / "example/pressure.toml"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new))
    home, key = party
    ran = run("analysis", "publish", path, "--party", home, "--key-file", key, "--hub", hub.url)
    assert (ran.code, ran.error) == (code, error)
    assert hub.client.feed().items == ()


def test_a_hub_that_is_down(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can take it
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        keys = ("--party", home, "--key-file", key, "--hub", url)
        for arguments in (
            ("contract", "show", "0" * 64, *keys),
            ("contract", "sign", "0" * 64, "--yes", *keys),
            ("dataset", "upload", *keys),
            ("analysis", "publish", EXAMPLE / "pressure.toml", *keys),
            ("run", "0" * 64, "counts", "--out", tmp_path / "r.kakoi", *keys),
            ("result", "open", "0" * 64, "1" * 64, "--out", tmp_path / "r.kakoi", *keys),
        ):
            with unchanged(tmp_path):
                ran = run(*arguments)
            assert (ran.code, ran.error) == (5, "hub.unreachable"), (arguments, ran.err)


@pytest.mark.parametrize(
    ("url", "error"),
    [("ftp://127.0.0.1", "net.url"), ("nonsense", "net.url"), ("http://example.org", "net.plain-http")],
)
def test_addresses_that_are_none(url: str, error: str, run: Run, party: tuple[Path, Path]) -> None:
    ran = run("contract", "show", "0" * 64, "--hub", url, *party_of(party))
    assert (ran.code, ran.error) == (2, error)


def test_a_withdrawal_counts_although_the_hub_is_down(run: Run, hub: Setting, party: tuple[Path, Path]) -> None:
    """An owner stops with its own broker's ledger; that the hub cannot be told is said, and is no reason not to stop."""
    home, key = party
    keys = ("--party", home, "--key-file", key, "--hub", "http://127.0.0.1:1")
    ledger = Ledger(home / "ledger.sqlite")
    ledger.approve("5" * 64, 1)
    ledger.close()
    ran = run("contract", "withdraw", "5" * 64, "--reason", "enough", *keys)
    assert (ran.code, ran.error) == (5, "hub.unreachable")
    ledger = Ledger(home / "ledger.sqlite")
    assert ledger.withdrawn() == {"5" * 64}
    ledger.close()


def test_a_port_in_use(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held, unchanged(tmp_path):
        ran = run("hub", "serve", "--directory", tmp_path / "hub", "--port", held.getsockname()[1])
    assert (ran.code, ran.error) == (2, "hub.port-in-use")


def test_a_hub_without_its_token(run: Run, tmp_path: Path) -> None:
    ran = run("hub", "serve", "--directory", tmp_path / "hub", "--token-file", tmp_path / "none")
    assert ran.code == 2
    assert ran.error == "hub.directory"


def test_a_log_key_before_the_hub_ever_ran(run: Run, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        ran = run("hub", "log-key", "--directory", tmp_path / "hub", "--out", tmp_path / "log.json")
    assert (ran.code, ran.error) == (2, "log.not-started")


# -- results


def test_outputs_are_never_overwritten(run: Run, party: tuple[Path, Path], tmp_path: Path) -> None:
    home, key = party
    (tmp_path / "r.kakoi").write_bytes(b"precious")
    keys = ("--party", home, "--key-file", key, "--hub", "http://127.0.0.1:1", "--out", tmp_path / "r.kakoi")
    for arguments in (("run", "0" * 64, "counts", *keys), ("result", "open", "0" * 64, "1" * 64, *keys)):
        with unchanged(tmp_path):
            ran = run(*arguments)
        assert (ran.code, ran.error) == (2, "file.exists")


def test_outputs_into_directories_that_are_not_there(run: Run, tmp_path: Path) -> None:
    """Noticed before any work: nobody waits an hour for a result that cannot be written."""
    keys = ("--party", tmp_path / "p", "--key-file", tmp_path / "k", "--hub", "http://127.0.0.1:1")
    ran = run("run", "0" * 64, "counts", *keys, "--out", tmp_path / "none/r.kakoi")
    assert (ran.code, ran.error) == (2, "file.missing")


@pytest.mark.parametrize("data", [b"", b"{}", b"nonsense", b"\xff" * 100, b'{"kind":"kakoi/result-file/v1"}'])
def test_results_that_are_none(data: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.kakoi").write_bytes(data)
    ran = run("verify", tmp_path / "r.kakoi")
    assert ran.code == 3
    assert ran.error.startswith(("encoding.", "record."))


# -- brokers and enclaves


def test_half_a_consent_to_the_software_platform(
    run: Run, party: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, key = party
    keys = ("--party", home, "--key-file", key, "--hub", "http://127.0.0.1:1", "--collateral", tmp_path / "c.json")
    monkeypatch.delenv("KAKOI_ACCEPT_SOFTWARE_PLATFORM", raising=False)
    ran = run("broker", "serve", *keys, "--accept-software-platform")
    assert (ran.code, ran.error) == (2, "software-platform.half")
    monkeypatch.setenv("KAKOI_ACCEPT_SOFTWARE_PLATFORM", "I know that it protects nothing")
    ran = run("broker", "serve", *keys)
    assert (ran.code, ran.error) == (2, "software-platform.half")


def test_an_enclave_without_its_image(run: Run, tmp_path: Path) -> None:
    options = ("--platform-directory", tmp_path, "--token-file", tmp_path / "t", "--hub", "http://127.0.0.1:1")
    ran = run("enclave", "serve", "--image", tmp_path / "none", *options)
    assert (ran.code, ran.error) == (2, "image.missing")


def test_images_and_platforms_are_never_overwritten(run: Run, tmp_path: Path) -> None:
    assert run("platform", "new", tmp_path / "platform").code == 0
    (tmp_path / "image").mkdir()
    with unchanged(tmp_path):
        for arguments in (("enclave", "build", tmp_path / "image"), ("platform", "new", tmp_path / "platform")):
            ran = run(*arguments)
            assert ran.code == 2, ran.err
            assert ran.error.endswith(".exists")


# -- full disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place: Path, *, leave: int) -> None:
    """Leave so many bytes free, to the page."""
    free = shutil.disk_usage(place).free
    (place / "ballast").write_bytes(bytes(max(0, free - leave)))


def test_sealing_on_a_full_disk(run: Run, full_disk: Path) -> None:
    home, key = make_party(full_disk)
    for leave in (0, 4096, 8192):
        (full_disk / "ballast").unlink(missing_ok=True)
        fill(full_disk, leave=leave)
        before = everything(home)
        ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
        assert (ran.code, ran.error) == (5, "disk.full"), (leave, ran.err)
        assert everything(home) == before, leave
    (full_disk / "ballast").unlink()
    ran = run("dataset", "seal", EXAMPLE / "north.csv", "--schema", SCHEMA, "--party", home, "--key-file", key)
    assert ran.code == 0, "with space again the same command works"


def test_making_a_party_on_a_full_disk(run: Run, full_disk: Path, tmp_path: Path) -> None:
    new_key_file(tmp_path / "key")
    for leave in (0, 4096, 8192):
        (full_disk / "ballast").unlink(missing_ok=True)
        fill(full_disk, leave=leave)
        ran = run("party", "new", full_disk / "party", "--name", "X", "--key-file", tmp_path / "key")
        assert (ran.code, ran.error) == (5, "disk.full"), leave
        assert not (full_disk / "party/card.dsse").exists()
        assert not (full_disk / "party/secrets.json").exists(), "half a party could never be finished"
    (full_disk / "ballast").unlink()
    assert run("party", "new", full_disk / "party", "--name", "X", "--key-file", tmp_path / "key").code == 0


def test_approving_on_a_full_disk(run: Run, full_disk: Path, hub: Setting) -> None:
    """The owner's ledger comes first: what it cannot remember it does not say to anybody."""
    home, key = make_party(full_disk)
    card = PartyHome.load(home, Unlock(key_file=key)).card
    hub.client.put_object(card.envelope)
    world = hub.world
    world.change_contract = lambda contract: with_changes(
        contract, parties=(*contract.parties, replace(contract.parties[-1], party=PartyId(card.id), roles=("auditor",)))
    )
    contract = world.bundle()
    for envelope in (*contract.cards, *contract.manifests, *contract.analyses, contract.contract):
        hub.client.put_object(envelope)
    identity = contract.contract.payload_id
    fill(full_disk, leave=0)
    keys = ("--party", home, "--key-file", key, "--hub", hub.url)
    ran = run("contract", "sign", identity, "--yes", *keys)
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    assert hub.client.feed(kinds=("kakoi/approval/v1",)).items == ()
    (full_disk / "ballast").unlink()
    assert run("contract", "sign", identity, "--yes", *keys).code == 0


def test_writing_files_on_a_full_disk(run: Run, full_disk: Path, tmp_path: Path) -> None:
    platform = tmp_path / "platform"
    assert run("platform", "new", platform).code == 0
    fill(full_disk, leave=0)
    with unchanged(full_disk):
        ran = run("platform", "collateral", platform, "--out", full_disk / "collateral.json")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    with unchanged(full_disk):
        ran = run("platform", "new", full_disk / "platform")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err
    with unchanged(full_disk):
        ran = run("enclave", "build", full_disk / "image")
    assert (ran.code, ran.error) == (5, "disk.full"), ran.err


def test_signing_is_a_seal() -> None:
    """The helpers above sign with real keys: an envelope that they make verifies."""
    world = World()
    assert seal(Contract.decode(world.bundle().contract.payload), world.analyst.signing).payload_id
