"""What every door of a hub has: a socket, perhaps TLS 1.3, and the networks that are answered."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final

from kakoi.core.errors import Misuse
from kakoi.hub.door import Door
from kakoi.hub.settings import LOOPBACK, Listener, Settings

Networks = tuple[IPv4Network | IPv6Network, ...]
EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - named in order to be refused


def networks(texts: Sequence[str]) -> Networks:
    """Networks of an allow-list. Raises Misuse for what is none."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError:
        raise Misuse(
            "hub.allow", "expected networks as 192.0.2.0/24 or 2001:db8::/32, got something else", hint="--allow"
        ) from None


def admits(allowed: Networks, address: str) -> bool:
    """Whether an address is in one of the networks. There is no list that admits what is no address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None) or found
    return any(mapped in network for network in allowed)


def check(settings: Settings) -> None:
    """Raise Misuse for doors that would not be safe or could not work."""
    _check_tls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca or settings.enclave_ca)
    networks(settings.allow)
    _check_plain(settings.host, settings.tls_certificate, plain=settings.insecure_plain_http)
    if settings.host in EVERYWHERE and not settings.names:
        raise Misuse(
            "hub.names",
            "expected the names by which clients call a hub that listens on all interfaces, got none",
            hint="--name hub.example.org:8440; requests are signed for a name, and others are refused",
        )
    for listener in (settings.metrics, settings.operations):
        if listener is not None:
            _check_tls(listener.tls_certificate, listener.tls_key, listener.tls_client_ca)
            networks(listener.allow)
            _check_plain(listener.host, listener.tls_certificate, plain=False)
            if listener.host not in LOOPBACK and not listener.allow:
                raise Misuse(
                    "hub.allow",
                    "expected the networks that may reach operations and metrics beyond this machine, got none",
                    hint="--operations-allow or --metrics-allow 192.0.2.0/24",
                )


def _check_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> None:
    if (certificate is None) != (key is None):
        raise Misuse("hub.tls", "expected a TLS certificate and its key, got one of them")
    if client_ca is not None and certificate is None:
        raise Misuse("hub.tls", "expected a TLS certificate of the hub's own before clients show theirs, got none")


def _check_plain(host: str, certificate: Path | None, *, plain: bool) -> None:
    if host not in LOOPBACK and certificate is None and not plain:
        raise Misuse(
            "hub.plain-http",
            "expected TLS for a hub that listens beyond this machine, got none",
            hint="give a certificate and key; behind a proxy that adds TLS, allow plain http by name",
        )


def bind(host: str, port: int) -> Door:
    """A listening socket. Raises Misuse."""
    where = f"{host} port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it every answer takes 40 ms.
    listener = Door(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            raise Misuse(
                "hub.port-in-use",
                f"expected {where} to be free, got a program that listens there",
                hint="is another hub running? Choose another port, or 0 for any",
            ) from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misuse(
            "hub.listen", f"expected to listen on {where}, got: {reason}", hint="check host and port"
        ) from None
    return listener


def tls_of(listener: Listener) -> ssl.SSLContext | None:
    """TLS of a door; None without a certificate."""
    if listener.tls_certificate is None or listener.tls_key is None:
        return None
    return server_tls(listener.tls_certificate, listener.tls_key, required=listener.tls_client_ca)


def server_tls(
    certificate: Path, key: Path, *, required: Path | None = None, accepted: Path | None = None
) -> ssl.SSLContext:
    """TLS 1.3 and nothing older. ``required``: CA of certificates that every client must show; ``accepted``: of those that a
    client may show. Raises Misuse.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or type(error).__name__
        raise Misuse("hub.tls", f"expected a TLS certificate and its key, got: {reason}", hint="both as PEM") from None
    for authority in (required, accepted):
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED if required is not None else ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(cafile=authority)
            except (OSError, ssl.SSLError) as error:
                reason = error.strerror or type(error).__name__
                raise Misuse("hub.tls", f"expected CA certificates for clients, got: {reason}", hint="as PEM") from None
    return context
