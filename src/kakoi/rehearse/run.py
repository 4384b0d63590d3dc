"""Rehearse a contract: what would leave, and which rules would bite, before anybody signs.

The analyses' code is not trusted here either: it runs in the same sandbox as in the enclave, on this machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from kakoi.contract.model import Analysis, Parameter
from kakoi.contract.rules import DisclosureRules
from kakoi.core.errors import KakoiError, Misuse, Refused
from kakoi.core.ids import ObjectId, PartyId
from kakoi.enclave.gate.rules import strictest
from kakoi.enclave.keeper.compute import SandboxedEngine
from kakoi.enclave.keeper.data import sealed_memory
from kakoi.enclave.keeper.data_secret import DataSecret
from kakoi.rehearse.twin import invent
from kakoi.rehearse.world import Stage, stage
from kakoi.sdk.terms import Terms
from kakoi.wire.messages import Binding, RunRequest
from kakoi.wire.preview import MOST_ROWS, AnalysisPreview, Bite, NoOutput, Preview, Rehearsal
from kakoi.wire.released import Released, ReleasedColumn, ReleasedStatistics, ReleasedTable
from kakoi.wire.request import check_parameters

SIZES: Final = (30, 300, 3000)
"""Invented people at each owner: a rule that bites with thirty may be no matter with three thousand."""
PEOPLE_RULE: Final = "minimum-cell-and-contributors"
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    PEOPLE_RULE: ("minimum_cell", "minimum_contributors"),
    "complementary-suppression": ("minimum_cell", "minimum_contributors"),
    "cohort-difference": ("cohort_difference",),
    "dominance": ("dominance_contributors", "dominance_percent", "p_percent"),
}
"""Fields of the rules behind a gate decision. A decision that is not here is said to be everybody's."""
Output = ReleasedTable | ReleasedStatistics
Tell = Callable[[str, int], None]
"""Progress: the analysis' name and the size."""


def rehearse(
    terms: Terms,
    *,
    party: PartyId,
    now: int,
    engine: SandboxedEngine,
    only: str = "",
    values: Sequence[Binding] | None = None,
    sizes: Sequence[int] = SIZES,
    accept: tuple[str, ...] = (),
    tell: Tell = lambda name, people: None,
) -> Preview:
    """The preview of a contract, or of one analysis of it (``only``: name or id). ``values``: parameters of that one.

    ``accept`` names isolation layers that this machine may lack. Raises Misuse for an unknown analysis; Refused for parameters
    outside the contract, for a contract that could not be in force, and for a machine whose sandbox lacks a layer.
    """
    chosen = [i for i, a in terms.analyses.items() if only in ("", i, a.record.name)]
    if not chosen:
        names = ", ".join(sorted(analysis.record.name for analysis in terms.analyses.values()))
        raise Misuse("run.analysis", f"expected one of the contract's analyses: {names}", hint="kakoi contract show")
    open_ones = [identity for identity in chosen if terms.analyses[identity].record.source]
    if not open_ones:
        raise Refused(
            "preview.sealed",
            "expected an analysis with open code to rehearse, got sealed code only",
            hint="its owner can rehearse it where it is not sealed",
        )
    set_up = stage(terms, accept=accept)
    twins = {size: invent({i: m.record for i, m in terms.manifests.items()}, size) for size in sizes}
    made = []
    for identity in open_ones:
        analysis = terms.analyses[identity].record
        bound = tuple(values) if values is not None else middle(analysis)
        check_parameters(analysis, bound)
        rehearsals = []
        for size in sizes:
            tell(analysis.name, size)
            rehearsals.append(_one(terms, set_up, identity, bound, size, twins[size], engine))
        made.append(
            AnalysisPreview(
                analysis=ObjectId(identity),
                name=analysis.name,
                title=analysis.title,
                parameters=bound,
                rehearsals=tuple(rehearsals),
            )
        )
    sealed = tuple(ObjectId(identity) for identity in chosen if identity not in open_ones)
    return Preview(contract=terms.id, party=party, analyses=tuple(made), not_rehearsed=sealed, made_at=now)


def middle(analysis: Analysis) -> tuple[Binding, ...]:
    """A value for each parameter: the middle of its range, or its first choice."""
    return tuple(Binding(name=p.name, value=_middle(p)) for p in sorted(analysis.parameters, key=lambda p: p.name))


