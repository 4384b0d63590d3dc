"""The demo's processes: hub, brokers, enclave, each with its own directory and log, all on loopback."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from kakoi.broker import devmode
from kakoi.cli.demo.voices import Voices
from kakoi.core.errors import Unavailable
from kakoi.enclave.keeper.drive import CLAIM_SECONDS
from kakoi.net.identity import enclave_identity

_START_SECONDS: Final = 60


class Stage:
    """Long-running processes of one deployment. As a context manager it ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.token_file = directory / "hub" / "operator.token"
        self.hub_url = ""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._begun: dict[str, int] = {}
        """Length of each log when its process was started last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self.stop(name)

    def start_hub(self) -> Voices:
        """Start the hub and wait until it answers: on a free port first, on the same one when started again."""
        home = self.directory / "hub"
        home.mkdir(parents=True, exist_ok=True)
        if not self.token_file.exists():
            self.token_file.write_text(secrets.token_hex(32))
            self.token_file.chmod(0o600)
        (home / "address").unlink(missing_ok=True)
        port = self.hub_url.rpartition(":")[2] or "0"
        command = ["hub", "serve", "--directory", str(home), "--token-file", str(self.token_file), "--port", port]
        self.start("hub", command)
        self._wait("hub", lambda: (home / "address").exists())
        self.hub_url = (home / "address").read_text().strip()
        client = Voices(self.hub_url, enclave_identity("attacker", self.token_file.read_text().strip()))
        client.health()
        return client

    def start_broker(self, name: str, party: Path, collateral: Path) -> None:
        """Start an owner's broker."""
        command = ["broker", "serve", "--party", str(party), "--hub", self.hub_url, "--collateral", str(collateral)]
        command += ["--accept-software-platform", "--key-file", str(party / "key")]
        self.start(name, command, {devmode.VARIABLE: devmode.CONSENT})

    def start_enclave(
        self, name: str, image: Path, platform: Path, *, claim_seconds: int = CLAIM_SECONDS, jobs: int = 1
    ) -> None:
        """Start an enclave from an image and wait until all its keepers take runs."""
        command = ["enclave", "serve", "--image", str(image), "--platform-directory", str(platform)]
        command += ["--hub", self.hub_url, "--token-file", str(self.token_file), "--name", name]
        command += ["--claim-seconds", str(claim_seconds), "--jobs", str(jobs)]
        self.start(name, command)
        self._wait(name, lambda: self.log(name)[self._begun[name] :].count("ready") >= jobs)

    def start(self, name: str, command: list[str], extra: Mapping[str, str] | None = None) -> None:
        """Start ``kakoi COMMAND`` with its output in a log file of its own."""
        log = self.directory / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self._begun[name] = len(self.log(name))
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **(extra or {})}
        with log.open("ab") as file:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", "kakoi.cli", *command], stdout=file, stderr=file, env=environment
            )

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End a process, at once if ``kill``."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def process_id(self, name: str) -> int:
        """Of a process that runs."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """What a process has said so far."""
        path = self.directory / "logs" / f"{name}.log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if ready():
                return
            if self._processes[name].poll() is not None:
                break
            time.sleep(0.05)
        tail = self.log(name).strip().splitlines()[-3:]
        raise Unavailable(
            "demo.start", f"expected {name} to start, it said: {' / '.join(tail)}", hint=f"see the log of {name}"
        )
