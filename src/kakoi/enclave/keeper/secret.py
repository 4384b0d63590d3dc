"""Memory for root secrets: out of reach of other processes where the kernel can do that, never swapped, dumped or forked.

    memfd_secret   pages that are taken out of the kernel's own map (Linux 5.14, memfd_secret(2)): neither /proc/PID/mem nor
                   process_vm_readv nor ptrace reads them, whoever asks
    locked         ordinary anonymous pages under mlock(2): not swapped, but root on the same machine reads them
    ordinary       the kernel refused even the lock

In all cases MADV_DONTFORK keeps the pages from children and MADV_DONTDUMP from core files. Python and the libraries below it make
copies where a secret is used; LIMITATIONS.md says which remain.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Final, Literal

from kakoi.core.errors import Misuse, Unavailable

Kind = Literal["memfd_secret", "locked", "ordinary"]
_MEMFD_SECRET: Final = 447
"""System call number, the same on x86-64 and arm64 (include/uapi/asm-generic/unistd.h)."""
_CLOEXEC: Final = 0o2000000
_WHOLE: Final = 256
"""Bytes that getrandom(2) gives whole, whatever interrupts it."""
_FAILED: Final = ctypes.c_void_p(-1).value


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.getrandom.restype = ctypes.c_ssize_t
    libc.getrandom.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint]
    return libc


def _map(size: int, descriptor: int) -> int:
    flags = mmap.MAP_SHARED if descriptor >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    address = _libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if address in (None, _FAILED):
        return 0
    return int(address)


def _secret_pages(size: int) -> int:
    """Address of pages from memfd_secret(2); 0 where the kernel has none or this process may lock no more memory."""
    descriptor = int(_libc().syscall(_MEMFD_SECRET, _CLOEXEC))
    if descriptor < 0:
        return 0
    try:
        os.ftruncate(descriptor, size)
        return _map(size, descriptor)
    except OSError:
        return 0
    finally:
        os.close(descriptor)


class SecretMemory:
    """A region of at least ``size`` bytes, zero at first. Wipe it in any case; it is also a context manager."""

    __slots__ = ("_address", "_lock", "_size", "kind")

    def __init__(self, size: int) -> None:
        self._lock = threading.RLock()
        """Nothing is unmapped while another thread uses it."""
        self._size = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.kind: Kind = "memfd_secret"
        self._address = _secret_pages(self._size)
        if not self._address:
            self._address = _map(self._size, -1)
            if not self._address:
                raise Unavailable("enclave.memory", "no memory for the session's keys")
            self.kind = "locked" if _libc().mlock(self._address, self._size) == 0 else "ordinary"
        for advice in (mmap.MADV_DONTFORK, mmap.MADV_DONTDUMP):
            _libc().madvise(self._address, self._size, advice)

    @contextmanager
    def part(self, start: int, length: int) -> Iterator[memoryview]:
        """``length`` bytes from ``start``, to be used at once and not kept. Raises Misuse outside the region or after ``wipe``."""
        with self._lock:
            if not self._address or not 0 <= start <= start + length <= self._size:
                raise Misuse("secret.range", "expected a part of secret memory that is still there, got another")
            view = memoryview((ctypes.c_char * length).from_address(self._address + start)).cast("B")
            try:
                yield view
            finally:
                view.release()

    def draw(self, start: int, length: int) -> None:
        """Fill a part with random bytes, straight from the kernel. Raises Unavailable."""
        if length > _WHOLE:
            raise Misuse("secret.range", f"expected to draw at most {_WHOLE} bytes at once, got more")
        with self.part(start, length) as view:
            address = ctypes.addressof(ctypes.c_char.from_buffer(view))
            if _libc().getrandom(address, length, 0) != length:
                raise Unavailable("enclave.randomness", "expected random bytes from the kernel, got none")

    def take(self, start: int, secret: bytes) -> None:
        """Move a secret here: it is copied and then zeroed where it was. The caller must hold its only reference."""
        with self.part(start, len(secret)) as view:
            view[:] = secret
        wipe_bytes(secret)

    def clear(self, start: int, length: int) -> None:
        """Zero a part that is no longer needed."""
        with self.part(start, length) as view:
            view[:] = bytes(length)

    def wipe(self) -> None:
        """Zero everything and give it back. Does nothing the second time."""
        with self._lock:
            if self._address:
                address, self._address = self._address, 0
                ctypes.memset(address, 0, self._size)
                _libc().munmap(address, self._size)

    def __enter__(self) -> SecretMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()


def wipe_bytes(secret: bytes) -> None:
    """Zero a ``bytes`` object that a library made and nobody else holds.

    Python means ``bytes`` to be immutable and offers no way; this writes where CPython keeps them (the header's size less one).
    Short ones are shared by the interpreter and therefore left alone.
    """
    if type(secret) is bytes and len(secret) >= 16:
        ctypes.memset(id(secret) + bytes.__basicsize__ - 1, 0, len(secret))


def kind_here() -> Kind:
    """What this process gets."""
    with SecretMemory(1) as memory:
        return memory.kind
