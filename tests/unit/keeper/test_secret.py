"""Secret memory: drawn, moved into, zeroed, and never used after it is gone; layers that are missing have names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kakoi.core import crypto
from kakoi.core.errors import Misuse, Refused
from kakoi.enclave import machine
from kakoi.enclave.keeper import hardening, secret
from kakoi.enclave.keeper.secret import SecretMemory, wipe_bytes
from kakoi.enclave.keeper.session import SessionKeys
from support.tree import ROOT


def test_random_bytes_come_from_the_kernel() -> None:
    with SecretMemory(64) as memory:
        seen = set()
        for _ in range(8):
            memory.draw(0, 64)
            with memory.part(0, 64) as view:
                seen.add(bytes(view))
        assert len(seen) == 8
        assert bytes(64) not in seen


def test_a_secret_is_moved_not_copied() -> None:
    key = os.urandom(32)
    expected = bytes(bytearray(key))
    with SecretMemory(100) as memory:
        memory.take(40, key)
        assert key == bytes(32)
        with memory.part(40, 32) as view:
            assert bytes(view) == expected
        memory.clear(40, 32)
        with memory.part(40, 32) as view:
            assert bytes(view) == bytes(32)


def test_short_and_shared_bytes_are_left_alone() -> None:
    for shared in (b"", b"a", b"abc"):
        before = bytes(bytearray(shared))
        wipe_bytes(shared)
        assert shared == before


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (0, 5000), (4090, 10), (5, -1)])
def test_parts_outside_are_refused(start: int, length: int) -> None:
    with SecretMemory(10) as memory, pytest.raises(Misuse) as caught, memory.part(start, length):
        pass
    assert caught.value.code == "secret.range"


def test_nothing_is_used_after_it_was_wiped() -> None:
    memory = SecretMemory(10)
    memory.wipe()
    memory.wipe()
    uses: list[Callable[[], None]] = [
        lambda: memory.draw(0, 8),
        lambda: memory.clear(0, 8),
        lambda: memory.take(0, os.urandom(8)),
    ]
    for use in uses:
        with pytest.raises(Misuse):
            use()


def test_a_view_ends_with_its_use() -> None:
    with SecretMemory(10) as memory:
        with memory.part(0, 8) as view:
            pass
        with pytest.raises(ValueError, match="released"):
            bytes(view)


def test_session_keys_sign_and_open_until_they_are_told_to_forget() -> None:
    keys = SessionKeys()
    keys.verifying_key.verify(b"m", keys.sign(b"m"))
    sealed = crypto.seal(b"k" * 32, keys.sealing_public, info=b"i")
    assert keys.open(sealed, info=b"i") == b"k" * 32
    keys.forget_sealing()
    with pytest.raises(Refused):
        keys.open(sealed, info=b"i")
    keys.verifying_key.verify(b"m", keys.sign(b"m"))
    keys.wipe()
    with pytest.raises(Misuse):
        keys.sign(b"m")


def test_every_session_has_other_keys() -> None:
    assert len({SessionKeys().sealing_public for _ in range(4)}) == 4


CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
from kakoi.enclave.keeper.secret import SecretMemory
memory = SecretMemory(10)
child = os.fork()
if child == 0:
    with memory.part(0, 1) as view:
        bytes(view)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_child_does_not_have_the_pages() -> None:
    """MADV_DONTFORK: touching them there is a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", CHILD, str(ROOT / "src")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "-11"


def test_without_secret_pages_the_layer_is_missing_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret, "_secret_pages", lambda size: 0)
    assert hardening.SECRET_MEMORY in hardening.missing()
    found = {layer.name: layer for layer in machine.layers()}
    assert not found[hardening.SECRET_MEMORY].present
    assert hardening.SECRET_MEMORY in machine.missing()


def test_a_swap_device_is_a_missing_layer(tmp_path: Path) -> None:
    table = tmp_path / "swaps"
    table.write_text("Filename\tType\tSize\tUsed\tPriority\n")
    assert hardening.NO_SWAP not in hardening.missing(table)
    table.write_text(table.read_text() + "/dev/sda2 partition 100 0 -2\n")
    assert hardening.NO_SWAP in hardening.missing(table)
    assert hardening.NO_SWAP in hardening.missing(tmp_path / "none"), (
        "a machine that does not say counts as one that swaps"
    )


def test_every_layer_has_a_name_and_a_worth() -> None:
    names = [layer.name for layer in machine.layers()]
    assert len(names) == len(set(names)) == 11
    assert all(len(layer.worth) > 50 for layer in machine.layers())


def test_a_hardened_process_dumps_no_core_and_cannot_be_traced_by_equals() -> None:
    code = (
        "import ctypes, resource, sys; sys.path.insert(0, sys.argv[1]);"
        "from kakoi.enclave.keeper.hardening import harden; harden();"
        "print(ctypes.CDLL(None).prctl(3), ctypes.CDLL(None).prctl(39, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", code, str(ROOT / "src")], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("(")[0].split() == ["0", "1"]
    assert done.stdout.strip().endswith("(0, 0)")
