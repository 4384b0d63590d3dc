"""The source tree as data, for the tests that read it."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SRC: Final = ROOT / "src" / "kakoi"
PURE_ROOMS: Final = ("core", "attest", "dataset", "tlog", "contract", "wire")
PURE_MODULES: Final = (
    "broker/decide.py",
    "guard/happening.py",
    "guard/chain.py",
    "guard/coalesce.py",
    "guard/sigma/match.py",
    "guard/sigma/engine.py",
)
"""Pure modules of rooms that do I/O elsewhere."""


def sources(*rooms: str) -> list[Path]:
    """Python files of the given rooms, or of all."""
    return sorted(path for room in rooms or ("",) for path in (SRC / room).rglob("*.py"))


def pure_sources() -> list[Path]:
    """Files that may do no I/O."""
    return sources(*PURE_ROOMS) + [SRC / name for name in PURE_MODULES]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), str(path))


def relative(path: Path) -> str:
    """A path as messages show it."""
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def tracked() -> list[Path]:
    """Files that git knows or would add: what a reader of the repository gets."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]
