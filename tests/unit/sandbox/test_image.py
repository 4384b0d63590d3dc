"""What an engine can see, and that it is enough and not more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import kakoi
from kakoi.core.errors import Unavailable
from kakoi.enclave.sandbox import image

PACKAGE = Path(kakoi.__file__).parent


def test_the_declared_packages_and_what_they_require() -> None:
    names = {path.name for path in image.packages()}
    assert {"numpy", "pandas", "pyarrow", "sklearn", "scipy", "lifelines", "statsmodels", "duckdb"} <= names
    assert not names & {"cryptography", "httpx", "pip", "kakoi", "pytest", "fastapi", "typer", "_pytest"}


def test_a_missing_package_is_an_error_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"sandbox\.package"):
        image.packages.__wrapped__(tmp_path)


def test_requirements_are_followed_and_extras_are_not(tmp_path: Path) -> None:
    for name, requires in {
        **dict.fromkeys(image.PACKAGES, ()),
        "numpy": ("one>=1 ; python_version > '3'", 'two ; extra == "x"'),
    }.items():
        _installed(tmp_path, name, requires)
    for name in ("one", "two"):
        _installed(tmp_path, name, ())
    names = {path.name for path in image.packages.__wrapped__(tmp_path)}
    assert "one" in names
    assert "two" not in names


def _installed(site: Path, name: str, requires: tuple[str, ...]) -> None:
    folder = name.replace("-", "_")
    (site / folder).mkdir()
    information = site / f"{folder}-1.0.dist-info"
    information.mkdir()
    lines = [
        f"Name: {name}",
        *(f"Requires-Dist: {line}" for line in requires),
        "",
        "Requires-Dist: never ; a description",
    ]
    (information / "METADATA").write_text("\n".join(lines))
    (information / "RECORD").write_text(f"{folder}/__init__.py,,\n../../bin/x,,\n{folder}-1.0.dist-info/RECORD,,\n")


def test_the_image_has_no_shell_no_devices_no_configuration() -> None:
    shown = image.mapped()
    targets = [target for _, target in shown.binds]
    assert all(target.startswith(("/kakoi/", "/lib")) for target in targets)
    assert not [source for source, _ in shown.binds if source.startswith(("/etc", "/dev", "/proc", "/sys", "/bin/sh"))]
    assert len(set(targets)) == len(targets)
    assert all(Path(source).exists() for source, _ in shown.binds)
    assert set(shown.readable) <= {"/kakoi", "/lib64", "/lib"}


def test_every_bind_can_be_reached_from_a_root() -> None:
    shown = image.mapped()
    roots = image.roots(shown)
    assert all(any(source.startswith(root + "/") for root in roots) for source, _ in shown.binds)
    assert not [(a, b) for a in roots for b in roots if a != b and a.startswith(b + "/")]


def test_the_engine_loads_exactly_our_files_that_the_image_has() -> None:
    """``OURS`` is a list by hand; this compares it with what the program really imports."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import kakoi.enclave.engines.__main__;"
        "print(json.dumps([m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'kakoi' and m.__file__]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(PACKAGE.parent)], capture_output=True, text=True, check=True
    )
    loaded = {Path(name).relative_to(PACKAGE).as_posix() for name in json.loads(done.stdout)}
    assert not [name for name in loaded if not any(name == ours or name.startswith(ours + "/") for ours in image.OURS)]
    for ours in image.OURS:
        assert [name for name in loaded if name == ours or name.startswith(ours + "/")], f"{ours} is not needed"
    assert not [name for name in loaded if "crypto" in name or "keeper" in name or "gate" in name]


def test_importing_the_engine_brings_no_library_before_the_walls() -> None:
    """numpy would start threads, which Landlock would then not bind."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import kakoi.enclave.engines.__main__;"
        "print([m for m in ('numpy', 'pandas', 'pyarrow', 'duckdb') if m in sys.modules])"
    )
    site = str(image.packages()[0].parent)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(PACKAGE.parent), site],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
