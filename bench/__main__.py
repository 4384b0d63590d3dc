"""``make bench``: every measurement as a ratio against the plain way, or a rate beside a peer's, in one run.

Arguments name the modules to run; without any, all of them. Numbers of a busy machine mean little; ratios mean more.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

from rich.console import Console
from rich.table import Table

import bench


def main(wanted: list[str]) -> int:
    """Run the modules and print one table each; returns the exit code."""
    out = Console()
    names = [module.name for module in pkgutil.iter_modules(bench.__path__) if not module.name.startswith("_")]
    for name in wanted or names:
        if name not in names:
            out.print(f"error: expected one of {', '.join(names)}")
            return 2
        started = time.monotonic()
        with out.status(f"measuring {name}"):
            rows = importlib.import_module(f"bench.{name}").run()
        table = Table(title=f"{name} ({time.monotonic() - started:.0f} s)", title_justify="left")
        for heading, justify in (("measured", "left"), ("value", "right"), ("detail", "left")):
            table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for what, value, detail in rows:
            table.add_row(what, f"{value:.3g}", detail)
        out.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
