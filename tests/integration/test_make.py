"""What a newcomer types first, typed in a fresh clone with nothing but the system's Python in the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.tree import ROOT

pytestmark = pytest.mark.slow

KEPT: Final = ("HOME", "TMPDIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")
INSTALL_SECONDS: Final = 1200
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make(target: str, clone: Path, **more: str) -> str:
    """``make`` in the clone, without this test's own environment; what it printed."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("PIP_")}
    done = subprocess.run(
        ["make", target],
        cwd=clone,
        env={**kept, "PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "NO_COLOR": "1", "COLUMNS": "160", **more},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """What is committed, in a directory of its own; it is removed afterwards, for its environment is large."""
    if not (ROOT / ".git").exists():
        pytest.skip("this tree is not a git repository, so it cannot be cloned")
    directory = tmp_path / "kakoi"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(directory)], check=True, timeout=120)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.timeout(2 * INSTALL_SECONDS)
def test_one_command_sets_everything_up_and_runs_the_main_job(clone: Path) -> None:
    """``make demo``, then ``make test`` as far as finding its tests: the tests themselves run around this one."""
    said = make("demo", clone).partition("/kakoi demo\n")[2]
    lines = [line for line in said.splitlines() if line.strip()]
    assert "software" in " ".join(lines[:4])
    assert "software" in " ".join(lines[-4:])
    for published in ("394", "306", "199", "0.017045", "-0.513219", "0.443485", "0.011281"):
        assert published in said
    assert len(list((clone / "demo-out").rglob("*.svg"))) >= 1
    assert len(list((clone / "demo-out").rglob("*.png"))) >= 1
    found = make("test", clone, PYTEST_ADDOPTS="--collect-only")
    assert "tests/integration/test_readme.py" in found
    assert "tests/attacks/test_attack_passport.py" in found
