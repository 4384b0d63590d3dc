"""The enclave's image: exactly the files its programs reach, and their measurement.

``build`` starts the enclave's programs in fresh interpreters, sees which of our modules they load, and copies those files and the
lock of their dependencies, nothing else: hub, broker and verifiers are absent, not merely unused. ``measure`` is the reference value:
SHA-256 over every file's path and bytes. It changes when trusted code or a locked dependency changes, and only then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import kakoi
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Misuse

PROGRAMS: Final = ("kakoi.enclave.keeper.__main__", "kakoi.enclave.engines.__main__")
LOCK: Final = "enclave.lock"
_PACKAGE: Final = Path(kakoi.__file__).parent
_PROBE: Final = (
    "import sys, importlib, json; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]);"
    "print(json.dumps(sorted(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'kakoi' and m.__file__)))"
)


def closure() -> tuple[Path, ...]:
    """Our files that the enclave's programs load, and the whole of ``enclave``, which may load its parts later; sorted."""
    found = set((_PACKAGE / "enclave").rglob("*.py"))
    for program in PROGRAMS:
        command = [sys.executable, "-I", "-B", "-c", _PROBE, str(_PACKAGE.parent), program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
        if done.returncode != 0:
            raise Misuse(
                "image.import",
                f"the enclave's program {program} does not import here",
                hint="install the enclave's dependencies: pip install kakoi[enclave]",
            )
        found |= {Path(name) for name in json.loads(done.stdout.splitlines()[-1])}
    return tuple(sorted(found))


def build(out: Path) -> bytes:
    """Write the image into the new directory ``out``; returns its 32-byte measurement. Raises Misuse if it exists."""
    if out.exists():
        raise Misuse("image.exists", f"expected no {out.name} yet, found one", hint="choose a new directory")
    for path in closure():
        target = out / "kakoi" / path.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (out / LOCK).write_bytes((_PACKAGE / "enclave" / LOCK).read_bytes())
    return measure(out)


def measure(image: Path) -> bytes:
    """SHA-256 over the image's sorted relative paths and file bytes. Raises Misuse for links and for compiled files."""
    parts: list[bytes] = []
    for path in sorted(_files(image), key=lambda p: p.relative_to(image).as_posix()):
        if path.is_symlink() or path.suffix == ".pyc":
            raise Misuse("image.file", "expected plain source files in an image, got a link or a compiled file")
        parts += [path.relative_to(image).as_posix().encode("utf-8"), path.read_bytes()]
    if not parts:
        raise Misuse("image.empty", f"expected an image in {image.name}, found nothing")
    return sha256(framed(b"kakoi/image/v1", *parts))


def _files(image: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(image) for name in names]
