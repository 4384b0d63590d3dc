"""How far released numbers can be off, for people."""

from __future__ import annotations

from kakoi.cli.i18n import t
from kakoi.cli.ui import out
from kakoi.sdk.released import Shown


def show_noise(output: Shown) -> None:
    """What was added to the numbers, and how far they can be off."""
    for item in output.noise:
        key = "rows" if item.off_by == "rows" else "number" if item.at_most is not None else "by-row"
        said = t(f"result.noise-{key}", column=item.column, epsilon=item.epsilon, most=item.at_most or "")
        out.print(said, soft_wrap=True)
    if output.noise:
        out.print(t("result.noise"))
