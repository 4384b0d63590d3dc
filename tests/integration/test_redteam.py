"""The red team against a running deployment: everything is repelled, what is not would be told, and nothing is left behind."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kakoi.cli.redteam import hub_attacks, place_attacks, request_attacks, run_attacks
from kakoi.cli.redteam.attack import Attack, Outcome, tried
from kakoi.cli.redteam.command import ATTACKS, attacks_of, exercise
from kakoi.cli.redteam.ground import Ground, Means, ground_on
from kakoi.console.serve import in_thread, open_server
from kakoi.console.settings import Settings as ConsoleSettings
from kakoi.contract.model import Withdrawal
from kakoi.core.errors import Misuse, Unavailable
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.sdk.connect import connect
from support.broker_setting import make_setting
from support.command_line import Run, runner
from support.hub_client import client_of
from support.tree import ROOT

UNTRIED = {"old-tls", "foreign-name", "foreign-form", "without-signing-in", "made-up-passkey"} | {
    "guessed-invitation",
    "framed",
    "console-paths",
    "plain-console",
}
"""Attacks on TLS and on a console, which this deployment does not have."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    directory = tmp_path_factory.mktemp("redteam") / "hub"
    # Tests share the machine: a hub that is late because of them must not shed what is tried here.
    with running(Settings(directory=directory, port=0, limits=Limits(late_seconds=60, head_seconds=2))) as server:
        yield server


@pytest.fixture(scope="module")
def ground(hub: HubServer) -> Iterator[Ground]:
    directory = hub.hub.settings.directory
    with ground_on(Means(hub=hub.url, token_file=directory / "operator.token", storage=directory)) as made:
        yield made


def by_name(name: str) -> Attack:
    return next(attack for attack in ATTACKS if attack.name == name)


@pytest.mark.parametrize("role", ["outsider", "network", "storage", "analyst", "owner", "operator"])
def test_every_attack_is_repelled(ground: Ground, role: str) -> None:
    outcomes = exercise(ground, attacks_of([role]))
    assert outcomes
    states = {outcome.attack.name: (outcome.state, outcome.detail) for outcome in outcomes}
    wrong = {name: found for name, found in states.items() if found[0] != "repelled" and name not in UNTRIED}
    assert not wrong
    assert {name for name, found in states.items() if found[0] == "not-tried"} <= UNTRIED


def test_a_real_console_repels_what_is_tried_from_outside(ground: Ground, tmp_path: Path) -> None:
    setting = make_setting(tmp_path)
    with connect(ground.means.hub, setting.home) as client:
        server = open_server(
            ConsoleSettings(port=0),
            home=setting.home,
            hub=client,
            clock=setting.clock,
            verifiers=lambda policy: {},
            broker=False,
        )
        with in_thread(server):
            address = server.console.settings.origin
            at_console = replace(ground, means=replace(ground.means, console=address))
            outcomes = exercise(at_console, [by_name(name) for name in sorted(UNTRIED - {"old-tls"})])
    assert {outcome.attack.name: outcome.state for outcome in outcomes} == dict.fromkeys(
        UNTRIED - {"old-tls"}, "repelled"
    )


def test_an_accepted_measurement_is_told_as_not_repelled(ground: Ground) -> None:
    """The same attack where the contract accepts the changed code: a key is released, and the red team says so."""
    honest = ground.measurement
    ground.measurement = bytes([honest[0] ^ 1]) + honest[1:]
    try:
        outcome = tried(by_name("changed-code"), ground)
    finally:
        ground.measurement = honest
    assert (outcome.state, outcome.detail) == ("not-repelled", "an owner's key was released")


