"""What all tests share: one Hypothesis profile, small and without deadlines, because machines that run tests are slow
and shared; and the broker in its small world."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from support.broker_setting import Setting, make_setting

settings.register_profile("kakoi", deadline=None, max_examples=30)
settings.load_profile("kakoi")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    """A broker in a real directory, in a world whose first owner it is."""
    return make_setting(tmp_path)