def _middle(parameter: Parameter) -> str | int:
    if parameter.type == "string":
        return parameter.choices[0]
    low, high = float(parameter.minimum or 0), float(parameter.maximum or 0)
    if parameter.type == "integer":
        return int((low + high) // 2)
    return f"{(low + high) / 2:.6f}".rstrip("0").rstrip(".")


def _one(
    terms: Terms,
    set_up: Stage,
    identity: str,
    values: tuple[Binding, ...],
    size: int,
    twin: Mapping[str, bytes],
    engine: SandboxedEngine,
) -> Rehearsal:
    request = RunRequest(
        contract=set_up.agreement.id,
        analysis=ObjectId(set_up.analyses[identity]),
        parameters=values,
        party=set_up.agreement.contract.drafter,
        nonce=bytes(32),
        requested_at=terms.contract.not_before,
    )
    tables = {use.table for use in terms.analyses[identity].record.reads}
    wanted = {i: m for i, m in terms.manifests.items() if m.record.table in tables}
    secret = DataSecret.drawn()
    try:
        with _opened({set_up.manifests[i]: twin[i] for i in wanted}) as descriptors:
            judged = engine.compute(
                set_up.agreement,
                request,
                descriptors,
                secret=secret,
                seconds=terms.contract.limits.wall_seconds,
                stopped=lambda: False,
            )
    except Refused as error:
        if error.code == "sandbox.layer-missing":
            raise
        return _refused(terms, identity, size, error)
    finally:
        secret.wipe()
    released = judged.released
    return Rehearsal(
        people=size,
        outputs=tuple(map(_cut, released.outputs)),
        rows=tuple(map(_height, released.outputs)),
        refused=None,
        bites=tuple(_bites(terms, released, judged.left_out())),
    )


@contextmanager
def _opened(files: Mapping[str, bytes]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Invented files as the keeper has real ones after decryption: in sealed memory."""
    with ExitStack() as stack:
        descriptors: dict[str, tuple[int, ...]] = {}
        for identity, data in files.items():
            descriptor = os.memfd_create("kakoi-invented", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            stack.callback(os.close, descriptor)
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            sealed_memory(descriptor)
            descriptors[identity] = (descriptor,)
        yield descriptors


def _refused(terms: Terms, identity: str, size: int, error: KakoiError) -> Rehearsal:
    bites = []
    if error.code.startswith("gate."):
        output = terms.analyses[identity].record.outputs[0].name
        owners = tuple(name for name in _owners(terms) if name in error.message)
        bites = [Bite(output=output, rule=error.code, action="refused", cells=0, owners=owners)]
    return Rehearsal(
        people=size,
        outputs=(),
        rows=(),
        refused=NoOutput(code=error.code, message=error.message[:2000], hint=error.hint[:2000]),
        bites=tuple(bites),
    )


def _bites(terms: Terms, released: Released, left_out: Mapping[str, int]) -> Iterator[Bite]:
    """Rules that held something back. Rows that are not there at all count too: a result does not tell of them, a rehearsal may."""
    held = {output.name: _held(output) + left_out.get(output.name, 0) for output in released.outputs}
    said = [(d.output, d.rule) for d in released.decisions if d.action == "suppressed-cells"]
    missing = [(output, PEOPLE_RULE) for output, cells in left_out.items() if cells]
    for output, rule in dict.fromkeys([*missing, *said]):
        yield Bite(
            output=output, rule=rule, action="suppressed-cells", cells=held.get(output, 0), owners=_whose(terms, rule)
        )


def _owners(terms: Terms) -> tuple[str, ...]:
    return tuple(dict.fromkeys(terms.name(entry.owner) for entry in terms.contract.data))


def _whose(terms: Terms, rule: str) -> tuple[str, ...]:
    """Owners whose value of the rule is the strictest, and not everybody's."""
    rules: list[DisclosureRules] = [entry.rules for entry in terms.contract.data]
    strict = strictest(rules)
    theirs = {
        terms.name(entry.owner)
        for entry in terms.contract.data
        for field in _FIELDS.get(rule, ())
        if getattr(entry.rules, field) == getattr(strict, field)
    }
    return tuple(name for name in _owners(terms) if name in theirs)


def _held(output: Output) -> int:
    if isinstance(output, ReleasedStatistics):
        return 0
    return sum(len(column.held_back) for column in output.columns)


def _height(output: Output) -> int:
    return len(output.values) if isinstance(output, ReleasedStatistics) else len(output.columns[0].cells)


def _cut(output: Output) -> Output:
    """The first rows: a preview is for reading."""
    if isinstance(output, ReleasedStatistics):
        return output
    return ReleasedTable(
        name=output.name,
        columns=tuple(
            ReleasedColumn(
                name=column.name,
                role=column.role,
                cells=column.cells[:MOST_ROWS],
                held_back=tuple(place for place in column.held_back if place < MOST_ROWS),
            )
            for column in output.columns
        ),
        margins=output.margins[:MOST_ROWS],
        rows_withheld=output.rows_withheld,
        noise=tuple(replace(item, low=item.low[:MOST_ROWS], high=item.high[:MOST_ROWS]) for item in output.noise),
    )
