"""A door that somebody left open, and a program that says nothing of its doors or lies about them: the doctor shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kakoi.cli import ui
from kakoi.guard import listeners
from support.command_line import runner
from support.tls import Authority

ALL = "0.0.0.0"  # noqa: S104 - what is warned of


@contextmanager
def started(directory: Path, *options: object) -> Iterator[Path]:
    """``kakoi hub serve`` in a process of its own."""
    command = [sys.executable, "-m", "kakoi.cli", "hub", "serve", "--directory", str(directory), *map(str, options)]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 60
        while not (directory / "address").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield directory
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are looked for in /proc")
def test_the_doctor_shows_what_is_open_and_what_to_mind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub on all interfaces: sockets from the kernel, TLS from a handshake, the rest from what it says."""
    monkeypatch.setattr(ui.out, "_width", 400)
    run, authority = runner(capsys), Authority(tmp_path, "machines")
    certificate, key = authority.issue("hub")
    tls = ("--tls-certificate", certificate, "--tls-key", key)
    with started(tmp_path / "hub", "--host", ALL, "--name", "hub.example", *tls, "--metrics-port", 0) as directory:
        seen = {one.door.name if one.door else "": one for one in listeners.look(directory) or ()}
        assert set(seen) == {"api", "metrics"}
        api, metrics = seen["api"], seen["metrics"]
        assert (api.host, api.tls, api.worries) == (ALL, True, ("everywhere", "no-allow-list"))
        assert (metrics.host, metrics.tls, metrics.worries) == ("127.0.0.1", False, ())
        (line,) = (line for line in run("doctor").out.splitlines() if f"{ALL}:{api.port}" in line)
        for words in (
            "hub: public API",
            "1.3",
            "everywhere",
            "signed requests",
            "listens on all interfaces",
            "no list of networks",
        ):
            assert words in line
        said = directory / "listening-hub.json"
        said.unlink()
        silent = {one.port: one for one in listeners.look(directory) or ()}
        assert silent[api.port].worries == ("unknown", "everywhere", "no-allow-list")
        for lie in (
            f'{{"pid": {os.getpid()}, "doors": []}}',
            "not json",
            '{"pid": 1}',
            "[]",
            '{"doors": [{"host": 1}]}',
        ):
            said.write_text(lie)
            assert all(one.door is None for one in listeners.look(directory) or ()), "another's word, or none"
    assert listeners.look(directory) == ()
