"""A party's connection to a hub: every request signed by the key of its card."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kakoi.core.encoding import sha256
from kakoi.core.errors import Refused
from kakoi.guard.intel.index import Shelf
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.net.tls import client_tls
from kakoi.party.home import PartyHome

CA: Final = "KAKOI_HUB_CA"
"""Environment: file of the CA that a hub's certificate comes from, if the machine does not trust it anyway."""
CERTIFICATE: Final = "KAKOI_HUB_CERTIFICATE"
"""Environment: file of the certificate that this program shows a hub that asks for one (mutual TLS)."""
KEY: Final = "KAKOI_HUB_KEY"
"""Environment: file of that certificate's key."""


def connect(hub: str, home: PartyHome, *, patience: Patience | None = None, software: bool = False) -> HubClient:
    """A client of the hub at this address that speaks for ``home``. It introduces the party where the hub does not know it.
    ``software``: it accepts the software platform, and says so.
    """
    identity = party_identity(home.keys.request_signer(), home.card.envelope)
    tls = tls_of(os.environ)
    if hub.startswith("https:"):
        tls = tls or ssl.create_default_context()
        tls.sslsocket_class = _wary(Shelf(home.path))
    return HubClient(hub, identity=identity, patience=patience, tls=tls, software=software)


def _wary(shelf: Shelf) -> type[ssl.SSLSocket]:
    """Connections to servers whose certificate no indicator of this party names. The handshake raises Refused, Malformed."""

    class Wary(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            shown = self.getpeercert(binary_form=True) or b""
            found = shelf.index().find("certificate", (sha256(shown).hex(),), int(time.time()))
            if found is not None:
                self.close()
                raise Refused(
                    "net.indicated",
                    f"expected a hub's certificate that nobody warns of, got one that {found.id} names",
                    hint="ask the hub's operator by another way; kakoi intel list shows the indicator and its source",
                )

    return Wary


def tls_of(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """TLS as the environment has it; None: as the machine has it. Raises Misuse for files that are none."""
    ca, certificate, key = (
        Path(given) if (given := environment.get(name)) else None for name in (CA, CERTIFICATE, KEY)
    )
    return client_tls(ca, certificate, key)
