"""Runs at two hubs on one PostgreSQL, of which one or both are killed at a step of the run: brokers, enclave and analyst go to the other
address, or wait for one that is back, and the run ends once, with everything in its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import pytest
from sqlalchemy import create_engine

from integration.test_crash import KINDS, check_log, check_messages, ended, granted
from kakoi.core.errors import Unavailable
from kakoi.core.ids import ObjectId
from kakoi.hub.audit import audit
from kakoi.tlog import checkpoint as checkpoints
from support.clouds import s3
from support.deployment import Deployment, deployed
from support.postgresql import cluster
from support.two_hubs import HUBS, Stores, TwoHubs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two-hubs"), pytest.mark.timeout(400)]
CLAIM_SECONDS: Final = 4
CELLS: Final = [
    pytest.param(victims, step, id=f"{name}-{step}")
    for name, victims in (("first", HUBS[:1]), ("second", HUBS[1:]), ("both", HUBS))
    for step in KINDS
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two hospitals and an enclave whose claims are short; all of them know both hubs."""
    with (
        pytest.MonkeyPatch.context() as patch,
        cluster(tmp_path_factory.mktemp("cluster")) as postgresql,
        s3() as cloud,
    ):
        for name, value in cloud.environment.items():
            patch.setenv(name, value)
        stores = Stores(database=postgresql.database(), blobs=cloud.url)
        stage = partial(TwoHubs, stores=stores)
        directory = tmp_path_factory.mktemp("pair")
        with deployed(directory, hospitals=2, claim_seconds=CLAIM_SECONDS, make_stage=stage) as made:
            made.enclave(running=True)
            yield made
        engine = create_engine(stores.database)
        with engine.connect() as connection:
            audit(connection)  # every object, every usage, the log from its entries
        engine.dispose()


def until(deployment: Deployment, run: ObjectId, step: str) -> None:
    """Return as soon as the run has reached a step."""
    for _ in range(12):
        kind = KINDS[step]
        if step == "run-request" or deployment.client.feed(kinds=(kind,), refs={"run": run}, wait=10).items:
            return
    raise AssertionError(f"the run never reached {step}")


@pytest.mark.parametrize(("victims", "step"), CELLS)
def test_a_run_outlives_its_hubs(pair: Deployment, victims: tuple[str, ...], step: str) -> None:
    stage = pair.stage
    assert isinstance(stage, TwoHubs)
    seen = checkpoints.verify(pair.client.log_checkpoint(), pair.contract.log)
    budget = granted(pair)
    run = pair.ask()
    until(pair, run, step)
    for name in victims:
        stage.kill(name)
    if victims == HUBS:
        for name in victims:
            stage.revive(name)
    try:
        finished = _finish(pair, run)
        assert finished == run
        assert ended(pair, run) == "done"
        check_messages(pair, run)
        assert granted(pair) == {name: count + 1 for name, count in budget.items()}, "one run of the budget"
        check_log(pair, seen)
    finally:
        if victims != HUBS:
            for name in victims:
                stage.revive(name)


def _finish(pair: Deployment, run: ObjectId) -> ObjectId:
    for last in (False, False, True):
        try:
            return pair.finish(run, seconds=90).opened.verified.passport.run
        except Unavailable as error:
            if last or error.code == "run.ended":
                raise
    raise AssertionError("not reached")
