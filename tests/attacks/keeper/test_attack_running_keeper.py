"""The keeper of a real deployment, read by another root process: no owner's data key is left in it."""

from __future__ import annotations

import os

import pytest

from support.deployment import Deployment, on_deployment
from support.memory import copies

pytestmark = [
    on_deployment,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root reads the memory of a process that is not dumpable"),
]


def data_keys(deployment: Deployment) -> dict[str, bytes]:
    """Every hospital's data keys: the test plays all of them."""
    found = {}
    for home in deployment.cast.hospitals:
        for signed in home.datasets().values():
            found[f"{home.card.record.name} {signed.id[:8]}"] = home.data_key(signed.record)
    return found


def test_no_data_key_is_left_in_the_keeper_after_a_run(deployment: Deployment) -> None:
    """T61: three owners' keys were opened there; nothing of them remains, and no sandbox that saw data is alive."""
    assert deployment.honest.opened.verified.passport.grants
    deployment.enclave(running=True)
    wanted = data_keys(deployment)
    assert len(wanted) >= 3
    assert set(copies(deployment.stage.process_id("enclave"), wanted).values()) == {0}
