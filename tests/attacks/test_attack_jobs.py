"""Several jobs on one enclave machine: of different contracts, at the same time, and none knows of the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kakoi.core.ids import ObjectId
from kakoi.hub.serve import running
from kakoi.hub.settings import Settings
from kakoi.net.answers import Claim
from kakoi.sdk.run import load_agreement
from support.deployment import Deployment, deployed
from support.hub_client import client_of
from support.sleeper import computing, short_leases
from unit.hub.hubkit import Party, World, put_all

pytestmark = pytest.mark.xdist_group("jobs")
Two = tuple[Deployment, ObjectId]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """An enclave with two keepers, and beside the contract in force another of the same parties."""
    with deployed(tmp_path_factory.mktemp("jobs"), hospitals=1) as made:
        first = made.cast.contract
        made.stage.start_enclave("enclave", made.cast.image, made.cast.platform, jobs=2)
        short_leases(made, lease=120)
        yield made, first


def keepers(deployment: Deployment) -> dict[int, set[int]]:
    """The keepers' processes, each with all processes below it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))

    def below(process: int) -> set[int]:
        return {process}.union(*(below(child) for child in children.get(process, [])))

    return {keeper: below(keeper) for keeper in children.get(deployment.stage.process_id("enclave"), [])}


def memory_files(processes: set[int]) -> set[int]:
    """Inodes of memory files that processes hold open."""
    found = set()
    for process in processes:
        for path in Path(f"/proc/{process}/fd").glob("*"):
            try:
                if "memfd:" in str(path.readlink()):
                    found.add(path.stat().st_ino)
            except OSError:
                continue
    return found


def namespaces(processes: set[int], kind: str) -> set[str]:
    """Names of one kind of namespace."""
    found = set()
    for process in processes:
        try:
            found.add(str(Path(f"/proc/{process}/ns/{kind}").readlink()))
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], what: str, seconds: int = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_short_job_of_one_contract_does_not_wait_for_a_long_one_of_another(two: Two) -> None:
    """And a keeper that is killed takes only its own job with it: it is replaced."""
    deployment, first = two
    long = computing(deployment, 250)
    agreement = load_agreement(deployment.client, first)
    short = deployment.finish(deployment.scene.request(agreement, "counts"))
    assert short.opened.verified.passport.contract == first
    assert deployment.client.run(long).state == "claimed"
    (one, below_one), (other, below_other) = keepers(deployment).items()
    assert not memory_files(below_one) & memory_files(below_other), "no data are open in both"
    own = namespaces({os.getpid()}, "pid")
    assert (namespaces(below_one, "pid") & namespaces(below_other, "pid")) <= own, "no sandbox is shared"
    mark = f"{long[:12]} runs the analysis"
    log = deployment.stage.log("enclave")
    assert mark in log
    idle = one if len(memory_files(below_one)) < len(memory_files(below_other)) else other
    os.kill(idle, signal.SIGKILL)
    until(lambda: idle not in keepers(deployment) and len(keepers(deployment)) == 2, "expected a new keeper")
    until(lambda: deployment.stage.log("enclave").count("ready") == 3, "expected it to be ready")
    again = deployment.finish(deployment.scene.request(agreement, "counts"))
    assert again.opened.verified.passport.contract == first
    state = deployment.client.run(long)
    assert (state.state, state.attempt) == ("claimed", 1), "the long job was not disturbed"


def test_the_end_of_the_program_is_the_end_of_its_keepers(two: Two) -> None:
    deployment, _ = two
    before = set().union(*keepers(deployment).values())
    assert before
    deployment.stage.stop("enclave", kill=True)
    until(lambda: not any(Path(f"/proc/{process}").exists() for process in before), "expected no process to stay")


def test_contracts_have_fair_shares_of_the_enclaves(tmp_path: Path) -> None:
    """One contract asks for twelve runs, two others for two each, later: nobody waits for all twelve."""
    with running(Settings(directory=tmp_path / "hub", port=0)) as server, client_of(server) as hub:
        names = {}
        worlds = {"greedy": World(), "other": World(analyst=Party("Other")), "third": World(analyst=Party("Third"))}
        for world in worlds.values():
            put_all(hub, world.setup)
        for name, runs in (("greedy", 12), ("other", 2), ("third", 2)):
            for number in range(runs):
                names[hub.put_object(worlds[name].request(number)).id] = name

        def claim() -> Claim:
            found = hub.claim(enclave="e", seconds=3600)
            assert found is not None
            return found

        order = []
        for _ in range(8):
            mine = claim()
            order.append(names[mine.run])
            hub.finish(mine)
        assert order == ["greedy", "other", "third", "greedy", "other", "third", "greedy", "greedy"]
        assert names[claim().run] == "greedy"
        names[hub.put_object(worlds["other"].request(7)).id] = "other"
        assert names[claim().run] == "other", "a contract without a job at work comes before one that has one"
        assert names[claim().run] == "greedy", "no enclave idles while somebody waits"
