"""An analysis that takes as long as it is told, and a contract with short leases, for tests of jobs that go on."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import pytest

from kakoi.cli.demo.cast import other_version
from kakoi.contract.model import Analysis, ContractAnalysis, Limits, Output, OutputColumn, Parameter, TableUse
from kakoi.contract.sign import seal
from kakoi.core.ids import ObjectId, PartyId
from support.deployment import Deployment, Finished

LEASE: Final = 10
on_leases = pytest.mark.xdist_group("leases")
"""Tests that use the fixture ``leased`` carry it."""
SOURCE: Final = """
import time


def analyse(tables, parameters):
    time.sleep(parameters["seconds"])
    frame = tables["lung"]
    return {"sexes": frame.groupby("sex", as_index=False).agg(people=("age", "size"))}
"""


def analysis(author: PartyId, *, source: str = SOURCE) -> Analysis:
    """People by sex, after a sleep."""
    columns = (OutputColumn(name="sex", role="group"), OutputColumn(name="people", role="count"))
    return Analysis(
        author=author,
        name="sleeper",
        title="People by sex, slowly",
        engine="python",
        source=source,
        sealed_code=None,
        reads=(TableUse(table="lung", columns=("sex", "age")),),
        parameters=(Parameter(name="seconds", type="integer", minimum="0", maximum="600", choices=()),),
        outputs=(Output(name="sexes", shape="table", columns=columns, parameters=0, max_rows=10),),
    )


def computing(deployment: Deployment, seconds: int) -> ObjectId:
    """A run whose analysis has begun to sleep."""
    run = deployment.ask("sleeper", seconds=seconds)
    mark, deadline = f"{run[:12]} runs the analysis", time.monotonic() + 60
    while mark not in deployment.stage.log("enclave"):
        assert time.monotonic() < deadline, deployment.stage.log("enclave")[-2000:]
        time.sleep(0.05)
    return run


_FINISHED: dict[str, Finished] = {}


def long_run(deployment: Deployment) -> Finished:
    """A finished run whose leases were renewed; made once for each contract."""
    if deployment.cast.contract not in _FINISHED:
        _FINISHED[deployment.cast.contract] = deployment.finish(computing(deployment, int(LEASE * 1.6)))
    return _FINISHED[deployment.cast.contract]


def short_leases(deployment: Deployment, *, lease: int = LEASE, wall: int = 300) -> ObjectId:
    """A contract of the same parties with the sleeper and short leases, approved by all; becomes the cast's contract."""
    cast, client = deployment.cast, deployment.client
    home = cast.researcher
    envelope = seal(analysis(PartyId(home.card.id)), home.keys.signer())
    client.put_object(envelope)
    cast.analyses["sleeper"] = envelope.payload_id
    draft = other_version(
        deployment.contract,
        supersedes=cast.contract,
        analyses=(*deployment.contract.analyses, ContractAnalysis(analysis=envelope.payload_id, max_runs=100)),
        limits=replace(deployment.contract.limits, lease_seconds=lease, wall_seconds=wall),
    )
    assert isinstance(draft.limits, Limits)
    cast.agreed = cast.publish(client, draft)
    deployment.contract = draft
    return cast.agreed
