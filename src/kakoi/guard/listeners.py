"""What Kakoi's programs on this machine listen on: what the kernel shows, beside what each program says of its doors.

Each program writes ``listening-<program>.json`` into its directory while it runs. That file is a claim and is shown as one: whether
there is a socket, who holds it, and whether it speaks TLS is looked up (``/proc``, one handshake). A socket that no program speaks for is
shown too, with a warning. ``kakoi doctor`` and ``kakoi posture`` both ask here.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

Name = Literal["api", "operations", "metrics", "console"]
Certificates = Literal["none", "accepted", "required"]
"""Whether clients show one."""
Worry = Literal["everywhere", "plain", "no-allow-list", "unknown"]
_PREFIX: Final = "listening-"
_MOST_BYTES: Final = 64 * 1024
_OURS: Final = re.compile(r"(?:^|[/\s;])kakoi(?:$|[\s./-])")
_MOST_WORDS: Final = 4
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what a program listens on


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One listener, as its program describes it."""

    name: Name
    host: str
    port: int
    allow: tuple[str, ...] = ()
    """Networks that are answered; empty: every network that reaches it."""
    client_certificates: Certificates = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A listening socket of a program of ours."""

    pid: int
    host: str
    port: int
    tls: bool
    """Whether it answered a TLS handshake (an alert is an answer)."""
    door: Door | None
    """What its program says of it; None: nothing."""
    worries: tuple[Worry, ...]


@contextmanager
def declared(directory: Path, program: str, doors: Sequence[Door]) -> Iterator[None]:
    """Say what is listened on, for as long as the block lasts. ``program`` tells programs of one directory apart."""
    path = directory / f"{_PREFIX}{program}.json"
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps({"pid": os.getpid(), "doors": [asdict(door) for door in doors]}) + "\n", "utf-8")
    part.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def look(directory: Path | None = None) -> tuple[Seen, ...] | None:
    """Sockets of our programs; of those only that name ``directory``, if one is given. None where there is no ``/proc``."""
    try:
        sockets = dict(_listening())
    except OSError:
        return None
    found: dict[tuple[str, int], Seen] = {}
    for pid, words in _programs():
        if directory is not None and not {str(directory), str(directory.resolve())} & set(words):
            continue
        doors = _doors(pid, words)
        for inode in _inodes(pid):
            if inode in sockets:
                host, port = sockets[inode]
                found.setdefault((host, port), _seen(pid, host, port, doors))
    return tuple(found[place] for place in sorted(found, key=lambda place: (place[1], place[0])))


def beyond_this_machine(host: str) -> bool:
    """Whether others can reach an address."""
    return not ip_address(host.partition("%")[0]).is_loopback


def _seen(pid: int, host: str, port: int, doors: Sequence[Door]) -> Seen:
    door = next((door for door in doors if door.port == port), None)
    tls = _speaks_tls(host, port)
    worries: list[Worry] = [] if door is not None else ["unknown"]
    if beyond_this_machine(host):
        worries += ["everywhere"] if host in _EVERYWHERE else []
        worries += [] if tls else ["plain"]
        worries += [] if door is not None and door.allow else ["no-allow-list"]
    return Seen(pid=pid, host=host, port=port, tls=tls, door=door, worries=tuple(worries))


def _doors(pid: int, words: Sequence[str]) -> list[Door]:
    """What a process says of itself in the directories that its command line names."""
    found: list[Door] = []
    for word in words:
        directory = Path(word.partition("=")[2] or word)
        with suppress(OSError, ValueError):
            if not directory.is_absolute():
                directory = Path(f"/proc/{pid}/cwd").readlink() / directory
            for path in sorted(directory.glob(f"{_PREFIX}*.json")) if directory.is_dir() else ():
                found += _read(path, pid)
    return found


def _read(path: Path, pid: int) -> list[Door]:
    with suppress(OSError, ValueError, TypeError, KeyError), path.open("rb") as file:
        said: dict[str, Any] = json.loads(file.read(_MOST_BYTES))
        if said["pid"] == pid:
            return [Door(**{**door, "allow": tuple(door["allow"])}) for door in said["doors"]]
    return []


def _listening() -> Iterator[tuple[str, tuple[str, int]]]:
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in (Path("/proc/net") / name).read_text("ascii").splitlines()[1:]:
            fields = line.split()
            host, _, port = fields[1].partition(":")
            if fields[3] == "0A":
                raw = bytes.fromhex(host)
                packed = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                yield fields[9], (socket.inet_ntop(family, packed), int(port, 16))


def _programs() -> Iterator[tuple[int, list[str]]]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if any(_OURS.search(word) for word in words[:_MOST_WORDS]):
                yield int(process.name), words


def _inodes(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether it speaks TLS at all
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what a program listens on
    try:
        with socket.create_connection((reach, port), timeout=3) as plain_socket, context.wrap_socket(plain_socket):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it wants a certificate of ours, and says so in TLS
    except OSError:
        return False
