"""Running an analysis in Python: the same code in the enclave's sandbox and on the analyst's own machine.

Here the analyst's source and this module share a process, so nothing in this module protects anything: it shapes an honest
answer. The sandbox contains the process, and the gate judges the bytes that come out of it.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kakoi.enclave.engines.collect import collect
from kakoi.enclave.failures import Stopped
from kakoi.enclave.job import Job, JobOutput, JobParameter, Result

if TYPE_CHECKING:
    import pandas as pd

Analyse = Callable[..., Any]
"""``analyse(tables, parameters)``; of sealed code ``analyse(tables, parameters, files)``."""
ENTRY: Final = "analyse"


def load(source: str) -> Analyse:
    """The function ``analyse`` that a source defines. Raises Stopped (``python.source``), and what the source raises."""
    return _defined(_compiled(source))


def _compiled(source: str) -> types.CodeType:
    try:
        return compile(source, "<analysis>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Stopped("python.source") from None


def _defined(code: types.CodeType) -> Analyse:
    module = types.ModuleType("analysis")
    sys.modules["analysis"] = module
    exec(code, module.__dict__)  # noqa: S102 - this is what the sandbox is for
    found = module.__dict__.get(ENTRY)
    if not callable(found):
        raise Stopped("python.source")
    function: Analyse = found
    return function


def _sealed_source(files: Mapping[str, bytes]) -> str:
    """The source among the files of sealed code: the first. Raises Stopped (``python.source``)."""
    try:
        return next(iter(files.values())).decode("utf-8")
    except (StopIteration, UnicodeDecodeError):
        raise Stopped("python.source") from None


def values(parameters: Sequence[JobParameter]) -> dict[str, Any]:
    """Parameters as ``analyse`` gets them: int, float or str."""
    return {p.name: float(p.value) if p.type == "number" else p.value for p in parameters}


def run_function(
    function: Analyse,
    tables: Mapping[str, pd.DataFrame],
    parameters: Mapping[str, Any],
    outputs: Sequence[JobOutput],
    files: Mapping[str, bytes] | None = None,
) -> Result:
    """Call ``analyse`` and collect what it returns, outside of any sandbox. ``files`` are those that will be sealed with it.

    Its exceptions come through; Stopped says what is wrong with the answer.
    """
    more = () if files is None else (dict(files),)
    return collect(function(dict(tables), dict(parameters), *more), outputs)


def run(job: Job, tables: Callable[[], Mapping[str, pd.DataFrame]], files: Mapping[str, bytes] | None = None) -> Result:
    """Compile a job's source, read the tables, and only then run it: what the tables leave out it never meets.

    ``files`` are those of sealed code, the source first: its ``analyse`` gets them as a third argument. What the source raises
    becomes Stopped (``python.failed``).
    """
    code = _compiled(job.source if files is None else _sealed_source(files))
    more = () if files is None else (dict(files),)
    data = dict(tables())
    try:
        returned = _defined(code)(data, values(job.parameters), *more)
    except Stopped:
        raise
    except BaseException:  # the source may raise anything, SystemExit included
        raise Stopped("python.failed") from None
    return collect(returned, job.outputs, largest=job.largest_contributors)
