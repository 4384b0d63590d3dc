"""Somebody else's verifier as a target: one command that answers trials (docs/conformance.md).

Two ways, told apart by the command. With ``{trial}`` among its words it is started once for each trial, with a folder
of files in the place of that word. Otherwise it is started once, and gets one trial a line on its standard input.
Nothing of a trial says what is expected. The command runs with the rights of whoever starts it: it is their choice.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from kakoi.conformance.trial import Answer, Trial
from kakoi.core.encoding import dumps, loads
from kakoi.core.errors import KakoiError, Misuse
from kakoi.core.records import from_value, to_value

PLACE: Final = "{trial}"
_MOST: Final = Answer.MAX_BYTES
_TAIL: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """No answer: the verifier ended, was silent for too long, or said something that is no answer."""

    reason: str


def read_answer(line: bytes) -> Answer:
    """An answer in any spelling of JSON. Raises Malformed."""
    return from_value(Answer, _respelled(line), "answer")


def _respelled(line: bytes) -> object:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return loads(line)  # for its message
    if isinstance(value, dict):
        value = {"kind": Answer.KIND, "reason": "", **value}
    return loads(dumps(value))


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


class AdapterTarget:
    """A verifier behind a command line. ``timeout`` in seconds, for each trial."""

    def __init__(self, command: str, *, timeout: float) -> None:
        words = _words(command)
        if not words or shutil.which(words[0]) is None:
            raise Misuse(
                "conformance.adapter",
                f"expected a command that can be run as adapter, got {words[:1]}",
                hint="give a program on the path, or its whole path: --adapter 'python3 my_adapter.py'",
            )
        self.name: Final = command
        self._words: Final = words
        self._timeout: Final = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._rest = b""

    def ask(self, trial: Trial) -> Answer | Crash:
        """The adapter's answer."""
        try:
            return self._once(trial) if PLACE in self._words else self._line(trial)
        except KakoiError as error:
            self.close()
            return Crash(reason=f"said what is no answer: {error.message}"[:_TAIL])

    def close(self) -> None:
        """End the process, if one runs."""
        process, self._process, self._rest = self._process, None, b""
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    # --- a process for each trial ---

    def _once(self, trial: Trial) -> Answer | Crash:
        with tempfile.TemporaryDirectory() as folder:
            write_files(trial, Path(folder))
            words = [folder if word == PLACE else word for word in self._words]
            try:
                done = subprocess.run(words, capture_output=True, timeout=self._timeout, check=False)  # noqa: S603
            except subprocess.TimeoutExpired:
                return Crash(reason=f"no answer within {self._timeout} s")
        if not done.stdout.strip():
            return Crash(reason=f"exit code {done.returncode}: {_last_line(done.stderr)}"[:_TAIL])
        return read_answer(done.stdout.strip().splitlines()[-1][:_MOST])

    # --- one process for all ---

    def _line(self, trial: Trial) -> Answer | Crash:
        process = self._started()
        line = dumps(to_value(trial)) + b"\n"
        try:
            if process.stdin is not None:
                process.stdin.write(line)
                process.stdin.flush()
            answer = self._read(process)
        except BrokenPipeError:
            answer = None
        if answer is not None:
            return read_answer(answer)
        ended = process.poll()
        reason = f"exit code {ended}: {self._said()}" if ended is not None else f"no answer within {self._timeout} s"
        self.close()
        return Crash(reason=reason[:_TAIL])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                self._words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        return self._process

    def _read(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """One line, without its end; None if the process ends, falls silent or does not stop talking."""
        if process.stdout is None:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if len(self._rest) > _MOST or not selector.select(self._timeout):
                    return None
                piece = os.read(process.stdout.fileno(), 65536)
                if not piece:
                    process.wait()
                    return None
                self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _said(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return _last_line(self._errors.read())


def _last_line(text: bytes) -> str:
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def write_files(trial: Trial, folder: Path) -> None:
    """A trial as files: ``trial.json``, and each piece by itself for programs that read files."""
    (folder / "trial.json").write_bytes(dumps(to_value(trial)))
    (folder / "statement").write_bytes(trial.evidence.statement)
    for place, parts in (("parts", trial.evidence.parts), ("collateral", trial.collateral.parts)):
        (folder / place).mkdir()
        for part in parts:
            (folder / place / part.name).write_bytes(part.data)
    (folder / "anchors").mkdir()
    for i, anchor in enumerate(trial.anchors):
        (folder / "anchors" / f"{i}.der").write_bytes(anchor.certificate)
    if trial.policy is not None:
        (folder / "policy.json").write_bytes(trial.policy.encode())
        (folder / "report-data").write_text(trial.report_data)
    (folder / "now").write_text(str(trial.now))
