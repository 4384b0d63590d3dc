"""What each person installs is enough: an owner's broker runs without the hub's and the engines' dependencies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_IMPORT_NAMES = {"scikit-learn": "sklearn", "pyjwt": "jwt"}
_RUN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(name)
absent = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Absent())
sys.argv = ["kakoi", *sys.argv[2:]]
from kakoi.cli.main import main
main()
"""


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / name).read_text("utf-8")
    return {_IMPORT_NAMES.get(n, n).replace("-", "_") for n in re.findall(r"^([A-Za-z0-9_.-]+)==", text, re.M)}


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["party", "--help"],
        ["dataset", "seal", "--help"],
        ["contract", "sign", "--help"],
        ["broker", "serve", "--help"],
        ["verify", "--help"],
        ["attest", "verify", "--help"],
        ["conformance", "--help"],
    ],
)
def test_an_owners_machine_has_enough(command: list[str]) -> None:
    absent = locked("run.lock") - locked("owner.lock")
    assert {"fastapi", "sqlalchemy", "duckdb", "pandas", "lifelines"} <= absent
    done = subprocess.run(
        [sys.executable, "-c", _RUN, ",".join(sorted(absent)), *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_the_blocker_blocks() -> None:
    done = subprocess.run([sys.executable, "-c", _RUN, "typer", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ModuleNotFoundError: typer" in done.stderr
