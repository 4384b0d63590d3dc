"""When a job ended shows only at multiples of the contract's grain; a lease that ends meanwhile ends the waiting."""

from __future__ import annotations

import time

import pytest

from kakoi.core.errors import Refused
from kakoi.enclave.keeper.compute import wait_for_grain


def test_short_and_long_jobs_end_at_multiples() -> None:
    for already in (0.01, 0.29, 0.31):
        begun = time.monotonic() - already
        wait_for_grain(begun, 0.3, lambda: False)
        spent = time.monotonic() - begun
        assert spent >= (0.3 if already < 0.3 else 0.6)


def test_a_lease_that_ends_ends_the_waiting() -> None:
    begun = time.monotonic()
    with pytest.raises(Refused) as caught:
        wait_for_grain(begun, 3600, lambda: True)
    assert caught.value.code == "sandbox.stopped"
    assert time.monotonic() - begun < 60
