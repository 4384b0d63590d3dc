"""A party's connection to a hub: every request signed by the key of its card."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

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
    return HubClient(hub, identity=identity, patience=patience, tls=tls_of(os.environ), software=software)


def tls_of(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """TLS as the environment has it; None: as the machine has it. Raises Misuse for files that are none."""
    ca, certificate, key = (
        Path(given) if (given := environment.get(name)) else None for name in (CA, CERTIFICATE, KEY)
    )
    return client_tls(ca, certificate, key)
