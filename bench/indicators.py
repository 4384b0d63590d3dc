"""How long a list of 100,000 indicators takes to read, and to ask: ``python -m bench.indicators``."""

from __future__ import annotations

import ipaddress
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kakoi.guard.intel import store
from kakoi.guard.intel.index import Shelf
from kakoi.guard.intel.indicator import FOREVER, Indicator, Kind
from kakoi.guard.intel.store import Indicators

COUNT = 100_000
ROUNDS = 2000
NOW = 1_800_000_000


def indicators() -> Indicators:
    """A fifth each of addresses, networks, keys, code and packages."""
    seeded = random.Random(1)
    made = []
    for number in range(COUNT):
        digest = f"{seeded.getrandbits(256):064x}"
        address = ipaddress.ip_address(seeded.getrandbits(32))
        network = ipaddress.ip_network((address, seeded.randint(16, 31)), strict=False)
        kinds: tuple[tuple[Kind, str], ...] = (
            ("address", f"{address}/32"),
            ("address", str(network)),
            ("key", digest),
            ("measurement", digest),
            ("package", f"name-{number}==1.0"),
        )
        kind, value = kinds[number % 5]
        identity = f"indicator--{number:08d}-0000-4000-8000-000000000000"
        made.append(
            Indicator(
                id=identity,
                kind=kind,
                value=value,
                confidence=80,
                valid_from=0,
                valid_until=FOREVER,
                source="a",
                tlp="TLP:AMBER",
                modified="2026-01-01T00:00:00.000Z",
            )
        )
    return Indicators(sources={"a": 100}, items=tuple(made))


def microseconds(work: Callable[[], object]) -> float:
    """Median of many."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[ROUNDS // 2] * 1e6


def main() -> None:
    """Measure, and print JSON."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / store.FILE).write_bytes(indicators().encode())
        begun = time.perf_counter()
        shelf = Shelf(directory)
        index = shelf.index()
        read = time.perf_counter() - begun
        begun = time.perf_counter()
        known = store.load(directory)
        before = ["ab" * 32 in known.acting(kind, NOW) for kind in ("measurement", "platform")]
        without = time.perf_counter() - begun
        print(
            json.dumps(
                {
                    "indicators": COUNT,
                    "bytes": (directory / store.FILE).stat().st_size,
                    "read_once_seconds": round(read, 2),
                    "one_judgement_without_index_seconds": round(without, 2),
                    "ask_address_us": round(microseconds(lambda: index.of_address("203.0.113.9", NOW)), 1),
                    "ask_key_us": round(microseconds(lambda: index.find("key", ("ab" * 32, "cd" * 32), NOW)), 1),
                    "one_judgement_us": round(
                        microseconds(lambda: shelf.index().find("measurement", ("ab" * 32,), NOW)), 1
                    ),
                    "found": sum(before),
                }
            )
        )


if __name__ == "__main__":
    main()
