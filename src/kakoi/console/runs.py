"""Runs and results as this party sees them: who said what and when, each check of the evidence, and the verified output."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kakoi.attest.report import Check
from kakoi.console.library import Library, Whole
from kakoi.contract.sign import Signed, open_signed
from kakoi.core import dsse
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import parse_id
from kakoi.party.files import read_limited, write_private
from kakoi.party.home import PartyHome
from kakoi.sdk.released import intervals, released
from kakoi.sdk.run import open_result
from kakoi.sdk.verify import VerifiedResult, Verifiers, verify_result
from kakoi.sdk.waiting import ALL_KINDS, Waiting, Waits
from kakoi.wire.analyst_run import open_session
from kakoi.wire.messages import (
    Challenge,
    Denial,
    KeyGrant,
    Lease,
    RunFailure,
    RunRequest,
    SealedResult,
    Session,
    SessionRenewal,
)
from kakoi.wire.released import ReleasedStatistics, ReleasedTable
from kakoi.wire.renewal import open_renewal
from kakoi.wire.result import ResultFile

KINDS: Final = (
    Challenge.KIND,
    Session.KIND,
    KeyGrant.KIND,
    SessionRenewal.KIND,
    Lease.KIND,
    Denial.KIND,
    RunFailure.KIND,
    SealedResult.KIND,
)
State = Literal["waiting", "running", "done", "denied", "failed", "abandoned"]
_MOST_KEPT: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One message of a run that an entitled sender signed."""

    kind: str
    """``challenge``, ``session``, ``key-grant``, ``session-renewal``, ``lease``, ``denial``, ``run-failure``, ``result``;
    ``renewal`` for a whole round of renewing the leases."""
    who: str
    """The owner's name; empty for the enclave."""
    at: int | None
    renewal: int = 0
    """Which round of renewing it belongs to; 0: none."""
    until: int | None = None
    """Of a grant or lease: when it ends."""
    parts: tuple[Step, ...] = ()
    """Of a round: what was said in it."""
    checks: tuple[Check, ...] = ()
    code: str = ""
    message: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run with everything that was said about it."""

    id: str
    whole: Whole
    request: RunRequest
    state: State
    steps: tuple[Step, ...]
    said: int
    """How many messages there are."""
    result: SealedResult | None

    @property
    def owners(self) -> int:
        """How many owners give keys and leases."""
        return len({entry.owner for entry in self.whole.contract.data})

    @property
    def title(self) -> str:
        """Title of the analysis; its id if the contract does not name it."""
        known = self.whole.analyses.get(self.request.analysis)
        return known.record.title if known else self.request.analysis[:12]


def view(library: Library, identity: str) -> RunView:
    """A run. Raises Refused if no party of its contract signed the request. One that has ended is read once."""
    kept = library.kept("run", identity)
    if isinstance(kept, RunView):
        return kept
    envelope = library.envelope(parse_id(identity))
    claimed = RunRequest.decode(envelope.payload)
    whole = library.whole(claimed.contract)
    if claimed.party not in whole.cards:
        raise Refused("contract.unknown-party", "expected a party of the contract, got somebody else")
    request = open_signed(RunRequest, envelope, whole.cards[claimed.party]).record
    reader = _Reader(whole, identity)
    said = list(reader.steps(library))
    steps = _in_rounds(said)
    run = RunView(
        id=identity,
        whole=whole,
        request=request,
        state=_state(library, identity, steps),
        steps=steps,
        said=len(said),
        result=reader.result,
    )
    if run.state in ("done", "failed"):
        library.keep("run", identity, run)
    return run


def waiting(library: Library, run: RunView) -> Waiting | None:
    """What a run waits for now, as far as that can be told: None of one that has ended or of a contract that is not approved."""
    if run.state not in ("waiting", "running"):
        return None
    try:
        agreement = library.agreement(run.whole.id)
        owners = agreement.owners_of(run.request.analysis)
    except (Malformed, Refused, KeyError):
        return None
    following = Waits(agreement=agreement, run=run.id, owners=owners)
    for item in library.items(*ALL_KINDS, run=run.id):
        following.saw(item.kind, library.envelope(item.id))
    return following.now(library.run_state(run.id))


def _in_rounds(said: list[Step]) -> tuple[Step, ...]:
    """Renewals as one step each, at the place of their first message: a long job has hundreds of them."""
    rounds: dict[int, list[Step]] = {}
    order: list[Step | int] = []
    for step in said:
        if step.renewal == 0:
            order.append(step)
        else:
            if step.renewal not in rounds:
                order.append(step.renewal)
            rounds.setdefault(step.renewal, []).append(step)
    return tuple(_round(item, rounds[item]) if isinstance(item, int) else item for item in order)


def _round(number: int, parts: list[Step]) -> Step:
    leases = [part for part in parts if part.kind == "lease"]
    return Step(
        kind="renewal",
        who="",
        at=parts[0].at,
        renewal=number,
        until=min((part.until for part in leases if part.until is not None), default=None),
        parts=tuple(parts),
    )


def _state(library: Library, identity: str, steps: tuple[Step, ...]) -> State:
    """From what was signed; the hub's word counts only for what nobody signs."""
    kinds = {step.kind for step in steps}
    signed: tuple[tuple[str, State], ...] = (("result", "done"), ("denial", "denied"), ("run-failure", "failed"))
    for kind, state in signed:
        if kind in kinds:
            return state
    said = library.run_state(identity).state
    if said in ("failed", "abandoned"):
        return "abandoned"
    return "running" if kinds else "waiting"


