"""From run request to verified result, on a tiny query, through the whole deployment: seconds and messages.

The plain way is the same SQL in DuckDB over the same rows in one process, which trusts everybody.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import duckdb

from kakoi.attest.software.admit import with_software
from kakoi.cli.demo.cast import ASSETS, Cast
from kakoi.cli.demo.data import write_hospitals
from kakoi.cli.demo.stage import Stage
from kakoi.cli.hub import log_key
from kakoi.cli.ui import SystemClock
from kakoi.enclave import machine
from kakoi.sdk.run import await_run, bindings, load_agreement, open_result, request_run

ROUNDS = 5
Row = tuple[str, float, str]


def run() -> list[Row]:
    """Start a deployment, run the query five times, give medians."""
    with tempfile.TemporaryDirectory() as name, Stage(Path(name)) as stage:
        directory = Path(name)
        files = write_hospitals(directory)
        cast = Cast(directory=directory)
        cast.make_parties(files)
        cast.make_enclave()
        client = stage.start_hub()
        for home, item in zip(cast.hospitals, files, strict=True):
            cast.seal_and_upload(client, home, item)
        contract = cast.draft(client, log_key(directory / "hub"), machine.missing())
        cast.agreed = cast.publish(client, contract)
        for home, item in zip(cast.hospitals, files, strict=True):
            stage.start_broker(item.path.parent.name, home.path, cast.collateral)
        stage.start_enclave("enclave", cast.image, cast.platform)
        times, messages = [], 0
        agreement = load_agreement(client, cast.contract)
        for _ in range(ROUNDS + 1):
            kinds: list[str] = []
            started = time.monotonic()
            run_id = request_run(
                client, cast.researcher, agreement, cast.analyses["counts"], bindings({}), SystemClock().now()
            )
            tell = lambda kind, who, kinds=kinds: kinds.append(kind)  # noqa: E731
            sealed = await_run(client, agreement, run_id, clock=SystemClock(), seconds=60, tell=tell)
            open_result(client, cast.researcher, sealed, verifiers=with_software)
            times.append(time.monotonic() - started)
            messages = len(kinds) + 2  # the request before them, the passport beside the result
        plain = _plain([item.path for item in files])
    median = statistics.median(times[1:])
    return [
        ("request to verified result, seconds", median, f"median of {ROUNDS}, first {times[0]:.2f} s, 3 owners"),
        ("messages of one run", float(messages), "request, challenges, session, grants, passport, result"),
        (
            "ratio to the same SQL in one DuckDB process",
            median / plain,
            f"{plain * 1000:.1f} ms without any protection",
        ),
    ]


def _plain(paths: list[Path]) -> float:
    query = (ASSETS / "counts.sql").read_text("utf-8")
    started = time.monotonic()
    with duckdb.connect() as connection:
        names = ", ".join(f"'{path}'" for path in paths)
        connection.execute(f"CREATE VIEW lung AS SELECT * FROM read_csv([{names}])")  # noqa: S608 - our own paths
        connection.execute(query).fetchall()
    return time.monotonic() - started
