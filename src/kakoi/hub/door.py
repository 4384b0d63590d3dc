"""A listening socket that hangs up on networks with too many connections before anything is made for them.

What asyncio and uvicorn make for a connection costs some hundred microseconds, more than connecting costs its sender; so whoever
connects and leaves could keep a hub busy with nothing else, and the kernel's queue full. Taking a connection from that queue and
closing it costs some ten.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from kakoi.hub.budgets import prefix_of

_TURN: Final = 64
"""Connections that are taken from the queue before the event loop does something else. asyncio itself would take thousands."""
_RESET: Final = struct.pack("ii", 1, 0)
"""Close with a reset: no port stays in TIME_WAIT, and nothing is sent again."""


class Door(socket.socket):
    """A listener. ``admits`` says of each address prefix whether a connection of it is taken."""

    admits: Callable[[str], bool] = staticmethod(lambda prefix: True)
    _turn = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection of a network that may have one. Raises BlockingIOError at the end of the queue or of the turn."""
        while self._turn < _TURN:
            try:
                connection, address = super().accept()
            except OSError:
                self._turn = 0
                raise
            self._turn += 1
            if self.admits(prefix_of(str(address[0]) if address else "")):
                return connection, address
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connection.close()
        self._turn = 0
        raise BlockingIOError
