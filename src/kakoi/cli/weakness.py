"""``kakoi sbom``, ``kakoi advisories``, ``kakoi exposure``: what is built in, what is known about it, what it touches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from kakoi.cli.i18n import t
from kakoi.cli.party import KeyFile
from kakoi.cli.ui import errors_as_exit_codes

advisories_app = typer.Typer(no_args_is_help=True, help=t("help.advisories"))
DEFAULT_FEED: Final = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
"""Where OSV publishes all advisories about PyPI's packages (https://google.github.io/osv.dev/data/)."""
FOUND: Final = 1
"""Exit code where something is touched: no error, but no script takes it for nothing."""
Json = Annotated[bool, typer.Option("--json", help=t("help.json"))]
Bills = Annotated[list[Path] | None, typer.Option("--sbom", help=t("help.sbom-file"))]
Written = Annotated[Path, typer.Option("--out", help=t("help.advisories-out"))]


def sbom(
    component: Annotated[str, typer.Argument(help=t("help.sbom-component"))] = "",
    image: Annotated[Path | None, typer.Option("--image", help=t("help.sbom-image"))] = None,
    file: Annotated[Path | None, typer.Option("--out", help=t("help.sbom-out"))] = None,
) -> None:
    """Write a software bill of materials."""
    with errors_as_exit_codes():
        from kakoi.cli import weakness_work

        weakness_work.sbom(component, image, file)


@advisories_app.command("import", help=t("help.advisories-import"))
def import_(
    sources: Annotated[list[Path], typer.Argument(help=t("help.advisories-source"))],
    file: Written,
) -> None:
    """Advisories from files, directories and zip files into one snapshot."""
    with errors_as_exit_codes():
        from kakoi.cli import weakness_work

        weakness_work.import_(sources, file)


@advisories_app.command("fetch", help=t("help.advisories-fetch"))
def fetch(
    file: Written,
    url: Annotated[str, typer.Option("--url", help=t("help.advisories-url"))] = DEFAULT_FEED,
) -> None:
    """Advisories from a feed that serves OSV records in a zip file."""
    with errors_as_exit_codes():
        from kakoi.cli import weakness_work

        weakness_work.fetch(file, url)


@advisories_app.command("check", help=t("help.advisories-check"))
def check(
    advisories: Annotated[Path, typer.Option("--advisories", help=t("help.advisories-file"))],
    component: Annotated[str, typer.Argument(help=t("help.sbom-component"))] = "",
    sbom_files: Bills = None,
    as_json: Json = False,
) -> None:
    """Compare what is installed here, or what bills list, with advisories. Exit code 1: something is affected."""
    with errors_as_exit_codes():
        from kakoi.cli import weakness_work

        found = weakness_work.check(advisories, component, sbom_files or [], as_json)
    if found:
        raise typer.Exit(FOUND)


def exposure(
    asked: Annotated[str, typer.Argument(metavar="QUESTION", help=t("help.exposure-question"))],
    results: Annotated[list[Path] | None, typer.Option("--result", help=t("help.exposure-result"))] = None,
    hub: Annotated[str, typer.Option("--hub", help=t("help.exposure-hub"))] = "",
    party: Annotated[Path | None, typer.Option("--party", help=t("help.party-directory"))] = None,
    key_file: KeyFile = None,
    sbom_files: Bills = None,
    advisories: Annotated[Path | None, typer.Option("--advisories", help=t("help.advisories-file"))] = None,
    collateral: Annotated[list[Path] | None, typer.Option("--collateral", help=t("help.exposure-collateral"))] = None,
    bulletins: Annotated[list[Path] | None, typer.Option("--bulletin", help=t("help.exposure-bulletin"))] = None,
    as_json: Json = False,
) -> None:
    """List the past runs, results and keys that a weakness touches. Exit code 1: there are some."""
    with errors_as_exit_codes():
        from kakoi.cli import weakness_work

        passports = weakness_work.passports(results or [], hub, party, key_file)
        found = weakness_work.exposure(
            asked, passports, sbom_files or [], advisories, collateral or [], as_json, party, bulletins or []
        )
    if found:
        raise typer.Exit(FOUND)
