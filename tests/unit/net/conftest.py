"""A server that says exactly what a test tells it to say, byte for byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock, self.number = sock, number
        self._file = sock.makefile("rb")

    def request(self) -> tuple[str, dict[str, str]]:
        """Request line and headers of the next request; the body stays unread. Empty line: the client hung up."""
        line = self._file.readline().decode().strip()
        headers = {}
        while (field := self._file.readline().decode().strip()) != "":
            name, _, value = field.partition(":")
            headers[name.lower()] = value.strip()
        return line, headers

    def body(self, length: int) -> bytes:
        return self._file.read(length)

    def say(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes = b"", *, status: int = 200, headers: str = "") -> None:
        self.say(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


class Server:
    """Runs ``script`` once per connection, each in its own thread."""

    def __init__(self, script: Script) -> None:
        self._script, self._listener = script, socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock:
            peer = Peer(sock, number)
            try:
                self._script(peer)
            except OSError:
                pass
            finally:
                peer._file.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Server]]:
    servers: list[Server] = []

    def start(script: Script) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
