"""TLS as clients of a hub speak it: 1.3, and a certificate of their own where the hub asks for one."""

from __future__ import annotations

import ssl
from pathlib import Path

from kakoi.core.errors import Misuse


def client_tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """TLS by these PEM files; None without any: as the machine has it. Raises Misuse for files that are none."""
    if not (ca or certificate or key):
        return None
    if (certificate is None) != (key is None):
        raise Misuse("net.tls", "expected a certificate for the hub and its key, got one of them")
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if certificate is not None and key is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise Misuse("net.tls", f"expected certificates and key for TLS, got: {reason}", hint="all as PEM") from None
    return context
