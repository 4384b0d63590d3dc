"""AWS Nitro Enclaves: /dev/nsm.

Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, and the Linux driver ``nsm.c``. One ioctl carries a CBOR request and
brings a CBOR response; both are small and of one fixed shape, so they are written and read here by hand.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from typing import Final

from kakoi.attest.report import Evidence
from kakoi.core.errors import Refused
from kakoi.evidence.devices import no_answer, require_report_data

DEVICE: Final = "/dev/nsm"
MAX_REQUEST: Final = 0x1000
MAX_RESPONSE: Final = 0x3000
_IOCTL: Final = 0xC0200A00
"""_IOWR(0x0A, 0, struct nsm_raw): two iovecs, 32 bytes."""

Ask = Callable[[bytes], bytes]
"""One question to the device: CBOR in, CBOR out. Raises OSError."""


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Raw(ctypes.Structure):
    _fields_ = (("request", _Iovec), ("response", _Iovec))


def ask_kernel(request: bytes) -> bytes:
    """Ask the real device."""
    question = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(MAX_RESPONSE)
    raw = _Raw(
        _Iovec(ctypes.addressof(question), len(request)),
        _Iovec(ctypes.addressof(answer), MAX_RESPONSE),
    )
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _IOCTL, raw)
    finally:
        os.close(descriptor)
    return answer.raw[: raw.response.length]


def _text(value: str) -> bytes:
    return bytes([0x60 + len(value)]) + value.encode("ascii")


def request_for(report_data: bytes) -> bytes:
    """``{"Attestation": {"user_data": report data, "nonce": null, "public_key": null}}`` in CBOR (RFC 8949)."""
    data = b"\x58" + bytes([len(report_data)]) + report_data
    return (
        b"\xa1" + _text("Attestation") + b"\xa3" + _text("user_data") + data
        + _text("nonce") + b"\xf6" + _text("public_key") + b"\xf6"
    )  # fmt: skip


def document_of(response: bytes) -> bytes:
    """The document in ``{"Attestation": {"document": bytes}}``. Raises Refused for an error of the device or any other shape."""
    head = b"\xa1" + _text("Attestation") + b"\xa1" + _text("document")
    if response.startswith(b"\xa1" + _text("Error")):
        raise Refused(
            "evidence.nsm-error", "expected a document from /dev/nsm, got an error", hint="see the enclave's console"
        )
    body = response[len(head) :]
    length = {0x58: 1, 0x59: 2}.get(body[0] if body else 0, 0)
    size = int.from_bytes(body[1 : 1 + length], "big")
    document = body[1 + length :]
    if not response.startswith(head) or not length or not document or len(document) != size:
        raise Refused("evidence.nsm-answer", "expected exactly one document from /dev/nsm, got something else")
    return document


class NsmProducer:
    """Asks the Nitro Security Module. The report data travel as ``user_data``; nonce and public key stay empty."""

    def __init__(self, ask: Ask = ask_kernel) -> None:
        self._ask = ask

    def evidence(self, report_data: bytes) -> Evidence:
        """An attestation document over these 64 bytes. Raises Unavailable or Refused."""
        require_report_data(report_data)
        try:
            response = self._ask(request_for(report_data))
        except OSError as error:
            raise no_answer(DEVICE, error) from error
        if len(response) > MAX_RESPONSE:
            raise Refused("evidence.answer-size", f"expected at most {MAX_RESPONSE} bytes from /dev/nsm, got more")
        return Evidence(platform="nitro", statement=document_of(response), parts=())