@contextmanager
def agreeable() -> Iterator[str]:
    """A server that says yes to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()
            self.wfile.write(b"{}")

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_hub_and_a_console_that_say_yes_are_told(ground: Ground) -> None:
    with agreeable() as url:
        open_to_all = replace(ground, means=replace(ground.means, hub=url, console=url))
        names = {"unsigned", "swapped-id", "guessed-token", "false-blob", "traversal", "injection", "other-methods"}
        names |= {
            "party-takes-runs",
            "no-signature",
            "unknown-key",
            "inner-pages",
            "other-sites",
            "foreign-name",
            "foreign-form",
            "without-signing-in",
            "made-up-passkey",
        }
        names |= {"guessed-invitation", "framed", "console-paths"}
        names |= {attack.name for attack in request_attacks.ATTACKS} - {"others-conversation"} | {"rubbish"}
        names |= {"wrong-signatures"}
        outcomes: list[Outcome] = [tried(by_name(name), open_to_all) for name in sorted(names)]
    assert {outcome.attack.name: outcome.state for outcome in outcomes} == dict.fromkeys(names, "not-repelled")


def test_a_hub_that_does_not_answer_has_repelled_nothing(ground: Ground) -> None:
    gone = replace(ground, means=replace(ground.means, hub="http://127.0.0.1:1"))
    for attack in hub_attacks.ATTACKS:
        if attack.carry_out in (hub_attacks.unsigned, hub_attacks.traversal, hub_attacks.inner_pages):
            assert tried(attack, gone).state == "not-tried"


def test_without_token_or_storage_those_attacks_are_not_tried(ground: Ground) -> None:
    poor = replace(ground, means=Means(hub=ground.means.hub), honest=None, _machine=[])
    for attack in (*place_attacks.ATTACKS, by_name("no-evidence"), by_name("open-a-grant")):
        assert tried(attack, poor).state == "not-tried", attack.name


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    directory = tmp_path / "hub"
    with running(Settings(directory=directory, port=0)) as hub:
        _exercise_and_look(hub, directory)


def _exercise_and_look(hub: HubServer, directory: Path) -> None:
    with ground_on(Means(hub=hub.url, token_file=directory / "operator.token", storage=directory)) as ground:
        outcomes = exercise(ground, [by_name("changed-blob"), by_name("swapped-blob"), by_name("old-request")])
        assert {outcome.state for outcome in outcomes} == {"repelled"}
        (stored,) = [path for path in directory.rglob(ground.blob) if path.is_file()]
        assert stored.read_bytes() == ground.blob_bytes
        place, contract = ground.directory, ground.contract
    assert not place.exists()
    with client_of(hub) as client:
        withdrawals = client.feed(kinds=(Withdrawal.KIND,), refs={"contract": contract}).items
        assert len(withdrawals) == 2
        assert {item.state for item in client.runs(contract=contract, limit=100).items} <= {"failed", "done"}


def test_the_command_reports_and_its_exit_code_says_so(hub: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    run: Run = runner(capsys)
    listed = run("redteam", "--hub", hub.url, "--list")
    assert listed.code == 0
    assert len(listed.out.splitlines()) > 45
    said = run("redteam", "--hub", hub.url, "--as", "owner")
    assert said.code == 0, said.err
    assert "4 repelled, 0 NOT repelled, 0 not tried" in said.out
    assert run("redteam", "--hub", hub.url, "--as", "king").error == "redteam.role"


def test_every_attack_has_a_line_in_the_threat_model() -> None:
    text = (ROOT / "THREAT_MODEL.md").read_text("utf-8")
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) > 45
    assert not {attack.threat for attack in ATTACKS if f"| {attack.threat} |" not in text}
    assert {attack.role for attack in run_attacks.ATTACKS} == {"analyst", "owner", "operator"}


def test_errors_of_a_hub_are_not_taken_for_defences() -> None:
    def broken(ground: Ground) -> str:
        raise Unavailable("hub.busy", "expected room, got none")

    attack = Attack(name="x", role="outsider", threat="T01", carry_out=broken)
    assert tried(attack, None).state == "not-tried"
    with pytest.raises(Misuse):
        attacks_of(["king"])
