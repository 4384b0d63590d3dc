"""The seven TPM 2.0 commands that evidence needs, written by hand (TCG TPM 2.0 Library, Part 3, version 1.59).

Big-endian; sessions are empty passwords only, because nothing that is asked here is secret. ``Channel`` carries one command and
brings its response: the kernel's /dev/tpmrm0, or a socket to swtpm in tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from kakoi.core.errors import Malformed, Refused, Unavailable

Channel = Callable[[bytes], bytes]
"""One command in, its response out. Raises OSError."""
MAX_RESPONSE: Final = 8192
OWNER: Final = 0x40000001
_PASSWORD: Final = 0x40000009
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_RETRY: Final = frozenset({0x908, 0x90A, 0x922})
"""TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY: the same command again."""
_ATTEMPTS: Final = 10
_SHA256: Final = 0x000B
_NULL: Final = 0x0010
_NV_BLOCK: Final = 512
NV_UNDEFINED: Final = 0x18B
"""TPM_RC_HANDLE on handle 1: there is no such index."""


def kernel_channel(path: str = "/dev/tpmrm0") -> Channel:
    """The resource manager of the kernel; one open file for each command."""

    def send(command: bytes) -> bytes:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(descriptor, command)
            return os.read(descriptor, MAX_RESPONSE)
        finally:
            os.close(descriptor)

    return send


def _u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def sized(data: bytes) -> bytes:
    """A TPM2B: 2 bytes of length and the data."""
    return _u16(len(data)) + data


class TpmError(Exception):
    """A response code that is not success. Internal: producers turn it into ours."""

    def __init__(self, code: int) -> None:
        super().__init__(f"TPM response code 0x{code:x}")
        self.code = code


class Tpm:
    """A TPM behind a channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _command(
        self, code: int, *, handles: Sequence[int] = (), authorised: int = 0, parameters: bytes = b""
    ) -> bytes:
        """Response parameters. ``authorised`` handles get an empty password. Raises TpmError, Malformed, Unavailable."""
        sessions = authorised * (_u32(_PASSWORD) + sized(b"") + b"\x00" + sized(b""))
        body = b"".join(map(_u32, handles)) + (_u32(len(sessions)) + sessions if authorised else b"") + parameters
        command = _u16(_SESSIONS if authorised else _NO_SESSIONS) + _u32(10 + len(body)) + _u32(code) + body
        for _ in range(_ATTEMPTS):
            response = self._channel(command)
            if len(response) < 10 or int.from_bytes(response[2:6], "big") != len(response):
                raise Malformed("evidence.tpm", "expected a whole response from the TPM, got something else")
            result = int.from_bytes(response[6:10], "big")
            if result == 0:
                return self._parameters(response, bool(authorised))
            if result not in _RETRY:
                raise TpmError(result)
        raise Unavailable("evidence.tpm-busy", "expected the TPM to answer, it asked to be asked again every time")

    @staticmethod
    def _parameters(response: bytes, with_sessions: bool) -> bytes:
        if not with_sessions:
            return response[10:]
        size = int.from_bytes(response[10:14], "big")
        if 14 + size > len(response):
            raise Malformed("evidence.tpm", "expected parameters within the TPM's response, got an overlong size")
        return response[14 : 14 + size]

    def nv_size(self, index: int) -> int:
        """Bytes of an NV index (TPM2_NV_ReadPublic)."""
        public = _take_sized(self._command(0x169, handles=(index,)))[0]
        if len(public) < 14:
            raise Malformed("evidence.tpm", "expected the public area of an NV index, got less")
        return int.from_bytes(public[-2:], "big")

    def nv_read(self, index: int, size: int) -> bytes:
        """The first ``size`` bytes of an NV index, in blocks (TPM2_NV_Read under owner authorisation)."""
        out = b""
        while len(out) < size:
            length = min(_NV_BLOCK, size - len(out))
            block, _ = _take_sized(
                self._command(0x14E, handles=(OWNER, index), authorised=1, parameters=_u16(length) + _u16(len(out)))
            )
            if len(block) != length:
                raise Malformed("evidence.tpm", "expected as many bytes of NV memory as asked for, got others")
            out += block
        return out

    def nv_define(self, index: int, size: int, attributes: int) -> None:
        """Make an NV index for the owner (TPM2_NV_DefineSpace)."""
        public = _u32(index) + _u16(_SHA256) + _u32(attributes) + sized(b"") + _u16(size)
        self._command(0x12A, handles=(OWNER,), authorised=1, parameters=sized(b"") + sized(public))

    def nv_write(self, index: int, data: bytes) -> None:
        """Write at most 512 bytes to an NV index from its start (TPM2_NV_Write)."""
        self._command(0x137, handles=(OWNER, index), authorised=1, parameters=sized(data) + _u16(0))

    def pcrs(self) -> bytes:
        """The 24 SHA-256 PCRs in order, 768 bytes (TPM2_PCR_Read, as often as it takes)."""
        found: dict[int, bytes] = {}
        while len(found) < 24:
            wanted = [number for number in range(24) if number not in found]
            answer = self._command(0x17E, parameters=selection(wanted))
            got, values = _pcr_values(answer)
            fresh = {number: value for number, value in zip(got, values, strict=True) if number in wanted}
            if not fresh:
                raise Refused("evidence.pcrs", "expected the SHA-256 bank of all 24 PCRs, got none of the missing ones")
            found |= fresh
        return b"".join(found[number] for number in range(24))

    def quote(self, key: int, qualifying: bytes) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over all 24 SHA-256 PCRs (TPM2_Quote) by the persistent key ``key``."""
        parameters = sized(qualifying) + _u16(_NULL) + selection(range(24))
        attest, signature = _take_sized(self._command(0x158, handles=(key,), authorised=1, parameters=parameters))
        return attest, signature


def selection(pcrs: Sequence[int]) -> bytes:
    """TPML_PCR_SELECTION with one SHA-256 bank."""
    bits = sum(1 << number for number in pcrs)
    return _u32(1) + _u16(_SHA256) + b"\x03" + bits.to_bytes(3, "little")


def _take_sized(data: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(data[:2], "big")
    if len(data) < 2 + size:
        raise Malformed("evidence.tpm", "expected a whole TPM2B, got less")
    return data[2 : 2 + size], data[2 + size :]


def _pcr_values(answer: bytes) -> tuple[list[int], list[bytes]]:
    """Numbers and values in a TPM2_PCR_Read response: update counter, selection, digests."""
    if len(answer) < 18 or answer[4:8] != _u32(1) or answer[8:11] != _u16(_SHA256) + b"\x03":
        raise Malformed("evidence.tpm", "expected one SHA-256 selection in the TPM's answer, got another")
    bits = int.from_bytes(answer[11:14], "little")
    numbers = [number for number in range(24) if bits >> number & 1]
    count, rest, values = int.from_bytes(answer[14:18], "big"), answer[18:], []
    for _ in range(min(count, 24)):
        value, rest = _take_sized(rest)
        values.append(value)
    if rest or len(values) != len(numbers) or any(len(value) != 32 for value in values):
        raise Malformed("evidence.tpm", "expected one SHA-256 value for each selected PCR, got others")
    return numbers, values
