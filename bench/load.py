"""Attackers and legitimate clients side by side at one hub, on loopback: what is left for whoever releases keys?

Generator, clients and hub share this machine's cores, so the numbers are those of a hub that has lost most of its processor
to the attack's own sender: they tell what holds, not how much a hub can do. The table says how busy the machine was.

Criteria (issue 7): at least 90 % of key releases within 2 s, memory bounded, nothing lost or damaged, full service within 5 s.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench._attackers import KINDS, ZERO
from bench._clinic import LONGEST, SECONDS, Clinic, Machine, Numbers, Party, client
from kakoi.core.errors import KakoiError
from kakoi.core.ids import BlobId
from kakoi.hub import upkeep
from kakoi.hub.settings import Settings
from kakoi.net.client import HubClient
from kakoi.net.identity import Identity, enclave_identity
from kakoi.net.signature import Message, Parameters, base, content_digest, fields_of

ALONE_SECONDS: Final = 6
TOGETHER_SECONDS: Final = 20
CALM_SECONDS: Final = 5
CLINICS: Final = 4
PAUSE: Final = 0.5
ALL_SECONDS: Final = 130
"""Enough runs for all phases together, and for a full service that comes late."""
_BLOB: Final = 24 * 1024 * 1024
_SPAM_PARTIES, _SPAM = 8, 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One phase: how many keys were due, how many came in time, and what it took."""

    name: str
    seconds: float
    asked: int
    in_time: int
    median: float
    slowest: float
    resident: int
    """The hub's megabytes at their most, so far."""
    hub_cpu: float
    """Share of one core that the hub got."""
    others: float
    """Share of this machine's processors that neither hub nor clients nor attackers had: of other work, and of other machines."""
    attack: str
    """What the attackers did, and what was left of it."""

    @property
    def share(self) -> float:
        return self.in_time / self.asked if self.asked else 0.0


@dataclass(slots=True, kw_only=True)
class Field:
    """A hub in a process of its own, with clinics and enclaves at work."""

    directory: Path
    process: subprocess.Popen[bytes]
    url: str
    numbers: Numbers
    stop: threading.Event
    ammunition: str
    threads: list[threading.Thread]
    clients: list[HubClient]
    machines: int
    pause: float

    def resident(self) -> int:
        """Peak megabytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1024
        raise AssertionError("no such line")

    def cpu(self) -> float:
        """Seconds of processor time."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def foreign(self) -> float:
        """Seconds of processor time that this machine spent on others, or was denied; interrupts, mostly our packets, left out."""
        counts = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
        user, nice, system, steal = (int(counts[at]) / os.sysconf("SC_CLK_TCK") for at in (0, 1, 2, 7))
        return user + nice + system + steal - self.cpu() - sum(os.times()[:4])

    def phase(self, name: str, kinds: Sequence[str], seconds: float) -> Outcome:
        """Attack with ``kinds`` (none: calm) for so long, and see how the clinics fare."""
        begun, used, foreign = time.monotonic(), self.cpu(), self.foreign()
        said = ""
        self.numbers.going.set()
        if kinds:
            command = [sys.executable, "-m", "bench._attackers", self.url, str(seconds), *kinds]
            done = subprocess.run(
                command,
                input=self.ammunition,
                capture_output=True,
                text=True,
                timeout=seconds + 60,
                check=True,
                cwd=Path(__file__).parents[1],
            )
            counts = json.loads(done.stdout.splitlines()[-1])
            said = ", ".join(f"{kind} {count / seconds:,.0f}/s" for kind, count in sorted(counts.items()))
        else:
            time.sleep(seconds)
        ended = time.monotonic()
        self.numbers.going.clear()
        cpu = (self.cpu() - used) / (ended - begun)
        others = (self.foreign() - foreign) / (ended - begun) / (os.cpu_count() or 1)
        found = self._settled(begun, ended)
        good = [value for value in found if value is not None and value <= SECONDS]
        all_times = [value for value in found if value is not None]
        return Outcome(
            name=name,
            seconds=ended - begun,
            asked=len(found),
            in_time=len(good),
            median=statistics.median(all_times) if all_times else float("inf"),
            slowest=max(all_times, default=float("inf")),
            resident=self.resident(),
            hub_cpu=cpu,
            others=max(0.0, others),
            attack=said,
        )

    def _settled(self, begun: float, ended: float) -> list[float | None]:
        """What became of the keys that were due in this time, once each has its end; those that have none never came."""
        due = int((ended - begun) / self.pause) * self.machines  # at least
        while time.monotonic() < ended + LONGEST + 5:
            time.sleep(0.5)
            if time.monotonic() > ended + SECONDS and len(self.numbers.between(begun, ended)) >= due:
                break
        found = self.numbers.between(begun, ended)
        return found + [None] * (due - len(found))

    def recovered(self, usual: float) -> float:
        """Seconds from now until keys travel as usual again, or nearly: five in a row."""
        begun = time.monotonic()
        self.numbers.going.set()
        while time.monotonic() < begun + 60:
            time.sleep(0.2)
            found = sorted((one for one in list(self.numbers.releases) if one[0] >= begun), key=lambda one: one[0])
            for at in range(len(found) - 4):
                row = found[at : at + 5]
                if all(value is not None and value <= max(3 * usual, 0.5) for _, value in row):
                    self.numbers.going.clear()
                    return row[0][0] - begun
        return float("inf")


