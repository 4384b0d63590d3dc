"""``kakoi result figures``: pictures of a verified result, drawn from the numbers that the gate let out and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kakoi.attest.software.admit import with_software
from kakoi.cli.i18n import t
from kakoi.cli.run import refuse_to_overwrite, result_app
from kakoi.cli.ui import errors_as_exit_codes, out
from kakoi.party.files import read_limited, write_private
from kakoi.sdk.released import released
from kakoi.sdk.verify import verify_result
from kakoi.wire.result import ResultFile


@result_app.command("figures", help=t("help.result-figures"))
def figures(
    file: Annotated[Path, typer.Argument(help=t("help.result-file"))],
    directory: Annotated[Path, typer.Option("--out", help=t("help.result-figures-out"))] = Path("."),
) -> None:
    """Write one SVG for each output that can be drawn. Raises nothing for those that cannot: says so."""
    # Imported here: it needs the pages' template library, which an owner's machine may lack.
    from kakoi.console.plot import picture, plot

    with errors_as_exit_codes():
        verified = verify_result(read_limited(file, limit=ResultFile.MAX_BYTES), verifiers=with_software)
        directory.mkdir(parents=True, exist_ok=True)
        for output in released(verified).outputs:
            drawn = plot(output, held_back=t("result.held-back"))
            if drawn is None:
                out.print(t("result.not-drawn", name=output.name))
                continue
            target = directory / f"{output.name}.svg"
            refuse_to_overwrite(target)
            write_private(target, picture(drawn).encode())
            out.print(t("result.drawn", name=output.name, path=target))
