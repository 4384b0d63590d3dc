"""The attacks' sandbox: no library preloaded, everything else as in production."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping

import pytest

from kakoi.contract.model import Limits
from kakoi.enclave.sandbox import box as box_module
from kakoi.enclave.sandbox import layers
from kakoi.enclave.sandbox.box import BASE_MEGABYTES, Box, Outcome, Settings
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import settings_for
from unit.engines.parts import column, job, output, parquet, sealed, table

CANARY = "kakoi-canary"


class Range:
    """Runs source as an analysis in a fresh sandbox. A socket of the host listens under a name of this process."""

    name = f"{CANARY}-{os.getpid()}"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

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

        the_job = job(
            source.replace(CANARY, self.name),
            [table("t", [column("a"), column("hidden", "string", readable=False)], ["A"])],
            [output("o", "count:n")],
            engine=engine,
        )
        part = sealed(parquet(pa.table({"a": [1, 2, 3], "hidden": ["hidden"] * 3})))
        contract = Limits(
            wall_seconds=max(1, int(wall)), memory_megabytes=memory, lease_seconds=60, grain_milliseconds=100
        )
        base = settings_for(contract, [part])
        settings = Settings(
            rlimits={**base.rlimits, **(limits or {})},
            threads=base.threads,
            milliseconds=base.milliseconds,
            engine_megabytes=memory,
        )
        box = Box(engine=engine, without=frozenset(layers.missing()) | without) if without else self.pool.take(engine)
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
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as listener:
        patch.setenv("KAKOI_CANARY", "CANARY")
        # lifelines takes a second to import, and no attack needs it
        patch.setattr(box_module, "PRELOAD", {**box_module.PRELOAD, "python": ("pandas", "pyarrow.parquet")})
        listener.bind("\0" + Range.name)
        listener.listen(1)
        with Pool(without=frozenset(layers.missing()), sizes={"python": 2}) as pool:
            yield Range(pool)
