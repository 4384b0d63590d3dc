"""A PostgreSQL cluster of Debian's, made for the tests that need one and gone with them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest


def _binaries() -> Path | None:
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3].split(".")[0])
    )
    return found[-1].parent if found else None


class Cluster:
    """A running cluster that listens on loopback and on nothing else."""

    def __init__(self, directory: Path) -> None:
        binaries = _binaries()
        if binaries is None:
            pytest.skip("needs Debian's package postgresql")
        self._bin, self._data = binaries, directory / "data"
        self._user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self._log = directory / "log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(directory, self._user)
        self._run("initdb", "--auth=trust", "--no-sync", "--username=kakoi", "--encoding=UTF8", "-D", str(self._data))
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [str(self._bin / program), *arguments]
        if os.geteuid() == 0:
            self._open_the_way()
            command = ["setpriv", f"--reuid={self._user}", "--regid=postgres", "--clear-groups", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def _open_the_way(self) -> None:
        """Each session of pytest that starts closes the directory of all sessions to other users."""
        for parent in self._data.parent.parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)

    def start(self) -> None:
        """Start it; returns when it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._log), "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once, cutting every connection. Asked again if another session closes the way just then."""
        for last in (False, False, True):
            try:
                return self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")
            except subprocess.CalledProcessError:
                if last:
                    raise
                time.sleep(1)
        return None

    def database(self) -> str:
        """SQLAlchemy URL of a new, empty database."""
        name = f"k{uuid4().hex}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "kakoi", name)
        return f"postgresql+psycopg://kakoi@127.0.0.1:{self.port}/{name}"


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """A cluster that has stopped when the block ends."""
    made = Cluster(directory)
    try:
        yield made
    finally:
        made.stop()
