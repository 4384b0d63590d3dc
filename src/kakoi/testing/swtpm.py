"""A real TPM 2.0 for tests: Debian's swtpm as a process of its own, prepared like the vTPM of an Azure confidential VM."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from kakoi.core.errors import Unavailable
from kakoi.evidence.tpm import OWNER, Tpm, sized

_ENDORSEMENT = 0x4000000B
_RSA_SIGNING_KEY = (
    (0x0001).to_bytes(2, "big")  # RSA
    + (0x000B).to_bytes(2, "big")  # names by SHA-256
    + (0x00050072).to_bytes(4, "big")  # fixed, restricted, signs, usable with an empty password
    + sized(b"")
    + (0x0010).to_bytes(2, "big")  # no symmetric algorithm
    + (0x0014).to_bytes(2, "big")  # RSASSA
    + (0x000B).to_bytes(2, "big")  # SHA-256
    + (2048).to_bytes(2, "big")
    + bytes(4)
    + sized(b"")
)


class Swtpm:
    """One emulated TPM with its state in ``directory``. As a context manager it ends the process."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "tpm.socket"
        directory.mkdir(parents=True, exist_ok=True)
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}", "--flags", "startup-clear"]
        command += ["--server", f"type=unixio,path={self._path}", "--ctrl", f"type=unixio,path={directory}/control"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        self._socket = self._connect()
        self.tpm = Tpm(self.send)

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._path))
                connection.settimeout(20)
                return connection
            except OSError:
                connection.close()
                time.sleep(0.05)
        raise Unavailable("testing.swtpm", "expected swtpm to start, it did not", hint="apt-get install swtpm")

    def send(self, command: bytes) -> bytes:
        """One command and its response."""
        self._socket.sendall(command)
        response = b""
        while len(response) < 10 or len(response) < int.from_bytes(response[2:6], "big"):
            part = self._socket.recv(8192)
            if not part:
                raise OSError("swtpm hung up")
            response += part
        return response

    def make_attestation_key(self, handle: int) -> bytes:
        """A restricted RSA signing key, kept at ``handle``; returns its TPMT_PUBLIC."""
        empty = sized(sized(b"") + sized(b""))
        parameters = empty + sized(_RSA_SIGNING_KEY) + sized(b"") + bytes(4)
        answer = self._raw(0x131, (_ENDORSEMENT,), parameters)
        transient = int.from_bytes(answer[10:14], "big")
        size = int.from_bytes(answer[18:20], "big")
        self._raw(0x120, (OWNER, transient), handle.to_bytes(4, "big"))
        self._raw(0x165, (), transient.to_bytes(4, "big"), sessions=False)
        return answer[20 : 20 + size]

    def store(self, index: int, data: bytes) -> None:
        """An NV index with these bytes, readable and writable by the owner."""
        self.tpm.nv_define(index, len(data), 0x00020002 | 0x00040004)
        for start in range(0, len(data), 512):
            block = data[start : start + 512]
            self._raw(0x137, (OWNER, index), sized(block) + start.to_bytes(2, "big"), authorised=1)

    def extend(self, pcr: int, digest: bytes) -> None:
        """TPM2_PCR_Extend with a SHA-256 digest."""
        self._raw(0x182, (pcr,), (1).to_bytes(4, "big") + (0x000B).to_bytes(2, "big") + digest)

    def _raw(
        self, code: int, handles: tuple[int, ...], parameters: bytes, *, authorised: int = 1, sessions: bool = True
    ) -> bytes:
        password = (0x40000009).to_bytes(4, "big") + bytes(5)
        area = len(password * authorised).to_bytes(4, "big") + password * authorised if sessions else b""
        body = b"".join(handle.to_bytes(4, "big") for handle in handles) + area + parameters
        tag = 0x8002 if sessions else 0x8001
        command = tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + code.to_bytes(4, "big") + body
        response = self.send(command)
        if response[6:10] != bytes(4):
            raise AssertionError(f"swtpm refused command 0x{code:x}: 0x{response[6:10].hex()}")
        return response

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(timeout=20)
