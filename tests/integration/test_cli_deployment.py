"""The analyst's commands on a running deployment: what goes wrong there, and that it ends cleanly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kakoi.cli.demo.cast import other_version
from kakoi.contract.model import Approval
from kakoi.contract.sign import seal
from support.command_line import Run, runner, unchanged
from support.deployment import Deployment, on_deployment

pytestmark = on_deployment


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("KAKOI_LANG", "en")
    return runner(capsys)


def keys_of(deployment: Deployment, party: Path | None = None) -> tuple[object, ...]:
    """Options for the analyst, or another party."""
    home = party or deployment.cast.researcher.path
    return ("--party", home, "--key-file", home / "key", "--hub", deployment.stage.hub_url)


@pytest.mark.parametrize(
    ("seconds", "error"),
    [(3600, "request.time"), (-3600, "contract.not-yet"), (60 * 86400, "contract.expired")],
    ids=["an hour ahead", "an hour behind", "two months ahead"],
)
def test_a_wrong_clock(
    seconds: int, error: str, deployment: Deployment, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owners' own clocks decide; the analyst is told to look at this one."""
    monkeypatch.setattr("kakoi.cli.ui.SystemClock.now", lambda self: int(time.time()) + seconds)
    with unchanged(tmp_path):
        ran = run("run", deployment.cast.contract, "counts", "--out", tmp_path / "r.kakoi", *keys_of(deployment))
    assert (ran.code, ran.error) == (4, error)
    if error == "request.time":
        assert "check the clock of the analyst's machine" in ran.err
        assert "Hospital refused" in ran.err, "it says who"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("nothing",), 2, "run.analysis"),
        (("oldest",), 4, "request.parameters"),
        (("oldest", "-p", "minimum_age"), 2, "run.parameter"),
        (("oldest", "-p", "=5"), 2, "run.parameter"),
        (("oldest", "-p", "minimum_age=200"), 4, "request.parameter-range"),
        (("oldest", "-p", "minimum_age=old"), 4, "request.parameter-range"),
        (("oldest", "-p", "minimum_age=40", "-p", "more=1"), 4, "request.parameters"),
        (("counts", "-p", "minimum_age=40"), 4, "request.parameters"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_requests_that_do_not_fit_the_contract(
    arguments: tuple[str, ...], code: int, error: str, deployment: Deployment, run: Run, tmp_path: Path
) -> None:
    before = deployment.runs()
    ran = run("run", deployment.cast.contract, *arguments, "--out", tmp_path / "r.kakoi", *keys_of(deployment))
    assert (ran.code, ran.error) == (code, error)
    assert deployment.runs() == before, "nothing was sent"
    assert not (tmp_path / "r.kakoi").exists()


def test_an_owner_is_no_analyst(deployment: Deployment, run: Run, tmp_path: Path) -> None:
    """A party without the role may ask, and every owner refuses."""
    owner = deployment.cast.hospitals[0].path
    out = ("--out", tmp_path / "r.kakoi")
    ran = run("run", deployment.cast.contract, "counts", *out, *keys_of(deployment, owner))
    assert (ran.code, ran.error) == (4, "request.role")


def test_only_recipients_open_a_result(deployment: Deployment, run: Run, tmp_path: Path) -> None:
    honest = deployment.honest
    for home, code, error in (
        (deployment.cast.hospitals[0].path, 4, "result.recipient"),
        (deployment.cast.researcher.path, 0, ""),
    ):
        out = ("--out", tmp_path / "r.kakoi")
        ran = run("result", "open", honest.run, deployment.cast.contract, *out, *keys_of(deployment, home))
        assert ran.code == code, ran.err
        assert not error or ran.error == error
        assert (tmp_path / "r.kakoi").exists() == (code == 0)
    assert "held back" in ran.out
    assert "NOT PROTECTED BY HARDWARE" in ran.out
    ran = run("verify", tmp_path / "r.kakoi")
    assert ran.code == 0
    assert "NOT PROTECTED BY HARDWARE" in ran.out


def test_a_result_that_is_not_there_yet(deployment: Deployment, run: Run, tmp_path: Path) -> None:
    """Nobody works: asking ends after the time given, and the same run's result is opened later."""
    deployment.enclave(running=False)
    ran = run("run", deployment.cast.contract, "counts", "--no-wait", *keys_of(deployment))
    assert ran.code == 0
    (identity,) = ran.out.split()
    again = ("result", "open", identity, deployment.cast.contract, "--out", tmp_path / "r.kakoi")
    with unchanged(tmp_path):
        ran = run(*again, "--timeout", "1", *keys_of(deployment))
    assert (ran.code, ran.error) == (5, "run.timeout")
    deployment.enclave(running=True)
    ran = run(*again, "--timeout", "90", *keys_of(deployment))
    assert ran.code == 0, ran.err
    assert (tmp_path / "r.kakoi").exists()


def test_no_is_an_answer(deployment: Deployment, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads a contract and says no has approved nothing."""
    home = deployment.cast.researcher
    draft = other_version(deployment.contract, supersedes=deployment.cast.contract, title="A contract nobody wants")
    envelope = seal(draft, home.keys.signer())
    deployment.client.put_object(envelope)
    monkeypatch.setattr("kakoi.cli.contract.typer.confirm", lambda question: False)
    ran = run("contract", "sign", envelope.payload_id, *keys_of(deployment))
    assert ran.code == 1
    assert "A contract nobody wants" in ran.out
    assert deployment.client.feed(kinds=(Approval.KIND,), refs={"contract": envelope.payload_id}).items == ()
