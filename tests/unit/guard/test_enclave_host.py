"""An enclave's host: what the enclave says aloud becomes events, and nothing else does."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

import pytest

from kakoi.cli.enclave_host import event_of, host
from kakoi.cli.watch import key_of
from kakoi.guard.stream import FILE, Stream

RUN = "168b41972e6d"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{RUN} claimed, attempt 2", ("enclave.run", "success", "claimed", None)),
        (f"{RUN} is done", ("enclave.run", "success", "done", None)),
        (f"{RUN} ends without a result: gate.suppressed", ("enclave.run", "failure", "failed", "gate.suppressed")),
        (f"{RUN} refused before a session: contract.expired", ("enclave.run", "failure", "failed", "contract.expired")),
        ("- waits: no hub [net.unreachable]", ("enclave.run", "failure", "waits", "net.unreachable")),
        ("- stops: expected a token [file.missing] check", ("program.stopped", "failure", "stops", "file.missing")),
    ],
)
def test_lines_that_begin_or_end_something(line: str, expected: tuple[str, ...]) -> None:
    found = event_of(line, 1000)
    assert found is not None
    assert (found.what, found.outcome, found.operation, found.code) == expected
    assert found.about == (f"run {RUN}" if line.startswith(RUN) else None)


@pytest.mark.parametrize(
    "line", ["", "Traceback", f"{RUN} runs the analysis", f"{RUN} claimed, attempt x", "- ready; missing"]
)
def test_other_lines_are_no_events(line: str) -> None:
    assert event_of(line, 1000) is None


@pytest.mark.parametrize("code", [0, 7])
def test_a_whole_life(tmp_path: Path, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    said = f"import sys; print('{RUN} claimed, attempt 1\\n{RUN} is done\\nother', file=sys.stderr); sys.exit({code})"
    assert host([sys.executable, "-c", said], {}, tmp_path / "host") == code
    assert "claimed, attempt 1" in capfd.readouterr().err
    with closing(Stream(tmp_path / "host" / FILE, name="", component="client", now=1, look=False)) as stream:
        verified = stream.verify(key_of(tmp_path / "host"))
        codes = [event["metadata"]["event_code"] for event in reversed(stream.newest(limit=50))]
        failed = [event for event in stream.newest(limit=50) if event["status_id"] == 2]
    assert verified.signed == verified.size
    assert codes[:3] == ["stream.begun", "program.started", "enclave.run"]
    assert codes.count("enclave.run") == 2
    assert len(failed) == (1 if code else 0)
