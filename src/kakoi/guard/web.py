"""Addresses on the web that the guard may call."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from kakoi.core.errors import Misuse

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def encrypted(url: str, otherwise: Misuse) -> str:
    """The address, if it is https, or http on loopback. Raises ``otherwise``."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise otherwise
    return url