class _Reader:
    """Reads a run's messages; what nobody entitled signed is noise and left out."""

    def __init__(self, whole: Whole, run: str) -> None:
        self._whole, self._run = whole, run
        self._sessions: dict[str, Signed[Session]] = {}
        self.result: SealedResult | None = None

    def steps(self, library: Library) -> Iterator[Step]:
        """What was said, in order of arrival. What owners sign never changes, so it is read once."""
        for item in library.items(*KINDS, run=self._run):
            kept = library.kept("step", item.id)
            if isinstance(kept, Step):
                yield kept
                continue
            try:
                step = self._read(item.kind, library.envelope(item.id))
            except (Malformed, Refused, KeyError):
                continue
            if step.who:
                library.keep("step", item.id, step)
            yield step

    def _read(self, kind: str, envelope: Envelope) -> Step:
        short = kind.split("/")[1]
        if kind == Challenge.KIND:
            card = self._whole.cards[Challenge.decode(envelope.payload).owner]
            asked = open_signed(Challenge, envelope, card).record
            return Step(kind=short, who=card.record.name, at=asked.issued_at, renewal=asked.renewal)
        if kind in (KeyGrant.KIND, Lease.KIND):
            return self._yes(kind, short, envelope)
        if kind == Denial.KIND:
            card = self._whole.cards[Denial.decode(envelope.payload).owner]
            no = open_signed(Denial, envelope, card).record
            return Step(
                kind=short,
                who=card.record.name,
                at=no.denied_at,
                checks=no.checks,
                code=no.code,
                message=no.message,
                hint=no.hint,
            )
        return self._of_enclave(kind, short, envelope)

    def _yes(self, kind: str, short: str, envelope: Envelope) -> Step:
        given: KeyGrant | Lease
        if kind == Lease.KIND:
            card = self._whole.cards[Lease.decode(envelope.payload).owner]
            given = open_signed(Lease, envelope, card).record
        else:
            card = self._whole.cards[KeyGrant.decode(envelope.payload).owner]
            given = open_signed(KeyGrant, envelope, card).record
        return Step(
            kind=short,
            who=card.record.name,
            at=given.issued_at,
            renewal=given.renewal if isinstance(given, Lease) else 0,
            until=given.lease_until,
            checks=given.verdict.checks,
        )

    def _of_enclave(self, kind: str, short: str, envelope: Envelope) -> Step:
        if kind == Session.KIND:
            session = open_session(envelope)
            self._sessions[session.id] = session
            return Step(kind=short, who="", at=None)
        if kind == SessionRenewal.KIND:
            claimed = SessionRenewal.decode(envelope.payload)
            renewal = open_renewal(envelope, self._sessions[claimed.session]).record
            return Step(kind=short, who="", at=None, renewal=renewal.renewal)
        if kind == RunFailure.KIND:
            failure = RunFailure.decode(envelope.payload)
            dsse.verify(envelope, self._sessions[failure.session].record.verifying_key)
            return Step(kind=short, who="", at=None, code=failure.code, message=failure.message, hint=failure.hint)
        result = SealedResult.decode(envelope.payload)
        dsse.verify(envelope, self._sessions[result.session].record.verifying_key)
        self.result = result
        return Step(kind=short, who="", at=None)


