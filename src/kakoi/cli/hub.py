"""``kakoi hub``: run a hub, show its log's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakoi.cli.i18n import t
from kakoi.cli.ui import errors_as_exit_codes, out
from kakoi.contract.model import LogKey
from kakoi.core.errors import Misuse
from kakoi.party.files import read_limited, write_private

app = typer.Typer(no_args_is_help=True, help=t("help.hub-app"))
Directory = Annotated[Path, typer.Option("--directory", help=t("help.hub-directory"))]


@app.command("serve", help=t("help.hub-serve"))
def serve(
    directory: Directory,
    host: Annotated[str, typer.Option("--host", help=t("help.hub-host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help=t("help.hub-port"))] = 0,
    token_file: Annotated[Path | None, typer.Option("--token-file", help=t("help.token-file"))] = None,
) -> None:
    """Run a hub until interrupted."""
    # An owner's machine does not have the hub's dependencies, so they are asked for only here.
    from kakoi.hub.serve import serve as run_hub
    from kakoi.hub.settings import Settings

    with errors_as_exit_codes():
        run_hub(Settings(directory=directory, host=host, port=port, operator_token_file=token_file))


@app.command("log-key", help=t("help.hub-log-key"))
def write_log_key(directory: Directory, out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))]) -> None:
    """Write the public key of the hub's log, which contracts name."""
    with errors_as_exit_codes():
        write_private(out_file, log_key(directory).encode(), mode=0o644)
        out.print(t("run.written", path=out_file))


def log_key(directory: Path) -> LogKey:
    """The public key of a hub's log. Raises Misuse before the hub has started once."""
    from kakoi.hub.log import KEY_FILE, SecretLogKey

    path = directory / KEY_FILE
    if not path.exists():
        raise Misuse(
            "log.not-started", "expected a hub that has started once, found no log key", hint="kakoi hub serve"
        )
    return SecretLogKey.decode(read_limited(path, limit=SecretLogKey.MAX_BYTES)).public
