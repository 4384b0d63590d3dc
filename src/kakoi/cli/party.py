"""``kakoi party``: make a party, show its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakoi.cli.i18n import t
from kakoi.cli.ui import SystemClock, err, errors_as_exit_codes, out, plain, show_made, unlock, words
from kakoi.contract.sign import open_card
from kakoi.core.dsse import Envelope
from kakoi.party.files import read_limited
from kakoi.party.home import PartyHome
from kakoi.party.keystore import new_key_file

app = typer.Typer(no_args_is_help=True, help=t("help.party"))
KeyFile = Annotated[Path | None, typer.Option("--key-file", help=t("help.key-file"))]


@app.command("new", help=t("help.party-new"))
def new(
    directory: Annotated[Path, typer.Argument(help=t("help.party-directory"))],
    name: Annotated[str, typer.Option("--name", help=t("help.party-name"))],
    key_file: KeyFile = None,
) -> None:
    """Make keys and a card."""
    with errors_as_exit_codes():
        if key_file is not None and not key_file.exists():
            new_key_file(key_file)
            err.print(t("party.key-file", path=key_file))
        home = PartyHome.create(directory, name=name, unlock=unlock(key_file), created=SystemClock().now())
        err.print(t("party.compare", words=words(home.id)))
        show_made(home.id, t("party.created", name=name))


@app.command("show", help=t("help.party-show"))
def show(directory: Annotated[Path, typer.Argument(help=t("help.party-directory"))]) -> None:
    """Show a card. Needs no keys."""
    with errors_as_exit_codes():
        path = directory / "card.dsse" if directory.is_dir() else directory
        card = open_card(Envelope.decode(read_limited(path, limit=1024 * 1024)))
        out.print(f"{plain(card.record.name)}\n{card.id}\n{t('party.compare', words=words(card.id))}")
