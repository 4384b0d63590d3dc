"""What whoever has the storage, or only the address of a console, tries."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from kakoi.cli.redteam.attack import Attack, NotTried, Through, repelled_by
from kakoi.cli.redteam.ground import Ground

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_SECONDS: Final = 20.0
_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}


# -- storage: only the red team's own blob is touched, and put back


@contextmanager
def _own_blob(ground: Ground) -> Iterator[Path]:
    if ground.means.storage is None:
        raise NotTried("needs the hub's storage on this machine: --storage")
    found = [path for path in ground.means.storage.rglob(ground.blob) if path.is_file()]
    if not found:
        raise NotTried("the red team's own blob is not in that storage")
    path, data = found[0], found[0].read_bytes()
    try:
        yield path
    finally:
        path.write_bytes(data)


def _read_back(ground: Ground) -> str:
    def work() -> None:
        b"".join(ground.client.stream_blob(ground.blob, most=1024 * 1024))  # type: ignore[arg-type]

    return repelled_by(work)


def changed_blob(ground: Ground) -> str:
    """One bit of stored ciphertext is turned."""
    with _own_blob(ground) as path:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        return _read_back(ground)


def swapped_blob(ground: Ground) -> str:
    """Other ciphertext of the same length lies in its place."""
    with _own_blob(ground) as path:
        path.write_bytes(secrets.token_bytes(path.stat().st_size))
        return _read_back(ground)


# -- a console, from outside


def _console(ground: Ground) -> str:
    if not ground.means.console:
        raise NotTried("needs a console's address: --console")
    return ground.means.console.rstrip("/")


def _ask(ground: Ground, method: str, path: str, **what: object) -> httpx.Response:
    with httpx.Client(base_url=_console(ground), timeout=_SECONDS, trust_env=False) as client:
        try:
            return client.request(method, path, **what)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise NotTried(f"the console did not answer: {type(error).__name__}") from None


def foreign_name(ground: Ground) -> str:
    """Reach the console under another name (DNS rebinding)."""
    answer = _ask(ground, "GET", "/sign-in", headers={"host": "evil.example"})
    if answer.status_code < 400 and not answer.is_redirect:
        raise Through(f"answered {answer.status_code}")
    return str(answer.status_code)


def foreign_form(ground: Ground) -> str:
    """Another web site sends a form."""
    headers = {**_FORM, "origin": "https://evil.example"}
    answer = _ask(ground, "POST", "/sign-in", headers=headers, content="answer=x")
    if answer.status_code != 403:
        raise Through(f"answered {answer.status_code}")
    return "403"


def without_signing_in(ground: Ground) -> str:
    """See pages without a session, or with one that was made up."""
    for cookie in ("", f"kakoi-{urlsplit(_console(ground)).port}={secrets.token_urlsafe(32)}"):
        for path in ("/", "/decisions", "/security", "/people", "/contracts"):
            answer = _ask(ground, "GET", path, headers={"cookie": cookie} if cookie else {})
            if not (answer.status_code == 303 and answer.headers.get("location") == "/sign-in"):
                raise Through(f"{path} answered {answer.status_code}")
    return "303 /sign-in"


def made_up_passkey(ground: Ground) -> str:
    """Sign in with an assertion that no authenticator made."""
    headers = {**_FORM, "origin": _console(ground)}
    answer = _ask(ground, "POST", "/sign-in", headers=headers, content="answer=%7B%7D")
    if answer.status_code < 400:
        raise Through(f"answered {answer.status_code}")
    return str(answer.status_code)


def guessed_invitation(ground: Ground) -> str:
    """Use an invitation that was guessed."""
    answer = _ask(ground, "GET", f"/enrol/{secrets.token_urlsafe(32)}")
    if answer.status_code < 400:
        raise Through(f"answered {answer.status_code}")
    return str(answer.status_code)


def framed(ground: Ground) -> str:
    """Frame the pages, or run script of one's own in them."""
    headers = _ask(ground, "GET", "/sign-in").headers
    policy = headers.get("content-security-policy", "")
    missing = [
        part for part in ("frame-ancestors 'none'", "default-src 'none'", "script-src 'self'") if part not in policy
    ]
    if missing or headers.get("x-frame-options") != "DENY":
        raise Through(f"pages allow it: {', '.join(missing) or 'X-Frame-Options'}")
    return "content-security-policy"


def console_paths(ground: Ground) -> str:
    """Paths that lead out of the console's own files."""
    for path in ("/static/..%2f..%2fstore.py", "/static/%2e%2e/templates/base.html", "/static/passkey.js.map"):
        answer = _ask(ground, "GET", path)
        if answer.status_code < 400 and not answer.is_redirect:
            raise Through(f"{path} answered {answer.status_code}")
    return "404"


def plain_console(ground: Ground) -> str:
    """Read or change the console's pages on the way."""
    parts = urlsplit(_console(ground))
    if parts.scheme == "https":
        return "TLS"
    if parts.hostname in LOOPBACK:
        return "loopback only"
    raise Through("the console speaks plain HTTP to other machines")


ATTACKS: Final = (
    Attack(name="changed-blob", role="storage", threat="T05", carry_out=changed_blob),
    Attack(name="swapped-blob", role="storage", threat="T05", carry_out=swapped_blob),
    Attack(name="foreign-name", role="outsider", threat="T54", carry_out=foreign_name),
    Attack(name="foreign-form", role="outsider", threat="T52", carry_out=foreign_form),
    Attack(name="without-signing-in", role="outsider", threat="T46", carry_out=without_signing_in),
    Attack(name="made-up-passkey", role="outsider", threat="T152", carry_out=made_up_passkey),
    Attack(name="guessed-invitation", role="outsider", threat="T152", carry_out=guessed_invitation),
    Attack(name="framed", role="network", threat="T53", carry_out=framed),
    Attack(name="console-paths", role="outsider", threat="T53", carry_out=console_paths),
    Attack(name="plain-console", role="network", threat="T56", carry_out=plain_console),
)
