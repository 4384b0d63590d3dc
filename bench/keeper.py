"""What the keeper itself needs while 5 GB stream through it, against 500 MB.

A process of its own does what the keeper does with one file: ciphertext comes in pieces, every segment is checked and decrypted,
plaintext goes into a sealed memory file. That file is the data, and needs the data's size; what is measured is the process
beside it (VmHWM of proc_pid_status(5): mapped pages, to which a memory file that nobody maps does not belong).
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from kakoi.dataset.format import associated_data
from kakoi.dataset.seal import SealingWriter

TOTAL: Final = 5 * 10**9
ALLOWED: Final = 500e6
MIB: Final = 1 << 20
Row = tuple[str, float, str]
_KEEPER: Final = """
import sys, time
from pathlib import Path
from kakoi.contract.model import SealedFile
from kakoi.dataset.format import associated_data
from kakoi.enclave.keeper import data
import os

path, size, digests = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]).read_bytes()

class Source:
    def blob(self, blob, *, size):
        with path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 18):
                yield piece

class Manifest:
    sealed_as, version = "0" * 32, 1

file = SealedFile(name="part0", blob="0" * 64, size=size, segment_digests=digests)
started = time.perf_counter()
descriptor = data.open_file(Source(), Manifest(), file, bytes(32))
took = time.perf_counter() - started
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(os.fstat(descriptor).st_size, took, peak * 1024)
"""


def measure(total: int) -> tuple[float, int]:
    """Seconds and peak bytes of a keeper's process for ``total`` bytes of plaintext."""
    block = secrets.token_bytes(MIB)
    with tempfile.TemporaryDirectory() as place:
        path, digests = Path(place, "part0.sealed"), Path(place, "digests")
        with (
            path.open("wb") as sink,
            SealingWriter(
                sink,
                data_key=bytes(32),
                associated_data=associated_data("0" * 32, 1, "part0"),
                salt=secrets.token_bytes(32),
                nonce_prefix=secrets.token_bytes(7),
            ) as writer,
        ):
            for start in range(0, total, MIB):
                writer.write(block[: min(MIB, total - start)])
        digests.write_bytes(writer.summary.segment_digests)
        command = [sys.executable, "-c", _KEEPER, str(path), str(writer.summary.size), str(digests)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    size, took, peak = printed.split()
    if int(size) != total:
        raise RuntimeError("the benchmark did not read what it sealed")
    return float(took), int(peak)


def run(total: int = TOTAL) -> list[Row]:
    """The process' peak as a share of what is allowed."""
    took, peak = measure(total)
    detail = f"{peak / 1e6:.0f} MB while {total / 1e9:.1f} GB went through at {total / took / 1e9:.2f} GB/s; must stay below 1"
    return [("keeper's own memory / 500 MB", peak / ALLOWED, detail)]
