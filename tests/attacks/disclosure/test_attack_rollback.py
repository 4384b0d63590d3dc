"""An owner's ledger put back to what it was: for a fresh budget, or to forget a cohort."""

from __future__ import annotations

from pathlib import Path

import pytest

from kakoi.core.errors import Fatal
from support.broker_setting import Setting, make_setting
from unit.broker.test_broker_release import put_back, releases, twice


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return make_setting(tmp_path)


@pytest.mark.parametrize(
    "names", [("ledger.*",), ("ledger.sqlite*",), ()], ids=["all of it", "without the anchor", "empty"]
)
def test_a_whole_old_copy_is_found_out_by_what_the_owner_signed(
    setting: Setting, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Database and anchor together: then the owner's own releases, which name their place, come back through the hub."""
    twice(setting, tmp_path / "keep")
    (setting.path / "ledger.head").unlink()
    put_back(setting, tmp_path / "keep", *names)

    def go_on() -> None:
        for _ in range(3):
            setting.broker().step(wait=0)

    with pytest.raises(Fatal, match=r"ledger\.rolled-back"):
        go_on()
    assert len(releases(setting)) == 2
