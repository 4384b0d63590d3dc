"""Runs: the list, one run live, its result as tables, plots and files, and what its passport proves."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from kakoi.console import runs
from kakoi.console.library import Whole
from kakoi.console.memory import Memory
from kakoi.console.plot import plot
from kakoi.console.runs import RunView
from kakoi.console.visit import Visit
from kakoi.contract.model import Analysis
from kakoi.core.errors import KakoiError, Malformed, Refused, Unavailable
from kakoi.core.ids import parse_id
from kakoi.sdk.released import released, shown
from kakoi.sdk.run import bindings, request_run
from kakoi.sdk.verify import VerifiedResult

_STREAM_SECONDS: Final = 120
_STREAMS: Final = 16
_FILE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,63})\.(csv|parquet)\Z")


def runs_page(visit: Visit) -> Response:
    """Every run of every contract, newest first."""
    library = visit.console.library
    found = [(whole, request) for whole in library.contracts() for request in library.runs(whole)]
    found.sort(key=lambda pair: pair[1].record.requested_at, reverse=True)
    views = [runs.view(library, request.id) for _, request in found[:50]]
    return visit.page("runs.html", runs=views, more=len(found) - len(views))


def _view(visit: Visit) -> RunView:
    run = runs.view(visit.console.library, parse_id(visit.path("run")))
    if not set(run.whole.cards) & set(visit.console.home.ids):
        raise Refused("contract.not-party", "expected a run of a contract that names this party, got another")
    return run


def run_page(visit: Visit) -> Response:
    """One run."""
    run = _view(visit)
    return visit.page("run.html", **_values(visit, run), **_result(visit, run))


def run_part(visit: Visit) -> Response:
    """The part of the page that changes while a run goes on."""
    return visit.page("_steps.html", **_values(visit, _view(visit)))


def _values(visit: Visit, run: RunView) -> dict[str, Any]:
    return {
        "run": run,
        "waiting": runs.waiting(visit.console.library, run),
        "decisions": Memory(visit.console.home).decisions(run=run.id, limit=20),
        "software": any(policy.platform == "software" for policy in run.whole.contract.platforms.accepted),
    }


def _result(visit: Visit, run: RunView) -> dict[str, Any]:
    """The verified result, if there is one for this party; else why not."""
    results = visit.console.results
    none: dict[str, Any] = {"verified": None, "outputs": [], "refused": None, "recipient": results.may_open(run.whole)}
    if run.state != "done" or not none["recipient"]:
        return none
    try:
        verified = results.opened(run)
    except KakoiError as error:
        return {**none, "refused": error}
    visit.console.store.run("insert or ignore into seen values (?, ?)", run.id, visit.console.clock.now())
    outputs = [
        (output, shown(output), plot(output, held_back=visit.text("result.held-back")))
        for output in released(verified).outputs
    ]
    return {**none, "verified": verified, "outputs": outputs, "gate": released(verified).decisions}


def run_events(visit: Visit) -> Response:
    """Server-sent events: ``changed`` when something was said or it waits for something else, ``ended`` when it is over."""
    run = _view(visit)
    if len(visit.console.streams) >= _STREAMS:
        raise Unavailable("console.busy", "expected room for another live page, got none", hint="reload the page later")
    return StreamingResponse(_events(visit, run), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _events(visit: Visit, run: RunView) -> Iterator[str]:
    library = visit.console.library
    seen = (run.said, runs.waiting(library, run))
    end = time.monotonic() + _STREAM_SECONDS
    visit.console.streams.append(run.id)
    try:
        yield "retry: 2000\n\n"
        while time.monotonic() < end:
            now = runs.view(library, run.id)
            news = (now.said, runs.waiting(library, now))
            if news != seen:
                seen = news
                yield "event: changed\ndata: \n\n"
            if now.state in ("done", "denied", "failed", "abandoned"):
                yield "event: ended\ndata: \n\n"
                return
            time.sleep(0.4)
            yield ": still here\n\n"
    except KakoiError:
        yield "event: changed\ndata: \n\n"
    finally:
        visit.console.streams.remove(run.id)


def output_file(visit: Visit) -> Response:
    """One output as CSV or Parquet."""
    match = _FILE.match(visit.path("file"))
    if match is None:
        raise Refused("console.not-found", "expected the address of a page of this console, got another")
    run = _view(visit)
    output = runs.output_named(visit.console.results.opened(run), match[1])
    csv = match[2] == "csv"
    data = runs.as_csv(output) if csv else runs.as_parquet(output)
    kind = "text/csv; charset=utf-8" if csv else "application/vnd.apache.parquet"
    name = f"{match[1]}-{run.id[:8]}.{match[2]}"
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


def result_file(visit: Visit) -> Response:
    """``result.kakoi``, for ``kakoi verify``."""
    run = _view(visit)
    headers = {"content-disposition": f'attachment; filename="result-{run.id[:8]}.kakoi"'}
    return Response(visit.console.results.file(run), media_type="application/octet-stream", headers=headers)


def passport_page(visit: Visit) -> Response:
    """What the passport proves, as a tree from the result down to the hardware."""
    run = _view(visit)
    verified: VerifiedResult = visit.console.results.opened(run)
    return visit.page("passport.html", run=run, verified=verified, whole=run.whole)


# Asking for a run -----------------------------------------------------------------------------------------------------


def ask_page(visit: Visit) -> Response:
    """A form with the parameters of one analysis."""
    whole = visit.console.library.whole(visit.path("contract"))
    identity = visit.path("analysis")
    return visit.page("ask.html", whole=whole, identity=identity, analysis=_named(whole, identity))


def ask(visit: Visit) -> Response:
    """Sign the request, and go and watch it."""
    console = visit.console
    agreement = console.library.agreement(visit.path("contract"))
    identity = parse_id(visit.path("analysis"))
    whole = console.library.whole(agreement.id)
    values = {
        parameter.name: _value(visit, parameter.name, parameter.type)
        for parameter in _named(whole, identity).parameters
    }
    console.library.hub.put_object(console.home.card.envelope)
    run = request_run(console.library.hub, console.home, agreement, identity, bindings(values), console.clock.now())
    console.store.note(console.clock.now(), visit.who.member.name, "run-asked", run)
    return visit.go(f"/runs/{run}")


def _named(whole: Whole, identity: str) -> Analysis:
    if identity not in whole.analyses:
        raise Refused(
            "request.analysis",
            "expected an analysis that the contract names, got another",
            hint="all parties must approve a new version of the contract that lists it",
        )
    return whole.analyses[identity].record


def _value(visit: Visit, name: str, kind: str) -> str | int:
    text = visit.field(f"parameter-{name}", most=80)
    if kind != "integer":
        return text
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise Malformed("console.form", f"expected a whole number in the field {name}")
    return int(text)
