"""A CSV of 1 GB from text to sealed Parquet, validated cell by cell, against the plain ways to read it, each in a process of its own.

Peers, on the same file: pyarrow that only splits the cells; pyarrow that streams them, of the types it was told, into plain Parquet
(the honest peer: the same output without judging, counting and sealing); pandas that reads all of it and writes plain Parquet.
Memory is the peak of the whole process, held against the 300 MB that a hospital's file server must have free.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

Row = tuple[str, float, str]
_TOTAL = 10**9
_PEAK_BYTES = 300e6

_SCHEMA = """
table = "encounters"
title = "Encounters"
person_column = "pid"
[columns]
pid = { type = "string" }
day = { type = "date" }
at = { type = "datetime" }
age = { type = "integer", unit = "a", min = 0, max = 120 }
sex = { type = "string", codes = ["M", "F"] }
icd = { type = "string" }
sbp = { type = "number", unit = "mm[Hg]", min = 0, max = 400 }
hba1c = { type = "number", unit = "%", missing = ["", "NA"] }
note = { type = "string" }
"""
_INGEST = """
import sys, time
from pathlib import Path
from kakoi.sdk.ingest.schema import parse_schema
from kakoi.sdk.ingest.seal import seal_dataset
schema, start = parse_schema(sys.argv[3]), time.perf_counter()
seal_dataset(Path(sys.argv[1]), schema, Path(sys.argv[2]), owner="a" * 64, data_key=bytes(32), dataset="0" * 32, version=1,
    created=0, publish_rows=False)
print(time.perf_counter() - start)
"""
_PLAIN = """
import sys, time
import pyarrow, pyarrow.csv
start = time.perf_counter()
options = pyarrow.csv.ConvertOptions(column_types={n: pyarrow.string() for n in sys.argv[2].split(",")})
for _ in pyarrow.csv.open_csv(sys.argv[1], pyarrow.csv.ReadOptions(use_threads=False), convert_options=options):
    pass
print(time.perf_counter() - start)
"""
_ARROW = """
import sys, time
import pyarrow as pa, pyarrow.csv, pyarrow.parquet as pq
start, t = time.perf_counter(), pa.string()
types = dict(zip(sys.argv[3].split(","), [t, pa.date32(), pa.timestamp("us"), pa.int64(), t, t, pa.float64(), pa.float64(), t]))
options = pa.csv.ConvertOptions(column_types=types, null_values=["", "NA"])
with pa.csv.open_csv(sys.argv[1], pa.csv.ReadOptions(use_threads=False), convert_options=options) as source:
    with pq.ParquetWriter(sys.argv[2], source.schema, compression="zstd", version="2.6") as out:
        for batch in source:
            out.write_batch(batch)
print(time.perf_counter() - start)
"""
_PANDAS = """
import sys, time
import pandas
start = time.perf_counter()
table = pandas.read_csv(sys.argv[1], dtype={"pid": "string", "sex": "string", "icd": "string", "note": "string"}, parse_dates=["day", "at"])
table.to_parquet(sys.argv[2], compression="zstd")
print(time.perf_counter() - start)
"""
_PEAK = """
# Not ru_maxrss: Linux carries the parent's peak over into it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_HEADER = "pid,day,at,age,sex,icd,sbp,hba1c,note"


def _generate(path: Path, total: int) -> None:
    """A CSV of about ``total`` bytes: 20,000 different rows, repeated."""
    pick = random.Random(1)
    rows = [
        f"P{pick.randrange(10**7):07d},20{pick.randrange(10, 25)}-{pick.randrange(1, 13):02d}-{pick.randrange(1, 29):02d},"
        f"2024-01-{pick.randrange(1, 29):02d} 1{pick.randrange(10)}:30,{pick.randrange(100)},{pick.choice('MF')},"
        f"{pick.choice(['E11.9', 'I10', 'J45.0'])},{pick.gauss(120, 20):.1f},{pick.choice(['', 'NA', '6.5'])},"
        f'"note, number {pick.randrange(10**9)} with ""quotes"""\n'
        for _ in range(20_000)
    ]
    block = "".join(rows).encode()
    with path.open("wb") as file:
        file.write(f"{_HEADER}\n".encode())
        for _ in range(total // len(block) + 1):
            file.write(block)


def _child(program: str, *arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes that ``program`` reports from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program + _PEAK, *arguments], capture_output=True, text=True, check=True
    )
    seconds, kibibytes = done.stdout.split()
    return float(seconds), int(kibibytes) * 1024


def run(total: int = _TOTAL) -> list[Row]:
    """Speed relative to each peer (1.0 is as fast), and peak memory relative to 300 MB and to pandas."""
    with tempfile.TemporaryDirectory() as place:
        path, out = Path(place) / "encounters.csv", str(Path(place) / "plain.parquet")
        _generate(path, total)
        cells, _ = _child(_PLAIN, str(path), _HEADER)
        arrow, arrow_peak = _child(_ARROW, str(path), out, _HEADER)
        pandas, pandas_peak = _child(_PANDAS, str(path), out)
        took, peak = _child(_INGEST, str(path), str(Path(place) / "out"), _SCHEMA)
        size = path.stat().st_size
    rate = f"{size / took / 1e6:.0f} MB/s of {size / 1e9:.2f} GB CSV to sealed Parquet"
    return [
        ("ingest / splitting cells with pyarrow", cells / took, rate),
        (
            "ingest / pyarrow to plain Parquet",
            arrow / took,
            f"it peaks at {arrow_peak / 1e6:.0f} MB, and judges nothing",
        ),
        ("ingest / pandas to plain Parquet", pandas / took, f"it peaks at {pandas_peak / 1e6:.0f} MB"),
        ("ingest peak memory / 300 MB", peak / _PEAK_BYTES, f"{peak / 1e6:.0f} MB at the highest; must stay below 1"),
    ]


if __name__ == "__main__":
    for name, ratio, detail in run():
        print(f"{name:40} {ratio:6.3f}   {detail}")
