"""What command-line tests share. They read whole lines: the console is as wide as it must be, whatever ran before in the same process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kakoi.cli import ui
from support.command_line import Run, runner
from support.hub_setting import Setting, make_party, set_up


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both consoles are 400 columns wide."""
    for console in (ui.out, ui.err):
        monkeypatch.setattr(console, "_width", 400)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """English, and retries without pauses, so that an absent hub is known at once."""

    class Never:
        @staticmethod
        def random() -> float:
            return 0.0

    monkeypatch.setattr("kakoi.net.caller.random.SystemRandom", Never)
    monkeypatch.setenv("KAKOI_LANG", "en")
    monkeypatch.delenv("KAKOI_PASSPHRASE", raising=False)


@pytest.fixture
def party(tmp_path: Path) -> tuple[Path, Path]:
    return make_party(tmp_path)


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with set_up(tmp_path_factory.mktemp("hub")) as setting:
        yield setting
