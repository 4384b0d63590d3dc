"""What all tests share: one Hypothesis profile, small and without deadlines, because machines that run tests are slow
and shared; the broker in its small world; and one real deployment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from support.broker_setting import Setting, make_setting

if TYPE_CHECKING:
    from support.deployment import Deployment

settings.register_profile("kakoi", deadline=None, max_examples=30)
settings.load_profile("kakoi")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of an ``xdist_group`` on one worker: pytest-xdist 3.8 writes the group into an attribute that pytest
    9.2 no longer reads, so that each worker would start a deployment of its own.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    from _pytest.nodeid import NodeId

    for item in items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        if groups and "@" not in item.nodeid.rpartition("]")[2]:
            item._id = NodeId.parse(f"{item.nodeid}@{'_'.join(groups)}")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """A broker in a real directory, in a world whose first owner it is."""
    return make_setting(tmp_path)


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Three hospitals, an analyst, a hub, and an enclave when a test wants it: all of them processes."""
    from support.deployment import deployed  # here, because few tests need all of Kakoi

    with deployed(tmp_path_factory.mktemp("deployment")) as made:
        yield made


@pytest.fixture(scope="session")
def leased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two hospitals with an enclave, and a contract with short leases and an analysis that takes as long as it is told."""
    from support.deployment import deployed
    from support.sleeper import short_leases

    with deployed(tmp_path_factory.mktemp("leases"), hospitals=2) as made:
        short_leases(made)
        made.enclave(running=True)
        yield made