@contextmanager
def field(*, seconds: float, clinics: int = CLINICS, pause: float = PAUSE) -> Iterator[Field]:
    """Everything at work for so long, nobody attacking yet: each clinic needs a key every ``pause`` seconds."""
    with tempfile.TemporaryDirectory(prefix="kakoi-load-") as name:
        directory = Path(name) / "hub"
        code = (
            "import pathlib,sys; from kakoi.hub.serve import serve; from kakoi.hub.settings import Settings;"
            "serve(Settings(directory=pathlib.Path(sys.argv[1]), port=0))"
        )
        with (Path(name) / "hub.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-c", code, str(directory)], stderr=log)
            cores = _apart(process.pid)
            try:
                yield _fill(directory, process, clinics, pause, seconds)
            finally:
                if process.poll() is None:
                    process.terminate()
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=30)
                    process.kill()
                os.sched_setaffinity(0, cores)


def _apart(hub: int) -> set[int]:
    """The hub on one core, everybody else (this process, and the attackers that it starts) on the others, if there are any."""
    cores = os.sched_getaffinity(0)
    first, *others = sorted(cores)
    if others:
        os.sched_setaffinity(hub, {first})
        os.sched_setaffinity(0, others)
    return cores


def _fill(directory: Path, process: subprocess.Popen[bytes], clinics: int, pause: float, seconds: float) -> Field:
    deadline = time.monotonic() + 60
    while not (directory / "address").exists():
        assert process.poll() is None, "the hub ended at once"
        assert time.monotonic() < deadline, "the hub did not start"
        time.sleep(0.05)
    url = (directory / "address").read_text().strip()
    token = (directory / "operator.token").read_text().strip()
    numbers, stop, runs = Numbers(), threading.Event(), int(seconds / pause)
    made = [Clinic(number, url, numbers, stop) for number in range(1, clinics + 1)]
    machines = [Machine(number, url, token, numbers, stop, pause) for number in range(1, clinics + 1)]
    _together([partial(clinic.ask, runs) for clinic in made])
    _together([partial(machine.claim, runs) for machine in machines])
    threads = [clinic.broker for clinic in made] + [thread for machine in machines for thread in machine.threads]
    ammunition = _ammunition(url, made[0])
    for thread in threads:
        thread.start()
    return Field(
        directory=directory,
        process=process,
        url=url,
        numbers=numbers,
        stop=stop,
        ammunition=ammunition,
        threads=threads,
        clients=[hub for one in made for hub in one.clients] + [machine.hub for machine in machines],
        machines=clinics,
        pause=pause,
    )


def _together(tasks: Sequence[Callable[[], None]]) -> None:
    """All at once. Raises what the first raised that failed."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def _ammunition(url: str, clinic: Clinic) -> str:
    """What attackers have: parties of their own, and requests that those signed, each good once; and forgeries in an owner's name."""
    parties = [Party(f"Sybil {number}") for number in range(_SPAM_PARTIES)]
    data = os.urandom(_BLOB)
    blob = BlobId(hashlib.sha256(data).hexdigest())
    for number, party in enumerate(parties):
        with client(url, f"127.65.{number}.1", party.identity) as hub:
            hub.put_object(party.card)
            if number == 0:
                hub.put_blob(blob, io.BytesIO(data), len(data))
    place, who = urlsplit(url).netloc, [party.identity for party in parties]

    def many(count: int, method: str, target: str, body: bytes = b"", length: int = 0) -> list[str]:
        return [_request(place, who[n % _SPAM_PARTIES], method, target, body, length) for n in range(count)]

    spam = []
    for number in range(_SPAM):
        party = parties[number % _SPAM_PARTIES]
        item = party.sign("analysis", author=party.id, number=number)
        spam.append(_request(place, party.identity, "PUT", f"/v1/objects/{item.payload_id}", item.encode()))
    alike = json.dumps({f"{n << 61:x}": n for n in range(20_000)}, separators=(",", ":")).encode()
    refs = "&".join(f"ref=m{n}:{n << 61:064x}" for n in range(1, 5))
    forger = replace(who[0], keyid=clinic.owner.identity.keyid)  # somebody else's key id, a well-formed signature
    given = {
        "flood": many(2000, "GET", "/v1/feed?limit=100") + many(400, "GET", "/v1/runs?limit=100"),
        "slowread": many(400, "GET", f"/v1/blobs/{blob}"),
        "bodies": many(400, "PUT", f"/v1/objects/{ZERO}", length=24 * 1024 * 1024),
        "signatures": [_request(place, forger, "GET", "/v1/feed") for _ in range(64)],
        "log": spam,
        "keys": many(60, "PUT", f"/v1/objects/{ZERO}", alike) + many(200, "GET", f"/v1/feed?{refs}"),
    }
    return json.dumps(given)


