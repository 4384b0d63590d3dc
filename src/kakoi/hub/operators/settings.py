"""``operators.toml``: who vouches for operators, how they must have signed in there, and who they are. Nothing of it is optional
that decides who gets in: a file that asks for no second factor, or names nobody, is refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from kakoi.core.errors import Misuse
from kakoi.hub.files import disk_errors, read_secret
from kakoi.hub.settings import LOOPBACK

FILE: Final = "operators.toml"
Role = Literal["viewer", "administrator"]
_LARGEST: Final = 64 * 1024
_MEMBERS: Final = {
    "issuer",
    "client_id",
    "client_secret_file",
    "ca",
    "acr",
    "amr",
    "minutes",
    "idle_minutes",
    "operators",
}
_TEXT: Final = re.compile(r"[!-~]{1,200}\Z")
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f]{1,80}\Z")
_KNOWLEDGE: Final = frozenset({"pwd", "pin", "kba", "user", "geo", "rba", "wia", "mca"})
"""Methods of RFC 8176 that alone are no second factor, however many of them: something known, and circumstances."""
_LONGEST_MINUTES: Final = 8 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One person."""

    subject: str
    """``sub`` at the issuer: never reused there, unlike names and mail addresses."""
    name: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """One hub's operators, and the OpenID provider that vouches for them."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    """Empty: a public client, held by PKCE alone."""
    ca: Path | None
    """CA certificates (PEM) for the issuer's own; None: those of this machine."""
    acr: tuple[str, ...]
    """Values of ``acr`` (OpenID Connect Core §2) of which a sign-in must have one; empty: any."""
    amr: tuple[frozenset[str], ...]
    """Sets of methods (RFC 8176) of which a sign-in must have used one wholly; empty: any."""
    operators: Mapping[str, Operator]
    session_seconds: int
    idle_seconds: int


def read_operators(path: Path) -> OperatorSettings:
    """The settings in a file. Raises Misuse ``operators.settings``."""
    if not path.exists():
        raise _bad(f"a file {path.name} that says who the operators are and who vouches for them, got none")
    with disk_errors(path.parent):
        data = path.read_bytes()
    try:
        table = tomllib.loads(data.decode("utf-8")) if len(data) <= _LARGEST else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _bad(f"TOML in {path.name}, got an error: {error}") from None
    if set(table) - _MEMBERS:
        raise _bad(f"only {', '.join(sorted(_MEMBERS))} in {path.name}, got another member")
    secret = table.get("client_secret_file")
    acr, amr = _texts(table.get("acr", []), "acr"), _methods(table.get("amr", []))
    if not acr and not amr:
        raise _bad("acr or amr, so that a password alone is never enough, got neither")
    return OperatorSettings(
        issuer=_issuer(table.get("issuer")),
        client_id=_text(table.get("client_id"), "client_id"),
        client_secret="" if secret is None else _secret(path.parent / _text(secret, "client_secret_file")),
        ca=None if "ca" not in table else path.parent / _text(table["ca"], "ca"),
        acr=acr,
        amr=amr,
        operators=_operators(table.get("operators")),
        session_seconds=60 * _minutes(table, "minutes", 60, _LONGEST_MINUTES),
        idle_seconds=60 * _minutes(table, "idle_minutes", 10, 60),
    )


def _bad(what: str) -> Misuse:
    return Misuse("operators.settings", f"expected {what}", hint="docs/operations.md, Operations pages")


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _TEXT.match(value):
        raise _bad(f"a text of at most 200 characters as {name}, got something else")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _bad(f"a list of texts as {name}, got something else")
    return tuple(_text(item, name) for item in value)


def _methods(value: Any) -> tuple[frozenset[str], ...]:
    if not isinstance(value, list):
        raise _bad("amr as a list of lists of methods, got something else")
    found = tuple(frozenset(_texts(item, "amr")) for item in value)
    for methods in found:
        if methods <= _KNOWLEDGE:
            raise _bad("in each list of amr a method that is more than something known, got a list without")
    return found


def _issuer(value: Any) -> str:
    text = _text(value, "issuer")
    require_safe_url(text)
    if urlsplit(text).query or urlsplit(text).fragment:
        raise _bad("an issuer without query and fragment, got one with")
    return text


def require_safe_url(text: str) -> None:
    """Raise Misuse unless it is https, or http on this machine."""
    try:
        parts = urlsplit(text)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError:
        safe = False
    if not safe or not parts.hostname or parts.username is not None:
        raise _bad("addresses of the issuer with https, got another")


def _secret(path: Path) -> str:
    return _text(read_secret(path, most=4096).decode("ascii", "replace").strip(), "client_secret_file")


def _minutes(table: Mapping[str, Any], name: str, usual: int, most: int) -> int:
    value = table.get(name, usual)
    if type(value) is not int or not 1 <= value <= most:
        raise _bad(f"from 1 to {most} as {name}, got something else")
    return value


def _operators(value: Any) -> dict[str, Operator]:
    if not isinstance(value, dict) or not value:
        raise _bad('at least one operator as [operators."subject"], got none')
    return {_text(subject, "a subject"): _operator(subject, entry) for subject, entry in value.items()}


def _operator(subject: str, entry: Any) -> Operator:
    if not isinstance(entry, dict) or set(entry) != {"name", "role"}:
        raise _bad("name and role of each operator, got something else")
    name, role = entry["name"], entry["role"]
    if not isinstance(name, str) or not _NAME.match(name) or name != name.strip():
        raise _bad("a name of one line for each operator, got something else")
    if role not in ("viewer", "administrator"):
        raise _bad("viewer or administrator as role, got something else")
    return Operator(subject=subject, name=name, role=role)
