"""Root inside the enclave's machine reads the keeper's memory. What it finds, where it finds nothing, and what is gone when."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from kakoi.core import crypto
from kakoi.enclave.keeper import secret
from support.memory import copies
from support.tree import ROOT

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root reads the memory of a process that is not dumpable"
)
START = "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from attacks.keeper.victim import main; main()"
SEEDS = ("ed25519", "mldsa65", "mlkem768", "x25519")


class Victim:
    """A process that holds keys as the keeper does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.kind, public, *hidden = process.stdout.readline().split()
        self.public = bytes.fromhex(public)
        self.data_key = os.urandom(32)
        seeds = [bytes(byte ^ 0xFF for byte in bytes.fromhex(text)) for text in hidden]
        self.roots = dict(zip(SEEDS, seeds, strict=True)) | {"data key": self.data_key}
        self.derived = derived(self.roots)
        self.file_key = crypto.hkdf_sha256(self.data_key, salt=bytes(32), info=b"file", length=32)

    def go(self, stage: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if stage == "open":
            stage += " " + crypto.seal(self.data_key, self.public, info=b"test").hex()
        self._process.stdin.write(stage + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().startswith(stage.split()[0])

    def found(self, wanted: Mapping[str, bytes]) -> set[str]:
        return {name for name, count in copies(self._process.pid, wanted).items() if count}


def derived(roots: Mapping[str, bytes]) -> dict[str, bytes]:
    """What the algorithms expand the seeds to, and what is as good as a seed (RFC 8032 §5.1.5, FIPS 204 §6.1, FIPS 203 §5.1)."""
    ed25519 = hashlib.sha512(roots["ed25519"]).digest()
    mldsa65 = hashlib.shake_256(roots["mldsa65"] + bytes([6, 5])).digest(128)
    mlkem768 = hashlib.sha3_512(roots["mlkem768"][:32] + bytes([3])).digest()
    return {
        "ed25519 prefix": ed25519[32:],
        "ml-dsa rho'": mldsa65[32:96],
        "ml-dsa K": mldsa65[96:],
        "ml-kem sigma": mlkem768[32:],
    }


@contextmanager
def victim(*arguments: str) -> Iterator[Victim]:
    paths = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    with subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", START, paths, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Victim(process)
        finally:
            process.kill()


@pytest.mark.skipif(secret.kind_here() != "memfd_secret", reason="this kernel has no memfd_secret")
def test_root_finds_no_root_key_where_the_kernel_hides_them() -> None:
    """T60: at no stage of a session, neither a seed nor what it expands to."""
    with victim() as target:
        assert target.kind == "memfd_secret"
        for stage in ("idle", "sign", "open", "decrypt", "decrypted", "sign", "wipe"):
            if stage != "idle":
                target.go(stage)
            assert target.found(target.roots | target.derived) == set(), stage


def test_a_file_key_is_found_only_while_its_file_is_decrypted() -> None:
    """T60: what remains, measured: the library needs the short-lived key of one file in ordinary memory."""
    with victim() as target:
        target.go("open")
        target.go("decrypt")
        assert target.found({"file key": target.file_key}) == {"file key"}
        target.go("decrypted")
        assert target.found({"file key": target.file_key}) == set()


def test_everything_is_gone_after_the_session_even_without_secret_pages() -> None:
    """T61: ordinary locked memory is readable by root while the session lasts, which is why it is a missing layer; then it is zero."""
    with victim("ordinary") as target:
        assert target.kind in ("locked", "ordinary")
        target.go("open")
        assert target.found(target.roots) == {*SEEDS, "data key"}
        target.go("decrypted")
        assert target.found(target.roots) == {"ed25519", "mldsa65"}, "data and sealing keys go when the data are open"
        target.go("wipe")
        assert target.found(target.roots | target.derived) == set()
