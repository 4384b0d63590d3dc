"""The attacks' sandbox: no library preloaded, everything else as in production."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping

import pytest

from kakoi.contract.model import Limits
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.box import BASE_MEGABYTES, Box, Outcome, Settings
from kakoi.enclave.sandbox.run import settings_for
from unit.engines.parts import column, job, output, parquet, sealed, table


class Range:
    """Runs source as an analysis in a fresh sandbox."""

    def run(
        self,
        source: str,
        *,
        without: frozenset[str] = frozenset(),
        wall: float = 12.0,
        memory: int = 256,
        limits: Mapping[str, int] | None = None,
        answer_bytes: int = 200_000,
        engine: str = "python",
    ) -> Outcome:
        import pyarrow as pa

        the_job = job(source, [table("t", [column("a")], ["A"])], [output("o", "count:n")], engine=engine)
        part = sealed(parquet(pa.table({"a": [1, 2, 3]})))
        contract = Limits(wall_seconds=max(1, int(wall)), memory_megabytes=memory, lease_seconds=60)
        base = settings_for(contract, [part])
        settings = Settings(
            rlimits={**base.rlimits, **(limits or {})},
            threads=base.threads,
            milliseconds=base.milliseconds,
            engine_megabytes=memory,
        )
        box = Box(engine=engine, preload=(), without=frozenset(layers.missing()) | without)
        try:
            return box.run(
                the_job.encode(),
                [part],
                settings,
                seconds=wall,
                answer_bytes=answer_bytes,
                memory_bytes=(BASE_MEGABYTES + memory) << 20,
            )
        finally:
            box.close()
            os.close(part)


@pytest.fixture(scope="session")
def attack_range() -> Iterator[Range]:
    reason = {layer.name: layer.missing for layer in layers.layers()}[layers.NAMESPACES]
    if reason:
        pytest.skip(f"bubblewrap does not work here: {reason}")
    os.environ["KAKOI_CANARY"] = "CANARY"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0kakoi-canary")
        listener.listen(1)
        yield Range()
    del os.environ["KAKOI_CANARY"]
