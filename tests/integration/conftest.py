"""Command-line tests read whole lines: the console is as wide as it must be, whatever ran before in the same process."""

from __future__ import annotations

import pytest

from kakoi.cli import ui


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both consoles are 400 columns wide."""
    for console in (ui.out, ui.err):
        monkeypatch.setattr(console, "_width", 400)
