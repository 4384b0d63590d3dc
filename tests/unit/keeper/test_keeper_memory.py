"""The keeper's own memory does not grow with the data (`make bench` measures it with 5 GB)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.tree import ROOT


def test_a_file_streams_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.keeper import measure

    assert Path(sys.modules["bench.keeper"].__file__ or "").is_relative_to(ROOT)
    small, large = (measure(megabytes * 10**6)[1] for megabytes in (10, 210))
    assert large - small < 50e6
    assert large < 250e6
