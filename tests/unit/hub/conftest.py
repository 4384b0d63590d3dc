"""A running hub, its client, and a clock that tests move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Limits, Settings
from kakoi.net.caller import Patience
from kakoi.net.client import HubClient
from support.hub_client import client_of
from unit.hub.hubkit import World, audit_file

LIMITS = Limits(
    stall_seconds=1, head_seconds=1, uploads=6, downloads=2, waiters=8, connections=64, free_bytes=0, late_seconds=60
)


@dataclass
class Clock:
    """The real time, and what a test adds to it."""

    offset: int = 0

    def __call__(self) -> int:
        return int(time.time()) + self.offset

    def forward(self, seconds: int) -> None:
        """Time passes."""
        self.offset += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(tmp_path: Path, clock: Clock) -> Iterator[HubServer]:
    with running(Settings(directory=tmp_path / "hub", port=0, limits=LIMITS), now=clock) as one:
        yield one
    audit_file(tmp_path / "hub")  # whatever a test did, the hub's state must be sound afterwards


@pytest.fixture
def hub(server: HubServer) -> Iterator[HubClient]:
    with client_of(server, patience=Patience(attempts=1, idle=10)) as client:
        yield client


@pytest.fixture(scope="session")
def world() -> World:
    return World()


@pytest.fixture
def token(tmp_path: Path, server: HubServer) -> str:
    return (tmp_path / "hub" / "operator.token").read_text().strip()
