"""The minted corpus, made once for all tests of this folder."""

from __future__ import annotations

from functools import cache

import pytest

from kakoi.conformance import build
from kakoi.conformance.corpus import Vector
from kakoi.conformance.trial import Kind


@cache
def minted(kind: Kind) -> tuple[Vector, ...]:
    """The minted vectors of one kind."""
    return tuple(build.vectors([kind], None))


@pytest.fixture(name="minted")
def minted_fixture() -> object:
    return minted
