"""Attacks on a hub's edge with bytes that no library would send."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kakoi.hub.serve import running
from kakoi.hub.settings import Settings


@pytest.mark.parametrize(
    "lengths", ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: 5\r\nContent-Length: 6"]
)
def test_no_request_hides_behind_two_lengths_of_one_body(tmp_path: Path, lengths: str) -> None:
    """RFC 9112 §6.3: a proxy that believes the one and a hub that believes the other would disagree who asks what."""
    head = (
        f"POST /v1/claims HTTP/1.1\r\nHost: hub\r\n{lengths}\r\n\r\n0\r\n\r\nGET /v1/runs HTTP/1.1\r\nHost: hub\r\n\r\n"
    )
    with running(Settings(directory=tmp_path / "hub", port=0)) as server:
        port = urlsplit(server.url).port
        with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as connection:
            connection.sendall(head.encode())
            answer = b""
            while chunk := connection.recv(65536):  # ends when the hub hangs up
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1 ") == 1
