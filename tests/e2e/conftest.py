from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.theatre import CHROMIUM, Theatre


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The whole deployment, its first contract in force, nobody enrolled yet."""
    if not CHROMIUM:
        pytest.skip("needs Debian's packages chromium and fonts-noto-cjk (scripts/system-packages.sh test)")
    directory: Path = tmp_path_factory.mktemp("theatre")
    with Theatre(directory) as made:
        made.set_up()
        yield made
