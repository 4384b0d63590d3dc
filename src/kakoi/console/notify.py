"""Where notifications go: the party's ``notify.toml``, written by whoever runs the machine and, for the web hook, by administrators.

*Trusted*: whoever writes it learns when something waits for this party's people, and nothing else.
docs/console.md describes the file.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import urlsplit

from kakoi.console.settings import LOOPBACK
from kakoi.core.errors import Malformed, Misuse
from kakoi.party.files import read_limited, write_private

FILE: Final = "notify.toml"
Security = Literal["starttls", "tls", "none"]
_HOST: Final = re.compile(r"(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*|[0-9a-fA-F:.]{2,45})\Z")
_TARGET: Final = re.compile(r"(?:/[!-~]*)?\Z")
_MAILBOX: Final = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\Z", re.ASCII
)
_SECRET: Final = "whsec_"  # noqa: S105 - the prefix that Standard Webhooks gives to secrets
_SECRET_BYTES: Final = range(24, 65)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One address that is told by POST. ``secret`` signs (Standard Webhooks, HMAC-SHA256)."""

    url: str
    secret: str

    def __post_init__(self) -> None:
        """Raise Malformed for an address or a secret that could not be used safely."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port, parts = "", 0, urlsplit("")
        plain_at_home = parts.scheme == "http" and host in LOOPBACK
        if (
            len(self.url) > 2000
            or not (parts.scheme == "https" or plain_at_home)
            or not _HOST.match(host)
            or port == 0
            or "@" in parts.netloc
            or parts.fragment
            or not _TARGET.match(self.target)
        ):
            raise Malformed(
                "notify.url",
                "expected an https address without a user name or a fragment (http only for this very machine), got another",
                hint="https://chat.hospital.example/hooks/kakoi",
            )
        if len(self.key) not in _SECRET_BYTES:
            raise Malformed(
                "notify.secret",
                "expected whsec_ and 24 to 64 bytes in base64 as the web hook's secret, got another",
                hint="leave it out: a new one is made",
            )

    @property
    def key(self) -> bytes:
        """The secret's bytes; empty if it is none."""
        if not self.secret.startswith(_SECRET):
            return b""
        try:
            return base64.b64decode(self.secret.removeprefix(_SECRET), validate=True)
        except (binascii.Error, ValueError):
            return b""

    @property
    def host(self) -> str:
        """The host, in lower case and without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def tls(self) -> bool:
        """Whether it speaks https."""
        return self.url.startswith("https:")

    @property
    def target(self) -> str:
        """Path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    @property
    def netloc(self) -> str:
        """What goes into Host."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A server that takes mail for the party's people. Without TLS only on this very machine."""

    server: str
    port: int
    security: Security
    sender: str
    user: str
    password_file: str

    def __post_init__(self) -> None:
        """Raise Malformed for settings that are incomplete or would send a password in clear."""
        if (
            not _HOST.match(self.server)
            or not 1 <= self.port <= 65535
            or self.security not in ("starttls", "tls", "none")
        ):
            raise Malformed(
                "notify.mail-server",
                "expected a mail server, a port, and starttls or tls, got something else",
                hint='server = "smtp.hospital.example", port = 587, security = "starttls"',
            )
        if self.security == "none" and (self.server not in LOOPBACK or self.user):
            raise Malformed(
                "notify.mail-plain", "expected TLS for a mail server elsewhere or one with a password, got none"
            )
        if bool(self.user) != bool(self.password_file):
            raise Malformed("notify.mail-login", "expected a user name and a file with its password, got one of them")
        require_mailbox(self.sender)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """All of it. ``internal``: hosts of a web hook that may have addresses of this machine or this network."""

    webhook: Webhook | None = None
    mail: Mail | None = None
    internal: tuple[str, ...] = ()
    authorities: str = ""
    """A file with the CA certificates to believe (PEM); empty: the system's."""

    def __post_init__(self) -> None:
        """Raise Malformed for what is no host."""
        if not all(_HOST.match(host) for host in self.internal):
            raise Malformed("notify.internal", "expected names or addresses of hosts in internal, got something else")


def new_secret() -> str:
    """A secret for a new web hook."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def require_mailbox(text: str) -> str:
    """An address that cannot carry a second line or recipient. Raises Malformed (RFC 5321's plain form)."""
    if len(text) > 254 or not _MAILBOX.match(text):
        raise Malformed("notify.mailbox", "expected one mail address, got something else", hint="name@hospital.example")
    return text


def load(directory: Path) -> Notify:
    """The settings of a party's directory; without the file nobody is told. Raises Malformed or Misuse."""
    path = directory / FILE
    if not path.exists():
        return Notify()
    try:
        value = tomllib.loads(read_limited(path, limit=64 * 1024).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Malformed("notify.toml", f"expected TOML in {FILE}, got an error: {error}", hint="correct it") from None
    return _from(value)


def _from(value: Mapping[str, Any]) -> Notify:
    try:
        hook, mail = value.get("webhook"), value.get("mail")
        _only(value, {"webhook", "mail", "internal", "authorities"})
        made_mail = None
        if mail is not None:
            _only(mail, {"server", "port", "security", "sender", "user", "password_file"})
            made_mail = Mail(
                server=_text(mail["server"]),
                port=_port(mail["port"]),
                security=cast("Security", _text(mail["security"])),
                sender=_text(mail["sender"]),
                user=_text(mail.get("user", "")),
                password_file=_text(mail.get("password_file", "")),
            )
        made_hook = None
        if hook is not None:
            _only(hook, {"url", "secret"})
            made_hook = Webhook(url=_text(hook["url"]), secret=_text(hook["secret"]))
        return Notify(
            webhook=made_hook,
            mail=made_mail,
            internal=tuple(_text(host).lower() for host in value.get("internal", [])),
            authorities=_text(value.get("authorities", "")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Malformed(
            "notify.member",
            f"expected every member of {FILE}, got an error at {error}",
            hint="docs/console.md lists them",
        ) from None


def _only(value: Mapping[str, Any], known: set[str]) -> None:
    unknown = ", ".join(sorted(set(value) - known))
    if unknown:
        raise KeyError(unknown)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _port(value: object) -> int:
    if type(value) is not int:
        raise TypeError("a port")
    return value


def save(directory: Path, notify: Notify) -> None:
    """Write the settings, readable by their owner only. JSON's texts are TOML's."""
    lines = [f"internal = {json.dumps(list(notify.internal))}", f"authorities = {json.dumps(notify.authorities)}"]
    if notify.webhook is not None:
        lines += ["", "[webhook]", f"url = {json.dumps(notify.webhook.url)}"]
        lines += [f"secret = {json.dumps(notify.webhook.secret)}"]
    if notify.mail is not None:
        mail = notify.mail
        lines += ["", "[mail]", f"server = {json.dumps(mail.server)}", f"port = {mail.port}"]
        lines += [
            f"{name} = {json.dumps(getattr(mail, name))}" for name in ("security", "sender", "user", "password_file")
        ]
    write_private(directory / FILE, ("\n".join(lines) + "\n").encode())


def password(mail: Mail) -> str:
    """The password of the mail server. Raises Misuse."""
    data = read_limited(Path(mail.password_file), limit=4096)
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise Misuse(
            "notify.password", "expected a password in UTF-8 in the password file, got something else"
        ) from None
