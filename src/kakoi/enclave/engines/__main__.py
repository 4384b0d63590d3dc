"""The program inside the sandbox: put up the walls, preload, take one job, put up the last wall, run it, answer, end.

It is started with nothing but these descriptors: 1 and 2 a bounded log that nobody reads, 3 the answer, 4 a socket on which the
parent sends one job and its parts. Landlock comes before any library, because it must come before any thread; the second
seccomp filter comes after all libraries and before the first byte of the analyst's source is compiled.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import json
import os
import resource
import socket
import sys
from typing import Any, Final, NoReturn

from kakoi.core.errors import KakoiError
from kakoi.enclave.engines import frames, harness, keying, sql_engine
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import Job, KeyingJob
from kakoi.enclave.sandbox import landlock, seccomp

ANSWER: Final = 3
CONTROL: Final = 4
_READY: Final = b"R"
_DESCRIPTOR_BYTES: Final = array.array("i").itemsize


def _exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(CONTROL, count - len(data))
        if not more:
            os._exit(0)  # the parent is gone or does not need us
        data += more
    return data


def _receive() -> tuple[dict[str, Any], bytes, list[int]]:
    """Settings, job and the parts' descriptors. Ends the process if the parent hangs up."""
    parts, settings, job = (int.from_bytes(_exactly(4), "big") for _ in range(3))
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=CONTROL)
    found: list[int] = []
    while len(found) < parts:
        data, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(256 * _DESCRIPTOR_BYTES), socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        for _, _, content in ancillary:
            found += array.array("i", content[: len(content) - len(content) % _DESCRIPTOR_BYTES])
    received = json.loads(_exactly(settings)), _exactly(job), found
    control.close()
    return received


def _limit(settings: dict[str, Any]) -> None:
    """rlimits of the job. The hard limits fall too, so the job cannot raise them."""
    for name, value in settings["rlimits"].items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def _files(job: Job, descriptors: list[int]) -> dict[str, bytes]:
    """Sealed code by name, in the job's order; its descriptors are closed."""
    found = {}
    for named, descriptor in zip(job.files, descriptors, strict=True):
        with open(descriptor, "rb") as file:
            file.seek(0)
            found[named.file] = file.read()
    return found


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(ANSWER, view) :]


def _answer(data: bytes) -> NoReturn:
    with contextlib.suppress(OSError):
        _write(data)
    os._exit(0)


def _tables(job: Job, parts: list[int]) -> dict[str, Any]:
    """The declared columns; then the files are gone, with every column that the analysis may not read."""
    found = frames.frames(job, parts)
    for descriptor in parts:
        os.close(descriptor)
    return found


def _keyed(job: KeyingJob, parts: list[int]) -> bytes:
    """Empty once every file was written anew, else a failure by its code."""
    try:
        keying.run(job, parts, _write)
    except Stopped as stopped:
        return stopped.failure().encode()
    except BaseException:
        return Stopped("engine.failed").failure().encode()
    return b""


def _result(job: Job, parts: list[int], settings: dict[str, Any]) -> bytes:
    """The encoded answer: a result, or a failure by its code."""
    try:
        if job.engine == "sql":
            result = sql_engine.run(
                job,
                parts,
                memory_megabytes=settings["engine_megabytes"],
                threads=settings["threads"],
                milliseconds=settings["milliseconds"],
            )
        else:
            code = parts[len(parts) - len(job.files) :]
            del parts[len(parts) - len(job.files) :]
            result = harness.run(job, lambda: _tables(job, parts), _files(job, code) if job.files else None)
        return result.encode()
    except Stopped as stopped:
        return stopped.failure().encode()
    except KakoiError as error:
        subject = error.code if error.code.startswith(("record.", "encoding.")) else ""
        return Stopped("engine.failed", subject).failure().encode()
    except BaseException:  # whatever happened, the answer is one code and never a text that holds cells
        return Stopped("engine.failed").failure().encode()


def main() -> NoReturn:
    """Serve one job and end. Settings of the sandbox itself are the program's one argument."""
    shape = json.loads(sys.argv[1])
    without = set(shape["without"])
    if "sandbox.landlock" not in without:
        landlock.restrict(shape["readable"], shape["writable"])
    sys.path.append(shape["site"])
    for name in shape["preload"]:
        importlib.import_module(name)
    if "duckdb" in shape["preload"]:
        sql_engine.warm()
    os.write(CONTROL, _READY)
    settings, data, parts = _receive()
    if "sandbox.rlimits" not in without:
        _limit(settings)
    keying_job = KeyingJob.decode(data) if shape["engine"] == "keying" else None
    job = Job.decode(data) if keying_job is None else None
    if "sandbox.seccomp" not in without:
        seccomp.install(seccomp.program(os.uname().machine, final=True, own_pid=os.getpid()))
    if keying_job is not None:
        _answer(_keyed(keying_job, parts))
    if job is not None:
        _answer(_result(job, parts, settings))
    os._exit(1)


if __name__ == "__main__":
    main()
