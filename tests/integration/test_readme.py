"""The READMEs cannot lie: every ``sh`` command in them is run, in order, in a fresh directory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from support.tree import ROOT

READMES: Final = {"README.md": "en", "README.ja.md": "ja"}
FENCE: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\]\(([^)#:]+)\)")
CELLS: Final = re.compile(r"^│.*│$", re.MULTILINE)
SECONDS: Final = 600


def blocks(readme: str, language: str) -> list[str]:
    """Fenced blocks of one language, in order."""
    text = (ROOT / readme).read_text("utf-8")
    return [body for kind, body in FENCE.findall(text) if kind == language]


def run_all(script: str, directory: Path, language: str, *, seconds: int = SECONDS) -> subprocess.CompletedProcess[str]:
    """The script in one bash that stops at the first error; everything it started has ended afterwards."""
    shutil.copytree(ROOT / "examples", directory / "examples", symlinks=False)
    bin_directory = Path(sys.executable).parent
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("KAKOI_", "LC_", "LANG", "VIRTUAL"))
    }
    environment = {
        **kept,
        "PATH": f"{bin_directory}:{os.environ['PATH']}",
        "KAKOI_LANG": language,
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = ["bash", "-e", "-u", "-o", "pipefail", "-c", script]
    # Files, not pipes: servers in the background would hold pipes open.
    with (directory / "out").open("w") as out, (directory / "err").open("w") as err:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    said = [(directory / name).read_text("utf-8") for name in ("out", "err")]
    return subprocess.CompletedProcess(command, code, *said)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("readme", READMES)
def test_every_command_works_as_shown(readme: str, tmp_path: Path) -> None:
    """All ``sh`` blocks as one session; the outputs that the page shows are what comes out."""
    done = run_all("\n".join(blocks(readme, "sh")), tmp_path, READMES[readme])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    shown = [
        line
        for text in blocks(readme, "text")
        for line in CELLS.findall(text)
        if "·" not in line and "keeper" not in line
    ]
    assert len(shown) == 4
    for line in shown:
        assert line in done.stdout
    for name in ("pressure", "older", "fifty"):
        assert (tmp_path / "walk" / f"{name}.kakoi").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "walk" / "late.kakoi").exists()
    assert "refused, exit code 4" in done.stdout
    assert "[decision.withdrawn]" in done.stderr
    if READMES[readme] == "en":
        errors = [
            line
            for text in blocks(readme, "text")
            for line in text.splitlines()
            if line.startswith(("error:", "hint:"))
        ]
        assert len(errors) == 2
        for line in errors:
            assert line in done.stderr
    deadline = time.monotonic() + 30
    while left_running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)  # brokers write and sign their last events
    assert left_running(tmp_path) == []


def left_running(directory: Path) -> list[str]:
    """Processes that still work in the directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink().is_relative_to(directory):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_both_languages_show_the_same_commands() -> None:
    english, japanese = (blocks(readme, "sh") for readme in READMES)
    assert len(english) == len(japanese) > 8
    for one, other in zip(english, japanese, strict=True):
        assert re.sub(r" +#.*", "", one) == re.sub(r" +#.*", "", other)


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme: str) -> None:
    links = LINK.findall((ROOT / readme).read_text("utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_targets_of_make_exist(readme: str) -> None:
    targets = re.findall(r"make ([a-z]+)", (ROOT / readme).read_text("utf-8"))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert {"demo", "test"} <= set(targets)
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


WALK: Final = [
    "party new",
    "party show",
    "dataset seal",
    "dataset inspect",
    "dataset upload",
    "analysis publish",
    "platform new",
    "platform collateral",
    "enclave build",
    "enclave measure",
    "enclave policy",
    "enclave serve",
    "hub serve",
    "hub log-key",
    "contract draft",
    "contract show",
    "contract sign",
    "contract verify",
    "contract withdraw",
    "broker serve",
    "broker log",
    "run",
    "result open",
    "verify",
    "doctor",
]


@pytest.mark.parametrize("readme", READMES)
def test_the_walk_through_shows_every_step(readme: str) -> None:
    text = "\n".join(blocks(readme, "sh"))
    assert [command for command in WALK if f"kakoi {command} " not in text.replace("\n", " ")] == []
