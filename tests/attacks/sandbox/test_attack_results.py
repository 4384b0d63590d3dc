"""What an analysis could hide in its answer: each is really returned from a sandbox, and the gate judges the bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from kakoi.contract.model import Limits
from kakoi.core.errors import KakoiError, Refused
from kakoi.enclave.gate.release import apply
from kakoi.enclave.sandbox import box, layers
from kakoi.enclave.sandbox.pool import Pool
from kakoi.enclave.sandbox.run import run_job
from kakoi.wire.released import Released, ReleasedStatistics, ReleasedTable
from unit.engines.parts import column, job, output, parquet, part_fds, table
from unit.gate.gate_setting import RULES, analysis, declared

SECRET = "Smith, born 1950"
LIMITS = Limits(wall_seconds=20, memory_megabytes=256, lease_seconds=60, grain_milliseconds=100)
COLUMNS = ("group:g", "count:n", "value:v")
DATA = parquet(pa.table({"g": ["a", "b"] * 10, "x": [float(i) for i in range(20)]}))
PRELUDE = """
import os, json, struct
import numpy as np, pandas as pd
SECRET = 'Smi' + 'th, born 1950'
def good(**more): return pd.DataFrame({'g': ['a', 'b'], 'n': [10, 10], 'v': [1.0, 2.0]} | more)
def raw(outputs): os.write(3, json.dumps({'kind': 'kakoi/engine-result/v1', 'outputs': outputs}, sort_keys=True, separators=(',', ':')).encode()); os._exit(0)
def col(name, cells, **more): return {'cells': cells, 'domain': [], 'magnitudes': [], 'name': name, 'support_people': [], 'support_rows': []} | more
def tab(columns, counts, **more): return {'cohorts': [], 'columns': columns, 'kind': 'table', 'margins': [], 'name': 'o', 'people': counts, 'rows': counts} | more
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    reason = {layer.name: layer.missing for layer in layers.layers()}[layers.NAMESPACES]
    if reason:
        pytest.skip(f"bubblewrap does not work here: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box, "PRELOAD", {**box.PRELOAD, "python": ("pandas", "pyarrow.parquet")})
        with Pool(without=frozenset(layers.missing()), sizes={"python": 2}) as made:
            yield made


def released(body: str, pool: Pool, *, shape: str = "table") -> Released:
    """Run ``body`` as the body of ``analyse`` and let the gate judge. Raises what run or gate raise."""
    source = PRELUDE + "def analyse(tables, parameters):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    names = COLUMNS if shape == "table" else ("value:a", "value:b")
    made = job(
        source,
        [table("t", [column("g", "string", codes=("a", "b")), column("x", "number")], ["A"])],
        [output("o", *names, shape=shape, max_rows=100)],
        engine="python",
    )
    contract = analysis(
        declared("o", *names, shape=shape, parameters=int(shape == "statistics"), max_rows=100),
        engine="python",
        source=source,
    )
    with part_fds(made, [DATA]) as parts:
        answer = run_job(made, parts, LIMITS, layers.missing(), pool=pool)
    return apply(answer, contract, [RULES], job=made)


def test_an_honest_answer_passes(pool: Pool) -> None:
    (one,) = released("return {'o': good()}", pool).outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[2].cells == ("1", "2")


REFUSED = {
    "a pickle instead of an answer": "import pickle; os.write(3, pickle.dumps({'o': good()})); os._exit(0)",
    "an object with a reduce": "class E:\n    def __reduce__(self): return os.system, ('id',)\nreturn {'o': good(v=[E(), E()])}",
    "text as a number": "return {'o': good(v=[SECRET, 1.0])}",
    "bytes as a number": "return {'o': good(v=[SECRET.encode(), 1.0])}",
    "a label that is a cell": "return {'o': good(g=[SECRET, 'b'])}",
    "a column name that is a cell": "return {'o': good().rename(columns={'v': SECRET})}",
    "one more column": "return {'o': good(w=[1.0, 2.0])}",
    "one more output": "return {'o': good(), SECRET: good()}",
    "a figure": "import io, matplotlib\nmatplotlib.use('svg')\nimport matplotlib.pyplot as plt\nb = io.StringIO(); plt.figure().savefig(b, format='svg'); return {'o': b.getvalue()}",
    "an SVG with a script": "return {'o': '<svg xmlns=\"http://www.w3.org/2000/svg\"><script>fetch(\"//x\")</script></svg>'}",
    "the same row many times": "return {'o': pd.concat([good()] * 3)}",
    "raw: another spelling": "raw([tab([col('g', ['a']), col('n', ['5']), col('v', ['1e3'])], [5])])",
    "raw: minus zero": "raw([tab([col('g', ['a']), col('n', ['5']), col('v', ['-0'])], [5])])",
    "raw: NaN with a payload": "raw([tab([col('g', ['a']), col('n', ['5']), col('v', ['NaN83'])], [5])])",
    "raw: a float": "raw([tab([col('g', ['a']), col('n', ['5']), col('v', [1.5])], [5])])",
    "raw: an unknown field": "raw([tab([col('g', ['a']), col('n', ['5']), col('v', ['1'])], [5], note=SECRET)])",
    "raw: a domain of its own": "raw([tab([col('g', [SECRET], domain=[SECRET]), col('n', ['5']), col('v', ['1'])], [5])])",
    "raw: a count that differs": "raw([tab([col('g', ['a']), col('n', ['1']), col('v', ['1'])], [500])])",
    "raw: trailing bytes": "os.write(3, b'{}' + SECRET.encode()); os._exit(0)",
    "raw: twice": 'os.write(3, b\'{"kind":"kakoi/engine-result/v1","outputs":[]}\' * 2); os._exit(0)',
    "raw: a million brackets": "os.write(3, b'[' * 1_500_000); os._exit(0)",
    "raw: deep nesting": "os.write(3, b'[' * 5000 + b']' * 5000); os._exit(0)",
    "raw: control characters": "raw([tab([col('g', ['\\x1b[2J']), col('n', ['5']), col('v', ['1'])], [5])])",
    "a failure with words": "os.write(3, json.dumps({'code': 'python.failed', 'kind': 'kakoi/engine-failure/v1', 'subject': SECRET}, separators=(',', ':')).encode()); os._exit(0)",
    "a failure of another engine": "os.write(3, json.dumps({'code': 'sql.column', 'kind': 'kakoi/engine-failure/v1', 'subject': SECRET}, separators=(',', ':')).encode()); os._exit(0)",
    "an exception with words": "raise ValueError(SECRET)",
    "an exit code": "os._exit(83)",
}


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_what_is_hidden_in_an_answer_does_not_leave(name: str, pool: Pool) -> None:
    with pytest.raises(Refused) as caught:
        released(REFUSED[name], pool)
    said = f"{caught.value} {caught.value.hint}"
    assert "Smith" not in said
    assert "83" not in said


CARRIED = {
    "small counts": ("return {'o': good(n=[1, 10])}", ("2",)),
    "nobody": ("return {'o': good(n=[0, 10])}", ("2",)),
    "digits": ("return {'o': good(v=[1.234567890123, -2.5e-12])}", ("1.23457", "-2.5e-12")),
    "NaN payloads and infinities": (
        "return {'o': good(v=[struct.unpack('<d', struct.pack('<Q', 0x7ff8000000000083))[0], float('inf')])}",
        (None, None),
    ),
    "signs of zero": ("return {'o': good(v=[-0.0, 0.0])}", ("0", "0")),
    "order of rows": ("return {'o': good()[::-1]}", ("1", "2")),
    "a number that prints text": (
        "class F(float):\n    def __repr__(self): return SECRET\nreturn {'o': good(v=[F(1), F(2)])}",
        ("1", "2"),
    ),
    "raw: digits beyond any meaning": (
        "raw([tab([col('g', ['a']), col('n', ['5']), col('v', ['1.00000000000000000000000000000000000083'])], [5])])",
        ("1",),
    ),
    "huge integers": (
        "f = good(); f['v'] = pd.Series([7**200, 1], dtype=object); return {'o': f}",
        ("1.04618e169", "1"),
    ),
}


@pytest.mark.parametrize("name", CARRIED, ids=lambda name: name.replace(" ", "-"))
def test_what_is_left_of_a_carrier(name: str, pool: Pool) -> None:
    body, cells = CARRIED[name]
    (one,) = released(body, pool).outputs
    assert isinstance(one, ReleasedTable)
    assert one.columns[2].cells == cells


def test_statistics_carry_few_digits_and_no_basis(pool: Pool) -> None:
    (one,) = released("return {'o': {'a': 0.123456789, 'b': 2.0, 'basis': 20}}", pool, shape="statistics").outputs
    assert isinstance(one, ReleasedStatistics)
    assert [value.number for value in one.values] == ["0.123457", "2"]
    with pytest.raises(KakoiError, match=r"gate\.statistics-people"):
        released("return {'o': {'a': 0.1, 'b': 2.0, 'basis': 2}}", pool, shape="statistics")
