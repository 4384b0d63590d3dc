"""How a console is run. Loopback only unless told otherwise, and then only with TLS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kakoi.core.errors import Misuse

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_NAME: Final = re.compile(r"[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One console. ``name`` is the domain in its address: the WebAuthn RP id of its people's passkeys."""

    host: str = "127.0.0.1"
    port: int = 8443
    name: str = "localhost"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    session_idle_seconds: int = 15 * 60
    session_seconds: int = 8 * 3600
    ceremony_seconds: int = 5 * 60
    invitation_seconds: int = 3 * 24 * 3600
    sign_in_attempts: int = 20
    """Attempts to sign in, to enrol or to use an invitation, in a minute, from one address."""
    body_bytes: int = 384 * 1024
    """Largest form: a source of 256 KiB with what surrounds it."""

    def __post_init__(self) -> None:
        """Raise Misuse for an address that would not be safe or could not work."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise Misuse("console.tls", "expected a TLS certificate and its key, got one of them")
        if not self.tls and (self.host not in LOOPBACK or self.name != "localhost"):
            raise Misuse(
                "console.plain-http",
                "expected TLS for a console that is reached from other machines, got none",
                hint="give --console-certificate and --console-key, or leave it on this machine as localhost",
            )
        if not _NAME.match(self.name) or self.name.replace(".", "").isdigit():
            raise Misuse(
                "console.name",
                "expected the console's domain name in lower case (passkeys do not work with addresses), got another text",
            )

    @property
    def tls(self) -> bool:
        """Whether it speaks https."""
        return self.tls_certificate is not None

    @property
    def origin(self) -> str:
        """The console's own address, without a path."""
        scheme, usual = ("https", 443) if self.tls else ("http", 80)
        return f"{scheme}://{self.name}" + ("" if self.port == usual else f":{self.port}")

    @property
    def cookie(self) -> str:
        """The session cookie's name. Browsers do not keep cookies of one host's ports apart, so the port is in it."""
        return f"__Host-kakoi-{self.port}" if self.tls else f"kakoi-{self.port}"
