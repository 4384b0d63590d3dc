"""Sending "something waits for you" to the outside: a signed POST, or a mail. Neither says what waits.

The web hook's address is typed by people, so it could be meant to reach what only this machine reaches (SSRF):

1. https, or http to this very machine (``notify.Webhook``);
2. every address that the name has must be public, unless whoever runs the machine named the host as internal;
3. the connection goes to an address that was checked, not to a name that is looked up again (DNS rebinding);
4. no proxy, no redirect, no cookie; of the answer only the status is read, within a deadline.

Source: OWASP Server-Side Request Forgery Prevention; Standard Webhooks 1.0 (signature); RFC 3834 (automatic mail).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import json
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Final, cast

from kakoi.console.notify import Mail, Notify, Webhook, password, require_mailbox
from kakoi.core.errors import Misuse, Refused, Unavailable
from kakoi.net.transport import TimedReader, TimedSocket

_SECONDS: Final = 8.0
_MOST_ADDRESSES: Final = 8
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
EVENT: Final = "kakoi.waiting"


def post(notify: Notify, hook: Webhook, *, identity: str, now: int, origin: str) -> None:
    """Tell the web hook, once. ``identity`` stays the same when it is told again. Raises Refused or Unavailable."""
    stamp = datetime.fromtimestamp(now, tz=UTC).isoformat().replace("+00:00", "Z")
    body = json.dumps({"type": EVENT, "timestamp": stamp, "data": {"console": origin}}, separators=(",", ":")).encode()
    headers = {
        "Host": hook.netloc,
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "User-Agent": "kakoi",
        "Connection": "close",
        "webhook-id": identity,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(hook, identity=identity, now=now, body=body),
    }
    with _unreachable(), _connected(notify, hook) as sock:
        status = _exchange(sock, hook.target, headers, body)
    if not 200 <= status < 300:
        raise Unavailable(
            "notify.answer",
            f"expected the web hook's receiver to take the notification, got status {status}",
            hint="redirects are not followed: give the final address",
        )


def signature(hook: Webhook, *, identity: str, now: int, body: bytes) -> str:
    """Standard Webhooks' ``v1`` signature over id, time and body."""
    made = hmac.new(hook.key, b".".join((identity.encode(), str(now).encode(), body)), hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()


def _exchange(sock: socket.socket, target: str, headers: dict[str, str], body: bytes) -> int:
    connection = http.client.HTTPConnection("receiver")
    connection.sock = sock
    connection.putrequest("POST", target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    reader = TimedReader(sock, _SECONDS, time.monotonic() + _SECONDS)
    response = http.client.HTTPResponse(cast("socket.socket", TimedSocket(reader)), method="POST")
    try:
        response.begin()
        return response.status
    finally:
        response.close()
        reader.close()


@contextmanager
def _connected(notify: Notify, hook: Webhook) -> Iterator[socket.socket]:
    """A connection to a checked address; with TLS the certificate must be the name's."""
    sock = _connect(addresses(hook.host, hook.port, internal=notify.internal), hook.port)
    try:
        if hook.tls:
            sock = _context(notify).wrap_socket(sock, server_hostname=hook.host)
        yield sock
    finally:
        sock.close()


def addresses(host: str, port: int, *, internal: Sequence[str]) -> list[_Address]:
    """A host's addresses, all of them public, or the host is one of ``internal``. Raises Refused or Unavailable."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise Unavailable("notify.unknown-host", "expected a host that can be found, got one that cannot") from None
    made = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if host not in internal and not all(_public(address) for address in made):
        raise Refused(
            "notify.internal-host",
            "expected a web hook on the public Internet, got one on this machine or this network",
            hint="whoever runs this machine can allow it: kakoi console notify --internal HOST",
        )
    return list(dict.fromkeys(made))[:_MOST_ADDRESSES]


def _public(address: _Address) -> bool:
    """Whether everybody could reach it. Addresses that carry another one are judged by that one."""
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            carried = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if carried is not None:
            return _public(carried)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _connect(found: list[_Address], port: int) -> socket.socket:
    for address in found:
        try:
            return socket.create_connection((str(address), port), timeout=_SECONDS / 2)
        except OSError:
            continue
    raise Unavailable("notify.unreachable", "expected somebody who answers there, got nobody")


def _context(notify: Notify) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=notify.authorities or None)
    except (OSError, ssl.SSLError):
        raise Misuse(
            "notify.authorities", f"expected CA certificates in PEM in {Path(notify.authorities).name}, got none"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def send_mail(notify: Notify, mail: Mail, *, to: str, subject: str, text: str, now: int) -> None:
    """Give one mail to the server. Raises Malformed, Misuse or Unavailable."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = mail.sender, require_mailbox(to), subject
    message["Date"] = format_datetime(datetime.fromtimestamp(now, tz=UTC))
    message["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    with _unreachable(), _server(notify, mail) as server:
        if mail.user:
            server.login(mail.user, password(mail))
        server.send_message(message)


@contextmanager
def _server(notify: Notify, mail: Mail) -> Iterator[smtplib.SMTP]:
    options: dict[str, Any] = {"host": mail.server, "port": mail.port, "timeout": _SECONDS, "local_hostname": "kakoi"}
    if mail.security == "tls":
        with smtplib.SMTP_SSL(**options, context=_context(notify)) as server:
            yield server
        return
    with smtplib.SMTP(**options) as server:
        if mail.security == "starttls":
            server.starttls(context=_context(notify))  # raises where the server does not offer it: never in clear
        yield server


@contextmanager
def _unreachable() -> Iterator[None]:
    """Whatever goes wrong on the way: Unavailable, without the other side's words."""
    try:
        yield
    except ssl.SSLCertVerificationError:
        raise Unavailable(
            "notify.certificate",
            "expected a certificate of that very host by a known authority, got another",
            hint="name the authority's certificate: kakoi console notify --authorities FILE",
        ) from None
    except smtplib.SMTPAuthenticationError:
        raise Unavailable(
            "notify.login", "expected the mail server to know the user and password, got a refusal"
        ) from None
    except smtplib.SMTPException as error:
        raise Unavailable(
            "notify.mail", f"expected the mail server to take the mail, got a refusal ({type(error).__name__})"
        ) from None
    except (OSError, http.client.HTTPException):
        raise Unavailable("notify.unreachable", "expected somebody who answers there, got nobody") from None
