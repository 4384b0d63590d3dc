"""An enclave's host beside the enclave: starts it as a child, passes on what it says, and writes down what that was.

The host sees nothing but the lines that an enclave says aloud anyway: which run, which step, which code.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from kakoi.cli.ui import SystemClock
from kakoi.guard.happening import Happening
from kakoi.guard.settings import read_settings
from kakoi.guard.shipped import detector_of
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Watch
from kakoi.hub.watch import event_key
from kakoi.party.files import make_directory

_LINE: Final = re.compile(r"(?P<run>[0-9a-f]{12}|-) (?P<step>.*)\Z")
_CLAIMED: Final = re.compile(r"claimed, attempt (?P<attempt>[0-9]{1,9})\Z")
_ENDED: Final = re.compile(r"(?:ends without a result|refused before a session): (?P<code>[a-z0-9.-]{1,80})\Z")
_TOLD: Final = re.compile(r"(?P<what>waits|stops): .*\[(?P<code>[a-z0-9.-]{1,80})\]")


def host(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> int:
    """Run the enclave's program with a stream of events in ``directory``; its exit code. SIGTERM ends both."""
    make_directory(directory)
    clock, settings = SystemClock().now, read_settings(directory)
    stream = Stream(
        directory / FILE, name="enclave host", component="enclave", signer=event_key(directory), now=clock()
    )
    detector = detector_of(stream, own=settings.rules)
    watch = Watch(stream, component="enclave", clock=clock, detector=detector, exports=settings.exports)
    try:
        return _run(command, environment, watch)
    finally:
        watch.close()


def _run(command: Sequence[str], environment: Mapping[str, str], watch: Watch) -> int:
    with subprocess.Popen(command, env=dict(environment), stderr=subprocess.PIPE, text=True, errors="replace") as child:  # noqa: S603 - our own program
        before = signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
        try:
            for line in child.stderr or ():
                sys.stderr.write(line)
                sys.stderr.flush()
                happening = event_of(line.rstrip("\n"), watch.clock())
                if happening is not None:
                    watch.hear(happening)
            code = child.wait()
        except KeyboardInterrupt:
            child.terminate()
            code = child.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if code not in (0, 130, -signal.SIGTERM, -signal.SIGINT):
        watch.hear(_happening("program.stopped", watch.clock(), outcome="failure", code="enclave.exit"))
    return code if code >= 0 else 128 - code


def _happening(what: str, now: int, **more: Any) -> Happening:
    return Happening(what=what, at=now, component="enclave", **{"outcome": "success", **more})


def event_of(line: str, now: int) -> Happening | None:
    """A line of an enclave as an event, if it is one of those that begin or end something."""
    match = _LINE.match(line)
    if match is None:
        return None
    about = {"about": f"run {match['run']}"} if match["run"] != "-" else {}
    step = match["step"]
    if claimed := _CLAIMED.match(step):
        return _happening("enclave.run", now, operation="claimed", attempt=int(claimed["attempt"]), **about)
    if step == "is done":
        return _happening("enclave.run", now, operation="done", **about)
    if ended := _ENDED.match(step):
        return _happening("enclave.run", now, operation="failed", outcome="failure", code=ended["code"], **about)
    if told := _TOLD.match(step):
        what = "program.stopped" if told["what"] == "stops" else "enclave.run"
        return _happening(what, now, operation=told["what"], outcome="failure", code=told["code"])
    return None
