"""Adapters: what a process may do, and what it gets to see."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kakoi.conformance.adapter import AdapterTarget, Crash, read_answer, write_files
from kakoi.conformance.corpus import Vector
from kakoi.conformance.run import run
from kakoi.conformance.trial import Answer, Kind, Trial
from kakoi.core.errors import Malformed, Misuse

Minted = Callable[[Kind], tuple[Vector, ...]]
LOOP = "import sys, json, time\nfor line in sys.stdin:\n    trial = json.loads(line)\n    "
SAYS_YES = LOOP + "print(json.dumps({'outcome': 'accepted'}), flush=True)\n"


def adapter(folder: Path, source: str, *words: str, timeout: float = 20.0) -> AdapterTarget:
    program = folder / "adapter.py"
    program.write_text(source)
    return AdapterTarget(" ".join([sys.executable, str(program), *words]), timeout=timeout)


@pytest.fixture(name="trial")
def trial_fixture(minted: Minted) -> Trial:
    return minted("snp")[0].groups[0].make(0)[1]


def ask(target: AdapterTarget, trial: Trial) -> Answer | Crash:
    try:
        return target.ask(trial)
    finally:
        target.close()


def test_one_process_answers_one_line_each(tmp_path: Path, trial: Trial) -> None:
    source = LOOP + "print(json.dumps({'outcome': 'refused', 'reason': trial['format']}), flush=True)\n"
    target = adapter(tmp_path, source)
    assert [target.ask(trial) for _ in range(3)] == [Answer(outcome="refused", reason="snp")] * 3
    target.close()
    target.close()


def test_the_trial_arrives_whole(tmp_path: Path, trial: Trial) -> None:
    source = LOOP + "open(sys.argv[1], 'w').write(line); print('{\"outcome\": \"accepted\"}', flush=True)\n"
    seen = tmp_path / "seen"
    assert ask(adapter(tmp_path, source, str(seen)), trial) == Answer(outcome="accepted", reason="")
    assert Trial.decode(seen.read_bytes().rstrip(b"\n")) == trial


CRASHES: dict[str, tuple[str, str]] = {
    "ends at once": ("import sys; sys.exit(3)", "exit code 3: it said nothing"),
    "ends with a message": ("import sys; sys.stdin.readline(); sys.exit('panic: index')", "exit code 1: panic: index"),
    "is killed": ("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)", "exit code -9: it said nothing"),
    "says nothing": (LOOP + "time.sleep(60)\n", "no answer within 0.5 s"),
    "says something else": (LOOP + "print('fine', flush=True)\n", "said what is no answer"),
    "says a list": (LOOP + "print([1], flush=True)\n", "said what is no answer"),
    "says another outcome": (LOOP + "print('{\"outcome\": \"maybe\"}', flush=True)\n", "said what is no answer"),
    "says more than it may": (LOOP + "print('{\"outcome\": \"accepted\", \"ok\": 1}', flush=True)\n", "said what is no"),
    "does not stop": (LOOP + "sys.stdout.write('x' * 1000000); sys.stdout.flush(); time.sleep(60)\n", "no answer within"),
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHES)
def test_no_answer_is_a_crash(tmp_path: Path, trial: Trial, name: str) -> None:
    source, reason = CRASHES[name]
    answer = ask(adapter(tmp_path, source, timeout=0.5 if "within" in reason else 20.0), trial)
    assert isinstance(answer, Crash)
    assert answer.reason.startswith(reason)


def test_a_crashed_process_is_started_anew(tmp_path: Path, trial: Trial) -> None:
    source = (
        "import sys, json, os\nfirst = not os.path.exists(sys.argv[1])\nopen(sys.argv[1], 'w').close()\n"
        'for line in sys.stdin:\n    if first: sys.exit(9)\n    print(\'{"outcome": "accepted"}\', flush=True)\n'
    )
    target = adapter(tmp_path, source, str(tmp_path / "been"))
    assert isinstance(target.ask(trial), Crash)
    assert target.ask(trial) == Answer(outcome="accepted", reason="")
    target.close()


def test_one_process_for_each_trial_reads_files(tmp_path: Path, trial: Trial) -> None:
    source = (
        "import json, pathlib, sys\nfolder = pathlib.Path(sys.argv[1])\n"
        "names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())\n"
        "print('working'); print(json.dumps({'outcome': 'refused', 'reason': ' '.join(names)}))\n"
    )
    answer = ask(adapter(tmp_path, source, "{trial}"), trial)
    assert isinstance(answer, Answer)
    assert answer.reason.split() == [
        "anchors/0.der", "collateral/crl", "collateral/intermediate", "collateral/root", "collateral/vcek", "now",
        "policy.json", "report-data", "statement", "trial.json",
    ]  # fmt: skip
    failed = ask(adapter(tmp_path, "import sys; sys.exit('no')", "{trial}"), trial)
    assert failed == Crash(reason="exit code 1: no")
    slow = ask(adapter(tmp_path, "import time; time.sleep(60)", "{trial}", timeout=0.5), trial)
    assert slow == Crash(reason="no answer within 0.5 s")


def test_files_hold_the_trials_bytes(tmp_path: Path, minted: Minted) -> None:
    trial = minted("azure-snp")[0].groups[0].make(0)[1]
    write_files(trial, tmp_path)
    assert (tmp_path / "statement").read_bytes() == trial.evidence.statement
    for part in trial.evidence.parts:
        assert (tmp_path / "parts" / part.name).read_bytes() == part.data
    assert Trial.decode((tmp_path / "trial.json").read_bytes()) == trial
    assert (tmp_path / "now").read_text() == str(trial.now)


@pytest.mark.parametrize("command", ["", "no-such-program-here --x", "'unbalanced"])
def test_what_is_no_command(command: str) -> None:
    with pytest.raises(Misuse) as caught:
        AdapterTarget(command, timeout=1.0)
    assert caught.value.code == "conformance.adapter"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"{",
        b'{"outcome":1}',
        b'{"kind":"x","outcome":"accepted"}',
        b"[" * 100_000,
        b'{"outcome":1.5}',
        b"\xff",
    ],
)
def test_what_is_no_answer(line: bytes) -> None:
    with pytest.raises(Malformed):
        read_answer(line)


def test_a_whole_run_over_an_adapter(tmp_path: Path, minted: Minted) -> None:
    vectors: Any = minted("azure-maa")
    report = run(vectors, adapter(tmp_path, SAYS_YES), sample=1, layers=("verify",))
    assert {finding.problem for finding in report.findings} == {"accepted"}
    assert json.loads(report.encode())["target"].endswith("adapter.py")
