"""What the demo shows at the end: results beside the published ones, the plot, the passport."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kakoi.cli.demo.data import PUBLISHED
from kakoi.cli.i18n import t
from kakoi.cli.ui import out, plain
from kakoi.sdk.released import frame, released, shown, statistics
from kakoi.sdk.verify import VerifiedResult
from kakoi.wire.released import ReleasedStatistics, ReleasedTable

if TYPE_CHECKING:
    import pandas as pd


def table_of(result: VerifiedResult, name: str) -> ReleasedTable:
    """A released table by name."""
    for output in released(result).outputs:
        if output.name == name and isinstance(output, ReleasedTable):
            return output
    raise KeyError(name)


def statistics_of(result: VerifiedResult, name: str) -> dict[str, float | None]:
    """Released statistics by name."""
    for output in released(result).outputs:
        if output.name == name and isinstance(output, ReleasedStatistics):
            return statistics(output)
    raise KeyError(name)


def show_counts(result: VerifiedResult) -> int:
    """The SQL table; returns how many numbers of its rows the gate held back."""
    output = shown(table_of(result, "counts"))
    table = Table(title=t("demo.counts"), title_justify="left")
    for column in output.columns:
        table.add_column(column, justify="right")
    for row, held in zip(output.rows, output.held_back, strict=True):
        shown_cells = (
            f"[red]{t('result.held-back')}[/]" if kept else plain(cell or "")
            for cell, kept in zip(row, held, strict=True)
        )
        table.add_row(*shown_cells)
    out.print(table)
    return sum(map(sum, output.held_back))


def computed(result: VerifiedResult) -> dict[str, float | None]:
    """The numbers that R publishes, from the released outputs."""
    medians = frame(table_of(result, "medians"))
    values: dict[str, float | None] = {
        f"median.{int(row.ph_ecog)}": None if row.held_back else float(row.median_days) for row in _median_rows(medians)
    }
    age_sex, ecog_age = statistics_of(result, "cox_age_sex"), statistics_of(result, "cox_ecog_age")
    values["age_sex.age"], values["age_sex.sex"] = age_sex["age_coefficient"], age_sex["sex_coefficient"]
    values["ecog_age.ph_ecog"], values["ecog_age.age"] = ecog_age["ph_ecog_coefficient"], ecog_age["age_coefficient"]
    return values


def _median_rows(medians: pd.DataFrame) -> list[Any]:
    return list(medians.rename(columns={"median": "median_days"}).itertuples(index=False))


def show_comparison(values: dict[str, float | None]) -> bool:
    """Published and computed side by side; True if they agree to the published digits."""
    table = Table(title=t("demo.comparison"), title_justify="left")
    for heading in ("demo.quantity", "demo.published", "demo.computed", "demo.agrees"):
        table.add_column(t(heading), justify="right")
    whole = True
    for key, expected in PUBLISHED.items():
        found = values.get(key)
        agrees = found is not None and abs(found - expected) <= (0.5e-6 if expected % 1 else 0)
        whole = whole and agrees
        mark = "[green]✔[/]" if agrees else "[red]✘[/]"
        table.add_row(t(f"demo.value.{key}"), f"{expected:g}", "" if found is None else f"{found:g}", mark)
    out.print(table)
    return whole


def draw_curves(result: VerifiedResult, directory: Path) -> list[Path]:
    """Kaplan-Meier curves from the released numbers only, as SVG and PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    curves = frame(table_of(result, "curves"))
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for ecog, group in curves[~curves["held_back"]].groupby("ph_ecog"):
        known = group.dropna(subset=["survival"]).sort_values("day")
        (line,) = axes.plot(known["day"], known["survival"], marker="o", label=f"ECOG {ecog}")
        axes.fill_between(known["day"], known["low"], known["high"], color=line.get_color(), alpha=0.12)
    axes.set(
        xlabel="days", ylabel="survival", ylim=(0, 1.02), title="NCCTG lung cancer: survival by ECOG, three hospitals"
    )
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.legend(title="from released numbers on a grid of days")
    figure.text(
        0.995,
        0.005,
        "NOT PROTECTED BY HARDWARE" if not result.protected_by_hardware else "",
        ha="right",
        color="red",
        fontsize=8,
    )
    paths = [directory / "survival.svg", directory / "survival.png"]
    for path in paths:
        figure.savefig(path, dpi=130)
    plt.close(figure)
    return paths
