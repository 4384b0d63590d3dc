"""Bad contracts, drafts and hubs at the command line: one clear error each, the exit code of its family, nothing half-written, no traceback."""

from __future__ import annotations

import shutil
import socket
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from kakoi.broker.ledger import Ledger
from kakoi.contract.model import Contract
from kakoi.contract.sign import open_signed, seal
from kakoi.testing.world import World, with_changes
from support.command_line import Run, unchanged
from support.hub_setting import Setting, draft_text, log_key, party_of, platforms, write_draft
from support.tree import ROOT

pytestmark = pytest.mark.usefixtures("impatient")
EXAMPLE: Final = ROOT / "examples/two-hospitals"


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


def draft(run: Run, hub: Setting, party: tuple[Path, Path], text: str, tmp_path: Path) -> tuple[int, str]:
    home, key = party
    file = write_draft(hub, party, text, tmp_path / "contract.toml")
    before = hub.client.feed(kinds=(Contract.KIND,)).items
    ran = run(
        *("contract", "draft", file, "--party", home, "--key-file", key, "--hub", hub.url),
        *("--platforms", platforms(tmp_path), "--log", log_key(tmp_path)),
    )
    if ran.code == 0:
        return 0, ""
    assert hub.client.feed(kinds=(Contract.KIND,)).items == before, "nothing was sent"
    return ran.code, ran.error


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


def test_signing_is_a_seal() -> None:
    """The helpers above sign with real keys: an envelope that they make verifies."""
    world = World()
    record = Contract.decode(world.bundle().contract.payload)
    assert open_signed(Contract, seal(record, world.analyst.signing), world.analyst.card).record == record
