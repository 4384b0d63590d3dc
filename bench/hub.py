"""How many small signed requests a hub on one core answers in a second, and what one signature costs."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from kakoi.core.crypto import RequestKey, RequestVerifier
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import enclave_identity

_SECONDS = 5
_CLIENTS = 4


Row = tuple[str, float, str]


def run() -> list[Row]:
    """A signature's price, and the rate of requests."""
    return [signature(), *requests()]


def signature() -> Row:
    """The check of one Ed25519 signature, in processor time."""
    key = RequestKey(os.urandom(32))
    verifier, base = RequestVerifier(key.public), b'"@method": GET' + bytes(500)
    signed = key.sign_request(base)
    begun = time.process_time()
    for _ in range(1000):
        verifier.verify(base, signed)
    return "µs for one verification", (time.process_time() - begun) * 1000, "Ed25519, processor time"


def requests() -> list[Row]:
    """A hub process pinned to one core, clients on the others."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        hub = Path(directory) / "hub"
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, cores[:1])
            from kakoi.hub.serve import serve

            serve(Settings(directory=hub, port=0))
            os._exit(0)
        try:
            os.sched_setaffinity(0, cores[1:] or cores)
            while not (hub / "address").exists():
                time.sleep(0.05)
            url = (hub / "address").read_text().strip()
            token = (hub / "operator.token").read_text().strip()
            return _load(url, token, child)
        finally:
            os.kill(child, 15)
            os.waitpid(child, 0)
            os.sched_setaffinity(0, cores)


def _load(url: str, token: str, hub: int) -> list[Row]:
    counts, times, stop = [0] * _CLIENTS, [list[float]() for _ in range(_CLIENTS)], threading.Event()

    def work(number: int) -> None:
        with HubClient(url, identity=enclave_identity(f"e{number}", token)) as client:
            while not stop.is_set():
                begun = time.perf_counter()
                client.log_checkpoint()
                times[number].append(time.perf_counter() - begun)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(_CLIENTS)]
    used = _processor(hub)
    for thread in threads:
        thread.start()
    time.sleep(_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    spent, done = _processor(hub) - used, sum(counts)
    middle = statistics.median(t for some in times for t in some) * 1000
    return [
        ("signed requests/s", done / _SECONDS, f"log checkpoint, {_CLIENTS} clients, median {middle:.1f} ms"),
        ("µs of the hub for one", spent / done * 1e6, "processor time"),
        ("signed requests/s on one core", done / spent, "what that processor time allows; the goal is 500"),
    ]


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
