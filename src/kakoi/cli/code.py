"""``kakoi code``: seal code and models, inspect, upload, let a reviewer read, sign a review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakoi.cli.contract import HubUrl, Party
from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import SystemClock, at_hub, err, errors_as_exit_codes, open_party, out, plain, show_made, words
from kakoi.contract.code import CodeManifest, CodeShare
from kakoi.contract.model import PartyCard
from kakoi.contract.sign import Signed, open_card
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse
from kakoi.core.ids import parse_id
from kakoi.net.client import HubClient
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.sealed_code import open_shared, review, seal_code, share, upload_code

app = typer.Typer(no_args_is_help=True, help=t("help.code"))


@app.command("seal", help=t("help.code-seal"))
def seal(
    source: Annotated[Path, typer.Argument(help=t("help.code-source"))],
    party: Party,
    title: Annotated[str, typer.Option("--title", help=t("help.code-title"))],
    file: Annotated[list[Path] | None, typer.Option("--file", help=t("help.code-file"))] = None,
    description: Annotated[str, typer.Option("--description", help=t("help.code-description"))] = "",
    replaces: Annotated[str, typer.Option("--replaces", help=t("help.replaces"))] = "",
    key_file: KeyFile = None,
) -> None:
    """Encrypt a source and its files; nothing leaves this machine."""
    with errors_as_exit_codes():
        home = open_party(party, key_file)
        envelope = seal_code(
            home,
            source,
            file or [],
            title=title,
            description=description,
            created=SystemClock().now(),
            replaces=replaces,
        )
        show_made(envelope.payload_id, t("code.sealed"))


@app.command("inspect", help=t("help.code-inspect"))
def inspect(file: Annotated[Path, typer.Argument(help=t("help.manifest-file"))]) -> None:
    """Show what a manifest says. Needs no keys and verifies no signature: the file is shown as it claims to be."""
    with errors_as_exit_codes():
        path = file / "manifest.dsse" if file.is_dir() else file
        envelope = Envelope.decode(read_limited(path, limit=Envelope.MAX_BYTES))
        manifest = CodeManifest.decode(envelope.payload)
        out.print(f"[bold]{plain(manifest.title)}[/]  v{manifest.version}\n{envelope.payload_id}")
        if manifest.description:
            out.print(plain(manifest.description))
        for item in manifest.files:
            out.print(t("code.file", name=item.name, size=item.size))


@app.command("upload", help=t("help.code-upload"))
def upload(party: Party, hub: HubUrl, key_file: KeyFile = None) -> None:
    """Give ciphertext and manifests of this party's sealed code to the hub."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        for signed in home.codes().values():
            upload_code(client, home, signed)
            err.print(t("code.uploaded", id=signed.id))


@app.command("share", help=t("help.code-share"))
def share_with(
    identity: Annotated[str, typer.Argument(help=t("help.code-id"))],
    reviewer: Annotated[str, typer.Option("--reviewer", help=t("help.code-reviewer"))],
    party: Party,
    hub: HubUrl,
    out_file: Annotated[Path, typer.Option("--out", help=t("help.out"))],
    key_file: KeyFile = None,
) -> None:
    """Write a file with which one reviewer, and nobody else, can read this code."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        known = home.codes()
        if identity not in known:
            raise Misuse(
                "code.unknown", "expected sealed code of this party, got an unknown id", hint="kakoi code seal"
            )
        card = _card(reviewer, client)
        write_private(out_file, share(home, known[identity], card).encode(), mode=0o644)
        out.print(t("code.shared", name=plain(card.record.name), words=words(card.id), path=out_file))


def _card(reviewer: str, client: HubClient) -> Signed[PartyCard]:
    """A card from a file that the reviewer gave, or from the hub by its id."""
    path = Path(reviewer)
    if path.is_file():
        return open_card(Envelope.decode(read_limited(path, limit=Envelope.MAX_BYTES)))
    return open_card(client.get_object(parse_id(reviewer)))


@app.command("review", help=t("help.code-review"))
def review_code(
    file: Annotated[Path, typer.Argument(help=t("help.code-share-file"))],
    party: Party,
    hub: HubUrl,
    directory: Annotated[Path | None, typer.Option("--out", help=t("help.code-out"))] = None,
    statement: Annotated[str, typer.Option("--statement", help=t("help.code-statement"))] = "",
    key_file: KeyFile = None,
) -> None:
    """Decrypt shared code for reading; with a statement, sign that it was read."""
    with errors_as_exit_codes(), at_hub(hub, party, key_file) as (client, home):
        client.put_object(home.card.envelope)  # a hub answers those only whose card it has
        shared = CodeShare.decode(read_limited(file, limit=CodeShare.MAX_BYTES))
        files = open_shared(client, home, shared)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                write_private(directory / name, data)
            out.print(t("code.opened", path=directory))
        if statement:
            envelope = review(client, home, parse_id(shared.code), statement, SystemClock().now())
            show_made(envelope.payload_id, t("code.reviewed"))
        elif directory is None:
            raise Misuse(
                "code.review", "expected --out to read the code, or --statement to sign that it was read, got neither"
            )
