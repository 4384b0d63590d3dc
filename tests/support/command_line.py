"""The command line as a person meets it: what comes out, the exit code, and what is left on disk. In this process, because it is faster."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from kakoi.cli.main import main

ERROR_LINE = re.compile(r"^(error:|エラー:) (?P<message>.+) \[(?P<code>[a-z0-9.-]+)\]$")
HINT_LINE = re.compile(r"^(hint:|ヒント:) (?P<hint>.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The code of the one error that was told. Fails unless there is exactly one, in the agreed form, and nothing behind it."""
        lines = self.err.strip().splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith(("error:", "エラー:"))]
        assert len(starts) == 1, f"expected one error line: {self.err!r}"
        match = ERROR_LINE.match(lines[starts[0]])
        assert match is not None, lines[starts[0]]
        rest = lines[starts[0] + 1 :]
        assert len(rest) <= 1, rest
        assert not rest or HINT_LINE.match(rest[0]), rest
        assert "Traceback" not in self.err
        message = match["message"]
        assert not message.endswith((".", "。", "!")), message
        return match["code"]


Run = Callable[..., Ran]


def runner(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("party", "show", path)`` is ``kakoi party show PATH``."""

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with patch("sys.argv", ["kakoi", *map(str, arguments)]), pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Ran(code=code if isinstance(code, int) else 0 if code is None else 1, out=said.out, err=said.err)

    return run


def everything(path: Path) -> dict[str, bytes]:
    """Every file below ``path`` and its bytes; directories with an empty value."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"" for p in sorted(path.rglob("*"))}


@contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Nothing below ``path`` is made, altered or removed."""
    before = everything(path)
    yield
    after = everything(path)
    assert sorted(after) == sorted(before)
    assert after == before
