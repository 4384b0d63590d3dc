"""A party's connection to a hub: every request signed by the key of its card."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Final

from kakoi.core.errors import Misuse
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from kakoi.net.identity import party_identity
from kakoi.party.home import PartyHome

CA: Final = "KAKOI_HUB_CA"
"""Environment: file of the CA that a hub's certificate comes from, if the machine does not trust it anyway."""
CERTIFICATE: Final = "KAKOI_HUB_CERTIFICATE"
"""Environment: file of the certificate that this program shows a hub that asks for one (mutual TLS)."""
KEY: Final = "KAKOI_HUB_KEY"
"""Environment: file of that certificate's key."""


def connect(hub: str, home: PartyHome, *, patience: Patience | None = None) -> HubClient:
    """A client of the hub at this address that speaks for ``home``. It introduces the party where the hub does not know it."""
    identity = party_identity(home.keys.request_signer(), home.card.envelope)
    return HubClient(hub, identity=identity, patience=patience, tls=client_tls(os.environ))


def client_tls(environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """TLS as the environment has it; None: as the machine has it. Raises Misuse for files that are none."""
    ca, certificate, key = (environment.get(name) for name in (CA, CERTIFICATE, KEY))
    if not (ca or certificate or key):
        return None
    if bool(certificate) != bool(key):
        raise Misuse("net.tls", f"expected {CERTIFICATE} and {KEY}, got one of them")
    try:
        context = ssl.create_default_context(cafile=ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate and key:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise Misuse("net.tls", f"expected certificates and key for TLS, got: {reason}", hint="all as PEM") from None
    return context
