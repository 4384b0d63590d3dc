"""How the command line speaks: one console, one form of error, one way to unlock a party's keys.

Errors are ``error:`` and ``hint:`` lines in lower case without a full stop, and an exit code for each family
(``core.errors``). Nothing here decides anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

from kakoi.cli.i18n import error_text, t
from kakoi.core.errors import KakoiError, Misuse
from kakoi.net.client import HubClient
from kakoi.party.files import disk_error
from kakoi.party.home import PartyHome
from kakoi.party.keystore import Unlock
from kakoi.sdk.connect import connect

out: Final = Console(highlight=False)
err: Final = Console(stderr=True, highlight=False)
SOFTWARE_VARIABLE: Final = "KAKOI_ACCEPT_SOFTWARE_PLATFORM"


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Seconds since the epoch, UTC."""
        return int(time.time())


def show_error(error: KakoiError) -> None:
    """``error:`` and ``hint:`` on standard error, with the stable code."""
    message, hint = error_text(error)
    err.print(f"[bold red]{t('ui.error')}[/] {plain(message)} [dim]\\[{error.code}][/]", soft_wrap=True)
    if hint:
        err.print(f"[bold]{t('ui.hint')}[/] {plain(hint)}", soft_wrap=True)


def plain(text: str) -> str:
    """Text that the console prints as it stands, brackets included."""
    return escape(text)


def show_made(identity: str, sentence: str) -> None:
    """What was made, for people on standard error; its id alone on standard output, so that scripts can keep it."""
    err.print(sentence)
    out.print(identity, soft_wrap=True)


@contextmanager
def errors_as_exit_codes() -> Iterator[None]:
    """Turn our errors, and the disk's, into an exit code; let everything else show its traceback, because it is a bug."""
    try:
        yield
    except KakoiError as error:
        show_error(error)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        raise  # whoever read our output has seen enough; typer ends quietly
    except OSError as error:
        known = disk_error(error, Path(str(error.filename or "a file")))
        show_error(known)
        raise typer.Exit(known.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def unlock(key_file: Path | None) -> Unlock:
    """How to open a party's keys: a key file, else KAKOI_PASSPHRASE, else ask at the terminal."""
    if key_file is not None:
        return Unlock(key_file=key_file)
    passphrase = os.environ.get("KAKOI_PASSPHRASE")
    if passphrase is None:
        if not os.isatty(0):
            raise Misuse(
                "key.unlock",
                "expected a passphrase or a key file, got neither",
                hint="set KAKOI_PASSPHRASE, or give --key-file",
            )
        passphrase = typer.prompt(t("ui.passphrase"), hide_input=True)
    return Unlock(passphrase=passphrase)


def require_party(path: Path) -> None:
    """Raise Misuse unless there is a party in ``path``: what needs no keys must not make anything there either."""
    if not (path / "card.dsse").exists():
        raise Misuse("party.missing", f"expected a party in {path}, found none", hint="make one: kakoi party new")


def open_party(path: Path, key_file: Path | None) -> PartyHome:
    """A party's directory with its keys opened."""
    return PartyHome.load(path, unlock(key_file))


@contextmanager
def at_hub(hub: str, party: Path, key_file: Path | None) -> Iterator[tuple[HubClient, PartyHome]]:
    """A party and its connection to a hub."""
    home = open_party(party, key_file)
    with connect(hub, home) as client:
        yield client, home


@contextmanager
def byte_progress(label: str, total: int) -> Iterator[Progress]:
    """A progress bar in bytes on standard error; call ``update(0, completed=n)`` on what it gives."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        progress.add_task(label, total=total)
        yield progress


def words(identity: str) -> str:
    """The first 16 hex digits of an id in groups of four, for comparing by telephone."""
    return " ".join(identity[i : i + 4] for i in range(0, 16, 4))