class Results:
    """Results that this party may open: fetched, decrypted and verified once, then kept in its own directory."""

    def __init__(self, library: Library, home: PartyHome, verifiers: Verifiers) -> None:
        self._library, self._home, self._verifiers = library, home, verifiers
        self._lock = threading.Lock()
        self._kept: dict[str, VerifiedResult] = {}

    def may_open(self, whole: Whole) -> bool:
        """Whether this party is a recipient."""
        return bool(set(self._home.ids) & set(whole.contract.recipients))

    def file(self, run: RunView) -> bytes:
        """The bytes of ``result.kakoi``. Raises Refused if there is no result or it is not for this party."""
        self.opened(run)
        return read_limited(self._path(run.id), limit=ResultFile.MAX_BYTES)

    def opened(self, run: RunView) -> VerifiedResult:
        """The verified result. Raises Refused for whatever does not verify."""
        with self._lock:
            if run.id in self._kept:
                return self._kept[run.id]
        path = self._path(run.id)
        if path.exists():
            verified = verify_result(read_limited(path, limit=ResultFile.MAX_BYTES), verifiers=self._verifiers)
        else:
            if run.result is None:
                raise Refused(
                    "result.none", "expected a run with a result, got one without", hint="see what was said about it"
                )
            opened = open_result(self._library.hub, self._home, run.result, verifiers=self._verifiers)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            write_private(path, opened.file)
            verified = opened.verified
        with self._lock:
            self._kept[run.id] = verified
            while len(self._kept) > _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
        return verified

    def _path(self, run: str) -> Path:
        return self._home.path / "results" / f"{parse_id(run)}.kakoi"


def output_named(verified: VerifiedResult, name: str) -> ReleasedTable | ReleasedStatistics:
    """An output by name. Raises Refused if there is none."""
    for output in released(verified).outputs:
        if output.name == name:
            return output
    raise Refused("result.output-unknown", "expected an output of this result, got another name")


def as_csv(output: ReleasedTable | ReleasedStatistics) -> bytes:
    """An output as CSV (RFC 4180), UTF-8 with a byte order mark, because spreadsheets ask for one.

    Cells that a spreadsheet would take for a formula are prefixed with an apostrophe, unless they are numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    if isinstance(output, ReleasedStatistics):
        writer.writerow(("name", "value"))
        writer.writerows((value.name, value.number or "") for value in output.values)
    else:
        ends = _interval_columns(output)
        writer.writerow([*(column.name for column in output.columns), *ends, "held_back"])
        for row in range(len(output.columns[0].cells)):
            cells = [_safe(column.cells[row] or "") for column in output.columns]
            cells += [cells_of[row] or "" for cells_of in ends.values()]
            kept = "|".join(column.name for column in output.columns if row in column.held_back)
            writer.writerow([*cells, kept])
    return text.getvalue().encode("utf-8-sig")


def _interval_columns(output: ReleasedTable) -> dict[str, Sequence[str | None]]:
    """The ends of intervals as columns of their own, where numbers have noise."""
    return {
        f"{name}_{end}": cells
        for name, ends in intervals(output).items()
        for end, cells in zip(("low", "high"), ends, strict=True)
    }


def _safe(cell: str) -> str:
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(cell):
        return "'" + cell
    return cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def as_parquet(output: ReleasedTable | ReleasedStatistics) -> bytes:
    """An output as Parquet: labels as text, numbers as doubles, what is held back as null with its name in ``held_back``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(output, ReleasedStatistics):
        names = [value.name for value in output.values]
        numbers = [_double(value.number) for value in output.values]
        table = pa.table({"name": pa.array(names, pa.string()), "value": pa.array(numbers, pa.float64())})
    else:
        columns = {}
        for column in output.columns:
            if column.role == "group":
                columns[column.name] = pa.array(list(column.cells), pa.string())
            else:
                columns[column.name] = pa.array([_double(cell) for cell in column.cells], pa.float64())
        for name, ends in _interval_columns(output).items():
            columns[name] = pa.array([_double(cell) for cell in ends], pa.float64())
        rows = range(len(output.columns[0].cells))
        kept = ["|".join(c.name for c in output.columns if row in c.held_back) for row in rows]
        table = pa.table({**columns, "held_back": pa.array(kept, pa.string())})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _double(text: str | None) -> float | None:
    return None if text is None else float(text)