def _request(place: str, who: Identity, method: str, target: str, body: bytes = b"", length: int = 0) -> str:
    """The bytes of a signed request, as latin-1; ``length``: a body is announced and not there."""
    fields = {}
    if body or length:
        fields["Content-Length"] = str(length or len(body))
        fields["Content-Digest"] = content_digest(hashlib.sha256(body).digest())
    path, _, query = target.partition("?")
    lower = {name.lower(): value for name, value in fields.items()}
    message = Message(method=method, authority=place, path=path, query=query, fields=lower)
    now = int(time.time())
    nonce = secrets.token_urlsafe(16)
    parameters = Parameters(created=now, keyid=who.keyid, expires=now + 300, nonce=nonce)
    fields |= fields_of(message, parameters, who.sign(base(message, parameters)))
    lines = [f"{method} {target} HTTP/1.1", f"Host: {place}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines) + "\r\n\r\n" + body.decode("latin-1")


def finish(place: Field) -> tuple[int, int]:
    """Stop everybody, and look into everything: confirmed objects that are still there, and entries of the log.

    Raises Fatal if the hub's database or a blob is damaged, AssertionError if a confirmed object is gone.
    """
    place.stop.set()
    for thread in place.threads:
        thread.join(timeout=30)
    for hub in place.clients:
        hub.close()
    token = (place.directory / "operator.token").read_text().strip()
    with HubClient(place.url, identity=enclave_identity("auditor", token)) as hub:
        for envelope in place.numbers.confirmed:
            assert hub.get_object(envelope.payload_id).payload == envelope.payload
    place.process.terminate()
    place.process.wait(timeout=60)
    found = upkeep.check(Settings(directory=place.directory), blobs=True)
    return len(place.numbers.confirmed), found.size


def signed_rate(place: Field, seconds: float = 4) -> float:
    """Signed small objects a second that a calm hub takes, from four connections of as many parties."""
    parties = [Party(f"Rate {number}") for number in range(4)]
    each = 600
    ready = [[p.sign("analysis", author=p.id, number=n) for n in range(each)] for p in parties]
    done = [0] * len(parties)

    def send(number: int) -> None:
        with client(place.url, f"127.30.{number}.1", parties[number].identity) as hub:
            hub.put_object(parties[number].card)
            until = time.monotonic() + seconds
            for envelope in ready[number]:
                if time.monotonic() > until:
                    return
                with suppress(KakoiError):
                    hub.put_object(envelope)
                    done[number] += 1

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(parties))]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - begun)


def row(outcome: Outcome) -> tuple[str, float, str]:
    """A line of the table."""
    detail = (
        f"{outcome.in_time} of {outcome.asked} keys in {SECONDS:g} s, median {outcome.median:.2f} s, slowest "
        f"{outcome.slowest:.2f} s; hub {outcome.resident} MB, {outcome.hub_cpu:.0%} of a core; "
        f"others had {outcome.others:.0%} of the machine; {outcome.attack or 'nobody attacks'}"
    )
    return f"keys in time, {outcome.name}", outcome.share, detail


def run() -> list[tuple[str, float, str]]:
    """Each attack alone, then all together."""
    rows: list[tuple[str, float, str]] = [("load of the machine before", os.getloadavg()[0], f"{os.cpu_count()} cores")]
    with field(seconds=ALL_SECONDS) as place:
        place.phase("warming up", (), 2)
        rate = signed_rate(place)
        calm = place.phase("calm", (), CALM_SECONDS)
        rows += [("signed objects a second, calm", rate, "four connections beside the clinics"), row(calm)]
        for kind in KINDS:
            rows.append(row(place.phase(kind, (kind,), ALONE_SECONDS)))
        together = place.phase("all together", tuple(KINDS), TOGETHER_SECONDS)
        rows.append(row(together))
        rows.append(("seconds to full service", place.recovered(calm.median), "five keys in a row as usual"))
        rows.append(row(place.phase("calm again", (), CALM_SECONDS)))
        again = place.phase("all together again", tuple(KINDS), TOGETHER_SECONDS)
        rows.append(row(again))
        more = again.resident - together.resident
        rows.append(("megabytes more at the second time", more, "what grows with an attack's length would show here"))
        confirmed, entries = finish(place)
        rows.append(("objects lost or damaged", 0, f"{confirmed} confirmed, {entries} entries of the log verified"))
    rows.append(("load of the machine after", os.getloadavg()[0], "of the attack itself, mostly"))
    return rows


def attacked(seconds: float) -> tuple[Outcome, Outcome, float, int]:
    """The short version, for a test: calm, all attacks at once, recovery; the number of confirmed objects that were verified."""
    with field(seconds=seconds + 20) as place:
        place.phase("warming up", (), 2)
        calm = place.phase("calm", (), 3)
        together = place.phase("all together", tuple(KINDS), seconds)
        recovered = place.recovered(calm.median)
        confirmed, _ = finish(place)
    return calm, together, recovered, confirmed


__all__: list[Any] = ["attacked", "field", "finish", "run"]
