"""One sandbox from the parent's side: start it, hand it one job, read a bounded answer in bounded time, kill it."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import queue
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from kakoi.core.errors import Unavailable
from kakoi.enclave.sandbox import cgroup, image, seccomp, walls
from kakoi.enclave.sandbox import launch as launch_module

PRELOAD: Final[Mapping[str, tuple[str, ...]]] = {
    "sql": ("duckdb",),
    "python": ("numpy", "pandas", "pyarrow.parquet", "lifelines"),
    "keying": ("pyarrow.parquet",),
}
"""What a waiting sandbox has already imported. Everything else in the image can be imported by the job."""
BASE_MEGABYTES: Final = 384
"""Memory of interpreter and libraries; a job's own limit comes on top."""
TMP_BYTES: Final = 32 * 1024 * 1024
LOG_BYTES: Final = 64 * 1024
MAX_PARTS: Final = 4096
PROCESSES: Final = 64
_PARTS_PER_MESSAGE: Final = 200
_STAGE: Final = ("/mnt", "/media", "/srv", "/opt", "/tmp")  # noqa: S108 - a mount point in a namespace of its own

Status = Literal["answered", "timeout", "too-much", "died", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the sandbox is told with the job. Nothing in it is for the analysis."""

    rlimits: Mapping[str, int]
    threads: int
    milliseconds: int
    engine_megabytes: int

    def encode(self) -> bytes:
        """For the program inside."""
        return json.dumps(
            {
                "rlimits": dict(self.rlimits),
                "threads": self.threads,
                "milliseconds": self.milliseconds,
                "engine_megabytes": self.engine_megabytes,
            }
        ).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended. ``log`` is for tests on this machine and never leaves the enclave."""

    status: Status
    answer: bytes
    log: bytes
    seconds: float
    code: int | None


class _Spawner:
    """Starts all sandboxes from one thread that lives as long as the process.

    The kernel's parent-death signal follows the thread that started a child, not the process.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._owner = 0

    def start(self, make: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._owner != os.getpid():
                self._owner = os.getpid()
                threading.Thread(target=self._work, name="kakoi-sandboxes", daemon=True).start()
        done: Future[subprocess.Popen[bytes]] = Future()
        self._queue.put((make, done))
        return done.result()

    def _work(self) -> None:
        while True:
            make, done = self._queue.get()
            try:
                done.set_result(make())
            except BaseException as error:  # the caller gets it
                done.set_exception(error)


_SPAWNER: Final = _Spawner()
_SERIAL: Final = itertools.count()


class Box:
    """A sandbox that waits for one job. Close it in any case.

    ``without`` names walls to leave out: those that this machine lacks and the contract accepts, or in a test one that is
    switched off to see what it is worth.
    """

    def __init__(
        self,
        *,
        engine: str,
        preload: Sequence[str] | None = None,
        without: frozenset[str] = frozenset(),
        threads: int = 2,
    ) -> None:
        self.engine, self.without = engine, without
        self._serial = next(_SERIAL)
        self._ready, self._waiting = False, threading.Lock()
        self._sink: Callable[[bytes], None] | None = None
        self._taken = 0
        """Bytes that went into the sink."""
        self._group = self._make_group()
        self._fds: list[int] = []
        try:
            self._start(PRELOAD[engine] if preload is None else preload, threads)
        except BaseException:
            self._release()
            raise

    def _make_group(self) -> cgroup.Group | None:
        if walls.CGROUP in self.without:
            return None
        where = cgroup.find()
        if where is None:
            raise Unavailable("sandbox.cgroup", "expected control groups, found none")
        try:
            return cgroup.make(
                where,
                f"{os.getpid()}-{self._serial}",
                memory_bytes=(BASE_MEGABYTES + 512) << 20,
                processes=PROCESSES,
            )
        except OSError as error:
            raise Unavailable("sandbox.cgroup", f"expected to make a control group: {error.strerror}") from error

    def _start(self, preload: Sequence[str], threads: int) -> None:
        answer, answer_end = os.pipe()
        log, log_end = os.pipe()
        self._control, control_end = socket.socketpair()
        self._answer, self._log = answer, log
        self._fds = [answer, log]
        ends = [answer_end, log_end, control_end.detach()]
        opened = list(ends)
        try:
            spec = self._spec(preload, threads, opened)
            spec_fd = _memory(json.dumps(spec).encode("utf-8"))
            opened.append(spec_fd)
            self._process = _SPAWNER.start(lambda: _popen(spec_fd, ends, opened[3:]))
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self._buffers = {answer: bytearray(), log: bytearray()}
        self._open = {answer, log}

    def _spec(self, preload: Sequence[str], threads: int, opened: list[int]) -> dict[str, Any]:
        root = os.geteuid() == 0
        namespaces = walls.NAMESPACES not in self.without
        stage = next((name for name in _STAGE if Path(name).is_dir()), "") if root and walls.may_mount() else ""
        own = image.roots(image.mapped()) if namespaces else image.unmapped_roots()
        roots = own if stage else ()
        shown = image.mapped() if namespaces else image.unmapped(lambda path: _staged(path, stage, roots))
        inside = {
            "engine": self.engine,
            "preload": list(preload),
            "readable": list(shown.readable),
            "writable": ["/tmp"] if namespaces else [],  # noqa: S108 - the sandbox's own
            "site": shown.site,
            "without": sorted(self.without),
        }
        start = (
            f"import sys; sys.path.insert(0, {shown.app!r}); from kakoi.enclave.engines.__main__ import main; main()"
        )
        command = [shown.interpreter, "-I", "-S", "-B", "-X", "utf8", "-c", start, json.dumps(inside)]
        environment = _environment(threads, shown.library_path)
        inherit: list[int] = []
        if namespaces:
            arguments = _bubblewrap(shown, environment, stage, roots)
            if walls.SECCOMP not in self.without:
                machine = os.uname().machine
                inherit.append(_memory(seccomp.program(machine, final=False)))
                arguments += ["--seccomp", str(inherit[-1])]
            inherit.append(_memory(b"".join(a.encode("utf-8") + b"\0" for a in arguments)))
            opened += inherit
            command = [shutil.which("bwrap") or "bwrap", "--args", str(inherit[-1]), *command]
            environment = {}
        uid = walls.UIDS[(os.getpid() * 7 + self._serial) % len(walls.UIDS)] if root else None
        return {
            "cgroup": list(self._group.entries) if self._group else [],
            "stage": stage,
            "roots": list(roots),
            "rlimits": _launch_limits() if walls.RLIMITS not in self.without else {},
            "uid": None if walls.UID in self.without else uid,
            "parent": os.getpid(),
            "inherit": inherit,
            "command": command,
            "environment": environment,
        }

    @property
    def process_id(self) -> int:
        """Of the sandbox's outermost process."""
        return self._process.pid

    def wait_ready(self, seconds: float) -> str:
        """Wait until the libraries are loaded. Returns an empty text, or why the sandbox did not start."""
        with self._waiting:
            if self._ready:
                return ""
            self._control.settimeout(seconds)
            try:
                self._ready = bool(self._control.recv(1))
            except OSError:
                self._ready = False
            self._control.settimeout(None)
            if self._ready:
                return ""
        self._pump(0.2)
        last = bytes(self._buffers[self._log]).decode("utf-8", "replace").strip().splitlines()
        return last[-1] if last else "the sandbox did not start"

    def run(
        self,
        job: bytes,
        parts: Sequence[int],
        settings: Settings,
        *,
        seconds: float,
        answer_bytes: int,
        memory_bytes: int,
        stopped: Callable[[], bool] = lambda: False,
        sink: Callable[[bytes], None] | None = None,
    ) -> Outcome:
        """Hand over the one job and see it to its end; the sandbox is dead afterwards. Raises Unavailable if it never started.

        With a ``sink`` the answer goes there as it comes, and the outcome's is empty.
        """
        begun = time.monotonic()
        reason = self.wait_ready(60)
        if reason:
            raise Unavailable("sandbox.start", "the sandbox did not start", hint="kakoi doctor says what is missing")
        if self._group is not None:
            try:
                self._group.limit(memory_bytes)
            except OSError as error:
                raise Unavailable("sandbox.cgroup", "expected to set a memory limit, got a refusal") from error
        self._sink = sink
        self._send(job, parts, settings)
        status = self._watch(time.monotonic() + seconds, answer_bytes, stopped)
        self.close()
        answer = bytes(self._buffers[self._answer])
        return Outcome(
            status=status,
            answer=answer[:answer_bytes],
            log=bytes(self._buffers[self._log]),
            seconds=time.monotonic() - begun,
            code=self._process.returncode,
        )

    def _send(self, job: bytes, parts: Sequence[int], settings: Settings) -> None:
        told = settings.encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(b"".join(n.to_bytes(4, "big") for n in (len(parts), len(told), len(job))))
            for first in range(0, len(parts), _PARTS_PER_MESSAGE):
                socket.send_fds(self._control, [b"p"], list(parts[first : first + _PARTS_PER_MESSAGE]))
            self._control.sendall(told)
            self._control.sendall(job)

    def _watch(self, deadline: float, answer_bytes: int, stopped: Callable[[], bool]) -> Status:
        while True:
            if max(self._taken, len(self._buffers[self._answer])) > answer_bytes:
                return "too-much"
            if self._answer not in self._open:
                code = self._reap(0.5)
                return "answered" if code == 0 else "died"
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            if stopped():
                return "stopped"
            self._pump(min(left, 0.2), answer_bytes)

    def _pump(self, seconds: float, answer_bytes: int = LOG_BYTES) -> None:
        ready, _, _ = select.select(list(self._open), [], [], seconds)
        for descriptor in ready:
            data = os.read(descriptor, 65536)
            if not data:
                self._open.discard(descriptor)
            if descriptor == self._answer and self._sink is not None:
                self._taken += len(data)
                self._sink(data)
                continue
            buffer = self._buffers[descriptor]
            most = LOG_BYTES if descriptor == self._log else answer_bytes + 1
            buffer += data[: max(0, most - len(buffer))]

    def _reap(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Kill everything inside and free what it held. Its memory is gone when this returns."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._drain(5)
        self._release()

    def _drain(self, seconds: float) -> None:
        """Wait until nobody holds the other end of a pipe: a process lets go of its memory before its descriptors."""
        deadline = time.monotonic() + seconds
        while self._open and time.monotonic() < deadline:
            self._pump(0.05, 0)

    def _release(self) -> None:
        if self._group is not None:
            self._group.remove()
            self._group = None
        if self._fds:
            for descriptor in self._fds:
                os.close(descriptor)
            self._control.close()
            self._fds = []


def _memory(data: bytes) -> int:
    descriptor = os.memfd_create("kakoi-sandbox", os.MFD_CLOEXEC)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    # Above the numbers that the launcher gives to the answer and the control socket.
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)
    os.close(descriptor)
    return high


def _popen(spec: int, ends: Sequence[int], extra: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start the launcher with 3 the answer's end and 4 the control socket's; other descriptors keep their numbers."""
    answer, log, control = ends
    command = [sys.executable, "-I", "-S", "-B", launch_module.__file__, str(spec), str(answer), str(control)]
    return subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={},
        cwd="/",
        pass_fds=(answer, control, *extra),
        start_new_session=True,
    )


def _launch_limits() -> dict[str, int]:
    """Limits from the start; those that depend on the job come with it."""
    return {
        "RLIMIT_CORE": 0,
        "RLIMIT_FSIZE": TMP_BYTES,
        "RLIMIT_NOFILE": MAX_PARTS + 64,
        "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_SIGPENDING": 64,
    }


def _environment(threads: int, library_path: str) -> dict[str, str]:
    fixed = {
        "PATH": "/nowhere",
        "HOME": "/tmp",  # noqa: S108 - the sandbox's own
        "MPLCONFIGDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "ARROW_DEFAULT_MEMORY_POOL": "mimalloc",
    }
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")
    return fixed | dict.fromkeys(counts, str(threads)) | ({"LD_LIBRARY_PATH": library_path} if library_path else {})


def _bubblewrap(shown: image.Image, environment: Mapping[str, str], stage: str, roots: Sequence[str]) -> list[str]:
    """bubblewrap's arguments: every namespace, no capability, nothing but the image, a small /tmp."""
    out = [f"--unshare-{kind}" for kind in ("user", "ipc", "pid", "net", "uts", "cgroup")]
    out += ["--disable-userns", "--assert-userns-disabled", "--die-with-parent", "--new-session", "--clearenv"]
    out += ["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "job"]
    for source, target in shown.binds:
        out += ["--ro-bind", _staged(source, stage, roots), target]
    for target in shown.masks:
        out += ["--size", "4096", "--tmpfs", target, "--remount-ro", target]
    out += ["--size", str(TMP_BYTES), "--perms", "0700", "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    for name, value in environment.items():
        out += ["--setenv", name, value]
    return out


def _staged(source: str, stage: str, roots: Sequence[str]) -> str:
    for number, root in enumerate(roots):
        if source == root or source.startswith(root + "/"):
            return f"{stage}/{number}{source[len(root) :]}"
    return source
