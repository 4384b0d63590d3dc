"""What all tests share: one Hypothesis profile, small and without deadlines, because machines that run tests are slow
and shared; the broker in its small world; and one real deployment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings

from support.broker_setting import Setting, make_setting

if TYPE_CHECKING:
    from support.deployment import Deployment

_GROUP: Final = re.compile(r'xdist_group\("([\w-]+)"\)|\bon_deployment\b')

settings.register_profile("kakoi", deadline=None, max_examples=30)
settings.load_profile("kakoi")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, keep files that use one deployment on one of them.

    The mark ``xdist_group`` alone does not: pytest-xdist 3.8 writes it into an attribute that pytest 9.2 no longer reads, so
    each worker would start a deployment of its own. Here whole files are grouped, by the mark that stands in them.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

    class ByFile(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return _group(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return ByFile(config, log)


@cache
def _group(file: Path) -> str:
    """The group that a test file names; empty if none."""
    marks = _GROUP.search(file.read_text("utf-8"))
    return "" if marks is None else marks[1] or "deployment"


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
